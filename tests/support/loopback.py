"""A host on loopback that answers what a test tells it to, and remembers what it was sent: `Loopback`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

__all__ = ["TOKEN", "Loopback", "Reply", "Sent"]

TOKEN = "eyJ0eXAi.of-the-test.c2ln"


class Sent(NamedTuple):
    """What a request brought, its names of headers in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """What is answered to one request."""

    payload: Any = {"rt_cd": "0"}  # noqa: RUF012  # nobody changes it
    headers: Mapping[str, str] = {}
    status: int = 200


class Loopback:
    """
    Answers one reply after the other, and the last one ever after; a request for a token gets `TOKEN`.

    Attributes:
        sent: what it was sent so far, token requests aside.
        token_requests: how many there were.
        replies: those to come.
        answer: says what is answered to a request; by default the next of `replies`.
    """

    def __init__(self, *replies: Reply) -> None:
        self.sent: list[Sent] = []
        self.token_requests = 0
        self.replies = list(replies) or [Reply()]
        self.answer: Callable[[Sent], Reply] = self._next_reply
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Loopback:  # noqa: PYI034  # Self is of Python 3.11
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply_to(self, sent: Sent) -> Reply:
        """Say what is answered to a request."""
        if sent.path == "/oauth2/tokenP":
            self.token_requests += 1
            return Reply({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 86_400})
        self.sent.append(sent)
        return self.answer(sent)

    def _next_reply(self, _: Sent) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = dict(parse_qsl(parts.query, keep_blank_values=True))
                reply = outer.reply_to(Sent(self.command, parts.path, query, headers, body))
                answer = json.dumps(reply.payload).encode()
                self.send_response(reply.status)
                for name, value in {"content-length": str(len(answer)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET  # noqa: N815  # the name that http.server looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as in the base class
                """Say nothing."""

        return Handler
