"""
What goes out for one request: its address, its headers, its query.

`requests` prepares every request from scratch: it merges headers, cookies, hooks and queries, takes the address apart
and puts it together again, which is a seventh of what a call costs. Of a batch's reads only the token and the query
change, so what `requests` made of the rest is kept for each transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import requests
from requests.hooks import default_hooks
from requests.utils import check_header_validity

from ..credentials import Credentials

__all__ = ["ApiRequest", "Preparation"]

_MOST_KEPT = 256  # transactions, each at its path; KIS has some 250


class ApiRequest(NamedTuple):
    """
    One request, but for its token.

    Attributes:
        method: "GET" or "POST".
        path: below the host.
        tr_id: its transaction.
        headers: besides those that every request has.
        params: the query.
        body: what is sent as JSON; None for a read.
    """

    method: str
    path: str
    tr_id: str
    headers: Mapping[str, str]
    params: Mapping[str, str] | None
    body: Mapping[str, Any] | None = None


class Preparation:
    """Prepares requests for one host and app key. Safe to share between threads."""

    def __init__(self, credentials: Credentials) -> None:
        self._base_url = credentials.base_url
        self._fixed_headers = {
            "content-type": "application/json",
            "appkey": credentials.app_key,
            "appsecret": credentials.app_secret,
        }
        self._kept: dict[tuple[object, ...], requests.PreparedRequest] = {}

    def url(self, request: ApiRequest) -> str:
        """Where it goes, without the query."""
        return self._base_url + quote(request.path, safe="/%:@-._~!$&'()*+,;=")

    def headers(self, request: ApiRequest) -> dict[str, str]:
        """All of its headers but the token's."""
        return {**self._fixed_headers, "tr_id": request.tr_id, **request.headers}

    def read(self, session: requests.Session, request: ApiRequest, authorization: str) -> requests.PreparedRequest:
        """
        Prepare a `GET` as `session` would, of which only the cookies ever change.

        Raises:
            requests.RequestException: what it would raise.
        """
        kept = self._kept_for(session, request)
        prepared = kept.copy()
        prepared.hooks = default_hooks()  # the copy has the same ones
        check_header_validity(("authorization", authorization))
        prepared.headers["authorization"] = authorization
        if request.params and _is_plain(request.params):
            prepared.url = f"{kept.url}?{urlencode(request.params)}"
        elif request.params:
            prepared.prepare_url(kept.url or "", request.params)
        if len(session.cookies):
            prepared.prepare_cookies(session.cookies)
        return prepared

    def _kept_for(self, session: requests.Session, request: ApiRequest) -> requests.PreparedRequest:
        key = request.path, request.tr_id, *request.headers.items()
        kept = self._kept.get(key)
        if kept is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            kept = session.prepare_request(requests.Request("GET", self.url(request), self.headers(request)))
            kept.headers.pop("Cookie", None)
            kept.prepare_cookies({})  # those of the session are as they are when a request leaves
            self._kept[key] = kept
        return kept


def _is_plain(params: Mapping[str, str]) -> bool:
    """Whether `requests` would encode it as the standard library does: texts by name."""
    return type(params) is dict and all(type(value) is str for value in params.values())
