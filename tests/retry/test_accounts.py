"""Whose request it is: no account is ever given the token of another one, whoever holds the tokens."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import requests

from accounts import Accounts
from answers import PRICE
from kis_retry import AccessToken, Credentials, MemoryTokenStore, RefreshEvent, TokenManager, refresh_on_expired_token
from kis_retry.context import Sighting
from kis_retry.retry.accounts import _Refusals, identity_of, is_of, is_own, learn, learned_of
from kis_retry.retry.wire import sighting_of
from kis_retry.testing import KisGateway
from kis_retry.tokens.source import TrackingSource, as_source
from sources import NumberedTokens


@pytest.fixture
def kis() -> Iterator[Accounts]:
    made = Accounts()
    yield made
    made.close()


class Broker:
    """A library's object, that keeps its own token and gets its own next one."""

    def __init__(self, kis: Accounts, key: str) -> None:
        self.kis = kis
        self.key = key
        self.number = 0
        self.issue_access_token()

    def issue_access_token(self) -> None:
        self.number += 1
        self.access_token = f"Bearer {self.key}-{self.number}"
        self.kis.good.add(f"{self.key}-{self.number}")

    def ask(self) -> Any:
        headers = {"authorization": self.access_token, "appkey": self.key}
        return requests.get(self.kis.url + PRICE, headers=headers, timeout=9).json()


def strangers(kis: Accounts, key: str, prefix: str) -> list[str]:
    """Tokens of others than `prefix` that were sent with its app key."""
    return [token for sent_key, token in kis.sent if sent_key == key and not token.startswith(prefix)]


@pytest.mark.parametrize("first", ["a good call", "a refusal"])
def test_a_broker_inside_the_call_of_another_keeps_its_own_token(
    kis: Accounts, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = Broker(kis, "B")

    class Library(Broker):
        @refresh_on_expired_token
        def fetch(self) -> Any:
            if first == "a good call":
                self.ask()
            return other.ask()

    library = Library(kis, "A")
    if first == "a good call":
        assert library.fetch()["rt_cd"] == "0"
    kis.good.discard("B-1")
    assert [library.fetch()["msg_cd"] for _ in range(3)] == ["EGW00123"] * 3
    assert strangers(kis, "B", "B") == []
    assert (library.number, other.number) == (1, 1)
    (warning,) = [record.getMessage() for record in caplog.records if "token_not_rebound" in record.getMessage()]
    assert "not of this token source" in warning


def test_a_source_without_credentials_learns_its_account_from_its_own_tokens(kis: Accounts) -> None:
    tokens = NumberedTokens(prefix="A-")
    kis.good |= {"A-1", "A-2", "B-1"}

    @refresh_on_expired_token(tokens=tokens)
    def fetch() -> Any:
        own = {"authorization": tokens.token().bearer, "appkey": "A"}
        requests.get(kis.url + PRICE, headers=own, timeout=9)
        others = {"authorization": "Bearer B-1", "appkey": "B"}
        return requests.get(kis.url + PRICE, headers=others, timeout=9).json()

    assert fetch()["rt_cd"] == "0"
    kis.good.discard("B-1")
    assert [fetch()["msg_cd"] for _ in range(3)] == ["EGW00123"] * 3
    assert strangers(kis, "B", "B") == []
    assert tokens.refreshed == []


def test_an_argument_with_the_headers_of_another_account_is_left_alone(kis: Accounts) -> None:
    tokens = NumberedTokens(prefix="A-")
    kis.good |= {"A-1"}

    @refresh_on_expired_token(tokens=tokens)
    def fetch(headers: dict[str, str]) -> Any:
        return requests.get(kis.url + PRICE, headers=headers, timeout=9).json()

    assert fetch({"appkey": "A"})["rt_cd"] == "0"
    headers = {"authorization": "Bearer B-1", "appkey": "B"}
    assert fetch(headers)["msg_cd"] == "EGW00123"
    assert headers["authorization"] == "Bearer B-1"
    assert tokens.refreshed == []


def test_a_source_around_a_manager_shows_whose_tokens_they_are(gateway: KisGateway, manager: TokenManager) -> None:
    class Around:
        credentials = manager.credentials

        def token(self) -> AccessToken:
            return manager.token()

        def refresh(self, rejected: AccessToken) -> AccessToken:
            return manager.refresh(rejected)

    sent: list[str] = []
    url, dead = gateway.url, manager.authorization

    @refresh_on_expired_token(tokens=Around())
    def fetch(key: str) -> Any:
        response = requests.get(url + PRICE, headers={"authorization": dead, "appkey": key}, timeout=9)
        sent.append(response.request.headers["authorization"])
        return response.json()

    gateway.expire()
    assert fetch("PSsomebodyelse")["rt_cd"] != "0"
    assert sent == [dead]
    assert fetch(manager.credentials.app_key)["rt_cd"] == "0"
    assert sent[-1] != dead


# A place that is not where the request takes its token from.


def test_a_token_that_was_there_before_the_call_is_not_taken_for_a_new_one(
    gateway: KisGateway, events: list[RefreshEvent]
) -> None:
    """Its own attribute is alive and of no use, since what is sent stands elsewhere."""
    manager = TokenManager(gateway.credentials, store=MemoryTokenStore())
    other = TokenManager(gateway.credentials, store=MemoryTokenStore())

    class Library:
        access_token = "Bearer some-other-token"
        headers = other.headers("FHKST01010100")

        @refresh_on_expired_token(tokens=manager)
        def fetch(self) -> Any:
            return requests.get(gateway.url + PRICE, headers=self.headers, timeout=9).json()

    library = Library()
    gateway.expire()
    gateway.reset_counts()
    assert [library.fetch()["rt_cd"] for _ in range(20)] == ["0"] * 20
    assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 1)
    assert [event.source for event in events if event.name.startswith("token_re")] == ["issued"]


