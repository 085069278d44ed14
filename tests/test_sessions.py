"""What sessions of `requests` need: connections that stay the parent's, and errors about files of certificates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from kis_retry.tokens.issuer import leave_connections_to_parent, missing_bundle

MISSING = "Could not find a suitable TLS CA certificate bundle, invalid path: /nowhere/bundle.pem"
TAKES = "(REQUESTS_CA_BUNDLE takes a bundle of certificates to trust, a session's `cert` your own)"


def test_every_adapter_has_empty_pools_then_and_the_settings_that_it_had() -> None:
    with requests.Session() as session:
        session.mount("https://", HTTPAdapter(pool_maxsize=3, max_retries=2))
        session.mount("mock://", requests.adapters.BaseAdapter())  # none of HTTP, as those of tests are
        adapter: Any = session.adapters["https://"]
        adapter.poolmanager.connection_from_url("https://kis.example")
        before = adapter.poolmanager
        leave_connections_to_parent(session)
        assert len(before.pools) == 1, "the parent's stay open"
        assert len(adapter.poolmanager.pools) == 0
        assert (adapter.max_retries.total, adapter.poolmanager.connection_pool_kw["maxsize"]) == (2, 3)
        session.adapters.pop("mock://")


def test_a_stand_in_for_a_session_that_has_no_adapters_is_left_alone() -> None:
    stand_in: Any = SimpleNamespace()
    leave_connections_to_parent(stand_in)
    assert vars(stand_in) == {}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(MISSING), f"{MISSING} {TAKES}"),
        (OSError("Could not find the bundle, invalid path: a"), None),
        (requests.ConnectionError(MISSING), None),
    ],
    ids=repr,
)
def test_an_error_about_a_file_of_certificates_names_it_and_the_variables(error: OSError, said: str | None) -> None:
    assert missing_bundle(error) == said
