"""One call of a decorated function; where nobody sees its requests, it is called again by the cards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import CoroutineType
from typing import Any

from .answers import PASSING, Meaning, Verdict, judge, judge_error
from .binding import Binding
from .clock import Monotonic
from .context import ACTIVE, attribute_of, is_from_signal_handler, is_unprotected
from .engine import Flow, Send, Sleep, Wait, run, run_async
from .events import RefreshEvent, emit, warn_once
from .policy import RetryPolicy
from .retrying import passing, refreshing, renewed, repeat
from .tokens.manager import TokenManager
from .tokens.source import LiveSource
from .wire import watch
from .wire.protection import Protection, Rules, policy_of
from .wire.request import Sent

__all__ = ["DecoratedFunction"]

_KEEP_IT = "keep the token in a parameter headers or access_token, give bind=, or call tokens.headers() inside"


@dataclass(eq=False)
class DecoratedFunction:
    """A function with rules in force around each call."""

    function: Callable[..., Any]
    rules: Rules
    binding: Binding
    is_unseen: bool = False  # no request of its last call was seen, so that it takes its slots itself
    environment: RetryPolicy | None = None  # that policy, once it was needed

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FunctionCall | None:
        """Begin one call; None where it is to be left alone."""
        if is_unprotected():
            return None
        first = self.binding.first(args, kwargs)
        policy = policy_of(self.rules, first, attribute_of(first, "tokens"), *self.rules.sources)
        if policy is None:
            policy = self.environment = self.environment or RetryPolicy.from_env()
        if not policy.enabled:
            return None
        watch()
        return FunctionCall(self, Protection(self.rules, policy, first, args, kwargs, ACTIVE.get()))


class FunctionCall:
    """One call of a decorated function."""

    def __init__(self, decorated: DecoratedFunction, protection: Protection) -> None:
        self._decorated = decorated
        self._protection = protection
        self._rules = protection.rules
        self._calls = 1
        self._joined = False  # it has a token that somebody else got

    def run(self) -> Any:
        """Call the function, until its outcome is final; a coroutine that it hands on is protected until it is done."""
        returned = self._send()
        try:
            if isinstance(returned.response, CoroutineType):
                return self.run_async(returned.response)
            if self._concerns(returned):
                returned = run(self._flow(returned), self._send)
            return returned.end()
        finally:
            del returned  # a circle would keep the call's arguments alive

    async def run_async(self, coroutine: Any = None) -> Any:
        """Await the function, or the coroutine that it handed on, until its outcome is final."""
        returned = await self._send_async(coroutine)
        try:
            if self._concerns(returned):
                returned = await run_async(self._flow(returned), self._send_async)
            return returned.end()
        finally:
            del returned  # as above

    def _send(self) -> Sent:
        protection, decorated = self._protection, self._decorated
        limiter = protection.any_limiter() if decorated.is_unseen else None  # else its requests take their slots
        if limiter is not None:
            limiter.acquire()
        before = ACTIVE.set(protection)
        try:
            value = decorated.function(*protection.args, **protection.kwargs)
            if not isinstance(value, CoroutineType):
                decorated.is_unseen = self._rules.repeats and not protection.seen
            return self._judged(value)
        except Exception as error:
            if is_from_signal_handler(error):
                raise
            return self._raised(error)
        finally:
            ACTIVE.reset(before)

    async def _send_async(self, coroutine: Any = None) -> Sent:
        protection, decorated = self._protection, self._decorated
        limiter = protection.any_limiter() if decorated.is_unseen and coroutine is None else None
        if limiter is not None:
            await limiter.acquire_async()
        before = ACTIVE.set(protection)
        try:
            value = await (coroutine or decorated.function(*protection.args, **protection.kwargs))
            if coroutine is None:
                decorated.is_unseen = self._rules.repeats and not protection.seen
            return self._judged(value)
        except Exception as error:
            return self._raised(error)
        finally:
            if ACTIVE.get() is protection:  # one that is collected unfinished must not reset another's
                ACTIVE.reset(before)

    def _judged(self, value: Any) -> Sent:
        seen, codes = self._protection.seen, self._protection.policy.expired_codes
        return Sent(Verdict(Meaning.GOOD) if seen else judge(value, codes), value)

    def _raised(self, error: Exception) -> Sent:
        """Judge an error, and let go of the frame of this package, which would keep it alive."""
        trace = error.__traceback__
        verdict = judge_error(error, self._protection.policy.expired_codes)
        return Sent(verdict, error=error.with_traceback(trace.tb_next if trace is not None else None))

    def _flow(self, first: Sent) -> Flow[Sent]:
        """Call the function until its outcome is final: the card of an expired token inside, the other one outside."""
        returned = yield from self._renewed(first)
        if self._may_repeat(returned):
            deadline = Monotonic.now() + self._protection.policy.transient_deadline
            cause = partial(passing, self._may_repeat, deadline, False)
            returned = yield from repeat(cause, returned, self._again, self._await_repeat)
        self._tell_end(returned)
        return returned

    def _renewed(self, returned: Sent) -> Flow[Sent]:
        if returned.verdict.meaning is Meaning.EXPIRED and self._may_call(returned):
            cause = partial(refreshing, self._protection.policy)
            returned = yield from repeat(cause, returned, self._call, self._renew)
        return returned

    def _again(self) -> Flow[Sent]:
        return (yield from self._renewed((yield from self._call())))

    def _call(self) -> Flow[Sent]:
        self._calls += 1
        returned: Sent = yield Send()
        return returned

    def _renew(self, returned: Sent, seconds: float) -> Flow[bool]:
        """Get another token, and put it where the function keeps its own; False where that cannot help."""
        if not self._may_call(returned):
            return False
        protection, code = self._protection, returned.verdict.code
        source, rejected, is_known = yield from self._find_rejected()
        if source is None or not is_known:
            advice = "pass tokens=TokenManager.from_env() to the decorator" if source is None else _KEEP_IT
            advice = f"nothing was seen of the requests of this function: {advice}"
            warn_once("function_not_repeated", callable=self._rules.name, advice=advice)
            return False
        replacement = yield from renewed(source, rejected, code, None, self._tell)
        if replacement is None:
            return False
        self._joined = replacement.origin != "issued"
        protection.call_back(replacement.token, source)
        protection.rebind(rejected if protection.keeps(rejected or "") else None, replacement.token)
        self._tell("call_retried", quiet=True, msg_cd=code, token=replacement.token.fingerprint, wait=seconds)
        yield Sleep(seconds)
        return True

    def _find_rejected(self) -> Flow[tuple[LiveSource | None, str | None, bool]]:
        """Return the source, the token that was refused, and whether the next call would have another one."""
        protection, binding = self._protection, self._decorated.binding
        if protection.handed is not None:  # it asked for its token by itself, and will again
            return *protection.handed, True
        source = next(iter(protection.sources()), None) or protection.broker()
        kept = binding.kept(protection.args, protection.kwargs)
        if source is None or kept:
            return source, kept, True
        if kept is None and self._rules.bind is None and isinstance(source, TokenManager):
            return source, None, False  # it would have told who asked it
        future = source.token_future()
        yield Wait(future)
        current = future.result() if future.exception() is None else None
        return source, current.value if current is not None and kept is None else None, True

    def _await_repeat(self, returned: Sent, seconds: float) -> Flow[bool]:
        self._tell("call_retried", wait=seconds, **returned.verdict.reason)
        yield Sleep(seconds)
        return True

    def _concerns(self, returned: Sent) -> bool:
        """Say whether what came of it is a failure that its decorator is about, and that nobody has dealt with."""
        rule = None if self._protection.seen else self._rule_of(returned)
        return rule is not None and rule not in self._protection.settled

    def _rule_of(self, returned: Sent) -> str | None:
        if returned.verdict.meaning is Meaning.EXPIRED:
            return "refresh" if self._rules.refreshes else None
        return "passing" if self._rules.repeats and returned.verdict.meaning in PASSING else None

    def _may_call(self, returned: Sent) -> bool:
        return self._rules.calls_again and self._protection.orders_left == 0 and self._concerns(returned)

    def _may_repeat(self, returned: Sent) -> bool:
        idempotent, meaning = self._rules.idempotent, returned.verdict.meaning
        if meaning is Meaning.EXPIRED or idempotent is False or not self._may_call(returned):
            return False
        is_read = idempotent is True or _method_of(returned) in ("GET", "HEAD")
        return self._protection.policy.transient_deadline > 0 and (meaning is Meaning.LIMITED or is_read)

    def _tell_end(self, returned: Sent) -> None:
        rule = self._rule_of(returned)
        if rule is not None:
            self._tell("call_given_up", **returned.verdict.reason)
            outer = self._protection.outer
            while outer is not None:
                outer.settled |= {rule}
                outer = outer.outer
        elif self._calls > 1:
            self._tell("call_recovered", quiet=self._joined)

    def _tell(self, name: Any, *, quiet: bool = False, **found: Any) -> None:
        emit(RefreshEvent(name=name, callable=self._rules.name, attempt=self._calls, **found), quiet=quiet)


def _method_of(returned: Sent) -> str | None:
    """Return the method of the request that a response or an exception carries; None where it carries none."""
    for carrier in (returned.response, returned.error, attribute_of(returned.error, "response")):
        request = attribute_of(carrier, "request") or attribute_of(carrier, "request_info")
        method = attribute_of(request, "method") or attribute_of(carrier, "method")
        if isinstance(method, str):
            return method.upper()
    return None
