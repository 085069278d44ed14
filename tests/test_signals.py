"""An exception that a signal handler raised is told from one of the code that it interrupted."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from kis_retry.signals import is_from_signal_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="Windows has no signal of the user's own")


class TimeLimitError(Exception):
    """A user's own."""


def raise_time_limit(*_: object) -> None:
    raise TimeLimitError


def raise_through_a_helper(*_: object) -> None:
    raise_time_limit()


class Limit:
    def raise_it(self, *_: object) -> None:
        raise TimeLimitError

    def __call__(self, *_: object) -> None:
        raise TimeLimitError


HANDLERS: dict[str, Callable[..., None]] = {
    "a function": raise_time_limit,
    "a function that calls another": raise_through_a_helper,
    "a lambda": lambda *_: raise_time_limit(),
    "a method": Limit().raise_it,
    "an object": Limit(),
    "a partial": partial(raise_time_limit, 1),
    "a partial of a method": partial(Limit().raise_it, 1),
    "a partial of a partial of an object": partial(partial(Limit(), 1), 2),
}


@pytest.fixture
def handle() -> Iterator[Callable[[Any], None]]:
    """Have a signal handled by what is given."""
    before = signal.getsignal(signal.SIGUSR2)

    def handle(handler: Any) -> None:
        signal.signal(signal.SIGUSR2, handler)

    yield handle
    signal.signal(signal.SIGUSR2, before)


def raised() -> Exception:
    with pytest.raises(TimeLimitError) as caught:
        signal.raise_signal(signal.SIGUSR2)
    return caught.value


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=list(HANDLERS))
def test_what_a_handler_of_any_kind_raises_is_the_handlers(
    handle: Callable[[Any], None], handler: Callable[..., None]
) -> None:
    handle(handler)
    assert is_from_signal_handler(raised())


def fail_from(cause: Exception) -> None:
    raise LookupError from cause


def fail_beside(error: Exception) -> None:
    try:
        raise error
    except TimeLimitError:
        int("none")


@pytest.mark.parametrize("fail", [fail_from, fail_beside])
def test_what_is_raised_from_it_or_while_it_is_handled_is_the_handlers_too(
    handle: Callable[[Any], None], fail: Callable[[Exception], None]
) -> None:
    handle(raise_time_limit)
    with pytest.raises((LookupError, ValueError)) as inner:
        fail(raised())
    with pytest.raises(LookupError) as outer:
        fail_from(inner.value)
    assert is_from_signal_handler(inner.value)
    assert is_from_signal_handler(outer.value)


def test_causes_that_go_in_a_ring_are_looked_at_once(handle: Callable[[Any], None]) -> None:
    handle(raise_time_limit)
    one, other = LookupError(), LookupError()
    one.__cause__, other.__cause__ = other, one
    assert not is_from_signal_handler(one)


def test_an_error_of_the_code_itself_is_not(handle: Callable[[Any], None]) -> None:
    handle(raise_time_limit)
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018  # it raises
    assert not is_from_signal_handler(caught.value)
    assert not is_from_signal_handler(TimeLimitError()), "never raised"


@pytest.mark.parametrize(
    "other", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None, print], ids=["default", "ignored", "mine", "C"]
)
def test_what_a_handler_raised_that_is_set_no_longer_is_not(handle: Callable[[Any], None], other: Any) -> None:
    handle(raise_time_limit)
    error = raised()
    handle(other)
    assert not is_from_signal_handler(error)
