"""`KisGateway`, for tests: its front ends. The judging is in `rules`, KIS's own hosts in `hosts`."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Thread, current_thread
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from weakref import WeakSet

from ..credentials import Credentials
from .answers import Pages, Request, require
from .hosts import divert
from .rules import Counts, ReceivedRequest, StateMachine

__all__ = ["Counts", "KisGateway", "ReceivedRequest"]


class KisGateway(StateMachine):
    """
    A KIS of your own to test a batch with: its tokens, its rules, its answers, and its faults on demand.

    `with KisGateway() as gateway:` is real HTTP on loopback, for whatever speaks it; `with KisGateway().mocked() as
    gateway:` stands in for KIS's own hosts too, for code that knows no other. It can be opened once. Every method may
    be called from any thread while it runs.

    A fault meets `times` requests, or all until `heal()`: API calls, or token requests where it is for "tokens". What a
    request met is counted in `faults_met`; one that is dropped or failed counts as nothing else. All of them take by
    name `share`, the part of the requests that meet it, by dice from the `seed`; `path`, a text in the path of those
    requests, as "/trading/order"; and, but for `hang`, `reached=True`: KIS acts on the request, and its answer is lost.

    Args:
        expired_status: HTTP status with which a call is refused for its token (observed: mostly 500, sometimes 200).
        latency: seconds that each answer is delayed.
        host: the address to listen on; "0.0.0.0" is for a network of its own, as of containers: all who reach the
            gateway can use it.
        port: the port to listen on; 0 takes a free one.
        app_key: the app key that it accepts; a random one where it is None.
        app_secret: the app secret that it accepts; a random one where it is None.
        paper: be the paper-trading host, which takes no `tr_id` of real trading; without it, be the real one.
        issue_interval: seconds between two issues (observed: one minute).
        seed: what faults with a `share` start their dice from; None for another course each time.
        clock: seconds since the epoch; `time.time`, looked up at each call, where it is None.

    Raises:
        ValueError: an argument is not usable; the message names it.
    """

    def __init__(
        self,
        *,
        expired_status: int = 500,
        latency: float = 0.0,
        host: str = "127.0.0.1",
        port: int = 0,
        app_key: str | None = None,
        app_secret: str | None = None,
        paper: bool = False,
        issue_interval: float = 60,
        seed: int | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        # Random for each gateway, since token stores go by address and app key, and ports come round again.
        keys = app_key or f"PS{secrets.token_hex(17)}", app_secret or secrets.token_urlsafe(135)
        credentials = Credentials(*keys, "12345678-01", paper=paper)  # which checks the keys
        super().__init__(credentials, issue_interval, expired_status, clock, seed)
        self.latency = latency
        self._address = host, port
        self._server: _HttpServer | None = None
        self._stands_in_for: str | None = None

    def __enter__(self) -> KisGateway:  # noqa: PYI034  # typing.Self is of 3.11
        if self._server is not None:
            raise RuntimeError("a KisGateway can be opened once; make another one")
        self._server = _HttpServer(self, self._address)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def mocked(self) -> Iterator[KisGateway]:
        """
        Answer in the place of KIS's two hosts, whatever library of this process and whatever thread sends to them.

        A token of one host is unknown to the other.
        """
        with self, divert(self.url):
            self._stands_in_for = self._own.base_url
            yield self

    def close(self) -> None:
        """Close every connection; hanging requests get no answer. Closing twice is closing once."""
        self._is_closed = True
        self.heal()
        if self._server is not None:
            self._server.close()

    @property
    def url(self) -> str:
        """The base URL; the real host's where it is mocked."""
        if self._server is None:
            raise RuntimeError("this KisGateway is not open: use it in a with statement")
        return self._stands_in_for or self._server.url

    @property
    def credentials(self) -> Credentials:
        """Credentials made for this gateway; no other one knows them."""
        return replace(self._own, base_url=self.url)

    @property
    def counts(self) -> Counts:
        """What has been received and answered so far."""
        with self._lock:
            return Counts(**self._counts)

    @property
    def faults_met(self) -> dict[str, int]:
        """
        How many requests met which fault so far, as a snapshot and without those that none has met.

        By KIS's code ("EGW00201") for what was refused on demand, and "over_limit", "dropped", "hung", "HTTP 503" (by
        its status) and "outage". A refusal of an expired token is no fault and in `counts` alone.
        """
        with self._lock:
            return dict(self._faults_met)

    @property
    def received(self) -> list[ReceivedRequest]:
        """The last 100,000 requests of every kind, in order. What they carried is not kept."""
        with self._lock:
            return list(self._received)

    @property
    def arrivals(self) -> list[float]:
        """When each API call came in, in seconds of the gateway's clock, for tests of a pace."""
        return [request.at for request in self.received if not request.path.startswith("/oauth2/")]

    def expire_at(self, *calls: int) -> None:
        """Do what `expire` does just before the n-th API call, counted from 1 over the gateway's life."""
        with self._lock:
            to_come = f"numbers of calls to come, from {self._calls_seen + 1}"
            require(all(call > self._calls_seen for call in calls), "calls", calls, to_come)
            self._expire_at.update(calls)

    def issue_elsewhere(self) -> dict[str, Any]:
        """
        Issue a token as to another process with the same app key, and give back what that was told.

        It may be had within the minute, and another one not within the next. Counted nowhere.
        """
        with self._lock:
            return self._issue(self._issued[self._own.paper, self._own.app_key], self._now())

    def accept(self, app_key: str, app_secret: str) -> None:
        """Accept another app key beside its own, with tokens of its own."""
        with self._lock:
            self._secrets[app_key] = app_secret

    def list_pages(
        self, path: str, pages: int = 3, rows: int = 10, *, cursor: str = "ctx_area_nk100 ctx_area_fk100"
    ) -> None:
        """
        Answer a `GET` of this path in so many pages of so many rows.

        A request without the header `tr_cont: N` gets the first page, one with it the page of its cursor. The response
        header `tr_cont` is "F" on the first, "M" on each other page that has more behind it, and "D" on the last.
        `output1` has rows as `{"row": "1", "pdno": "000001"}`, counted through all pages.

        `cursor` has the fields that lead on, as "nk200 fk200", "keyb" or "cts"; without any, `tr_cont: N` alone leads
        on, to the page after the last that this app key was given for this query.
        """
        with self._lock:
            self._pages["/" + path.lstrip("/")] = Pages(pages, rows, cursor)


