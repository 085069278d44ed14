"""The compose example: its file says what the commands take, and its workers do what it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from kis_retry.testing import KisGateway

pytestmark = pytest.mark.one_python

FOLDER = Path(__file__).parents[2] / "examples" / "compose"
SERVICES: dict[str, Any] = import_module("yaml").safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("worker")}
PROGRAM, COMMAND, *WORDS = SERVICES["gateway"]["command"]
OPTIONS = dict(word.removeprefix("--").split("=") for word in WORDS if "=" in word)


def test_two_workers_find_the_gateway_and_valkey() -> None:
    assert list(SERVICES) == ["gateway", "valkey", "worker-1", "worker-2"]
    assert (PROGRAM, COMMAND, OPTIONS["host"]) == ("kis-retry", "gateway", "0.0.0.0")
    for worker in WORKERS.values():
        environ = worker["environment"]
        assert environ["KIS_BASE_URL"] == f"http://gateway:{OPTIONS['port']}"
        assert (environ["KIS_APP_KEY"], environ["KIS_APP_SECRET"]) == (OPTIONS["app-key"], OPTIONS["app-secret"])
        assert environ["KIS_TOKEN_STORE"] == "redis://valkey:6379/0"
        assert set(worker["depends_on"]) == {"gateway", "valkey"}


def test_whoever_is_waited_for_says_when_it_is_well() -> None:
    waited_for = {other for worker in WORKERS.values() for other in worker["depends_on"]}
    assert all("healthcheck" in SERVICES[name] for name in waited_for)
    probe = SERVICES["gateway"]["healthcheck"]["test"]
    assert probe[:3] == ["CMD", "python", "-c"]
    with KisGateway() as gateway:
        script = probe[3].replace("8000", gateway.url.rpartition(":")[2])
        assert subprocess.run([sys.executable, "-c", script], timeout=20, check=False).returncode == 0
    assert (
        subprocess.run([sys.executable, "-c", script], stderr=subprocess.DEVNULL, timeout=20, check=False).returncode
        != 0
    )


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
