"""`kis-retry demo`: the batch of the requirement, what becomes of it, and how it is shown."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from unittest.mock import Mock

import pytest

from forks import unmeasured
from kis_retry.cli import main
from kis_retry.cli.demo import Batch
from patience import PATIENCE

pytestmark = pytest.mark.one_python


def run(*words: str, status: int = 0) -> dict[str, str]:
    """Run it in a pipe; return its lines by what stands before their last words."""
    command = [sys.executable, "-m", "kis_retry", "demo", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (status, "")
    assert "\x1b" not in done.stdout
    lines = [line.strip() for line in done.stdout.splitlines()]
    return {"first": lines[0], "last": lines[-1], **dict(line.rsplit(maxsplit=1) for line in lines if " " in line)}


def test_a_protected_batch_loses_nothing_and_shows_the_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nothing of this may go to the company's proxy
    monkeypatch.setenv("KIS_RETRY_ENABLED", "false")  # nor depend on settings
    monkeypatch.setenv("KIS_RATE_LIMIT", "0.1")
    seen = run("--symbols", "400")
    assert seen["first"] == "400 symbols, 4 at a time, protected"
    assert (seen["last"], seen["answered"], seen["lost"]) == ("400 of 400 symbols", "400", "0")
    assert int(seen["calls"]) >= 400 + int(seen["repeated after EGW00123"]) > 400
    assert (seen["tokens issued"], seen["token requests"]) == ("2", "2")
    (refreshed,) = [line for line in seen if line.startswith("token_refreshed token=")]
    assert refreshed.endswith(" source=issued")


def test_an_unprotected_batch_ends_where_the_real_one_did() -> None:
    seen = run("--unprotected", "--symbols", "400", status=1)
    assert seen["last"] == "aborted at symbol 281 of 400: 5 times EGW00123 in a row"
    assert (seen["answered"], seen["lost"], seen["tokens issued"], seen["token requests"]) == ("276", "5", "1", "1")


def test_a_terminal_gets_a_bar_that_leaves_room_and_ctrl_c_is_one_line_and_130() -> None:
    shown, status = interrupted_in_terminal("--symbols", "4000")
    assert status == 130, shown
    bars = [line for line in re.split(r"[\r\n]+", shown) if "━" in line or "╸" in line]
    assert max(map(len, bars)) <= 78, "^C finds its place behind it"
    *_, bar, last = [line for line in shown.splitlines() if line.strip()]
    assert last.strip() == "kis-retry: interrupted"
    assert "/4000" in bar
    assert "Traceback" not in shown


def interrupted_in_terminal(*words: str) -> tuple[str, int]:
    """Run it as on a terminal of 80 columns until it has begun; return what that got, and the exit status."""
    environment = {**unmeasured(), "COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color", "FORCE_COLOR": "1"}
    command, shown = [sys.executable, "-m", "kis_retry", "demo", *words], b""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        assert process.stdout is not None
        while not re.search(rb"[1-9]\d*/4000", shown):
            part = os.read(process.stdout.fileno(), 65_536)
            assert part, shown
            shown += part
        process.send_signal(signal.SIGINT)
        shown += process.communicate(timeout=PATIENCE)[0]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()), process.returncode


def test_without_rich_one_line_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "kis_retry.cli.demo", raising=False)
    assert main(["demo"]) == 1
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert "pip install '.[cli]' in a clone of kis-retry, or pip install rich" in said.err


def test_the_whole_batch_is_that_of_the_requirement() -> None:
    client = Mock()
    client.fetch_domestic_price.return_value = client.fetch_price_detail_oversea.return_value = {"rt_cd": "0"}
    batch = Batch(None, protected=True)
    assert len(list(batch.run(client, 4))) == batch.symbols == 16_780
    assert (batch.result, batch.dies) == ("16,780 of 16,780 symbols", 11_776)
    assert len(client.fetch_domestic_price.call_args_list) == 5_000
