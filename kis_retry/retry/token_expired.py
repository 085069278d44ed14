"""
The first cause: KIS refused the call because its token is dead. Refresh the token, rebind it, call again.

What is known of the token of one call, and nothing else: where it is kept, which one was used, which one was refused.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..answers import code_of
from ..events import warn
from ..answers import is_token_expired_error, is_token_expired_response
from ..retrying import stop_after_retries
from ..signals import is_from_signal_handler
from ..token import AccessToken, bare, fingerprint
from ..tokens.source import NEVER, NonBlockingSource, Replacement
from .accounts import identity_of, note_refused
from .binding import CallbackLocation, NoLocation, TokenLocation
from .refusals import SeenRefusals

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from .call import ProtectedCall
    from .history import TokenHistory

__all__ = ["TokenExpired"]

_MOST_ADOPTED = 3  # dead tokens of others that one call may adopt before its own repeat counts


class TokenExpired(SeenRefusals):
    """
    One call's token.

    Attributes:
        replaced_with: with which token the library behind it, having asked for another one, went on in this attempt.
    """

    name = "token_expired"

    __slots__ = ("_adopted", "_attempt_began", "_history", "_watching", "replaced_with")

    def __init__(
        self,
        call: ProtectedCall,
        source: NonBlockingSource,
        location: TokenLocation,
        history: TokenHistory,
        watching: bool,
    ) -> None:
        super().__init__(call, source, location)
        self._history = history
        self._watching = watching
        self._adopted = 0
        self._attempt_began = call.began
        self.replaced_with: str | None = None

    # Before the first attempt.

    def needs_token(self, found: str) -> bool:
        """
        Whether to ask the source first: the place is empty, or `found` there is a token of the source's past its time.

        A token that the source has nothing to do with is left alone until KIS refuses it.
        """
        source, location = self.source, self.location
        if type(location) is NoLocation:
            current = source.peek() if source.hands_out_unseen else None
            self.used = current.value if current is not None else None
            return current is None if source.hands_out_unseen else source.renewal_due()
        self.used = bare(found) or None
        if type(location) is CallbackLocation:
            return source.renewal_due() or (self.used is not None and source.successor_of(self.used) is not None)
        if self.used is None:
            return True
        current = source.peek()
        if current is not None and self.used == current.value:
            return False
        return source.issued(self.used) or source.successor_of(self.used) is not None

    def bind_first(self, token: AccessToken) -> None:
        """Make the first attempt with `token`. If binding fails, tell so, and call with the token already there."""
        if type(self.location) is NoLocation:
            self.used = token.value if self.source.hands_out_unseen else None
        elif self.used != token.value:
            self._bind(token, self._call.began)

    def has_none(self) -> bool:
        """Whether there is no token at all to make an attempt with."""
        return self.used is None and type(self.location) not in (NoLocation, CallbackLocation)

    # While the function still runs.

    def may_renew(self) -> bool:
        """Whether a token may be refreshed while the function still runs, on behalf of the library behind it."""
        return (
            self._watching
            and self._call.policy.max_retries > 0
            and self.name not in self._call.exhausted
            and self.replaced_with is None
            and identity_of(self.source) is not None  # else the source may be the library, which is busy
        )

    def renewed(self, replacement: Replacement, rejected: str, began: float) -> None:
        """Note that the function goes on with another token than `rejected` in this attempt, and tell so."""
        token, origin = replacement
        if not self._call.refusals:  # as before a first attempt: nothing has been refused yet
            if origin == "issued":
                self._emit_replaced(replacement, rejected, began, self._call.attempt)
            return
        self.source.note_refused(rejected)
        if origin == "issued" or self.source.is_new(token.value, self._attempt_began) or self._adopted == _MOST_ADOPTED:
            self.replaced_with = token.value
        else:
            self._adopted += 1  # it may be dead too, which costs nothing then
        self._emit_replaced(replacement, rejected, began, self._call.attempt)

    # After an attempt.

    def matches_value(self, value: object) -> bool:
        """Whether KIS refused the call that returned `value`."""
        if self.name in self._call.exhausted:
            return False
        return is_token_expired_response(value, self._call.policy.expired_codes) or self.was_refused()

    def matches_error(self, error: Exception) -> bool:
        """Whether KIS refused the call that raised `error`."""
        if self.name in self._call.exhausted:
            return False
        return is_token_expired_error(error, self._call.policy.expired_codes) or self.was_refused()

    def was_refused(self) -> bool:
        """Whether it was seen that KIS refused a token that can be replaced, whatever the function made of it."""
        return self._watching and self.saw_refusal()

    def stop(self, state: RetryCallState, value: object, error: BaseException | None) -> bool:
        """Whether the token must not, or cannot, be refreshed for this call once more."""
        if stop_after_retries(self._call.policy.max_retries + self._adopted)(state):
            return True
        if self._call.orders:
            return True  # one that went out, and was not itself refused for its token, must not go out again
        if self.replaced_with is not None and self.replaced_with == self.rejected():
            return True  # the library has asked for another token, and was refused with that as well
        return self.is_of_another_account() or not self._can_be_rebound()

    def wait(self, state: RetryCallState, value: object, error: BaseException | None) -> float:
        """Seconds between refresh and repeat."""
        return self._call.policy.wait

    def emit_failed(self, msg_cd: str | None) -> None:
        """Tell which token was refused."""
        rejected = self.rejected()
        seen = self.unanswered() if msg_cd is None else None
        code = code_of(seen.response) if seen is not None else msg_cd
        self._call.emit("token_expired", token=fingerprint(rejected) if rejected else None, msg_cd=code)

    def gave_up(self) -> None:
        """Tell, once for a function, what has to be written so that it can be helped."""
        rejected = self.rejected()
        if self._call.attempt > 1 and rejected is not None and self.is_unseen():
            self._history.note_useless(rejected, self._attempt_began)
        if self._history.warned or self._call.orders:
            return
        if self.is_of_another_account():
            advice = "the refused request was not of this token source: give each account a function of its own"
        elif not self._can_be_rebound():
            advice = f"{self._why_not_rebound()}, or send with requests, httpx or aiohttp"
        else:
            return
        self._history.warned = True
        warn("token_not_rebound", callable=self._call.name, advice=advice)

    # Before the next attempt.

    def prepare(self, upcoming: float, msg_cd: str | None, error: BaseException | None) -> bool:
        """Refresh the token and rebind it."""
        for source, rejected in self._to_replace():
            began = time.monotonic()
            try:
                found = self._at_hand(source, rejected) or source.replace(rejected)
            except Exception as failure:  # of any source: KIS's own answer is the better one
                return self._refresh_failed(failure, began)
            if not self._begin_next(source, found, rejected, began):
                return False
        return True

    async def prepare_async(self, upcoming: float, msg_cd: str | None, error: BaseException | None) -> bool:
        """`prepare`, the source asked on a thread of this package's own."""
        from . import worker  # late: asyncio is a third of the import, and only coroutine functions need it

        for source, rejected in self._to_replace():
            began = time.monotonic()
            try:
                found = self._at_hand(source, rejected) or await worker.replace(source, rejected)
            except Exception as failure:  # as above
                return self._refresh_failed(failure, began)
            if not self._begin_next(source, found, rejected, began):
                return False
        return True

    def _to_replace(self) -> list[tuple[NonBlockingSource, str | None]]:
        """Which tokens to replace: that of this call, and those of others that were refused beside it or instead."""
        lent: list[tuple[NonBlockingSource, str | None]] = [*self.lent_and_refused()]
        return [*lent, (self.source, self.rejected())] if self.refusal() is not None or not lent else lent

    def emit_refresh_failed(self, error: Exception, began: float, where: str = "") -> None:
        """Tell that the refresh failed, or the binding (`where`), and by which type of error."""
        self._call.emit(
            "token_refresh_failed",
            msg_cd=getattr(error, "code", None),
            error=f"{where}{type(error).__name__}",
            elapsed=time.monotonic() - began,
        )

    def _refresh_failed(self, error: Exception, began: float) -> bool:
        if is_from_signal_handler(error):
            raise error
        self.emit_refresh_failed(error, began)
        return False

    def _at_hand(self, source: NonBlockingSource, rejected: str | None) -> Replacement | None:
        """A token that needs no issue: the place, or the source, holds another one than the refused already."""
        token = source.current_unless(rejected)
        if source is self.source:
            found = self.location.read(self._call.args, self._call.kwargs)
            value = bare(found) if found is not None else None
            renewed = value not in (rejected, self.used)  # one that was there before the attempt is not what was sent
            if value and rejected is not None and renewed and not source.is_dead(value):
                token = AccessToken(value, NEVER)
        return Replacement(token, "memory") if token is not None else None

    def _begin_next(
        self, source: NonBlockingSource, replacement: Replacement, rejected: str | None, began: float
    ) -> bool:
        token, origin = replacement.token, replacement.origin
        if source is not self.source:
            self.helped(source)
            self._emit_replaced(replacement, rejected, began, self._call.attempt + 1)
            return True
        seen = self.refusal()
        if origin != "issued" and not self.source.is_new(token.value, self._attempt_began):
            self._adopted = min(self._adopted + 1, _MOST_ADOPTED)  # it may be dead too, which costs nothing then
        if rejected is not None and rejected != token.value:
            self.source.note_refused(rejected)
            if seen is not None:
                note_refused(seen)
        if type(self.location) is NoLocation:
            self.used = token.value
        elif not self._bind(token, began) and seen is None:
            return False  # nothing would carry the new token
        self._call.handed = self.replaced_with = None
        self._emit_replaced(replacement, rejected, began, self._call.attempt + 1)
        self._attempt_began = time.monotonic()
        return True

    def _emit_replaced(self, replacement: Replacement, rejected: str | None, began: float, attempt: int) -> None:
        token, origin = replacement
        self._call.emit(
            "token_refreshed" if origin == "issued" else "token_adopted",
            attempt=attempt,
            token=token.fingerprint,
            previous_token=fingerprint(rejected) if rejected else None,
            expires_at=token.expires_at if token.expires_at is not NEVER else None,
            source=origin,
            elapsed=time.monotonic() - began,
        )

    def _bind(self, token: AccessToken, began: float) -> bool:
        """Put `token` where the next attempt finds it; False, and told, where that failed."""
        try:
            self._call.args, self._call.kwargs = self.location.write(self._call.args, self._call.kwargs, token)
        except Exception as error:  # of the user's own object or function
            if is_from_signal_handler(error):
                raise
            self.emit_refresh_failed(error, began, "bind:" if isinstance(self.location, CallbackLocation) else "")
            return False
        self.used = token.value
        return True

    def _can_be_rebound(self) -> bool:
        """Whether the next attempt would go out with another token than this one."""
        seen = self.refusal()
        if seen is None and self.lent_and_refused():
            return True
        if self.is_unseen() and self._history.is_hopeless():
            return False
        if type(self.location) is not NoLocation or self._call.handed is not None:
            return True
        if seen is not None:
            return seen.token is not None
        if not self.source.hands_out_unseen:
            return False
        return not self._history.was_useless(self.used)  # it may ask a source of the user's unseen

    def _why_not_rebound(self) -> str:
        if type(self.location) is NoLocation:
            return "nobody sees where it keeps its token: pass bind="
        if type(self.location) is CallbackLocation:
            return "what bind= does with a token does not reach its requests: have it put the token where they take it"
        return "its argument is not what it sends: pass bind="
