"""
The way from a `KisClient` to its host: one `requests.Session`, prepared once, used at every call.

`Session.request` looks up proxies, netrc and CA bundles in the environment for every single call, which costs more
than the call itself. Here the environment is read once and honoured ever after: proxies and `NO_PROXY`,
`REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE`. netrc is not: KIS knows no password. A session given by the user goes its
own way, with everything the user has set on it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import requests
from requests.adapters import HTTPAdapter
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict

from ..errors import ConfigurationError
from ..retry import observer as transport

__all__ = ["Transport", "checked_timeout"]

_POOL = 64  # connections kept for threads; more threads than that work too, without keeping theirs


class Transport:
    """Sends one prepared request at a time per thread, and keeps the connections."""

    def __init__(self, base_url: str, timeout: Any, session: requests.Session | None = None) -> None:
        self._base_url = base_url
        self._timeout = timeout
        self._given = session
        self._session: requests.Session | None = None
        self._settings: dict[str, Any] = {}
        self._session_headers: dict[str, str] = {}
        self._opening = threading.Lock()  # guards _session and _settings, once

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> requests.Response:
        """
        Send one request to the host and give its answer, body read.

        Raises:
            requests.RequestException: no answer. Nothing is repeated: the request may have been acted upon.
        """
        url = self._base_url + quote(path, safe="/%:@-._~!$&'()*+,;=")
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        if self._given is not None:
            return self._given.request(
                method,
                url,
                params=params,
                data=data,
                headers=dict(headers),
                timeout=self._timeout,
                allow_redirects=False,
            )
        return self._send_prepared(method, f"{url}?{urlencode(params)}" if params else url, headers, data)

    def close(self) -> None:
        """Close the connections; a session given by the user is the user's to close."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _send_prepared(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | None
    ) -> requests.Response:
        session = self._session or self._open()
        request = requests.PreparedRequest()
        request.method, request.url, request.body = method, url, data
        request.hooks = default_hooks()
        request.headers = CaseInsensitiveDict({**self._session_headers, **headers})
        if data is not None:
            request.headers["Content-Length"] = str(len(data))
        answer = session.get_adapter(url).send(request, stream=False, timeout=self._timeout, **self._settings)
        answer.content  # noqa: B018  # reading it all gives the connection back to the pool
        transport.hear(answer)
        return answer

    def _open(self) -> requests.Session:
        with self._opening:
            if self._session is None:
                session = requests.Session()
                for scheme in ("http://", "https://"):
                    session.mount(scheme, HTTPAdapter(pool_connections=2, pool_maxsize=_POOL))
                settings = session.merge_environment_settings(self._base_url, {}, None, None, None)
                self._settings = {name: settings[name] for name in ("proxies", "verify", "cert")}
                self._session_headers = {name: str(value) for name, value in session.headers.items()}
                self._session = session
            return self._session


def checked_timeout(timeout: Any) -> Any:
    """`timeout` itself, if it really is one: a call without one may hang for ever."""
    parts = timeout if isinstance(timeout, tuple) else (timeout,)
    good = len(parts) in (1, 2) and all(
        isinstance(part, (int, float)) and not isinstance(part, bool) and 0 < part < float("inf") for part in parts
    )
    if not good:
        raise ConfigurationError(
            f"timeout={timeout!r} is not usable: it takes seconds, or seconds to connect and to read"
        )
    return timeout
