"""What the words after `kis-retry` come to: what each command is given, the defaults, and what is no usable value."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from kis_retry.cli import main
from kis_retry.cli.arguments import parser

DEFAULTS: dict[str, dict[str, Any]] = {
    "demo": {"total": None, "threads": 4, "protected": True, "as_json": False},
    "gateway": {
        "host": "127.0.0.1",
        "port": 0,
        "app_key": None,
        "app_secret": None,
        "latency": 0.0,
        "expired_status": 500,
        "rate_limit": None,
        "rate_window": "sliding",
        "seed": None,
        "expire_at": (),
        "faults": [],
        "env": False,
        "control": False,
        "quiet": False,
    },
}

Given = tuple[tuple[Any, ...], dict[str, Any]]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Given]:
    """What the commands were called with; none of them does anything."""
    calls: list[Given] = []

    def note(*arguments: Any, **options: Any) -> int:
        calls.append((arguments, options))
        return 0

    for command in ("demo.demo", "token.token", "config.config", "gateway.gateway"):
        monkeypatch.setattr(f"kis_retry.cli.{command}", note)
    return calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("demo", {}),
        ("demo --unprotected", {"protected": False}),
        ("demo --symbols 40 --threads 2 --json", {"total": 40, "threads": 2, "as_json": True}),
        ("gateway", {}),
        ("gateway --host ::1 --port 8080", {"host": "::1", "port": 8080}),
        ("gateway --app-key k!y --app-secret =", {"app_key": "k!y", "app_secret": "="}),
        ("gateway --env", {"env": True}),
        ("gateway --control", {"control": True}),
        ("gateway --quiet", {"quiet": True}),
        ("gateway --expire-at '3, 14,1'", {"expire_at": (3, 14, 1)}),
        ("gateway --latency 0.25", {"latency": 0.25}),
        ("gateway --expired-status 500", {}),
        ("gateway --expired-status 200", {"expired_status": 200}),
        ("gateway --rate-limit 18", {"rate_limit": 18}),
        ("gateway --rate-window fixed", {"rate_window": "fixed"}),
        ("gateway --seed 0", {"seed": 0}),
        ("gateway --fault heal --fault 'drop [1]'", {"faults": ["heal", "drop [1]"]}),
    ],
)
def test_a_command_is_given_what_was_asked_for_and_the_defaults_of_the_rest(
    words: str, expected: dict[str, Any], given: list[Given]
) -> None:
    assert main(shlex.split(words)) == 0
    ((arguments, options),) = given
    assert {**dict(*arguments), **options} == {**DEFAULTS[words.split(maxsplit=1)[0]], **expected}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("token", ((None,), {"as_json": False})),
        ("token --json", ((None,), {"as_json": True})),
        ("token --refresh", (("refresh",), {"as_json": False})),
        ("token --revoke", (("revoke",), {"as_json": False})),
        ("config", ((), {"as_json": False})),
        ("config --json", ((), {"as_json": True})),
    ],
)
def test_what_is_to_be_done_and_how_it_is_shown_are_two_things(words: str, expected: Given, given: list[Given]) -> None:
    assert main(words.split()) == 0
    assert given == [expected]


def test_faults_of_one_command_line_are_not_those_of_the_next(given: list[Given]) -> None:
    main(["gateway", "--fault", "heal"])
    main(["gateway"])
    assert [options["faults"] for _, options in given] == [["heal"], []]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["demo", "--symbols", "1"], "'1' is not a whole number from 2"),
        (["demo", "--symbols", "many"], "'many' is not a whole number from 2"),
        (["demo", "--symbols", ""], "'' is not a whole number from 2"),
        (["demo", "--symbols", "2.0"], "'2.0' is not a whole number from 2"),
        (["demo", "--symbols", "٣"], "'٣' is not a whole number from 2"),
        (["demo", "--threads", "0"], "'0' is not a whole number from 1 to 64"),
        (["demo", "--threads", "65"], "'65' is not a whole number from 1 to 64"),
        (["gateway", "--port", "65536"], "'65536' is not a whole number from 0 to 65,535"),
        (["gateway", "--rate-limit", "0"], "'0' is not a whole number from 1"),
        (["gateway", "--seed", "-1"], "'-1' is not a whole number from 0"),
        (["gateway", "--expire-at", "0"], "'0' is not a whole number from 1"),
        (["gateway", "--expire-at", "3,,4"], "'' is not a whole number from 1"),
        (["gateway", "--latency", "-0.1"], "'-0.1' is not a number of seconds from 0"),
        (["gateway", "--latency", "nan"], "'nan' is not a number of seconds from 0"),
        (["gateway", "--latency", "inf"], "'inf' is not a number of seconds from 0"),
        (["gateway", "--latency", "long"], "'long' is not a number of seconds from 0"),
        (["gateway", "--host", ""], "'' is not an address"),
        (["gateway", "--host", " "], "' ' is not an address"),
        (["gateway", "--host", "a b"], "'a b' is not an address"),
        (["gateway", "--host", "http://x"], "'http://x' is not an address"),
        (["gateway", "--app-key", ""], "it takes printable ASCII characters without spaces"),
        (["gateway", "--app-key", "a b"], "it takes printable ASCII characters without spaces"),
        (["gateway", "--app-key", "a\tb"], "it takes printable ASCII characters without spaces"),
        (["gateway", "--app-secret", "키"], "it takes printable ASCII characters without spaces"),
        (["gateway", "--expired-status", "501"], "invalid choice: 501 (choose from"),
        (["gateway", "--rate-window", "rolling"], "invalid choice: 'rolling' (choose from"),
    ],
)
def test_a_value_that_is_not_usable_is_named_with_what_it_may_be(
    words: list[str], why: str, given: list[Given], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert f"argument {words[1]}: {why}" in capsys.readouterr().err
    assert given == []


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["demo", "--symbols", "2"], 2),
        (["demo", "--threads", "1"], 1),
        (["demo", "--threads", "64"], 64),
        (["gateway", "--port", "0"], 0),
        (["gateway", "--port", "65535"], 65_535),
        (["gateway", "--rate-limit", "1"], 1),
        (["gateway", "--latency", "0"], 0.0),
    ],
)
def test_the_least_and_the_most_of_a_number_are_taken(words: list[str], value: float) -> None:
    assert getattr(parser().parse_args(words), words[1].removeprefix("--").replace("-", "_")) == value
