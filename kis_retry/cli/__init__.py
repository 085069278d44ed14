"""
The command line: what may be asked, how it speaks, and which exit status an outcome has.

A mistake of the user, a refusal of KIS or a host that is away is one line on stderr and never a traceback.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, TextIO

from ..errors import ConfigurationError, KisRetryError

__all__ = ["clean", "echo", "echo_error", "echo_json", "echo_table", "main", "parser"]

_EXAMPLES = """\
examples:
  kis-retry run python batch.py       your program as it is, protected
  kis-retry demo                      16,780 symbols through a bad night
  kis-retry gateway --expire-at 100   a KIS of your own

exit status: 0 done, 1 could not, 2 wrong use or configuration, 130 interrupted
"""
_GATEWAY = """\
A stand-in for KIS, for clients in any language, until Ctrl-C or SIGTERM. The
first line on stdout is its URL, the second a JSON object with the app key and
secret that it accepts, the last a JSON object of what it has seen.

A fault is a method of kis_retry.testing.KisGateway, with its arguments as a
JSON object or array:
  --fault 'refuse_calls ["EGW00201", 3]'
  --fault 'drop {"share": 0.01, "reached": true}'
  --fault 'limit_calls 18'
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit status; its module is imported when it is asked for, and not before."""
    logging.getLogger("kis_retry").addHandler(logging.NullHandler())  # else bare event names would be on stderr
    try:
        arguments = parser().parse_args(argv)
        name = arguments.command
        return int(getattr(import_module(f".{name}", __name__), name)(arguments))
    except SystemExit as end:  # --help, --version and wrong use: argparse has said it all
        return int(end.code or 0)
    except KeyboardInterrupt:
        echo_error("interrupted")
        return 130
    except BrokenPipeError:  # whoever read stdout is gone, and the interpreter would complain when it flushes
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KisRetryError as error:
        echo_error(str(error))
        return 2 if isinstance(error, ConfigurationError) else 1
    except ModuleNotFoundError as error:  # of the demo
        echo_error(f"{error.name} is not installed: pip install '.[cli]' in a clone of kis-retry, or pip install rich")
        return 1
    except (OSError, EOFError) as error:  # those of requests too, whose text may hold an address with a password
        echo_error(f"{getattr(error, 'strerror', None) or 'KIS could not be reached'} ({type(error).__name__})")
        return 1


def parser() -> argparse.ArgumentParser:
    """Return what `main` parses with; the function of a command gets what was parsed."""
    raw = argparse.RawDescriptionHelpFormatter
    about = "Renew an expired KIS token once for everybody, and repeat what it failed."
    made = argparse.ArgumentParser("kis-retry", description=about, epilog=_EXAMPLES, formatter_class=raw)
    made.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    add = made.add_subparsers(dest="command", title="commands", metavar="COMMAND", required=True).add_parser

    run = add("run", help="run a program, protected")
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="with its arguments")

    demo = add("demo", help="show the overnight batch get through a bad night")
    demo.add_argument("--unprotected", action="store_true", help="the same batch without protection: it dies")
    demo.add_argument("--symbols", type=_count, metavar="N", help="as many instead, in the same proportion")
    demo.add_argument("--threads", type=_count, default=4, metavar="N", help="threads that ask (default: 4)")

    token = add("token", help="show, renew or revoke the token that every process with this app key shares")
    action = token.add_mutually_exclusive_group()
    action.add_argument("--refresh", action="store_true", help="have KIS issue a new one (the holder gets a notice)")
    action.add_argument("--revoke", action="store_true", help="have KIS forget it, and take it out of the store")

    config = add("config", help="show each variable, the value in force and where it came from")
    for command in (token, config):
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")

    option = add("gateway", help="run a KIS of your own", description=_GATEWAY, formatter_class=raw).add_argument
    option("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1); 0.0.0.0 lets others in")
    option("--port", type=int, default=0, help="default: a free one")
    option("--app-key", metavar="KEY", help="the app key to accept (default: a random one)")
    option("--app-secret", metavar="SECRET", help="the app secret to accept (default: a random one)")
    option("--env", action="store_true", help="write the lines of a .env file on stdout, and nothing else")
    option("--expire-at", type=_count, action="append", default=[], metavar="N", help="expire the token before call N")
    option("--expired-status", type=int, choices=(500, 200), default=500, help="of a refused token (default: 500)")
    option("--fault", dest="faults", action="append", default=[], metavar="FAULT", help="see above")
    return made


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # it takes long to import

        echo(f"kis-retry {version('kis-retry')}")
        parser.exit()


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def echo(text: str) -> None:
    """Write one line to stdout, at once."""
    _write(sys.stdout, text)


def echo_error(text: str) -> None:
    """Write one line to stderr."""
    _write(sys.stderr, f"kis-retry: {text}")


def echo_json(document: object) -> None:
    """Write one object on one line, in ASCII, whatever the terminal's encoding."""
    _write(sys.stdout, json.dumps(document, default=str))


def echo_table(rows: Iterable[Sequence[str]]) -> None:
    """Write rows of texts in columns that are as wide as their longest text."""
    table = [[clean(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def clean(text: str) -> str:
    """Return `text` without what could move a cursor: a value or a message may come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _write(stream: TextIO, text: str) -> None:
    encoding: Any = getattr(stream, "encoding", None) or "utf-8"
    print(clean(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
