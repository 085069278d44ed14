"""Running what a page shows: its Python blocks as programs or tests, its commands as a user would."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

from kis_retry.testing import KisGateway
from pages import ROOT, Block

PROGRAM = """\
import os, requests
url, key, secret = (os.environ[f"KIS_{name}"] for name in ("BASE_URL", "APP_KEY", "APP_SECRET"))
given = {"appkey": key, "appsecret": secret}
token = requests.post(f"{url}/oauth2/tokenP", json=given).json()["access_token"]
path = "/uapi/domestic-stock/v1/quotations/inquire-price?FID_COND_MRKT_DIV_CODE=J&FID_INPUT_ISCD=005930"
answer = requests.get(url + path, headers={**given, "authorization": f"Bearer {token}", "tr_id": "FHKST01010100"})
assert answer.json()["rt_cd"] == "0"
"""
"""The program of somebody who knows nothing of this package, for `kis-retry run`."""


def run_python(block: Block, folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A block as a program; one that defines tests, by a pytest that loads this plug-in and no other."""
    is_test = re.search(r"^ *(async )?def test_|\(TokenStoreCompliance\)", block.text, re.MULTILINE)
    path = folder / ("test_block.py" if is_test else "block.py")
    path.write_text(block.text, "utf-8")
    if not is_test:
        return run([sys.executable, str(path)], folder, environ)
    options = ["-q", "-p", "kis_retry.testing.plugin", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environ}
    return run([sys.executable, "-m", "pytest", *options, str(path)], folder, alone)


def run(words: list[str], folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A program in `folder`, with what pytest itself has put into the environment left out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        words,
        cwd=folder,
        env={**kept, "PYTHONIOENCODING": "utf-8", **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=170,
        check=False,
    )


def run_command(command: str, folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str] | None:
    """A command of a console block; None for an installation, of which the extras alone are checked."""
    words = shlex.split(command)
    if words[:2] == ["pip", "install"]:
        assert set(extras_in(command)) <= extras()
        return None
    if words[:3] == ["kis-retry", "run", "python"]:
        words[2] = sys.executable
        (folder / words[-1]).write_text(PROGRAM, "utf-8")
    if words[0] == "kis-retry" and "gateway" not in words:
        return run([sys.executable, "-m", "kis_retry", *words[1:]], folder, environ)
    if words[0] == "python" and words[1].startswith("examples/"):
        return run([sys.executable, str(ROOT / words[1]), *words[2:]], folder, environ)
    raise AssertionError(f"nobody checks {command!r}: say it otherwise, or teach this module")


def extras() -> set[str]:
    """The extras that the package has."""
    return set(metadata("kis-retry").get_all("Provides-Extra") or [])


def extras_in(text: str) -> list[str]:
    """The extras that a text names, of the package or of a clone of it."""
    return [name for names in re.findall(r"(?:kis-retry|\.)\[([\w,]+)\]", text) for name in names.split(",")]


def environ_for(gateway: KisGateway) -> dict[str, str]:
    """What `from_env()` finds a gateway by."""
    credentials = gateway.credentials
    return {
        "KIS_APP_KEY": credentials.app_key,
        "KIS_APP_SECRET": credentials.app_secret,
        "KIS_BASE_URL": gateway.url,
        "KIS_TOKEN_STORE": "memory",
    }
