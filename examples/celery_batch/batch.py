"""
A batch of symbols on Celery: several workers, on one machine or many, that share a token and a pace over Redis.

    pip install '.[redis]' 'celery[redis]'
    export KIS_APP_KEY=… KIS_APP_SECRET=… KIS_TOKEN_STORE=redis://localhost:6379/0
    export CELERY_BROKER_URL=redis://localhost:6379/1
    celery --app batch worker --queues kis-1 --concurrency 4    # as many as you like, on any machine
    python batch.py 005930 000660 035420                        # hand out the symbols, and wait for them

The rate is counted for an app key, so more workers finish sooner until KIS's limit is reached. A second app key has
a queue of its own, and the rates add up: start its workers with its key in the environment and `--queues kis-2`, and
hand out with `CELERY_QUEUES=kis-1,kis-2`.
"""

from __future__ import annotations

import itertools
import os
import sys
from functools import cache

from celery import Celery, group
from celery.result import GroupResult

from kis_retry import KisClient

BROKER = os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/1")
CHUNK = 10  # symbols in a task: what a worker that is killed has to ask for again

app = Celery("batch", broker=BROKER, backend=BROKER)
app.conf.update(
    task_acks_late=True,  # a task is done when its answers are there, and not when it was taken
    task_reject_on_worker_lost=True,  # so a process that was killed gives its task back
    worker_prefetch_multiplier=1,  # no worker sits on tasks that another one could do
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 600},  # after which the tasks of a machine that is gone come back
    result_expires=86_400,
)


@cache
def client() -> KisClient:
    """Make the client of this process, at its first task: key, token store and pace come from the environment."""
    return KisClient.from_env()


@app.task
def fetch_prices(symbols: list[str]) -> dict[str, str]:
    """Ask for the price of each symbol; give what KIS answered, "" where it answered none."""
    answers = {symbol: client().fetch_domestic_price(symbol) for symbol in symbols}
    return {
        symbol: answer["output"]["stck_prpr"] if answer["rt_cd"] == "0" else "" for symbol, answer in answers.items()
    }


def hand_out(symbols: list[str], queues: list[str]) -> GroupResult:
    """Put the symbols in chunks into the queues, one after the other."""
    chunks = [symbols[start : start + CHUNK] for start in range(0, len(symbols), CHUNK)]
    tasks = [fetch_prices.s(chunk).set(queue=queue) for chunk, queue in zip(chunks, itertools.cycle(queues))]
    handed_out: GroupResult = group(tasks).apply_async()
    return handed_out


def main(symbols: list[str]) -> int:
    queues = os.environ.get("CELERY_QUEUES", "kis-1").split(",")
    prices: dict[str, str] = {}
    for answered in hand_out(symbols, queues).get():
        prices |= answered
    for symbol, price in prices.items():
        print(symbol, price or "no answer")
    return 0 if all(prices.values()) and len(prices) == len(set(symbols)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
