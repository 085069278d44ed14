"""`kis-retry config`: every variable, what it amounts to, and where that came from."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import NamedTuple

from ..credentials import PAPER_URL, REAL_URL, Credentials
from ..errors import ConfigurationError
from ..pace.limiter import PAPER_RATE, RATE_TAKES, REAL_RATE, parse_rate
from ..policy import RetryPolicy, parse, takes, variable_of
from ..settings import Environment, boolean, credential_variables, without_password
from ..stores.entry import STORE_VARIABLE, store_named
from ..token import fingerprint
from . import echo, echo_error, echo_json, echo_table

_FIELDS = fields(RetryPolicy)
_OTHER = "-"  # stands for the rest of the credentials while one of them is checked


class _Row(NamedTuple):
    """One variable: `value` is what is in force, safe to show; `origin` where it was found, and under which name."""

    variable: str
    value: str | None
    origin: str
    error: str | None = None


def config(arguments: Namespace) -> int:
    """Show every variable, which `.env` file is in force, and the names that nobody reads; 2 where one is unusable."""
    environment = Environment()
    rows, unknown = rows_of(environment), environment.unknown([variable_of(each.name) for each in _FIELDS])
    errors = [row.error for row in rows if row.error]
    if arguments.json:
        echo_json({"settings": [row._asdict() for row in rows], "env_file": environment.env_file, "unknown": unknown})
    else:
        shown = [(row.variable, "not usable" if row.error else row.value or "not set", row.origin) for row in rows]
        echo_table([("variable", "value", "from"), *shown])
        echo(f".env file: {environment.env_file or 'none at or above ' + ' or '.join(map(str, environment.searched))}")
    said = [f"{path} is ignored: {reason}" for path, reason in environment.ignored]
    said += [f"{name} is no variable of kis-retry, and changes nothing" for name in unknown]
    for line in said + errors:
        echo_error(line)
    return 2 if errors else 0


def rows_of(environment: Environment) -> list[_Row]:
    """Return what each variable amounts to."""
    row = partial(_row, environment)
    key, secret, account = credential_variables().values()
    paper = row(("KIS_PAPER",), False, boolean, "true or false")
    host, rate = (PAPER_URL, PAPER_RATE) if paper.value == "true" else (REAL_URL, REAL_RATE)
    return [
        row(key, None, lambda text: fingerprint(Credentials(text, _OTHER).app_key)),
        row(secret, None, lambda text: fingerprint(Credentials(_OTHER, text).app_secret)),
        row(account, None, lambda text: Credentials(_OTHER, _OTHER, text) and "***"),
        paper,
        row(("KIS_BASE_URL",), host, lambda text: Credentials(_OTHER, _OTHER, base_url=text).base_url),
        row((STORE_VARIABLE,), "file", lambda text: store_named(text) and text),
        row(("KIS_RATE_LIMIT",), rate, parse_rate, RATE_TAKES),
        *(row((variable_of(each.name),), each.default, partial(parse, each), takes(each)) for each in _FIELDS),
    ]


def _row(
    environment: Environment, names: tuple[str, ...], default: object, convert: Callable[[str], object], takes: str = ""
) -> _Row:
    setting = environment.find(*names)
    if setting is None:
        return _Row(names[0], None if default is None else _text(default), "default")
    origin = setting.origin if setting.variable == names[0] else f"{setting.origin}, {setting.variable}"
    try:
        return _Row(names[0], without_password(_text(convert(setting.text))), origin)
    except ConfigurationError as problem:  # it says what it takes, and shows a value only where that is harmless
        error = str(problem) if setting.variable in str(problem) else f"{setting.variable}: {problem}"
    except ValueError:
        error = f"{setting.variable}={without_password(setting.text)!r} is not usable: it takes {takes}"
    return _Row(names[0], None, origin, error)


def _text(value: object) -> str:
    """Return a value as one would write it into the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
