"""Whose a request is: each account gets its own token, and nobody else's is touched."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests

from crowds import together
from kis_retry import (
    AccessToken,
    Credentials,
    MemoryTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenManager,
    install,
    refresh_on_expired_token,
)
from kis_retry.testing import KisGateway
from senders import GOOD, PRICE, WIRES, Answer, both, headers_for, issued, manager_for

REFUSED = Answer(500, "EGW00123")
REQUESTS = WIRES[0]
NOBODYS = "/uapi/of-nobody"  # told of once in a process, so of no other test


def ask(gateway: KisGateway, **headers: str) -> Answer:
    return REQUESTS.get(gateway, **headers)


# Learned, and known.


def test_several_accounts_in_one_function_are_each_their_own(gateway: KisGateway, other: KisGateway) -> None:
    mine, theirs = f"Bearer {gateway.current_token}", issued(other)
    gateway.accept("PSthird", "third")

    @refresh_on_expired_token
    def fetch() -> list[Answer]:
        third = {"authorization": "", "appkey": "PSthird", "appsecret": "third"}
        accounts = [(gateway, {"authorization": mine}), (other, {"authorization": theirs}), (gateway, third)]
        return [ask(place, **headers) for place, headers in accounts]

    gateway.expire()
    other.expire()
    for place in (gateway, other):
        place.reset_counts()
    assert fetch() == [GOOD] * 3
    assert fetch() == [GOOD] * 3
    assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 2)
    assert (other.counts.refused, other.counts.token_requests) == (1, 1)


def test_a_manager_whose_host_is_written_otherwise_is_of_the_same_account(gateway: KisGateway) -> None:
    keys, host = gateway.credentials, gateway.url.replace("127.0.0.1", "LOCALHOST")
    manager = TokenManager(Credentials(keys.app_key, keys.app_secret, base_url=host), store=MemoryTokenStore())
    gateway.expire()
    headers = headers_for(gateway, authorization=manager.authorization)
    gateway.expire()
    fetch = refresh_on_expired_token(lambda: requests.get(host.lower() + PRICE, headers=headers, timeout=9).json())
    assert fetch()["msg_cd"] == "MCA00000"
    assert manager.token().value == gateway.current_token


def test_the_newest_manager_of_the_account_is_used(gateway: KisGateway) -> None:
    older, newer = manager_for(gateway), manager_for(gateway)
    gateway.expire()
    fetch = refresh_on_expired_token(lambda: ask(gateway))
    assert fetch() == GOOD
    assert newer.token().value == gateway.current_token
    assert gateway.counts.token_requests == 2
    del older


def test_a_manager_that_is_given_is_used_for_its_own_account_alone(gateway: KisGateway, other: KisGateway) -> None:
    tokens, _newer = manager_for(gateway), manager_for(gateway)
    theirs, dead = issued(other), f"Bearer {gateway.current_token}"

    @refresh_on_expired_token(tokens=tokens)
    def fetch() -> list[Answer]:
        unnamed = requests.get(gateway.url + PRICE, headers={"authorization": dead}, timeout=9)
        answers = [ask(gateway, authorization=""), ask(other, authorization=theirs)]
        return [*answers, Answer(unnamed.status_code, unnamed.json()["msg_cd"])]

    gateway.expire()
    other.expire()
    assert fetch() == [GOOD] * 3, "the other account is learned, and what names none is of the one that is given"
    assert tokens.token().value == gateway.current_token
    assert other.counts.token_requests == 2


def test_a_wrong_secret_gets_nobodys_token(gateway: KisGateway, events: list[RefreshEvent]) -> None:
    gateway.expire()
    tokens = manager_for(gateway)
    assert tokens.token()
    gateway.refuse_calls("EGW00123")

    @refresh_on_expired_token(tokens=tokens)
    def fetch() -> Answer:
        return ask(gateway, authorization="Bearer dead", appsecret="wrong")

    sent = gateway.counts.tokens_issued
    assert fetch() == REFUSED
    assert (gateway.counts.calls, gateway.counts.tokens_issued) == (1, sent)
    assert [event.msg_cd for event in events if event.name == "token_refresh_failed"] == ["EGW00105"]


def test_another_host_gets_nobodys_token(gateway: KisGateway, other: KisGateway) -> None:
    tokens = manager_for(gateway)
    sent: list[Any] = []

    @refresh_on_expired_token(tokens=tokens)
    def fetch() -> None:
        headers = {"appkey": gateway.credentials.app_key}
        response = requests.get(other.url + NOBODYS, headers=headers, timeout=9)
        sent.append(response.request.headers.get("authorization"))

    fetch()
    assert sent == [None]
    assert other.counts.token_requests == 0


def test_a_request_that_nobody_knows_is_told_of_once(
    gateway: KisGateway, events: list[RefreshEvent], caplog: pytest.LogCaptureFixture
) -> None:
    url, headers = gateway.url + "/uapi/told-of-once", {"authorization": "Bearer dead"}
    fetch = refresh_on_expired_token(lambda: requests.get(url, headers=headers, timeout=9).json()["msg_cd"])
    gateway.refuse_calls("EGW00123")
    assert [fetch() for _ in range(3)] == ["EGW00123"] * 3
    assert gateway.counts.calls == 3
    assert [event.name for event in events] == ["call_given_up"] * 3
    (warning,) = [record.getMessage() for record in caplog.records if "account_unknown" in record.getMessage()]
    assert "tokens=" in warning


class Slow:
    """A source of the user's own."""

    def __init__(self, *values: str) -> None:
        self._values = list(values)

    def token(self) -> AccessToken:
        return self._at(0)

    def refresh(self, rejected: AccessToken) -> AccessToken:
        if rejected.value == self._values[0] and len(self._values) > 1:
            self._values.pop(0)
        return self._at(0)

    def _at(self, place: int) -> AccessToken:
        return AccessToken(self._values[place], datetime.now(timezone.utc) + timedelta(hours=12))


