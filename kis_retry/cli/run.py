"""`kis-retry run COMMAND…`: another program in the place of this one, with `install()` in force in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigurationError
from ..policy import RetryPolicy
from .config import problems
from .output import echo_error

__all__ = ["run"]

STARTUP = str(Path(__file__).parent / "startup")
"""The folder whose `sitecustomize` Python imports at its start where it is on `PYTHONPATH`."""

_PYTHON = re.compile(r"(python|pypy)w?[\d.]*t?w?(\.exe)?", re.IGNORECASE)
_BLIND = "EIS"  # options with which Python imports no `sitecustomize`, or does not look on PYTHONPATH


def run(arguments: Namespace) -> int:
    """
    Become the command, with `install()` in force in it; with `KIS_RETRY_ENABLED=false` just become it.

    Returns:
        2 where a setting is not usable, 126 where the command cannot be executed, 127 where there is none of that
        name. On Windows, where no process becomes another, the command's own exit status.

    Raises:
        ConfigurationError: there is no command, or it is a Python that would not look for what is put before it.
    """
    command = arguments.program[arguments.program[:1] == ["--"] :]
    if not command:
        raise ConfigurationError("the command to run is missing, as in kis-retry run python batch.py")
    found = problems()
    for problem in found:
        echo_error(problem)
    if found:
        return 2
    enabled = RetryPolicy.from_env().enabled
    if enabled:
        _refuse_blind_python(command)
    try:
        return _become(command, _environment(enabled=enabled))
    except (FileNotFoundError, NotADirectoryError):
        echo_error(f"{command[0]}: not found")
        return 127
    except OSError as error:
        echo_error(f"{command[0]}: {error.strerror}")
        return 126


def _environment(*, enabled: bool) -> dict[str, str]:
    """Return this process's environment, with the startup folder before whatever else is on `PYTHONPATH`."""
    environment = dict(os.environ)
    others = [entry for entry in environment.pop("PYTHONPATH", "").split(os.pathsep) if entry not in {"", STARTUP}]
    path = [STARTUP, *others] if enabled else others
    return {**environment, "PYTHONPATH": os.pathsep.join(path)} if path else environment


def _refuse_blind_python(command: Sequence[str]) -> None:
    words = command if _is_python(command[0]) else _shebang(command[0])
    option = _blind_option(words[1:])
    if option is not None:
        raise ConfigurationError(f"{words[0]} {option} does not look on PYTHONPATH: the program would run unprotected")


def _is_python(program: str) -> bool:
    return _PYTHON.fullmatch(Path(program).name) is not None


def _shebang(program: str) -> list[str]:
    """Return the words with which a script names the Python that runs it; none where it is no such script."""
    try:
        with open(shutil.which(program) or program, "rb") as file:
            line = file.readline(256)
    except OSError:
        return []
    words = line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if word != "-S"]
    return words if words and _is_python(words[0]) else []


def _blind_option(options: Sequence[str]) -> str | None:
    """Return Python's own option that keeps it from looking; behind a script, `-c` or `-m` they are the program's."""
    words = iter(options)
    for word in words:
        if word[:1] != "-" or word in {"-", "--"}:
            break
        letters = "" if word[:2] == "--" else re.split("[cmWX]", word, maxsplit=1)[0]
        if set(letters) & set(_BLIND):
            return word
        if word[:2] != "--" and (rest := word[len(letters) :]):
            if rest[0] in "cm":
                break
            if len(rest) == 1:  # the value of -W or -X is the next word
                next(words, None)
    return None


def _become(command: Sequence[str], environment: dict[str, str]) -> int:
    sys.stdout.flush()
    if os.name == "nt":
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's
        program = shutil.which(command[0]) or command[0]
        return subprocess.run([program, *command[1:]], env=environment, check=False).returncode  # noqa: S603  # as asked
    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and the command would go on to do so
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    os.execvpe(command[0], command, environment)  # noqa: S606  # as asked
