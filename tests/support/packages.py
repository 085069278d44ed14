"""
The packages that people use, put to work as their own pages say: made, one read, one order. They know nothing of us.

As a program it makes a batch with one of them and prints what came of it: `python packages.py NAME URL KEY SECRET`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.error import URLError

PINS = dict(pin.split("==") for pin in os.environ.get("KIS_RETRY_REAL", "").split())
"""The version of each package that is installed here."""

THREADS = 16
CALLS = 300

_FIRST, *_SYMBOLS = [f"{number:06d}" for number in range(CALLS + 1)]  # a package may keep answers: each once
FAR = "AMS"  # how symbols begin that the gateway has at AMS, the third exchange of the US that is asked


class Keys(NamedTuple):
    """What somebody has from KIS."""

    app_key: str
    app_secret: str
    number: str = "12345678"
    product: str = "01"

    @property
    def account(self) -> str:
        """The account as most packages take it."""
        return f"{self.number}-{self.product}"


@dataclass(frozen=True)
class Package:
    """
    A package, and how it is put to work.

    Attributes:
        make: what its own pages begin with; its own pace is taken off, which would make the batch a long one.
        read: one call for a symbol; a coroutine where the package is asynchronous.
        is_good: whether what it gives is an answer.
        order: buy one share, if it can; says whether that was accepted.
        target: what `protect` is given.
        calls: requests that a read takes, about.
    """

    make: Callable[[Keys], Any]
    read: Callable[[Any, str], Any]
    is_good: Callable[[Any], bool] = lambda answer: answer is not None
    order: Callable[[Any], bool] | None = None
    target: Callable[[Any], Any] = lambda made: made
    calls: float = 1


def _is_success(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("rt_cd") == "0"


def _korea_investment_stock(keys: Keys) -> Any:
    from korea_investment_stock import KoreaInvestment

    return KoreaInvestment(keys.app_key, keys.app_secret, keys.account)


def _price_at_home_or_abroad(broker: Any, symbol: str) -> Any:
    if int(symbol) % 2:
        return broker.fetch_domestic_price(symbol)
    return broker.fetch_price_detail_oversea(f"{FAR}{symbol}", "US")


def _mojito(keys: Keys) -> Any:
    from mojito import KoreaInvestment

    return KoreaInvestment(keys.app_key, keys.app_secret, keys.account)


def _official_samples(keys: Keys) -> Any:
    place = Path(__file__).parents[2] / "examples" / "official_sample.py"
    spec = importlib.util.spec_from_file_location("kis_auth", place)
    module: Any = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]  # the file is there
    sys.modules["kis_auth"] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    module._cfg.update(my_app=keys.app_key, my_sec=keys.app_secret, prod="https://openapi.koreainvestment.com:9443")
    module.auth()
    return module


def _pykis(keys: Keys) -> Any:
    import pykis

    account = {"account_code": keys.number, "product_code": keys.product}
    return pykis.Api({"appkey": keys.app_key, "appsecret": keys.app_secret}, account_info=account)


def _kis_wrapper(keys: Keys) -> Any:
    from kis import KIS

    return KIS(keys.app_key, keys.app_secret, keys.account, env="prod")


def _kis_wrapper_async(keys: Keys) -> Any:
    from kis import AsyncKIS, auth

    auth._async_client = None  # of an event loop that is closed
    return lambda: AsyncKIS(keys.app_key, keys.app_secret, keys.account, env="prod")


async def _kis_wrapper_async_price(client: Any, symbol: str) -> Any:
    query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": symbol}
    return await client.get("/uapi/domestic-stock/v1/quotations/inquire-price", query, "FHKST01010100")


def _refused(*_: object, **__: object) -> Any:
    raise URLError("not in a test")


def _kis_agent(keys: Keys) -> Any:
    urllib.request.urlopen = _refused  # it gets lists of all symbols when it starts, and goes on without
    os.environ.setdefault("KIS_TOKEN_PATH", str(Path.home() / "kis-agent.json"))
    from kis_agent import Agent

    agent = Agent(keys.app_key, keys.app_secret, keys.number, keys.product)
    agent.client.enable_rate_limiter = False
    agent.client.min_interval = 0
    return agent


def _finestock(keys: Keys) -> Any:
    import finestock
    from loguru import logger

    logger.remove()
    api = finestock.create_api(finestock.APIProvider.KIS)
    api.set_oauth_info(keys.app_key, keys.app_secret)
    api.set_account_info(keys.number, keys.product)
    api.oauth()
    api._MIN_REQUEST_INTERVAL = 0
    return api


def _python_kis(keys: Keys) -> Any:
    from pykis import PyKis
    from pykis.utils.rate_limit import RateLimiter

    given = {"id": "somebody", "account": keys.account, "appkey": keys.app_key, "secretkey": keys.app_secret}
    kis = PyKis(**given, use_websocket=False)
    kis._rate_limiters = {domain: RateLimiter(10**6, 1) for domain in ("real", "virtual")}
    return kis


def _python_kis_price(kis: Any, symbol: str) -> Any:
    query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": symbol}
    return kis.fetch("/uapi/domestic-stock/v1/quotations/inquire-price", api="FHKST01010100", params=query)


def _python_kis_order(kis: Any) -> bool:
    orders = import_module("pykis.api.account.order")
    return bool(orders.domestic_order(kis, kis.primary, "005930", "buy", price=70_000, qty=1).number)


def _kis_trader(keys: Keys) -> Any:
    from kis_trader import KISClient

    given = {"app_key": keys.app_key, "app_secret": keys.app_secret, "account": keys.account}
    return KISClient(**given, environment="real", throttle=False)


def _kispilot(keys: Keys) -> Any:
    """It reads its keys once, when it is imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "kispilot"]:
        del sys.modules[name]
    os.environ.update(REAL_APPKEY=keys.app_key, REAL_APP_SECRET=keys.app_secret, CANO=keys.number)
    os.environ.update(ACNT_PRDT_CD=keys.product, XDG_DATA_HOME=os.environ["HOME"])
    os.environ.update(PYTHON_KEYRING_BACKEND="keyring.backends.null.Keyring")
    from kispilot.api.oauth.kis_token import get_access_token
    from kispilot.api.order import order_cash
    from kispilot.api.price import price_inquire_price

    get_access_token()
    return SimpleNamespace(price=price_inquire_price, order=order_cash)


