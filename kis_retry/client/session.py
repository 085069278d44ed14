"""
The way from a `KisClient` to its host: one `requests.Session`, set up once, used at every call.

`requests` looks up proxies, netrc and CA bundles in the environment for every single call, which costs more than the
call itself. Here the environment is read once and honoured ever after: proxies and `NO_PROXY`, `REQUESTS_CA_BUNDLE` and
`CURL_CA_BUNDLE`. netrc is not: KIS knows no password. A session given by the user is used as it is.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from ..credentials import Credentials
from ..errors import ConfigurationError
from ..sessions import missing_bundle
from .preparation import ApiRequest, Preparation
from .redaction import without_query

__all__ = ["ClientSession", "valid_timeout"]

_POOL = 64  # connections kept for threads; more threads than that work too, without keeping theirs


class ClientSession:
    """Sends one request at a time per thread, and keeps the connections."""

    def __init__(self, credentials: Credentials, timeout: Any, session: requests.Session | None = None) -> None:
        self._base_url = credentials.base_url
        self._timeout = timeout
        self._given = session
        self._session = session
        self._preparation = Preparation(credentials)
        self._opening = threading.Lock()  # guards _session, once

    def send(self, request: ApiRequest, authorization: str) -> requests.Response:
        """
        Send one request to the host and give its answer, body read.

        Raises:
            requests.RequestException: no answer. Its text does not hold the query.
            ConfigurationError: the file of certificates that the environment or the session names is not there.
        """
        try:
            with without_query():
                if self._given is not None or request.method != "GET":
                    return self._send(self._given or self._opened(), request, authorization)
                return self._send_read(self._opened(), request, authorization)
        except OSError as error:
            problem = missing_bundle(error)
            if problem is None:
                raise
        raise ConfigurationError(problem)

    def close(self) -> None:
        """Close the connections; a session given by the user is the user's to close."""
        if self._given is None and self._session is not None:
            self._session.close()
            self._session = None

    def _send(self, session: requests.Session, request: ApiRequest, authorization: str) -> requests.Response:
        return session.request(
            request.method,
            self._preparation.url(request),
            params=request.params,
            data=None if request.body is None else json.dumps(request.body, ensure_ascii=False).encode(),
            headers={**self._preparation.headers(request), "authorization": authorization},
            timeout=self._timeout,
            allow_redirects=False,  # the headers hold the secret: it goes to the configured host alone
        )

    def _send_read(self, session: requests.Session, request: ApiRequest, authorization: str) -> requests.Response:
        return session.send(
            self._preparation.read(session, request, authorization),
            proxies=session.proxies,
            timeout=self._timeout,
            allow_redirects=False,  # as above
        )

    def _opened(self) -> requests.Session:
        session = self._session
        if session is not None:
            return session
        with self._opening:
            if self._session is None:
                session = requests.Session()
                for scheme in ("http://", "https://"):
                    session.mount(scheme, HTTPAdapter(pool_maxsize=_POOL))
                settings = session.merge_environment_settings(self._base_url, {}, None, None, None)
                session.proxies, session.verify, session.cert = (
                    settings["proxies"],
                    settings["verify"],
                    settings["cert"],
                )
                session.trust_env = False
                self._session = session
            return self._session


def valid_timeout(timeout: Any) -> Any:
    """`timeout` itself, if it really is one: a call without one may hang for ever."""
    parts = timeout if isinstance(timeout, tuple) and len(timeout) == 2 else (timeout,)
    good = all(
        isinstance(part, (int, float)) and not isinstance(part, bool) and 0 < part < float("inf") for part in parts
    )
    if not good:
        raise ConfigurationError(
            f"timeout={timeout!r} is not usable: it takes seconds, or seconds to connect and to read"
        )
    return timeout
