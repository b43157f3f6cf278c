"""How Sphinx builds these pages: ``make docs``, or ``sphinx-build docs docs/_build/html``."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import ekmfast  # noqa: E402 - the modules beside this file can be imported only now

project = "ekmfast"
author = "The ekmfast developers"
copyright = author
version = release = ekmfast.__version__

extensions = [
    "_commands",
    "_mathml",
    "_results",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_generated", "_templates", "examples"]
templates_path = ["_templates"]
toc_object_entries_show_parents = "hide"

# Markdown
myst_enable_extensions = [
    "amsmath",
    "attrs_block",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
]
myst_heading_anchors = 3
math_number_all = False
html_math_renderer_name = "mathml"

# API reference
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say more than the annotations
# Of what classes inherit from other packages, only these are shown.
INHERITED = {"fit_predict", "fit_transform", "get_params", "set_params"}
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
default_role = "autolink"

nitpicky = True
# Names of other packages, whose pages are not read, and words in single backticks without a page.
nitpick_ignore_regex = [
    ("py:.*", r"(numpy|scipy|sklearn|torch|matplotlib|dask|pathlib|os|PyOD)\b.*"),
    ("py:obj", ".*"),
]

# Gallery
sphinx_gallery_conf: dict[str, Any] = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "/plot_",
    "abort_on_example_error": True,
    "reset_modules": ("matplotlib", "_gallery.warnings_are_errors"),
    "backreferences_dir": "_generated/backreferences",
    "doc_module": ("ekmfast",),
    "remove_config_comments": True,
    "reset_modules_order": "both",
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,  # that page loads scripts from other hosts
    "within_subsection_order": "FileNameSortKey",
    "min_reported_time": 1,
}

# Looks
html_theme = "pydata_sphinx_theme"
html_title = "ekmfast"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
# The package ziamath contains a font for formulas. Without one, browsers set subscripts too high.
html_static_path = ["_static", f"{Path(find_spec('ziamath').origin).parent}/fonts"]
html_css_files = ["site.css"]
html_show_sourcelink = False
# Pages without pages below them need no sidebar, and their tables use its place.
html_sidebars = {page.stem: [] for page in HERE.glob("*.md")}
html_theme_options = {
    "logo": {"text": "ekmfast"},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def skip_member(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the many methods of scikit-learn and PyTorch that classes inherit."""
    home = getattr(obj, "__module__", None) or "ekmfast"
    return True if not home.startswith("ekmfast") and name not in INHERITED else None


def links_out_of_docs(app: Any, docname: str, source: list[str]) -> None:
    """Let links out of docs/, which are right in the repository, be right on the site, too.

    The page "benchmarks" is bench/README.md. Other files are offered for download.
    """
    text = source[0]
    if docname == "benchmarks":
        text = (HERE.parent / "bench" / "README.md").read_text()
        text = text.replace("](results/", "](../bench/results/").replace("](../docs/", "](")
    up = "../" * (docname.count("/") + 1)
    text = text.replace(f"]({up}bench/README.md", f"]({up[3:]}benchmarks.md")
    source[0] = re.sub(
        rf"(?<!!)\[([^]]+)\]\(({re.escape(up)}[\w./-]+)\)", r"{download}`\1 <\2>`", text
    )


def setup(app: Any) -> None:
    app.connect("autodoc-skip-member", skip_member)
    app.connect("source-read", links_out_of_docs)
