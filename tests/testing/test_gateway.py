"""The rules of KIS as the gateway for tests keeps them: requests go straight to the state machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from freezegun import freeze_time

from kis_retry.testing import KisGateway
from kis_retry.testing.wire import Dropped, Hung, Request, Response, WireResponse

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
DETAIL = "/uapi/overseas-price/v1/quotations/price-detail"
INFO = "/uapi/domestic-stock/v1/quotations/search-info"
STOCK = "/uapi/domestic-stock/v1/quotations/search-stock-info"
OFFERS = "/uapi/domestic-stock/v1/ksdinfo/pub-offer"
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
NINE_IN_SEOUL = 1_795_478_400.0  # 2026-11-24 09:00:00 +09:00


class Caller:
    """Somebody with the right key, who counts the seconds himself."""

    def __init__(self, **settings: Any) -> None:
        self.now = NINE_IN_SEOUL
        self.gateway = KisGateway(clock=lambda: self.now, **settings)
        self.gateway.claim("http://gateway.test")

    def send(self, method: str, path: str, body: object = None, **rest: Any) -> Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.gateway.receive(Request(method, path, body=raw, **rest))

    def keys(self, **changed: Any) -> dict[str, Any]:
        credentials = self.gateway.credentials
        return {"appkey": credentials.app_key, "appsecret": credentials.app_secret, **changed}

    def ask_token(self, realm: Any = "real", **changed: Any) -> tuple[int, dict[str, Any]]:
        body = {"grant_type": "client_credentials", **self.keys(**changed)}
        return opened(self.send("POST", "/oauth2/tokenP", body, realm=realm))

    def token(self) -> str:
        status, body = self.ask_token()
        assert status == 200, body
        return str(body["access_token"])

    def raw_call(self, token: str | None, path: str = PRICE, query: dict[str, str] | None = None) -> Response:
        headers = {"tr_id": "FHKST01010100"} if token is None else {"tr_id": "T1", "authorization": f"Bearer {token}"}
        return self.send("GET", path, query=query or {"FID_INPUT_ISCD": "005930"}, headers=headers)

    def call(self, token: str | None, path: str = PRICE, **query: str) -> dict[str, Any]:
        return opened(self.raw_call(token, path, query))[1]

    def post(self, token: str, path: str, body: object) -> dict[str, Any]:
        return opened(self.send("POST", path, body, headers={"authorization": f"Bearer {token}"}))[1]

    def price(self, symbol: str, tr_id: str = "FHKST01010100") -> dict[str, Any]:
        """The output of inquire-price."""
        token = self.gateway.current_token or self.token()
        headers = {"authorization": f"Bearer {token}", "tr_id": tr_id}
        body = opened(self.send("GET", PRICE, headers=headers, query={"FID_INPUT_ISCD": symbol}))[1]
        assert body["rt_cd"] == "0"
        return dict(body["output"])

    def judged(self, token: str | None) -> str:
        """The code of one call: "MCA00000" or the refusal's."""
        return str(self.call(token)["msg_cd"])


def opened(verdict: Response) -> tuple[int, dict[str, Any]]:
    assert isinstance(verdict, WireResponse), verdict
    body = json.loads(verdict.body)
    assert isinstance(body, dict)
    return verdict.status, body


@pytest.fixture
def caller() -> Caller:
    return Caller()


# -- issuing


def test_a_token_comes_with_the_four_fields_of_kis(caller: Caller) -> None:
    status, body = caller.ask_token()
    assert status == 200
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 86_400
    assert body["access_token_token_expired"] == "2026-11-25 09:00:00"
    assert body["access_token"].count(".") == 2
    assert body["access_token"].startswith("eyJ")
    assert len(body["access_token"]) <= 350


def test_korean_is_sent_as_it_is(caller: Caller) -> None:
    for response in (caller.raw_call(caller.token()), caller.raw_call(None)):
        assert isinstance(response, WireResponse)
        assert ("정상처리" in response.body.decode()) is (response.status == 200)
        assert ("token을 찾을 수 없습니다." in response.body.decode()) is (response.status == 500)


def test_the_lifetime_is_a_setting() -> None:
    caller = Caller(lifetime=7_776_000)
    body = caller.ask_token()[1]
    assert (body["expires_in"], body["access_token_token_expired"]) == (7_776_000, "2027-02-22 09:00:00")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"appkey": "wrong"}, "EGW00103"),
        ({"appkey": "!"}, "EGW00103"),
        ({"appkey": "~"}, "EGW00103"),
        ({"appkey": None}, "EGW00103"),
        ({"appsecret": "wrong"}, "EGW00105"),
        ({"appsecret": "!"}, "EGW00105"),
        ({"appsecret": "~"}, "EGW00105"),
        ({"appkey": "wrong", "appsecret": "wrong"}, "EGW00103"),
        ({"grant_type": "authorization_code"}, "EGW00115"),
        ({"grant_type": "password"}, "EGW00115"),
    ],
)
def test_a_wrong_token_request_is_refused_by_its_first_fault(
    caller: Caller, changed: dict[str, Any], code: str
) -> None:
    status, body = caller.ask_token(**changed)
    assert (status, body["error_code"]) == (403, code)
    assert body["error_description"]
    assert "rt_cd" not in body
    assert caller.gateway.counts == {**dict.fromkeys(caller.gateway.counts, 0), "token_requests": 1} | {
        "token_requests_refused": 1
    }


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"text"', b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_a_token_request_without_a_json_object_is_refused(caller: Caller, body: bytes) -> None:
    status, answer = opened(caller.send("POST", "/oauth2/tokenP", body))
    assert (status, answer["error_code"]) == (403, "EGW00115")


