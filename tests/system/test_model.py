"""
Whatever happens in whatever order: no call is lost that could be saved, and nothing is issued twice for one expiry.

Three processes share a store; calls, expiries, revocations, damage, faults and time come in any order that hypothesis
thinks of. Where somebody waits, the others go on: waiting is a point at which they are scheduled.
"""

from __future__ import annotations

import contextvars
import math
import shutil
import tempfile
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import requests
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from answers import EXPIRED_CODE, GOOD_CODE, PRICE
from kis_retry import (
    AccessToken,
    FileTokenStore,
    KisRetryError,
    RefreshEvent,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
    on_event,
    refresh_on_expired_token,
)
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway

MARGIN, MINUTE = 600, 60
REFUSED = {"EGW00121", "EGW00122", EXPIRED_CODE}
PROCESSES = st.integers(0, 2)


class Asking(requests.Session):
    """The session of a process's token requests, which looks whether they are needed."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process

    def post(self, url: str | bytes, *given: Any, **options: Any) -> requests.Response:
        if str(url).endswith("tokenP"):
            self._process.world.check_need(self._process)
        return super().post(url, *given, **options)


class Process:
    """A manager, and a decorated function that asks it for its token, or has it put into its headers."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.refused: set[str | None] = set()  # fingerprints
        given, policy = world.gateway.credentials, RetryPolicy(refresh_margin=MARGIN, issue_cooldown=MINUTE)
        clock: Any = world  # it tells the time
        self.tokens = TokenManager(given, store=world.store, policy=policy, session=Asking(self), clock=clock)
        headers: dict[str, str] = {}

        @refresh_on_expired_token(tokens=self.tokens)
        def ask(headers: dict[str, str]) -> str:
            sent = {"authorization": self.tokens.authorization} if number == 1 else headers
            return str(requests.get(world.gateway.url + PRICE, headers=sent, timeout=5).json()["msg_cd"])

        self.ask = lambda: ask(headers)


