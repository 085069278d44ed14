"""
One of several workers that share a token: each asks for its part of the symbols.

    python worker.py 1 2    # the first of two

All of its settings come from the environment: see compose.yaml, beside this file.
"""

from __future__ import annotations

import logging
import sys

from kis_retry import KisClient

SYMBOLS = [f"{number:06d}" for number in range(300)]


def main(part: int, parts: int) -> int:
    logging.basicConfig(level=logging.INFO, format=f"worker {part}: %(message)s")
    mine = SYMBOLS[part - 1 :: parts]
    with KisClient.from_env() as client:
        answered = sum(client.fetch_domestic_price(symbol)["rt_cd"] == "0" for symbol in mine)
    print(f"worker {part}: {answered} of {len(mine)} symbols answered")
    return 0 if answered == len(mine) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
