"""Where a symbol is looked for first: the order is learned, and never puts a day market before its night market."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kis_retry import KisClient, MemoryTokenStore, RetryPolicy, TokenManager
from kis_retry.client.endpoints import EXCHANGES
from kis_retry.client.exchanges import NIGHT_OF, SearchOrder
from kis_retry.testing import KisGateway

US = EXCHANGES["US"]


@pytest.fixture
def client(gateway: KisGateway) -> Iterator[KisClient]:
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(transient_deadline=0))
    with KisClient(tokens=tokens) as made:
        yield made


def test_the_first_symbol_is_looked_for_in_the_order_of_kis() -> None:
    assert SearchOrder().places("US", "AAPL", US) == list(US)


def test_a_symbol_is_looked_for_first_where_it_was_found_and_then_where_the_last_one_was() -> None:
    order = SearchOrder()
    order.found("US", "AAPL", "NAS")
    order.found("US", "SPY", "AMS")
    assert order.places("US", "AAPL", US) == ["NAS", "AMS", "NYS", "BAY", "BAQ", "BAA"]
    assert order.places("US", "MSFT", US) == ["AMS", "NYS", "NAS", "BAY", "BAQ", "BAA"]


def test_what_was_found_in_one_country_says_nothing_of_another() -> None:
    order = SearchOrder()
    order.found("US", "X", "NAS")
    assert order.places("CN", "X", EXCHANGES["CN"]) == ["SHS", "SZS"]


def test_places_of_two_symbols_are_remembered_apart_and_the_newest_counts() -> None:
    order = SearchOrder()
    for place in ("NAS", "AMS"):
        order.found("US", "AAPL", place)
    order.found("US", "SPY", "NYS")
    assert order.places("US", "AAPL", US)[:2] == ["AMS", "NYS"]


def test_as_many_symbols_are_remembered_as_five_such_markets_have_and_then_the_oldest_is_forgotten() -> None:
    order = SearchOrder()
    for number in range(1, 65_536):
        order.found("US", f"S{number}", "AMS")
    order.found("US", "ONE", "NYS")
    assert order.places("US", "S1", US)[0] == "AMS"
    order.found("US", "MORE", "NYS")
    assert [order.places("US", symbol, US)[0] for symbol in ("S1", "S2", "S65535")] == ["NYS", "AMS", "AMS"]


places = st.sampled_from(US)


@given(st.lists(st.tuples(st.sampled_from(["A", "B", "C"]), places), max_size=8), st.sampled_from(["A", "B", "C"]))
def test_every_place_is_asked_once_and_no_day_market_before_its_night_market(
    finds: list[tuple[str, str]], symbol: str
) -> None:
    order = SearchOrder()
    for found, place in finds:
        order.found("US", found, place)
    asked = order.places("US", symbol, US)
    assert sorted(asked) == sorted(US)
    assert all(asked.index(night) < asked.index(day) for day, night in NIGHT_OF.items())


def test_a_listing_costs_hardly_more_than_one_request_a_symbol(gateway: KisGateway, client: KisClient) -> None:
    listing = [(f"{exchange}{number}", exchange) for exchange in ("NAS", "NYS", "AMS") for number in range(100)]
    for symbol, exchange in listing:
        gateway.list_symbol(symbol, exchange)
    for symbol, exchange in listing:
        assert client.fetch_price_detail_oversea(symbol)["output"]["rsym"] == f"D{exchange}{symbol}"
    assert gateway.counts.calls <= 1.02 * len(listing)


def test_a_symbol_that_moved_is_found_all_the_same(gateway: KisGateway, client: KisClient) -> None:
    gateway.list_symbol("MOVED", "NYS")
    assert client.fetch_price_detail_oversea("MOVED")["output"]["rsym"] == "DNYSMOVED"
    gateway.list_symbol("MOVED", "AMS")
    assert client.fetch_price_detail_oversea("MOVED")["output"]["rsym"] == "DAMSMOVED"


def test_product_types_are_learned_too(gateway: KisGateway, client: KisClient) -> None:
    for number in range(50):
        gateway.list_symbol(f"FUND{number}", "AMS")  # 529, the third that is asked
    for number in range(50):
        assert client.fetch_stock_info(f"FUND{number}", "US")["rt_cd"] == "0"
    assert gateway.counts.calls == 50 + 2


def test_a_product_type_that_does_not_know_the_symbol_is_not_asked_first_for_the_next(
    gateway: KisGateway, client: KisClient
) -> None:
    gateway.list_symbol("FIRST", "NAS")  # 512, the first that is asked
    assert client.fetch_stock_info("NONE1", "US")["rt_cd"] == "7"
    gateway.reset_counts()
    assert client.fetch_stock_info("FIRST", "US")["rt_cd"] == "0"
    assert gateway.counts.calls == 1


@pytest.mark.parametrize("rt_cd", ["1", "8", "", "-1"])
def test_a_failure_of_another_kind_ends_the_search_of_a_product_type_and_is_no_find(
    rt_cd: str, client: KisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([{"rt_cd": "7"}, {"rt_cd": rt_cd}, {"rt_cd": "0"}])
    asked: list[str] = []

    def answer(_: KisClient, *__: str, params: dict[str, str]) -> dict[str, str]:
        asked.append(params["PRDT_TYPE_CD"])
        return next(answers)

    monkeypatch.setattr(KisClient, "_request", answer)
    client.access_token  # noqa: B018  # the first token
    assert client.fetch_stock_info("KO", "US") == {"rt_cd": rt_cd}
    assert asked == ["512", "513"]
    assert client.fetch_stock_info("KO", "US") == {"rt_cd": "0"}
    assert asked == ["512", "513", "512"]


def test_a_rate_limit_in_the_loop_does_not_become_not_found(gateway: KisGateway, client: KisClient) -> None:
    client.fetch_price_detail_oversea("KO")
    gateway.refuse_calls("EGW00201", status=500)
    assert client.fetch_price_detail_oversea("SPY")["msg_cd"] == "EGW00201"


def test_only_no_such_symbol_becomes_not_found(client: KisClient) -> None:
    with pytest.raises(ValueError, match=r"no exchange of US .* knows the symbol 'NONE1'"):
        client.fetch_price_detail_oversea("NONE1")
