"""
The blocks of docs/en/libraries.md, run as they stand there against the real package, and the table that they make.

What is lost alone is measured with the same block, `protect` doing nothing.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal
from urllib.error import URLError

import pytest

import kis_retry
from expiries import CALLS, Measured, measured, tally
from kis_retry import unprotect
from kis_retry.testing import KisGateway
from libraries_page import blocks_of, rows

pytestmark = [pytest.mark.filterwarnings("ignore")]  # of packages that are not ours to mend

REAL: dict[str, str] = dict(each.split("==") for each in os.environ.get("KIS_RETRY_REAL", "").split())

Namespace = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """
    A package, and how its block is put to work.

    Attributes:
        fetch: one call with what the block has made.
        is_good: whether the answer to it is one.
        section: of the page.
        block: which of the section.
        before: what has to be there before the block runs.
        after: take away the package's own pace, which would make the batch a long one.
    """

    fetch: Callable[[Namespace, str], Any]
    is_good: Callable[[Any], bool]
    section: str
    block: int = 0
    before: Callable[[KisGateway, pytest.MonkeyPatch], None] = lambda *_: None
    after: Callable[[Namespace], None] = lambda _: None


def _korea_investment_stock(space: Namespace, symbol: str) -> Any:
    if int(symbol) % 2:
        return space["broker"].fetch_domestic_price(symbol)
    return space["broker"].fetch_price_detail_oversea(f"S{symbol}", "US")


def _agents_pace(space: Namespace) -> None:
    space["agent"].client.enable_rate_limiter = False
    space["agent"].client.min_interval = 0


def _finestocks_pace(space: Namespace) -> None:
    from loguru import logger

    space["api"]._MIN_REQUEST_INTERVAL = 0
    logger.remove()  # it writes to the standard error of the test that imported it first


def _python_kis_pace(space: Namespace) -> None:
    from pykis.utils.rate_limit import RateLimiter

    space["kis"]._rate_limiters = {domain: RateLimiter(10**6, 1) for domain in ("real", "virtual")}


def _kis_traders_pace(space: Namespace) -> None:
    space["client"].transport._rate_limiter = None


def _python_kis(space: Namespace, symbol: str) -> Any:
    query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": symbol}
    path = "/uapi/domestic-stock/v1/quotations/inquire-price"
    return space["kis"].fetch(path, api="FHKST01010100", params=query)


def _set_up_kispilot(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads its keys once, when it is imported, and its websocket key at every start."""
    for name in [name for name in sys.modules if name.split(".")[0] == "kispilot"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("REAL_APPKEY", gateway.credentials.app_key)
    monkeypatch.setenv("REAL_APP_SECRET", gateway.credentials.app_secret)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.setenv("XDG_DATA_HOME", os.environ["HOME"])
    from kispilot.api.oauth import kis_token

    monkeypatch.setattr(kis_token, "_issue_websocket_key", lambda _mode: "")


def _let_nothing_be_downloaded(gateway: KisGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets lists of all symbols when it starts, and goes on without."""

    def refused(*_: object, **__: object) -> Any:
        raise URLError("not in a test")

    monkeypatch.setattr("urllib.request.urlopen", refused)


def _forget_client(*_: object) -> None:
    from kis import auth

    auth._async_client = None  # of an event loop that is closed
    gc.collect()  # it cannot be closed any more, and warns here, where warnings are not ours


def _is_success(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("rt_cd") == "0"


RECIPES: dict[str, list[Recipe]] = {
    "korea-investment-stock": [Recipe(_korea_investment_stock, _is_success, "korea-investment-stock")],
    "mojito2": [Recipe(lambda space, symbol: space["broker"].fetch_price(symbol), _is_success, "mojito2")],
    "pykis": [
        Recipe(lambda space, symbol: space["api"].get_kr_current_price(symbol), lambda price: price > 0, "pykis"),
    ],
    "kis-wrapper": [
        Recipe(
            lambda space, symbol: space["kis"].domestic.price(space["client"], symbol),
            lambda answer: "stck_prpr" in answer,
            "kis-wrapper",
        ),
    ],
    "kis-agent": [
        Recipe(
            lambda space, symbol: space["agent"].get_stock_price(symbol),
            _is_success,
            "kis-agent",
            before=_let_nothing_be_downloaded,
            after=_agents_pace,
        ),
    ],
    "finestock": [
        Recipe(
            lambda space, symbol: space["api"].get_price(symbol),
            lambda price: price is not None,
            "finestock",
            after=_finestocks_pace,
        ),
    ],
    "python-kis": [Recipe(_python_kis, lambda answer: answer.rt_cd == "0", "python-kis", after=_python_kis_pace)],
    "kis-trader": [
        Recipe(
            lambda space, symbol: space["client"].domestic.stock(symbol).quote(),
            lambda quote: quote.current_price > 0,
            "kis-trader",
            after=_kis_traders_pace,
        ),
    ],
    "kispilot": [
        Recipe(
            lambda space, symbol: space["price_inquire_price"].inquire_price(symbol),
            lambda body: body.rt_cd == "0",
            "kispilot",
            before=_set_up_kispilot,
        ),
    ],
}
HERE = [name for name in RECIPES if name in REAL]

How = Literal["alone", "protected", "its class"]
Run = Callable[[Recipe, KisGateway, How], Namespace]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, redirect: Callable[[KisGateway], None]) -> Iterator[Run]:
    """Run a block, as it is or with another meaning of `protect`; gives its names. Afterwards nothing is protected."""
    targets: list[Any] = []
    real_protect = kis_retry.protect
    logging.disable(logging.CRITICAL)

    def run(recipe: Recipe, gateway: KisGateway, how: How) -> Namespace:
        def protect(target: Any, **options: Any) -> Any:
            if how != "alone":
                keeps_methods = how == "protected" or isinstance(target, (type, ModuleType))
                targets.append(target if keeps_methods else type(target))
                real_protect(targets[-1], **options)
            return target

        who = gateway.credentials
        monkeypatch.setenv("KIS_APP_KEY", who.app_key)
        monkeypatch.setenv("KIS_APP_SECRET", who.app_secret)
        monkeypatch.setenv("KIS_ACCOUNT_NO", "12345678-01")
        monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
        monkeypatch.setattr(kis_retry, "protect", protect)
        with suppress(ImportError):
            import httpx  # noqa: F401  # before the redirection, which else passes it over
        redirect(gateway)
        recipe.before(gateway, monkeypatch)
        space: Namespace = {}
        exec(blocks_of(recipe.section)[recipe.block], space)
        recipe.after(space)
        return space

    yield run
    for target in targets:
        unprotect(target)
    targets.clear()
    gc.collect()  # clients that the packages never close warn here, where their warnings are ignored
    logging.disable(logging.NOTSET)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[str, int, str, Measured], None]:
    def tell(name: str, status: int, how: str, seen: Measured) -> None:
        with capsys.disabled():
            sys.stdout.write(
                f"\n| {name} | HTTP {status} | {how} | {seen.lost} lost | {seen.token_requests} token requests "
                f"| {seen.refused} refusals | {seen.how}\n"
            )

    return tell


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("name", HERE)
def test_the_row_of_the_page_holds(name: str, status: int, run: Run, told: Callable[..., None]) -> None:
    row = rows()[f"{name} {REAL[name]}"]
    for recipe in RECIPES[name]:
        with KisGateway(expired_status=status, latency=0.002) as gateway:
            space = run(recipe, gateway, "alone")
            alone = measured(lambda symbol: recipe.fetch(space, symbol), recipe.is_good, gateway)  # noqa: B023
        told(name, status, "alone", alone)
        assert alone.lost > 0 or row.allows_none_alone
        assert alone.lost in row.alone
        with KisGateway(expired_status=status, latency=0.002) as gateway:
            space = run(recipe, gateway, "protected")
            protected = measured(lambda symbol: recipe.fetch(space, symbol), recipe.is_good, gateway)  # noqa: B023
        told(name, status, "protected", protected)
        assert protected.lost == row.protected == 0, protected.how
        assert protected.token_requests == row.token_requests == 1
        assert 0 < protected.refused <= row.refusals


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("name", HERE)
def test_a_second_expiry_costs_what_the_first_did(name: str, status: int, run: Run) -> None:
    (recipe,) = RECIPES[name]
    with KisGateway(expired_status=status, latency=0.002) as gateway:
        space = run(recipe, gateway, "protected")
        for _ in range(2):  # one batch after the other: no call is under way at both
            seen = measured(lambda symbol: recipe.fetch(space, symbol), recipe.is_good, gateway)
            assert (seen.lost, seen.token_requests) == (0, 1), seen.how
            assert seen.refused <= rows()[f"{name} {REAL[name]}"].refusals


@pytest.mark.parametrize("name", HERE)
def test_the_class_may_be_protected_in_the_place_of_the_object(name: str, run: Run) -> None:
    (recipe,) = RECIPES[name]
    with KisGateway(latency=0.002) as gateway:
        space = run(recipe, gateway, "its class")
        seen = measured(lambda symbol: recipe.fetch(space, symbol), recipe.is_good, gateway)
    assert (seen.lost, seen.token_requests) == (0, 1), seen.how


@pytest.mark.skipif("kis-wrapper" not in REAL, reason="it is about kis-wrapper")
@pytest.mark.parametrize("status", [500, 200])
def test_the_row_of_coroutines_holds(status: int, run: Run, told: Callable[..., None]) -> None:
    name = f"kis-wrapper {REAL['kis-wrapper']}, async"
    row = rows()[name]
    recipe = Recipe(lambda *_: None, lambda _: True, "kis-wrapper", 1, before=_forget_client)
    ways: tuple[How, How] = ("alone", "protected")
    for how in ways:
        with KisGateway(expired_status=status, latency=0.002) as gateway:
            space = run(recipe, gateway, how)
            gateway.reset_counts()
            gateway.expire_at(CALLS // 2)
            answers = asyncio.run(space["prices"]([f"{number:06d}" for number in range(CALLS)]))
            outcomes = [
                "" if isinstance(each, dict) and "stck_prpr" in each else type(each).__name__ for each in answers
            ]
            seen = tally(outcomes, gateway)
        told(name, status, how, seen)
        if how == "protected":
            assert (seen.lost, seen.token_requests) == (row.protected, row.token_requests) == (0, 1), seen.how
            assert 0 < seen.refused <= row.refusals
        else:
            assert seen.lost in row.alone
    _forget_client()
