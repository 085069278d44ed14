"""The log of one expiry, as the page on operating shows it, is what the program above it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blocks import run_python
from pages import TEXTS, Block, blocks_of

PAGE = "docs/en/operating.md"


def program_and_log() -> tuple[Block, str]:
    """The block that is followed by a block of what it prints."""
    blocks = blocks_of(PAGE, TEXTS[PAGE])
    (number,) = [number for number, block in enumerate(blocks) if block.language == "text"]
    return blocks[number - 1], blocks[number].text


def normalised(log: str) -> str:
    """Times are blanked out; fingerprints are numbered, so that the same token stays the same."""
    log = re.sub(r"elapsed=\d+\.\d+", "elapsed=…", log)
    log = re.sub(r"expires_at=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+09:00", "expires_at=…", log)
    numbers: dict[str, int] = {}
    return re.sub(r"\b[0-9a-f]{8}\b", lambda found: f"token-{numbers.setdefault(found[0], len(numbers))}", log)


@pytest.mark.one_python
def test_the_program_prints_what_the_page_shows(tmp_path: Path) -> None:
    program, log = program_and_log()
    assert "logging.basicConfig(" in program.text
    done = run_python(program, tmp_path, {})
    assert (done.returncode, done.stdout) == (0, "")
    assert normalised(done.stderr) == normalised(log)


def test_the_log_tells_the_refusal_the_new_token_and_the_recovery() -> None:
    _, log = program_and_log()
    assert re.findall(r"kis_retry\.(\w+)", log) == ["token_expired", "token_refreshed", "call_recovered"]


def test_what_changes_from_run_to_run_is_all_that_is_normalised() -> None:
    line = "a token=0a1b2c3d previous_token={} expires_at=2026-11-27T02:24:52+09:00 elapsed={}"
    assert normalised(line.format("11223344", 0.1)) == normalised(line.format("55667788", 2.5))
    assert normalised(line.format("11223344", 0.1)) != normalised(line.format("0a1b2c3d", 0.1))
    assert normalised("a msg_cd=EGW00123") != normalised("a msg_cd=EGW00121")
