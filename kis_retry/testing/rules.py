"""KIS as one state machine: what becomes of a request, given the time, the tokens and the faults. No I/O, no wait."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .counts import COUNTERS
from .faults import Effect, FaultInjection, FaultPlan, Garble, Hang, Refuse, Where
from .issued import TokenBook
from .listings import Catalogue, success
from .wire import Answer, Dropped, Hung, Realm, Request, Verdict, failure, json_answer, verdict_body

__all__ = ["StateMachine"]

_TOKEN_PATH = "/oauth2/tokenP"  # noqa: S105  # a path
_REVOKE_PATH = "/oauth2/revokeP"


@dataclass
class _Schedule:
    """At which API calls the token has just expired; `seen` counts them over the gateway's life."""

    seen: int = 0
    calls: set[int] = field(default_factory=set)

    def next_expires(self) -> bool:
        self.seen += 1
        return self.seen in self.calls


class StateMachine(FaultInjection):
    """
    What `KisGateway` is made of; its doors use `receive` and `resume`.

    Args:
        expired_status: as in `KisGateway`.
        rate_limit: as in `KisGateway`.
        clock: as in `KisGateway`.
        rules: the three of `TokenBook`.
    """

    def __init__(
        self, expired_status: int, rate_limit: int | None, clock: Callable[[], float] | None, rules: Mapping[str, float]
    ) -> None:
        self._expired_status = expired_status
        self._rate_limit = rate_limit
        self._clock = clock
        # Random for each gateway, since token stores go by address and app key, and ports come round again.
        self._app_key, self._app_secret = f"PS{secrets.token_hex(17)}", secrets.token_urlsafe(135)
        self._lock = threading.Lock()  # guards everything below
        self._books: dict[Realm, TokenBook] = {"real": TokenBook(**rules), "paper": TokenBook(**rules)}
        self._newest: str | None = None
        self._catalogue = Catalogue()
        self._faults = FaultPlan()
        self._schedule = _Schedule()
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._accepted: deque[float] = deque()
        self._orders: list[dict[str, Any]] = []

    def receive(self, request: Request) -> Verdict:
        """What becomes of a request that just came in; for doors."""
        with self._lock:
            where = self._arrive(request)
            effect = self._faults.take(where) if where else None
            return self._judge(request) if effect is None else self._suffer(effect, request)

    def resume(self, request: Request) -> Answer:
        """Judge a request that hung on its way; for doors."""
        with self._lock:
            return self._judge(request)

    def _arrive(self, request: Request) -> Where | None:
        if not request.path.startswith("/oauth2/"):
            self._counts["calls"] += 1
            if self._schedule.next_expires():
                self._expire()
            return "calls"
        if request.path == _TOKEN_PATH and request.method == "POST":
            self._counts["token_requests"] += 1
            return "tokens"
        return None

    def _suffer(self, effect: Effect, request: Request) -> Verdict:
        if isinstance(effect, Refuse):
            is_token_request = request.path == _TOKEN_PATH
            self._counts["token_requests_refused" if is_token_request else "refused"] += 1
            return self._answer(request, effect.status, effect.body)
        if isinstance(effect, Garble):
            kind = "text/html" if effect.body.lstrip().startswith(b"<") else "application/json; charset=utf-8"
            return Answer(effect.status, effect.body, {"Content-Type": kind})
        answer = self._judge(request) if effect.reached else None
        return Hung(effect.seconds, self._faults.released, answer) if isinstance(effect, Hang) else Dropped()

    def _judge(self, request: Request) -> Answer:
        if request.path.startswith("/uapi/"):
            return self._judge_call(request)
        if request.method == "POST" and request.path == _TOKEN_PATH:
            return self._judge_token_request(request)
        if request.method == "POST" and request.path == _REVOKE_PATH:
            return self._revoke(request)
        return self._answer(request, 404, failure("EGW00202", "없는 서비스 주소입니다."))

    # -- tokens

    def _judge_token_request(self, request: Request) -> Answer:
        now = self._now()
        body = request.json()
        code = "EGW00115" if body.get("grant_type") != "client_credentials" else self._wrong_key(body)
        if code is None and self._books[request.realm].must_wait(now):
            code = "EGW00133"
        if code is not None:
            self._counts["token_requests_refused"] += 1
            return self._answer(request, 403, verdict_body(code))
        self._counts["tokens_issued"] += 1
        return self._answer(request, 200, self._issue(request.realm, now, same=self._faults.take_same_token()))

    def _wrong_key(self, body: Mapping[str, Any]) -> str | None:
        if body.get("appkey") != self._app_key:
            return "EGW00103"
        return None if body.get("appsecret") == self._app_secret else "EGW00105"

    def _issue(self, realm: Realm, now: float, *, same: bool = False) -> dict[str, Any]:
        token = self._books[realm].issue(now, same=same)
        self._newest = token.value
        return token.body(now)

    def _revoke(self, request: Request) -> Answer:
        body = request.json()
        code = self._wrong_key(body)
        if code is not None:
            return self._answer(request, 403, verdict_body(code))
        self._books[request.realm].revoke(str(body.get("token")))
        return self._answer(request, 200, {"code": 200, "message": "접근토큰 폐기에 성공하였습니다"})

    def _expire(self) -> None:
        for book in self._books.values():
            book.expire()

    # -- API calls

    def _judge_call(self, request: Request) -> Answer:
        now = self._now()
        if self._is_too_fast(now):
            return self._answer(request, 500, failure("EGW00201"))
        if request.path == "/uapi/hashkey" and request.method == "POST":  # needs no token (KIS page Hashkey)
            body: dict[str, Any] = {"BODY": request.json(), "HASH": secrets.token_hex(32)}
        else:
            msg_cd = self._token_refusal(request, now)
            if msg_cd is not None:
                self._counts["refused"] += 1
                return self._answer(request, self._expired_status, failure(msg_cd))
            body = self._service(request)
        self._counts["answered"] += 1
        return self._answer(request, 200, body)

    def _token_refusal(self, request: Request, now: float) -> str | None:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not value.strip():
            return "EGW00122"
        return self._books[request.realm].judge(value.strip(), now)

    def _service(self, request: Request) -> dict[str, Any]:
        if request.method == "GET":
            return self._catalogue.answer(request.path, request.query)
        if "/trading/order" not in request.path:
            return success(request.json())
        self._orders.append(request.json())
        number = f"{len(self._orders):010d}"
        return success({"KRX_FWDG_ORD_ORGNO": "91252", "ODNO": number, "ORD_TMD": "090000"})

    def _is_too_fast(self, now: float) -> bool:
        if self._rate_limit is None:
            return False
        while self._accepted and now - self._accepted[0] >= 1:
            self._accepted.popleft()
        if len(self._accepted) >= self._rate_limit:
            return True
        self._accepted.append(now)
        return False

    def _answer(self, request: Request, status: int, body: Mapping[str, Any]) -> Answer:
        if not request.path.startswith("/uapi/"):
            return json_answer(status, body)
        tr_id = request.headers.get("tr_id", "")
        # In lower case, as KIS sends its own headers and nobody else's: its sample code goes by that.
        own = {"tr_id": tr_id if tr_id.isalnum() else "", "tr_cont": "", "gt_uid": f"{self._schedule.seen:032x}"}
        return json_answer(status, body, own)

    def _now(self) -> float:
        return time.time() if self._clock is None else self._clock()
