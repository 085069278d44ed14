"""KIS as one state machine: what becomes of a request, given the time, the tokens and the faults."""

from __future__ import annotations

import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..credentials import PAPER_URL, REAL_URL
from . import answers
from .answers import Environment, Hung, Listings, Pages, Request, Response, WireResponse
from .faults import TOKEN_PATH, Fault, FaultInjection, Where
from .issued import IssuedTokens

__all__ = ["COUNTERS", "MEMORY", "StateMachine"]

COUNTERS = ("calls", "answered", "refused", "token_requests", "tokens_issued", "token_requests_refused")
MEMORY = 100_000
"""How many requests are remembered; older ones are forgotten."""

HOSTS: dict[str, Environment] = {urlsplit(REAL_URL).netloc: "real", urlsplit(PAPER_URL).netloc: "paper"}
_OF_THE_OTHER: dict[Environment, tuple[tuple[str, ...], str]] = {
    "real": (("V",), "EGW02004"),
    "paper": (("T", "J", "C"), "EGW02006"),
}
"""How a `tr_id` of the other environment begins (as kis_auth.py of the official samples has it), and its refusal."""

_REVOKE_PATH, _APPROVAL_PATH = "/oauth2/revokeP", "/oauth2/Approval"
_SYMBOL_NAMES = ("FID_INPUT_ISCD", "SYMB", "PDNO", "SHT_CD")


