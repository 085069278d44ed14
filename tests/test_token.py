"""The two values everything passes around: `AccessToken` and `Credentials`."""

from __future__ import annotations

import copy
import hashlib
import pickle
import re
from dataclasses import FrozenInstanceError
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kis_retry import AccessToken, ConfigurationError, Credentials
from kis_retry import credentials as credentials_module
from kis_retry.token import bare, fingerprint

quick = settings(max_examples=60, deadline=None, database=None)

SEOUL = timezone(timedelta(hours=9))
EXPIRY = datetime(2026, 11, 24, 9, 0, 0, tzinfo=SEOUL)
VALUE = "eyJ0eXAiOiJKV1Qi.eyJzdWIiOiJ0b2tlbiJ9.c2lnbmF0dXJl"
TOKEN = AccessToken(VALUE, EXPIRY)
KEY, SECRET, ACCOUNT = "PSappkey0123456789", "c2VjcmV0LXNlY3JldC1zZWNyZXQ", "12345678-01"
WORDS = st.text(st.characters(codec="ascii", exclude_categories=["Cc", "Zs"]), min_size=1, max_size=30)


# -- AccessToken


def test_bearer_is_what_the_authorization_header_takes() -> None:
    assert TOKEN.bearer == f"Bearer {VALUE}"


@quick
@given(WORDS)
def test_a_fingerprint_is_eight_hex_digits_of_a_sha_256(value: str) -> None:
    expected = hashlib.sha256(value.encode()).hexdigest()[:8]
    assert AccessToken(value, EXPIRY).fingerprint == expected == fingerprint(value)
    assert re.fullmatch("[0-9a-f]{8}", expected)


def test_a_fingerprint_can_be_had_of_any_text() -> None:
    assert fingerprint("\ud800") != fingerprint("") != fingerprint("토큰")


def test_expires_is_the_same_instant_in_seconds() -> None:
    assert TOKEN.expires == EXPIRY.timestamp()
    assert AccessToken(VALUE, EXPIRY.astimezone(timezone.utc)).expires == TOKEN.expires


@pytest.mark.parametrize("shown", [repr, str, "{}".format, "{!r}".format, lambda token: "%s" % token])  # noqa: UP031  # one of the ways
def test_a_token_shows_its_fingerprint_and_its_expiry_alone(shown: Any) -> None:
    assert shown(TOKEN) == f"AccessToken({TOKEN.fingerprint}, expires_at=2026-11-24T00:00:00+00:00)"
    assert shown([TOKEN]).count(VALUE) == 0


def test_a_naive_expiry_is_refused_since_seoul_is_nine_hours_off() -> None:
    with pytest.raises(ValueError, match="knows its zone") as caught:
        AccessToken(VALUE, datetime(2026, 11, 24, 9, 0, 0))
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        f"Bearer {VALUE}",
        f"{VALUE} ",
        f"{VALUE}\r\nX-Evil: 1",
        f"{VALUE}\n",
        f"{VALUE}\0",
        f"{VALUE}\t",
        f"{VALUE}토큰",
        f"{VALUE}\u00e9",
        None,
        1,
        VALUE.encode(),
    ],
)
def test_a_value_that_is_no_word_of_a_header_is_refused_and_not_shown(value: Any) -> None:
    with pytest.raises(ValueError, match="a token is a non-empty string") as caught:
        AccessToken(value, EXPIRY)
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize("name", ["value", "expires_at", "bearer", "expires", "fingerprint"])
def test_a_token_is_frozen(name: str) -> None:
    with pytest.raises((FrozenInstanceError, AttributeError)):
        setattr(TOKEN, name, getattr(TOKEN, name))


def test_tokens_are_equal_by_value_and_instant() -> None:
    assert AccessToken(VALUE, EXPIRY.astimezone(timezone.utc)) == TOKEN
    assert AccessToken(VALUE, EXPIRY + timedelta(seconds=1)) != TOKEN
    assert AccessToken("another", EXPIRY) != TOKEN
    assert TOKEN.__eq__(VALUE) is NotImplemented
    assert len({TOKEN, AccessToken(VALUE, EXPIRY)}) == 1


@pytest.mark.parametrize("travel", [lambda token: pickle.loads(pickle.dumps(token)), copy.copy, copy.deepcopy])
def test_a_token_travels_whole(travel: Any) -> None:
    arrived = travel(TOKEN)
    assert arrived == TOKEN
    assert (arrived.bearer, arrived.expires, arrived.fingerprint) == (TOKEN.bearer, TOKEN.expires, TOKEN.fingerprint)


