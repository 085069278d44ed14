from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
import requests
import responses
import respx

from kis_retry import MemoryTokenStore, RetryPolicy, TokenManager, refresh_on_expired_token
from kis_retry.context import CURRENT, Scope
from kis_retry.retry import observer as transport
from kis_retry.testing import KisGateway

EXPIRED = {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "기간이 만료된 token 입니다."}
GOOD = {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상처리 되었습니다.", "output": {}}
PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
HOST = "https://openapi.koreainvestment.com:9443"


@pytest.fixture(autouse=True)
def nobody_listens() -> Iterator[None]:
    """Whatever else is protected in this process, `requests` and `httpx` are as they came while the test runs."""
    listening = transport._watchers
    _set_watchers(0)
    yield
    _set_watchers(listening)


def _set_watchers(number: int) -> None:
    while transport._watchers > number:
        transport.unwatch()
    while transport._watchers < number:
        transport.watch()


@pytest.fixture
def plain() -> tuple[Any, ...]:
    """The three methods as they came."""
    return _sends()


def _sends() -> tuple[Any, ...]:
    return requests.Session.send, httpx.Client.send, httpx.AsyncClient.send


@pytest.fixture
def scope() -> Iterator[Scope]:
    """A protected call that wants to know, with nobody else around it."""
    made = Scope("test", None, watching=True)
    transport.watch()
    CURRENT.set(made)
    yield made
    CURRENT.set(None)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        yield made


@pytest.fixture
def dead(gateway: KisGateway, manager: TokenManager) -> dict[str, str]:
    """Headers with a token that has just expired."""
    headers = manager.headers("FHKST01010100")
    gateway.expire()
    return headers


# What is heard.


def test_an_answer_of_requests_is_heard(
    gateway: KisGateway, session: requests.Session, scope: Scope, dead: dict[str, str]
) -> None:
    answer = session.get(gateway.url + PRICE, headers=dead)
    assert scope.answer is answer
    assert transport.is_refusal(answer, ["EGW00123"])
    assert transport.token_of(answer) == dead["authorization"].removeprefix("Bearer ")


def test_an_answer_of_httpx_is_heard(gateway: KisGateway, scope: Scope, dead: dict[str, str]) -> None:
    with httpx.Client() as client:
        answer = client.get(gateway.url + PRICE, headers=dead)
    assert scope.answer is answer
    assert transport.is_refusal(answer, ["EGW00123"])
    assert transport.token_of(answer) == dead["authorization"].removeprefix("Bearer ")


def test_an_answer_of_httpx_in_a_task_is_heard(gateway: KisGateway, scope: Scope, dead: dict[str, str]) -> None:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.get(gateway.url + PRICE, headers=dead)

    answer = asyncio.run(ask())
    assert scope.answer is answer
    assert transport.is_refusal(answer, ["EGW00123"])


def test_the_last_answer_counts(
    gateway: KisGateway, manager: TokenManager, session: requests.Session, scope: Scope, dead: dict[str, str]
) -> None:
    session.get(gateway.url + PRICE, headers=dead)
    session.get(gateway.url + PRICE, headers={"authorization": manager.refresh(dead["authorization"]).bearer})
    assert not transport.is_refusal(scope.answer, ["EGW00123"])


def test_answers_are_heard_by_every_call_around(gateway: KisGateway, session: requests.Session, scope: Scope) -> None:
    inner = Scope("inner", scope, watching=False)
    CURRENT.set(inner)
    answer = session.get(gateway.url + PRICE)
    assert inner.answer is answer
    assert scope.answer is answer


def test_answers_of_the_token_endpoints_do_not_count(
    gateway: KisGateway, session: requests.Session, scope: Scope, dead: dict[str, str]
) -> None:
    refused = session.get(gateway.url + PRICE, headers=dead)
    assert session.post(f"{gateway.url}/oauth2/tokenP", json={}).status_code == 403
    assert session.post(f"{gateway.url}/oauth2/revokeP", json={}).status_code == 403
    assert scope.answer is refused


@pytest.mark.parametrize(
    ("url", "body", "heard"),
    [
        (f"{HOST}/uapi/domestic-stock/v1/x", b"<html>bad gateway</html>", True),
        ("http://127.0.0.1:1/prices", b'{"rt_cd": "1", "msg_cd": "EGW00123"}', True),
        ("http://127.0.0.1:1/prices", b'{"token": "expired"}', False),
        (f"{HOST}/oauth2/tokenP", b'{"rt_cd": "1", "msg_cd": "EGW00123"}', False),
        ("http://127.0.0.1:1/hook?from=/uapi/x", b"thank you", False),
    ],
)
def test_an_answer_of_the_api_is_known_by_its_path_or_by_its_rt_cd(
    url: str, body: bytes, heard: bool, scope: Scope
) -> None:
    answer = SimpleNamespace(url=url, content=body)
    transport.hear(answer)
    assert (scope.answer is answer) is heard


def test_an_answer_that_knows_nothing_of_its_request_has_no_token() -> None:
    assert transport.token_of(requests.Response()) is None
    assert (
        transport.token_of(SimpleNamespace(request=SimpleNamespace(headers={"authorization": b"Bearer abc"}))) == "abc"
    )
    assert transport.token_of(SimpleNamespace(request=SimpleNamespace(headers={"authorization": "Bearer "}))) is None


# What is left alone.


def test_a_streamed_body_is_left_to_who_asked_for_it(
    gateway: KisGateway, session: requests.Session, scope: Scope
) -> None:
    answer = session.get(gateway.url + PRICE, stream=True)
    assert answer.raw.tell() == 0
    assert b"EGW00122" in answer.raw.read()


def test_a_session_that_streams_by_itself_is_no_exception(
    gateway: KisGateway, session: requests.Session, scope: Scope
) -> None:
    session.stream = True
    answer = session.send(session.prepare_request(requests.Request("GET", gateway.url + PRICE)))
    assert b"EGW00122" in answer.raw.read()
    assert scope.answer is None


def test_a_streamed_body_of_httpx_is_left_to_who_asked_for_it(gateway: KisGateway, scope: Scope) -> None:
    async def ask() -> list[bytes]:
        async with httpx.AsyncClient() as client, client.stream("GET", gateway.url + PRICE) as answer:
            return [chunk async for chunk in answer.aiter_bytes()]

    with httpx.Client() as client, client.stream("GET", gateway.url + PRICE) as answer:
        assert b"EGW00122" in b"".join(answer.iter_bytes())
    assert b"EGW00122" in b"".join(asyncio.run(ask()))


def test_after_a_streamed_answer_nobody_knows_what_kis_said_last(
    gateway: KisGateway, manager: TokenManager, session: requests.Session, scope: Scope, dead: dict[str, str]
) -> None:
    session.get(gateway.url + PRICE, headers=dead)
    session.get(
        gateway.url + PRICE, headers={"authorization": manager.refresh(dead["authorization"]).bearer}, stream=True
    ).close()
    assert scope.answer is None


def test_a_download_from_somebody_else_says_nothing_of_kis(
    gateway: KisGateway, session: requests.Session, scope: Scope, dead: dict[str, str]
) -> None:
    refused = session.get(gateway.url + PRICE, headers=dead)
    session.get(f"{gateway.url}/symbols.zip", stream=True).close()
    assert scope.answer is refused


def test_an_order_on_its_way_makes_a_refusal_old_news(
    gateway: KisGateway, session: requests.Session, scope: Scope, dead: dict[str, str]
) -> None:
    session.get(gateway.url + PRICE, headers=dead)
    gateway.drop(times=1, reached=True)
    with pytest.raises(requests.ConnectionError):
        session.post(gateway.url + ORDER, json={}, headers=dead)
    assert scope.answer is None


def test_a_question_whose_answer_was_lost_leaves_the_refusal_the_last_word(
    gateway: KisGateway, session: requests.Session, scope: Scope, dead: dict[str, str]
) -> None:
    refused = session.get(gateway.url + PRICE, headers=dead)
    gateway.drop(times=1)
    with pytest.raises(requests.ConnectionError):
        session.get(gateway.url + PRICE, headers=dead)
    assert scope.answer is refused


def test_a_message_to_somebody_else_is_no_order(
    gateway: KisGateway, session: requests.Session, scope: Scope, dead: dict[str, str]
) -> None:
    refused = session.get(gateway.url + PRICE, headers=dead)
    gateway.drop(times=1)
    with pytest.raises(requests.ConnectionError):
        session.post(f"{gateway.url}/hooks/alert", data="the token is dead")
    assert scope.answer is refused


def test_outside_of_a_call_it_is_inert(gateway: KisGateway, session: requests.Session) -> None:
    transport.watch()
    answer = session.get(gateway.url + PRICE)
    assert b"EGW00122" in answer.content


def test_a_call_that_does_not_want_to_know_is_not_told(gateway: KisGateway, session: requests.Session) -> None:
    transport.watch()
    scope = Scope("test", None, watching=False)
    CURRENT.set(scope)
    session.get(gateway.url + PRICE)
    assert scope.answer is None


# Per call, not per process.


def test_threads_that_share_a_session_do_not_disturb_each_other(gateway: KisGateway, manager: TokenManager) -> None:
    dead = manager.headers("FHKST01010100")["authorization"]
    gateway.expire()
    good = manager.refresh(dead).bearer
    transport.watch()
    both = threading.Barrier(8)

    def call(authorization: str) -> bool:
        scope = Scope(authorization, None, watching=True)
        contextvars.Context().run(ask, scope, authorization)
        both.wait(10)
        return transport.is_refusal(scope.answer, ["EGW00123"])

    def ask(scope: Scope, authorization: str) -> None:
        CURRENT.set(scope)
        both.wait(10)
        session.get(gateway.url + PRICE, headers={"authorization": authorization})

    with requests.Session() as session, ThreadPoolExecutor(8) as pool:
        heard = list(pool.map(call, [dead, good] * 4))
    assert heard == [True, False] * 4


def test_tasks_that_share_a_client_do_not_disturb_each_other(gateway: KisGateway, manager: TokenManager) -> None:
    dead = manager.headers("FHKST01010100")["authorization"]
    gateway.expire()
    good = manager.refresh(dead).bearer
    transport.watch()

    async def call(client: httpx.AsyncClient, authorization: str) -> bool:
        scope = Scope(authorization, None, watching=True)
        CURRENT.set(scope)
        await client.get(gateway.url + PRICE, headers={"authorization": authorization})
        await asyncio.sleep(0.01)
        return transport.is_refusal(scope.answer, ["EGW00123"])

    async def run() -> list[bool]:
        async with httpx.AsyncClient() as client:
            return await asyncio.gather(*(call(client, held) for held in [dead, good] * 4))

    assert asyncio.run(run()) == [True, False] * 4


def test_a_good_call_beside_a_refused_one_is_made_once(gateway: KisGateway, manager: TokenManager) -> None:
    @refresh_on_expired_token(tokens=manager, watch_transport=True)
    def fetch(headers: dict[str, str]) -> str:
        shared.get(gateway.url + PRICE, headers=headers)
        return headers["authorization"]

    dead = manager.headers("FHKST01010100")
    gateway.expire()
    good = {"authorization": manager.refresh(dead["authorization"]).bearer}
    gateway.reset_counts()
    calls = [held for n in range(20) for held in ({"authorization": f"Bearer foreign-{n}"}, dict(good))]
    with requests.Session() as shared, ThreadPoolExecutor(2) as pool:
        assert list(pool.map(fetch, calls)) == [good["authorization"]] * 40
    assert (gateway.counts.calls, gateway.counts.refused, gateway.counts.token_requests) == (60, 20, 0)


# On and off.


def test_the_last_one_leaves_everything_as_it_was(plain: tuple[Any, ...]) -> None:
    transport.watch()
    transport.watch()
    transport.unwatch()
    assert all(now is not before for now, before in zip(_sends(), plain, strict=True))
    transport.unwatch()
    assert _sends() == plain


def test_what_was_patched_on_top_stays_and_hears_nothing_any_more(
    gateway: KisGateway, session: requests.Session, plain: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.watch()
    ours, seen = requests.Session.send, []

    def theirs(self: Any, request: Any, **options: Any) -> Any:
        seen.append(request.url)
        return ours(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", theirs)
    transport.unwatch()
    assert requests.Session.send is theirs
    assert _sends()[1:] == plain[1:]
    session.get(gateway.url + PRICE)
    assert seen == [gateway.url + PRICE]
    monkeypatch.undo()
    transport.watch()
    transport.unwatch()
    assert requests.Session.send is plain[0]


def test_after_somebody_put_the_first_one_back_it_is_heard_again(
    gateway: KisGateway, session: requests.Session, plain: tuple[Any, ...]
) -> None:
    transport.watch()
    requests.Session.send = plain[0]  # type: ignore[method-assign]  # as a mock does that began earlier
    transport.watch()
    scope = Scope("test", None, watching=True)
    CURRENT.set(scope)
    assert session.get(gateway.url + PRICE) is scope.answer
    transport.unwatch()
    transport.unwatch()
    assert _sends() == plain


def test_httpx_imported_later_is_heard_from_the_next_call_on(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = httpx.Client.send
    monkeypatch.delitem(sys.modules, "httpx")
    transport.watch()
    assert httpx.Client.send is plain
    monkeypatch.undo()
    transport.look_for_httpx()
    assert httpx.Client.send is not plain


def test_httpx_is_not_touched_where_nobody_wants_to_know(plain: tuple[Any, ...]) -> None:
    transport.look_for_httpx()
    assert _sends() == plain


def test_something_else_of_that_name_is_no_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", ModuleType("httpx"))
    transport.watch()
    assert requests.Session.send.__name__ == "send"


# Through the decorator, and under the mocks of the field.


def _swallowing(manager: TokenManager, ask: Callable[[dict[str, str]], Any]) -> Callable[[], Any]:
    @refresh_on_expired_token(tokens=manager, watch_transport=True)
    def fetch(headers: dict[str, str]) -> Any:
        answer = ask(headers).json()
        return answer["output"] if answer["rt_cd"] == "0" else None

    return lambda: fetch(headers={})


def test_under_responses_a_swallowed_refusal_is_heard() -> None:
    with KisGateway().mocked() as gateway, requests.Session() as session:
        manager = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
        fetch = _swallowing(manager, lambda headers: session.get(HOST + PRICE, headers=headers))
        assert fetch() is not None
        gateway.expire()
        assert fetch() is not None
        assert (gateway.counts.refused, gateway.counts.token_requests) == (1, 2)


def test_under_bare_responses_too(gateway: KisGateway, manager: TokenManager) -> None:
    with responses.RequestsMock() as mock, requests.Session() as session:
        mock.add_passthru(gateway.url)
        mock.get(HOST + PRICE, json=EXPIRED, status=500)
        mock.get(HOST + PRICE, json=GOOD)
        fetch = _swallowing(manager, lambda headers: session.get(HOST + PRICE, headers=headers))
        manager.token()
        gateway.expire()
        assert fetch() == {}


def test_under_respx_a_swallowed_refusal_is_heard(gateway: KisGateway, manager: TokenManager) -> None:
    with respx.mock(base_url=HOST) as mock, httpx.Client() as client:
        mock.get(PRICE).side_effect = [httpx.Response(500, json=EXPIRED), httpx.Response(200, json=GOOD)]
        fetch = _swallowing(manager, lambda headers: client.get(HOST + PRICE, headers=headers))
        manager.token()
        gateway.expire()
        assert fetch() == {}
    assert gateway.counts.token_requests == 2


def test_under_respx_a_refusal_swallowed_in_a_task_is_heard(gateway: KisGateway, manager: TokenManager) -> None:
    @refresh_on_expired_token(tokens=manager, watch_transport=True)
    async def fetch(client: httpx.AsyncClient, headers: dict[str, str]) -> Any:
        answer = (await client.get(HOST + PRICE, headers=headers)).json()
        return answer["output"] if answer["rt_cd"] == "0" else None

    async def run() -> Any:
        async with httpx.AsyncClient() as client:
            return await fetch(client, {})

    with respx.mock(base_url=HOST) as mock:
        mock.get(PRICE).side_effect = [httpx.Response(200, json=EXPIRED), httpx.Response(200, json=GOOD)]
        manager.token()
        gateway.expire()
        assert asyncio.run(run()) == {}
    assert gateway.counts.token_requests == 2


@pytest.mark.parametrize("end", ["returns", "raises"])
def test_a_refusal_counts_whatever_the_function_made_of_it(
    end: str, gateway: KisGateway, manager: TokenManager, session: requests.Session
) -> None:
    @refresh_on_expired_token(tokens=manager, watch_transport=True)
    def fetch(headers: dict[str, str]) -> str:
        for exchange in ("NYS", "NAS"):
            answer = session.get(gateway.url + PRICE, params={"FID_INPUT_ISCD": exchange}, headers=headers).json()
            if answer["rt_cd"] == "0":
                return exchange
        if end == "raises":
            raise ValueError("not found")
        return "not found"

    assert fetch(headers={}) == "NYS"
    gateway.expire()
    assert fetch(headers={"authorization": manager.authorization}) == "NYS"
    assert (gateway.counts.refused, gateway.counts.token_requests) == (2, 2)


def test_what_a_task_of_the_call_hears_belongs_to_the_call(gateway: KisGateway, manager: TokenManager) -> None:
    @refresh_on_expired_token(tokens=manager, watch_transport=True)
    async def fetch(headers: dict[str, str]) -> list[bool]:
        async def ask() -> bool:
            answer = (await client.get(gateway.url + PRICE, headers=headers)).json()
            return bool(answer["rt_cd"] == "0")

        async with httpx.AsyncClient() as client:
            questions: list[Awaitable[bool]] = [asyncio.create_task(ask()) for _ in range(3)]
            return [await question for question in questions]

    headers = manager.headers("FHKST01010100")
    gateway.expire()
    assert asyncio.run(fetch(headers)) == [True] * 3
    assert gateway.counts.token_requests == 2
