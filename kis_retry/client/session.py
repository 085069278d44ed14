"""
The way to KIS's host: a session of `requests`, a client of `httpx`, and what both are given to send.

A client's own session reads the environment's proxies and certificates once: `requests` looks them up for each request,
which costs more than the request. One that the user gives is used as it is.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

from ..credentials import Credentials
from ..errors import ConfigurationError, ResponseError
from ..token import AccessToken
from .endpoints import Answer, Call

if TYPE_CHECKING:
    import httpx

__all__ = ["Timeout", "answer_of", "arguments_of", "import_httpx", "new_httpx", "new_session", "valid_timeout"]

Timeout = float | tuple[float, float]

_POOL = 64  # connections kept; more threads than that work too, without keeping theirs


def new_session(base_url: str) -> requests.Session:
    """Open a session with what the environment says of proxies and certificates for one host; netrc is not read."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_POOL))
    settings = session.merge_environment_settings(base_url, {}, None, None, None)
    session.proxies, session.verify, session.cert = settings["proxies"], settings["verify"], settings["cert"]
    session.trust_env = False
    return session


def import_httpx() -> Any:
    """Import httpx, or say how to install it."""
    try:
        import httpx
    except ImportError as error:
        raise ImportError(
            "AsyncKisClient needs httpx: pip install '.[async]' in a clone, or pip install httpx"
        ) from error
    return httpx


def new_httpx() -> httpx.AsyncClient:
    """Open a client with the environment's proxies, and the certificates that `requests` would take."""
    module = import_httpx()
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    verify: ssl.SSLContext | bool = True
    if bundle:
        try:
            is_folder = Path(bundle).is_dir()
            verify = ssl.create_default_context(
                cafile=None if is_folder else bundle, capath=bundle if is_folder else None
            )
        except OSError as error:
            raise ConfigurationError(
                f"REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names {bundle}, which holds no certificates that can be read"
            ) from error
    client: httpx.AsyncClient = module.AsyncClient(verify=verify, limits=module.Limits(max_connections=_POOL))
    return client


def arguments_of(call: Call, credentials: Credentials, token: AccessToken) -> dict[str, Any]:
    """Give what both libraries take for one request."""
    on_paper = credentials.paper and call.tr_id[0] in "TJC"  # KIS: only those of trading have another name there
    headers = {
        "content-type": "application/json",
        "authorization": token.bearer,
        "appkey": credentials.app_key,
        "appsecret": credentials.app_secret,
        "tr_id": "V" + call.tr_id[1:] if on_paper else call.tr_id,
    }
    url = credentials.base_url + call.path
    return {"method": call.method, "url": url, "params": call.query or None, "headers": {**headers, **call.headers}}


def answer_of(call: Call, response: requests.Response | httpx.Response) -> Answer:
    """
    Read an answer.

    Raises:
        ResponseError: it is no JSON object.
    """
    try:
        payload = response.json()
    except (ValueError, RecursionError):  # the latter: brackets without end
        payload = None
    if isinstance(payload, dict):
        return Answer(payload, response.headers.get("tr_cont"))
    status = response.status_code
    said = f"{call.path} answered HTTP {status} without a JSON object; a proxy or another host in between?"
    raise ResponseError(said, status=status)


def valid_timeout(timeout: Any) -> tuple[float, float]:
    """Give the seconds to connect and to read; a call without a time limit may hang for ever."""
    parts = timeout if isinstance(timeout, tuple) and len(timeout) == 2 else (timeout, timeout)
    if all(type(part) in (int, float) and 0 < part < float("inf") for part in parts):
        return parts
    raise ConfigurationError(f"timeout={timeout!r} is not usable: it takes seconds, or seconds to connect and to read")
