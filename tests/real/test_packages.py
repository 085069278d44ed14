"""
Packages that people use, unchanged, with nothing but `install()`, `protect(…)` or `kis-retry run`.

What is lost alone and protected is the table of docs/en/libraries.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import packages
from kis_retry import install, protect, unprotect
from kis_retry.testing import KisGateway
from packages import HERE, PACKAGES, PINS, THREADS, Keys, batch, begin, lost_alone
from pages import TEXTS

pytestmark = pytest.mark.filterwarnings("ignore")  # of packages that are not ours to mend

ORDER = "/trading/order"
ORDERING = [name for name in HERE if PACKAGES[name].order is not None]
with_each = pytest.mark.parametrize("name", HERE)
with_http_500 = pytest.mark.parametrize("gateway", [500], indirect=True)


def keys_of(gateway: KisGateway) -> Keys:
    return Keys(gateway.credentials.app_key, gateway.credentials.app_secret)


def lost_by_the_page(name: str) -> range:
    package, comma, kind = name.partition(",")
    row = f"{package} {PINS[package.replace(' ', '-')]}".rstrip() + comma + kind
    return lost_alone(TEXTS["docs/en/libraries.md"])[row]


def plan_expiry(name: str, gateway: KisGateway) -> None:
    """Have the token die in the middle of the batch."""
    gateway.expire_at(int(packages.CALLS / 2 * PACKAGES[name].calls))


def says(gateway: KisGateway, lost: dict[str, int]) -> str:
    counts = gateway.counts
    return f"{sum(lost.values())} lost {lost}, {counts.token_requests - 1} token requests, {counts.refused} refusals"


def check_nothing_lost(gateway: KisGateway, lost: dict[str, int]) -> None:
    """Besides the token of the beginning, one was asked for."""
    said = says(gateway, lost)
    assert lost == {}, said
    assert gateway.counts.token_requests == 2, said
    assert 0 < gateway.counts.refused <= THREADS, said


@with_each
def test_alone_it_loses_what_the_page_says(name: str, gateway: KisGateway) -> None:
    plan_expiry(name, gateway)
    lost = batch(name, begin(name, keys_of(gateway)))
    print(name, "alone", says(gateway, lost))
    assert sum(lost.values()) in lost_by_the_page(name), lost


@with_each
def test_after_install_it_loses_nothing(name: str, gateway: KisGateway) -> None:
    install()
    plan_expiry(name, gateway)
    lost = batch(name, begin(name, keys_of(gateway)))
    print(name, "install", says(gateway, lost))
    check_nothing_lost(gateway, lost)


@with_each
@with_http_500
def test_protected_it_loses_nothing(name: str, gateway: KisGateway) -> None:
    plan_expiry(name, gateway)
    made = begin(name, keys_of(gateway))
    target = protect(PACKAGES[name].target(made))
    try:
        lost = batch(name, made)
    finally:
        unprotect(target)
    print(name, "protect", says(gateway, lost))
    check_nothing_lost(gateway, lost)


@with_each
def test_a_program_under_kis_retry_run_loses_nothing(name: str, gateway: KisGateway) -> None:
    plan_expiry(name, gateway)
    program = [packages.__file__, name, gateway.url, *keys_of(gateway)[:2]]
    command = [sys.executable, "-m", "kis_retry", "run", sys.executable, *program]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    check_nothing_lost(gateway, json.loads(done.stdout.splitlines()[-1]))


@with_each
@with_http_500
def test_on_a_day_of_refusals_and_drops_it_loses_nothing(
    name: str, gateway: KisGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_RATE_LIMIT", "500")
    install()
    made = begin(name, keys_of(gateway))
    gateway.refuse_calls("EGW00201", share=0.22)
    gateway.drop(share=0.01)
    plan_expiry(name, gateway)
    lost = batch(name, made)
    print(name, "faults", says(gateway, lost), gateway.faults_met)
    assert (lost, gateway.counts.token_requests) == ({}, 2)
    assert gateway.faults_met["EGW00201"] > packages.CALLS / 10


LOST: dict[str, Callable[[KisGateway], None]] = {
    "an answer that is lost": lambda gateway: gateway.drop(times=1, reached=True, path=ORDER),
    "HTTP 503": lambda gateway: gateway.fail(503, 1, reached=True, path=ORDER),
    "EGW00301": lambda gateway: gateway.refuse_calls("EGW00301", 1, reached=True, path=ORDER),
}
REFUSED: dict[str, Callable[[KisGateway], None]] = {
    "the expiry": lambda gateway: gateway.expire(),
    "EGW00201": lambda gateway: gateway.refuse_calls("EGW00201", 1, path=ORDER),
}


def order_until_accepted(name: str, made: Any) -> bool:
    """Order in a loop around the package, as a program does that knows no better; says whether it was accepted."""
    order: Any = PACKAGES[name].order
    for _ in range(3):
        with suppress(Exception):  # whatever a package makes of it
            if order(made):
                return True
    return False


def sent_orders(gateway: KisGateway) -> int:
    return sum(ORDER in request.path and request.method == "POST" for request in gateway.received)


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("name", ORDERING)
@with_http_500
def test_an_order_leaves_once_where_nobody_knows_what_became_of_it(name: str, fault: str, gateway: KisGateway) -> None:
    install()
    made = begin(name, keys_of(gateway))
    LOST[fault](gateway)
    assert not order_until_accepted(name, made)
    assert (sent_orders(gateway), len(gateway.orders)) == (1, 1)


@pytest.mark.parametrize("fault", REFUSED)
@pytest.mark.parametrize("name", ORDERING)
def test_an_order_that_was_not_acted_upon_is_placed_once(name: str, fault: str, gateway: KisGateway) -> None:
    install()
    made = begin(name, keys_of(gateway))
    REFUSED[fault](gateway)
    assert order_until_accepted(name, made)
    assert (sent_orders(gateway), len(gateway.orders)) == (2, 1)
