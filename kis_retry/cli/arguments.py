"""What may be asked on the command line. A command is imported when it has been asked for, and not before."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["parser"]

_EXAMPLES = """\
examples:
  kis-retry demo                        16,780 symbols, and a night with all that can befall them
  kis-retry demo --unprotected          the same night without the decorators
  kis-retry config                      which settings are in force, and where they come from
  kis-retry token                       the token that every process with this app key shares
  kis-retry gateway --expire-at 100     a KIS of your own, for a client in any language
  kis-retry gateway --fault 'refuse_calls {"msg_cd": "EGW00201", "share": 0.2}'

exit status: 0 done, 1 could not, 2 wrong use or configuration, 130 interrupted
"""
_ABOUT_DEMO = """\
The overnight batch: 11,780 US and 5,000 domestic symbols over real HTTP, on a KIS that runs as a process of its own. It
refuses calls within its limit, drops connections, lets the token die at US symbol 11,776 while the token endpoint is
away, and is away itself for a moment. The batch aborts after five identical failures in a row. Needs no app key.

The last tables say of each cause how often it struck, by the gateway's count, how many requests were repeated for it,
how long that took until the next answer (all calls together), and how many symbols were lost. The pace is many times
KIS's 18 calls a second, at which it would take a quarter of an hour; waits and outages are not sped up.
"""
_ABOUT_SHARED = """\
The token that every process with this app key shares, as the store has it. Without an option nothing is asked of KIS
and nothing is issued. Credentials are read from the environment: see kis-retry config.
"""
_ABOUT_CONFIG = """\
Every environment variable that is read, with the value in force, its default and where it came from. Key and secret
are shown as fingerprints, the account and passwords not at all.
"""
_ABOUT_GATEWAY = """\
A stand-in for KIS, for clients in any language, until Ctrl-C or SIGTERM. The first line on stdout is its URL, the
second a JSON object with the app key and secret that it accepts, the last a JSON object of what it has seen.

A fault is a method of kis_retry.testing.KisGateway, with its arguments as a JSON object or array:
  --fault 'refuse_calls ["EGW00201", 3]'        --fault 'drop {"share": 0.01, "reached": true}'
  --fault 'outage {"seconds": 8, "at_call": 500}'

