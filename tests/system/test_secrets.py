"""No key, secret, account or token gets into a log record, an event, a repr, an error or a pickle, whatever happens."""

from __future__ import annotations

import json
import logging
import os
import pickle
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import requests

from answers import GOOD_CODE
from clients import KINDS, Asking, asking
from kis_retry import (
    AccessToken,
    Credentials,
    FileTokenStore,
    KisClient,
    KisRetryError,
    MemoryTokenStore,
    RateLimiter,
    RedisTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
    install,
    on_event,
    protect,
    refresh_on_expired_token,
    uninstall,
)
from kis_retry.cli import main
from kis_retry.testing import KisGateway
from loopback import Loopback
from senders import ORDER, WIRES
from sources import Broker

WRONG_SECRET, REDIS_PASSWORD, PLANTED = "wr0ng-s3cr3t-wr0ng-s3cr3t", "r3d1s-p4ssw0rd", "pl4nt3d-s3cr3t-pl4nt3d"


class Scanner:
    """Keeps all that was said, where it was said, and looks for secrets in it."""

    def __init__(self, gateway: KisGateway) -> None:
        self.gateway = gateway
        self.tokens: set[str] = set()
        self.errors = 0
        self._said: list[tuple[str, str]] = []
        self._frames: list[str] = []

    def show(self, where: str, *values: object) -> None:
        """An object that somebody prints or puts into an f-string."""
        for value in values:
            self._said += [(where, text) for text in (repr(value), f"{value}", repr([value]))]
        self.tokens |= {self.gateway.current_token} - {None}  # type: ignore[arg-type]  # without None

    def record(self, record: logging.LogRecord) -> None:
        """Everything of a log record that any formatter could write down."""
        where = f"{record.name}: {record.msg}"
        self.show(where, record.getMessage(), *vars(record).values())
        if record.exc_info:
            self._said.append((where, "".join(traceback.format_exception(*record.exc_info))))

    @contextmanager
    def failing(self, *kinds: type[Exception], frames: bool = True) -> Iterator[None]:
        """A step that ends in an error, which is kept with all that stands behind it; `frames`: their locals, too."""
        with pytest.raises(kinds) as caught:
            yield
        self.errors += 1
        error, where = caught.value, caught.typename
        told = traceback.TracebackException.from_exception(error, capture_locals=frames)
        test = "test_secrets"  # whose own frames know the secrets
        self._frames += [line for frame in told.stack if test not in frame.filename for line in _locals(frame)]
        if frames:
            self._said.append((f"a pickled {where}", repr(pickle.dumps(error))))
        link: BaseException | None = error
        while link is not None:  # also what a traceback leaves out, since an error tracker may not
            self.show(f"behind {where}", link, link.args, vars(link))
            link = link.__cause__ or link.__context__

    def found(self, *others: str) -> set[tuple[str, str]]:
        """Where a secret, or a good part of one, can be read."""
        given = self.gateway.credentials
        secrets = {given.app_key, given.app_secret, *self.tokens, *others}
        said = {*self._said, *((line, line) for line in self._frames)}
        at_once = "\n".join(text for _, text in said)
        leaked = [(secret, part) for secret in secrets for part in _parts(secret) if part in at_once]
        leaks = {(where, secret) for secret, part in leaked for where, text in said if part in text}
        # A frame may show the arguments of its caller, who gave the account.
        return leaks | {(where, "account") for where, text in self._said if str(given.account) in text}


def _locals(frame: traceback.FrameSummary) -> list[str]:
    return [f"{frame.filename}:{name}={text}" for name, text in (frame.locals or {}).items()]


def _parts(secret: str) -> set[str]:
    """A secret, and pieces of it that are still too long to come up by chance."""
    middle = len(secret) // 2
    return {secret, *(part for part in (secret[-16:], secret[middle : middle + 16]) if len(part) >= 12)}


class BrokenStore(MemoryTokenStore):
    """A store whose faults tell all they know."""

    def load(self, key: str) -> AccessToken | None:
        raise ConnectionError(f"redis://:{REDIS_PASSWORD}@127.0.0.1:6379/0 is away")

    def save(self, key: str, token: AccessToken) -> None:
        raise RuntimeError(f"cannot save {token.value}")


