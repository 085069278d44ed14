"""`kis-retry demo`: the batch of the requirement, its tracker, and how it is shown."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kis_retry import KisClient, MemoryTokenStore, RetryPolicy, TokenManager
from kis_retry.cli import batch, main, output
from kis_retry.testing import KisGateway

pytestmark = pytest.mark.one_python


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kis_retry", "demo", *words], capture_output=True, text=True, timeout=60, check=False
    )


def report(text: str) -> dict[str, Any]:
    (line,) = text.splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


def test_a_protected_batch_does_not_notice_that_its_token_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nothing of this may go to the company's proxy
    monkeypatch.setenv("KIS_RETRY_ENABLED", "false")  # nor depend on settings
    done = run("--symbols", "400", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    seen = report(done.stdout)
    assert (seen["symbols"], seen["domestic"], seen["us"]) == (400, 119, 281)
    assert (seen["answered"], seen["failed"], seen["aborted"], seen["protected"]) == (400, 0, False, True)
    assert 1 <= seen["refused"] <= seen["threads"]
    assert seen["calls"] == 400 + seen["refused"]
    assert (seen["token_requests"], seen["tokens_issued"]) == (2, 2)
    names = [event["name"] for event in seen["events"]]
    assert names.count("token_refreshed") == 1
    assert names.count("token_expired") == names.count("call_recovered") == seen["refused"]


def test_an_unprotected_batch_dies_at_five_in_a_row() -> None:
    done = run("--symbols", "400", "--unprotected")
    assert (done.returncode, done.stderr) == (1, "")
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in done.stdout.splitlines() if "  " in line)
    assert (rows["answered"], rows["refused, token expired"]) == ("395", "5")
    assert (rows["token requests"], rows["tokens issued"]) == ("1", "1")
    assert "aborted after 5 identical failures in a row" in rows["result"]
    assert "기간이 만료된 token" in rows["result"]


@pytest.mark.parametrize("threads", ["1", "16"])
def test_the_unprotected_batch_dies_however_many_ask(threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--unprotected", "--symbols", "60", "--threads", threads, "--json"]) == 1
    seen = report(capsys.readouterr().out)
    assert (seen["answered"], seen["failed"], seen["aborted"]) == (55, 5, True)
    assert seen["processed"] == 60


def test_a_batch_too_small_to_abort_is_incomplete(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--unprotected", "--symbols", "2", "--json"]) == 1
    seen = report(capsys.readouterr().out)
    assert (seen["answered"], seen["failed"], seen["aborted"]) == (1, 1, False)
    assert seen["result"] == "incomplete, 1 of 2 symbols: 기간이 만료된 token 입니다."


def test_one_thread_gets_one_expired_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--symbols", "60", "--threads", "1", "--json"]) == 0
    assert report(capsys.readouterr().out)["refused"] == 1


def test_in_a_pipe_everything_is_a_plain_line() -> None:
    done = run("--symbols", "40")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("40 symbols, 12 domestic and 28 US, 4 at a time, protected")
    assert "40 of 40" in lines
    assert any(line.startswith("token_refreshed: KisClient.fetch_price_detail_oversea") for line in lines)
    assert lines[-1].split("  ")[-1] == "complete, 40 of 40 symbols"


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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_demo_takes_its_gateway_with_it(number: signal.Signals, status: int) -> None:
    code = (
        "import signal, sys; from kis_retry.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a CI's shell may have it ignored\n"
        "sys.exit(main(['demo']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("16,780 symbols, 5,000 domestic and 11,780 US")
    process.send_signal(number)
    _, err = process.communicate(timeout=20)  # returns when the gateway too has closed the pipe that it inherited
    assert process.returncode == status
    assert err == ("kis-retry: interrupted\n" if number == signal.SIGINT else "")


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


# -- the batch itself


def test_the_default_batch_is_the_one_of_the_requirement() -> None:
    symbols = batch.symbols()
    assert len(symbols) == len(set(symbols)) == 16_780
    assert [symbol.country for symbol in symbols] == ["KR"] * 5_000 + ["US"] * 11_780
    assert batch.dies_at(symbols) == 5_000 + 11_776


@given(st.integers(2, 3_000))
def test_a_smaller_batch_has_both_kinds_and_dies_in_the_us(total: int) -> None:
    symbols = batch.symbols(total)
    domestic = sum(symbol.country == "KR" for symbol in symbols)
    assert len(symbols) == total
    assert 1 <= domestic < total
    assert domestic < batch.dies_at(symbols) <= total


def test_five_identical_failures_in_a_row_abort_and_four_do_not() -> None:
    tracker = batch.Tracker()
    aborted = []
    for _ in range(5):
        tracker.fail("expired")
        aborted.append(tracker.aborted)
    assert aborted == [False, False, False, False, True]
    assert (tracker.processed, tracker.failed, tracker.last_failure) == (5, 5, "expired")


def test_another_failure_begins_a_new_row() -> None:
    tracker = batch.Tracker()
    for message in ["expired"] * 4 + ["no such data"] + ["expired"] * 4:
        tracker.fail(message)
    assert not tracker.aborted


def test_a_success_in_between_ends_the_row() -> None:
    tracker = batch.Tracker()
    for _ in range(4):
        tracker.fail("expired")
    tracker.succeed(tracker.begin())
    for _ in range(4):
        tracker.fail("expired")
    assert not tracker.aborted
    assert (tracker.answered, tracker.failed) == (1, 8)


def test_a_success_that_began_before_the_failures_does_not_end_the_row() -> None:
    tracker = batch.Tracker()
    began = tracker.begin()
    for _ in range(4):
        tracker.fail("expired")
    tracker.succeed(began)
    tracker.fail("expired")
    assert tracker.aborted


def finished(gateway: KisGateway, symbols: list[batch.Symbol]) -> batch.Tracker:
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
    with KisClient(tokens=tokens) as client:
        running = batch.Batch(client, symbols, threads=1)
        running.start()
        while not running.wait(0.5):
            pass
    return running.tracker


def test_other_failures_than_a_refusal_are_counted_by_their_kind(gateway: KisGateway) -> None:
    gateway.garble(times=2, status=404)
    tracker = finished(gateway, batch.symbols(10))
    assert (tracker.answered, tracker.failed, tracker.last_failure) == (8, 2, "ResponseError")
    assert not tracker.aborted


def test_the_batch_asks_for_nothing_after_it_has_aborted(gateway: KisGateway) -> None:
    gateway.refuse_calls(msg_cd="EGW00206")
    tracker = finished(gateway, batch.symbols(50))
    assert tracker.aborted
    assert gateway.counts.calls == 5


def test_a_stopped_batch_begins_no_further_call(gateway: KisGateway) -> None:
    gateway.hang(times=1, seconds=10)
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
    with KisClient(tokens=tokens) as client:
        running = batch.Batch(client, batch.symbols(50), threads=1)
        running.start()
        assert not running.wait(0.05)
        running.stop(0.05)
        gateway.heal()
        assert running.wait(5)
    assert gateway.counts.calls <= 1


def test_the_demo_stops_listening_when_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    from kis_retry import events

    before = events._hooks
    assert main(["demo", "--symbols", "10"]) == 0
    capsys.readouterr()
    assert events._hooks == before
