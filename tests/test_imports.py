"""What an import of the public names costs: what a program may never need is loaded when it is needed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys

import pytest

import kis_retry

OF_OTHERS = {"aiohttp", "asyncio", "filelock", "httpx", "platformdirs", "redis"}
OWN = {
    # settings are read when first needed
    "kis_retry.env_file",
    # a pace is kept and judged, and what an outage is
    *("kis_retry.retry.adaptive", "kis_retry.retry.outage", "kis_retry.retry.pace", "kis_retry.retry.rate"),
    *("kis_retry.retry.redis_ledger", "kis_retry.retry.shared_ledger", "kis_retry.retry.shared_queues"),
    # tokens are kept somewhere
    *("kis_retry.stores.codec", "kis_retry.stores.documents", "kis_retry.stores.file", "kis_retry.stores.folder"),
    *("kis_retry.stores.memory", "kis_retry.stores.private_files", "kis_retry.stores.redis"),
    "kis_retry.stores.redis_documents",
    # and got
    *("kis_retry.tokens.adoption", "kis_retry.tokens.early", "kis_retry.tokens.memory", "kis_retry.tokens.refresher"),
    *("kis_retry.tokens.request", "kis_retry.tokens.worker", "kis_retry.retry.worker"),
    # other programs than this one
    *("kis_retry.cli", "kis_retry.instrumentation", "kis_retry.testing"),
}
FACE = "from kis_retry import KisClient, TokenManager, protect, refresh_on_expired_token"
LIMITER = """
import json, sys, kis_retry
limiter = kis_retry.RateLimiter(kis_retry.Credentials("key", "secret"), rate=1_000, store=kis_retry.{store})
before = set(sys.modules)
limiter.acquire()
print(json.dumps([*set(sys.modules) - before]))
"""


def printed_by(program: str) -> set[str]:
    return {*json.loads(subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60))}


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter loads for it; a measurement of coverage has brought others."""
    return printed_by(
        f"import json, sys; before = set(sys.modules); {statement}; print(json.dumps([*set(sys.modules) - before]))"
    )


@pytest.mark.one_python
def test_the_public_names_load_no_more_than_calls_that_go_well_need() -> None:
    loaded = loaded_by(FACE)
    assert loaded & (OF_OTHERS | OWN) == set()
    assert {"kis_retry.client.client", "kis_retry.retry.engine", "kis_retry.thirdparty.protect"} <= loaded


@pytest.mark.one_python
def test_the_package_alone_loads_nothing() -> None:
    assert {name for name in loaded_by("import kis_retry") if name.startswith("kis_retry.")} == set()


@pytest.mark.one_python
@pytest.mark.parametrize("store", ["MemoryTokenStore()", "FileTokenStore('here')"])
def test_what_a_slot_needs_is_loaded_with_its_limiter(store: str) -> None:
    """A child that is forked while a thread loads a module would wait for that module for ever."""
    loaded = printed_by(LIMITER.format(store=store))
    assert {name for name in loaded if name.startswith(("kis_retry", "filelock"))} == set()


def test_each_of_those_modules_is_there() -> None:
    """One that was moved would be loaded by nobody."""
    assert [name for name in OWN if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("name", ["Clients", "__all_of_it__", "__versions__", "__version", "clients", "~"])
def test_a_name_that_the_package_does_not_have_is_an_attribute_error_that_says_so(name: str) -> None:
    with pytest.raises(AttributeError, match=f"^module 'kis_retry' has no attribute '{name}'$"):
        getattr(kis_retry, name)


def test_the_version_and_the_other_programs_are_there_when_asked_for() -> None:
    assert kis_retry.__version__ == importlib.metadata.version("kis-retry")
    assert kis_retry.testing.__name__ == "kis_retry.testing"
    assert kis_retry.instrumentation.__name__ == "kis_retry.instrumentation"
    assert dir(kis_retry) == sorted({*vars(kis_retry), *kis_retry.__all__, "__version__"})
