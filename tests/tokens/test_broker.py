"""A library's broker object without `tokens=`: refreshed once, of whatever kind it is, under the function's policy."""

from __future__ import annotations

import functools
import gc
import os
import signal
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from children import in_child
from clocks import FakeClock
from kis_retry import RetryPolicy, TokenIssueError, refresh_on_expired_token
from kis_retry.tokens import broker as tokens_broker
from kis_retry.tokens.broker import BrokerSource, broker_source
from kis_retry.tokens.single_flight import Flight
from patience import PATIENCE, until
from refreshes import copied

if TYPE_CHECKING:
    from collections.abc import Callable

    from kis_retry import RefreshEvent

EXPIRED = {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "기간이 만료된 token 입니다."}
GOOD = {"rt_cd": "0"}


def fetch(self: Any) -> dict[str, str]:
    return EXPIRED if self.access_token == "Bearer dead" else GOOD


@dataclass
class DataBroker:
    """Compared by its fields, so it cannot be hashed."""

    access_token: str = "Bearer dead"
    issue: Callable[[Any], object] = lambda self: setattr(self, "access_token", "Bearer new")
    asked: list[int] = field(default_factory=list)

    def issue_access_token(self) -> None:
        self.asked.append(1)
        self.issue(self)

    fetch = refresh_on_expired_token(fetch)


class SlottedBroker:
    """Nothing can be kept on it, and nothing refer to it weakly."""

    __slots__ = ("access_token", "asked", "issue")

    def __init__(self, issue: Callable[[Any], None]) -> None:
        self.access_token = "Bearer dead"
        self.issue = issue
        self.asked: list[int] = []

    def issue_access_token(self) -> None:
        self.asked.append(1)
        self.issue(self)

    fetch = refresh_on_expired_token(fetch)


def waiting(broker: Any) -> int:
    flight = broker_source(broker)._state.flights._current.get("")  # type: ignore[attr-defined]  # of a BrokerSource
    return len(flight._waiters) if flight is not None else 0


@pytest.mark.parametrize("kind", ["dataclass", "slots"])
def test_sixteen_threads_refused_together_cause_one_issue(kind: str) -> None:
    """Before: a dataclass made 16 token requests, and lost 15 calls to the once-a-minute rule."""
    let_through = threading.Event()

    def issue(self: Any) -> None:
        if len(self.asked) > 1:
            raise OSError("once a minute")
        assert let_through.wait(PATIENCE)
        self.access_token = "Bearer new"

    broker = DataBroker(issue=issue) if kind == "dataclass" else SlottedBroker(issue)
    refused_together = threading.Barrier(16)
    answers: list[Any] = []

    @refresh_on_expired_token
    def call(self: Any) -> dict[str, str]:
        answer = fetch(self)
        if answer is EXPIRED:
            refused_together.wait(PATIENCE)
        return answer

    threads = [threading.Thread(target=lambda: answers.append(call(broker)), daemon=True) for _ in range(16)]
    for thread in threads:
        thread.start()
    until(lambda: waiting(broker) == 15)
    let_through.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(broker.asked) == 1
    assert answers == [GOOD] * 16


def test_those_who_wait_share_the_failure_and_ask_no_more() -> None:
    let_through = threading.Event()

    def issue(_: Any) -> None:
        assert let_through.wait(PATIENCE)
        raise OSError(5, "no")

    broker = DataBroker(issue=issue)
    failures: list[Exception] = []

    def replace() -> None:
        try:
            broker_source(broker, RetryPolicy(issue_cooldown=0)).replace("dead")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=replace, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: waiting(broker) == 7)
    let_through.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(broker.asked) == 1
    assert [(type(error), error.args) for error in failures] == [(OSError, (5, "no"))] * 8
    assert len({id(error) for error in failures}) == 8