def test_a_source_that_tells_no_credentials_serves_what_carries_its_token(
    gateway: KisGateway, other: KisGateway
) -> None:
    dead = str(gateway.current_token)
    gateway.expire()
    source = Slow(dead, issued(gateway).removeprefix("Bearer "))
    sent: list[Any] = []

    @refresh_on_expired_token(tokens=source)
    def fetch() -> Answer:
        slack = requests.get(other.url + NOBODYS, headers={"authorization": "Bearer xoxb-slack"}, timeout=9)
        sent.append(slack.request.headers["authorization"])
        headers = {"authorization": source.token().bearer}
        response = requests.get(gateway.url + PRICE, headers=headers, timeout=9)
        return Answer(response.status_code, response.json()["msg_cd"])

    assert fetch() == GOOD
    assert sent == ["Bearer xoxb-slack"]


# The first argument.


class Broker:
    """A library's own."""

    def __init__(self, gateway: KisGateway) -> None:
        self.url = gateway.url
        self._gateway = gateway
        self.issued = 0
        self.access_token = issued(gateway)

    def issue_access_token(self, force: bool = False) -> None:
        assert force
        self.issued += 1
        self.access_token = issued(self._gateway)

    def fetch(self, *_: Any) -> str:
        headers = {"authorization": self.access_token}
        return str(requests.get(self.url + PRICE, headers=headers, timeout=9).json()["msg_cd"])


def test_a_first_argument_that_issues_tokens_is_asked(other: KisGateway) -> None:
    broker = Broker(other)
    other.expire()
    fetch = refresh_on_expired_token(Broker.fetch)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(fetch, [broker] * 16)) == {"MCA00000"}
    assert broker.issued == 1


def test_the_tokens_of_a_first_argument_count(gateway: KisGateway) -> None:
    class Library:
        def __init__(self) -> None:
            self.tokens = manager_for(gateway)

        @refresh_on_expired_token
        def fetch(self) -> str:
            headers = {"authorization": "Bearer dead", "appkey": gateway.credentials.app_key}
            return str(requests.get(gateway.url + PRICE, headers=headers, timeout=9).json()["msg_cd"])

    _newer = manager_for(gateway)
    library = Library()
    gateway.expire()
    assert library.fetch() == "MCA00000"
    assert library.tokens.token().value == gateway.current_token


def test_the_policy_of_a_first_argument_comes_before_the_sources(gateway: KisGateway) -> None:
    dead = f"Bearer {gateway.current_token}"

    class Library:
        policy = RetryPolicy(max_retries=0)
        fetch = refresh_on_expired_token(tokens=manager_for(gateway))(lambda _: ask(gateway, authorization=dead))

    gateway.expire()
    assert Library().fetch() == REFUSED
    del Library.policy
    assert Library().fetch() == GOOD, "by the source's, which allows a repeat"


# Somebody else's tokens.


@pytest.mark.parametrize("name", ["headers", "access_token", "token", "authorization"])
@pytest.mark.parametrize("slack", ["Bearer xoxb-of-slack", "", None])
def test_a_token_of_somebody_elses_in_the_arguments_stays(name: str, slack: Any, gateway: KisGateway) -> None:
    base = headers_for(gateway)
    theirs: Any = {"x-of": "slack"} if slack is None else {"authorization": slack}
    given = theirs if name == "headers" else slack
    seen: list[Any] = []

    def fetch(**kwargs: Any) -> list[str]:
        codes = [requests.get(gateway.url + PRICE, headers=each, timeout=9).json()["msg_cd"] for each in (base, unset)]
        seen.append(kwargs)
        return codes

    unset = {key: value for key, value in base.items() if key != "authorization"}
    gateway.expire()
    before = json.dumps(given)
    assert refresh_on_expired_token(fetch)(**{name: given}) == ["MCA00000"] * 2
    assert seen == [{name: given}]
    assert json.dumps(given) == before