def manager(gateway: KisGateway, **options: Any) -> TokenManager:
    options = {"store": MemoryTokenStore(), "policy": RetryPolicy(issue_cooldown=0, issue_wait=0), **options}
    return TokenManager(gateway.credentials, **options)


def clients(gateway: KisGateway, scanner: Scanner, client: Asking) -> None:
    scanner.show("a client before its first call", client.client, client.tokens)
    assert client.fetch_price("005930")["rt_cd"] == "0"
    gateway.expire()
    assert client.fetch_price("AAPL", "US")["rt_cd"] == "0"
    scanner.show("a client after a renewal", client.client, client.tokens, client.tokens.token(), client.credentials)
    account = {"CANO": gateway.credentials.account, "ORD_QTY": str(scanner.errors)}  # each order is another one
    gateway.drop("calls", 1)
    with scanner.failing(Exception):
        client.post(ORDER, "TTTC0012U", account)
    gateway.refuse_calls("EGW00123", 2)
    assert client.fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
    gateway.fail(404, 1, body=f"<html>{gateway.credentials.app_secret}</html>".encode())
    for _ in range(2):  # the second one is held back
        with scanner.failing(KisRetryError):
            client.post(ORDER, "TTTC0012U", {**account, "PDNO": "005930"})
    gateway.drop("tokens")
    gateway.expire()
    assert client.fetch_domestic_price("005930")["msg_cd"] == "EGW00123"
    with scanner.failing(TokenIssueError):
        client.issue_access_token(force=True)
    gateway.heal()
    gateway.expire()


def token_requests(gateway: KisGateway, scanner: Scanner) -> None:
    given = gateway.credentials
    wrong = Credentials(given.app_key, WRONG_SECRET, given.account, base_url=gateway.url)
    client = KisClient(tokens=TokenManager(wrong, store=MemoryTokenStore()))
    scanner.show("wrong credentials", wrong, client)
    with scanner.failing(TokenIssueError):
        client.fetch_domestic_price("005930")
    with scanner.failing(ValueError):
        Credentials(f"{WRONG_SECRET}\r\nX: 1", WRONG_SECRET)
    with scanner.failing(KisRetryError):
        client.tokens.refresh(AccessToken(WRONG_SECRET, datetime.now(timezone.utc)))
    echo = json.dumps({"appkey": given.app_key, "appsecret": given.app_secret, "acc": given.account})
    odd = json.dumps({"access_token": f"{WRONG_SECRET}\r\nX: 1", "expires_in": 9})
    for status, body in ((502, f"<html>{echo}</html>"), (502, echo), (200, f'{{"error_code": {echo}}}'), (200, odd)):
        gateway.fail(status, where="tokens", body=body.encode())
        with scanner.failing(TokenIssueError):
            manager(gateway).token()
        gateway.heal()
    gateway.drop("tokens", 1)
    assert manager(gateway, policy=RetryPolicy()).token()


def stores(gateway: KisGateway, scanner: Scanner, folder: Path) -> None:
    (folder / "in the way").write_text("")
    away = RedisTokenStore(f"redis://somebody:{REDIS_PASSWORD}@127.0.0.1:1/0")
    for store in (BrokenStore(), FileTokenStore(folder / "in the way"), away):
        broken = manager(gateway, store=store)
        assert broken.token()
        scanner.show("a broken store", store, broken, RateLimiter(gateway.credentials, store=store))
        gateway.expire()
    os.environ["KIS_TOKEN_STORE"] = f"redis+sentinel://h/0?password={REDIS_PASSWORD}"
    for make in (lambda: RedisTokenStore(os.environ["KIS_TOKEN_STORE"]), manager(gateway, store=None).token):
        with scanner.failing(ValueError):
            make()
    os.environ["KIS_TOKEN_STORE"] = "memory"


def every_library(gateway: KisGateway, scanner: Scanner) -> None:
    def careless_bind(token: AccessToken) -> None:
        raise LookupError(f"nowhere to put {token.value}")

    for wire in WIRES:
        fetch = refresh_on_expired_token(wire.get)
        bound = refresh_on_expired_token(bind=careless_bind)(wire.get)
        assert fetch(gateway).msg_cd == GOOD_CODE
        gateway.expire()
        with suppress(LookupError):  # its own
            bound(gateway)
        gateway.refuse_calls("EGW00123", 2)
        assert fetch(gateway).msg_cd == "EGW00123"
        gateway.drop("calls", 1)
        with scanner.failing(*wire.dropped, frames=False):  # the library's own hold the headers, with or without us
            refresh_on_expired_token(wire.order)(gateway, scanner.errors)
        gateway.expire()
        gateway.refuse_tokens("EGW00103", 1)
        assert fetch(gateway).msg_cd == "EGW00123"
        gateway.expire()
        scanner.show("a decorated function", fetch, bound)


