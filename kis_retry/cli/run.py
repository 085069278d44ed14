"""`kis-retry run COMMAND…`: another program in the place of this one, with `install()` in force in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from argparse import Namespace
from pathlib import Path

from ..errors import ConfigurationError
from ..policy import RetryPolicy
from .config import problems
from .output import echo_error

__all__ = ["run"]

STARTUP = str(Path(__file__).parent / "startup")
"""The folder whose `sitecustomize` Python imports at its start where it is on `PYTHONPATH`."""

_PYTHON = re.compile(r"(python|pypy)w?[\d.]*t?w?(\.exe)?", re.IGNORECASE)
_HIDING = ("opentelemetry-instrument",)  # its `sitecustomize` does not go on to the next one
_BLIND = set("EIS")  # options with which Python imports no `sitecustomize`, or does not look on PYTHONPATH


def run(arguments: Namespace) -> int:
    """
    Become the command, with `install()` in force in it; with `KIS_RETRY_ENABLED=false` just become it.

    Returns:
        126 where the command cannot be executed, 127 where there is none of that name. On Windows, where no process
        becomes another, the command's own exit status.

    Raises:
        ConfigurationError: a setting is not usable, or the command's Python would not look for this package.
    """
    command = arguments.program[arguments.program[:1] == ["--"] :]
    if not command:
        raise ConfigurationError("the command to run is missing, as in kis-retry run python batch.py")
    if found := problems():
        raise ConfigurationError("; ".join(found))
    environment = dict(os.environ)
    if RetryPolicy.from_env().enabled:
        _refuse_blind_python(command)
        before = environment.get("PYTHONPATH")
        path = [STARTUP, *(entry for entry in before.split(os.pathsep) if entry != STARTUP)] if before else [STARTUP]
        environment["PYTHONPATH"] = os.pathsep.join(path)
    try:
        return _become(command, environment)
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        echo_error(f"{command[0]}: {'not found' if missing else error.strerror}")
        return 127 if missing else 126


def _refuse_blind_python(command: list[str]) -> None:
    name = Path(command[0]).name
    if name in _HIDING:
        raise ConfigurationError(f"{name} hides kis-retry from the program: write {name} kis-retry run COMMAND…")
    words = command if _PYTHON.fullmatch(Path(command[0]).name) else _shebang(command[0])
    option = _blind_option(words[1:])
    if option is not None:
        raise ConfigurationError(f"{words[0]} {option} does not look on PYTHONPATH: the program would run unprotected")


def _shebang(program: str) -> list[str]:
    """Return the words with which a script names its Python; none where the program is no such script."""
    try:
        with Path(shutil.which(program) or program).open("rb") as file:
            line = file.readline(256)
    except OSError:
        return []
    words = line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if word != "-S"]
    return words if words and _PYTHON.fullmatch(Path(words[0]).name) else []


def _blind_option(options: list[str]) -> str | None:
    """Return Python's own option that keeps it from looking; behind a script, `-c` or `-m` they are the program's."""
    words = iter(options)
    for word in words:
        letters, other, value = re.fullmatch("-([^-cmWX]*)([cmWX]?)(.*)|.*", word, re.DOTALL).groups()  # type: ignore[union-attr]  # it matches all
        if _BLIND & set(letters or ""):
            return word
        if (letters is None and word[:2] != "--") or word in {"-", "--"} or other in {"c", "m"}:
            break
        if other and not value:  # the value of -W or -X is the next word
            next(words, None)
    return None


def _become(command: list[str], environment: dict[str, str]) -> int:
    if os.name != "nt":
        for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and the command would go on to do so
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        os.execvpe(command[0], command, environment)  # noqa: S606  # as asked
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's
    program = shutil.which(command[0]) or command[0]
    return subprocess.run([program, *command[1:]], env=environment, check=False).returncode  # noqa: S603  # as asked
