"""
Whether what would be published is sound: the same bytes twice, good for twine, complete, and at work without extras.

Run by `tox -e package` with the folder of the project and one to build in.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

PLAIN_INSTALL = {"filelock", "platformdirs", "python-dotenv", "requests", "tenacity", "wrapt"}
"""What a plain install is said to bring; what these bring themselves may come along."""

AT_WORK = """
import sys
import kis_retry
for name in kis_retry.__all__:
    getattr(kis_retry, name)
assert "redis" not in sys.modules and "rich" not in sys.modules and "responses" not in sys.modules
from kis_retry.testing import KisGateway
with KisGateway() as gateway:
    client = kis_retry.KisClient(tokens=kis_retry.TokenManager(gateway.credentials, store=kis_retry.MemoryTokenStore()))
    client.fetch_domestic_price("005930")
    gateway.expire()
    assert client.fetch_domestic_price("005930")["rt_cd"] == "0"
try:
    kis_retry.RedisTokenStore("redis://127.0.0.1:1")
except kis_retry.ConfigurationError as error:
    assert "pip install redis" in str(error)
else:
    raise AssertionError("Redis without its extra")
"""


def main(project: Path, folder: Path) -> None:
    """Check it all; an exception says what is wrong."""
    first, second = (build(project, folder / name) for name in ("first", "second"))
    assert digests(first) == digests(second), "two builds differ"
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, first)], check=True)
    wheel = next(path for path in first if path.suffix == ".whl")
    sdist = next(path for path in first if path.suffix == ".gz")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        described = archive.read(metadata).decode("utf-8").partition("\n\n")[2]
        assert "kis_retry/py.typed" in archive.namelist()
    assert "기간이 만료된 token 입니다" in described
    assert re.findall(r"\]\((?![a-z]+:|#)[^)]*\)", described) == [], "a link that leads nowhere on a package index"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {".ci/run", "CHANGELOG.md", "LICENSE", "docs/ko/index.md", "tests/conftest.py", "tox.ini"} <= names
    python = install(wheel, folder / "plain")
    brought = {package["name"] for package in json.loads(output(python, "-m", "pip", "list", "--format", "json"))}
    assert brought >= PLAIN_INSTALL, PLAIN_INSTALL - brought
    assert not brought & {"pytest", "responses", "redis", "rich", "structlog", "prometheus-client"}, brought
    output(python, "-W", "error", "-c", AT_WORK)
    print("built twice to the same bytes, complete, and at work with", ", ".join(sorted(PLAIN_INSTALL)))


def build(project: Path, folder: Path) -> list[Path]:
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(project)], check=True)
    return sorted(folder.iterdir())


def digests(paths: list[Path]) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def install(wheel: Path, folder: Path) -> Path:
    venv.create(folder, with_pip=True, clear=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    output(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel))
    return python


def output(python: Path, *arguments: str) -> str:
    return subprocess.run(
        [str(python), *arguments], check=True, stdout=subprocess.PIPE, text=True, cwd=python.parent
    ).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
