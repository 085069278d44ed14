"""Every public name stands in the reference, and the public names are the settled ones."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

import kis_retry
from pages import LANGUAGES, TEXTS
from public import LEFT_OUT, MODULES, NAMES

THE_FACE = re.findall(
    r"\w+",
    """
    AccessToken AsyncKisClient ConfigurationError Credentials FileTokenStore KisClient KisRetryError MemoryTokenStore
    PageError RateLimiter RedisTokenStore RefreshEvent ResponseError RetryPolicy TokenIssueError TokenIssueLimited
    TokenManager TokenSource TokenStore
    install is_rate_limited_response is_token_expired_error is_token_expired_response is_transient_error
    is_transient_response on_event protect refresh_on_expired_token retry_on_transient_error uninstall unprotect
    """,
)
OTHERS = {"kis_retry.testing.gateway.Counts"}  # which `KisGateway.counts` gives


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_reference_has_each_public_name_once(language: str) -> None:
    text = TEXTS[f"docs/{language}/reference.md"]
    documented = re.findall(r"^\.\. auto(?:function|class|exception):: (\S+)$", text, re.MULTILINE)
    assert sorted(documented) == sorted({*NAMES, *OTHERS})
    left_out = re.findall(r"(\w+)\n(?:   .*\n)*?   :exclude-members: (.*)$", text, re.MULTILINE)
    assert {name: set(members.split(", ")) for name, members in left_out} == LEFT_OUT


def test_the_public_names_are_the_settled_ones() -> None:
    assert kis_retry.__all__ == THE_FACE


@pytest.mark.parametrize("module", [import_module(name) for name in MODULES], ids=MODULES)
def test_a_module_lists_its_names_and_has_them(module: object) -> None:
    names = vars(module)["__all__"]
    assert set(names) <= set(dir(module))
    assert all(hasattr(module, name) for name in names)
