"""What an exception was made of, where that says whether it passes: causes, reasons and arguments, and how far in."""

from __future__ import annotations

import ssl
import urllib.error
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import requests
import urllib3

from kis_retry import TokenIssueError, is_transient_error
from kis_retry.failures import is_transient_failure


def test_an_error_made_from_a_transient_failure_is_judged_by_its_own_type() -> None:
    error = TokenIssueError("no token")
    error.__cause__ = requests.ConnectionError()
    assert not is_transient_error(error)


DROPPED = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (requests.exceptions.SSLError(DROPPED), True),
        (requests.exceptions.ConnectionError(DROPPED), True),
        (urllib.error.URLError(DROPPED), True),
        (urllib3.exceptions.SSLError(DROPPED), True),
        (OSError(DROPPED), False),
        (ValueError(DROPPED), False),
    ],
    ids=repr,
)
def test_a_handshake_that_was_dropped_passes_where_a_library_says_that_it_was_the_network(
    error: Exception, passes: bool
) -> None:
    assert is_transient_error(error) is passes


@pytest.mark.parametrize("inner", [ValueError("redirect"), requests.exceptions.InvalidSchema()])
def test_an_error_that_wraps_another_is_as_good_as_what_it_wraps(inner: Exception) -> None:
    assert is_transient_error(urllib.error.URLError(inner)) is False
    assert is_transient_error(urllib.error.URLError(TimeoutError())) is True


def test_a_time_out_while_a_certificate_error_is_handled_passes() -> None:
    error = requests.exceptions.ReadTimeout()  # of the request to another host
    error.__context__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    assert is_transient_error(error)


def test_a_certificate_error_is_found_where_a_library_hides_it() -> None:
    certificate = ssl.SSLCertVerificationError(1, "certificate verify failed")
    wrapped = requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", certificate))
    caused = httpx.ConnectError("")
    caused.__cause__ = certificate
    assert [is_transient_error(wrapped), is_transient_error(caused)] == [False, False]


def a_long_chain(length: int) -> Exception:
    first = link = requests.ConnectionError()
    for _ in range(length):
        link.__cause__ = requests.ConnectionError()
        link = link.__cause__
    return first


@pytest.mark.parametrize(("links", "passes"), [(10, False), (11, False), (12, True)])
def test_twelve_links_of_a_chain_are_looked_at(links: int, passes: bool) -> None:
    first = link = requests.ConnectionError()
    for _ in range(links - 1):
        link.__cause__ = link = requests.ConnectionError()
    link.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    assert is_transient_error(first) is passes


@pytest.mark.parametrize("first", [True, False])
def test_what_is_near_is_looked_at_before_what_is_far(first: bool) -> None:
    certificate = ssl.SSLCertVerificationError(1, "certificate verify failed")
    parts = (certificate, a_long_chain(50)) if first else (a_long_chain(50), certificate)
    assert not is_transient_error(requests.ConnectionError(*parts))


def a_ring() -> Exception:
    one, other = requests.ConnectionError(), requests.ConnectionError()
    one.__cause__, other.__cause__ = other, one
    one.args = (other, one)
    return one


def a_crowd_of_arguments() -> Exception:
    return requests.ConnectionError(*range(1_000_000))


@pytest.mark.parametrize("make", [lambda: a_long_chain(50_000), a_ring, a_crowd_of_arguments])
def test_a_chain_of_any_length_is_judged_by_its_beginning(make: Callable[[], Exception]) -> None:
    looked_at: list[int] = []

    class Counting(requests.ConnectionError):
        @property
        def reason(self) -> None:
            looked_at.append(1)

    error = make()
    counting = Counting(error)
    counting.__cause__ = error
    assert is_transient_failure(counting)
    assert len(looked_at) == 1


def test_a_reason_that_is_the_error_itself_is_looked_at_once() -> None:
    error = urllib.error.URLError("")
    error.reason = error  # nobody does this, and it must not hang
    assert not is_transient_error(error)


class HostileError(requests.ConnectionError):
    """Nothing can be had of it but its type."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Misplaced(requests.ConnectionError):
    """A class that does not say where it is from."""


def test_an_exception_of_which_nothing_can_be_read_is_not_transient_and_harms_nobody() -> None:
    Misplaced.__module__ = None  # type: ignore[assignment]  # as a C extension may have it
    for error in (HostileError(), Misplaced()):
        assert is_transient_error(error) in (True, False)
