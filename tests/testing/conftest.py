"""What the tests of the gateway share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from gateway_caller import Caller


@pytest.fixture
def new_caller() -> Iterator[Callable[..., Caller]]:
    """Open gateways with settings of the test's own."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Caller(**settings))


@pytest.fixture
def caller(new_caller: Callable[..., Caller]) -> Caller:
    return new_caller(seed=1)
