"""The pace in stores: far away, damaged, and broken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from crowds import ended, started, together
from kis_retry import Credentials, FileTokenStore, RateLimiter, RedisTokenStore
from kis_retry.pace.schedule import PaceState
from kis_retry.stores.base import key_of
from patience import PATIENCE, until
from simulated_pace import worst_second

KEY = Credentials("a-key", "a-secret")
FULL = 18 / 1.024


class Distant:
    """A client of a server that is `rtt` seconds away, there and back."""

    def __init__(self, url: str, rtt: float) -> None:
        self._client, self._way = Redis.from_url(url), rtt / 2

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            time.sleep(self._way)
            answer = getattr(self._client, name)(*given, **options)
            time.sleep(self._way)
            return answer

        return call


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> None:
    if "valkey_server" in request.fixturenames:
        request.getfixturevalue("valkey_server").flush()


def slots(limiter: RateLimiter, threads: int, seconds: float) -> list[float]:
    """Return when so many threads, which never rest, had their slots."""
    ends, left = time.monotonic() + seconds, list[float]()

    def call() -> None:
        while limiter.acquire(ends - time.monotonic()):
            left.append(time.monotonic())

    ended(started(threads, call))
    return sorted(left)


def test_two_clocks_are_brought_together(valkey_server: Any) -> None:
    """One process is near the server, one is far away, and they share the pace."""
    near, far = RedisTokenStore(valkey_server.url), RedisTokenStore(Distant(valkey_server.url, 0.1))
    limiters = [RateLimiter(KEY, rate=18, store=store) for store in (near, far)]
    found = together(2, lambda number: slots(limiters[number], 8, 3.5))
    left = sorted(found[0] + found[1])
    assert worst_second([now for now in left if now > left[0] + 1]) <= 20
    assert len([now for now in left if now > left[-1] - 2]) >= 0.85 * 2 * FULL
    assert min(map(len, found)) >= 15


def test_asking_is_one_trip(valkey_server: Any) -> None:
    limiter = RateLimiter(KEY, rate=100, store=RedisTokenStore(valkey_server.url))
    server = Redis.from_url(valkey_server.url)
    limiter.acquire()

    def scripts() -> int:
        return int(server.info("commandstats").get("cmdstat_eval", {"calls": 0})["calls"])

    before = scripts()
    assert all(limiter.acquire() for _ in range(20))
    assert scripts() - before <= 22


# -- what is found there


def document(folder: Path) -> Path:
    return folder / f"{key_of(KEY)}.pace.json"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 5_000, b"[]", b'{"next": 1e300}', b"[" * 100_000])
def test_a_damaged_file_is_written_anew(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    document(tmp_path).write_bytes(content)
    limiter = RateLimiter(KEY, rate=50, store=FileTokenStore(tmp_path))
    assert all(limiter.acquire(1) for _ in range(3))
    assert PaceState.from_json(document(tmp_path).read_bytes(), time.monotonic()).top_at
    assert not caplog.records


def test_a_reboot_does_not_stop_anybody(tmp_path: Path) -> None:
    later = time.monotonic() + 1_000_000
    document(tmp_path).write_bytes(PaceState(top_at=later, next=later).to_json().encode())
    assert RateLimiter(KEY, rate=1, store=FileTokenStore(tmp_path)).acquire(1)


@pytest.mark.parametrize("decodes", [False, True])
@pytest.mark.parametrize(
    "foreign",
    [
        ("SET", "somebody's"),
        ("HSET", "somebody's", "field"),
        ("RPUSH", "somebody's", "[7]", '[1, {"rate": 18}]'),
        ("RPUSH", PaceState(next=1e300).to_json(), "[" * 100_000),
    ],
    ids=["text", "hash", "list", "list with a state"],
)
def test_a_foreign_value_on_the_server_is_replaced(
    valkey_server: Any, foreign: tuple[str, ...], decodes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    client = Redis.from_url(valkey_server.url, decode_responses=decodes)
    client.execute_command(foreign[0], f"kis_retry:{{{key_of(KEY)}}}:pace", *foreign[1:])
    store = RedisTokenStore(client)
    assert RateLimiter(KEY, rate=2, store=store).acquire(PATIENCE)
    assert not RateLimiter(KEY, rate=1.9, store=store).acquire(0), "it is shared"
    assert not caplog.records


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
    return bool(Redis.from_url(server.url).exists(f"kis_retry:{{{key_of(KEY)}}}:pace"))


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
