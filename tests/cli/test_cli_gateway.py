"""`kis-retry gateway`: what a client in any language, and whoever starts it, relies on."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from kis_retry import Credentials, KisClient, KisRetryError, MemoryTokenStore, RetryPolicy, TokenManager
from kis_retry.cli import main
from kis_retry.cli.gateway import GatewayProcess
from patience import PATIENCE

pytestmark = pytest.mark.one_python

Starter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Starter]:
    processes: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "kis_retry", "gateway", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        with suppress(ValueError):  # communicated with already
            process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], word: str) -> object:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    return json.loads(line(process))


def client_of(process: subprocess.Popen[str]) -> KisClient:
    url, made_up = line(process), json.loads(line(process))
    credentials = Credentials(made_up["app_key"], made_up["app_secret"], made_up["account"], base_url=url)
    return KisClient(credentials, tokens=TokenManager(credentials, store=MemoryTokenStore(), policy=RetryPolicy()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0_and_its_counts(number: signal.Signals, start: Starter) -> None:
    process = start("--expire-at", "2,3")
    with client_of(process) as client:
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
        assert client.fetch_domestic_price("005930")["rt_cd"] != "0"  # the repeat is the third call
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert json.loads(out) == {
        "calls": 3,
        "answered": 1,
        "refused": 2,
        "token_requests": 2,
        "tokens_issued": 2,
        "token_requests_refused": 0,
    }
    assert "Ctrl-C" in err
    assert "Traceback" not in err


def test_the_first_line_is_the_url_and_the_second_the_key_made_up_for_it(start: Starter) -> None:
    process = start("--quiet", "--control", "--expired-status", "200", "--latency", "0.01", "--rate-limit", "1000")
    url, made_up = line(process), json.loads(line(process))
    assert url.startswith("http://127.0.0.1:")
    body = {"grant_type": "client_credentials", "appkey": made_up["app_key"], "appsecret": made_up["app_secret"]}
    assert requests.post(f"{url}/oauth2/tokenP", json=body, timeout=10).json()["token_type"] == "Bearer"
    refusal = requests.get(f"{url}/uapi/x", headers={"authorization": "Bearer nobody's"}, timeout=10)
    assert refusal.status_code == 200
    assert refusal.json()["msg_cd"] == "EGW00121"


def test_commands_on_stdin_are_answered_and_its_end_is_the_gateways(start: Starter) -> None:
    process = start("--control", "--quiet")
    with client_of(process) as client:
        client.fetch_domestic_price("005930")
        assert tell(process, "expire") == {}
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
    counts = tell(process, "counts")
    assert isinstance(counts, dict)
    assert (counts["answered"], counts["refused"], counts["tokens_issued"]) == (2, 1, 2)
    assert "'nonsense' is not known: it takes counts, " in str(tell(process, "nonsense"))
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out) == counts


def test_it_ends_with_whoever_controls_it_even_between_a_command_and_its_answer(start: Starter) -> None:
    process = start("--control", "--quiet")
    line(process), line(process)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdin.write("counts\n")
    process.stdin.flush()
    assert process.wait(PATIENCE) == 1, "though its standard input is still open"
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_without_control_the_end_of_stdin_means_nothing(start: Starter) -> None:
    process = start()
    assert process.stdin is not None
    process.stdin.close()
    with client_of(process) as client:
        assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
    process.stdin = None
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_port_that_is_taken_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["gateway", "--port", str(port)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"port {port} of 127.0.0.1 cannot be listened on" in said.err


def test_a_gateway_process_is_one_from_outside() -> None:
    with GatewayProcess(expire_at=2) as gateway:
        tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy())
        with KisClient(tokens=tokens) as client:
            for _ in range(2):
                assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
        counts = gateway.counts()
        url = gateway.credentials.base_url
    assert (counts["answered"], counts["refused"], counts["tokens_issued"]) == (2, 1, 2)
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)


def test_a_gateway_process_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(KisRetryError, match="has ended"), GatewayProcess(expire_at=1):
        pass


def test_a_gateway_process_that_died_is_an_error() -> None:
    with GatewayProcess(expire_at=1) as gateway:
        assert gateway._process is not None
        gateway._process.kill()
        gateway._process.wait()
        with pytest.raises(KisRetryError, match="has ended"):
            gateway.counts()


def test_a_gateway_process_is_used_in_a_with_statement() -> None:
    with pytest.raises(RuntimeError, match="with statement"):
        GatewayProcess(expire_at=1).counts()


# -- what it is told


def test_its_credentials_can_be_fixed_and_its_faults_asked_for(start: Starter) -> None:
    words = ["--app-key", "my-key", "--app-secret", "my-secret", "--seed", "1", "--quiet"]
    faults = ['refuse_calls ["EGW00316", 1]', 'drop {"times": 1, "share": 1}']
    process = start(*words, *(word for fault in faults for word in ("--fault", fault)))
    url, made_up = line(process), json.loads(line(process))
    assert (made_up["app_key"], made_up["app_secret"]) == ("my-key", "my-secret")
    assert requests.get(f"{url}/uapi/x", timeout=10).json()["msg_cd"] == "EGW00316"
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/uapi/x", timeout=10)
    assert requests.get(f"{url}/uapi/x", timeout=10).json()["msg_cd"] == "EGW00122"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("refuse_cals", "'refuse_cals' is not known"),
        ("drop {", "the arguments of drop are not JSON"),
        ('drop {"share": 2}', "share=2 is not usable"),
        ('drop {"shares": 0.1}', "shares"),
        ("close", "'close' is not known"),
    ],
)
def test_a_fault_that_cannot_be_is_status_2(fault: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "--fault", fault]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--host", ""], ["--host", "http://x"], ["--app-key", ""], ["--app-secret", "키"], ["--rate-window", "rolling"]],
)
def test_an_unusable_option_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_env_is_for_a_shell_from_its_first_line_to_its_last(start: Starter, tmp_path: Path) -> None:
    process = start("--env", "--quiet", "--app-secret", "it's $HOME")
    assert process.wait(20) == 2, "a space is no part of a secret"
    process = start("--env", "--quiet", "--app-secret", "it's$HOME")
    lines = [line(process) for _ in range(4)]
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    (tmp_path / "gateway.env").write_text("\n".join([*lines, out]))
    names = ("KIS_BASE_URL", "KIS_APP_KEY", "KIS_APP_SECRET", "KIS_ACCOUNT_NO")
    script = f". {tmp_path}/gateway.env && env"
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, timeout=20, check=True)
    found = dict(row.split("=", 1) for row in done.stdout.splitlines() if row.startswith(names))
    assert set(found) == set(names)
    assert found["KIS_APP_SECRET"] == "it's$HOME"
    assert found["KIS_BASE_URL"].startswith("http://127.0.0.1:")
    assert found["KIS_APP_KEY"].startswith("PS")


def test_it_listens_elsewhere_only_with_a_warning(start: Starter) -> None:
    process = start("--host", "0.0.0.0", "--quiet", "--control")
    url = line(process)
    assert url.startswith("http://127.0.0.1:"), "an address that can be called"
    assert requests.get(url, timeout=10).status_code == 404
    _, err = process.communicate(timeout=20)
    assert "warning: whoever reaches 0.0.0.0 can use this gateway" in err


def test_a_host_that_is_not_here_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "--host", "192.0.2.1"]) == 1
    assert "port 0 of 192.0.2.1 cannot be listened on" in capsys.readouterr().err


def test_faults_are_told_to_a_running_gateway() -> None:
    with GatewayProcess(faults=["fail [503, 1]"]) as gateway:
        assert gateway.tell("refuse_calls", msg_cd="EGW00201", times=1) == {}
        for _ in range(3):
            requests.get(f"{gateway.credentials.base_url}/uapi/x", timeout=10)
        assert gateway.tell("faults_met") == {"HTTP 503": 1, "EGW00201": 1}
        assert len(gateway.tell("arrivals")) == 3
        with pytest.raises(ValueError, match=r"share=7 is not usable"):
            gateway.tell("drop", share=7)
        with pytest.raises(ValueError, match="'close' is not known"):
            gateway.tell("close")
        assert gateway.counts()["calls"] == 3


def test_with_a_seed_the_same_calls_meet_the_faults_each_time() -> None:
    def outcomes() -> list[bool]:
        with GatewayProcess(seed=7, faults=['drop {"share": 0.5}']) as gateway:
            return [_is_dropped(gateway) for _ in range(40)]

    first = outcomes()
    assert first == outcomes()
    assert {True, False} == set(first)


def _is_dropped(gateway: GatewayProcess) -> bool:
    try:
        requests.get(f"{gateway.credentials.base_url}/uapi/x", timeout=10)
    except requests.ConnectionError:
        return True
    return False


def test_each_of_many_threads_gets_the_answer_to_what_it_asked() -> None:
    with GatewayProcess() as gateway, ThreadPoolExecutor(8) as threads:
        names = ["counts", "faults_met"] * 50
        answers = list(threads.map(gateway.tell, names))
    assert ["counts" if answer else "faults_met" for answer in answers] == names


def test_a_gateway_process_knows_whether_it_has_ended() -> None:
    with GatewayProcess() as gateway:
        gateway.check()
        assert gateway._process is not None
        gateway._process.kill()
        gateway._process.wait()
        with pytest.raises(KisRetryError, match="has ended"):
            gateway.check()
