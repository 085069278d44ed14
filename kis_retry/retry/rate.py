"""Which rate: the default of KIS, and what `KIS_RATE_LIMIT` or a caller sets instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..settings import Environment
from .pace import LEAST_RATE

if TYPE_CHECKING:
    from ..credentials import Credentials

__all__ = ["PAPER_RATE", "RATE_TAKES", "RATE_VARIABLE", "REAL_RATE", "checked_rate", "parse_rate", "rate_from_env"]

REAL_RATE = 18.0
PAPER_RATE = 1.0
"""Calls a second for an app key (KIS's notice of 2026-04-20)."""

RATE_VARIABLE = "KIS_RATE_LIMIT"
RATE_TAKES = "a number of calls a second from 0.1 to 1,000, or 0 for no pace"

_MOST = 1_000  # beyond a thousand a second the calls would be less apart than a sleep is exact


def rate_from_env(credentials: Credentials) -> float:
    """
    What `KIS_RATE_LIMIT` sets; without it 18 calls a second, 1 on paper.

    Raises:
        ConfigurationError: the variable holds something else than it takes.
    """
    found = Environment().read(parse_rate, RATE_TAKES, RATE_VARIABLE)
    if found is not None:
        return found
    return PAPER_RATE if credentials.paper else REAL_RATE


def checked_rate(rate: object) -> float:
    """
    A rate as a caller gave it.

    Raises:
        ConfigurationError: it is no number, or out of range.
    """
    try:
        return _in_range(rate)
    except ValueError:
        raise ConfigurationError(f"rate={rate!r} is not usable: it takes {RATE_TAKES}") from None


def parse_rate(text: str) -> float:
    """The variable's text as a rate; `ValueError` where it takes something else."""
    if "_" in text:  # Python reads "1_0" as ten; a person who typed it meant something else
        raise ValueError(text)
    return _in_range(float(text))


def _in_range(rate: object) -> float:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise ValueError(rate)
    if rate != 0 and not LEAST_RATE <= rate <= _MOST:  # true for NaN too
        raise ValueError(rate)
    return float(rate)
