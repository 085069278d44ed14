"""Have a library find a gateway where KIS would be, from its constructor on; the library itself is untouched."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from kis_retry.testing import KisGateway

REAL_HOSTS = ("https://openapi.koreainvestment.com:9443", "https://openapivts.koreainvestment.com:29443")


class Redirect:
    """What `requests`, and `httpx` where it is imported, send to KIS goes to the gateway that is open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
        self._monkeypatch = monkeypatch
        self._adapter = _Adapter(2 * threads)
        self._plain = requests.Session.get_adapter

    def begin(self, gateway: KisGateway) -> None:
        """From now on; a later gateway takes the place of an earlier one."""
        self._adapter.url = gateway.url
        if requests.Session.get_adapter is self._plain:
            adapter, plain = self._adapter, self._plain

            def get_adapter(session: requests.Session, url: str) -> Any:
                return adapter if url.startswith((*REAL_HOSTS, adapter.url)) else plain(session, url)

            self._monkeypatch.setattr(requests.Session, "get_adapter", get_adapter)
            if "httpx" in sys.modules:
                self._begin_httpx()

    def close(self) -> None:
        self._adapter.close()

    def _begin_httpx(self) -> None:
        httpx = sys.modules["httpx"]
        send, send_async = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request

        def redirected(request: Any) -> Any:
            request.url = httpx.URL(elsewhere(str(request.url), self._adapter.url))
            return request

        def handle(transport: Any, request: Any) -> Any:
            return send(transport, redirected(request))

        async def handle_async(transport: Any, request: Any) -> Any:
            return await send_async(transport, redirected(request))

        self._monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)
        self._monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle_async)


def elsewhere(url: str, gateway_url: str) -> str:
    """The address at a gateway of what is meant for KIS; any other stays what it is."""
    for host in REAL_HOSTS:
        if url.startswith(host):
            return gateway_url + url.removeprefix(host)
    return url


class _Adapter(HTTPAdapter):
    """Keeps connections, and takes what is meant for KIS to the gateway that is open."""

    def __init__(self, connections: int) -> None:
        super().__init__(pool_maxsize=connections)
        self.url = ""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        request.url = elsewhere(request.url or "", self.url)
        return super().send(request, *args, **kwargs)
