"""The examples run as they are, on a gateway of their own; they show no secret and leave nothing behind."""

from __future__ import annotations

import json
import re
import runpy
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from websockets.sync.server import ServerConnection, serve

from blocks import environ_for
from forks import run_python
from kis_retry.testing import KisGateway
from pages import ROOT

EXAMPLES = ROOT / "examples"
STORY = ["kis_retry.token_expired", "kis_retry.token_refreshed", "kis_retry.call_recovered"]
SECRET = re.compile(r"eyJ|Bearer|PS[0-9a-f]{34}|[\w-]{64}")  # a token, an app key, an app secret

PRINTED = {
    "async_client.py": ["60 of 60 symbols answered, with 2 tokens"],
    "async_httpx.py": ["60 of 60 answers are good", "and 1 token was issued for all of them"],
    "official_sample.py": ["as it is: 4 of 12 tables hold data", "protected: 12 of 12 tables hold data"],
    "overnight_batch.py": ["token_expired", "token_refreshed", "call_recovered", "200 of 200 symbols answered"],
    "own_function.py": ["005930 ", "000660 ", "035420 ", "KIS refused 1 call and issued 2 tokens"],
    "websocket_key.py": ["000660 71900", "2 websockets were opened with 1 key"],
    "prometheus_events.py": [
        'kis_retry_events_total{error="",event="token_expired",source=""} 2.0',
        'kis_retry_events_total{error="",event="token_refreshed",source="issued"} 2.0',
        'kis_retry_refresh_seconds_count{event="token_refreshed"} 2.0',
        "kis_retry_token_expires_timestamp_seconds ",
    ],
}
"""What each prints, among other things, where there are no credentials."""

NEEDED = {
    "async_client.py": "httpx",
    "async_httpx.py": "httpx",
    "protect_korea_investment_stock.py": "korea_investment_stock",
    "protect_mojito.py": "mojito",
    "websocket_key.py": "websockets",
}
"""What each cannot do without, and says so in one line."""


def run_example(name: str, *words: str, **environ: str) -> list[str]:
    done = run_python([str(EXAMPLES / name), *words], Path.cwd(), environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert SECRET.findall(done.stdout) == []
    assert [path for path in Path.home().rglob("*") if path.is_file()] == []
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_runs_without_credentials(name: str) -> None:
    said = "\n".join(run_example(name))
    for text in PRINTED[name]:
        assert text in said


def test_an_example_takes_credentials_from_the_environment(gateway: KisGateway) -> None:
    assert len(run_example("own_function.py", **environ_for(gateway))) == 3
    assert gateway.counts.answered == 3


def test_the_websocket_example_opens_each_with_the_one_key(gateway: KisGateway) -> None:
    keys = []

    def answer(socket: ServerConnection) -> None:
        keys.append(json.loads(socket.recv())["header"]["approval_key"])
        socket.send("0|H0STCNT0|001|000000^093000^12345")

    with serve(answer, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        said = run_example("websocket_key.py", url, **environ_for(gateway))
    assert said == ["005930 12345", "000660 12345"]
    assert keys == gateway.approval_keys * 2
    assert len(gateway.approval_keys) == 1


@pytest.mark.parametrize("name", NEEDED)
def test_an_example_says_in_one_line_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, NEEDED[name], None)
    with pytest.raises(SystemExit, match="1"):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("This example needs ")
    assert "pip install" in said.err


def test_the_structlog_example_tells_the_story_of_two_expiries() -> None:
    lines = run_example("structlog_events.py")
    assert [re.findall(r" event='(.*?)'", line) for line in lines] == [[name] for name in STORY * 2]
    assert ["symbol='000660'" in line for line in lines] == [True] * 3 + [False] * 3


def test_the_json_example_prints_one_object_a_line() -> None:
    entries = [json.loads(line) for line in run_example("json_log_lines.py")]
    assert [f"kis_retry.{entry['kis_name']}" for entry in entries] == STORY
    assert all(None not in entry.values() for entry in entries)
    assert entries[0]["kis_token"] == entries[1]["kis_previous_token"]


def test_the_picture_is_drawn_from_both_batches_and_the_committed_one_is_of_the_whole(tmp_path: Path) -> None:
    target = tmp_path / "batch.svg"
    unprotected, protected = run_example("make_picture.py", str(target), "--symbols", "168")
    assert re.fullmatch(r"unprotected: 118 asked for, \d\d\d? answered, 1 tokens issued", unprotected)
    assert protected == "protected: 168 asked for, 168 answered, 2 tokens issued"
    assert "all 168 are answered, with 2 tokens" in described(target)
    assert target.with_suffix(".ko.svg").exists()
    committed = described(ROOT / "docs" / "batch.svg")
    assert "all 16,780 are answered, with 2 tokens" in committed
    assert "stops at symbol 11,780, after 5 times “기간이 만료된 token 입니다.”" in committed


def described(path: Path) -> str:
    return str(ET.fromstring(path.read_bytes()).findtext("{http://www.w3.org/2000/svg}desc"))
