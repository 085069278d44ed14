"""Every public name stands in the reference, and the public names are the settled ones."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

import kis_retry
from pages import LANGUAGES, TEXTS

MODULES = ("kis_retry", "kis_retry.testing", "kis_retry.instrumentation")
NAMES = [f"{module}.{name}" for module in MODULES for name in import_module(module).__all__]
FOR_THE_PACKAGE = {"RateLimiter": {"report", "reserve"}, "KisGateway": {"answer"}}  # methods

THE_FACE = """
    AccessToken AsyncKisClient ConfigurationError Credentials FileTokenStore KisClient KisRetryError MemoryTokenStore
    PageError RateLimiter RedisTokenStore RefreshEvent ResponseError RetryPolicy TokenIssueError TokenIssueLimited
    TokenManager TokenSource TokenStore
    install is_rate_limited_response is_token_expired_error is_token_expired_response is_transient_error
    is_transient_response on_event protect refresh_on_expired_token retry_on_transient_error uninstall unprotect
"""


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_reference_has_each_public_name_once(language: str) -> None:
    text = TEXTS[f"docs/{language}/reference.md"]
    documented = re.findall(r"^\.\. auto(?:function|class|exception):: (\S+)$", text, re.MULTILINE)
    assert sorted(documented) == sorted(NAMES)
    left_out = re.findall(r"(\w+)\n(?:   .*\n)*?   :exclude-members: (.*)$", text, re.MULTILINE)
    assert {name: set(members.split(", ")) for name, members in left_out} == FOR_THE_PACKAGE


def test_the_public_names_are_the_settled_ones_and_each_is_there() -> None:
    assert kis_retry.__all__ == THE_FACE.split()
    for module, _, name in [full.rpartition(".") for full in NAMES]:
        assert hasattr(import_module(module), name)
