"""
A batch against the KIS (Korea Investment & Securities) Open API that outlives its access token does not notice.

Every name below is imported when it is first used, so that a program pays for what it uses: the pytest plugin, for one,
is loaded by every test run of everybody who has this installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import KisClient
    from .errors import ConfigurationError, KisRetryError, ResponseError, TokenIssueError, TokenIssueLimited
    from .events import RefreshEvent, on_event
    from .expiry import is_token_expired_error, is_token_expired_response
    from .policy import RetryPolicy
    from .protecting import protect, unprotect
    from .refresh import refresh_on_expired_token
    from .tokens.file import FileTokenStore
    from .tokens.manager import TokenManager
    from .tokens.redis import RedisTokenStore
    from .tokens.source import TokenSource
    from .tokens.store import MemoryTokenStore, TokenStore
    from .tokens.token import AccessToken, Credentials

__all__ = [
    "AccessToken",
    "ConfigurationError",
    "Credentials",
    "FileTokenStore",
    "KisClient",
    "KisRetryError",
    "MemoryTokenStore",
    "RedisTokenStore",
    "RefreshEvent",
    "ResponseError",
    "RetryPolicy",
    "TokenIssueError",
    "TokenIssueLimited",
    "TokenManager",
    "TokenSource",
    "TokenStore",
    "is_token_expired_error",
    "is_token_expired_response",
    "on_event",
    "protect",
    "refresh_on_expired_token",
    "unprotect",
]

# No room is named like a name below: importing it would put the module in the name's place.
_ROOMS = {
    ".client": ("KisClient",),
    ".errors": ("ConfigurationError", "KisRetryError", "ResponseError", "TokenIssueError", "TokenIssueLimited"),
    ".events": ("RefreshEvent", "on_event"),
    ".expiry": ("is_token_expired_error", "is_token_expired_response"),
    ".policy": ("RetryPolicy",),
    ".protecting": ("protect", "unprotect"),
    ".refresh": ("refresh_on_expired_token",),
    ".tokens.file": ("FileTokenStore",),
    ".tokens.manager": ("TokenManager",),
    ".tokens.redis": ("RedisTokenStore",),
    ".tokens.source": ("TokenSource",),
    ".tokens.store": ("MemoryTokenStore", "TokenStore"),
    ".tokens.token": ("AccessToken", "Credentials"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        value = getattr(import_module(_ROOM_OF[name], __name__), name)
        globals()[name] = value
        return value
    if name in ("instrumentation", "testing"):
        return import_module(f".{name}", __name__)
    if name == "__version__":
        from importlib.metadata import version

        return version("kis-retry")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
