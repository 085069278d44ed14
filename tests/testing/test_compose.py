"""The compose example: its file says what the commands take, and its workers do what it promises."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest

from kis_retry.cli.arguments import parser
from kis_retry.cli.gateway import GATEWAY_SETTINGS
from kis_retry.testing import KisGateway

pytestmark = pytest.mark.one_python

FOLDER = Path(__file__).parents[2] / "examples" / "compose"
DOCKERFILE = (FOLDER / "Dockerfile").read_text("utf-8")
SERVICES: dict[str, Any] = import_module("yaml").safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("worker")}


def test_there_are_two_workers_a_gateway_and_valkey() -> None:
    assert list(SERVICES) == ["gateway", "valkey", "worker-1", "worker-2"]


def test_the_gateways_command_is_one_that_the_command_line_takes() -> None:
    program, *words = SERVICES["gateway"]["command"]
    arguments = parser().parse_args(words)
    assert program == "kis-retry"
    assert (arguments.host, arguments.port, arguments.expire_at) == ("0.0.0.0", 8000, (150,))


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_finds_the_gateway_and_valkey(name: str) -> None:
    environ = WORKERS[name]["environment"]
    arguments = parser().parse_args(SERVICES["gateway"]["command"][1:])
    assert environ["KIS_BASE_URL"] == f"http://gateway:{arguments.port}"
    assert (environ["KIS_APP_KEY"], environ["KIS_APP_SECRET"]) == (arguments.app_key, arguments.app_secret)
    assert environ["KIS_TOKEN_STORE"] == "redis://valkey:6379/0"
    assert set(WORKERS[name]["depends_on"]) == {"gateway", "valkey"}


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


def test_the_image_is_built_from_what_is_there() -> None:
    built = [service["build"] for service in SERVICES.values() if "build" in service]
    assert len(built) == 3
    for build in built:
        context = (FOLDER / build["context"]).resolve()
        assert (context / build["dockerfile"]).read_text("utf-8") == DOCKERFILE
        sources = [shlex.split(line)[1] for line in DOCKERFILE.splitlines() if line.startswith("COPY")]
        assert all((context / source).exists() for source in sources)
    (extras,) = re.findall(r"/src\[([\w,]+)\]", DOCKERFILE)
    assert set(extras.split(",")) <= set(metadata("kis-retry").get_all("Provides-Extra") or [])


def test_the_workers_share_one_token_over_its_expiry(valkey_server: Any) -> None:
    valkey_server.flush()
    arguments = parser().parse_args(SERVICES["gateway"]["command"][1:])
    here = {name: getattr(arguments, name) for name in GATEWAY_SETTINGS} | {"host": "127.0.0.1", "port": 0}
    with KisGateway(**here) as gateway:
        gateway.expire_at(*arguments.expire_at)
        workers = []
        for service in WORKERS.values():
            environ = {**service["environment"], "KIS_BASE_URL": gateway.url, "KIS_TOKEN_STORE": valkey_server.url}
            program, script, *words = service["command"]
            assert program == "python"
            workers.append(
                subprocess.Popen(
                    [sys.executable, str(FOLDER / script), *words],
                    env={**os.environ, **environ, "KIS_RATE_LIMIT": "0", "no_proxy": "127.0.0.1"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                )
            )
        said = [worker.communicate(timeout=60) for worker in workers]
        counts = gateway.counts
    for number, (worker, (out, err)) in enumerate(zip(workers, said, strict=True), 1):
        assert (worker.returncode, out) == (0, f"worker {number}: 150 of 150 symbols answered\n"), err
    assert (counts.answered, counts.tokens_issued) == (300, 2)
