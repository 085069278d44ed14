"""Sources that others wrote: a user's own `TokenSource`, and a library's broker object."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from datetime import datetime, timezone
from typing import Any

import pytest
from freezegun import freeze_time

from crowds import together
from kis_retry import AccessToken, RetryPolicy, TokenManager
from kis_retry.testing import KisGateway
from kis_retry.tokens.foreign import BrokerSource, as_source, is_broker
from kis_retry.tokens.source import LiveSource, is_source
from patience import PATIENCE, until
from sources import NumberedTokens


def replaced(source: LiveSource, rejected: str | None) -> tuple[str, str]:
    token, origin = source.replace_future(rejected).result(PATIENCE)
    return token.value, origin


def current(source: LiveSource) -> str:
    return source.token_future().result(PATIENCE).value


# --- a user's own source


@pytest.mark.parametrize("method", ["token", "refresh"])
def test_a_source_has_two_methods_and_is_no_class_and_no_coroutine(method: str) -> None:
    async def asynchronous(self: object) -> None: ...

    assert is_source(NumberedTokens())
    assert not is_source(NumberedTokens)
    for wrong in (None, "text", asynchronous):
        assert not is_source(type("Wrong", (NumberedTokens,), {method: wrong})())


def test_a_manager_is_its_own_source(gateway: KisGateway) -> None:
    manager = TokenManager(gateway.credentials)
    assert is_source(manager)
    assert as_source(manager) is manager


def test_sources_of_one_object_share_its_history_and_those_of_equal_ones_do_not() -> None:
    class Equal(NumberedTokens):
        __hash__ = None  # type: ignore[assignment]  # as a dataclass

        def __eq__(self, other: object) -> bool:
            return True

    tokens, other = Equal(), Equal()
    first, second = as_source(tokens), as_source(tokens)
    assert replaced(first, "t1") == ("t2", "issued")
    assert (first, hash(first)) == (second, hash(second))
    assert second.peek() == tokens.token()
    assert second.is_dead("t1")
    assert as_source(other) != first != object()
    assert current(as_source(other)) == "t1"
    assert not as_source(other).is_dead("t1")


def test_a_source_is_asked_once_for_everybody_and_on_a_thread_of_this_package() -> None:
    names: set[str] = set()

    class Watching(NumberedTokens):
        def refresh(self, rejected: AccessToken) -> AccessToken:
            names.add(threading.current_thread().name)
            time.sleep(0.05)  # so that the others are there
            return super().refresh(rejected)

    tokens = Watching()
    source = as_source(tokens)
    current(source)
    outcomes = together(16, lambda _: replaced(source, "t1"))
    assert sorted(outcomes) == [("t2", "issued")] + [("t2", "memory")] * 15
    assert tokens.refreshed == ["t1"]
    assert names == {"kis_retry-refresh"}


def test_callers_who_come_at_the_same_instant_do_each_other_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", failures.append)  # of a thread that could not begin
    source, barrier = as_source(NumberedTokens()), threading.Barrier(8)

    def work(_: int) -> None:
        for number in range(1, 60):
            barrier.wait(PATIENCE)
            assert replaced(source, f"t{number}")[0] == f"t{number + 1}"

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        together(8, work)
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


def test_a_failure_is_shared_and_asked_again_by_the_next() -> None:
    tokens = NumberedTokens(error=LookupError("none left"))
    source = as_source(tokens)
    for _ in range(2):
        with pytest.raises(LookupError, match="none left"):
            replaced(source, "t1")
    tokens.error = None
    assert replaced(source, "t1") == ("t2", "issued")


def test_a_source_judges_tokens_by_what_was_refused_and_handed_out() -> None:
    tokens = NumberedTokens()
    source = as_source(tokens)
    assert source.peek() is None
    assert current(source) == "t1"
    assert replaced(source, "t1") == ("t2", "issued")
    assert replaced(source, "t1") == ("t2", "memory"), "a straggler"
    assert replaced(source, None) == ("t2", "memory")
    assert [source.handed_out(value) for value in ("t1", "t2")] == [True, True]
    assert [source.is_dead(value) for value in ("t1", "t2", "foreign")] == [True, False, False]
    source.note_refused("t2")
    assert source.is_dead("t2")
    assert source.peek() is None
    assert source.current_unless(None) is None
    assert current(source) == "t3", "what was refused is not handed out again"
    assert tokens.refreshed == ["t1", "t2"]
    assert source.renewed_future().result(PATIENCE).value == "t3"


def test_a_token_that_the_users_code_asked_for_itself_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kis_retry.tokens.source._LOOKS_APART", 0.05)  # it is a second
    tokens = NumberedTokens()
    source = as_source(tokens)
    until(lambda: source.handed_out("t1"))  # its code has put that into a header, unseen
    tokens.number = 2  # renewed by the user's own code
    assert not source.handed_out("foreign")
    until(lambda: source.handed_out("t2"))
    assert source.current_unless("t1") == tokens.token()


def test_a_token_past_its_stamp_is_asked_for_again() -> None:
    tokens = NumberedTokens()
    source = as_source(tokens)
    assert current(source) == "t1"
    with freeze_time("2040-01-01"):
        assert source.peek() is None
        assert source.is_dead("t1")
        tokens.number = 2
        assert current(source) == "t2"


@pytest.mark.parametrize("method", ["token", "refresh"])
def test_what_is_no_token_is_a_clear_failure_and_poisons_nothing(method: str) -> None:
    class Wrong(NumberedTokens):
        wrong = True

    def wrong(self: Wrong, *rejected: AccessToken) -> Any:
        return "a text" if self.wrong else getattr(NumberedTokens, method)(self, *rejected)

    setattr(Wrong, method, wrong)
    tokens = Wrong()
    source = as_source(tokens)
    with pytest.raises(TypeError, match="gave a str: its methods have to give an AccessToken"):
        current(source) if method == "token" else replaced(source, "t1")
    tokens.wrong = False
    assert replaced(source, "t1") == ("t2", "issued")
    assert current(source) == "t2"


def test_a_source_is_told_the_refused_token_as_it_handed_it_out() -> None:
    told: list[AccessToken] = []

    class Telling(NumberedTokens):
        def refresh(self, rejected: AccessToken) -> AccessToken:
            told.append(rejected)
            return super().refresh(rejected)

    source = as_source(Telling())
    token = source.token_future().result(PATIENCE)
    replaced(source, token.value)
    source.note_refused("t2")
    replaced(source, "strange")
    assert told[0] is token
    assert told[1].value == "strange"
    assert told[1].expires_at <= datetime.now(timezone.utc)


# --- a library's broker object


class Broker:
    """A library's object, whose token is dead and whose reissue does what a test wants."""

    def __init__(self, *left: Any) -> None:
        self.access_token: Any = "Bearer b1"
        self.left = list(left) or ["Bearer b2"]
        self.asked = 0

    def issue_access_token(self) -> Any:
        self.asked += 1
        outcome = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if isinstance(outcome, BaseException):
            raise outcome
        self.access_token = outcome


