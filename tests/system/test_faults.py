"""What may break around a batch: the token endpoint, the store, the clock, another process; and how long it stands."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import requests

from answers import GOOD_CODE as GOOD
from children import in_child
from clocks import FakeClock, tokens_on
from kis_retry import (
    Credentials,
    FileTokenStore,
    KisClient,
    MemoryTokenStore,
    RedisTokenStore,
    RefreshEvent,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
    TokenStore,
)
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway
from outcomes import call
from patience import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = Path(__file__).parents[1] / "programs" / "batch.py"


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with tokens_on(FakeClock()) as clock:
        yield clock


@pytest.fixture
def gateway(clock: FakeClock) -> Iterator[KisGateway]:
    with KisGateway(clock=clock.monotonic) as running:
        yield running


@pytest.fixture
def make(clock: FakeClock, gateway: KisGateway) -> Callable[..., KisClient]:
    """A client as in a process of its own."""

    def client(store: TokenStore | None = None, credentials: Credentials | None = None, **policy: Any) -> KisClient:
        return KisClient(
            tokens=TokenManager(
                credentials or gateway.credentials,
                store=store or MemoryTokenStore(),
                policy=RetryPolicy(**policy),
                session=Impatient(gateway),
                sleep=clock.sleep,
            )
        )

    return client


class Impatient(requests.Session):
    """Waits a short while for an answer that will not come, and as long as it takes for one that will."""

    def __init__(self, gateway: KisGateway) -> None:
        super().__init__()
        self.gateway = gateway

    def post(self, *arguments: Any, **options: Any) -> requests.Response:
        if self.gateway._faults._queue:
            options["timeout"] = 0.1
        return super().post(*arguments, **options)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The operations of the store that were warned of."""

    def operations() -> list[str]:
        found = [record for record in caplog.records if vars(record)["kis_name"] == "store_unavailable"]
        return [str(vars(record)["kis_operation"]) for record in found]

    return operations


# --- the token endpoint

TRANSIENT: dict[str, Callable[[KisGateway, int | None], None]] = {
    "dropped": lambda gateway, times: gateway.drop("tokens", times),
    "no answer in time": lambda gateway, times: gateway.hang("tokens", times),
    "500": lambda gateway, times: gateway.refuse_tokens(None, times, status=500),
    "503": lambda gateway, times: gateway.refuse_tokens(None, times, status=503),
    "a page": lambda gateway, times: gateway.garble("tokens", times),
    "a page that says 200": lambda gateway, times: gateway.garble("tokens", times, b"<html></html>", 200),
    "no body": lambda gateway, times: gateway.garble("tokens", times, b"", 200),
    "half an object": lambda gateway, times: gateway.garble("tokens", times, b'{"access_tok', 200),
    "a list": lambda gateway, times: gateway.garble("tokens", times, b"[]", 200),
    "{}": lambda gateway, times: gateway.garble("tokens", times, b"{}", 200),
    "an empty token": lambda gateway, times: gateway.garble("tokens", times, b'{"access_token": ""}', 200),
    "a blank token": lambda gateway, times: gateway.garble("tokens", times, b'{"access_token": " "}', 200),
    "a null token": lambda gateway, times: gateway.garble("tokens", times, b'{"access_token": null}', 200),
    "calls a second": lambda gateway, times: gateway.refuse_tokens("EGW00201", times, status=500),
}
STANDSTILL = {1: (0.2, 0.4), 3: (1.4, 2.0)}  # seconds, least and most, after so many failures


@pytest.mark.parametrize(("fault", "times"), [("dropped", 1), *((fault, 3) for fault in TRANSIENT)])
def test_a_transient_fault_is_waited_out_and_no_call_is_lost(
    fault: str, times: int, make: Callable[..., KisClient], gateway: KisGateway, clock: FakeClock
) -> None:
    client = make()
    answers = [call(client) for _ in range(5)]
    gateway.expire()
    gateway.reset_counts()
    TRANSIENT[fault](gateway, times)
    answers += [call(client) for _ in range(5)]
    assert answers == [GOOD] * 10
    assert gateway.counts.token_requests == times + 1
    assert gateway.counts.refused == 1
    least, most = STANDSTILL[times]
    assert least <= sum(clock.slept) <= most


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_fault_that_stays_is_an_honest_failure_after_issue_wait(
    fault: str, make: Callable[..., KisClient], gateway: KisGateway, clock: FakeClock
) -> None:
    TRANSIENT[fault](gateway, None)
    with pytest.raises(TokenIssueError) as caught:
        make(issue_wait=7).tokens.token()
    assert caught.value.retryable is True
    assert gateway.counts.token_requests in (6, 7)
    assert sum(clock.slept) == pytest.approx(7)
    assert gateway.credentials.app_secret not in str(caught.value)


