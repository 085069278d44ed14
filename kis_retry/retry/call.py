"""
One protected call: where its token is, which one it used, whether KIS refused it. Neither waits nor sleeps.

`Protection` is what is known when a function is decorated, `ProtectedCall` what is known of one call of it. The shells
in `refresh` ask them what to do and do the waiting, for functions and coroutine functions alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..answer import code_of
from ..context import CURRENT, Scope
from ..events import EventName, RefreshEvent, emit
from ..judgement import is_token_expired_error, is_token_expired_response
from ..policy import RetryPolicy
from ..token import AccessToken, bare, fingerprint
from ..tokens.broker import broker_source
from ..tokens.source import NEVER, NonBlockingSource, Replacement, TokenSource, as_source, is_source
from . import observer as transport
from .binding import Hook, Place, Plan, Unbound, plan

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["ProtectedCall", "Protection"]


class Protection:
    """What is known of a decorated function before any call: its places, source, policy and name."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        tokens: TokenSource | None,
        policy: RetryPolicy | None,
        bind: Callable[[AccessToken], object] | None,
        watch_transport: bool,
    ) -> None:
        if tokens is not None and not is_source(tokens):
            raise TypeError(f"tokens= takes a TokenSource (token() and refresh(rejected)), not {type(tokens).__name__}")
        if policy is not None and not isinstance(policy, RetryPolicy):
            raise TypeError(f"policy= takes a RetryPolicy, not {type(policy).__name__}")
        if bind is not None and not callable(bind):
            raise TypeError(f"bind= takes a function of one AccessToken, not {type(bind).__name__}")
        self.function = function
        self.name: str = getattr(function, "__qualname__", type(function).__qualname__)
        self.plan: Plan = plan(function, bind)
        self.watching = watch_transport
        self._tokens = as_source(tokens) if tokens is not None else None
        self._policy = policy
        self._environment: RetryPolicy | None = None
        if watch_transport:
            transport.watch()

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ProtectedCall | None:
        """One call, not yet made; None where the policy says to leave it alone."""
        if self.watching:
            transport.look_for_httpx()
        first = None if self._tokens is not None else self.plan.first(args, kwargs)
        source = self._tokens or self._source_of(first)
        policy = self._policy_of(first, source)
        if not policy.enabled:
            return None
        if source is None:
            raise TypeError(
                f"{self.name} is decorated with refresh_on_expired_token, but nothing says where a token comes from: "
                "pass tokens=TokenManager.from_env() (or another TokenSource) to the decorator, or give the first "
                "argument an attribute `tokens`, or `access_token` and `issue_access_token`"
            )
        return ProtectedCall(self, source, policy, args, kwargs)

    def _source_of(self, first: Any) -> NonBlockingSource | None:
        tokens = getattr(first, "tokens", None)
        if tokens is not None and is_source(tokens):
            return as_source(tokens)
        if callable(getattr(first, "issue_access_token", None)) and hasattr(first, "access_token"):
            return broker_source(first)
        return None

    def _policy_of(self, first: Any, source: NonBlockingSource | None) -> RetryPolicy:
        policy = self._policy or getattr(first, "policy", None)
        if not isinstance(policy, RetryPolicy):
            policy = getattr(source, "policy", None)
        return policy if isinstance(policy, RetryPolicy) else self._from_environment()

    def _from_environment(self) -> RetryPolicy:
        if self._environment is None:
            self._environment = RetryPolicy.from_env()
        return self._environment


