"""Sphinx's settings: `make docs` builds the site, which needs no network, into build/site."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tomllib import loads

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
if find_spec("bytebench") is None:  # in a checkout that is not installed
    sys.modules["bytebench"] = import_module("src")

project = "ByteBench"
author = "The ByteBench authors"
copyright = "The ByteBench authors, Apache License 2.0"
version = release = loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = [
    "myst_nb",  # Markdown and notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # Google-style docstrings
    "sphinx.ext.viewcode",
]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# Notebooks are stored without outputs; they run when their code has changed
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build/notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_ipywidgets_js = {}  # would be fetched from a network

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
autodoc_class_signature = "mixed"
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "literal"  # docstrings put code between single backticks
python_maximum_signature_line_length = 88

exclude_patterns = ["static"]

html_theme = "furo"
html_title = f"ByteBench {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "default"
pygments_dark_style = "github-dark"


def setup(app):
    """Shapes such as (B, C, *grid) in docstrings are no emphasis."""

    def escape(app, what, name, obj, options, lines):
        lines[:] = [line.replace("*", "\\*") for line in lines]

    app.connect("autodoc-process-docstring", escape, priority=0)
