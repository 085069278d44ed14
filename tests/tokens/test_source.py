"""Sources that others wrote: a user's own `TokenSource`, and a library's broker object."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from clocks import FakeClock
from kis_retry import AccessToken, KisClient, refresh_on_expired_token
from kis_retry.tokens import source as tokens_source
from kis_retry.tokens.broker import broker_source
from kis_retry.tokens.source import NEVER, TrackingSource, as_source, is_source
from refreshes import copied, token_until

if TYPE_CHECKING:
    from kis_retry import RefreshEvent

EXPIRED = {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "기간이 만료된 token 입니다."}
GOOD = {"rt_cd": "0"}
FAR = datetime(2040, 1, 1, tzinfo=timezone.utc)


class Numbered:
    """A source with a new token at every refresh."""

    def __init__(self) -> None:
        self.number = 1

    def token(self) -> AccessToken:
        return AccessToken(f"t{self.number}", FAR)

    def refresh(self, rejected: AccessToken) -> AccessToken:
        self.number += 1
        return self.token()


class Broker:
    """A library's object, whose token is dead and whose reissue does what a test wants."""

    def __init__(self, issue: Any = None) -> None:
        self.access_token: Any = "Bearer dead"
        self.issue = issue
        self.asked = 0

    def issue_access_token(self) -> Any:
        self.asked += 1
        return self.issue(self) if self.issue else None

    @refresh_on_expired_token
    def fetch(self) -> dict[str, str]:
        return EXPIRED if self.access_token == "Bearer dead" else GOOD


def test_wrappers_of_the_same_source_share_its_memory() -> None:
    source = Numbered()
    first, second = as_source(source), as_source(source)
    token = first.token()
    assert first == second
    assert hash(first) == hash(second)
    assert second.issued(token.value)
    assert second.peek() == token
    assert as_source(Numbered()) != first


def test_the_memory_of_a_source_is_bounded() -> None:
    source = Numbered()
    wrapper = as_source(source)
    for _ in range(100):
        wrapper.replace(wrapper.token().value)
    assert not wrapper.issued("t1")
    assert wrapper.issued("t101")


def test_a_token_past_its_time_is_bound_anew_before_the_call_and_a_good_one_is_left(events: list[RefreshEvent]) -> None:
    class Dated(Numbered):
        def token(self) -> AccessToken:
            self.number += 1
            return AccessToken(
                f"t{self.number}", datetime(2000 if self.number == 2 else 2100, 1, 1, tzinfo=timezone.utc)
            )

    source, bound, sent = Dated(), list[str](), list[str]()

    @refresh_on_expired_token(tokens=source, bind=lambda token: bound.append(token.value))
    def fetch() -> dict[str, str]:
        sent.append(bound[-1])
        return GOOD

    assert as_source(source).token().value == "t2", "which expired long ago"
    assert [fetch(), fetch()] == [GOOD, GOOD]
    assert (sent, bound) == (["t3", "t3"], ["t3"])
    assert events == []


def test_a_source_that_cannot_be_remembered_still_refreshes() -> None:
    class Slotted(Numbered):
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]  # as an object with __eq__ alone

    source = Slotted()

    @refresh_on_expired_token(tokens=source)
    def fetch(headers: dict[str, str]) -> dict[str, str]:
        return EXPIRED if headers["authorization"] == "Bearer t1" else GOOD

    assert fetch({}) == GOOD


def test_a_refused_token_that_nobody_knows_is_told_as_such() -> None:
    told: list[AccessToken] = []

    class Telling(Numbered):
        def refresh(self, rejected: AccessToken) -> AccessToken:
            told.append(rejected)
            return super().refresh(rejected)

    fetch = refresh_on_expired_token(tokens=Telling())(lambda token: EXPIRED if token == "strange" else GOOD)
    assert fetch("strange") == GOOD
    assert [token.value for token in told] == ["strange"]


def test_after_a_failed_reissue_a_broker_is_left_alone_for_the_cool_down(events: list[RefreshEvent]) -> None:
    def refuse(_: Broker) -> None:
        raise OSError

    broker = Broker(refuse)
    assert [broker.fetch() for _ in range(50)] == [EXPIRED] * 50
    assert broker.asked == 1
    assert {event.error for event in events if event.name == "token_refresh_failed"} == {"OSError"}


def test_without_a_cool_down_a_broker_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_RETRY_ISSUE_COOLDOWN", "0")

    def refuse(_: Broker) -> None:
        raise OSError

    broker = Broker(refuse)
    fetch = refresh_on_expired_token(Broker.fetch.__wrapped__)  # type: ignore[attr-defined]  # reads it when first called
    assert [fetch(broker) for _ in range(3)] == [EXPIRED] * 3
    assert broker.asked == 3


def test_a_broker_that_hands_its_dead_token_back_is_repeated_once() -> None:
    broker = Broker()
    assert broker.fetch() == EXPIRED
    assert broker.asked == 1


