"""How long a flight is waited for, to the tick, and whom an interrupt on the way in leaves with it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from clocks import FakeClock
from kis_retry.tokens import single_flight
from kis_retry.tokens.single_flight import Flight, SingleFlight, StillUnderWayError
from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable


class Interrupt(BaseException):
    """As KeyboardInterrupt."""


def nothing() -> None:
    return None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Of a machine that has just been started."""
    clock = FakeClock(3.0)
    monkeypatch.setattr(single_flight, "time", clock)
    return clock


class Endless(Flight[Any]):
    """It never ends; waiting for it takes the test's time alone."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__("a")
        self._clock = clock
        self.waited: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self._clock.pass_by(seconds)
        return False


def test_a_flight_is_run_by_one(clock: FakeClock) -> None:
    flight: Flight[None] = Flight("a")
    assert [flight.claim() for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize(
    ("seconds", "looks"), [(0.25, [0.25]), (1, [1]), (1.5, [1, 0.5]), (2, [1, 1]), (2.5, [1, 1, 0.5]), (0, [0])]
)
def test_who_waits_makes_sure_every_second_that_it_is_under_way_until_the_time_is_over(
    seconds: float, looks: list[float], clock: FakeClock
) -> None:
    flights: SingleFlight[Any] = SingleFlight()
    endless = Endless(clock)
    flights._current[""] = endless
    assert flights.wait(endless, clock.now + seconds) is False
    assert endless.waited == looks
    assert endless.state == "under way"


@pytest.mark.parametrize(("seconds", "state"), [(1, "under way"), (1.5, "abandoned")])
def test_what_is_lost_gets_a_second_to_end_by_itself(seconds: float, state: str, clock: FakeClock) -> None:
    endless = Endless(clock)
    assert SingleFlight[Any]().wait(endless, clock.now + seconds) is False
    assert endless.state == state


@pytest.mark.parametrize("seconds", [0.25, 5])
def test_who_waits_in_vain_is_told_how_long_it_has_been_under_way(seconds: float, clock: FakeClock) -> None:
    flights: SingleFlight[Any] = SingleFlight()
    endless = Endless(clock)
    flights._current[""] = endless
    clock.pass_by(2)
    with pytest.raises(StillUnderWayError) as caught:
        flights.run("a", nothing, look=nothing, seconds=seconds)
    assert caught.value.flight is endless
    assert caught.value.seconds == 2 + seconds
    assert sum(endless.waited) == seconds


@pytest.mark.parametrize(("seconds", "waited"), [(-1, 0), (0.25, 0.25), (1e10, threading.TIMEOUT_MAX)])
def test_no_time_is_too_short_or_too_long_to_wait(
    seconds: float, waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    class Lock:
        def acquire(self, timeout: float | None = None) -> bool:
            asked.extend([] if timeout is None else [timeout])
            return timeout is None

        def release(self) -> None: ...

    monkeypatch.setattr(single_flight, "threading", SimpleNamespace(Lock=Lock, TIMEOUT_MAX=threading.TIMEOUT_MAX))
    assert Flight("a").wait(seconds) is False
    assert asked == [waited]


@pytest.mark.parametrize("end", [lambda flight: flight.answer("yes"), lambda flight: flight.fail(OSError())])
def test_what_has_ended_stays_as_it_ended(end: Callable[[Flight[str]], None]) -> None:
    flight: Flight[str] = Flight("a")
    end(flight)
    ended = flight.state
    flight.abandon()
    assert flight.state == ended
    called: list[int] = []
    flight.when_done(lambda: called.append(1))
    assert called == [1], "at once"


def test_a_thread_that_is_about_to_begin_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread))
    flights: SingleFlight[str] = SingleFlight()
    flight, mine = flights.begin("a", lambda: pytest.fail("it is that thread's to run"))
    assert (mine, flight.state, flight.thread) == (True, "under way", None)
    assert [(thread.name, thread.daemon) for thread in started] == [("kis_retry", True)]


@pytest.mark.parametrize("apart", [-1, 1])
def test_an_interrupt_after_its_thread_began_leaves_the_request_to_that(
    apart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    flights: SingleFlight[str] = SingleFlight()

    def interrupted(flight: Flight[str], _: Callable[[], str]) -> bool:
        assert flight.claim()
        flight.thread = threading.get_ident() + apart
        raise Interrupt

    monkeypatch.setattr(flights, "_start", interrupted)
    with pytest.raises(Interrupt):
        flights.begin("a", str)
    assert flights.busy


@pytest.mark.parametrize("begun", [False, True], ids=["before it began", "on its own thread"])
def test_an_interrupt_of_what_nobody_else_will_run_ends_it(begun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    flights: SingleFlight[str] = SingleFlight()
    interrupted: list[Flight[str]] = []

    def interrupt(flight: Flight[str], _: Callable[[], str]) -> bool:
        interrupted.append(flight)
        if begun:
            assert flight.claim()
            flight.thread = threading.get_ident()
        raise Interrupt

    monkeypatch.setattr(flights, "_start", interrupt)
    with pytest.raises(Interrupt):
        flights.begin("a", str)
    assert not flights.busy
    assert interrupted[0].state == "abandoned"
    assert not interrupted[0].claim()


def test_what_ends_without_an_outcome_is_nobodys_and_asked_anew() -> None:
    flights: SingleFlight[str] = SingleFlight()

    class Interrupted(Flight[str]):
        def wait(self, seconds: float) -> bool:
            flights._current.clear()
            self.abandon()
            return super().wait(seconds)

    flights._current[""] = Interrupted("a")
    assert flights.run("a", lambda: "anew", look=nothing, seconds=PATIENCE) == ("anew", True)


@pytest.mark.parametrize("own_thread", [True, False])
def test_who_may_run_it_no_more_does_not(own_thread: bool) -> None:
    flights: SingleFlight[str] = SingleFlight(own_thread=own_thread)
    flight: Flight[str] = Flight("a")
    assert flight.claim()
    flights._fly(flight, lambda: pytest.fail("another does"))
    assert flight.state == "under way"


@pytest.mark.parametrize("given", [None, "the one under way"])
def test_a_request_is_given_up_by_name_or_whatever_it_is(given: str | None, clock: FakeClock) -> None:
    flights: SingleFlight[Any] = SingleFlight()
    flights.give_up()
    endless = flights._current[""] = Endless(clock)
    flights.give_up(Endless(clock))
    assert flights.busy
    flights.give_up(endless if given else None)
    assert not flights.busy
