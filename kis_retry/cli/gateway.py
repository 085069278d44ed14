"""`kis-retry gateway`: a `KisGateway` as a process of its own, for clients in any language."""

from __future__ import annotations

import json
import shlex
import signal
import time
from argparse import Namespace
from contextlib import suppress

from ..errors import ConfigurationError, KisRetryError
from ..testing import KisGateway
from .output import echo, echo_error, echo_json

__all__ = ["FAULTS", "GATEWAY_SETTINGS", "gateway"]

GATEWAY_SETTINGS = ("host", "port", "app_key", "app_secret", "expired_status")
"""What the command line sets of `KisGateway`, by its names."""

FAULTS = ("drop", "expire", "expire_at", "fail", "hang", "limit_calls", "outage", "refuse_calls", "refuse_tokens")
"""Methods of `KisGateway` that `--fault` takes."""


def gateway(arguments: Namespace) -> int:
    """Run until SIGINT or SIGTERM, then print what was seen; the exit status is 0."""
    running = _new_gateway(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        running.__enter__()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise KisRetryError(f"port {arguments.port} of {arguments.host} cannot be listened on: {reason}") from None
    try:
        with suppress(KeyboardInterrupt):
            _introduce(running, arguments)
            while True:
                time.sleep(0.5)  # in steps, since Windows delivers no signal during a sleep
    finally:
        running.close()
    if not arguments.env:
        echo_json(dict(running.counts))
    return 0


def _new_gateway(arguments: Namespace) -> KisGateway:
    try:
        made = KisGateway(**{name: getattr(arguments, name) for name in GATEWAY_SETTINGS})
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
    given = json.loads(text or "[]")
    if isinstance(given, dict):
        getattr(made, name)(**given)
    else:
        getattr(made, name)(*(given if isinstance(given, list) else [given]))


def _introduce(running: KisGateway, arguments: Namespace) -> None:
    if not arguments.host.startswith("127.") and arguments.host not in {"localhost", "::1"}:
        echo_error(f"warning: whoever reaches {arguments.host} can use this gateway, and nothing is encrypted")
    if not arguments.quiet:
        lines = "a .env file" if arguments.env else "its URL, and the keys that it accepts"
        echo_error(f"on stdout is {lines}; Ctrl-C stops it")
    keys = running.credentials
    if arguments.env:
        values = {"BASE_URL": running.url, "APP_KEY": keys.app_key, "APP_SECRET": keys.app_secret}
        for name, value in {**values, "ACCOUNT_NO": keys.account or ""}.items():
            echo(f"KIS_{name}={shlex.quote(value)}")
    else:
        echo(running.url)
        echo_json({"app_key": keys.app_key, "app_secret": keys.app_secret, "account": keys.account})
