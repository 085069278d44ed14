"""`kis-retry gateway`: a `KisGateway` as a process of its own, and `GatewayProcess`: one seen from outside."""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, KisRetryError
from .interrupts import check_interrupt
from .output import echo, echo_error, echo_json

if TYPE_CHECKING:
    from types import TracebackType

    from ..credentials import Credentials
    from ..testing import KisGateway

__all__ = ["GATEWAY_SETTINGS", "GatewayProcess", "gateway"]

_PATIENCE = 5.0  # seconds for a process to end by itself
_ENDED = "the gateway process has ended"

GATEWAY_SETTINGS = (
    "host",
    "port",
    "app_key",
    "app_secret",
    "latency",
    "expired_status",
    "rate_limit",
    "rate_window",
    "seed",
)
"""What the command line sets of `KisGateway`, by its names."""

_READS = ("counts", "faults_met", "arrivals", "orders")
_FAULTS = (
    "expire",
    "expire_at",
    "refuse_calls",
    "refuse_tokens",
    "drop",
    "hang",
    "fail",
    "outage",
    "same_token",
    "heal",
)
_ARRANGEMENTS = ("limit_calls", "list_pages", "list_symbol", "list_etf", "reset_counts")


def gateway(
    settings: Mapping[str, Any],
    *,
    expire_at: Sequence[int],
    faults: Sequence[str],
    env: bool,
    control: bool,
    quiet: bool,
) -> int:
    """
    Run until SIGINT, SIGTERM or, with `control`, the end of standard input; then print what was seen.

    Args:
        settings: those of `GATEWAY_SETTINGS`.
        expire_at: as in `KisGateway.expire_at`.
        faults: what to ask of it before it opens, in the words that `control` takes.
        env: print lines that a shell can read instead of JSON.
        control: take commands on standard input.
        quiet: no hints.

    Returns:
        The exit status, 0.
    """
    from ..testing import KisGateway

    stop = threading.Event()
    running = KisGateway(**settings)
    running.expire_at(*expire_at)
    for fault in faults:
        try:
            _command(running, fault)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"--fault {fault!r} is not usable: {error}") from None
    with _stopping_on_signals(stop), _open(running, settings):
        check_interrupt()
        _introduce(running, settings["host"], env=env, quiet=quiet)
        if control:
            threading.Thread(target=_obey, args=(running, stop), daemon=True).start()
        while not stop.wait(0.5):  # in steps, since Windows delivers no signal during a wait
            pass
    counts = dict(running.counts)
    if env:
        echo(f"# {json.dumps(counts)}")
    else:
        echo_json(counts)
    return 0


@contextmanager
def _open(running: KisGateway, settings: Mapping[str, Any]) -> Iterator[None]:
    try:
        running.__enter__()
    except OSError as error:
        place = f"port {settings['port']} of {settings['host']}"
        raise KisRetryError(f"{place} cannot be listened on: {error.strerror}") from None
    try:
        yield
    finally:
        running.close()


