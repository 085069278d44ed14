"""What the ledger on Redis makes of a server's answers, and what it tells the server; on a clock of the test's own."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from clocks import FakeClock
from kis_retry.retry import redis_ledger
from kis_retry.retry.adaptive import Adaptation
from kis_retry.retry.outage import Tally
from kis_retry.retry.pace import Grant
from kis_retry.retry.redis_ledger import TAKE, RedisLedger, arguments

SENT, ROUND_TRIP = 8.0, 0.5
ON_AVERAGE = SENT + 0.25  # when the server read its clock


class Server:
    """A client whose scripts answer as they are told, in half a second; keeps what the second one was given."""

    def __init__(self, clock: FakeClock, adapted: int = 1, **answer: object) -> None:
        self.clock, self.adapted, self.adaptations = clock, adapted, list[list[Any]]()
        usual = {"ahead": b"0", "slot": 1, "failures": 0, "now": b"9", "since": b"9", "answered": 0, "refused": 0}
        self.answer = [*{**usual, "epoch": 0, "adaptation": b"", **answer}.values()]

    def register_script(self, script: str) -> Any:
        return self.take if script == TAKE else self.adapt

    def take(self, *, keys: list[str], args: list[int]) -> Any:
        self.clock.pass_by(ROUND_TRIP)
        return self.answer

    def adapt(self, *, keys: list[str], args: list[Any]) -> int:
        self.adaptations.append(args)
        return self.adapted


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock(SENT)
    monkeypatch.setattr("kis_retry.retry.redis_ledger.time", made)
    return made


def taken(server: Any, rate: float = 18) -> Grant:
    documents: Any = SimpleNamespace(client=server)
    return RedisLedger(documents, "a key").take(Tally(), rate, None)


def test_times_are_told_in_microseconds_and_minus_one_is_none() -> None:
    assert arguments(Tally(), 0, None) == [0, -1, 0, 0, 0, 0, 0, -1, 0]
    tally = Tally(answered=1, refused=2, failures=3, failed_ago=4.5, through_ago=5.25, late=0.125, epoch=6)
    assert arguments(tally, 16, 0.5) == [64_000, 500_000, 125_000, 1, 2, 3, 4_500_000, 5_250_000, 6]


def test_the_script_has_the_same_figures_in_microseconds() -> None:
    names = "FORGOTTEN FAILURES_FORGOTTEN SETTLING SLOWEST IDLE LATE LOOK_AGAIN PROBE_UNTIL PROBE_FIRST PROBE_LATER"
    figures = "600000000 60000000 500000 10240000 10000000 8000 500000 10000000 500000 1000000"
    assert redis_ledger._with_constants(f"{names} LEAST_FAILURES") == f"{figures} 5"


def test_the_server_read_its_clock_half_way_between_sending_and_the_answer(clock: FakeClock) -> None:
    server = Server(clock, ahead=b"1500000", slot=0, failures=7)
    assert taken(server) == Grant(ON_AVERAGE + 1.5, slot=False, rate=18, failures=7)


def test_an_answer_that_is_no_time_is_a_fault_of_the_store(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="no time"):
        taken(Server(clock, ahead=b"nan"))


# -- the pace in force


@pytest.mark.parametrize(("epoch", "rate"), [(b"299", 18), (b"300", 5.0), (b"301", 18)])
def test_what_was_found_out_at_another_pace_does_not_count(clock: FakeClock, epoch: bytes, rate: float) -> None:
    known = json.dumps(asdict(Adaptation(5.0, epoch=300)))
    assert taken(Server(clock, epoch=epoch, adaptation=known)) == Grant(ON_AVERAGE, True, rate, epoch=int(epoch))


def test_who_set_less_than_is_in_force_keeps_to_that(clock: FakeClock) -> None:
    known = json.dumps(asdict(Adaptation(5.0)))
    assert taken(Server(clock, adaptation=known), 2).rate == 2


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("{", id="cut"),
        pytest.param("1", id="number"),
        pytest.param("[]", id="list"),
        pytest.param('{"other": 1}', id="name"),
        pytest.param('{"epoch": -1}', id="negative"),
        pytest.param('{"lowered": "1"}', id="text"),
        pytest.param('{"epoch": 1%s}' % ("0" * 400), id="large"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param(b"\xff\xff", id="bytes"),
    ],
)
def test_what_nobody_wrote_is_no_adaptation(clock: FakeClock, damage: str | bytes) -> None:
    assert taken(Server(clock, epoch=b"3", adaptation=damage)) == Grant(ON_AVERAGE, slot=True, rate=18, epoch=3)


def test_a_pace_that_is_lowered_is_told_the_server_as_of_its_own_clock(clock: FakeClock) -> None:
    server = Server(clock, now=b"6900000", since=b"1900000", answered=10, refused=15, epoch=b"300")
    lowered = Adaptation(1.6, 2.0, 0.0, 18, 0.6, 0.0, 10.0, 301)
    assert taken(server) == Grant(ON_AVERAGE, slot=True, rate=1.6, changed=18, epoch=301)
    ((*told, text),) = server.adaptations
    assert told == [300, 1_900_000, 301, 7_400_000, 640_000]
    assert json.loads(text) == pytest.approx(asdict(lowered))


def test_a_pace_that_is_raised_says_what_it_was(clock: FakeClock) -> None:
    known = json.dumps(asdict(Adaptation(6.0)))
    server = Server(clock, now=b"6900000", since=b"1900000", answered=20, adaptation=known)
    assert taken(server) == Grant(ON_AVERAGE, slot=True, rate=9.0, changed=6.0, epoch=1)


def test_a_pace_that_is_right_has_a_new_window_at_once(clock: FakeClock) -> None:
    server = Server(clock, now=b"6900000", since=b"1900000", answered=20)
    assert taken(server) == Grant(ON_AVERAGE, slot=True, rate=18)
    assert server.adaptations == [[0, 1_900_000, 0, 6_900_000, 0, json.dumps(asdict(Adaptation()))]]


@pytest.mark.parametrize("refused", [0, 20])
def test_what_another_has_judged_in_the_meantime_is_not_judged_twice(clock: FakeClock, refused: int) -> None:
    server = Server(clock, adapted=0, now=b"6900000", since=b"1900000", answered=5, refused=refused)
    assert taken(server) == Grant(ON_AVERAGE, slot=True, rate=18)


def test_a_window_of_less_than_three_seconds_is_not_judged(clock: FakeClock) -> None:
    server = Server(clock, now=b"4800000", since=b"1900000", refused=40)
    assert taken(server).changed is None
    assert server.adaptations == []
