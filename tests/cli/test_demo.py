"""`kis-retry demo`: the batch of the requirement, its tracker, and how it is shown."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from kis_retry.cli import causes, main, night, output
from kis_retry.cli.report import CAUSE_COLUMNS
from patience import PATIENCE
from unmeasured import unmeasured

pytestmark = pytest.mark.one_python


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kis_retry", "demo", *words], capture_output=True, text=True, timeout=60, check=False
    )


def report(text: str) -> dict[str, Any]:
    (line,) = text.splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


def rows_of(text: str) -> dict[str, list[str]]:
    """The rows of the closing tables, by the name in their first column."""
    split = (re.split(r"  +", line) for line in text.splitlines())
    return {name: values for name, *values in split if values}


def test_a_protected_batch_loses_nothing_in_a_night_with_every_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nothing of this may go to the company's proxy
    monkeypatch.setenv("KIS_RETRY_ENABLED", "false")  # nor depend on settings
    monkeypatch.setenv("KIS_RATE_LIMIT", "0.1")
    done = run("--symbols", "400", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    seen = report(done.stdout)
    assert (seen["symbols"], seen["domestic"], seen["us"]) == (400, 119, 281)
    assert (seen["answered"], seen["failed"], seen["aborted"], seen["protected"]) == (400, 0, False, True)
    assert (seen["ended_by"], seen["aborted_at"], seen["failure"]) == (None, None, None)
    causes = seen["causes"]
    for name in ("rate_limited", "dropped", "token_expired", "token_endpoint_away", "api_away"):
        cause = causes[name]
        assert cause["struck"] >= 1, name
        assert cause["repeated"] == cause["struck"], f"{name}: the gateway's count is that of the events"
        assert 0 < cause["longest"] <= cause["seconds"], name
        assert cause["lost"] == 0, name
    assert causes["token_expired"]["struck"] <= seen["threads"]
    assert causes["other"] == {"struck": 0, "repeated": 0, "seconds": 0, "longest": 0, "lost": 0}
    met = ("rate_limited", "dropped", "token_expired", "api_away")
    assert seen["calls"] == 400 + sum(causes[name]["struck"] for name in met)
    assert seen["tokens_issued"] == 2
    assert seen["token_requests"] == 2 + causes["token_endpoint_away"]["struck"]
    names = [event["name"] for event in seen["events"]]
    assert names.count("token_refreshed") == 1
    assert names.count("token_expired") == causes["token_expired"]["struck"]
    assert "call_given_up" not in names


def test_the_demo_keeps_the_pace_that_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--symbols", "400", "--unprotected", "--json"]) == 1
    seen = report(capsys.readouterr().out)
    assert seen["pace"] == seen["fast_forward"] * 18
    assert seen["seconds"] >= (seen["calls"] - 1) / seen["pace"], "the decorators are off, and the pace is not"
    assert seen["over_limit"] == 0, "the gateway takes no more than that"


def test_an_unprotected_batch_dies_of_the_token_at_five_in_a_row() -> None:
    done = run("--symbols", "400", "--unprotected")
    assert (done.returncode, done.stderr) == (1, "")
    rows = rows_of(done.stdout)
    lost = {name: int(row[-1]) for name, row in rows.items() if name in causes.CAUSES.values()}
    assert lost["token expired"] >= 5
    assert lost["refused, EGW00201"] > 0
    assert lost["connection dropped"] > 0
    assert lost["token endpoint away"] == lost["API away, HTTP 503"] == 0, "it does not live to see them"
    assert int(rows["lost"][0]) == sum(lost.values())
    assert int(rows["answered"][0]) + int(rows["lost"][0]) + int(rows["never asked for"][0]) == 400
    assert (rows["token requests"], rows["tokens issued"]) == (["1"], ["1"])
    result = " ".join(rows["result"])
    assert "after 5 identical failures in a row" in result
    assert "cause: token expired (기간이 만료된 token 입니다.)" in result


@pytest.mark.parametrize("threads", ["1", "16", "64"])
def test_the_unprotected_batch_dies_of_the_token_however_many_ask(
    threads: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--unprotected", "--symbols", "200", "--threads", threads, "--json"]) == 1
    seen = report(capsys.readouterr().out)
    assert (seen["aborted"], seen["ended_by"], seen["failure"]) == (
        True,
        "token_expired",
        "기간이 만료된 token 입니다.",
    )
    first = seen["us"] - 4  # the symbol at which the token dies
    assert seen["aborted_at"] >= first + 4
    assert seen["causes"]["token_expired"]["lost"] <= seen["processed"] - first + 1, "none died before"


def test_a_batch_too_small_to_abort_is_incomplete(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--unprotected", "--symbols", "2", "--threads", "1", "--json"]) == 1
    seen = report(capsys.readouterr().out)
    assert (seen["answered"], seen["failed"], seen["aborted"], seen["ended_by"]) == (0, 2, False, None)
    assert [name for name, cause in seen["causes"].items() if cause["lost"]] == ["token_expired", "api_away"]
    assert seen["result"] == "incomplete, 0 of 2 symbols: ResponseError"


@pytest.mark.parametrize("threads", ["1", "64"])
def test_the_smallest_batch_gets_through_its_night(threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--symbols", "2", "--threads", threads, "--json"]) == 0
    seen = report(capsys.readouterr().out)
    assert (seen["answered"], seen["causes"]["token_expired"]["struck"]) == (2, 1)


def test_in_a_pipe_everything_is_a_plain_line() -> None:
    done = run("--symbols", "40")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "40 symbols, 28 US and then 12 domestic, 4 at a time, protected"
    assert lines[1] == f"paced at {night.PACE:,} calls a second, {night.FAST_FORWARD} times KIS's 18"
    expiry = next(line for line in lines if line.startswith("the token dies at US symbol 24, and its endpoint is away"))
    outage = next(line for line in lines if re.fullmatch(r"the API is away for [0-9.]+ s at domestic symbol 6", line))
    assert lines.count(expiry) == lines.count(outage) == 2, "announced, and told when it happens"
    assert "40 of 40" in lines
    assert any(line.startswith("token_refreshed: KisClient.fetch_price_detail_oversea") for line in lines)
    assert rows_of(lines[-1]) == {"result": ["complete, 40 of 40 symbols"]}


def test_of_many_events_of_a_kind_the_first_is_shown() -> None:
    done = run("--symbols", "150")
    assert done.stdout.count("call_retried: KisClient.fetch_price_detail_oversea, EGW00201") == 1
    rows = rows_of(done.stdout)
    assert int(rows["refused, EGW00201"][0]) > 1


@pytest.mark.parametrize(("no_color", "drawn"), [("", True), ("1", False)])
def test_a_terminal_gets_a_bar_unless_it_says_no_color(
    no_color: str, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    mine, its = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "kis_retry", "demo", "--symbols", "20"], stdout=its)
    os.close(its)
    said = b""
    while True:
        try:
            part = os.read(mine, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        said += part
    os.close(mine)
    assert process.wait(timeout=20) == 0
    assert (b"\x1b[" in said) is drawn
    assert b"token_refreshed" in said


def test_a_drawn_demo_shows_events_and_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "drawing", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["demo", "--symbols", "20"]) == 0
    said = capsys.readouterr().out
    assert "token_refreshed: KisClient.fetch_price_detail_oversea" in said
    assert "complete, 20 of 20 symbols" in said


PREPARED = """
import pkgutil, re, signal, sys, time
from kis_retry.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a CI's shell may have it ignored
"""
REACHED = """
def reached(*_, **__):
    print("reached", flush=True)
    time.sleep(60)
