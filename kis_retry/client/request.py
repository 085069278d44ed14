"""One request as the unit that is paced, protected and repeated, whatever method of a client makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from ..errors import ResponseError
from ..retry.decoration import Options
from ..retry.engine import decorate
from .base import ClientBase
from .endpoints import Payload, valid_path, valid_transaction
from .paging import Page
from .preparation import ApiRequest

__all__ = ["RequestingClient"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _each_request(options: Options) -> Callable[[_Method], _Method]:
    """Both decorators on one request, whose events carry the name of what makes it."""

    def decorated(method: _Method) -> _Method:
        return cast("_Method", decorate(method, options))

    return decorated


class RequestingClient(ClientBase):
    """A client that can make one request: a loop over exchanges or pages repeats the one that failed, and no other."""

    @property
    def access_token(self) -> str:
        """The current token as the `authorization` header takes it, with "Bearer " before it."""
        return self.tokens.token().bearer

    @_each_request(Options(refreshes=True, repeats=True, named_by_caller=True))
    def _request(
        self,
        method: str,
        path: str,
        tr_id: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        **headers: str,
    ) -> Payload:
        """The answer to one request."""
        request = ApiRequest(method, valid_path(path), valid_transaction(tr_id), headers, params, body)
        return self._send(request)[0]

    @_each_request(Options(refreshes=True, repeats=True, name="KisClient.pages"))
    def _page(self, path: str, tr_id: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Page:
        """One page, and the header that says whether another follows."""
        return self._send(ApiRequest("GET", valid_path(path), valid_transaction(tr_id), headers, params))

    def _send(self, request: ApiRequest) -> Page:
        answer = self._session.send(request, self.access_token)
        try:
            document = answer.json()
        except (ValueError, RecursionError):  # the latter: brackets without end
            document = None
        if not isinstance(document, dict):
            raise ResponseError(
                f"{request.path} answered HTTP {answer.status_code} without a JSON object; "
                "a proxy or another host in between?",
                status=answer.status_code,
            )
        return document, answer.headers.get("tr_cont")
