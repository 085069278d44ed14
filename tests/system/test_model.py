"""
Whatever happens in whatever order: no call is lost that could be saved, and nothing is issued twice for one expiry.

Three processes share a store; calls, expiries, revocations, reissues, damage, faults and time come in any order that
hypothesis thinks of. Where somebody waits, the others go on: waiting is a point at which they are scheduled.
"""

from __future__ import annotations

import contextvars
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import requests
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from answers import EXPIRED_CODE, GOOD_CODE, PRICE
from clocks import tokens_on
from kis_retry import (
    AccessToken,
    FileTokenStore,
    KisRetryError,
    MemoryTokenStore,
    RetryPolicy,
    TokenIssueError,
    TokenManager,
    TokenStore,
    refresh_on_expired_token,
)
from kis_retry.stores.base import key_of
from kis_retry.testing import KisGateway
from kis_retry.testing.wire import Dropped, Request, WireResponse

MARGIN, COOLDOWN, MINUTE = 600, 60, 60
GOOD, DEAD = GOOD_CODE, {"EGW00121", EXPIRED_CODE}
PROCESSES = st.integers(0, 2)
OUTLASTED = 20  # failures in a row of the token endpoint that `issue_wait` outlasts


class Unreliable:
    """A store with a switch."""

    def __init__(self, store: TokenStore) -> None:
        self.store = store
        self.broken = False

    def load(self, key: str) -> AccessToken | None:
        return self._working().load(key)

    def save(self, key: str, token: AccessToken) -> None:
        self._working().save(key, token)

    def delete(self, key: str) -> None:
        self._working().delete(key)

    def lock(self, key: str, *, timeout: float, lease: float) -> AbstractContextManager[bool]:
        return self._working().lock(key, timeout=timeout, lease=lease)

    def _working(self) -> TokenStore:
        if self.broken:
            raise OSError("the store is gone")
        return self.store


