"""One token for every process and every machine: real processes, real files, a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from answers import GOOD_CODE
from kis_retry import AccessToken, FileTokenStore, RedisTokenStore, TokenManager, TokenStore
from kis_retry.stores.base import key_of
from kis_retry.stores.codec import encode
from kis_retry.testing import KisGateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = pytest.mark.one_python

PROGRAM = Path(__file__).parents[1] / "programs" / "batch.py"
CROWD = 8


class Worker:
    """A process of its own that runs batches."""

    def __init__(self, folder: Path) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("KIS_", "KOREA_"))}
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environ,
        )

    def prepare(self, environ: dict[str, str], threads: int, calls: int, *, again: bool) -> None:
        self._say(json.dumps({"environ": environ, "threads": threads, "calls": calls, "again": again}))

    def start(self) -> None:
        assert self._hear() == "ready\n"
        self._say("go")

    def result(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._hear())
        return answer

    def dismiss(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Worker]]:
    """Eight processes, started once; each batch begins with a new client that knows no token."""
    workers = [Worker(tmp_path_factory.mktemp("worker")) for _ in range(CROWD)]
    yield workers
    for worker in workers:
        worker.dismiss()
    for worker in workers:
        worker.process.wait(30)


@pytest.fixture(params=["files", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `KIS_TOKEN_STORE` names."""
    if request.param == "files":
        return str(tmp_path / "cache")
    server = request.getfixturevalue("valkey_server")
    server.flush()
    return str(server.url)


def environment(gateway: KisGateway, place: str, home: Path) -> dict[str, str]:
    return {
        "KIS_APP_KEY": gateway.credentials.app_key,
        "KIS_APP_SECRET": gateway.credentials.app_secret,
        "KIS_BASE_URL": gateway.url,
        "KIS_TOKEN_STORE": place,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "KIS_RATE_LIMIT": "0",
    }


def run(
    workers: Sequence[Worker],
    environ: dict[str, str] | Callable[[int], dict[str, str]],
    *,
    threads: int = 1,
    calls: int = 1,
    again: bool = False,
) -> list[dict[str, Any]]:
    """Let them all loose at once. `again`: with the clients of the time before, and what these remember."""
    for number, worker in enumerate(workers):
        worker.prepare(environ(number) if callable(environ) else environ, threads, calls, again=again)
    for worker in workers:
        worker.start()
    return [worker.result() for worker in workers]


def total(results: list[dict[str, Any]], of: str = "answers") -> dict[str, int]:
    counted: dict[str, int] = {}
    for result in results:
        for name, count in result[of].items():
            counted[name] = counted.get(name, 0) + count
    return counted


def store_at(place: str) -> TokenStore:
    return RedisTokenStore(place) if place.startswith("redis") else FileTokenStore(place)


# --- one token for all


def test_eight_cold_processes_make_one_token_request(
    gateway: KisGateway, crowd: list[Worker], place: str, tmp_path: Path
) -> None:
    results = run(crowd, environment(gateway, place, tmp_path))
    assert total(results) == {GOOD_CODE: CROWD}
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused == 0


def test_eight_processes_with_yesterdays_token_make_one_token_request(
    gateway: KisGateway, crowd: list[Worker], place: str, tmp_path: Path
) -> None:
    yesterday = AccessToken("eyJ.yesterday.sig", datetime.now(timezone.utc) - timedelta(hours=1))
    store_at(place).save(key_of(gateway.credentials), yesterday)
    results = run(crowd, environment(gateway, place, tmp_path))
    assert total(results) == {GOOD_CODE: CROWD}
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused == 0


def test_eight_processes_of_four_threads_over_an_expiry_lose_nothing_and_issue_once(
    gateway: KisGateway, crowd: list[Worker], place: str, tmp_path: Path
) -> None:
    environ = environment(gateway, place, tmp_path)
    run(crowd, environ)
    gateway.expire_at(gateway.counts.calls + 160)
    gateway.reset_counts()
    results = run(crowd, environ, threads=4, calls=10, again=True)
    assert total(results) == {GOOD_CODE: 320}
    assert gateway.counts.token_requests == 1
    assert gateway.counts.token_requests_refused == 0
    assert 1 <= gateway.counts.refused <= CROWD * 4, "each thread meets the dead token once at most"
    events = total(results, "events")
    assert events["call_recovered"] == gateway.counts.refused
    assert "call_given_up" not in events


def test_an_expiry_that_finds_every_process_idle_is_one_issue(
    gateway: KisGateway, crowd: list[Worker], place: str, tmp_path: Path
) -> None:
    environ = environment(gateway, place, tmp_path)
    run(crowd, environ)
    for _ in range(2):
        gateway.expire()
        gateway.reset_counts()
        results = run(crowd, environ, threads=4, again=True)
        assert total(results) == {GOOD_CODE: CROWD * 4}
        assert gateway.counts.token_requests == 1


def test_three_machines_on_one_redis_lose_nothing_and_issue_once(
    gateway: KisGateway, crowd: list[Worker], valkey_server: Any, tmp_path: Path
) -> None:
    valkey_server.flush()

    def machine(number: int) -> dict[str, str]:
        return environment(gateway, valkey_server.url, tmp_path / f"machine{number}")

    run(crowd[:3], machine)
    assert gateway.counts.token_requests == 1
    gateway.expire_at(gateway.counts.calls + 60)
    gateway.reset_counts()
    results = run(crowd[:3], machine, threads=4, calls=10, again=True)
    assert total(results) == {GOOD_CODE: 120}
    assert gateway.counts.token_requests == 1
    assert gateway.counts.token_requests_refused == 0
    assert list(tmp_path.glob("machine*")) == [], "nothing was shared but the server"


