"""
The account that a request itself names: a base URL, an app key and a secret.

A request of one account never gets the token of another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..credentials import Credentials
from ..errors import ConfigurationError
from ..settings import Environment
from ..stores.base import TokenStore
from ..stores.file import FileTokenStore
from ..stores.from_env import store_from_env
from ..tokens.manager import TokenManager, newest_manager
from ..tokens.source import LiveSource
from .request import ApiRequest, TokenRequest

__all__ = ["SessionMaker", "credentials_of", "source_of_account"]

SessionMaker = Callable[[], Any]

_learned: dict[tuple[str, str, str], TokenManager] = {}


def source_of_account(request: ApiRequest | TokenRequest, new_session: SessionMaker) -> LiveSource | None:
    """Return the newest manager of the account that a request names, else one that is made from the request itself."""
    if request.app_key is None or request.app_secret is None:
        return None
    account = request.base_url, request.app_key, request.app_secret
    return newest_manager(*account) or _learned.get(account) or _learn(account, new_session)


def credentials_of(request: ApiRequest, source: LiveSource | None) -> Credentials | None:
    """Return the credentials of a request's account, whose pace it shares; None where nobody can tell."""
    found = getattr(source, "credentials", None)
    if isinstance(found, Credentials):
        return found
    if request.app_key is None or request.app_secret is None:
        return None
    return _credentials(request.base_url, request.app_key, request.app_secret)


def _learn(account: tuple[str, str, str], new_session: SessionMaker) -> TokenManager | None:
    credentials = _credentials(*account)
    if credentials is None:
        return None
    manager = TokenManager(credentials, store=_store_for(credentials), session=new_session())
    return _learned.setdefault(account, manager)


def _credentials(base_url: str, app_key: str, app_secret: str) -> Credentials | None:
    try:
        return Credentials(app_key, app_secret, base_url=base_url)
    except ConfigurationError:  # no key of KIS looks like that
        return None


def _store_for(credentials: Credentials) -> TokenStore:
    """Return the environment's store; one that a `.env` names serves only the account whose key stands in that file."""
    environment = Environment()
    named = environment.find("KIS_TOKEN_STORE")
    if named is not None and named.origin == ".env":
        key = environment.find("KIS_APP_KEY", "KOREA_INVESTMENT_API_KEY")
        if key is None or key.text != credentials.app_key:
            return FileTokenStore()
    return store_from_env()
