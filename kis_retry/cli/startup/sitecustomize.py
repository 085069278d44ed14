"""
What `kis-retry run` puts before a program: `kis_retry.install()`, once the program has a library that sends requests.

It imports nothing before the program does, no names of types either: gevent may patch the standard library first, and
a process that sends nothing pays nothing. Any Python 3 can read it, also one that has not this package installed.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
import os
import sys

LIBRARIES = {"requests", "httpx", "httpx2", "aiohttp", "urllib.request"}


class _Watch:
    """A finder that leaves finding to the others, and waits until no library, nor this package, is half loaded."""

    def __init__(self):
        self.loading = 0
        self.wanted = not LIBRARIES.isdisjoint(sys.modules)

    def find_spec(self, name, path=None, target=None):
        if name not in LIBRARIES and name.partition(".")[0] != "kis_retry":
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self._watch_loading(name, spec.loader)
        return spec

    def _watch_loading(self, name, loader):
        load = loader.exec_module

        def exec_module(module):
            vars(loader).pop("exec_module", None)  # from now on it is as without
            self.loading += 1
            try:
                load(module)
                self.wanted |= name in LIBRARIES
            finally:
                self.loading -= 1
                self.install_if_wanted()

        loader.exec_module = exec_module

    def install_if_wanted(self):
        if self.wanted and not self.loading and self in sys.meta_path:
            sys.meta_path.remove(self)
            _install()


def _install():
    try:
        import kis_retry

        kis_retry.install()
    except Exception as error:  # whatever it is, the program goes on
        missing = isinstance(error, ImportError) and error.name == "kis_retry"
        reason = "it has no kis_retry installed" if missing else f"install() failed ({type(error).__name__})"
        if sys.stderr is not None:
            sys.stderr.write(f"kis-retry: {sys.executable} runs unprotected: {reason}\n")


def _import_the_next():
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
