"""KIS as one state machine: what becomes of a request, given the time, the tokens and the faults."""

from __future__ import annotations

import math
import secrets
from collections import Counter, defaultdict, deque
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..credentials import PAPER_URL, REAL_URL, Credentials
from ..token import SEOUL
from .answers import Pages, Request, Response, error_body, failure, json_response, listing, success
from .faults import TOKEN_PATH, Fault, FaultInjection

_IS_PAPER = {urlsplit(REAL_URL).netloc: False, urlsplit(PAPER_URL).netloc: True}
_OF_THE_OTHER = {False: (("V",), "EGW02004"), True: (("T", "J", "C"), "EGW02006")}
"""How a `tr_id` of the other environment begins (as kis_auth.py of the official samples has it), and its refusal."""

_REVOKE_PATH, _APPROVAL_PATH, _HASH_PATH = "/oauth2/revokeP", "/oauth2/Approval", "/uapi/hashkey"
_LIFETIME, _SAME_TOKEN_FOR = 24 * 3600, 6 * 3600
_STATUS = {None: 200, "OPSQ0002": 404, "EGW02004": 500, "EGW02006": 500}
"""HTTP status of an answer by its code; that of every other refusal goes by the path."""


class _Refused(Exception):  # noqa: N818  # no error of the gateway's
    """KIS refuses the request, with the code that is its text."""


class ReceivedRequest(NamedTuple):
    """
    A request that a gateway received, and what became of it. It holds no key, secret, token or account.

    It came in `at` so many seconds of the gateway's clock. `outcome` is "answered", KIS's code where it was refused, or
    its name in `faults_met`.
    """

    at: float
    method: str
    path: str
    tr_id: str
    outcome: str


class Counts(NamedTuple):
    """
    What a gateway has received and answered so far, as a snapshot.

    Of the `calls` (all that is not under `/oauth2/`) some are `answered` normally, "no such data" included, and some
    `refused` in KIS's words; of the `token_requests`, `tokens_issued` and `token_requests_refused`.
    """

    calls: int
    answered: int
    refused: int
    token_requests: int
    tokens_issued: int
    token_requests_refused: int


class IssuedTokens:
    """The tokens of one app key, by the rules of `KisGateway`. Not thread-safe: the gateway's lock guards it."""

    def __init__(self) -> None:
        self.last_issue = -math.inf
        self.dead: dict[str, str] = {}  # the code with which a token is refused before its time
        self.issued_at: dict[str, float] = {}  # by token, in their order

    def issue(self, now: float, *, same: bool = False) -> dict[str, Any]:
        """Answer with the newest token inside its six hours, or dead as it may be with `same`; else with a new one."""
        self.last_issue = now
        token = next(reversed(self.issued_at), None)
        same = same or (now - self.issued_at.get(token or "", 0) < _SAME_TOKEN_FOR and not self.refusal(token, now))
        if token is None or not same:
            # As KIS's are: a JSON web token in three parts, of up to 350 characters.
            token = f"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzUxMiJ9.{secrets.token_urlsafe(120)}.{secrets.token_urlsafe(64)}"
            self.issued_at[token] = now
        expiry = self.issued_at[token] + _LIFETIME
        return {
            "access_token": token,
            # Seoul's time, and not a word of the zone
            "access_token_token_expired": f"{datetime.fromtimestamp(expiry, SEOUL):%Y-%m-%d %H:%M:%S}",
            "token_type": "Bearer",
            "expires_in": int(expiry - now),
        }

    def refusal(self, token: str | None, now: float) -> str | None:
        """Give the `msg_cd` with which a call with this token is refused; None for a good one."""
        if token not in self.issued_at:
            return "EGW00121"
        return self.dead.get(token) or ("EGW00123" if now >= self.issued_at[token] + _LIFETIME else None)