def test_the_cool_down_is_that_of_the_functions_policy() -> None:
    """Before: the environment's, so a policy without one lost 979 of 1,000 calls."""

    def fail_once(self: Any) -> None:
        if len(self.asked) == 1:
            raise OSError
        self.access_token = "Bearer new"

    patient, eager = DataBroker(issue=fail_once), DataBroker(issue=fail_once)
    call = refresh_on_expired_token(policy=RetryPolicy(issue_cooldown=0))(fetch)
    assert [call(eager) for _ in range(5)] == [EXPIRED] + [GOOD] * 4
    call = refresh_on_expired_token(policy=RetryPolicy(issue_cooldown=60))(fetch)
    assert [call(patient) for _ in range(5)] == [EXPIRED] * 5


def test_a_broker_of_slots_is_asked_once_in_a_cool_down() -> None:
    def refuse(_: Any) -> None:
        raise OSError

    broker = SlottedBroker(refuse)
    assert [broker.fetch() for _ in range(50)] == [EXPIRED] * 50
    assert len(broker.asked) == 1


def test_equal_brokers_are_two() -> None:
    first, second = DataBroker(), DataBroker(asked=[])
    assert first == second
    assert broker_source(first) == broker_source(first)
    assert hash(broker_source(first)) == hash(broker_source(first))
    assert broker_source(first) != broker_source(second)
    assert broker_source(first) != object()
    assert broker_source(first).identity is broker_source(first).identity
    assert broker_source(first).identity is not broker_source(second).identity
    assert first.fetch() == GOOD
    assert second.asked == []


def test_a_reissue_that_makes_a_protected_call_itself_is_told_and_does_not_hang() -> None:
    answers: list[Any] = []

    def issue(self: Any) -> None:
        answers.append(self.fetch())
        self.access_token = "Bearer new"

    broker = DataBroker(issue=issue)
    assert broker.fetch() == GOOD
    assert answers == [EXPIRED], "KIS's own answer"


def test_who_waits_for_a_reissue_that_hangs_waits_for_issue_wait_alone() -> None:
    let_through = threading.Event()
    broker = DataBroker(issue=lambda _: let_through.wait(PATIENCE) and None)
    call = refresh_on_expired_token(policy=RetryPolicy(issue_wait=0.2))(fetch)
    hanging = threading.Thread(target=call, args=[broker], daemon=True)
    hanging.start()
    until(lambda: broker.asked)
    began = time.monotonic()
    assert call(broker) == EXPIRED
    assert time.monotonic() - began < 5
    let_through.set()
    hanging.join(PATIENCE)


def test_a_failure_keeps_no_call_of_the_cool_down_alive() -> None:
    class Argument:
        pass

    def refuse(_: Any) -> None:
        raise OSError

    broker = DataBroker(issue=refuse)
    alive: list[weakref.ref[Argument]] = []

    @refresh_on_expired_token
    def call(self: DataBroker, argument: Argument) -> dict[str, str]:
        return EXPIRED

    for _ in range(20):
        argument = Argument()
        alive.append(weakref.ref(argument))
        call(broker, argument)
    del argument
    gc.collect()
    assert [reference() for reference in alive] == [None] * 20
    failure = broker_source(broker)._state.failure  # type: ignore[attr-defined]  # of a BrokerSource
    assert failure.__traceback__ is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_during_a_reissue_asks_for_itself() -> None:
    """Before: it inherited a lock that nobody in it would release."""
    let_through, parent = threading.Event(), os.getpid()

    def issue(self: Any) -> None:
        assert os.getpid() != parent or let_through.wait(PATIENCE)
        self.access_token = "Bearer new"

    broker = DataBroker(issue=issue)
    asking = threading.Thread(target=broker.fetch, daemon=True)
    asking.start()
    until(lambda: broker.asked)
    assert in_child(lambda: broker.fetch() == GOOD)
    let_through.set()
    asking.join(PATIENCE)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no such signals on Windows")
