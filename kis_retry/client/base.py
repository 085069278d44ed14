"""
What both clients have in common: their arguments, and every call, with its decorators and without its way to KIS.

The calls answer the JSON object as KIS sent it, failures included: look at `rt_cd`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from ..credentials import Credentials
from ..decorators import refresh_on_expired_token, retry_on_transient_error
from ..events import warn
from ..pace.limiter import RateLimiter, is_limiter
from ..policy import RetryPolicy
from ..stores.base import TokenStore
from ..token import AccessToken
from ..tokens.manager import TokenManager
from ..tokens.foreign import as_source, is_source
from ..tokens.source import TokenSource
from . import endpoints
from .endpoints import Answer, Call, Flow
from .session import Timeout, valid_timeout

__all__ = ["ClientBase", "each_request"]

_Client = TypeVar("_Client", bound="ClientBase[Any, Any]")
_Method = TypeVar("_Method", bound=Callable[..., Any])
_Result = TypeVar("_Result")
_Session = TypeVar("_Session")

_MEANINGS = {
    "EGW02004": "the host is that of real trading, and the app key or the tr_id one of paper trading",
    "EGW02006": "the host is that of paper trading, and the app key or the tr_id one of real trading or not on paper",
}


def each_request(method: _Method) -> _Method:
    """Put both decorators on a method: it keeps its token nowhere, since a client takes the current one each time."""
    method.__qualname__ = f"KisClient.{method.__name__.removeprefix('_one_of_')}"  # by which events tell of it
    renewing = refresh_on_expired_token(bind=lambda _client, _token: None)
    protected: _Method = retry_on_transient_error(renewing(method))
    return protected


class ClientBase(Generic[_Result, _Session]):
    """
    Every call of a client; `KisClient` tells its arguments.

    `_Result` is what a call gives: an answer, or a coroutine of one. The decorators find their token source, policy and
    limiter as attributes of the object whose method they are on.
    """

    _is_async = False

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        tokens: TokenSource | None = None,
        policy: RetryPolicy | None = None,
        limiter: RateLimiter | None = None,
        session: _Session | None = None,
        timeout: Timeout = (3.05, 10.0),
    ) -> None:
        send = getattr(session, "request", None)
        sends = callable(send) and inspect.iscoroutinefunction(send) is self._is_async
        takes = "Credentials, as in Credentials(app_key, app_secret) or Credentials.from_env()"
        _check("credentials", credentials, isinstance(credentials, Credentials), takes)
        _check("tokens", tokens, is_source(tokens), "a TokenSource, as in TokenManager(credentials)")
        _check("policy", policy, isinstance(policy, RetryPolicy), "a RetryPolicy")
        _check("limiter", limiter, is_limiter(limiter), "a RateLimiter, as in RateLimiter(credentials)")
        _check("session", session, sends, "an httpx.AsyncClient" if self._is_async else "a requests.Session")
        self.timeout = valid_timeout(timeout)
        own = credentials or getattr(tokens, "credentials", None)
        self.credentials = own if isinstance(own, Credentials) else Credentials.from_env()
        carrier: Any = None if self._is_async else session
        self.tokens: TokenSource = (
            TokenManager(self.credentials, policy=policy, session=carrier) if tokens is None else tokens
        )
        store = getattr(self.tokens, "store", None)
        shared = store if isinstance(store, TokenStore) else None
        self.limiter: RateLimiter = limiter or RateLimiter(self.credentials, store=shared)
        self._given = {"policy": policy, "limiter": limiter}
        self._policy = policy
        self._given_session = session
        self._last_token: AccessToken | None = None
        self._found = endpoints.LastFound()
        self._warned: set[tuple[str, str]] = set()
        self._connect()

    @classmethod
    def from_env(cls: type[_Client], prefix: str = "KIS_") -> _Client:  # noqa: PYI019  # Self is of Python 3.11
        """
        Make a client with credentials, token store, policy and pace from the environment.

        Args:
            prefix: what the names of the variables begin with: another one for another pair of keys.

        Raises:
            ConfigurationError: a variable is missing or unusable; the message names it.
        """
        return cls(tokens=TokenManager.from_env(prefix=prefix), limiter=RateLimiter.from_env(prefix=prefix))

    @property
    def policy(self) -> RetryPolicy:
        """The policy given, or that of `tokens`, or the environment's, read when first needed."""
        if self._policy is None:
            found = getattr(self.tokens, "policy", None)
            self._policy = found if isinstance(found, RetryPolicy) else RetryPolicy.from_env()
        return self._policy

    @each_request
    def get(
        self, path: str, tr_id: str, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> _Result:
        """
        Ask any endpoint with `GET`.

        Args:
            path: below the host, e.g. "/uapi/domestic-stock/v1/quotations/inquire-price".
            tr_id: its transaction, e.g. "FHKST01010100" (API page of the endpoint).
            params: the query.
            headers: further ones, e.g. `{"custtype": "P"}`.

        Raises:
            ValueError: one of them cannot be; nothing has been sent.
            ResponseError: the answer is not a JSON object.
            requests.RequestException: no answer (`AsyncKisClient`: `httpx.HTTPError`).
        """
        return self._run(endpoints.one(endpoints.get(path, tr_id, params, headers)))

    @each_request
    def post(
        self, path: str, tr_id: str, json: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> _Result:
        """
        Send to any endpoint with `POST`: orders, for one.

        It is repeated after a refusal that KIS says before it acts (a token, EGW00201) and where it never left, within
        `RetryPolicy.order_deadline`. Nothing else is ever repeated, a time-out least of all: look at your orders.

        Args:
            path: below the host, e.g. "/uapi/domestic-stock/v1/trading/order-cash".
            tr_id: its transaction, e.g. "TTTC0012U" (API page of the endpoint).
            json: the body.
            headers: further ones, e.g. `{"hashkey": …}`.

        Raises:
            ValueError, ResponseError, requests.RequestException: as for `get`.
        """
        return self._run(endpoints.one(endpoints.post(path, tr_id, json, headers)))

    @each_request
    def fetch_domestic_price(self, symbol: str, symbol_type: str = "Stock") -> _Result:
        """
        Ask for the current price of a domestic stock or ETF (주식현재가 시세).

        Args:
            symbol: six characters, e.g. "005930".
            symbol_type: "Stock" or "ETF".

        Raises:
            ValueError: one of them is not that; nothing has been sent.
        """
        return self._run(endpoints.domestic_price(symbol, symbol_type))

    @each_request
    def fetch_price_detail_oversea(self, symbol: str, country_code: str = "US") -> _Result:
        """
        Ask for the current price of an overseas stock in detail (해외주식 현재가상세).

        One request an exchange of the country, in KIS's order, until one knows the symbol. The one that knew the last
        symbol is asked first, where no other has the same codes.

        Args:
            symbol: e.g. "AAPL".
            country_code: "US", "HK", "JP", "CN" or "VN".

        Raises:
            ValueError: the symbol is blank or the country unknown, and nothing has been sent; or no exchange of the
                country knows the symbol.
        """
        return self._run(endpoints.overseas_price(self._found, symbol, country_code))

    @each_request
    def fetch_stock_info(self, symbol: str, country_code: str = "KR") -> _Result:
        """
        Ask for the product information of a stock (상품기본조회).

        One request a product type of the country, in KIS's order and that of the last symbol first, until one does not
        answer `rt_cd` "7" (no such data).

        Args:
            symbol: e.g. "005930".
            country_code: "KR", "KRX", "US", "JP", "HK", "CN" or "VN".

        Raises:
            ValueError: the symbol is blank or the country unknown; nothing has been sent.
        """
        return self._run(endpoints.stock_info(self._found, symbol, country_code))

    @each_request
    def fetch_search_stock_info(self, symbol: str, country_code: str = "KR") -> _Result:
        """
        Ask for the details of a domestic stock (주식기본조회).

        Args:
            symbol: six characters, e.g. "005930".
            country_code: "KR" alone.

        Raises:
            ValueError: the symbol is blank or the country another; nothing has been sent.
        """
        return self._run(endpoints.search_stock_info(symbol, country_code))

    @each_request
    def fetch_ipo_schedule(self, from_date: str | None = None, to_date: str | None = None, symbol: str = "") -> _Result:
        """
        Ask for the schedule of public offerings (예탁원정보 공모주청약일정).

        Args:
            from_date: first day as YYYYMMDD, in Seoul; today where it is left out.
            to_date: last day as YYYYMMDD; 30 days from today where it is left out, or from a later `from_date`.
            symbol: one symbol; "" for all.

        Raises:
            ValueError: a date is malformed, or the first is after the last; nothing has been sent.
        """
        return self._run(endpoints.ipo_schedule(from_date, to_date, symbol))

    @each_request
    def fetch_price(self, symbol: str, country_code: str = "KR") -> _Result:
        """
        Ask for the current price of a domestic or US symbol, whatever its type.

        "KR" asks `fetch_stock_info` for the type, then `fetch_domestic_price`; "US" asks `fetch_price_detail_oversea`.

        Args:
            symbol: e.g. "005930" or "AAPL".
            country_code: "KR" or "US".

        Raises:
            ValueError: the symbol is blank or the country another; nothing has been sent.
        """
        return self._run(endpoints.price(self._found, symbol, country_code))

    def _run(self, flow: Flow) -> _Result:
        """Drive a flow: send what it yields, and hand it KIS's answers."""
        raise NotImplementedError

    def _connect(self) -> None:
        raise NotImplementedError

    def _token_at_hand(self) -> AccessToken | None:
        """
        Give a token that a request may leave with at once, or None where it has to be waited for.

        The last one will do, be it dead: where the request leaves, that is replaced, and where no other can be had, KIS
        says so itself.
        """
        token = as_source(self.tokens).peek()
        return self._last_token if token is None and self.policy.enabled else token

    def _patience(self, call: Call) -> float | None:
        """Give the seconds that a request may wait for the first token; None: as long as a refresh takes."""
        return (self.policy.order_deadline or 5.0) if call.is_order else None

    def _judge(self, call: Call, outcome: Answer | BaseException) -> Answer:
        """Raise what went wrong, with no frame below this one, or give the answer."""
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            code = outcome.payload.get("msg_cd")
            if isinstance(code, str) and code in _MEANINGS and (code, call.tr_id) not in self._warned:
                self._warned.add((code, call.tr_id))
                environment = "paper" if self.credentials.paper else "real"
                warn("wrong_environment", msg_cd=code, tr_id=call.tr_id, sent_as=environment, meaning=_MEANINGS[code])
            return outcome
        finally:
            del outcome  # an exception must not be kept by its own traceback

    def __getstate__(self) -> dict[str, Any]:
        return {"credentials": self.credentials, "tokens": self.tokens, "timeout": self.timeout, **self._given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # remade as new: sessions do not travel

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.credentials!r})"


def _check(name: str, value: object, good: bool, takes: str) -> None:
    if value is not None and (isinstance(value, type) or not good):
        found = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{name}= takes {takes}, not {found}")
