"""
Refresh an expired access token of the KIS (Korea Investment & Securities) Open API and repeat the refused call.

Every name below is imported when it is first used, so that a program pays for what it uses: the pytest plugin, for one,
is loaded by every test run of everybody who has this installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answers import (
        is_rate_limited_response,
        is_token_expired_error,
        is_token_expired_response,
        is_transient_error,
        is_transient_response,
    )
    from .client.client import KisClient
    from .credentials import Credentials
    from .errors import ConfigurationError, KisRetryError, PageError, ResponseError, TokenIssueError, TokenIssueLimited
    from .events import RefreshEvent, on_event
    from .policy import RetryPolicy
    from .retry.decorators import refresh_on_expired_token, retry_on_transient_error
    from .retry.limiter import RateLimiter
    from .stores.base import TokenStore
    from .stores.file import FileTokenStore
    from .stores.memory import MemoryTokenStore
    from .stores.redis import RedisTokenStore
    from .thirdparty.protect import protect, unprotect
    from .token import AccessToken
    from .tokens.manager import TokenManager
    from .tokens.source import TokenSource

__all__ = [
    "AccessToken",
    "ConfigurationError",
    "Credentials",
    "FileTokenStore",
    "KisClient",
    "KisRetryError",
    "MemoryTokenStore",
    "PageError",
    "RateLimiter",
    "RedisTokenStore",
    "RefreshEvent",
    "ResponseError",
    "RetryPolicy",
    "TokenIssueError",
    "TokenIssueLimited",
    "TokenManager",
    "TokenSource",
    "TokenStore",
    "is_rate_limited_response",
    "is_token_expired_error",
    "is_token_expired_response",
    "is_transient_error",
    "is_transient_response",
    "on_event",
    "protect",
    "refresh_on_expired_token",
    "retry_on_transient_error",
    "unprotect",
]

# No module is named like a name below: importing it would put the module in the name's place.
_MODULES = {
    ".client.client": ("KisClient",),
    ".credentials": ("Credentials",),
    ".errors": (
        "ConfigurationError",
        "KisRetryError",
        "PageError",
        "ResponseError",
        "TokenIssueError",
        "TokenIssueLimited",
    ),
    ".events": ("RefreshEvent", "on_event"),
    ".answers": (
        "is_rate_limited_response",
        "is_token_expired_error",
        "is_token_expired_response",
        "is_transient_error",
        "is_transient_response",
    ),
    ".policy": ("RetryPolicy",),
    ".retry.decorators": ("refresh_on_expired_token", "retry_on_transient_error"),
    ".retry.limiter": ("RateLimiter",),
    ".stores.base": ("TokenStore",),
    ".stores.file": ("FileTokenStore",),
    ".stores.memory": ("MemoryTokenStore",),
    ".stores.redis": ("RedisTokenStore",),
    ".thirdparty.protect": ("protect", "unprotect"),
    ".token": ("AccessToken",),
    ".tokens.manager": ("TokenManager",),
    ".tokens.source": ("TokenSource",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name], __name__), name)
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
