"""Processes that begin with their imports made, each a fork of one that has nothing else: a start of Python is slow."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from patience import PATIENCE

__all__ = ["CONTEXT", "Done", "run_python"]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("filelock", "httpcore", "httpx", "platformdirs", "redis", "wrapt"),
        *("kis_retry.client.client", "kis_retry.protecting", "kis_retry.stores.redis", "kis_retry.testing.gateway"),
        *("kis_retry.wire.for_httpx", "kis_retry.wire.for_requests", "kis_retry.wire.token_endpoint"),
    ]
)


class Done(NamedTuple):
    """What came of a program."""

    returncode: int | None
    stdout: str
    stderr: str


def run_python(words: list[str], folder: Path, environ: dict[str, str]) -> Done:
    """Run `python WORDS…` (a script, or `-m MODULE`) in a folder, without what pytest put into the environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with TemporaryDirectory() as streams:
        process = CONTEXT.Process(target=_run, args=(words, folder, {**kept, **environ}, streams))
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
