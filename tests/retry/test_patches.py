"""Where the libraries send: observed once, as long as anybody watches, and as they were after that."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from answers import GOOD
from calls import KnownTokens, Slots, refreshing, seen
from kis_retry.context import CURRENT
from kis_retry.retry import patches


@pytest.fixture
def nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program that has decorated nothing yet, and has none of the libraries that come late."""
    for name, value in (("_watchers", 0), ("_patched", {}), ("_looked_at", set()), ("_modules_seen", 0), ("_LATE", {})):
        monkeypatch.setattr(patches, name, value)


class Library:
    """Somebody's class that sends."""

    def send(self) -> str:
        """Send."""
        return "sent"


def shouting(send: Any) -> Any:
    def louder(self: Any) -> str:
        return str(send(self)).upper()

    return louder


# Put there, and taken away.


@pytest.mark.usefixtures("nobody_watches")
def test_observing_twice_is_observing_once_and_what_somebody_put_on_top_is_observed_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Library, "send", Library.send)
    patches._patch(Library, "send", lambda send: lambda self: f"<{send(self)}>")
    patches._patch(Library, "send", lambda send: lambda self: f"<{send(self)}>")
    assert Library().send() == "<sent>"
    monkeypatch.setattr(Library, "send", shouting(Library.send))
    patches._patch(Library, "send", lambda send: lambda self: f"<{send(self)}>")
    assert Library().send() == "<<SENT>>"


@pytest.mark.usefixtures("nobody_watches")
def test_with_the_last_one_who_watches_the_libraries_are_as_they_were() -> None:
    before = requests.Session.send
    patches.watch()
    observed = requests.Session.send
    patches.watch()
    patches.unwatch()
    assert requests.Session.send is observed is not before
    patches.unwatch()
    assert requests.Session.send is before
    assert (patches._watchers, patches._patched, patches._looked_at, patches._modules_seen) == (0, {}, set(), 0)


def test_in_a_program_that_has_decorated_nothing_yet_the_first_who_watches_is_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert patches.__file__ is not None
    spec = importlib.util.spec_from_file_location("kis_retry.retry.patches_anew", patches.__file__)
    assert spec is not None
    assert spec.loader is not None
    anew: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, anew)
    spec.loader.exec_module(anew)
    monkeypatch.setattr(anew, "_LATE", {})
    before = requests.Session.send
    anew.watch()
    assert requests.Session.send is not before
    anew.unwatch()
    assert requests.Session.send is before


@pytest.mark.usefixtures("nobody_watches")
def test_what_somebody_has_put_on_top_since_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests.Session, "send", requests.Session.send)  # so that it is as before in the end
    patches.watch()
    theirs = shouting(requests.Session.send)
    monkeypatch.setattr(requests.Session, "send", theirs)
    patches.unwatch()
    assert requests.Session.send is theirs
    assert list(patches._patched) == [(requests.Session, "send")], "it is still inside"


@pytest.mark.parametrize(
    ("observed", "owner", "name"),
    [
        (patches._observed_requests, requests.Session, "send"),
        (patches._observed_httpx, httpx.Client, "_send_single_request"),
        (patches._observed_httpx_async, httpx.AsyncClient, "_send_single_request"),
        (patches._paced_aiohttp, aiohttp.ClientSession, "_request"),
        (patches._sent_aiohttp, aiohttp.ClientRequest, "send"),
        (patches._answered_aiohttp, aiohttp.ClientResponse, "start"),
    ],
)
def test_what_is_observed_keeps_its_name_its_docstring_and_its_signature(observed: Any, owner: Any, name: str) -> None:
    original = vars(owner)[name]
    ours = observed(original)
    assert (ours.__name__, ours.__qualname__, ours.__doc__) == (name, original.__qualname__, original.__doc__)
    assert inspect.signature(ours) == inspect.signature(original)
    assert inspect.iscoroutinefunction(ours) is inspect.iscoroutinefunction(original)