def test_a_wrong_key_does_not_use_up_the_minute(caller: Caller) -> None:
    caller.ask_token(appkey="wrong")
    assert caller.ask_token()[0] == 200


@pytest.mark.parametrize(("later", "status"), [(0, 403), (59.9, 403), (60, 200)])
def test_a_token_is_issued_once_a_minute(caller: Caller, later: float, status: int) -> None:
    caller.token()
    caller.now += later
    answer = caller.ask_token()
    assert answer[0] == status
    if status == 403:
        assert answer[1] == {
            "error_code": "EGW00133",
            "error_description": "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)",
        }


def test_a_refused_token_request_does_not_start_the_minute_afresh(caller: Caller) -> None:
    caller.token()
    caller.now += 59
    caller.ask_token()
    caller.now += 1
    assert caller.ask_token()[0] == 200


@pytest.mark.parametrize(("later", "same"), [(60, True), (6 * 3600 - 1, True), (6 * 3600, False)])
def test_within_six_hours_the_same_token_is_handed_out_again(caller: Caller, later: int, same: bool) -> None:
    first = caller.ask_token()[1]
    caller.now += later
    second = caller.ask_token()[1]
    assert (second["access_token"] == first["access_token"]) is same
    assert (second["access_token_token_expired"] == first["access_token_token_expired"]) is same
    assert second["expires_in"] == (86_400 - later if same else 86_400)
    assert caller.gateway.counts.tokens_issued == 2


def test_the_six_hours_count_from_the_first_issue_of_the_token(caller: Caller) -> None:
    first = caller.token()
    caller.now += 5 * 3600
    assert caller.token() == first
    caller.now += 3600
    assert caller.token() != first


def test_a_token_replaced_after_six_hours_lives_on(caller: Caller) -> None:
    old = caller.token()
    caller.now += 6 * 3600
    new = caller.token()
    assert (caller.judged(old), caller.judged(new)) == ("MCA00000", "MCA00000")


@pytest.mark.parametrize(
    ("later", "msg_cd"), [(0, "MCA00000"), (86_399, "MCA00000"), (86_400, "EGW00123"), (90_000, "EGW00123")]
)
def test_a_token_lives_24_hours(caller: Caller, later: int, msg_cd: str) -> None:
    token = caller.token()
    caller.now += later
    assert caller.judged(token) == msg_cd


def test_a_token_shorter_lived_than_six_hours_is_not_handed_out_dead() -> None:
    caller = Caller(lifetime=3600)
    old = caller.token()
    caller.now += 3600
    new = caller.token()
    assert new != old
    assert caller.judged(new) == "MCA00000"


def test_without_a_clock_of_its_own_the_gateway_follows_the_frozen_one() -> None:
    with freeze_time("2026-11-24 00:00:00") as frozen:
        gateway = KisGateway()
        stamp = gateway.issue_elsewhere()["access_token_token_expired"]
        assert stamp == "2026-11-25 09:00:00"
        request = Request("GET", PRICE, headers={"authorization": f"Bearer {gateway.current_token}"})
        assert opened(gateway.receive(request))[0] == 200
        frozen.tick(timedelta(hours=24))
        assert opened(gateway.receive(request))[1]["msg_cd"] == "EGW00123"


@pytest.mark.parametrize("zone", ["UTC", "Asia/Seoul", "America/New_York"])
def test_the_stamp_is_seoul_time_wherever_the_test_runs(
    caller: Caller, zone: str, monkeypatch: pytest.MonkeyPatch, local_time: Callable[[], None]
) -> None:
    monkeypatch.setenv("TZ", zone)
    local_time()
    stamp = datetime.strptime(caller.ask_token()[1]["access_token_token_expired"], "%Y-%m-%d %H:%M:%S")
    instant = stamp.replace(tzinfo=timezone(timedelta(hours=9)))
    assert instant.timestamp() == NINE_IN_SEOUL + 86_400


@pytest.fixture
def local_time() -> Iterator[Callable[[], None]]:
    import time

    tzset: Callable[[], None] = getattr(time, "tzset", lambda: None)  # Windows has none
    yield tzset
    tzset()


def test_the_two_hosts_do_not_know_each_others_tokens(caller: Caller) -> None:
    paper = caller.ask_token(realm="paper")[1]["access_token"]
    assert caller.judged(paper) == "EGW00121"
    real = caller.token()
    assert real != paper
    assert caller.judged(real) == "MCA00000"


