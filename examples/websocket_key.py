"""
The key of KIS's websocket (실시간 시세), got, shared and renewed by `TokenManager.approval_key()`.

    pip install kis-retry websockets
    KIS_APP_KEY=… KIS_APP_SECRET=… python websocket_key.py [URL]

KIS is asked for it once: every websocket, thread and process with the same app key opens with the same one, and another
is issued before its 24 hours are over. Without credentials it runs on a KIS of its own (`KisGateway`), beside which a
websocket tells a price to whoever shows the key.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

from kis_retry import ConfigurationError, MemoryTokenStore, TokenManager
from kis_retry.testing import KisGateway

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

URL = "ws://ops.koreainvestment.com:21000"  # real trading; on paper the port is 31000
SYMBOLS = ("005930", "000660")


async def show_prices(tokens: TokenManager, url: str) -> None:
    """Open a websocket for each symbol, and print the first price at which it is traded (H0STCNT0)."""
    from websockets.asyncio.client import connect

    for symbol in SYMBOLS:
        key = await tokens.approval_key_async()  # outside of asyncio: tokens.approval_key()
        header = {"approval_key": key, "custtype": "P", "tr_type": "1", "content-type": "utf-8"}
        subscription = {"header": header, "body": {"input": {"tr_id": "H0STCNT0", "tr_key": symbol}}}
        async with connect(url) as socket:
            await socket.send(json.dumps(subscription))
            async for message in socket:
                if str(message)[0] in "01":  # 0|H0STCNT0|001|005930^093000^71900^…; all else is JSON
                    print(symbol, str(message).split("|")[3].split("^")[2])
                    break


async def show_prices_of(gateway: KisGateway) -> None:
    """Show those of a gateway, on a websocket that stands in for KIS's."""
    from websockets.asyncio.server import serve

    async def answer(socket: ServerConnection) -> None:
        asked = json.loads(await socket.recv())
        if asked["header"]["approval_key"] in gateway.approval_keys:
            await socket.send(f"0|H0STCNT0|001|{asked['body']['input']['tr_key']}^093000^71900")

    async with serve(answer, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await show_prices(TokenManager(gateway.credentials, store=MemoryTokenStore()), f"ws://127.0.0.1:{port}")
    print(f"{len(SYMBOLS)} websockets were opened with {len(gateway.approval_keys)} key")


def main() -> int:
    """Show a few prices of KIS, or of a KIS of its own."""
    try:
        import websockets  # noqa: F401  # is it there?
    except ImportError:
        print("This example needs websockets: pip install websockets", file=sys.stderr)
        return 1
    try:
        tokens = TokenManager.from_env()
    except ConfigurationError as error:
        print(f"Running on a KIS of its own, since {error}")
        with KisGateway() as gateway:
            asyncio.run(show_prices_of(gateway))
    else:
        asyncio.run(show_prices(tokens, sys.argv[1] if len(sys.argv) > 1 else URL))
    return 0


if __name__ == "__main__":
    sys.exit(main())