# -- bare


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (VALUE, VALUE),
        (f"Bearer {VALUE}", VALUE),
        (f"bearer {VALUE}", VALUE),
        (f"BEARER\t{VALUE}", VALUE),
        (f"  Bearer   {VALUE}  ", VALUE),
        (f"Bearer{VALUE}", f"Bearer{VALUE}"),
        ("Bearer", "Bearer"),
        ("Bearer ", ""),
        ("Bearer \t ", ""),
        ("", ""),
        ("  ", ""),
        ("Basic dXNlcg==", "Basic dXNlcg=="),
        ("Bearer Bearer abc", "Bearer abc"),
        ("bearer bearer abc", "bearer abc"),
    ],
)
def test_bare_is_the_token_without_its_scheme(text: str, value: str) -> None:
    assert bare(text) == value


@quick
@given(
    WORDS,
    st.sampled_from(["", "Bearer ", "bearer ", "BEARER ", "bEaReR\t"]),
    st.text(" \t\n", max_size=2),
    st.text(" \t\n", max_size=2),
)
def test_bare_finds_every_token_in_every_form(word: str, scheme: str, before: str, after: str) -> None:
    assert bare(f"{before}{scheme}{word}{after}") == word


# -- Credentials


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ({}, "https://openapi.koreainvestment.com:9443"),
        ({"paper": True}, "https://openapivts.koreainvestment.com:29443"),
        ({"base_url": "http://127.0.0.1:8080/"}, "http://127.0.0.1:8080"),
        ({"base_url": " https://proxy.example//", "paper": True}, "https://proxy.example"),
        ({"base_url": "", "paper": True}, "https://openapivts.koreainvestment.com:29443"),
        ({"base_url": None}, "https://openapi.koreainvestment.com:9443"),
    ],
)
def test_the_host_is_real_or_paper_or_the_one_given(arguments: dict[str, Any], url: str) -> None:
    credentials = Credentials(KEY, SECRET, ACCOUNT, **arguments)
    assert credentials.base_url == url
    assert credentials.paper is bool(arguments.get("paper"))


def test_credentials_are_kept_without_the_white_space_of_a_copy_and_paste() -> None:
    credentials = Credentials(f" {KEY}\n", f"\t{SECRET} ")
    assert (credentials.app_key, credentials.app_secret, credentials.account) == (KEY, SECRET, None)


@pytest.mark.parametrize("shown", [repr, str, "{}".format])
def test_credentials_show_the_fingerprint_of_the_key_and_the_host_alone(shown: Any) -> None:
    credentials = Credentials(KEY, SECRET, ACCOUNT, base_url="https://user:passw0rd@proxy.example:8443")
    expected = f"Credentials(app_key={fingerprint(KEY)}, base_url='https://***@proxy.example:8443')"
    assert shown(credentials) == expected
    assert not any(secret in shown([credentials]) for secret in (KEY, SECRET, ACCOUNT, "passw0rd"))


@pytest.mark.parametrize("field", ["app_key", "app_secret"])
@pytest.mark.parametrize("value", ["", "  ", "\n", None, 5, b"PSappkey", ["PSappkey"]])
def test_a_missing_key_or_secret_is_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{field} must be a non-empty string"):
        Credentials(**{"app_key": KEY, "app_secret": SECRET, field: value})


