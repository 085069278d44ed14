"""The tools that read and run the pages, on a page of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks import environ_for, extras_in, run_command, run_python
from kis_retry.testing import KisGateway
from pages import (
    Block,
    Row,
    anchors_of,
    blocks_of,
    dead_links_of,
    directives_of,
    environment_of,
    headings_of,
    links_of,
)

SMALL = """\
# Small

[dead](nowhere.md) [away](https://example.com) [below](#the-table-and-more) <img src="docs/batch.svg">

```python
import os
print(os.environ["KIS_APP_KEY"])
```

<!-- not run: it needs a library that is not here -->
```python
import nowhere
```

```python
# not run here: it needs a week
import time
```

## The table, and more!

| `KIS_APP_KEY`, `KIS_APP_SECRET` | | yours |
| `KIS_PAPER` | `false` | a \\| b |
| `KIS_PAPER` and more | `false` | no row |

```console
$ kis-retry config
out
$ pip install 'kis-retry[cli]' '.[redis]'
```

```
# Not a heading [no](link)
```

```{eval-rst}
.. autofunction:: kis_retry.protect
```
"""


def test_blocks_are_found_with_their_place_and_reason() -> None:
    found = blocks_of("SMALL", SMALL)
    assert [block.language for block in found] == ["python", "python", "python", "console", ""]
    assert [block.place for block in found] == ["SMALL:5", "SMALL:11", "SMALL:15", "SMALL:26", "SMALL:32"]
    reasons = [None, "it needs a library that is not here", "it needs a week", None, None]
    assert [block.reason for block in found] == reasons
    assert found[3].commands == ["kis-retry config", "pip install 'kis-retry[cli]' '.[redis]'"]
    assert directives_of(SMALL) == ["eval-rst"]


def test_rows_headings_links_and_anchors_are_found() -> None:
    assert environment_of(SMALL) == [
        Row(["KIS_APP_KEY", "KIS_APP_SECRET"], "", "yours"),
        Row(["KIS_PAPER"], "false", "a \\| b"),
    ]
    assert headings_of(SMALL) == ["#", "##"]
    assert links_of(SMALL) == ["nowhere.md", "#the-table-and-more", "docs/batch.svg"]
    assert anchors_of(SMALL) == {"small", "the-table-and-more"}
    assert extras_in(SMALL) == ["cli", "redis"]


def test_dead_links_are_found() -> None:
    assert dead_links_of("README.md", "[a](docs/batch.svg) [b](docs/en/orders.md#orders)") == []
    dead = ["nowhere.md", "docs/en/orders.md#nothing", "#nor-this"]
    assert dead_links_of("README.md", " ".join(f"[a]({link})" for link in dead)) == dead
    assert dead_links_of("docs/en/orders.md", "[a](functions.md) [b](../../README.md) [c](README.md)") == ["README.md"]


@pytest.mark.one_python
def test_a_block_that_fails_is_seen(tmp_path: Path) -> None:
    program, *_ = blocks_of("SMALL", SMALL)
    assert run_python(program, tmp_path, {}).returncode == 1
    done = run_python(program, tmp_path, {"KIS_APP_KEY": "it is there"})
    assert (done.returncode, done.stdout) == (0, "it is there\n")


@pytest.mark.one_python
def test_a_block_of_tests_is_run_by_pytest(tmp_path: Path) -> None:
    text = "def test_it(kis_gateway):\n    assert kis_gateway.counts.calls == {}\n"
    assert run_python(Block("", "python", text.format(0), None), tmp_path, {}).returncode == 0
    done = run_python(Block("", "python", text.format(1), None), tmp_path, {})
    assert done.returncode == 1
    assert "1 failed" in done.stdout


@pytest.mark.parametrize(
    "command", ["rm -rf .", "pip install 'kis-retry[nothing]'", "kis-retry gateway", "python x.py"]
)
def test_a_command_that_nobody_checks_is_refused(command: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run_command(command, tmp_path, {})


@pytest.mark.one_python
def test_a_command_is_run(gateway: KisGateway, tmp_path: Path) -> None:
    done = run_command("kis-retry config --json", tmp_path, environ_for(gateway))
    assert done is not None
    assert (done.returncode, done.stderr) == (0, "")
    assert "KIS_APP_KEY" in done.stdout
    wrong = run_command("kis-retry config --jsn", tmp_path, {})
    assert wrong is not None
    assert wrong.returncode == 2
