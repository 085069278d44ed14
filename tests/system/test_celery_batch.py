"""The batch on Celery: a real worker with two processes, an expiry, and a process that is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forks import unmeasured
from kis_retry.testing import KisGateway
from patience import PATIENCE, until

pytest.importorskip("celery")
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="it finds a worker's processes under /proc"
)

FOLDER = Path(__file__).parents[2] / "examples" / "celery_batch"
SYMBOLS = [f"{number:06d}" for number in range(120)]
RATE = 60  # calls a second


@pytest.fixture
def environment(gateway: KisGateway, valkey_server: Any) -> dict[str, str]:
    valkey_server.start()
    valkey_server.flush()
    return {
        **unmeasured(),
        "KIS_APP_KEY": gateway.credentials.app_key,
        "KIS_APP_SECRET": gateway.credentials.app_secret,
        "KIS_BASE_URL": gateway.url,
        "KIS_TOKEN_STORE": valkey_server.url,
        "KIS_RATE_LIMIT": str(RATE),
        "CELERY_BROKER_URL": f"redis://127.0.0.1:{valkey_server.port}/1",
    }


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with a pool of two processes, in a session of its own."""
    command = [sys.executable, "-m", "celery", "--app", "batch", "worker"]
    options = ["--queues", "kis-1", "--concurrency", "2", "--loglevel", "WARNING", "--without-gossip"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options], cwd=FOLDER, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        yield process
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)


def pool_of(worker: subprocess.Popen[bytes]) -> list[int]:
    """The processes of a worker's pool."""
    return [int(pid) for pid in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text("ascii").split()]


def test_nothing_is_lost_over_an_expiry_and_a_killed_process(
    gateway: KisGateway, worker: subprocess.Popen[bytes], environment: dict[str, str]
) -> None:
    gateway.expire_at(60)
    hand_out = subprocess.Popen(
        [sys.executable, "batch.py", *SYMBOLS], cwd=FOLDER, env=environment, stdout=subprocess.PIPE, text=True
    )
    until(lambda: gateway.counts.calls > 30)
    os.kill(pool_of(worker)[0], signal.SIGKILL)
    printed, _ = hand_out.communicate(timeout=PATIENCE)
    assert hand_out.returncode == 0, printed
    assert sorted(line.split()[0] for line in printed.splitlines()) == SYMBOLS
    assert gateway.counts.answered >= len(SYMBOLS), "what the killed process had begun is asked for again"
    assert gateway.counts.tokens_issued == 2, "the first, and one after the expiry, for all processes"
    arrivals = sorted(gateway.arrivals)
    busiest = max(bisect_right(arrivals, began + 1) - index for index, began in enumerate(arrivals))
    assert busiest <= RATE + 3, "one pace for all processes"
