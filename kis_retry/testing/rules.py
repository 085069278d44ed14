"""KIS as one state machine: what becomes of a request, given the time, the tokens and the faults. No I/O, no wait."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .counts import COUNTERS
from .faults import Fault, FaultPlan, Garble, Hang, Refuse, Where
from .injection import FaultInjection, failing
from .issued import TokenBook
from .limits import LimitPlan
from .listings import Catalogue, success
from .outages import Outage, OutagePlan
from .pages import Listing
from .received import MEMORY, symbol_asked_for
from .wire import Dropped, Hung, Realm, Request, Response, WireResponse, error_body, failure, json_response

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
    What `KisGateway` is made of; its front ends use `receive` and `resume`.

    Args:
        expired_status: as in `KisGateway`.
        clock: as in `KisGateway`.
        seed: as in `KisGateway`.
        keys: app key and app secret.
        rules: the three of `TokenBook`.
    """

    def __init__(
        self,
        expired_status: int,
        clock: Callable[[], float] | None,
        seed: int | None,
        keys: tuple[str, str],
        rules: Mapping[str, float],
    ) -> None:
        self._expired_status = expired_status
        self._clock = clock
        self._app_key, self._app_secret = keys
        self._lock = threading.Lock()  # guards everything below
        self._books: dict[Realm, TokenBook] = {"real": TokenBook(**rules), "paper": TokenBook(**rules)}
        self._newest: str | None = None
        self._catalogue = Catalogue()
        self._listings: dict[str, Listing] = {}
        self._faults = FaultPlan(seed)
        self._outages = OutagePlan()
        self._limits = LimitPlan()
        self._schedule = _Schedule()
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._faults_met: Counter[str] = Counter()
        self._received: deque[tuple[float, str, str, str, str, str]] = deque(maxlen=MEMORY)
        self._orders: list[dict[str, Any]] = []

    def receive(self, request: Request) -> Response:
        """What becomes of a request that just came in; for front ends."""
        with self._lock:
            now = self._now()
            where = self._arrive(request, now)
            response, outcome = self._respond(request, where, now)
            tr_id, symbol = request.headers.get("tr_id", ""), symbol_asked_for(request)
            self._received.append((now, request.method, request.path, tr_id, symbol, outcome))
            return response

    def resume(self, request: Request) -> WireResponse:
        """Judge a request that hung on its way; for front ends."""
        with self._lock:
            now = self._now()
            return (self._over_limit(request, now) or self._judge(request, now))[0]

    def _arrive(self, request: Request, now: float) -> Where | None:
        where: Where | None = None
        if not request.path.startswith("/oauth2/"):
            where = "calls"
            self._counts["calls"] += 1
            if self._schedule.next_expires():
                self._expire()
        elif request.path == _TOKEN_PATH and request.method == "POST":
            where = "tokens"
            self._counts["token_requests"] += 1
        if self._outages:
            if where == "calls":
                self._outages.begin_at(self._schedule.seen, now)
            self._end(self._outages.take_ended(now))
        return where

    def _respond(self, request: Request, where: Where | None, now: float) -> tuple[Response, str]:
        outage = self._outages.under_way(where or "tokens") if self._outages else None
        if outage is not None:
            self._faults_met["outage"] += 1
            return (Dropped() if outage.status is None else _as_sent(failing(outage.status))), "outage"
        if where is None:
            return self._judge(request, now)
        fault = self._faults.next_in_queue(where, request.path) if self._faults else None
        if fault is not None:
            return self._suffer(fault, request, now)
        over_limit = self._over_limit(request, now) if self._limits and where == "calls" else None
        if over_limit is not None:
            return over_limit
        fault = self._faults.drawn(where, request.path) if self._faults else None
        return self._judge(request, now) if fault is None else self._suffer(fault, request, now)

    def _over_limit(self, request: Request, now: float) -> tuple[WireResponse, str] | None:
        over = self._limits.refusal(request.path, now)
        if over is None:
            return None
        self._faults_met["over_limit"] += 1
        return self._answer(request, over.status, over.body), "over_limit"

    def _suffer(self, fault: Fault, request: Request, now: float) -> tuple[Response, str]:
        effect = fault.effect
        self._faults_met[fault.name] += 1
        response = self._judge(request, now)[0] if effect is not None and effect.reached else None
        if isinstance(effect, Refuse):
            self._counts["refused" if fault.where == "calls" else "token_requests_refused"] += 1
            return self._answer(request, effect.status, effect.body), fault.name
        if isinstance(effect, Garble):
            return _as_sent(effect), fault.name
        if isinstance(effect, Hang):
            return Hung(effect.seconds, self._faults.released, response), fault.name
        return Dropped(), fault.name

    def _judge(self, request: Request, now: float) -> tuple[WireResponse, str]:
        if request.path.startswith("/uapi/"):
            return self._judge_call(request, now)
        if request.method == "POST" and request.path == _TOKEN_PATH:
            return self._judge_token_request(request, now)
        if request.method == "POST" and request.path == _REVOKE_PATH:
            return self._revoke(request)
        return self._answer(request, 404, failure("OPSQ0002")), "OPSQ0002"

    # -- tokens

    def _judge_token_request(self, request: Request, now: float) -> tuple[WireResponse, str]:
        body = request.json()
        code = "EGW00115" if body.get("grant_type") != "client_credentials" else self._wrong_key(body)
        if code is None and self._books[request.realm].must_wait(now):
            code = "EGW00133"
        if code is not None:
            self._counts["token_requests_refused"] += 1
            return self._answer(request, 403, error_body(code)), code
        self._counts["tokens_issued"] += 1
        issued = self._issue(request.realm, now, same=self._faults.take_same_token())
        return self._answer(request, 200, issued), "answered"

    def _wrong_key(self, body: Mapping[str, Any]) -> str | None:
        if body.get("appkey") != self._app_key:
            return "EGW00103"
        return None if body.get("appsecret") == self._app_secret else "EGW00105"

    def _issue(self, realm: Realm, now: float, *, same: bool = False) -> dict[str, Any]:
        token = self._books[realm].issue(now, same=same)
        self._newest = token.value
        return token.body(now)

    def _revoke(self, request: Request) -> tuple[WireResponse, str]:
        body = request.json()
        code = self._wrong_key(body)
        if code is not None:
            return self._answer(request, 403, error_body(code)), code
        self._books[request.realm].revoke(str(body.get("token")))
        return self._answer(request, 200, {"code": 200, "message": "접근토큰 폐기에 성공하였습니다"}), "answered"

    def _expire(self) -> None:
        for book in self._books.values():
            book.expire()

    def _end(self, outages: Sequence[Outage]) -> None:
        if any(outage.void_tokens for outage in outages):
            for book in self._books.values():
                book.void()

    # -- API calls

    def _judge_call(self, request: Request, now: float) -> tuple[WireResponse, str]:
        if request.path == "/uapi/hashkey" and request.method == "POST":  # needs no token (KIS page Hashkey)
            self._counts["answered"] += 1
            return self._answer(request, 200, {"BODY": request.json(), "HASH": secrets.token_hex(32)}), "answered"
        msg_cd = self._wrong_header(request) or self._token_refusal(request, now)
        if msg_cd is not None:
            self._counts["refused"] += 1
            return self._answer(request, self._expired_status, failure(msg_cd)), msg_cd
        body, tr_cont = self._service(request)
        self._counts["answered"] += 1
        return self._answer(request, 200, body, tr_cont), "answered"

    def _wrong_header(self, request: Request) -> str | None:
        """A key or secret that is there and wrong (observed for the secret: EGW00304); one left out is let pass."""
        headers = request.headers
        if headers.get("appkey", self._app_key) != self._app_key:
            return "EGW00103"
        return None if headers.get("appsecret", self._app_secret) == self._app_secret else "EGW00304"

    def _token_refusal(self, request: Request, now: float) -> str | None:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not value.strip():
            return "EGW00122"
        return self._books[request.realm].judge(value.strip(), now)

    def _service(self, request: Request) -> tuple[dict[str, Any], str]:
        if request.method == "GET":
            listing = self._listings.get(request.path)
            if listing is not None:
                return listing.page(request.query, request.headers.get("tr_cont", ""))
            return self._catalogue.answer(request.path, request.query, request.headers.get("tr_id", "")), ""
        if "/trading/order" not in request.path:
            return success(request.json()), ""
        self._orders.append(request.json())
        number = f"{len(self._orders):010d}"
        return success({"KRX_FWDG_ORD_ORGNO": "91252", "ODNO": number, "ORD_TMD": "090000"}), ""

    def _answer(self, request: Request, status: int, body: Mapping[str, Any], tr_cont: str = "") -> WireResponse:
        if not request.path.startswith("/uapi/"):
            return json_response(status, body)
        tr_id = request.headers.get("tr_id", "")
        # In lower case, as KIS sends its own headers and nobody else's: its sample code goes by that.
        own = {"tr_id": tr_id if tr_id.isalnum() else "", "tr_cont": tr_cont, "gt_uid": f"{self._schedule.seen:032x}"}
        return json_response(status, body, own)

    def _check_call_to_come(self, method: str, *calls: int) -> None:
        seen = self._schedule.seen
        if any(call <= seen for call in calls):
            raise ValueError(f"{method} takes numbers of calls to come, from {seen + 1}; it got {calls}")

    def _now(self) -> float:
        return time.time() if self._clock is None else self._clock()


def _as_sent(effect: Garble) -> WireResponse:
    return WireResponse(effect.status, effect.body, effect.headers)
