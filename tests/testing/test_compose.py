"""The compose example: its workers do what it promises, by the commands of its file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.one_python

FOLDER = Path(__file__).parents[2] / "examples" / "compose"
SERVICES: dict[str, Any] = import_module("yaml").safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("worker")}
_, COMMAND, *WORDS = SERVICES["gateway"]["command"]


def test_the_workers_share_one_token_over_its_expiry(valkey_server: Any) -> None:
    valkey_server.flush()
    environ = {**os.environ, "KIS_RATE_LIMIT": "0", "no_proxy": "127.0.0.1", "KIS_TOKEN_STORE": valkey_server.url}
    words = [*WORDS, "--host=127.0.0.1", "--port=0"]
    running = start([sys.executable, "-m", "kis_retry", COMMAND, *words], environ)
    try:
        assert running.stdout is not None
        url = running.stdout.readline().strip()
        workers = []
        for service in WORKERS.values():
            program, script, *rest = service["command"]
            assert program == "python"
            own = {**service["environment"], **environ, "KIS_BASE_URL": url}
            workers.append(start([sys.executable, str(FOLDER / script), *rest], own))
        said = [worker.communicate(timeout=60) for worker in workers]
    finally:
        running.terminate()
        counts = json.loads(running.communicate(timeout=20)[0].splitlines()[-1])
    for number, (worker, (out, err)) in enumerate(zip(workers, said, strict=True), 1):
        assert (worker.returncode, out) == (0, f"worker {number}: 150 of 150 symbols answered\n"), err
    assert (counts["answered"], counts["tokens_issued"]) == (300, 2)


def start(words: list[str], environ: dict[str, str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=environ, stdout=pipe, stderr=pipe, encoding="utf-8")
