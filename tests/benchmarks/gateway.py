"""`kis-retry gateway` as a process of its own, so that it does not share the interpreter with what is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kis_retry import Credentials

__all__ = ["Gateway", "running"]


class Gateway:
    """A gateway that is running, and the pipe on which it takes commands."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = self._line()
        made_up = json.loads(self._line())
        self.credentials = Credentials(made_up["app_key"], made_up["app_secret"], "12345678-01", base_url=self.url)

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = self.ask("counts")
        return found

    def expire(self) -> None:
        self.ask("expire")

    def ask(self, command: str) -> Any:
        """Have it do what `kis-retry gateway --control` takes; what it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def running(*, latency: float = 0.0) -> Iterator[Gateway]:
    command = [sys.executable, "-m", "kis_retry", "gateway", "--control", "--quiet", "--latency", str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            yield Gateway(process)
        finally:
            process.terminate()
