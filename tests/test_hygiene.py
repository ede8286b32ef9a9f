"""Each rule of `hygiene` lets a right notebook pass and catches one that breaks it."""

import allowed
import hygiene
import nbformat
import prose
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

TITLE = """# Random slopes

Do the lines tilt?

| time | you need | after this you can |
|---|---|---|
| 30 min | lesson 03 | fit, read and doubt a slope variance |
"""
PREDICTION = """## A look first

Predict: will the slope be over 2?

<details>
<summary>Answer</summary>

It is 2.60, with a standard error of 0.51 (97.5 % of $\\gamma_1$, see `3.99`).

</details>
"""
TRAP = "### The trap\n\nWith $\\tau_1^2$ between 0.1–0.4, a *p*-value misleads (version 0.15.0)."
CLOSING = """## Key points

- One.
- Two.
- Three.

## Practise

[Exercises](exercises/04-random-slopes.ipynb)

## Next

[The next lesson](05-both.ipynb)

## References

Bates and others, 67(1), 1.5 pages. https://doi.org/10.18637/jss.v067.i01
"""
# The entry that every notebook may use; the others name one of ours.
(STANDING,) = (entry for entry in allowed.ALLOWED if entry.notebook == "*")
PNG = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480 with 1 Axes>"}
ALT = "Eight lines fan out to the right, the steepest on top."


def figure(source, alt):
    cell = new_code_cell(source, outputs=[new_output("display_data", PNG)])
    cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return cell


def printed(source, text):
    return new_code_cell(source, outputs=[new_output("stream", name="stdout", text=text)])


def right_cells():
    widget = new_code_cell("@interact(k=(1, 9))\ndef draw(k):\n    plots.line(k)")
    widget.metadata["tags"] = ["nbval-ignore-output"]
    return [
        new_markdown_cell(TITLE),
        new_code_cell("from helpers import plots\n\nplots.use_style()"),
        new_markdown_cell(PREDICTION),
        printed("print(slope)", "slope 2.602 (0.5123), p 0.9751\n"),
        new_markdown_cell(TRAP),
        printed("print(tau)", "0.1 to 0.4"),
        figure("plots.fan()\nplt.show()", ALT),
        widget,
        figure("plots.three()\nplt.show()", "Three panels, flat, rising and steep, at 0.4 each."),
        *[new_markdown_cell(f"Some prose, {n}.") for n in range(12)],
        new_markdown_cell(CLOSING),
    ]


@pytest.fixture
def lesson(tmp_path):
    """A lesson with nothing to complain about, in a folder where its links lead somewhere."""
    (tmp_path / "exercises").mkdir()
    for name in ("exercises/04-random-slopes.ipynb", "05-both.ipynb"):
        (tmp_path / name).touch()
    node = new_notebook(cells=right_cells())
    node.metadata = nbformat.from_dict(
        {
            "kernelspec": {"name": "python3", "display_name": "Python 3"},
            "language_info": {"name": "python"},
        }
    )
    for n, cell in enumerate(node.cells, 1):
        cell.id = f"cell-{n:02d}"
    for n, cell in enumerate([c for c in node.cells if c.cell_type == "code"], 1):
        cell.execution_count = n
    return hygiene.Notebook("04-random-slopes", tmp_path, node)


def test_a_right_lesson_passes_every_rule(lesson):
    nbformat.validate(lesson.node)
    assert hygiene.complaints(lesson) == []


def swap(position, old, new):
    """A change: in the source of the cell at `position` (from 1), `old` becomes `new`."""

    def change(node):
        cell = node.cells[position - 1]
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return change


def set_source(position, source):
    return lambda node: node.cells[position - 1].update(source=source)


def output(position, **fields):
    """A change: the cell's first output becomes one with these fields."""
    return lambda node: node.cells[position - 1].update(outputs=[new_output(**fields)])


def metadata(position, **fields):
    return lambda node: node.cells[position - 1].metadata.update(nbformat.from_dict(fields))


