"""
The calls under way: one `Call` for each decorated function that is running, linked to the one around it.

Kept in a context variable, so threads and tasks have their own, while a function called in a worker thread or a task
that carries the context knows whom it works for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

__all__ = ["CURRENT", "Call", "Sighting", "bypassed", "current_call", "is_bypassed"]

SAFE_METHODS = frozenset(("GET", "HEAD"))
"""Methods that act on nothing (RFC 9110, section 9.2.1), as far as KIS has them."""

HARMLESS_PATHS = ("/uapi/hashkey",)
"""Posted to, and yet no order: KIS computes a hash of the body and keeps nothing (API page Hashkey)."""

_numbers = itertools.count(1)


class Sighting:
    """
    One request to the API as it was seen on the wire, and what became of it.

    Attributes:
        method: in upper case.
        host: host and port, in lower case.
        path: without the query.
        query: what stands behind the path.
        body: a hash of the body; None where there is none, or none that can be seen.
        app_key: its `appkey` header; None where there is none.
        token: the bare token that it was sent with; None where there is none.
        carried: the one that the code gave it, which is known to be dead where it is another.
        response: the answer, its body read; None before it came.
        error: what was raised instead of an answer.
        number: the order in which requests were sent and answers came.
    """

    __slots__ = (
        "app_key",
        "body",
        "carried",
        "error",
        "host",
        "method",
        "number",
        "path",
        "query",
        "response",
        "token",
    )

    def __init__(
        self,
        method: str,
        host: str,
        path: str,
        app_key: str | None,
        token: str | None,
        *,
        query: str = "",
        body: int | None = None,
    ) -> None:
        self.method = method
        self.host = host
        self.path = path
        self.query = query
        self.body = body
        self.app_key = app_key
        self.token = self.carried = token
        self.response: Any = None
        self.error: Exception | None = None
        self.number = next(_numbers)

    @property
    def is_order(self) -> bool:
        """Whether it may have been acted upon: anything but a read."""
        return self.method not in SAFE_METHODS and not self.path.startswith(HARMLESS_PATHS)

    @property
    def identity(self) -> tuple[object, ...]:
        """What the same request has in common when it is made again, with whatever token."""
        return self.method, self.host, self.app_key, self.path, self.query, self.body


class Call:
    """
    What every call under way has, whatever may go wrong with it.

    Attributes:
        name: the qualified name of its function.
        parent: the call that it is part of, or None.
        args, kwargs: the arguments of the next attempt.
        attempt: which attempt this is, from 1.
        exhausted: names of the causes that were met inside it and could not be mended.
        failed: the last request that did not go well, in this attempt.
        last_failed: the same, unless the function recovered from it.
        refusals: by identity, the requests of this attempt that were refused for their token, each with the number
            of its answer; without those that were made again and went well.
        orders: requests that may have been acted upon, in all attempts.
        last_sent: the last request that was seen on the wire, in this attempt.
        finished: it has returned or raised; what it started may still run.
    """

    # Of the class: what a good call never sets costs it nothing.
    attempt = 1
    exhausted: frozenset[str] = frozenset()
    failed: Sighting | None = None
    last_failed: Sighting | None = None
    refusals: Mapping[tuple[object, ...], tuple[Sighting, int]] = MappingProxyType({})
    orders: Sequence[Sighting] = ()
    last_sent: Sighting | None = None
    finished = False
    _failed_at: int

    def __init__(self, name: str, parent: Call | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.name = name
        self.parent = parent
        self.args = args
        self.kwargs = kwargs

    def chain(self) -> Iterator[Call]:
        """Give this call and those around it, as far as they still run."""
        call: Call | None = self
        while call is not None:
            if not call.finished:
                yield call
            call = call.parent

    def observe_sent(self, sighting: Sighting) -> None:
        """Note a request that is about to go out."""
        for call in self.chain():
            call.last_sent = sighting
            if sighting.is_order:
                call.own_orders().append(sighting)

    def observe_failed(self, sighting: Sighting, *, not_acted_upon: bool, for_its_token: bool = False) -> None:
        """
        Note a request that was refused or not answered.

        `not_acted_upon`: KIS refused it before it acts; `for_its_token`: since its token is dead.
        """
        number = next(_numbers)
        refusal = sighting, number
        for call in self.chain():
            call.note_failed(sighting, number)
            if for_its_token:
                call.own_refusals()[sighting.identity] = refusal
            if not_acted_upon and sighting in call.orders:
                call.own_orders().remove(sighting)

    def observe_answered(self, sighting: Sighting) -> None:
        """Note a request that went well."""
        for call in self.chain():
            call.note_answered(sighting)

    def note_failed(self, sighting: Sighting, number: int) -> None:
        """`observe_failed`, for this call alone; `number`: when the failure was known."""
        self._failed_at = number  # first: another thread that sees a failure asks when it was
        self.failed = self.last_failed = sighting

    def note_answered(self, sighting: Sighting) -> None:
        """
        `observe_answered`, for this call alone.

        It shows that the function recovered from an earlier failure only if it was sent after that: of requests that
        were on their way together, the good ones say nothing about the bad ones.
        """
        if self.failed is None:
            return
        if sighting.number > self._failed_at:
            self.last_failed = None
        refusal = self.refusals.get(sighting.identity)
        if refusal is not None and sighting.number > refusal[1]:
            self.own_refusals().pop(sighting.identity, None)

    def forget_outcome(self) -> None:
        """Begin another attempt: what was seen so far no longer counts, except for orders; nor for calls around it."""
        for call in self.chain():
            for identity, refusal in list(self.refusals.items()):
                if call is not self and call.refusals.get(identity) is refusal:
                    call.own_refusals().pop(identity, None)
        vars(self).pop("refusals", None)
        self.failed = self.last_failed = self.last_sent = None

    def refused(self) -> list[Sighting]:
        """The requests of this attempt that were refused for their tokens, and not made again with success."""
        return [sighting for sighting, _ in list(self.refusals.values())] if self.refusals else []

    def finish(self) -> None:
        """End the call, and let go of what it was about: a timer or a connection may keep its context for long."""
        self.finished = True
        self.args = ()
        if self.kwargs:
            self.kwargs = {}
        if self.failed is not None:
            self.failed = self.last_failed = None
            vars(self).pop("refusals", None)

    def own_orders(self) -> list[Sighting]:
        """`orders`, to be changed: made when first needed, and once, whatever threads ask."""
        orders: list[Sighting] = vars(self).setdefault("orders", [])
        return orders

    def own_refusals(self) -> dict[tuple[object, ...], tuple[Sighting, int]]:
        """`refusals`, to be changed: as above."""
        refusals: dict[tuple[object, ...], tuple[Sighting, int]] = vars(self).setdefault("refusals", {})
        return refusals

    def mark_exhausted(self, cause: str) -> None:
        """Have nobody further out try again what the innermost call could not mend."""
        for call in self.chain():
            call.exhausted |= {cause}

    def handed_out(self, source: object, value: str) -> None:
        """Be told that a token source handed out the token `value` inside this call."""


CURRENT: ContextVar[Call | None] = ContextVar("kis_retry_call", default=None)

_BYPASSED = Call.__new__(Call)  # in the place of a call: what runs now is neither observed nor made again


def current_call() -> Call | None:
    """The innermost call under way here that still runs."""
    call = CURRENT.get()
    if call is _BYPASSED:
        return None
    while call is not None and call.finished:
        call = call.parent
    if call is not None:
        # Cut out what has ended: coroutines that schedule each other would else chain their parents for ever.
        while call.parent is not None and call.parent.finished:
            call.parent = call.parent.parent
    return call


@contextmanager
def bypassed() -> Iterator[None]:
    """Let what runs inside pass the decorators and the observer: a refresh must not refresh itself."""
    reset = CURRENT.set(_BYPASSED)
    try:
        yield
    finally:
        CURRENT.reset(reset)


def is_bypassed() -> bool:
    """Whether this is inside `bypassed`."""
    return CURRENT.get() is _BYPASSED
