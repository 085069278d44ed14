"""What an import of the public names costs: what a program may never need is loaded when it is needed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys

import pytest

import kis_retry

LATER = {
    *("aiohttp", "asyncio", "decimal", "dotenv", "filelock", "httpx", "platformdirs", "redis", "wrapt"),
    *("kis_retry.cli", "kis_retry.instrumentation", "kis_retry.testing"),  # other programs than this one
    *("kis_retry.client.async_client", "kis_retry.stores.redis"),
    *(f"kis_retry.wire.for_{library}" for library in ("requests", "httpx", "aiohttp", "urllib")),
}
PROGRAM = """
import json, sys
seen = []
import tenacity, requests
seen.append([*sys.modules])
import kis_retry
seen.append([*sys.modules])
from kis_retry import KisClient, TokenManager, protect, refresh_on_expired_token
print(json.dumps([*seen, [*sys.modules]]))
"""


@pytest.mark.one_python
def test_the_public_names_load_little_beside_tenacity_and_requests_and_the_package_alone_nothing() -> None:
    found = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True, timeout=60)
    base, alone, loaded = (set(names) for names in json.loads(found))
    assert {name for name in alone - base if name.startswith("kis_retry.")} == set()
    assert (loaded - base) & LATER == set()
    assert {"kis_retry.client.client", "kis_retry.decorators"} <= loaded
    of_others = {name for name in loaded - base if not name.startswith("kis_retry")}
    assert len(of_others) <= 10, of_others
    assert {name for name in LATER if importlib.util.find_spec(name) is None} == set(), "a module was moved"


@pytest.mark.parametrize("name", ["Clients", "__version"])
def test_a_name_that_the_package_does_not_have_is_an_attribute_error_that_says_so(name: str) -> None:
    with pytest.raises(AttributeError, match=f"^module 'kis_retry' has no attribute '{name}'$"):
        getattr(kis_retry, name)


def test_the_version_and_the_other_programs_are_there_when_asked_for() -> None:
    assert kis_retry.__version__ == importlib.metadata.version("kis-retry")
    assert kis_retry.testing.__name__ == "kis_retry.testing"
    assert kis_retry.instrumentation.__name__ == "kis_retry.instrumentation"
    assert dir(kis_retry) == sorted({*vars(kis_retry), *kis_retry.__all__, "__version__"})


def test_no_public_name_is_a_module() -> None:
    """A submodule of that name would take its place as soon as somebody imports it."""
    found = {name for name in kis_retry.__all__ if isinstance(getattr(kis_retry, name), type(sys))}
    assert found == set()
    assert {f"kis_retry.{name}" for name in kis_retry.__all__} & {*sys.modules} == set()