For a shell: kis-retry gateway --env > gateway.env & and, when it has begun, . ./gateway.env
"""


def parser() -> argparse.ArgumentParser:
    """What `main` parses with; each command's `run` is called with what was parsed."""
    made = argparse.ArgumentParser(
        prog="kis-retry",
        description="Refresh an expired KIS access token once for everybody, and call again.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_token(commands)
    _add_config(commands)
    _add_gateway(commands)
    return made


class _Version(argparse.Action):
    """As `action="version"`, but the version is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        from .output import echo

        try:
            found = version("kis-retry")
        except PackageNotFoundError:
            found = "(not installed: run from its source)"
        echo(f"kis-retry {found}")
        parser.exit()


def _add_demo(commands: Any) -> None:
    demo = _command(commands, "demo", "show a batch get through a bad night", _ABOUT_DEMO, _demo)
    demo.add_argument("--unprotected", action="store_true", help="the same batch without the decorators: it dies")
    demo.add_argument(
        "--symbols",
        type=_whole(2),
        metavar="N",
        help="as many symbols instead, in the same proportion; the token dies at the fifth US symbol from the end",
    )
    demo.add_argument("--threads", type=_whole(1, 64), default=4, metavar="N", help="threads that ask (default: 4)")
    _add_json(demo)


def _add_token(commands: Any) -> None:
    token = _command(commands, "token", "show, renew or revoke the shared token", _ABOUT_SHARED, _token)
    action = token.add_mutually_exclusive_group()
    action.add_argument(
        "--refresh",
        dest="action",
        action="store_const",
        const="refresh",
        help="have KIS issue a new one (the account holder gets a notice)",
    )
    action.add_argument(
        "--revoke",
        dest="action",
        action="store_const",
        const="revoke",
        help="have KIS forget it, and take it out of the store",
    )
    _add_json(token)


def _add_config(commands: Any) -> None:
    _add_json(_command(commands, "config", "show the settings in force", _ABOUT_CONFIG, _config))


def _add_gateway(commands: Any) -> None:
    gateway = _command(commands, "gateway", "run a KIS of your own", _ABOUT_GATEWAY, _gateway)
    gateway.add_argument(
        "--host",
        type=_host,
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen (default: 127.0.0.1); 0.0.0.0 lets every machine in that reaches this one",
    )
    gateway.add_argument("--port", type=_whole(0, 65_535), default=0, metavar="N", help="default: a free one")
    gateway.add_argument("--app-key", type=_key, metavar="KEY", help="the app key to accept (default: a random one)")
    gateway.add_argument(
        "--app-secret", type=_key, metavar="SECRET", help="the app secret to accept (default: a random one)"
    )
    gateway.add_argument(
        "--env",
        action="store_true",
        help="print lines for a shell on stdout instead (export KIS_APP_KEY=...), all else as comments",
    )
    gateway.add_argument(
        "--expire-at",
        type=_numbers,
        default=(),
        metavar="N[,N...]",
        help="expire the token before call N",
    )
    gateway.add_argument("--latency", type=_seconds, default=0.0, metavar="SECONDS", help="delay per answer")
    gateway.add_argument(
        "--expired-status",
        type=int,
        choices=(500, 200),
        default=500,
        help="HTTP status of a refusal for the token (default: 500)",
    )
    gateway.add_argument("--rate-limit", type=_whole(1), metavar="N", help="API calls a second (default: no limit)")
    gateway.add_argument(
        "--rate-window",
        choices=("sliding", "fixed"),
        default="sliding",
        help="count them in any second, or in those of the clock (default: sliding)",
    )
    gateway.add_argument(
        "--fault", dest="faults", action="append", default=[], metavar="FAULT", help="see above; may be given often"
    )
    gateway.add_argument("--seed", type=_whole(0), metavar="N", help="let shares meet the same calls in every run")
    gateway.add_argument(
        "--control",
        action="store_true",
        help="take commands on stdin, one a line (counts, expire, any fault), answer each with a JSON line, stop when "
        "it closes",
    )
    gateway.add_argument("--quiet", action="store_true", help="no hints on stderr")


def _command(commands: Any, name: str, summary: str, description: str, run: Callable[..., int]) -> Any:
    parser = commands.add_parser(
        name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _add_json(parser: Any) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _demo(arguments: argparse.Namespace) -> int:
    from .demo import demo

    return demo(
        total=arguments.symbols,
        threads=arguments.threads,
        protected=not arguments.unprotected,
        as_json=arguments.json,
    )


def _token(arguments: argparse.Namespace) -> int:
    from .token import token

    return token(arguments.action, as_json=arguments.json)


def _config(arguments: argparse.Namespace) -> int:
    from .config import config

    return config(as_json=arguments.json)


def _gateway(arguments: argparse.Namespace) -> int:
    from .gateway import GATEWAY_SETTINGS, gateway

    return gateway(
        {name: getattr(arguments, name) for name in GATEWAY_SETTINGS},
        expire_at=arguments.expire_at,
        faults=arguments.faults,
        env=arguments.env,
        control=arguments.control,
        quiet=arguments.quiet,
    )


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """What `type=` takes: a whole number within bounds."""
    bounds = f"from {low}" if high is None else f"from {low} to {high:,}"

    def convert(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or int(text) < low or (high is not None and int(text) > high):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return int(text)

    return convert


def _host(text: str) -> str:
    if not text.strip() or any(character.isspace() or character == "/" for character in text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address or a name of this machine")
    return text


def _key(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError("it takes printable ASCII characters without spaces")
    return text


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_whole(1)(number.strip()) for number in text.split(","))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0")
    return seconds
