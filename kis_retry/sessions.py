"""A `requests.Session` that a user gave, after a fork: its settings stay, the connections are the parent's."""

from __future__ import annotations

import requests
from requests.adapters import HTTPAdapter

__all__ = ["leave_connections_to_parent"]


def leave_connections_to_parent(session: requests.Session) -> None:
    """
    Give every adapter of `session` empty pools, with the settings it has.

    Two processes that talk over one connection get each other's answers: the price of another symbol, and no error.
    """
    for adapter in session.adapters.values():
        if isinstance(adapter, HTTPAdapter):  # others, as mocks are, keep no connections that requests knows of
            adapter.__setstate__(adapter.__getstate__())  # type: ignore[attr-defined]  # the stubs leave it out
