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


def test_each_begins_with_a_sentence_of_its_own() -> None:
    borrowed = {inspect.cleandoc(cls.__doc__ or "-") for cls in (object, Exception, ValueError, dict, tuple)}
    wrong = []
    for thing in THINGS:
        doc = inspect.cleandoc(thing.doc or "")
        first = doc.split("\n\n")[0]
        made = doc in borrowed or doc.startswith(f"{thing.name}(")  # by the standard library
        if made or not re.match(r'[A-Z"`]', first) or not first.endswith((".", ":", '"', "…")):
            wrong.append(thing.name)
    assert wrong == []


def test_the_first_line_of_a_property_has_no_colon_before_which_a_type_would_stand() -> None:
    assert [each.name for each in THINGS if each.is_property and ": " in (each.doc or "").strip().split("\n")[0]] == []


def test_arguments_that_are_described_are_all_described_and_exist() -> None:
    wrong = []
    for thing in CALLABLE:
        described = [name for names in section(thing.doc, "Args", "Attributes") for name in names.split(", ")]
        parameters = [name for name in inspect.signature(thing.function).parameters if name not in {"self", "cls"}]
        if described and sorted(described) != sorted(parameters):
            wrong.append((thing.name, described, parameters))
    assert wrong == []


def test_each_that_takes_or_gives_a_float_names_the_unit() -> None:
    wrong = [each.name for each in CALLABLE if has_float(each) and not re.search(r"\b(seconds|a second)\b", each.doc or "")]
    assert wrong == []


def has_float(thing: Thing) -> bool:
    found = inspect.signature(thing.function)
    types = [found.return_annotation, *(parameter.annotation for parameter in found.parameters.values())]
    return any(re.search(r"\bfloat\b", str(annotation)) for annotation in types)


def test_each_error_that_a_function_raises_itself_is_in_its_docstring() -> None:
    misuse = {"TypeError", "RuntimeError", "NotImplementedError", "AttributeError"}
    wrong = {}
    for thing in CALLABLE:
        told = {name for names in section(thing.doc, "Raises") for name in names.split(", ")}
        if missing := raised_by(thing.function) - misuse - told:
            wrong[thing.name] = missing
    assert wrong == {}


def raised_by(function: Any) -> set[str]:
    """Return the exceptions that a function's own body makes and raises."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    except (OSError, TypeError):  # made by dataclass
        return set()
    calls = [node.exc for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise)]
    return {node.func.id for node in calls if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def test_each_error_that_a_docstring_names_exists_and_is_explained() -> None:
    wrong = []
    for thing in THINGS:
        for names, text in section(thing.doc, "Raises").items():
            wrong += [(thing.name, name) for name in names.split(", ") if not is_error(name) or not text]
    assert wrong == []


def is_error(name: str) -> bool:
    """Say whether a class of this package, of Python, or of requests where it is written with its module, is an error."""
    if name.startswith("requests."):
        kind = getattr(requests, name.removeprefix("requests."), None)
    else:
        kind = getattr(kis_retry, name, None) or getattr(builtins, name, None)
    return isinstance(kind, type) and issubclass(kind, Exception)


def test_the_checks_have_enough_to_look_at() -> None:
    assert len(THINGS) > len(CALLABLE) > 80
    assert sum(thing.is_property for thing in THINGS) > 10
    assert any(section(thing.doc, "Raises") for thing in THINGS)
