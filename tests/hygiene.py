"""What a notebook of the course has to be: rules, each a function from a notebook to complaints.

From a shell, before committing a lesson::

    python tests/hygiene.py notebooks/04-random-slopes.ipynb

A complaint names the notebook, the cell and the mend. What may be excepted is in `allowed`.
"""

import ast
import html
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import nbformat
import practice
import prose
from allowed import ALLOWED, WIDGET

# Rendering drops a widget's output, so a widget is known by the call that makes it.
# In helpers.explore, functions in lower case make widgets, all but `stills`, which draws on paper.
MAKES_WIDGET = re.compile(
    r"\binteract\w*\(|\b\w*Slider\(|\bwidgets\.\w+\(|\bexplore\.(?!stills\()[a-z]\w*\(|"
    r"\bcheck\.quiz\("
)
# Filler that tells a reader who is stuck that they should not be.
FILLERS = re.compile(
    r"\b(?:simply|obviously|of course|trivial(?:ly)?|needless to say|it is easy to see|"
    r"as everyone knows|clearly)\b",
    re.I,
)
HTML = {"details", "summary", "br", "sub", "sup"}
CELLS = range(20, 36)
MINUTES = range(20, 46)
# 00 is a ten-minute welcome: shorter, and with no model whose key points, trap, prediction or
# literature there would be to give.
WELCOME, WELCOME_CELLS, WELCOME_MINUTES = "00", range(12, 36), range(5, 16)
GREEK = {"γ": "gamma", "τ": "tau", "σ": "sigma", "ρ": "rho"}


@dataclass(frozen=True)
class Notebook:
    """A notebook with its name (no ``.ipynb``) and the folder in which its links are read."""

    name: str
    folder: Path
    node: nbformat.NotebookNode

    @classmethod
    def read(cls, path):
        path = Path(path)
        return cls(path.stem, path.parent, nbformat.read(path, as_version=4))

    @property
    def cells(self):
        """Pairs of (where, cell): "04-random-slopes, cell-07" and the cell."""
        return [(f"{self.name}, cell-{i:02d}", c) for i, c in enumerate(self.node.cells, 1)]

    @property
    def code(self):
        return [(where, c) for where, c in self.cells if c.cell_type == "code"]

    @property
    def text(self):
        return [(where, c) for where, c in self.cells if c.cell_type == "markdown"]

    @property
    def prose(self):
        """Pairs of (where, source without code) of the Markdown cells."""
        return [(where, prose.without_code(c.source)) for where, c in self.text]

    @property
    def number(self):
        """The lesson's number, "04"."""
        return self.name[:2]


def allowances(rule, notebook, cell):
    """The allow-list's entries of this rule that fit the cell."""
    return [
        entry
        for entry in ALLOWED
        if entry.rule == rule
        and entry.notebook in ("*", notebook.name)
        and (shows_widget(cell) if entry.where == WIDGET else entry.where in cell.source)
    ]


def shows_widget(cell):
    return cell.cell_type == "code" and bool(MAKES_WIDGET.search(cell.source))


def has_picture(cell):
    return cell.cell_type == "code" and any("image/png" in o.get("data", {}) for o in cell.outputs)


def alt_text(cell):
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")


# Execution


def executed(notebook):
    """Every code cell ran, and in order: the counts are 1…n."""
    return [
        f"{where}: execution count {cell.execution_count} instead of {n}; "
        "run `python course.py render`"
        for n, (where, cell) in enumerate(notebook.code, 1)
        if cell.execution_count != n
    ]


def no_errors(notebook):
    """No stored output is an error."""
    return [
        f"{where}: stores the error {o.ename}: {o.evalue}; mend the cell, or catch what it "
        "teaches and print its text"
        for where, cell in notebook.code
        for o in cell.outputs
        if o.output_type == "error"
    ]


def no_stderr(notebook):
    """Nothing on stderr: a warning's text holds paths of the machine that ran it."""
    return [
        f"{where}: writes on stderr ({o.text.strip()[:60]!r}); catch the warning and print its text"
        for where, cell in notebook.code
        for o in cell.outputs
        if o.output_type == "stream" and o.name == "stderr"
        if not allowances("stderr", notebook, cell)
    ]


def no_semicolon(notebook):
    """No cell ends with a semicolon: nbval runs without what it is meant for."""
    return [
        f"{where}: ends with ';', which nbval does not honour; end a plot with plt.show()"
        for where, cell in notebook.code
        if cell.source.rstrip().endswith(";")
    ]


