"""What a gateway has seen so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

__all__ = ["COUNTERS", "Counts"]


@dataclass(frozen=True, eq=False)
class Counts(Mapping[str, int]):
    """
    What a gateway has seen so far, by attribute and by key; equal to a dict of the same numbers.

    Attributes:
        calls: API calls received: everything that is not under `/oauth2/`.
        answered: API calls answered normally; "no such data" is such an answer.
        refused: API calls refused because of their token, or by `refuse_calls`.
        token_requests: token requests received.
        tokens_issued: token requests answered with a token, the same as before included.
        token_requests_refused: token requests refused.
    """

    calls: int = 0
    answered: int = 0
    refused: int = 0
    token_requests: int = 0
    tokens_issued: int = 0
    token_requests_refused: int = 0

    def __getitem__(self, name: str) -> int:
        if name not in COUNTERS:
            raise KeyError(name)
        value: int = getattr(self, name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(COUNTERS)

    def __len__(self) -> int:
        return len(COUNTERS)


COUNTERS = tuple(spec.name for spec in fields(Counts))
