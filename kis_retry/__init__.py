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
    from .client.async_client import AsyncKisClient
    from .client.client import KisClient
    from .credentials import Credentials
    from .decorators import refresh_on_expired_token, retry_on_transient_error
    from .errors import ConfigurationError, KisRetryError, PageError, ResponseError, TokenIssueError, TokenIssueLimited
    from .events import RefreshEvent, on_event
    from .pace.limiter import RateLimiter
    from .policy import RetryPolicy
    from .protecting import install, protect, uninstall, unprotect
    from .stores.base import MemoryTokenStore, TokenStore
    from .stores.file import FileTokenStore
    from .stores.redis import RedisTokenStore
    from .token import AccessToken
    from .tokens.manager import TokenManager
    from .tokens.source import TokenSource

# No module is named like a name below: importing it would put the module in the name's place.
_MODULES = {
    ".answers": "is_rate_limited_response is_token_expired_error is_token_expired_response "
    "is_transient_error is_transient_response",
    ".client.async_client": "AsyncKisClient",
    ".client.client": "KisClient",
    ".credentials": "Credentials",
    ".decorators": "refresh_on_expired_token retry_on_transient_error",
    ".errors": "ConfigurationError KisRetryError PageError ResponseError TokenIssueError TokenIssueLimited",
    ".events": "RefreshEvent on_event",
    ".pace.limiter": "RateLimiter",
    ".policy": "RetryPolicy",
    ".protecting": "install protect uninstall unprotect",
    ".stores.base": "MemoryTokenStore TokenStore",
    ".stores.file": "FileTokenStore",
    ".stores.redis": "RedisTokenStore",
    ".token": "AccessToken",
    ".tokens.manager": "TokenManager",
    ".tokens.source": "TokenSource",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = ["AccessToken", "AsyncKisClient", "ConfigurationError", "Credentials", "FileTokenStore", "KisClient"]
__all__ += ["KisRetryError", "MemoryTokenStore", "PageError", "RateLimiter", "RedisTokenStore", "RefreshEvent"]
__all__ += ["ResponseError", "RetryPolicy", "TokenIssueError", "TokenIssueLimited", "TokenManager", "TokenSource"]
__all__ += ["TokenStore", "install", "is_rate_limited_response", "is_token_expired_error", "is_token_expired_response"]
__all__ += ["is_transient_error", "is_transient_response", "on_event", "protect", "refresh_on_expired_token"]
__all__ += ["retry_on_transient_error", "uninstall", "unprotect"]


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
