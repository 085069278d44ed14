"""Settings from the environment and from `.env`: which one counts, and what becomes of a bad one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import platformdirs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kis_retry import (
    ConfigurationError,
    Credentials,
    FileTokenStore,
    MemoryTokenStore,
    RedisTokenStore,
    RetryPolicy,
    TokenManager,
)
from kis_retry.credentials import PAPER_URL, REAL_URL
from kis_retry.env_file import find_env_file
from kis_retry.settings import Environment, without_password
from kis_retry.stores.from_env import store_from_env

quick = settings(max_examples=40, deadline=None, database=None)

KEY, SECRET, ACCOUNT, PASSWORD = "PSappkey0123", "c2VjcmV0LXNlY3JldA", "12345678-01", "hunter2hunter2"


@pytest.fixture
def folder() -> Path:
    """The working directory: empty, as is the environment."""
    return Path.cwd()


@pytest.fixture
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEY", KEY)
    monkeypatch.setenv("KIS_APP_SECRET", SECRET)


def assert_refused(variable: str, text: str, takes: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIS_APP_KEY", KEY)
        patch.setenv("KIS_APP_SECRET", SECRET)
        patch.setenv(variable, text)
        with pytest.raises(ConfigurationError) as caught:
            Credentials.from_env()
    message = str(caught.value)
    assert message.startswith(f"{variable}={text.strip()!r} ")
    assert takes in message
    assert KEY not in message
    assert SECRET not in message


# -- credentials


@pytest.mark.usefixtures("_keys")
def test_key_and_secret_are_enough() -> None:
    assert Credentials.from_env() == Credentials(KEY, SECRET, None, paper=False, base_url=REAL_URL)


@pytest.mark.usefixtures("_keys")
def test_every_variable_of_the_credentials_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_ACCOUNT_NO", ACCOUNT)
    monkeypatch.setenv("KIS_PAPER", "true")
    assert Credentials.from_env() == Credentials(KEY, SECRET, ACCOUNT, paper=True, base_url=PAPER_URL)
    monkeypatch.setenv("KIS_BASE_URL", "http://127.0.0.1:8080/")
    assert Credentials.from_env() == Credentials(KEY, SECRET, ACCOUNT, paper=True, base_url="http://127.0.0.1:8080")


def test_the_names_of_another_library_are_read_where_ours_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOREA_INVESTMENT_API_KEY", KEY)
    monkeypatch.setenv("KOREA_INVESTMENT_API_SECRET", SECRET)
    monkeypatch.setenv("KOREA_INVESTMENT_ACCOUNT_NO", ACCOUNT)
    assert Credentials.from_env() == Credentials(KEY, SECRET, ACCOUNT)


@pytest.mark.parametrize(
    ("ours", "theirs", "field"),
    [
        ("KIS_APP_KEY", "KOREA_INVESTMENT_API_KEY", "app_key"),
        ("KIS_APP_SECRET", "KOREA_INVESTMENT_API_SECRET", "app_secret"),
        ("KIS_ACCOUNT_NO", "KOREA_INVESTMENT_ACCOUNT_NO", "account"),
    ],
)
@pytest.mark.usefixtures("_keys")
def test_our_name_wins_unless_it_is_blank(monkeypatch: pytest.MonkeyPatch, ours: str, theirs: str, field: str) -> None:
    monkeypatch.setenv(ours, "ours")
    monkeypatch.setenv(theirs, "theirs")
    assert getattr(Credentials.from_env(), field) == "ours"
    monkeypatch.setenv(ours, " ")
    assert getattr(Credentials.from_env(), field) == "theirs"


@pytest.mark.parametrize(
    ("present", "named"),
    [
        ({}, "KIS_APP_KEY and KIS_APP_SECRET are not set"),
        ({"KIS_APP_KEY": KEY}, "KIS_APP_SECRET is not set"),
        ({"KIS_APP_SECRET": SECRET}, "KIS_APP_KEY is not set"),
        ({"KIS_APP_KEY": KEY, "KIS_APP_SECRET": " \t"}, "KIS_APP_SECRET is not set"),
    ],
)
def test_a_missing_credential_is_named_and_none_is_shown(
    monkeypatch: pytest.MonkeyPatch, present: dict[str, str], named: str
) -> None:
    for name, text in present.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(ConfigurationError) as caught:
        Credentials.from_env()
    assert str(caught.value).startswith(named)
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("variable", ["KIS_APP_KEY", "KIS_APP_SECRET"])
@pytest.mark.usefixtures("_keys")
def test_a_credential_that_no_header_may_carry_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "verysecret\r\nX-Evil: 1")
    with pytest.raises(ConfigurationError, match=variable.removeprefix("KIS_").lower()) as caught:
        Credentials.from_env()
    assert "verysecret" not in str(caught.value)


@quick
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0@"), min_size=1, max_size=8))
def test_a_bad_kis_paper_is_refused_with_name_value_and_choice(text: str) -> None:
    good = ["1", "true", "t", "yes", "y", "on", "0", "false", "f", "no", "n", "off"]
    assume(text.strip() and text.strip().lower() not in good)
    assert_refused("KIS_PAPER", text, "true or false")


@quick
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0@"), min_size=1, max_size=12)
    | st.sampled_from(
        ["openapi.koreainvestment.com", "ftp://host", "http://", "https:///path", "http:// host", "//host"]
    )
)
def test_a_bad_kis_base_url_is_refused_with_name_value_and_form(text: str) -> None:
    assume(text.strip() and not re.match(r"https?://[^/\s]", text.strip()))
    assert_refused("KIS_BASE_URL", text, "http:// or https://")


@pytest.mark.usefixtures("_keys")
def test_a_bad_kis_base_url_does_not_show_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_BASE_URL", f"ftp://somebody:{PASSWORD}@proxy.example/")
    with pytest.raises(ConfigurationError, match=r"^KIS_BASE_URL='ftp://") as caught:
        Credentials.from_env()
    assert PASSWORD not in str(caught.value)


# -- .env


def test_a_dotenv_file_in_the_working_directory_is_read(folder: Path) -> None:
    (folder / ".env").write_text(f"KIS_APP_KEY={KEY}\nKIS_APP_SECRET='{SECRET}'\nKIS_RETRY_WAIT=7\n")
    assert Credentials.from_env() == Credentials(KEY, SECRET)
    assert RetryPolicy.from_env() == RetryPolicy(wait=7)


def test_a_dotenv_file_in_a_parent_folder_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("KIS_RETRY_WAIT=7\n")
    below = folder / "batch" / "daily"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert RetryPolicy.from_env().wait == 7
    (below / ".env").write_text("KIS_RETRY_WAIT=8\n")
    assert RetryPolicy.from_env().wait == 8


def test_the_environment_wins_over_the_dotenv_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("KIS_RETRY_WAIT=7\nKIS_RETRY_MAX_RETRIES=2\n")
    monkeypatch.setenv("KIS_RETRY_WAIT", "3")
    assert RetryPolicy.from_env() == RetryPolicy(wait=3, max_retries=2)


def test_reading_a_dotenv_file_leaves_the_environment_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_RETRY_WAIT", "3")
    (folder / ".env").write_text(
        f"KIS_APP_KEY={KEY}\nKIS_APP_SECRET={SECRET}\nKIS_RETRY_WAIT=7\nKIS_TOKEN_STORE=memory\nNEW_ONE=1\n"
    )
    before = dict(os.environ)
    Credentials.from_env()
    RetryPolicy.from_env()
    store_from_env()
    TokenManager.from_env()
    assert dict(os.environ) == before


def test_a_bad_value_in_the_dotenv_file_is_refused_by_name(folder: Path) -> None:
    (folder / ".env").write_text("KIS_RETRY_MAX_RETRIES=9\n")
    with pytest.raises(ConfigurationError, match=r"^KIS_RETRY_MAX_RETRIES='9' .* 0 to 5$"):
        RetryPolicy.from_env()


def test_a_blank_in_the_dotenv_file_counts_as_unset(folder: Path) -> None:
    (folder / ".env").write_text("KIS_RETRY_WAIT=\nKIS_RETRY_MAX_RETRIES\n")
    assert RetryPolicy.from_env() == RetryPolicy()


def test_a_dotenv_file_that_is_no_text_is_a_configuration_error_that_shows_nothing_of_it(folder: Path) -> None:
    (folder / ".env").write_bytes(b"KIS_APP_SECRET=" + SECRET.encode() + b"\xff\xfe\n")
    with pytest.raises(ConfigurationError, match=r"\.env file .* cannot be read") as caught:
        RetryPolicy.from_env()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_setting_says_where_it_was_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("KIS_APP_KEY=from-file\n")
    monkeypatch.setenv("KOREA_INVESTMENT_API_SECRET", " from-environment ")
    environment = Environment()
    key = environment.find("KIS_APP_KEY", "KOREA_INVESTMENT_API_KEY")
    secret = environment.find("KIS_APP_SECRET", "KOREA_INVESTMENT_API_SECRET")
    assert key is not None
    assert (key.text, key.variable, key.origin) == ("from-file", "KIS_APP_KEY", ".env")
    assert secret is not None
    assert (secret.text, secret.variable, secret.origin) == (
        "from-environment",
        "KOREA_INVESTMENT_API_SECRET",
        "environment",
    )
    assert environment.find("KIS_ACCOUNT_NO") is None


def test_what_was_found_does_not_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEY", KEY)
    setting, file = Environment().find("KIS_APP_KEY"), find_env_file(folder)
    for found, name in ((setting, "text"), (file, "path")):
        with pytest.raises(FrozenInstanceError):
            setattr(found, name, "another")


def test_what_is_ignored_of_a_file_is_noted_once_however_often_it_is_asked_for(folder: Path) -> None:
    (folder / ".env").write_text("KIS_TOKEN_STORE=memory\nKIS_BASE_URL=https://evil.example\nKIS_RETRY_WAIT=7\n")
    environment = Environment()
    assert environment.ignored == []
    for _ in range(2):
        assert environment.find("KIS_TOKEN_STORE") is None
        found = environment.find("KIS_BASE_URL", "KIS_RETRY_WAIT")
        assert found is not None
        assert found.text == "7", "the next one counts"
    assert environment.ignored == [
        (folder / ".env", f"{name} counts only beside the app key and secret in force")
        for name in ("KIS_TOKEN_STORE", "KIS_BASE_URL")
    ]


def test_the_repr_of_a_setting_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_SECRET", SECRET)
    assert SECRET not in repr(Environment().find("KIS_APP_SECRET"))


# -- KIS_TOKEN_STORE


def store(text: str) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIS_TOKEN_STORE", text)
        return store_from_env()


def test_the_token_is_shared_in_the_users_cache_folder_by_default(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    default = FileTokenStore(platformdirs.user_cache_path("kis_retry"))
    for chosen in (store_from_env(), store(""), store("  "), store("file"), store("FILE")):
        assert isinstance(chosen, FileTokenStore)
        assert repr(chosen) == repr(default)


def test_memory_is_one_store_for_the_whole_process() -> None:
    first = store("memory")
    assert isinstance(first, MemoryTokenStore)
    assert store(" Memory ") is first


@pytest.mark.parametrize("text", ["./tokens", "tokens/", "../tokens", "~/tokens", "."])
def test_a_path_is_a_folder_for_files(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    monkeypatch.setenv("HOME", str(folder))
    chosen = store(text)
    assert isinstance(chosen, FileTokenStore)
    assert repr(chosen) == repr(FileTokenStore(Path(text).expanduser().absolute()))


def test_an_absolute_path_is_a_folder_for_files(folder: Path) -> None:
    assert repr(store(str(folder / "shared"))) == repr(FileTokenStore(folder / "shared"))


@pytest.mark.parametrize(
    ("text", "is_folder"),
    [("tokens\\daily", True), ("C:\\tokens", True), ("tokens/daily", True), ("tokens", False), ("t:\\x:y", True)],
)
def test_a_path_may_have_the_separator_of_the_system(
    monkeypatch: pytest.MonkeyPatch, text: str, is_folder: bool
) -> None:
    monkeypatch.setattr("kis_retry.stores.from_env.os.sep", "\\")
    if is_folder:
        assert isinstance(store(text), FileTokenStore)
    else:
        with pytest.raises(ConfigurationError):
            store(text)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_a_redis_url_is_a_redis_store_that_does_not_show_its_password(scheme: str) -> None:
    chosen = store(f"{scheme}://somebody:{PASSWORD}@127.0.0.1:6399/2")
    assert isinstance(chosen, RedisTokenStore)
    assert PASSWORD not in repr(chosen)


@pytest.mark.parametrize(
    "text",
    [
        "cupboard",
        "files",
        "mem",
        "redis",
        "sqlite:tokens.db",
        "true",
        "0",
        "-",
        "10.0.0.5:6379/0",
        "10.0.0.5:6379",
        "localhost:6379/0",
        "[::1]:6379/0",
        "cache_1:6379/0",
        "_:6379/0",
    ],
)
def test_a_store_that_does_not_exist_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        store(text)
    message = str(caught.value)
    assert message.startswith(f"KIS_TOKEN_STORE={text!r} ")
    assert all(choice in message for choice in ("memory", "file", "folder's path with a /", "redis://", "rediss://"))


@pytest.mark.parametrize("text", ["./a:b/c", "/srv/a:b", "C:/tokens", "~/10.0.0.5:6379"])
def test_a_colon_after_the_first_slash_or_a_drive_is_no_address(text: str) -> None:
    assert isinstance(store(text), FileTokenStore)


@pytest.mark.parametrize(
    "url",
    [
        "reids://somebody:{}@127.0.0.1/0",
        "postgres://somebody:{}@127.0.0.1/0",
        "redis-sentinel://:{}@127.0.0.1/0",
        "redis://:{}@127.0.0.1:port/0",
        "redis://somebody:{}/@127.0.0.1/0",
        "postgres://somebody:a@{}/b@127.0.0.1/0",
        "redis:/somebody:{}@127.0.0.1/0",
        "redis:somebody:{}@127.0.0.1/0",
    ],
)
def test_a_bad_url_is_refused_and_its_password_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        store(url.format(PASSWORD))
    error: BaseException | None = caught.value
    while error is not None:
        assert PASSWORD not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("found", ["~/.cache/kis_retry", RuntimeError("Could not determine home directory.")], ids=str)
def test_without_a_home_folder_the_default_store_is_refused_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch, folder: Path, found: str | RuntimeError
) -> None:
    def user_cache_path(name: str) -> Path:
        if isinstance(found, RuntimeError):
            raise found
        return Path(found)  # as platformdirs 4.0 does

    monkeypatch.setattr(platformdirs, "user_cache_path", user_cache_path)
    for make in (store_from_env, FileTokenStore):
        with pytest.raises(ConfigurationError, match=r"home folder.*HOME.*KIS_TOKEN_STORE=/"):
            make()
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a passwd entry")
@pytest.mark.one_python
def test_a_user_without_home_and_passwd_entry_is_told_so(folder: Path) -> None:
    code = (
        "import os, pwd, platformdirs.unix; from kis_retry import ConfigurationError, FileTokenStore\n"
        "os.setgid(65501); os.setuid(65501)\n"
        "try:\n    print(FileTokenStore())\n"
        "except ConfigurationError as error:\n    print('refused:', error)\n"
    )
    environ = {name: text for name, text in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused: there is no home folder"), done.stdout


def test_a_relative_cache_folder_stays_where_it_was(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", Path)
    assert repr(FileTokenStore()) == repr(FileTokenStore(folder / "kis_retry"))


def test_a_manager_without_a_store_takes_the_one_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    assert TokenManager(Credentials(KEY, SECRET)).store is store("memory")


@quick
@given(st.text("abc:%?#@/", min_size=1, max_size=10), st.sampled_from(["", "user", "a:b"]))
def test_what_stands_before_the_at_sign_of_a_url_is_not_shown(password: str, user: str) -> None:
    assert without_password(f"redis://{user}:{password}@host:1/0") == "redis://***@host:1/0"


@pytest.mark.parametrize("text", ["redis://host:1/0", "https://host/a", "cupboard", "7", "user@host"])
def test_a_text_without_a_password_is_shown_as_it_is(text: str) -> None:
    assert without_password(text) == text


def test_a_blank_variable_hides_a_line_of_the_dotenv_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("KIS_RETRY_WAIT=7\n")
    monkeypatch.setenv("KIS_RETRY_WAIT", "  ")
    assert RetryPolicy.from_env().wait == 0


@pytest.mark.parametrize("text", ["redis://127.0.0.1:port/0", "~nobody-of-this-name/tokens"])
def test_a_store_that_cannot_be_made_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("KIS_TOKEN_STORE", text)
    with pytest.raises(ConfigurationError, match="KIS_TOKEN_STORE"):
        store_from_env()