class StateMachine(FaultInjection):
    """What `KisGateway` is made of: its server asks `answer`."""

    def __init__(self, own: Credentials, issue_interval: float, *faults: Any) -> None:
        super().__init__(*faults)
        self.latency = 0.0
        self.learns_keys = False
        self._own = own
        self._secrets = {own.app_key: own.app_secret}
        self._is_closed = False
        self._issue_interval = issue_interval
        # By environment too: the two hosts do not know each other's tokens.
        self._issued = defaultdict[tuple[bool, str], IssuedTokens](IssuedTokens)
        self.current_token: str | None = None
        """The token that was issued last, dead or alive; None before the first."""
        self.approval_keys: list[str] = []
        """The websocket keys issued so far by `/oauth2/Approval`, in order."""
        self.orders: list[dict[str, Any]] = []
        """The bodies of the orders placed so far, in order."""
        self._pages: dict[str, Pages] = {}
        self._calls_seen = 0
        self._expire_at: set[int] = set()
        self.reset_counts()

    def reset_counts(self) -> None:
        """Start `counts`, `faults_met` and `received` afresh. `expire_at` goes on counting."""
        with self._lock:
            self._counts = dict.fromkeys(Counts._fields, 0)
            self._faults_met = Counter[str]()
            self._received = deque[ReceivedRequest](maxlen=100_000)

    def answer(self, request: Request) -> Response | None:
        """Answer a request after the time that it takes; None closes the connection."""
        with self._lock:
            now, is_call = self._now(), not request.path.startswith("/oauth2/")
            self._counts["calls"] += is_call
            self._counts["token_requests"] += request.path == TOKEN_PATH
            self._calls_seen += is_call
            if is_call and self._calls_seen in self._expire_at:
                self.expire()
            fault = self._fault_for("calls" if is_call else "tokens", request.path, now)
            response, outcome = self._apply(fault, request, now) if fault else self._judge(request, now)
            tr_id = request.headers.get("tr_id", "")
            self._received.append(ReceivedRequest(now, request.method, request.path, tr_id, outcome))
            released = self._released
        released.wait((fault and fault.seconds) or self.latency)
        return None if self._is_closed else response

    def _apply(self, fault: Fault, request: Request, now: float) -> tuple[Response | None, str]:
        self._faults_met[fault.name] += 1
        acted = self._judge(request, now)[0] if fault.reached else None
        if fault.reply is None or not fault.refuses:
            return acted if fault.seconds else fault.reply, fault.name
        self._count(request, fault.name)
        return self._signed(request, fault.reply), fault.name

    def _judge(self, request: Request, now: float) -> tuple[Response, str]:
        is_key, more, code = request.path.startswith("/oauth2/"), "", None
        try:
            body, more = self._serve(request, now)
        except _Refused as refused:
            code = str(refused)
            body = error_body(code) if is_key else failure(code)
        self._count(request, code)
        status = _STATUS.get(code, 403 if is_key else self._expired_status)
        return self._signed(request, json_response(status, body), more), code or "answered"

    def _count(self, request: Request, code: str | None) -> None:
        if request.path == TOKEN_PATH:
            self._counts["token_requests_refused" if code else "tokens_issued"] += 1
        elif not request.path.startswith("/oauth2/"):
            self._counts["refused" if code else "answered"] += 1

    def _signed(self, request: Request, response: Response, more: str = "") -> Response:
        """Add KIS's own headers, in lower case: the official sample code relies on it."""
        own = {"tr_id": request.headers.get("tr_id", ""), "tr_cont": more, "gt_uid": f"{self._calls_seen:032x}"}
        return response._replace(headers={**own, **response.headers})

    def _serve(self, request: Request, now: float) -> tuple[dict[str, Any], str]:
        """Give the body of the answer, and whether there is more behind it (`tr_cont`)."""
        if request.path.startswith("/uapi/"):
            if request.path != _HASH_PATH:  # which needs no token (KIS page Hashkey)
                self._check_call(request, now)
            if request.method == "POST":
                return self._act(request), ""
            headers, pages = request.headers, self._pages.get(request.path)
            if pages is not None:
                return pages.answer(request.query, headers.get("appkey", ""), headers.get("tr_cont", ""))
            return listing(request.path, request.query, headers.get("tr_id", "")), ""
        if request.method == "POST" and request.path in {TOKEN_PATH, _REVOKE_PATH, _APPROVAL_PATH}:
            return self._serve_key(request, now), ""
        raise _Refused("OPSQ0002")

    # -- tokens and websocket keys

    def expire(self) -> None:
        """Let every token die now, whatever its stamp says, as if a day had passed: a new one may be had at once."""
        with self._lock:
            for tokens in self._issued.values():
                tokens.last_issue = -math.inf
                tokens.dead = {**dict.fromkeys(tokens.issued_at, "EGW00123"), **tokens.dead}

    def _serve_key(self, request: Request, now: float) -> dict[str, Any]:
        body = request.json()
        if request.path != _REVOKE_PATH and body.get("grant_type") != "client_credentials":
            raise _Refused("EGW00115")
        secret = body.get("secretkey" if request.path == _APPROVAL_PATH else "appsecret")
        self._check_key(request, body.get("appkey"), secret, wrong_secret="EGW00105")  # noqa: S106  # a code
        if request.path == _APPROVAL_PATH:
            self.approval_keys.append(secrets.token_hex(16))
            return {"approval_key": self.approval_keys[-1]}
        tokens = self._issued[self._is_paper(request), body["appkey"]]
        if request.path == _REVOKE_PATH:
            tokens.dead[str(body.get("token"))] = "EGW00121"  # the once-a-minute rule stands
            return {"code": 200, "message": "접근토큰 폐기에 성공하였습니다"}
        if now - tokens.last_issue < self._issue_interval:
            raise _Refused("EGW00133")
        return self._issue(tokens, now)

    def _check_key(self, request: Request, app_key: object, app_secret: object, *, wrong_secret: str) -> None:
        if self.learns_keys and request.headers.get("host") in _IS_PAPER and app_key and app_secret:
            self._secrets.setdefault(str(app_key), str(app_secret))
        known = self._secrets.get(str(app_key))
        if known is None or app_secret != known:
            raise _Refused(wrong_secret if known else "EGW00103")

    def _is_paper(self, request: Request) -> bool:
        return _IS_PAPER.get(request.headers.get("host", ""), self._own.paper)

    def _issue(self, tokens: IssuedTokens, now: float) -> dict[str, Any]:
        body = tokens.issue(now, same=self._hands_same_token_out)
        self._hands_same_token_out = False
        self.current_token = body["access_token"]
        return body

    # -- API calls

    def _check_call(self, request: Request, now: float) -> None:
        """Judge key, secret (observed for a wrong one: EGW00304), token and `tr_id`; keys left out are let pass."""
        headers, is_paper = request.headers, self._is_paper(request)
        app_key = headers.get("appkey", self._own.app_key)
        secret = headers.get("appsecret", self._secrets.get(app_key))
        self._check_key(request, app_key, secret, wrong_secret="EGW00304")  # noqa: S106  # a code
        scheme, _, token = headers.get("authorization", "").partition(" ")
        has_token = scheme == "Bearer" and token.strip()
        code = self._issued[is_paper, app_key].refusal(token.strip(), now) if has_token else "EGW00122"
        beginnings, other = _OF_THE_OTHER[is_paper]
        if code or headers.get("tr_id", "").startswith(beginnings):
            raise _Refused(code or other)

    def _act(self, request: Request) -> dict[str, Any]:
        body = request.json()
        if request.path == _HASH_PATH:
            return {"BODY": body, "HASH": secrets.token_hex(32)}
        if "/trading/order" in request.path:
            self.orders.append(body)
            body = {"KRX_FWDG_ORD_ORGNO": "91252", "ODNO": f"{len(self.orders):010d}", "ORD_TMD": "090000"}
        return success(body)