def a_protected_library(gateway: KisGateway, scanner: Scanner) -> None:
    broker = protect(Broker(gateway.credentials), policy=RetryPolicy(issue_cooldown=0))
    assert broker.fetch_price("005930")["rt_cd"] == "0"
    gateway.refuse_calls("EGW00123", 2)
    assert broker.fetch_price("005930")["msg_cd"] == "EGW00123"
    scanner.show("a protected object", broker)


def test_no_secret_is_ever_said(
    caplog: pytest.LogCaptureFixture, capfd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    caplog.set_level(logging.DEBUG)
    seen: list[RefreshEvent] = []
    with ExitStack() as stack:
        gateway = stack.enter_context(KisGateway(issue_interval=0))
        scanner = Scanner(gateway)

        def careless_hook(event: RefreshEvent) -> None:
            seen.append(event)
            scanner.show("an event", event)
            raise LookupError(f"a hook that knows {gateway.current_token}")

        stack.callback(on_event(careless_hook))
        for kind in KINDS:
            client = asking(kind, gateway.credentials, issue_cooldown=0, issue_wait=0)
            stack.callback(client.shut)
            clients(gateway, scanner, client)
        token_requests(gateway, scanner)
        stores(gateway, scanner, tmp_path)
        every_library(gateway, scanner)
        a_protected_library(gateway, scanner)

        for record in caplog.records:
            scanner.record(record)
        scanner.show("the gateway", gateway, gateway.counts, *gateway.received)
        assert scanner.found(WRONG_SECRET, REDIS_PASSWORD) == set()
        assert "".join(capfd.readouterr()) == ""

        # Everything above has happened, or there was nothing to find.
        names = {"token_expired", "token_refreshed", "token_refresh_failed", "token_issue_waiting", "call_given_up"}
        assert names | {"call_retried", "call_recovered"} <= {event.name for event in seen}
        said = {record.getMessage().partition(" ")[0] for record in caplog.records}
        assert {"kis_retry.hook_failed", "kis_retry.store_unavailable"} <= said
        assert {record.name.partition(".")[0] for record in caplog.records} >= {"urllib3", "httpcore", "httpx"}
        assert scanner.errors >= 20
        assert len(scanner.tokens) >= 15

        # And whoever looks, sees.
        with scanner.failing(json.JSONDecodeError):
            json.loads(PLANTED[-16:])
        assert {secret for _, secret in scanner.found(PLANTED)} == {PLANTED}


def test_a_planted_file_of_settings_gets_no_secret_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before: `${…}` was expanded, so a file without a secret of its own sent the user's to a host of its author's."""
    monkeypatch.setenv("KOREA_INVESTMENT_API_KEY", "the-users-app-key")
    monkeypatch.setenv("KOREA_INVESTMENT_API_SECRET", PLANTED)
    monkeypatch.setenv("KIS_RETRY_ISSUE_WAIT", "0")
    monkeypatch.chdir(tmp_path)
    names = "KIS_APP_KEY=${KOREA_INVESTMENT_API_KEY}\nKIS_APP_SECRET=${KOREA_INVESTMENT_API_SECRET}\n"
    with Loopback() as theirs:
        received: list[str] = []
        theirs.reply_to = lambda sent: (received.append(repr(sent)), Loopback.reply_to(theirs, sent))[1]  # type: ignore[method-assign,func-returns-value]  # to see token requests, too
        (tmp_path / ".env").write_text(f"{names}KIS_BASE_URL={theirs.url}\n")
        with suppress(KisRetryError, requests.RequestException):
            TokenManager.from_env().token()
        with suppress(KisRetryError, requests.RequestException):
            KisClient.from_env().fetch_domestic_price("005930")
        for command in ("token", "token --refresh", "config"):
            main(command.split())
        install()
        uninstall()
    assert received, "its author gets what he wrote himself"
    assert PLANTED not in "".join(received) + "".join(capsys.readouterr())
    assert "the-users-app-key" not in "".join(received)