def alt(text):
    return metadata(7, mystnb={"image": {"alt": text}})


def renumber(node):
    node.cells[3].execution_count = 7


def unrun(node):
    node.cells[3].execution_count = None


def drop_figure(node):
    node.cells[8].outputs = []


def drop_alt(node):
    del node.cells[6].metadata["mystnb"]


def two_pictures(node):
    node.cells[6].outputs *= 2


def widget_state(node):
    node.metadata["widgets"] = {}


def language_version(node):
    node.metadata.language_info["version"] = "3.12.1"


def other_kernel(node):
    node.metadata.kernelspec["name"] = "conda-env"


def random_id(node):
    node.cells[4].id = "a1b2c3d4"


def too_few(node):
    del node.cells[10:14]


def too_many(node):
    node.cells[10:10] = [new_markdown_cell("More.")] * 20


def prose_is(text):
    return set_source(11, text)


# rule, change, where the complaint has to point, words of the complaint
BREAKS = [
    (hygiene.executed, unrun, "cell-04", "execution count None instead of 2"),
    (hygiene.executed, renumber, "cell-04", "execution count 7 instead of 2"),
    (
        hygiene.no_errors,
        output(4, output_type="error", ename="KeyError", evalue="'x'", traceback=[]),
        "cell-04",
        "KeyError",
    ),
    (
        hygiene.no_stderr,
        output(4, output_type="stream", name="stderr", text="a warning"),
        "cell-04",
        "a warning",
    ),
    (hygiene.no_semicolon, swap(7, "plt.show()", "plt.show(); "), "cell-07", "';'"),
    (hygiene.tags_allowed, metadata(4, tags=["nbval-ignore-output"]), "cell-04", "allow-list"),
    (hygiene.tags_allowed, metadata(8, tags=["nbval-skip"]), "cell-08", "nbval-skip"),
    (hygiene.tags_allowed, metadata(4, tags=["raises-exception"]), "cell-04", "raises-exception"),
    (hygiene.widgets_still, drop_figure, "cell-08", "three settings"),
    (hygiene.plain_python, swap(4, "print", "%time print"), "cell-04", "not plain Python"),
    (hygiene.short_lines, swap(4, "slope", "slope" * 20), "cell-04", "a line of 107"),
    (hygiene.one_import_cell, swap(4, "print", "import os\nprint"), "cell-04", "import os"),
    (hygiene.one_import_cell, swap(2, "plots.use", "x = 1\nplots.use"), "cell-02", "x = 1"),
    (hygiene.lean_metadata, widget_state, "04-random-slopes", "'widgets'"),
    (hygiene.lean_metadata, language_version, "04-random-slopes", "language_info"),
    (hygiene.lean_metadata, other_kernel, "04-random-slopes", "python3"),
    (hygiene.lean_metadata, metadata(4, execution={}), "cell-04", "'execution'"),
    (hygiene.numbered_ids, random_id, "cell-05", "a1b2c3d4"),
    (hygiene.plots_end_with_show, swap(7, "plt.show()", "ax"), "cell-07", "plt.show()"),
    (hygiene.plots_end_with_show, two_pictures, "cell-07", "2 pictures"),
    (hygiene.pictures_have_alt, drop_alt, "cell-07", "no alt text"),
    (hygiene.pictures_have_alt, alt("Lines that fan out."), "cell-07", "20 characters"),
    (hygiene.pictures_have_alt, alt("Lines that fan out to the right"), "cell-07", "full stop"),
    (hygiene.pictures_have_alt, alt("Random slopes."), "cell-07", "repeats a heading"),
    (
        hygiene.pictures_have_alt,
        alt("Three panels, flat, rising and steep, at 0.4 each."),
        "cell-09",
        "is that of cell-07 too",
    ),
    (hygiene.pictures_have_alt, prose_is(f"It shows: {ALT}"), "cell-07", "repeats a sentence"),
    (hygiene.numbers_come_from_outputs, swap(3, "2.60", "2.61"), "cell-03", "shows 2.61"),
    (hygiene.numbers_come_from_outputs, prose_is("It is −2.602."), "cell-11", "shows −2.602"),
    (hygiene.numbers_come_from_outputs, prose_is("$\\tau = 9.5$."), "cell-11", "shows 9.5"),
    (hygiene.numbers_come_from_outputs, alt("It rises to 3.5 in the end."), "cell-07", "3.5"),
    (
        hygiene.numbers_come_from_outputs,
        metadata(4, tags=["nbval-ignore-output"]),
        "cell-03",
        "no compared output shows 2.60",
    ),
    (hygiene.headings_in_order, swap(5, "### ", "#### "), "cell-05", "skips a level"),
    (hygiene.headings_in_order, prose_is("# Again"), "cell-11", "a second title"),
    (hygiene.headings_in_order, prose_is("## It tilts."), "cell-11", "full stop"),
    (hygiene.plain_markdown, prose_is(":::{note}\nx\n:::"), "cell-11", "a ::: fence"),
    (hygiene.plain_markdown, prose_is("```{note}\nx\n```"), "cell-11", "a directive"),
    (hygiene.plain_markdown, prose_is("see {doc}`05`"), "cell-11", "a role"),
    (hygiene.plain_markdown, prose_is("> [!NOTE]\n> x"), "cell-11", "a GitHub alert"),
    (hygiene.plain_markdown, prose_is('<div class="x">y</div>'), "cell-11", "<div>"),
    (hygiene.plain_markdown, prose_is("<!-- later -->"), "cell-11", "<!-->"),
    (hygiene.plain_markdown, swap(3, "</details>", ""), "cell-03", "not closed"),
    (hygiene.plain_markdown, swap(3, "</summary>\n", "</summary>"), "cell-03", "blank line"),
    (hygiene.plain_markdown, swap(3, "\n\n</details>", "\n</details>"), "cell-03", "blank line"),
    (hygiene.dollars_pair, prose_is("It is $x and\n\n$y$."), "cell-11", "unpaired $"),
    (hygiene.dollars_pair, prose_is(r"It costs \$5."), "cell-11", "write dollars"),
    (hygiene.dollars_pair, prose_is("It is $x $."), "cell-11", "space inside"),
    (hygiene.dollars_pair, prose_is("| $p(y|x)$ | b |"), "cell-11", r"\mid"),
    (hygiene.sober_prose, prose_is("It works!"), "cell-11", "exclamation mark"),
    (hygiene.sober_prose, prose_is("**It works!**"), "cell-11", "exclamation mark"),
    (hygiene.sober_prose, prose_is("Of course it tilts."), "cell-11", "'Of course'"),
    (hygiene.links_lead_somewhere, prose_is("[x](../data/no.csv)"), "cell-11", "no.csv"),
    (hygiene.links_lead_somewhere, swap(22, "https://doi.org/", "doi:"), "cell-22", "address"),
    (hygiene.links_lead_somewhere, prose_is("http://dx.doi.org/x"), "cell-11", "address"),
    (hygiene.opening, swap(1, "# R", "R"), "cell-01", "does not open"),
    (hygiene.opening, swap(1, "tilt?", "tilt."), "cell-01", "no question"),
    (hygiene.opening, swap(1, "you need", "needs"), "cell-01", "'you need'"),
    (hygiene.opening, swap(1, "30 min", "90 min"), "cell-01", "20–45 minutes"),
    (hygiene.length, too_few, "04-random-slopes", "18 cells instead of 20–35"),
    (hygiene.length, too_many, "04-random-slopes", "42 cells"),
    (hygiene.predict_and_trap, swap(3, "Predict", "Guess"), "04-random", "no prediction"),
    (hygiene.predict_and_trap, swap(5, "trap", "end"), "04-random", "no trap"),
    (hygiene.closing, swap(22, "## Next", "## Then"), "04-random", "'## Next'"),
    (hygiene.closing, swap(22, "## Practise", "### Practise"), "04-random", "'## Practise'"),
    (hygiene.closing, swap(22, "- Two.\n- Three.\n", ""), "04-random", "1 key points"),
    (hygiene.closing, swap(22, "https://doi.org/", "DOI "), "04-random", "no DOI"),
    (hygiene.closing, swap(22, "exercises/", "solutions/"), "04-random", "no link"),
    (
        hygiene.closing,
        lambda node: node.cells.insert(0, new_markdown_cell("## References")),
        "04-random",
        "the order",
    ),
]