class World(RuleBasedStateMachine):
    """The rules, and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_900_000_000.0
        self.open = ExitStack()
        self.gateway = self.open.enter_context(KisGateway(clock=self.time).mocked())
        self.open.callback(on_event(self.hear))
        self.key = key_of(self.gateway.credentials)
        self.folder = Path(tempfile.mkdtemp())
        self.open.callback(shutil.rmtree, self.folder)
        self.store = FileTokenStore(self.folder / "tokens")
        self.backup: AccessToken | None = None
        self.dead: set[str | None] = set()  # tokens that KIS takes no longer
        self.well_at = self.now  # from then on every call has to succeed
        self.planned = 0  # faults of the token endpoint that pass by themselves
        self.is_shared = True  # nobody has had a reason to look past the store
        self.scheduled: list[int] = []
        self.active: list[int] = []
        self.needless: list[str] = []

    def teardown(self) -> None:
        self.open.close()

    # The clock of the processes: while one of them waits, others go on.

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.scheduled:
            number = self.scheduled.pop()
            if number not in self.active:
                contextvars.Context().run(self.call, number)  # another process knows nothing of this one's call

    # What is known from outside.

    def hear(self, event: RefreshEvent) -> None:
        if event.name == "token_expired":
            self.processes[self.active[-1]].refused.add(event.token)
        elif event.name == "token_refresh_failed":
            self.excuse()  # for the cool-down

    def excuse(self) -> None:
        """Expect no success until everybody may ask KIS again and gets another token."""
        self.well_at = max(self.well_at, self.now + MINUTE + 1)

    def check_need(self, process: Process) -> None:
        """Whoever asks KIS does it because no live token was there to share, or because it is about to die."""
        shared = self.store.load(self.key) if self.is_shared else None
        if shared is None or shared.fingerprint in process.refused:
            return
        is_alive = shared.value == self.gateway.current_token and shared.value not in self.dead
        if is_alive and self.now < shared.expires - MARGIN:
            self.needless.append(f"at {self.now}")

    def pending(self) -> int:
        return self.planned - sum(self.gateway.faults_met.values())

    # The rules.

    @initialize()
    def begin(self) -> None:
        self.processes = [Process(self, number) for number in range(3)]

    @rule(number=PROCESSES)
    def call(self, number: int) -> None:
        must = self.now >= self.well_at and not self.scheduled
        before, most = self.gateway.counts.token_requests, 4 + max(self.pending(), 0) if must else 60
        self.active.append(number)
        try:
            code = self.processes[number].ask()
        except TokenIssueError:
            code = "none"
        finally:
            self.active.pop()
        assert code == GOOD_CODE or not must
        assert code in {GOOD_CODE, "none", *REFUSED}, "what is lost is KIS's own answer"
        assert self.gateway.counts.token_requests - before <= most

    @rule()
    def everybody_calls(self) -> None:
        issued = self.gateway.counts.tokens_issued
        for number in range(3):
            self.call(number)
        assert self.gateway.counts.tokens_issued - issued <= 1 or not self.is_shared, "one issue for one expiry"

    @rule(number=PROCESSES)
    def schedule(self, number: int) -> None:
        self.scheduled.append(number)

    @rule(seconds=st.sampled_from([1, 30, 60, 300, 3_000, 20_000, 43_200, 85_500, 86_000, 86_400, 300_000]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(number=PROCESSES, trouble=st.sampled_from(["none", "elsewhere", "endpoint"]))
    def kis_lets_every_token_die(self, number: int, trouble: str) -> None:
        self.dead.add(self.gateway.current_token)
        self.gateway.expire()
        if trouble == "elsewhere":
            self.somebody_without_the_store_gets_a_token()
        elif trouble == "endpoint":
            self.endpoint_fails_for_a_moment(3, 500)
        self.call(number)

    @rule(number=PROCESSES, revoked=st.booleans())
    def somebody_gives_up_a_live_token(self, number: int, revoked: bool) -> None:
        tokens = self.processes[number].tokens
        self.active.append(number)
        with suppress(KisRetryError):  # the endpoint is away
            held = tokens.token()
            self.dead.add(held.value)  # as far as we know
            for each in self.processes:
                each.refused.add(held.fingerprint)  # who is told so may ask KIS
            assert tokens.revoke() if revoked else tokens.refresh(held)
        self.active.pop()
        self.excuse()  # KIS may hand the same one out again, or none before the minute is over

    @rule()
    def somebody_without_the_store_gets_a_token(self) -> None:
        self.now += MINUTE  # KIS issues one a minute, whoever asks
        self.gateway.issue_elsewhere()

    @rule(number=PROCESSES)
    def restart(self, number: int) -> None:
        self.processes[number] = Process(self, number)

    @rule(what=st.sampled_from(["damage", "foreign", "backup"]), hours=st.sampled_from([-1, 1, 12, 30]))
    def the_entry_changes(self, what: str, hours: int) -> None:
        """Also to an older one, as when a server fails over to one that lags behind."""
        until = datetime.fromtimestamp(self.now + hours * 3_600, timezone.utc)
        before, self.backup = self.backup, self.store.load(self.key) if self.is_shared else self.backup
        token = before if what == "backup" else AccessToken("eyJ.of-somebody-else.sig", until)
        with suppress(OSError):  # the store is gone
            if token is not None:
                self.store.save(self.key, token)
            for entry in self.store.folder.glob("*.json") if what == "damage" else ():
                entry.write_bytes(entry.read_bytes()[:-5])

    @rule()
    def the_store_goes_or_comes_back(self) -> None:
        folder, away = self.store.folder, self.folder / "away"
        if folder.is_file():
            folder.unlink()
            away.rename(folder)
        else:
            folder.mkdir(exist_ok=True)
            folder.rename(away)
            folder.write_text("in the way")
        self.is_shared = False  # from now on its users come back to it one after the other

    @rule(times=st.sampled_from([1, 3, 4]), status=st.sampled_from([0, 500]))
    def endpoint_fails_for_a_moment(self, times: int, status: int) -> None:
        if self.pending() < 12 and self.well_at < math.inf:  # which `issue_wait` outlasts
            self.planned += times
            if status:
                self.gateway.fail(status, times, "tokens")
            else:
                self.gateway.drop("tokens", times)

    @rule(code=st.sampled_from([None, "EGW00105"]))
    def endpoint_fails_for_long(self, code: str | None) -> None:
        self.well_at = math.inf
        if code:
            self.gateway.refuse_tokens(code, status=500)
        else:
            self.gateway.fail(500, where="tokens")

    @rule()
    def endpoint_heals(self) -> None:
        self.gateway.heal()
        self.planned = sum(self.gateway.faults_met.values())
        if self.well_at == math.inf:
            self.well_at = self.now
            self.excuse()

    @invariant()
    def nothing_was_issued_needlessly(self) -> None:
        assert self.needless == []


TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=8,
    derandomize=True,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
