"""KIS's own hosts, with a gateway in their place: for `requests` alone, or for whatever this process sends to them."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import wrapt

from ..credentials import PAPER_URL, REAL_URL
from ..errors import ConfigurationError
from .answers import Hung, Request
from .http_server import read_target
from .rules import StateMachine

if TYPE_CHECKING:
    import requests

__all__ = ["divert", "mock_hosts"]

_LOOPBACK = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\])(:|/|$)")

_urls: list[str | None] = []  # of the gateways in the place of KIS, the last in force


@contextmanager
def mock_hosts(gateway: StateMachine) -> Iterator[None]:
    """Intercept what `requests` sends to KIS's two hosts, with `responses`."""
    import requests

    try:
        import responses
    except ImportError as error:
        raise ImportError("KisGateway().mocked() needs `responses`: pip install 'kis-retry[testing]'") from error

    def respond(request: requests.PreparedRequest) -> tuple[int, dict[str, str], bytes]:
        response = gateway.receive(_read(request))
        if response is None:
            raise requests.ConnectionError("the gateway closed the connection unanswered", request=request)
        if isinstance(response, Hung):
            raise requests.ReadTimeout("the gateway gave no answer in time", request=request)
        time.sleep(gateway.latency)
        # requests hands a mapping on as it is, so the case of the names survives.
        return response.status, {**response.headers, "Content-Length": str(len(response.body))}, response.body

    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add_passthru(_LOOPBACK)
        for url in (REAL_URL, PAPER_URL):
            for method in ("GET", "POST"):
                mock.add_callback(method, re.compile(re.escape(url) + "/"), respond, content_type=None)
        yield


def _read(request: requests.PreparedRequest) -> Request:
    path, query = read_target(request.url or "")
    body = request.body or b""
    headers = {_text(name).lower(): _text(value).strip() for name, value in request.headers.items()}
    headers["host"] = (request.url or "").split("/")[2]
    return Request(
        request.method or "GET", path, query, headers, body if isinstance(body, bytes) else str(body).encode()
    )


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


@contextmanager
def divert(url: str | None) -> Iterator[None]:
    """
    Lead to the gateway at `url` what this process sends to KIS's hosts, below all that `kis_retry` sees of a request.

    Through `requests`, `urllib3`, `urllib.request`, `http.client`, `httpx` and `aiohttp`, and by sessions that were
    connected before. What else would reach KIS fails where it looks the host up; where `url` is None, everything does.
    """
    _patch()
    _urls.append(url)
    try:
        yield
    finally:
        _urls.remove(url)


def _address(host: object) -> tuple[str, int] | None:
    """Give the address that takes the place of a host; None where it is none of KIS's, or may be reached."""
    if not _urls or not str(host).endswith("koreainvestment.com"):
        return None
    if _urls[-1] is None:
        advice = "have it take the fixture kis_gateway_env"
        raise ConfigurationError(f"{host} is not to be reached from this test: {advice}")
    found = urlsplit(_urls[-1])
    return str(found.hostname), int(found.port or 80)


@cache  # once in a process: what is patched does nothing while no test diverts
def _patch() -> None:
    for name, wrapper in (
        ("http.client:HTTPSConnection.connect", _connect),
        ("http.client:HTTPConnection.putrequest", _put_request),
        ("urllib3.connection:HTTPSConnection.connect", _connect),
        ("httpx:HTTPTransport.handle_request", _handle_httpx),
        ("httpx:AsyncHTTPTransport.handle_async_request", _handle_httpx),
        ("httpx2:HTTPTransport.handle_request", _handle_httpx),
        ("httpx2:AsyncHTTPTransport.handle_async_request", _handle_httpx),
        ("aiohttp.client_reqrep:ClientRequest.__init__", _make_aiohttp),
        ("socket:getaddrinfo", _look_up),
    ):
        module, _, method = name.partition(":")
        wrapt.register_post_import_hook(partial(wrapt.wrap_function_wrapper, name=method, wrapper=wrapper), module)


def _connect(wrapped: Callable[..., Any], connection: Any, args: Any, kwargs: Any) -> Any:
    address = _address(connection._tunnel_host or connection.host)  # noqa: SLF001  # the host behind a proxy
    if address is None:
        return wrapped(*args, **kwargs)
    connection.sock = socket.create_connection(address, connection.timeout)
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.is_verified = True  # or urllib3 warns that nobody looked at a certificate
    return None


def _put_request(wrapped: Callable[..., Any], connection: Any, args: Any, kwargs: Any) -> Any:
    """Leave a connection that was made before the test."""
    address, peer = _address(connection._tunnel_host or connection.host), None  # noqa: SLF001  # as above
    with suppress(OSError, AttributeError):  # it is gone, or there is none
        peer = connection.sock.getpeername()[:2]
    if address not in {None, peer}:
        if connection.sock is not None:
            connection.sock.close()
        _connect(wrapped, connection, (), {})
    return wrapped(*args, **kwargs)


def _handle_httpx(wrapped: Callable[..., Any], transport: Any, args: Any, kwargs: Any) -> Any:
    request = args[0] if args else kwargs["request"]
    address = _address(request.url.host)
    if address is None:
        return wrapped(*args, **kwargs)
    if type(transport._pool).__name__.endswith("Proxy"):  # noqa: SLF001  # nothing public says so
        raise ConfigurationError("the gateway of a test is behind no proxy: unset HTTPS_PROXY")
    url = request.url.copy_with(scheme="http", host=address[0], port=address[1])
    rest = {"headers": request.headers, "stream": request.stream, "extensions": request.extensions}
    return wrapped(type(request)(request.method, url, **rest))


def _make_aiohttp(wrapped: Callable[..., Any], request: Any, args: Any, kwargs: Any) -> Any:
    method, url, *rest = args
    address = _address(url.host)
    if address is None:
        return wrapped(*args, **kwargs)
    kwargs |= {"headers": {**(kwargs.get("headers") or {}), "Host": f"{url.host}:{url.port}"}}
    kwargs |= {"proxy": None, "proxy_auth": None, "proxy_headers": None}
    wrapped(method, url.with_scheme("http").with_host(address[0]).with_port(address[1]), *rest, **kwargs)
    request.original_url = url
    return None


def _look_up(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
    host = args[0] if args else kwargs.get("host")
    name = host.decode("latin-1") if isinstance(host, bytes) else host
    if _address(name) is not None:
        raise ConfigurationError(f"{name} cannot be reached while a test has a gateway in the place of KIS")
    return wrapped(*args, **kwargs)
