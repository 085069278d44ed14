"""
Both READMEs hold what they say: their code runs, their tables are the code's, their links lead somewhere.

Python blocks run as they are, each in a process and a folder of its own, against a gateway on which the token dies at
the first call. A block whose first comment is `# not run here: why`, or that stands under `<!-- not run: why -->`, is
only compiled. Console blocks hold `$` commands: the first two are what CI runs, the others are checked here.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

import kis_retry
from kis_retry import Credentials, RetryPolicy
from kis_retry.cli.arguments import parser
from kis_retry.policy import variable_of
from kis_retry.settings import CREDENTIAL_VARIABLES
from kis_retry.stores.from_env import STORE_VARIABLE, store_from_env, store_named
from kis_retry.testing import KisGateway

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parents[2]
NAMES = ("README.md", "README.ko.md")
NOT_RUN = 1
"""Python blocks of a README that are not run. One more is one more promise that nobody checks."""

LANGUAGES = {"python", "console", ""}
PACKAGE = Path(kis_retry.__path__[0])


class Block(NamedTuple):
    """A fenced code block; `reason` says why it is not run."""

    place: str
    language: str
    text: str
    reason: str | None

    @property
    def commands(self) -> list[str]:
        return [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]


class Row(NamedTuple):
    """A row of the table of environment variables."""

    variables: list[str]
    default: str
    takes: str


def read(name: str) -> str:
    path = ROOT / name
    return path.read_text("utf-8") if path.exists() else ""


def blocks_of(name: str, text: str) -> list[Block]:
    """The fenced blocks of a Markdown text, in order."""
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        above = text[: match.start()]
        note = re.search(r"<!-- not run:(.*?)-->\s*$", above) or re.match(r"# not run here:(.*)", match[2])
        place = f"{name}:{above.count(chr(10)) + 1}"
        found.append(Block(place, match[1], match[2], note[1].strip() if note else None))
    return found


def environment_of(text: str) -> list[Row]:
    """The rows of the table whose first cell is names of variables."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and re.fullmatch(r"(`KIS_\w+`(, )?)+", cells[0]):
            default = re.fullmatch(r"`([^`]*)`", cells[1])
            found.append(Row(re.findall(r"KIS_\w+", cells[0]), default[1] if default else cells[1], cells[2]))
    return found


def headings_of(text: str) -> list[str]:
    return re.findall(r"^(#+) ", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)