def tags_allowed(notebook):
    """nbval's tags only where the allow-list says why."""
    return [
        f"{where}: tag {tag!r} is not on the allow-list; compare the output, or add the cell to "
        "tests/allowed.py with a reason"
        for where, cell in notebook.code
        for tag in cell.metadata.get("tags", [])
        if tag.startswith("nbval-") or tag == "raises-exception"
        if tag not in {entry.what for entry in allowances("tag", notebook, cell)}
    ]


def widgets_still(notebook):
    """After a widget, the next code cell draws the same: all that GitHub, print and nbval see.

    A quiz stands in words before it instead.
    """
    following = [cell for _, cell in notebook.code[1:]] + [None]
    return [
        f"{where}: shows a widget, and the next code cell has no figure; draw there the same at "
        "three settings"
        for (where, cell), after in zip(notebook.code, following, strict=True)
        if shows_widget(cell)
        if "check.quiz(" not in cell.source and not (after and has_picture(after))
    ]


# Code


def _parsed(cell):
    """The cell's statements; None when it isn't plain Python."""
    try:
        return ast.parse(cell.source).body
    except SyntaxError:
        return None


def plain_python(notebook):
    """No magics, no shell lines: what stands in a cell works in a script."""
    return [
        f"{where}: is not plain Python; write it without % and ! lines"
        for where, cell in notebook.code
        if _parsed(cell) is None
    ]


def short_lines(notebook):
    """Code lines of at most 100 characters: longer ones scroll sideways on the site."""
    return [
        f"{where}: a line of {len(line)} characters; break it at 100"
        for where, cell in notebook.code
        for line in cell.source.splitlines()
        if len(line) > 100
    ]


def one_import_cell(notebook):
    """The first code cell holds the imports, all of them, and nothing else but the style."""
    found = []
    for n, (where, cell) in enumerate(notebook.code):
        for statement in _parsed(cell) or []:
            is_import = isinstance(statement, ast.Import | ast.ImportFrom)
            if n and is_import:
                found.append(f"{where}: imports; move `{ast.unparse(statement)}` to the first cell")
            if not n and not is_import and ast.unparse(statement) != "plots.use_style()":
                found.append(
                    f"{where}: the import cell does more (`{ast.unparse(statement)[:40]}`); "
                    "move it to a cell of its own"
                )
    return found


# Metadata


def lean_metadata(notebook):
    """Kernel and language, nothing of the machine; of a cell, tags, alt text and slide type."""
    found, meta = [], notebook.node.metadata
    mend = "run `python course.py render`"
    for key in sorted(set(meta) - {"kernelspec", "language_info", "course"}):
        found.append(f"{notebook.name}: metadata has {key!r}; {mend}")
    if meta.get("language_info") != {"name": "python"}:
        found.append(f"{notebook.name}: language_info is not just the name; {mend}")
    if meta.get("kernelspec", {}).get("name") != "python3":
        found.append(f"{notebook.name}: the kernel is not python3; {mend}")
    for where, cell in notebook.cells:
        for key in sorted(set(cell.metadata) - {"tags", "mystnb", "slideshow"}):
            found.append(f"{where}: metadata has {key!r}; {mend}")
    return found


def numbered_ids(notebook):
    """Cell ids are cell-01, cell-02, … by position, so that they say nothing in a diff."""
    return [
        f"{where}: its id is {cell.get('id')!r}; run `python course.py render`"
        for n, (where, cell) in enumerate(notebook.cells, 1)
        if cell.get("id") != f"cell-{n:02d}"
    ]


# Figures


def plots_end_with_show(notebook):
    """A cell with a picture ends with plt.show(), and shows one picture."""
    found = []
    for where, cell in notebook.code:
        pictures = sum("image/png" in o.get("data", {}) for o in cell.outputs)
        body = _parsed(cell)
        if pictures and (not body or ast.unparse(body[-1]) != "plt.show()"):
            found.append(f"{where}: draws a figure; its last line should be plt.show()")
        if pictures > 1:
            found.append(
                f"{where}: shows {pictures} pictures under one alt text; draw one figure a cell"
            )
    return found


