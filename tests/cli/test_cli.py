"""What may be asked of `kis-retry`, and which exit status an outcome has."""

from __future__ import annotations

import io
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
import requests

from kis_retry import ConfigurationError, KisRetryError, TokenIssueError, cli
from kis_retry.cli import main


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kis_retry", *words], capture_output=True, encoding="utf-8", timeout=60, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["unknown"],
        ["--unknown"],
        ["token", "--refresh", "--revoke"],
        ["config", "extra"],
    ],
)
def test_wrong_use_is_status_2_and_says_so_on_stderr(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "error:" in said.err


@pytest.mark.parametrize(
    "words", [["--help"], ["demo", "--help"], ["token", "-h"], ["config", "-h"], ["gateway", "-h"]]
)
def test_help_is_status_0(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("usage: kis-retry")


def test_help_names_every_command_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    said = capsys.readouterr().out
    for command in ("demo", "token", "config", "gateway"):
        assert f"kis-retry {command}" in said


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    name, _, version = capsys.readouterr().out.strip().partition(" ")
    assert name == "kis-retry"
    assert version


def test_a_source_tree_has_no_version_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    def unknown(_: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", unknown)
    assert main(["--version"]) == 0
    assert "not installed" in capsys.readouterr().out


@pytest.mark.one_python
def test_the_module_exits_with_the_status_of_the_command() -> None:
    refused = run("token")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "KIS_APP_KEY and KIS_APP_SECRET are not set" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def begin_module(name: str) -> None:
    """Execute `kis_retry/__main__.py` under a name, as the interpreter does."""
    loader = SourceFileLoader("kis_retry.__main__", str(Path(cli.__file__).parents[1] / "__main__.py"))
    code: Any = loader.get_code(loader.name)
    exec(code, {"__name__": name, "__package__": "kis_retry"})


def test_the_module_is_the_command_when_it_is_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["kis-retry", "token"])
    with pytest.raises(SystemExit) as ended:
        begin_module("__main__")
    assert ended.value.code == 2
    assert "KIS_APP_KEY and KIS_APP_SECRET are not set" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["kis_retry.__main__", "Main"])
def test_the_module_does_nothing_when_it_is_imported(name: str) -> None:
    begin_module(name)


@pytest.mark.parametrize("command", ["demo", "token", "config", "gateway"])
def test_without_rich_one_line_says_what_to_install(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main([command]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "pip install 'kis-retry[cli]'" in said.err
    assert len(said.err.splitlines()) == 1


def test_a_command_and_what_it_needs_is_imported_only_when_asked_for() -> None:
    code = (
        "import sys; from kis_retry.cli import main; main(['--help'])\n"
        "late = ['rich', 'environs', 'kis_retry.testing', 'kis_retry.cli.demo', 'kis_retry.cli.gateway']\n"
        "sys.exit(str([name for name in late if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigurationError("KIS_PAPER is odd"), 2, "KIS_PAPER is odd"),
        (TokenIssueError("KIS says no", code="EGW00103"), 1, "KIS says no"),
        (KisRetryError("two\nlines"), 1, r"two\nlines"),
        (requests.ConnectTimeout("http://name:password@host"), 1, "KIS could not be reached (ConnectTimeout)"),
        (FileNotFoundError(2, "No such file", "/secret/place"), 1, "No such file (FileNotFoundError)"),
        (OSError("odd"), 1, "the operating system refused (OSError)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_status(
    error: BaseException,
    status: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr("kis_retry.cli.config.config", fail)
    assert main(["config"]) == status
    said = capsys.readouterr()
    assert said.err == f"kis-retry: {line}\n"
    assert said.out == ""


def test_a_bug_of_this_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("kis_retry.cli.config.config", fail)
    with pytest.raises(ZeroDivisionError):
        main(["config"])


@pytest.mark.one_python
def test_a_reader_that_goes_away_causes_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "kis_retry", "config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, "")


class Gone(io.StringIO):
    """A stdout whose reader has gone away, over a descriptor that is open."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def write(self, _: str) -> int:
        raise BrokenPipeError

    def fileno(self) -> int:
        return self._descriptor


@pytest.mark.parametrize("words", [["config"], ["--version"]])
def test_what_nobody_reads_any_more_is_status_1_and_goes_nowhere(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "stdout").open("w") as written:
        monkeypatch.setattr(sys, "stdout", Gone(written.fileno()))
        assert main(words) == 1
        written.write("what the interpreter flushes at its end")
    assert (tmp_path / "stdout").read_text() == ""
    assert capsys.readouterr().err == ""


def test_a_stdout_that_is_no_file_can_lose_its_reader_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Gone(-1))
    assert main(["config"]) == 1


@pytest.mark.one_python
def test_a_terminal_that_cannot_write_korean_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("KIS_RETRY_WAIT", "만료")
    done = run("config")
    assert done.returncode == 2
    assert r"KIS_RETRY_WAIT='\ub9cc\ub8cc' is not usable" in done.stderr


def test_the_entry_point_is_main() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    assert 'kis-retry = "kis_retry.cli:main"' in text
