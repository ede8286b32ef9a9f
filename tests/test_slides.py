"""Lessons are marked by the rule; slides are whole, offline, and in type that can be read."""

import ast
import builtins
import json
import os
import re
import shutil
import subprocess
import sys

import browser
import nbformat
import pandas as pd
import pytest

import course
from workshop import slides

sys.path.insert(0, str(course.ROOT / "workshop"))
import deck

LESSONS = sorted(course.NOTEBOOKS.glob("*.ipynb"))
CODE, TEXT = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
FOLD = "<details>\n<summary>Answer</summary>\n\nThis.\n\n</details>"
SCREENS = ((1280, 720), (1920, 1080))


def lesson(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def types(notebook):
    return [cell.metadata["slideshow"]["slide_type"] for cell in notebook.cells]


# ── The rule ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_is_marked_by_the_rule(path):
    stored = nbformat.read(path, as_version=4)
    wrong = [
        f"{path.name}, {cell.id}: {found}, by the rule {wanted}; python3 course.py render"
        for cell, found, wanted in zip(
            stored.cells,
            [cell.metadata.get("slideshow", {}).get("slide_type") for cell in stored.cells],
            types(slides.mark(nbformat.read(path, as_version=4))),
            strict=True,
        )
        if found != wanted
    ]
    assert not wrong, "\n".join(wrong)


def test_the_rule_reads_what_a_cell_is_for():
    marked = slides.mark(
        lesson(
            TEXT("# Random slopes\n\nDo they differ?"),
            CODE("import numpy as np\n\nplots.use_style()"),
            TEXT("Long prose.\n\n## A section in the middle of a cell\n\nMore."),
            CODE("plots.panel(data)\nplt.show()"),
            TEXT("Prose about it, without more."),
            TEXT(
                "**Predict.** Which?\n\n<details><summary>Answer</summary>\n\nThis.\n\n</details>"
            ),
            CODE("def helper():\n    return 1"),
            CODE("for x in data:\n    print(x)"),
            CODE("%time fit()"),
            TEXT("In words:\n\n$$y = x$$"),
            TEXT("## Practise\n\nThere.\n\n## References\n\n- A book."),
        )
    )
    assert types(marked) == [
        *("slide", "skip", "slide", "subslide", "notes", "subslide"),
        *("skip", "subslide", "subslide", "subslide", "skip"),
    ]


def test_a_heading_in_a_fold_or_in_code_is_none():
    assert slides.of_text("<details>\n\n## Answer\n\n</details>") == "notes"
    assert slides.of_text("```python\n# a comment\n```") == "notes"


def test_marking_keeps_everything_else():
    path = course.FIRST_NOTEBOOK
    notebook = nbformat.read(path, as_version=4)
    assert course.notebook_bytes(slides.mark(notebook)) == path.read_bytes()


# ── Out of order ────────────────────────────────────────────────────────────────────────────────
# After Run All a teacher goes back and forth, and each cell gives what it gave.

SCOPES = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def stored(node):
    """Names that a piece of code binds, wherever in it."""
    names = {
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    return names | {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}


def bound(node):
    """Names that a statement leaves behind in the notebook."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, SCOPES):
        return set()
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Store) else set()
    return set().union(*map(bound, ast.iter_child_nodes(node)))


def wanted(source):
    """Names that a cell takes from cells before it."""
    have, found = set(), set()
    for statement in ast.parse(source).body:
        inner = set().union(*(stored(n) for n in ast.walk(statement) if isinstance(n, SCOPES)))
        names = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
        read = {n.id for n in names if isinstance(n.ctx, ast.Load)} - inner
        is_block = not isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr)
        found |= read - have - (bound(statement) if is_block else set())
        have |= bound(statement)
    return found


def taken(path):
    """Triples (lesson, cell, name) of names that a cell reads and a later one binds anew."""
    cells = enumerate(nbformat.read(path, as_version=4).cells, 1)
    code = {number: cell.source for number, cell in cells if cell.cell_type == "code"}
    binds = {number: bound(ast.parse(source)) for number, source in code.items()}
    return {
        (path.name[:2], number, name)
        for number, source in code.items()
        for name in wanted(source)
        if any(name in binds[other] for other in code if other < number)
        if any(name in binds[other] for other in code if other > number)
    }


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_after_run_all_a_cell_can_be_run_again_in_any_order(path):
    wrong = [
        f"{path.name}, cell {number}: reads {name}, which a later cell binds anew; rename that one"
        for _, number, name in sorted(taken(path))
    ]
    assert not wrong, "\n".join(wrong)


def made_by_setup(source):
    """Names that the first code cell gives: its imports."""
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom)]
    return {(a.asname or a.name).split(".")[0] for node in nodes for a in node.names}


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_sliders_need_no_more_than_the_first_code_cell(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    given = made_by_setup(code[0]) | set(dir(builtins))
    for source in code:
        if re.search(r"\bexplore\.(?!flipbook)\w+\(", source):
            assert wanted(source) <= given, source


def test_a_name_that_is_taken_later_is_found(tmp_path):
    path = tmp_path / "03-lesson.ipynb"
    cells = [
        CODE("means = [1, 2]\nn = 3"),
        CODE("print([n for n in means])"),
        CODE("for n in means:\n    print(n)"),
        CODE("means = means[1:]"),
    ]
    nbformat.write(lesson(*cells), path)
    assert taken(path) == {("03", 2, "means"), ("03", 3, "means")}


# ── A lesson taken apart ────────────────────────────────────────────────────────────────────────


def shown(notebook):
    """The texts that a deck shows, and those that only the speaker sees."""
    made = deck.deck(notebook).cells
    is_note = [cell.metadata["slideshow"]["slide_type"] == "notes" for cell in made]
    texts = [
        cell.source
        if cell.cell_type == "markdown"
        else " ".join(json.dumps(output, ensure_ascii=False) for output in cell.outputs)
        for cell in made
    ]
    seen = [text for text, note in zip(texts, is_note, strict=True) if not note]
    said = [text for text, note in zip(texts, is_note, strict=True) if note]
    return "\n".join(seen), "\n".join(said)


def stream(text):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def test_few_words_are_shown_and_the_rest_is_said():
    seen, said = shown(
        lesson(
            TEXT(
                "# Title\n\nDoes it help?\n\n| time | you need | after this you can |\n"
                "|---|---|---|\n| 40 min | much | **fit** a line |"
            ),
            TEXT("## Section\n\nOne sentence, with 5.36 in it. A second one, [a link](03.ipynb)."),
            TEXT("**Predict.** Which of\n\n- a\n- b\n\n" + FOLD),
            TEXT("A long story.\n\nIn words:\n\n$$a = b$$\n\nand so\n\n$$c = d$$"),
            TEXT("## Key points\n\n- First. More of it.\n- Second.\n\n## References\n\n- A book."),
        )
    )
    for text in ("Does it help?", "- **fit** a line", "One sentence, with 5.36 in it.", "- a\n- b"):
        assert text in seen
    assert "In words:\n\n$$a = b$$\n\nand so\n\n$$c = d$$" in seen
    assert "- First.\n- Second." in seen
    for text in ("A second one, a link.", "Answer\n\nThis.", "A long story.", "First. More of it."):
        assert text in said and text not in seen
    assert "book" not in seen + said
    assert "A second one" not in seen


def test_code_is_shown_where_it_fits_a_model_and_pictures_stand_alone():
    fit = CODE("x = 1\nfit = mixed.fit('y ~ x', data, 'g')\nprint(fit)", outputs=[stream("ok\n")])
    data = {"image/png": "AAAA", "text/plain": ""}
    drawn = CODE(
        "print(1)\nplt.show()",
        outputs=[stream("one number\n"), nbformat.v4.new_output("display_data", data)],
        metadata={"mystnb": {"image": {"alt": 'A line, called "a".'}}},
    )
    seen, said = shown(lesson(TEXT("# T\n\nWhy?"), fit, drawn))
    assert "```python\nfit = mixed.fit('y ~ x', data, 'g')\n```" in seen
    assert "x = 1" not in seen
    assert "A line, called &quot;a&quot;." in seen
    assert "one number" in said and "one number" not in seen


def test_long_output_is_cut_before_the_table_of_a_summary():
    head = ["title", *["line"] * 9, "-" * 20, "     Coef.", "-" * 20, *["row"] * 10]
    first, second = deck.cut(stream("\n".join(head)))
    assert second.text.startswith("-" * 20 + "\n     Coef.")
    (whole,) = deck.cut(stream("word " * 30))
    assert max(map(len, whole.text.splitlines())) <= deck.LINE_LETTERS


def test_long_tables_are_cut_between_rows():
    head = "| a | b |\n|---|---|\n"
    rows = [f"| {n} | x |" for n in range(11)]
    first, second = deck.rows_apart(head + "\n".join(rows))
    assert (first, second) == (head + "\n".join(rows[:6]), head + "\n".join(rows[6:]))
    frame = pd.DataFrame({"a": range(20)}).to_html()
    parts = deck.cut_table(nbformat.v4.new_output("display_data", {"text/html": frame}))
    assert [part.data["text/html"].count("<td>") for part in parts] == [10, 10]
    assert all("<th>a</th>" in part.data["text/html"] for part in parts)


def test_a_lesson_that_is_not_there_is_named(capsys):
    with pytest.raises(course.Trouble, match="no lesson 77.*such as 04"):
        deck.main(["77"])


# ── The pages ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Decks of 02 to 04 with their stored figures."""
    cached = (deck.build.WORK / "vendor").is_dir()
    if shutil.which("npm") is None and not cached:
        pytest.skip("reveal.js and MathJax come from npm, and there is none here")
    out = tmp_path_factory.mktemp("slides")
    command = [sys.executable, course.ROOT / "workshop" / "deck.py", "--stored", "--out", out]
    done = subprocess.run(
        [*map(str, command), "02", "03", "04"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(course.ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(out.glob("*.html"))


def test_a_page_names_nothing_from_elsewhere(pages):
    for page in pages:
        text = page.read_text(encoding="utf-8")
        wanted = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"([^\"]{1,200})", text)
        assert {name.split("/")[0].split(":")[0] for name in wanted} == {"parts", "data"}
        for name in wanted:
            assert name.startswith("data:") or (page.parent / name).is_file(), name


# What reaches beyond a slide, and the smallest type on it, in shares of the screen's height.
LOOK = """
    const size = [innerWidth, innerHeight];
    const slide = Reveal.getCurrentSlide(), found = [];
    const parts = [...slide.querySelectorAll('p, li, td, th, pre, img, h1, h2, h3, mjx-container')]
        .filter(part => !part.closest('aside'));
    for (const part of parts) {
        const box = part.getBoundingClientRect();
        if (box.width && (box.right > size[0] + 1 || box.bottom > size[1] + 1 || box.left < -1))
            found.push(part.tagName + ': ' + part.textContent.slice(0, 60));
        if (part.scrollWidth > part.clientWidth + 2 && part.tagName === 'PRE')
            found.push('PRE cut: ' + part.textContent.slice(0, 60));
    }
    const type = parts.filter(p => !p.matches('.where, img') && p.textContent.trim())
        .map(p => parseFloat(getComputedStyle(p).fontSize) * Reveal.getScale() / size[1]);
    return [found, Math.min(1, ...type), slide.scrollHeight];"""


@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "there is a browser")
@pytest.mark.parametrize("screen", SCREENS, ids=str)
def test_every_slide_is_on_the_screen_and_read_from_afar(pages, screen):
    width, height = screen
    with browser.chrome(width, height) as driver:
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        for page in pages:
            driver.get(page.as_uri())
            browser._until(driver, "document.body.dataset.ready === 'yes'", 60, page.name)
            equations = driver.execute_script(
                "return [document.querySelectorAll('mjx-container').length,"
                " document.querySelectorAll('[data-mml-node=merror]').length];"
            )
            assert equations[0] > 20 and equations[1] == 0
            pictures = driver.execute_script(
                "return [...document.images].map(i => i.naturalWidth);"
            )
            assert len(pictures) >= 5 and min(pictures) > 500
            count = driver.execute_script("return Reveal.getTotalSlides();")
            assert 35 <= count <= 60
            for number in range(count):
                found, smallest, tall = driver.execute_script(LOOK)
                assert found == [], (page.name, number + 1)
                assert smallest >= 0.8 / 30, (page.name, number + 1)
                assert tall <= 720, (page.name, number + 1)
                driver.execute_script("Reveal.next();")
            assert driver.execute_script("return Reveal.isLastSlide();")
            assert driver.get_log("browser") == []