class _HttpServer(ThreadingTCPServer):
    """Real HTTP: one thread a connection, 2,700 calls a second on two cores (measured)."""

    allow_reuse_address = os.name == "posix"  # elsewhere that would let two listen at once
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, gateway: StateMachine, address: tuple[str, int]) -> None:
        self.gateway = gateway
        self._connections: WeakSet[socket.socket] = WeakSet()
        super().__init__(address, _Handler)
        host, port = self.socket.getsockname()
        # What listens everywhere is reached on loopback.
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104  # told apart
        Thread(target=self.serve_forever, name="kis-gateway", daemon=True).start()

    def close(self) -> None:
        """Stop listening, and break every connection."""
        with suppress(OSError):  # wakes who waits for connections; a child that was forked meanwhile keeps the socket
            self.socket.shutdown(socket.SHUT_RDWR)
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # callers go away
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # all leaves in one piece: a head by itself would wait for the other side's acknowledgement
    server: _HttpServer

    def do_GET(self) -> None:
        current_thread().name = "kis-gateway-connection"
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.send_error(400)
            return
        target, _, query = self.path.partition("?")
        path = "/" + unquote(urlsplit(target).path).lstrip("/")  # libraries write "//uapi/…"
        headers = {name.lower(): value.strip() for name, value in self.headers.items()}
        named = dict(parse_qsl(query, keep_blank_values=True))
        request = Request(self.command, path, named, headers, self.rfile.read(int(length)))
        response = self.server.gateway.answer(request)
        if response is None:
            self.close_connection = True
            return
        self.send_response_only(response.status)
        for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.body)

    do_POST = do_GET  # noqa: N815  # the name that http.server looks for

    def log_message(self, *_: object) -> None:
        """Say nothing: `received` has it all."""
