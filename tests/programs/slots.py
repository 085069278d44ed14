"""
Threads that take slots until they are killed or told to stop, and say when: `slots.py STORE RATE THREADS`.

Waits for a line, then prints one for each slot, the thread's number and the machine's monotonic time; a second line
ends it.
"""

from __future__ import annotations

import sys
import threading
import time

from kis_retry import Credentials, RateLimiter
from kis_retry.stores.entry import store_named


def main(store: str, rate: str, threads: str) -> None:
    limiter = RateLimiter(Credentials("a-key", "a-secret"), rate=float(rate), store=store_named(store))
    done = threading.Event()

    def call(number: int) -> None:
        while not done.is_set():
            if limiter.acquire(1):
                sys.stdout.write(f"{number} {time.monotonic()}\n")
                sys.stdout.flush()

    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(threads)):
        threading.Thread(target=call, args=(number,)).start()
    sys.stdin.readline()
    done.set()


if __name__ == "__main__":
    main(*sys.argv[1:])
