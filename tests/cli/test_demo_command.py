"""`kis-retry demo` with a gateway in this process and a batch that does as it is told: what it begins, shows, ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from clocks import FakeClock
from kis_retry import Credentials, KisClient, RefreshEvent, events
from kis_retry.cli import demo, gateway, main
from kis_retry.cli.batch import Failure, Symbol, Tracker
from kis_retry.cli.output import Progress
from kis_retry.events import emit
from kis_retry.testing import KisGateway


class Gateway:
    """A `GatewayProcess` that is none."""

    made: Gateway | None = None

    def __init__(self, *, seed: int) -> None:
        self.seed = seed
        self.running = KisGateway(seed=seed)
        self.checked = 0

    @property
    def credentials(self) -> Credentials:
        return self.running.credentials

    def __enter__(self) -> Gateway:  # noqa: PYI034  # typing.Self is of 3.11
        Gateway.made = self
        self.running.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.running.close()

    def check(self) -> None:
        self.checked += 1

    def tell(self, name: str, **arguments: object) -> Any:
        return gateway._command(self.running, f"{name} {json.dumps(arguments)}")

    def counts(self) -> Any:
        return self.tell("counts")


class Batch:
    """
    Stands for the batch of the demo, of which another third has its outcomes at each of three looks.

    They are what `outcomes` say, an answer where they say nothing.
    """

    outcomes: Mapping[int, Failure]
    meanwhile: Callable[[], object]
    made: Batch

    def __init__(self, client: KisClient, batch: Sequence[Symbol], **options: Any) -> None:
        type(self).made = self
        self.client, self.batch, self.options = client, batch, options
        self.tracker = Tracker()
        self.waited: list[float] = []
        self.stopped: list[float] = []
        self.no_proxy = os.environ.get("no_proxy")

    def start(self) -> None:
        type(self).meanwhile()

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        done, third = self.tracker.processed, (len(self.batch) + 2) // 3
        for number in range(done + 1, min(done + third, len(self.batch)) + 1):
            self.tracker.record(number, self.outcomes.get(number))
        return len(self.waited) == 3

    def stop(self, seconds: float) -> None:
        self.stopped.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock(now=5.0)
    monkeypatch.setattr(demo, "time", made)
    return made


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Batch]]:
    """What the demo makes its batch of."""

    class Scripted(Batch):
        outcomes = {}  # noqa: RUF012  # each test has a class of its own
        meanwhile = staticmethod(lambda: None)

    monkeypatch.setattr(demo, "GatewayProcess", Gateway)
    monkeypatch.setattr(demo, "Batch", Scripted)
    yield Scripted
    Gateway.made = None


def report(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> dict[str, Any]:
    assert main(["demo", "--json", *words]) == status
    (line,) = capsys.readouterr().out.splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


@pytest.mark.parametrize("protected", [True, False])
@pytest.mark.parametrize(("total", "us", "domestic"), [(7, 5, 2), (2, 1, 1)])
def test_the_batch_is_the_one_that_was_asked_for(
    total: int, us: int, domestic: int, protected: bool, batch: type[Batch], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--symbols", str(total), "--threads", "3", *([] if protected else ["--unprotected"])]
    seen = report(capsys, *words)
    asked = {"symbols": total, "us": us, "domestic": domestic, "threads": 3, "protected": protected}
    assert {name: seen[name] for name in asked} == asked
    made = batch.made
    assert [symbol.country for symbol in made.batch] == ["US"] * us + ["KR"] * domestic
    assert made.options["threads"] == 3
    assert list(made.options["before"]) == [1, us + 1], (
        "the token dies at the first US symbol, the API at the first other"
    )
    assert made.client.policy.enabled is protected
    assert made.options["pace"] is (None if protected else made.client.limiter), "somebody keeps the pace"
    assert made.client.limiter.rate == 990
    assert Gateway.made is not None
    assert Gateway.made.seed == 748


def test_there_is_a_token_to_die_before_the_first_call(batch: type[Batch], capsys: pytest.CaptureFixture[str]) -> None:
    tokens: list[object] = []
    batch.meanwhile = lambda: tokens.append(Gateway.made and Gateway.made.running.current_token)
    seen = report(capsys, "--symbols", "2")
    assert (seen["token_requests"], seen["tokens_issued"], seen["calls"]) == (1, 1, 0)
    assert tokens != [None]


def test_it_is_done_where_every_symbol_was_answered_and_not_else(
    batch: type[Batch], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(capsys, "--symbols", "300")["answered"] == 300
    batch.outcomes = {4: Failure("EGW00316", "no such data")}
    assert report(capsys, "--symbols", "7", status=1)["result"] == "incomplete, 6 of 7 symbols: no such data"


def test_its_seconds_are_those_of_the_batch_and_of_what_its_calls_waited(
    batch: type[Batch], clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait_once() -> None:
        clock.pass_by(0.5)
        emit(RefreshEvent(name="call_retried", msg_cd="EGW00201"))
        clock.pass_by(1.25)
        emit(RefreshEvent(name="call_recovered"))
        clock.pass_by(10)

    batch.meanwhile = wait_once
    seen = report(capsys, "--symbols", "2")
    assert seen["seconds"] == 11.75
    assert (seen["causes"]["rate_limited"]["repeated"], seen["causes"]["rate_limited"]["seconds"]) == (1, 1.25)
    assert [event["name"] for event in seen["events"]] == ["call_retried", "call_recovered"]


def test_it_looks_ten_times_a_second_whether_the_batch_is_over_and_the_gateway_there(
    batch: type[Batch], capsys: pytest.CaptureFixture[str]
) -> None:
    report(capsys, "--symbols", "2")
    assert batch.made.waited == [0.1, 0.1, 0.1]
    assert Gateway.made is not None
    assert Gateway.made.checked == 3


def test_an_interrupted_demo_gives_the_calls_under_way_two_seconds_and_ends_everything(
    batch: type[Batch], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    before = dict(events._hooks)
    batch.meanwhile = interrupt
    assert main(["demo", "--symbols", "2"]) == 130
    assert batch.made.stopped == [2.0]
    assert events._hooks == before
    assert capsys.readouterr().err == "kis-retry: interrupted\n"


@pytest.mark.parametrize("mine", [None, "example.org"])
def test_no_proxy_stands_in_between_and_the_environment_is_as_before_then(
    mine: str | None, batch: type[Batch], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    if mine is not None:
        monkeypatch.setenv("no_proxy", mine)
    before = dict(events._hooks)
    report(capsys, "--symbols", "2")
    assert batch.made.no_proxy == "127.0.0.1"
    assert os.environ.get("no_proxy") == mine
    assert events._hooks == before


def test_people_are_told_what_is_planned_what_happens_and_how_it_went(
    batch: type[Batch], clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.meanwhile = lambda: emit(RefreshEvent(name="token_refreshed", source="issued"))
    assert main(["demo", "--symbols", "7", "--unprotected"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "7 symbols, 5 US and then 2 domestic, 4 at a time, unprotected"
    assert lines[5:12] == [
        "the token dies at US symbol 1, and its endpoint is away for 0.5 s",
        "the API is away for 0.5 s at domestic symbol 1",
        "token_refreshed: issued",
        "3 of 7",
        "6 of 7",
        "7 of 7",
        "cause                struck  repeated  waited  lost",
    ]
    assert lines[-2:] == ["seconds          0.0", "result           complete, 7 of 7 symbols"]


def test_how_far_it_is_is_shown_at_every_look(batch: type[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []

    class Bar(Progress):
        def advance(self, done: int) -> None:
            shown.append(done)

    monkeypatch.setattr(demo, "new_progress", lambda total, **_: Bar(total))
    assert main(["demo", "--symbols", "7"]) == 0
    assert shown == [3, 6, 7]