def _introduce(running: KisGateway, host: str, *, env: bool, quiet: bool) -> None:
    made_up = running.credentials
    if env:
        values = {"BASE_URL": running.url, "APP_KEY": made_up.app_key, "APP_SECRET": made_up.app_secret}
        for name, value in {**values, "ACCOUNT_NO": made_up.account or ""}.items():
            echo(f"export KIS_{name}={shlex.quote(value)}")
    else:
        echo(running.url)
        echo_json({"app_key": made_up.app_key, "app_secret": made_up.app_secret, "account": made_up.account})
    if not _is_loopback(host):
        echo_error(f"warning: whoever reaches {host} can use this gateway, and what is sent to it is not encrypted")
    if not quiet:
        echo_error(
            "put these lines into the shell of your batch; Ctrl-C stops it"
            if env
            else "set KIS_BASE_URL to the first line, KIS_APP_KEY and KIS_APP_SECRET to the second; Ctrl-C stops it"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _command(running: KisGateway, line: str) -> object:
    """
    Do what a line says: a name, and perhaps its arguments as a JSON object, or an array where they have no names.

    Raises:
        ValueError, TypeError: it cannot be done; the text says why.
    """
    name, _, text = line.strip().partition(" ")
    if name in _READS:
        found = getattr(running, name)
        return dict(found) if isinstance(found, Mapping) else found
    if name not in (*_FAULTS, *_ARRANGEMENTS):
        raise ValueError(f"{name!r} is not known: it takes {', '.join((*_READS, *_FAULTS, *_ARRANGEMENTS))}")
    try:
        arguments = json.loads(text or "[]")
    except (ValueError, RecursionError):
        raise ValueError(f"the arguments of {name} are not JSON: they are an object, or an array") from None
    method = getattr(running, name)
    if isinstance(arguments, dict):
        return method(**arguments)
    return method(*arguments) if isinstance(arguments, list) else method(arguments)


@contextmanager
def _stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # elsewhere Python allows no handler
        yield
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _obey(running: KisGateway, stop: threading.Event) -> None:
    try:
        # Unbuffered: a thread that waits inside a buffered reader makes the interpreter abort at its end.
        with suppress(OSError), open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as lines:
            for line in lines:
                echo_json(_answer(running, line.decode(errors="replace")))
    finally:  # whoever gave commands has ended, perhaps before the answer to the last
        stop.set()


def _answer(running: KisGateway, line: str) -> object:
    try:
        return _command(running, line) or {}
    except (TypeError, ValueError) as error:
        return {"error": str(error)}


class GatewayProcess:
    """
    A gateway in a process of its own, which ends with the `with` statement, or with this process however that ends.

    Args:
        expire_at: the API call that finds its token just expired; None for none.
        faults: what to ask of it before it opens, as `--fault` takes it.
        seed: as `--seed` takes it; None for another course each time.

    Raises:
        KisRetryError: it did not start.
    """

    def __init__(self, *, expire_at: int | None = None, faults: Sequence[str] = (), seed: int | None = None) -> None:
        self._arguments = ["--control", "--quiet"]
        if expire_at is not None:
            self._arguments += ["--expire-at", str(expire_at)]
        if seed is not None:
            self._arguments += ["--seed", str(seed)]
        for fault in faults:
            self._arguments += ["--fault", fault]
        self._process: subprocess.Popen[str] | None = None
        self._talking = threading.Lock()  # guards the pipes from a command to its answer
        self._url = ""
        self._made_up: dict[str, Any] = {}

    def __enter__(self) -> GatewayProcess:  # noqa: PYI034  # typing.Self is of 3.11
        self._process = subprocess.Popen(  # noqa: S603  # this very program
            [sys.executable, "-m", "kis_retry", "gateway", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            **_apart(),
        )
        try:
            self._url, self._made_up = self._line(), json.loads(self._line())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def credentials(self) -> Credentials:
        """Credentials that this gateway accepts."""
        from ..credentials import Credentials

        return Credentials(self._made_up["app_key"], self._made_up["app_secret"], base_url=self._url)

    def check(self) -> None:
        """
        Look whether it is still there.

        Raises:
            KisRetryError: its process has ended.
        """
        if self._running().poll() is not None:
            raise KisRetryError(_ENDED)

    def counts(self) -> dict[str, int]:
        """What it has seen so far, as `KisGateway.counts`."""
        found: dict[str, int] = self.tell("counts")
        return found

    def tell(self, name: str, **arguments: object) -> Any:
        """
        Have it do something while it runs: `tell("refuse_calls", msg_cd="EGW00201", share=0.22)`, `tell("faults_met")`.

        For any thread.

        Args:
            name: a method or property of `KisGateway` that `--control` knows.
            arguments: the method's.

        Returns:
            What the property holds; an empty dict for a method.

        Raises:
            ValueError: the gateway would not; the text says why.
            KisRetryError: its process has ended.
        """
        process = self._running()
        assert process.stdin is not None  # noqa: S101  # a pipe, as asked for
        with self._talking:
            with suppress(OSError):  # it has ended, and `_line` says so
                process.stdin.write(f"{name} {json.dumps(arguments)}\n")
                process.stdin.flush()
            answer = json.loads(self._line())
        if isinstance(answer, dict) and "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def _line(self) -> str:
        process = self._running()
        assert process.stdout is not None  # noqa: S101  # as above
        line = process.stdout.readline().strip()
        if not line:
            raise KisRetryError(_ENDED)
        return line

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("this GatewayProcess is not open: use it in a with statement")
        return self._process

    def _end(self) -> None:
        process = self._running()
        try:
            with suppress(OSError, subprocess.TimeoutExpired):
                process.communicate(timeout=_PATIENCE)  # closes its standard input
        finally:
            process.kill()
            process.wait()


def _apart() -> dict[str, Any]:
    """A Ctrl-C at the terminal is for the program that started the gateway; that one ends it in order."""
    if os.name == "nt":
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True}
