"""No key, secret, account or token gets into a log record, a repr or an error, whatever happens."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests

from answers import PRICE
from kis_retry import (
    AccessToken,
    Credentials,
    FileTokenStore,
    KisClient,
    KisRetryError,
    MemoryTokenStore,
    RedisTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
    on_event,
    protect,
    refresh_on_expired_token,
    unprotect,
)
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
WRONG_SECRET, REDIS_PASSWORD, PLANTED = "wr0ng-s3cr3t-wr0ng-s3cr3t", "r3d1s-p4ssw0rd", "pl4nt3d-s3cr3t-pl4nt3d"

RECORDS = 60
"""Fewer log records than this, and the test no longer goes where it means to go."""


class Scanner:
    """Keeps all that was said, where it was said, and looks for secrets in it."""

    def __init__(self) -> None:
        self._said: list[tuple[str, str]] = []
        self.errors = 0

    def show(self, where: str, *values: object) -> None:
        """An object that somebody prints, formats or puts into an f-string."""
        for value in values:
            self._said += [(where, text) for text in (repr(value), str(value), f"{value}", repr([value]))]

    def record(self, record: logging.LogRecord) -> None:
        """Everything of a log record that any formatter could write down."""
        where = f"{record.name}: {record.msg}"
        self._said.append((where, record.getMessage()))
        for name, value in vars(record).items():
            self.show(f"{where}.{name}", value)
        if record.exc_info:
            self._said.append((where, "".join(traceback.format_exception(*record.exc_info))))

    @contextmanager
    def failing(self, kind: type[Exception]) -> Iterator[None]:
        """A step that ends in an error of this kind, which is kept with all that stands behind it."""
        with pytest.raises(kind) as caught:
            yield
        self.error(caught.value)

    def error(self, error: BaseException) -> None:
        self.errors += 1
        self.show(type(error).__name__, error)
        self._said.append((type(error).__name__, "".join(traceback.format_exception(error))))
        link: BaseException | None = error
        while link is not None:  # also what a traceback leaves out, since an error tracker may not
            self.show(f"behind {type(error).__name__}", link, link.args)
            link = link.__cause__ or link.__context__

    def found(self, secrets: list[str]) -> set[tuple[str, str]]:
        """Where a secret, or a good part of one, can be read."""
        return {
            (where, secret)
            for secret in secrets
            for part in _parts(secret)
            for where, text in self._said
            if part in text
        }


def _parts(secret: str) -> set[str]:
    """A secret, and pieces of it that are still too long to come up by chance."""
    middle = len(secret) // 2
    return {secret, *(part for part in (secret[-16:], secret[middle : middle + 16]) if len(part) >= 12)}


class Broker:
    """Somebody else's library: holds its token itself, and swallows what KIS says."""

    def __init__(self, gateway: KisGateway, tokens: TokenManager) -> None:
        self.access_token = ""
        self._url = gateway.url
        self.issue_access_token: Callable[..., None] = lambda force=False: setattr(
            self, "access_token", tokens.token().bearer
        )

    def fetch_price(self, symbol: str) -> dict[str, Any] | None:
        answer = requests.get(self._url + PRICE, headers={"authorization": self.access_token}, timeout=5).json()
        return answer if answer["rt_cd"] == "0" else None


class BrokenStore(MemoryTokenStore):
    """A store whose faults tell all they know."""

    def load(self, key: str) -> AccessToken | None:
        raise ConnectionError(f"redis://:{REDIS_PASSWORD}@127.0.0.1:6379/0 is away")

    def save(self, key: str, token: AccessToken) -> None:
        raise RuntimeError(f"cannot save {token.value}")


def issued_by(gateway: KisGateway) -> list[str]:
    """Every token that the gateway ever handed out; it has no public way to say."""
    return [value for book in gateway._books.values() for value in book._tokens]


def a_manager(gateway: KisGateway, *, credentials: Credentials | None = None, **options: Any) -> TokenManager:
    """One that shares its token with nobody and does not really wait."""
    options = {"store": MemoryTokenStore(), "policy": RetryPolicy(issue_cooldown=0), **options}
    return TokenManager(credentials or gateway.credentials, sleep=lambda _: None, **options)


