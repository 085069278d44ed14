"""docs/*/libraries.md: each package of the table is measured, and both languages have the same figures."""

from __future__ import annotations

import configparser
import re

from packages import PACKAGES, lost_alone
from pages import ROOT, TEXTS


def test_each_row_is_measured_in_an_environment_of_tox_that_the_page_names_and_each_package_has_a_row() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", "utf-8")
    (section,) = [name for name in tox.sections() if name.startswith("testenv:real-")]
    pins = {" ".join(pin.split("==")) for pin in re.findall(r"[\w-]+==[\d.]*", tox[section]["set_env"])}
    listed = {name.removesuffix(", async") for name in lost_alone(TEXTS["docs/en/libraries.md"])}
    assert listed <= {pin.replace("official-samples ", "official samples") for pin in pins}
    assert {name.partition(",")[0] for name in PACKAGES} == {re.sub(r" [\d.]+$", "", name) for name in listed}
    command = "tox -e " + ",".join(f"real-{name}" for name in re.findall(r"\w+", section.partition("{")[2]))
    assert all(command in TEXTS[f"docs/{language}/libraries.md"] for language in ("en", "ko"))


def test_the_korean_page_has_the_same_figures() -> None:
    english, korean = (lost_alone(TEXTS[f"docs/{language}/libraries.md"]) for language in ("en", "ko"))
    assert list(english.values()) == list(korean.values())
