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
from public import section, things

THINGS = things()
CALLABLE = [thing for thing in THINGS if thing.function is not None]


def test_each_begins_with_a_sentence_of_its_own() -> None:
    borrowed = {inspect.cleandoc(cls.__doc__ or "-") for cls in (object, Exception, ValueError, dict, tuple)}
    wrong = []
    for thing in THINGS:
        doc = inspect.cleandoc(thing.doc or "")
        first = doc.split("\n\n")[0]
        made = doc in borrowed or doc.startswith(f"{thing.name}(")  # by the standard library
        typed = thing.is_property and ": " in first  # before it the documentation tool takes a type to stand
        if made or typed or not re.match(r'[A-Z"`]', first) or not first.endswith((".", ":", '"', "…")):
            wrong.append(thing.name)
    assert wrong == []


def test_arguments_that_are_described_are_all_described_and_exist() -> None:
    for thing in CALLABLE:
        described = {name for names in section(thing.doc, "Args", "Attributes") for name in names.split(", ")}
        assert described in (set(), {*inspect.signature(thing.function).parameters} - {"self", "cls"}), thing.name


def test_each_that_takes_or_gives_a_float_names_the_unit() -> None:
    floats = [each for each in CALLABLE if re.search(r"\bfloat\b", str(inspect.signature(each.function)))]
    assert [each.name for each in floats if not re.search(r"\b(seconds|a second)\b", each.doc or "")] == []


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
    named = [(names, text) for thing in THINGS for names, text in section(thing.doc, "Raises").items()]
    assert len(named) > 20
    for names, text in named:
        assert text
        for name in names.split(", "):
            module = requests if name.startswith("requests.") else kis_retry if hasattr(kis_retry, name) else builtins
            assert issubclass(getattr(module, name.removeprefix("requests.")), Exception)
