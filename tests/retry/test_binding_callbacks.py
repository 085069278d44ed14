"""`bind=`: how the user's function is called, and how often; and what a signature says where it says little."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from kis_retry import AccessToken
from kis_retry.retry.binding import CallbackLocation, NoLocation, binding_of

EXPIRY = datetime(2026, 11, 24, tzinfo=timezone.utc)
ONE, TWO = AccessToken("one", EXPIRY), AccessToken("two", EXPIRY)


class Owner:
    """Somebody's object."""


class Slotted:
    """One to which nothing can refer weakly."""

    __slots__ = ()


class Unsigned:
    """A callable whose signature cannot be had, as of some that are built in."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    @property
    def __signature__(self) -> inspect.Signature:
        raise self._error

    def __call__(self, *args: Any) -> None: ...


def takes_self(bind: Callable[..., object]) -> bool:
    return CallbackLocation(bind)._takes_self


@pytest.mark.parametrize(
    ("bind", "two"),
    [
        (lambda token: None, False),
        (lambda self, token: None, True),
        (lambda self, token, extra=None: None, True),
        (lambda self, token, *, extra=None: None, True),
        (lambda token, extra=None: None, False),
        (lambda token, *, extra: None, False),
        (lambda token, *more, **options: None, False),
        (lambda *more: None, False),
        (lambda one, two, three: None, False),
        (Unsigned(ValueError), False),
        (Unsigned(TypeError), False),
    ],
)
def test_a_function_takes_self_by_the_arguments_that_it_cannot_do_without(bind: Any, two: bool) -> None:
    assert takes_self(bind) is two


def test_two_by_position_alone_are_self_and_token_too() -> None:
    def bind(self: Owner, token: AccessToken, /) -> None: ...

    assert takes_self(bind)


def test_it_is_called_once_for_a_token() -> None:
    bound: list[AccessToken] = []
    place = CallbackLocation(bound.append)
    found = []
    for token in (ONE, AccessToken("".join("one"), EXPIRY), TWO, ONE):
        assert place.write((Owner(),), {"x": 1}, token)[1] == {"x": 1}
        found.append(place.read((Owner(),), {}))
    assert bound == [ONE, TWO, ONE]
    assert found == ["one", "one", "two", "one"]


def test_with_self_it_is_called_once_for_a_token_and_an_object() -> None:
    bound: list[tuple[object, AccessToken]] = []
    place = CallbackLocation(lambda self, token: bound.append((self, token)))
    first, second = Owner(), Slotted()
    before: list[str | None] = []
    for owner in (first, second, first, second):
        arguments: tuple[Any, ...] = (owner, "005930")
        before.append(place.read(arguments, {}))
        assert place.write(arguments, {}, ONE) == (arguments, {})
    assert before == ["", "", "one", "one"]
    assert bound == [(first, ONE), (second, ONE)]
    assert [place.read((owner,), {}) for owner in (first, second, Owner())] == ["one", "one", ""]


def test_with_self_and_no_first_argument_it_is_given_none() -> None:
    bound: list[tuple[object, AccessToken]] = []
    place = CallbackLocation(lambda self, token: bound.append((self, token)))
    assert place.read((), {}) == ""
    assert place.write((), {}, ONE) == ((), {})
    assert (bound, place.read((), {})) == ([(None, ONE)], "one")


def test_an_object_that_has_gone_is_forgotten_and_not_kept_alive() -> None:
    place = CallbackLocation(lambda self, token: None)
    owner = Owner()
    place.write((owner,), {}, ONE)
    assert len(place._bound) == 1
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert (gone(), place._bound) == (None, {})


def test_an_entry_is_not_taken_for_that_of_an_object_that_came_to_the_same_place() -> None:
    place = CallbackLocation(lambda self, token: None)
    owner, newcomer = Owner(), Owner()
    place.write((owner,), {}, ONE)
    place._bound[id(newcomer)] = place._bound[id(owner)]
    assert place.read((newcomer,), {}) == ""


def test_of_more_objects_than_4096_the_oldest_is_bound_once_more() -> None:
    bound: list[object] = []
    place = CallbackLocation(lambda self, token: bound.append(self))
    owners = [Owner() for _ in range(4097)]
    for owner in owners[:-1]:
        place.write((owner,), {}, ONE)
    assert (len(place._bound), place.read((owners[0],), {})) == (4096, "one")
    place.write((owners[-1],), {}, ONE)
    assert [place.read((owner,), {}) for owner in (*owners[:2], owners[-1])] == ["", "one", "one"]
    assert len(bound) == 4097


# Signatures that say little.


@pytest.mark.parametrize("error", [ValueError, TypeError])
def test_without_a_signature_every_place_may_be_there(error: type[Exception]) -> None:
    read = binding_of(Unsigned(error), None)
    assert (read.first((), {}), read.first((1, 2), {}), read.first((), {"": 3})) == (None, 1, 3)
    assert isinstance(read.find((), {})[0], NoLocation)
    assert read.find((), {"token": "t"})[1] == "t"
    assert read.find(("x",), {"headers": {"authorization": "Bearer t"}})[1] == "Bearer t"


def test_the_first_argument_is_the_first_one_that_is_named_or_given() -> None:
    def positional(one: Any = 1, two: Any = 2) -> None: ...

    def keyword(*, one: Any = 1, two: Any = 2) -> None: ...

    def rest(*many: Any, two: Any = 2) -> None: ...

    def options(**many: Any) -> None: ...

    calls: list[tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]] = [
        (positional, (7, 8), {}),
        (positional, (), {"two": 8}),
        (positional, (), {"one": 7}),
        (keyword, (), {"two": 8, "one": 7}),
        (keyword, (), {}),
        (rest, (7, 8), {}),
        (rest, (), {"two": 8}),
        (options, (), {"one": 7}),
        (options, (), {"many": 7}),
    ]
    found = [binding_of(function, None).first(args, kwargs) for function, args, kwargs in calls]
    assert found == [7, 1, 7, 7, 1, 7, None, None, None]


def test_a_class_is_asked_once_whether_it_has_a_property() -> None:
    """It is slow to say that it lacks an attribute, and every call of a method asks."""
    asked: list[str] = []

    class Noting(type):
        def __getattribute__(cls, name: str) -> Any:
            asked.extend([name] if name == "access_token" else [])
            return super().__getattribute__(name)

    class Plain(metaclass=Noting):
        def fetch(self) -> None: ...

    read = binding_of(Plain.fetch, None)
    for _ in range(3):
        assert isinstance(read.find((Plain(),), {})[0], NoLocation)
    assert asked == ["access_token"]


def test_a_token_of_one_character_is_one() -> None:
    def fetch(token: str) -> None: ...

    assert binding_of(fetch, None).find(("t",), {})[1] == "t"
    assert binding_of(fetch, None).find(("t ",), {})[1] == "t "
    assert binding_of(fetch, None).find((" ",), {})[1] == ""


def test_an_argument_is_replaced_where_it_stands() -> None:
    def fetch(symbol: str, token: str = "old", market: str = "J") -> None: ...

    read = binding_of(fetch, None)
    given: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("005930", "old", "J"), {}),
        (("005930", "old"), {"market": "J"}),
        (("005930",), {"token": "old", "market": "J"}),
        (("005930",), {"market": "J"}),
        ((), {"symbol": "005930"}),
    ]
    assert [read.find(*arguments)[0].write(*arguments, ONE) for arguments in given] == [
        (("005930", "one", "J"), {}),
        (("005930", "one"), {"market": "J"}),
        (("005930",), {"token": "one", "market": "J"}),
        (("005930",), {"market": "J", "token": "one"}),
        ((), {"symbol": "005930", "token": "one"}),
    ]
    assert given[2][1]["token"] == "old", "the caller's own keywords stay"
