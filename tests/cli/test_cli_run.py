"""`kis-retry run`: programs that know nothing of this package are protected, and are in all else as without it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from kis_retry.cli import main
from kis_retry.testing import KisGateway

pytestmark = [pytest.mark.one_python, pytest.mark.skipif(os.name == "nt", reason="no process becomes another there")]

ASK = """
import os

URL = os.environ["URL"] + "/uapi/domestic-stock/v1/quotations/inquire-price"
QUERY = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930"}
HEADERS = {
    "authorization": "Bearer dead",
    "appkey": os.environ["KEY"],
    "appsecret": os.environ["SECRET"],
    "tr_id": "FHKST01010100",
}

def ask(_=None):
    import requests

    return requests.get(URL, params=QUERY, headers=HEADERS, timeout=10).json()["rt_cd"]
"""
"""A library that keeps a dead token: "0" is a good answer, and "1" a refusal."""

ONCE = "from ask import *; print(ask())"
USES = {
    "a Python that it starts": """
import subprocess, sys

subprocess.run([sys.executable, "-c", "from ask import ask; print(ask())"], check=True)
""",
    "gevent, which patches first": """
import sys, warnings

warnings.simplefilter("error")
assert not {"requests", "kis_retry", "ssl", "threading"} & set(sys.modules)
from gevent import monkey
monkey.patch_all()
import gevent
from ask import ask

print(gevent.spawn(ask).get())
""",
    "processes that it spawns": """
import multiprocessing
from ask import ask

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        print(*set(pool.map(ask, range(12))))
""",
}


@pytest.fixture
def kis(gateway: KisGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KisGateway:
    """A gateway, and a folder with the library `ask` for it that every Python finds."""
    gateway.expire()
    (tmp_path / "ask.py").write_text(ASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("KIS_TOKEN_STORE", str(tmp_path / "tokens"))
    keys = gateway.credentials
    for name, value in {"URL": gateway.url, "KEY": keys.app_key, "SECRET": keys.app_secret}.items():
        monkeypatch.setenv(name, value)
    return gateway


def plain(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **options)


def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return plain(sys.executable, "-m", "kis_retry", "run", *words, **options)


def run_python(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, *words, **options)


def script(text: str, name: str = "program.py") -> str:
    Path(name).write_text(text)
    return name


# -- what is protected


@pytest.mark.parametrize("use", USES)
def test_a_request_of_a_program_is_protected(use: str, kis: KisGateway) -> None:
    environment = dict(os.environ)
    if use.startswith("gevent"):
        pytest.importorskip("gevent")
        for name in [name for name in environment if name.startswith("COVERAGE_PROCESS")]:
            del environment[name]  # what measures it imports threading
    done = run_python(script(USES[use]), env=environment)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)
    assert kis.counts.tokens_issued == 1, "all processes share one"


def test_each_library_that_sends_requests_is_waited_for() -> None:
    code = (
        "import importlib.util, os, sys\n"
        "for library in filter(importlib.util.find_spec, ['httpx', 'httpx2', 'aiohttp', 'urllib.request']):\n"
        "    if os.fork() == 0:\n"
        "        before = 'kis_retry' in sys.modules\n"
        "        importlib.import_module(library)\n"
        "        print(before, 'kis_retry.wire' in sys.modules, flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    assert set(run_python("-c", code).stdout.splitlines()) == {"False True"}


@pytest.mark.usefixtures("kis")
@pytest.mark.parametrize("words", [[sys.executable, "-m", "program"], [sys.executable, "-"], ["./program.py"]])
def test_however_python_is_told_what_to_run(words: list[str]) -> None:
    Path(script(f"#!{sys.executable}\n{ONCE}\n")).chmod(0o755)
    assert run(*words, input=ONCE).stdout == "0\n"


# -- what is as without


def test_arguments_streams_and_exit_status_are_the_programs() -> None:
    code = "import sys; print(sys.argv[1:]); print(sys.stdin.read(), file=sys.stderr); sys.exit(7)"
    done = run_python("-c", code, "--json", "-h", "--", "한 글", input="hello")
    assert (done.stdout, done.stderr, done.returncode) == ("['--json', '-h', '--', '한 글']\n", "hello\n", 7)


def test_a_signal_is_for_the_program_itself() -> None:
    code = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print(os.getpid(), flush=True); input()"
    command = [sys.executable, "-m", "kis_retry", "run", sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid, "it is in the place of kis-retry"
        process.send_signal(signal.SIGINT)
    assert process.returncode == -signal.SIGINT


def test_a_program_that_is_no_python_has_the_signals_of_a_shell() -> None:
    assert run("sh", "-c", "kill -PIPE $$; echo survived").returncode == -signal.SIGPIPE


def test_nothing_is_imported_before_the_program_imports_it() -> None:
    code = "import sys; print(*sys.modules)"
    more = set(run_python("-c", code).stdout.split()) - set(plain(sys.executable, "-c", code).stdout.split())
    assert more <= {"sitecustomize"}


def test_a_library_is_in_all_else_as_without() -> None:
    code = (
        "import importlib.util\n"
        "print(type(importlib.util.find_spec('requests').loader.get_source('requests')))\n"
        "import requests\n"
        "print(type(requests.__loader__), requests.__spec__.loader is requests.__loader__)\n"
    )
    assert run_python("-c", code).stdout == plain(sys.executable, "-c", code).stdout


@pytest.mark.parametrize("does", ["from requests import get; sys.path.append('/added')", "raise ValueError('mine')"])
def test_a_sitecustomize_that_was_there_still_runs(does: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys; {does}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = f"import sys, sitecustomize; print('/added' in sys.path, sys.path.count('{tmp_path}'))"
    done, without = run_python("-c", code), plain(sys.executable, "-c", code)
    assert done.stdout == without.stdout
    assert done.stderr.splitlines()[:2] == without.stderr.splitlines()[:2]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Stands in for the program: its arguments are those of `os.execvpe`."""
    become = Mock(side_effect=SystemExit(0))
    monkeypatch.setattr(os, "execvpe", become)
    return become


