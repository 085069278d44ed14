"""What a gateway remembers of each request."""

from __future__ import annotations

from typing import NamedTuple

from .wire import Request

__all__ = ["MEMORY", "ReceivedRequest", "symbol_asked_for"]

MEMORY = 100_000
"""How many requests are remembered; older ones are forgotten."""

_SYMBOL_NAMES = ("FID_INPUT_ISCD", "SYMB", "PDNO", "SHT_CD")


class ReceivedRequest(NamedTuple):
    """
    A request that a gateway received, and what became of it. It holds no key, secret, token or account.

    Attributes:
        at: when it came in, in seconds of the gateway's clock.
        method: the HTTP method.
        path: the path without the query.
        tr_id: the header of that name; "" where there is none.
        symbol: the symbol that a call asks for; "" where there is none.
        outcome: "answered", KIS's code where it was refused, or the name under which `faults_met` counts it.
    """

    at: float
    method: str
    path: str
    tr_id: str
    symbol: str
    outcome: str


def symbol_asked_for(request: Request) -> str:
    """The symbol in the query of a GET or in the body of an order; "" where there is none."""
    if request.method != "GET":
        return str(request.json().get("PDNO", "")) if "/trading/" in request.path else ""
    query = request.query
    symbol = query.get("FID_INPUT_ISCD") or query.get("SYMB")  # most calls by far
    if symbol:
        return symbol
    named = {name.upper(): value for name, value in query.items()}
    return next((named[name] for name in _SYMBOL_NAMES if named.get(name)), "")
