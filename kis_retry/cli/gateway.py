"""`kis-retry gateway`: a `KisGateway` as a process of its own, for clients in any language."""

from __future__ import annotations

import ipaddress
import json
import shlex
import signal
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ConfigurationError, KisRetryError
from ..testing import KisGateway
from .output import echo, echo_error, echo_json

__all__ = ["FAULTS", "SETTINGS", "gateway"]

SETTINGS = (
    *("host", "port", "app_key", "app_secret", "latency"),
    *("expired_status", "rate_limit", "rate_window", "seed"),
)
"""What the command line sets of `KisGateway`, by its names."""

FAULTS = ("drop", "expire", "expire_at", "fail", "hang", "outage", "refuse_calls", "refuse_tokens", "same_token")
"""Methods of `KisGateway` that `--fault` takes."""


def gateway(arguments: Namespace) -> int:
    """Run until SIGINT or SIGTERM, then print what was seen; the exit status is 0."""
    stop = threading.Event()
    running = _new_gateway(arguments)
    with _stopping_on_signals(stop):
        try:
            running.__enter__()
        except (OSError, OverflowError) as error:
            place = f"port {arguments.port} of {arguments.host}"
            raise KisRetryError(f"{place} cannot be listened on: {getattr(error, 'strerror', error)}") from None
        try:
            _introduce(running, env=arguments.env)
            _hint(arguments)
            while not stop.wait(0.5):  # in steps, since Windows delivers no signal during a wait
                pass
        finally:
            running.close()
    if not arguments.env:
        echo_json(dict(running.counts))
    return 0


def _new_gateway(arguments: Namespace) -> KisGateway:
    try:
        made = KisGateway(**{name: getattr(arguments, name) for name in SETTINGS})
        made.expire_at(*arguments.expire_at)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    for fault in arguments.faults:
        try:
            _ask_for(made, fault)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"--fault {fault!r} is not usable: {error}") from None
    return made


def _ask_for(made: KisGateway, fault: str) -> None:
    name, _, text = fault.strip().partition(" ")
    if name not in FAULTS:
        raise ValueError(f"it takes one of {', '.join(FAULTS)}")
    method, given = getattr(made, name), json.loads(text or "[]")
    if isinstance(given, dict):
        method(**given)
    else:
        method(*(given if isinstance(given, list) else [given]))


def _introduce(running: KisGateway, *, env: bool) -> None:
    made_up = running.credentials
    if env:
        values = {"BASE_URL": running.url, "APP_KEY": made_up.app_key, "APP_SECRET": made_up.app_secret}
        for name, value in {**values, "ACCOUNT_NO": made_up.account or ""}.items():
            echo(f"KIS_{name}={shlex.quote(value)}")
    else:
        echo(running.url)
        echo_json({"app_key": made_up.app_key, "app_secret": made_up.app_secret, "account": made_up.account})


def _hint(arguments: Namespace) -> None:
    host = arguments.host
    if not _is_loopback(host):
        echo_error(f"warning: whoever reaches {host} can use this gateway, and what is sent to it is not encrypted")
    if not arguments.quiet:
        keys = "these lines are a .env file" if arguments.env else "KIS_BASE_URL is the first line, the keys the second"
        echo_error(f"{keys}; Ctrl-C stops it")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
