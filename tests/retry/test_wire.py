"""What a request tells before it leaves, and how another token gets into it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from calls import HOST, KnownTokens, refreshing, seen
from kis_retry import AccessToken
from kis_retry.retry.wire import host_of, is_api, is_token_request, put_token, sighting_of

NEW = AccessToken("new", datetime(2040, 1, 1, tzinfo=timezone.utc))


@pytest.mark.parametrize(
    ("url", "host", "path", "query"),
    [
        ("https://KIS.example:9443/uapi/x?a=1&b=2", "kis.example:9443", "/uapi/x", "a=1&b=2"),
        ("https://kis.example:443/x", "kis.example", "/x", ""),
        ("HTTPS://kis.example:443", "kis.example", "", ""),
        ("http://me:word@kis.example:80/x#there", "kis.example", "/x", ""),
        ("http://me@work:word@kis.example/", "kis.example", "/", ""),
        ("ftp://kis.example:21/x", "kis.example:21", "/x", ""),
        ("ftp://kis.example:/x", "kis.example", "/x", ""),
    ],
)
def test_host_path_and_query_are_those_of_the_url(url: str, host: str, path: str, query: str) -> None:
    sighting = sighting_of("get", url, None)
    assert (sighting.method, sighting.host, sighting.path, sighting.query) == ("GET", host, path, query)
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("headers", "app_key", "token"),
    [
        (None, None, None),
        ({}, None, None),
        ({"authorization": "Bearer t", "appkey": "PS"}, "PS", "t"),
        ({"Authorization": "t", "AppKey": "PS"}, "PS", "t"),
        ({b"Authorization": b"bearer t", b"APPKEY": b"PS"}, "PS", "t"),
        ({"authorization": "Bearer ", "appkey": ""}, "", None),
        ({"authorization": 7, "appkey": 7}, None, None),
        ({7: "Bearer t", "authorization2": "Bearer t", "x-appkey": "PS"}, None, None),
        ({"authorization": None, "Authorization": "Bearer t"}, None, None),
    ],
)
def test_app_key_and_token_are_found_whatever_the_case_and_type_of_the_headers(
    headers: Any, app_key: str | None, token: str | None
) -> None:
    sighting = sighting_of("GET", "https://kis.example/x", headers)
    assert (sighting.app_key, sighting.token, sighting.carried) == (app_key, token, token)


def test_the_same_body_is_the_same_request_and_one_that_cannot_be_seen_is_none() -> None:
    def body_of(body: Any) -> int | None:
        return sighting_of("POST", "https://kis.example/x", {}, body).body

    assert body_of("one") == body_of("".join("one")) != body_of("two")
    assert body_of(b"one") is not None
    assert [body_of(body) for body in (None, "", b"", iter(["one"]), {"one": 1})] == [None] * 5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"authorization": "Bearer old", "appkey": "old"}, {"authorization": "Bearer new", "appkey": "old"}),
        ({"Authorization": "old"}, {"Authorization": "new"}),
        ({"AUTHORIZATION": "bearer  old "}, {"AUTHORIZATION": "bearer  new "}),
        ({b"authorization": b"Bearer old", b"x": b"old"}, {b"authorization": b"Bearer new", b"x": b"old"}),
        ({"authorization": ""}, {"authorization": "Bearer new"}),
        ({b"authorization": b"Bearer "}, {b"authorization": b"Bearer new"}),
        ({"appkey": "old"}, {"appkey": "old"}),
    ],
)
def test_another_token_stands_in_the_form_of_the_one_before(before: dict[Any, Any], after: dict[Any, Any]) -> None:
    put_token(before, NEW)
    assert before == after


def test_the_api_is_what_lives_under_its_path_or_on_the_sources_own_host() -> None:
    call = refreshing(KnownTokens())
    paths = ("/uapi/price", "/kis/uapi/price", "/other")
    assert [is_api(seen(path=path), call) for path in paths] == [True, True, True]
    assert [is_api(seen(path=path, host="proxy"), call) for path in paths] == [True, True, False]
    tokens = [seen(path=path, host=host) for path in ("/oauth2/tokenP", "/uapi/oauth2/x") for host in (HOST, "proxy")]
    assert [(is_token_request(request), is_api(request, call)) for request in tokens] == [(True, False)] * 4
    assert not is_token_request(seen())
