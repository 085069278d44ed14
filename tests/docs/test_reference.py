"""Every public name stands in the reference, and the public names are the settled ones."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

import kis_retry
from pages import LANGUAGES, TEXTS
from public import FOR_CALLS, FOR_FRONT_ENDS, MODULES, NAMES

THE_FACE = re.findall(
    r"\w+",
    """
    AccessToken ConfigurationError Credentials FileTokenStore KisClient KisRetryError MemoryTokenStore PageError
    RateLimiter RedisTokenStore RefreshEvent ResponseError RetryPolicy TokenIssueError TokenIssueLimited TokenManager
    TokenSource TokenStore
    is_rate_limited_response is_token_expired_error is_token_expired_response is_transient_error is_transient_response
    on_event protect refresh_on_expired_token retry_on_transient_error unprotect
    """,
)
NO_PUBLIC_NAMES = {"kis_retry.testing.counts.Counts"}
"""What stands in the reference too: what `KisGateway.counts` gives."""

every_reference = pytest.mark.parametrize(
    "text", [TEXTS[f"docs/{code}/reference.md"] for code in LANGUAGES], ids=LANGUAGES
)


@every_reference
def test_each_public_name_stands_in_it_once(text: str) -> None:
    documented = re.findall(r"^\.\. auto(?:function|class|exception):: (\S+)$", text, re.MULTILINE)
    assert sorted(documented) == sorted({*NAMES, *NO_PUBLIC_NAMES})


@every_reference
def test_what_is_left_out_is_not_for_users(text: str) -> None:
    left_out = re.findall(r"^ +:exclude-members: (.*)$", text, re.MULTILINE)
    assert {name for names in left_out for name in names.split(", ")} == FOR_CALLS | FOR_FRONT_ENDS


def test_the_face_is_the_settled_one() -> None:
    assert kis_retry.__all__ == sorted(THE_FACE, key=lambda name: (not name[0].isupper(), name))


def test_every_name_can_be_had_and_is_listed() -> None:
    for module in map(import_module, MODULES):
        assert sorted(set(module.__all__)) == sorted(module.__all__)
        assert set(module.__all__) <= set(dir(module))
        assert all(hasattr(module, name) for name in module.__all__)