@pytest.mark.parametrize(
    ("rule", "change", "where", "words"), BREAKS, ids=[f"{b[0].__name__}-{b[3]}" for b in BREAKS]
)
def test_a_rule_catches_what_breaks_it(lesson, rule, change, where, words):
    change(lesson.node)
    found = rule(lesson)
    assert [text for text in found if where in text and words in text], found
    # The mend stands after a semicolon.
    assert all(text.startswith("04-random-slopes") and "; " in text for text in found)


def test_no_rule_without_a_proof_that_it_bites():
    rules = {rule for kind in hygiene.RULES.values() for rule in kind}
    # Those of exercises have a test file of their own.
    rules = {rule for rule in rules if rule.__module__ != "practice"}
    assert rules == {rule for rule, *_ in BREAKS}


def test_the_welcome_needs_no_key_points_but_a_short_time(lesson):
    welcome = hygiene.Notebook("00-start-here", lesson.folder, lesson.node)
    swap(1, "30 min", "10 min")(welcome.node)
    del welcome.node.cells[9:]
    set_source(3, "Some prose.")(welcome.node)
    welcome.node.cells += [new_markdown_cell("x")] * 4
    assert [t for rule in hygiene.LESSON_RULES for t in rule(welcome)] == []


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ("0.694", "0.6941"),
        ("0.69", "0.694"),
        ("0.7", "0.694"),
        ("0.70", "0.7"),
        ("2.0", "2.0"),
        ("1,234.5", "1234.5"),
        ("$46{,}714.24$", "46714.2419"),
        ("95.3 %", "0.953"),
        ("95.3 %", "95.31"),
        ("0.953", "95.3%"),
        ("−0.643", "-0.6432"),
        ("$-0.643$", "−0.643"),
        ("a drop of 0.5", "-0.5"),
        ("0.2–0.4", "[0.2, 0.4]"),
        ("$1.5 \\times 10^{-3}$", "0.0015"),
        ("1.5 × 10⁻⁵", "1.5e-05"),
        ("12.637 (0.244)", "12.637 0.244"),
    ],
)
def test_an_output_supports_what_rounds_to_the_prose(stated, shown):
    numbers = prose.numbers(prose.statements(stated))
    assert numbers
    assert all(prose.supported(number, prose.numbers(shown)) for number in numbers)


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ("0.694", "0.6949"),
        ("0.70", "0.694"),
        ("2.0", "2"),
        ("1.234", "1,234.0"),
        ("-0.5", "0.5"),
        ("+0.503", "-0.503"),
        ("0.5", "5.0"),
        ("95.3", "0.953"),
        ("$\\gamma_1=2.0$", "2.1"),
        ("<td>0.5</td>", "0.4"),
        ("the figure 0.25", "0.26"),
    ],
)
def test_an_output_does_not_support_another_number(stated, shown):
    (number,) = prose.numbers(prose.statements(stated))
    assert not prose.supported(number, prose.numbers(shown))


