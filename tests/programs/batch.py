"""
A process that runs batches with a `KisClient` of its own, configured by nothing but its environment.

For each batch it reads one line of JSON, `{"environ": …, "threads": …, "calls": …}`, and answers "ready"; at the next
line it runs, and answers one line of JSON: what its calls got, what was warned of, and how long it all took.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from typing import Any

from kis_retry import KisClient, on_event


class Warned(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def answer_of(client: KisClient) -> str:
    try:
        return str(client.fetch_domestic_price("005930")["msg_cd"])
    except Exception as error:  # whatever it is, the test wants to see it
        return type(error).__name__


def run(client: KisClient, threads: int, calls: int) -> dict[str, Any]:
    answers: Counter[str] = Counter()
    events: Counter[str] = Counter()
    warned = Warned()
    logging.getLogger("kis_retry").addHandler(warned)
    unsubscribe = on_event(lambda event: events.update([event.name]))

    def work() -> None:
        got = Counter(answer_of(client) for _ in range(calls))
        with lock:
            answers.update(got)

    lock = threading.Lock()
    crowd = [threading.Thread(target=work) for _ in range(threads)]
    began = time.monotonic()
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    elapsed = time.monotonic() - began
    unsubscribe()
    logging.getLogger("kis_retry").removeHandler(warned)
    return {"answers": answers, "events": events, "warnings": warned.messages, "elapsed": elapsed}


def main() -> None:
    client = None
    for line in sys.stdin:
        job = json.loads(line)
        os.environ.update(job["environ"])
        if client is None or not job.get("again"):
            client = KisClient.from_env()
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(run(client, job["threads"], job["calls"])), flush=True)


if __name__ == "__main__":
    main()
