"""
Where to look for a symbol first: at the exchange, or under the product type, where it or the last one was found.

Pure but for its memory, and safe to share between threads: each entry is one assignment.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["SearchOrder"]

NIGHT_OF = {"BAY": "NYS", "BAQ": "NAS", "BAA": "AMS"}
"""The market whose symbols a US day market trades (KIS overseas price page: 주간거래)."""

_REMEMBERED = 65_536  # symbols; KIS lists some 12,000 in the US


class SearchOrder:
    """In which order to ask the places of a country for a symbol, learned from where symbols were found."""

    def __init__(self) -> None:
        self._homes: dict[tuple[str, str], str] = {}
        self._last: dict[str, str] = {}

    def places(self, country: str, symbol: str, places: Sequence[str]) -> list[str]:
        """
        Give `places` with the symbol's own in front, then the one that answered last, then the rest in their order.

        A day market never comes before its night market: it would answer with the price of another session.
        """
        likely = (self._homes.get((country, symbol)), self._last.get(country))
        first = [place for place in likely if place is not None]
        order: list[str] = []
        for place in [*first, *places]:
            night = NIGHT_OF.get(place, place)
            order += [one for one in dict.fromkeys((night, place)) if one in places and one not in order]
        return order

    def found(self, country: str, symbol: str, place: str) -> None:
        """Remember that `place` knows the symbol."""
        self._homes[country, symbol] = place
        self._last[country] = place
        while len(self._homes) > _REMEMBERED:
            self._homes.pop(next(iter(self._homes)), None)
