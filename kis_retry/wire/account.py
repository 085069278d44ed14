"""
Whose a request is: resolve the token source of its account.

An account is a base URL, an app key and a secret. A request of one account never gets the token of another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..credentials import Credentials
from ..errors import ConfigurationError
from ..pace.limiter import RateLimiter
from ..policy import RetryPolicy
from ..settings import Environment
from ..stores.base import TokenStore
from ..stores.entry import store_from_env
from ..stores.file import FileTokenStore
from ..tokens.manager import TokenManager, newest_manager
from ..tokens.source import LiveSource
from .protection import Protection
from .request import ApiRequest, TokenRequest, same_host

__all__ = ["Guard", "SessionMaker", "credentials_of", "guard_of", "source_of_account"]

SessionMaker = Callable[[], Any]


@dataclass(frozen=True)
class Guard:
    """
    Token source, policies and limiter of one request.

    Attributes:
        source: of its account; None where nobody knows whose it is.
        owner: the protection that knows it.
        policy: the bounds of a refresh.
        transient_policy: those of a repeat after failures that pass, and of an order.
        repeats: such a repeat is allowed.
        limiter: the pace of its account.
        is_order: it may be acted upon: anything but a read, unless it was said to be repeatable.
    """

    source: LiveSource | None
    owner: Protection | None
    policy: RetryPolicy
    transient_policy: RetryPolicy
    repeats: bool
    limiter: RateLimiter | None
    is_order: bool


def guard_of(request: ApiRequest, protections: tuple[Protection, ...], new_session: SessionMaker) -> Guard:
    """Resolve token source, policies and limiter: each rule is that of the innermost protection that has it."""
    owner = source = repeater = limiter = None
    refreshers = [each for each in protections if each.rules.refreshes]
    for each in refreshers:
        source = source_of_request(request, each, new_session) if each.rules.watches else None
        if source is not None or not each.rules.watches:
            owner = each
            break
    for each in protections:
        if not each.rules.repeats:
            continue
        repeater = repeater or each
        if repeater.rules.watches and each.rules.watches:
            limiter = limiter or each.limiter(request, source)
    policy = (owner or protections[0]).policy_for(source)
    idempotent = repeater.rules.idempotent if repeater is not None else None
    patience = repeater.policy if repeater is not None else policy
    return Guard(
        source=source,
        owner=owner,
        policy=policy,
        transient_policy=patience,
        repeats=repeater is not None
        and repeater.rules.watches
        and idempotent is not False
        and patience.transient_deadline > 0,
        limiter=limiter,
        is_order=not request.is_read and not idempotent,
    )


_learned: dict[tuple[str, str, str], TokenManager] = {}


def source_of_request(request: ApiRequest, protection: Protection, new_session: SessionMaker) -> LiveSource | None:
    """
    Return the source that a protection has for a request; None where it cannot tell whose the request is.

    In this order: a source that was given, for its own account; the newest `TokenManager` of this process for the
    account; one that is made from the request's own headers; a first argument that issues tokens by itself.
    """
    given = next((source for source in protection.sources() if _is_of(request, source, protection)), None)
    if given is not None:
        return given
    account = source_of_account(request, new_session)
    if account is not None:
        return account
    broker = protection.broker()
    current = broker.peek() if broker is not None else None
    known = current is not None and current.value == request.original_token
    return broker if broker is not None and (known or broker.is_dead(request.original_token or "")) else None


def source_of_account(request: ApiRequest | TokenRequest, new_session: SessionMaker) -> LiveSource | None:
    """Return the source of the account that a request itself names by base URL, app key and secret."""
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


def _is_of(request: ApiRequest, source: LiveSource, protection: Protection) -> bool:
    credentials = getattr(source, "credentials", None)
    if credentials is None:
        token = request.original_token
        return token is not None and (source.handed_out(token) or protection.keeps(token))
    return (
        request.app_key in (None, credentials.app_key)
        and request.app_secret in (None, credentials.app_secret)
        and same_host(credentials.base_url, request.base_url)
    )


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
