"""KIS's own hosts, intercepted in `requests` with `responses`."""

from __future__ import annotations

import re
import time
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import requests

from ..credentials import PAPER_URL, REAL_URL
from .http_server import clean_path
from .wire import Dropped, Hung, Realm, Request, WireResponse

try:
    import responses
except ImportError as error:
    raise ImportError("KisGateway().mocked() needs `responses`: pip install 'kis-retry[testing]'") from error

if TYPE_CHECKING:
    from types import TracebackType

    from .gateway import KisGateway

__all__ = ["MockedHosts"]

_REALMS: dict[Realm, str] = {"real": REAL_URL, "paper": PAPER_URL}
_LOOPBACK = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\])(:|/|$)")


class MockedHosts(AbstractContextManager["KisGateway"]):
    """From entering to leaving, `requests` finds the gateway where KIS would be."""

    def __init__(self, gateway: KisGateway) -> None:
        self._gateway = gateway
        self._mock = responses.RequestsMock()
        self._mock.add_passthru(_LOOPBACK)
        for realm, url in _REALMS.items():
            for method in ("GET", "POST"):
                self._mock.add_callback(
                    method,
                    re.compile(re.escape(url) + "/"),
                    partial(self._respond, realm),
                    content_type=None,
                )

    def __enter__(self) -> KisGateway:
        self._gateway.claim(REAL_URL)
        self._mock.start()
        return self._gateway

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mock.stop(allow_assert=False)
        self._gateway.close()

    def _respond(self, realm: Realm, request: requests.PreparedRequest) -> tuple[int, dict[str, str], bytes]:
        answer = self._answer(realm, request)
        # requests hands a mapping on as it is, so the case of the names survives.
        return answer.status, {**answer.headers, "Content-Length": str(len(answer.body))}, answer.body

    def _answer(self, realm: Realm, request: requests.PreparedRequest) -> WireResponse:
        response = self._gateway.receive(_read(request, realm))
        if isinstance(response, Dropped):
            raise requests.ConnectionError("the gateway closed the connection without an answer", request=request)
        if isinstance(response, Hung):
            raise requests.ReadTimeout("the gateway gave no answer in time", request=request)
        if self._gateway.latency:
            time.sleep(self._gateway.latency)
        return response


def _read(request: requests.PreparedRequest, realm: Realm) -> Request:
    url = urlsplit(request.url or "")
    body = request.body or b""
    return Request(
        request.method or "GET",
        clean_path(str(url.path)),
        dict(parse_qsl(str(url.query), keep_blank_values=True)),
        {_text(name).lower(): _text(value).strip() for name, value in request.headers.items()},
        body if isinstance(body, bytes) else str(body).encode(),
        realm,
    )


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
