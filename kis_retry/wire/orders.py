"""
Orders whose answer was lost: the same one is held back, until somebody has looked what became of it.

Only digests are kept, and the words in which the first one ended: nothing of the call itself.
"""

from __future__ import annotations

import hashlib
import sys
import threading

from ..answers import Meaning
from ..clock import Monotonic
from ..forking import after_fork
from .request import KisRequest, Sent

__all__ = ["LOST", "LostOrders", "is_lost", "kept"]

_AFTER_ANSWER = ("ContentDecodingError", "DecodingError", "TooManyRedirects")  # raised where something was answered
_REMEMBERED = 4096  # orders; a program that loses more of them in a minute has other troubles


def is_lost(sent: Sent) -> bool:
    """Say whether nobody knows what became of an order that ended like this: without a clear verdict of KIS."""
    verdict = sent.verdict
    if sent.redirected and verdict.meaning is not Meaning.GOOD:  # it is of another request
        return True
    if verdict.meaning in (Meaning.TRANSIENT, Meaning.UNCERTAIN):
        return True
    if verdict.error is not None:
        return verdict.error in _AFTER_ANSWER
    return verdict.unanswered


def kept(sent: Sent, otherwise: type[Exception]) -> Sent:
    """Return an outcome without its call: its error is made again, or `otherwise` where that takes other arguments."""
    if sent.error is None or sent.status:  # `urllib` raises an answer
        return sent._replace(response=None, error=None)
    try:
        error = type(sent.error)(str(sent.error))
    except Exception:
        error = otherwise(str(sent.error))
    return Sent(sent.verdict, error=error)


class LostOrders:
    """What this process knows of them. Safe to share between threads."""

    def __init__(self) -> None:
        self._lost: dict[bytes, tuple[float, tuple[str, str | None], Sent]] = {}
        self.remake_lock()

    def note(self, request: KisRequest, ending: Sent) -> None:
        """Remember how an order ended whose answer was lost, as it is `kept`."""
        with self._lock:
            self._lost[_digest(request)] = Monotonic.now(), (request.base_url, request.app_key), ending
            while len(self._lost) > _REMEMBERED:
                self._lost.pop(next(iter(self._lost)))

    def looked(self, request: KisRequest, sent_at: float) -> None:
        """Forget what was lost before `sent_at`: since then the program has seen its orders, and may order again."""
        with self._lock:
            for key, (lost_at, account, _) in list(self._lost.items()):
                if account == (request.base_url, request.app_key) and lost_at < sent_at:
                    del self._lost[key]

    def ending_of(self, request: KisRequest, seconds: float) -> Sent | None:
        """Return how the same order ended, if that was lost less than `seconds` ago."""
        with self._lock:
            lost_at, _, ending = self._lost.get(_digest(request), (0.0, None, None))
        return ending if ending is not None and Monotonic.now() - lost_at < seconds else None

    def remake_lock(self) -> None:
        """Make again, in a forked child, what a thread of the parent may have held."""
        self._lock = threading.RLock()  # guards _lost; a call that is collected in the middle notes its order, too


LOST = LostOrders()
after_fork(sys.modules[__name__], lambda _: LOST.remake_lock())


def _digest(request: KisRequest) -> bytes:
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    # To buy and to sell are one address and may be one body: it is the transaction that tells them apart.
    texts = request.app_key or "", request.tr_id or "", request.method, request.url
    parts = *(text.encode() for text in texts), body
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).digest()
