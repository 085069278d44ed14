"""The docstrings of the public names say what one must know: arguments, units and errors."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
from typing import Any

import requests

import kis_retry
from public import Thing, section, things

THINGS = things()
CALLABLE = [thing for thing in THINGS if thing.function is not None]


def test_each_has_a_docstring_that_begins_with_a_sentence() -> None:
    wrong = []
    for thing in THINGS:
        first = inspect.cleandoc(thing.doc or "").split("\n\n")[0]
        if not re.match(r'[A-Z"`]', first) or not first.endswith((".", ":", '"', "…")):
            wrong.append(thing.name)
    assert wrong == []


def test_the_first_line_of_a_property_has_no_colon() -> None:
    """In front of one, the documentation tool takes a type to stand."""
    wrong = [thing.name for thing in THINGS if thing.is_property and ": " in (thing.doc or "").strip().split("\n")[0]]
    assert wrong == []
    assert sum(thing.is_property for thing in THINGS) > 10


def test_no_docstring_is_borrowed_from_the_standard_library() -> None:
    borrowed = {inspect.cleandoc(cls.__doc__ or "-") for cls in (object, Exception, ValueError, dict)}
    assert [thing.name for thing in THINGS if inspect.cleandoc(thing.doc or "") in borrowed] == []
    assert [thing.name for thing in THINGS if (thing.doc or "").startswith(f"{thing.name}(")] == []


def test_arguments_that_are_described_are_all_described_and_exist() -> None:
    wrong = []
    for thing in CALLABLE:
        described = list(section(thing.doc, "Args", "Attributes"))
        parameters = [name for name in inspect.signature(thing.function).parameters if name not in {"self", "cls"}]
        if described not in ([], parameters):
            wrong.append((thing.name, described, parameters))
    assert wrong == []


def test_what_takes_or_gives_a_float_says_seconds() -> None:
    assert [
        thing.name for thing in CALLABLE if has_float(thing) and not re.search(r"\bseconds\b", thing.doc or "")
    ] == []


def has_float(thing: Thing) -> bool:
    found = inspect.signature(thing.function)
    types = [found.return_annotation, *(parameter.annotation for parameter in found.parameters.values())]
    return any(re.search(r"\bfloat\b", str(annotation)) for annotation in types)


def test_what_each_raises_itself_is_in_its_docstring() -> None:
    misuse = {"TypeError", "RuntimeError", "NotImplementedError"}
    wrong = {thing.name: raised_by(thing.function) - misuse - set(section(thing.doc, "Raises")) for thing in CALLABLE}
    assert {name: missing for name, missing in wrong.items() if missing} == {}


def test_what_a_docstring_says_is_raised_exists_and_is_explained() -> None:
    wrong = []
    for thing in THINGS:
        for name, text in section(thing.doc, "Raises").items():
            if not issubclass(kind_named(name), Exception) or not text:
                wrong.append((thing.name, name))
    assert wrong == []


def kind_named(name: str) -> type:
    """The class of that name: this package's, Python's, or the one of requests that is written with its module."""
    if name.startswith("requests."):
        kind = getattr(requests, name.removeprefix("requests."), None)
    else:
        kind = getattr(kis_retry, name, None) or getattr(builtins, name, None)
    return kind if isinstance(kind, type) else type(None)


def raised_by(function: Any) -> set[str]:
    """The exceptions of this package and of Python that a function's own body makes and raises."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    except (OSError, TypeError):  # made by dataclass
        return set()
    calls = [node.exc for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise)]
    return {node.func.id for node in calls if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def test_the_checks_have_enough_to_look_at() -> None:
    assert len(THINGS) > len(CALLABLE) > 100
    assert any(map(has_float, CALLABLE))
    assert any(section(thing.doc, "Raises") for thing in THINGS)


def test_the_check_of_raises_sees_a_raise() -> None:
    def careless(number: int) -> int:
        if number < 0:
            raise ValueError(number)
        return number

    assert raised_by(careless) == {"ValueError"}
