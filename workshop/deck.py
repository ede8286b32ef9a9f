"""Make slides of lessons: `python3 course.py slides 04` runs this with the course's packages.

Slides are web pages made by nbconvert for reveal.js. What they load (reveal.js, MathJax) is fetched
once from npm, at pinned versions, and lies beside them: they open from a stick, without a network.

A lesson's cells hold too much for a screen, so that each is taken apart. Headings, questions,
equations, tables, numbers and pictures are shown; all other prose goes to the speaker's notes.
Lessons are run for it, with figures in the presenter's style; no notebook is changed.
"""

import argparse
import ast
import html
import os
import re
import shutil
import sys
import textwrap
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "site"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import build

import course
from workshop import slides

ROOT = course.ROOT
HERE = ROOT / "workshop" / "deck"
OUT = ROOT / "dist" / "slides"
# What fits a screen in type that can be read at 10 m.
GOALS = "after this you can"
LEAD_WORDS, LIST_ITEMS, EQUATIONS, OUTPUT_LINES = 34, 5, 3, 17
TABLE_ROWS, FRAME_ROWS = 8, 12
CODE_LINES, CAPTION_LINES, LINE_LETTERS = 6, 4, 78
FITS = re.compile(r"\b(?:mixed\.(?:fit|bootstrap|compare)|smf\.\w+|reml\.fit\w*)\(")
# A sentence ends at a full stop before a space, outside equations and code.
SENTENCE = re.compile(
    r"(?:\$[^$]*\$|`[^`]*`|[^.?!]|[.?!](?=[^\s*_)\"”’]))+[.?!][*_)\"”’]*", re.DOTALL
)


# ── A lesson taken apart ────────────────────────────────────────────────────────────────────────


@dataclass
class Deck:
    """Slides in the making: cells with slide types, and where in the lesson we are."""

    cells: list = field(default_factory=list)
    section: str = ""
    # What the last slide holds, should more of the same follow.
    last: str = ""
    equations: int = 0

    def show(self, kind, *parts, last=""):
        """Begin a slide, with the section's name above if it is not a section's first."""
        where = (
            [f'<p class="where">{html.escape(self.section)}</p>'] if kind == slides.BELOW else []
        )
        parts = [part for part in parts if part]
        text = "\n\n".join([*where, *(part for part in parts if isinstance(part, str))])
        self.add(kind, nbformat.v4.new_markdown_cell(text))
        for output in (part for part in parts if not isinstance(part, str)):
            self.add("-", nbformat.v4.new_code_cell(outputs=[output]))
        self.last = last

    def say(self, text):
        """Add to the notes of the speaker."""
        self.add(slides.NOTES, nbformat.v4.new_markdown_cell(text))
        self.last = ""

    def add(self, kind, cell):
        cell.metadata["slideshow"] = {"slide_type": kind}
        self.cells.append(cell)


def deck(notebook):
    """A notebook of slides from a lesson that ran."""
    made = Deck()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            add_text(made, slides.blocks(without_links(cell.source)))
        elif cell.cell_type == "code" and slides.of_code(cell.source) != slides.SKIP:
            add_code(made, cell)
    return nbformat.v4.new_notebook(cells=made.cells, metadata=notebook.metadata)


def add_text(made, blocks):
    """The blocks of a text cell: few shown, the rest as notes."""
    left = list(blocks)
    while left:
        kind, piece = left.pop(0)
        after = left[0][0] if left else ""
        if kind == "heading":
            left = add_heading(made, piece, left)
        elif made.section == "":
            continue
        elif kind == "question":
            choices = left.pop(0)[1] if after == "list" else ""
            made.show(slides.BELOW, '<span class="question"></span>', piece, choices)
        elif kind == "answer":
            made.say(re.sub(r"</?(?:details|summary)>", "", piece))
        elif kind == "equation":
            add_equation(made, "", piece)
        elif kind == "prose" and after in ("equation", "table") and is_short(piece):
            follow = left.pop(0)[1]
            if after == "equation":
                add_equation(made, piece, follow)
                continue
            for part in rows_apart(follow):
                made.show(slides.BELOW, piece, part)
        elif kind == "table" and GOALS in piece:
            made.show(slides.BELOW, f"### {GOALS.capitalize()}", goals(piece))
        elif kind == "table":
            for part in rows_apart(piece):
                made.show(slides.BELOW, part)
        elif kind == "code":
            made.show(slides.BELOW, piece)
        elif kind == "list":
            add_list(made, piece)
        else:
            made.say(piece)


