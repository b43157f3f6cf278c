r"""Render formulas as MathML, which browsers draw without a script or a font from another host.

docutils converts LaTeX to MathML. It raises an error for what it does not know, such as ``\dots``
(write ``\ldots``), and the build then fails and names the page.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

LOGGER = logging.getLogger(__name__)


def to_mathml(node: Any, *, block: bool) -> str:
    """The formula of a node. Browsers and screen readers get the LaTeX source with it."""
    source = node.astext()
    try:
        # In HTML, white space between the elements would be drawn in some browsers.
        mathml = re.sub(r">\s+<", "><", tex2mathml(source, as_block=block))
    except MathError as error:
        LOGGER.warning("formula %r: %s", source, error, location=node, type="math")
        return f"<code>{escape(source)}</code>"
    # Bars of norms would become as high as the highest fraction of the formula.
    mathml = re.sub(r"<mo>(‖|∥|\|)</mo>", r'<mo stretchy="false">\1</mo>', mathml)
    return mathml.replace("<math ", f'<math aria-label="{escape(source)}" ', 1)


def visit_inline(self: Any, node: Any) -> None:
    self.body.append(to_mathml(node, block=False))
    raise SkipNode


def visit_block(self: Any, node: Any) -> None:
    self.body.append(self.starttag(node, "div", CLASS="equation"))
    self.body.append(to_mathml(node, block=True))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
