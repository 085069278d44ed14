"""
The pages hold what they show: every block of code runs.

A Python block runs as it is, in a process and a folder of its own, against a gateway on which the token expires before
the first call; one that begins with `# not run here: it needs …` is only compiled. Console blocks hold `$` commands;
the first two of the README are what CI runs, the others are checked here.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from blocks import environ_for, extras, run_command, run_python
from kis_retry.cli import parser
from kis_retry.testing import KisGateway
from pages import TEXTS, Block, blocks_of, directives_of, prose_of

pytestmark = pytest.mark.one_python

BLOCKS = {name: blocks_of(name, text) for name, text in TEXTS.items()}
DISTINCT = {block.text: block for blocks in reversed(BLOCKS.values()) for block in blocks}.values()
CI_RUNS = [command for block in BLOCKS["README.md"] for command in block.commands][:2]
COMMANDS = {command for block in DISTINCT for command in block.commands if command not in CI_RUNS}
PROGRAMS = [block for block in DISTINCT if block.language == "python" and block.reason is None]
WIDEST = 88


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.place)
def test_a_python_block_runs_over_an_expiry(block: Block, tmp_path: Path) -> None:
    folder = tmp_path / "somewhere"
    folder.mkdir()
    with KisGateway() as gateway:
        gateway.expire_at(1)
        done = run_python(block, folder, environ_for(gateway))
        counts = gateway.counts
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (counts.refused > 0) == (counts.calls > 0)
    assert counts.answered == counts.calls - counts.refused
    assert counts.tokens_issued <= 2


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
def test_a_command_does_what_it_says(command: str, gateway: KisGateway, tmp_path: Path) -> None:
    done = run_command(command, tmp_path, environ_for(gateway))
    assert done is None or (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["docs/en/install.md", "docs/ko/install.md"])
def test_the_page_on_installing_has_every_extra(name: str) -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", TEXTS[name], re.MULTILINE)) == extras()


def test_a_command_in_a_text_is_one_that_the_program_takes() -> None:
    found = [re.findall(r"`kis-retry ([a-z][^`…]*?) ?…?`", prose_of(text)) for text in TEXTS.values()]
    commands = {command for commands in found for command in commands}
    assert {"config", "demo", "gateway", "run", "token"} == {command.split()[0] for command in commands}
    for command in commands:
        parser().parse_args(shlex.split(command))
