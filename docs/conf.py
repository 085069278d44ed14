"""
How Sphinx builds the documentation: one configuration for both languages, `docs/en` and `docs/ko`.

    sphinx-build -W -n -c docs docs/en build/en
    sphinx-build -W -n -c docs -D language=ko docs/ko build/ko

Sphinx with Furo and MyST, because all three are released and kept up. Compared in November 2026: MkDocs has had no
release since 1.6.1, Material for MkDocs is in maintenance, and its successor Zensical is at 0.1.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import metadata
from typing import Any

from sphinx.search import SearchLanguage

project = "kis-retry"
copyright = "the authors of kis-retry, MIT licence"  # noqa: A001  # Sphinx's name for it
about = metadata("kis-retry")
release = about["Version"]
urls = dict(url.split(", ", 1) for url in about.get_all("Project-URL") or [])

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

smartquotes_action = "D"  # dashes alone: quotes would take the space in "Bearer " for the end of a word

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/head.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_context = {
    "languages": {"en": "English", "ko": "한국어"},
    "repository": urls.get("Repository"),  # before the first release there is none to name
    "package_index": urls["Package index"],
}
pygments_style = "default"
pygments_dark_style = "github-dark"

# The docstrings are Google's style, and what they put between single backticks is code.
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# Types of other packages have no page here to link to, and the build must not need the network. Nor have type variables
# and those types of this package that a reader knows by the values that they take.
nitpick_ignore_regex = [
    ("py:class", r"kis_retry\.client\.endpoints\..*"),
    ("py:.*", r"(collections|contextlib|datetime|os|typing|requests|prometheus_client)\..*"),
    ("py:.*", r"(object|str|bytes|int|float|bool|tuple|list|dict|None|Exception|ValueError|TypeError|ImportError)"),
    ("py:.*", r"(CollectorRegistry|Fields|Path|Where|Which|Window|_Paced)"),
    ("py:.*", r"kis_retry\.(decorators\.F|protecting\.T|client\.client\._\w+|tokens\.cache\.Clock)"),
]

MODULES = ("kis_retry", "kis_retry.testing", "kis_retry.instrumentation")
PUBLIC = {name: f"{module}.{name}" for module in MODULES for name in import_module(module).__all__}


def link_public_names(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Make a link of each public name that a docstring has between backticks."""
    names = "|".join(PUBLIC)
    lines[:] = [
        re.sub(rf"(?<![`:])`({names})`(?!`)", lambda found: f":py:obj:`~{PUBLIC[found[1]]}`", line) for line in lines
    ]


def resolve_public_name(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """Have an annotation lead to a public name, whichever module it is defined in."""
    public = PUBLIC.get(str(node.get("reftarget", "")).rpartition(".")[2])
    if node.get("refdomain") != "py" or public is None or public == node["reftarget"]:
        return None
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, shown)


class SearchKorean(SearchLanguage):  # type: ignore[misc]  # sphinx is not there where types are checked
    """
    Find a Korean noun whatever particle sticks to it: 데코레이터가, 데코레이터를 and 데코레이터 are one word.

    Particles and endings of 하다 and 되다 are cut off, down to two letters, in the index and from what is searched for
    alike. A noun that loses a letter of its own by that is found all the same.
    """

    lang = "ko"
    ENDINGS = (
        "은 는 이 가 을 를 의 에 와 과 도 로 만 나 야 라 들 면 고 며 서 으로 에서 에게 까지 부터 마다 보다 처럼 "
        "이나 이며 이고 입니다 합니다 하는 하고 하며 하면 하여 해서 해 한 할 된 될 됩니다 되는 되고 되면 되어"
    )
    PATTERN = f"^(.{{2,}}?)(?:{'|'.join(ENDINGS.split())})+$"
    js_stemmer_code = f"""
var Stemmer = function () {{
  const ending = /{PATTERN}/u;
  this.stemWord = (word) => word.replace(ending, "$1");
}};
"""

    def stem(self, word: str) -> str:
        return re.sub(self.PATTERN, r"\1", word.lower())


def setup(app: Any) -> None:
    """Connect the above; Sphinx calls it."""
    app.connect("autodoc-process-docstring", link_public_names)
    app.connect("missing-reference", resolve_public_name)
    app.add_search_language(SearchKorean)