@pytest.mark.parametrize(
    "text",
    [
        "`0.5`",
        "```\n0.5\n```",
        "[text](files/0.5.md)",
        "https://example.org/1.5",
        "doi 10.1016/0167-7152(85)90004-5",
        "statsmodels 0.15 and 0.15.0",
        "Python 3.11–3.14, R 4.5, CC BY 4.0",
        "sections 2.3 and 2.4, Table 4.2, § 3.1, exercise 05.2",
        "2015.10.07 or 7.10.2015",
        "7,185 students in 160 schools",
        "JSS 67(1), 1–48",
    ],
)
def test_what_measures_nothing_is_no_number(text):
    assert prose.numbers(prose.statements(text)) == []


@pytest.mark.parametrize(
    "data",
    [
        {"text/plain": "2.602"},
        {"text/markdown": "| 2.602 |"},
        {"text/html": "<td>2.602</td>", "text/plain": "a table"},
    ],
)
def test_a_number_may_be_shown_in_any_text(lesson, data):
    lesson.node.cells[3].outputs = [new_output("display_data", data)]
    prose_is("It is 2.60, or −2.60.")(lesson.node)
    found = [t for t in hygiene.numbers_come_from_outputs(lesson) if "cell-11" in t]
    assert ["−2.60" in text for text in found] == [True]


