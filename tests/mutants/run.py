"""
How many small defects do the tests notice? Puts defects into a copy of the package, one at a time, and runs the tests.

    tox -e mutants -- [--sample 100] [--seed N] [--at-least 0.95] [--tests tests/retry] [kis_retry/retry/binding.py …]

The defects are Cosmic Ray's, of all modules unless some are named; a sample of them is drawn, since each costs a run of
the tests: first those of the module's own folder and name, then all, up to the first that fails. One that makes them
hang counts as noticed. A survivor is shown as a diff: either a test is missing, or the two texts mean the same.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec, TestOutcome

COPIED = (
    *(".ci", ".github", "CHANGELOG.md", "README.md", "README.ko.md"),
    *("docs", "examples", "kis_retry", "pyproject.toml", "tests"),
)
LEFT_OUT = ("tests/real", "tests/benchmarks", "tests/mutants", "tests/typing", "tests/test_installed.py")
PATIENCE = 3
"""How many times as long as on the sound package the tests may take before a defect counts as one that hangs."""


class Outcome(NamedTuple):
    """What became of one defect; `diff` shows it."""

    noticed: bool
    diff: str


def main(project: Path, folder: Path, words: list[str]) -> int:
    """Run the sample, and give the exit status: 1 where fewer were noticed than `--at-least`."""
    arguments = arguments_of(words)
    copy(project, folder)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)  # the processes that tests start take the copy, too
    began = time.monotonic()
    outcome, output = run_tests(command([], arguments.tests), timeout=1800)
    if outcome is not TestOutcome.SURVIVED:
        print(output[-5000:], "\nthe tests fail without any defect: nothing to learn", sep="")
        return 1
    patience = 20 + PATIENCE * (time.monotonic() - began)
    chosen = sample(mutations_of(arguments.modules), arguments.sample, arguments.seed)
    print(f"{len(chosen)} defects, drawn with --seed {arguments.seed}")
    outcomes = [notice(mutation, arguments.tests, patience) for mutation in chosen]
    noticed = sum(outcome.noticed for outcome in outcomes)
    print(f"noticed {noticed} of {len(outcomes)} ({noticed / len(outcomes):.1%})")
    return int(noticed < arguments.at_least * len(outcomes))


def arguments_of(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tox -e mutants --")
    parser.add_argument("--sample", type=int, default=100, help="how many defects to try")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="draws the same sample again")
    parser.add_argument("--at-least", type=float, default=0.0, help="the share to be noticed, 0 to 1")
    parser.add_argument("--tests", action="append", default=[], help="run these tests only")
    parser.add_argument("modules", nargs="*", type=Path, help="modules to put defects into (default: all)")
    return parser.parse_args(words)


def copy(project: Path, folder: Path) -> None:
    """Copy what the tests need: the defects are written into files, and not into those of the checkout."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in COPIED:
        source = project / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        else:
            shutil.copy(source, folder / name)


def mutations_of(modules: list[Path]) -> list[MutationSpec]:
    """Every defect that Cosmic Ray knows for `modules`, except in annotations, which nobody runs."""
    paths = modules or sorted(Path("kis_retry").rglob("*.py"))
    database = WorkDB(":memory:", WorkDB.Mode.create)
    init(paths, database, {})
    found = [mutation for item in database.work_items for mutation in item.mutations]
    unused = {path: lines_and_columns_of_annotations(path) for path in paths}
    return [mutation for mutation in found if not is_inside(mutation, unused[mutation.module_path])]


Span = tuple[tuple[int, int], tuple[int, int]]


def lines_and_columns_of_annotations(path: Path) -> list[Span]:
    notes: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.arg | ast.AnnAssign):
            notes.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            notes.append(node.returns)
    return [
        ((note.lineno, note.col_offset), (note.end_lineno or 0, note.end_col_offset or 0)) for note in notes if note
    ]


def is_inside(mutation: MutationSpec, spans: list[Span]) -> bool:
    return any(begin <= mutation.start_pos and mutation.end_pos <= end for begin, end in spans)


def sample(mutations: list[MutationSpec], size: int, seed: int) -> list[MutationSpec]:
    """Draw the same ones for the same seed and source: in the order of the source, whatever the order they came in."""
    in_order = sorted(mutations, key=lambda one: (str(one.module_path), one.start_pos, one.operator_name))
    return random.Random(seed).sample(in_order, min(size, len(in_order)))


def notice(mutation: MutationSpec, tests: list[str], patience: float) -> Outcome:
    """Put one defect in, run the tests, take it out again, and say what became of it."""
    result = mutate_and_test([mutation], command(own_tests(mutation.module_path), tests), patience)
    assert result.test_outcome in {TestOutcome.KILLED, TestOutcome.SURVIVED}, result.output
    noticed = result.test_outcome is TestOutcome.KILLED
    place = f"{mutation.module_path}:{mutation.start_pos[0]} {mutation.operator_name.removeprefix('core/')}"
    print("noticed " if noticed else "SURVIVED", place, flush=True)
    if not noticed:
        print(result.diff, flush=True)
    return Outcome(noticed, result.diff or "")


def own_tests(module: Path) -> list[str]:
    """The tests to run first: those of its name, then those of its folder."""
    folder = Path("tests", *module.parent.parts[1:])
    named = sorted(folder.glob(f"test_{module.stem}*.py"))
    return [str(path) for path in [*named, *([folder] if folder != Path("tests") else [])] if path.exists()]


def command(first: list[str], only: list[str]) -> str:
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist", "-m", "not one_python"]
    left_out = [word for name in LEFT_OUT for word in ("--ignore", name)]
    return shlex.join([sys.executable, "-m", "pytest", *options, *left_out, *(only or [*first, "tests"])])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
