"""The stored notebooks: their hygiene, their bytes, and proof that a wrong number is noticed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hygiene
import nbformat
import prose
import pytest

import course

REPO = Path(__file__).resolve().parent.parent
NOTEBOOKS = REPO / "notebooks"
CONFIGURATION = "tests/nbval.cfg"
WRONG = "98765.4321"
FOLDERS = {
    "notebooks": NOTEBOOKS,
    "solutions": NOTEBOOKS / "solutions",
    "exercises": NOTEBOOKS / "exercises",
}
FOUND = [(kind, path) for kind, f in FOLDERS.items() for path in sorted(f.glob("*.ipynb"))]
LESSONS = [path for kind, path in FOUND if kind == "notebooks"]
SOLUTIONS = [path for kind, path in FOUND if kind == "solutions"]


def by_name(kind_and_path):
    kind, path = kind_and_path
    return path.stem if kind == "notebooks" else f"{kind}-{path.stem}"


def read(path):
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def lines(complaints):
    return "\n" + "\n".join(complaints)


every_notebook = pytest.mark.parametrize("found", FOUND, ids=by_name)


@every_notebook
def test_follows_the_rules(found):
    kind, path = found
    complaints = hygiene.complaints(hygiene.Notebook.read(path), kind)
    assert not complaints, lines(complaints)


@every_notebook
def test_is_stored_as_render_stores_it(found):
    """The bytes are those that `course.py render` writes for this content."""
    _, path = found
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = course.settled(cell.outputs)
    assert path.read_bytes() == course.notebook_bytes(notebook), (
        f"{path.name} is not as rendered; run `python course.py render {path.stem}`"
    )


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_uses_the_notation_of_the_welcome(path):
    welcome = hygiene.Notebook.read(course.FIRST_NOTEBOOK)
    complaints = hygiene.notation_listed(hygiene.Notebook.read(path), hygiene.symbols(welcome))
    assert not complaints, lines(complaints)


def test_the_allow_list_has_no_entry_to_spare():
    complaints = hygiene.unused([hygiene.Notebook.read(path) for _, path in FOUND])
    assert not complaints, lines(complaints)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_exercises_are_what_the_solutions_make(path):
    """The same sources and tags, so no solution is left in an exercise."""
    stored = FOLDERS["exercises"] / path.name
    assert stored.exists(), f"exercises/{path.name} is missing; run `python course.py render`"
    made = course.prepared(course.exercise_from(read(path)))
    kept = course.prepared(read(stored))
    assert course.notebook_bytes(kept) == course.notebook_bytes(made), (
        f"exercises/{path.name} is not made from its solutions; run `python course.py render`"
    )


def test_no_exercise_without_solutions():
    made = {path.name for path in SOLUTIONS}
    spare = [path.name for kind, path in FOUND if kind == "exercises" and path.name not in made]
    assert not spare, f"no solutions for {spare}; exercises are only made from solutions/"


def copy_of_the_course(folder, *notebooks):
    """What notebooks need to run, in `folder`, and the given notebooks of notebooks/."""
    for name in ("helpers", "data"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "notebooks").mkdir()
    (folder / "tests").mkdir()
    for name in ("course.py", "pyproject.toml"):
        shutil.copy(REPO / name, folder)
    shutil.copy(REPO / CONFIGURATION, folder / CONFIGURATION)
    for path in notebooks:
        shutil.copy(path, folder / "notebooks")
    return folder


def run(folder, *arguments):
    """Run the current Python in `folder`, importing `helpers` from there."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=outside | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


@pytest.mark.skipif(not course.FIRST_NOTEBOOK.exists(), reason="there is no notebook to render")
def test_rendering_again_changes_nothing(tmp_path):
    folder = copy_of_the_course(tmp_path, course.FIRST_NOTEBOOK)
    result = run(folder, "course.py", "--inside", "render", course.FIRST_NOTEBOOK.stem)
    assert result.returncode == 0, result.stdout + result.stderr
    copy = folder / "notebooks" / course.FIRST_NOTEBOOK.name
    assert copy.read_bytes() == course.FIRST_NOTEBOOK.read_bytes(), result.stdout


# Corruption: what is stored and what is written are changed, and the checks have to notice.


def compared_text(cell):
    """The first output of a cell that nbval compares as text, as (owner, key) of that text."""
    if cell.cell_type == "code" and "nbval-ignore-output" not in cell.metadata.get("tags", []):
        for output in cell.outputs:
            if output.output_type == "stream":
                return output, "text"
            if "text/plain" in output.get("data", {}) and "image/png" not in output["data"]:
                return output["data"], "text/plain"
    return None


def other_digit(text):
    """`text` with its last digit another."""
    at = max(i for i, character in enumerate(text) if character.isdigit())
    return f"{text[:at]}{(int(text[at]) + 5) % 10}{text[at + 1 :]}"


def corrupt_output(notebook):
    """Change one stored number; returns the cell's index among the code cells, as nbval counts."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for index, cell in enumerate(code):
        owner, key = compared_text(cell) or ({}, "")
        if re.search(r"\d", owner.get(key, "")):
            owner[key] = other_digit(owner[key])
            return index
    raise AssertionError("the notebook shows no number that nbval compares")


def nbval(folder):
    """Run nbval strictly over the notebooks of `folder`; returns {(name, cell): outcome}."""
    options = ["--nbval", "--nbval-cell-timeout=120", f"--nbval-sanitize-with={CONFIGURATION}"]
    result = run(folder, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *options, "notebooks")
    outcomes = re.findall(
        r"^(PASSED|FAILED) notebooks/(\S+?)\.ipynb::Cell (\d+)", result.stdout, re.M
    )
    assert outcomes, result.stdout + result.stderr
    return {(name, int(cell)): outcome for outcome, name, cell in outcomes}


def assert_only_the_corrupt_cell_fails(folder, source):
    """Beside a copy of the notebook at `source`, nbval rejects one cell of a corrupted copy."""
    notebook = read(source)
    index = corrupt_output(notebook)
    shutil.copy(source, folder / "notebooks" / "pristine.ipynb")
    nbformat.write(notebook, folder / "notebooks" / "corrupt.ipynb")
    outcomes = nbval(folder)
    failed = [where for where, outcome in outcomes.items() if outcome == "FAILED"]
    assert failed == [("corrupt", index)]
    assert ("pristine", index) in outcomes


@pytest.mark.skipif(not LESSONS, reason="there is no notebook to corrupt")
def test_nbval_notices_a_changed_number(tmp_path):
    shortest = min(LESSONS, key=lambda path: len(read(path).cells))
    assert_only_the_corrupt_cell_fails(copy_of_the_course(tmp_path), shortest)


def corrupt_prose(notebook):
    """Change a decimal number of the prose, wherever its cell has it, to one shown nowhere."""
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for number in prose.numbers(prose.statements(cell.source)):
            if number.text in cell.source:
                cell.source = cell.source.replace(number.text, WRONG)
                return
    pytest.skip("no decimal number in the prose")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_changed_number_in_the_prose_is_noticed(path):
    notebook = hygiene.Notebook.read(path)
    corrupt_prose(notebook.node)
    complaints = hygiene.numbers_come_from_outputs(notebook)
    assert complaints
    assert all(WRONG in text for text in complaints), lines(complaints)
