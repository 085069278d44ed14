"""The examples that show events run as they are, and show no secret."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_python

EXAMPLES = Path(__file__).parents[2] / "examples"
STORY = ["kis_retry.token_expired", "kis_retry.token_refreshed", "kis_retry.call_recovered"]

# Prints, before the example's own lines, every token and secret that its gateway hands out or asks for.
SPY = """
import runpy, sys
from kis_retry.testing import issued, rules

made = rules.StateMachine.__init__
def noted(self, *args, **kwargs):
    made(self, *args, **kwargs)
    print("SECRET", self._app_key)
    print("SECRET", self._app_secret)
rules.StateMachine.__init__ = noted

issue = issued.TokenBook.issue
def remembered(self, *args, **kwargs):
    token = issue(self, *args, **kwargs)
    print("SECRET", token.value)
    return token
issued.TokenBook.issue = remembered

runpy.run_path(sys.argv[1], run_name="__main__")
"""


def run(*words: str) -> list[str]:
    done = subprocess.run([sys.executable, *words], capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def example(name: str) -> str:
    return str(EXAMPLES / name)


def test_the_structlog_example_tells_the_story_of_two_expiries() -> None:
    lines = run(example("structlog_events.py"))
    assert [re.findall(r" event='(.*?)'", line) for line in lines] == [[name] for name in STORY * 2]
    assert ["symbol='000660'" in line for line in lines] == [True] * 3 + [False] * 3


def test_the_prometheus_example_counts_two_expiries() -> None:
    lines = run(example("prometheus_events.py"))
    assert 'kis_retry_events_total{error="",event="token_expired",source=""} 2.0' in lines
    assert 'kis_retry_events_total{error="",event="token_refreshed",source="issued"} 2.0' in lines
    assert 'kis_retry_refresh_seconds_count{event="token_refreshed"} 2.0' in lines
    assert any(line.startswith("kis_retry_token_expires_timestamp_seconds ") for line in lines)


def test_the_json_example_prints_one_object_a_line() -> None:
    entries = [json.loads(line) for line in run(example("json_log_lines.py"))]
    assert [f"kis_retry.{entry['kis_name']}" for entry in entries] == STORY
    assert ["message" in entry for entry in entries] == [False] * 3
    assert all(None not in entry.values() for entry in entries)
    assert entries[0]["kis_token"] == entries[1]["kis_previous_token"]


@pytest.mark.parametrize("name", ["structlog_events.py", "prometheus_events.py", "json_log_lines.py"])
def test_no_secret_is_in_what_an_example_prints(name: str) -> None:
    lines = run("-c", SPY, example(name))
    secrets = [line.removeprefix("SECRET ") for line in lines if line.startswith("SECRET ")]
    said = "\n".join(line for line in lines if not line.startswith("SECRET "))
    assert len(secrets) >= 4
    assert "token_refreshed" in said
    assert [secret for secret in secrets if secret in said] == []


@pytest.mark.parametrize("name", ["structlog_events.py", "prometheus_events.py", "json_log_lines.py"])
def test_an_example_says_how_to_run_it(name: str) -> None:
    text = Path(example(name)).read_text("utf-8")
    assert f"python {name}" in text.split('"""')[1]
