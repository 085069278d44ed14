"""An order is at KIS exactly once: lost, refused, turned away, never left, and looked after."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import pytest
import requests

from kis_retry import RefreshEvent, RetryPolicy, refresh_on_expired_token, retry_on_transient_error
from kis_retry.testing import KisGateway
from senders import BALANCE, BUYABLE, GOOD, KINDS, ORDER, PRICE, WIRES, Answer, Wire, both, headers_for, sent

ALL = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
TWO = pytest.mark.parametrize("wire", KINDS, ids=lambda wire: wire.name)
BRIEF = RetryPolicy(order_deadline=0.4)


def outcome(call: Callable[[], Answer]) -> Any:
    """What a call came to, as it can be compared."""
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


def _fail(gateway: KisGateway) -> None:
    gateway.fail(503, times=1, reached=True, path=ORDER)


LOSSES: dict[str, Callable[[KisGateway], object]] = {
    "503": _fail,
    "dropped": lambda gateway: gateway.drop(times=1, reached=True, path=ORDER),
    "hung": lambda gateway: gateway.hang(times=1, seconds=20),
    "no JSON": lambda gateway: gateway.fail(200, times=1, body=b"<html>maintenance</html>", reached=True),
    "JSON without KIS's words": lambda gateway: gateway.fail(200, times=1, body=b'{"message": "?"}', reached=True),
    "EGW00301": lambda gateway: gateway.refuse_calls("EGW00301", 1, reached=True, path=ORDER),
}


# Lost.


@pytest.mark.parametrize(
    ("wire", "lose"),
    [
        *((wire, lose) for wire in WIRES for lose in ("503", "dropped")),
        *((WIRES[0], lose) for lose in list(LOSSES)[2:]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_an_order_whose_answer_was_lost_is_not_sent_again_by_a_loop_around_it(
    wire: Wire, lose: str, gateway: KisGateway, events: list[RefreshEvent]
) -> None:
    place = both(lambda: wire.order(gateway, timeout=0.3 if lose == "hung" else 5))
    LOSSES[lose](gateway)
    endings = [outcome(place) for _ in range(3)]
    gateway.heal()
    assert GOOD not in endings
    assert len(set(endings)) == 1, "each ends as the first did, type and text"
    assert (sent(gateway), len(gateway.orders)) == (1, 1)
    assert [event.name for event in events if event.name == "order_held_back"] == ["order_held_back"] * 2
    assert {event.request for event in events} == {f"POST {ORDER}"}


def _loud_requests(url: str, headers: dict[str, str]) -> Any:
    response = requests.post(url, headers=headers, json={"PDNO": "005930"}, timeout=5)
    response.raise_for_status()
    return response.json()


def _loud_httpx(url: str, headers: dict[str, str]) -> Any:
    response = httpx.post(url, headers=headers, json={"PDNO": "005930"})
    assert response.elapsed.total_seconds() >= 0
    return response.raise_for_status().json()


def _loud_aiohttp(url: str, headers: dict[str, str]) -> Any:
    async def place() -> Any:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(url, json={"PDNO": "005930"}) as response,
        ):
            if response.status != 200:
                response.raise_for_status()
            return await response.json()

    return asyncio.run(place())


@pytest.mark.parametrize("status", [503, 200])
@pytest.mark.parametrize("place", [_loud_requests, _loud_httpx, _loud_aiohttp])
def test_an_order_that_is_held_back_ends_in_the_same_words(place: Any, status: int, gateway: KisGateway) -> None:
    gateway.fail(status, times=1, reached=True, path=ORDER)
    url, headers = gateway.url + ORDER, headers_for(gateway)
    first, second = (outcome(lambda: both(place)(url, headers)) for _ in range(2))
    assert first == second
    assert sent(gateway) == 1


def test_the_loop_may_be_inside_and_the_function_another_one(gateway: KisGateway) -> None:
    @refresh_on_expired_token
    def place() -> Answer:
        for _ in range(3):
            with suppress(requests.ConnectionError):
                return WIRES[0].order(gateway)
        return Answer(0, None)

    gateway.drop(times=1, reached=True)
    assert place() == Answer(0, None)
    with pytest.raises(requests.ConnectionError):
        retry_on_transient_error(lambda: WIRES[0].order(gateway))()
    assert sent(gateway) == 1


@TWO
def test_another_order_is_not_the_lost_one(wire: Wire, gateway: KisGateway) -> None:
    gateway.fail(503, times=1, reached=True)
    assert [both(lambda: wire.order(gateway, tr_id="TTTC0012U"))().status for _ in range(2)] == [503, 503]
    assert both(lambda: wire.order(gateway, tr_id="TTTC0011U"))() == GOOD
    assert both(lambda: wire.order(gateway, 2, tr_id="TTTC0012U"))() == GOOD
    assert sent(gateway) == 3


def test_a_program_that_has_looked_may_order_again(gateway: KisGateway) -> None:
    wire = WIRES[0]
    place = both(lambda: wire.order(gateway))
    look = both(lambda path: wire.get(gateway, path))
    gateway.fail(503, times=1, path=ORDER)
    assert look(BALANCE) == GOOD, "before the loss: it tells nothing about it"
    assert place().status == 503
    assert look(BUYABLE) == GOOD, "what could be bought tells nothing either"
    assert place().status == 503
    assert sent(gateway) == 1
    gateway.refuse_calls("EGW00206", 1)
    assert look(BALANCE).msg_cd == "EGW00206"
    assert place().status == 503, "the look was not answered"
    assert look(BALANCE) == GOOD
    assert place() == GOOD
    assert sent(gateway) == 2


def test_a_look_at_another_account_lifts_nothing(gateway: KisGateway) -> None:
    wire = WIRES[0]
    gateway.accept("PSsomebodyelse", "asecret")
    gateway.fail(503, times=1, path=ORDER)
    place = both(lambda: wire.order(gateway))
    assert place().status == 503
    look = both(lambda: wire.get(gateway, BALANCE, authorization="", appkey="PSsomebodyelse", appsecret="asecret"))
    assert look() == GOOD
    assert place().status == 503
    assert sent(gateway) == 1


@pytest.mark.parametrize(("hold", "passes"), [(0.0, 0.0), (0.2, 0.25)])
def test_an_order_is_held_back_for_order_hold_seconds(hold: float, passes: float, gateway: KisGateway) -> None:
    place = both(lambda: WIRES[0].order(gateway), policy=RetryPolicy(order_hold=hold))
    gateway.fail(503, times=1)
    assert place().status == 503
    time.sleep(passes)
    assert place() == GOOD


@TWO
def test_an_idempotent_order_is_repeated_as_a_read_is(wire: Wire, gateway: KisGateway) -> None:
    gateway.drop(times=1, reached=True)
    gateway.fail(503, times=1, reached=True)
    assert both(lambda: wire.order(gateway), idempotent=True)() == GOOD
    assert sent(gateway) == 3


@TWO
def test_an_order_that_may_not_be_repeated_at_all_leaves_once(wire: Wire, gateway: KisGateway) -> None:
    gateway.refuse_calls("EGW00201", 1)
    assert both(lambda: wire.order(gateway), idempotent=False)().msg_cd == "EGW00201"
    assert sent(gateway) == 1


# Refused before KIS acted.


@ALL
def test_an_order_that_was_refused_is_placed_once(wire: Wire, gateway: KisGateway) -> None:
    place = both(lambda: wire.order(gateway))
    gateway.refuse_calls("EGW00201", 2)
    assert place() == GOOD
    gateway.expire()
    assert place() == GOOD
    assert len(gateway.orders) == 2
    assert (sent(gateway), gateway.counts.refused) == (5, 3)


@ALL
@pytest.mark.usefixtures("impatient")
def test_an_order_that_never_left_leaves_when_it_can(wire: Wire) -> None:
    with KisGateway() as closed:
        keys = closed.credentials
    later = KisGateway(port=urlsplit(closed.url).port or 0, app_key=keys.app_key, app_secret=keys.app_secret)
    opening = threading.Timer(0.3, later.__enter__)
    opening.start()
    try:
        answer = both(lambda: wire.order(closed))()
    finally:
        opening.join()
        later.close()
    assert answer == GOOD
    assert len(later.orders) == 1


@pytest.mark.usefixtures("impatient")
def test_an_order_that_never_left_is_not_held_back() -> None:
    with KisGateway() as closed:
        pass
    place = both(lambda: WIRES[0].order(closed), policy=BRIEF)
    with pytest.raises(requests.ConnectionError):
        place()
    with KisGateway(port=urlsplit(closed.url).port or 0, app_key=closed.credentials.app_key, app_secret="s") as other:
        assert outcome(place) != GOOD, "its secret is another"
        assert sent(other) == 1


# Beside other requests.


async def test_an_order_beside_a_refused_read_is_placed_once(gateway: KisGateway) -> None:
    async def ask(client: httpx.AsyncClient, method: str, path: str) -> str:
        response = await client.request(method, gateway.url + path, headers=headers, json={"PDNO": "005930"})
        return str(response.json()["msg_cd"])

    @refresh_on_expired_token
    async def trade() -> list[str]:
        async with httpx.AsyncClient() as client:
            return list(await asyncio.gather(ask(client, "POST", ORDER), ask(client, "GET", BALANCE)))

    headers = headers_for(gateway)
    gateway.expire_at(2)
    assert await trade() == ["MCA00000"] * 2
    assert (sent(gateway) + sent(gateway, BALANCE), len(gateway.orders)) == (3, 1)


@TWO
@pytest.mark.parametrize(
    "refuse", [KisGateway.expire_at, lambda gateway, _: gateway.refuse_calls("EGW00201", 1, path=BALANCE)]
)
def test_an_order_before_a_refused_read_is_placed_once(wire: Wire, refuse: Any, gateway: KisGateway) -> None:
    @both
    def trade() -> list[Answer]:
        return [wire.order(gateway), wire.get(gateway, BALANCE)]

    refuse(gateway, 2)
    assert trade() == [GOOD, GOOD]
    assert (sent(gateway), sent(gateway, BALANCE)) == (1, 2)


def test_an_order_in_a_pool_is_placed_once(gateway: KisGateway) -> None:
    wire = WIRES[0]

    @both
    def trade() -> list[Any]:
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(outcome, lambda: wire.order(gateway)),
                *(pool.submit(wire.get, gateway) for _ in range(8)),
            ]
            return [each.result() for each in asked]

    _fail(gateway)
    gateway.refuse_calls("EGW00201", share=0.3, path=PRICE)
    for _ in range(2):
        assert trade() == [Answer(503, None), *[GOOD] * 8]
    assert (sent(gateway), len(gateway.orders)) == (1, 1)


def _to_nowhere() -> str:
    with KisGateway() as closed:
        return closed.url


BEHIND: dict[str, Callable[[KisGateway], object]] = {
    "dropped": lambda gateway: gateway.drop(path=PRICE),
    "refused for its token": lambda gateway: gateway.expire_at(2),
    "too many": lambda gateway: gateway.refuse_calls("EGW00201", path=PRICE),
    "never left": lambda gateway: None,
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("wire", "status", "behind"),
    [
        *((wire, status, "dropped") for wire in WIRES for status in (303, 307)),
        *((WIRES[0], 303, behind) for behind in list(BEHIND)[1:]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_an_order_that_a_redirect_answered_is_never_repeated(
    wire: Wire, status: int, behind: str, gateway: KisGateway
) -> None:
    """Not by a loop around it either, whatever became of what it led to."""
    BEHIND[behind](gateway)
    url = _to_nowhere() if behind == "never left" else gateway.url
    gateway.fail(status, times=1, headers={"Location": url + PRICE}, reached=True, path=ORDER)
    place = both(lambda: wire.order(gateway), policy=RetryPolicy(transient_deadline=0.2, order_deadline=0.2))
    for _ in range(2):
        outcome(place)
    assert (sent(gateway), len(gateway.orders)) == (1, 1)


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_an_order_that_was_led_back_to_its_own_address_is_never_repeated(wire: Wire, gateway: KisGateway) -> None:
    gateway.fail(302, times=1, headers={"Location": gateway.url + ORDER}, reached=True, path=ORDER)
    gateway.expire_at(2)
    outcome(both(lambda: wire.order(gateway)))
    assert len(gateway.orders) == 1
