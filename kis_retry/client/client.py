"""
`KisClient`: the calls of the KIS Open API that a batch makes, each with the decorator on it.

They answer the JSON object as KIS sent it, failures included: look at `rt_cd`. Paths, transactions and queries are
those of the KIS API pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from ..answers import is_token_expired_response
from ..retry.decorators import refresh_on_expired_token
from ..tokens.issuer import SEOUL
from ..tokens.manager import TokenManager
from .endpoints import (
    EXCHANGES,
    PRICE_TRANSACTIONS,
    PRODUCT_TYPES,
    Payload,
    has_symbol,
    is_etf,
    is_unknown,
    lookup,
    offering_days,
    valid_symbol,
)
from .paging import answers_of
from .request import RequestingClient

__all__ = ["KisClient"]


class KisClient(RequestingClient):
    """
    A client for long batches: each of its requests is paced, and repeated by itself where that helps.

    A token that expires on the way is renewed once for everybody, and the refused request repeated once. A request that
    KIS or the network turned away for a moment is repeated until `RetryPolicy.transient_deadline`, an order after
    EGW00201 alone. And all of them wait for a slot of the one pace of their app key (`RateLimiter`).

    Safe to share between threads, to use after `os.fork` and to pickle to spawned workers.

    Args:
        credentials: who asks; without them, those of `tokens` where it has some, else `Credentials.from_env()`.
        tokens: where tokens come from; without it, a `TokenManager` for the credentials.
        policy: bounds; without it, those of `tokens`, else `RetryPolicy.from_env()` when first needed.
        limiter: the pace of its requests; without it, a `RateLimiter` that shares the pace where the token is shared:
            18 calls a second for everybody with the app key, 1 on paper, or what `KIS_RATE_LIMIT` says.
        session: a `requests.Session` with settings of your own (proxies, adapters). Without it, the client's own,
            which is the faster way: it reads the environment's proxies and CA bundles once.
        timeout: seconds to connect and seconds to wait for an answer; always set.

    Raises:
        ConfigurationError: no credentials, or an unusable one.
    """

    @classmethod
    def from_env(cls) -> KisClient:
        """
        Credentials, token store and policy from the environment.

        Raises:
            ConfigurationError: a variable is missing or unusable; the message names it.
        """
        return cls(tokens=TokenManager.from_env())

    def issue_access_token(self, force: bool = False) -> str:
        """
        Give a good token; with `force`, a new one in place of the current one, if KIS issues one.

        There is seldom a reason to call this: calls renew the token themselves. Every issue sends the account holder a
        KakaoTalk notice, and KIS issues one a minute.

        Returns:
            "Bearer …"

        Raises:
            TokenIssueError: none can be had.
        """
        token = self.tokens.token()
        return (self.tokens.refresh(token) if force else token).bearer

    @refresh_on_expired_token
    def get(self, path: str, tr_id: str, params: Mapping[str, str] | None = None) -> Payload:
        """
        Ask any endpoint with `GET`.

        Args:
            path: below the host, e.g. "/uapi/domestic-stock/v1/quotations/inquire-price".
            tr_id: its transaction, e.g. "FHKST01010100" (API page of the endpoint).
            params: the query.

        Raises:
            ValueError: the path or the transaction cannot be one; nothing has been sent.
            ResponseError: the answer is not a JSON object.
            requests.RequestException: no answer.
        """
        return self._request("GET", path, tr_id, params=params)

    def pages(self, path: str, tr_id: str, params: Mapping[str, str] | None = None) -> Iterator[Payload]:
        """
        Ask an endpoint that answers in pages (연속조회) with `GET`, and give one answer after the other.

        Each page is requested when it is asked for, and protected by itself: one that is refused or dropped is
        repeated, and those before it are not. The iterator ends after the last page, and only then.

        Args:
            path: as for `get`.
            tr_id: as for `get`.
            params: the query of the first page; the cursor of the next ones is put in (`CTX_AREA_FK100` and the like).

        Raises:
            PageError: a page could not be had, and the ones before it are not all there is: KIS refused it (its answer
                is `answer`), or the cursor comes round again, or KIS says that more follow and not where.
            ValueError, ResponseError, requests.RequestException: as for `get`.
        """
        yield from answers_of(path, dict(params or {}), partial(self._page, path, tr_id))

    @refresh_on_expired_token
    def post(self, path: str, tr_id: str, json: Mapping[str, Any] | None = None) -> Payload:
        """
        Send to any endpoint with `POST`: orders, for one.

        Refused for its token it is repeated once, and refused for the calls a second (EGW00201) until the deadline:
        both are said before the request reaches the trading system. Nothing else is ever repeated, a time-out
        (EGW00301, EGW00302 or the client's own) least of all: look at your orders.

        Args:
            path: below the host, e.g. "/uapi/domestic-stock/v1/trading/order-cash".
            tr_id: its transaction, e.g. "TTTC0012U" (API page of the endpoint).
            json: the body.

        Raises:
            ValueError: the path or the transaction cannot be one; nothing has been sent.
            ResponseError: the answer is not a JSON object.
            requests.RequestException: no answer.
        """
        return self._request("POST", path, tr_id, body=json if json is not None else {})

    @refresh_on_expired_token
    def fetch_domestic_price(self, symbol: str, symbol_type: str = "Stock") -> Payload:
        """
        Ask for the current price of a domestic stock or ETF (주식현재가 시세).

        Args:
            symbol: six characters, e.g. "005930".
            symbol_type: "Stock" or "ETF".

        Raises:
            ValueError: one of them is not that; nothing has been sent.
        """
        tr_id = lookup("symbol_type", symbol_type, PRICE_TRANSACTIONS)
        query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": valid_symbol(symbol)}
        return self._request("GET", "/uapi/domestic-stock/v1/quotations/inquire-price", tr_id, params=query)

    @refresh_on_expired_token
    def fetch_price_detail_oversea(self, symbol: str, country_code: str = "US") -> Payload:
        """
        Ask for the current price of an overseas stock in detail (해외주식 현재가상세).

        One request an exchange of the country, until one knows the symbol: first where it was found before, then where
        the last symbol was found, then the rest in KIS's order, a US day market never before its night market.

        Args:
            symbol: e.g. "AAPL".
            country_code: "US", "HK", "JP", "CN" or "VN".

        Raises:
            ValueError: the symbol is blank or the country unknown, and nothing has been sent; or no exchange of the
                country knows the symbol.
        """
        exchanges = lookup("country_code", country_code, EXCHANGES)
        symbol = valid_symbol(symbol)
        path = "/uapi/overseas-price/v1/quotations/price-detail"
        for exchange in self._exchanges.places(country_code, symbol, exchanges):
            query = {"AUTH": "", "EXCD": exchange, "SYMB": symbol}
            answer = self._request("GET", path, "HHDFS76200200", params=query)
            if has_symbol(answer):
                self._exchanges.found(country_code, symbol, exchange)
                return answer
            if not is_unknown(answer):
                return answer
        raise ValueError(f"no exchange of {country_code} ({', '.join(exchanges)}) knows the symbol {symbol!r}")

    @refresh_on_expired_token
    def fetch_stock_info(self, symbol: str, country_code: str = "KR") -> Payload:
        """
        Ask for the product information of a stock (상품기본조회).

        One request a product type of the country, until one does not answer `rt_cd` "7" (no such data): first the one
        under which it was found before, then that of the last symbol, then the rest in KIS's order.

        Args:
            symbol: e.g. "005930".
            country_code: "KR", "KRX", "US", "JP", "HK", "CN" or "VN".

        Raises:
            ValueError: the symbol is blank or the country unknown; nothing has been sent.
        """
        product_types = lookup("country_code", country_code, PRODUCT_TYPES)
        symbol = valid_symbol(symbol)
        answer: Payload = {}
        for product_type in self._product_types.places(country_code, symbol, product_types):
            query = {"PDNO": symbol, "PRDT_TYPE_CD": product_type}
            answer = self._request("GET", "/uapi/domestic-stock/v1/quotations/search-info", "CTPF1604R", params=query)
            if answer.get("rt_cd") == "0":
                self._product_types.found(country_code, symbol, product_type)
            if answer.get("rt_cd") != "7":
                break
        return answer

    @refresh_on_expired_token
    def fetch_search_stock_info(self, symbol: str, country_code: str = "KR") -> Payload:
        """
        Ask for the details of a domestic stock (주식기본조회).

        Args:
            symbol: six characters, e.g. "005930".
            country_code: "KR" alone.

        Raises:
            ValueError: the symbol is blank or the country another; nothing has been sent.
        """
        lookup("country_code", country_code, {"KR": ()})
        query = {"PDNO": valid_symbol(symbol), "PRDT_TYPE_CD": "300"}
        return self._request("GET", "/uapi/domestic-stock/v1/quotations/search-stock-info", "CTPF1002R", params=query)

    @refresh_on_expired_token
    def fetch_ipo_schedule(self, from_date: str | None = None, to_date: str | None = None, symbol: str = "") -> Payload:
        """
        Ask for the schedule of public offerings (예탁원정보 공모주청약일정).

        Args:
            from_date: first day as YYYYMMDD, in Seoul; today where it is left out.
            to_date: last day as YYYYMMDD; 30 days from today where it is left out, or from a later `from_date`.
            symbol: one symbol; "" for all.

        Raises:
            ValueError: a date is malformed, or the first is after the last; nothing has been sent.
        """
        first, last = offering_days(from_date, to_date, datetime.now(SEOUL).replace(tzinfo=None))
        query = {"SHT_CD": symbol, "CTS": "", "F_DT": first, "T_DT": last}
        path = "/uapi/domestic-stock/v1/ksdinfo/pub-offer"
        return self._request("GET", path, "HHKDB669108C0", params=query, custtype="P")

    @refresh_on_expired_token
    def fetch_price(self, symbol: str, country_code: str = "KR") -> Payload:
        """
        Ask for the current price of a domestic or US symbol, whatever its type.

        "KR" asks `fetch_stock_info` for the type, then `fetch_domestic_price`; "US" asks `fetch_price_detail_oversea`.

        Args:
            symbol: e.g. "005930" or "AAPL".
            country_code: "KR" or "US".

        Raises:
            ValueError: the symbol is blank or the country another; nothing has been sent.
        """
        if lookup("country_code", country_code, {"KR": "KR", "US": "US"}) == "US":
            return self.fetch_price_detail_oversea(symbol, country_code)
        info = self.fetch_stock_info(symbol, country_code)
        if is_token_expired_response(info, self.policy.expired_codes):
            return info  # it could not be helped, and asking for the price would be refused as well
        return self.fetch_domestic_price(symbol, "ETF" if is_etf(info) else "Stock")

    def __repr__(self) -> str:
        return f"KisClient({self.credentials!r})"
