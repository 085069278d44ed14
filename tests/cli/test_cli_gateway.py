"""`kis-retry gateway`: what a client in any language, and whoever starts it, relies on."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from forks import unmeasured
from kis_retry import Credentials, KisClient, MemoryTokenStore, RetryPolicy, TokenManager
from kis_retry.cli import main

pytestmark = pytest.mark.one_python

Starter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Starter]:
    with ExitStack() as stack:

        def begin(*words: str) -> subprocess.Popen[str]:
            absent = "for name in ('rich', 'responses', 'redis', 'httpx'): sys.modules[name] = None"
            program = f"import sys\n{absent}\nfrom kis_retry.cli import main; sys.exit(main())"
            command, pipe = [sys.executable, "-c", program, "gateway", *words], subprocess.PIPE
            popen = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=unmeasured())
            process = stack.enter_context(popen)
            stack.callback(process.kill)
            return process

        yield begin


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stop(process: subprocess.Popen[str], number: int) -> str:
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    return out


def test_it_tells_where_it_is_and_in_the_end_its_counts(start: Starter) -> None:
    faults = ['refuse_calls ["EGW00316", 1]', 'fail {"status": 429, "times": 1}', "fail 503"]
    words = [word for fault in faults for word in ("--fault", fault)]
    process = start(
        "--app-key", "my-key", "--app-secret=my-secret", "--expired-status", "200", "--host=0.0.0.0", *words
    )
    url, keys = line(process), json.loads(line(process))
    assert (keys["app_key"], keys["app_secret"]) == ("my-key", "my-secret")
    answers = [requests.get(f"{url}/uapi/x", timeout=10) for _ in range(3)]
    assert (answers[0].json()["msg_cd"], [answer.status_code for answer in answers]) == ("EGW00316", [200, 429, 503])
    counts = json.loads(stop(process, signal.SIGTERM))
    assert (counts["calls"], counts["answered"], counts["refused"], counts["tokens_issued"]) == (3, 0, 1, 0)


def test_env_writes_a_dot_env_file_and_nothing_else(start: Starter, tmp_path: Path) -> None:
    process = start("--env", "--app-secret", "my$HOME", "--expire-at", "2", "--expire-at=3")
    lines = [line(process) for _ in range(4)]
    names = [text.partition("=")[0] for text in lines]
    assert names == ["KIS_BASE_URL", "KIS_APP_KEY", "KIS_APP_SECRET", "KIS_ACCOUNT_NO"]
    (tmp_path / ".env").write_text("\n".join(lines) + "\n")
    (tmp_path / ".env").chmod(0o600)
    script = f"set -a; . {tmp_path}/.env; printenv KIS_APP_SECRET"
    assert subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout == "my$HOME\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        credentials = Credentials.from_env()
    assert (credentials.app_secret, credentials.base_url) == ("my$HOME", shlex.split(lines[0].partition("=")[2])[0])
    with KisClient(tokens=TokenManager(credentials, store=MemoryTokenStore(), policy=RetryPolicy())) as client:
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
        assert client.fetch_domestic_price("005930")["rt_cd"] != "0", "the repeat is the third call"
    assert stop(process, signal.SIGINT) == ""


def test_a_place_that_is_not_here_or_taken_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        for words in (["--host", "192.0.2.1"], ["--port", "70000"], ["--port", taken]):
            assert main(["gateway", *words]) == 1
            said = capsys.readouterr()
            assert (said.out, len(said.err.splitlines())) == ("", 1)
            assert re.search(f"{words[1]} .*cannot be listened on", said.err)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--fault", "refuse_cals"], "--fault 'refuse_cals' is not usable: it takes one of drop, "),
        (["--fault", "close"], "--fault 'close' is not usable: it takes one of"),
        (["--fault", "drop {"], "--fault 'drop {' is not usable: "),
        (["--fault", 'drop {"times": 0}'], "times=0 is not usable"),
        (["--fault", 'drop {"shares": 0.1}'], "shares"),
        (["--app-key", "키"], "app_key holds"),
        (["--app-secret", "키"], "app_secret holds"),
    ],
)
def test_what_cannot_be_is_status_2(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert why in said.err
    assert len(said.err.splitlines()) == 1
