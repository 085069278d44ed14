"""How often, how long, how early: `RetryPolicy`, and reading one from the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from .answers import CODES, EXPIRED_CODES, Meaning
from .errors import ConfigurationError
from .settings import PREFIX, Environment, boolean

__all__ = ["RetryPolicy", "parse", "takes", "variable_of"]


def _bounded(default: float, low: float, high: float, unit: str) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "unit": unit})


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """
    The bounds of one protected call and of the refresh behind it. All waits are in seconds.

    The defaults suit a batch: one repeat, no wait before it, renewal ten minutes ahead. `from_env()` reads the same
    fields from `KIS_RETRY_<FIELD>`.

    Args:
        enabled: False makes every decorated function behave as if it were not decorated.
        max_retries: repeats after a refusal, 0 to 5. KIS refuses before it acts, so a repeat is safe for orders too.
        wait: between refresh and repeat, 0 to 60.
        refresh_margin: how long before its expiry a token is renewed, 0 to 43,200 (twelve of its 24 hours).
        issue_timeout: how long one token request may take, 0.1 to 120.
        issue_wait: how long a refresh may take in all, whatever it waits for: the once-a-minute rule (EGW00133), an
            endpoint that is away; 0 to 600, 0: one try.
        issue_cooldown: how long nobody asks for a token after a failed issue, 0 to 3,600.
        transient_deadline: how long a call is repeated after failures that pass by themselves, 0 to 86,400; 0: not at
            all.
        order_deadline: how long an order may wait before its first attempt for anything but its slot, and how long
            after that attempt it may still be repeated, 0 to 3,600; 0: an order leaves once.
        order_hold: how long the same order is held back after its answer was lost, 0 to 3,600; 0: not at all.
        expired_codes: the `msg_cd` values that a new token helps with. Only codes of the token are taken (EGW001…),
            which KIS says before it acts: after any other an order could be placed twice.

    Raises:
        ConfigurationError: a value is of the wrong kind or out of range.
    """

    enabled: bool = True
    max_retries: int = _bounded(1, 0, 5, "repeats")
    wait: float = _bounded(0.0, 0, 60, "seconds")
    refresh_margin: float = _bounded(600.0, 0, 43_200, "seconds")
    issue_timeout: float = _bounded(10.0, 0.1, 120, "seconds")
    issue_wait: float = _bounded(70.0, 0, 600, "seconds")
    issue_cooldown: float = _bounded(60.0, 0, 3_600, "seconds")
    transient_deadline: float = _bounded(60.0, 0, 86_400, "seconds")
    order_deadline: float = _bounded(5.0, 0, 3_600, "seconds")
    order_hold: float = _bounded(60.0, 0, 3_600, "seconds")
    expired_codes: tuple[str, ...] = EXPIRED_CODES

    def __post_init__(self) -> None:
        for spec in fields(self):
            try:
                value = _check(spec, getattr(self, spec.name))
            except ValueError:
                raise ConfigurationError(
                    f"{spec.name}={getattr(self, spec.name)!r} is not usable: it takes {takes(spec)}"
                ) from None
            object.__setattr__(self, spec.name, value)

    @classmethod
    def from_env(cls, prefix: str = PREFIX) -> RetryPolicy:
        """
        Read `KIS_RETRY_ENABLED`, `KIS_RETRY_MAX_RETRIES` and the rest; what is not set keeps its default.

        Args:
            prefix: of variables that go before these, such as `KIS_PAPER_` for `KIS_PAPER_RETRY_WAIT`.

        Raises:
            ConfigurationError: a variable holds something else than it takes; the message names all three.
        """
        environment = Environment()
        found: dict[str, Any] = {}
        for spec in fields(cls):
            value = environment.read(partial(parse, spec), takes(spec), *_variables_of(spec.name, prefix))
            if value is not None:
                found[spec.name] = value
        return cls(**found)


def variable_of(name: str) -> str:
    """Return the environment variable of a field of `RetryPolicy`."""
    return f"KIS_RETRY_{name.upper()}"


def _variables_of(name: str, prefix: str) -> list[str]:
    usual = variable_of(name)
    return list(dict.fromkeys([prefix + usual.removeprefix(PREFIX), usual]))


def takes(spec: Any) -> str:
    """Say what a field accepts, in words for an error message."""
    if spec.name == "enabled":
        return "true or false"
    if spec.name == "expired_codes":
        return "one or more KIS codes of the token like EGW00123, separated by commas (no code that may hide an order)"
    low, high = spec.metadata["low"], spec.metadata["high"]
    kind = "a whole number" if isinstance(spec.default, int) else f"a number of {spec.metadata['unit']}"
    return f"{kind} from {low:,} to {high:,}"


def parse(spec: Any, text: str) -> Any:
    """Convert the text of a variable for its field; `ValueError` where it takes something else."""
    if spec.name == "enabled":
        return boolean(text)
    if spec.name == "expired_codes":
        return _check(spec, tuple(text.split(",")))
    if "_" in text:  # Python reads "1_0" as ten; a person who typed it meant something else
        raise ValueError(text)
    return _check(spec, int(text) if isinstance(spec.default, int) else float(text))


def _check(spec: Any, value: Any) -> Any:
    if spec.name == "enabled":
        if not isinstance(value, bool):
            raise ValueError(value)
        return value
    if spec.name == "expired_codes":
        return _codes(value)
    whole = isinstance(spec.default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ValueError(value)
    if not spec.metadata["low"] <= value <= spec.metadata["high"]:  # false for NaN too
        raise ValueError(value)
    return value if whole else float(value)


def _codes(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    try:
        codes = tuple(str(code).strip().upper() for code in value)
    except TypeError:
        raise ValueError(value) from None
    if not codes or not all(map(_is_of_the_token, codes)):
        raise ValueError(value)
    return codes


def _is_of_the_token(code: str) -> bool:
    """Say whether KIS says this code where it looks at key and token, so before it acts."""
    known = CODES.get(code)
    return re.fullmatch("EGW001[0-9]{2}", code) is not None if known is None else known is Meaning.EXPIRED
