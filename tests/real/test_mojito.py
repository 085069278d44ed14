from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from mojito import KoreaInvestment

from kis_retry import protect, unprotect

if TYPE_CHECKING:
    from kis_retry import TokenManager
    from kis_retry.testing import KisGateway

MakeBroker = Callable[..., KoreaInvestment]
ManagerOf = Callable[["KisGateway"], "TokenManager"]

# Exchange, name and arguments.
CALLS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "a Korean price": ("서울", "fetch_price", ("005930",)),
    "a Korean share": ("서울", "fetch_domestic_price", ("J", "005930")),
    "a US price": ("나스닥", "fetch_price", ("AAPL",)),
    "a US share": ("나스닥", "fetch_oversea_price", ("AAPL",)),
    "a Korean chart": ("서울", "fetch_ohlcv", ("005930", "D", "20251101", "20251130")),
    "thirty days": ("서울", "fetch_ohlcv_recent30", ("005930",)),
    "a balance": ("서울", "fetch_balance_domestic", ()),
}


@pytest.fixture
def make_broker(redirect: Callable[[KisGateway], None]) -> Iterator[MakeBroker]:
    """Make a broker of the library as anybody would: it issues a token at once. Afterwards its class is as it was."""

    def make(gateway: KisGateway, exchange: str = "서울") -> KoreaInvestment:
        redirect(gateway)
        who = gateway.credentials
        return KoreaInvestment(who.app_key, who.app_secret, who.account, exchange)

    yield make
    unprotect(KoreaInvestment)


def _call(broker: Any, name: str) -> Any:
    _, method, arguments = CALLS[name]
    return getattr(broker, method)(*arguments)


@pytest.mark.parametrize("source", ["a manager", "the library's own issue"])
@pytest.mark.parametrize("name", CALLS)
def test_right_after_an_expiry_every_call_gets_the_right_answer(
    name: str, source: str, gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    broker = make_broker(gateway, CALLS[name][0])
    right = _call(broker, name)
    assert right["rt_cd"] == "0"
    protect(broker, tokens=manager_of(gateway) if source == "a manager" else None)
    gateway.expire()
    gateway.reset_counts()
    assert _call(broker, name) == right
    assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 1)
    assert _call(broker, name) == right
    assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 1)


def test_the_good_token_of_the_constructor_is_used_and_nothing_is_issued_beside_it(
    gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    broker = make_broker(gateway)
    held = broker.access_token
    protect(broker, tokens=manager_of(gateway))
    assert broker.fetch_price("005930")["rt_cd"] == "0"
    assert broker.access_token == held
    assert gateway.counts.token_requests == 1


def test_brokers_of_a_class_protected_beforehand_share_the_token_of_the_source(
    gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    manager = manager_of(gateway)
    protect(KoreaInvestment, tokens=manager)
    brokers = [make_broker(gateway), make_broker(gateway)]
    assert {broker.access_token for broker in brokers} == {manager.authorization}
    assert not Path("token.dat").exists()
    assert gateway.counts.token_requests == 1


def test_asking_for_a_token_as_the_library_teaches_it_costs_no_issue(
    gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    manager = manager_of(gateway)
    broker = protect(make_broker(gateway), tokens=manager)
    gateway.expire()
    gateway.reset_counts()
    for _ in range(3):
        broker.issue_access_token()
    assert broker.access_token == manager.authorization
    assert gateway.counts.token_requests == 1


def test_an_order_refused_for_its_token_is_placed_once(
    gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    broker = protect(make_broker(gateway), tokens=manager_of(gateway), methods=["fetch_*", "create_*"])
    gateway.expire()
    assert broker.create_market_buy_order("005930", 1)["rt_cd"] == "0"
    assert [order["PDNO"] for order in gateway.orders] == ["005930"]


def test_an_order_whose_answer_was_lost_is_not_placed_again(
    gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    broker = protect(make_broker(gateway), tokens=manager_of(gateway), methods=["fetch_*", "create_*"])
    broker.issue_hashkey = lambda _: ""  # so that the next two calls of the gateway are the order and its repeat
    gateway.expire()
    gateway.refuse_calls(1)
    gateway.drop(times=1, reached=True)
    with pytest.raises(requests.ConnectionError):
        broker.create_market_buy_order("005930", 1)
    assert len(gateway.orders) == 1


@pytest.mark.parametrize("what", ["class", "object"])
def test_after_unprotect_the_library_is_as_it_was(
    what: str, gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf
) -> None:
    broker, plain = make_broker(gateway), requests.Session.send
    target: Any = {"class": KoreaInvestment, "object": broker}[what]
    before, signature = list(vars(target).items()), inspect.signature(broker.fetch_price)
    protect(target, tokens=manager_of(gateway))
    assert inspect.signature(broker.fetch_price) == signature
    assert broker.fetch_price.__doc__ == KoreaInvestment.fetch_price.__doc__
    unprotect(target)
    assert list(vars(target).items()) == before
    assert requests.Session.send is plain
    gateway.expire()
    assert broker.fetch_price("005930")["msg_cd"] == "EGW00123"


def test_900_calls_in_16_threads_over_two_expiries_lose_nothing(
    busy_gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf, measure: Callable[..., Any]
) -> None:
    broker = make_broker(busy_gateway)
    right = broker.fetch_price("005930")
    protect(broker, tokens=manager_of(busy_gateway))
    busy_gateway.expire_at(300, 600)
    tally = measure("protected, two expiries", busy_gateway, [(partial(broker.fetch_price, "005930"), right)] * 900)
    assert (tally.right, tally.lost) == (900, {})
    assert tally.token_requests == 2


def test_of_1000_calls_over_one_expiry_the_library_alone_loses_some_and_protected_none(
    busy_gateway: KisGateway, make_broker: MakeBroker, manager_of: ManagerOf, measure: Callable[..., Any]
) -> None:
    def run(label: str, broker: KoreaInvestment) -> Any:
        right = broker.fetch_price("005930")
        busy_gateway.expire_at(busy_gateway.counts.calls + 500)
        return measure(label, busy_gateway, [(partial(broker.fetch_price, "005930"), right)] * 1000)

    alone = run("alone", make_broker(busy_gateway))
    assert alone.right < 1000
    busy_gateway.expire()
    Path("token.dat").unlink()
    protected = run("protected", protect(make_broker(busy_gateway), tokens=manager_of(busy_gateway)))
    assert (protected.right, protected.lost, protected.token_requests) == (1000, {}, 1)
