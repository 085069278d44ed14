"""`Credentials`: given directly, read from the environment, shown, refused and on their way to a worker."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest

from kis_retry import ConfigurationError, Credentials
from kis_retry.credentials import PAPER_URL, REAL_URL
from kis_retry.token import fingerprint

KEY, SECRET, ACCOUNT = "PSappkey0123456789", "c2VjcmV0LXNlY3JldC1zZWNyZXQ", "50123456-01"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("KIS_APP_KEY", KEY)
    monkeypatch.setenv("KIS_APP_SECRET", SECRET)
    monkeypatch.setenv("KIS_ACCOUNT_NO", ACCOUNT)
    return monkeypatch


def refusal_of(make: Any) -> str:
    """The text of the refusal, of which nothing that is reported with it holds a value."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.__context__ is None
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    ours = [frame for frame in frames if "kis_retry" in Path(frame.f_code.co_filename).parts[-2:]]
    kept = str(caught.value) + "".join(repr(frame.f_locals) for frame in ours)
    assert ours
    assert not any(value in kept for value in (KEY, SECRET, ACCOUNT, "verysecret", "passw0rd"))
    return str(caught.value)


# -- given directly


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ({}, "https://openapi.koreainvestment.com:9443"),
        ({"paper": True}, "https://openapivts.koreainvestment.com:29443"),
        ({"base_url": "http://127.0.0.1:8080/"}, "http://127.0.0.1:8080"),
        ({"base_url": " https://proxy.example/kis//", "paper": True}, "https://proxy.example/kis"),
        ({"base_url": "", "paper": True}, "https://openapivts.koreainvestment.com:29443"),
    ],
)
def test_the_host_is_real_or_paper_or_the_one_given(arguments: dict[str, Any], url: str) -> None:
    credentials = Credentials(KEY, SECRET, ACCOUNT, **arguments)
    assert (credentials.base_url, credentials.paper) == (url, bool(arguments.get("paper")))


def test_white_space_around_a_value_and_a_missing_hyphen_make_no_other_account() -> None:
    assert Credentials(f" {KEY}\n", f"\t{SECRET} ", f" {ACCOUNT} ") == Credentials(KEY, SECRET, "5012345601")
    assert Credentials(KEY, SECRET).account is None


@pytest.mark.parametrize(
    "account", ["abc", "", "12345678", "123456789-01", "１２３４５６７８-01", 5, "12345678-01\r\nX: 1"]
)
def test_what_is_no_account_number_is_refused_with_what_is(account: Any, keys: pytest.MonkeyPatch) -> None:
    text = refusal_of(lambda: Credentials(KEY, SECRET, account))
    assert text == "account is no account number: it takes eight digits, a hyphen and two digits, like 12345678-01"
    if isinstance(account, str) and account:
        keys.setenv("KIS_ACCOUNT_NO", account)
        assert refusal_of(Credentials.from_env) == text.replace("account is", "KIS_ACCOUNT_NO is")


@pytest.mark.parametrize("field", ["app_key", "app_secret"])
def test_a_missing_key_or_secret_is_named(field: str) -> None:
    for value in ("", " \n", None, b"PSappkey"):
        text = refusal_of(lambda value=value: Credentials(**{"app_key": KEY, "app_secret": SECRET, field: value}))
        assert text.startswith(f"{field} must be a non-empty string, not {type(value).__name__}")


@pytest.mark.parametrize("mark", ["\r\n", "\x1b", "\u201c", "키"])
def test_a_character_that_no_header_may_carry_is_refused_by_the_name_that_was_used(
    keys: pytest.MonkeyPatch, mark: str
) -> None:
    bad = f"verysecret{mark}X-Evil: 1"
    assert refusal_of(lambda: Credentials(KEY, bad)).startswith("app_secret holds a line break, a Korean letter")
    keys.setenv("KIS_APP_SECRET", bad)
    assert refusal_of(Credentials.from_env).startswith("KIS_APP_SECRET holds")
    keys.delenv("KIS_APP_SECRET")
    keys.setenv("KOREA_INVESTMENT_API_SECRET", bad)
    assert refusal_of(Credentials.from_env).startswith("KOREA_INVESTMENT_API_SECRET holds")


@pytest.mark.parametrize(
    "url", ["openapi.koreainvestment.com:9443", "ftp://u:passw0rd@host", "http://", "https:///", 5]
)
def test_an_address_that_is_none_is_refused_with_what_is(url: Any) -> None:
    text = refusal_of(lambda: Credentials(KEY, SECRET, ACCOUNT, base_url=url))
    assert text.startswith("base_url='")
    assert text.endswith("is not usable: it takes an address that begins with http:// or https:// and names a host")


# -- a value


def test_credentials_show_the_fingerprint_of_the_key_and_the_host_alone() -> None:
    credentials = Credentials(KEY, SECRET, ACCOUNT, base_url="https://user:passw0rd@proxy.example:8443")
    expected = f"Credentials(app_key={fingerprint(KEY)}, base_url='https://***@proxy.example:8443')"
    assert repr(credentials) == str(credentials) == expected


