"""
The two decorators: `refresh_on_expired_token` and `retry_on_transient_error`.

They say what protects the requests inside a function; the requests are protected where they leave (`wire`). Only a
function whose requests nobody sees is itself called again, by the same two cards (`retrying`).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, TypeVar, overload

from .answers import Meaning, Verdict, judge, judge_error
from .binding import Binding
from .clock import Monotonic
from .engine import Flow, Send, Sleep, Wait, run, run_async
from .events import RefreshEvent, emit, warn
from .pace.limiter import RateLimiter, is_limiter
from .policy import RetryPolicy
from .retrying import passing, refreshing, repeat
from .signals import is_from_signal_handler
from .token import fingerprint
from .tokens.source import LiveSource, TokenSource, as_source, handed_to, is_source
from .wire import watch
from .wire.protection import ACTIVE, Protection, Rules

__all__ = ["check_arguments", "decorate", "refresh_on_expired_token", "retry_on_transient_error"]

F = TypeVar("F", bound=Callable[..., Any])

_READS = ("GET", "HEAD")
_PASSING = frozenset((Meaning.LIMITED, Meaning.TRANSIENT, Meaning.NEVER_LEFT))