def test_what_the_code_keeps_is_rebound_where_the_dead_token_stood(gateway: KisGateway) -> None:
    class Library:
        def __init__(self, token: str) -> None:
            self.access_token = token

        @refresh_on_expired_token
        def fetch(self, headers: dict[str, str]) -> Answer:
            return REQUESTS.get(gateway, authorization=self.access_token)

    dead = f"Bearer {gateway.current_token}"
    library, headers = Library(dead), {"Authorization": dead, "x": "y"}
    gateway.expire()
    assert library.fetch(headers) == GOOD
    alive = f"Bearer {gateway.current_token}"
    assert (library.access_token, headers) == (alive, {"Authorization": alive, "x": "y"})


@dataclass(frozen=True)
class Frozen:
    access_token: str


class Raising:
    """As a proxy of a web framework is outside of its context."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("working outside of a context")


def test_a_first_argument_that_cannot_be_read_is_left_alone(gateway: KisGateway) -> None:
    def fetch(_: Any, headers: dict[str, str]) -> str:
        return str(requests.get(gateway.url + PRICE, headers=headers, timeout=9).json()["msg_cd"])

    headers = headers_for(gateway)
    gateway.expire()
    assert both(fetch)(Raising(), headers) == "MCA00000"


def test_bind_gets_the_first_argument_however_it_is_given(gateway: KisGateway) -> None:
    bound: list[Any] = []

    @refresh_on_expired_token(bind=lambda broker, token: bound.append((broker, token.value)))
    def fetch(broker: Any, headers: dict[str, str]) -> str:
        return str(requests.get(gateway.url + PRICE, headers=headers, timeout=9).json()["msg_cd"])

    headers = headers_for(gateway)
    gateway.expire()
    assert fetch(headers=headers, broker="the broker") == "MCA00000"
    assert bound == [("the broker", gateway.current_token)]


def test_bind_gets_the_tokens_of_its_own_account(gateway: KisGateway, other: KisGateway) -> None:
    bound: list[AccessToken] = []

    @refresh_on_expired_token(tokens=manager_for(gateway), bind=bound.append)
    def fetch() -> list[Answer]:
        return [ask(gateway, authorization="Bearer dead"), ask(other, authorization="Bearer dead too")]

    issued(other)
    gateway.expire()
    other.refuse_calls("EGW00123", 1)
    other.expire()
    assert fetch() == [GOOD, GOOD]
    assert [token.value for token in bound] == [gateway.current_token]


# A `.env` file.


def test_a_store_of_a_env_file_serves_the_account_whose_key_stands_there(gateway: KisGateway, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    Path(".env").write_text(f"KIS_APP_KEY=PSanother\nKIS_APP_SECRET=s\nKIS_TOKEN_STORE={folder}\n")
    Path(".env").chmod(0o600)
    gateway.expire()
    assert refresh_on_expired_token(lambda: ask(gateway))() == GOOD
    assert not folder.exists()
    with KisGateway(app_key="PSanother", app_secret="s") as named:
        assert refresh_on_expired_token(lambda: ask(named))() == GOOD
    assert folder.exists()


def test_requests_of_nobody_here_are_left_alone(
    gateway: KisGateway, events: list[RefreshEvent], caplog: pytest.LogCaptureFixture
) -> None:
    install(rate=0)
    caplog.set_level(logging.DEBUG, "kis_retry")
    url = gateway.url.replace("127.0.0.1", "localhost") + "/api/v1/orders"
    assert requests.get(url, headers={"authorization": "Bearer mine"}, timeout=9).status_code == 404
    assert events == []
    assert not [record for record in caplog.records if record.name.startswith("kis_retry")]


def test_threads_that_learn_an_account_together_share_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    fetch = refresh_on_expired_token(ask)
    with KisGateway() as fresh:
        assert together(16, lambda _: fetch(fresh)) == [GOOD] * 16
        assert fresh.counts.token_requests == 1


def test_a_place_that_cannot_be_written_is_told_of_and_harms_nothing(
    gateway: KisGateway, caplog: pytest.LogCaptureFixture
) -> None:
    def bind(token: AccessToken) -> None:
        raise ZeroDivisionError

    @refresh_on_expired_token(bind=bind)
    def fetch(settings: Frozen) -> Answer:
        return ask(gateway, authorization=settings.access_token)

    settings = Frozen(f"Bearer {gateway.current_token}")
    gateway.expire()
    assert fetch(settings) == GOOD
    told = [record.getMessage() for record in caplog.records if "token_not_rebound" in record.getMessage()]
    assert [line.rpartition("error=")[2] for line in told] == ["ZeroDivisionError", "FrozenInstanceError"]


# Paper and real trading.


@pytest.mark.parametrize(
    ("paper", "tr_id", "code"), [(True, "TTTC0012U", "EGW02006"), (False, "VTTC0012U", "EGW02004")]
)
def test_a_transaction_of_the_other_environment_is_told_once_with_what_it_means(
    paper: bool, tr_id: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with KisGateway(paper=paper) as mixed_up:
        issued(mixed_up)
        order = refresh_on_expired_token(lambda: REQUESTS.order(mixed_up, tr_id=tr_id).msg_cd)
        assert [order(), order()] == [code, code]
    (told,) = [message for message in caplog.messages if "wrong_environment" in message]
    assert ("real trading" if paper else "paper key") in told