def pictures_have_alt(notebook):
    """Each picture has an alt text: a sentence of its own, over 20 characters."""
    headings = {text.casefold() for _, _, text in _headings(notebook)}
    paragraphs = "\n".join(cell.source for _, cell in notebook.text)
    found, seen = [], {}
    for where, cell in notebook.code:
        alt = alt_text(cell)
        if not has_picture(cell):
            continue
        if not alt:
            found.append(
                f"{where}: the figure has no alt text; "
                'add the metadata {"mystnb": {"image": {"alt": "…"}}}'
            )
            continue
        wrong = []
        if len(alt) <= 20:
            wrong.append("is no longer than 20 characters")
        if not (alt[0].isupper() or alt[0].isdigit()) or not alt.endswith("."):
            wrong.append("is not a sentence with a capital and a full stop")
        if alt.rstrip(".").casefold() in headings:
            wrong.append("repeats a heading")
        if alt in paragraphs:
            wrong.append("repeats a sentence of the prose")
        if alt in seen:
            wrong.append(f"is that of {seen[alt]} too")
        seen[alt] = where.split(", ")[-1]
        found += [f"{where}: the alt text {w}; say what this figure shows" for w in wrong]
    return found


# Numbers


def shown_numbers(notebook):
    """Numbers in the outputs that nbval compares: printed text, results and tables."""
    texts = []
    for _, cell in notebook.code:
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            continue
        for output in cell.outputs:
            if output.output_type == "stream":
                texts.append(output.text)
            data = output.get("data", {})
            texts += [data.get("text/plain", ""), data.get("text/markdown", "")]
            texts.append(html.unescape(prose.TAG.sub(" ", data.get("text/html", ""))))
    return prose.numbers("\n".join(texts))


def _without_references(source):
    """Markdown up to and after a section "References", whose numbers are volumes and pages."""
    return re.sub(r"^## References\b.*?(?=^## |\Z)", "", source, flags=re.M | re.S)


def numbers_come_from_outputs(notebook):
    """Every decimal number of the prose and of the alt texts is shown by an output."""
    shown, found = shown_numbers(notebook), []
    for where, cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = prose.statements(_without_references(cell.source))
        else:
            text = alt_text(cell)
        excepted = {entry.what for entry in allowances("number", notebook, cell)}
        found += [
            f"{where}: no compared output shows {number.text}; print it, correct it, or add it "
            "with its source to tests/allowed.py"
            for number in prose.numbers(text)
            if number.text not in excepted and not prose.supported(number, shown)
        ]
    return found


# Markdown


def _headings(notebook):
    """(where, level, text) of each heading."""
    return [
        (where, len(m[1]), m[2].strip())
        for where, text in notebook.prose
        for m in re.finditer(r"^(#{1,6})[ \t]+(.+?)[ \t#]*$", text, re.M)
    ]


def headings_in_order(notebook):
    """One title, at the top, and no level skipped below it."""
    found, last = [], 0
    headings = _headings(notebook)
    for n, (where, level, text) in enumerate(headings):
        if level == 1 and n:
            found.append(f"{where}: a second title {text!r}; use ## and below")
        if level > last + 1:
            found.append(f"{where}: {text!r} skips a level; make it {'#' * (last + 1)}")
        if text.endswith("."):
            found.append(f"{where}: the heading {text!r} ends with a full stop; drop it")
        last = level
    return found


def plain_markdown(notebook):
    """Markdown that JupyterLab, GitHub and the site all understand."""
    found = []
    for where, cell in notebook.text:
        for pattern, what in (
            (r"^\s*:{3,}", "a ::: fence"),
            (r"^\s*`{3,}\s*\{", "a directive"),
            (r"\{[a-z][a-z:-]*\}`", "a role"),
            (r"^>\s*\[![A-Z]+\]", "a GitHub alert"),
        ):
            if re.search(pattern, cell.source, re.M):
                found.append(
                    f"{where}: {what}, which JupyterLab shows as typed; use plain Markdown"
                )
    for where, text in notebook.prose:
        text = re.sub(r"<https?://[^>]+>", "", prose.without_equations(text))
        tags = re.findall(r"<(?:/\s*)?([A-Za-z][\w-]*)[^<>]*>|<(!--)", text)
        for tag in sorted({a.lower() or b for a, b in tags} - HTML):
            found.append(f"{where}: raw HTML <{tag}>; only {', '.join(sorted(HTML))} are used")
        if text.count("<details") != text.count("</details>"):
            found.append(f"{where}: <details> is not closed in its own cell; close it there")
        if re.search(r"</summary>[ \t]*(?:\S|\n[ \t]*\S)|\S[ \t]*\n[ \t]*</details>", text):
            found.append(
                f"{where}: <details> hugs its text, which stays unrendered; put a blank line after "
                "</summary> and before </details>"
            )
    return found


