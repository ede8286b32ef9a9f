"""The pages for teachers: minutes add up, names exist, numbers are the lessons', code runs."""

import re
import warnings
from decimal import Decimal
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import hygiene
import matplotlib.pyplot as plt
import nbformat
import prose
import pytest

import course

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
PAGES = [SITE / "teachers.md", *sorted((SITE / "workshop").glob("*.md"))]
NOTES, CHEAT_SHEET, HANDOUT = (
    SITE / "workshop" / f"{name}.md" for name in ("notes", "cheat-sheet", "handout")
)
# The minutes of each plan's tables, and the lessons that they hold.
PLANS = {
    "half-day": ([180], range(2, 5)),
    "one-day": ([480], range(0, 8)),
    "two-days": ([480], range(8, 16)),
}
HEADING = re.compile(r"(?<![*\w])\*(?!\*)([^*]+?)(?<!\*)\*(?![*\w])")
PERCENT = re.compile(r"(?<![\d.,])(\d+)\s*%")
LARGE = re.compile(r"(?<![\d.,×])(\d{1,3}(?:,\d{3})+|\d{3,})(?![\d.]*\d)")


def text(page):
    return page.read_text(encoding="utf-8")


def plan(name):
    return text(SITE / "workshop" / f"{name}.md")


# ── What the lessons say ────────────────────────────────────────────────────────────────────────


@cache
def notebook(folder, number):
    (path,) = (ROOT / "notebooks" / folder).glob(f"{number}-*.ipynb")
    return hygiene.Notebook.read(path)


def lesson(number):
    return notebook("", number)


def source(book):
    return "\n\n".join(cell.source for _, cell in book.text)


def minutes(book):
    return int(re.search(r"^\| (\d+) min \|", source(book), re.M)[1])


@cache
def headings(number):
    """Headings of a lesson and of its exercises; those of 15 include the capstone's."""
    folders = [("", number)]
    folders += [("exercises", number)] if "01" <= number <= "14" else []
    folders += [("exercises", "16")] if number == "15" else []
    return {
        heading
        for place in folders
        for heading in re.findall(r"^#+ (.+?)\s*$", source(notebook(*place)), re.M)
    }


def named(markdown):
    """What is set in italics: on these pages, names of headings."""
    return [re.sub(r"\s+", " ", name) for name in HEADING.findall(prose.without_code(markdown))]


def printed(book):
    """What the cells of a notebook print, pictures left out."""
    outputs = [output for _, cell in book.code for output in cell.outputs]
    return "\n".join(o.get("text", "") or o.data.get("text/plain", "") for o in outputs)


def unheard(markdown, number):
    """Numbers of a page that the lesson does not show.

    Decimal numbers have to be in its outputs; whole percentages and numbers of three digits may
    also be in its text.
    """
    book = lesson(number)
    shown = hygiene.shown_numbers(book)
    statements = prose.statements(markdown)
    wrong = [n.text for n in prose.numbers(statements) if not prose.supported(n, shown)]
    whole = re.sub(r"\s+", " ", source(book))
    for digits in PERCENT.findall(statements):
        stated = prose.Number(digits, Decimal(digits), Decimal(1), "", True)
        if not re.search(rf"\b{digits}\b", whole) and not prose.supported(stated, shown):
            wrong.append(f"{digits} %")
    everything = f"{whole} {printed(book)}".replace(",", "")
    for digits in LARGE.findall(statements):
        if not re.search(rf"(?<![\d.]){digits.replace(',', '')}(?!\d)", everything):
            wrong.append(digits)
    return wrong


# ── The plans ───────────────────────────────────────────────────────────────────────────────────


def tables(markdown):
    """Rows (clock, minutes, kind, show, they do, if late) of each plan's table."""
    found = []
    for block in re.findall(r"^\| clock \|.*?\n((?:\|.*\n)+)", markdown, re.M):
        lines = block.splitlines()[1:]
        found.append([[cell.strip() for cell in line.split("|")[1:-1]] for line in lines])
    return found


def clock(reading):
    hours, minute = reading.split(":")
    return 60 * int(hours) + int(minute)


def rows():
    return [(name, row) for name in PLANS for table in tables(plan(name)) for row in table]


@pytest.mark.parametrize("name", PLANS)
def test_the_clock_runs_from_zero_to_the_end(name):
    for table, total in zip(tables(plan(name)), PLANS[name][0], strict=True):
        now = 0
        for reading, length, *_ in table[:-1]:
            assert clock(reading) == now, reading
            now += int(length)
        assert clock(table[-1][0]) == now == total
        assert f"In all {total} minutes." in plan(name)


@pytest.mark.parametrize("name", PLANS)
def test_a_lesson_takes_its_own_minutes(name):
    spent = {}
    for table in tables(plan(name)):
        for _, length, kind, *_ in table[:-1]:
            if kind.isdigit():
                spent[kind] = spent.get(kind, 0) + int(length)
    lessons = [f"{number:02d}" for number in PLANS[name][1]]
    assert spent == {number: minutes(lesson(number)) for number in lessons}


