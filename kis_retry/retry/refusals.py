"""What was seen on the wire of one call's token: which requests KIS refused for it, and what follows for the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..context import Sighting
from ..judgement import is_token_expired_response
from ..token import AccessToken
from ..tokens.source import NonBlockingSource
from .wire import identity_of, is_of, was_refused_there

if TYPE_CHECKING:
    from .call import ProtectedCall

__all__ = ["Refusals"]


class Refusals:
    """The refusals of one attempt, as they concern the account of `source`."""

    __slots__ = ("_call", "_source")

    def __init__(self, call: ProtectedCall, source: NonBlockingSource) -> None:
        self._call = call
        self._source = source

    def standing(self) -> Sighting | None:
        """The last request that was refused in this attempt, and not made again with success."""
        if not self._call.refusals:
            return None
        seen = [refused for refused, _ in list(self._call.refusals.values()) if self._owns(refused)]
        return seen[-1] if seen else None

    def last(self) -> Sighting | None:
        """The last request that was refused, be it that it was made again with success."""
        standing = self.standing()
        if standing is not None:
            return standing
        seen = self._call.failed
        return seen if seen is not None and self._is_refusal(seen) and self._owns(seen) else None

    def are_of_another_account(self) -> bool:
        """Whether the last request that failed was refused, and is none of this account."""
        seen = self._call.failed
        return seen is not None and self._is_refusal(seen) and not self._owns(seen)

    # For a request that is about to leave.

    def successor_for(self, sighting: Sighting) -> AccessToken | None:
        """The token with which a request of this account is to leave instead of its own, which is known to be dead."""
        if sighting.token is None or not self._owns(sighting):
            return None
        successor = self._source.successor_of(sighting.token)
        if successor is None or (identity_of(self._source) is None and not was_refused_there(sighting)):
            return None
        return successor

    def hold_back(self, sighting: Sighting) -> bool:
        """
        Whether a request has to leave as it is: an order that is not itself repeated, after a refusal in this attempt.

        What the code made of the refusal is anybody's guess; refused as well, the order goes out once the whole
        function is called again.
        """
        if not sighting.is_order or sighting.identity in self._call.refusals:
            return False
        return self.standing() is not None and self._owns(sighting)

    def dead_token_of(self, sighting: Sighting) -> str | None:
        """
        The token with which a request of this account would be refused: as it just was, or as the source knows.

        None where it will leave with a good one, as far as one can tell.
        """
        if sighting.token is None or not self._owns(sighting):
            return None
        successor = self._source.successor_of(sighting.token)  # with which it will leave
        for refused, _ in reversed(list(self._call.refusals.values())):
            if sighting.token in (refused.token, refused.carried) and self._owns(refused):
                return refused.token if successor is None or successor.value == refused.token else None
        return sighting.token if successor is None and self._source.is_dead(sighting.token) else None

    def _is_refusal(self, seen: Sighting) -> bool:
        return seen.response is not None and is_token_expired_response(seen.response, self._call.policy.expired_codes)

    def _owns(self, sighting: Sighting) -> bool:
        """Whether a request is of the source's account, as far as one can tell."""
        identity = identity_of(self._source)
        return identity is None or is_of(sighting, *identity)
