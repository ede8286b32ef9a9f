"""Each rule of `practice` lets right exercises pass and catches what breaks it."""

import hygiene
import nbformat
import practice
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers import check
from helpers.check import Choice, Number

NAME = "99-tilting"
QUESTIONS = {
    "99.1": Number(lambda: 2.5, "Known.", (), ("Look.",)),
    "99.2": Choice(
        "Which?",
        {"a": "one", "b": "two", "c": "three", "d": "four"},
        "b",
        {"a": "No a.", "c": "No c.", "d": "No d."},
        "Because.",
    ),
}
TITLE = """# Exercises: Tilting lines

Fit lines that tilt, as in [the lesson](../99-tilting.ipynb).

| time | you need |
|---|---|
| 40 min | lesson 99 |
"""
MODEL = """<details>
<summary>Model answer and rubric</summary>

It helps by 2.5 points.

**Rubric**, a point each:

- A number with its unit.
- Its uncertainty.
- What to do.

</details>
"""


def said(source, text, tags=()):
    cell = new_code_cell(source, outputs=[new_output("stream", name="stdout", text=text)])
    cell.metadata["tags"] = list(tags)
    return cell


def solution_cells():
    quiz = new_code_cell('check.quiz("99.2")')
    quiz.metadata["tags"] = ["nbval-ignore-output"]
    return [
        new_markdown_cell(TITLE),
        new_code_cell("from helpers import check, datasets"),
        new_markdown_cell("## 1 Fit\n\nFit."),
        said("slope = 2 + 0.5\nprint(slope)", "2.5", ["solution"]),
        said('check.q("99.1", slope)', "99.1 is right. Known.\n"),
        new_markdown_cell("## 2 Choose\n\n" + check.in_words("99.2")),
        quiz,
        new_markdown_cell("## 3 Tell\n\nWhat would you tell the head teacher?"),
        new_markdown_cell(practice.PLACE),
        new_markdown_cell(MODEL),
        new_markdown_cell("## 4 Transfer\n\nOther data."),
        new_code_cell('other = datasets.load("cheese")'),
        new_markdown_cell("## Hand in"),
        said('check.summary("99")', "Lesson 99: 1 of 2 right."),
    ]


