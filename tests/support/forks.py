"""
Processes that begin with their imports made, each a fork of one that has nothing else: a start of Python is slow.

They run without coverage, which would write a file for each, and whose tracer has locks that a fork may leave locked:
what they do is measured where a test does it in its own process.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from patience import PATIENCE

__all__ = ["Done", "forks", "run_python", "unmeasured"]


def unmeasured() -> dict[str, str]:
    """The environment, without what has a process measured by coverage."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}


@cache
def forks() -> ForkServerContext:
    """The context that makes such processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            *("filelock", "httpcore", "httpx", "platformdirs", "redis", "wrapt"),
            *("kis_retry.client.client", "kis_retry.protecting", "kis_retry.stores.redis", "kis_retry.testing.gateway"),
            *("kis_retry.wire.for_httpx", "kis_retry.wire.for_requests"),
        ]
    )
    before = dict(os.environ)
    for name in before.keys() - unmeasured().keys():
        del os.environ[name]
    forkserver.ensure_running()  # with the environment of now
    os.environ.update(before)
    return context


class Done(NamedTuple):
    """What came of a program."""

    returncode: int | None
    stdout: str
    stderr: str


def run_python(words: list[str], folder: Path, environ: dict[str, str]) -> Done:
    """Run `python WORDS…` (a script, or `-m MODULE`) in a folder, without what pytest put into the environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with TemporaryDirectory() as streams:
        process = forks().Process(target=_run, args=(words, folder, {**kept, **environ}, streams))
        process.start()
        process.join(PATIENCE)
        process.kill()
        process.join()
        said = [(Path(streams) / name).read_text("utf-8") for name in ("stdout", "stderr")]
        return Done(process.exitcode, *said)


def _run(words: list[str], folder: Path, environ: dict[str, str], streams: str) -> None:
    for stream in (sys.stdout, sys.stderr):
        file = os.open(Path(streams) / stream.name.strip("<>"), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream.fileno())
        stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # they are text files
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
