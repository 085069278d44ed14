"""What reads and runs the pages sees what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks import run_command, run_python
from pages import anchors_of, blocks_of, dead_links_of, environment_of, headings_of

SMALL = """\
# Small

| `KIS_APP_KEY`, `KIS_APP_SECRET` | | a \\| b |
| `KIS_PAPER` and more | `false` | no row |

```python
import os
print(os.environ["KIS_APP_KEY"])
```

## The table, and more!

```python
# not run here: it needs a week
# Not a heading
```
"""


def test_blocks_headings_anchors_and_rows_are_found() -> None:
    found = blocks_of("SMALL", SMALL)
    assert [(block.place, block.reason) for block in found] == [("SMALL:6", None), ("SMALL:13", "it needs a week")]
    assert headings_of(SMALL) == ["#", "##"]
    assert anchors_of(SMALL) == {"small", "the-table-and-more"}
    assert [row.takes for row in environment_of(SMALL)] == ["a \\| b"]


def test_dead_links_are_found() -> None:
    assert dead_links_of("docs/en/orders.md", "[a](functions.md) [b](../../README.md#install)") == []
    dead = ["nowhere.md", "async.md#nothing", "#nor-this"]
    assert dead_links_of("docs/en/orders.md", " ".join(f"[a]({link})" for link in dead)) == dead


@pytest.mark.one_python
def test_a_block_that_fails_is_seen(tmp_path: Path) -> None:
    program = blocks_of("SMALL", SMALL)[0]
    assert run_python(program, tmp_path, {}).returncode == 1
    assert run_python(program, tmp_path, {"KIS_APP_KEY": "it is there"}).stdout == "it is there\n"


@pytest.mark.parametrize("command", ["rm -rf .", "pip install 'kis-retry[nothing]'", "python x.py"])
def test_a_command_that_nobody_checks_is_refused(command: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run_command(command, tmp_path, {})