def test_a_number_in_a_picture_or_a_tag_is_not_shown(lesson):
    data = {"image/svg+xml": "<svg>2.602</svg>", "text/html": "<td width=2.602>x</td>"}
    lesson.node.cells[3].outputs = [new_output("display_data", data)]
    assert any("2.60" in text for text in hygiene.numbers_come_from_outputs(lesson))


def test_an_entry_of_the_allow_list_excepts_its_cell_and_no_other(lesson, monkeypatch):
    number = allowed.Allowed("number", lesson.name, "Some prose", "9.81", "physics")
    stderr = allowed.Allowed("stderr", lesson.name, "print(slope)", "", "the lesson is about it")
    monkeypatch.setattr(hygiene, "ALLOWED", (STANDING, number, stderr))
    assert len(hygiene.unused([lesson])) == 2
    prose_is("Some prose says 9.81.")(lesson.node)
    swap(5, "0.1", "9.81")(lesson.node)
    lesson.node.cells[3].outputs.append(new_output("stream", name="stderr", text="w"))
    assert hygiene.no_stderr(lesson) == []
    assert [text.split(":")[0] for text in hygiene.numbers_come_from_outputs(lesson)] == [
        "04-random-slopes, cell-05"
    ]
    assert hygiene.unused([lesson]) == []


def test_an_entry_that_nothing_needs_is_a_complaint(lesson, monkeypatch):
    monkeypatch.setattr(hygiene, "ALLOWED", (STANDING,))
    assert hygiene.unused([lesson]) == []
    del lesson.node.cells[7]
    (text,) = hygiene.unused([lesson])
    assert "nbval-ignore-output is not needed any more" in text


def test_symbols_are_those_of_the_welcome(lesson):
    listed = {("gamma", "1"), ("tau", "1"), ("sigma", "")}
    assert hygiene.notation_listed(lesson, listed) == []
    prose_is(r"$\hat\tau$, $\tau_{1}$, $\sigma^2$ and $\rho_{01}$.")(lesson.node)
    (text,) = hygiene.notation_listed(lesson, listed)
    assert r"\rho_01" in text and "04-random-slopes" in text


def test_the_command_line_lists_complaints(lesson, capsys):
    path = lesson.folder / "04-random-slopes.ipynb"
    nbformat.write(lesson.node, path)
    assert hygiene.main([path]) == 0
    swap(3, "2.60", "2.61")(lesson.node)
    nbformat.write(lesson.node, path)
    assert hygiene.main([path]) == 1
    assert "cell-03: no compared output shows 2.61" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "widget"),
    [
        ("explore.shrinkage()", True),
        ("widgets.IntSlider()", True),
        ('check.quiz("04.4")', True),
        ('check.q("04.1", answer)', False),
        ("explore.stills(explore.Shrinkage, settings)", False),
        ("explore.Shrinkage(axes)", False),
    ],
)
def test_what_makes_a_widget_and_what_draws_on_paper(source, widget):
    assert hygiene.shows_widget(new_code_cell(source)) == widget