def test_a_token_issued_elsewhere_is_good_and_holds_up_the_next_request(caller: Caller) -> None:
    mine = caller.token()
    caller.gateway.expire()
    before = caller.gateway.counts
    answer = caller.gateway.issue_elsewhere()
    assert answer["access_token"] not in {mine, None}
    assert caller.gateway.issue_elsewhere()["access_token"] == answer["access_token"]
    assert caller.gateway.counts == before
    assert caller.gateway.current_token == answer["access_token"]
    assert caller.ask_token()[1]["error_code"] == "EGW00133"
    assert caller.judged(answer["access_token"]) == "MCA00000"


def test_the_current_token_is_the_newest(caller: Caller) -> None:
    assert caller.gateway.current_token is None
    token = caller.token()
    caller.gateway.expire()
    assert caller.gateway.current_token == token


# -- revoking


def test_a_revoked_token_is_invalid_and_not_handed_out_again(caller: Caller) -> None:
    token = caller.token()
    status, body = opened(caller.send("POST", "/oauth2/revokeP", caller.keys(token=token)))
    assert (status, body["code"]) == (200, 200)
    assert caller.judged(token) == "EGW00121"
    caller.gateway.expire()
    assert caller.judged(token) == "EGW00121"
    assert caller.token() != token


def test_revoking_does_not_lift_the_once_a_minute_rule(caller: Caller) -> None:
    token = caller.token()
    caller.send("POST", "/oauth2/revokeP", caller.keys(token=token))
    assert caller.ask_token()[1]["error_code"] == "EGW00133"
    caller.now += 60
    assert caller.token() != token


@pytest.mark.parametrize(("changed", "code"), [({"appkey": "x"}, "EGW00103"), ({"appsecret": "x"}, "EGW00105")])
def test_only_the_owner_revokes(caller: Caller, changed: dict[str, str], code: str) -> None:
    token = caller.token()
    status, body = opened(caller.send("POST", "/oauth2/revokeP", caller.keys(token=token, **changed)))
    assert (status, body["error_code"]) == (403, code)
    assert caller.judged(token) == "MCA00000"


def test_revoking_an_unknown_token_changes_nothing(caller: Caller) -> None:
    token = caller.token()
    assert opened(caller.send("POST", "/oauth2/revokeP", caller.keys(token="nobody's")))[0] == 200
    assert caller.judged(token) == "MCA00000"


# -- refusing calls


@pytest.mark.parametrize("status", [500, 200])
def test_a_dead_token_is_refused_in_the_words_of_kis(status: int) -> None:
    caller = Caller(expired_status=status)
    token = caller.token()
    caller.gateway.expire()
    assert opened(caller.raw_call(token)) == (
        status,
        {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "기간이 만료된 token 입니다."},
    )


@pytest.mark.parametrize(
    ("header", "msg_cd"),
    [
        (None, "EGW00122"),
        ("", "EGW00122"),
        ("Bearer", "EGW00122"),
        ("Bearer ", "EGW00122"),
        ("Basic abc", "EGW00122"),
        ("bearer {token}", "EGW00122"),
        ("Token {token}", "EGW00122"),
        ("{token}", "EGW00122"),
        ("Bearer nobody's", "EGW00121"),
        ("Bearer Bearer {token}", "EGW00121"),
        ("Bearer {token}", "MCA00000"),
    ],
)
def test_the_authorization_header_is_judged(caller: Caller, header: str | None, msg_cd: str) -> None:
    headers = {} if header is None else {"authorization": header.format(token=caller.token())}
    assert opened(caller.send("GET", PRICE, headers=headers))[1]["msg_cd"] == msg_cd


@pytest.mark.parametrize(
    ("headers", "msg_cd"),
    [
        ({}, "MCA00000"),
        ({"appkey": "{key}"}, "MCA00000"),
        ({"appkey": "{key}", "appsecret": "{secret}"}, "MCA00000"),
        ({"appkey": "wrong"}, "EGW00103"),
        ({"appkey": ""}, "EGW00103"),
        ({"appkey": "~"}, "EGW00103"),
        ({"appsecret": "wrong"}, "EGW00304"),
        ({"appsecret": ""}, "EGW00304"),
        ({"appsecret": "~"}, "EGW00304"),
        ({"appkey": "{key}", "appsecret": "{secret}x"}, "EGW00304"),
    ],
)
@pytest.mark.parametrize("realm", ["real", "paper"])
def test_a_key_or_secret_that_is_sent_with_a_call_must_be_right(
    caller: Caller, headers: dict[str, str], msg_cd: str, realm: Any
) -> None:
    credentials = caller.gateway.credentials
    sent = {n: v.format(key=credentials.app_key, secret=credentials.app_secret) for n, v in headers.items()}
    token = caller.ask_token(realm=realm)[1]["access_token"]
    response = caller.send("GET", PRICE, headers={"authorization": f"Bearer {token}", **sent}, realm=realm)
    status, body = opened(response)
    assert (status, body["msg_cd"]) == (200 if msg_cd == "MCA00000" else 500, msg_cd)
    assert caller.gateway.counts.refused == (msg_cd != "MCA00000")


