"""`.ci/run` runs the README's two console commands, and is red where it would have run anything less."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "dirname", "find", "head", "rm", "sed", "sort", "tail")
DEMO, TOX = "echo ran kis-retry demo", "echo ran tox"

pytestmark = [pytest.mark.one_python, pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")]


class Checkout:
    """A checkout with a README of its own, and a PATH on which the interpreters are those that it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.bin = folder / "bin"
        (self.folder / ".ci").mkdir(parents=True)
        shutil.copy(ROOT / ".ci" / "run", self.folder / ".ci" / "run")
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None, tool
            (self.bin / tool).symlink_to(found)
        self.give_interpreters(10, 11, 12, 13)

    def write_readme(self, *commands: str) -> None:
        blocks = "".join(f"Words.\n\n```console\n$ {command}\n```\n" for command in commands)
        (self.folder / "README.md").write_text(f"# A title\n\n{blocks}", "utf-8")

    def give_interpreters(self, *minors: int) -> None:
        for old in self.bin.glob("python3.*"):
            old.unlink()
        for minor in minors:
            (self.bin / f"python3.{minor}").symlink_to(shutil.which("true") or "true")

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(self.folder / ".ci" / "run")],
            cwd=self.folder.parent,
            env={"PATH": str(self.bin), "HOME": os.environ["HOME"]},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_two_commands_run_in_their_order_at_the_top_of_the_checkout(checkout: Checkout) -> None:
    checkout.write_readme(f"pwd && {DEMO}", TOX, "echo a third")
    done = checkout.run()
    assert (done.returncode, done.stderr) == (0, "")
    words = [line for line in done.stdout.splitlines() if line and not line.startswith("$ ")]
    assert words == [str(checkout.folder), "ran kis-retry demo", "ran tox"]


def test_the_environment_of_an_earlier_run_is_gone(checkout: Checkout) -> None:
    (checkout.folder / ".venv" / "bin").mkdir(parents=True)
    checkout.write_readme(f"[ ! -e .venv ] && {DEMO}", TOX)
    assert checkout.run().returncode == 0


@pytest.mark.parametrize(
    ("commands", "complaint"),
    [
        ([], "has 0 console commands"),
        ([DEMO], "has 1 console commands"),
        ([TOX, DEMO], "the first command does not end in kis-retry demo: echo ran tox"),
        (["echo new", DEMO, TOX], "the first command does not end in kis-retry demo: echo new"),
        ([DEMO, "echo new", TOX], "the second command does not end in tox: echo new"),
        ([DEMO, f"{TOX} --version"], "the second command does not end in tox"),
        ([DEMO, "echo detox"], "the second command does not end in tox"),
        ([f"{DEMO} --help", TOX], "the first command does not end in kis-retry demo"),
    ],
)
def test_any_other_commands_are_refused_and_nothing_runs(
    checkout: Checkout, commands: list[str], complaint: str
) -> None:
    (checkout.folder / ".venv").mkdir()
    checkout.write_readme(*commands)
    done = checkout.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr
    assert (checkout.folder / ".venv").exists()


def test_without_a_readme_it_is_red(checkout: Checkout) -> None:
    done = checkout.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no README.md" in done.stderr


@pytest.mark.parametrize(
    "commands", [["false && echo kis-retry demo", TOX], [DEMO, "false || false && tox"]], ids=["demo", "tox"]
)
def test_a_command_that_fails_makes_it_red(checkout: Checkout, commands: list[str]) -> None:
    checkout.write_readme(*commands)
    assert checkout.run().returncode == 1


def test_the_readmes_own_commands_are_accepted(checkout: Checkout) -> None:
    """With the programs in them replaced by nothing, so that they are looked at and not run."""
    shutil.copy(ROOT / "README.md", checkout.folder / "README.md")
    program = checkout.bin / "python3"
    program.symlink_to(shutil.which("false") or "false")
    done = checkout.run()
    assert done.stdout.startswith("\n$ python3 -m venv .venv && ")
    assert done.stderr == ""


# --- interpreters

SHOW = 'echo "missing=$TOX_SKIP_MISSING_INTERPRETERS skip=${TOX_SKIP_ENV:-}" kis-retry demo'


def test_an_interpreter_that_is_here_cannot_be_skipped(checkout: Checkout) -> None:
    checkout.write_readme(SHOW, TOX)
    assert "missing=false skip= kis-retry" in checkout.run().stdout


def test_interpreters_that_are_not_here_are_named_and_the_others_cannot_be_skipped(checkout: Checkout) -> None:
    checkout.give_interpreters(11, 12)
    (checkout.bin / "python3.13").symlink_to(shutil.which("false") or "false")  # a pyenv shim of a version not in use
    checkout.write_readme(SHOW, TOX)
    done = checkout.run()
    assert done.stderr == ".ci/run: not here, and not tested: py310 py313\n"
    assert "missing=false skip=^(py310|py313)$ kis-retry" in done.stdout


def test_without_any_interpreter_it_is_red(checkout: Checkout) -> None:
    checkout.give_interpreters()
    checkout.write_readme(DEMO, TOX)
    done = checkout.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert "no supported Python is here" in done.stderr


def test_the_newest_interpreters_of_pyenv_are_in_front(checkout: Checkout, tmp_path: Path) -> None:
    checkout.give_interpreters()
    root = Path(os.environ["HOME"]) / ".pyenv" / "versions"
    for version in ("3.12.9", "3.12.10"):
        folder = root / version / "bin"
        folder.mkdir(parents=True)
        (folder / "python3.12").symlink_to(shutil.which("true") or "true")
    checkout.write_readme('echo "${PATH%%:*}" kis-retry demo', TOX)
    assert str(root / "3.12.10" / "bin") in checkout.run().stdout.splitlines()[2]
