"""
The command line: `main`, and which exit status an outcome has.

0 done, 1 could not, 2 wrong use or configuration, 130 interrupted. A mistake of the user, a refusal of KIS or a host
that is away is one line on stderr and never a traceback.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .arguments import parser
from .interrupts import remembering_interrupts

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command.

    Args:
        argv: the words after the program's name; those of this process where it is None.

    Returns:
        The exit status.
    """
    try:
        with remembering_interrupts():
            status = _parse_and_run(argv)
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        _give_up_stdout()
        return 1
    except KeyboardInterrupt:
        from .output import echo_error

        echo_error("interrupted")
        return 130


def _parse_and_run(argv: Sequence[str] | None) -> int:
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as end:  # --help, --version and wrong use: argparse has said it all
        return int(end.code or 0)
    quiet = logging.NullHandler()  # else logging's last resort prints bare event names on stderr
    logger = logging.getLogger("kis_retry")
    logger.addHandler(quiet)
    try:
        return _run(arguments)
    finally:
        logger.removeHandler(quiet)


def _run(arguments: Namespace) -> int:
    from .output import echo_error

    try:
        import rich  # noqa: F401  # whether it is there
    except ImportError:
        echo_error("the command line needs rich: pip install 'kis-retry[cli]'")
        return 1
    try:
        status: int = arguments.run(arguments)
    except BrokenPipeError:  # for `main`
        raise
    except Exception as error:
        return _explain(error)
    return status


def _explain(error: Exception) -> int:
    """Say it in one line; what is nobody's mistake but this program's is raised again."""
    import requests

    from ..errors import ConfigurationError, KisRetryError
    from .output import echo_error

    if isinstance(error, KisRetryError):
        echo_error(str(error))
        return 2 if isinstance(error, ConfigurationError) else 1
    if isinstance(error, requests.RequestException):  # its text may hold the address, password and all
        echo_error(f"KIS could not be reached ({type(error).__name__})")
        return 1
    if isinstance(error, OSError):
        echo_error(f"{error.strerror or 'the operating system refused'} ({type(error).__name__})")
        return 1
    raise error


def _give_up_stdout() -> None:
    """Whoever read it is gone (`| head`); the interpreter would complain when it flushes at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
