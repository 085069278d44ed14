"""What a test tells a gateway about the world: who is listed where, what comes in pages, how many calls a second."""

from __future__ import annotations

import threading
from typing import Literal

from .limits import CallLimit, LimitPlan, Window
from .listings import Catalogue
from .pages import Cursor, Listing
from .wire import failure

__all__ = ["Arrangement"]


class Arrangement:
    """The listings, pages and limits of `KisGateway`. They stand until they are changed; `heal()` leaves them alone."""

    _catalogue: Catalogue
    _limits: LimitPlan
    _listings: dict[str, Listing]
    _lock: threading.Lock

    def limit_calls(
        self,
        per_second: int | None,
        *,
        window: Window = "sliding",
        path: str = "",
        msg_cd: str = "EGW00201",
        msg1: str | None = None,
        status: int = 500,
    ) -> None:
        """
        Take so many API calls a second, and refuse the others; those are counted in `faults_met` as "over_limit".

        A refused call does not count towards the limit. Limits for several paths hold side by side; a new one for the
        same path takes the place of the old.

        Args:
            per_second: how many (KIS: 18, on paper 1, new customers 3); None for no limit.
            window: "sliding" for any second, "fixed" for the seconds of the gateway's clock. Which of them KIS has is
                not known.
            path: a part of the path of the calls that it is for ("/trading/" for the ledger's); "" for all.
            msg_cd: KIS's code for a refusal: EGW00201, or EGW00215 for the ledger.
            msg1: the message, where it is to be another than KIS's text for the code.
            status: the HTTP status of a refusal (500 and 200 are both observed).

        Raises:
            ValueError: an argument is not usable.
        """
        if per_second is not None and (isinstance(per_second, bool) or per_second < 1):
            raise ValueError(f"per_second={per_second!r} is not usable: it takes calls a second from 1, or None")
        if window not in {"sliding", "fixed"}:
            raise ValueError(f'window={window!r} is not usable: it takes "sliding" or "fixed"')
        limit = None if per_second is None else CallLimit(per_second, window)
        with self._lock:
            self._limits.set(path, limit, status, failure(msg_cd, msg1))

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
        Answer a `GET` of this path in pages.

        A request without the header `tr_cont: N` gets the first page, one with it the page of its cursor. The response
        header `tr_cont` is "F" on the first and "M" on each other page that has more behind it. Rows are
        `{"row": "1", "pdno": "000001"}` and so on, counted through all pages.

        Args:
            path: the path of the call, as it stands in the URL.
            pages: how many.
            rows: how many rows each has.
            cursor: "100" for `ctx_area_fk100` and `ctx_area_nk100`, "200" for those with 200.
            output: the key of the rows in the body.
            last: the header `tr_cont` of the last page.
            repeat_from: this page and those after it hand out their own cursor again and say that more follows, which
                is a loop; None for never.

        Raises:
            ValueError: an argument is not usable.
        """
        if not 1 <= pages <= 999_999:
            raise ValueError(f"pages={pages!r} is not usable: it takes a whole number from 1 to 999,999")
        if rows < 0:
            raise ValueError(f"rows={rows!r} is not usable: it takes a whole number from 0")
        if cursor not in {"100", "200"}:
            raise ValueError(f'cursor={cursor!r} is not usable: it takes "100" or "200"')
        if last not in {"D", "E", ""}:
            raise ValueError(f'last={last!r} is not usable: it takes "D", "E" or ""')
        if repeat_from is not None and not 1 <= repeat_from <= pages:
            raise ValueError(f"repeat_from={repeat_from!r} is not usable: it takes a page from 1 to {pages}, or None")
        listing = Listing(pages=pages, rows=rows, cursor=cursor, output=output, repeat_from=repeat_from, last=last)
        with self._lock:
            self._listings["/" + path.lstrip("/")] = listing

    def list_symbol(self, symbol: str, exchange: str) -> None:
        """List a symbol at this exchange ("NAS", "HKS", "KRX" …) and at no other."""
        with self._lock:
            self._catalogue.list_symbol(symbol, exchange)

    def list_etf(self, symbol: str) -> None:
        """Make a symbol an ETF: to search-info, and to the transaction that asks for the price of an ETF."""
        with self._lock:
            self._catalogue.list_etf(symbol)
