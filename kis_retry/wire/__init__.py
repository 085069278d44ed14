"""
Protect a request where it leaves: whose it is, with which token, when, and whether once more.

Here is where the libraries are watched: patched by `wrapt` once, when a program has imported them, and inert where
nothing is protected.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..forking import no_fork

__all__ = ["watch"]

# Library, class and method; our module and the function that stands in the method's place. It is the whole library, not
# the module of it that has the class: when that has been imported, the rest may be still to come.
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

_AGENTS = (
    ("opentelemetry.instrumentation.instrumentor", "BaseInstrumentor.uninstrument"),
    ("elasticapm.instrumentation.packages.base", "AbstractInstrumentedModule.uninstrument"),
)
"""Where an APM agent takes itself off, for which it takes whatever stands in its methods' place."""

# No lock guards it: of two threads that patch a method at once, either one's wrapper stays, and they are the same.
_ours: dict[tuple[Any, str], tuple[Callable[..., Any], Any, Any]] = {}
"""Class and method; what stands in its place, the members of the class, and what was seen there at the last look."""

_is_hooked = False


def watch() -> None:
    """Watch what the program has imported, and what it will import; and put back what others took off."""
    global _is_hooked
    if not _is_hooked:
        with no_fork():
            import filelock  # noqa: F401  # a first call needs it, and its hooks must not begin in the middle of a fork
            import wrapt  # with asyncio it is a fifth of the package's import, as much as the other

            if not _is_hooked:
                for place in _PLACES:
                    wrapt.register_post_import_hook(_patch_module(*place), place[0])
                for module, method in _AGENTS:
                    wrapt.register_post_import_hook(_patch_agent(method), module)
                _is_hooked = True
        return
    for (owner, name), (ours, members, seen) in list(_ours.items()):
        if members.get(name) is not seen:
            _put(owner, name, ours)


def _patch_module(_: str, owner: str, name: str, module: str, function: str) -> Callable[[Any], None]:
    def patch(library: Any) -> None:
        import_module(library.__name__)  # which another thread may be in the middle of
        found = _class_of(library, owner, name)
        if found is not None:
            _put(found, name, getattr(import_module(f"{__package__}.{module}"), function))

    return patch


def _patch_agent(method: str) -> Callable[[Any], None]:
    def patch(agent: Any) -> None:
        import wrapt  # imported by now

        wrapt.wrap_function_wrapper(agent, method, _stand_aside)

    return patch


def _stand_aside(wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Let an agent take itself off, and not what stands in front of it."""
    for (owner, name), (ours, members, _) in list(_ours.items()):
        if getattr(members[name], "_self_wrapper", None) is ours:
            setattr(owner, name, members[name].__wrapped__)
    try:
        return wrapped(*args, **kwargs)
    finally:
        watch()


def _class_of(library: Any, owner: str, name: str) -> Any:
    """Return the library's own class that has the method, also where gevent or `requests_cache` has put in another."""
    kinds = [kind for kind in getattr(getattr(library, owner, None), "__mro__", ()) if name in vars(kind)]
    root = library.__name__.partition(".")[0]
    return next((kind for kind in kinds if kind.__module__.partition(".")[0] == root), None)


def _put(owner: Any, name: str, ours: Callable[..., Any]) -> None:
    """Stand in the place of a method, unless that is so already, however many others have wrapped it since."""
    import wrapt  # as above

    members = vars(owner)
    found = layer = members[name]
    while layer is not None and getattr(layer, "_self_wrapper", None) is not ours:
        layer = getattr(layer, "__wrapped__", None)
    if layer is None:
        setattr(owner, name, wrapt.FunctionWrapper(found, ours))
    _ours[owner, name] = ours, members, members[name]
