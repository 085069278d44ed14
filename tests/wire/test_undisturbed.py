"""What programs put around their requests, and what stands in for the network in tests, works as without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPDigestAuth
from urllib3 import Retry

from kis_retry import RefreshEvent, protect, refresh_on_expired_token
from kis_retry.testing import KisGateway
from senders import ORDER, PRICE, both, headers_for, issued, sent

ANSWERED = {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": ""}
EXPIRED = {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "기간이 만료된 token 입니다."}
KIS = "https://openapi.koreainvestment.com:9443"
BODY = {"PDNO": "005930"}


# urllib3's own retries.


@pytest.fixture
def retrying(gateway: KisGateway) -> Iterator[requests.Session]:
    """A session as batches have it, which repeats everything."""
    retry = Retry(3, status_forcelist=[429, 500, 502, 503], allowed_methods=None, backoff_factor=0.01)
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.headers.update(headers_for(gateway))
        yield session


@pytest.mark.parametrize("protect", [refresh_on_expired_token, both])
def test_a_read_of_a_session_that_retries_is_renewed_at_once(
    protect: Any, retrying: requests.Session, gateway: KisGateway
) -> None:
    gateway.expire()
    assert protect(lambda: retrying.get(gateway.url + PRICE, timeout=9).json()["msg_cd"])() == "MCA00000"
    assert gateway.counts.refused == 1, "nobody repeated the dead token underneath"


def test_a_read_without_the_transient_rule_is_repeated_as_its_session_says(
    retrying: requests.Session, gateway: KisGateway, events: list[RefreshEvent]
) -> None:
    gateway.fail(503, times=2)
    fetch = refresh_on_expired_token(lambda: retrying.get(gateway.url + PRICE, timeout=9).json()["msg_cd"])
    assert fetch() == "MCA00000"
    assert events == []


FAULTS: dict[str, Callable[[KisGateway], None]] = {
    "drop": lambda gateway: gateway.drop(times=2, reached=True),
    "503": lambda gateway: gateway.fail(503, times=2, reached=True),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("protect", [refresh_on_expired_token, both])
def test_an_order_of_a_session_that_retries_leaves_once(
    protect: Any, fault: str, retrying: requests.Session, gateway: KisGateway
) -> None:
    FAULTS[fault](gateway)

    def place() -> None:
        for _ in range(2):
            try:
                retrying.post(gateway.url + ORDER, json=BODY, timeout=9)
            except requests.RequestException:
                continue

    protect(place)()
    assert (sent(gateway), len(gateway.orders)) == (1, 1)


# Hooks, and `raise_for_status`.


def raising(response: requests.Response, **_: Any) -> None:
    response.raise_for_status()


def test_a_response_hook_runs_once_on_the_final_answer(gateway: KisGateway) -> None:
    seen: list[Any] = []

    def count(response: requests.Response, **options: Any) -> None:
        seen.append((response.status_code, sorted(options), options["timeout"]))

    def fetch(**hooks: Any) -> Any:
        return requests.get(gateway.url + PRICE, headers=headers, timeout=9, hooks=hooks).json()["msg_cd"]

    headers = headers_for(gateway)
    fetch(response=count)
    gateway.expire()
    gateway.refuse_calls("EGW00201", 1)
    assert both(fetch)(response=[count, raising]) == "MCA00000"
    assert seen == [seen[0]] * 2, "with the arguments that it gets without"


def test_what_a_hook_raises_or_gives_back_is_the_outcome(gateway: KisGateway) -> None:
    def fetch(hook: Any) -> Any:
        return requests.get(gateway.url + PRICE, headers=headers_for(gateway), timeout=9, hooks={"response": hook})

    gateway.refuse_calls("EGW00206")
    with pytest.raises(requests.HTTPError):
        both(fetch)(raising)
    assert both(fetch)(lambda response, **_: "another") == "another"
    assert gateway.counts.calls == 2


def test_the_event_hooks_of_httpx_run_once(gateway: KisGateway) -> None:
    seen: list[Any] = []

    def failing(response: httpx.Response) -> None:
        seen.append(response.status_code)
        response.raise_for_status()

    with httpx.Client(event_hooks={"request": [seen.append], "response": [failing]}) as client:
        gateway.expire()
        both(client.get)(gateway.url + PRICE, headers=headers_for(gateway))
    assert [type(each) for each in seen] == [httpx.Request, int]
    assert seen[1] == 200


async def _checked(response: aiohttp.ClientResponse) -> None:
    response.raise_for_status()


@pytest.mark.parametrize("option", [True, _checked])
@pytest.mark.parametrize("of_session", [True, False])
async def test_raise_for_status_of_aiohttp_sees_the_final_answer(
    option: Any, of_session: bool, gateway: KisGateway
) -> None:
    of = [{"raise_for_status": option}, {}]
    made, asked = of if of_session else reversed(of)

    @both
    async def fetch() -> Any:
        async with (
            aiohttp.ClientSession(headers=headers, **made) as session,
            session.get(gateway.url + PRICE, **asked) as response,
        ):
            return (await response.json())["msg_cd"]

    headers = headers_for(gateway)
    gateway.expire()
    gateway.refuse_calls("EGW00201", 1)
    assert await fetch() == "MCA00000"
    gateway.refuse_calls("EGW00206")
    with pytest.raises(aiohttp.ClientResponseError):
        await fetch()


# What sits inside `requests` and `httpx`.


def test_requests_cache_keeps_final_answers(gateway: KisGateway) -> None:
    requests_cache = pytest.importorskip("requests_cache")
    headers = headers_for(gateway)
    with requests_cache.CachedSession(backend="memory", allowable_codes=[200, 500]) as session:
        fetch = both(lambda: session.get(gateway.url + PRICE, headers=headers, timeout=9))
        gateway.expire()
        first, second = fetch(), fetch()
    assert (first.from_cache, second.from_cache) == (False, True)
    assert [answer.json()["msg_cd"] for answer in (first, second)] == ["MCA00000"] * 2
    assert gateway.counts.calls == 2


def _digest(connection: Any) -> None:
    said = connection.recv(65536).decode()
    head, body = ("200 OK", '{"rt_cd": "0"}') if "Digest username" in said else ("401 Unauthorized", "")
    ask = 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n'
    connection.sendall(
        f"HTTP/1.1 {head}\r\n{ask}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    )


def test_digest_authentication_works(listen: Any) -> None:
    url = f"http://{listen(_digest)}{PRICE}"
    fetch = both(lambda auth: requests.get(url, auth=auth, timeout=9).status_code)
    assert fetch(HTTPDigestAuth("user", "password")) == 200
    fetch = both(lambda auth: httpx.get(url, auth=auth).status_code)
    assert fetch(httpx.DigestAuth("user", "password")) == 200


def test_a_session_of_httpx_that_carries_requests_is_judged_once(
    gateway: KisGateway, events: list[RefreshEvent]
) -> None:
    """However many layers wrap it."""

    class Through(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            headers = {name: value for name, value in request.headers.items() if name != "host"}
            response = requests.request(request.method, str(request.url), headers=headers, timeout=9)
            return httpx.Response(response.status_code, content=response.content)

    with httpx.Client(transport=Through()) as client:
        gateway.expire()
        assert both(client.get)(gateway.url + PRICE, headers=headers_for(gateway)).json()["msg_cd"] == "MCA00000"
    assert [event.name for event in events].count("token_expired") == 1
    assert gateway.counts.calls == 2


# What stands in for the network.


def fetch_kis(get: Any, gateway: KisGateway) -> Any:
    """Ask for a price where the stand-in is; its token comes from the gateway."""
    return both(lambda: get(gateway.url + PRICE, headers=headers_for(gateway)).json())()


def test_responses(gateway: KisGateway) -> None:
    responses = pytest.importorskip("responses")
    gateway.expire()
    with responses.RequestsMock() as mock:
        mock.add_passthru(gateway.url + "/oauth2")
        mock.get(gateway.url + PRICE, json=EXPIRED, status=500)
        mock.get(gateway.url + PRICE, json=ANSWERED)
        assert fetch_kis(requests.get, gateway) == ANSWERED
        assert len(mock.calls) == 2


def test_requests_mock() -> None:
    """It keeps `Session.send` for itself when it is imported."""
    pytest.importorskip("requests_mock")
    program = "\n".join([
        "import requests_mock, requests, datetime",
        "from kis_retry import refresh_on_expired_token, AccessToken",
        "class Source:",
        "    def token(self): return AccessToken('old', datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc))",
        "    def refresh(self, rejected): return AccessToken('new', self.token().expires_at)",
        "@refresh_on_expired_token(tokens=Source())",
        f"def fetch(): return requests.get('{KIS}{PRICE}', headers={{'authorization': 'Bearer old'}}).json()['msg_cd']",
        "with requests_mock.Mocker() as mock:",
        f"    answers = [{{'json': {EXPIRED!r}, 'status_code': 500}}, {{'json': {ANSWERED!r}}}]",
        f"    mock.get('{KIS}{PRICE}', answers)",
        "    print(fetch(), [each.headers['authorization'] for each in mock.request_history])",
    ])  # fmt: skip
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout == "MCA00000 ['Bearer old', 'Bearer new']\n", run.stderr


def test_respx(gateway: KisGateway) -> None:
    respx = pytest.importorskip("respx")
    gateway.expire()
    with respx.mock() as mock:
        route = mock.get(gateway.url + PRICE)
        route.side_effect = [httpx.Response(500, json=EXPIRED), httpx.Response(200, json=ANSWERED)]
        assert fetch_kis(httpx.get, gateway) == ANSWERED
        assert route.call_count == 2


def test_pytest_httpx(gateway: KisGateway, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("pytest_httpx")
    mock = request.getfixturevalue("httpx_mock")
    gateway.expire()
    mock.add_response(url=gateway.url + PRICE, status_code=500, json=EXPIRED)
    mock.add_response(url=gateway.url + PRICE, json=ANSWERED)
    assert fetch_kis(httpx.get, gateway) == ANSWERED


@pytest.mark.parametrize("get", [requests.get, httpx.get])
def test_vcr(get: Any, gateway: KisGateway, tmp_path: Path) -> None:
    vcr = pytest.importorskip("vcr")
    cassette = str(tmp_path / "cassette.yaml")
    with vcr.use_cassette(cassette, ignore_localhost=False, match_on=["method", "path"]):
        gateway.expire()
        recorded = fetch_kis(get, gateway)
    calls = gateway.counts.calls
    with vcr.use_cassette(cassette, ignore_localhost=False, match_on=["method", "path"], record_mode="none"):
        assert fetch_kis(get, gateway) == recorded
    assert recorded["msg_cd"] == "MCA00000"
    assert gateway.counts.calls == calls == 2


def test_others_may_take_our_wrapper_off_and_put_theirs_on(gateway: KisGateway) -> None:
    """As `uninstrument()` of an APM agent does it."""
    fetch = both(lambda: requests.get(gateway.url + PRICE, headers=headers_for(gateway), timeout=9).json()["msg_cd"])
    fetch()  # puts our wrapper on
    ours = requests.Session.send
    counted: list[int] = []

    def counting(session: requests.Session, *given: Any, **named: Any) -> Any:
        counted.append(1)
        return ours(session, *given, **named)

    with ExitStack() as undo:
        undo.callback(setattr, requests.Session, "send", ours)
        for send in (ours.__wrapped__, counting):  # type: ignore[attr-defined]  # a wrapper has it
            requests.Session.send = send  # type: ignore[assignment, method-assign]
            gateway.expire()
            gateway.reset_counts()
            assert fetch() == "MCA00000"
            assert gateway.counts.calls == 2
    assert len(counted) >= 1


# What is only to be noticed.


def test_requests_that_are_only_noticed_are_as_without(retrying: requests.Session, gateway: KisGateway) -> None:
    class Library:
        def read(self) -> Any:
            return requests.get(gateway.url + PRICE, headers=headers, timeout=9).json()["msg_cd"]

        def order(self) -> Any:
            return retrying.post(gateway.url + ORDER, json=BODY, timeout=9).json()["rt_cd"]

    headers = headers_for(gateway)
    library = protect(Library(), watch_transport=False)
    gateway.refuse_calls("EGW00201", 1)
    assert [library.read(), library.read()] == ["EGW00201", "MCA00000"]
    gateway.expire()
    assert library.read() == "EGW00123"
    assert gateway.counts.calls == 3
    gateway.fail(503, times=2)
    retrying.headers["authorization"] = issued(gateway)
    assert library.order() == "0", "its session repeats it, as it was told to"
    assert sent(gateway) == 3