def add_heading(made, piece, left):
    """Begin a section, unless it is for the reader at home; what is left of the cell."""
    marks, title = slides.HEADING.match(piece).groups()
    if slides.AT_HOME.match(title):
        made.section = ""
        return left
    if len(marks) < 3 or not made.section:
        made.section = re.sub(r"[*`]", "", title)
    kind = slides.SLIDE if len(marks) < 3 else slides.BELOW
    after, text = left[0] if left else ("", "")
    if title == "Key points" and after == "list":
        made.show(kind, f"### {title}", first_sentences(text))
        made.say(text)
        return left[1:]
    found = SENTENCE.match(text) if after == "prose" else None
    lead = found[0] if found and len(found[0].split()) <= LEAD_WORDS else ""
    made.show(kind, piece, "" if lead.startswith("(") else lead)
    return left[1:] if lead == text else left


def rows_apart(table):
    """A table in parts with few rows, each with its head."""
    head, rows = table.splitlines()[:2], table.splitlines()[2:]
    count = -(-len(rows) // TABLE_ROWS)
    size = -(-len(rows) // count) if rows else 1
    return ["\n".join(head + rows[n : n + size]) for n in range(0, len(rows), size)]


def goals(table):
    """The last column of a lesson's opening table, as a list."""
    cells = [row.strip("|").split("|")[-1].strip() for row in table.splitlines()]
    return "\n".join(f"- {cell}" for cell in cells[2:])


def add_equation(made, lead, piece):
    """An equation, with others that follow from it, on a slide."""
    if made.last == "equation" and made.equations < EQUATIONS:
        made.cells[-1].source += "\n\n".join(["", lead, piece] if lead else ["", piece])
        made.equations += 1
    else:
        made.show(slides.BELOW, lead, piece, last="equation")
        made.equations = 1


def add_list(made, piece):
    items = first_sentences(piece)
    if items.count("\n") < LIST_ITEMS:
        made.show(slides.BELOW, items)
    made.say(piece)


def first_sentences(piece):
    """A list with the first sentence of each item."""
    items = re.split(r"^(?:[-*]|\d+\.) +", piece, flags=re.MULTILINE)[1:]
    found = [(SENTENCE.match(item), " ".join(item.split())) for item in items]
    return "\n".join(f"- {sentence[0].strip() if sentence else item}" for sentence, item in found)


def is_short(piece):
    """Whether a paragraph is the lead-in to what stands after it."""
    return len(piece.split()) <= LEAD_WORDS


def without_links(source):
    """Links within the course would lead nowhere from a slide; their words stay."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", source)


def add_code(made, cell):
    """What a cell shows: numbers first, then each picture on a slide of its own."""
    # A widget is for the lesson itself; the figure after it shows three settings.
    outputs = [nbformat.from_dict(output) for output in course.settled(cell.outputs)]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    texts = [output for output in outputs if output not in pictures and not is_progress(output)]
    code = "" if pictures else fitting_code(cell.source)
    said = bool(pictures) and sum(map(lines, texts)) <= CAPTION_LINES
    for group in [] if said else grouped([part for text in texts for part in cut(text)]):
        made.show(slides.BELOW, code, *group)
        code = ""
    for output in pictures:
        made.show(slides.BELOW, picture(output, cell))
    if said:
        made.say("\n".join(f"    {line}" for text in texts for line in text_of(text).splitlines()))


def is_progress(output):
    return "<progress" in output.get("data", {}).get("text/html", "")


def fitting_code(source):
    """The statements of a cell that fit a model, if they are few."""
    found = [
        ast.get_source_segment(source, node)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign | ast.Expr)
    ]
    text = "\n".join(segment for segment in found if FITS.search(segment))
    return f"```python\n{text}\n```" if 0 < len(text.splitlines()) <= CODE_LINES else ""


def grouped(outputs):
    """Outputs in groups that fit a slide."""
    group, total = [], 0
    for output in outputs:
        if group and total + lines(output) > OUTPUT_LINES:
            yield group
            group, total = [], 0
        group.append(output)
        total += lines(output)
    if group:
        yield group


def lines(output):
    """How many lines of type an output takes."""
    table = output.get("data", {}).get("text/html")
    if table:
        return round(1.25 * table.count("<tr")) or 2
    return len(text_of(output).splitlines()) + 1


def text_of(output):
    return output.get("text") or output.get("data", {}).get("text/plain", "")


def cut(output):
    """A text with no line too long; what is long in two, the table of a summary kept whole."""
    if output.output_type != "stream":
        return cut_table(output)
    text = [
        part
        for line in output.text.splitlines()
        for part in (textwrap.wrap(line, LINE_LETTERS) if len(line) > LINE_LETTERS else [line])
    ]
    rules = [n for n, line in enumerate(text) if re.fullmatch("-+", line)][:1]
    places = [n for n, line in enumerate(text) if n and not line.strip()] + rules
    place = min(places, key=lambda n: abs(n - len(text) / 2), default=len(text) // 2)
    halves = [text] if len(text) <= OUTPUT_LINES else [text[:place], text[place:]]
    return [
        nbformat.v4.new_output("stream", name=output.name, text="\n".join(half).strip("\n"))
        for half in halves
    ]


def cut_table(output):
    """A long table in two; one whose cells span rows stays whole."""
    table = output.get("data", {}).get("text/html", "")
    body = re.search(r"<tbody>(.*)</tbody>", table, re.DOTALL)
    rows = re.findall(r"<tr.*?</tr>", body[1], re.DOTALL) if body else []
    if len(rows) <= FRAME_ROWS or "rowspan" in body[1]:
        return [output]
    half = -(-len(rows) // 2)
    texts = [table.replace(body[1], "\n".join(part), 1) for part in (rows[:half], rows[half:])]
    return [nbformat.v4.new_output("display_data", {"text/html": text}) for text in texts]


def picture(output, cell):
    """The picture with its text for those who can't see it."""
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    source = "".join(output.data["image/png"].split())
    image = f'<img src="data:image/png;base64,{source}" alt="{html.escape(alt)}">'
    return nbformat.v4.new_output("display_data", {"text/html": image, "text/plain": alt})


# ── The pages ───────────────────────────────────────────────────────────────────────────────────


def vendor(parts):
    """Put what the pages load into `parts`."""
    # The site's build knows how to fetch what is pinned; to its own pins come those of the slides.
    build.PACKAGES.update(tomllib.loads((HERE / "vendor.toml").read_text(encoding="utf-8")))
    files = {
        ROOT / "site" / "_static" / "favicon.svg": "favicon.svg",
        HERE / "deck.js": "deck.js",
        HERE / "deck.css": "reveal/dist/theme/deck.css",
        build.package("mathjax") / "es5" / "tex-svg.js": "mathjax/tex-svg.js",
        build.package("mathjax") / "LICENSE": "mathjax/LICENSE",
    }
    reveal = build.package("reveal.js")
    files |= {reveal / name: f"reveal/{name}" for name in build.PACKAGES["reveal.js"]["files"]}
    for source, name in files.items():
        (parts / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, parts / name)


def page(notebook, title):
    """The text of a deck's page."""
    from nbconvert import SlidesExporter

    exporter = SlidesExporter(
        extra_template_basedirs=[str(HERE.parent)],
        template_name="deck",
        reveal_url_prefix="parts/reveal",
        reveal_theme="deck",
        exclude_input=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    notebook.metadata["title"] = title
    text, _ = exporter.from_notebook_node(notebook)
    return text


def write_deck(path, out, stored):
    """Write a lesson's page; None, or what went wrong."""
    notebook = nbformat.read(path, as_version=4)
    if not stored:
        problem = course.run_cells(course.prepared(notebook), path, {"running": {}, "stop": False})
        if problem:
            return f"{course.shown(path)}, {problem}"
    title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    notebook.metadata.pop("widgets", None)
    course.write_whole(out / f"{path.stem}.html", page(deck(notebook), title).encode("utf-8"))
    return None


def main(arguments):
    parser = argparse.ArgumentParser(prog="course.py slides", description=course.slides.__doc__)
    parser.add_argument("names", nargs="*", help="a lesson's number (04); none means all")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder to write into")
    parser.add_argument("--stored", action="store_true", help="the stored figures; nothing is run")
    options = parser.parse_args(arguments)
    os.environ["COURSE_STYLE"] = "presenter"
    lessons = sorted(course.NOTEBOOKS.glob("*.ipynb"))
    named = {name: [p for p in lessons if course.is_named(p, name)] for name in options.names}
    for name, found in named.items():
        if not found:
            raise course.Trouble(f"There is no lesson {name}. Give a number such as 04.")
    vendor(options.out / "parts")
    failed = False
    for path in sorted({path for found in named.values() for path in found}) or lessons:
        problem = write_deck(path, options.out, options.stored)
        written = options.out / f"{path.stem}.html"
        print(course.mark(not problem), problem or f"{written}: open it in a browser", flush=True)
        failed = failed or bool(problem)
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except course.Trouble as trouble:
        sys.exit(str(trouble))
