"""Which tests run which lines: those that never come by a defect cannot notice it, and need not be run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

from coverage import CoverageData

MEASURING = "--cov=kis_retry", "--cov-context=test", "--cov-report=", "--cov-config=measured.ini"
"""The options under which a run of the tests writes down which test ran which line."""


class Span(NamedTuple):
    """From a line and column to another, as `ast` and Cosmic Ray count them."""

    begin: tuple[int, int]
    end: tuple[int, int]

    @classmethod
    def of(cls, node: ast.expr | ast.stmt) -> Span:
        """All of `node`, from its first decorator on: `ast` begins a function at its `def`."""
        decorators: list[ast.expr] = getattr(node, "decorator_list", [])
        line = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        return cls((line, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))

    def holds(self, other: Span) -> bool:
        return self.begin <= other.begin and other.end <= self.end


class Reach:
    """What a run of the tests under `MEASURING` has written down."""

    def __init__(self) -> None:
        self._data = CoverageData(".coverage")
        self._data.read()

    def tests_of(self, module: Path, defect: Span) -> list[str] | None:
        """
        Give the tests that run the statement in which a defect is, in the order of their files.

        None means all of them: the line runs as the module is imported, which happens once, for whoever comes later.
        """
        lines = lines_of_statement(module, defect)
        if lines is None:
            return None
        by_line = self._data.contexts_by_lineno(str(module.absolute()))
        contexts = {context for line in lines for context in by_line.get(line, ()) if context}
        return sorted({context.rpartition("|")[0] for context in contexts})


def prepare() -> None:
    """Write the settings that `MEASURING` names, instead of the project's own, which measure something else."""
    Path("measured.ini").write_text("[run]\nbranch = false\n", "utf-8")


def lines_of_statement(module: Path, defect: Span) -> range | None:
    """The lines of the innermost statement in a function that holds `defect`, without its body; None: in none."""
    tree = ast.parse(module.read_text("utf-8"))
    inside = (node for function in functions(tree) for part in function.body for node in ast.walk(part))
    around = [node for node in inside if isinstance(node, ast.stmt) and Span.of(node).holds(defect)]
    if not around:
        return None
    innermost = max(around, key=lambda node: (node.lineno, node.col_offset))
    body: list[ast.stmt] = getattr(innermost, "body", [])
    return range(innermost.lineno, max(innermost.lineno, body[0].lineno - 1 if body else innermost.end_lineno or 0) + 1)


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def spans_for_types(module: Path) -> list[Span]:
    """Where a module speaks to type checkers alone: its annotations, its overloads, and what is imported for them."""
    notes: list[ast.expr | ast.stmt | None] = []
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.arg | ast.AnnAssign):
            notes.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            notes.append(node if any(map(_is_overload, node.decorator_list)) else node.returns)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            notes.append(node)
    return [Span.of(note) for note in notes if note]


def _is_overload(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id == "overload"