def good_calls_and_expiries(gateway: KisGateway, scanner: Scanner) -> None:
    store = MemoryTokenStore()
    client, other = (KisClient(tokens=a_manager(gateway, store=store)) for _ in range(2))
    scanner.show("a client before its first call", client, client.tokens)
    assert client.fetch_price("005930")["rt_cd"] == "0"
    gateway.expire()
    assert client.fetch_price("AAPL", "US")["rt_cd"] == "0"
    assert other.fetch_domestic_price("005930")["rt_cd"] == "0"
    gateway.expire()
    assert other.fetch_domestic_price("005930")["rt_cd"] == "0"
    order = {"CANO": gateway.credentials.account, "PDNO": "005930", "ORD_QTY": "1"}
    assert client.post(ORDER, "TTTC0012U", order)["rt_cd"] == "0"
    gateway.expire()
    client.issue_access_token(force=True)
    scanner.show("a client after its calls", client, client.tokens, client.tokens.token(), client.credentials)
    gateway.refuse_calls(times=2)
    assert client.fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
    assert isinstance(client.tokens, TokenManager)
    client.tokens.revoke()


def refused_credentials(gateway: KisGateway, scanner: Scanner) -> None:
    wrong = Credentials(gateway.credentials.app_key, WRONG_SECRET, gateway.credentials.account, base_url=gateway.url)
    client = KisClient(tokens=a_manager(gateway, credentials=wrong))
    scanner.show("wrong credentials", wrong, client)
    with scanner.failing(TokenIssueError):
        client.fetch_domestic_price("005930")
    with scanner.failing(ValueError):
        Credentials(f"{WRONG_SECRET}\r\nX: 1", WRONG_SECRET)
    with scanner.failing(KisRetryError):
        client.tokens.refresh(AccessToken(WRONG_SECRET, datetime.now(timezone.utc)))


def garbled_answers(gateway: KisGateway, scanner: Scanner) -> None:
    credentials = gateway.credentials
    echo = json.dumps({"appkey": credentials.app_key, "appsecret": credentials.app_secret, "acc": credentials.account})
    for body in (f"<html>{echo}</html>", echo[:-1], echo, f'{{"error_code": {echo}}}'):
        gateway.garble("tokens", body=body.encode(), status=502)
        with scanner.failing(TokenIssueError):
            a_manager(gateway).token()
        gateway.heal()
    gateway.garble(
        "tokens", body=json.dumps({"access_token": f"{WRONG_SECRET}\r\nX: 1", "expires_in": 9}).encode(), status=200
    )
    with scanner.failing(TokenIssueError):
        a_manager(gateway).token()
    gateway.heal()
    gateway.expire()
    client = KisClient(tokens=a_manager(gateway))
    gateway.garble("calls", 2, f"<html>{echo}</html>".encode(), status=404)
    with scanner.failing(KisRetryError):
        client.fetch_domestic_price("005930")
    with scanner.failing(KisRetryError):
        client.post(ORDER, "TTTC0012U", {"CANO": credentials.account})


def broken_connections(gateway: KisGateway, scanner: Scanner) -> None:
    gateway.expire()
    client = KisClient(tokens=a_manager(gateway), timeout=5)
    gateway.drop("tokens", 1)
    assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
    gateway.drop("calls", 1)
    with scanner.failing(requests.ConnectionError):
        client.post(ORDER, "TTTC0012U", {"CANO": gateway.credentials.account})
    gateway.expire()
    gateway.drop("tokens")
    assert client.fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
    with scanner.failing(TokenIssueError):
        client.issue_access_token(force=True)
    gateway.heal()


def once_a_minute(gateway: KisGateway, scanner: Scanner) -> None:
    gateway.expire()
    gateway.issue_elsewhere()
    with scanner.failing(TokenIssueError):
        a_manager(gateway).token()


def a_failing_early_renewal(gateway: KisGateway, scanner: Scanner) -> None:
    gateway.expire()
    value = gateway.issue_elsewhere()["access_token"]
    dying = AccessToken(value, datetime.now(timezone.utc) + timedelta(seconds=300))
    store = MemoryTokenStore()
    store.save(key_of(gateway.credentials), dying)
    manager = a_manager(gateway, store=store)
    gateway.refuse_tokens("EGW00103")
    assert [manager.token(), manager.token()] == [dying, dying]
    assert gateway.counts.token_requests_refused > 0
    scanner.show("a manager that could not renew early", manager, store)
    gateway.heal()


def broken_stores(gateway: KisGateway, scanner: Scanner, folder: Path) -> None:
    gateway.expire()
    client = KisClient(tokens=a_manager(gateway, store=BrokenStore()))
    assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
    (folder / "in the way").write_text("")
    gateway.expire()
    blocked = a_manager(gateway, store=FileTokenStore(folder / "in the way"))
    assert blocked.token()
    away = RedisTokenStore(f"redis://somebody:{REDIS_PASSWORD}@127.0.0.1:1/0")
    gateway.expire()
    manager = a_manager(gateway, store=away)
    assert manager.token()
    scanner.show("stores", away, blocked.store, MemoryTokenStore(), manager)
    with scanner.failing(ValueError):
        RedisTokenStore(f"redis://somebody:{REDIS_PASSWORD}@127.0.0.1:port/0")