@pytest.mark.parametrize("msg_cd", ["EGW00121", "EGW00122", "EGW00123"])
def test_every_refusal_for_the_token_has_the_expired_status(msg_cd: str) -> None:
    caller = Caller(expired_status=200)
    token = caller.token()
    caller.gateway.expire()
    refused = {"EGW00121": "nobody's", "EGW00122": None, "EGW00123": token}[msg_cd]
    status, body = opened(caller.raw_call(refused))
    assert (status, body["msg_cd"], body["rt_cd"]) == (200, msg_cd, "1")
    assert caller.gateway.counts.refused == 1


@pytest.mark.parametrize(
    "settings", [{"expired_status": 199}, {"expired_status": 600}, {"latency": -0.1}, {"rate_limit": 0}]
)
def test_an_unusable_setting_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))}=.* is not usable: it takes"):
        KisGateway(**settings)


@pytest.mark.parametrize(
    "settings", [{"expired_status": 200}, {"expired_status": 599}, {"latency": 0}, {"rate_limit": 1}]
)
def test_a_setting_at_the_edge_is_usable(settings: dict[str, Any]) -> None:
    KisGateway(**settings)


@pytest.mark.parametrize("value", ["", "a b", "키", "a\n"])
@pytest.mark.parametrize("name", ["app_key", "app_secret"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is not usable: it takes printable ASCII") as refused:
        KisGateway(**{name: value})  # type: ignore[arg-type]  # mypy takes every argument for a string
    assert not value or repr(value)[1:-1] not in str(refused.value)


# -- expiring


def test_expire_kills_every_live_token(caller: Caller) -> None:
    old = caller.token()
    caller.now += 6 * 3600
    new = caller.token()
    caller.gateway.expire()
    assert (caller.judged(old), caller.judged(new)) == ("EGW00123", "EGW00123")


def test_after_expire_a_new_token_may_be_had_at_once_and_its_stamp_is_true(caller: Caller) -> None:
    old = caller.ask_token()[1]
    caller.now += 10
    caller.gateway.expire()
    new = caller.ask_token()[1]
    assert new["access_token"] != old["access_token"]
    assert new["access_token_token_expired"] == "2026-11-25 09:00:10"
    assert caller.judged(new["access_token"]) == "MCA00000"
    assert caller.ask_token()[1]["error_code"] == "EGW00133"


def test_expire_at_strikes_just_before_the_call_of_that_number(caller: Caller) -> None:
    caller.gateway.expire_at(2, 4)
    token = caller.token()
    assert [caller.judged(token) for _ in range(3)] == ["MCA00000", "EGW00123", "EGW00123"]
    token = caller.token()
    assert caller.judged(token) == "EGW00123"
    token = caller.token()
    assert [caller.judged(token) for _ in range(3)] == ["MCA00000"] * 3


def test_expire_at_counts_over_the_gateways_life(caller: Caller) -> None:
    token = caller.token()
    caller.judged(token)
    caller.gateway.reset_counts()
    caller.gateway.expire_at(3)
    assert [caller.judged(token) for _ in range(2)] == ["MCA00000", "EGW00123"]
    assert caller.gateway.counts.calls == 2


def test_expire_at_counts_calls_that_a_fault_has_met_but_no_token_requests(caller: Caller) -> None:
    caller.gateway.expire_at(2)
    token = caller.token()
    caller.gateway.drop("calls", 1)
    caller.raw_call(token)
    assert caller.judged(token) == "EGW00123"


@pytest.mark.parametrize("calls", [(0,), (-1,), (1,), (5, 1)])
def test_expire_at_refuses_calls_that_are_past(caller: Caller, calls: tuple[int, ...]) -> None:
    caller.judged(None)
    with pytest.raises(ValueError, match="from 2"):
        caller.gateway.expire_at(*calls)


def test_under_many_threads_every_call_is_counted_and_exactly_one_meets_the_expiry() -> None:
    caller = Caller(issue_interval=0)
    token = caller.token()
    caller.gateway.expire_at(51)
    barrier = threading.Barrier(8)
    answers: list[str] = []

    def work() -> None:
        barrier.wait(timeout=10)
        for _ in range(25):
            answers.append(caller.judged(token))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert (answers.count("MCA00000"), answers.count("EGW00123")) == (50, 150)
    counts = caller.gateway.counts
    assert (counts.calls, counts.answered, counts.refused) == (200, 50, 150)


# -- counts


def test_counts_are_a_snapshot_by_attribute_and_by_key(caller: Caller) -> None:
    token = caller.token()
    before = caller.gateway.counts
    caller.judged(token)
    counts = caller.gateway.counts
    assert before["calls"] == before.calls == 0
    assert counts["calls"] == counts.calls == 1
    assert len(counts) == 6
    assert dict(counts) == {
        "calls": 1,
        "answered": 1,
        "refused": 0,
        "token_requests": 1,
        "tokens_issued": 1,
        "token_requests_refused": 0,
    }
    with pytest.raises(KeyError):
        counts["items"]


def test_reset_counts_starts_at_zero(caller: Caller) -> None:
    caller.judged(caller.token())
    caller.gateway.reset_counts()
    assert set(caller.gateway.counts.values()) == {0}


def test_what_is_not_under_oauth2_is_a_call(caller: Caller) -> None:
    for path in ("/", "/health", "/uapi/hashkey", PRICE):
        caller.send("GET", path)
    for path in ("/oauth2/tokenP", "/oauth2/revokeP", "/oauth2/Approval"):
        caller.send("GET", path)
    assert (caller.gateway.counts.calls, caller.gateway.counts.token_requests) == (4, 0)


# -- the services


@pytest.mark.parametrize("tr_id", ["FHKST01010100", "FHPST02400000"])
def test_a_domestic_price_is_answered_for_both_services(caller: Caller, tr_id: str) -> None:
    output = caller.price("069500", tr_id)
    assert output["stck_shrn_iscd"] == "069500"
    assert int(output["stck_prpr"]) > 0


def test_the_transactions_for_a_stock_and_for_an_etf_are_told_apart(caller: Caller) -> None:
    as_etf, as_stock = caller.price("069500", "FHPST02400000"), caller.price("069500", "FHKST01010100")
    assert as_etf["nav"] == f"{as_etf['stck_prpr']}.00"
    assert "nav" not in as_stock
    assert as_stock["rprs_mrkt_kor_name"]
    assert "rprs_mrkt_kor_name" not in as_etf


def test_the_transaction_for_an_etf_knows_no_price_of_a_stock(caller: Caller) -> None:
    assert (caller.price("005930", "FHPST02400000")["stck_prpr"], int(caller.price("005930")["stck_prpr"]) > 0) == (
        "0",
        True,
    )
    caller.gateway.list_etf("005930")
    assert caller.price("005930", "FHPST02400000")["nav"] != "0.00"


def test_the_path_for_etfs_needs_no_transaction_to_say_so(caller: Caller) -> None:
    path = "/uapi/etfetn/v1/quotations/inquire-price"
    assert caller.call(caller.token(), path, FID_INPUT_ISCD="069500")["output"]["nav"] != "0.00"


def test_parameter_names_may_be_in_lower_case(caller: Caller) -> None:
    assert caller.call(caller.token(), fid_input_iscd="005930")["output"]["stck_shrn_iscd"] == "005930"


@pytest.mark.parametrize(
    ("symbol", "home"),
    [
        ("AAPL", "NAS"),
        ("TSLA", "NAS"),
        ("KO", "NYS"),
        ("IBM", "NYS"),
        ("SPY", "AMS"),
        ("VOO", "AMS"),
        ("U00001", "NYS"),
        ("NONE1", None),
    ],
)
def test_an_overseas_price_is_found_where_the_symbol_is_listed(caller: Caller, symbol: str, home: str | None) -> None:
    token = caller.token()
    for exchange in ("NYS", "NAS", "AMS", "BAY", "BAQ", "BAA"):
        body = caller.call(token, DETAIL, AUTH="", EXCD=exchange, SYMB=symbol)
        assert body["rt_cd"] == "0"
        assert body["output"]["rsym"] == (f"D{exchange}{symbol}" if exchange == home else "")


@pytest.mark.parametrize("exchange", ["NYS", "HKS", "TSE", "SHS", "HSX"])
def test_any_symbol_is_listed_at_the_first_exchange_of_a_country(caller: Caller, exchange: str) -> None:
    body = caller.call(caller.token(), DETAIL, AUTH="", EXCD=exchange, SYMB="7203")
    assert body["output"]["rsym"] == f"D{exchange}7203"


def test_list_symbol_moves_a_symbol(caller: Caller) -> None:
    caller.gateway.list_symbol("U00001", "AMS")
    token = caller.token()
    found = [
        exchange
        for exchange in ("NYS", "NAS", "AMS")
        if caller.call(token, DETAIL, AUTH="", EXCD=exchange, SYMB="U00001")["output"]["rsym"]
    ]
    assert found == ["AMS"]
    assert caller.call(token, INFO, PDNO="U00001", PRDT_TYPE_CD="529")["rt_cd"] == "0"
    with pytest.raises(ValueError, match="exchange='NASDAQ' is not usable"):
        caller.gateway.list_symbol("U00001", "NASDAQ")


@pytest.mark.parametrize(
    ("symbol", "product_type", "class_name"),
    [
        ("005930", "300", "주권"),
        ("069500", "300", "ETF"),
        ("305720", "300", "ETF"),
        ("AAPL", "512", "주권"),
        ("KO", "513", "주권"),
        ("SPY", "529", "주권"),
        ("U00001", "513", "주권"),
        ("7203", "515", "주권"),
        ("00700", "501", "주권"),
        ("600519", "551", "주권"),
        ("VNM", "508", "주권"),
        ("AAPL", "513", None),
        ("AAPL", "300", None),
        ("KO", "512", None),
        ("U00001", "512", None),
        ("600519", "552", None),
        ("005930", "301", None),
        ("NONE1", "300", None),
        ("", "300", None),
    ],
)
def test_search_info_knows_the_product_type(
    caller: Caller, symbol: str, product_type: str, class_name: str | None
) -> None:
    body = caller.call(caller.token(), INFO, PDNO=symbol, PRDT_TYPE_CD=product_type)
    if class_name is None:
        assert (body["rt_cd"], body["msg1"]) == ("7", "조회할 자료가 없습니다")
        assert "output" not in body
    else:
        assert (body["rt_cd"], body["output"]["pdno"], body["output"]["prdt_clsf_name"]) == ("0", symbol, class_name)
    assert caller.gateway.counts.answered == 1


def test_list_etf_makes_an_etf(caller: Caller) -> None:
    caller.gateway.list_etf("005930")
    body = caller.call(caller.token(), INFO, PDNO="005930", PRDT_TYPE_CD="300")
    assert body["output"]["prdt_clsf_name"] == "ETF"


@pytest.mark.parametrize(
    ("symbol", "product_type", "rt_cd"), [("005930", "300", "0"), ("005930", "512", "7"), ("NONE", "300", "7")]
)
def test_search_stock_info_is_for_domestic_stock(caller: Caller, symbol: str, product_type: str, rt_cd: str) -> None:
    body = caller.call(caller.token(), STOCK, PDNO=symbol, PRDT_TYPE_CD=product_type)
    assert body["rt_cd"] == rt_cd
    assert body.get("output", {}).get("pdno") == (symbol if rt_cd == "0" else None)


@pytest.mark.parametrize(("symbol", "found"), [("005930", "005930"), ("", "999999")])
def test_public_offers_come_as_a_list(caller: Caller, symbol: str, found: str) -> None:
    body = caller.call(caller.token(), OFFERS, SHT_CD=symbol, CTS="", F_DT="20261124", T_DT="20261224")
    assert [offer["sht_cd"] for offer in body["output1"]] == [found]
    assert body["output1"][0]["subscr_dt"] == "2026.11.24~2026.12.24"


def test_an_order_is_placed_and_numbered(caller: Caller) -> None:
    token = caller.token()
    first = caller.post(token, ORDER, {"PDNO": "005930", "ORD_QTY": "1"})
    second = caller.post(token, "/uapi/overseas-stock/v1/trading/order", {"PDNO": "AAPL"})
    assert (first["rt_cd"], first["output"]["ODNO"], second["output"]["ODNO"]) == ("0", "0000000001", "0000000002")
    assert caller.gateway.orders == [{"PDNO": "005930", "ORD_QTY": "1"}, {"PDNO": "AAPL"}]


def test_a_refused_order_is_not_placed(caller: Caller) -> None:
    token = caller.token()
    caller.gateway.expire()
    assert caller.post(token, ORDER, {"PDNO": "005930"})["msg_cd"] == "EGW00123"
    assert caller.gateway.orders == []


def test_asking_about_orders_places_none(caller: Caller) -> None:
    caller.call(caller.token(), "/uapi/domestic-stock/v1/trading/order-list", CANO="12345678")
    assert caller.gateway.orders == []


def test_any_other_service_echoes_what_it_was_asked(caller: Caller) -> None:
    token = caller.token()
    assert caller.call(token, "/uapi/else", a="1", B="")["output"] == {"a": "1", "B": ""}
    assert caller.post(token, "/uapi/else", {"x": [1]})["output"] == {"x": [1]}
    assert caller.gateway.orders == []


def test_a_hash_key_needs_no_token(caller: Caller) -> None:
    status, body = opened(caller.send("POST", "/uapi/hashkey", {"PDNO": "005930"}))
    assert status == 200
    assert body["BODY"] == {"PDNO": "005930"}
    assert (len(body["HASH"]), int(body["HASH"], 16) >= 0) == (64, True), "as a SHA-256 is written"
    assert caller.gateway.counts.answered == 1


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_hash_key_is_made_of_what_is_posted_alone(caller: Caller, method: str) -> None:
    assert opened(caller.send(method, "/uapi/hashkey", {"PDNO": "005930"}))[1]["msg_cd"] == "EGW00122"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/uapi"),
        ("POST", "/oauth2/token"),
        ("POST", "/oauth2/tokenP2"),
        ("POST", "/oauth2/Approval"),
        ("GET", "/oauth2/tokenP"),
        ("PUT", "/oauth2/tokenP"),
        ("GET", "/oauth2/revokeP"),
        ("PUT", "/oauth2/revokeP"),
    ],
)
def test_an_unknown_path_is_not_found(caller: Caller, method: str, path: str) -> None:
    status, body = opened(caller.send(method, path))
    assert (status, body["msg_cd"]) == (404, "OPSQ0002"), "a code that does not pass by itself"
    assert (caller.gateway.counts.answered, caller.gateway.counts.token_requests) == (0, 0)


