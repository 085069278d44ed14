"""Real processes, real HTTP, real stores: one token for all, whoever is killed and whatever breaks."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from answers import GOOD_CODE
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway
from patience import until
from workers import WAYS, Crew, Worker, environment, total

FOUR = (*WAYS, "client")


@pytest.fixture(params=["files", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `KIS_TOKEN_STORE` names."""
    if request.param == "files":
        return str(tmp_path / "tokens")
    server = request.getfixturevalue("valkey_server")
    server.flush()
    return str(server.url)


# --- one token for all


def test_cold_idle_and_busy_processes_that_share_nothing_but_a_store_make_one_token_request_each_time(
    gateway: KisGateway, place: str, tmp_path: Path
) -> None:
    homes = [tmp_path / str(number) for number in range(4)]
    with Crew(FOUR, lambda number: environment(gateway, place, homes[number])) as crew:
        assert total(crew.run()) == {GOOD_CODE: 4}
        assert (gateway.counts.token_requests, gateway.counts.refused) == (1, 0)
        gateway.expire()
        assert total(crew.run(threads=2)) == {GOOD_CODE: 8}
        assert gateway.counts.token_requests == 2
        gateway.expire_at(gateway.counts.calls + 20)
        gateway.reset_counts()
        reports = crew.run(threads=4, calls=3)
        assert total(reports) == {GOOD_CODE: 48}
        assert gateway.counts.token_requests == 1
        assert 1 <= gateway.counts.refused <= 16, "each thread meets the dead token once at most"
        assert sum(report.events["call_recovered"] for report in reports) == gateway.counts.refused
        assert sum(report.events["call_given_up"] for report in reports) == 0
    assert [list(home.iterdir()) for home in homes] == [[]] * 4


# --- killed


def kill_and_replace(gateway: KisGateway, environ: dict[str, str], *, processes: int, expiries: int, kills: int) -> Any:
    """Have processes call without rest, and kill some of them (-9) over each expiry; give what the survivors lost."""
    dice = random.Random(7)
    lost: list[str] = []
    with Crew([dice.choice(WAYS) for _ in range(processes)], lambda _: environ) as crew:

        def wait_until_all_are_busy() -> None:
            answered = gateway.counts.answered
            until(lambda: gateway.counts.answered > answered + 4 * processes)

        for worker in crew.workers:
            worker.begin(2)
        for _ in range(expiries):
            wait_until_all_are_busy()
            gateway.expire()
            for _ in range(kills):
                time.sleep(dice.random() * 0.02)
                victim = crew.workers.pop(dice.randrange(processes))
                victim.kill()
                lost += victim.lost
                crew.workers.append(Worker(dice.choice(WAYS), environ))
                crew.workers[-1].wait_until_ready()
                crew.workers[-1].begin(2)
        wait_until_all_are_busy()
        for worker in crew.workers:
            worker.stop()
        for worker in crew.workers:
            worker.report()
            lost += worker.lost
    return lost


def test_processes_that_are_killed_lose_no_call_of_the_others(tmp_path: Path) -> None:
    with KisGateway(issue_interval=0) as gateway:
        environ = environment(gateway, str(tmp_path / "tokens"), tmp_path)
        assert kill_and_replace(gateway, environ, processes=4, expiries=2, kills=2) == []
        # One that is killed while it asks, before it could share what it got, costs one request more.
        assert 1 + 2 <= gateway.counts.token_requests <= 1 + 2 + 4


def test_a_holder_that_is_killed_while_it_asks_blocks_nobody(gateway: KisGateway, place: str, tmp_path: Path) -> None:
    gateway.hang("tokens", 1)
    with Crew(WAYS, lambda _: environment(gateway, place, tmp_path)) as crew:
        holder, *others = crew.workers
        for worker in crew.workers:
            worker.begin(calls=1)
            until(lambda: gateway.counts.token_requests == 1)  # by the first, which has the lock then
        time.sleep(0.3)
        assert gateway.counts.token_requests == 1, "they wait for who holds the lock"
        holder.kill()  # on one machine the operating system releases the lock at once
        gateway.expire()  # as if the minute of its token had passed, which nobody got
        if place.startswith("redis"):
            with redis.Redis.from_url(place) as server:
                lock = f"kis_retry:{{{key_of(gateway.credentials)}}}:lock"
                assert 10_000 < server.pttl(lock) <= 30_000, "longer than a token request may take, and not for ever"
                server.pexpire(lock, 1)  # as if that time had passed
        assert total([worker.report() for worker in others]) == {GOOD_CODE: 2}
    assert gateway.counts.token_requests == gateway.counts.tokens_issued == 2


# --- a store that cannot be used


FAULTS: dict[str, Callable[[Any], object]] = {
    "read-only": lambda server: server.execute_command("REPLICAOF", "127.0.0.1", "1"),
    "out of memory": lambda server: server.config_set("maxmemory", 1),
    "wrong password": lambda server: server.config_set("requirepass", "another"),
    "no slots": lambda server: None,
}


@pytest.fixture(params=[*FAULTS, "deaf", "unwritable folder"])
def broken(request: pytest.FixtureRequest, new_valkey_server: Callable[..., Any], tmp_path: Path) -> Iterator[str]:
    """A value of `KIS_TOKEN_STORE` that names a place of no use."""
    if request.param == "unwritable folder":
        (tmp_path / "file").write_text("in the way")
        yield str(tmp_path / "file" / "tokens")
    elif request.param == "deaf":
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            yield f"redis://127.0.0.1:{deaf.getsockname()[1]}/0?socket_timeout=0.3"
    else:
        server = new_valkey_server(**({"cluster_enabled": "yes"} if request.param == "no slots" else {}))
        with redis.Redis.from_url(server.url) as administrator:
            FAULTS[request.param](administrator)
        yield server.url.replace("//", "//:a-wrong-one@") if request.param == "wrong password" else server.url


def test_processes_whose_store_is_broken_go_on_sharing_by_the_machines_file_store(
    broken: str, gateway: KisGateway, tmp_path: Path
) -> None:
    with Crew(FOUR, lambda _: environment(gateway, broken, tmp_path / "home")) as crew:
        for expiries in range(2):
            reports = crew.run(threads=2)
            assert total(reports) == {GOOD_CODE: 8}
            assert gateway.counts.token_requests == 1 + expiries
            assert [len(report.warnings) for report in reports] == [1 - expiries] * 4, "one warning for each process"
            gateway.expire()