def notebook(folder, cells):
    node = new_notebook(cells=cells)
    node.metadata = nbformat.from_dict(
        {
            "kernelspec": {"name": "python3", "display_name": "Python 3"},
            "language_info": {"name": "python"},
        }
    )
    for n, cell in enumerate(cells, 1):
        cell.id = f"cell-{n:02d}"
    for n, cell in enumerate([c for c in cells if c.cell_type == "code"], 1):
        cell.execution_count = n
    return hygiene.Notebook(NAME, folder, node)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The solutions and exercises of a lesson 99, with nothing to complain about."""
    monkeypatch.setattr(check, "_lessons", lambda: ["99"])
    monkeypatch.setattr(check, "_questions", lambda _: QUESTIONS)
    folders = [tmp_path / "solutions", tmp_path / "exercises"]
    for folder in folders:
        folder.mkdir()
    lesson = [new_markdown_cell("# Tilting lines"), new_code_cell('datasets.load("hsb")')]
    nbformat.write(new_notebook(cells=lesson), tmp_path / f"{NAME}.ipynb")
    solutions = notebook(folders[0], solution_cells())
    nbformat.write(solutions.node, folders[0] / f"{NAME}.ipynb")
    blank = solution_cells()
    blank[3] = new_code_cell("# Your answer here\nslope = ...")
    blank[3].metadata["tags"] = ["answer"]
    blank[4] = said('check.q("99.1", slope)', "99.1 is not answered yet: put …\n")
    return {"solutions": solutions, "exercises": notebook(folders[1], blank)}


@pytest.mark.parametrize("kind", ["solutions", "exercises"])
def test_right_exercises_pass_every_rule(made, kind):
    nbformat.validate(made[kind].node)
    assert hygiene.complaints(made[kind], kind) == []


def swap(position, old, new):
    """A change: in the source of the cell at `position` (from 1), `old` becomes `new`."""

    def change(node):
        cell = node.cells[position - 1]
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return change


def says(position, text):
    return lambda node: node.cells[position - 1].outputs[0].update(text=text)


def drop(position):
    return lambda node: node.cells.pop(position - 1)


# rule, kind, change, words of the complaint
BREAKS = [
    (practice.exercise_opening, "solutions", swap(1, "Tilting", "Other"), "write '# Exercises: T"),
    (practice.exercise_opening, "exercises", swap(1, "lines that", "it. So that"), "one sentence"),
    (practice.exercise_opening, "solutions", swap(1, "you need", "needs"), "no table"),
    (practice.exercise_opening, "solutions", swap(1, "40 min", "90 min"), "90 min is not 20–60"),
    (practice.numbered_tasks, "solutions", swap(3, "## 1", "## 7"), "numbered 7, 2, 3, 4"),
    (practice.numbered_tasks, "exercises", swap(8, "## 3 ", "## "), "numbered 1, 2, 4"),
    (practice.answer_in_words, "solutions", drop(10), "no answer in words"),
    (practice.answer_in_words, "solutions", swap(10, "- Its", "Its"), "2 points in the rubric"),
    (practice.answer_in_words, "exercises", drop(9), "nowhere to answer"),
    (practice.ends_with_summary, "solutions", swap(14, "99", "98"), "the last cell is not"),
    (practice.asks_each_question, "solutions", swap(5, "99.1", "99.3"), "asks 99.3"),
    (practice.asks_each_question, "exercises", swap(5, "99.1", "99.3"), "does not ask 99.1"),
    (practice.quiz_in_words, "solutions", swap(6, "No c.", "No."), "check.in_words('99.2')"),
    (practice.quiz_in_words, "exercises", swap(7, "check", "1\ncheck"), "more than show a quiz"),
    (practice.new_data_at_the_end, "solutions", swap(12, "cheese", "hsb"), "new to the lesson"),
    (practice.solutions_are_right, "solutions", says(5, "99.1: not yet."), "'99.1 is right.'"),
    (practice.exercises_are_blank, "exercises", says(5, "99.1 is right."), "not answered yet'"),
    (practice.nothing_given_away, "exercises", swap(4, "...", "2 + 0.5"), "'slope = 2 + 0.5'"),
]


@pytest.mark.parametrize(
    ("rule", "kind", "change", "words"), BREAKS, ids=[f"{b[0].__name__}-{b[3]}" for b in BREAKS]
)
def test_a_rule_catches_what_breaks_it(made, rule, kind, change, words):
    change(made[kind].node)
    found = rule(made[kind])
    assert rule in hygiene.RULES[kind]
    assert [text for text in found if words in text], found
    # The mend stands after a semicolon.
    assert all(text.startswith(NAME) and "; " in text for text in found)


def test_no_rule_without_a_proof_that_it_bites():
    rules = {*practice.SOLUTION_RULES, *practice.EXERCISE_RULES, practice.quiz_in_words}
    assert rules == {rule for rule, *_ in BREAKS}


def test_exercises_without_a_lesson_or_solutions_are_told_so(made):
    (made["exercises"].folder.parent / f"{NAME}.ipynb").unlink()
    assert "there is no lesson" in practice.exercise_opening(made["exercises"])[0]
    (made["solutions"].folder / f"{NAME}.ipynb").unlink()
    assert "no solutions" in practice.nothing_given_away(made["exercises"])[0]


def test_the_capstone_has_no_lesson_and_more_time(made):
    capstone = hygiene.Notebook("16-capstone", made["solutions"].folder, made["solutions"].node)
    swap(1, "# Exercises: Tilting lines", "# Capstone: From file to report")(capstone.node)
    swap(1, "40 min", "120 min")(capstone.node)
    assert practice.exercise_opening(capstone) == []
    assert practice.new_data_at_the_end(capstone) == []


def test_a_quiz_in_a_lesson_needs_no_figure_after_it(made):
    assert hygiene.widgets_still(made["solutions"]) == []