"""
DROPPED = """
class Dropped:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def reached(*_, **__):
    Dropped()
    return []
"""
KILLED = """
def reached(_, gateway):
    gateway._process.kill()
"""
RUN = """
if place := sys.argv.pop(1):
    owner, name = re.split("[.:](?=[a-zA-Z_]+$)", place)
    setattr(pkgutil.resolve_name(f"kis_retry.{owner}"), name, reached)
sys.exit(main(["demo", *sys.argv[1:]]))
"""


def interrupted(number: signal.Signals, lines: Sequence[str], *words: str, place: str = "") -> tuple[int, str]:
    """
    The status, and what was said on stderr, of a demo that gets a signal once it has said lines that begin so.

    It says "reached" and stands still where it comes to `place`.
    """
    command = [sys.executable, "-c", PREPARED + REACHED + RUN, place, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=unmeasured())
    assert process.stdout is not None
    for awaited in lines:
        assert any(line.startswith(awaited) for line in process.stdout), "it has ended before"
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)  # returns when the gateway too has closed the pipe it inherited
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_takes_its_gateway_with_it(number: signal.Signals) -> None:
    expected = (130, "kis-retry: interrupted\n") if number == signal.SIGINT else (-number, "")
    assert interrupted(number, ["16,780 symbols, 11,780 US and then 5,000 domestic"]) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "place",
    [
        "cli:parser",
        "cli.gateway:GatewayProcess.__enter__",
        "cli.gateway:GatewayProcess._line",
        "cli.night:Night.announcement",
        "cli.batch:Batch.wait",
        "cli.report:Report.causes",
    ],
)
def test_a_demo_can_be_interrupted_wherever_it_is(number: signal.Signals, place: str) -> None:
    expected = (130, "kis-retry: interrupted\n") if number == signal.SIGINT else (-number, "")
    assert interrupted(number, ["reached"], "--symbols", "4", place=place) == expected


def test_a_ctrl_c_whose_exception_python_drops_ends_the_demo_all_the_same() -> None:
    command = [sys.executable, "-c", PREPARED + DROPPED + RUN, "cli.night:Night.announcement", "--symbols", "2000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (130, "kis-retry: interrupted\n")
    assert "2,000 of 2,000" not in done.stdout, "it ends at once, and not after the batch"


@pytest.mark.parametrize("cause", ["the token dies", "the API is away"])
def test_a_demo_can_be_interrupted_while_something_is_away(cause: str) -> None:
    """Once announced, once happening; then all the threads wait for KIS, or for one another."""
    ended = interrupted(signal.SIGINT, [cause, cause], "--symbols", "1000", "--threads", "64")
    assert ended == (130, "kis-retry: interrupted\n")


def test_a_demo_whose_gateway_is_killed_says_so_at_once() -> None:
    """In a process of its own, with which the calls that are under way end."""
    command = [sys.executable, "-c", PREPARED + KILLED + RUN, "cli.night:Night.begin", "--symbols", "40"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (1, "kis-retry: the gateway process has ended\n")


def test_the_demo_leaves_the_process_as_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "example.org")
    assert main(["demo", "--symbols", "10"]) == 0
    assert os.environ["no_proxy"] == "example.org"
    monkeypatch.delenv("no_proxy")
    assert main(["demo", "--symbols", "10"]) == 0
    assert "no_proxy" not in os.environ
    capsys.readouterr()


def test_the_demo_stops_listening_when_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    from kis_retry import events

    before = dict(events._hooks)
    assert main(["demo", "--symbols", "10"]) == 0
    capsys.readouterr()
    assert events._hooks == before


def test_the_tables_fit_a_terminal_of_sixty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "drawing", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["demo", "--symbols", "40"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert list(CAUSE_COLUMNS) in lines, "no heading is broken into two lines"
    assert any(line[:3] == ["token", "endpoint", "away"] for line in lines)
