"""
What `kis-retry run` puts before a program: `kis_retry.install()`, once the program has a library that sends requests.

Python imports a module of this name at its start, in every process that finds it on `PYTHONPATH`. It imports nothing
itself before the program does: gevent may patch the standard library first, and a process that sends nothing costs
nothing. It may be read by any Python 3, also by one that has not this package installed.
"""

import os
import sys

TYPE_CHECKING = False  # as typing's, without its import
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

LIBRARIES = frozenset(("requests", "httpx", "httpx2", "aiohttp", "urllib.request"))


class _Watch:
    """
    A finder that leaves finding to the others, and follows the loading of the libraries and of this package.

    They import one another, and `install()` imports them: it is called when none of them is half loaded.
    """

    def __init__(self) -> None:
        self.wanted = False  # one of the libraries has been loaded
        self._loading: "list[str]" = []

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "ModuleSpec | None":
        if name not in LIBRARIES and name.partition(".")[0] != "kis_retry":
            return None
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self)
                return spec
        return None

    def load(self, module: "ModuleType", loader: "Any") -> None:
        """Have `loader` execute a module; install where this was the last that had to be loaded for it."""
        name = module.__name__
        self._loading.append(name)
        try:
            loader.exec_module(module)
            self.wanted = self.wanted or name in LIBRARIES
        finally:
            self._loading.remove(name)
            self.install_if_wanted()

    def install_if_wanted(self) -> None:
        if self.wanted and not self._loading and self in sys.meta_path:
            sys.meta_path.remove(self)
            _install()


class _Loader:
    """The loader of one module, watched; in everything else it is that loader."""

    def __init__(self, loader: "Any", watch: _Watch) -> None:
        self._loader = loader
        self._watch = watch

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def exec_module(self, module: "ModuleType") -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._watch.load(module, self._loader)


def _install() -> None:
    try:
        import kis_retry

        kis_retry.install()
    except ImportError as error:
        reason = "it has no kis_retry installed" if error.name == "kis_retry" else "ImportError"
    except Exception as error:  # whatever it is, the program goes on without
        reason = type(error).__name__
    else:
        return
    if sys.stderr is not None:
        sys.stderr.write(f"kis-retry: {sys.executable} runs unprotected: {reason}\n")


def _import_the_next() -> None:
    """Import the `sitecustomize` that this one hides; its errors are reported by Python, as without this one."""
    folder = os.path.dirname(os.path.abspath(__file__))
    index = next((index for index, entry in enumerate(sys.path) if os.path.abspath(entry) == folder), None)
    this = sys.modules.pop(__name__)
    entry = None if index is None else sys.path.pop(index)
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:
        if error.name != __name__:
            raise
    finally:
        sys.modules.setdefault(__name__, this)
        if entry is not None:
            sys.path.insert(index or 0, entry)


if __name__ == "sitecustomize":
    _watch = _Watch()
    sys.meta_path.insert(0, _watch)
    _watch.wanted = any(name in sys.modules for name in LIBRARIES)
    _watch.install_if_wanted()
    _import_the_next()
