"""Where a pace is kept: memory, a file, Redis. One state for everybody who shares the place."""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from kis_retry import AccessToken, FileTokenStore, MemoryTokenStore, RedisTokenStore
from kis_retry.retry import redis_ledger
from kis_retry.retry.adaptive import Adaptation
from kis_retry.retry.ledger import Ledger, MemoryLedger
from kis_retry.retry.outage import LEAST_FAILURES, Tally
from kis_retry.retry.pace import Grant, PaceState, interval_of
from kis_retry.retry.shared_ledger import FileLedger, SharedLedger, ledger_of
from kis_retry.stores.folder import FileDocuments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kis_retry import TokenStore

KEY = "0" * 32
SLACK = 0.1  # seconds that a server's clock may seem off, by half of a round trip on a busy machine


@pytest.fixture(params=["memory", "file", "redis"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], TokenStore]:
    """Make stores that are the same place."""
    if request.param == "memory":
        store = MemoryTokenStore()
        return lambda: store
    if request.param == "file":
        return lambda: FileTokenStore(tmp_path / "store")
    server = request.getfixturevalue("valkey_server")
    server.flush()
    return lambda: RedisTokenStore(server.url)


@pytest.fixture
def ledgers(stores: Callable[[], TokenStore]) -> Iterator[Ledger]:
    """The same pace as one process after the other has it; memory has one process."""
    made = itertools.cycle([ledger_of(stores(), KEY), ledger_of(stores(), KEY)])
    first = next(made)
    return itertools.repeat(first) if isinstance(first, MemoryLedger) else made


def test_slots_are_an_interval_apart_whoever_takes_them(ledgers: Iterator[Ledger]) -> None:
    slots = [next(ledgers).take(Tally(), 1, None).at for _ in range(20)]
    assert all(abs(later - earlier - interval_of(1)) < SLACK for earlier, later in itertools.pairwise(slots))


def test_an_outage_is_known_to_all_and_so_is_its_end(ledgers: Iterator[Ledger]) -> None:
    for _ in range(LEAST_FAILURES):
        next(ledgers).take(Tally(failures=1), 1_000, None)
    for ledger in (next(ledgers), next(ledgers)):  # some of what they take may be the outage's probes
        assert not all(ledger.take(Tally(), 1_000, None).slot for _ in range(20))
    assert next(ledgers).take(Tally(answered=1, through_ago=0.0), 1_000, None).slot
    assert next(ledgers).take(Tally(), 1_000, None).slot


def test_most_calls_refused_lower_the_pace_of_all(ledgers: Iterator[Ledger], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kis_retry.retry.adaptive._WINDOW", 1.0)
    began = time.monotonic()
    next(ledgers).take(Tally(answered=1), 18, None)
    time.sleep(1.05)
    grant = next(ledgers).take(Tally(answered=4, refused=25), 18, None)
    assert grant.changed == 18
    assert 0.8 * 5 / (time.monotonic() - began + SLACK) <= grant.rate <= 0.8 * 5 / 1.05
    told = next(ledgers).take(Tally(), 18, None)
    assert (told.changed, told.epoch) == (None, 1)
    assert told.rate == pytest.approx(grant.rate)
    after = next(ledgers).take(Tally(), 18, None)
    assert after.at - told.at >= interval_of(grant.rate) - SLACK


def test_a_slot_beyond_the_limit_is_denied_and_not_taken(ledgers: Iterator[Ledger]) -> None:
    taken = next(ledgers).take(Tally(), 0.2, None)
    denied = next(ledgers).take(Tally(), 0.2, 0.1)
    assert not denied.slot
    assert next(ledgers).take(Tally(), 0.2, None).at - taken.at == pytest.approx(interval_of(0.2), abs=SLACK)


# -- files


def document(folder: Path) -> Path:
    return folder / f"{KEY}.pace.json"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 5_000, json.dumps({"version": 1, "next": 1e300}).encode()])
def test_a_damaged_file_is_written_anew(tmp_path: Path, content: bytes) -> None:
    document(tmp_path).write_bytes(content)
    ledger = ledger_of(FileTokenStore(tmp_path), KEY)
    first, second = ledger.take(Tally(), 2, None), ledger.take(Tally(), 2, None)
    assert second.at - first.at == pytest.approx(interval_of(2), abs=SLACK)
    assert document(tmp_path).stat().st_size == len(PaceState().encode())