def links_of(text: str) -> list[str]:
    """Where links and pictures of a text lead, other sites left out."""
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|href|srcset)=\"([^\"]+)\"", text)
    return [link for pair in found for link in pair if link and not re.match(r"[a-z]+:", link)]


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def run_python(block: Block, folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A block as a program; one that defines tests, by a pytest that loads this plug-in and no other."""
    is_test = re.search(r"^(async )?def test_", block.text, re.MULTILINE)
    path = folder / ("test_block.py" if is_test else "block.py")
    path.write_text(block.text, "utf-8")
    if not is_test:
        return run([sys.executable, str(path)], folder, environ)
    options = ["-q", "-p", "kis_retry.testing.plugin", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environ}
    return run([sys.executable, "-m", "pytest", *options, str(path)], folder, alone)


def run(words: list[str], folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        words,
        cwd=folder,
        env={**kept, "PYTHONIOENCODING": "utf-8", **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def run_command(command: str, folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str] | None:
    """A command of a console block; None for an installation, of which the extras alone are checked."""
    words = shlex.split(command)
    if words[:2] == ["pip", "install"]:
        assert set(extras_in(command)) <= set(extras())
        return None
    if words[0] == "kis-retry" and "gateway" not in words:
        return run([sys.executable, "-m", "kis_retry", *words[1:]], folder, environ)
    if words[0] == "python" and words[1].startswith("examples/"):
        return run([sys.executable, str(ROOT / words[1]), *words[2:]], folder, environ)
    raise AssertionError(f"nobody checks {command!r}: say it otherwise, or teach this test")


def extras() -> list[str]:
    return metadata("kis-retry").get_all("Provides-Extra") or []


def extras_in(text: str) -> list[str]:
    return [name for names in re.findall(r"kis-retry\[([\w,]+)\]", text) for name in names.split(",")]


def environ_for(gateway: KisGateway) -> dict[str, str]:
    credentials = gateway.credentials
    return {
        "KIS_APP_KEY": credentials.app_key,
        "KIS_APP_SECRET": credentials.app_secret,
        "KIS_BASE_URL": gateway.url,
        "KIS_TOKEN_STORE": "memory",
    }


TEXTS = {name: read(name) for name in NAMES}
BLOCKS = {name: blocks_of(name, text) for name, text in TEXTS.items()}
DISTINCT = {block.text: block for blocks in reversed(BLOCKS.values()) for block in blocks}
COMMANDS = [command for block in DISTINCT.values() if block.language == "console" for command in block.commands]

every_readme = pytest.mark.parametrize("name", NAMES)
every_program = pytest.mark.parametrize(
    "block",
    [block for block in DISTINCT.values() if block.language == "python" and block.reason is None],
    ids=lambda block: block.place,
)


# -- the code


@every_readme
def test_it_exists_and_nothing_is_left_to_fill_in(name: str) -> None:
    assert len(TEXTS[name]) > 1_000
    assert re.findall(r"@@|TODO|FIXME|XXX", TEXTS[name]) == []


@every_program
def test_a_python_block_runs_over_an_expiry(block: Block, tmp_path: Path) -> None:
    folder = tmp_path / "somewhere"
    folder.mkdir()
    with KisGateway() as gateway:
        gateway.expire_at(1)
        done = run_python(block, folder, environ_for(gateway))
        counts = gateway.counts
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert counts.refused == min(counts.calls, 1)
    assert counts.answered == counts.calls - counts.refused


def test_some_python_blocks_do_call_kis(tmp_path: Path) -> None:
    programs = [block.text for block in DISTINCT.values() if block.language == "python" and block.reason is None]
    assert sum("from_env()" in text for text in programs) >= 3
    assert sum("kis_gateway" in text for text in programs) >= 1


@every_readme
def test_the_blocks_that_are_not_run_are_counted_and_say_why(name: str) -> None:
    skipped = [block for block in BLOCKS[name] if block.reason is not None]
    assert len(skipped) == NOT_RUN
    assert all(len(str(block.reason)) > 10 for block in skipped)
    for block in skipped:
        compile(block.text, block.place, "exec")


@every_readme
def test_every_block_is_of_a_kind_that_is_checked(name: str) -> None:
    assert {block.language for block in BLOCKS[name]} <= LANGUAGES
    assert TEXTS[name].count("\n```") == 2 * len(BLOCKS[name])
    consoles = [block for block in BLOCKS[name] if block.language == "console"]
    assert all(block.commands for block in consoles)


def test_the_first_two_commands_are_the_demo_and_the_tests() -> None:
    demo, tests = COMMANDS[:2]
    assert re.search(r"install .*'?\.\[cli\]'? && .*kis-retry demo$", demo)
    assert re.search(r"install .*tox && .*tox$", tests)


@pytest.mark.parametrize("command", COMMANDS[2:])
def test_a_command_does_what_it_says(command: str, gateway: KisGateway, tmp_path: Path) -> None:
    done = run_command(command, tmp_path, environ_for(gateway))
    assert done is None or (done.returncode, done.stderr) == (0, "")


@every_readme
def test_a_command_in_the_text_is_one_that_the_program_takes(name: str) -> None:
    commands = re.findall(r"`kis-retry ([a-z][^`]*)`", TEXTS[name])
    assert commands
    for command in commands:
        parser().parse_args(shlex.split(command))


@every_readme
def test_the_extras_it_names_are_those_there_are(name: str) -> None:
    assert set(extras_in(TEXTS[name])) == set(extras())


# -- the environment


@every_readme
def test_the_table_has_every_variable_that_is_read(name: str) -> None:
    listed = [variable for row in environment_of(TEXTS[name]) for variable in row.variables]
    source = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    in_source = set(re.findall(r"\bKIS_[A-Z_]*[A-Z]\b(?!_)", source)) - {"KIS_RETRY"}
    assert len(listed) == len(set(listed))
    assert set(listed) == in_source | {variable_of(spec.name) for spec in fields(RetryPolicy)}


@every_readme
def test_the_table_has_the_defaults_of_the_code(name: str) -> None:
    defaults = {variable: row.default for row in environment_of(TEXTS[name]) for variable in row.variables}
    for spec in fields(RetryPolicy):
        assert defaults[variable_of(spec.name)] == as_written(spec.default)
    assert defaults["KIS_PAPER"] == as_written(Credentials("key", "secret").paper)
    assert repr(store_named(defaults[STORE_VARIABLE])) == repr(store_from_env())
    assert "`KIS_PAPER`" in defaults["KIS_BASE_URL"]
    assert [defaults[ours] for ours, _ in CREDENTIAL_VARIABLES.values()] == ["", "", ""]


def as_written(value: object) -> str:
    """A value as one writes it into the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else f"{value:g}"


@every_readme
def test_the_table_has_the_ranges_and_units_of_the_code(name: str) -> None:
    takes = {variable: row.takes for row in environment_of(TEXTS[name]) for variable in row.variables}
    for spec in fields(RetryPolicy):
        if not spec.metadata:
            continue
        said = takes[variable_of(spec.name)]
        numbers = [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", said)]
        assert {float(spec.metadata["low"]), float(spec.metadata["high"])} <= set(numbers)
        assert bool(re.search(r"\bseconds\b|초", said)) == (spec.metadata["unit"] == "seconds")


@every_readme
def test_the_table_has_the_names_that_people_have_set_already(name: str) -> None:
    takes = {variable: row.takes for row in environment_of(TEXTS[name]) for variable in row.variables}
    for ours, theirs in CREDENTIAL_VARIABLES.values():
        assert f"`{theirs}`" in takes[ours]


@every_readme
def test_every_value_that_the_table_gives_for_the_store_is_taken(name: str) -> None:
    (said,) = [row.takes for row in environment_of(TEXTS[name]) if STORE_VARIABLE in row.variables]
    values = [value for value in re.findall(r"`([^`]+)`", said) if len(value) > 1]
    assert {"file", "memory"} < set(values)
    for value in values:
        store_named(value.replace("…", "127.0.0.1:6379/0"))


# -- two languages, and links


def test_both_have_the_same_headings_and_the_same_code() -> None:
    english, korean = (headings_of(TEXTS[name]) for name in NAMES)
    assert english == korean
    ours, theirs = ([block[1:] for block in BLOCKS[name]] for name in NAMES)
    assert ours == theirs


def test_both_have_the_same_variables_and_lead_to_the_same_places() -> None:
    english, korean = ([row.variables for row in environment_of(TEXTS[name])] for name in NAMES)
    assert english == korean
    ours, theirs = (set(links_of(TEXTS[name])) - set(NAMES) for name in NAMES)
    assert {link for link in ours if "#" not in link} == {link for link in theirs if "#" not in link}


def test_each_leads_to_the_other() -> None:
    english, korean = NAMES
    assert korean in links_of(TEXTS[english])
    assert english in links_of(TEXTS[korean])


@every_readme
def test_no_link_is_dead(name: str) -> None:
    for link in links_of(TEXTS[name]):
        path, _, anchor = link.partition("#")
        target = ROOT / (path or name)
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target.read_text("utf-8")), link


# -- the tools of this file, on a README of their own

SMALL = """\
# Small

[dead](nowhere.md) [away](https://example.com) [below](#the-table-and-more) <img src="docs/x.svg">

```python
import os
print(os.environ["KIS_APP_KEY"])
```

<!-- not run: it needs a library that is not here -->
```python
import nowhere
```

```python
# not run here: it needs a week
import time
```

## The table, and more!

| `KIS_APP_KEY`, `KIS_APP_SECRET` | | yours |
| `KIS_PAPER` | `false` | a \\| b |
| `KIS_PAPER` and more | `false` | no row |

```console
$ kis-retry config
out
$ pip install 'kis-retry[cli]'
```

```
# Not a heading
```
"""


def test_blocks_are_found_with_their_place_and_reason() -> None:
    found = blocks_of("SMALL", SMALL)
    assert [block.language for block in found] == ["python", "python", "python", "console", ""]
    assert [block.place for block in found] == ["SMALL:5", "SMALL:11", "SMALL:15", "SMALL:26", "SMALL:32"]
    reasons = [None, "it needs a library that is not here", "it needs a week", None, None]
    assert [block.reason for block in found] == reasons
    assert found[3].commands == ["kis-retry config", "pip install 'kis-retry[cli]'"]


def test_rows_headings_links_and_anchors_are_found() -> None:
    assert environment_of(SMALL) == [
        Row(["KIS_APP_KEY", "KIS_APP_SECRET"], "", "yours"),
        Row(["KIS_PAPER"], "false", "a \\| b"),
    ]
    assert headings_of(SMALL) == ["#", "##"]
    assert links_of(SMALL) == ["nowhere.md", "#the-table-and-more", "docs/x.svg"]
    assert "the-table-and-more" in anchors_of(SMALL)


def test_a_block_that_fails_is_seen(tmp_path: Path) -> None:
    program, _, _, _, _ = blocks_of("SMALL", SMALL)
    assert run_python(program, tmp_path, {}).returncode == 1
    done = run_python(program, tmp_path, {"KIS_APP_KEY": "it is there"})
    assert (done.returncode, done.stdout) == (0, "it is there\n")


def test_a_block_of_tests_is_run_by_pytest(tmp_path: Path) -> None:
    text = "def test_it(kis_gateway):\n    assert kis_gateway.counts.calls == {}\n"
    assert run_python(Block("", "python", text.format(0), None), tmp_path, {}).returncode == 0
    done = run_python(Block("", "python", text.format(1), None), tmp_path, {})
    assert done.returncode == 1
    assert "1 failed" in done.stdout


@pytest.mark.parametrize(
    "command", ["rm -rf .", "pip install 'kis-retry[nothing]'", "kis-retry gateway", "python x.py"]
)
def test_a_command_that_nobody_checks_is_refused(command: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run_command(command, tmp_path, {})


def test_a_command_is_run(gateway: KisGateway, tmp_path: Path) -> None:
    done = run_command("kis-retry config --json", tmp_path, environ_for(gateway))
    assert done is not None
    assert (done.returncode, done.stderr) == (0, "")
    assert "KIS_APP_KEY" in done.stdout
    wrong = run_command("kis-retry config --jsn", tmp_path, {})
    assert wrong is not None
    assert wrong.returncode == 2
