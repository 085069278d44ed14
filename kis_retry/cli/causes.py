"""The causes for which the demo's calls fail: how often each struck, by the gateway's count, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..events import RefreshEvent
from ..answers import EXPIRED_CODES, LIMIT_CODE

__all__ = ["CAUSES", "Cost", "Heard", "cause_of", "causes_met", "costs_of"]

CAUSES = {
    "rate_limited": f"refused, {LIMIT_CODE}",
    "dropped": "connection dropped",
    "token_expired": "token expired",
    "token_endpoint_away": "token endpoint away",
    "api_away": "API away, HTTP 503",
    "other": "anything else",
}
"""By name, what each is called in the table."""

_BY_CODE = {
    LIMIT_CODE: "rate_limited",
    "ConnectionError": "dropped",
    **dict.fromkeys(EXPIRED_CODES, "token_expired"),
    "TokenIssueError": "token_endpoint_away",
    "ResponseError": "api_away",  # what `KisClient` makes of an answer without a verdict
}


class Heard(NamedTuple):
    """An event, and when (on the monotonic clock) and in which thread it happened."""

    at: float
    thread: int
    event: RefreshEvent


@dataclass
class Cost:
    """
    What a cause cost the calls that it met.

    Attributes:
        struck: how often, as the gateway counted it.
        repeated: requests that were made again for it.
        seconds: from each failure to the next answer, of all calls together. Calls that wait side by side count each.
        longest: of one of them.
        lost: symbols that have no answer for it.
    """

    struck: int = 0
    repeated: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    lost: int = 0

    def add(self, seconds: float) -> None:
        """One call has waited."""
        self.seconds += seconds
        self.longest = max(self.longest, seconds)


def cause_of(code: str | None) -> str:
    """The name of the cause behind KIS's `msg_cd`, or behind the type of an exception."""
    return _BY_CODE.get(code or "", "other")


def causes_met(counts: Mapping[str, int], faults_met: Mapping[str, int]) -> dict[str, int]:
    """
    How often each cause struck.

    Args:
        counts: `KisGateway.counts`.
        faults_met: `KisGateway.faults_met`.
    """
    refused = faults_met.get(LIMIT_CODE, 0)
    endpoint_away = counts["token_requests"] - counts["tokens_issued"] - counts["token_requests_refused"]
    return {
        "rate_limited": refused + faults_met.get("over_limit", 0),
        "dropped": faults_met.get("dropped", 0),
        "token_expired": counts["refused"] - refused,
        "token_endpoint_away": endpoint_away,
        "api_away": faults_met.get("outage", 0) - endpoint_away,
    }


def costs_of(heard: Iterable[Heard], struck: Mapping[str, int], lost: Mapping[str, int]) -> dict[str, Cost]:
    """
    What each cause cost, by its name.

    Args:
        heard: every event of the batch.
        struck: what `causes_met` gave.
        lost: symbols without an answer, by the code of their failure.
    """
    costs = {name: Cost(struck.get(name, 0)) for name in CAUSES}
    for code, count in lost.items():
        costs[cause_of(code)].lost += count
    waiting: dict[int, tuple[Cost, float]] = {}  # by thread: the cause of the last failure of its call, and since when
    endpoint_since: float | None = None
    for at, thread, event in heard:
        if event.name in ("token_expired", "call_retried", "call_recovered", "call_given_up") and thread in waiting:
            cost, since = waiting.pop(thread)
            cost.add(at - since)
        if event.name == "token_expired":
            waiting[thread] = costs["token_expired"], at
        elif event.name == "call_retried":
            cost = costs[cause_of(event.msg_cd or event.error)]
            cost.repeated += 1
            waiting[thread] = cost, at
        elif event.name in ("token_refreshed", "token_adopted") and thread in waiting:
            costs["token_expired"].repeated += 1
        if event.name == "token_issue_waiting" and endpoint_since is None:
            endpoint_since = at
        elif event.name == "token_refreshed" and endpoint_since is not None:
            away = costs["token_endpoint_away"]
            away.add(at - endpoint_since)
            away.repeated = away.struck  # each was made again, since there is a token
            endpoint_since = None
    return costs
