"""How a graded notebook becomes a page: nbconvert's own exporter, quick for many, and with a bound for each.

A page runs no scripts and loads nothing, wherever it is opened: formulas are MathML, which browsers draw themselves.
"""

import re
from functools import lru_cache
from html import escape
from typing import Any

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter, TemplateExporter
from nbconvert.filters.highlight import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.filters.widgetsdatatypefilter import WidgetsDataTypeFilter
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbformat import NotebookNode

KEPT = 1_000  # cells of a kind whose HTML is kept for the next page
# Beyond these, code is shown without colours: Pygments takes the square of the time for twice as much of some of it.
LONGEST_COLOURED = 10_000  # characters of a cell
MOST_COLOURED = 300_000  # of a notebook

_MATHJAX = re.compile("<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->", re.DOTALL)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
_MUTE_IMAGE = re.compile(r"<img(?![^>]*\salt=)")
_NO_DESCRIPTION = "No description has been provided for this image"  # nbconvert's own words


class StylesOnce(CSSHTMLHeaderPreprocessor):
    """CSSHTMLHeaderPreprocessor, which makes the same style sheet anew for each notebook."""

    _inlining: Any = None

    def preprocess(self, notebook: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Put the style sheet where the template looks for it."""
        if self._inlining is None:
            super().preprocess(notebook, resources)
            self._inlining = resources["inlining"]
        resources["inlining"] = self._inlining
        return notebook, resources


class _WithFormulas(IPythonRenderer):
    """Renders markdown as nbconvert does, but formulas as MathML."""

    def block_math(self, body: str) -> str:
        return _formula(body, "block") or super().block_math(body)

    def inline_math(self, body: str) -> str:
        return _formula(body, "inline") or super().inline_math(body)


def _formula(source: str, display: str) -> str:
    """Return a formula in TeX as MathML; the empty string where it cannot be read."""
    try:
        return str(convert(source, display=display))
    except Exception:  # of many kinds; the reader then sees the source
        return ""


@lru_cache(maxsize=KEPT)
def _coloured(source: str, language: str, magics: str | None) -> str:
    return str(Highlight2HTML()(source, language, {"magics_language": magics} if magics else {}))


class Coloured(Highlight2HTML):
    """nbconvert's filter `highlight_code` for one notebook, which colours only so much code.

    Cells that all students have are coloured once.
    """

    def __init__(self, pygments_lexer: str | None = None, **settings: Any) -> None:
        super().__init__(pygments_lexer, **settings)
        self._left = MOST_COLOURED

    def __call__(self, source: str, language: str | None = None, metadata: Any = None) -> str:
        """Return the source as HTML."""
        self._left -= len(source)
        if len(source) > LONGEST_COLOURED or self._left < 0:
            return f'<div class="highlight"><pre>{escape(source)}</pre></div>'
        if self.extra_formatter_options:  # a class's own
            return str(super().__call__(source, language, metadata))
        return _coloured(source, language or self.pygments_lexer, (metadata or {}).get("magics_language"))


class Pages(HTMLExporter):
    """HTMLExporter, which makes the HTML of the cells that all students have once, and colours only so much code.

    Nor is the whole page parsed and written once more for the sake of its pictures: that took half of the time.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._rendered = lru_cache(maxsize=KEPT)(self._render)

    def from_notebook_node(
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Return the page of a notebook."""
        language = nb.metadata.get("language_info", {})
        lexer = language.get("pygments_lexer", language.get("name"))
        resources = self._init_resources(resources)
        widgets = WidgetsDataTypeFilter(self._nb_metadata, resources, parent=self)
        for name, own in (("highlight_code", Coloured(lexer, parent=self)), ("filter_data_type", widgets)):
            # A class's own goes first.
            self.register_filter(name, self.filters.get(name, own))
        page, resources = TemplateExporter.from_notebook_node(self, nb, resources, **kw)
        page = _MATHJAX.sub(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">', page, count=1)
        return _MUTE_IMAGE.sub(f'<img alt="{_NO_DESCRIPTION}"', page), resources

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """The template's filter `markdown2html`."""
        attachments = context.get("cell", {}).get("attachments")
        return self._render(source, attachments) if attachments else self._rendered(source)

    def _render(self, source: str, attachments: Any = None) -> str:
        renderer = _WithFormulas(
            escape=False,
            attachments=attachments or {},
            embed_images=self.embed_images,
            anchor_link_text=self.anchor_link_text,
            exclude_anchor_links=self.exclude_anchor_links,
            **self.lexer_options,
        )
        return str(MarkdownWithMath(renderer=renderer).render(source))