def decorated_functions(gateway: KisGateway, scanner: Scanner) -> None:
    tokens, account = a_manager(gateway), str(gateway.credentials.account)

    @refresh_on_expired_token(tokens=tokens)
    def fetch(headers: dict[str, str], *, account: str) -> requests.Response:
        answer = requests.get(gateway.url + PRICE, headers=headers, timeout=5)
        answer.raise_for_status()
        return answer

    @refresh_on_expired_token(tokens=tokens)
    async def fetch_later(access_token: str) -> Any:
        return await asyncio.to_thread(fetch_now, access_token)

    def fetch_now(access_token: str) -> Any:
        return requests.get(gateway.url + PRICE, headers={"authorization": access_token}, timeout=5).json()

    def careless_bind(token: AccessToken) -> None:
        raise LookupError(f"nowhere to put {token.value}")

    @refresh_on_expired_token(tokens=tokens, bind=careless_bind)
    def fetch_bound() -> Any:
        return requests.get(gateway.url + PRICE, timeout=5).json()

    gateway.expire()
    headers = tokens.headers("FHKST01010100")
    gateway.expire()
    assert fetch(headers, account=account).ok
    gateway.refuse_calls()
    with scanner.failing(requests.HTTPError):
        fetch(headers, account=account)
    assert asyncio.run(fetch_later(headers["authorization"]))["rt_cd"] == "1"
    gateway.heal()
    assert fetch_bound()["rt_cd"] == "1"
    scanner.show("what a decorated function shows", fetch, fetch_later)


def a_protected_library(gateway: KisGateway, scanner: Scanner) -> None:
    tokens = a_manager(gateway)
    gateway.expire()
    broker = protect(Broker(gateway, tokens), tokens=tokens)
    broker.issue_access_token()
    gateway.expire()
    assert broker.fetch_price("005930") is not None
    gateway.refuse_calls(times=2)
    assert broker.fetch_price("005930") is None
    unprotect(broker)


def test_no_secret_is_ever_said(caplog: pytest.LogCaptureFixture, capfd: Any, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    scanner = Scanner()
    seen: list[RefreshEvent] = []

    def careless_hook(event: RefreshEvent) -> None:
        seen.append(event)
        raise LookupError(f"a hook that knows {gateway.current_token}")

    with ExitStack() as stack:
        gateway = stack.enter_context(KisGateway())
        stack.callback(on_event(careless_hook))
        good_calls_and_expiries(gateway, scanner)
        refused_credentials(gateway, scanner)
        garbled_answers(gateway, scanner)
        broken_connections(gateway, scanner)
        once_a_minute(gateway, scanner)
        a_failing_early_renewal(gateway, scanner)
        broken_stores(gateway, scanner, tmp_path)
        decorated_functions(gateway, scanner)
        a_protected_library(gateway, scanner)

    for record in caplog.records:
        scanner.record(record)
    scanner.show("an event", *seen)
    scanner.show("the gateway", gateway, gateway.counts)
    tokens = issued_by(gateway)
    secrets = [gateway.credentials.app_key, gateway.credentials.app_secret, str(gateway.credentials.account), *tokens]
    assert scanner.found([*secrets, WRONG_SECRET, REDIS_PASSWORD]) == set()
    assert "".join(capfd.readouterr()) == ""

    # Everything above has happened, or there was nothing to find.
    assert {event.name for event in seen} == {
        "token_expired",
        "token_refreshed",
        "token_adopted",
        "token_refresh_failed",
        "token_issue_waiting",
        "call_recovered",
        "call_given_up",
    }
    said = {(record.levelname, record.getMessage().partition(" ")[0]) for record in caplog.records}
    assert {("WARNING", "kis_retry.hook_failed"), ("WARNING", "kis_retry.store_unavailable")} <= said
    assert {("ERROR", "kis_retry.token_refresh_failed"), ("WARNING", "kis_retry.token_refresh_failed")} <= said
    assert any(record.name.startswith("urllib3") for record in caplog.records)
    assert len(caplog.records) > RECORDS
    assert scanner.errors >= 12
    assert len(tokens) >= 10

    # And whoever looks, sees.
    logging.getLogger("kis_retry").debug("a header: %s", PLANTED, extra={"kis_headers": {"authorization": tokens[0]}})
    scanner.record(caplog.records[-1])
    assert {secret for _, secret in scanner.found([PLANTED, tokens[0]])} == {PLANTED, tokens[0]}
    for plant in (PLANTED, PLANTED[-16:]):
        careless = Scanner()
        try:
            try:
                raise ValueError(plant)
            except ValueError:
                raise KisRetryError("no") from None
        except KisRetryError as error:
            careless.error(error)
        assert careless.found([PLANTED])
