"""`kis-retry gateway`: a `KisGateway` as a process of its own, for clients in any language."""

from __future__ import annotations

import json
import shlex
import signal
import time
from argparse import Namespace
from contextlib import closing, suppress

from ..errors import ConfigurationError, KisRetryError
from ..testing.gateway import KisGateway
from . import echo, echo_json

_FAULTS = ("drop", "expire_at", "fail", "hang", "limit_calls", "outage", "refuse_calls", "refuse_tokens")


def gateway(arguments: Namespace) -> int:
    """Run until SIGINT or SIGTERM, then print what was seen; the exit status is 0."""
    settings = {name: getattr(arguments, name) for name in ("host", "port", "app_key", "app_secret", "expired_status")}
    try:
        running = KisGateway(**settings)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    running.expire_at(*arguments.expire_at)
    for fault in arguments.faults:
        _plan(running, fault)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        running.__enter__()
    except (OSError, OverflowError) as error:
        raise KisRetryError(f"port {arguments.port} of {arguments.host} cannot be listened on: {error}") from None
    with closing(running), suppress(KeyboardInterrupt):
        keys = running.credentials
        if arguments.env:
            values = {"BASE_URL": running.url, "APP_KEY": keys.app_key, "APP_SECRET": keys.app_secret}
            for name, value in {**values, "ACCOUNT_NO": keys.account or ""}.items():
                echo(f"KIS_{name}={shlex.quote(value)}")
        else:
            echo(running.url)
            echo_json({"app_key": keys.app_key, "app_secret": keys.app_secret, "account": keys.account})
        while True:
            time.sleep(0.5)  # in steps, since Windows delivers no signal during a sleep
    if not arguments.env:
        echo_json(running.counts._asdict())
    return 0


def _plan(running: KisGateway, fault: str) -> None:
    name, _, text = fault.strip().partition(" ")
    try:
        if name not in _FAULTS:
            raise ValueError(f"it takes one of {', '.join(_FAULTS)}")
        given = json.loads(text or "[]")
        method = getattr(running, name)
        method(**given) if isinstance(given, dict) else method(*(given if isinstance(given, list) else [given]))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"--fault {fault!r} is not usable: {error}") from None
