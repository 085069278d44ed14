"""Running what a page shows: its Python blocks as programs or tests, with the environment that they are written for."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from pathlib import Path

from forks import Done, run_python
from kis_retry.testing import KisGateway
from pages import Block


def run_block(block: Block, folder: Path, environ: dict[str, str]) -> Done:
    """A block as a program; one that defines tests, by a pytest that loads this plug-in and no other."""
    is_test = re.search(r"^ *(async )?def test_", block.text, re.MULTILINE)
    path = folder / ("test_block.py" if is_test else "block.py")
    path.write_text(block.text, "utf-8")
    if not is_test:
        return run_python([str(path)], folder, environ)
    options = ["-q", "-p", "kis_retry.testing.plugin", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environ}
    return run_python(["-m", "pytest", *options, str(path)], folder, alone)


def extras() -> set[str]:
    """The extras that the package has."""
    return set(metadata("kis-retry").get_all("Provides-Extra") or [])


def extras_in(text: str) -> set[str]:
    """The extras that a text names, of the package or of a clone of it."""
    return {name for names in re.findall(r"(?:kis-retry|\.)\[([\w,]+)\]", text) for name in names.split(",")}


def environ_for(gateway: KisGateway) -> dict[str, str]:
    """What `from_env()` finds a gateway by."""
    credentials = gateway.credentials
    return {
        "KIS_APP_KEY": credentials.app_key,
        "KIS_APP_SECRET": credentials.app_secret,
        "KIS_BASE_URL": gateway.url,
        "KIS_TOKEN_STORE": "memory",
    }
