"""APM agents and OpenTelemetry: put on before or after, twice, and taken off again, each in a program of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "programs" / "agents.py"


@pytest.mark.parametrize("protection", ["decorated", "install"])
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("agent", ["elastic-apm", "opentelemetry", "ddtrace"])
def test_a_watched_program_is_as_protected_as_without_and_its_agent_sees_as_much(
    agent: str, order: str, protection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "false")
    monkeypatch.setenv("DD_REMOTE_CONFIGURATION_ENABLED", "false")
    command = [sys.executable, str(PROGRAM), agent, order, protection]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