@pytest.mark.parametrize("left", [None, "", 5, "two words"])
def test_a_broker_whose_reissue_leaves_no_token_cannot_be_helped(left: Any, events: list[RefreshEvent]) -> None:
    broker = Broker(lambda self: setattr(self, "access_token", left))
    assert broker.fetch() is EXPIRED
    assert events[1].error == "TypeError"


def test_a_coroutine_reissue_cannot_be_awaited_and_kis_own_answer_comes_back(events: list[RefreshEvent]) -> None:
    async def later() -> None: ...

    broker = Broker(lambda _: later())
    assert broker.fetch() is EXPIRED
    assert events[1].error == "TypeError"


def test_a_broker_without_a_token_gets_its_first_one_before_the_call() -> None:
    broker = Broker(lambda self: setattr(self, "access_token", "Bearer new"))
    broker.access_token = None
    assert broker.fetch() == GOOD
    assert broker.asked == 1


def test_a_broker_with_a_signature_that_cannot_be_read_is_asked_without_force() -> None:
    class Opaque(Broker):
        @property
        def issue_access_token(self) -> Any:  # a callable object, as a C extension has
            broker = self

            class Callable:
                __signature__ = "none"

                def __call__(self) -> None:
                    broker.access_token = "Bearer new"

            return Callable()

    assert Opaque().fetch() == GOOD


def test_a_broker_is_not_kept_alive() -> None:
    import gc
    import weakref

    broker = Broker(lambda self: setattr(self, "access_token", "Bearer new"))
    assert broker.fetch() == GOOD
    assert broker_source(broker) == broker_source(broker)
    assert hash(broker_source(broker)) == hash(broker_source(broker))
    gone = weakref.ref(broker)
    del broker
    gc.collect()
    assert gone() is None


def test_a_client_takes_no_source_that_is_none() -> None:
    with pytest.raises(TypeError, match="tokens="):
        KisClient(tokens=object())  # type: ignore[arg-type]


async def test_switched_off_a_coroutine_function_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_RETRY_ENABLED", "false")

    @refresh_on_expired_token(tokens=Numbered())
    async def fetch(headers: dict[str, str]) -> dict[str, str]:
        return EXPIRED

    headers: dict[str, str] = {}
    assert await fetch(headers) is EXPIRED
    assert headers == {}


async def test_another_exception_of_a_coroutine_function_passes_through() -> None:
    calls: list[int] = []

    @refresh_on_expired_token(tokens=Numbered())
    async def fetch() -> None:
        calls.append(1)
        raise LookupError

    with pytest.raises(LookupError):
        await fetch()
    assert calls == [1]


async def test_tasks_refused_with_different_tokens_share_a_thread_and_get_their_own() -> None:
    class Slow(Numbered):
        def refresh(self, rejected: AccessToken) -> AccessToken:
            if rejected.value == f"t{self.number}":
                self.number += 1
            return self.token()

    source = Slow()
    assert isinstance(as_source(source), TrackingSource)

    @refresh_on_expired_token(tokens=source)
    async def fetch(token: str) -> dict[str, str]:
        await asyncio.sleep(0)
        return GOOD if token == "t2" else EXPIRED

    assert list(await asyncio.gather(fetch("t1"), fetch("foreign"), fetch("t1"))) == [GOOD] * 3
    assert source.number == 2


def test_the_last_64_tokens_that_were_refused_are_known_to_be_dead() -> None:
    source = as_source(Numbered())
    for number in range(65):
        source.note_refused(f"dead-{number}")
    assert [source.is_dead(f"dead-{number}") for number in (0, 1, 64)] == [False, True, True]


def test_a_source_may_have_attributes_of_any_name() -> None:
    class Named:
        exchange = "NAS"
        replace = "text"
        peek = current_unless = issued = None

        def token(self) -> AccessToken:
            return AccessToken("abc", datetime(2100, 1, 1, tzinfo=timezone.utc))

        def refresh(self, rejected: AccessToken) -> AccessToken:
            return AccessToken(f"{rejected.value}-next", datetime(2100, 1, 1, tzinfo=timezone.utc))

    source = as_source(Named())
    assert source.token().value == "abc"
    assert source.replace("abc").token.value == "abc-next"


class Planned:
    """A source that hands out what the test put there."""

    def __init__(self, token: AccessToken) -> None:
        self.now, self.next = token, token
        self.refused: list[AccessToken] = []

    def token(self) -> AccessToken:
        return self.now

    def refresh(self, rejected: AccessToken) -> AccessToken:
        self.refused.append(rejected)
        self.now = self.next
        return self.now


