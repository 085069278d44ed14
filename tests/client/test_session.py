"""The client's own session: its connections, the environment that it reads once, and the time that it gives a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from kis_retry import ConfigurationError, KisClient, TokenManager
from kis_retry.client.session import valid_timeout
from kis_retry.testing import KisGateway

ORDER = "/uapi/domestic-stock/v1/trading/order-cash"


@pytest.fixture
def opened(manager: TokenManager, monkeypatch: pytest.MonkeyPatch) -> list[requests.Session]:
    """The sessions that clients open for themselves; the manager has its token."""
    manager.token()
    made: list[requests.Session] = []
    open_one = requests.Session

    def note() -> requests.Session:
        made.append(open_one())
        return made[-1]

    monkeypatch.setattr("kis_retry.client.session.requests.Session", note)
    return made


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_sixty_four_threads_keep_their_connections(scheme: str, client: KisClient, opened: list[Any]) -> None:
    client.fetch_domestic_price("005930")
    (session,) = opened
    adapter = session.get_adapter(f"{scheme}://127.0.0.1/")
    assert adapter.poolmanager.connection_pool_kw["maxsize"] == 64


def test_one_session_serves_reads_and_orders(client: KisClient, opened: list[requests.Session]) -> None:
    client.fetch_domestic_price("005930")
    client.post(ORDER, "TTTC0012U")
    client.fetch_domestic_price("005930")
    assert len(opened) == 1


def test_a_read_is_prepared_once_for_its_transaction_and_an_order_each_time(
    client: KisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.access_token  # noqa: B018  # the first token
    prepared: list[Any] = []
    prepare = requests.Session.prepare_request

    def note(session: requests.Session, request: requests.Request) -> requests.PreparedRequest:
        prepared.append(request.method)
        return prepare(session, request)

    monkeypatch.setattr(requests.Session, "prepare_request", note)
    for symbol in ("005930", "000660", "035420"):
        client.fetch_domestic_price(symbol)
    for _ in range(2):
        client.post(ORDER, "TTTC0012U")
    assert prepared == ["GET", "POST", "POST"]


@pytest.mark.parametrize("first", ["read", "order"])
def test_the_environment_is_read_once_and_a_netrc_never(
    first: str, client: KisClient, gateway: KisGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login name password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    calls = [lambda: client.fetch_domestic_price("005930"), lambda: client.post(ORDER, "TTTC0012U")]
    for call in calls if first == "read" else reversed(calls):
        assert call()["rt_cd"] == "0"
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody listens there
        monkeypatch.setenv("NO_PROXY", "")
    assert gateway.counts.refused == 0


def test_an_order_without_a_body_is_an_empty_object(client: KisClient, gateway: KisGateway) -> None:
    assert client.post(ORDER, "TTTC0012U")["rt_cd"] == "0"
    assert gateway.orders == [{}]


@pytest.mark.parametrize(("given", "limit"), [({}, (3.05, 10.0)), ({"timeout": 7}, 7), ({"timeout": (1, 2)}, (1, 2))])
@pytest.mark.parametrize("own", [True, False])
def test_every_request_has_its_time_limit(
    given: dict[str, Any], limit: object, own: bool, manager: TokenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.token()
    limits: list[object] = []
    send = requests.adapters.HTTPAdapter.send

    def note(adapter: Any, request: Any, **options: Any) -> requests.Response:
        limits.append(options["timeout"])
        return send(adapter, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", note)
    with requests.Session() as session:
        client = KisClient(tokens=manager, session=None if own else session, **given)
        client.fetch_domestic_price("005930")
        client.post(ORDER, "TTTC0012U")
        client.close()
    assert limits == [limit, limit]


@pytest.mark.parametrize("timeout", [1, 0.001, 86_400, (3.05, 10), (0.1, 0.1)])
def test_a_time_limit_is_seconds_or_seconds_to_connect_and_to_read(timeout: Any) -> None:
    assert valid_timeout(timeout) is timeout


@pytest.mark.parametrize(
    "timeout",
    [
        *(None, 0, -1.0, float("inf"), float("nan"), "3", True, [1, 2]),
        *((), (1.0,), (1, 2, 3), (1.0, None), (None, 1.0), (0, 1), (1, 0), (1, float("inf")), (1, True), ("1", 1)),
    ],
)
def test_nothing_else_is_one_for_a_call_without_may_hang_for_ever(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not usable: it takes seconds, or seconds to connect and to read"):
        valid_timeout(timeout)
