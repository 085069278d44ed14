"""What the night of `kis-retry demo` brings, and at which symbol: the same to a protected and an unprotected batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import KisRetryError
from ..answers import LIMIT_CODE
from ..retry.rate import REAL_RATE
from .batch import IN_A_ROW

if TYPE_CHECKING:
    from .gateway import GatewayProcess

__all__ = ["FAST_FORWARD", "PACE", "SEED", "Night"]

FAST_FORWARD = 55
"""So much faster than at KIS do the calls go out and does the gateway take them: there, 16,780 take a quarter hour."""

PACE = int(FAST_FORWARD * REAL_RATE)
"""Calls a second."""

SEED = 748
"""
Of the gateway's dice. With this one no call between the expiry and the fifth failure in a row meets anything else, so
that the whole batch, unprotected, ends at US symbol 11,780 as the real one did.
"""

REFUSED, DROPPED = 0.05, 0.005
"""Shares of the calls. KIS was seen to refuse 15 to 22 % within its limit; more than here, and they only cost time."""

_OUTAGE = 0.05  # of the time that the batch takes
_SHORTEST, _LONGEST = 0.5, 3.0  # seconds; less could be over before a busy machine makes the next call


class Night:
    """
    The causes, in their order, for a batch of US symbols and then domestic ones.

    Refusals within the limit and broken connections come at random. The token dies at the fifth US symbol from the end
    (11,776 of 11,780), or the first, while the token endpoint is away; the API is away at the middle of the domestic
    ones. So the first to fail five in a row is the token, as in the real batch.

    Attributes:
        symbols: how many the batch has.
        overseas: how many of them are US ones.
        domestic: how many are domestic.
        expires_at: the US symbol at which the token dies, from 1.
        away_at: the domestic symbol at which the API is away, from 1.
        away: for how many seconds.
        endpoint_away: for how many seconds the token endpoint is.
    """

    def __init__(self, overseas: int, domestic: int) -> None:
        self.symbols = overseas + domestic
        self.overseas = overseas
        self.domestic = domestic
        self.expires_at = max(overseas - IN_A_ROW + 1, 1)
        self.away_at = (domestic + 1) // 2
        seconds = self.symbols / PACE * _OUTAGE
        self.away = _bounded(seconds)
        self.endpoint_away = _bounded(seconds / 2)

    @property
    def size(self) -> str:
        """How many symbols, and which come first, in words."""
        return f"{self.symbols:,} symbols, {self.overseas:,} US and then {self.domestic:,} domestic"

    def name_of(self, number: int) -> str:
        """Symbol `number` of the batch, as people count them."""
        if number <= self.overseas:
            return f"US symbol {number:,}"
        return f"domestic symbol {number - self.overseas:,}"

    def announcement(self) -> list[str]:
        """What is going to happen, in lines for people."""
        return [
            f"paced at {PACE:,} calls a second, {FAST_FORWARD} times KIS's {REAL_RATE:g}",
            "only the pace is sped up: waits and outages take their real time",
            f"{100 * REFUSED:g} % of the calls are refused within that limit ({LIMIT_CODE})",
            f"{100 * DROPPED:g} % of the connections break",
            self._expiry,
            self._outage,
        ]

    def begin(self, gateway: GatewayProcess) -> None:
        """Arrange what comes at random, and the limit."""
        gateway.tell("limit_calls", per_second=PACE)
        gateway.tell("refuse_calls", msg_cd=LIMIT_CODE, share=REFUSED)
        gateway.tell("drop", share=DROPPED)

    def happenings(self, gateway: GatewayProcess, tell: Callable[[str], object]) -> dict[int, Callable[[], None]]:
        """
        What happens before which symbol of the batch.

        Args:
            gateway: where it happens.
            tell: is told in a line when it does.
        """

        def expire() -> None:
            tell(self._expiry)
            with suppress(KisRetryError):  # its process has ended, which the demo finds out by itself
                gateway.tell("expire")
                gateway.tell("outage", seconds=self.endpoint_away, where="tokens", status=503)

        def go_away() -> None:
            tell(self._outage)
            with suppress(KisRetryError):
                gateway.tell("outage", seconds=self.away, where="calls", status=503)

        return {self.expires_at: expire, self.overseas + self.away_at: go_away}

    @property
    def _expiry(self) -> str:
        return f"the token dies at US symbol {self.expires_at:,}, and its endpoint is away for {self.endpoint_away} s"

    @property
    def _outage(self) -> str:
        return f"the API is away for {self.away} s at domestic symbol {self.away_at:,}"


def _bounded(seconds: float) -> float:
    return round(min(max(seconds, _SHORTEST), _LONGEST), 1)
