"""What a library means that asks for a token by itself, judged in every situation in which it may ask."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from clocks import FakeClock
from kis_retry import AccessToken, RefreshEvent, RetryPolicy, TokenIssueError
from kis_retry.context import CURRENT, Call
from kis_retry.thirdparty import reissue
from kis_retry.thirdparty.reissue import ReissueRequest, shared_reissue
from kis_retry.tokens.source import Replacement, as_source
from refreshes import token_until

if TYPE_CHECKING:
    from kis_retry.tokens.source import Origin

LATER = token_until(2_000_000_000, "t2")


class Issuing:
    """A user's source, which has handed t1 out."""

    def __init__(self, policy: object = None) -> None:
        self.policy = policy
        self.refused: list[str] = []

    def token(self) -> AccessToken:
        return token_until(2_000_000_000, "t1")

    def refresh(self, rejected: AccessToken) -> AccessToken:
        self.refused.append(rejected.value)
        return LATER


@pytest.fixture
def source() -> Any:
    source = as_source(Issuing())
    source.token()
    return source


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Of a machine that has just been started."""
    clock = FakeClock(3.0)
    monkeypatch.setattr(reissue, "time", clock)
    return clock


class Token:
    """What is known of the token of a call under way."""

    def __init__(self, refused: bool = False, rejected: str | None = None) -> None:
        self.was_refused, self.rejected = lambda: refused, lambda: rejected
        self.replaced_with: str | None = "nothing yet"
        self.failed: list[tuple[str, float]] = []

    def emit_refresh_failed(self, error: Exception, began: float) -> None:
        self.failed.append((type(error).__name__, began))


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have a call be under way."""

    def begin(refused: bool = False, rejected: str | None = None) -> Token:
        token = Token(refused, rejected)
        call = Call("Library.fetch_price", None, (), {})
        call.attempt = 2
        CURRENT.set(call)
        monkeypatch.setattr(reissue, "_token_of", lambda call: token)
        return token

    return begin


def request(source: Any, held: object = "Bearer t1", *arguments: object, **options: object) -> ReissueRequest:
    return ReissueRequest(source, SimpleNamespace(access_token=held), arguments, options)


@pytest.mark.parametrize(
    ("arguments", "options", "forced"),
    [
        ((), {}, False),
        ((True,), {}, True),
        ((False,), {}, False),
        ((True, False), {}, True),
        ((False, True), {}, False),
        ((), {"force": True}, True),
        ((), {"force": False}, False),
        ((), {"forced": True}, False),
        ((False,), {"force": True}, True),
        ((True,), {"force": False}, False),
    ],
)
def test_a_library_insists_by_the_argument_force_or_by_its_first_one(
    *, arguments: tuple[object, ...], options: dict[str, object], forced: bool, source: Any
) -> None:
    assert request(source, "Bearer t1", *arguments, **options).refreshes is forced


@pytest.mark.parametrize(
    ("held", "rejected"),
    [("Bearer t1", "t1"), ("t1", "t1"), ("Bearer ", None), ("", None), (None, None), (5, None)],
)
@pytest.mark.parametrize("force", [True, False])
def test_outside_of_a_call_a_library_that_insists_on_another_token_than_it_holds_is_refreshing(
    *, force: bool, held: object, rejected: str | None, source: Any
) -> None:
    found = request(source, held, force=force)
    assert found.found == held
    assert found.rejected == rejected
    assert found.refreshes is (force and rejected is not None)
    assert found.is_idle is False


@pytest.mark.parametrize(
    ("force", "refused", "refreshes"),
    [(False, False, False), (False, True, True), (True, False, True), (True, True, True)],
)
def test_inside_a_call_a_library_is_refreshing_where_kis_refused_it_or_where_it_insists(
    *, force: bool, refused: bool, refreshes: bool, source: Any, inside: Any
) -> None:
    inside(refused)
    assert request(source, force=force).refreshes is refreshes


@pytest.mark.parametrize(
    ("known", "held", "rejected"),
    [("t0", "Bearer t1", "t0"), (None, "Bearer t1", "t1"), ("t0", "", "t0"), (None, "", None)],
)
def test_inside_a_call_the_refused_token_is_the_one_that_was_sent_or_else_the_one_at_hand(
    known: str | None, held: str, rejected: str | None, source: Any, inside: Any
) -> None:
    inside(refused=True, rejected=known)
    assert request(source, held).rejected == rejected


@pytest.mark.parametrize(("held", "idle"), [("Bearer t1", False), ("Bearer its-own", True), ("", False)])
def test_inside_a_call_a_token_of_the_librarys_own_stays_as_it_is(
    held: str, idle: bool, source: Any, inside: Any
) -> None:
    inside()
    assert request(source, held).is_idle is idle