class TestSignals:
    @pytest.fixture(autouse=True)
    def _restored(self) -> Any:
        before = signal.getsignal(signal.SIGALRM)
        yield
        signal.signal(signal.SIGALRM, before)

    def test_a_handler_that_makes_a_protected_call_during_a_reissue_gets_kis_own_answer(self) -> None:
        def issue(self: Any) -> None:
            signal.raise_signal(signal.SIGALRM)
            self.access_token = "Bearer new"

        broker = DataBroker(issue=issue)
        answers: list[Any] = []
        signal.signal(signal.SIGALRM, lambda *_: answers.append(broker.fetch()))
        assert broker.fetch() == GOOD
        assert answers == [EXPIRED]

    def test_an_exception_of_a_handler_is_no_failure_of_the_broker(self) -> None:
        def limit(*_: object) -> None:
            raise TimeoutError("the user's own")

        broker = DataBroker(issue=lambda _: signal.raise_signal(signal.SIGALRM))
        signal.signal(signal.SIGALRM, limit)
        with pytest.raises(TimeoutError, match="the user's own"):
            BrokerSource(broker).replace("dead")
        broker.issue = lambda self: setattr(self, "access_token", "Bearer new")
        assert broker.fetch() == GOOD, "no cool-down"


def test_a_failed_reissue_is_one_issue_and_as_many_answers_of_kis(events: list[RefreshEvent]) -> None:
    def refuse(_: Any) -> None:
        raise OSError

    broker = DataBroker(issue=refuse)
    assert [broker.fetch() for _ in range(10)] == [EXPIRED] * 10
    assert {event.error for event in events if event.name == "token_refresh_failed"} == {"OSError"}


