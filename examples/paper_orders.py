"""
Prices of real trading and orders on paper: two app keys in one program, each with its host, token and pace.

    pip install .
    export KIS_APP_KEY=… KIS_APP_SECRET=…
    export PAPER_APP_KEY=… PAPER_APP_SECRET=… PAPER_ACCOUNT_NO=12345678-01 PAPER_PAPER=true
    python paper_orders.py

The names of the second pair begin with a prefix of your own, here `PAPER_`. On paper KIS calls its transactions of
trading by other names (`VTTC0012U` for `TTTC0012U`): the client sends those, you write the real ones.
"""

from __future__ import annotations

import sys

from kis_retry import ConfigurationError, KisClient

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
BUY = "TTTC0012U"


def buy_below(quotes: KisClient, orders: KisClient, symbol: str, limit: int) -> str:
    """Buy one share on paper at the real price, if that is below `limit`; give what KIS says."""
    price = quotes.fetch_domestic_price(symbol)
    if price["rt_cd"] != "0":
        return str(price["msg1"])
    now = price["output"]["stck_prpr"]
    if int(now) >= limit:
        return f"{symbol} is at {now}, nothing to do"
    cano, _, product = (orders.credentials.account or "").partition("-")
    order = {
        "CANO": cano,
        "ACNT_PRDT_CD": product,
        "PDNO": symbol,
        "ORD_DVSN": "00",  # at the price that is given
        "ORD_QTY": "1",
        "ORD_UNPR": now,
    }
    return str(orders.post(ORDER, BUY, order)["msg1"])


def main() -> int:
    try:
        quotes, orders = KisClient.from_env(), KisClient.from_env(prefix="PAPER_")
    except ConfigurationError as error:
        print(f"Two app keys are needed: {error}", file=sys.stderr)
        return 2
    with quotes, orders:
        if not orders.credentials.paper or not orders.credentials.account:
            print("PAPER_PAPER=true and PAPER_ACCOUNT_NO are needed, or the order would be a real one", file=sys.stderr)
            return 2
        print(buy_below(quotes, orders, "005930", limit=1_000_000))
    return 0


if __name__ == "__main__":
    sys.exit(main())
