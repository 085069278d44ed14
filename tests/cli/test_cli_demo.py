"""`kis-retry demo`: the batch of the requirement, what becomes of it, and how it is shown."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from typing import Any
from unittest.mock import Mock

import pytest

from kis_retry.cli import main
from kis_retry.cli.demo import Batch
from patience import PATIENCE

pytestmark = pytest.mark.one_python


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kis_retry", "demo", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def report(*words: str, status: int = 0) -> dict[str, Any]:
    done = run("--json", *words)
    assert (done.returncode, done.stderr) == (status, "")
    (line,) = done.stdout.splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


def test_a_protected_batch_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nothing of this may go to the company's proxy
    monkeypatch.setenv("KIS_RETRY_ENABLED", "false")  # nor depend on settings
    monkeypatch.setenv("KIS_RATE_LIMIT", "0.1")
    seen = report("--symbols", "400")
    assert (seen["symbols"], seen["answered"], seen["lost"], seen["never_asked"]) == (400, 400, 0, 0)
    assert (seen["protected"], seen["result"]) == (True, "400 of 400 symbols")
    codes = seen["codes"]
    assert {"EGW00201", "EGW00123"} <= set(codes)
    assert all(count["repeated"] > 0 and count["lost"] == 0 for count in codes.values())
    assert seen["calls"] == 400 + sum(count["repeated"] for count in codes.values())
    assert seen["tokens_issued"] == 2
    assert seen["token_requests"] > 2, "its endpoint was away"
    assert [event["name"] for event in seen["events"]].count("token_refreshed") == 1


def test_an_unprotected_batch_ends_where_the_real_one_did() -> None:
    seen = report("--unprotected", "--symbols", "400", status=1)
    assert (seen["protected"], seen["never_asked"]) == (False, 119)
    assert seen["result"].startswith("aborted at US symbol 281 after 5 identical failures in a row, ")
    assert seen["codes"]["EGW00123"] == {"repeated": 0, "lost": 5}
    assert (seen["tokens_issued"], seen["token_requests"], seen["events"]) == (1, 1, [])
    assert seen["calls"] == 281


@pytest.mark.parametrize("total", [1, 7])
def test_a_small_batch_is_one_too(total: int) -> None:
    assert report("--symbols", str(total), "--threads", "2")["answered"] == total


def test_a_pipe_gets_plain_lines() -> None:
    done = run("--symbols", "40")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "40 symbols, 4 at a time, protected"
    (refreshed,) = [line for line in lines if line.startswith("token_refreshed ")]
    assert re.search(r" source=issued elapsed=\d+\.\d+$", refreshed)
    assert any("the token dies at US symbol 24" in line for line in lines)
    assert any(line.split() == ["answered", "40"] for line in lines)
    assert any(line.split() == ["result", "40", "of", "40", "symbols"] for line in lines)


def test_a_terminal_gets_a_bar_that_leaves_room() -> None:
    shown, status = in_terminal("--symbols", "40")
    assert status == 0
    bars = [line for line in re.split(r"[\r\n]+", without_codes(shown)) if "━" in line or "╸" in line]
    assert bars
    assert max(map(len, bars)) <= 78, "^C finds its place behind it"


def test_ctrl_c_is_one_line_and_130_and_leaves_one_bar() -> None:
    shown, status = in_terminal("--symbols", "4000", interrupt=True)
    assert status == 130, shown
    *_, bar, last = [line for line in without_codes(shown).splitlines() if line.strip()]
    assert last.strip() == "kis-retry: interrupted"
    assert "/4000" in bar
    assert "Traceback" not in shown


def in_terminal(*words: str, interrupt: bool = False) -> tuple[str, int]:
    """Run it on a terminal of 80 columns; give back what that got, and the exit status."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}
    command, pipes = [sys.executable, "-m", "kis_retry", "demo", *words], ("stdin", "stdout", "stderr")
    ends: dict[str, Any] = dict.fromkeys(pipes, follower)
    process = subprocess.Popen(command, env=environment, start_new_session=True, **ends)
    os.close(follower)
    shown = b""
    try:
        while piece := _read(leader):
            shown += piece
            if interrupt and re.search(rb"[1-9]\d*/4000", shown):
                interrupt = False
                process.send_signal(signal.SIGINT)
        return shown.decode(), process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65_536)
    except OSError:  # Linux's way to say that nobody has the terminal any more
        return b""


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_without_rich_one_line_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["demo"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "kis-retry: the demo needs rich: pip install '.[cli]' in a clone of kis-retry, or pip install rich\n"
    )


def test_the_token_dies_at_us_symbol_11_776_when_those_before_have_their_outcomes() -> None:
    client, news, first = Mock(), list[str](), dict[str, int]()
    client.fetch_domestic_price.return_value = client.fetch_price_detail_oversea.return_value = {"rt_cd": "0"}

    def gateway(name: str, *_: object, **__: object) -> None:
        first.setdefault(name, len(client.fetch_price_detail_oversea.call_args_list))

    batch = Batch(None, protected=True)
    assert len(list(batch.run(client, gateway, 4, news.append))) == batch.symbols == 16_780
    assert batch.outcomes == [None] * 16_780
    assert (len(client.fetch_domestic_price.call_args_list), first["expire"]) == (5_000, 11_775)
    assert any("US symbol 11,776" in line for line in news)
