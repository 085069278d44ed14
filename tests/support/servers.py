"""An HTTP server of a test's own that ends with every connection."""

from __future__ import annotations

import socket
from contextlib import suppress
from http.server import ThreadingHTTPServer
from typing import Any

__all__ = ["EndingHTTPServer"]


class EndingHTTPServer(ThreadingHTTPServer):
    """`server_close` hangs up on everybody, and waits for the threads that served them."""

    daemon_threads = False

    def __init__(self, *given: Any) -> None:
        self._connections: list[socket.socket] = []
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        for connection in self._connections:
            with suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()
