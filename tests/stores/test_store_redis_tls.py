"""`rediss://` over real TLS: only a server that proves to be the host of the URL gets password and token."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from kis_retry import AccessToken, RedisTokenStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "0123456789abcdef0123456789abcdef"
TOKEN = AccessToken("eyJ0eXAi.abc.c2ln", datetime(2090, 11, 24, tzinfo=timezone.utc))
CERTIFICATES = Path(__file__).parent / "certificates"  # each signed by itself: one for 127.0.0.1, one for another host


class TlsServer:
    """Something like Redis behind TLS: it answers +OK to everything, and keeps what it was told."""

    def __init__(self, certificate: Path) -> None:
        self.told = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)

    def _serve(self) -> None:
        while True:
            try:
                raw = self._listener.accept()[0]
            except OSError:
                return
            raw.settimeout(10)
            with suppress(OSError), self._context.wrap_socket(raw, server_side=True) as connection:
                while data := connection.recv(65_536):
                    self.told += data
                    connection.sendall(b"+OK\r\n" * max(data.count(b"*"), 1))
            raw.close()


@pytest.fixture
def serve() -> Iterator[Callable[[str], TlsServer]]:
    servers: list[TlsServer] = []

    def start(name: str) -> TlsServer:
        servers.append(TlsServer(CERTIFICATES / f"{name}.pem"))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def store_at(server: TlsServer, trusted: str, **options: str) -> RedisTokenStore:
    wanted = {"ssl_ca_certs": str(CERTIFICATES / f"{trusted}.pem"), **options}
    query = "&".join(f"{name}={value}" for name, value in wanted.items())
    return RedisTokenStore(f"rediss://:hunter2@127.0.0.1:{server.port}?{query}")


def test_a_server_with_a_certificate_of_the_host_is_used(serve: Callable[[str], TlsServer]) -> None:
    server = serve("loopback")
    store_at(server, "loopback").save(KEY, TOKEN)
    assert b"hunter2" in server.told
    assert TOKEN.value.encode() in server.told


@pytest.mark.parametrize(("served", "trusted"), [("elsewhere", "elsewhere"), ("loopback", "elsewhere")])
def test_a_server_of_another_host_or_signer_gets_neither_password_nor_token(
    serve: Callable[[str], TlsServer], served: str, trusted: str
) -> None:
    server = serve(served)
    with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
        store_at(server, trusted).save(KEY, TOKEN)
    assert server.told == b""


@pytest.mark.parametrize("options", [{"ssl_check_hostname": "false"}, {"ssl_cert_reqs": "none"}], ids=str)
def test_only_who_says_so_in_the_url_goes_without_the_check(
    serve: Callable[[str], TlsServer], options: dict[str, str]
) -> None:
    server = serve("elsewhere")
    store_at(server, "elsewhere", **options).save(KEY, TOKEN)
    assert TOKEN.value.encode() in server.told


def test_the_check_does_not_hang_on_the_version_of_redis_py() -> None:
    for url, checked in (("rediss://cache.example", True), ("valkeys://cache.example", True), ("redis://a", None)):
        pool = RedisTokenStore(url).client.connection_pool
        assert pool.connection_kwargs.get("ssl_check_hostname") is checked
