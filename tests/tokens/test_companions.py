"""What is kept beside somebody else's object, of whatever kind that is."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import pytest

from kis_retry.tokens.companions import Companions


class Companion:
    pass


class Plain:
    pass


@dataclass
class Unhashable:
    field: int = 1


@dataclass(frozen=True)
class EqualByFields:
    field: int = 1


class Slotted:
    __slots__ = ()


KINDS = [Plain, Unhashable, EqualByFields, Slotted]


@pytest.fixture
def companions() -> Companions[Companion]:
    return Companions(Companion)


@pytest.mark.parametrize("kind", KINDS)
def test_each_object_has_one_of_its_own(kind: Any, companions: Companions[Companion]) -> None:
    first, second = kind(), kind()
    assert companions.of(first) is companions.of(first)
    assert companions.of(first) is not companions.of(second)


@pytest.mark.parametrize("kind", [Plain, Unhashable, EqualByFields])
def test_it_goes_with_its_object(kind: Any, companions: Companions[Companion]) -> None:
    target = kind()
    gone = weakref.ref(companions.of(target))
    del target
    gc.collect()
    assert gone() is None
    assert companions._kept == {}


def test_objects_without_weak_references_are_kept_within_bounds(companions: Companions[Companion]) -> None:
    targets = [Slotted() for _ in range(200)]
    for target in targets:
        companions.of(target)
    assert len(companions._kept) == len(companions._kept_alive) == 64
    last = companions.of(targets[-1])
    assert companions.of(targets[-1]) is last


def test_an_identity_that_is_used_again_is_not_mistaken(companions: Companions[Companion]) -> None:
    first, second = Plain(), Plain()
    mine = companions.of(first)
    companions._kept[id(second)] = companions._kept[id(first)]
    assert companions.of(second) is not mine


def test_of_those_without_weak_references_the_oldest_are_let_go(companions: Companions[Companion]) -> None:
    targets = [Slotted() for _ in range(66)]
    made = [companions.of(target) for target in targets]
    assert [companions.of(target) for target in targets[2:]] == made[2:]
    assert companions.of(targets[0]) is not made[0]


def test_it_is_made_once_and_when_it_is_first_asked_for() -> None:
    made: list[int] = []
    companions: Companions[int] = Companions(lambda: made.append(1) or len(made))  # type: ignore[func-returns-value]  # it appends
    first, second = Plain(), Plain()
    assert made == []
    assert [companions.of(target) for target in (first, second, first, second)] == [1, 2, 1, 2]