def test_a_refused_connection_is_waited_out_until_somebody_listens(
    clock: FakeClock, make: Callable[..., KisClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    late = KisGateway(port=port, clock=clock.monotonic)
    sleep = clock.sleep

    def sleep_and_start_it(seconds: float) -> None:
        sleep(seconds)
        if len(clock.slept) == 2:
            late.__enter__()

    monkeypatch.setattr(clock, "sleep", sleep_and_start_it)
    client = make(credentials=Credentials(late._app_key, late._app_secret, base_url=f"http://127.0.0.1:{port}"))
    try:
        assert call(client) == GOOD
        assert late.counts.token_requests == 1
    finally:
        late.close()
    assert len(clock.slept) >= 2


def test_a_connection_that_stays_refused_is_an_honest_failure(make: Callable[..., KisClient], clock: FakeClock) -> None:
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound_but_deaf.getsockname()[1]}"
        with pytest.raises(TokenIssueError) as caught:
            make(credentials=Credentials("key", "secret", base_url=url), issue_wait=7).tokens.token()
    assert (caught.value.code, caught.value.retryable) == (None, True)
    assert sum(clock.slept) == pytest.approx(7)


def test_an_issue_whose_answer_was_lost_costs_the_minute_and_no_call(
    make: Callable[..., KisClient], gateway: KisGateway, clock: FakeClock
) -> None:
    gateway.drop("tokens", 1, reached=True)
    client = make()
    assert [call(client) for _ in range(5)] == [GOOD] * 5
    assert 60 <= sum(clock.slept) <= 61
    assert gateway.counts.token_requests == 3


@pytest.mark.parametrize("code", ["EGW00103", "EGW00105"])
def test_a_wrong_key_or_secret_is_final_at_the_first_answer(
    code: str, make: Callable[..., KisClient], gateway: KisGateway, clock: FakeClock
) -> None:
    right = gateway.credentials
    wrong = {
        "EGW00103": Credentials("another-key", right.app_secret, base_url=right.base_url),
        "EGW00105": Credentials(right.app_key, "another-secret", base_url=right.base_url),
    }[code]
    client = make(credentials=wrong)
    for _ in range(20):
        with pytest.raises(TokenIssueError) as caught:
            call(client)
        assert (caught.value.code, caught.value.retryable) == (code, False)
    assert gateway.counts.token_requests == 1
    assert gateway.counts.calls == 0
    assert clock.slept == []


@pytest.mark.parametrize("fault", ["EGW00105", "500", "dropped"])
def test_a_batch_that_cannot_have_a_new_token_gets_kis_own_answer_every_time(
    fault: str, make: Callable[..., KisClient], gateway: KisGateway, clock: FakeClock
) -> None:
    client = make()
    assert call(client) == GOOD
    gateway.expire()
    gateway.reset_counts()
    if fault == "EGW00105":
        gateway.refuse_tokens(fault)
    else:
        TRANSIENT[fault](gateway, None)
    answers = []
    for _ in range(60):
        answers.append(call(client))
        clock.now += 0.5  # the batch lasts half a minute
    assert answers == ["EGW00123"] * 60
    if fault == "EGW00105":
        assert gateway.counts.token_requests == 1
    else:
        assert gateway.counts.token_requests <= 40 + 30, "one in two seconds of issue_wait, one a second afterwards"
    gateway.heal()
    clock.now += 60
    assert call(client) == GOOD


# --- the folder of a file store


def no_space(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def over_an_expiry(client: KisClient, gateway: KisGateway) -> list[str]:
    gateway.expire_at(gateway.counts.calls + 25)
    return [call(client) for _ in range(50)]


def parent_is_a_file(folder: Path, patch: pytest.MonkeyPatch) -> None:
    folder.parent.write_text("in the way")


def it_is_a_file(folder: Path, patch: pytest.MonkeyPatch) -> None:
    folder.parent.mkdir()
    folder.write_text("in the way")


def disk_full(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tempfile, "mkstemp", no_space)


def no_file_can_be_locked(folder: Path, patch: pytest.MonkeyPatch) -> None:
    import filelock

    patch.setattr(filelock, "lock_descriptor", no_space)


def no_file_can_be_replaced(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "replace", no_space)


def disk_dying(folder: Path, patch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True)

    def fail(path: object, *_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    from kis_retry.stores import folder as engine

    patch.setattr(engine, "read_trusted", fail)


@pytest.mark.parametrize(
    "fault",
    [parent_is_a_file, it_is_a_file, disk_full, no_file_can_be_locked, no_file_can_be_replaced, disk_dying],
)
def test_a_folder_that_fails_is_one_warning_and_the_batch_goes_on(
    *,
    fault: Callable[[Path, pytest.MonkeyPatch], None],
    make: Callable[..., KisClient],
    gateway: KisGateway,
    clock: FakeClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    folder = tmp_path / "parent" / "cache"
    fault(folder, monkeypatch)
    assert over_an_expiry(make(FileTokenStore(folder)), gateway) == [GOOD] * 50
    assert len(warnings()) == 1
    assert gateway.counts.token_requests == 2
    assert clock.slept == []


def test_without_a_store_the_threads_of_a_process_still_share_one_issue(
    make: Callable[..., KisClient], gateway: KisGateway, tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    (tmp_path / "file").write_text("in the way")
    client = make(FileTokenStore(tmp_path / "file" / "cache"))
    call(client)
    gateway.expire_at(gateway.counts.calls + 50)
    answers: list[str] = []
    crowd = [threading.Thread(target=lambda: answers.extend(call(client) for _ in range(20))) for _ in range(8)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert answers == [GOOD] * 160
    assert gateway.counts.token_requests == 2
    assert len(warnings()) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_folder_without_rights_is_one_warning_and_the_batch_goes_on(
    make: Callable[..., KisClient],
    gateway: KisGateway,
    clock: FakeClock,
    tmp_path: Path,
    warnings: Callable[[], list[str]],
) -> None:
    assert over_an_expiry(make(MemoryTokenStore()), gateway) == [GOOD] * 50, "imports what may be the superuser's"
    (tmp_path / "parent").mkdir(mode=0o500)
    client = make(FileTokenStore(tmp_path / "parent" / "cache"))
    clock.now += 60  # another token may be had
    gateway.expire_at(gateway.counts.calls + 25)
    before = gateway.counts.token_requests

    def goes_on() -> bool:
        if os.geteuid() == 0:  # to whom no rights mean anything
            os.setuid(65_534)
        return [call(client) for _ in range(50)] == [GOOD] * 50 and len(warnings()) == 1

    assert in_child(goes_on)
    assert gateway.counts.token_requests == before + 2


def test_a_missing_folder_is_made_without_a_word(
    make: Callable[..., KisClient], gateway: KisGateway, tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    folder = tmp_path / "one" / "two" / "cache"
    assert call(make(FileTokenStore(folder))) == call(make(FileTokenStore(folder))) == GOOD
    assert gateway.counts.token_requests == 1
    assert warnings() == []


def test_an_entry_that_cannot_be_read_is_replaced_without_a_word(
    make: Callable[..., KisClient],
    gateway: KisGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    store = FileTokenStore(tmp_path / "cache")
    call(make(store))
    (entry,) = (tmp_path / "cache").glob("*.json")
    entry.chmod(0)
    gateway.expire()
    opened = os.open

    def refuse_the_unreadable(path: Any, *arguments: Any, **options: Any) -> int:
        if os.geteuid() == 0 and Path(path) == entry and not entry.stat().st_mode & 0o400:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse_the_unreadable)
    assert [call(make(store)) for _ in range(3)] == [GOOD] * 3
    assert gateway.counts.token_requests == 2
    assert warnings() == []


def test_a_store_that_works_again_is_used_again_and_its_next_failure_said_again(
    make: Callable[..., KisClient],
    gateway: KisGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    store = FileTokenStore(tmp_path / "cache")
    client = make(store)
    for failures in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "mkstemp", no_space)
            for _ in range(3):
                gateway.expire()
                assert call(client) == GOOD
        assert warnings() == ["save"] * failures
        gateway.expire()
        assert call(client) == GOOD
        requests = gateway.counts.token_requests
        assert call(make(store)) == GOOD
        assert gateway.counts.token_requests == requests, "the next process finds it there"


# --- a Redis server

QUICK = "?socket_timeout=0.2&socket_connect_timeout=0.2"


@pytest.mark.parametrize("fault", ["stopped", "deaf"])
def test_a_server_that_is_gone_is_one_warning_until_it_is_back(
    fault: str,
    make: Callable[..., KisClient],
    gateway: KisGateway,
    new_valkey_server: Callable[[], Any],
    warnings: Callable[[], list[str]],
) -> None:
    server = new_valkey_server()
    client = make(RedisTokenStore(server.url + QUICK))
    assert over_an_expiry(client, gateway) == [GOOD] * 50
    server.stop() if fault == "stopped" else server.pause(30)
    began = time.monotonic()
    assert over_an_expiry(client, gateway) == [GOOD] * 50
    assert time.monotonic() - began < 20, "it waited for the server, once an operation"
    assert len(warnings()) == 1
    assert gateway.counts.token_requests == 3
    server.start() if fault == "stopped" else server.resume()
    assert over_an_expiry(client, gateway) == [GOOD] * 50
    assert gateway.counts.token_requests == 4
    assert call(make(RedisTokenStore(server.url))) == GOOD
    assert gateway.counts.token_requests == 4, "the next machine finds it there"
    assert len(warnings()) == 1


def test_a_server_that_was_never_there_is_one_warning(
    make: Callable[..., KisClient], gateway: KisGateway, warnings: Callable[[], list[str]]
) -> None:
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        store = RedisTokenStore(f"redis://127.0.0.1:{bound_but_deaf.getsockname()[1]}/0")
        assert over_an_expiry(make(store), gateway) == [GOOD] * 50
    assert len(warnings()) == 1
    assert gateway.counts.token_requests == 2


def test_a_flushed_or_restarted_server_costs_nothing_while_the_token_lives(
    make: Callable[..., KisClient],
    gateway: KisGateway,
    new_valkey_server: Callable[[], Any],
    warnings: Callable[[], list[str]],
) -> None:
    server = new_valkey_server()
    client = make(RedisTokenStore(server.url))
    for vanish in (server.flush, lambda: (server.stop(), server.start())):
        call(client)
        requests = gateway.counts.token_requests
        vanish()
        assert [call(client) for _ in range(5)] == [GOOD] * 5
        assert gateway.counts.token_requests == requests
        gateway.expire()
        assert call(client) == call(make(RedisTokenStore(server.url))) == GOOD
        assert gateway.counts.token_requests == requests + 1
    assert warnings() == []


# --- a process killed while it asks


@pytest.fixture
def asking(gateway: KisGateway, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """A process that has the store's lock, and waits for an answer of KIS."""
    started: list[subprocess.Popen[str]] = []

    def start(place: str) -> subprocess.Popen[str]:
        environ = {
            "KIS_APP_KEY": gateway.credentials.app_key,
            "KIS_APP_SECRET": gateway.credentials.app_secret,
            "KIS_BASE_URL": gateway.url,
            "KIS_TOKEN_STORE": place,
        }
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
        )
        started.append(process)
        gateway.hang("tokens", 1)
        assert process.stdin is not None
        process.stdin.write(json.dumps({"environ": environ, "threads": 1, "calls": 1}) + "\ngo\n")
        process.stdin.flush()
        until(lambda: gateway.counts.token_requests == 1)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def others(make: Callable[..., KisClient], new_store: Callable[[], TokenStore], answers: list[str]) -> Any:
    crowd = [threading.Thread(target=lambda: answers.append(call(make(new_store()))), daemon=True) for _ in range(3)]
    for thread in crowd:
        thread.start()
    return crowd


def test_a_holder_killed_while_it_asks_blocks_nobody_on_its_machine(
    asking: Callable[[str], subprocess.Popen[str]], make: Callable[..., KisClient], gateway: KisGateway, tmp_path: Path
) -> None:
    holder = asking(str(tmp_path / "cache"))
    answers: list[str] = []
    waiting = others(make, lambda: FileTokenStore(tmp_path / "cache"), answers)
    time.sleep(0.1)
    assert answers == [], "they wait for who holds the lock"
    assert gateway.counts.token_requests == 1
    holder.kill()
    killed = time.monotonic()
    for thread in waiting:
        thread.join(20)
    assert answers == [GOOD] * 3
    assert time.monotonic() - killed < 10, "the operating system releases the lock at once"
    assert gateway.counts.token_requests == 2
    assert gateway.counts.tokens_issued == 1


def test_a_holder_killed_while_it_asks_blocks_other_machines_for_its_lease(
    asking: Callable[[str], subprocess.Popen[str]],
    make: Callable[..., KisClient],
    gateway: KisGateway,
    valkey_server: Any,
) -> None:
    valkey_server.flush()
    holder = asking(valkey_server.url)
    answers: list[str] = []
    waiting = others(make, lambda: RedisTokenStore(valkey_server.url), answers)
    holder.kill()
    lock = f"kis_retry:{{{key_of(gateway.credentials)}}}:lock"
    with redis.Redis.from_url(valkey_server.url) as server:
        time.sleep(0.1)
        assert answers == []
        left = server.pttl(lock)
        assert 10_000 < left <= 30_000, "longer than a token request may take, and not for ever"
        server.pexpire(lock, 1)  # as if that time had passed
    for thread in waiting:
        thread.join(20)
    assert answers == [GOOD] * 3
    assert gateway.counts.token_requests == 2
    assert gateway.counts.tokens_issued == 1


@pytest.mark.parametrize(
    ("issue_timeout", "issue_wait", "waits"), [(0.1, 70, 2.1), (10, 70, 12), (120, 70, 35), (2, 4, 2), (2, 5, 2.5)]
)
def test_the_lock_is_waited_for_as_long_as_a_live_holder_may_need_it_and_half_of_issue_wait_at_most(
    issue_timeout: float, issue_wait: float, waits: float, make: Callable[..., KisClient], clock: FakeClock
) -> None:
    asked: list[tuple[float, float]] = []

    class Watched(MemoryTokenStore):
        def lock(self, key: str, *, timeout: float, lease: float) -> Any:
            asked.append((timeout, lease))
            return super().lock(key, timeout=timeout, lease=lease)

    call(make(Watched(), issue_timeout=issue_timeout, issue_wait=issue_wait))
    timeout, lease = asked[0]  # a machine that stands still for a tenth of a second makes it ask again
    assert timeout == pytest.approx(waits)
    assert lease > issue_timeout + 3.05, "a live holder is done by then"


# --- a clock that is wrong


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("hours", [-48, -25, -1, 1, 12, 20, 23, 48])
def test_a_wrong_clock_loses_no_call_and_does_not_loop(
    *, hours: int, processes: int, make: Callable[..., KisClient], gateway: KisGateway, clock: FakeClock, tmp_path: Path
) -> None:
    clock.skew = hours * 3_600
    clients = [make(FileTokenStore(tmp_path / "cache")) for _ in range(processes)]
    for _ in range(2 * 12):
        assert [call(client) for client in clients] == [GOOD] * processes
        clock.now += 2 * 3_600
    assert gateway.counts.token_requests <= 2 * 4 * processes + 1, "one in the six hours of a token, at most"
    if abs(hours) == 1:
        assert gateway.counts.token_requests <= 3
    assert gateway.counts.refused <= 2 * processes


def test_a_clock_that_jumps_back_and_forth_loses_no_call(
    make: Callable[..., KisClient], gateway: KisGateway, clock: FakeClock
) -> None:
    client = make()
    for step in range(200):
        clock.skew = (-3_600, 0, 3_600, 90_000)[step % 4]
        assert call(client) == GOOD
        clock.now += 900
    assert gateway.counts.token_requests <= 12


def test_a_clock_ahead_of_every_expiry_is_said(
    make: Callable[..., KisClient], clock: FakeClock, events: list[RefreshEvent], caplog: pytest.LogCaptureFixture
) -> None:
    clock.skew = 48 * 3_600
    client = make()
    assert [call(client) for _ in range(20)] == [GOOD] * 20
    (record,) = caplog.records
    name, token, expires_at = record.getMessage().split(" ")
    assert (name, token) == ("kis_retry.clock_ahead", f"token={client.tokens.token().fingerprint}")
    assert expires_at == f"expires_at={vars(record)['kis_expires_at'].isoformat(timespec='seconds')}"
    assert events == []
