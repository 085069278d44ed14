"""What `kis-retry gateway` is made of, in the process of the tests: its words, its commands, its end."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kis_retry import KisRetryError
from kis_retry.cli import gateway as command
from kis_retry.cli import main
from kis_retry.cli.gateway import GatewayProcess
from kis_retry.testing import KisGateway

COUNTS = ("calls", "answered", "refused", "token_requests", "tokens_issued", "token_requests_refused")


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.FileIO]:
    """The other end of standard input."""
    mine, its = os.pipe()
    with os.fdopen(mine) as reading, io.FileIO(its, "w") as writing:
        monkeypatch.setattr(sys, "stdin", reading)
        yield writing


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[str], list[str]]:
    """The lines on stdout and on stderr of a gateway that ends as it should."""
    assert main(["gateway", *words]) == 0
    said = capsys.readouterr()
    return said.out.splitlines(), said.err.splitlines()


# -- what it says


def test_who_controls_it_gets_an_answer_a_line_and_the_counts_at_the_end(
    stdin: io.FileIO, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin.write(b'expire\nrefuse_calls {"msg_cd": "EGW00201", "times": 1}\nfaults_met\ncount\ncounts\n')
    stdin.close()
    (url, made_up, *answers), said = run(capsys, "--control", "--app-key", "my-key", "--app-secret", "my-secret")
    assert url.startswith("http://127.0.0.1:")
    made_up_keys = json.loads(made_up)
    assert (made_up_keys["app_key"], made_up_keys["app_secret"]) == ("my-key", "my-secret")
    nothing = dict.fromkeys(COUNTS, 0)
    expired, refused, met, unknown, counts, last = map(json.loads, answers)
    assert (expired, refused, met, counts, last) == ({}, {}, {}, nothing, nothing)
    assert unknown["error"].startswith("'count' is not known: it takes counts, faults_met, arrivals, orders, expire, ")
    assert said == [
        "kis-retry: set KIS_BASE_URL to the first line, KIS_APP_KEY and KIS_APP_SECRET to the second; Ctrl-C stops it"
    ]


def test_env_lines_are_for_a_shell_and_all_else_is_a_comment(
    stdin: io.FileIO, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin.close()
    lines, said = run(capsys, "--env", "--control", "--app-key", "k&y", "--app-secret", "secret")
    assert lines[0].startswith("export KIS_BASE_URL=http://127.0.0.1:")
    assert lines[1:3] == ["export KIS_APP_KEY='k&y'", "export KIS_APP_SECRET=secret"]
    assert lines[3] == "export KIS_ACCOUNT_NO=12345678-01"
    assert [json.loads(line.removeprefix("# ")) for line in lines[4:]] == [dict.fromkeys(COUNTS, 0)]
    assert said == ["kis-retry: put these lines into the shell of your batch; Ctrl-C stops it"]


@pytest.mark.parametrize("words", [["--quiet"], ["--quiet", "--env"]])
def test_a_quiet_one_says_nothing_on_stderr(
    words: list[str], stdin: io.FileIO, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin.close()
    assert run(capsys, "--control", *words)[1] == []


@pytest.mark.parametrize(
    ("host", "warned"),
    [
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("192.0.2.1", True),
        ("example.org", True),
        ("my-machine", True),
    ],
)
def test_whoever_lets_others_in_is_warned(
    host: str, warned: bool, gateway: KisGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    command._introduce(gateway, host, env=False, quiet=True)
    warning = (
        f"kis-retry: warning: whoever reaches {host} can use this gateway, and what is sent to it is not encrypted\n"
    )
    assert capsys.readouterr().err == (warning if warned else "")


def test_where_it_cannot_listen_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: KisGateway) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(KisGateway, "__enter__", refuse)
    assert main(["gateway", "--host", "127.0.0.2", "--port", "8080"]) == 1
    assert capsys.readouterr() == (
        "",
        "kis-retry: port 8080 of 127.0.0.2 cannot be listened on: Address already in use\n",
    )


# -- what it does


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("counts", dict.fromkeys(COUNTS, 0)),
        ("  counts  \n", dict.fromkeys(COUNTS, 0)),
        ("arrivals", []),
        ("orders", []),
        ("expire_at 3", None),
        ("expire_at [3, 4]", None),
        ("expire_at", None),
        ('drop {"times": 1}', None),
        ('list_symbol ["NEW", "NYS"]', None),
    ],
)
def test_a_line_is_a_name_and_its_arguments_in_json(line: str, expected: object, gateway: KisGateway) -> None:
    assert command._command(gateway, line) == expected


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("close", "'close' is not known: it takes counts, faults_met, "),
        ("", "'' is not known: it takes counts, faults_met, "),
        ("drop {", "the arguments of drop are not JSON: they are an object, or an array"),
        ("drop " + "[" * 200_000, "the arguments of drop are not JSON: they are an object, or an array"),
        ('drop {"share": 2}', "share=2 is not usable"),
        ('drop {"shares": 0.1}', "unexpected keyword argument 'shares'"),
    ],
)
def test_a_line_that_cannot_be_done_is_answered_with_why(line: str, why: str, gateway: KisGateway) -> None:
    answer: Any = command._answer(gateway, line)
    assert why in answer["error"]


@pytest.mark.parametrize(
    ("fault", "why"), [("drops", "'drops' is not known"), ("drop {", "not JSON"), ('drop {"shares": 1}', "'shares'")]
)
def test_a_fault_that_cannot_be_is_named_with_why(fault: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "--fault", fault]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kis-retry: --fault {fault!r} is not usable: ")
    assert why in said


# -- when it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_and_the_handlers_are_as_before_then(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stop = threading.Event()
    with command._stopping_on_signals(stop):
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
    assert signal.getsignal(number) is before


def test_on_another_thread_signals_are_left_to_others() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def look() -> None:
        with command._stopping_on_signals(threading.Event()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]


def test_without_control_standard_input_means_nothing(
    stdin: io.FileIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            looks.append(timeout)
            return len(looks) == 3  # as when a signal has come

    stdin.write(b"counts\n")
    stdin.close()
    monkeypatch.setattr("kis_retry.cli.gateway.threading.Event", Stop)
    monkeypatch.setattr(KisGateway, "__enter__", lambda self: self)
    monkeypatch.setattr(KisGateway, "close", lambda _: None)
    monkeypatch.setattr(command, "_introduce", lambda *_, **__: None)
    lines, _ = run(capsys)
    assert list(map(json.loads, lines)) == [dict.fromkeys(COUNTS, 0)]
    assert looks == [0.5, 0.5, 0.5], "it waits until it is to stop, and looks in between"


def test_a_signal_ends_it_though_whoever_controls_it_may_still_say_something(
    stdin: io.FileIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    monkeypatch.setattr(command, "_introduce", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    lines, _ = run(capsys, "--control")
    assert [json.loads(line) for line in lines] == [dict.fromkeys(COUNTS, 0)]
    (listening,) = set(threading.enumerate()) - before
    assert listening.daemon, "it keeps no process alive"
    stdin.close()
    listening.join()


def test_it_stops_with_whoever_gave_commands_even_where_its_answer_reaches_nobody(
    stdin: io.FileIO, gateway: KisGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(command, "echo_json", gone)
    stop = threading.Event()
    stdin.write(b"counts\n")
    command._obey(gateway, stop)  # the other end is open still
    assert stop.is_set()


# -- one seen from outside


class Process:
    """Stands for a gateway in a process of its own; `at_end` is what becomes of waiting for it."""

    url = "http://127.0.0.1:4321"

    def __init__(self, at_end: Exception | None = None) -> None:
        self.stdin = io.StringIO()
        keys = {"app_key": "my-key", "app_secret": "my-secret", "account": None}
        self.stdout = io.StringIO(f"{self.url}\n{json.dumps(keys)}\n")
        self.words: list[str] = []
        self.options: dict[str, Any] = {}
        self.done: list[object] = []
        self._at_end = at_end

    def answer(self, *documents: object) -> None:
        self.stdout = io.StringIO("".join(f"{json.dumps(document)}\n" for document in documents))

    def communicate(self, *, timeout: float) -> None:
        self.done.append(timeout)
        if self._at_end is not None:
            raise self._at_end

    def kill(self) -> None:
        self.done.append("killed")

    def wait(self) -> None:
        self.done.append("waited for")

    def poll(self) -> int | None:
        return None if self.stdout.tell() else 1


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    made = Process()

    def popen(words: list[str], **options: Any) -> Process:
        made.words, made.options = words, options
        return made

    monkeypatch.setattr(subprocess, "Popen", popen)
    return made


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, []),
        ({"expire_at": 3, "seed": 0}, ["--expire-at", "3", "--seed", "0"]),
        ({"faults": ["heal", "drop [1]"]}, ["--fault", "heal", "--fault", "drop [1]"]),
    ],
)
def test_a_gateway_process_is_this_program_under_control(
    options: dict[str, Any], words: list[str], process: Process
) -> None:
    with GatewayProcess(**options) as gateway:
        credentials = gateway.credentials
    assert process.words == [sys.executable, "-m", "kis_retry", "gateway", "--control", "--quiet", *words]
    assert (process.options["stdin"], process.options["stdout"]) == (subprocess.PIPE, subprocess.PIPE)
    assert (credentials.app_key, credentials.app_secret, credentials.base_url) == ("my-key", "my-secret", Process.url)


@pytest.mark.parametrize(
    ("system", "options"),
    [("posix", {"start_new_session": True}), ("nt", {"creationflags": 512}), ("java", {"start_new_session": True})],
)
def test_a_ctrl_c_at_the_terminal_does_not_reach_it(
    system: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    monkeypatch.setattr("kis_retry.cli.gateway.os", type("System", (), {"name": system}))
    assert command._apart() == options


@pytest.mark.parametrize("at_end", [None, OSError(), subprocess.TimeoutExpired("gateway", 5)])
def test_it_is_given_five_seconds_to_end_by_itself_and_killed_then(at_end: Exception | None, process: Process) -> None:
    process._at_end = at_end
    with GatewayProcess():
        assert process.done == []
    assert process.done == [5.0, "killed", "waited for"]


def test_an_interrupted_start_takes_the_process_with_it(process: Process) -> None:
    process.stdout = io.StringIO("http://127.0.0.1:1\nno document\n")
    with pytest.raises(ValueError, match="Expecting value"), GatewayProcess():
        pass
    assert process.done == [5.0, "killed", "waited for"]


def test_it_is_told_a_line_and_hands_back_the_answer(process: Process) -> None:
    with GatewayProcess() as gateway:
        process.answer({}, {"calls": 3}, [1, 2], {"error": "share=7 is not usable"})
        assert gateway.tell("refuse_calls", msg_cd="EGW00201", times=1) == {}
        assert gateway.counts() == {"calls": 3}
        assert gateway.tell("arrivals") == [1, 2]
        with pytest.raises(ValueError, match=r"^share=7 is not usable$"):
            gateway.tell("drop", share=7)
    assert process.stdin.getvalue().splitlines() == [
        'refuse_calls {"msg_cd": "EGW00201", "times": 1}',
        "counts {}",
        "arrivals {}",
        'drop {"share": 7}',
    ]


def test_one_that_has_ended_says_so_whatever_is_asked_of_it(process: Process) -> None:
    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    with GatewayProcess() as gateway:
        gateway.check()
        process.answer()
        process.stdin = Broken()
        for ask in (gateway.check, gateway.counts, lambda: gateway.tell("heal")):
            with pytest.raises(KisRetryError, match=r"^the gateway process has ended$"):
                ask()


def test_outside_of_its_with_statement_there_is_none() -> None:
    gateway = GatewayProcess()
    for ask in (gateway.check, gateway.counts):
        with pytest.raises(RuntimeError, match="not open: use it in a with statement"):
            ask()
