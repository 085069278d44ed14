"""A stand-in for KIS that serves any number of accounts, and notes who sent which token."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler

from answers import EXPIRED, GOOD
from servers import EndingHTTPServer


class Accounts:
    """
    Answers a call whose token is good, whatever it asks for.

    Attributes:
        url: where it listens.
        good: the tokens that are alive.
        sent: the app key and the token of every call, in order.
    """

    def __init__(self) -> None:
        self.good: set[str] = set()
        self.sent: list[tuple[str | None, str]] = []
        accounts = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                token = self.headers["authorization"].removeprefix("Bearer ")
                accounts.sent.append((self.headers["appkey"], token))
                body = json.dumps(GOOD if token in accounts.good else EXPIRED, ensure_ascii=False).encode()
                self.send_response(200 if token in accounts.good else 500)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = EndingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