@pytest.mark.parametrize(
    ("origin", "name"), [("issued", "token_refreshed"), ("memory", "token_adopted"), ("store", "token_adopted")]
)
@pytest.mark.parametrize("within", [True, False], ids=["inside a call", "outside"])
def test_another_token_is_put_where_the_library_keeps_it_and_told_in_full(
    *, within: bool, origin: Origin, name: Any, source: Any, inside: Any, clock: FakeClock, events: list[RefreshEvent]
) -> None:
    call = inside(rejected="t1") if within else None
    broker = SimpleNamespace(access_token="bearer t1")
    asked = ReissueRequest(source, broker, (), {"force": True})
    clock.now += 5
    assert asked.replaced(Replacement(LATER, origin)) == broker.access_token == asked.found == "bearer t2"
    told = RefreshEvent(
        name=name,
        callable="Library.fetch_price" if within else None,
        attempt=2 if within else None,
        token=LATER.fingerprint,
        previous_token=token_until(1, "t1").fingerprint,
        expires_at=LATER.expires_at,
        source=origin,
        elapsed=5.0,
    )
    assert events == [told]
    assert call is None or call.replaced_with == "t2"


def test_the_first_token_is_in_place_of_none(source: Any, inside: Any, events: list[RefreshEvent]) -> None:
    inside(refused=True)
    assert request(source, None).replaced(Replacement(LATER, "issued")) == "Bearer t2"
    assert [event.previous_token for event in events] == [None]


@pytest.mark.parametrize(
    ("within", "held", "tolerated"),
    [(True, "Bearer t1", True), (True, "", False), (True, None, False), (False, "Bearer t1", False)],
)
def test_without_another_token_a_library_inside_a_call_goes_on_with_what_it_holds(
    *, within: bool, held: str | None, tolerated: bool, source: Any, inside: Any, clock: FakeClock
) -> None:
    call = inside(refused=True, rejected="t0") if within else Token()
    asked = request(source, held)
    clock.now += 5
    assert asked.tolerates(TokenIssueError("no")) is tolerated
    assert call.failed == ([("TokenIssueError", 3.0)] if tolerated else [])
    assert call.replaced_with == ("t0" if tolerated else "nothing yet")


class Library:
    """One that issues its own tokens, where nobody stands between."""

    access_token = "Bearer t1"

    def issue_access_token(self, force: bool = False) -> str:
        return "its own"


class AsyncLibrary:
    access_token = "Bearer t1"

    async def issue_access_token(self, force: bool = False) -> str:
        return "its own"


ON, OFF = RetryPolicy(enabled=True), RetryPolicy(enabled=False)


@pytest.mark.parametrize("kind", [Library, AsyncLibrary])
@pytest.mark.parametrize(
    ("given", "of_the_source", "environment", "routed"),
    [
        (None, None, "true", True),
        (None, None, "false", False),
        (None, "a policy of another kind", "false", False),
        (None, "a policy of another kind", "true", True),
        (None, ON, "false", True),
        (None, OFF, "true", False),
        (ON, OFF, "false", True),
        (OFF, ON, "true", False),
    ],
)
def test_switched_off_by_the_policy_given_or_the_sources_or_the_environments_the_library_issues_as_ever(
    *,
    given: RetryPolicy | None,
    of_the_source: object,
    environment: str,
    routed: bool,
    kind: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KIS_RETRY_ENABLED", environment)
    wrapper = as_source(Issuing())
    monkeypatch.setattr(wrapper, "policy", of_the_source, raising=False)
    library = kind()
    issue = shared_reissue(library, wrapper, given)
    answers = [issue(force=True) if kind is Library else asyncio.run(issue(force=True)) for _ in range(2)]
    assert answers == (["Bearer t2"] * 2 if routed else ["its own"] * 2)


@pytest.mark.parametrize("kind", [Library, AsyncLibrary])
def test_a_library_that_goes_on_with_its_own_token_asks_nobody(kind: Any, source: Any, inside: Any) -> None:
    inside()
    library = kind()
    library.access_token = "Bearer its-own"
    issue = shared_reissue(library, source, None)
    assert (issue() if kind is Library else asyncio.run(issue())) == "Bearer its-own"
    library.access_token = ""
    assert (issue() if kind is Library else asyncio.run(issue())) == "Bearer t1"


@pytest.mark.parametrize("attribute", [None, "a text"])
def test_where_there_is_nothing_to_route_nothing_is(attribute: object, source: Any) -> None:
    assert shared_reissue(SimpleNamespace(issue_access_token=attribute), source, None) is None
    assert shared_reissue(object(), source, None) is None
