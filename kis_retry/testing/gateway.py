"""`KisGateway`, for tests. The judging is in `rules`, the front ends are `http_server` and `hosts`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..credentials import PAPER_URL, REAL_URL, Credentials
from .answers import Cursor, Pages, require
from .rules import COUNTERS, StateMachine

if TYPE_CHECKING:
    from types import TracebackType

    from .faults import Window
    from .http_server import HttpServer

__all__ = ["Counts", "KisGateway", "ReceivedRequest"]


class Counts(dict[str, int]):
    """
    What a gateway has seen so far, by attribute and by key.

    `calls` is everything that is not under `/oauth2/`; of it, `answered` normally ("no such data" is such an answer),
    and `refused` because of the token, key or `tr_id`, or by `refuse_calls`. Of the `token_requests`, `tokens_issued`
    were answered with a token, the same as before included, and `token_requests_refused` refused.
    """

    def __getattr__(self, name: str) -> int:
        if name in self:
            return self[name]
        raise AttributeError(name)


class ReceivedRequest(NamedTuple):
    """
    A request that a gateway received, and what became of it. It holds no key, secret, token or account.

    It came in `at` so many seconds of the gateway's clock. `tr_id` and the `symbol` that it asks for are "" where there
    is none. `outcome` is "answered", KIS's code where it was refused, or its name in `faults_met`.
    """

    at: float
    method: str
    path: str
    tr_id: str
    symbol: str
    outcome: str


class KisGateway(StateMachine):
    """
    A KIS of your own to test a batch with: its tokens, its rules, its answers, and its faults on demand.

    `with KisGateway() as gateway:` is real HTTP on loopback, for whatever speaks it; `with KisGateway().mocked() as
    gateway:` stands in for KIS's own hosts, for code that knows no other (needs the extra `testing`; `requests` only).
    It can be opened once. Every method may be called from any thread while it runs.

    Args:
        expired_status: HTTP status with which a call is refused for its token (observed: mostly 500, sometimes 200).
        latency: seconds that each answer is delayed.
        host: the address to listen on. Anyone who reaches it can use the gateway: leave it on loopback but in a
            network of its own, of containers say, where "0.0.0.0" makes it reachable.
        port: the port to listen on; 0 takes a free one.
        app_key: the app key that it accepts; a random one where it is None.
        app_secret: the app secret that it accepts; a random one where it is None.
        paper: be the paper-trading host, which takes no `tr_id` of real trading; without it, be the real one.
        lifetime: seconds a token lives (KIS: 24 hours).
        same_token_for: seconds in which another issue hands the same token out again (KIS: 6 hours).
        issue_interval: seconds between two issues (observed: one minute).
        rate_limit: API calls a second (KIS: 18, on paper 1, new customers 3); None for no limit. See `limit_calls`.
        rate_window: "sliding" for any second, "fixed" for the seconds of the clock.
        seed: what faults with a `share` start their dice from; None for another course each time.
        clock: seconds since the epoch; `time.time`, looked up at each call, where it is None.
    """

    def __init__(
        self,
        *,
        expired_status: int = 500,
        latency: float = 0.0,
        host: str = "127.0.0.1",
        port: int = 0,
        app_key: str | None = None,
        app_secret: str | None = None,
        paper: bool = False,
        lifetime: float = 86_400,
        same_token_for: float = 21_600,
        issue_interval: float = 60,
        rate_limit: int | None = None,
        rate_window: Window = "sliding",
        seed: int | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        require(200 <= expired_status <= 599, "expired_status", expired_status, "an HTTP status, 500 or 200 as KIS")
        require(latency >= 0, "latency", latency, "seconds from 0")
        require(rate_limit is None or rate_limit >= 1, "rate_limit", rate_limit, "calls a second from 1, or None")
        _check_keys(app_key=app_key, app_secret=app_secret)
        # Random for each gateway, since token stores go by address and app key, and ports come round again.
        keys = app_key or f"PS{secrets.token_hex(17)}", app_secret or secrets.token_urlsafe(135)
        rules = {"lifetime": lifetime, "same_token_for": same_token_for, "issue_interval": issue_interval}
        faults = {"expired_status": expired_status, "clock": clock, "seed": seed}
        super().__init__("paper" if paper else "real", keys, rules, **faults)
        self.limit_calls(rate_limit, window=rate_window)
        self.latency = latency
        self._host, self._port = host, port
        self._url: str | None = None
        self._server: HttpServer | None = None

    def __enter__(self) -> KisGateway:  # noqa: PYI034  # typing.Self is of 3.11
        from .http_server import HttpServer

        self._claim("")
        self._server = HttpServer(self, self._host, self._port)
        self._url = self._server.url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def mocked(self) -> Iterator[KisGateway]:
        """
        Intercept what `requests` sends to KIS's two hosts, in every thread of this process.

        A token of one host is unknown to the other. Other hosts cannot be reached meanwhile, except loopback.

        Raises:
            ImportError: `responses` is not installed.
        """
        from .hosts import mock_hosts

        self._claim(PAPER_URL if self._environment == "paper" else REAL_URL)
        try:
            with mock_hosts(self):
                yield self
        finally:
            self.close()

    def _claim(self, url: str) -> None:
        with self._lock:
            if self._url is not None:
                raise RuntimeError("a KisGateway can be opened once; make another one")
            self._url = url

    def close(self) -> None:
        """Close every connection; hanging requests get no answer. Closing twice is closing once."""
        self._closed.set()
        self.heal()
        if self._server is not None:
            self._server.close()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the gateway is closed, or for `timeout` seconds; says whether it is closed."""
        return self._closed.wait(timeout)

    @property
    def url(self) -> str:
        """The base URL; the real host's where it is mocked."""
        if not self._url:
            raise RuntimeError("this KisGateway is not open: use it in a with statement")
        return self._url

    @property
    def credentials(self) -> Credentials:
        """Credentials made for this gateway; no other one knows them."""
        is_paper = self._environment == "paper"
        return Credentials(self._app_key, self._app_secret, "12345678-01", paper=is_paper, base_url=self.url)

    @property
    def counts(self) -> Counts:
        """What has been received and answered so far, as a snapshot."""
        with self._lock:
            return Counts(self._counts)

    @property
    def current_token(self) -> str | None:
        """The token that was issued last, dead or alive; None before the first."""
        with self._lock:
            return self._newest

    @property
    def approval_keys(self) -> list[str]:
        """The websocket keys issued so far by `/oauth2/Approval`, in order."""
        with self._lock:
            return list(self._approval_keys)

    @property
    def orders(self) -> list[dict[str, Any]]:
        """The bodies of the orders placed so far, in order."""
        with self._lock:
            return [dict(order) for order in self._orders]

    @property
    def faults_met(self) -> dict[str, int]:
        """
        How many requests met which fault so far, as a snapshot and without those that none has met.

        By KIS's code ("EGW00201") for what was refused on demand, and "over_limit", "dropped", "hung", "garbled",
        "HTTP 503" (by its status) and "outage". A refusal of an expired token is no fault and in `counts` alone.
        """
        with self._lock:
            return dict(self._faults_met)

    @property
    def received(self) -> list[ReceivedRequest]:
        """The last 100,000 requests of every kind, in order. What they carried is not kept."""
        with self._lock:
            return [ReceivedRequest(*each) for each in self._received]

    @property
    def arrivals(self) -> list[float]:
        """When each API call came in, in seconds of the gateway's clock, for tests of a pace."""
        return [request.at for request in self.received if not request.path.startswith("/oauth2/")]

    def reset_counts(self) -> None:
        """Start `counts`, `faults_met` and `received` afresh. `expire_at` goes on counting."""
        with self._lock:
            self._counts = dict.fromkeys(COUNTERS, 0)
            self._faults_met.clear()
            self._received.clear()

    def expire(self) -> None:
        """
        Let every token die now, as if its 24 hours had passed.

        A new one may be had at once: the once-a-minute and the six-hour rule start afresh. The stamp that was handed
        out stays as it was, so the caller cannot know.
        """
        with self._lock:
            self._expire()

    def expire_at(self, *calls: int) -> None:
        """
        Do what `expire` does just before the n-th API call is looked at, counted from 1 over the gateway's life.

        A call that has been received already is a `ValueError`.
        """
        with self._lock:
            self._check_call_to_come("expire_at", *calls)
            self._expire_at.update(calls)

    def issue_elsewhere(self) -> dict[str, Any]:
        """
        Issue a token as to another process with the same app key, and give back what it was told.

        The once-a-minute rule does not stop it, but it counts for whoever comes next. Counted nowhere.
        """
        with self._lock:
            return self._issue(self._tokens(self._environment, self._app_key), self._now())

    def accept(self, app_key: str, app_secret: str) -> None:
        """Accept another app key beside its own, with tokens of its own."""
        _check_keys(app_key=app_key, app_secret=app_secret)
        with self._lock:
            self._secrets[app_key] = app_secret

    def list_pages(
        self,
        path: str,
        pages: int = 3,
        rows: int = 10,
        *,
        cursor: Cursor = "100",
        output: str = "output1",
        last: Literal["D", "E", ""] = "D",
        repeat_from: int | None = None,
    ) -> None:
        """
        Answer a `GET` of this path in so many pages of so many rows.

        A request without the header `tr_cont: N` gets the first page, one with it the page of its cursor. The response
        header `tr_cont` is "F" on the first and "M" on each other page that has more behind it. Rows are
        `{"row": "1", "pdno": "000001"}` and so on, counted through all pages.

        `cursor` is "100" for `ctx_area_fk100` and `ctx_area_nk100`, "200" for those with 200, "FK100" and "FK200" for
        them without `ctx_area_`, "KEYB" and "CTS" for one of that name; "none" goes on by `tr_cont: N` alone, with the
        page after the last that this app key was given for this query. `output` is the key of the rows in the body,
        `last` the header of the last page. `repeat_from` this page on each hands out its own cursor again: a loop.
        """
        listed = Pages(pages, rows, cursor=cursor, output=output, last=last, repeat_from=repeat_from)
        with self._lock:
            self._pages["/" + path.lstrip("/")] = listed

    def list_symbol(self, symbol: str, exchange: str) -> None:
        """List a symbol at this exchange ("NAS", "HKS", "KRX" …) and at no other."""
        with self._lock:
            self._listings.list_symbol(symbol, exchange)

    def list_etf(self, symbol: str) -> None:
        """Make a symbol an ETF: to search-info, and to the transaction that asks for the price of an ETF."""
        with self._lock:
            self._listings.list_etf(symbol)

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else self._url or "not open"
        return f"KisGateway({state})"


def _check_keys(**given: str | None) -> None:
    for name, value in given.items():
        if value is not None and not (value and value.isascii() and value.isprintable() and " " not in value):
            raise ValueError(f"{name} is not usable: it takes printable ASCII characters without spaces, or None")
