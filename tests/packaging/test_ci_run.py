"""`.ci/run` runs the README's two console commands and then every other environment, or is red."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "cp", "dirname", "find", "head", "mkdir", "rm", "sed", "sort", "tail")
DEMO, TOX = "mkdir .venv && cp -r stubs .venv/bin && echo ran kis-retry demo", "echo ran tox"
STUBS = {"python": "echo py311", "tox": 'echo "the others: $* missing=$TOX_SKIP_MISSING_INTERPRETERS"'}

pytestmark = [pytest.mark.one_python, pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")]


class Checkout:
    """A checkout with a README of its own, whose Python and tox say what they were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.bin = folder / "bin"
        (self.folder / ".ci").mkdir(parents=True)
        (self.folder / "stubs").mkdir()
        shutil.copy(ROOT / ".ci" / "run", self.folder / ".ci" / "run")
        shutil.copy(ROOT / "tox.ini", self.folder)
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        for name, text in STUBS.items():
            stub = self.folder / "stubs" / name
            stub.write_text(f"#!{shutil.which('bash')}\n{text}\n", "utf-8")
            stub.chmod(0o755)

    def write_readme(self, *commands: str) -> None:
        blocks = "".join(f"Words.\n\n```console\n$ {command}\n```\n" for command in commands)
        (self.folder / "README.md").write_text(f"# A title\n\n{blocks}", "utf-8")

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


def test_the_two_commands_run_in_their_order_at_the_top_of_the_checkout_and_then_the_others(checkout: Checkout) -> None:
    """`tox` alone runs lint, types, the newcomer's Python and the package."""
    (checkout.folder / ".venv" / "old").mkdir(parents=True)  # the environment of an earlier run
    checkout.write_readme(f"pwd && {DEMO}", TOX, "echo a third")
    done = checkout.run()
    assert (done.returncode, done.stderr) == (0, "")
    words = [line for line in done.stdout.splitlines() if line and not line.startswith("$ ")]
    assert words[:3] == [str(checkout.folder), "ran kis-retry demo", "ran tox"]
    assert words[3].startswith("the others: run -e py312,py313,coverage,docs,real-")
    assert words[3].endswith(" missing=false"), "an interpreter that is missing fails"
    assert not (checkout.folder / ".venv" / "old").exists()
    named = words[3].split()[4].split(",")
    for environment in re.findall(r"^\[testenv:(.*)\]$", (ROOT / "tox.ini").read_text("utf-8"), re.MULTILINE):
        stem, _, variants = environment.rstrip("}").partition("{")
        runs = all(f"{stem}{each}" in named for each in variants.split(","))
        assert runs or stem in {"lint", "types", "package", "bench"}, environment


@pytest.mark.parametrize(
    ("commands", "complaint"),
    [
        (None, "there is no README.md"),
        ([DEMO], "has 1 console commands"),
        ([TOX, DEMO], "the first command does not end in kis-retry demo: echo ran tox"),
        ([DEMO, f"{TOX} --version"], "the second command does not end in tox"),
        ([DEMO, "echo detox"], "the second command does not end in tox"),
    ],
)
def test_any_other_commands_are_refused_and_nothing_runs(
    checkout: Checkout, commands: list[str] | None, complaint: str
) -> None:
    if commands is not None:
        checkout.write_readme(*commands)
    done = checkout.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr


@pytest.mark.parametrize("commands", [["false && echo kis-retry demo", TOX], [DEMO, "false || false && tox"]])
def test_a_command_that_fails_makes_it_red(checkout: Checkout, commands: list[str]) -> None:
    checkout.write_readme(*commands)
    assert checkout.run().returncode == 1


def test_an_environment_that_fails_makes_it_red(checkout: Checkout) -> None:
    (checkout.folder / "stubs" / "tox").write_text("#!/bin/sh\nexit 3\n", "utf-8")
    checkout.write_readme(DEMO, TOX)
    assert checkout.run().returncode == 3


def test_the_readmes_own_commands_are_accepted(checkout: Checkout) -> None:
    """With the programs in them replaced by nothing, so that they are looked at and not run."""
    shutil.copy(ROOT / "README.md", checkout.folder / "README.md")
    (checkout.bin / "python3").symlink_to(shutil.which("false") or "false")
    done = checkout.run()
    assert done.stdout.startswith("\n$ python3 -m venv .venv && ")
    assert done.stderr == ""
