"""
What was seen on the wire of the token of one call: which one was refused, and whose it was.

Beside the call's own source there may be others that hand out tokens inside it, for other accounts of the same user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..context import Sighting
from ..answers import is_token_expired_response
from ..token import AccessToken
from ..tokens.source import NonBlockingSource
from .accounts import identity_of, is_of, is_own, learn, learned_of, was_refused_there
from .binding import NoLocation, TokenLocation

if TYPE_CHECKING:
    from .call import ProtectedCall

__all__ = ["SeenRefusals"]


class SeenRefusals:
    """
    The base of `TokenExpired`, which decides what to do about it.

    Attributes:
        source: where tokens come from.
        location: where the function keeps its own.
        used: the token that the call was made with, bare; None where nobody can tell.
    """

    __slots__ = ("_call", "_helped", "location", "source", "used")

    def __init__(self, call: ProtectedCall, source: NonBlockingSource, location: TokenLocation) -> None:
        self._call = call
        self._helped: tuple[NonBlockingSource, ...] = ()
        self.source = source
        self.location = location
        self.used = call.used

    def is_at_home(self, host: str) -> bool:
        """Whether `host` is the source's."""
        identity = identity_of(self.source)
        return identity is not None and identity[0] == host

    def successor_for(self, sighting: Sighting) -> AccessToken | None:
        """The token with which a request of this account is to leave instead of its own, which is known to be dead."""
        token = sighting.token
        if token is None or not self._owns(sighting):
            return None
        successor = self.source.successor_of(token)
        if identity_of(self.source) is not None:
            return successor
        if is_own(self.source, token):
            learn(self.source, sighting)
        return successor if was_refused_there(sighting) else None

    def holds_back(self, sighting: Sighting) -> bool:
        """
        Whether a request has to leave as it is: an order that is not itself repeated, after a refusal in this attempt.

        What the code made of the refusal is anybody's guess; refused as well, the order goes out once the whole
        function is called again.
        """
        if not sighting.is_order or sighting.identity in self._call.refusals:
            return False
        return self.unanswered() is not None and self._owns(sighting)

    def dead_with(self, sighting: Sighting) -> str | None:
        """
        The token with which a request of this account would be refused: as it just was, or as the source knows.

        None where it will leave with a good one, as far as one can tell.
        """
        if sighting.token is None or not self._owns(sighting):
            return None
        successor = self.source.successor_of(sighting.token)  # with which it will leave
        for refused, _ in reversed(list(self._call.refusals.values())):
            if sighting.token in (refused.token, refused.carried) and self._owns(refused):
                return refused.token if successor is None or successor.value == refused.token else None
        return sighting.token if successor is None and self.source.is_dead(sighting.token) else None

    # What was seen of it.

    def saw_refusal(self) -> bool:
        """
        Whether a request was refused for a token that can be replaced, and not made again with success.

        Of this account, or of another one whose source handed the token out inside the call.
        """
        return self.unanswered() is not None or bool(self.lent_and_refused())

    def unanswered(self) -> Sighting | None:
        """The last request of this account that was refused in this attempt, and not made again with success."""
        return next((seen for seen in reversed(self._call.refused()) if self._owns(seen)), None)

    def refusal(self) -> Sighting | None:
        """The refusal that was seen on the wire, if it is of this account."""
        unanswered = self.unanswered()
        if unanswered is not None:
            return unanswered
        seen = self._call.failed
        return seen if seen is not None and self._is_refusal(seen) and self._owns(seen) else None

    def is_unseen(self) -> bool:
        """Whether no refusal was seen, so that nobody knows which token was refused."""
        seen = self._call.failed
        return not self._call.refused() and (seen is None or not self._is_refusal(seen))

    def rejected(self) -> str | None:
        """The token that KIS refused: as seen on the wire, as handed out inside the call, or as it was bound before."""
        seen = self.refusal() or next(iter(reversed(self._call.refused())), None)
        if seen is not None:
            return seen.token
        handed = self._call.handed
        return handed if handed is not None and type(self.location) is NoLocation else self.used

    def lent_and_refused(self) -> list[tuple[NonBlockingSource, str]]:
        """The other sources whose tokens were refused inside this call, and which have not been asked for one yet."""
        lenders = self._call.lenders
        refused = [(lenders.get(seen.token or ""), seen) for seen in self._call.refused()] if lenders else []
        return [
            (lender, seen.token)
            for lender, seen in refused
            if lender is not None and seen.token is not None and lender not in self._helped and not self._owns(seen)
        ]

    def helped(self, lender: NonBlockingSource) -> None:
        """Be told that another source has been asked for another token: not twice for one call."""
        self._helped = (*self._helped, lender)

    def is_of_another_account(self) -> bool:
        """Whether what was refused is nothing that this source, or another one inside the call, can replace."""
        return not self.is_unseen() and self.refusal() is None and not self.lent_and_refused()

    def _is_refusal(self, seen: Sighting) -> bool:
        return seen.response is not None and is_token_expired_response(seen.response, self._call.policy.expired_codes)

    def _owns(self, sighting: Sighting) -> bool:
        """Whether a request is of the source's account, as far as one can tell."""
        identity = identity_of(self.source)
        if identity is not None:
            return is_of(sighting, *identity)
        if is_own(self.source, sighting.token):
            return True
        learned = learned_of(self.source, sighting)
        if learned is not None:
            return learned
        # Where this call keeps its token is known or not: what was sent is that one, or may be.
        return isinstance(self.location, NoLocation) or sighting.token in (None, self.used)