@pytest.mark.parametrize("field", ["app_key", "app_secret"])
@pytest.mark.parametrize(
    "mark", ["\n", "\r\n", "\0", "\x1b", "\x7f", "\u201c", "\u2019", "é", "키", "\u2028", "\ud800"]
)
def test_a_key_or_secret_that_could_break_out_of_a_header_is_refused_and_not_shown(field: str, mark: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{field} holds a line break") as caught:
        Credentials(*(f"verysecret{mark}X-Evil: 1" if name == field else KEY for name in ("app_key", "app_secret")))
    error: BaseException | None = caught.value
    while error is not None:
        assert "verysecret" not in repr(error)
        error = error.__cause__ or error.__context__


@pytest.fixture
def _nothing_warned_yet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(credentials_module, "_warned", set())
    caplog.set_level("WARNING", "kis_retry")


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.5:8080",
        "http://gateway",
        "http://openapi.koreainvestment.com:9443",
        "http://[::2]:1",
        "http://[x",
    ],
)
@pytest.mark.usefixtures("_nothing_warned_yet")
def test_an_address_without_tls_is_one_warning(url: str, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        Credentials(KEY, SECRET, base_url=url)
    assert caplog.messages == [f"kis_retry.base_url_not_encrypted base_url={url}"]
    Credentials(KEY, SECRET, base_url="http://another.example")
    assert len(caplog.messages) == 2


@pytest.mark.usefixtures("_nothing_warned_yet")
def test_the_warning_of_an_address_shows_no_password(caplog: pytest.LogCaptureFixture) -> None:
    Credentials(KEY, SECRET, base_url="http://user:passw0rd@proxy.example:8443")
    assert caplog.messages == ["kis_retry.base_url_not_encrypted base_url=http://***@proxy.example:8443"]


@pytest.mark.parametrize(
    "url",
    [
        None,
        "https://10.0.0.5",
        "http://127.0.0.1:1",
        "http://127.8.8.8",
        "http://localhost:9",
        "http://kis.localhost",
        "http://[::1]:80",
        "http://user:word@localhost",
    ],
)
@pytest.mark.usefixtures("_nothing_warned_yet")
def test_tls_and_this_machine_need_no_warning(url: str | None, caplog: pytest.LogCaptureFixture) -> None:
    Credentials(KEY, SECRET, base_url=url)
    assert caplog.messages == []


@pytest.mark.parametrize(
    "url", ["openapi.koreainvestment.com:9443", "ftp://host", "http://", "https:///", "file:///etc", "x"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^base_url must begin with http:// or https://"):
        Credentials(KEY, SECRET, base_url=url)


@pytest.mark.parametrize("name", ["app_key", "app_secret", "account", "paper", "base_url"])
def test_credentials_are_frozen(name: str) -> None:
    credentials = Credentials(KEY, SECRET)
    with pytest.raises(FrozenInstanceError):
        setattr(credentials, name, getattr(credentials, name))


def test_host_and_kind_of_trading_are_given_by_name_alone() -> None:
    with pytest.raises(TypeError):
        Credentials(KEY, SECRET, ACCOUNT, True)  # type: ignore[call-arg]  # the mistake this is about
    assert Credentials(app_key=KEY, app_secret=SECRET, account=ACCOUNT) == Credentials(KEY, SECRET, ACCOUNT)


def test_credentials_are_equal_by_value() -> None:
    assert Credentials(KEY, SECRET, ACCOUNT) == Credentials(KEY, SECRET, ACCOUNT)
    assert Credentials(KEY, SECRET) != Credentials(KEY, SECRET, paper=True)
    assert len({Credentials(KEY, SECRET), Credentials(KEY, SECRET)}) == 1


# -- credentials on their way to a worker


@pytest.fixture
def _in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEY", KEY)
    monkeypatch.setenv("KIS_APP_SECRET", SECRET)
    monkeypatch.setenv("KIS_ACCOUNT_NO", ACCOUNT)


def pickles(value: object) -> list[bytes]:
    return [pickle.dumps(value, protocol) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]


def carries(data: bytes, secret: str) -> bool:
    return secret.encode() in data or secret.encode("utf-16-le") in data


@pytest.mark.usefixtures("_in_the_environment")
def test_credentials_that_the_environment_holds_do_not_travel() -> None:
    for credentials in (Credentials.from_env(), Credentials(KEY, SECRET, ACCOUNT)):
        for data in pickles(credentials):
            assert not any(carries(data, secret) for secret in (KEY, SECRET, ACCOUNT))
            assert pickle.loads(data) == credentials


@pytest.mark.usefixtures("_in_the_environment")
def test_credentials_that_the_environment_holds_are_read_again_on_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(Credentials.from_env())
    monkeypatch.setenv("KIS_APP_SECRET", "the-workers-own")
    assert pickle.loads(data) == Credentials(KEY, "the-workers-own", ACCOUNT)


@pytest.mark.usefixtures("_in_the_environment")
@pytest.mark.parametrize(
    "other",
    [
        Credentials(KEY, "another-secret", ACCOUNT),
        Credentials("PSanother", SECRET, ACCOUNT),
        Credentials(KEY, SECRET, ACCOUNT, paper=True),
        Credentials(KEY, SECRET),
        Credentials(KEY, SECRET, ACCOUNT, base_url="http://127.0.0.1:8080"),
    ],
)
def test_credentials_that_the_environment_does_not_hold_travel_whole(other: Credentials) -> None:
    for data in pickles(other):
        arrived = pickle.loads(data)
        assert arrived == other
        assert arrived != Credentials.from_env()


@pytest.mark.parametrize(
    "variables", [{}, {"KIS_APP_KEY": KEY}, {"KIS_PAPER": "maybe", "KIS_APP_KEY": KEY, "KIS_APP_SECRET": SECRET}]
)
def test_credentials_travel_whole_where_the_environment_holds_none_or_bad_ones(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    credentials = Credentials(KEY, SECRET, ACCOUNT)
    assert all(pickle.loads(data) == credentials and carries(data, SECRET) for data in pickles(credentials))
    assert copy.deepcopy(credentials) == credentials


@pytest.mark.parametrize("arguments", [{"base_url": 5}, {"account": 5}, {"account": "12345678-01\r\nX: 1"}])
def test_a_credential_of_the_wrong_kind_is_a_configuration_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        Credentials("key", "secret", **arguments)


@pytest.mark.parametrize("year", [1, 1969, 2200, 9999])
def test_an_expiry_out_of_this_world_is_refused(year: int) -> None:
    with pytest.raises(ValueError, match="1970 to 2199"):
        AccessToken("x", datetime(year, 1, 1, tzinfo=timezone.utc))


@pytest.mark.parametrize("expires_at", [5, None, "2026-11-24"])
def test_an_expiry_that_is_no_datetime_is_refused(expires_at: Any) -> None:
    with pytest.raises(ValueError, match="datetime"):
        AccessToken("x", expires_at)
