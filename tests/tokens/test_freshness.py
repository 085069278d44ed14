"""How fresh a token is: each window at its edge and one tick past it."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

import pytest

from kis_retry import AccessToken
from kis_retry.tokens.freshness import CachedToken, Freshness, cache

EXPIRY = datetime(2026, 11, 24, 0, 0, 0, tzinfo=timezone.utc)
EXPIRES = EXPIRY.timestamp()
TOKEN = AccessToken("eyJ0eXAi.eyJzdWIi.c2ln", EXPIRY)
MARGIN = 600.0
DAY = 86_400.0


def before(instant: float) -> float:
    return math.nextafter(instant, -math.inf)


def after(instant: float) -> float:
    return math.nextafter(instant, math.inf)


@pytest.mark.parametrize("issued", [True, False])
@pytest.mark.parametrize(
    ("now", "freshness"),
    [
        (EXPIRES - DAY, Freshness.FRESH),
        (before(EXPIRES - MARGIN), Freshness.FRESH),
        (EXPIRES - MARGIN, Freshness.STALE),
        (after(EXPIRES - MARGIN), Freshness.STALE),
        (before(EXPIRES), Freshness.STALE),
        (EXPIRES, Freshness.EXPIRED),
        (after(EXPIRES), Freshness.EXPIRED),
        (EXPIRES + DAY, Freshness.EXPIRED),
    ],
)
def test_the_windows_change_at_their_edges(issued: bool, now: float, freshness: Freshness) -> None:
    cached = cache(TOKEN, margin=MARGIN, now=EXPIRES - DAY, issued=issued)
    assert cached == CachedToken(TOKEN, EXPIRES - MARGIN, EXPIRES)
    assert cached.freshness(now) is freshness


@pytest.mark.parametrize("now", [EXPIRES - DAY, before(EXPIRES - MARGIN)])
def test_a_token_issued_outside_the_margin_is_renewed_ahead(now: float) -> None:
    assert cache(TOKEN, margin=MARGIN, now=now, issued=True).stale_at == EXPIRES - MARGIN


@pytest.mark.parametrize("now", [EXPIRES - MARGIN, after(EXPIRES - MARGIN), before(EXPIRES)])
def test_a_token_issued_inside_the_margin_is_used_to_its_end(now: float) -> None:
    cached = cache(TOKEN, margin=MARGIN, now=now, issued=True)
    assert cached == CachedToken(TOKEN, EXPIRES, EXPIRES)
    assert cached.freshness(now) is Freshness.FRESH
    assert cached.freshness(before(EXPIRES)) is Freshness.FRESH
    assert cached.freshness(EXPIRES) is Freshness.EXPIRED


@pytest.mark.parametrize("now", [EXPIRES, after(EXPIRES), EXPIRES + 9 * 3600, EXPIRES + 365 * DAY])
def test_a_token_that_is_dead_on_arrival_lives_until_kis_refuses_it(now: float) -> None:
    cached = cache(TOKEN, margin=MARGIN, now=now, issued=True)
    assert cached == CachedToken(TOKEN, math.inf, math.inf)
    assert cached.freshness(now + 365 * DAY) is Freshness.FRESH


@pytest.mark.parametrize("now", [EXPIRES - MARGIN, before(EXPIRES), EXPIRES, EXPIRES + DAY])
def test_a_token_that_was_shared_is_judged_by_the_clock_alone(now: float) -> None:
    assert cache(TOKEN, margin=MARGIN, now=now, issued=False) == CachedToken(TOKEN, EXPIRES - MARGIN, EXPIRES)


@pytest.mark.parametrize("now", [-DAY, 0, EXPIRES - DAY])
def test_a_token_that_kis_refused_is_expired_whatever_the_clock_shows(now: float) -> None:
    cached = cache(TOKEN, margin=MARGIN, now=EXPIRES - DAY, issued=True)
    cached.mark_refused()
    assert cached.freshness(now) is Freshness.EXPIRED


@pytest.mark.parametrize("issued", [True, False])
def test_without_a_margin_nothing_is_ever_stale(issued: bool) -> None:
    cached = cache(TOKEN, margin=0, now=EXPIRES - DAY, issued=issued)
    assert [cached.freshness(now) for now in (before(EXPIRES), EXPIRES)] == [Freshness.FRESH, Freshness.EXPIRED]


def test_the_zone_of_the_expiry_does_not_matter() -> None:
    seoul = AccessToken(TOKEN.value, EXPIRY.astimezone(timezone(timedelta(hours=9))))
    assert cache(seoul, margin=MARGIN, now=0, issued=False) == cache(TOKEN, margin=MARGIN, now=0, issued=False)
