"""What an exercise notebook and its solutions have to be, beside the rules of every notebook.

Each rule is a function from a notebook to complaints, as in `hygiene`, which applies them.
"""

import ast
import re

import nbformat

from helpers import check

TASKS = range(4, 7)
MINUTES, CAPSTONE_MINUTES = range(20, 61), range(60, 241)
CAPSTONE = "16"
PLACE = "*Your answer here.*"
ASKS = re.compile(r"\bcheck\.(q|quiz)\(\s*[\"']([^\"']+)[\"']")


def _lesson(notebook):
    """The lesson that the exercises belong to; None for the capstone."""
    path = notebook.folder.parent / f"{notebook.name}.ipynb"
    return nbformat.read(path, as_version=4) if path.exists() else None


def _questions(notebook):
    return check._questions(notebook.number) if notebook.number in check._lessons() else {}


def _tasks(notebook):
    """The cells of each task, which begins with a heading "## 1 …", by its number as written."""
    tasks, cells = {}, None
    for _, cell in notebook.cells:
        if cell.cell_type == "markdown":
            if found := re.search(r"^## (\d+) \S", cell.source, re.M):
                cells = tasks.setdefault(found[1], [])
            elif re.search(r"^## ", cell.source, re.M):
                cells = None
        if cells is not None:
            cells.append(cell)
    return tasks


def exercise_opening(notebook):
    """`# Exercises: ` and the lesson's title, one sentence, and the table time · you need."""
    where = f"{notebook.name}, cell-01"
    blocks = [b.strip() for b in notebook.node.cells[0].source.split("\n\n") if b.strip()]
    lesson, found = _lesson(notebook), []
    if lesson:
        title = "# Exercises: " + lesson.cells[0].source.splitlines()[0].removeprefix("# ")
        if blocks[0] != title:
            found.append(f"{where}: opens with {blocks[0]!r}; write {title!r}")
    elif notebook.number != CAPSTONE:
        found.append(f"{notebook.name}: there is no lesson of this name; rename the exercises")
    elif not blocks[0].startswith("# Capstone: "):
        found.append(f"{where}: opens with {blocks[0]!r}; write '# Capstone: …'")
    sentence = blocks[1] if len(blocks) > 1 else ""
    if sentence[-1:] not in (".", "?") or re.search(r"[.?]\s|^\|", sentence):
        found.append(f"{where}: after the title comes one sentence; say what is practised")
    table = "\n".join(b for b in blocks if b.startswith("|"))
    minutes = re.search(r"(\d+) min", table)
    expected = CAPSTONE_MINUTES if notebook.number == CAPSTONE else MINUTES
    if not re.match(r"\| time \| you need \|", table) or not minutes:
        found.append(f"{where}: no table '| time | you need |' with the time as '40 min'; add it")
    elif int(minutes[1]) not in expected:
        found.append(
            f"{where}: {minutes[0]} is not {expected[0]}–{expected[-1]}; cut tasks, or add some"
        )
    return found


def numbered_tasks(notebook):
    """Four to six tasks, `## 1 …` and on."""
    numbers = list(_tasks(notebook))
    if len(numbers) in TASKS and numbers == [str(n) for n in range(1, len(numbers) + 1)]:
        return []
    return [
        f"{notebook.name}: the tasks are numbered {', '.join(numbers) or 'nowhere'}; give 4 to 6, "
        "each under a heading '## 1 …'"
    ]


def answer_in_words(notebook):
    """A task answered in words, its model answer folded away with a rubric of three points."""
    found, cells = [], notebook.cells
    models = [n for n, (_, c) in enumerate(cells) if re.search(r"<summary>Model answer", c.source)]
    if not models:
        found.append(
            f"{notebook.name}: no answer in words; ask for one ('What would you tell …') with "
            "<summary>Model answer and rubric</summary> in <details>"
        )
    for n in models:
        where, cell = cells[n]
        rubric = cell.source.partition("Rubric")[2].partition("</details>")[0]
        points = len(re.findall(r"^- ", rubric, re.M))
        if points != 3:
            found.append(f"{where}: {points} points in the rubric; write 'Rubric' and three '- '")
        if cells[n - 1][1].source != PLACE:
            found.append(f"{where}: nowhere to answer; put a text cell {PLACE!r} before it")
    return found