@pytest.mark.parametrize(("seconds", "asked"), [(0, 1), (59.75, 1), (60, 2), (61, 2)])
def test_in_the_cool_down_everybody_is_told_the_failure_and_nobody_asks(
    seconds: float, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> None:
        raise OSError(len(broker.asked), "no")

    clock = FakeClock(3.0)  # of a machine that has just been started
    monkeypatch.setattr(tokens_broker, "time", clock)
    broker = DataBroker(issue=refuse)
    source = BrokerSource(broker, RetryPolicy(issue_cooldown=60))
    with pytest.raises(OSError, match="no"):
        source.replace("dead")
    clock.now += seconds
    with pytest.raises(OSError, match="no") as caught:
        source.replace("dead")
    assert len(broker.asked) == caught.value.errno == asked


def test_a_token_ends_the_cool_down(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = DataBroker()
    source = BrokerSource(broker, RetryPolicy(issue_cooldown=60))
    source._state.failure = OSError("long ago")
    source._state.failed_at = time.monotonic() - 60
    assert source.replace("dead").token.value == "new"
    broker.issue = lambda self: setattr(self, "access_token", "Bearer newer")
    assert source.replace("new").token.value == "newer", "it failed before that"
    assert source._state.failure is None


def test_a_broker_is_asked_for_another_token_than_the_refused_one_alone() -> None:
    broker = DataBroker()
    source = BrokerSource(broker)
    assert source.replace("somebody else's") == (source.token(), "memory")
    assert source.replace(None) == (source.token(), "memory")
    assert broker.asked == []
    assert [source.is_dead(value) for value in ("somebody else's", "dead")] == [True, False]
    assert None not in source._state.refused
    assert source.replace("dead").origin == "issued"
    assert source.is_dead("dead")
    assert not source.is_dead("new")


@pytest.mark.parametrize("rejected", ["dead", "a-lesser-value", "x-greater-value", None])
def test_the_token_of_a_broker_is_usable_unless_it_is_the_refused_one(rejected: str | None) -> None:
    source = BrokerSource(DataBroker())
    found = source.current_unless(copied(rejected) if rejected else None)
    assert (found is None) is (rejected == "dead")
    assert source.peek() == source.token()


def test_a_token_that_a_broker_hands_out_again_is_refused_no_more() -> None:
    broker = DataBroker(issue=lambda _: None)
    source = BrokerSource(broker)
    assert source.replace("dead").origin == "issued"
    assert not source.is_dead("dead")
    assert source.current_unless(None) is not None


def test_a_brokers_token_is_its_own_and_never_due() -> None:
    source = BrokerSource(DataBroker())
    assert source.renewal_due() is False
    assert source.issued(source.token().value) is False


def test_the_first_token_of_a_broker_is_issued_when_it_is_asked_for() -> None:
    broker = DataBroker(access_token="")
    source = BrokerSource(broker)
    assert source.peek() is source.current_unless(None) is None
    assert source.token().value == "new"
    assert BrokerSource(DataBroker()).token().value == "dead"
    assert broker.asked == [1]


def test_a_brokers_token_that_changes_is_seen_and_one_that_does_not_is_made_once() -> None:
    broker = DataBroker()
    source = BrokerSource(broker)
    first = source.token()
    broker.access_token = copied("Bearer dead")
    assert source.token() is first
    for value in ("a-lesser-value", "x-greater-value"):
        broker.access_token = value
        assert source.token().value == value


@pytest.mark.parametrize(
    ("policy", "waits"), [({"issue_wait": 0.05}, "0.05"), ({"issue_wait": 0, "issue_timeout": 0.1}, "0.1")]
)
def test_who_waits_in_vain_is_told_how_long_and_may_try_again(policy: dict[str, float], waits: str) -> None:
    source = BrokerSource(DataBroker(), RetryPolicy(**policy))  # type: ignore[arg-type]  # all are seconds
    source._state.flights._current[""] = Flight("another")
    began = time.monotonic()
    with pytest.raises(TokenIssueError) as caught:
        source.replace("dead")
    assert time.monotonic() - began > 0.9 * float(waits)
    assert str(caught.value) == f"issue_access_token has not come to an end in {waits} seconds"
    assert caught.value.retryable is True
    assert caught.value.__context__ is None


def test_a_reissue_that_asks_for_what_it_is_about_to_issue_is_told_and_may_try_again() -> None:
    told: list[TokenIssueError] = []

    def issue(self: Any) -> None:
        with pytest.raises(TokenIssueError, match="asks for what it is about to issue") as caught:
            BrokerSource(self).replace("dead")
        told.append(caught.value)
        self.access_token = "Bearer new"

    assert BrokerSource(DataBroker(issue=issue)).replace("dead").origin == "issued"
    assert [(error.retryable, error.__context__) for error in told] == [(True, None)]


def by_name(self: Any, zeal: int = 1, *, force: bool = False) -> Any:
    return {"force": force}


def by_any_name(self: Any, zeal: int = 1, **options: Any) -> Any:
    return options


def without(self: Any, a: int = 1, zeal: int = 2, *rest: Any) -> Any:
    return {"rest": rest} if rest else {}


@pytest.mark.parametrize(
    ("issue", "given"), [(by_name, {"force": True}), (by_any_name, {"force": True}), (without, {})]
)
def test_force_is_given_to_a_reissue_that_takes_it(issue: Any, given: dict[str, Any]) -> None:
    asked: list[Any] = []

    class Named:
        access_token = "Bearer dead"

        @functools.wraps(issue)
        def issue_access_token(self, *arguments: Any, **options: Any) -> None:
            asked.append(issue(self, *arguments, **options))
            self.access_token = "Bearer new"

    BrokerSource(Named()).replace("dead")
    assert asked == [given]


class Answer:
    """As of a request, which has to be closed by whoever reads it."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Future:
    def __await__(self) -> Any:
        raise AssertionError("nobody awaits it")


@pytest.mark.parametrize("answer", [Answer(), Future(), None, "Bearer new"])
def test_what_a_reissue_hands_back_is_left_alone(answer: Any) -> None:
    class Answering(DataBroker):
        def issue_access_token(self) -> Any:
            self.access_token = "Bearer new"
            return answer

    assert BrokerSource(Answering()).replace("dead").token.value == "new"
    assert not getattr(answer, "closed", False)


def test_a_coroutine_function_is_named_as_what_cannot_be_asked() -> None:
    class Later(DataBroker):
        async def issue_access_token(self) -> None:  # type: ignore[override]  # as a library on asyncio has it
            raise AssertionError("nobody awaits it")

    with pytest.raises(TypeError, match="is a coroutine function: pass tokens= instead"):
        BrokerSource(Later()).replace("dead")


def test_a_reissue_that_leaves_no_token_is_named_as_such() -> None:
    with pytest.raises(TypeError, match="left no access_token behind: pass tokens= instead"):
        BrokerSource(DataBroker(issue=lambda self: setattr(self, "access_token", "two words"))).replace("dead")