class ProtectedCall(Scope):
    """
    One call of a decorated function: where its token is, which one it used, and whether KIS refused it.

    Neither waits nor sleeps. `args` and `kwargs` are those of the next attempt.
    """

    __slots__ = ("args", "attempt", "began", "kwargs", "place", "policy", "protection", "source", "used")

    def __init__(
        self,
        protection: Protection,
        source: NonBlockingSource,
        policy: RetryPolicy,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        Scope.__init__(self, protection.name, CURRENT.get(), protection.watching)  # super() costs every good call more
        self.protection = protection
        self.source = source
        self.policy = policy
        self.args = args
        self.kwargs = kwargs
        self.attempt = 1
        self.began = time.monotonic()
        self.place: Place = protection.plan.place(args, kwargs)
        self.used: str | None = None

    # Before the first attempt.

    def lacks_token(self) -> bool:
        """Whether to ask the source first: there is no token to start with, or one of the source's that is past it."""
        current = self.source.peek()
        found = self.place.read(self.args, self.kwargs)
        if found is not None:
            if current is not None and found in (current.bearer, current.value):
                self.used = current.value
                return False
            self.used = bare(found)
            return self.source.issued(self.used)
        if isinstance(self.place, Hook):  # nobody can look there: it is left alone until KIS refuses it
            current = self.source.current_unless(None)
            self.used = current.value if current is not None else None
            return False
        self.used = current.value if current is not None and type(self.place) is Unbound else None
        return self.used is None

    def settle(self, token: AccessToken) -> None:
        """Make the first attempt with `token`; where it cannot be put, KIS says what it thinks of what is there."""
        if self.used == token.value:
            return
        try:
            self.bind(token)
        except Exception as error:  # of the user's own object
            self.say_failed(error, self.began)

    def bind(self, token: AccessToken) -> None:
        """Put `token` where the next attempt finds it."""
        self.args, self.kwargs = self.place.write(self.args, self.kwargs, token)
        self.used = token.value

    # After an attempt.

    def refused(self, value: object) -> bool:
        """Whether KIS refused the call that returned `value`."""
        if self.answer is None and type(value) is dict and value.get("rt_cd") == "0":
            return False
        return not self.gave_up and (
            is_token_expired_response(value, self.policy.expired_codes) or self.heard_refusal()
        )

    def refused_error(self, error: BaseException) -> bool:
        """Whether KIS refused the call that raised `error`."""
        if self.gave_up or not isinstance(error, Exception):
            return False
        return is_token_expired_error(error, self.policy.expired_codes) or self.heard_refusal()

    def heard_refusal(self) -> bool:
        return self.protection.watching and transport.is_refusal(self.answer, self.policy.expired_codes)

    def rejected(self) -> str | None:
        """The token that KIS refused: as seen on the wire, as handed out inside the call, or as it was bound before."""
        if self.heard_refusal():
            return transport.token_of(self.answer) or self.used
        if self.handed is not None and isinstance(self.place, Unbound):
            return self.handed.value
        return self.used

    def replacement(self, rejected: str | None) -> AccessToken | None:
        """A token that needs no issue: the place, or the source, holds another one than the refused already."""
        found = self.place.read(self.args, self.kwargs)
        if found is not None and rejected is not None and bare(found) != rejected:
            return AccessToken(bare(found), NEVER)
        return self.source.current_unless(rejected)

    def prepare_next(self, replacement: Replacement, rejected: str | None, began: float) -> None:
        """Rebind, forget what was heard, and say which token it is now."""
        self.bind(replacement.token)
        self.attempt += 1
        self.hear(None)
        self.handed = None
        self.helped = None
        self.say(
            "token_refreshed" if replacement.origin == "issued" else "token_adopted",
            token=replacement.token.fingerprint,
            previous_token=fingerprint(rejected) if rejected else None,
            expires_at=replacement.token.expires_at if replacement.token.expires_at is not NEVER else None,
            source=replacement.origin,
            elapsed=time.monotonic() - began,
        )

    # The story, and its end.

    def say(self, name: EventName, **fields: Any) -> None:
        """Emit an event of this call."""
        emit(RefreshEvent(name=name, callable=self.name, **{"attempt": self.attempt, **fields}))

    def say_expired(self, state: RetryCallState) -> None:
        """Tenacity's `after`: one attempt was refused."""
        rejected = self.rejected()
        self.say("token_expired", token=fingerprint(rejected) if rejected else None, msg_cd=self._code(state))

    def say_failed(self, error: Exception, began: float) -> None:
        """The refresh failed."""
        self.say(
            "token_refresh_failed",
            msg_cd=getattr(error, "code", None),
            error=type(error).__name__,
            elapsed=time.monotonic() - began,
        )

    def give_up(self, state: RetryCallState) -> Any:
        """Tenacity's `retry_error_callback`: hand back the last outcome, and tell the calls around this one."""
        self.gave_up = True
        self.tell_parents_it_gave_up()
        self.say("call_given_up", msg_cd=self._code(state), elapsed=state.seconds_since_start)
        assert state.outcome is not None  # noqa: S101  # tenacity sets it before it asks whether to stop
        return state.outcome.result()

    def _code(self, state: RetryCallState) -> str | None:
        outcome = state.outcome
        if outcome is None:
            return None
        error = outcome.exception()
        said = code_of(getattr(error, "response", None)) if error is not None else code_of(outcome.result())
        return said or (code_of(self.answer) if self.watching else None)

    def recovered(self, value: Any) -> Any:
        """Say so, unless the last outcome was given up."""
        if not self.gave_up:
            self.say("call_recovered", elapsed=time.monotonic() - self.began)
        return value

    def stop(self, _state: object) -> bool:
        """Whether the library behind the call has asked for another token and was refused with that as well."""
        return self.helped is not None and self.helped == self.rejected()
