"""Which methods a pattern means, in every kind of target, and what an error says of those that there are."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest

from kis_retry import protect, unprotect
from kis_retry.retry import patches
from refreshes import copied
from sources import NumberedTokens


class Library:
    """One of every kind of member."""

    fetch_attribute = "a text"

    def fetch_plain(self) -> None: ...

    async def fetch_later(self) -> None: ...

    def fetch_pages(self) -> Iterator[int]:
        yield 1

    async def fetch_pages_later(self) -> AsyncIterator[int]:
        yield 1

    @staticmethod
    def fetch_static(headers: dict[str, str]) -> None: ...

    @classmethod
    def fetch_of_class(cls) -> None: ...

    @staticmethod
    def fetch_static_pages() -> Iterator[int]:
        yield 1

    @property
    def fetch_count(self) -> int:
        return 1

    def place_order(self) -> None: ...

    def __fetch__(self) -> None: ...

    def _fetch_inner(self) -> None: ...

    def issue_access_token(self) -> None: ...


ALL = {"fetch_plain", "fetch_later", "fetch_static", "fetch_of_class"}


@pytest.fixture
def source() -> NumberedTokens:
    return NumberedTokens()


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Iterator[Any]:
    target = type("Library", (Library,), {})
    yield target
    unprotect(target)


def decorated(target: Any) -> set[str]:
    """The names under which something else stands in the target than in `Library`."""
    return {name for name in vars(target) if name in vars(Library) and not name.endswith("__doc__")} - {"__module__"}


@pytest.mark.parametrize(
    ("methods", "found"),
    [
        ("fetch_*", ALL),
        ("*", ALL | {"_fetch_inner", "place_order"}),
        ("_*", {"_fetch_inner"}),
        ("fetch_[ps]*", {"fetch_plain", "fetch_static"}),
        (["fetch_plain", "fetch_plain", "fetch_l?ter"], {"fetch_plain", "fetch_later"}),
        (("__fetch__",), {"__fetch__"}),
        (iter(["fetch_static"]), {"fetch_static"}),
        ("FETCH_*", set()),
    ],
)
def test_a_pattern_means_what_is_a_call_of_kis_and_can_be_repeated(methods: Any, found: set[str], target: Any) -> None:
    if not found:
        with pytest.raises(ValueError, match="nothing in Library matches"):
            protect(target, methods=methods)
    else:
        protect(target, methods=methods)
    assert decorated(target) == found


def many(number: int) -> Any:
    names = [f"fetch_{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"[:number]]
    private = {"_inner": lambda _: None, "fetch_text": "a text"}
    return type("Many", (), {**private, **{name: lambda _: None for name in names}})


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "no methods of its own"),
        (1, "fetch_a"),
        (3, "fetch_a, fetch_b, fetch_c"),
        (8, "fetch_a, fetch_b, fetch_c, fetch_d, fetch_e, fetch_f, fetch_g, fetch_h"),
        (9, "fetch_a, fetch_b, fetch_c, fetch_d, fetch_e, fetch_f, fetch_g, fetch_h and 1 more"),
        (17, "fetch_a, fetch_b, fetch_c, fetch_d, fetch_e, fetch_f, fetch_g, fetch_h and 9 more"),
    ],
)
def test_an_error_names_up_to_eight_methods_and_how_many_more_there_are(number: int, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        protect(many(number), methods="get_*")
    assert str(caught.value) == f"nothing in Many matches methods='get_*'; it has {said}"


def in_a_class() -> Any:
    return type("Inner", (), {"__qualname__": "Outer.Inner"})


@pytest.mark.parametrize(
    ("target", "named"),
    [(in_a_class(), "Outer.Inner"), (in_a_class()(), "a Inner"), (ModuleType("samples"), "samples")],
)
def test_an_error_names_a_class_in_full_a_module_and_the_class_of_an_object(target: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"^nothing in {named} matches methods='get_price'; it has"):
        protect(target, methods="get_price")


@pytest.mark.parametrize("kind", ["class", "object"])
def test_a_target_that_cannot_be_changed_is_named_with_why(kind: str) -> None:
    class Kind(type):
        def __setattr__(cls, name: str, value: object) -> None:
            raise AttributeError("it is frozen")

    class Frozen(metaclass=Kind):
        def fetch_price(self) -> None: ...

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError("it is frozen")

    target: Any = Frozen if kind == "class" else Frozen()
    named = Frozen.__qualname__ if kind == "class" else "a Frozen"
    listening = patches._watchers
    with pytest.raises(TypeError) as caught:
        protect(target)
    assert str(caught.value) == f"{named} does not let its methods be replaced: it is frozen"
    assert patches._watchers == listening


def test_what_somebody_replaced_since_is_theirs_and_all_the_rest_is_undone(source: NumberedTokens) -> None:
    library = protect(Library(), tokens=source)
    theirs = vars(library)["fetch_later"] = lambda: None
    unprotect(library)
    assert vars(library) == {"fetch_later": theirs}


def test_a_class_and_its_object_may_both_be_protected_and_each_be_undone(target: Any, source: NumberedTokens) -> None:
    listening = patches._watchers
    library = protect(target(), tokens=source)
    protect(target, tokens=source)
    assert patches._watchers == listening + 8, "once for each method of each"
    unprotect(library)
    assert vars(library) == {}
    assert decorated(target) == ALL | {"issue_access_token"}
    unprotect(target)
    assert decorated(target) == set()
    assert patches._watchers == listening


def test_the_issue_is_shared_once_however_often_a_target_is_protected(target: Any, source: NumberedTokens) -> None:
    protect(target, tokens=source, methods="fetch_plain")
    shared = vars(target)["issue_access_token"]
    protect(target, tokens=source, methods="fetch_later")
    assert vars(target)["issue_access_token"] is shared
    assert decorated(target) == {"fetch_plain", "fetch_later", "issue_access_token"}


def test_the_issue_is_told_by_its_name_however_that_came_about(target: Any) -> None:
    name = copied("issue_access_token")
    with pytest.raises(TypeError, match="is what a refresh calls: give tokens= and it is shared there"):
        protect(target, methods=name)
    module, issue = ModuleType("samples"), lambda: None
    vars(module).update({name: issue, "fetch_price": lambda: None})
    protect(module, methods="*")
    assert vars(module)["issue_access_token"] is issue
    unprotect(module)


def test_without_a_source_the_issue_stays_the_librarys_own(target: Any) -> None:
    protect(target)
    assert decorated(target) == ALL


def test_coroutine_and_static_and_class_methods_stay_what_they_are(target: Any) -> None:
    protect(target)
    assert inspect.iscoroutinefunction(target().fetch_later)
    for name, kind in (("fetch_static", staticmethod), ("fetch_of_class", classmethod)):
        assert isinstance(vars(target)[name], kind)


def test_its_options_are_named(target: Any, source: NumberedTokens) -> None:
    with pytest.raises(TypeError, match="positional"):
        protect(target, source)  # type: ignore[call-arg]  # the mistake that is meant
