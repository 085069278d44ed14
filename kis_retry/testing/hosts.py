"""KIS's own hosts, with a gateway in the place of all that this process sends to them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

import wrapt

from ..errors import ConfigurationError

_places: list[tuple[str | None, frozenset[str]]] = []  # of the gateways in the place of KIS, the last in force


@contextmanager
def divert(url: str | None, hosts: frozenset[str] = frozenset()) -> Iterator[None]:
    """
    Lead to the gateway at `url` what this process sends to KIS's hosts, below all that `kis_retry` sees of a request.

    `hosts` are others that lead to KIS. Sessions that were connected before are led there too. What none of the
    libraries below sends fails where it looks KIS's host up; where `url` is None, everything does.
    """
    _patch()
    _places.append((url, hosts))
    try:
        yield
    finally:
        _places.remove((url, hosts))


def _address(host: object) -> tuple[str, int] | None:
    """Give the address that takes the place of a host; None where it is none of KIS's, or may be reached."""
    if not _places:
        return None
    url, hosts = _places[-1]
    if host not in hosts and "koreainvestment.com" not in str(host):  # of bytes too
        return None
    if url is None:
        raise ConfigurationError(f"{host} is not to be reached from a test without the fixture kis_gateway_env")
    found = urlsplit(url)
    return str(found.hostname), int(found.port or 80)


@cache  # once in a process: what is patched does nothing while no test diverts
def _patch() -> None:
    for name, wrapper in (
        ("http.client:HTTPConnection.putrequest", _connect),
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
    """Connect to the gateway, and leave a connection that was made before the test."""
    address, peer = _address(connection._tunnel_host or connection.host), None  # noqa: SLF001  # behind a proxy
    with suppress(OSError, AttributeError):  # it is gone, or there is none
        peer = connection.sock.getpeername()[:2]
    if address not in {None, peer}:
        if connection.sock is not None:
            connection.sock.close()
        connection.sock = socket.create_connection(address, connection.timeout)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.is_verified = True  # or urllib3 warns that nobody looked at a certificate
    return wrapped(*args, **kwargs) if args or address is None else None


def _handle_httpx(wrapped: Callable[..., Any], transport: Any, args: Any, kwargs: Any) -> Any:
    request = args[0] if args else kwargs["request"]
    address = _address(request.url.host)
    if address is None:
        return wrapped(*args, **kwargs)
    url = request.url.copy_with(scheme="http", host=address[0], port=address[1])
    if hasattr(transport._pool, "_proxy_url"):  # noqa: SLF001  # past the proxy, on a connection of its own
        wrapped = getattr(type(transport)(verify=False), wrapped.__name__)
        request.headers["connection"] = "close"
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
    if _address(host) is not None:
        raise ConfigurationError(f"{host} cannot be reached while a test has a gateway in the place of KIS")
    return wrapped(*args, **kwargs)
