"""
Which protected call is under way here: one `Scope` for each, linked to the one around it.

Kept in a context variable, so threads and tasks have their own, while a function called in a worker thread or a task
by a protected one knows whom it works for.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .token import AccessToken

__all__ = ["CURRENT", "Scope"]


class Scope:
    """
    What is known of a protected call while it runs.

    Attributes:
        name: the qualified name of its function.
        parent: the protected call that it is part of, or None.
        watching: whether it, or one it is part of, wants to know the answers that `requests` and `httpx` receive.
        handed: the last token that a `TokenManager` handed out inside it.
        answer: the last API answer received inside it.
        gave_up: whether a call inside it met a dead token and could not be helped.
        helped: with which token the library behind it, having asked for another one, went on in this attempt.
    """

    __slots__ = ("answer", "gave_up", "handed", "helped", "name", "parent", "watching")

    def __init__(self, name: str, parent: Scope | None, watching: bool) -> None:
        self.name = name
        self.parent = parent
        self.watching: bool = watching or (parent is not None and parent.watching)
        self.handed: AccessToken | None = None
        self.answer: Any = None
        self.gave_up = False
        self.helped: str | None = None

    def tell_parents_it_gave_up(self) -> None:
        """The innermost call handled the expiry; what it could not mend is not tried again further out."""
        scope = self.parent
        while scope is not None:
            scope.gave_up = True
            scope = scope.parent

    def hear(self, answer: Any) -> None:
        """Note an API answer, here and in every call around this one."""
        scope: Scope | None = self
        while scope is not None:
            scope.answer = answer
            scope = scope.parent


CURRENT: ContextVar[Scope | None] = ContextVar("kis_retry_call", default=None)
