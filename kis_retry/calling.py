"""
A decorated function whose requests nobody sees (another library's, a fake in a test): called again by the cards.

Where one of its requests was seen, that one has been dealt with where it left, and the function is not called again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .answers import Meaning, Verdict, judge, judge_error
from .clock import Monotonic
from .context import ACTIVE
from .engine import Flow, Send, Sleep, Wait
from .events import RefreshEvent, emit, warn_once
from .renewal import renewed
from .retrying import passing, refreshing, repeat
from .signals import is_from_signal_handler
from .tokens.manager import TokenManager
from .tokens.source import LiveSource
from .wire.protection import Protection

__all__ = ["FunctionCall", "Returned", "raised"]

_PASSING = frozenset((Meaning.LIMITED, Meaning.TRANSIENT, Meaning.NEVER_LEFT))
_READS = ("GET", "HEAD")
_KEEP_IT = "keep the token in a parameter headers or access_token, give bind=, or call tokens.headers() inside"


@dataclass(frozen=True)
class Returned:
    """What a function returned or raised, judged once."""

    verdict: Verdict
    value: Any = None
    error: Exception | None = None

    def end(self) -> Any:
        """Return the value, or raise the error."""
        error = self.error
        try:
            if error is not None:
                raise error
            return self.value
        finally:
            del error, self  # a circle would keep the call's arguments alive


def raised(error: Exception, protection: Protection) -> Returned:
    """Judge an error, and let go of the frame of this package, which would keep it alive."""
    trace = error.__traceback__
    verdict = judge_error(error, protection.policy.expired_codes)
    return Returned(verdict, error=error.with_traceback(trace.tb_next if trace is not None else None))


class FunctionCall:
    """One call of a function, to be made again."""

    def __init__(self, protection: Protection, function: Callable[..., Any]) -> None:
        self._protection = protection
        self._function = function
        self._calls = 1
        self._joined = False  # it has a token that somebody else got

    def concerns(self, returned: Returned) -> bool:
        """Say whether what came of it is a failure that its decorator is about, and that nobody has dealt with."""
        protection, rules = self._protection, self._protection.rules
        if protection.seen:
            return False
        if rules.refreshes and returned.verdict.meaning is Meaning.EXPIRED:
            return "refresh" not in protection.settled
        return rules.repeats and returned.verdict.meaning in _PASSING and "passing" not in protection.settled

    def flow(self, first: Returned) -> Flow[Returned]:
        """Call the function until its outcome is final."""
        protection, policy = self._protection, self._protection.policy
        returned, refreshes = first, first.verdict.meaning is Meaning.EXPIRED
        if protection.rules.calls_again and protection.orders_left == 0:
            if refreshes:
                returned = yield from repeat(partial(refreshing, policy), first, self._again, self._renew)
            elif policy.transient_deadline > 0 and self._may_repeat(first):
                deadline = Monotonic.now() + policy.transient_deadline
                cause = partial(passing, self._may_repeat, deadline, False)
                returned = yield from repeat(cause, first, self._again, self._await_repeat)
        self._tell_end(returned, "refresh" if refreshes else "passing")
        return returned

    def send(self) -> Returned:
        """Call the function once more."""
        protection = self._protection
        before = ACTIVE.set(protection)
        try:
            value = self._function(*protection.args, **protection.kwargs)
            return Returned(judge(value, protection.policy.expired_codes), value)
        except Exception as error:
            if is_from_signal_handler(error):
                raise
            return raised(error, protection)
        finally:
            ACTIVE.reset(before)

    async def send_async(self, value: Any = None) -> Returned:
        """Await what the function gave, or call it and await that."""
        protection = self._protection
        before = ACTIVE.set(protection)
        try:
            coroutine = value if value is not None else self._function(*protection.args, **protection.kwargs)
            answer = await coroutine
            return Returned(judge(answer, protection.policy.expired_codes), answer)
        except Exception as error:
            return raised(error, protection)
        finally:
            if ACTIVE.get() is protection:  # one that is collected unfinished must not reset another's
                ACTIVE.reset(before)

    def _again(self) -> Flow[Returned]:
        self._calls += 1
        returned: Returned = yield Send()
        return returned

    # -- an expired token

    def _renew(self, returned: Returned, seconds: float) -> Flow[bool]:
        """Get another token, and put it where the function keeps its own; False where that cannot help."""
        protection = self._protection
        source, rejected, is_known = yield from self._find_rejected()
        if source is None or not is_known:
            advice = "pass tokens=TokenManager.from_env() to the decorator" if source is None else _KEEP_IT
            self._advise(f"nothing was seen of the requests of this function: {advice}")
            return False
        code = returned.verdict.code
        replacement = yield from renewed(source, rejected, code, None, self._tell)
        if replacement is None:
            return False
        self._joined = replacement.origin != "issued"
        protection.call_back(replacement.token, source)
        protection.rebind(rejected if protection.keeps(rejected or "") else None, replacement.token)
        self._tell("call_retried", quiet=True, msg_cd=code, token=replacement.token.fingerprint, wait=seconds)
        if seconds:
            yield Sleep(seconds)
        return not protection.seen

    def _find_rejected(self) -> Flow[tuple[LiveSource | None, str | None, bool]]:
        """Return the source, the token that was refused, and whether the next call would have another one."""
        protection = self._protection
        if protection.handed is not None:  # it asked for its token by itself, and will again
            return *protection.handed, True
        source = next(iter(protection.sources()), None) or protection.broker()
        binding = protection.rules.binding
        kept = binding.kept(protection.args, protection.kwargs) if binding is not None else None
        if source is None or kept:
            return source, kept, True
        has_place = kept is not None or (binding is not None and binding.has_callback())
        if not has_place and isinstance(source, TokenManager):
            return source, None, False  # it would have told who asked it
        future = source.token_future()
        yield Wait(future)
        current = future.result() if future.exception() is None else None
        return source, current.value if current is not None and kept is None else None, True

    # -- failures that pass

    def _may_repeat(self, returned: Returned) -> bool:
        idempotent, meaning = self._protection.rules.idempotent, returned.verdict.meaning
        if idempotent is False or meaning not in _PASSING or self._protection.seen:
            return False
        return meaning is Meaning.LIMITED or idempotent is True or _method_of(returned) in _READS

    def _await_repeat(self, returned: Returned, seconds: float) -> Flow[bool]:
        verdict = returned.verdict
        error = None if verdict.code is not None else verdict.error or "HTTPError"
        self._tell("call_retried", msg_cd=verdict.code, error=error, wait=seconds)
        limiter = self._protection.any_limiter()
        if limiter is not None:
            slot = limiter.reserve()
            try:
                yield Wait(slot)
            except BaseException:
                slot.cancel()
                raise
        if seconds:
            yield Sleep(seconds)
        return True

    # -- what is told

    def _tell_end(self, returned: Returned, rule: str) -> None:
        verdict = returned.verdict
        failures = {Meaning.EXPIRED} if rule == "refresh" else _PASSING
        if verdict.meaning in failures:
            error = None if verdict.code is not None else verdict.error or "HTTPError"
            self._tell("call_given_up", msg_cd=verdict.code, error=error)
            outer = self._protection.outer
            while outer is not None:
                outer.settled |= {rule}
                outer = outer.outer
        elif self._calls > 1:
            self._tell("call_recovered", quiet=self._joined)

    def _advise(self, advice: str) -> None:
        warn_once("function_not_repeated", callable=self._protection.rules.name, advice=advice)

    def _tell(self, event: Any, *, quiet: bool = False, **found: Any) -> None:
        told = RefreshEvent(name=event, callable=self._protection.rules.name, attempt=self._calls, **found)
        emit(told, level=logging.DEBUG if quiet else None)


def _method_of(returned: Returned) -> str | None:
    """Return the method of the request that a response or an exception carries; None where it carries none."""
    try:
        carriers = (returned.value, returned.error, getattr(returned.error, "response", None))
        for found in carriers:
            request = getattr(found, "request", None) or getattr(found, "request_info", None)
            method = getattr(request, "method", None) or getattr(found, "method", None)
            if isinstance(method, str):
                return method.upper()
    except Exception:  # httpx raises where an error has no request
        return None
    return None