# --- a revoked token


def test_a_revoked_token_is_gone_from_the_store_and_the_others_issue_once(
    crowd: list[Worker], place: str, tmp_path: Path
) -> None:
    ahead = 0.0
    with KisGateway(clock=lambda: time.time() + ahead) as gateway:
        environ = environment(gateway, place, tmp_path)
        store = store_at(place)
        other = TokenManager(gateway.credentials, store=store)
        revoked = other.token()
        run(crowd, environ)
        assert other.revoke() is True
        assert store.load(key_of(gateway.credentials)) is None
        ahead = 61  # the minute of the first issue is over
        gateway.reset_counts()
        results = run(crowd, environ, threads=4, again=True)
        assert total(results) == {GOOD_CODE: CROWD * 4}
        assert gateway.counts.token_requests == 1
        assert gateway.counts.refused >= CROWD, "that is how each of them learned of it"
        assert other.token() != revoked
        assert gateway.counts.token_requests == 1


# --- a damaged entry


def but(**changes: object) -> Callable[[str], bytes]:
    """A good entry with something else in it; None takes a field out."""

    def content(key: str) -> bytes:
        good = json.loads(encode(key, AccessToken("eyJ.good.sig", datetime.now(timezone.utc) + timedelta(hours=9))))
        return json.dumps({name: value for name, value in {**good, **changes}.items() if value is not None}).encode()

    return content


DAMAGES: dict[str, Callable[[str], bytes]] = {
    "empty": lambda key: b"",
    "zeroes": lambda key: bytes(200),
    "not text": lambda key: b"\xff\xfe\x80" * 50,
    "a page": lambda key: b"<html>502 Bad Gateway</html>",
    "cut short": lambda key: but()(key)[:-20],
    "written twice": lambda key: but()(key) * 2,
    "null": lambda key: b"null",
    "a list": lambda key: b"[]",
    "a deep nest": lambda key: b"[" * 15_000,
    "a megabyte": lambda key: b" " * 1_000_000 + but()(key),
    "another version": but(version=2),
    "another key": but(key="0" * 32),
    "no token": but(access_token=None),
    "an empty token": but(access_token=""),
    "a token that is a number": but(access_token=12345),
    "a token with a line break": but(access_token="abc\r\nx-evil: 1"),
    "a token that is not ASCII": but(access_token="토큰"),
    "no expiry": but(expires_at=None),
    "a naive expiry": but(expires_at="2090-11-24T09:00:00"),
    "an expiry out of this world": but(expires_at="9999-12-31T23:59:59-12:00"),
    "a pickle": lambda key: b"\x80\x04\x95.\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "a token that KIS never issued": but(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_costs_one_issue_and_the_healed_one_serves_the_next_process(
    damage: str, gateway: KisGateway, crowd: list[Worker], place: str, tmp_path: Path
) -> None:
    key = key_of(gateway.credentials)
    content = DAMAGES[damage](key)
    if place.startswith("redis"):
        with redis.Redis.from_url(place) as server:
            server.set(f"kis_retry:{{{key}}}:token", content)
    else:
        Path(place).mkdir()
        (Path(place) / f"{key}.json").write_bytes(content)
    environ = environment(gateway, place, tmp_path)
    first = run(crowd[:1], environ)
    second = run(crowd[1:2], environ)
    assert total(first) == total(second) == {GOOD_CODE: 1}
    assert gateway.counts.token_requests == 1
    assert gateway.counts.refused == (damage == "a token that KIS never issued")
    assert first[0]["warnings"] == second[0]["warnings"] == []
    assert "token_adopted" not in second[0]["events"], "it was not refused"


@pytest.mark.parametrize("plant", ["folder", "fifo", "link to nowhere", "link to itself", "endless device"])
def test_what_is_no_file_in_the_entrys_place_is_healed_as_well(
    plant: str, gateway: KisGateway, crowd: list[Worker], tmp_path: Path
) -> None:
    place = tmp_path / "cache"
    place.mkdir()
    entry = place / f"{key_of(gateway.credentials)}.json"
    plants: dict[str, Callable[[], None]] = {
        "folder": entry.mkdir,
        "fifo": lambda: os.mkfifo(entry),
        "link to nowhere": lambda: entry.symlink_to(tmp_path / "nowhere"),
        "link to itself": lambda: entry.symlink_to(entry),
        "endless device": lambda: entry.symlink_to("/dev/zero"),
    }
    plants[plant]()
    environ = environment(gateway, str(place), tmp_path)
    results = run(crowd[:1], environ) + run(crowd[1:2], environ)
    assert total(results) == {GOOD_CODE: 2}
    assert gateway.counts.token_requests == 1
    assert results[0]["warnings"] == results[1]["warnings"] == []


def test_an_entry_damaged_while_all_are_at_work_costs_nothing(
    gateway: KisGateway, crowd: list[Worker], tmp_path: Path
) -> None:
    environ = environment(gateway, str(tmp_path / "cache"), tmp_path)
    run(crowd, environ)
    (entry,) = (tmp_path / "cache").glob("*.json")
    entry.write_bytes(b"garbage")
    gateway.reset_counts()
    assert total(run(crowd, environ, calls=5, again=True)) == {GOOD_CODE: CROWD * 5}
    assert gateway.counts.token_requests == 0, "who has a good token in memory does not look"
    gateway.expire()
    assert total(run(crowd, environ, calls=5, again=True)) == {GOOD_CODE: CROWD * 5}
    assert gateway.counts.token_requests == 1
