from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from korea_investment_stock import CachedKoreaInvestment, FileTokenStorage, KoreaInvestment, RateLimitedKoreaInvestment

from expiries import THREADS, measured
from kis_retry import protect, unprotect

if TYPE_CHECKING:
    from kis_retry import TokenManager
    from kis_retry.testing import KisGateway

MakeBroker = Callable[["KisGateway"], KoreaInvestment]
ManagerOf = Callable[["KisGateway"], "TokenManager"]

# Name and arguments.
CALLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "a Korean share": ("fetch_domestic_price", ("005930",)),
    "a Korean ETF": ("fetch_domestic_price", ("069500", "ETF")),
    "a US share": ("fetch_price_detail_oversea", ("AAPL",)),
    "a US share at the last exchange": ("fetch_price_detail_oversea", ("SPY", "US")),
    "a Korean product": ("fetch_stock_info", ("005930",)),
    "a US product of the second type": ("fetch_stock_info", ("KO", "US")),
    "a listing": ("fetch_search_stock_info", ("005930",)),
    "public offers": ("fetch_ipo_schedule", ("20251101", "20251130")),
    "a Korean price": ("fetch_price", ("069500", "KR")),
    "a US price": ("fetch_price", ("MSFT", "US")),
}
BATCH = ("a Korean share", "a US share", "a Korean product", "a US product of the second type")

WRONG_USES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "a country without exchanges": ("fetch_price_detail_oversea", ("AAPL", "XX")),
    "a symbol listed nowhere": ("fetch_price_detail_oversea", ("NONE1", "US")),
    "a listing abroad": ("fetch_search_stock_info", ("AAPL", "US")),
    "dates reversed": ("fetch_ipo_schedule", ("20251130", "20251101")),
    "a date malformed": ("fetch_ipo_schedule", ("2025-11-01", "20251130")),
    "a price of no country": ("fetch_price", ("AAPL", "XX")),
}


@pytest.fixture
def make_broker(tmp_path: Path, redirect: Callable[[KisGateway], None]) -> Iterator[MakeBroker]:
    """Make a broker of the library as anybody would: it issues a token at once. Afterwards its class is as it was."""

    def make(gateway: KisGateway) -> KoreaInvestment:
        redirect(gateway)
        who = gateway.credentials
        storage = FileTokenStorage(tmp_path / "token.key")
        return KoreaInvestment(who.app_key, who.app_secret, who.account, token_storage=storage)

    yield make
    unprotect(KoreaInvestment)


@pytest.fixture
def swallows(real_version: str) -> bool:
    """Whether the library is one from before any refresh."""
    return real_version == "0.12.0"


def _call(broker: Any, name: str) -> Any:
    method, arguments = CALLS[name]
    return getattr(broker, method)(*arguments)


def _batch(broker: Any, calls: int, right: dict[str, Any]) -> list[tuple[Callable[[], Any], Any]]:
    names = [BATCH[number % len(BATCH)] for number in range(calls)]
    return [(partial(_call, broker, name), right[name]) for name in names]


