"""docs/*/libraries.md: each package of the table is measured, and both languages have the same figures."""

from __future__ import annotations

import configparser
import re

from libraries_page import PAGE, rows
from packages import PACKAGES
from pages import ROOT

KOREAN = ROOT / "docs" / "ko" / "libraries.md"


def _tox() -> tuple[str, str]:
    """Return the name and the settings of the environments with real packages."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", "utf-8")
    (found,) = [name for name in tox.sections() if name.startswith("testenv:real-")]
    return found, tox[found]["set_env"]


def test_each_row_is_measured_in_an_environment_of_tox_and_each_package_has_a_row() -> None:
    pins = {" ".join(pin.split("==")).replace("official-samples ", "official samples") for pin in _pins()}
    listed = {name.removesuffix(", async") for name in rows()}
    assert listed <= pins
    assert {name.partition(",")[0] for name in PACKAGES} == {re.sub(r" [\d.]+$", "", name) for name in listed}


def _pins() -> list[str]:
    return re.findall(r"[\w-]+==[\d.]*", _tox()[1])


def test_nothing_is_lost_protected_and_one_token_is_requested() -> None:
    assert {(row.protected, row.token_requests, row.refusals) for row in rows().values()} == {(0, 1, 16)}


def test_the_page_names_every_environment() -> None:
    names = re.findall(r"\w+", _tox()[0].partition("{")[2])
    command = "tox -e " + ",".join(f"real-{name}" for name in names)
    assert all(command in page.read_text("utf-8") for page in (PAGE, KOREAN))


def test_the_korean_page_has_the_same_figures() -> None:
    assert list(rows(KOREAN).values()) == list(rows().values())
