"""Where the token of an application is kept."""

from __future__ import annotations

from kis_retry import Credentials
from kis_retry.stores.base import key_of

APP_KEY = "PSabcdefghijklmnopqrstuvwxyz01234567"
SECRET = "s3cr3t-" * 20


def test_a_key_is_32_hex_digits_that_no_version_changes() -> None:
    key = key_of(Credentials(APP_KEY, SECRET))
    assert key == "a0ead64ef8fecec6bb42371bdde4bc97", "of another, the next version would find no token"


def test_the_same_application_has_the_same_key_whatever_its_account() -> None:
    one = Credentials(APP_KEY, SECRET, "12345678-01")
    assert key_of(one) == key_of(Credentials(APP_KEY, SECRET, base_url=one.base_url + "/"))


def test_another_host_app_key_or_secret_has_another_key() -> None:
    host = Credentials(APP_KEY, SECRET).base_url
    keys = {
        key_of(Credentials(APP_KEY, SECRET)),
        key_of(Credentials(APP_KEY, SECRET, paper=True)),
        key_of(Credentials(APP_KEY, SECRET[:-1])),
        key_of(Credentials(APP_KEY[:-1], SECRET)),
        key_of(Credentials("8" + APP_KEY, SECRET, base_url=host[:-1])),
        key_of(Credentials(APP_KEY + SECRET[0], SECRET[1:])),
    }
    assert len(keys) == 6