def new_data_at_the_end(notebook):
    """The last task loads or simulates data that the lesson did not use."""
    lesson, tasks = _lesson(notebook), _tasks(notebook)
    if not lesson or not tasks:
        return []
    last = _data_calls(list(tasks.values())[-1])
    if last - _data_calls(lesson.cells):
        return []
    return [
        f"{notebook.name}: the last task uses no data that is new to the lesson "
        f"({', '.join(sorted(last)) or 'none at all'}); load another set"
    ]


def _data_calls(cells):
    """The calls of `datasets.load` and of `simulate` in the code, as written."""
    return {
        ast.unparse(node)
        for cell in cells
        if cell.cell_type == "code"
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call)
        and re.match(r"datasets\.load$|simulate\.", ast.unparse(node.func))
    }


def ends_with_summary(notebook):
    """The last cell is the text to keep or to hand in."""
    last, expected = notebook.node.cells[-1], f'check.summary("{notebook.number}")'
    if last.cell_type == "code" and last.source == expected:
        return []
    return [f"{notebook.name}: the last cell is not {expected}; put it there"]


def asks_each_question(notebook):
    """The questions of the lesson's file, each of them, and no others."""
    asked = {name for _, cell in notebook.code for _, name in ASKS.findall(cell.source)}
    known = set(_questions(notebook))
    found = [
        f"{notebook.name}: asks {name}, which helpers/questions does not have; add it"
        for name in sorted(asked - known)
    ]
    return found + [
        f"{notebook.name}: does not ask {name}; ask it or take it out of helpers/questions"
        for name in sorted(known - asked)
    ]


def quiz_in_words(notebook):
    """Before the widget of a quiz stands the same in Markdown."""
    found, before = [], ""
    for where, cell in notebook.cells:
        for kind, name in ASKS.findall(cell.source) if cell.cell_type == "code" else []:
            if kind == "quiz" and name in _questions(notebook):
                if check.in_words(name) not in before:
                    found.append(
                        f"{where}: the cell before has not quiz {name} in words; put there what "
                        f"check.in_words({name!r}) returns"
                    )
                if cell.source != f'check.quiz("{name}")':
                    found.append(
                        f"{where}: does more than show a quiz; move the rest to another cell"
                    )
        before = cell.source
    return found


def _said(cell):
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")


def _checks_say(notebook, words):
    return [
        f"{where}: the check does not say '{name} {words}' but {_said(cell).strip()!r}; mend the "
        "solution or the question, and render again"
        for where, cell in notebook.code
        for kind, name in ASKS.findall(cell.source)
        if kind == "q" and f"{name} {words}" not in _said(cell)
    ]


def solutions_are_right(notebook):
    """Every check finds its answer right."""
    return _checks_say(notebook, "is right.")


def exercises_are_blank(notebook):
    """Every check finds its answer missing."""
    return _checks_say(notebook, "is not answered yet")


def nothing_given_away(notebook):
    """No line of a solution is left where the answer goes."""
    path = notebook.folder.parent / "solutions" / f"{notebook.name}.ipynb"
    if not path.exists():
        return [f"{notebook.name}: has no solutions to be made from; write them"]
    found, solutions = [], nbformat.read(path, as_version=4).cells
    for (where, cell), solution in zip(notebook.cells, solutions, strict=False):
        if "solution" not in solution.metadata.get("tags", []):
            continue
        shared = set(_lines(solution.source)) & set(_lines(cell.source))
        found += [f"{where}: holds the solution's {line!r}; render again" for line in shared]
    return found


def _lines(source):
    """The lines of a cell, but for the function headers that a stub keeps."""
    lines = [line.strip() for line in source.splitlines()]
    return [line for line in lines if line and not line.startswith(("def ", '"""'))]


BOTH_RULES = (
    exercise_opening,
    numbered_tasks,
    answer_in_words,
    ends_with_summary,
    asks_each_question,
)
SOLUTION_RULES = (*BOTH_RULES, new_data_at_the_end, solutions_are_right)
EXERCISE_RULES = (*BOTH_RULES, exercises_are_blank, nothing_given_away)
