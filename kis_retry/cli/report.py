"""How the demo's night went: for people as lines and tables, for programs as one document. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..events import RefreshEvent
from .batch import IN_A_ROW, Tracker
from .causes import CAUSES, Heard, cause_of, causes_met, costs_of
from .night import FAST_FORWARD, PACE, Night

__all__ = ["CAUSE_COLUMNS", "Report", "description", "kind_of"]

CAUSE_COLUMNS = ("cause", "struck", "repeated", "waited", "lost")

_RARE = ("token_refreshed", "token_refresh_failed", "token_issue_waiting", "rate_lowered", "rate_raised")


class Report:
    """
    What became of the symbols, by the tracker, and what each cause did, by the gateway's counts and the events.

    Args:
        night: what was planned.
        tracker: of the batch, which is over.
        heard: every event.
        counts: the gateway's `counts`.
        faults_met: the gateway's `faults_met`.
    """

    def __init__(
        self,
        night: Night,
        tracker: Tracker,
        heard: Sequence[Heard],
        counts: Mapping[str, int],
        faults_met: Mapping[str, int],
    ) -> None:
        self._night = night
        self._tracker = tracker
        self._heard = heard
        self._counts = counts
        self._over_limit = faults_met.get("over_limit", 0)
        self._costs = costs_of(heard, causes_met(counts, faults_met), tracker.lost)

    def document(self, *, protected: bool, threads: int, seconds: float) -> dict[str, Any]:
        """All of it, for JSON."""
        night, tracker, counts = self._night, self._tracker, self._counts
        return {
            "protected": protected,
            "threads": threads,
            "pace": PACE,
            "fast_forward": FAST_FORWARD,
            "symbols": night.symbols,
            "domestic": night.domestic,
            "us": night.overseas,
            "processed": tracker.processed,
            "answered": tracker.answered,
            "failed": tracker.failed,
            "failure": tracker.failure.message if tracker.failure else None,
            "aborted": tracker.aborted,
            "aborted_at": tracker.aborted_at,
            "ended_by": self._ended_by,
            "causes": {
                name: {**asdict(cost), "seconds": round(cost.seconds, 3), "longest": round(cost.longest, 3)}
                for name, cost in self._costs.items()
            },
            "calls": counts["calls"],
            "refused": counts["refused"],
            "over_limit": self._over_limit,
            "token_requests": counts["token_requests"],
            "tokens_issued": counts["tokens_issued"],
            "result": self._result,
            "seconds": round(seconds, 2),
            "events": [_plain(event) for _, _, event in self._heard],
        }

    def causes(self) -> list[tuple[str, ...]]:
        """A row a cause, under `CAUSE_COLUMNS`."""
        return [
            (CAUSES[name], f"{cost.struck:,}", f"{cost.repeated:,}", f"{cost.seconds:,.1f} s", f"{cost.lost:,}")
            for name, cost in self._costs.items()
            if name != "other" or cost.repeated or cost.lost
        ]

    def outcome(self, seconds: float) -> list[tuple[str, str]]:
        """Names and values."""
        values = {
            "symbols": self._night.symbols,
            "answered": self._tracker.answered,
            "lost": self._tracker.failed,
            "never asked for": self._night.symbols - self._tracker.processed,
            "requests": self._counts["calls"],
            "past the limit": self._over_limit,
            "token requests": self._counts["token_requests"],
            "tokens issued": self._counts["tokens_issued"],
            "seconds": round(seconds, 2),
        }
        return [*((name, f"{value:,}") for name, value in values.items()), ("result", self._result)]

    @property
    def _ended_by(self) -> str | None:
        failure = self._tracker.failure
        return cause_of(failure.code) if self._tracker.aborted and failure else None

    @property
    def _result(self) -> str:
        tracker = self._tracker
        done = f"{tracker.answered:,} of {self._night.symbols:,} symbols"
        if tracker.failure is None:
            return f"complete, {done}"
        code, message = tracker.failure
        if tracker.aborted_at is None:
            return f"incomplete, {done}: {message}"
        place = f"{self._night.name_of(tracker.aborted_at)} after {IN_A_ROW} identical failures in a row"
        return f"aborted at {place}, {done}; cause: {CAUSES[cause_of(code)]} ({message})"


def kind_of(event: RefreshEvent) -> tuple[str, str] | None:
    """What many events have in common, of which one is enough to be shown; None for an event that is always shown."""
    return None if event.name in _RARE else (event.name, event.msg_cd or event.error or "")


def description(event: RefreshEvent) -> str:
    """An event in a line."""
    parts = [
        event.callable,
        event.msg_cd,
        f"token {event.token}" if event.token else None,
        f"in place of {event.previous_token}" if event.previous_token else None,
        event.source,
        f"{event.elapsed:.3f} s" if event.elapsed is not None else None,
        event.error,
        f"{event.rate:g} calls a second" if event.rate is not None else None,
    ]
    return f"{event.name}: {', '.join(part for part in parts if part)}"


def _plain(event: RefreshEvent) -> dict[str, Any]:
    """An event's fields that say something, for JSON."""
    fields = {name: value for name, value in asdict(event).items() if value is not None}
    return {**fields, "expires_at": event.expires_at.isoformat()} if event.expires_at else fields