def test_kis_sends_its_own_headers_in_lower_case(caller: Caller) -> None:
    good, refused = caller.raw_call(caller.token()), caller.raw_call(None)
    for verdict in (good, refused):
        assert isinstance(verdict, WireResponse)
        assert {name for name in verdict.headers if name.islower()} == {"tr_id", "tr_cont", "gt_uid"}
        assert {name for name in verdict.headers if not name.islower()} == {"Content-Type"}
    assert isinstance(good, WireResponse)
    assert good.headers["tr_id"] == "T1", "the transaction that was asked for"


# -- the rate limit


def test_past_the_rate_limit_calls_are_turned_away_until_a_second_is_over() -> None:
    caller = Caller(rate_limit=2)
    token = caller.token()
    assert [caller.judged(token) for _ in range(3)] == ["MCA00000", "MCA00000", "EGW00201"]
    caller.now += 0.875
    status, body = opened(caller.raw_call(token))
    assert (status, body) == (500, {"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다."})
    caller.now += 0.125
    assert [caller.judged(token) for _ in range(3)] == ["MCA00000", "MCA00000", "EGW00201"]
    counts = caller.gateway.counts
    assert (counts.calls, counts.answered, counts.refused) == (7, 4, 0)


# -- faults


def test_refuse_calls_refuses_good_tokens(caller: Caller) -> None:
    token = caller.token()
    caller.gateway.refuse_calls(times=2)
    assert [caller.judged(token) for _ in range(3)] == ["EGW00123", "EGW00123", "MCA00000"]
    assert caller.gateway.counts.refused == 2