@pytest.mark.skipif(os.name != "posix", reason="links and rights as POSIX has them")
@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("somebody's")
    link(document(tmp_path), elsewhere)
    ledger_of(FileTokenStore(tmp_path), KEY).take(Tally(), 2, None)
    assert elsewhere.read_text() == "somebody's"
    assert not document(tmp_path).is_symlink()
    assert document(tmp_path).stat().st_nlink == 1
    assert document(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_reboot_does_not_stop_anybody(tmp_path: Path) -> None:
    later = time.monotonic() + 1_000_000
    document(tmp_path).write_bytes(PaceState(written=later, next=later).encode())
    assert ledger_of(FileTokenStore(tmp_path), KEY).take(Tally(), 1, None).at <= time.monotonic()


# -- Redis


def test_a_slot_is_one_round_trip(valkey_server: Any) -> None:
    valkey_server.flush()
    ledger = ledger_of(RedisTokenStore(valkey_server.url), KEY)
    ledger.take(Tally(), 18, None)
    server = Redis.from_url(valkey_server.url)
    before = server.info("stats")["total_commands_processed"]
    scripts = server.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    for _ in range(10):
        ledger.take(Tally(answered=1), 18, None)
    after = server.info("stats")["total_commands_processed"]
    assert server.info("commandstats")["cmdstat_evalsha"]["calls"] == scripts + 10
    assert after - before <= 10 * 7 + 5  # what a script does counts as well


@pytest.mark.parametrize("damage", [b"nan", b"inf", b"-1", b"9" * 30, b"somebody's"])
def test_a_damaged_hash_stops_nobody(valkey_server: Any, damage: bytes) -> None:
    valkey_server.flush()
    server, name = Redis.from_url(valkey_server.url), f"kis_retry:{{{KEY}}}:pace"
    ledger = ledger_of(RedisTokenStore(valkey_server.url), KEY)
    ledger.take(Tally(), 1_000, None)
    for field in server.hkeys(name):
        server.hset(name, field, damage)
        grant = ledger.take(Tally(), 1_000, None)
        assert grant.slot
        assert grant.at < time.monotonic() + 1


def test_what_is_no_hash_is_replaced(valkey_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    valkey_server.flush()
    Redis.from_url(valkey_server.url).set(f"kis_retry:{{{KEY}}}:pace", "a word")
    assert ledger_of(RedisTokenStore(valkey_server.url), KEY).take(Tally(), 18, None).slot
    assert not caplog.records


def test_a_pace_in_redis_ends_by_itself(valkey_server: Any) -> None:
    valkey_server.flush()
    ledger_of(RedisTokenStore(valkey_server.url), KEY).take(Tally(), 18, None)
    assert 0 < Redis.from_url(valkey_server.url).pttl(f"kis_retry:{{{KEY}}}:pace") <= 600_000


def test_answers_of_half_a_second_after_a_change_say_nothing_of_the_new_pace(valkey_server: Any) -> None:
    valkey_server.flush()
    server, name = Redis.from_url(valkey_server.url), f"kis_retry:{{{KEY}}}:pace"
    ledger = ledger_of(RedisTokenStore(valkey_server.url), KEY)
    ledger.take(Tally(answered=1), 18, None)
    server.hincrby(name, "since", -3_000_000)
    assert ledger.take(Tally(answered=4, refused=25), 18, None).changed == 18
    written, since = (int(value or 0) for value in server.hmget(name, "written", "since"))
    assert since - written == 500_000
    ledger.take(Tally(answered=1, epoch=1), 18, None)
    assert server.hget(name, "answered") == b"0"


def test_a_client_that_decodes_answers_does_as_well(valkey_server: Any) -> None:
    valkey_server.flush()
    ledger = ledger_of(RedisTokenStore(Redis.from_url(valkey_server.url, decode_responses=True)), KEY)
    assert [ledger.take(Tally(answered=1), 18, None).slot for _ in range(3)] == [True] * 3


TALLIES = st.builds(
    Tally,
    answered=st.integers(0, 3),
    refused=st.integers(0, 1),
    failures=st.integers(0, 3),
    failed_ago=st.sampled_from([0.0, 0.2, 5.0]),
    through_ago=st.sampled_from([None, 0.0, 0.1, 3.0]),
    late=st.sampled_from([0.0, 0.005, 0.02, 2.0]),
)
STEPS = st.tuples(
    st.sampled_from([0.0, 0.03, 0.5, 12.0, 70.0, 700.0, -5.0]), TALLIES, st.sampled_from([None, 0.0, 0.1])
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=1, max_size=25), rate=st.sampled_from([0.5, 18.0]))
def test_the_script_and_the_schedule_say_the_same(valkey_server: Any, steps: list[Any], rate: float) -> None:
    """The script with a clock of the test's own, beside `PaceState` by the same clock."""
    valkey_server.flush()
    script = redis_ledger.TAKE.replace("redis.call('TIME')", "{ARGV[10], ARGV[11]}")
    run = Redis.from_url(valkey_server.url).register_script(script)
    state, now = PaceState(), 10_000.0
    for pause, tally, limit in steps:
        now = round(now + pause, 6)
        clock = [int(now), round((now - int(now)) * 1e6)]
        found = run(keys=["k"], args=[*redis_ledger.arguments(tally, rate, limit), *clock])
        state = state if state.usable(now) else PaceState()
        with pytest.MonkeyPatch.context() as patch:  # judging is not the script's
            patch.setattr(Adaptation, "judge", lambda *_: None)
            grant = state.take(tally, now, rate, limit)
        assert int(found[0]) / 1e6 == pytest.approx(grant.at - now, abs=1e-4)
        assert (bool(found[1]), int(found[2])) == (grant.slot, grant.failures)
        assert (int(found[5]), int(found[6])) == (state.window.answered, state.window.refused)


# -- a store that fails


class Failing:
    """A ledger whose store is away."""

    blocks = True
    asked = 0

    def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
        self.asked += 1
        raise ConnectionError(111, "Connection refused")

    def after_fork(self) -> None:
        pass


def test_a_store_that_fails_is_one_warning_and_the_process_paces_itself(caplog: pytest.LogCaptureFixture) -> None:
    ledger = SharedLedger(Failing(), FileTokenStore("/x"))
    slots = [ledger.take(Tally(), 100, None).at for _ in range(10)]
    assert all(later - earlier >= 0.9 * interval_of(100) for earlier, later in itertools.pairwise(slots))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("kis_retry.store_unavailable store=FileTokenStore('/x') operation=pace error=")


def test_nobody_waits_for_a_slot_before_the_first_though_the_machine_has_just_begun() -> None:
    class Early(MemoryLedger):
        def take(self, tally: Tally, rate: float, limit: float | None) -> Grant:
            return replace(super().take(tally, rate, limit), at=0.2)  # seconds since then

    assert SharedLedger(Early(), FileTokenStore("/x")).take(Tally(), 0.1, None).at == 0.2


def test_a_store_that_fails_is_not_asked_for_every_slot() -> None:
    failing = Failing()
    ledger = SharedLedger(failing, FileTokenStore("/x"))
    for _ in range(10):
        ledger.take(Tally(), 18, None)
    assert failing.asked == 1


def test_a_store_that_is_back_is_used_and_its_next_failure_is_worth_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kis_retry.retry.shared_ledger._FIRST_PAUSE", 0.0)
    failing, memory = Failing(), MemoryLedger()
    ledger = SharedLedger(failing, FileTokenStore("/x"))
    for shared in (failing, memory, failing):
        ledger._shared = shared
        ledger._again_at = 0.0
        ledger.take(Tally(), 18, None)
    assert len(caplog.records) == 2


def test_a_redis_that_does_not_answer_costs_its_time_out_once(new_valkey_server: Any) -> None:
    server = new_valkey_server()
    ledger = ledger_of(RedisTokenStore(f"{server.url}?socket_timeout=0.3"), KEY)
    ledger.take(Tally(), 18, None)
    server.pause(30)
    began = time.monotonic()
    for _ in range(100):
        assert ledger.take(Tally(), 18, None).slot
    assert time.monotonic() - began < 10, "it is asked again a second later at the soonest"
    server.resume()
    ledger._again_at = 0.0  # type: ignore[attr-defined]  # a SharedLedger
    assert ledger.take(Tally(), 18, None).slot


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    ledger = ledger_of(FileTokenStore(tmp_path / "file" / "store"), KEY)
    assert [ledger.take(Tally(), 18, None).slot for _ in range(3)] == [True] * 3
    (record,) = caplog.records
    assert 'error="NotADirectoryError: ' in record.message


def test_a_lock_that_somebody_sits_on_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kis_retry.retry.shared_ledger._LOCK_WAIT", 0.1)
    store = FileTokenStore(tmp_path)
    ledger = ledger_of(store, KEY)
    with store.documents.lock(KEY, "pace", timeout=1, lease=1) as held:
        assert held
        assert ledger.take(Tally(), 18, None).slot


class TokensAlone:
    """A store of somebody else's: the four methods of the protocol."""

    def load(self, key: str) -> AccessToken | None:
        return None

    def save(self, key: str, token: AccessToken) -> None:
        pass

    def delete(self, key: str) -> None:
        pass

    def lock(self, key: str, *, timeout: float, lease: float) -> Any:
        return threading.Lock()


def test_who_sits_on_the_lock_costs_half_a_second_at_most(tmp_path: Path) -> None:
    asked: list[tuple[float, float]] = []

    class Held(FileDocuments):
        @contextmanager
        def lock(self, key: str, kind: str, *, timeout: float, lease: float) -> Iterator[bool]:
            asked.append((timeout, lease))
            yield False

    with pytest.raises(TimeoutError, match="held by somebody who does not let it go"):
        FileLedger(Held(tmp_path), KEY).take(Tally(), 18, None)
    assert asked == [(0.5, 0.5)]


def test_a_ledger_says_whether_asking_it_takes_a_disk_or_the_network(stores: Callable[[], TokenStore]) -> None:
    ledger = ledger_of(stores(), KEY)
    assert ledger.blocks is not isinstance(ledger, MemoryLedger)


def test_in_somebody_elses_store_each_process_paces_itself_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    ledger = ledger_of(TokensAlone(), KEY)
    assert isinstance(ledger, MemoryLedger)
    assert [record.message for record in caplog.records] == [
        'kis_retry.store_unavailable store=TokensAlone operation=pace error="it keeps tokens alone"'
    ]
