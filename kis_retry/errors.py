"""What this package raises. No message holds a key, a secret, a token, a header or a body: it ends up in logs."""

from __future__ import annotations

from typing import Any

__all__ = ["ConfigurationError", "KisRetryError", "PageError", "ResponseError", "TokenIssueError", "TokenIssueLimited"]


class KisRetryError(Exception):
    """Everything this package raises of its own accord is one of these."""

    def __reduce__(self) -> tuple[object, ...]:
        return type(self).__new__, (type(self), *self.args), vars(self)  # past `__init__`, which takes keywords


class ConfigurationError(KisRetryError, ValueError):
    """A setting is missing or out of range; the message names it, what it got and what it takes."""


class ResponseError(KisRetryError):
    """
    A host answered something that is not KIS's JSON object (a proxy's error page, an empty body).

    Raised by `KisClient`; `status` is the HTTP status. The body is left out on purpose.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class PageError(KisRetryError):
    """
    A page of many could not be had, so what came before it is not all there is.

    Raised by `KisClient.pages`; `page` is its number, from 1, and `answer` is KIS's own answer to it.
    """

    def __init__(self, message: str, *, page: int, answer: dict[str, Any]) -> None:
        super().__init__(f"{message} ({answer.get('msg_cd')})" if answer.get("rt_cd") != "0" else message)
        self.page, self.answer = page, answer


class TokenIssueError(KisRetryError):
    """
    No token could be had from `POST /oauth2/tokenP`.

    `code` is KIS's `error_code` ("EGW00103": wrong app key, "EGW00105": wrong secret), None where KIS gave no verdict.
    `retryable` says whether asking again later can help; a wrong key or secret never gets right by itself.
    """

    def __init__(self, message: str, *, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.code, self.retryable = code, retryable


class TokenIssueLimited(TokenIssueError):  # noqa: N818  # the settled name; its base says Error
    """KIS issues one token a minute for an app key, and somebody else just had it (EGW00133; since 2023-10-27)."""
