"""
Packages that people use, unchanged, with nothing but `install()`, `protect(…)` or `kis-retry run`.

What is lost alone and protected is the table of docs/en/libraries.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import packages
from kis_retry import install, protect, unprotect
from kis_retry.testing import KisGateway
from libraries_page import rows
from packages import PACKAGES, THREADS, Keys, batch, begin

pytestmark = pytest.mark.filterwarnings("ignore")  # of packages that are not ours to mend

HERE = [name for pin in os.environ["KIS_RETRY_REAL"].split() for name in PACKAGES if name.split(",")[0] == pin.split("==")[0]]
ORDERING = [name for name in HERE if PACKAGES[name].order is not None]
with_each = pytest.mark.parametrize("name", HERE)
with_http_500 = pytest.mark.parametrize("gateway", [500], indirect=True)


def keys_of(gateway: KisGateway) -> Keys:
    return Keys(gateway.credentials.app_key, gateway.credentials.app_secret)


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
    assert sum(lost.values()) in rows()[name].alone, lost


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
    program = [packages.__file__, name, gateway.server.host, str(gateway.server.port), *keys_of(gateway)[:2]]
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
