"""The logs of an expiry that the pages show are what the programs above them print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blocks import environ_for, run_python
from kis_retry.testing import KisGateway
from pages import TEXTS, Block, blocks_of


def program_and_log(page: str) -> tuple[Block, str]:
    """The block that is followed by a block of what it logs."""
    blocks = blocks_of(page, TEXTS[page])
    (number,) = [number for number, block in enumerate(blocks) if block.language == "text"]
    return blocks[number - 1], blocks[number].text


def normalised(log: str) -> str:
    """Times are blanked out; fingerprints are numbered, so that the same token stays the same."""
    log = re.sub(r"elapsed=\d+(\.\d+)?", "elapsed=…", log)
    log = re.sub(r"expires_at=[\dT:+-]+", "expires_at=…", log)
    numbers: dict[str, int] = {}
    return re.sub(r"\b[0-9a-f]{8}\b", lambda found: f"token-{numbers.setdefault(found[0], len(numbers))}", log)


@pytest.mark.one_python
@pytest.mark.parametrize("page", ["docs/en/index.md", "docs/en/operating.md"])
def test_the_program_logs_what_the_page_shows(page: str, tmp_path: Path) -> None:
    program, log = program_and_log(page)
    assert "kis_retry.token_refreshed" in log
    with KisGateway() as gateway:
        gateway.expire_at(1)
        done = run_python(program, tmp_path, environ_for(gateway))
    assert done.returncode == 0
    last = done.stderr.splitlines()[-len(log.splitlines()) :]  # a page may leave the beginning out
    assert normalised("\n".join(last)) == normalised(log.strip())


def test_what_changes_from_run_to_run_is_all_that_is_normalised() -> None:
    line = "a token=0a1b2c3d previous_token={} expires_at=2026-11-27T02:24:52+09:00 elapsed={}"
    assert normalised(line.format("11223344", 0.1)) == normalised(line.format("55667788", 2.5))
    assert normalised(line.format("11223344", 0.1)) != normalised(line.format("0a1b2c3d", 0.1))
    assert normalised("a msg_cd=EGW00123") != normalised("a msg_cd=EGW00121")
