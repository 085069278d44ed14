"""
Real HTTP for a gateway: HTTP/1.1 by hand, one thread a connection.

`http.server` reads headers with the e-mail parser, which alone costs more than everything here.
"""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from .wire import Dropped, Hung, Request, WireResponse, failure, json_response

if TYPE_CHECKING:
    from .gateway import KisGateway

__all__ = ["HttpServer"]

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_MAX_HEAD = 64 * 1024
_MAX_BODY = 1024 * 1024
_BACKLOG = 1024


class HttpServer:
    """
    A gateway listening in threads of its own, from construction to `close`.

    Args:
        gateway: what answers.
        host: an address or a name of this machine.
        port: 0 takes a free one.
    """

    def __init__(self, gateway: KisGateway, host: str, port: int) -> None:
        self._gateway = gateway
        self._listener = _listener(host, port)
        self.url = f"http://{_reachable(host)}:{self._listener.getsockname()[1]}"
        self._stop, self._stopped = socket.socketpair()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()  # guards _connections
        self._thread = threading.Thread(target=self._accept_until_stopped, name="kis-gateway", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and hang up on everybody."""
        with suppress(OSError):  # closed already
            self._stop.shutdown(socket.SHUT_RDWR)  # not `close`: a child that was forked meanwhile keeps it open
        self._thread.join()
        for each in (self._listener, self._stop, self._stopped):
            each.close()
        self._hang_up()

    def _accept_until_stopped(self) -> None:
        with selectors.DefaultSelector() as selector:
            for each in (self._listener, self._stopped):
                selector.register(each, selectors.EVENT_READ)
            while all(key.fileobj is self._listener for key, _ in selector.select()):
                with suppress(OSError):  # gone before it was accepted
                    self._accept()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(True)  # on some systems it is as the listener is
        thread = threading.Thread(target=self._serve, args=(connection,), name="kis-gateway-connection", daemon=True)
        try:
            with self._lock:  # so that none is done before it is remembered
                thread.start()
                self._connections[thread] = connection
        except RuntimeError:  # as many threads as the system allows
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        """Serve one connection to its end."""
        try:
            with connection, suppress(OSError):  # the other side went away
                try:
                    _Connection(self._gateway, connection).serve()
                finally:
                    connection.shutdown(socket.SHUT_WR)  # not `close` alone, as above
        finally:
            with self._lock:
                del self._connections[threading.current_thread()]

    def _hang_up(self) -> None:
        """Break every open connection and wait until its thread has closed it."""
        with self._lock:
            connections = list(self._connections.items())
        for _, connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread, _ in connections:
            thread.join(timeout=5)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family is socket.AF_INET6 and socket.has_dualstack_ipv6()  # "::" is every address of this machine
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    listener.setblocking(False)  # or a connection that is gone before it is accepted keeps `close` waiting
    return listener


def _reachable(host: str) -> str:
    """The address under which this machine reaches what listens on `host`, as it stands in a URL."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # told apart, not bound
    return f"[{host}]" if ":" in host else host


class _BadRequestError(Exception):
    """Not HTTP/1.1 as the callers of KIS speak it; the text says why."""


class _Connection:
    def __init__(self, gateway: KisGateway, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._gateway = gateway
        self._socket = connection
        self._buffer = b""
        self._last = False

    def serve(self) -> None:
        while not self._last and self._serve_one():
            pass

    def _serve_one(self) -> bool:
        try:
            request = self._read()
            response = None if request is None else self._respond(request)
        except _BadRequestError as error:
            self._last = True
            response = json_response(400, failure("EGW00101", str(error)))
        if response is None:
            return False
        self._send(response)
        return True

    def _respond(self, request: Request) -> WireResponse | None:
        gateway = self._gateway
        response = gateway.receive(request)
        if isinstance(response, Dropped):
            return None
        if isinstance(response, Hung):
            response.released.wait(response.seconds)
            if gateway.wait(0) or self._is_gone():
                return None
            return gateway.resume(request) if response.response is None else response.response
        # The gateway's own event, so that closing it cuts the wait short.
        return None if gateway.latency and gateway.wait(gateway.latency) else response

    def _is_gone(self) -> bool:
        self._socket.setblocking(False)
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        finally:
            self._socket.setblocking(True)

    def _send(self, response: WireResponse) -> None:
        lines = [f"HTTP/1.1 {response.status} {_PHRASES.get(response.status, '')}"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        lines.append(f"Content-Length: {len(response.body)}")
        if self._last:
            lines.append("Connection: close")
        self._socket.sendall("\r\n".join([*lines, "\r\n"]).encode("latin-1") + response.body)

    def _read(self) -> Request | None:
        """The next request; None where the other side has hung up."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise _BadRequestError("the headers are too long")
            if not self._receive():
                return None
        method, target, version, headers = _parse_head(self._buffer[:end].decode("latin-1"))
        length = _body_length(headers)
        self._buffer = self._buffer[end + 4 :]
        if length and "expect" in headers:
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(self._buffer) < length:
            if not self._receive():
                return None
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        wish = headers.get("connection", "").lower()
        self._last = "close" in wish or (version == "HTTP/1.0" and "keep-alive" not in wish)
        path, _, query = target.partition("?")
        return Request(method, clean_path(path), dict(parse_qsl(query, keep_blank_values=True)), headers, body)

    def _receive(self) -> bool:
        data = self._socket.recv(65536)
        self._buffer += data
        return bool(data)


def clean_path(path: str) -> str:
    """The path with one slash in front, since libraries write "//uapi/…" and KIS does not mind."""
    return "/" + unquote(path).lstrip("/")


def _parse_head(head: str) -> tuple[str, str, str, dict[str, str]]:
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] not in {"HTTP/1.1", "HTTP/1.0"} or not words[1].startswith("/"):
        raise _BadRequestError("the first line is not a request of HTTP/1.1")
    if words[0] not in {"GET", "POST"}:
        raise _BadRequestError("the method is neither GET nor POST")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _BadRequestError("a header line has no name")
        headers[name.lower()] = value.strip()
    return words[0], words[1], words[2], headers


def _body_length(headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise _BadRequestError("a body needs a Content-Length")
    text = headers.get("content-length", "0")
    # By its length first: a number of thousands of digits is not converted, Python refuses that.
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_MAX_BODY)) or int(text) > _MAX_BODY:
        raise _BadRequestError("the Content-Length is not a number of bytes up to a megabyte")
    return int(text)