@pytest.mark.parametrize("name", CALLS)
def test_right_after_an_expiry_every_call_gets_the_right_answer(
    name: str, gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    broker = make_broker(gateway)
    right = _call(broker, name)
    assert right["rt_cd"] == "0"
    protect(broker, tokens=manager_of(gateway))
    gateway.expire()
    gateway.reset_counts()
    assert _call(broker, name) == right
    assert gateway.counts.refused == 1
    assert (gateway.counts.token_requests, gateway.counts.tokens_issued) == (1, 1)
    assert _call(broker, name) == right
    assert gateway.counts.token_requests == 1


@pytest.mark.parametrize("exchange", [1, 2, 3])
def test_the_token_may_die_at_any_exchange_of_the_overseas_loop(
    exchange: int, gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    broker = protect(make_broker(gateway), tokens=manager_of(gateway))
    gateway.expire_at(exchange)
    assert broker.fetch_price_detail_oversea("SPY")["output"]["rsym"] == "DAMSSPY"
    assert gateway.counts.refused == 1
    assert gateway.counts.token_requests == 2


def test_a_revoked_token_is_replaced_though_the_library_does_not_know_that_message(
    gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    broker = protect(make_broker(gateway), tokens=manager_of(gateway))
    broker.access_token = "Bearer of-another-environment"
    gateway.expire()
    assert broker.fetch_domestic_price("005930")["rt_cd"] == "0"
    assert gateway.counts.refused == 1


def test_the_good_token_of_the_constructor_is_used_and_nothing_is_issued_beside_it(
    gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    broker = make_broker(gateway)
    held = broker.access_token
    protect(broker, tokens=manager_of(gateway))
    for name in CALLS:
        assert _call(broker, name)["rt_cd"] == "0"
    assert broker.access_token == held
    assert gateway.counts.token_requests == 1


def test_a_class_protected_beforehand_protects_every_broker(
    gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    protect(KoreaInvestment, tokens=manager_of(gateway))
    brokers = [make_broker(gateway), make_broker(gateway)]
    gateway.expire()
    gateway.reset_counts()
    for broker in brokers:
        assert broker.fetch_domestic_price("005930")["rt_cd"] == "0"
    assert (gateway.counts.token_requests, gateway.counts.refused) == (1, 1)


@pytest.mark.parametrize("name", WRONG_USES)
def test_the_librarys_own_errors_are_unchanged(
    name: str, gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    method, arguments = WRONG_USES[name]
    broker = make_broker(gateway)
    with pytest.raises(ValueError) as plain:
        getattr(broker, method)(*arguments)
    protect(broker, tokens=manager_of(gateway))
    with pytest.raises(ValueError) as protected:
        getattr(broker, method)(*arguments)
    assert protected.value.args == plain.value.args
    assert gateway.counts.token_requests == 1


@pytest.mark.parametrize("what", ["class", "object"])
def test_after_unprotect_the_library_is_as_it_was(
    what: str, busy_gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf, swallows: bool
) -> None:
    broker, plain = make_broker(busy_gateway), requests.Session.send
    target: Any = {"class": KoreaInvestment, "object": broker}[what]
    before, signature = list(vars(target).items()), inspect.signature(broker.fetch_price)
    protect(target, tokens=manager_of(busy_gateway))
    assert inspect.signature(broker.fetch_price) == signature
    assert broker.fetch_price.__doc__ == KoreaInvestment.fetch_price.__doc__
    unprotect(target)
    assert list(vars(target).items()) == before
    assert requests.Session.send is plain
    busy_gateway.expire()
    answer = broker.fetch_domestic_price("005930")
    assert answer["rt_cd"] == ("1" if swallows else "0")


def test_the_librarys_wrappers_work_around_a_protected_broker(
    gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    broker = protect(make_broker(gateway), tokens=manager_of(gateway))
    cached, limited = CachedKoreaInvestment(broker), RateLimitedKoreaInvestment(broker, calls_per_second=1000)
    gateway.expire()
    gateway.reset_counts()
    first = cached.fetch_price_detail_oversea("AAPL", "US")
    assert first["output"]["rsym"] == "DNASAAPL"
    gateway.expire()
    assert limited.fetch_price("005930", "KR")["rt_cd"] == "0"
    assert cached.fetch_price_detail_oversea("AAPL", "US") is first
    assert gateway.counts.token_requests == 2


@pytest.mark.parametrize("wrapper", ["cached", "limited", "both"])
def test_a_protected_wrapper_works_as_the_broker_inside_does(
    wrapper: str, gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    broker: Any = make_broker(gateway)
    if wrapper != "cached":
        broker = RateLimitedKoreaInvestment(broker, calls_per_second=100_000)
    if wrapper != "limited":
        broker = CachedKoreaInvestment(broker)
    protect(broker, tokens=manager_of(gateway))

    def fetch(symbol: str) -> Any:
        if int(symbol) % 2:
            return broker.fetch_domestic_price(symbol)
        return broker.fetch_price_detail_oversea(f"S{symbol}", "US")

    seen = measured(fetch, lambda answer: answer["rt_cd"] == "0", gateway)
    assert (seen.lost, seen.token_requests) == (0, 1), seen.how
    assert seen.refused <= THREADS


def test_a_wrapper_without_a_source_says_which_object_to_protect(gateway: KisGateway, make_broker: MakeBroker) -> None:
    cached = protect(CachedKoreaInvestment(RateLimitedKoreaInvestment(make_broker(gateway))))
    with pytest.raises(TypeError, match=r"protect the broker that it wraps, its attribute `broker\._broker`"):
        cached.fetch_price("005930")


def test_900_calls_in_16_threads_over_two_expiries_lose_nothing(
    busy_gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf, measure: Callable[..., Any]
) -> None:
    broker = make_broker(busy_gateway)
    right = {name: _call(broker, name) for name in BATCH}
    protect(broker, tokens=manager_of(busy_gateway))
    seen = busy_gateway.counts.calls
    busy_gateway.expire_at(seen + 400, seen + 900)
    tally = measure("protected, two expiries", busy_gateway, _batch(broker, 900, right))
    assert (tally.right, tally.lost) == (900, {})
    assert tally.token_requests == 2


def test_of_1000_calls_over_one_expiry_the_library_alone_loses_some_and_protected_none(
    busy_gateway: KisGateway,
    make_broker: MakeBroker,
    manager_of: ManagerOf,
    measure: Callable[..., Any],
    swallows: bool,
) -> None:
    def run(label: str, broker: KoreaInvestment) -> Any:
        busy_gateway.expire_at(busy_gateway.counts.calls + 750)
        return measure(label, busy_gateway, _batch(broker, 1000, right))

    broker = make_broker(busy_gateway)
    right = {name: _call(broker, name) for name in BATCH}
    alone = run("alone", broker)
    assert alone.right < 1000
    if swallows:
        assert alone.lost["ValueError"] > 0
        with pytest.raises(ValueError, match=r"AAPL.*찾을 수 없습니다"):
            broker.fetch_price_detail_oversea("AAPL")

    busy_gateway.expire()
    broker.token_storage.delete_token("", "")
    protected = run("protected", protect(make_broker(busy_gateway), tokens=manager_of(busy_gateway)))
    assert (protected.right, protected.lost, protected.token_requests) == (1000, {}, 1)