class PostingTo(requests.Session):
    """A whole session, as `session=` asks for: a later test may fork, which looks after every living manager's."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def post(self, url: str | bytes, data: object = None, json: Any = None, **_: object) -> Any:
        return self.world.post(str(url), json=json)


class Process:
    """A manager, and a decorated function that keeps its token in one of two ways."""

    def __init__(self, world: World, number: int) -> None:
        self.tokens = TokenManager(
            world.gateway.credentials,
            store=world.store,
            policy=RetryPolicy(refresh_margin=MARGIN, issue_cooldown=COOLDOWN),
            session=PostingTo(world),
            sleep=world.sleep,
        )
        headers: dict[str, str] = {}

        @refresh_on_expired_token(tokens=self.tokens)
        def asks_by_itself() -> dict[str, Any]:
            return world.get(self.tokens.authorization)

        @refresh_on_expired_token(tokens=self.tokens)
        def bound(headers: dict[str, str]) -> dict[str, Any]:
            return world.get(headers["authorization"])

        self.ask: Callable[[], dict[str, Any]] = asks_by_itself if number % 2 else lambda: bound(headers)

    @property
    def held(self) -> AccessToken | None:
        held = self.tokens._refresher.memory.cached
        return held.token if held is not None else None

    def in_cooldown(self, now: float) -> bool:
        return self.tokens._refresher.memory.cooldown.is_on(now, COOLDOWN)

    def has_refused(self, token: AccessToken | None) -> bool:
        return token is not None and self.tokens._refresher.memory.has_refused(token.value)

    def was_handed_out_again(self, token: AccessToken | None, now: float) -> bool:
        """KIS handed it out within the minute, and not for the first time: waiting would bring it back."""
        memory = self.tokens._refresher.memory
        same = token is not None and token.value == memory.issued_value
        return same and memory.issued_again and now - memory.issued_at < MINUTE


class World(RuleBasedStateMachine):
    """The rules; `new_store` and `spoil` are the engine's."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_900_000_000.0
        clock = SimpleNamespace(time=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep)
        self.patched = ExitStack()
        self.patched.enter_context(tokens_on(clock))
        self.gateway = KisGateway(clock=lambda: self.now)
        self.gateway.claim("http://kis.invalid")
        self.key = key_of(self.gateway.credentials)
        self.store = Unreliable(self.new_store())
        self.transient = 0  # token requests that will fail; a thousand: until healed
        self.final = False
        self.backup: AccessToken | None = None
        self.doubted: set[str] = set()  # live tokens that somebody was told to replace
        self.scheduled: list[int] = []
        self.active: list[int] = []
        self.needless: list[str] = []

    def new_store(self) -> TokenStore:
        raise NotImplementedError

    def spoil(self) -> None:
        raise NotImplementedError

    def teardown(self) -> None:
        self.patched.close()

    # What the processes are given instead of a network and a clock.

    def post(self, url: str, *, json: dict[str, str], **_: object) -> Any:
        path = url.removeprefix(self.gateway.url)
        if path.endswith("tokenP"):
            self._check_need()
            self.transient -= self.transient > 0
        answer = self.gateway.receive(Request("POST", path, body=_dumps(json)))
        if isinstance(answer, Dropped):
            raise requests.ConnectionError("dropped")
        assert isinstance(answer, WireResponse)
        return SimpleNamespace(status_code=answer.status, json=lambda: _loads(answer.body))

    def get(self, authorization: str) -> dict[str, Any]:
        answer = self.gateway.receive(Request("GET", PRICE, headers={"authorization": authorization}))
        assert isinstance(answer, WireResponse)
        said: dict[str, Any] = _loads(answer.body)
        return said

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.scheduled:
            number = self.scheduled.pop()
            if number not in self.active:
                contextvars.Context().run(self.call, number)  # another process knows nothing of this one's call

    # What is known from outside.

    def alive(self, token: AccessToken | None) -> bool:
        return token is not None and self.gateway._books["real"].judge(token.value, self.now) is None

    def stored(self) -> AccessToken | None:
        return None if self.store.broken else self.store.store.load(self.key)

    def adoptable(self, process: Process) -> AccessToken | None:
        stored = self.stored()
        if stored is None or self.now >= stored.expires or process.has_refused(stored) or stored == process.held:
            return None
        return stored

    def must_succeed(self, process: Process) -> bool:
        """A live token could serve this call, or KIS would issue one after a refusal at most."""
        held, shared = process.held, self.adoptable(process)
        dead_share = shared is not None and not self.alive(shared)
        if self.alive(held) and not process.has_refused(held):
            # Inside the margin a later token in the store is taken for the renewal, and may turn out dead.
            assert held is not None
            return not (dead_share and self.now >= held.expires - MARGIN) or self.may_issue(process, held, shared)
        if self.alive(shared):
            return True
        refusals = (held is not None and self.now < held.expires) + dead_share
        return refusals <= 1 and self.may_issue(process, held, shared)

    def may_issue(self, process: Process, *refusable: AccessToken | None) -> bool:
        contended = self.store.broken and bool(self.scheduled)
        hopeless = self.final or self.transient > OUTLASTED or process.in_cooldown(self.now)
        same = any(process.was_handed_out_again(token, self.now) for token in refusable)
        return not (contended or hopeless or same)

    def most_requests(self) -> int:
        """Of one call: an endpoint that is away is asked every two seconds, for as long as `issue_wait`."""
        return 6 + min(self.transient, 40)

    def _check_need(self) -> None:
        """Whoever asks KIS does it because no live token was there to share, or because it is about to die."""
        shared = self.stored()
        if shared is not None and self.alive(shared) and shared.value not in self.doubted:
            asking = self.processes[self.active[-1]]
            if not asking.has_refused(shared) and self.now < shared.expires - MARGIN:
                self.needless.append(f"process {self.active[-1]} at {self.now}")

    # The rules.

    @initialize()
    def begin(self) -> None:
        self.processes = [Process(self, number) for number in range(3)]

    @rule(number=PROCESSES)
    def call(self, number: int) -> None:
        process = self.processes[number]
        must, had = self.must_succeed(process), process.held
        before, bound = self.gateway.counts.token_requests, self.most_requests()
        alone = not self.scheduled
        self.active.append(number)
        try:
            code = process.ask()["msg_cd"]
        except TokenIssueError:
            assert had is None, "there was a token to make an attempt with"
            code = "none"
        finally:
            self.active.pop()
        assert code == GOOD or not must
        assert code in {GOOD, "none", *DEAD}, "what is lost is KIS's own answer"
        if alone:
            assert self.gateway.counts.token_requests - before <= bound

    @rule()
    def everybody_calls(self) -> None:
        issued = self.gateway.counts.tokens_issued
        for number in range(3):
            self.call(number)
        shared = self.stored()
        if shared is not None and shared.value not in self.doubted:
            assert self.gateway.counts.tokens_issued - issued <= 1, "one issue for one expiry"

    @rule(number=PROCESSES)
    def batch(self, number: int) -> None:
        before, alone = self.gateway.counts.token_requests, not self.scheduled
        bound = self.most_requests() + (30 if self.transient else 0)  # one a second in the cool-down
        for _ in range(30):
            self.call(number)
            self.now += 1
        if alone:
            assert self.gateway.counts.token_requests - before <= bound

    @rule(number=PROCESSES)
    def schedule(self, number: int) -> None:
        self.scheduled.append(number)

    @rule(seconds=st.sampled_from([1, 30, 60, 300, 3_000, 20_000, 43_200, 85_500, 86_000, 86_400, 300_000]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def kis_lets_every_token_die(self) -> None:
        self.gateway.expire()

    @rule(number=PROCESSES)
    def revoke(self, number: int) -> None:
        self.active.append(number)
        assert self.processes[number].tokens.revoke() in (True, False)
        self.active.pop()

    @rule(number=PROCESSES)
    def refresh_by_hand(self, number: int) -> None:
        process = self.processes[number]
        self.doubted.update(token.value for token in (process.held, self.stored()) if token is not None)
        self.active.append(number)
        try:
            process.tokens.refresh(process.held)
        except KisRetryError:
            pass
        finally:
            self.active.pop()

    @rule()
    def somebody_without_the_store_gets_a_token(self) -> None:
        self.gateway.issue_elsewhere()

    @rule(number=PROCESSES)
    def restart(self, number: int) -> None:
        self.processes[number] = Process(self, number)

    @rule()
    def damage(self) -> None:
        self.spoil()

    @rule(hours=st.sampled_from([-1, 1, 12, 30]))
    def foreign_entry(self, hours: int) -> None:
        until = datetime.fromtimestamp(self.now + hours * 3_600, timezone.utc)
        self.store.store.save(self.key, AccessToken("eyJ.of-somebody-else.sig", until))

    @rule()
    def remember_the_entry(self) -> None:
        self.backup = self.store.store.load(self.key) or self.backup

    @rule()
    def an_old_entry_comes_back(self) -> None:
        """As when a server fails over to one that lags behind."""
        if self.backup is not None:
            self.store.store.save(self.key, self.backup)

    @rule(broken=st.booleans())
    def switch_the_store(self, broken: bool) -> None:
        self.store.broken = broken

    @rule(times=st.sampled_from([1, 3, 4, None]), status=st.sampled_from([0, 500]))
    def endpoint_fails(self, times: int | None, status: int) -> None:
        self.transient += 1_000_000 if times is None else times
        if status:
            self.gateway.refuse_tokens(None, times, status=status)
        else:
            self.gateway.drop("tokens", times)

    @rule()
    def endpoint_refuses(self) -> None:
        self.final = True
        self.gateway.refuse_tokens("EGW00105")

    @rule()
    def endpoint_heals(self) -> None:
        self.transient, self.final = 0, False
        self.gateway.heal()

    @invariant()
    def nothing_was_issued_needlessly(self) -> None:
        assert self.needless == []


def _dumps(body: object) -> bytes:
    return json.dumps(body).encode()


def _loads(body: bytes) -> Any:
    return json.loads(body)


class InMemory(World):
    def new_store(self) -> TokenStore:
        return MemoryTokenStore()

    def spoil(self) -> None:
        self.store.store.delete(self.key)


class InFiles(World):
    def new_store(self) -> TokenStore:
        self.folder = Path(tempfile.mkdtemp())
        return FileTokenStore(self.folder)

    def spoil(self) -> None:
        for entry in self.folder.glob("*.json"):
            entry.write_bytes(entry.read_bytes()[:-5] or b"\0")

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


QUICK = settings(
    max_examples=25, stateful_step_count=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

TestInMemory = InMemory.TestCase
TestInMemory.settings = QUICK
TestInFiles = InFiles.TestCase
TestInFiles.settings = settings(QUICK, max_examples=10)
