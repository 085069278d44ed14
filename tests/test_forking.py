"""Hooks for the child of a fork: each is called, whatever becomes of the others."""

from __future__ import annotations

import os
import weakref

import pytest

from children import in_child
from kis_retry.forking import after_fork

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


class Target:
    __hash__ = None  # type: ignore[assignment]  # as a dataclass
    told = 0

    def tell(self) -> None:
        self.told += 1

    def fail(self) -> None:
        raise LookupError


def test_a_hook_is_called_once_in_the_child_and_not_in_the_parent() -> None:
    target = Target()
    after_fork(target, Target.tell)
    assert in_child(lambda: target.told == 1)
    assert target.told == 0


def test_a_hook_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    targets = [Target() for _ in range(20)]
    for number, target in enumerate(targets):
        after_fork(target, Target.fail if number % 2 else Target.tell)

    def told() -> bool:
        warned = [record for record in caplog.records if "fork_hook_failed target=Target" in record.getMessage()]
        return [target.told for target in targets] == [1, 0] * 10 and len(warned) == 10

    assert in_child(told)


def test_a_hook_keeps_nothing_alive() -> None:
    target = Target()
    after_fork(target, Target.tell)
    alive = weakref.ref(target)
    del target
    assert alive() is None
    assert in_child(lambda: alive() is None)