# -- the warning


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://10.0.0.5:8080", "http://10.0.0.5:8080"),
        ("http://user:passw0rd@proxy.example:8443", "http://***@proxy.example:8443"),
        *((url, None) for url in ("https://10.0.0.6", "http://127.8.8.8", "http://localhost:9", "http://[::1]:80")),
    ],
)
def test_an_address_without_tls_is_one_warning_unless_it_is_this_machine(
    url: str, shown: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        Credentials(KEY, SECRET, base_url=url)
    assert caplog.messages == ([] if shown is None else [f"kis_retry.base_url_not_encrypted base_url={shown}"])


# -- from the environment


def test_every_variable_of_the_credentials_is_read(keys: pytest.MonkeyPatch) -> None:
    assert Credentials.from_env() == Credentials(KEY, SECRET, ACCOUNT, base_url=REAL_URL)
    keys.setenv("KIS_PAPER", "true")
    assert Credentials.from_env() == Credentials(KEY, SECRET, ACCOUNT, paper=True, base_url=PAPER_URL)
    keys.setenv("KIS_BASE_URL", "http://127.0.0.1:8080/")
    assert Credentials.from_env() == Credentials(KEY, SECRET, ACCOUNT, paper=True, base_url="http://127.0.0.1:8080")


def test_the_names_of_another_library_are_read_where_ours_are_missing_or_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("API_KEY", "theirs"), ("API_SECRET", SECRET), ("ACCOUNT_NO", ACCOUNT)):
        monkeypatch.setenv(f"KOREA_INVESTMENT_{name}", text)
    assert Credentials.from_env() == Credentials("theirs", SECRET, ACCOUNT)
    monkeypatch.setenv("KIS_APP_KEY", "ours")
    assert Credentials.from_env().app_key == "ours"
    monkeypatch.setenv("KIS_APP_KEY", " ")
    assert Credentials.from_env().app_key == "theirs"


@pytest.mark.parametrize(
    ("present", "named"),
    [
        ({}, "KIS_APP_KEY and KIS_APP_SECRET are not set, neither in the environment nor in a .env file at or above "),
        ({"KIS_APP_KEY": KEY, "KIS_APP_SECRET": " \t"}, "KIS_APP_SECRET is not set, "),
    ],
)
def test_a_missing_credential_is_named_with_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, present: dict[str, str], named: str
) -> None:
    for name, text in present.items():
        monkeypatch.setenv(name, text)
    text = refusal_of(Credentials.from_env)
    assert text.startswith(named)
    assert str(Path.cwd()) in text
    assert "or KOREA_INVESTMENT_API_" in text


@pytest.mark.parametrize(("variable", "text"), [("KIS_PAPER", "예"), ("KIS_BASE_URL", "kis")])
def test_a_bad_kind_of_trading_or_address_is_refused(keys: pytest.MonkeyPatch, variable: str, text: str) -> None:
    keys.setenv(variable, f" {text} ")
    assert refusal_of(Credentials.from_env).startswith(f"{variable}={text!r} is not usable: it takes ")


# -- a second pair of keys


def test_a_prefix_is_a_second_pair_of_keys(keys: pytest.MonkeyPatch) -> None:
    keys.setenv("KIS_PAPER", "no")
    keys.setenv("KIS_PAPER_APP_KEY", "PSpaper")
    keys.setenv("KIS_PAPER_APP_SECRET", "paper-secret")
    keys.setenv("KIS_PAPER_ACCOUNT_NO", "87654321-01")
    assert Credentials.from_env("KIS_PAPER_") == Credentials("PSpaper", "paper-secret", "87654321-01", paper=True)
    keys.setenv("KIS_PAPER_BASE_URL", "http://127.0.0.1:1")
    keys.setenv("KIS_PAPER_PAPER", "no")
    paper = Credentials.from_env(prefix="KIS_PAPER_")
    assert (paper.base_url, paper.paper) == ("http://127.0.0.1:1", False)
    assert Credentials.from_env() == Credentials(KEY, SECRET, ACCOUNT)
    keys.setenv("KOREA_INVESTMENT_API_KEY", KEY)
    text = refusal_of(lambda: Credentials.from_env("ISA_"))
    assert text.startswith("ISA_APP_KEY and ISA_APP_SECRET are not set, ")
    assert "KOREA_INVESTMENT" not in text


# -- on their way to a worker


def pickles(value: object) -> list[bytes]:
    return [pickle.dumps(value, protocol) for protocol in (2, pickle.HIGHEST_PROTOCOL)]


def carries(data: bytes, secret: str) -> bool:
    return secret.encode() in data or secret.encode("utf-16-le") in data


def test_credentials_that_the_environment_holds_do_not_travel_and_are_read_again_on_arrival(
    keys: pytest.MonkeyPatch,
) -> None:
    for data in pickles(Credentials(KEY, SECRET, ACCOUNT)):
        assert not any(carries(data, secret) for secret in (KEY, SECRET, ACCOUNT))
        assert pickle.loads(data) == Credentials(KEY, SECRET, ACCOUNT)
    keys.setenv("KIS_APP_SECRET", "the-workers-own")
    assert pickle.loads(data) == Credentials(KEY, "the-workers-own", ACCOUNT)


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    "other",
    [
        Credentials(KEY, "another-secret", ACCOUNT),
        Credentials(KEY, SECRET, ACCOUNT, paper=True),
        Credentials(KEY, SECRET),
        Credentials(KEY, SECRET, ACCOUNT, base_url="http://127.0.0.1:8080"),
    ],
)
def test_credentials_that_the_environment_does_not_hold_travel_whole(other: Credentials) -> None:
    for data in pickles(other):
        assert pickle.loads(data) == other != Credentials.from_env()