def test_the_users_pythonpath_comes_behind(become: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/one", "/two"]))
    for _ in range(2):  # the second time as from within the first
        assert main(["run", "--", "python"]) == 0
        first, *others = become.call_args.args[2]["PYTHONPATH"].split(os.pathsep)
        assert (Path(first).name, others) == ("startup", ["/one", "/two"])
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([first, *others]))


def test_switched_off_it_runs_the_program_plainly(become: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_RETRY_ENABLED", "false")
    assert main(["run", "python", "-I"]) == 0
    assert become.call_args.args == ("python", ["python", "-I"], dict(os.environ))


# -- what cannot be run


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        ([], 2, "the command to run is missing"),
        (["--"], 2, "the command to run is missing"),
        (["no-such-command"], 127, "no-such-command: not found"),
        (["./data"], 126, "./data: Permission denied"),
        (["./no-program"], 126, "./no-program: Exec format error"),
        (["opentelemetry-instrument", "python", "batch.py"], 2, "opentelemetry-instrument hides kis-retry"),
        (["python", "-I", "batch.py"], 2, "python -I does not look on PYTHONPATH"),
        (["python3.11", "-uE", "batch.py"], 2, "python3.11 -uE does not look"),
        (["/usr/bin/python3", "-Wignore", "-S", "-m", "x"], 2, "/usr/bin/python3 -S does not look"),
        (["python", "-X", "dev", "-I", "batch.py"], 2, "python -I does not look"),
        (["./isolated", "-x"], 2, "/usr/bin/python3 -I does not look"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_one_line_and_the_status_of_a_shell(
    words: list[str], status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script("", "data")
    Path(script("#!/usr/bin/env -S /usr/bin/python3 -I\n", "isolated")).chmod(0o755)
    Path(script("\0", "no-program")).chmod(0o755)
    assert main(["run", *words]) == status
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith(f"kis-retry: {line}")


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="no such signal on Windows")
def test_a_command_that_cannot_be_run_leaves_its_caller_the_signals_that_it_ignores() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)]
    assert main(["run", "no-such-command"]) == 127
    assert [signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)] == before == [signal.SIG_IGN] * 2


@pytest.mark.parametrize(
    "words",
    [["-c", "pass", "-I"], ["-m", "this", "-E"], ["-cpass", "-S"], ["program.py", "-I"], ["-", "-I"], ["-sXIES", "-V"]],
)
def test_an_option_of_the_program_is_not_pythons(words: list[str], become: Mock) -> None:
    assert main(["run", "python", *words]) == 0
    assert become.call_args.args[1] == ["python", *words]


def test_a_setting_that_cannot_be_used_is_status_2_and_nothing_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIS_RATE_LIMIT", "fast")
    monkeypatch.setenv("KIS_RETRY_WAIT", "soon")
    assert main(["run", "touch", "it-ran"]) == 2
    said = capsys.readouterr().err
    assert re.search("KIS_RATE_LIMIT='fast' is not usable.*KIS_RETRY_WAIT='soon' is not usable", said)
    assert not Path("it-ran").exists()


@pytest.mark.usefixtures("kis")
def test_a_python_without_this_package_gets_one_line_and_goes_on() -> None:
    hidden = "import sys; sys.modules['kis_retry'] = None\n"
    done = run_python("-c", f"{hidden}import urllib.request\n{ONCE}")
    assert done.stdout == "1\n"
    assert done.stderr == f"kis-retry: {sys.executable} runs unprotected: it has no kis_retry installed\n"
