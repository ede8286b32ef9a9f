"""Sphinx's settings; build.py gathers the sources and starts Sphinx on them."""

import os
import re

project = "Beyond Parallel Lines"
author = "the authors of Beyond Parallel Lines"
copyright = "the authors; text and figures CC BY 4.0, code MIT"
language = "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
root_doc = "index"
templates_path = ["_templates"]
# The README is there for its syllabus, which a page includes.
exclude_patterns = ["README.md", "_templates"]

nb_execution_mode = "off"
# The part of the widget manager that knows the standard widgets; it needs no loader beside it.
nb_ipywidgets_js = {"widgets/embed.js": {}}
nb_merge_streams = False  # a heading that was printed stays above its table
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_title = project
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = [("course.js", {"defer": "defer"})]
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_show_sourcelink = False
html_baseurl = os.environ.get("COURSE_SITE_ADDRESS", "")
# Shown on a page only where it is known: …/v2/gh/OWNER/NAME/main
html_context = {
    "binder": os.environ.get("COURSE_BINDER_ADDRESS", "").rstrip("/"),
    "default_mode": "auto",
    # Pages to hand out: in print they are made to fit one sheet.
    "one_sheet": ["workshop/cheat-sheet", "workshop/handout"],
}
html_favicon = "_static/favicon.svg"
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "search_bar_text": "Search the course",
    "toc_title": "On this page",
    "footer_content_items": "copyright.html",
}
mathjax_path = "mathjax/es5/tex-chtml.js"
# Its menu would offer what is not on this site.
mathjax3_config = {"options": {"enableMenu": False}}
copybutton_exclude = ".linenos, .gp, .go"


def with_headers(app, what, name, thing, options, lines):
    """Give the table in a module's docstring the headers that a page's table must have."""
    border = next((line for line in lines if re.fullmatch(r"=+ +=+", line)), None)
    if what == "module" and border:
        width = border.index(" ") + len(re.search(" +", border)[0])
        start = lines.index(border)
        lines[start:start] = [border, "name".ljust(width) + "what it does"]


def setup(app):
    app.connect("autodoc-process-docstring", with_headers)
