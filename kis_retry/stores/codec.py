"""What an entry of a token looks like: JSON, believed in nothing."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from ..token import AccessToken

__all__ = ["MAX_ENTRY", "decode", "encode"]

MAX_ENTRY = 16 * 1024
"""Characters that an entry may have; KIS's tokens have at most 350 (tokenP page)."""

_VERSION = 1


def encode(key: str, token: AccessToken) -> str:
    """Write an entry: JSON, with the key, so that one copied to another place is seen to be foreign."""
    expires_at = token.expires_at.isoformat()
    return json.dumps({"version": _VERSION, "key": key, "access_token": token.value, "expires_at": expires_at})


def decode(data: str | bytes, key: str) -> AccessToken | None:
    """
    Read an entry; None for anything that `encode` did not write for `key`. Never raises.

    Damage that is caught: not JSON, oversized, another version or key, a date that is naive or out of this world, a
    token that is no plain ASCII word and so could break out of a header.
    """
    try:
        if len(data) > MAX_ENTRY:
            return None
        return _token_of(json.loads(data if isinstance(data, str) else data.decode()), key)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def _token_of(entry: Any, key: str) -> AccessToken | None:
    version = entry.get("version") if isinstance(entry, dict) else None
    if type(version) is not int or version != _VERSION or entry.get("key") != key:  # `True == 1`, and 1.0 too
        return None
    stamp = entry.get("expires_at")
    expires_at = datetime.fromisoformat(stamp)
    # What fromisoformat takes differs between Pythons; what isoformat writes does not.
    if expires_at.isoformat() != stamp:
        return None
    return AccessToken(entry.get("access_token"), expires_at)