def test_the_syllabus_has_the_minutes_of_the_lessons():
    stated = re.findall(r"^\| \[(\d\d) .*?\| (\d+) \|", text(ROOT / "README.md"), re.M)
    assert dict(stated) == {number: str(minutes(lesson(number))) for number, _ in stated}
    assert len(stated) == 16


def test_exercises_take_as_long_as_teachers_are_told():
    spans = {minutes(notebook("exercises", f"{number:02d}")) for number in range(1, 15)}
    assert f"take a learner {min(spans)} to {max(spans)} minutes" in text(SITE / "teachers.md")


@pytest.mark.parametrize("name", PLANS)
def test_what_can_be_cut_adds_up(name):
    saved = 0
    for table in tables(plan(name)):
        for _, length, _, _, _, late in table[:-1]:
            if late:
                cut = int(re.match(r"−(\d+)", late)[1])
                assert cut <= int(length), late
                saved += cut
    assert f"The cuts in the last column give back {saved} minutes together." in plan(name)


def test_the_two_days_are_the_one_day_and_the_rest():
    assert "Day 1 is [one day](one-day.md), to the minute." in plan("two-days")
    assert {*PLANS["one-day"][1], *PLANS["two-days"][1]} == {*range(16)}


def test_who_is_late_is_told_when():
    told = [
        (name, *found)
        for name in PLANS
        for found in re.findall(r"At (\d+:\d\d) not yet in lesson (\d\d)", plan(name))
    ]
    for name, reading, number in told:
        starts = [
            clock(row[0]) for table in tables(plan(name)) for row in table if row[2] == number
        ]
        assert starts[0] < clock(reading) <= starts[0] + 15
    assert len(told) == 4


@pytest.mark.parametrize("name", PLANS)
def test_pauses_are_when_the_page_says(name):
    (table,) = tables(plan(name))
    pause = "break" if name == "half-day" else "lunch"
    starts = [clock("9:00") + clock(row[0]) for row in table if row[2] == pause]
    times = " and ".join(f"{start // 60}:{start % 60:02d}" for start in starts)
    assert re.search(rf"at 9:00, and (the breaks are|lunch is) at {times}\.", plan(name))


def test_the_capstone_has_its_own_minutes():
    assert f"takes {minutes(notebook('exercises', '16'))} minutes" in plan("two-days")


def test_headings_in_the_plans_exist():
    everywhere = set().union(*(headings(f"{number:02d}") for number in range(16)))
    for name, (_, _, kind, show, do, late) in rows():
        known = headings(kind) if kind.isdigit() else everywhere
        for heading in named(f"{show} · {do} · {late}"):
            assert heading in known | {"Hand in"}, (name, kind, heading)
    for name in PLANS:
        after = re.sub(r"^\|.*\n", "", plan(name), flags=re.M)
        assert [heading for heading in named(after) if heading not in everywhere] == []


def test_every_section_of_a_lesson_is_in_its_plan():
    closing = {"Key points", "Practise", "Next", "References"}
    only_to_read = {
        "Where to go from here",
        "Is everything in place",
        "Notation",
        "The ministry's question",
        "From here on: for looking things up",
    }
    for name, (_, lessons) in PLANS.items():
        told = {
            heading
            for table in tables(plan(name))
            for _, _, kind, show, do, _ in table
            if kind.isdigit()
            for heading in named(f"{show} · {do}")
        }
        for number in lessons:
            there = set(re.findall(r"^## (.+?)\s*$", source(lesson(f"{number:02d}")), re.M))
            assert there - closing - only_to_read <= told, (name, number)


def test_numbers_in_the_plans_are_the_lessons():
    for name, (_, _, kind, show, do, late) in rows():
        if kind.isdigit():
            assert unheard(f"{show} · {do} · {late}", kind) == [], (name, kind, show)


@pytest.mark.parametrize("name", PLANS)
def test_tasks_have_the_number_and_the_name_of_their_exercise(name):
    tasks = re.findall(r"(\d\d)\.(\d)[,:]? \*(\d) ([^*]+)\*", plan(name).replace("\n", " "))
    assert tasks
    for number, task, beginning, heading in tasks:
        assert task == beginning
        assert f"{beginning} {heading}" in headings(number)
        book = notebook("exercises", number)
        checks = " ".join(cell.source for _, cell in book.cells)
        assert re.search(rf'check\.\w+\("{number}\.{task}"', checks), (number, task)


# ── The notes ───────────────────────────────────────────────────────────────────────────────────


def sections():
    """The notes on each lesson, by its number."""
    parts = re.split(r"^## (\d\d) (.+)$", text(NOTES), flags=re.M)[1:]
    return {parts[k]: (parts[k + 1], parts[k + 2]) for k in range(0, len(parts), 3)}