def test_refuse_calls_can_say_anything() -> None:
    caller = Caller(expired_status=200)
    token = caller.token()
    caller.gateway.refuse_calls(1, "EGW00206")
    caller.gateway.refuse_calls(1, "XYZ", msg1="token이 만료되었습니다", status=401)
    assert opened(caller.raw_call(token)) == (
        200,
        {"rt_cd": "1", "msg_cd": "EGW00206", "msg1": "API 사용 권한이 없습니다."},
    )
    assert opened(caller.raw_call(token)) == (401, {"rt_cd": "1", "msg_cd": "XYZ", "msg1": "token이 만료되었습니다"})


def test_a_fault_without_times_lasts_until_it_is_healed(caller: Caller) -> None:
    token = caller.token()
    caller.gateway.refuse_calls()
    assert {caller.judged(token) for _ in range(20)} == {"EGW00123"}
    caller.gateway.heal()
    assert caller.judged(token) == "MCA00000"


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ({}, 403, "EGW00103"),
        ({"code": "EGW00133"}, 403, "EGW00133"),
        ({"code": "EGW00002", "status": 500}, 500, "EGW00002"),
        ({"code": None, "status": 503}, 503, None),
    ],
)
def test_refuse_tokens(caller: Caller, arguments: dict[str, Any], status: int, code: str | None) -> None:
    caller.gateway.refuse_tokens(times=1, **arguments)
    found, body = caller.ask_token()
    assert (found, body.get("error_code")) == (status, code)
    assert caller.gateway.faults_met == {code or f"HTTP {status}": 1}
    assert caller.ask_token()[0] == 200
    counts = caller.gateway.counts
    assert (counts.token_requests, counts.token_requests_refused, counts.tokens_issued) == (2, 1, 1)


