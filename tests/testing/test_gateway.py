"""The rules of KIS as `KisGateway` keeps them: tokens, keys, environments, orders and counts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import requests
from freezegun import freeze_time

from gateway_caller import NINE_IN_SEOUL, ORDER, PRICE, Caller, outcome
from kis_retry import ConfigurationError, MemoryTokenStore, TokenManager
from kis_retry.testing import KisGateway

NewCaller = Callable[..., Caller]


# -- issuing


def test_a_token_comes_with_the_four_fields_of_kis(caller: Caller) -> None:
    status, body = caller.ask_token()
    assert status == 200
    assert set(body) == {"access_token", "token_type", "expires_in", "access_token_token_expired"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 86_400)
    assert body["access_token_token_expired"] == "2026-11-25 09:00:00"
    assert len(body["access_token"]) <= 350


@pytest.mark.parametrize(
    ("path", "changed", "code"),
    [
        ("tokenP", {"appkey": "wrong"}, "EGW00103"),
        ("tokenP", {"appsecret": "wrong"}, "EGW00105"),
        ("tokenP", {"grant_type": "password"}, "EGW00115"),
        ("revokeP", {"appkey": "wrong"}, "EGW00103"),
        ("Approval", {"secretkey": None}, "EGW00105"),
        ("Approval", {"grant_type": None}, "EGW00115"),
    ],
)
def test_a_wrong_request_for_a_key_is_refused(caller: Caller, path: str, changed: dict[str, Any], code: str) -> None:
    token = caller.token()
    caller.now += 60
    keys = caller.keys(grant_type="client_credentials", secretkey=caller.keys()["appsecret"], token=token)
    answer = caller.post(f"/oauth2/{path}", {**keys, **changed})
    assert (answer.status_code, answer.json()["error_code"]) == (403, code)
    assert set(answer.json()) == {"error_code", "error_description"}
    counts = caller.gateway.counts
    assert (counts.token_requests_refused, counts.tokens_issued) == (path == "tokenP", 1)
    assert (caller.judged(token), caller.gateway.approval_keys) == ("MCA00000", [])
    assert caller.ask_token()[0] == 200, "it did not use up the minute"


@pytest.mark.parametrize(("later", "said"), [(59.9, "EGW00133"), (60, "issued")])
def test_a_token_is_issued_once_a_minute(caller: Caller, later: float, said: str) -> None:
    caller.token()
    caller.now += later
    assert outcome(caller.ask_token_raw) == said


def test_within_six_hours_of_its_first_issue_the_same_token_is_handed_out_again(caller: Caller) -> None:
    first = caller.ask_token()[1]
    caller.now += 5 * 3600
    assert caller.ask_token()[1] == {**first, "expires_in": 19 * 3600}
    caller.now += 3600
    second = caller.token()
    assert second != first["access_token"]
    assert caller.judged(first["access_token"]) == caller.judged(second) == "MCA00000", "the old one lives on"
    assert caller.gateway.counts.tokens_issued == 3


@pytest.mark.parametrize(("later", "msg_cd"), [(86_399, "MCA00000"), (86_400, "EGW00123")])
def test_a_token_lives_24_hours(caller: Caller, later: int, msg_cd: str) -> None:
    token = caller.token()
    caller.now += later
    assert caller.judged(token) == msg_cd


def test_without_a_clock_of_its_own_the_gateway_follows_the_frozen_one() -> None:
    with freeze_time("2026-11-24 00:00:00") as frozen, KisGateway() as gateway:
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore())
        token = tokens.token().value
        assert tokens.token().expires_at == datetime(2026, 11, 25, tzinfo=timezone.utc)
        headers = {"authorization": f"Bearer {token}"}
        assert requests.get(gateway.url + PRICE, headers=headers, timeout=20).status_code == 200
        frozen.tick(timedelta(hours=24))
        assert requests.get(gateway.url + PRICE, headers=headers, timeout=20).json()["msg_cd"] == "EGW00123"


def test_a_token_issued_elsewhere_is_good_and_holds_up_the_next_request(caller: Caller) -> None:
    mine = caller.token()
    caller.gateway.expire()
    before = caller.gateway.counts
    assert (before.tokens_issued, before.calls) == (1, 0)
    answer = caller.gateway.issue_elsewhere()
    assert answer["access_token"] not in {mine, None}
    assert caller.gateway.issue_elsewhere()["access_token"] == answer["access_token"]
    assert caller.gateway.counts == before
    assert caller.gateway.current_token == answer["access_token"]
    assert caller.ask_token()[1]["error_code"] == "EGW00133"
    assert caller.judged(answer["access_token"]) == "MCA00000"


# -- revoking


def test_a_revoked_token_is_invalid_and_not_handed_out_again(caller: Caller) -> None:
    token = caller.token()
    answer = caller.post("/oauth2/revokeP", caller.keys(token=token))
    assert (answer.status_code, answer.json()["code"]) == (200, 200)
    assert caller.judged(token) == "EGW00121"
    assert caller.ask_token()[1]["error_code"] == "EGW00133", "the minute stands"
    caller.gateway.expire()
    assert caller.judged(token) == "EGW00121"
    assert caller.token() != token


# -- the websocket key


def test_a_websocket_key_is_issued_for_the_secret_by_its_other_name(caller: Caller) -> None:
    keys = {"grant_type": "client_credentials", "secretkey": caller.keys()["appsecret"], **caller.keys(appsecret="")}
    answers = [caller.post("/oauth2/Approval", keys) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json() for answer in answers] == [{"approval_key": key} for key in caller.gateway.approval_keys]
    assert len(set(caller.gateway.approval_keys)) == 2
    assert set(caller.gateway.counts) == {0}
    assert [(each.path, each.outcome) for each in caller.gateway.received] == [("/oauth2/Approval", "answered")] * 2


# -- refusing calls


@pytest.mark.parametrize("status", [500, 200])
def test_a_dead_token_is_refused_in_the_words_of_kis(new_caller: NewCaller, status: int) -> None:
    caller = new_caller(expired_status=status)
    token = caller.token()
    caller.gateway.expire()
    answer = caller.get(token=token)
    assert answer.status_code == status
    assert answer.json() == {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "기간이 만료된 token 입니다."}
    assert "기간이 만료된" in answer.content.decode(), "Korean is sent as it is"
    for each in (answer, caller.get(token=caller.token())):
        assert {name for name in each.headers if name.islower()} == {"tr_id", "tr_cont", "gt_uid"}, "KIS's own"
    assert caller.gateway.counts.refused == 1


@pytest.mark.parametrize(
    ("header", "msg_cd"),
    [
        (None, "EGW00122"),
        ("Bearer", "EGW00122"),
        ("bearer {token}", "EGW00122"),
        ("{token}", "EGW00122"),
        ("Bearer nobody's", "EGW00121"),
        ("Bearer {token}", "MCA00000"),
    ],
)
def test_the_authorization_header_is_judged(caller: Caller, header: str | None, msg_cd: str) -> None:
    headers = {} if header is None else {"authorization": header.format(token=caller.token())}
    assert requests.get(caller.gateway.url + PRICE, headers=headers, timeout=20).json()["msg_cd"] == msg_cd


@pytest.mark.parametrize(
    ("headers", "msg_cd"), [({"appkey": "wrong"}, "EGW00103"), ({"appsecret": "wrong"}, "EGW00304"), ({}, "MCA00000")]
)
def test_a_key_or_secret_that_is_sent_with_a_call_must_be_right(
    caller: Caller, headers: dict[str, str], msg_cd: str
) -> None:
    for sent in (headers, {**caller.keys(), **headers}):
        answer = caller.get(headers=sent)
        assert (answer.status_code, answer.json()["msg_cd"]) == (200 if msg_cd == "MCA00000" else 500, msg_cd)


def test_a_second_app_key_has_tokens_of_its_own(caller: Caller) -> None:
    caller.gateway.accept("second", "secret")
    mine = caller.token()
    status, body = caller.ask_token(appkey="second", appsecret="secret")
    assert status == 200, "each key has a minute of its own"
    second = {"appkey": "second", "appsecret": "secret"}
    calls = [(mine, {}), (mine, second), (body["access_token"], second), (body["access_token"], caller.keys())]
    found = [caller.get(token=token, headers=headers).json()["msg_cd"] for token, headers in calls]
    assert found == ["MCA00000", "EGW00121", "MCA00000", "EGW00121"]


# -- real and paper


@pytest.mark.parametrize(
    ("paper", "tr_id", "msg_cd"),
    [
        (False, "TTTC0012U", "MCA00000"),
        (False, "VTTC0012U", "EGW02004"),
        (True, "VTTC0012U", "MCA00000"),
        (True, "HHDFS76200200", "MCA00000"),
        (True, "TTTC0012U", "EGW02006"),
        (True, "JTTT3018R", "EGW02006"),
    ],
)
def test_a_tr_id_of_the_other_environment_is_refused(
    new_caller: NewCaller, paper: bool, tr_id: str, msg_cd: str
) -> None:
    caller = new_caller(paper=paper, expired_status=200)
    answer = caller.post(ORDER, {"PDNO": "005930"}, caller.token(), tr_id=tr_id)
    assert (answer.status_code, answer.json()["msg_cd"]) == (200 if msg_cd == "MCA00000" else 500, msg_cd)
    assert len(caller.gateway.orders) == caller.gateway.counts.answered == (msg_cd == "MCA00000")
    assert caller.gateway.counts.refused == (msg_cd != "MCA00000")
    assert caller.gateway.credentials.paper is paper


# -- expiring


def test_after_expire_every_token_is_dead_and_a_new_one_may_be_had_at_once(caller: Caller) -> None:
    old = caller.token()
    caller.now += 6 * 3600
    newer = caller.token()
    caller.gateway.expire()
    assert (caller.judged(old), caller.judged(newer)) == ("EGW00123", "EGW00123")
    assert caller.token() not in {old, newer}
    assert caller.judged() == "MCA00000"
    assert outcome(caller.ask_token_raw) == "EGW00133"


def test_expire_at_strikes_just_before_the_call_of_that_number_in_the_gateways_life(caller: Caller) -> None:
    caller.gateway.expire_at(3, 4)
    token = caller.token()
    caller.gateway.drop(times=1)
    assert [caller.judged(token) for _ in range(2)] == ["dropped", "MCA00000"]
    caller.gateway.reset_counts()
    caller.gateway.heal()
    assert caller.judged(token) == "EGW00123"
    token = caller.token()
    assert caller.judged(token) == "EGW00123"
    token = caller.token()
    assert [caller.judged(token) for _ in range(3)] == ["MCA00000"] * 3
    with pytest.raises(ValueError, match="from 8"):
        caller.gateway.expire_at(9, 7)


# -- counts and what is remembered


def test_each_request_is_remembered_with_what_became_of_it(caller: Caller) -> None:
    caller.token()
    caller.gateway.reset_counts()
    caller.gateway.drop(times=1)
    caller.judged()
    caller.now += 1.5
    caller.order({"PDNO": "000660"})
    caller.ask_token()
    assert [tuple(request) for request in caller.gateway.received] == [
        (NINE_IN_SEOUL, "GET", PRICE, "FHKST01010100", "dropped"),
        (NINE_IN_SEOUL + 1.5, "POST", ORDER, "", "answered"),
        (NINE_IN_SEOUL + 1.5, "POST", "/oauth2/tokenP", "", "EGW00133"),
    ]
    assert caller.gateway.arrivals == [NINE_IN_SEOUL, NINE_IN_SEOUL + 1.5]
    caller.gateway.reset_counts()
    assert (caller.gateway.faults_met, caller.gateway.received) == ({}, [])
    assert set(caller.gateway.counts) == {0}


# -- orders and other services


def test_an_order_is_placed_and_numbered_and_nothing_else_is(caller: Caller) -> None:
    token = caller.token()
    assert caller.ask("/uapi/domestic-stock/v1/trading/order-list", a="1", B="")["output"] == {"a": "1", "B": ""}
    assert caller.post("/uapi/else", {"x": [1]}, token).json()["output"] == {"x": [1]}
    first = caller.post(ORDER, {"PDNO": "005930", "ORD_QTY": "1"}, token).json()
    second = caller.post("/uapi/overseas-stock/v1/trading/order", {"PDNO": "AAPL"}, token).json()
    assert (first["rt_cd"], first["output"]["ODNO"], second["output"]["ODNO"]) == ("0", "0000000001", "0000000002")
    caller.gateway.expire()
    assert caller.post(ORDER, {"PDNO": "005930"}, token).json()["msg_cd"] == "EGW00123"
    assert caller.gateway.orders == [{"PDNO": "005930", "ORD_QTY": "1"}, {"PDNO": "AAPL"}]


def test_a_hash_key_needs_no_token(caller: Caller) -> None:
    answer = caller.post("/uapi/hashkey", {"PDNO": "005930"})
    assert (answer.status_code, answer.json()["BODY"]) == (200, {"PDNO": "005930"})
    assert (len(answer.json()["HASH"]), caller.gateway.counts.answered) == (64, 1)


@pytest.mark.parametrize(("method", "path"), [("GET", "/uapi"), ("POST", "/oauth2/token"), ("GET", "/oauth2/tokenP")])
def test_an_unknown_path_is_not_found(caller: Caller, method: str, path: str) -> None:
    answer = requests.request(method, caller.gateway.url + path, timeout=20)
    assert answer.status_code == 404
    assert "OPSQ0002" in answer.json().values(), "a code that does not pass by itself"
    counts = caller.gateway.counts
    assert (counts.answered, counts.tokens_issued, counts.calls) == (0, 0, "oauth2" not in path)


# -- the object itself


def test_a_gateway_that_is_not_open_has_no_address() -> None:
    for name in ("url", "credentials"):
        with pytest.raises(RuntimeError, match="not open"):
            getattr(KisGateway(), name)


@pytest.mark.parametrize("name", ["app_key", "app_secret"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} holds a line break") as refused:
        KisGateway(**{name: "a\nb키"})  # type: ignore[arg-type]  # mypy takes every argument for a string
    assert "키" not in str(refused.value)
