"""`kis-retry gateway`: what a client in any language, and whoever starts it, relies on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from kis_retry import Credentials, KisClient, MemoryTokenStore, RetryPolicy, TokenManager
from kis_retry.cli import main

pytestmark = pytest.mark.one_python

Starter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Starter]:
    processes: list[subprocess.Popen[str]] = []

    def begin(*words: str, code: str = "from kis_retry.cli import main; sys.exit(main())") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; {code}", "gateway", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[str, str]:
    process.send_signal(number)
    return process.communicate(timeout=20)


def client_of(process: subprocess.Popen[str]) -> KisClient:
    url, keys = line(process), json.loads(line(process))
    credentials = Credentials(keys["app_key"], keys["app_secret"], keys["account"], base_url=url)
    return KisClient(tokens=TokenManager(credentials, store=MemoryTokenStore(), policy=RetryPolicy()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0_and_its_counts(number: signal.Signals, start: Starter) -> None:
    process = start("--expire-at", "2", "--expire-at=3")
    with client_of(process) as client:
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
        assert client.fetch_domestic_price("005930")["rt_cd"] != "0", "the repeat is the third call"
    out, err = stop(process, number)
    assert process.returncode == 0
    counts = json.loads(out)
    assert (counts["calls"], counts["answered"], counts["refused"], counts["tokens_issued"]) == (3, 1, 2, 2)
    assert err == ""


def test_it_needs_no_extra(start: Starter) -> None:
    absent = "for name in ('rich', 'responses', 'redis', 'httpx'): sys.modules[name] = None"
    process = start("--host", "0.0.0.0", code=f"\n{absent}\nfrom kis_retry.cli import main; sys.exit(main())")
    with client_of(process) as client:
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"


def test_its_credentials_and_its_ways_can_be_chosen(start: Starter) -> None:
    process = start(
        *("--app-key", "my-key", "--app-secret", "my-secret", "--expired-status", "200"),
        *("--fault", 'refuse_calls ["EGW00316", 1]', "--fault", 'drop {"times": 1, "share": 1}', "--fault", "fail 503"),
    )
    url, keys = line(process), json.loads(line(process))
    assert url.startswith("http://127.0.0.1:")
    assert (keys["app_key"], keys["app_secret"]) == ("my-key", "my-secret")
    assert requests.get(f"{url}/uapi/x", timeout=10).json()["msg_cd"] == "EGW00316"
    codes = set[int | None]()
    for _ in range(2):
        try:
            codes.add(requests.get(f"{url}/uapi/x", timeout=10).status_code)
        except requests.ConnectionError:
            codes.add(None)
    assert codes <= {None, 503}


def test_env_writes_a_dot_env_file_and_nothing_else(start: Starter, tmp_path: Path) -> None:
    process = start("--env", "--app-secret", "my$HOME")
    lines = [line(process) for _ in range(4)]
    out, _ = stop(process)
    assert (process.returncode, out) == (0, "")
    names = [text.partition("=")[0] for text in lines]
    assert names == ["KIS_BASE_URL", "KIS_APP_KEY", "KIS_APP_SECRET", "KIS_ACCOUNT_NO"]
    (tmp_path / ".env").write_text("\n".join(lines) + "\n")
    (tmp_path / ".env").chmod(0o600)
    code = "from kis_retry import Credentials as C; print(C.from_env().app_secret, C.from_env().base_url)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=30, check=True
    )
    assert done.stdout.split() == ["my$HOME", shlex.split(lines[0].partition("=")[2])[0]]


@pytest.mark.skipif(os.name == "nt", reason="sh")
def test_what_env_writes_is_for_a_shell_too(start: Starter, tmp_path: Path) -> None:
    process = start("--env", "--app-secret", "my$HOME")
    (tmp_path / "gateway.env").write_text("\n".join(line(process) for _ in range(4)))
    stop(process)
    script = f"set -a; . {tmp_path}/gateway.env; printenv KIS_APP_SECRET"
    assert subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout == "my$HOME\n"


@pytest.mark.parametrize(("words", "place"), [(["--host", "192.0.2.1"], "192.0.2.1"), (["--port", "70000"], "70000")])
def test_a_place_that_is_not_here_is_status_1(words: list[str], place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", *words]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert place in said
    assert "cannot be listened on" in said


def test_a_port_that_is_taken_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["gateway", "--port", str(port)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"port {port} of 127.0.0.1 cannot be listened on" in said.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--fault", "refuse_cals"], "--fault 'refuse_cals' is not usable: it takes one of drop, "),
        (["--fault", "close"], "--fault 'close' is not usable: it takes one of"),
        (["--fault", "drop {"], "--fault 'drop {' is not usable: "),
        (["--fault", 'drop {"times": 0}'], "times=0 is not usable"),
        (["--fault", 'drop {"shares": 0.1}'], "shares"),
        (["--app-key", "a b"], "app_key is not usable"),
        (["--app-secret", "키"], "app_secret is not usable"),
    ],
)
def test_what_cannot_be_is_status_2(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert why in said.err
    assert len(said.err.splitlines()) == 1
