"""
Writes `reference.md`, beside this file: the public face as its docstrings describe it.

    python docs/make_reference.py

Needs kis-retry and its extra `testing` installed and nothing else. The tests compare what it makes with the file that
is committed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from kis_retry.events import EVENT_NAMES

TARGET = Path(__file__).with_name("reference.md")
MODULES = ("kis_retry", "kis_retry.testing", "kis_retry.instrumentation")

OURS = "kis_retry"
FOR_FRONT_ENDS = frozenset(("claim", "receive", "resume"))
FOR_CALLS = frozenset(
    ("peek", "issued", "current_unless", "replace", "renewal_due", "is_new", "successor_of", "note_refused")
)
"""Methods of `KisGateway` for its front ends, and of `TokenManager` for the calls under way."""

HEAD = """\
# Reference

Every public name of kis-retry, made from the docstrings by `docs/make_reference.py`. Not edited by hand.
"""
SECTIONS = {"Args": "Arguments", "Attributes": "Attributes", "Returns": "Returns", "Raises": "Raises"}
ALIASES = {
    "Payload": "dict[str, Any]",
    "Iterator[Payload]": "Iterator[dict[str, Any]]",
    "EventName": f"Literal{list(EVENT_NAMES)}",
    "Cursor": 'Literal["100", "200"]',
    "Hook": "Callable[[RefreshEvent], object]",
    "OutageOf": 'Literal["calls", "tokens", "both"]',
    "Share": "float",
    "Pace": "Any",
    "Where": 'Literal["calls", "tokens"]',
    "Window": 'Literal["sliding", "fixed"]',
}
"""Names for types that only the source knows."""


class Member(NamedTuple):
    """A public method or property of a class; `function` is what carries its signature and docstring."""

    name: str
    kind: str
    function: Callable[..., Any]


def reference() -> str:
    """The whole text of `reference.md`."""
    modules = [import_module(name) for name in MODULES]
    parts = [HEAD, *(_contents(module) for module in modules), *(_chapter(module) for module in modules)]
    return "\n".join(parts)


def members(cls: type) -> Iterator[Member]:
    """The public methods and properties of a class, in the order of their definition, its own before inherited ones."""
    seen = {*FOR_FRONT_ENDS, *FOR_CALLS}
    for owner in cls.__mro__:
        for name, value in vars(owner).items() if owner.__module__.startswith(OURS) else ():
            kind, function = _kind_of(value)
            if function is not None and not name.startswith("_") and name not in seen:
                yield Member(name, kind, function)
            seen.add(name)


def signature(function: Callable[..., Any], *, bound: bool = False) -> str:
    """The parameters as one writes them: `(path, *, timeout: float = 1.0) -> str`; `bound`: without the first."""
    found = inspect.signature(function)
    parameters = list(found.parameters.values())[1 if bound else 0 :]
    words: list[str] = []
    for number, parameter in enumerate(parameters):
        keyword_only = parameter.kind is parameter.KEYWORD_ONLY
        if keyword_only and all(before.kind < parameter.VAR_POSITIONAL for before in parameters[:number]):
            words += ["*"] if "*" not in words else []
        words.append(_parameter(parameter))
    returned = "" if found.return_annotation in (found.empty, "None", None) else _type(found.return_annotation)
    if inspect.isgeneratorfunction(inspect.unwrap(function)) and not inspect.isgeneratorfunction(function):
        returned = returned.replace("Iterator[", "AbstractContextManager[")  # what @contextmanager makes of it
    return f"({', '.join(words)}){returned and f' -> {returned}'}"


def _kind_of(value: Any) -> tuple[str, Callable[..., Any] | None]:
    if isinstance(value, property):
        return "property", value.fget
    if isinstance(value, (classmethod, staticmethod)):
        return type(value).__name__, value.__func__
    return "method", value if inspect.isfunction(value) else None


def _parameter(parameter: inspect.Parameter) -> str:
    stars = "*" * (parameter.kind is parameter.VAR_POSITIONAL) + "**" * (parameter.kind is parameter.VAR_KEYWORD)
    typed = parameter.annotation is not parameter.empty
    text = f"{stars}{parameter.name}: {_type(parameter.annotation)}" if typed else f"{stars}{parameter.name}"
    if parameter.default is parameter.empty:
        return text
    default = repr(parameter.default).replace("'", '"')
    return f"{text} = {default}" if typed else f"{text}={default}"


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return " | ".join(ALIASES.get(part, part) for part in text.split(" | ")).replace("'", '"')


def _contents(module: ModuleType) -> str:
    lines = [f"- `{module.__name__}`"]
    for name in _names(module):
        lines.append(f"  - [`{name}`](#{name.lower()}): {_first_sentence(getattr(module, name))}")
    return "\n".join(lines) + ("\n" if module.__name__ == MODULES[-1] else "")


def _names(module: ModuleType) -> list[str]:
    return sorted(module.__all__, key=lambda name: (inspect.isclass(getattr(module, name)), name))


def _first_sentence(thing: Any) -> str:
    paragraph = inspect.cleandoc(thing.__doc__).split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[a-z`)]\.) (?=[A-Z])", paragraph)[0]


def _chapter(module: ModuleType) -> str:
    parts = [f"## `{module.__name__}`\n\n{markdown(module.__doc__)}"]
    for name in _names(module):
        thing = getattr(module, name)
        parts.append(_class(name, thing) if inspect.isclass(thing) else _function(f"### {name}", name, thing))
    return "\n".join(parts)


def _function(heading: str, call: str, function: Any, *, bound: bool = False) -> str:
    return f"{heading}\n\n{_code(call, signature(function, bound=bound))}\n{markdown(function.__doc__)}"


def _class(name: str, cls: type) -> str:
    bases = ", ".join(f"`{base.__name__}`" for base in cls.__bases__ if base.__name__ not in _UNTOLD)
    parts = [f"### {name}\n"]
    made_by: Any = inspect.getattr_static(cls, "__init__")
    if getattr(made_by, "__module__", "").startswith(OURS):
        parts.append(_code(name, signature(made_by, bound=True)))
    parts.append((f"A kind of {bases}.\n\n" if bases else "") + markdown(cls.__doc__))
    checks = []
    for member in members(cls):
        if member.name.startswith("test_"):
            checks.append(f"- {member.name.removeprefix('test_').replace('_', ' ')}")
        else:
            parts.append(_member(name, member))
    if checks:
        parts.append("\n".join(["What it checks:\n", *checks, ""]))
    return "\n".join(parts)


# Bases that say nothing to a reader: they are how the package is put together.
_UNTOLD = {"object", "Protocol", "StateMachine", "TwoViews"}


def _member(owner: str, member: Member) -> str:
    heading = f"#### {owner}.{member.name}"
    if member.kind == "property":
        kind = _type(inspect.signature(member.function).return_annotation)
        return f"{heading}\n\n{_code(member.name, f': {kind}')}\n{_doc_of(owner, member)}"
    call = member.name if member.kind == "method" else f"{owner}.{member.name}"
    text = signature(member.function, bound=member.kind != "staticmethod")
    return f"{heading}\n\n{_code(call, text)}\n{_doc_of(owner, member)}"


def _doc_of(owner: str, member: Member) -> str:
    if member.function.__doc__ is None:
        raise SystemExit(f"{owner}.{member.name} has no docstring")
    return markdown(member.function.__doc__)


def _code(call: str, text: str) -> str:
    line = f"{call}{text}"
    if len(line) > 100 and text.startswith("("):
        inside, _, after = text[1:].rpartition(")")
        arguments = "".join(f"    {argument},\n" for argument in _split(inside))
        line = f"{call}(\n{arguments}){after}"
    return f"```python\n{line}\n```\n"


def _split(inside: str) -> list[str]:
    """Arguments at their commas, but not at those within brackets."""
    found, depth = [""], 0
    for character in inside:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [argument.strip() for argument in found]


def markdown(docstring: str | None) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    section = ""
    for line in inspect.cleandoc(docstring or "").splitlines():
        header = SECTIONS.get(line.removesuffix(":"), "") if line.endswith(":") else ""
        if header:
            section = header
            lines += [f"**{header}**", ""]
        elif section and line.startswith("    "):
            lines.append(line[4:] if section == "Returns" else _entry(line[4:]))
        else:
            section = section if not line else ""
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


def _entry(line: str) -> str:
    if line.startswith(" "):
        return f"  {line.strip()}"
    name, _, text = line.partition(": ")
    return f"- `{name}`: {text}"


if __name__ == "__main__":
    TARGET.write_text(reference(), "utf-8")