def test_faults_queue_up(caller: Caller) -> None:
    token = caller.token()
    caller.gateway.drop("calls", 1)
    caller.gateway.garble("calls", 1, body=b"{}", status=200)
    caller.gateway.refuse_calls(1, "EGW00121")
    assert caller.raw_call(token) == Dropped()
    assert opened(caller.raw_call(token)) == (200, {})
    assert caller.judged(token) == "EGW00121"
    assert caller.judged(token) == "MCA00000"


@pytest.mark.parametrize("where", ["calls", "tokens"])
def test_a_fault_meets_only_its_own_kind_of_request(caller: Caller, where: Any) -> None:
    caller.gateway.drop(where)
    call, (token, revoke) = caller.raw_call(None), (caller.send("POST", p, {}) for p in OAUTH)
    assert isinstance(call, Dropped) is (where == "calls")
    assert isinstance(token, Dropped) is (where == "tokens")
    assert isinstance(revoke, WireResponse)


OAUTH = ("/oauth2/tokenP", "/oauth2/revokeP")


def test_a_dropped_order_was_not_placed_unless_it_reached_kis(caller: Caller) -> None:
    token = caller.token()
    headers = {"authorization": f"Bearer {token}"}
    caller.gateway.drop("calls", 1)
    assert caller.send("POST", ORDER, {"n": 1}, headers=headers) == Dropped()
    caller.gateway.drop("calls", 1, reached=True)
    assert caller.send("POST", ORDER, {"n": 2}, headers=headers) == Dropped()
    assert caller.gateway.orders == [{"n": 2}]
    assert (caller.gateway.counts.calls, caller.gateway.counts.answered) == (2, 1)


