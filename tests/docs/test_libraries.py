"""docs/en/libraries.md: the row of the official samples, and nothing in it is left unmeasured or untranslated."""

from __future__ import annotations

import configparser
import importlib.util
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from expiries import THREADS, measured
from kis_retry import unprotect
from kis_retry.testing import KisGateway
from libraries_page import blocks_of, rows, sections
from pages import ROOT
from redirect import REAL_HOSTS, Redirect

KOREAN = ROOT / "docs" / "ko" / "libraries.md"


@pytest.fixture
def kis_auth(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in for the samples' module: the example in their manner, under the name of theirs."""
    spec = importlib.util.spec_from_file_location("kis_auth", ROOT / "examples" / "official_sample.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kis_auth", module)
    spec.loader.exec_module(module)
    module.getEnv = lambda: module._cfg
    yield module
    unprotect(module)


@pytest.mark.parametrize("status", [500, 200])
def test_the_row_of_the_official_samples_holds(
    status: int, kis_auth: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = rows()["official samples"]
    monkeypatch.setenv("KIS_TOKEN_STORE", "memory")
    redirect = Redirect(monkeypatch, THREADS)
    with KisGateway(expired_status=status) as gateway:
        redirect.begin(gateway)
        who = gateway.credentials
        kis_auth._cfg.update(my_app=who.app_key, my_sec=who.app_secret, prod=REAL_HOSTS[0])
        kis_auth._cfg.update(my_acct_stock="12345678", my_prod="01")
        kis_auth.auth()
        alone = measured(kis_auth.inquire_price, bool, gateway)
        assert alone.lost in row.alone
        (block,) = blocks_of("Official samples")
        exec(block, {})
        protected = measured(kis_auth.inquire_price, bool, gateway)
    redirect.close()
    assert (protected.lost, protected.token_requests) == (row.protected, row.token_requests) == (0, 1)
    assert 0 < protected.refused <= row.refusals


def test_each_package_of_the_table_is_measured_in_an_environment_of_tox() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", "utf-8")
    (real,) = [tox[name]["set_env"] for name in tox.sections() if name.startswith("testenv:real-")]
    measured = {" ".join(pin.split("==")) for pin in re.findall(r"[\w-]+==[\d.]+", real)}
    listed = {name.removesuffix(", async") for name, row in rows().items() if row.alone}
    assert listed - {"official samples"} == measured
    assert {name.split()[0] for name in measured} <= set(sections())


def test_the_korean_page_has_the_same_figures() -> None:
    assert list(rows(KOREAN).values()) == list(rows().values())
