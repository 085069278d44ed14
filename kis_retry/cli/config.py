"""`kis-retry config`: every variable, what it amounts to, and where that came from."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import NamedTuple

from ..credentials import PAPER_URL, REAL_URL, Credentials
from ..errors import ConfigurationError
from ..policy import RetryPolicy, parse, takes, variable_of
from ..pace.limiter import PAPER_RATE, RATE_TAKES, REAL_RATE, parse_rate
from ..settings import CREDENTIAL_VARIABLES, Environment, boolean, unknown_variables
from ..stores.from_env import STORE_VARIABLE, store_named
from ..token import fingerprint
from .output import echo, echo_error, echo_json, echo_table

__all__ = ["config", "problems"]

_OTHER = "00000000-01"  # stands for the rest of the credentials while one of them is checked


class _Row(NamedTuple):
    """
    One variable.

    Attributes:
        value: what is in force, safe to show; None where nothing is, or nothing usable.
        default: what is in force where it is not set.
        origin: "environment", ".env" or "default".
        read_from: the name under which it was found.
        error: what is wrong with it.
    """

    variable: str
    value: str | None
    default: str | None
    origin: str
    read_from: str | None = None
    error: str | None = None


def config(arguments: Namespace) -> int:
    """
    Show every variable of the environment, which `.env` file is in force, and which names nobody knows.

    Returns:
        0, or 2 where a value cannot be used.
    """
    environment = Environment()
    rows = _settings(environment)
    errors = [row.error for row in rows if row.error]
    env_file = None if environment.env_file is None else str(environment.env_file)
    unknown = sorted(unknown_variables())
    if arguments.json:
        echo_json(
            {"settings": [row._asdict() for row in rows], "errors": errors, "env_file": env_file, "unknown": unknown}
        )
    else:
        echo_table([("variable", "value", "from"), *map(_texts, rows)])
        echo(f".env file: {env_file or 'none at or above the working directory'}")
    for path, reason in environment.ignored:
        echo_error(f"{path} is ignored: {reason}")
    for name in unknown:
        echo_error(f"{name} is not known, and changes nothing")
    for error in errors:
        echo_error(error)
    return 2 if errors else 0


def problems() -> list[str]:
    """Return what is wrong with each setting that cannot be used, in words without secrets."""
    return [row.error for row in _settings(Environment()) if row.error]


def _texts(row: _Row) -> tuple[str, str, str]:
    origin = f"{row.origin}, {row.read_from}" if row.read_from not in {None, row.variable} else row.origin
    return row.variable, "not usable" if row.error else row.value or "not set", origin


def _settings(environment: Environment) -> list[_Row]:
    row = partial(_row, environment)
    key, secret, account = CREDENTIAL_VARIABLES.values()
    paper = row(("KIS_PAPER",), False, boolean, takes="true or false")
    host, rate = (PAPER_URL, PAPER_RATE) if paper.value == "true" else (REAL_URL, REAL_RATE)
    return [
        row(key, None, lambda text: fingerprint(Credentials(text, _OTHER).app_key)),
        row(secret, None, lambda text: fingerprint(Credentials(_OTHER, text).app_secret)),
        row(account, None, lambda text: "***" if Credentials(_OTHER, _OTHER, text) else None),
        paper,
        row(("KIS_BASE_URL",), host, lambda text: _masked(Credentials(_OTHER, _OTHER, base_url=text).base_url)),
        row((STORE_VARIABLE,), "file", _store),
        row(("KIS_RATE_LIMIT",), rate, parse_rate, takes=RATE_TAKES),
        *(
            row((variable_of(spec.name),), spec.default, partial(parse, spec), takes=takes(spec))
            for spec in fields(RetryPolicy)
        ),
    ]


def _row(
    environment: Environment,
    variables: tuple[str, ...],
    default: object,
    convert: Callable[[str], object],
    *,
    takes: str = "",
) -> _Row:
    setting = environment.find(*variables)
    usual = None if default is None else _text(default)
    if setting is None:
        return _Row(variables[0], usual, usual, "default")
    value = error = None
    try:
        value = _text(convert(setting.text))
    except ConfigurationError as problem:  # it says what it takes, and shows a value only where that is harmless
        error = str(problem) if setting.variable in str(problem) else f"{setting.variable}: {problem}"
    except ValueError:
        error = f"{setting.variable}={_masked(setting.text)!r} is not usable: it takes {takes}"
    return _Row(variables[0], value, usual, setting.origin, setting.variable, error)


def _text(value: object) -> str:
    """Return a value as one would write it into the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _store(text: str) -> str:
    store_named(text)
    return _masked(text)


def _masked(text: str) -> str:
    """Return an address without user, password and options: redis-py takes a password in either place."""
    shown = re.sub(r"//.*@", "//***@", text)  # up to the last "@": a password may hold a "/" or an "@" as it is
    return re.sub(r"\?.*", "?***", shown) if "://" in shown else shown
