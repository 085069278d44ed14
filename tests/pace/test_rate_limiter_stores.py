"""The pace in stores: far away, damaged, broken, somebody else's; and the script on the server beside the pure rule."""

from __future__ import annotations

import dataclasses
import json
import logging
import queue
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kis_retry import Credentials, FileTokenStore, RateLimiter, RedisTokenStore
from kis_retry.pace.state import Ask, PaceState
from kis_retry.pace.stores import SCRIPT
from kis_retry.stores.base import key_of
from patience import PATIENCE, until
from simulated_pace import worst_second

KEY = Credentials("a-key", "a-secret")
FULL = 18 / 1.024


class Wire:
    """A way to a server that takes `rtt` seconds there and back."""

    def __init__(self, port: int, rtt: float) -> None:
        self._port, self._way = port, rtt / 2
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self, target: Callable[..., None], *given: Any) -> None:
        self._threads.append(threading.Thread(target=target, args=given))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self._port))
                self._open += [here, there]
                for source, target in ((here, there), (there, here)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    parcels: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                    self._run(self._take, source, parcels)
                    self._run(self._bring, target, parcels)

    def _take(self, source: socket.socket, parcels: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        data = b"begin"
        while data:
            data = b""
            with suppress(OSError):
                data = source.recv(65_536)
            parcels.put((time.monotonic() + self._way, data))

    def _bring(self, target: socket.socket, parcels: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        with suppress(OSError):
            while True:
                due, data = parcels.get()
                time.sleep(max(due - time.monotonic(), 0))
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)


@pytest.fixture
def distant(valkey_server: Any) -> Iterator[Callable[[float], str]]:
    """Make addresses of the server that are so many seconds away."""
    valkey_server.flush()
    wires: list[Wire] = []

    def new(rtt: float) -> str:
        wires.append(Wire(valkey_server.port, rtt))
        return wires[-1].url

    yield new
    for wire in wires:
        wire.close()


def slots(limiter: RateLimiter, threads: int, seconds: float) -> list[float]:
    """Return when so many threads, which never rest, had their slots."""
    ends, left = time.monotonic() + seconds, list[float]()

    def call() -> None:
        while limiter.acquire(ends - time.monotonic()):
            left.append(time.monotonic())

    running = [threading.Thread(target=call) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(PATIENCE)
    return sorted(left)


def test_a_server_a_tenth_of_a_second_away_slows_nobody(distant: Callable[[float], str]) -> None:
    limiter = RateLimiter(KEY, rate=18, store=RedisTokenStore(distant(0.1)))
    assert limiter.acquire(PATIENCE)
    left = slots(limiter, 16, 4.5)
    assert len([now for now in left if now > left[-1] - 3]) >= 0.9 * 3 * FULL, "one slot a trip is half of it"
    assert worst_second(left) <= 19


def test_two_clocks_are_brought_together(distant: Callable[[float], str], valkey_server: Any) -> None:
    """One process is near the server, one is far away, and they share the pace."""
    near, far = RedisTokenStore(valkey_server.url), RedisTokenStore(distant(0.1))
    limiters = [RateLimiter(KEY, rate=18, store=store) for store in (near, far)]
    found: list[list[float]] = []
    threads = [threading.Thread(target=lambda each=each: found.append(slots(each, 8, 4))) for each in limiters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    left = sorted(found[0] + found[1])
    assert worst_second([now for now in left if now > left[0] + 1]) <= 20
    assert len([now for now in left if now > left[-1] - 2.5]) >= 0.85 * 2.5 * FULL
    assert min(map(len, found)) >= 15


# -- the script and the pure rule say the same


def test_the_script_does_what_the_pure_rule_does(valkey_server: Any) -> None:
    from redis import Redis

    valkey_server.flush()
    client, state, dice = Redis.from_url(valkey_server.url), PaceState(), random.Random(2_026)
    script, verdict = client.register_script(SCRIPT), None
    for number in range(600):
        trouble = dice.random() < (0.6 if number % 100 < 40 else 0.05)
        ask = Ask(
            rate=dice.choice((0.5, 3, 18, 18, 40)),
            published=18,
            count=dice.randint(1, 5),
            lead=dice.choice((0, 0.05)),
            late=dice.choice((0, 0, 0.02, 3)),
            generation=state.adaptation.generation - (dice.random() < 0.1),
            passed=dice.randint(0, 3),
            refused=dice.choice((0, 1, 9)),
            failures=dice.randint(1, 3) if trouble else 0,
            now=100.0,
            failed_at=100 - dice.random() / 1_000,
            through_at=0.0 if trouble else dice.choice((0.0, 100.0, 99.95)),
        )
        asked = {**dataclasses.asdict(ask), "fresh": dataclasses.asdict(PaceState())}
        kept, *numbers = script(keys=["pace"], args=[json.dumps(asked | {"verdict": verdict or {}})])
        now, at, count, interval = map(float, numbers)
        if verdict:
            state.adaptation = type(state.adaptation)(**verdict)
        found, verdict = PaceState.decode(kept, now), None
        block = unjudged(state, ask, now)
        assert (block.at, block.count, block.interval) == (pytest.approx(at, abs=0.01), count, pytest.approx(interval))
        assert close(found, state), number
        state = found
        if dice.random() < 0.2:
            judged = PaceState.decode(kept, now).adaptation
            judged.fit, judged.windows, judged.generation = dice.choice((0.0, 2.85, 9.5)), judged.windows + 1, number
            judged.looking = dice.random() < 0.5
            verdict = dataclasses.asdict(judged)


def unjudged(state: PaceState, ask: Ask, now: float) -> Any:
    """Reserve without a verdict: on the server's side that comes with the next ask."""
    found = state.adaptation

    class Counting(type(found)):  # type: ignore[misc]  # it is a class
        def judge(self, full: float, now: float) -> bool:
            return False

    state.adaptation = Counting(**dataclasses.asdict(found))
    block = state.reserve(ask, now)
    state.adaptation = type(found)(**dataclasses.asdict(state.adaptation))
    return block


def close(first: PaceState, second: PaceState) -> bool:
    """Compare but for the tenth of a millisecond to which a server rounds."""
    left, right = ({**dataclasses.asdict(each), **dataclasses.asdict(each.adaptation)} for each in (first, second))
    return all(left[name] == pytest.approx(right[name], abs=0.01) for name in left if name != "adaptation")


def test_asking_is_one_trip(valkey_server: Any) -> None:
    from redis import Redis

    valkey_server.flush()
    limiter, server = (
        RateLimiter(KEY, rate=100, store=RedisTokenStore(valkey_server.url)),
        Redis.from_url(valkey_server.url),
    )
    limiter.acquire()

    def scripts() -> int:
        return int(server.info("commandstats").get("cmdstat_eval", {"calls": 0})["calls"])

    before = scripts()
    assert all(limiter.acquire() for _ in range(20))
    assert scripts() - before <= 22


# -- what is found there


def document(folder: Path) -> Path:
    return folder / f"{key_of(KEY)}.pace.json"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 5_000, b'{"next": 1e300}', b"[" * 100_000])
def test_a_damaged_file_is_written_anew(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    document(tmp_path).write_bytes(content)
    limiter = RateLimiter(KEY, rate=50, store=FileTokenStore(tmp_path))
    assert all(limiter.acquire(1) for _ in range(3))
    assert PaceState.decode(document(tmp_path).read_bytes(), time.monotonic()).written
    assert not caplog.records


def test_a_reboot_does_not_stop_anybody(tmp_path: Path) -> None:
    later = time.monotonic() + 1_000_000
    document(tmp_path).write_bytes(PaceState(written=later, next=later).encode())
    assert RateLimiter(KEY, rate=1, store=FileTokenStore(tmp_path)).acquire(1)


def plant(server: Any, what: str) -> None:
    from redis import Redis

    client, name = Redis.from_url(server.url), f"kis_retry:{{{key_of(KEY)}}}:pace"
    if what == "list":
        client.rpush(name, "somebody's")
    else:
        client.set(name, what)


@pytest.mark.parametrize(
    "what", ["list", "somebody's", "{}", "[]", "7", '{"written": "x"}', PaceState(next=1e300).encode().decode()]
)
def test_a_foreign_value_on_the_server_is_replaced(
    valkey_server: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    valkey_server.flush()
    plant(valkey_server, what)
    store = RedisTokenStore(valkey_server.url)
    limiter = RateLimiter(KEY, rate=2, store=store)
    assert limiter.acquire(PATIENCE)
    assert not RateLimiter(KEY, rate=1.9, store=store).acquire(0), "it is shared"
    assert not caplog.records


def test_a_client_that_decodes_will_do(valkey_server: Any) -> None:
    from redis import Redis

    valkey_server.flush()
    store = RedisTokenStore(Redis.from_url(valkey_server.url, decode_responses=True))
    assert RateLimiter(KEY, rate=2, store=store).acquire(PATIENCE)
    assert not RateLimiter(KEY, rate=1.9, store=store).acquire(0)


# -- a store that fails


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture(params=["refused", "silent", "folder"])
def broken(request: pytest.FixtureRequest, tmp_path: Path, listen: Any) -> Any:
    if request.param == "folder":
        (tmp_path / "a-file").write_text("no folder")
        return lambda: FileTokenStore(tmp_path / "a-file" / "store")
    if request.param == "silent":
        address = listen(lambda connection: [connection.recv(4_096) for _ in range(20)])
        return lambda: RedisTokenStore(f"redis://{address}/0?socket_timeout=0.3")
    return lambda: RedisTokenStore("redis://127.0.0.1:1/0")


def test_a_store_that_fails_is_one_warning_and_the_machine_goes_on_sharing(
    broken: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = RateLimiter(KEY, rate=0.5, store=broken()), RateLimiter(KEY, rate=0.4, store=broken())
    assert first.acquire(PATIENCE)
    assert not second.acquire(0.7), "through the machine's file store they share the pace"
    until(lambda: len(warnings(caplog)) >= 1)
    assert all("kis_retry.store_unavailable" in told and "operation=pace" in told for told in warnings(caplog))
    assert len(warnings(caplog)) <= 2, "one for each pace"
    assert "a-secret" not in caplog.text


def test_without_any_place_each_process_paces_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a-file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a-file"))
    limiter, began = RateLimiter(KEY, rate=40, store=RedisTokenStore("redis://127.0.0.1:1/0")), time.monotonic()
    assert all(limiter.acquire(PATIENCE) for _ in range(20))
    assert time.monotonic() - began >= 18.5 * 1.024 / 40
    until(lambda: len(warnings(caplog)) == 2)


def test_a_server_that_stops_and_comes_back_is_used_again(
    new_valkey_server: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = new_valkey_server()
    limiter = RateLimiter(KEY, rate=50, store=RedisTokenStore(server.url))
    assert all(limiter.acquire(PATIENCE) for _ in range(3))
    server.stop()
    assert all(limiter.acquire(PATIENCE) for _ in range(10))
    server.start()
    until(lambda: limiter.acquire(PATIENCE) and is_kept(server))
    until(lambda: warnings(caplog))
    assert len(warnings(caplog)) == 1


def is_kept(server: Any) -> bool:
    from redis import Redis

    return bool(Redis.from_url(server.url).exists(f"kis_retry:{{{key_of(KEY)}}}:pace"))


class TokensAlone:
    """A store of somebody else's."""

    load = save = delete = lock = dict.get


def test_with_a_store_of_somebody_elses_each_process_paces_itself() -> None:
    store: Any = TokensAlone()
    credentials = Credentials("somebody-elses", "a-secret")
    assert RateLimiter(credentials, rate=0.5, store=store).acquire(1)
    assert not RateLimiter(credentials, rate=0.5, store=store).acquire(0)


def test_a_log_handler_that_hangs_or_raises_stops_nobody() -> None:
    let_go = threading.Event()

    class Telegram(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            let_go.wait(PATIENCE)
            raise SystemExit("no network")

    handler, logger = Telegram(), logging.getLogger("kis_retry")
    logger.addHandler(handler)
    try:
        limiter = RateLimiter(KEY, rate=100, store=RedisTokenStore("redis://127.0.0.1:1/0"))
        assert all(limiter.acquire(PATIENCE) for _ in range(5))
        let_go.set()
        assert all(limiter.acquire(PATIENCE) for _ in range(5))
    finally:
        let_go.set()
        logger.removeHandler(handler)
