"""What is tested is what would be installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import kis_retry


def test_tox_tests_the_installed_wheel_and_not_the_checkout() -> None:
    here = Path(kis_retry.__file__)
    command = [sys.executable, "-c", "import kis_retry; print(kis_retry.__file__)"]
    there = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert Path(there) == here
    assert here.is_relative_to(sys.prefix) or "TOX_ENV_NAME" not in os.environ
    assert here.with_name("py.typed").exists()
