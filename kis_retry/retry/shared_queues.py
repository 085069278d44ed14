"""One queue and one ledger for all limiters of a process that share a pace, however many are made."""

from __future__ import annotations

import sys
import threading
import weakref
from typing import TYPE_CHECKING

from ..forking import after_fork
from ..stores.documents import documents_of
from ..stores.folder import FileDocuments
from ..stores.redis_documents import RedisDocuments
from .ledger import MemoryLedger
from .shared_ledger import ledger_of
from .slots import SlotQueue

if TYPE_CHECKING:
    from ..stores.base import TokenStore
    from .ledger import Ledger

__all__ = ["shared_queue"]


class _Paces:
    """The paces of one store: a ledger for each key, and a queue for each rate that limiters ask of it."""

    def __init__(self) -> None:
        self.ledgers: dict[str, Ledger] = {}
        self.queues: dict[tuple[str, float], SlotQueue] = {}

    def queue(self, store: TokenStore, key: str, rate: float) -> SlotQueue:
        if (key, rate) not in self.queues:
            if key not in self.ledgers:
                self.ledgers[key] = ledger_of(store, key)
            # Without a pace nothing is to be shared that would be worth a round trip for each call.
            self.queues[key, rate] = SlotQueue(self.ledgers[key] if rate else MemoryLedger(), rate)
        return self.queues[key, rate]


_finding = threading.Lock()  # guards the rest
_of_places: dict[object, _Paces] = {}
_of_objects: weakref.WeakKeyDictionary[object, _Paces] = weakref.WeakKeyDictionary()


def shared_queue(store: TokenStore, key: str, rate: float) -> SlotQueue:
    """The queue of this process for that store, key and rate."""
    with _finding:
        return _paces_of(store).queue(store, key, rate)


def _paces_of(store: TokenStore) -> _Paces:
    documents = documents_of(store)
    if isinstance(documents, FileDocuments):
        return _of_places.setdefault(documents.folder, _Paces())
    if isinstance(documents, RedisDocuments):
        return _of_places.setdefault(documents.url or documents.client, _Paces())
    try:
        return _of_objects.setdefault(documents or store, _Paces())  # they end with the store
    except TypeError:  # somebody's class that cannot be a key: each of its limiters has a pace of its own
        return _Paces()


def _begin_anew(_: object) -> None:
    global _finding
    _finding = threading.Lock()
    for paces in (*_of_places.values(), *_of_objects.values()):
        for queue in paces.queues.values():
            queue.after_fork()


after_fork(sys.modules[__name__], _begin_anew)
