"""`kis-retry gateway`: a `KisGateway` as a process of its own, and `GatewayProcess`: one seen from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..errors import KisRetryError
from .output import complain, say, say_json

if TYPE_CHECKING:
    from types import TracebackType

    from ..credentials import Credentials
    from ..testing import KisGateway

__all__ = ["GatewayProcess", "gateway"]

_PATIENCE = 5.0  # seconds for a process to end by itself


def gateway(
    *,
    port: int,
    expire_at: Sequence[int],
    latency: float,
    expired_status: int,
    rate_limit: int | None,
    control: bool,
    quiet: bool,
) -> int:
    """Run until SIGINT, SIGTERM or, with `control`, the end of standard input; then print what was seen."""
    from ..testing import KisGateway

    stop = threading.Event()
    running = KisGateway(port=port, latency=latency, expired_status=expired_status, rate_limit=rate_limit)
    running.expire_at(*expire_at)
    with _stopping_on_signals(stop), _open(running, port):
        _introduce(running, quiet=quiet)
        if control:
            threading.Thread(target=_obey, args=(running, stop), daemon=True).start()
        while not stop.wait(0.5):  # in steps, since Windows delivers no signal during a wait
            pass
    say_json(dict(running.counts))
    return 0


@contextmanager
def _open(running: KisGateway, port: int) -> Iterator[None]:
    try:
        running.__enter__()
    except OSError as error:
        raise KisRetryError(f"port {port} of 127.0.0.1 cannot be listened on: {error.strerror}") from None
    try:
        yield
    finally:
        running.close()


def _introduce(running: KisGateway, *, quiet: bool) -> None:
    credentials = running.credentials
    say(running.url)
    say_json({"app_key": credentials.app_key, "app_secret": credentials.app_secret, "account": credentials.account})
    if not quiet:
        complain("set KIS_BASE_URL to the first line, KIS_APP_KEY and KIS_APP_SECRET to the second; Ctrl-C stops it")


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
    commands: dict[str, Callable[[], object]] = {"counts": lambda: dict(running.counts), "expire": running.expire}
    # Unbuffered: a thread that waits inside a buffered reader makes the interpreter abort at its end.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as lines:
        for line in lines:
            word = line.decode(errors="replace").strip()
            if word in commands:
                say_json(commands[word]() or {})
            else:
                say_json({"error": f"{word!r} is not known: it takes {' or '.join(commands)}"})
    stop.set()


class GatewayProcess:
    """
    A gateway in a process of its own, which ends with the `with` statement, or with this process however that ends.

    Raises:
        KisRetryError: it did not start.
    """

    def __init__(self, *, expire_at: int) -> None:
        self._arguments = ["--control", "--quiet", "--expire-at", str(expire_at)]
        self._process: subprocess.Popen[str] | None = None
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

    def counts(self) -> dict[str, int]:
        """What it has seen so far, as `KisGateway.counts`."""
        process = self._running()
        assert process.stdin is not None  # noqa: S101  # a pipe, as asked for
        with suppress(OSError):  # it has ended, and `_line` says so
            process.stdin.write("counts\n")
            process.stdin.flush()
        counts: dict[str, int] = json.loads(self._line())
        return counts

    def _line(self) -> str:
        process = self._running()
        assert process.stdout is not None  # noqa: S101  # as above
        line = process.stdout.readline().strip()
        if not line:
            raise KisRetryError("the gateway process has ended")
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