def dollars_pair(notebook):
    """Equations open and close within a paragraph, in a way that all readers accept."""
    found = []
    for where, text in notebook.prose:
        if r"\$" in text:
            found.append(
                rf"{where}: \$ in prose, and JupyterLab makes an equation of two; write dollars"
            )
        for paragraph in re.split(r"\n[ \t]*\n", text.replace(r"\$", "")):
            if "$" in prose.MATHS.sub("", paragraph):
                found.append(f"{where}: an unpaired $ in {paragraph.strip()[:40]!r}; close it")
            for maths in prose.MATHS.finditer(paragraph):
                inline = maths["inline"] or "x"
                if inline != inline.strip():
                    found.append(f"{where}: {maths[0]!r} has a space inside its $; remove it")
        for line in text.splitlines():
            if line.lstrip().startswith("|") and any(
                "|" in m[0] for m in prose.MATHS.finditer(line)
            ):
                found.append(rf"{where}: | in an equation breaks the table; write \mid or \vert")
    return found


def sober_prose(notebook):
    """No exclamation marks, no filler."""
    found = []
    for where, text in notebook.prose:
        text = prose.without_equations(text)
        if mark := re.search(r"\S*\w[)\"”'’*_]*!(?![\[\w=])", text):
            found.append(f"{where}: an exclamation mark at {mark[0]!r}; end with a full stop")
        for filler in FILLERS.findall(text):
            found.append(f"{where}: {filler!r} says nothing to who is stuck; leave it out")
    return found


def links_lead_somewhere(notebook):
    """Links to files exist beside the notebook, and DOIs are whole addresses."""
    found = []
    for where, text in notebook.prose:
        for target in prose.LINK.findall(text):
            if re.match(r"[a-z]+:", target) or target.startswith("#"):
                continue
            if not (notebook.folder / unquote(target.split("#")[0])).exists():
                found.append(f"{where}: links to {target}, which does not exist; correct the path")
        for doi in re.findall(r"\S*\b10\.\d{4,9}/\S*|\S*doi\.org\S*", text):
            if not re.search(r"https://doi\.org/10\.\d{4,9}/\w", doi):
                found.append(f"{where}: {doi!r} is not a DOI's address; write https://doi.org/10.…")
    return found


# The anatomy of a lesson


def opening(notebook):
    """Title, the question in one sentence, and the table time · you need · after this you can."""
    where = f"{notebook.name}, cell-01"
    first = notebook.node.cells[0] if notebook.node.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        return [f"{where}: the notebook does not open with '# Title'; put it first"]
    found = []
    blocks = [b.strip() for b in re.split(r"\n[ \t]*\n", first.source)[1:] if b.strip()]
    question = blocks[0].strip("*_") if blocks else ""
    if not question.endswith("?") or question.count("?") != 1:
        found.append(f"{where}: after the title comes no question; ask it in one sentence")
    table = "\n".join(b for b in blocks if b.startswith("|")).casefold()
    for label in ("time", "you need", "after this you can"):
        if not re.search(rf"\|[\s*]*{label}[\s*]*\|", table):
            found.append(f"{where}: the opening table lacks {label!r}; add it")
    minutes = re.search(r"(\d+)(?:\s*[–-]\s*\d+)?\s*min", table)
    expected = WELCOME_MINUTES if notebook.number == WELCOME else MINUTES
    if not minutes or int(minutes[1]) not in expected:
        found.append(
            f"{where}: the time is not {expected[0]}–{expected[-1]} minutes; write it as '30 min'"
        )
    return found


def length(notebook):
    """A lesson has 20–35 cells."""
    expected = WELCOME_CELLS if notebook.number == WELCOME else CELLS
    if len(notebook.cells) in expected:
        return []
    return [
        f"{notebook.name}: {len(notebook.cells)} cells instead of {expected[0]}–{expected[-1]}; "
        "split or join some"
    ]


def predict_and_trap(notebook):
    """A lesson asks for a prediction, with the answer folded away, and runs a trap."""
    if notebook.number == WELCOME:
        return []
    found = []
    if not any("<details" in t and "predict" in t.casefold() for _, t in notebook.prose):
        found.append(
            f"{notebook.name}: no prediction; ask one ('Predict …') with its answer in <details>"
        )
    if not any(
        re.search(r"^#+ .*\btrap\b|\*\*[^*\n]*\btrap\b", t, re.I | re.M) for _, t in notebook.prose
    ):
        found.append(f"{notebook.name}: no trap; name it in a heading or in bold")
    return found