class StateMachine(FaultInjection):
    """What `KisGateway` is made of. Its front ends ask `receive`, or `answer` where they can wait."""

    def __init__(
        self, environment: Environment, keys: tuple[str, str], rules: Mapping[str, float], **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.latency = 0.0
        self._environment = environment
        self._app_key, self._app_secret = keys
        self._rules = rules
        self._closed = threading.Event()
        self._secrets = dict([keys])  # of each app key
        self.learns_keys = False
        self._issued: dict[tuple[Environment, str], IssuedTokens] = {}
        self._newest: str | None = None
        self._approval_keys: list[str] = []
        self._listings = Listings()
        self._pages: dict[str, Pages] = {}
        self._expire_at: set[int] = set()
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._faults_met: Counter[str] = Counter()
        self._received: deque[tuple[float, str, str, str, str, str]] = deque(maxlen=MEMORY)
        self._orders: list[dict[str, Any]] = []

    def answer(self, request: Request, is_gone: Callable[[], bool]) -> WireResponse | None:
        """Answer a request after the time that it takes, unless its caller `is_gone`; None closes the connection."""
        response = self.receive(request)
        if isinstance(response, Hung):
            response.released.wait(response.seconds)
            if self._closed.is_set() or is_gone():
                return None
            return response.response or self._resume(request)
        # The gateway's own event, so that closing it cuts the wait short.
        return None if self.latency and self._closed.wait(self.latency) else response

    def receive(self, request: Request) -> Response:
        """Decide what becomes of a request that just came in, without waiting."""
        with self._lock:
            now = self._now()
            where = self._arrive(request, now)
            response, outcome = self._respond(request, where, now)
            tr_id, symbol = request.headers.get("tr_id", ""), _symbol_asked_for(request)
            self._received.append((now, request.method, request.path, tr_id, symbol, outcome))
            return response

    def _resume(self, request: Request) -> WireResponse:
        with self._lock:
            now = self._now()
            return (self._over_limit(request, now) or self._judge(request, now))[0]

    def _arrive(self, request: Request, now: float) -> Where:
        where: Where = "tokens" if request.path.startswith("/oauth2/") else "calls"
        if where == "calls":
            self._counts["calls"] += 1
            self._calls_seen += 1
            if self._calls_seen in self._expire_at:
                self._expire()
        elif request.path == TOKEN_PATH and request.method == "POST":
            self._counts["token_requests"] += 1
        self._update_outages(now)
        return where

    def _respond(self, request: Request, where: Where, now: float) -> tuple[Response, str]:
        for outage in self._outages:
            if outage.until is not None and outage.where in {where, "both"}:
                self._faults_met["outage"] += 1
                return outage.reply, "outage"
        fault = self._next_in_queue(where, request.path)
        over_limit = self._over_limit(request, now) if fault is None and where == "calls" else None
        if over_limit is not None:
            return over_limit
        fault = fault or self._drawn(where, request.path)
        return self._judge(request, now) if fault is None else self._apply_fault(fault, request, now)

    def _over_limit(self, request: Request, now: float) -> tuple[WireResponse, str] | None:
        limits = [limit for part, limit in self._limits.items() if part in request.path]
        for limit in limits:
            if not limit.has_room(now):
                self._faults_met["over_limit"] += 1
                return self._signed(request, limit.refusal), "over_limit"
        for limit in limits:
            limit.taken.append(now)
        return None

    def _apply_fault(self, fault: Fault, request: Request, now: float) -> tuple[Response, str]:
        self._faults_met[fault.name] += 1
        acted = self._judge(request, now)[0] if fault.reached else None
        if isinstance(fault.reply, Hung):
            return fault.reply._replace(response=acted), fault.name
        if fault.reply is None or not fault.refuses:
            return fault.reply, fault.name
        if fault.where == "calls" or request.path == TOKEN_PATH:
            self._counts["refused" if fault.where == "calls" else "token_requests_refused"] += 1
        return self._signed(request, fault.reply), fault.name

    def _judge(self, request: Request, now: float) -> tuple[WireResponse, str]:
        if request.path.startswith("/uapi/"):
            response, outcome = self._judge_call(request, now)
            return self._signed(request, response), outcome
        if request.method != "POST" or request.path not in {TOKEN_PATH, _REVOKE_PATH, _APPROVAL_PATH}:
            return answers.json_response(404, answers.failure("OPSQ0002")), "OPSQ0002"
        answer, code = self._judge_key(request, now)
        if request.path == TOKEN_PATH:
            self._counts["token_requests_refused" if code else "tokens_issued"] += 1
        if code:
            return answers.json_response(403, answers.error_body(code)), code
        return answers.json_response(200, answer), "answered"

    # -- tokens and websocket keys

    def _judge_key(self, request: Request, now: float) -> tuple[dict[str, Any], str | None]:
        """Give the answer to a request for a key, or the code with which it is refused."""
        body = request.json()
        secret = body.get("secretkey" if request.path == _APPROVAL_PATH else "appsecret")
        code = self._wrong_key(request, body.get("appkey"), secret)
        if request.path != _REVOKE_PATH and body.get("grant_type") != "client_credentials":
            code = "EGW00115"
        if code is not None:
            return {}, code
        if request.path == _APPROVAL_PATH:
            self._approval_keys.append(secrets.token_hex(16))
            return {"approval_key": self._approval_keys[-1]}, None
        tokens = self._tokens(self._environment_of(request), body["appkey"])
        if request.path == _REVOKE_PATH:
            tokens.revoke(str(body.get("token")))
            return {"code": 200, "message": "접근토큰 폐기에 성공하였습니다"}, None
        if tokens.must_wait(now):
            return {}, "EGW00133"
        return self._issue(tokens, now, same=self._takes_same_token()), None

    def _wrong_key(self, request: Request, app_key: object, app_secret: object) -> str | None:
        if self.learns_keys and request.headers.get("host") in HOSTS and app_key and app_secret:
            self._secrets.setdefault(str(app_key), str(app_secret))
        known = self._secrets.get(str(app_key))
        if known is None:
            return "EGW00103"
        return None if app_secret == known else "EGW00105"

    def _tokens(self, environment: Environment, app_key: str) -> IssuedTokens:
        return self._issued.setdefault((environment, app_key), IssuedTokens(**self._rules))

    def _environment_of(self, request: Request) -> Environment:
        return HOSTS.get(request.headers.get("host", ""), self._environment)

    def _issue(self, tokens: IssuedTokens, now: float, *, same: bool = False) -> dict[str, Any]:
        token = tokens.issue(now, same=same)
        self._newest = token.value
        return token.body(now)

    def _expire(self) -> None:
        for tokens in self._issued.values():
            tokens.expire()

    def _void_tokens(self) -> None:
        for tokens in self._issued.values():
            tokens.void()

    # -- API calls

    def _judge_call(self, request: Request, now: float) -> tuple[WireResponse, str]:
        if request.path == "/uapi/hashkey" and request.method == "POST":  # needs no token (KIS page Hashkey)
            self._counts["answered"] += 1
            return answers.json_response(200, {"BODY": request.json(), "HASH": secrets.token_hex(32)}), "answered"
        status, msg_cd = self._refusal(request, now)
        if msg_cd is not None:
            self._counts["refused"] += 1
            return answers.json_response(status, answers.failure(msg_cd)), msg_cd
        self._counts["answered"] += 1
        return self._service(request), "answered"

    def _refusal(self, request: Request, now: float) -> tuple[int, str | None]:
        """Judge key, secret (observed for a wrong one: EGW00304), token and `tr_id`; keys left out are let pass."""
        headers, environment = request.headers, self._environment_of(request)
        app_key = headers.get("appkey", self._app_key)
        code = self._wrong_key(request, app_key, headers.get("appsecret", self._secrets.get(app_key)))
        if code is not None:
            return self._expired_status, "EGW00304" if code == "EGW00105" else code
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not value.strip():
            return self._expired_status, "EGW00122"
        code = self._tokens(environment, app_key).judge(value.strip(), now)
        beginnings, other = _OF_THE_OTHER[environment]
        if code is None and headers.get("tr_id", "").startswith(beginnings):
            return 500, other
        return self._expired_status, code

    def _service(self, request: Request) -> WireResponse:
        if request.method == "GET":
            headers, pages = request.headers, self._pages.get(request.path)
            if pages is None:
                return answers.json_response(
                    200, self._listings.answer(request.path, request.query, headers.get("tr_id", ""))
                )
            body, more = pages.answer(request.query, headers.get("appkey", ""), headers.get("tr_cont", ""))
            return answers.json_response(200, body, {"tr_cont": more})
        output = request.json()
        if "/trading/order" in request.path:
            self._orders.append(output)
            output = {"KRX_FWDG_ORD_ORGNO": "91252", "ODNO": f"{len(self._orders):010d}", "ORD_TMD": "090000"}
        return answers.json_response(200, answers.success(output))

    def _signed(self, request: Request, response: WireResponse) -> WireResponse:
        """Add KIS's own headers to the answer to a call, in lower case: the official sample code relies on it."""
        if not request.path.startswith("/uapi/"):
            return response
        tr_id = request.headers.get("tr_id", "")
        own = {"tr_id": tr_id if tr_id.isalnum() else "", "tr_cont": "", "gt_uid": f"{self._calls_seen:032x}"}
        return response._replace(headers={**own, **response.headers})


def _symbol_asked_for(request: Request) -> str:
    """Find the symbol in the query of a GET or in the body of an order; "" where there is none."""
    if request.method != "GET":
        return str(request.json().get("PDNO", "")) if "/trading/" in request.path else ""
    named = {name.upper(): value for name, value in request.query.items()}
    return next((named[name] for name in _SYMBOL_NAMES if named.get(name)), "")
