"""`rediss://` over real TLS: only a server that proves to be the host of the URL gets password and token."""

from __future__ import annotations

import ssl
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from kis_retry import AccessToken, RedisTokenStore

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

KEY = "0123456789abcdef0123456789abcdef"
TOKEN = AccessToken("eyJ0eXAi.abc.c2ln", datetime(2090, 11, 24, tzinfo=timezone.utc))
CERTIFICATES = Path(__file__).parent / "certificates"  # each signed by itself: one for 127.0.0.1, one for another host


class TlsServer:
    """Something like Redis behind TLS: it answers +OK to everything, and keeps what it was told."""

    def __init__(self, listen: Callable[[Callable[[socket.socket], object]], str], certificate: str) -> None:
        self.told = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATES / f"{certificate}.pem")
        self._address = listen(self._serve)

    def _serve(self, raw: socket.socket) -> None:
        with self._context.wrap_socket(raw, server_side=True) as connection:
            while data := connection.recv(65_536):
                self.told += data
                connection.sendall(b"+OK\r\n" * max(data.count(b"*"), 1))

    def save(self, trusted: str, **options: str) -> None:
        wanted = {"ssl_ca_certs": str(CERTIFICATES / f"{trusted}.pem"), **options}
        query = "&".join(f"{name}={value}" for name, value in wanted.items())
        store = RedisTokenStore(f"rediss://:hunter2@{self._address}?{query}")
        store.save(KEY, TOKEN)
        store.client.close()


@pytest.mark.parametrize(
    ("certificate", "options"),
    [("loopback", {}), ("elsewhere", {"ssl_check_hostname": "false"}), ("elsewhere", {"ssl_cert_reqs": "none"})],
)
def test_a_server_of_the_host_or_one_that_the_url_says_not_to_check_is_used(
    listen: Callable[[Callable[[socket.socket], object]], str], certificate: str, options: dict[str, str]
) -> None:
    server = TlsServer(listen, certificate)
    server.save(certificate, **options)
    assert b"hunter2" in server.told
    assert TOKEN.value.encode() in server.told


@pytest.mark.parametrize("certificate", ["elsewhere", "loopback"])
def test_a_server_of_another_host_or_signer_gets_neither_password_nor_token(
    listen: Callable[[Callable[[socket.socket], object]], str], certificate: str
) -> None:
    server = TlsServer(listen, certificate)
    with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
        server.save("elsewhere")
    assert server.told == b""
