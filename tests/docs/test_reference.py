"""The reference is complete and up to date, and the docstrings it is made of say what one must know."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import inspect
import re
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import requests

import kis_retry
import kis_retry.testing

ROOT = Path(__file__).parents[2]
MAKER = ROOT / "docs" / "make_reference.py"

THE_FACE = re.findall(
    r"\w+",
    """
    AccessToken ConfigurationError Credentials FileTokenStore KisClient KisRetryError MemoryTokenStore PageError
    RateLimiter RedisTokenStore RefreshEvent ResponseError RetryPolicy TokenIssueError TokenIssueLimited TokenManager
    TokenSource TokenStore
    is_rate_limited_response is_token_expired_error is_token_expired_response is_transient_error is_transient_response
    on_event protect refresh_on_expired_token retry_on_transient_error unprotect
    """,
)


def _load_maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_reference", MAKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


maker = _load_maker()


class Thing(NamedTuple):
    """Something with a signature and a docstring: for a class, those of its making."""

    name: str
    function: Any
    doc: str | None


def _things() -> list[Thing]:
    found = []
    for module in map(import_module, maker.MODULES):
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.isclass(value):
                found.append(Thing(name, value, value.__doc__))
                continue
            made_by = inspect.getattr_static(value, "__init__")
            ours = getattr(made_by, "__module__", "").startswith("kis_retry")
            found.append(Thing(name, made_by if ours else None, value.__doc__))
            found += [
                Thing(f"{name}.{member.name}", member.function, member.function.__doc__)
                for member in maker.members(value)
            ]
    return found


THINGS = _things()
CALLABLE = [thing for thing in THINGS if thing.function is not None]


def section(doc: str | None, *titles: str) -> dict[str, str]:
    """The entries of a section of a docstring, by name."""
    found: dict[str, str] = {}
    inside, name = False, ""
    for line in inspect.cleandoc(doc or "").splitlines():
        if line and not line.startswith(" "):
            inside = line.removesuffix(":") in titles
        elif inside and (entry := re.match(r"    ([\w.]+): (.*)", line)):
            name = entry[1]
            found[name] = entry[2]
        elif inside and line:
            found[name] += f" {line.strip()}"
    return found


# -- the file


def test_the_committed_reference_is_up_to_date() -> None:
    committed = maker.TARGET.read_text("utf-8")
    assert committed == maker.reference(), f"run: python {MAKER.relative_to(ROOT)}"


def test_making_it_writes_where_it_is_committed() -> None:
    assert ROOT / "docs" / "reference.md" == maker.TARGET


def test_the_reference_has_each_name_once() -> None:
    text = maker.TARGET.read_text("utf-8")
    assert [thing.name for thing in THINGS if text.count(f"\n{entry_of(thing.name)}\n") != 1] == []


def entry_of(name: str) -> str:
    """The line that a name has in the reference: a heading, or a rule of a compliance suite as an item of a list."""
    if ".test_" in name:
        return f"- {name.split('.test_')[1].replace('_', ' ')}"
    return f"{'####' if '.' in name else '###'} {name}"


def test_the_links_of_the_contents_lead_somewhere() -> None:
    text = maker.TARGET.read_text("utf-8")
    anchors = {heading.lower() for heading in re.findall(r"^### (\w+)$", text, re.MULTILINE)}
    links = re.findall(r"\]\(#(\w+)\)", text)
    assert len(links) == len(set(links)) == len(anchors)
    assert set(links) == anchors


def test_no_type_is_left_that_only_the_source_knows() -> None:
    known = {name for module in map(import_module, maker.MODULES) for name in module.__all__}
    known |= {"Any", "Callable", "Collection", "Iterable", "Iterator", "Mapping", "Literal", "AbstractContextManager"}
    known |= {"T", "True", "False", "None", "PathLike", "Session", "CollectorRegistry", "Counts"}
    calls = "\n".join(re.findall(r"```python\n(.*?)```", maker.TARGET.read_text("utf-8"), re.DOTALL))
    assert set(re.findall(r"\b[A-Z]\w*", re.sub(r'"[^"]*"', "", calls))) - known == set()


# -- the face


def test_the_face_is_the_settled_one() -> None:
    assert kis_retry.__all__ == sorted(THE_FACE, key=lambda name: (not name[0].isupper(), name))


def test_every_name_can_be_had_and_is_listed() -> None:
    for module in map(import_module, maker.MODULES):
        assert sorted(set(module.__all__)) == sorted(module.__all__)
        assert set(module.__all__) <= set(dir(module))
        assert all(hasattr(module, name) for name in module.__all__)


# -- the docstrings


def test_each_has_a_docstring_that_begins_with_a_sentence() -> None:
    wrong = []
    for thing in THINGS:
        first = inspect.cleandoc(thing.doc or "").split("\n\n")[0]
        if not re.match(r'[A-Z"`]', first) or not first.endswith((".", ":", '"', "…")):
            wrong.append(thing.name)
    assert wrong == []


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
