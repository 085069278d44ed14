"""How often, how long, how early: `RetryPolicy`, and reading one from the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from .answers import CODES, EXPIRED_CODES, Meaning
from .errors import ConfigurationError
from .settings import Environment, boolean

__all__ = ["RetryPolicy", "parse", "takes", "variable_of"]


def _bounded(default: float, low: float, high: float) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """
    The bounds of one protected call and of the refresh behind it. All waits are in seconds.

    The defaults suit a batch: one repeat, no wait before it, renewal ten minutes ahead.

    Args:
        enabled: False makes every decorated function behave as if it were not decorated.
        max_retries: repeats after a refusal, 0 to 5. KIS refuses before it acts, so a repeat is safe for orders too.
        wait: between refresh and repeat, 0 to 60.
        refresh_margin: how long before its expiry a token is renewed, 0 to 43,200 (twelve of its 24 hours).
        issue_timeout: how long one token request may take, 0.1 to 120.
        issue_wait: how long a refresh may take in all, whatever it waits for, 0 to 600; 0: one try.
        issue_cooldown: how long nobody asks for a token after an issue that failed for good, 0 to 3,600.
        transient_deadline: how long a call is repeated after what passes by itself, 0 to 86,400; 0: not at all.
        order_deadline: how long an order may wait before its first attempt for anything but its slot, and how long
            after that it may still be repeated, 0 to 3,600; 0: an order leaves once.
        order_hold: how long the same order is held back after its answer was lost, 0 to 3,600; 0: not at all.
        expired_codes: the `msg_cd` values that a new token helps with. Only codes of the token are taken (EGW001…),
            which KIS says before it acts: after any other an order could be placed twice.

    Raises:
        ConfigurationError: a value is of the wrong kind or out of range.
    """

    enabled: bool = _bounded(True, 0, 1)
    max_retries: int = _bounded(1, 0, 5)
    wait: float = _bounded(0.0, 0, 60)
    refresh_margin: float = _bounded(600.0, 0, 43_200)
    issue_timeout: float = _bounded(10.0, 0.1, 120)
    issue_wait: float = _bounded(70.0, 0, 600)
    issue_cooldown: float = _bounded(60.0, 0, 3_600)
    transient_deadline: float = _bounded(60.0, 0, 86_400)
    order_deadline: float = _bounded(5.0, 0, 3_600)
    order_hold: float = _bounded(60.0, 0, 3_600)
    expired_codes: tuple[str, ...] = EXPIRED_CODES

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            try:
                object.__setattr__(self, spec.name, _checked(spec, value))
            except (ValueError, TypeError):
                raise ConfigurationError(f"{spec.name}={value!r} is not usable: it takes {takes(spec)}") from None

    @classmethod
    def from_env(cls, prefix: str = "KIS_") -> RetryPolicy:
        """
        Read `KIS_RETRY_ENABLED`, `KIS_RETRY_MAX_RETRIES` and the rest; what is not set keeps its default.

        Args:
            prefix: of variables that go before these, such as `KIS_PAPER_` for `KIS_PAPER_RETRY_WAIT`.

        Raises:
            ConfigurationError: a variable holds something else than it takes; the message names all three.
        """
        environment = Environment()
        found = {}
        for spec in fields(cls):
            usual = variable_of(spec.name)
            own = prefix + usual.removeprefix("KIS_")
            found[spec.name] = environment.read(partial(parse, spec), takes(spec), own, usual)
        return cls(**{name: value for name, value in found.items() if value is not None})


def variable_of(name: str) -> str:
    """Return the environment variable of a field of `RetryPolicy`."""
    return f"KIS_RETRY_{name.upper()}"


def takes(spec: Any) -> str:
    """Say what a field accepts, in words for an error message."""
    if spec.name == "expired_codes":
        return "one or more KIS codes of the token like EGW00123, separated by commas (no code that may hide an order)"
    kind = "a whole number" if isinstance(spec.default, int) else "a number of seconds"
    span = f"{kind} from {spec.metadata['low']:,} to {spec.metadata['high']:,}"
    return "true or false" if spec.name == "enabled" else span


def parse(spec: Any, text: str) -> Any:
    """Convert the text of a variable for its field; `ValueError` where it takes something else."""
    if "_" in text:  # Python reads "1_0" as ten; a person who typed it meant something else
        raise ValueError(text)
    convert: Any = {bool: boolean, tuple: str}.get(type(spec.default), type(spec.default))
    return _checked(spec, convert(text))


def _checked(spec: Any, value: Any) -> Any:
    kind = type(spec.default)
    if kind is tuple:
        return _codes(value)
    fits = isinstance(value, bool) is (kind is bool) and isinstance(value, (int, kind))
    if not (fits and spec.metadata["low"] <= value <= spec.metadata["high"]):
        raise ValueError(value)
    return kind(value)


def _codes(value: Any) -> tuple[str, ...]:
    codes = tuple(str(code).strip().upper() for code in (value.split(",") if isinstance(value, str) else value))
    of_token = [re.fullmatch("EGW001[0-9]{2}", code) and CODES.get(code, Meaning.EXPIRED) for code in codes]
    if set(of_token) != {Meaning.EXPIRED}:  # only of those it is known that KIS says them before it acts
        raise ValueError(value)
    return codes
