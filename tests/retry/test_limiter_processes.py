"""Four real processes of eight threads on one pace, over a folder and over Redis; one of them dies or stands still."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kis_retry.retry.pace import interval_of

pytestmark = pytest.mark.one_python

PROGRAM = Path(__file__).parents[1] / "programs" / "pacing.py"
PROCESSES, THREADS, RATE = 4, 8, 40
PATIENCE = 30.0


class Worker:
    """One process, and the slots that it has had: the thread's number and when."""

    def __init__(self, store: str) -> None:
        command = [sys.executable, str(PROGRAM), store, str(RATE), str(THREADS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.slots: list[tuple[int, float]] = []
        assert self._output.readline() == "ready\n"
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def _output(self) -> Any:
        return self.process.stdout

    def _read(self) -> None:
        for line in self._output:
            number, _, now = line.partition(" ")
            if now.endswith("\n"):  # one that was killed leaves half a line
                self.slots.append((int(number), float(now)))

    def tell(self) -> None:
        stdin: Any = self.process.stdin
        stdin.write("\n")
        stdin.flush()

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):  # it was killed, or has been told before
            self.tell()
        self.process.wait(PATIENCE)
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):  # what was not flushed to one that was killed
                pipe.close()  # type: ignore[union-attr]  # both are pipes


@pytest.fixture(params=["file", "redis"])
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    store = f"{tmp_path}/store"
    if request.param == "redis":
        server = request.getfixturevalue("valkey_server")
        server.flush()
        store = server.url
    made = [Worker(store) for _ in range(PROCESSES)]
    yield made
    for worker in made:
        worker.process.kill()
        worker.end()


def all_slots(workers: list[Worker]) -> list[float]:
    return sorted(now for worker in workers for _, now in worker.slots)


def until(workers: list[Worker], slots: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while sum(len(worker.slots) for worker in workers) < slots:
        assert time.monotonic() < deadline, "the slots never came"
        time.sleep(0.01)


def test_they_share_the_whole_rate_and_no_more_and_nobody_starves(workers: list[Worker]) -> None:
    for worker in workers:
        worker.tell()
    until(workers, 80)
    for worker in workers:
        worker.end()
    times = all_slots(workers)
    spans = [later - earlier for earlier, later in zip(times, times[40:], strict=False)]
    assert min(spans) > 0.6  # 41 calls take a second and more, but for what a busy machine is late
    assert min(spans) < 2 * 40 * interval_of(RATE), "as a rule it is not late"
    assert 0.75 * interval_of(RATE) < (times[-1] - times[0]) / (len(times) - 1)
    for worker in workers:
        had = [number for number, _ in worker.slots]
        assert len(had) >= 0.3 * len(times) / PROCESSES
        assert {*had} == {*range(THREADS)}


def test_one_that_is_killed_costs_the_others_next_to_nothing(workers: list[Worker]) -> None:
    for worker in workers:
        worker.tell()
    until(workers, 30)
    killed = time.monotonic()
    workers[0].process.kill()
    until(workers, 70)
    after = [now for now in all_slots(workers) if now > killed - 0.2]
    assert max(later - earlier for earlier, later in itertools.pairwise(after)) < 4


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_one_that_stands_still_stops_nobody(workers: list[Worker]) -> None:
    for worker in workers:
        worker.tell()
    until(workers, 20)
    stopped = time.monotonic()
    workers[0].process.send_signal(signal.SIGSTOP)
    try:
        until(workers, 60)
        after = [now for now in all_slots(workers) if now > stopped - 0.2]
        assert max(later - earlier for earlier, later in itertools.pairwise(after)) < 4
    finally:
        workers[0].process.send_signal(signal.SIGCONT)