NUMBERS = [f"{number:02d}" for number in range(16)]


def test_every_lesson_has_its_notes():
    assert list(sections()) == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_notes_are_complete(number):
    title, notes = sections()[number]
    assert source(lesson(number)).splitlines()[0] == f"# {title}"
    assert re.search(rf"\), {minutes(lesson(number))} minutes", notes)
    labels = re.findall(r"^\*\*(.+?)\*\*", notes, re.M)
    assert labels == [
        "Goal.",
        "The one picture.",
        "Where people stumble.",
        "Predictions.",
        "When late, skip",
        "Give",
    ]
    stumbles = re.findall(r"^- (?:.+\n)+?(?=- |\n)", notes, re.M)
    assert len(stumbles) >= 3
    assert all("Ask: " in stumble for stumble in stumbles)


@pytest.mark.parametrize("number", NUMBERS)
def test_each_prediction_has_its_answer(number):
    _, notes = sections()[number]
    places, heading = [], ""
    for line in source(lesson(number)).splitlines():
        heading = line.lstrip("# ") if line.startswith("##") else heading
        places += [heading] * line.count("**Predict.** ")
    if number == "00":  # explains there what the word means, and asks the first one
        assert places.count("How a page works") == 1
    assert re.findall(r"^\d+\. \*(.+?)\*", notes, re.M) == places


@pytest.mark.parametrize("number", NUMBERS)
def test_headings_and_numbers_in_the_notes_are_the_lesson_s(number):
    _, notes = sections()[number]
    assert [heading for heading in named(notes) if heading not in headings(number)] == []
    assert unheard(notes, number) == []


def test_a_number_that_no_lesson_shows_is_noticed():
    title, notes = sections()["04"]
    for right, wrong in {"30.4 %": "31.4 %", "0.880": "0.881", "School 27": "School 127"}.items():
        told = f"{title} {notes} 30.4 %"
        assert unheard(told, "04") == []
        assert len(unheard(told.replace(right, wrong), "04")) >= 1


# ── The cheat sheet and the handout ─────────────────────────────────────────────────────────────


def test_the_code_of_the_cheat_sheet_runs_and_prints_what_it_says(capsys, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "off")
    blocks = re.findall(r"^```python\n(.*?)^```", text(CHEAT_SHEET), re.M | re.S)
    names = {}
    with warnings.catch_warnings():  # statsmodels' own fit warns
        warnings.simplefilter("ignore")
        for block in blocks:
            exec(compile(block, str(CHEAT_SHEET), "exec"), names)
    plt.close("all")
    printed = capsys.readouterr().out
    for label, value in re.findall(r"`([^`]+?)` (\d+\.\d+)", text(CHEAT_SHEET)):
        assert re.search(rf"{re.escape(label)}:? +{value}\b", printed), label
    assert blocks and names["tilt"].criterion < names["shift"].criterion


def test_numbers_on_the_cheat_sheet_are_lesson_04_s():
    assert unheard(text(CHEAT_SHEET), "04") == []


def test_symbols_on_the_cheat_sheet_are_in_the_notation():
    allowed = source(lesson("00"))
    for latex in prose.equations(text(CHEAT_SHEET)):
        for symbol in re.findall(r"\\(gamma|tau|rho|sigma|lambda)(_[01j])?", latex):
            assert "\\" + "".join(symbol) in allowed, latex


def test_commands_on_the_pages_exist():
    options = "".join(map(text, [ROOT / "course.py", *(ROOT / "workshop").glob("*.py")]))
    for page in PAGES:
        for command, rest in re.findall(r"\bcourse\.py (\w+)((?: --?\w[\w-]*)*)", text(page)):
            assert command in course.COMMANDS, (page.name, command)
            assert all(f'"{option}"' in options for option in rest.split()), (page.name, rest)


def test_the_handout_knows_what_the_installation_needs():
    handout = text(HANDOUT)
    assert f"{course.INSTALL_GB} GB" in handout
    (_, first), (_, beyond) = course.OLDEST, course.TOO_NEW
    stated = [int(minor) for minor in re.findall(r"\b3\.(\d\d)\b", handout)]
    assert stated == [*range(first, beyond)]


# ── All pages ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_of_the_course(page):
    for target in prose.LINK.findall(prose.without_code(text(page))):
        if re.match(r"[a-z]+:", target):
            continue
        assert (page.parent / unquote(target.split("#")[0])).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_are_plain_and_sober(page):
    book = hygiene.Notebook(
        page.stem,
        page.parent,
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text(page))]),
    )
    rules = (
        hygiene.headings_in_order,
        hygiene.plain_markdown,
        hygiene.dollars_pair,
        hygiene.sober_prose,
    )
    assert [complaint for rule in rules for complaint in rule(book)] == []