@pytest.mark.parametrize("others", [("a-lesser-value", "b"), ("x-greater-value", "y")])
@pytest.mark.parametrize(("now", "alive"), [(1_999.75, True), (2_000, False), (2_000.25, False)])
def test_a_source_judges_its_tokens_by_their_expiry_and_by_what_was_refused(
    now: float, alive: bool, others: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, foreign = others
    monkeypatch.setattr(tokens_source, "time", FakeClock(now))
    planned = Planned(token_until(2_000, earlier))
    source = as_source(planned)
    assert source.peek() is None, "nothing was handed out yet"
    assert source.renewal_due() is False
    source.token()
    token = planned.now = token_until(2_000, "m1")
    source.token()
    current = token if alive else None
    assert source.peek() == current
    assert source.renewal_due() is not alive
    assert [source.current_unless(value) for value in (None, earlier, foreign)] == [current] * 3
    assert source.current_unless(copied("m1")) is None
    assert [source.issued(value) for value in (earlier, "m1", foreign)] == [True, True, False]
    assert [source.is_dead(copied(value)) for value in (earlier, "m1", foreign)] == [True, not alive, False]
    assert [source.successor_of(value) for value in (earlier, "m1", foreign)] == [current, None, None]
    source.note_refused(foreign)
    assert source.is_dead(foreign)
    assert source.successor_of(foreign) == current
    source.note_refused("m1")
    assert source.peek() is None
    assert source.is_dead("m1")


@pytest.mark.parametrize(
    ("rejected", "brings", "origin"),
    [
        ("m1", "m2", "issued"),
        ("m1", "a-lesser-value", "issued"),
        ("m1", "m1", "issued"),
        ("m0", "m1", "memory"),
        ("m2", "m1", "memory"),
        ("m0", "m2", "issued"),
        ("m2", "m0", "issued"),
    ],
)
def test_a_token_that_the_source_had_before_is_from_memory_unless_it_is_the_refused_one(
    rejected: str, brings: str, origin: str
) -> None:
    planned = Planned(token_until(2_000_000_000, "m1"))
    source = as_source(planned)
    source.token()
    planned.next = token_until(2_000_000_000, copied(brings))
    assert source.replace(copied(rejected)) == (planned.next, origin)
    assert [token.value for token in planned.refused] == [rejected]
    assert source.peek() == planned.next, "even one that was refused, where it is handed out again"
    assert source.is_dead(rejected) is (rejected != brings)


def test_the_first_token_by_refreshing_is_issued_and_where_nobody_knows_which_was_refused_it_is_as_it_is() -> None:
    planned = Planned(token_until(2_000_000_000, "m1"))
    assert as_source(planned).replace("m0") == (planned.now, "issued")
    assert as_source(planned).replace(None) == (planned.now, "memory")
    assert len(planned.refused) == 1


def test_the_expiry_of_the_refused_token_is_told_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = Planned(token_until(2_000_000_000, "m1"))
    source = as_source(planned)
    source.token()
    source.replace("m1")
    before = datetime.now(timezone.utc)
    source.replace("strange")
    known, strange = planned.refused
    assert known == token_until(2_000_000_000, "m1")
    assert before <= strange.expires_at <= datetime.now(timezone.utc)


def test_the_last_64_tokens_that_were_handed_out_are_known() -> None:
    source = as_source(Numbered())
    source.token()
    for number in range(1, 65):
        source.replace(f"t{number}")
    assert [source.issued(f"t{number}") for number in (1, 2, 65)] == [False, True, True]


def test_a_source_that_does_not_say_when_a_token_was_issued_is_taken_at_its_word() -> None:
    assert as_source(Numbered()).is_new("t1", 0) is True


def test_a_token_of_which_nobody_said_when_it_dies_lives_to_the_last_day_there_is() -> None:
    assert datetime(2199, 12, 31, tzinfo=timezone.utc) == NEVER
    AccessToken("abc", NEVER)


@pytest.mark.parametrize(
    ("methods", "is_one"), [(("token", "refresh"), True), (("token",), False), (("refresh",), False), ((), False)]
)
def test_a_source_has_two_methods(methods: tuple[str, ...], is_one: bool) -> None:
    kind = type("Kind", (), {name: lambda self: None for name in methods})
    assert is_source(kind()) is is_one
    assert is_source(type("Named", (kind,), {"refresh": "text"})()) is False


def test_wrappers_tell_sources_apart_and_whose_tokens_they_are() -> None:
    source = Numbered()
    source.credentials = "whose"  # type: ignore[attr-defined]  # as a source of a user's may have
    assert as_source(source).credentials == "whose"  # type: ignore[attr-defined]  # of a TrackingSource
    assert as_source(Numbered()).credentials is None  # type: ignore[attr-defined]  # as above
    assert as_source(source).identity is as_source(source).identity
    assert as_source(source).identity is not as_source(Numbered()).identity
    assert as_source(source) != object()
    assert as_source(source).hands_out_unseen is True
    assert broker_source(Broker()).hands_out_unseen is False
