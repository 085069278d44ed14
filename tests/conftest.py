"""What several test files share."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kis_retry import KisClient, MemoryTokenStore, RefreshEvent, RetryPolicy, TokenManager, on_event, uninstall
from kis_retry.testing import KisGateway
from patience import PATIENCE
from valkey_server import ValkeyServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

with contextlib.suppress(ImportError):  # the tests of other people's libraries do without it
    from hypothesis import HealthCheck, settings

    # How long an example takes says something about the machine, and nothing about the rule.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")

signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in a background job, and by its children

ONE_CERTIFICATE = str(Path(__file__).parent / "stores" / "certificates" / "elsewhere.pem")
"""Of no server here: httpx reads all that it trusts for each client, and a bundle takes longer than most tests do."""

IDLE_THREADS = {"kis_retry-pace", "kis_retry-refresh", "kis-gateway-connection"}
"""They wait for nothing but more work, the one for its time and the other until its gateway or its client closes."""


ONE_PYTHON = ("docs/", "system/", "wire/test_leftovers.py", "pace/test_rate_limiter_stores.py")
"""They show the same on every Python, and take long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(f"tests/{place}" in str(item.path) for place in ONE_PYTHON):
            item.add_marker("one_python")


def pytest_collection_finish() -> None:
    """What was made up to here stays to the end: no collection of garbage in a test needs to go through all of it."""
    gc.freeze()


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
        if thread not in before and thread.name not in IDLE_THREADS and thread.ident is not None:
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
def measured_to_the_end() -> Iterator[None]:
    """An exception of a signal handler that meets coverage's tracer ends it, and later tests would not be measured."""
    tracer = sys.gettrace()
    yield
    sys.settrace(tracer)


@pytest.fixture(autouse=True)
def nothing_installed() -> Iterator[None]:
    """What one test installs protects no request of the next."""
    yield
    uninstall()


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
def new_valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ValkeyServer]]:
    """Make running servers of a test's own, for those that stop or pause them, or need other settings."""
    servers: list[ValkeyServer] = []

    def new(**settings: str) -> ValkeyServer:
        servers.append(ValkeyServer(tmp_path_factory.mktemp("valkey"), **settings))
        servers[-1].start()
        return servers[-1]

    yield new
    for server in servers:
        server.stop()