# Hosts.


@pytest.mark.parametrize(
    ("base_url", "asked"),
    [
        ("https://proxy.corp:443", "https://proxy.corp/uapi/x"),
        ("https://proxy.corp", "https://PROXY.corp:443/uapi/x"),
        ("http://proxy.corp:80/kis", "http://user:word@proxy.corp/kis/uapi/x"),
        ("https://proxy.corp:9443", "https://proxy.corp:9443/uapi/x"),
    ],
)
def test_a_port_that_goes_without_saying_makes_no_other_host(base_url: str, asked: str) -> None:
    identity = identity_of(SimpleNamespace(credentials=Credentials("A", "secret", base_url=base_url)))
    assert identity is not None
    for url in (asked, httpx.URL(asked)):
        assert is_of(sighting_of("GET", url, {"appkey": "A"}), *identity)


@pytest.mark.parametrize("asked", ["https://proxy.corp:80/x", "http://proxy.corp:443/x", "https://proxy.corp.evil/x"])
def test_another_port_or_host_is_another_host(asked: str) -> None:
    identity = identity_of(SimpleNamespace(credentials=Credentials("A", "secret", base_url="https://proxy.corp")))
    assert identity is not None
    sighting: Sighting = sighting_of("GET", asked, {"appkey": "A"})
    assert not is_of(sighting, *identity)


def request(token: str | None = "t1", *, host: str = "kis.example", key: str | None = "A") -> Sighting:
    return Sighting("GET", host, PRICE, key, token)


@pytest.mark.parametrize(
    ("base_url", "app_key", "identity"),
    [
        ("https://KIS.example:443/x", "A", ("kis.example", "A")),
        (None, "A", None),
        ("https://kis.example", None, None),
        (b"https://kis.example", "A", None),
        ("https://kis.example", 5, None),
    ],
)
def test_a_source_is_known_by_its_url_and_its_app_key_together(
    base_url: Any, app_key: Any, identity: tuple[str, str] | None
) -> None:
    assert identity_of(SimpleNamespace(credentials=SimpleNamespace(base_url=base_url, app_key=app_key))) == identity
    assert identity_of(SimpleNamespace()) is None


REAL = "openapi.koreainvestment.com:9443"
PAPER = "openapivts.koreainvestment.com:29443"


@pytest.mark.parametrize(
    ("host", "key", "home", "of_it"),
    [
        (REAL, "MM", REAL, True),
        (REAL, None, REAL, True),
        *((REAL, key, REAL, False) for key in ("", "LM", "NM")),
        (REAL, "MM", "proxy.example", True),
        (PAPER, "MM", "proxy.example", True),
        *((REAL, key, "proxy.example", False) for key in (None, "LM", "NM")),
        (REAL, "MM", PAPER, False),
        (PAPER, "MM", REAL, False),
        *((host, "MM", "m.example", False) for host in ("l.example", "n.example")),
        *((host, "MM", REAL, False) for host in ("l.example", "z.example")),
    ],
)
def test_a_request_is_of_an_account_on_its_host_or_through_a_stand_in_for_it(
    host: str, key: str | None, home: str, of_it: bool
) -> None:
    assert is_of(request(host=host, key=key), home, "".join("MM")) is of_it


def test_a_token_is_a_sources_own_if_it_handed_it_out_or_would() -> None:
    source = as_source(NumberedTokens("m"))
    assert not is_own(source, "m1"), "it has not been asked for one"
    source.token()
    source.replace("m1")
    assert [is_own(source, token) for token in ("m1", f"m{2}", "m3", "l", "n", None)] == [True, True, *[False] * 4]


class WithoutMemory(TrackingSource):
    """A source that knows the current token alone."""

    def issued(self, value: str) -> bool:
        return False


def test_the_token_that_it_would_hand_out_is_its_own_though_it_does_not_remember() -> None:
    source = WithoutMemory(NumberedTokens("m"))
    source.token()
    assert [is_own(source, token) for token in (f"m{1}", "l", "n", None)] == [True, False, False, False]


def test_what_is_learned_of_an_account_tells_its_requests_from_those_of_others() -> None:
    source = as_source(NumberedTokens())
    assert learned_of(source, request()) is None
    learn(source, request(host="kis.example", key="A"))
    learn(source, request(host="bare.example", key=None))
    asked = [(host, key) for host in ("kis.example", "bare.example", "other.example") for key in ("A", "B", None)]
    found = [learned_of(source, request(host=host, key=key)) for host, key in asked]
    assert found == [True, False, True, True, True, True, False, False, False]
    assert learned_of(as_source(NumberedTokens()), request()) is None, "another source has learned nothing"


def test_a_refusal_is_known_by_its_token_its_host_and_its_app_key() -> None:
    refusals = _Refusals()
    refusals.note(request())
    refusals.note(request(None, host="nobody.example"))
    known = (request(), request("t2"), request(host="other.example"), request(key="B"), request(key=None))
    assert [refusals.include(sighting) for sighting in known] == [True, *[False] * 4]
    assert not refusals.include(request(None, host="nobody.example"))
    refusals.note(request(host="other.example"))
    assert [refusals.include(request(host=host)) for host in ("kis.example", "other.example")] == [False, True]


def test_of_more_refusals_than_256_the_oldest_is_forgotten() -> None:
    refusals = _Refusals()
    seen = [request(f"t{number}") for number in range(257)]
    for sighting in seen[:-1]:
        refusals.note(sighting)
    assert all(refusals.include(sighting) for sighting in seen[:-1])
    refusals.note(seen[-1])
    assert [refusals.include(sighting) for sighting in seen] == [False, *[True] * 256]
