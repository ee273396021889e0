"""The documentation site: every page, notebook and docstring of this repository, built with warnings as errors.

The source directory is the repository itself, so that each link between its files is right on the site as it is in a
checkout. Nothing is executed: notebooks are shown as `make notebooks` left them in var/notebooks, with their outputs,
or without where it has not run. `make docs` builds the site into var/docs.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "Oberalp"
author = "the Oberalp maintainers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "oberalp_docs.pages", "oberalp_docs.reference"]

root_doc = "docs/README"
include_patterns = ["docs/**.md", "notebooks/*.ipynb", "README.md", "*/README.md"]
exclude_patterns = [".*", "**/.*", "node_modules", "var", ".venv", "notebooks/.ipynb_checkpoints"]

nb_execution_mode = "off"
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]  # panels by their pictures
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]  # a notebook's cells may begin a level deeper than the one before ended

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "exclude-members": "model_config"}

html_theme = "furo"
html_title = "Oberalp"
html_theme_options = {"source_view_link": ""}
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_additional_pages = {"index": "to_root.html"}
templates_path = ["oberalp_docs/templates"]