def test_a_hanging_request_is_judged_when_it_goes_on(caller: Caller) -> None:
    token = caller.token()
    caller.gateway.hang("calls", 1, seconds=3)
    verdict = caller.raw_call(token)
    assert isinstance(verdict, Hung)
    assert (verdict.seconds, verdict.response, verdict.released.is_set()) == (3, None, False)
    assert caller.gateway.counts.answered == 0
    caller.gateway.heal()
    assert verdict.released.is_set()
    assert caller.gateway.resume(Request("GET", PRICE, headers={"authorization": f"Bearer {token}"})).status == 200
    assert (caller.gateway.counts.calls, caller.gateway.counts.answered) == (1, 1)


def test_a_hanging_token_request_that_reached_kis_uses_up_the_minute(caller: Caller) -> None:
    caller.gateway.hang("tokens", 1, reached=True)
    body = {"grant_type": "client_credentials", **caller.keys()}
    verdict = caller.send("POST", "/oauth2/tokenP", body)
    assert isinstance(verdict, Hung)
    assert verdict.response is not None
    assert verdict.response.status == 200
    assert caller.ask_token()[1]["error_code"] == "EGW00133"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>busy</html>", "text/html"),
        (b"{}", "application/json; charset=utf-8"),
        (b'{"access_token": ""}', "application/json; charset=utf-8"),
        (b"", "application/json; charset=utf-8"),
        (b"\xff\x00", "application/json; charset=utf-8"),
    ],
)
@pytest.mark.parametrize("where", ["calls", "tokens"])
def test_garbled_answers_are_sent_as_they_are(caller: Caller, where: Any, body: bytes, kind: str) -> None:
    caller.gateway.garble(where, 1, body=body, status=200)
    verdict = caller.raw_call(None) if where == "calls" else caller.send("POST", "/oauth2/tokenP", {})
    assert verdict == WireResponse(200, body, {"Content-Type": kind})
    counts = caller.gateway.counts
    assert (counts.answered, counts.refused, counts.tokens_issued, counts.token_requests_refused) == (0, 0, 0, 0)
    assert counts.calls + counts.token_requests == 1


def test_same_token_makes_a_reissue_useless(caller: Caller) -> None:
    dead = caller.token()
    caller.gateway.expire()
    caller.gateway.same_token(times=1)
    assert caller.token() == dead
    assert caller.judged(dead) == "EGW00123"
    assert caller.ask_token()[1]["error_code"] == "EGW00133"
    caller.now += 60
    assert caller.token() != dead


def test_same_token_goes_with_other_faults(caller: Caller) -> None:
    dead = caller.token()
    caller.gateway.expire()
    caller.gateway.drop("calls")
    caller.gateway.same_token()
    caller.gateway.refuse_tokens(1, code=None, status=500)
    assert caller.ask_token()[0] == 500
    assert caller.token() == dead
    caller.gateway.heal()
    caller.now += 60
    assert caller.token() != dead


def test_same_token_has_nothing_to_hand_out_before_the_first(caller: Caller) -> None:
    caller.gateway.same_token()
    assert caller.judged(caller.token()) == "MCA00000"


def test_heal_leaves_the_plan_of_expire_at_alone(caller: Caller) -> None:
    token = caller.token()
    caller.gateway.expire_at(1)
    caller.gateway.heal()
    assert caller.judged(token) == "EGW00123"


@pytest.mark.parametrize("times", [0, -1, True, 1.5, "1"])
def test_times_is_a_whole_number_from_one(caller: Caller, times: Any) -> None:
    with pytest.raises(ValueError, match="it takes a whole number from 1, or None for ever"):
        caller.gateway.refuse_calls(times)


def test_where_is_one_of_two(caller: Caller) -> None:
    with pytest.raises(ValueError, match="where='orders' is not usable"):
        caller.gateway.drop("orders")  # type: ignore[arg-type]  # the mistake under test


# -- the object itself


def test_every_gateway_has_credentials_of_its_own(caller: Caller) -> None:
    mine, other = caller.gateway.credentials, Caller().gateway.credentials
    assert mine == caller.gateway.credentials
    assert mine.base_url == "http://gateway.test"
    assert mine.account == "12345678-01"
    assert mine.app_key != other.app_key
    assert mine.app_secret != other.app_secret
    assert (mine.app_key[:2], len(mine.app_key), len(mine.app_secret)) == ("PS", 36, 180), "as KIS makes them"


def test_a_gateway_that_is_not_open_has_no_address() -> None:
    gateway = KisGateway()
    for name in ("url", "credentials"):
        with pytest.raises(RuntimeError, match="not open"):
            getattr(gateway, name)


def test_the_repr_gives_nothing_away(caller: Caller) -> None:
    token, credentials = caller.token(), caller.gateway.credentials
    text = repr(caller.gateway)
    assert text == "KisGateway(http://gateway.test)"
    assert not any(secret in text for secret in (token, credentials.app_key, credentials.app_secret))
    caller.gateway.close()
    assert repr(caller.gateway) == "KisGateway(closed)"
    assert repr(KisGateway()) == "KisGateway(not open)"