def test_a_broker_has_a_token_and_a_way_to_renew_it() -> None:
    class Asynchronous(Broker):
        async def issue_access_token(self) -> None: ...

    assert is_broker(Broker())
    assert not any(is_broker(value) for value in (Broker, object(), NumberedTokens(), "text", None, Asynchronous()))


def test_a_broker_that_renewed_its_token_itself_is_not_asked() -> None:
    broker = Broker()
    source = BrokerSource(broker)
    assert current(source) == "b1"
    broker.access_token = "Bearer own"
    assert replaced(source, "b1") == ("own", "memory")
    assert source.handed_out("own")
    assert source.is_dead("b1")
    assert broker.asked == 0


def test_force_is_asked_for_where_a_broker_takes_it() -> None:
    asked: list[Any] = []

    class Forced(Broker):
        def issue_access_token(self, force: bool = False) -> None:
            asked.append(force)
            super().issue_access_token()

    class Loose(Broker):
        def issue_access_token(self, **options: Any) -> None:
            asked.append(options["force"])
            super().issue_access_token()

    for kind in (Forced, Loose):
        assert replaced(BrokerSource(kind()), "b1") == ("b2", "issued")
    assert asked == [True, True]


def test_a_broker_without_a_token_gets_its_first_one() -> None:
    broker = Broker()
    broker.access_token = None
    assert current(BrokerSource(broker)) == "b2"
    assert broker.asked == 1


def test_a_broker_that_hands_its_dead_token_back_is_believed_once() -> None:
    source = BrokerSource(Broker("Bearer b1"))
    assert replaced(source, "b1") == ("b1", "issued")
    assert source.peek() is not None
    source.note_refused("b1")
    assert source.peek() is None


def test_after_a_failed_reissue_a_broker_is_left_alone_for_the_cool_down() -> None:
    broker = Broker(OSError("down"))
    source = BrokerSource(broker, RetryPolicy(issue_cooldown=60))
    for _ in range(50):
        with pytest.raises(OSError, match="down"):
            replaced(source, "b1")
    assert broker.asked == 1


@pytest.mark.parametrize("left", [None, "", "two words"])
def test_a_broker_whose_reissue_leaves_no_token_cannot_be_helped(left: Any) -> None:
    with pytest.raises(TypeError, match="pass tokens= instead"):
        replaced(BrokerSource(Broker(left)), "b1")


@pytest.mark.parametrize("kind", [Broker, NumberedTokens])
def test_an_object_is_not_kept_alive(kind: Any) -> None:
    target = kind()
    source = BrokerSource(target) if kind is Broker else as_source(target)
    replaced(source, "b1")
    gone = weakref.ref(target)
    del target, source
    until(lambda: gc.collect() is not None and gone() is None)
