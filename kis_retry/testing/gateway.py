"""`KisGateway`: what a test holds in its hand. The judging is `machine`, the doors are `server` and `mocked`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ..credentials import Credentials
from .counts import COUNTERS, Counts
from .rules import StateMachine

if TYPE_CHECKING:
    from types import TracebackType

    from .http_server import HttpDoor

__all__ = ["KisGateway"]


class KisGateway(StateMachine):
    """
    A KIS of your own to test a batch with: its tokens, its rules, its answers, and its faults on demand.

    `with KisGateway() as gateway:` is real HTTP on loopback, for whatever speaks it; `with KisGateway().mocked() as
    gateway:` stands in for KIS's own hosts, for code that knows no other (needs the extra `testing`; `requests` only).
    It can be opened once. Every method may be called from any thread while it runs.

    Args:
        expired_status: HTTP status with which a call is refused for its token (observed: mostly 500, sometimes 200).
        latency: seconds each answer takes.
        port: where to listen on 127.0.0.1; 0 takes a free one.
        lifetime: seconds a token lives (KIS: 24 hours).
        same_token_for: seconds in which another issue hands the same token out again (KIS: 6 hours).
        issue_interval: seconds between two issues (observed: one minute).
        rate_limit: API calls a second (KIS: 20, on paper about 2); None for no limit.
        clock: seconds since the epoch; `time.time`, looked up at each call, where it is None.
    """

    def __init__(
        self,
        *,
        expired_status: int = 500,
        latency: float = 0.0,
        port: int = 0,
        lifetime: float = 86_400,
        same_token_for: float = 21_600,
        issue_interval: float = 60,
        rate_limit: int | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        _check_arguments(expired_status, latency, rate_limit)
        rules = {"lifetime": lifetime, "same_token_for": same_token_for, "issue_interval": issue_interval}
        super().__init__(expired_status, rate_limit, clock, rules)
        self.latency = latency
        self._port = port
        self._url: str | None = None
        self._claimed = False
        self._door: HttpDoor | None = None
        self._closed = threading.Event()

    # -- opening and closing

    def __enter__(self) -> KisGateway:  # noqa: PYI034  # typing.Self is of 3.11
        from .http_server import HttpDoor

        self.claim()
        self._door = HttpDoor(self, self._port)
        self._url = self._door.url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def mocked(self) -> AbstractContextManager[KisGateway]:
        """
        Intercept what `requests` sends to KIS's two hosts, in every thread of this process.

        A token of one host is unknown to the other. Other hosts cannot be reached meanwhile, except loopback.

        Raises:
            ImportError: `responses` is not installed.
        """
        from .mock import MockedDoor

        return MockedDoor(self)

    def claim(self, url: str | None = None) -> None:
        """Take the one opening of this gateway; for its doors."""
        with self._lock:
            if self._claimed:
                raise RuntimeError("a KisGateway can be opened once; make another one")
            self._claimed = True
            self._url = url

    def close(self) -> None:
        """Close every connection; hanging requests get no answer. Closing twice is closing once."""
        self._closed.set()
        self.heal()
        if self._door is not None:
            self._door.close()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the gateway is closed, or for `timeout` seconds; says whether it is closed."""
        return self._closed.wait(timeout)

    # -- what a test looks at

    @property
    def url(self) -> str:
        """The base URL; the real host's where it is mocked."""
        if self._url is None:
            raise RuntimeError("this KisGateway is not open: use it in a with statement")
        return self._url

    @property
    def credentials(self) -> Credentials:
        """Credentials made for this gateway; no other one knows them."""
        return Credentials(self._app_key, self._app_secret, "12345678-01", base_url=self.url)

    @property
    def counts(self) -> Counts:
        """What has been received and answered so far: a snapshot."""
        with self._lock:
            return Counts(**self._counts)

    @property
    def current_token(self) -> str | None:
        """The token that was issued last, dead or alive; None before the first."""
        with self._lock:
            return self._newest

    @property
    def orders(self) -> list[dict[str, Any]]:
        """The bodies of the orders placed so far, in order."""
        with self._lock:
            return [dict(order) for order in self._orders]

    def reset_counts(self) -> None:
        """Start `counts` at zero again. `expire_at` goes on counting."""
        with self._lock:
            self._counts = dict.fromkeys(COUNTERS, 0)

    # -- what a test does to it

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
        Do what `expire` does just before the n-th API call is looked at.

        Args:
            calls: counted from 1 over the gateway's life, whatever becomes of each call.

        Raises:
            ValueError: a number below 1, or of a call that has been received already.
        """
        with self._lock:
            seen = self._schedule.seen
            if any(call <= seen for call in calls):
                raise ValueError(f"expire_at takes numbers of calls to come, from {seen + 1}; it got {calls}")
            self._schedule.calls.update(calls)

    def issue_elsewhere(self) -> dict[str, Any]:
        """
        Issue a token as to another process with the same app key, and give back what it was told.

        The once-a-minute rule does not stop it, but it counts for whoever comes next. Counted nowhere.
        """
        with self._lock:
            return self._issue("real", self._now())

    def list_symbol(self, symbol: str, exchange: str) -> None:
        """List a symbol at this exchange ("NAS", "HKS", "KRX" …) and at no other."""
        with self._lock:
            self._catalogue.list_symbol(symbol, exchange)

    def list_etf(self, symbol: str) -> None:
        """Make a symbol an ETF to search-info."""
        with self._lock:
            self._catalogue.list_etf(symbol)

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else self._url or "not open"
        return f"KisGateway({state})"


def _check_arguments(expired_status: int, latency: float, rate_limit: int | None) -> None:
    if not 200 <= expired_status <= 599:
        raise ValueError(f"expired_status={expired_status!r} is not usable: it takes an HTTP status, 500 or 200 as KIS")
    if latency < 0:
        raise ValueError(f"latency={latency!r} is not usable: it takes seconds from 0")
    if rate_limit is not None and rate_limit < 1:
        raise ValueError(f"rate_limit={rate_limit!r} is not usable: it takes calls a second from 1, or None")
