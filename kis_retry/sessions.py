"""What both of this package's ways to KIS need of `requests`: sessions after a fork, and words for its errors."""

from __future__ import annotations

import requests
from requests.adapters import HTTPAdapter

__all__ = ["leave_connections_to_parent", "missing_bundle"]


def leave_connections_to_parent(session: requests.Session) -> None:
    """Give its adapters empty pools: two processes on one connection get each other's answers, and no error."""
    for adapter in getattr(session, "adapters", {}).values():  # a stand-in of the user's may have none
        if isinstance(adapter, HTTPAdapter):  # others, as mocks are, keep no connections that requests knows of
            adapter.__setstate__(adapter.__getstate__())  # type: ignore[attr-defined]  # the stubs leave it out


def missing_bundle(error: OSError) -> str | None:
    """Return what the bare `OSError` of `requests` for a TLS file that is not there says; None for any other."""
    text = str(error)
    if isinstance(error, requests.RequestException) or "TLS" not in text or "invalid path:" not in text:
        return None
    return f"{text} (REQUESTS_CA_BUNDLE takes a bundle of certificates to trust, a session's `cert` your own)"
