"""`AccessToken`, and the forms in which code keeps a token."""

from __future__ import annotations

import copy
import hashlib
import pickle
from dataclasses import FrozenInstanceError
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from kis_retry import AccessToken
from kis_retry.token import bare, fingerprint

EXPIRY = datetime(2026, 11, 24, 9, 0, 0, tzinfo=timezone(timedelta(hours=9)))
VALUE = "eyJ0eXAiOiJKV1Qi.eyJzdWIiOiJ0b2tlbiJ9.c2lnbmF0dXJl"
TOKEN = AccessToken(VALUE, EXPIRY)


def test_a_fingerprint_is_eight_hex_digits_of_a_sha_256() -> None:
    assert TOKEN.fingerprint == hashlib.sha256(VALUE.encode()).hexdigest()[:8]
    assert fingerprint("\ud800") != fingerprint("") != fingerprint("토큰")


@pytest.mark.parametrize("shown", [repr, str, "{}".format])
def test_a_token_shows_its_fingerprint_and_its_expiry_alone(shown: Any) -> None:
    assert shown(TOKEN) == f"AccessToken({TOKEN.fingerprint}, expires_at=2026-11-24T00:00:00+00:00)"
    assert VALUE not in shown([TOKEN])


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", f"Bearer {VALUE}", f"{VALUE} ", f"{VALUE}\n", f"{VALUE}\0", f"{VALUE}\t", f"{VALUE}토큰"),
        *(f"{VALUE}\r\nX-Evil: 1", f"{VALUE}\u00e9", None, 1, VALUE.encode()),
    ],
)
def test_a_value_that_is_no_word_of_a_header_is_refused_and_not_shown(value: Any) -> None:
    with pytest.raises(ValueError, match="a token is a non-empty string") as caught:
        AccessToken(value, EXPIRY)
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize(
    ("expires_at", "said"),
    [
        (datetime(2026, 11, 24, 9), "with its zone"),
        *((value, "must be a datetime") for value in (5, None, "2026-11-24")),
        *((datetime(year, 1, 1, tzinfo=timezone.utc), "1970 to 2199") for year in (1, 1969, 2200, 9999)),
    ],
)
def test_an_expiry_that_is_no_instant_is_refused(expires_at: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        AccessToken(VALUE, expires_at)
    assert VALUE not in str(caught.value)


def test_a_token_is_a_value() -> None:
    same = AccessToken(VALUE, EXPIRY.astimezone(timezone.utc))
    assert len({TOKEN, same}) == 1
    assert (TOKEN.bearer, same.expires) == (f"Bearer {VALUE}", EXPIRY.timestamp())
    assert AccessToken(VALUE, EXPIRY + timedelta(seconds=1)) != TOKEN != AccessToken("another", EXPIRY)
    for name in ("value", "expires_at", "bearer", "expires", "fingerprint"):
        with pytest.raises((FrozenInstanceError, AttributeError)):
            setattr(TOKEN, name, getattr(TOKEN, name))
    assert pickle.loads(pickle.dumps(TOKEN)) == copy.deepcopy(TOKEN) == TOKEN


def test_bare_is_the_token_without_its_scheme() -> None:
    forms = {f"Bearer{VALUE}": f"Bearer{VALUE}", "Bearer": "Bearer", "Bearer \t ": "", "Basic x": "Basic x"}
    assert {text: bare(text) for text in forms} == forms
    assert bare("bearer Bearer abc") == "Bearer abc"