@pytest.mark.parametrize("module", ["app.sessions", "zebra.sessions"])
def test_the_class_that_sends_is_that_of_requests_though_another_one_has_its_name(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    original = requests.Session

    class Named(original):  # type: ignore[valid-type, misc]  # a class all the same
        """One that inherits `send`."""

    class Sending(Named):
        def send(self, *args: Any, **options: Any) -> Any: ...

    for kind in (Named, Sending):
        kind.__module__ = module
        monkeypatch.setattr(requests, "Session", kind)
        assert patches._session_class() is original


# Libraries that are imported later.


class Late:
    """Libraries that the program may import, and how often each was patched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.patched: list[str] = []
        self.importing: set[str] = set()
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(patches, "_LATE", dict.fromkeys(names, self._patch))

    def come(self, name: str, *, importing: bool = False) -> None:
        self._monkeypatch.setitem(sys.modules, name, ModuleType(name))
        if importing:
            self.importing.add(name)

    def _patch(self, module: ModuleType) -> bool:
        if module.__name__ in self.importing:
            return False
        self.patched.append(module.__name__)
        return True


@pytest.fixture
def late(nobody_watches: None, monkeypatch: pytest.MonkeyPatch) -> Late:
    monkeypatch.setattr(patches, "_watchers", 1)
    return Late(monkeypatch, "late_one", "late_two")


def test_a_library_is_observed_once_it_is_imported_and_once(late: Late) -> None:
    patches.look_for_libraries()
    assert late.patched == []
    late.come("late_two")
    for _ in range(2):
        patches.look_for_libraries()
    assert late.patched == ["late_two"]
    late.come("late_one")
    late.come("another")
    for _ in range(2):
        patches.look_for_libraries()
    assert late.patched == ["late_two", "late_one"]


def test_modules_that_have_gone_are_a_change_too(late: Late, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "_modules_seen", len(sys.modules) + 5)
    late.come("late_one")
    patches.look_for_libraries()
    assert late.patched == ["late_one"]
    assert patches._modules_seen == len(sys.modules)


def test_where_there_is_nothing_new_nothing_is_looked_at(late: Late, monkeypatch: pytest.MonkeyPatch) -> None:
    late.come("late_one")
    monkeypatch.setattr(patches, "_modules_seen", len(sys.modules))
    patches.look_for_libraries()
    assert late.patched == []


def test_one_that_is_still_being_imported_is_looked_at_again(late: Late) -> None:
    late.come("late_one", importing=True)
    late.come("late_two")
    patches.look_for_libraries()
    assert late.patched == []
    late.importing.clear()
    patches.look_for_libraries()
    assert late.patched == ["late_one", "late_two"]


def test_while_nobody_watches_nothing_is_observed(late: Late, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "_watchers", 0)
    late.come("late_one")
    patches.look_for_libraries()
    assert late.patched == []
    monkeypatch.setattr(patches, "_watchers", 1)
    patches.look_for_libraries()
    assert late.patched == ["late_one"]


@pytest.mark.parametrize("name", ["httpx", "aiohttp", "requests_cache"])
def test_a_module_that_has_not_got_its_classes_yet_is_not_touched(name: str) -> None:
    assert patches._LATE[name](ModuleType(name)) is False


def a_class(*names: str) -> type:
    return type("Made", (), dict.fromkeys(names, Library.send))


@pytest.mark.usefixtures("nobody_watches")
@pytest.mark.parametrize(("method", "deep"), [("_send_single_request", True), ("send", False)])
def test_httpx_is_observed_where_a_single_request_is_sent_or_else_where_all_are(method: str, deep: bool) -> None:
    names = ("send", method)
    module = SimpleNamespace(Client=a_class(*names), AsyncClient=a_class(*names))
    assert patches._patch_httpx(module) is True
    assert set(patches._patched) == {(module.Client, method), (module.AsyncClient, method)}
    assert (module.Client.send is Library.send) is deep


@pytest.mark.usefixtures("nobody_watches")
def test_aiohttp_and_requests_cache_are_observed_where_they_send_and_where_answers_begin() -> None:
    module = SimpleNamespace(
        ClientSession=a_class("_request"), ClientRequest=a_class("send"), ClientResponse=a_class("start")
    )
    assert patches._patch_aiohttp(module) is True
    cache = SimpleNamespace(CacheMixin=a_class("send"))
    assert patches._patch_requests_cache(cache) is True
    assert set(patches._patched) == {
        (module.ClientSession, "_request"),
        (module.ClientRequest, "send"),
        (module.ClientResponse, "start"),
        (cache.CacheMixin, "send"),
    }


# An answer whose body is not read.


def the_call() -> Any:
    call = refreshing(KnownTokens(), repeats=True, limiter=Slots())
    call.observe_failed(seen(), not_acted_upon=False)
    return call


class StartedResponse:
    """As aiohttp has it before its body is read."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.headers = {"content-type": "image/png"}


def note_of_httpx(call: Any, status: int) -> Any:
    sighting, response = seen(), SimpleNamespace(status_code=status)
    patches._note_httpx(call, sighting, response, None)
    return sighting


def note_of_aiohttp(call: Any, status: int) -> Any:
    sighting, response = seen(), StartedResponse(status)

    async def start(self: Any) -> str:
        return "started"

    patches._sightings[response] = sighting
    CURRENT.set(call)
    assert asyncio.run(patches._answered_aiohttp(start)(response)) == "started"
    assert response not in patches._sightings
    return sighting


@pytest.mark.parametrize("note", [note_of_httpx, note_of_aiohttp])
@pytest.mark.parametrize(("status", "failed"), [(200, False), (399, False), (400, True), (404, True), (503, True)])
def test_a_body_that_is_not_read_failed_by_its_status_alone(note: Any, status: int, failed: bool) -> None:
    call = the_call()
    sighting = note(call, status)
    assert call.last_failed is (sighting if failed else None)


def test_a_response_of_aiohttp_that_belongs_to_no_call_or_no_request_is_left_alone() -> None:
    async def start(self: Any) -> str:
        return "started"

    starting = patches._answered_aiohttp(start)
    noted = StartedResponse(503)
    patches._sightings[noted] = seen()
    assert asyncio.run(starting(noted)) == "started", "its call is over"
    CURRENT.set(call := the_call())
    before = call.failed
    assert asyncio.run(starting(StartedResponse(503))) == "started"
    assert call.failed is before


async def test_a_body_that_was_read_can_be_read_as_a_stream() -> None:
    class Stream:
        """Of a connection."""

    stream = Stream()
    assert patches._unread_again(stream, b"") is stream
    again = patches._unread_again(stream, b"x" * 100_000)
    assert await again.read() == b"x" * 100_000
    assert again.at_eof()


# What is known where aiohttp raises.


@pytest.mark.parametrize(("status", "observed"), [(None, True), (503, False)])
async def test_an_error_of_aiohttp_is_noted_unless_its_answer_has_been(status: int | None, observed: bool) -> None:
    error = aiohttp.ClientConnectionError("dropped")
    if status is not None:
        error.status = status  # type: ignore[attr-defined]  # as `raise_for_status` has it

    async def request(self: Any, method: str, url: str) -> None:
        raise error

    call = the_call()
    before = call.failed
    CURRENT.set(call)
    with pytest.raises(aiohttp.ClientConnectionError):
        await patches._paced_aiohttp(request)(SimpleNamespace(), "get", f"https://kis.example/{GOOD['rt_cd']}")
    assert (call.failed is not before) is observed
    if observed:
        assert (call.failed.method, call.failed.host, call.failed.error) == ("GET", "kis.example", error)
