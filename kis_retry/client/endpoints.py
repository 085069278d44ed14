"""
What KIS takes and how its answers are read: tables of the API pages, and checks before anything is sent. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

__all__ = [
    "EXCHANGES",
    "PRICE_TRANSACTIONS",
    "PRODUCT_TYPES",
    "Payload",
    "has_symbol",
    "is_etf",
    "is_unknown",
    "lookup",
    "offering_days",
    "valid_path",
    "valid_symbol",
    "valid_transaction",
]

Payload = dict[str, Any]

EXCHANGES = {
    "US": ("NYS", "NAS", "AMS", "BAY", "BAQ", "BAA"),
    "HK": ("HKS",),
    "JP": ("TSE",),
    "CN": ("SHS", "SZS"),
    "VN": ("HSX", "HNX"),
}
"""Exchange codes by country, in the order in which they are asked (KIS overseas price page)."""

PRODUCT_TYPES = {
    "KR": ("300",),
    "KRX": ("300",),
    "US": ("512", "513", "529"),
    "JP": ("515",),
    "HK": ("501", "543", "558"),
    "CN": ("551", "552"),
    "VN": ("507", "508"),
}
"""Product types by country, in the order in which they are asked (KIS product information page)."""

PRICE_TRANSACTIONS = {"Stock": "FHKST01010100", "ETF": "FHPST02400000"}
"""Transactions of the current price by type of symbol (KIS domestic price page)."""


_NO_PATH = re.compile(r"//|[\s?#\\]")


def lookup(name: str, given: object, choices: Mapping[str, Any]) -> Any:
    """What `given` stands for; `ValueError` with what it may be otherwise."""
    if isinstance(given, str) and given in choices:
        return choices[given]
    raise ValueError(f"{name} {given!r} is not known: it takes {', '.join(choices)}")


def valid_symbol(symbol: object) -> str:
    """The symbol without white space around it; a blank one is a `ValueError`."""
    if not isinstance(symbol, str) or not symbol.strip():
        raise ValueError(f"symbol {symbol!r} is not one: it takes a text like '005930' or 'AAPL'")
    return symbol.strip()


def valid_path(path: object) -> str:
    """A path below the configured host, and nothing else: the request carries the app secret."""
    if not isinstance(path, str) or not path.strip("/ ") or _NO_PATH.search(path):
        raise ValueError(f"path {path!r} is not one: it takes a path below the host, without a query, like '/uapi/…'")
    return "/" + path.lstrip("/")


def valid_transaction(tr_id: object) -> str:
    """A `tr_id`, which becomes a header; anything but letters and digits is a `ValueError`."""
    if not isinstance(tr_id, str) or not tr_id.isalnum() or not tr_id.isascii():
        raise ValueError(f"tr_id {tr_id!r} is not one: it takes letters and digits like 'FHKST01010100'")
    return tr_id


def valid_date(name: str, text: object) -> datetime:
    """The day that YYYYMMDD names; anything else is a `ValueError`."""
    try:
        if not isinstance(text, str) or len(text) != 8:
            raise ValueError
        return datetime.strptime(text, "%Y%m%d")
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a date: it takes YYYYMMDD") from None


def offering_days(from_date: str | None, to_date: str | None, today: datetime) -> tuple[str, str]:
    """The first and the last day of a schedule as KIS takes them; without one, `today` and 30 days from then."""
    first = valid_date("from_date", from_date) if from_date else today
    last = valid_date("to_date", to_date) if to_date else max(today, first) + timedelta(days=30)
    if first.date() > last.date():
        raise ValueError(f"from_date {first:%Y%m%d} is after to_date {last:%Y%m%d}")
    return f"{first:%Y%m%d}", f"{last:%Y%m%d}"


def has_symbol(payload: Payload) -> bool:
    """Whether the exchange that was asked knows the symbol: it answers success either way (observed)."""
    output = payload.get("output")
    return isinstance(output, Mapping) and bool(output.get("rsym"))


def is_unknown(payload: Payload) -> bool:
    """Whether KIS says, in one of its two ways, that it has no such data; any other failure does not say that."""
    return payload.get("rt_cd") == "7" or (payload.get("rt_cd") == "0" and not has_symbol(payload))


def is_etf(info: Payload) -> bool:
    """Whether a product information says ETF."""
    output = info.get("output")
    return isinstance(output, Mapping) and output.get("prdt_clsf_name") == "ETF"
