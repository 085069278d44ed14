"""
How many small defects do the tests notice? Puts defects into a copy of the package, one at a time, and runs the tests.

    tox -e mutants -- [--sample 100] [--seed N] [--at-least 0.95] [--tests tests/retry] [kis_retry/retry/binding.py …]

The defects are Cosmic Ray's, of all modules unless some are named; a sample of them is drawn, since each costs a run of
the tests: first those of the module's own name, then all those that run the line (without those marked one_python), up
to the first that fails, which is named. One that makes them hang counts as noticed. A survivor is shown as a diff:
either a test is missing, or the two texts mean the same.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test, mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec, TestOutcome
from reach import MEASURING, Reach, Span, prepare, spans_for_types

COPIED = (
    *(".ci", ".github", "CHANGELOG.md", "README.md", "README.ko.md"),
    *("docs", "examples", "kis_retry", "pyproject.toml", "tests", "tox.ini"),
)
LEFT_OUT = ("tests/real", "tests/benchmarks", "tests/mutants", "tests/typing", "tests/test_installed.py")
QUICK = ("-m", "not one_python")
PATIENCE = 3
"""How many times as long as on the sound package the tests may take before a defect counts as one that hangs."""


def main(project: Path, folder: Path, words: list[str]) -> int:
    """Run the sample, and give the exit status: 1 where fewer were noticed than `--at-least`."""
    arguments = arguments_of(words)
    copy(project, folder)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)  # the processes that tests start take the copy, too
    began = time.monotonic()
    prepare()
    outcome, output = run_tests(command([*QUICK, *MEASURING, *(arguments.tests or ["tests"])]), timeout=3600)
    if outcome is not TestOutcome.SURVIVED:
        print(output[-5000:], "\nthe tests fail without any defect: nothing to learn", sep="")
        return 1
    patience = 20 + PATIENCE * (time.monotonic() - began)
    chosen = sample(mutations_of(arguments.modules), arguments.sample, arguments.seed)
    print(f"{len(chosen)} defects, drawn with --seed {arguments.seed}", flush=True)
    trial = Trial(Reach(), arguments.tests, patience)
    noticed = sum(trial.notices(mutation) for mutation in chosen)
    print(f"noticed {noticed} of {len(chosen)} ({noticed / len(chosen):.1%})")
    return int(noticed < arguments.at_least * len(chosen))


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
    """Every defect that Cosmic Ray knows for `modules`, except in what is there for type checkers alone."""
    paths = modules or sorted(Path("kis_retry").rglob("*.py"))
    database = WorkDB(":memory:", WorkDB.Mode.create)
    init(paths, database, {})
    found = [mutation for item in database.work_items for mutation in item.mutations]
    unused = {path: spans_for_types(path) for path in paths}
    return [one for one in found if not any(note.holds(span_of(one)) for note in unused[one.module_path])]


def span_of(mutation: MutationSpec) -> Span:
    return Span(mutation.start_pos, mutation.end_pos)


def sample(mutations: list[MutationSpec], size: int, seed: int) -> list[MutationSpec]:
    """Draw the same ones for the same seed and source: in the order of the source, whatever the order they came in."""
    in_order = sorted(mutations, key=lambda one: (str(one.module_path), one.start_pos, one.operator_name))
    random.Random(seed).shuffle(in_order)
    return list(itertools.islice(filter(is_python, in_order), size))


def is_python(mutation: MutationSpec) -> bool:
    """Whether what comes of it can be compiled: some defects are put into signatures, and anybody would notice."""
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    try:
        compile(mutate_code(mutation.module_path.read_text("utf-8"), operator, mutation.occurrence), "", "exec")
    except SyntaxError:
        return False
    return True


class Trial:
    """Puts one defect after another in, and runs the tests that can notice it."""

    def __init__(self, reach: Reach, only: list[str], patience: float) -> None:
        self._reach = reach
        self._all = only or ["tests"]
        self._patience = patience

    def notices(self, mutation: MutationSpec) -> bool:
        """Put one defect in, run the tests, take it out again, and say what became of it."""
        place = f"{mutation.module_path}:{mutation.start_pos[0]} {mutation.operator_name.removeprefix('core/')}"
        diff = "no test runs the line"
        for tests in self._rounds(mutation):
            Path("chosen.txt").write_text("\n".join(tests), "utf-8")
            result = mutate_and_test([mutation], command(["@chosen.txt"]), self._patience)
            assert result.test_outcome in {TestOutcome.KILLED, TestOutcome.SURVIVED}, result.output
            if result.test_outcome is TestOutcome.KILLED:
                print("noticed ", place, "by", first_failure(result.output or ""), flush=True)
                return True
            diff = result.diff or ""
        print("SURVIVED", place, diff, sep="\n", flush=True)
        return False

    def _rounds(self, mutation: MutationSpec) -> list[list[str]]:
        """What to run, one after another, until something fails: the nearest first."""
        module = mutation.module_path
        reaching = self._reach.tests_of(module, span_of(mutation))
        folder = str(tests_beside(module))
        reaching = [folder, *self._all] if reaching is None else sorted(reaching, key=lambda test: folder not in test)
        return [tests for tests in (own_tests(module), [*QUICK, *reaching] if reaching else []) if tests]


def tests_beside(module: Path) -> Path:
    """The folder of its tests."""
    return Path("tests", *module.parent.parts[1:])


def own_tests(module: Path) -> list[str]:
    """The tests to run first: those with its name in theirs, in its folder."""
    return [str(path) for path in sorted(tests_beside(module).glob(f"test_*{module.stem}*.py"))]


def first_failure(output: str) -> str:
    found = re.search(r"^(?:FAILED|ERROR) (\S.*)$", output, re.MULTILINE)
    return found[1] if found else output.strip()[-200:]


def command(words: list[str]) -> str:
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"]
    left_out = [word for name in LEFT_OUT for word in ("--ignore", name)]
    return shlex.join([sys.executable, "-m", "pytest", *options, *left_out, *words])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
