"""
What `kis-retry run` puts before a program: `kis_retry.install()`, once the program has a library that sends requests.

It imports nothing before the program does: gevent may patch the standard library first, and a process that sends
nothing pays nothing. Any Python 3 can read it, also one that has not this package installed.
"""

import os
import sys

TYPE_CHECKING = False  # as typing's, without its import
if TYPE_CHECKING:
    from typing import Any

LIBRARIES = {"requests", "httpx", "httpx2", "aiohttp", "urllib.request"}


class _Watch:
    """A finder that leaves finding to the others, and waits until no library, nor this package, is half loaded."""

    def __init__(self) -> None:
        self.loading = 0
        self.wanted = not LIBRARIES.isdisjoint(sys.modules)

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name not in LIBRARIES and name.partition(".")[0] != "kis_retry":
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]  # in all that counts it is one
        return spec

    def install_if_wanted(self) -> None:
        if self.wanted and not self.loading and self in sys.meta_path:
            sys.meta_path.remove(self)
            _install()


class _Loader:
    """The loader of one module, watched; in all else it is that loader, which the module has afterwards."""

    def __init__(self, loader: "Any", watch: _Watch) -> None:
        self._loader = loader
        self._watch = watch

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def exec_module(self, module: "Any") -> None:
        module.__loader__ = module.__spec__.loader = self._loader
        self._watch.loading += 1
        try:
            self._loader.exec_module(module)
            self._watch.wanted |= module.__name__ in LIBRARIES
        finally:
            self._watch.loading -= 1
            self._watch.install_if_wanted()


def _install() -> None:
    try:
        import kis_retry

        kis_retry.install()
    except Exception as error:  # whatever it is, the program goes on
        missing = isinstance(error, ImportError) and error.name == "kis_retry"
        reason = "it has no kis_retry installed" if missing else f"install() failed ({type(error).__name__})"
        if sys.stderr is not None:
            sys.stderr.write(f"kis-retry: {sys.executable} runs unprotected: {reason}\n")


def _import_the_next() -> None:
    """Import the `sitecustomize` that this one hides; Python reports its errors, as without this one."""
    index = sys.path.index(os.path.dirname(__file__))  # noqa: PTH120  # pathlib is not imported yet
    entry, this = sys.path.pop(index), sys.modules.pop(__name__)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401  # somebody's, or none
    except ImportError as error:
        if error.name != __name__:
            raise
    finally:
        sys.modules.setdefault(__name__, this)
        sys.path.insert(index, entry)


if __name__ == "sitecustomize":
    watch = _Watch()
    sys.meta_path.insert(0, watch)
    watch.install_if_wanted()
    _import_the_next()
