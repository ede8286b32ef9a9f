"""What a room sees of a lesson: which cell is a slide, by one rule.

A teacher in front of thirty people needs few words, the picture and the question. So

====================  ============================================================
a heading # or ##     begins a slide
a question (Predict)  is a slide below it, and so is a ### heading, an equation or a table
a code cell           is a slide below it when it shows something: a figure, a widget, a number
imports, definitions  are skipped: they run, and nobody looks at them
other prose           becomes the speaker's notes
practice, literature  are skipped
====================  ============================================================

The rule reads sources only, so it can be applied to a notebook without running it, and a run
changes nothing. `deck` takes the same notebook apart for slides that are only shown.
"""

import ast
import re

SLIDE, BELOW, SKIP, NOTES = "slide", "subslide", "skip", "notes"
# Sections for the reader at home.
AT_HOME = re.compile(r"Practise|References|Glossary|How to cite|Hand in")
QUESTION = re.compile(r"^\*\*Predict\.\*\*", re.MULTILINE)
FENCE = re.compile(r"^(?:```.*?^```|<details.*?</details>)[ \t]*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
SHOWS = re.compile(r"\b(?:print|display)\(")


def mark(notebook):
    """Give every cell of a lesson its slide type, in place; nothing else of it changes."""
    for cell in notebook.cells:
        cell.metadata["slideshow"] = {"slide_type": slide_type(cell.cell_type, cell.source)}
    return notebook


def slide_type(kind, source):
    """The slide type of a cell, from its kind ("markdown" or "code") and its source.

    Examples
    --------
    >>> slide_type("markdown", "## Shrinkage"), slide_type("code", "import numpy as np")
    ('slide', 'skip')
    """
    return of_code(source) if kind == "code" else of_text(source)


def of_text(source):
    """The slide type of a text cell: that of the most telling block in it."""
    kinds = [kind for kind, _ in blocks(source)]
    titles = [(len(marks), title) for marks, title in HEADING.findall(FENCE.sub("", source))]
    if titles and all(AT_HOME.match(title) for _, title in titles):
        return SKIP
    if any(level <= 2 for level, _ in titles):
        return SLIDE
    return BELOW if {"heading", "question", "equation", "table"} & set(kinds) else NOTES


def of_code(source):
    """The slide type of a code cell: shown, or run without a word."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return BELOW
    is_result = bool(body) and isinstance(body[-1], ast.Expr) and not is_setting(body[-1])
    return BELOW if is_result or SHOWS.search(source) else SKIP


def is_setting(statement):
    """Whether a statement only sets the style of figures."""
    return ast.unparse(statement).startswith("plots.use_style(")


def blocks(source):
    """Text in pieces, each with its kind, in order: a list of pairs.

    A piece is a paragraph, or what belongs together over blank lines: a fold, a fence. Kinds are
    heading, question (with the choices listed under it), answer, equation, table, list and prose.
    """
    pieces, place = [], 0
    for found in FENCE.finditer(source):
        pieces += paragraphs(source[place : found.start()])
        pieces.append(found[0].strip())
        place = found.end()
    pieces += paragraphs(source[place:])
    return [(block_kind(piece), piece) for piece in pieces]


def paragraphs(text):
    """Paragraphs; a heading is one of its own."""
    text = HEADING.sub(r"\n\n\g<0>\n\n", text)
    return [piece.strip() for piece in re.split(r"\n[ \t]*\n", text) if piece.strip()]


def block_kind(piece):
    for kind, start in (
        ("answer", "<details"),
        ("code", "```"),
        ("heading", "#"),
        ("equation", "$$"),
        ("table", "|"),
    ):
        if piece.startswith(start):
            return kind
    if QUESTION.match(piece):
        return "question"
    return "list" if re.match(r"[-*] |1\. ", piece) else "prose"