def closing(notebook):
    """Key points (3–5), Practise (where its exercises exist), Next, References with a DOI."""
    if notebook.number == WELCOME:
        return []
    wanted = ["Key points", "Practise", "Next", "References"]
    exercises = sorted((notebook.folder / "exercises").glob(f"{notebook.number}-*.ipynb"))
    if not exercises:
        wanted.remove("Practise")
    titles = [text for _, level, text in _headings(notebook) if level == 2]
    found = [
        f"{notebook.name}: no section '## {title}'; add it at the end"
        for title in wanted
        if title not in titles
    ]
    if not found and [t for t in titles if t in wanted] != wanted:
        found.append(f"{notebook.name}: the last sections are not in the order {wanted}; move them")
    sections = _sections(notebook)
    points = len(re.findall(r"^[-*] ", sections.get("Key points", ""), re.M))
    if points not in range(3, 6):
        found.append(f"{notebook.name}: {points} key points; give 3 to 5, each starting with '- '")
    if "https://doi.org/" not in sections.get("References", ""):
        found.append(f"{notebook.name}: the references have no DOI; add https://doi.org/10.…")
    for path in exercises:
        if f"(exercises/{path.name})" not in sections.get("Practise", ""):
            found.append(f"{notebook.name}: Practise has no link to exercises/{path.name}; add it")
    return found


def _sections(notebook):
    """The text under each ## heading, by heading."""
    parts = re.split(r"^## (.+?)[ \t]*$", "\n\n".join(t for _, t in notebook.prose), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def symbols(notebook):
    """The Greek letters for parameters in a notebook's equations, with their subscripts."""
    found = set()
    for _, cell in notebook.text:
        for latex in prose.equations(cell.source):
            for letter in re.finditer(
                r"\\(gamma|tau|sigma|rho)(?![A-Za-z])\s*(?:_\s*(?:\{([^{}]*)\}|(\w)))?", latex
            ):
                found.add((letter[1], (letter[2] or letter[3] or "").replace(" ", "")))
    return found


def notation_listed(notebook, listed):
    """Only symbols that the welcome lists: `listed` is its `symbols`."""
    letters = {letter for letter, _ in listed}
    return [
        f"{notebook.name}: the symbol \\{letter}{'_' if index else ''}{index} is not in the "
        "notation of lesson 00; use one that is, or list it there"
        for letter, index in sorted(symbols(notebook) - listed)
        if index or letter not in letters
    ]


TEXT_RULES = (
    plain_markdown,
    headings_in_order,
    dollars_pair,
    sober_prose,
    links_lead_somewhere,
    practice.quiz_in_words,
)
RUN_RULES = (
    executed,
    no_errors,
    no_stderr,
    no_semicolon,
    tags_allowed,
    plain_python,
    short_lines,
    one_import_cell,
    lean_metadata,
    numbered_ids,
)
# What an exercise notebook cannot have, since the cells that would draw and print are emptied.
SHOWN_RULES = (plots_end_with_show, pictures_have_alt, numbers_come_from_outputs)
LESSON_RULES = (widgets_still, opening, length, predict_and_trap, closing)
# By the folder a notebook lies in.
RULES = {
    "notebooks": RUN_RULES + TEXT_RULES + SHOWN_RULES + LESSON_RULES,
    "solutions": RUN_RULES + TEXT_RULES + SHOWN_RULES + practice.SOLUTION_RULES,
    "exercises": RUN_RULES + TEXT_RULES + practice.EXERCISE_RULES,
}


def unused(notebooks):
    """The allow-list's entries that nothing in `notebooks` needs any more."""
    found = []
    for entry in ALLOWED:
        if not any(_needs(entry, n) for n in notebooks):
            found.append(
                f"tests/allowed.py: {entry.notebook}, {entry.where!r}: {entry.rule} {entry.what} "
                "is not needed any more; remove the entry"
            )
    return found


def _needs(entry, notebook):
    for _, cell in notebook.cells:
        if entry not in allowances(entry.rule, notebook, cell):
            continue
        if entry.rule == "tag" and entry.what in cell.metadata.get("tags", []):
            return True
        if entry.rule == "stderr" and any(o.get("name") == "stderr" for o in cell.outputs):
            return True
        if entry.rule == "number":
            stated = prose.numbers(prose.statements(cell.source) + alt_text(cell))
            shown = shown_numbers(notebook)
            if any(n.text == entry.what and not prose.supported(n, shown) for n in stated):
                return True
    return False


def complaints(notebook, kind="notebooks"):
    """All complaints about a notebook of this kind (a key of `RULES`)."""
    return [text for rule in RULES[kind] for text in rule(notebook)]


def main(paths):
    """Print the complaints about the notebooks at `paths`; the exit code says whether any."""
    found = []
    for path in paths:
        notebook = Notebook.read(path)
        kind = notebook.folder.resolve().name
        found += complaints(notebook, kind if kind in RULES else "notebooks")
    print(*found or ["nothing to complain about"], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
