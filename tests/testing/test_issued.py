"""KIS's book of tokens, with the time in the test's hand."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kis_retry.testing.issued import IssuedToken, TokenBook


def book(**rules: float) -> TokenBook:
    return TokenBook(**{"lifetime": 86_400.0, "same_token_for": 600.0, "issue_interval": 60.0, **rules})


def part_of(value: str, number: int) -> bytes:
    return base64.urlsafe_b64decode(value.split(".")[number] + "==")


def test_a_token_says_how_long_it_still_lives_and_when_it_ends_in_seoul() -> None:
    token = book().issue(1_000.0)
    rest = {"access_token": token.value, "access_token_token_expired": "1970-01-02 09:16:40", "token_type": "Bearer"}
    assert token.body(1_000.0) == {**rest, "expires_in": 86_400}
    assert token.body(1_500.25) == {**rest, "expires_in": 85_899}


def test_a_token_reads_as_a_json_web_token_of_kis() -> None:
    value = book().issue(1_000.75).value
    assert json.loads(part_of(value, 0)) == {"typ": "JWT", "alg": "HS512"}
    claims: dict[str, Any] = json.loads(part_of(value, 1))
    name = claims.pop("jti")
    assert claims == {"sub": "token", "iss": "unogw", "exp": 87_400, "iat": 1_000}
    assert (len(name), len(part_of(value, 2))) == (36, 64), "as long as a UUID, and as what HS512 makes"
    assert "=" not in value


@pytest.mark.parametrize(
    ("now", "must_wait"), [(1_000.0, True), (1_059.5, True), (1_060.0, False), (1_061.0, False), (5_000.0, False)]
)
def test_the_next_token_may_be_had_an_interval_after_the_last(now: float, must_wait: bool) -> None:
    tokens = book()
    assert not tokens.must_wait(1_000.0)
    tokens.issue(1_000.0)
    assert tokens.must_wait(now) is must_wait


@pytest.mark.parametrize(
    ("now", "same"), [(1_000.0, True), (1_599.5, True), (1_600.0, False), (1_601.0, False), (5_000.0, False)]
)
def test_a_token_is_handed_out_again_for_so_long(now: float, same: bool) -> None:
    tokens = book()
    first = tokens.issue(1_000.0)
    again = tokens.issue(now)
    assert (again is first, tokens.newest is again) == (same, True)
    assert again.expires_at == (87_400.0 if same else now + 86_400)


def test_that_it_is_to_be_the_same_token_takes_a_name() -> None:
    with pytest.raises(TypeError):
        book().issue(1_000.0, True)  # type: ignore[call-arg]  # the mistake under test


@pytest.mark.parametrize("state", ["expired", "revoked"])
def test_a_dead_token_is_handed_out_again_only_where_it_is_to_be_the_same(state: str) -> None:
    tokens = book()
    first = tokens.issue(1_000.0)
    tokens.expire() if state == "expired" else tokens.revoke(first.value)
    assert tokens.issue(1_001.0, same=True) is first
    assert tokens.issue(1_002.0) is not first


@pytest.mark.parametrize(("now", "code"), [(999.0, None), (1_009.5, None), (1_010.0, "EGW00123"), (2e9, "EGW00123")])
def test_a_token_is_good_until_its_lifetime_is_over(now: float, code: str | None) -> None:
    tokens = book(lifetime=10.0)
    assert tokens.judge(tokens.issue(1_000.0).value, now) == code
    assert tokens.judge("nobody's", now) == "EGW00121"


def test_what_is_revoked_or_void_stays_so_when_the_rest_expires() -> None:
    tokens = book(same_token_for=0.0)
    issued = [tokens.issue(1_000.0 + number).value for number in range(3)]
    tokens.revoke(issued[0])
    tokens.expire()
    assert [tokens.judge(value, 1_010.0) for value in issued] == ["EGW00121", "EGW00123", "EGW00123"]
    tokens.void()
    tokens.expire()
    assert {tokens.judge(value, 1_010.0) for value in issued} == {"EGW00121"}


def test_after_all_have_expired_the_next_token_may_be_had_at_once() -> None:
    tokens = book()
    tokens.issue(1_000.0)
    tokens.expire()
    assert not tokens.must_wait(1_000.5)


def test_a_token_does_not_show_itself() -> None:
    assert "secret" not in repr(IssuedToken("secret", 0.0, 1.0))
