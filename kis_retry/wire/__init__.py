"""
Protect a request where it leaves: whose it is, with which token, when, and whether once more.

Here is where the libraries are watched: patched by `wrapt` once, when a program has imported them, and inert where
nothing is protected.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import wrapt

from ..forking import after_fork

__all__ = ["watch"]

_WIRE = __package__
_PLACES = (
    ("requests", "Session", "send", "for_requests", "send"),
    ("urllib3", "HTTPConnectionPool", "urlopen", "for_requests", "open_urllib3"),
    ("httpx", "Client", "_send_single_request", "for_httpx", "send"),
    ("httpx", "AsyncClient", "_send_single_request", "for_httpx", "send_async"),
    ("httpx2", "Client", "_send_single_request", "for_httpx", "send"),
    ("httpx2", "AsyncClient", "_send_single_request", "for_httpx", "send_async"),
    ("aiohttp", "ClientSession", "_request", "for_aiohttp", "request"),
    ("urllib.request", "OpenerDirector", "open", "for_urllib", "open_url"),
    ("threading", "Thread", "start", "protection", "start_thread"),
    ("concurrent.futures.thread", "ThreadPoolExecutor", "submit", "protection", "submit"),
)
"""
Module, class and method; our module and the function that stands in the method's place.

The whole library, not the module of it that has the class: when that has been imported, the rest may be still to come.
"""

_patching = threading.RLock()  # guards the rest; a signal handler may decorate, too
_ours: dict[tuple[type, str], Callable[..., Any]] = {}  # what stands in the place of which method
_looks: tuple[tuple[Any, str, Any], ...] = ()  # the members of each class, and what stood there at the last look
_is_hooked = False


def watch() -> None:
    """Watch what the program has imported, and what it will import; and put back what others took off."""
    global _is_hooked
    if not _is_hooked:
        with _patching:
            if not _is_hooked:
                for place in _PLACES:
                    wrapt.register_post_import_hook(_patch_module(*place), place[0])
                _is_hooked = True
        return
    for members, name, seen in _looks:
        if members.get(name) is not seen:
            with _patching:
                for (owner, method), ours in list(_ours.items()):
                    _put(owner, method, ours)
            return


def _patch_module(_: str, owner: str, name: str, module: str, function: str) -> Callable[[Any], None]:
    def patch(library: Any) -> None:
        found = _class_of(library, owner)
        if found is not None and name in vars(found):
            with _patching:
                _put(found, name, getattr(import_module(f"{_WIRE}.{module}"), function))

    return patch


def _class_of(library: Any, name: str) -> Any:
    """Return the class itself, also where `requests_cache` has put another one in the place of its name."""
    found = getattr(library, name, None)
    if library.__name__ != "requests":
        return found
    return next(kind for kind in found.__mro__ if kind.__module__ == "requests.sessions")  # type: ignore[union-attr]


def _put(owner: Any, name: str, ours: Callable[..., Any]) -> None:
    """Stand in the place of a method, unless that is so already, however many others have wrapped it since."""
    global _looks
    found = vars(owner)[name]
    if not _is_in(found, ours):
        setattr(owner, name, wrapt.FunctionWrapper(found, ours))
    _ours[owner, name] = ours
    _looks = tuple((vars(kind), method, vars(kind)[method]) for kind, method in _ours)


def _is_in(found: Any, ours: Callable[..., Any]) -> bool:
    while found is not None:
        if isinstance(found, wrapt.FunctionWrapper) and found._self_wrapper is ours:  # noqa: SLF001  # its only sign
            return True
        found = getattr(found, "__wrapped__", None)
    return False


def _remake_lock(_: object) -> None:
    global _patching
    _patching = threading.RLock()


after_fork(sys.modules[__name__], _remake_lock)
