"""Configuration of Sphinx: `sphinx-build -W --keep-going docs OUTPUT`."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import holistic_cam_plugin

project = "Holistic-CAM"
project_copyright = "the holistic-cam-plugin authors"
version = release = holistic_cam_plugin.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "benchmarks/README.md",
    "benchmarks/**/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
exclude_patterns = ["**/.*", "**/__pycache__", "build", "output", "tests", "holistic_cam_plugin"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
# The stored outputs are shown; tests/benchmarks/test_notebook.py executes the notebook.
nb_execution_mode = "off"

# Docstrings put code in single backticks; names in them become links.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "Holistic-CAM"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_extra_path = ["extra"]
html_math_renderer = "mathml"
copybutton_prompt_text = ">>> "


def setup(app: Any) -> None:
    """Take the repository as the source, so that pages link to results and code as on GitHub."""
    app.srcdir = app.srcdir.parent
    app.add_html_math_renderer("mathml", (_render_inline, None), (_render_block, None))


def _render_inline(writer: Any, node: nodes.math) -> None:
    """Write a formula as MathML, which browsers display without scripts and without a network."""
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _render_block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode
