"""One caller asks, the others share what it got."""

from __future__ import annotations

import dis
import functools
import gc
import itertools
import os
import signal
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from alarms import alarm_once
from children import in_child
from kis_retry import KisRetryError, TokenIssueError
from kis_retry.tokens import single_flight
from kis_retry.tokens.single_flight import AskedWithinError, Flight, SingleFlight, StillUnderWayError, fresh
from patience import PATIENCE, until

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterator


def nothing() -> None:
    return None


class Gate:
    """A request that waits until it is let through, and counts."""

    def __init__(self, outcome: Any = "answer") -> None:
        self.asked = 0
        self.entered = threading.Event()
        self.let_through = threading.Event()
        self.outcome = outcome
        self.threads: list[str] = []

    def __call__(self) -> Any:
        self.asked += 1
        self.threads.append(threading.current_thread().name)
        self.entered.set()
        assert self.let_through.wait(PATIENCE)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def together(number: int, work: Callable[[], Any]) -> tuple[list[threading.Thread], list[Any]]:
    got: list[Any] = []

    def one() -> None:
        try:
            got.append(work())
        except Exception as error:
            got.append(error)

    threads = [threading.Thread(target=one, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads, got


def waiting(flights: SingleFlight[Any]) -> int:
    flight = flights._current.get("")
    return len(flight._waiters) if flight is not None else 0


@pytest.fixture(params=[True, False], ids=["own thread", "callers thread"])
def flights(request: pytest.FixtureRequest) -> SingleFlight[Any]:
    return SingleFlight("asking", own_thread=request.param)


def test_eight_who_ask_for_the_same_share_one_request(flights: SingleFlight[Any]) -> None:
    gate = Gate()
    threads, got = together(8, lambda: flights.run("a", gate, look=nothing, seconds=PATIENCE))
    until(lambda: waiting(flights) == (8 if flights._own_thread else 7))
    gate.let_through.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert gate.asked == 1
    assert [answer for answer, _ in got] == ["answer"] * 8
    assert sum(mine for _, mine in got) == 1
    assert not flights.busy


def test_they_share_a_failure_too_each_with_an_exception_of_its_own(flights: SingleFlight[Any]) -> None:
    gate = Gate(TokenIssueError("no", code="EGW00105"))
    read = lambda: b"token".decode()  # as from the header of a request: equal, and another object each time
    threads, got = together(8, lambda: flights.run(read(), gate, look=nothing, seconds=PATIENCE))
    until(lambda: waiting(flights) == (8 if flights._own_thread else 7))
    gate.let_through.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert gate.asked == 1
    assert {(type(error), error.code, str(error)) for error in got} == {(TokenIssueError, "EGW00105", "no")}
    assert len({id(error) for error in got}) == 8


def test_who_asks_for_something_else_waits_and_then_looks_again(flights: SingleFlight[Any]) -> None:
    gate = Gate()
    found: list[Any] = []
    first, _ = together(1, lambda: flights.run("a", gate, look=nothing, seconds=PATIENCE))
    assert gate.entered.wait(PATIENCE)
    other = Gate("another answer")
    other.let_through.set()
    looks = lambda: found[0] if found else None
    second, got = together(2, lambda: flights.run("b", other, look=looks, seconds=PATIENCE))
    until(lambda: waiting(flights) >= 2)
    found.append("seen")
    gate.let_through.set()
    for thread in first + second:
        thread.join(PATIENCE)
    assert got == [("seen", False)] * 2
    assert other.asked == 0


def test_who_asks_for_something_else_and_finds_nothing_asks_next(flights: SingleFlight[Any]) -> None:
    gate, other = Gate(), Gate("another answer")
    other.let_through.set()
    first, _ = together(1, lambda: flights.run("a", gate, look=nothing, seconds=PATIENCE))
    assert gate.entered.wait(PATIENCE)
    second, got = together(1, lambda: flights.run("b", other, look=nothing, seconds=PATIENCE))
    until(lambda: waiting(flights) >= 1)
    assert other.asked == 0, "one at a time"
    gate.let_through.set()
    for thread in first + second:
        thread.join(PATIENCE)
    assert got == [("another answer", True)]


def test_what_is_found_before_the_request_is_made_spares_it(flights: SingleFlight[Any]) -> None:
    looked: list[int] = []

    def second_look() -> str | None:
        looked.append(1)
        return "found" if len(looked) > 1 else None

    assert flights.run("a", pytest.fail, look=second_look, seconds=PATIENCE) == ("found", True)
    assert flights.run("a", pytest.fail, look=second_look, seconds=PATIENCE) == ("found", False)


def test_who_asks_itself_is_told_and_does_not_wait_for_ever(flights: SingleFlight[Any]) -> None:
    def within() -> Any:
        return flights.run("b", nothing, look=nothing, seconds=PATIENCE)

    with pytest.raises(AskedWithinError):
        flights.run("a", within, look=nothing, seconds=PATIENCE)
    assert not flights.busy


def test_the_time_to_wait_is_kept_to() -> None:
    flights: SingleFlight[str] = SingleFlight()
    gate = Gate()
    with pytest.raises(StillUnderWayError):
        flights.run("a", gate, look=nothing, seconds=0.05)
    assert flights.busy
    with pytest.raises(StillUnderWayError):
        flights.run("a", gate, look=nothing, seconds=0.05)
    gate.let_through.set()
    assert flights.run("a", gate, look=nothing, seconds=PATIENCE)[0] == "answer"


def test_what_is_given_up_stands_in_nobodys_way() -> None:
    flights: SingleFlight[str] = SingleFlight()
    stuck, quick = Gate("late"), Gate("soon")
    quick.let_through.set()
    flight, mine = flights.begin("a", stuck)
    assert mine
    flights.give_up(Flight("another"))
    assert flights.busy
    flights.give_up(flight)
    assert flights.run("a", quick, look=nothing, seconds=PATIENCE) == ("soon", True)
    stuck.let_through.set()
    assert flight.wait(PATIENCE)
    assert flight.outcome() == "late"


def test_who_waits_for_what_was_given_up_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_flight, "_LOOK", 0.05)
    flights: SingleFlight[str] = SingleFlight()
    stuck = Gate()
    flight, _ = flights.begin("a", stuck)
    threads, got = together(1, lambda: flights.run("a", lambda: "anew", look=nothing, seconds=PATIENCE))
    until(lambda: waiting(flights) == 1)
    flights.give_up(flight)
    threads[0].join(PATIENCE)
    assert got == [("anew", True)]
    stuck.let_through.set()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such signals on Windows")
class TestSignals:
    @pytest.fixture(autouse=True)
    def _restored(self) -> Any:
        before = signal.getsignal(signal.SIGALRM)
        yield
        signal.signal(signal.SIGALRM, before)

    def test_an_exception_of_a_signal_handler_reaches_the_caller_and_nobody_else(self) -> None:
        flights: SingleFlight[str] = SingleFlight()
        gate = Gate()

        def handler(*_: object) -> None:
            raise TimeoutError("the user's own")

        signal.signal(signal.SIGALRM, handler)
        others, got = together(3, lambda: flights.run("a", gate, look=nothing, seconds=PATIENCE))
        until(lambda: waiting(flights) == 3)
        with pytest.raises(TimeoutError, match="the user's own"), alarm_once(lambda: waiting(flights) == 4):
            flights.run("a", gate, look=nothing, seconds=PATIENCE)
        gate.let_through.set()
        for thread in others:
            thread.join(PATIENCE)
        assert [answer for answer, _ in got] == ["answer"] * 3
        assert gate.asked == 1

    def test_a_signal_handler_that_asks_gets_the_answer_that_its_thread_waits_for(self) -> None:
        flights: SingleFlight[str] = SingleFlight()
        gate = Gate()
        got: list[Any] = []

        def handler(*_: object) -> None:
            gate.let_through.set()
            got.append(flights.run("a", gate, look=nothing, seconds=PATIENCE)[0])

        signal.signal(signal.SIGALRM, handler)
        with alarm_once(gate.entered.is_set):
            assert flights.run("a", gate, look=nothing, seconds=PATIENCE)[0] == "answer"
        assert got == ["answer"]
        assert gate.asked == 1

    def test_on_the_callers_own_thread_a_handler_that_asks_is_told(self) -> None:
        flights: SingleFlight[str] = SingleFlight(own_thread=False)
        told: list[Any] = []

        def handler(*_: object) -> None:
            try:
                flights.run("a", str, look=nothing, seconds=PATIENCE)
            except AskedWithinError as error:
                told.append(error)

        def ask() -> str:
            signal.raise_signal(signal.SIGALRM)
            return "answer"

        signal.signal(signal.SIGALRM, handler)
        assert flights.run("a", ask, look=nothing, seconds=PATIENCE) == ("answer", True)
        assert len(told) == 1

    @pytest.mark.parametrize("own_thread", [True, False])
    def test_an_interrupt_after_any_call_leaves_nothing_locked(self, own_thread: bool) -> None:
        """Where the interpreter looks for signals: one run for each such place, until there is none left."""
        for place in range(1, 400):
            flights: SingleFlight[str] = SingleFlight(own_thread=own_thread)
            with interrupted_at(place) as interrupted:
                flights.run("a", lambda: "answer", look=nothing, seconds=PATIENCE)
            began = time.monotonic()
            assert flights.run("a", lambda: "again", look=nothing, seconds=PATIENCE)[0] in ("again", "answer")
            assert time.monotonic() - began < 5
            if not interrupted:
                break
        else:
            pytest.fail("it never came to an end")
        assert place > 10


class Interrupt(BaseException):
    """As KeyboardInterrupt."""


@contextmanager
def interrupted_at(place: int) -> Iterator[list[str]]:
    """Raise in this thread at the n-th instruction of the module that comes after a call."""
    interrupted: list[str] = []
    left = place

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        ours = frame.f_code.co_filename == single_flight.__file__
        if event == "opcode" and ours and frame.f_lasti in after_calls(frame.f_code):
            left -= 1
            if left == 0:
                sys.settrace(None)
                interrupted.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # 3.12 tells of instructions if a frame asked for them before `settrace`
    sys.settrace(trace)
    try:
        yield interrupted
    except Interrupt:
        pass
    finally:
        sys.settrace(before)


@functools.cache
def after_calls(code: types.CodeType) -> frozenset[int]:
    instructions = [found for found in dis.get_instructions(code) if found.opname != "CACHE"]
    pairs = itertools.pairwise(instructions)
    return frozenset(after.offset for call, after in pairs if call.opname.startswith("CALL"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_its_parents_thread(flights: SingleFlight[Any]) -> None:
    gate = Gate()
    threads, _ = together(1, lambda: flights.run("a", gate, look=nothing, seconds=PATIENCE))
    assert gate.entered.wait(PATIENCE)
    seconds = PATIENCE / 2
    assert in_child(lambda: flights.run("a", lambda: "the child's", look=nothing, seconds=seconds)[0] == "the child's")
    gate.let_through.set()
    threads[0].join(PATIENCE)


def test_where_no_thread_can_be_started_the_callers_own_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the interpreter's shutdown."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    flights: SingleFlight[str] = SingleFlight()
    assert flights.run("a", lambda: threading.current_thread().name, look=nothing, seconds=1) == ("MainThread", True)


def test_a_failure_keeps_nothing_alive_of_those_who_were_told_of_it() -> None:
    class Argument:
        pass

    flights: SingleFlight[str] = SingleFlight()
    gate = Gate(TokenIssueError("no"))
    gate.let_through.set()
    alive: list[weakref.ref[Argument]] = []
    contexts: list[BaseException | None] = []

    def call(argument: Argument) -> None:
        alive.append(weakref.ref(argument))
        try:
            flights.run("a", gate, look=nothing, seconds=PATIENCE)
        except TokenIssueError as error:
            contexts.append(error.__context__)

    gc.disable()
    try:
        for _ in range(5):
            call(Argument())
        until(lambda: [reference() for reference in alive] == [None] * 5)
        assert contexts == [None] * 5
    finally:
        gc.enable()


class Picky(Exception):  # noqa: N818  # a stand-in, as the next ones
    """Its class takes other arguments than it shows."""

    def __init__(self, *, status: int) -> None:
        super().__init__(f"status {status}")


class Single(Exception):  # noqa: N818
    """A copy of it is itself."""

    def __copy__(self) -> Single:
        return self


class Changing(Exception):  # noqa: N818
    """A copy of it is of another kind."""

    def __reduce__(self) -> tuple[type[Exception], tuple[str]]:
        return LookupError, ("text",)


@pytest.mark.parametrize("error", [Picky(status=5), Single("text"), Changing("text")])
def test_an_exception_that_cannot_be_copied_is_told_by_its_type(error: Exception) -> None:
    told = fresh(error)
    assert (type(told), str(told)) == (KisRetryError, f"what was waited for failed ({type(error).__name__})")


@pytest.mark.parametrize("error", [OSError(5, "text"), TokenIssueError("text", code="EGW00105", retryable=True)])
def test_a_copy_of_an_exception_says_the_same_and_holds_on_to_nothing(error: Exception) -> None:
    try:
        raise error
    except type(error):
        copied = fresh(error)
    assert copied is not error
    assert (type(copied), copied.args, vars(copied)) == (type(error), error.args, vars(error))
    assert (copied.__traceback__, copied.__context__) == (None, None)
