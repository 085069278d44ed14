"""A Ctrl-C ends a command of `kis-retry`, whatever becomes of the exception that Python makes of it."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any

import pytest

from kis_retry import cli
from kis_retry.cli import interrupts
from kis_retry.cli.interrupts import check_interrupt, remembering_interrupts
from kis_retry.testing import KisGateway


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Ctrl-C at this very moment."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background begins with it ignored
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


class Dropping:
    """Calls something in its destructor."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def __del__(self) -> None:
        self._call()


def raised(ctrl_c: Callable[[], None]) -> None:
    ctrl_c()


def dropped(ctrl_c: Callable[[], None]) -> None:
    Dropping(ctrl_c)


def replaced(ctrl_c: Callable[[], None]) -> None:
    try:
        ctrl_c()
    except KeyboardInterrupt as error:  # as a class does until Python 3.11, while it is made
        raise RuntimeError("Error calling __set_name__") from error


@pytest.mark.parametrize("fate", [raised, dropped, replaced])
@pytest.mark.parametrize("place", ["parser", "_run"])
def test_a_command_is_interrupted_whatever_becomes_of_the_exception(
    fate: Callable[[Callable[[], None]], None],
    place: str,
    ctrl_c: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = getattr(cli, place)

    def interrupted(*arguments: object) -> object:
        fate(ctrl_c)
        return whole(*arguments)

    monkeypatch.setattr(cli, place, interrupted)
    assert cli.main(["--version"] if place == "parser" else ["config", "--json"]) == 130
    assert capsys.readouterr().err == "kis-retry: interrupted\n"


@pytest.mark.parametrize("fate", [dropped, replaced])
def test_what_runs_long_learns_of_a_ctrl_c_whose_exception_is_lost(
    fate: Callable[[Callable[[], None]], None], ctrl_c: Callable[[], None]
) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), remembering_interrupts():  # noqa: PT012  # each line is a moment
        check_interrupt()
        with suppress(RuntimeError):
            fate(ctrl_c)
        done.append("what lost it")
        check_interrupt()
        done.append("and more")
    assert done == ["what lost it"]


def test_a_program_begins_without_a_ctrl_c() -> None:
    loader = SourceFileLoader("interrupts_at_their_beginning", str(interrupts.__file__))
    fresh = ModuleType(loader.name)
    loader.exec_module(fresh)
    with fresh.remembering_interrupts():
        fresh.check_interrupt()


def test_a_ctrl_c_interrupts_at_once(ctrl_c: Callable[[], None]) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), remembering_interrupts():  # noqa: PT012  # as above
        ctrl_c()
        done.append("what came after")
    assert done == []


def test_a_ctrl_c_that_python_cannot_place_interrupts_too() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), remembering_interrupts():  # noqa: PT012  # as above
        handler: Any = signal.getsignal(signal.SIGINT)
        handler(signal.SIGINT, None)
        done.append("what came after")
    assert done == []


def test_an_import_is_not_interrupted_before_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting:
        """A finder of modules, which importlib calls, that stands for a Ctrl-C in importlib itself."""

        def find_spec(self, *_: object) -> None:
            handler: Any = signal.getsignal(signal.SIGINT)
            handler(signal.SIGINT, sys._getframe(1))

    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), remembering_interrupts():  # noqa: PT012  # as above
        with suppress(ModuleNotFoundError):
            importlib.import_module("kis_retry.no_such_module")
        done.append("the import")
        check_interrupt()
        done.append("and more")
    assert done == ["the import"]


def test_a_gateway_that_lost_a_ctrl_c_while_it_began_does_not_stay(
    ctrl_c: Callable[[], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KisGateway, "expire_at", lambda *_: dropped(ctrl_c))
    assert cli.main(["gateway"]) == 130
    assert capsys.readouterr() == ("", "kis-retry: interrupted\n")


def test_what_else_python_drops_is_still_told(ctrl_c: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda about: told.append(about.exc_type))

    def fail() -> None:
        raise ValueError

    with remembering_interrupts():
        Dropping(fail)
    assert told == [ValueError]


def test_a_handler_of_somebody_else_stays() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    hook = sys.unraisablehook
    with remembering_interrupts():
        signal.raise_signal(signal.SIGINT)
        assert sys.unraisablehook is hook
    assert seen == [signal.SIGINT]


def test_all_is_as_before_afterwards(ctrl_c: Callable[[], None]) -> None:
    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), remembering_interrupts():  # noqa: PT012  # as above
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        ctrl_c()
    check_interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert sys.unraisablehook is hook


def test_a_command_may_run_on_any_thread() -> None:
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(cli.main(["--version"])))
    thread.start()
    thread.join()
    assert statuses == [0]
