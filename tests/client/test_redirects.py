"""A redirect is an answer and no instruction: the key, the secret and the token go to the configured host alone."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import requests

from kis_retry import Credentials, KisClient, MemoryTokenStore, RetryPolicy, TokenManager

if TYPE_CHECKING:
    from collections.abc import Callable

    from kis_retry.testing import KisGateway


@pytest.mark.parametrize("given", [True, False], ids=["a given session", "its own session"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_call_does_not_follow_to_another_host(
    status: int, given: bool, gateway: KisGateway, listen: Callable[[Callable[[socket.socket], object]], str]
) -> None:
    def redirect(connection: socket.socket) -> None:
        connection.recv(65_536)
        head = f"HTTP/1.1 {status} X\r\nLocation: {gateway.url}/uapi/elsewhere\r\nContent-Length: 2\r\n\r\n"
        connection.sendall(head.encode() + b"{}")

    keys = gateway.credentials
    credentials = Credentials(keys.app_key, keys.app_secret, base_url=f"http://{listen(redirect)}")
    tokens = TokenManager(gateway.credentials, store=MemoryTokenStore(), policy=RetryPolicy(transient_deadline=0))
    with requests.Session() as session:
        client = KisClient(credentials, tokens=tokens, session=session if given else None)
        with client:
            assert client.get("/uapi/anything", "FHKST01010100") == {}
    assert gateway.counts.calls == 0
