"""The page on operating has every event at its level, and every warning."""

from __future__ import annotations

import logging
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import kis_retry
from kis_retry import RefreshEvent
from kis_retry.events import EVENT_NAMES, level_of
from pages import LANGUAGES, TEXTS

every_page = pytest.mark.parametrize(
    "text", [TEXTS[f"docs/{language}/operating.md"] for language in LANGUAGES], ids=LANGUAGES
)


def rows_of(text: str, pattern: str) -> dict[str, str]:
    """Return the second cell of each row whose first cell is code of that pattern."""
    return dict(re.findall(rf"^\| `({pattern})` \| ([^|]*) \|", text, re.MULTILINE))


@every_page
def test_every_event_is_there_at_its_level(text: str) -> None:
    levels = rows_of(text, r"(?:token|call|order|rate)_\w+")
    assert levels.keys() == set(EVENT_NAMES)
    for name in EVENT_NAMES:
        assert levels[name].split(";")[0] == logging.getLevelName(level_of(RefreshEvent(name=name)))
    good = datetime.now(timezone.utc) + timedelta(hours=1)
    ahead = RefreshEvent(name="token_refresh_failed", expires_at=good)
    assert logging.getLevelName(level_of(ahead)) in levels["token_refresh_failed"].split(";")[1]


@every_page
def test_every_warning_that_is_no_event_is_there(text: str) -> None:
    source = "".join(path.read_text("utf-8") for path in Path(kis_retry.__path__[0]).rglob("*.py"))
    warned = set(re.findall(r'\bwarn(?:_once)?\(\s*"(\w+)"', source))
    assert set(rows_of(text, r"kis_retry\.\w+")) == {f"kis_retry.{name}" for name in warned}
