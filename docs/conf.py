"""
Configure Sphinx for the documentation, in both languages: `docs/en` and `docs/ko`.

    sphinx-build -W -n -c docs docs/en build/en
    sphinx-build -W -n -c docs -D language=ko docs/ko build/ko

Sphinx with Furo and MyST, because all three are released and kept up. Compared in November 2026: MkDocs has had no
release since 1.6.1, Material for MkDocs is in maintenance, and its successor Zensical is at 0.1.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import version as version_of
from typing import Any

from sphinx.search import SearchLanguage

project = "kis-retry"
copyright = "the authors of kis-retry, MIT licence"  # noqa: A001  # Sphinx's name for it
release = version_of("kis-retry")

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
        "sidebar/search.html",
        "sidebar/other_language.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_context = {"languages": {"en": "English", "ko": "한국어"}}
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

# Types of other packages have no page here to link to, and the build must not need the network. Nor have those types of
# this package that a reader never names.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|contextlib|datetime|os|typing|requests|prometheus_client)\..*"),
    ("py:.*", r"(object|str|bytes|int|float|bool|tuple|list|dict|None|Exception|ValueError|TypeError|ImportError)"),
    ("py:.*", r"([\w.]+\.)?(_\w+|CollectorRegistry|Path|Where|Which|Window|F|T|Clock|Reservation|Ticket)"),
    ("py:.*", r"kis_retry\.testing\.answers\.(Request|WireResponse)"),
]

MODULES = ("kis_retry", "kis_retry.testing", "kis_retry.instrumentation")
PUBLIC = {name: f"{module}.{name}" for module in MODULES for name in import_module(module).__all__}

# What sticks to the end of a Korean noun; the shortest word that is left is what both the index and the search take.
PARTICLES = (
    "은 는 이 가 을 를 의 에 에서 에게 와 과 도 로 으로 만 부터 까지 마다 보다 처럼 나 이나 라면 이라면 이며 입니다"
)
NOUN = f"^(.{{2,}}?)(?:{'|'.join(PARTICLES.split())})+$"


class SearchKorean(SearchLanguage):
    """Korean words without their particles, so that 데코레이터 finds 데코레이터를."""

    lang = "ko"
    language_name = "Korean"
    js_stemmer_code = f"var Stemmer = function () {{ this.stemWord = (w) => w.replace(/{NOUN}/, '$1'); }};"

    def stem(self, word: str) -> str:
        return re.sub(NOUN, r"\1", word.lower())


def link_public_names(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Make a link of each public name that a docstring has between backticks."""
    names = "|".join(PUBLIC)
    lines[:] = [
        re.sub(rf"(?<![`:])`({names})`(?!`)", lambda found: f":py:obj:`~{PUBLIC[found[1]]}`", line) for line in lines
    ]


def resolve_public_name(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """Have an annotation lead to a public name, whichever module it is defined in and under whichever it is known."""
    public = PUBLIC.get(str(node.get("reftarget", "")).rpartition(".")[2])
    if node.get("refdomain") != "py" or public is None or public == node["reftarget"]:
        return None
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, shown)


def setup(app: Any) -> None:
    """Connect the above; Sphinx calls this."""
    app.add_search_language(SearchKorean)
    app.connect("autodoc-process-docstring", link_public_names)
    app.connect("missing-reference", resolve_public_name)
