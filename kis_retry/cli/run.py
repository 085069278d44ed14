"""`kis-retry run COMMAND…`: another program in the place of this one, with `install()` in force in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from argparse import Namespace
from contextlib import suppress
from itertools import dropwhile
from pathlib import Path

from ..errors import ConfigurationError
from ..policy import RetryPolicy
from ..settings import Environment
from . import echo_error
from .config import rows_of

_STARTUP = str(Path(__file__).parent / "startup")  # Python imports `sitecustomize` from the folders of PYTHONPATH
_PYTHON = re.compile(r"(python|pypy)w?[\d.]*t?w?(\.exe)?", re.IGNORECASE)


def run(arguments: Namespace) -> int:
    """Become the command, protected; return 126 where it cannot be executed, and 127 where there is none."""
    command = arguments.program[arguments.program[:1] == ["--"] :]
    if not command:
        raise ConfigurationError("the command to run is missing, as in kis-retry run python batch.py")
    if errors := [row.error for row in rows_of(Environment()) if row.error]:
        raise ConfigurationError("; ".join(errors))
    environment = dict(os.environ)
    if RetryPolicy.from_env().enabled:
        _refuse_blind_python(command)
        before = (environment.get("PYTHONPATH") or _STARTUP).split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join([_STARTUP, *(entry for entry in before if entry != _STARTUP)])
    try:
        return _become(command, environment)
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        echo_error(f"{command[0]}: {'not found' if missing else error.strerror}")
        return 127 if missing else 126


def _refuse_blind_python(command: list[str]) -> None:
    name = Path(command[0]).name
    if name == "opentelemetry-instrument":  # its `sitecustomize` does not go on to the next one
        raise ConfigurationError(f"{name} hides kis-retry from the program: write {name} kis-retry run COMMAND…")
    python, *options = command if _PYTHON.fullmatch(name) else _shebang(command[0])
    words = iter(options)
    for option in words:  # behind a script, `-c` or `-m` they are the program's own
        dash, flags, kind, rest = re.findall("(-?)([^-cmWX]*)([cmWX]?)(.*)", option)[0]
        if set("EIS") & set(flags) and dash:
            raise ConfigurationError(f"{python} {option} does not look on PYTHONPATH: it would run unprotected")
        if not dash or option == "-" or kind in ("c", "m"):
            break
        if (kind and not rest) or option == "--check-hash-based-pycs":
            next(words, None)  # its value


def _shebang(program: str) -> list[str]:
    """Return the words with which a script names its Python; its own name where it does not."""
    words = list[str]()
    with suppress(OSError), Path(shutil.which(program) or program).open("rb") as file:
        words = file.readline(256).decode(errors="replace").split()
    return list(dropwhile(lambda word: not _PYTHON.fullmatch(Path(word).name), words)) or [program]


def _become(command: list[str], environment: dict[str, str]) -> int:
    if os.name != "nt":
        ignored = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python, and the command would go on to do so
        before = [signal.signal(number, signal.SIG_DFL) for number in ignored]
        try:
            os.execvpe(command[0], command, environment)  # noqa: S606  # as asked
        finally:  # it could not be executed, and whoever called is still here
            for number, handler in zip(ignored, before, strict=True):
                signal.signal(number, handler)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's
    program = shutil.which(command[0]) or command[0]
    return subprocess.run([program, *command[1:]], env=environment, check=False).returncode  # noqa: S603  # as asked