PACKAGES = {
    "korea-investment-stock": Package(_korea_investment_stock, _price_at_home_or_abroad, _is_success, calls=2),
    "mojito2": Package(
        _mojito,
        lambda broker, symbol: broker.fetch_price(symbol),
        _is_success,
        lambda broker: _is_success(broker.create_market_buy_order("005930", 1)),
    ),
    "official samples": Package(_official_samples, lambda samples, symbol: samples.inquire_price(symbol), bool),
    "pykis": Package(
        _pykis,
        lambda api, symbol: api.get_kr_current_price(symbol),
        lambda price: price > 0,
        lambda api: "ODNO" in api.buy_kr_stock("005930", 1, 0),
    ),
    "kis-wrapper": Package(
        _kis_wrapper,
        lambda client, symbol: import_module("kis.domestic").price(client, symbol),
        lambda answer: "stck_prpr" in answer,
        lambda client: "ODNO" in import_module("kis.domestic").buy(client, "005930", 1),
    ),
    "kis-wrapper, async": Package(
        _kis_wrapper_async,
        _kis_wrapper_async_price,
        lambda answer: "stck_prpr" in answer,
        target=lambda _: import_module("kis").AsyncKIS,
    ),
    "kis-agent": Package(
        _kis_agent,
        lambda agent, symbol: agent.get_stock_price(symbol),
        _is_success,
        lambda agent: _is_success(agent.account_api.order_cash("005930", 1, 0, "BUY", "01")),
    ),
    "finestock": Package(
        _finestock,
        lambda api, symbol: api.get_price(symbol),
        order=lambda api: api.do_order("005930", import_module("finestock").ORDER_FLAG.BUY, 0, 1).order is not None,
    ),
    "python-kis": Package(
        _python_kis,
        _python_kis_price,
        lambda answer: answer.rt_cd == "0",
        _python_kis_order,
    ),
    "kis-trader": Package(
        _kis_trader,
        lambda client, symbol: client.domestic.stock(symbol).quote(),
        lambda quote: quote.current_price > 0,
        lambda client: bool(client.domestic.stock("005930").buy(quantity=1)),
        lambda client: client.transport,
    ),
    "kispilot": Package(
        _kispilot,
        lambda made, symbol: made.price.inquire_price(symbol),
        lambda body: body.rt_cd == "0",
        lambda made: made.order.buy_cash("005930", "1", "01", "0").rt_cd == "0",
        lambda made: made.price,
    ),
}


def lost_alone(page: str) -> dict[str, range]:
    """Calls that each package loses alone, by the table of docs/*/libraries.md; protected it loses none."""
    rows = re.findall(r"^\| ([^|]+) \| (\d+)(?:–(\d+))? \| 0 \| 1 \| ≤ 16 \|$", page, re.MULTILINE)
    return {name: range(int(least), int(most or least) + 1) for name, least, most in rows}


HERE = [name for name in PACKAGES if name.partition(",")[0].replace(" ", "-") in PINS]


def batch(name: str, made: Any) -> dict[str, int]:
    """Make 300 calls on 16 threads, or in 16 tasks at a time; what was lost, by what was had in its place."""
    package = PACKAGES[name]
    if asyncio.iscoroutinefunction(package.read):
        outcomes = asyncio.run(_in_tasks(package, made))
    else:
        with ThreadPoolExecutor(THREADS) as pool:
            outcomes = [pool.submit(package.read, made, symbol) for symbol in _SYMBOLS]
    return dict(Counter(filter(None, (_lost(package, outcome) for outcome in outcomes))))


def _lost(package: Package, outcome: Any) -> str:
    """What a call came to in the place of an answer: the name of a type."""
    if outcome.exception() is not None:  # whatever a package makes of a refusal
        return type(outcome.exception()).__name__
    return "" if package.is_good(outcome.result()) else type(outcome.result()).__name__


async def _in_tasks(package: Package, made: Any) -> list[Any]:
    at_once = asyncio.Semaphore(THREADS)

    async def one(client: Any, symbol: str) -> Any:
        async with at_once:
            return await package.read(client, symbol)

    async with made() as client:
        await package.read(client, _FIRST)
        tasks = [asyncio.create_task(one(client, symbol)) for symbol in _SYMBOLS]
        await asyncio.wait(tasks)
        return tasks


def begin(name: str, keys: Keys) -> Any:
    """Put a package to work, up to its first answer."""
    package = PACKAGES[name]
    made = package.make(keys)
    if not asyncio.iscoroutinefunction(package.read):
        package.read(made, _FIRST)
    return made


def main(name: str, url: str, *keys: str) -> None:
    """Make a batch with one package against a gateway in the place of KIS."""
    from kis_retry.testing.hosts import divert

    with divert(url):
        lost = batch(name, begin(name, Keys(*keys)))
    print(f"\n{json.dumps(lost)}", flush=True)
    os._exit(0)  # threads of other people's packages are theirs


if __name__ == "__main__":
    main(*sys.argv[1:])
