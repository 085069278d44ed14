"""
The pages hold what they show: every block of code runs.

A Python block runs as it is, in a process and a folder of its own, against a gateway on which the token expires before
the first call; a log that a page shows below it is what it prints. One that begins with `# not run here: it needs …` is
only compiled. The first two `$` commands of the README are what CI runs, the others are checked here.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from blocks import environ_for, extras, extras_in, run_block
from kis_retry.cli import parser
from kis_retry.testing import KisGateway
from pages import TEXTS, Block, blocks_of, directives_of, prose_of

BLOCKS = {name: blocks_of(name, text) for name, text in TEXTS.items()}
DISTINCT = {block.text: block for blocks in reversed(BLOCKS.values()) for block in blocks}.values()
CI_RUNS = [command for block in BLOCKS["README.md"] for command in block.commands][:2]
COMMANDS = {command for block in DISTINCT for command in block.commands if command not in CI_RUNS}
PROGRAMS = [block for block in DISTINCT if block.language == "python" and block.reason is None]
LOGS = {
    program.text: log.text
    for blocks in BLOCKS.values()
    for program, log in pairwise(blocks)
    if program.language == "python" and "kis_retry.token_refreshed" in log.text and log.language == "text"
}
WIDEST = 88

BATCH = """\
import os, requests
url, key, secret = (os.environ[f"KIS_{name}"] for name in ("BASE_URL", "APP_KEY", "APP_SECRET"))
given = {"appkey": key, "appsecret": secret}
token = requests.post(f"{url}/oauth2/tokenP", json=given).json()["access_token"]
path = "/uapi/domestic-stock/v1/quotations/inquire-price?FID_COND_MRKT_DIV_CODE=J&FID_INPUT_ISCD=005930"
answer = requests.get(url + path, headers={**given, "authorization": f"Bearer {token}", "tr_id": "FHKST01010100"})
assert answer.json()["rt_cd"] == "0"
"""
"""The program of somebody who knows nothing of this package, for `kis-retry run`."""


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.place)
def test_a_python_block_runs_over_an_expiry_and_logs_what_the_page_shows(
    block: Block, gateway: KisGateway, tmp_path: Path
) -> None:
    gateway.expire_at(1)
    done = run_block(block, tmp_path, environ_for(gateway))
    counts = gateway.counts
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (counts.refused > 0) == (counts.calls > 0)
    assert counts.answered == counts.calls - counts.refused
    assert counts.tokens_issued <= 2
    shown = LOGS.get(block.text, "").splitlines()  # a page may leave the beginning out
    assert normalised(done.stderr.splitlines()[-len(shown) :] if shown else []) == normalised(shown)


def test_the_log_of_an_expiry_is_shown() -> None:
    assert len(LOGS) >= 2


def normalised(log: list[str]) -> str:
    """Times are blanked out; fingerprints are numbered, so that the same token stays the same."""
    said = re.sub(r"(elapsed|expires_at)=[\dT:+.-]+", r"\1=…", "\n".join(log))
    numbers: dict[str, int] = {}
    return re.sub(r"\b[0-9a-f]{8}\b", lambda found: f"token-{numbers.setdefault(found[0], len(numbers))}", said)


def test_a_block_that_is_not_run_needs_a_package_and_compiles() -> None:
    skipped = [block for block in DISTINCT if block.reason is not None]
    assert len(PROGRAMS) > len(skipped) > 0
    for block in skipped:
        assert str(block.reason).startswith("it needs ")
        compile(block.text, block.place, "exec")


@pytest.mark.parametrize("name", TEXTS)
def test_every_block_is_of_a_kind_that_is_checked_and_fits_a_page(name: str) -> None:
    assert {block.language for block in BLOCKS[name]} <= {"python", "console", "text", ""}
    fences = len(re.findall(r"^```", TEXTS[name], re.MULTILINE))
    assert fences == 2 * (len(BLOCKS[name]) + len(directives_of(TEXTS[name])))
    for block in BLOCKS[name]:
        assert block.commands or block.language != "console", block.place
        lines = block.text.splitlines() if block.language != "text" else []  # the lines of a log are wrapped
        wide = [line for line in lines if len(line) > WIDEST and line.removeprefix("$ ") not in CI_RUNS]
        assert wide == [], block.place


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_does_what_it_says(
    command: str, gateway: KisGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ_for(gateway).items():
        monkeypatch.setenv(name, value)
    words = shlex.split(command)
    if words[:2] == ["pip", "install"]:
        assert extras_in(command) <= extras()
        return
    assert words[0] == "kis-retry", "nobody checks it: say it otherwise, or teach this test"
    if words[1] == "run":
        words[2] = sys.executable
        (tmp_path / words[-1]).write_text(BATCH, "utf-8")
    program = [sys.executable, "-m", "kis_retry", *words[1:]]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_in_a_text_is_one_that_the_program_takes() -> None:
    found = [re.findall(r"`kis-retry ([a-z][^`…]*?) ?…?`", prose_of(text)) for text in TEXTS.values()]
    commands = {command for commands in found for command in commands}
    assert {"config", "demo", "gateway", "run", "token"} == {command.split()[0] for command in commands}
    for command in commands:
        parser().parse_args(shlex.split(command))
