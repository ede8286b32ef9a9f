"""Every notebook in a real JupyterLab: no red boxes, equations drawn, widgets alive."""

import time

import browser
import hygiene
import nbformat
import prose
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

LESSONS = sorted((browser.REPO / "notebooks").glob("*.ipynb"))
# nbval runs every notebook anyway; with many, Run All is clicked where a widget needs a kernel.
FEW = 4

pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "can run")


@pytest.fixture(scope="module")
def server():
    with browser.lab() as running:
        yield running


@pytest.fixture(scope="module")
def chrome():
    with browser.chrome() as running:
        yield running


@pytest.fixture
def driver(chrome):
    """The browser; a kernel that the test leaves is ended, so that they don't pile up."""
    yield chrome
    browser.end_kernel(chrome)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_opens_and_runs(path, server, driver):
    notebook = hygiene.Notebook.read(path)
    widgets = sum(hygiene.shows_widget(cell) for _, cell in notebook.code)
    written = sum(len(prose.equations(cell.source)) for _, cell in notebook.text)
    browser.open_notebook(driver, server, path.relative_to(browser.REPO))
    ran = widgets > 0 or len(LESSONS) <= FEW
    if ran:
        browser.run_all(driver)
    assert browser.complaints(driver, ran=ran) == []
    assert browser.equations(driver)[0] >= written
    assert not ran or browser.widgets(driver)[0] >= widgets


BROKEN = [
    new_markdown_cell("# Broken\n\nUnknown: $\\nosuch{x}$."),
    new_markdown_cell("Twice: $x_1_2$."),
    new_markdown_cell("As typed: $\\frac{1}{$ here."),
    new_markdown_cell("![gone](nowhere.png)"),
    new_code_cell("import sys\n\nfrom IPython.display import display"),
    new_code_cell("print('a warning', file=sys.stderr)"),
    new_code_cell(
        "view = {'model_id': '0123', 'version_major': 2, 'version_minor': 0}\n"
        "display({'application/vnd.jupyter.widget-view+json': view}, raw=True)"
    ),
    new_code_cell("1 / 0"),
]


def run(cells, server, driver):
    """Open a notebook of these cells and run it."""
    notebook = new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, server.root / "toy.ipynb")
    browser.open_notebook(driver, server, "toy.ipynb")
    browser.run_all(driver)


def test_what_is_broken_is_noticed(server, driver):
    run(BROKEN, server, driver)
    complaints = browser.complaints(driver)
    expected = [
        "red box: cell 6: stderr: a warning",
        "red box: cell 8: ZeroDivisionError",
        "MathJax refused: \\nosuch",
        "MathJax refused: x_1_2",
        "an equation stayed as typed: $\\frac",
        "picture not loaded: ",
        "widget: cell 7: 1 of 1",
    ]
    assert len(complaints) == len(expected), complaints
    for text, start in zip(complaints, expected, strict=True):
        assert text.startswith(start)


def test_a_living_widget_and_a_tall_page(server, driver, tmp_path):
    cells = [
        new_markdown_cell("# Alive\n\n$$y_{ij} = \\gamma_0 + u_{0j}$$"),
        new_code_cell("from ipywidgets import interact"),
        new_code_cell("@interact(k=(1, 9))\ndef show(k):\n    print(k)"),
        new_code_cell("for i in range(200):\n    print(i)"),
    ]
    run(cells, server, driver)
    assert browser.complaints(driver) == []
    assert browser.equations(driver) == (1, [])
    assert browser.widgets(driver) == (1, [])
    saved = browser.screenshot(driver, tmp_path / "alive.png")
    assert [path.name for path in saved] == ["alive-01.png", "alive-02.png"]
    assert all(path.stat().st_size > 5000 for path in saved)


def test_the_repository_is_only_copied(server):
    assert server.root != browser.REPO
    assert (server.root / "helpers" / "__init__.py").exists()
    assert not (server.root / ".venv").exists()


EXERCISES = "notebooks/exercises/04-random-slopes.ipynb"


def edit(driver, old, new):
    """Replace `old` by `new` in the one code cell that holds it, and run that cell and the next.

    Returns the text under the next cell.
    """
    return driver.execute_async_script(
        f"""
        const [old, text, done] = arguments;
        const panel = {browser.PANEL}, cells = panel.content.widgets;
        const found = cells.filter(c => c.model.type === 'code'
                                        && c.model.sharedModel.source.includes(old));
        if (found.length !== 1) return done(`${{found.length}} cells hold ${{old}}`);
        const at = cells.indexOf(found[0]), source = found[0].model.sharedModel;
        source.setSource(source.source.replace(old, text));
        panel.content.deselectAll();
        panel.content.activeCellIndex = at;
        const run = () => window.jupyterapp.commands.execute('notebook:run-cell-and-select-next');
        run().then(run).then(() => setTimeout(
            () => done(cells[at + 1].node.querySelector('.jp-Cell-outputArea').innerText), 300));
        """,
        old,
        new,
    )


def test_an_exercise_answered_wrongly_and_then_rightly(server, driver):
    browser.open_notebook(driver, server, EXERCISES)
    browser.run_all(driver)
    assert browser.complaints(driver) == []
    fit = 'mixed.fit("math_score ~ app_hours", district, "school_id", "~app_hours")'
    wrong = f"sd_slope = {fit}.cov_re.iloc[1, 1]"
    text = edit(driver, "sd_slope = ...", wrong)
    assert "04.1: not yet. That is the variance of the slopes" in text
    text = edit(driver, wrong, wrong + " ** 0.5")
    assert "04.1 is right." in text
    text = edit(driver, "standard_errors = ...", "standard_errors = [0.3, 0.4]")
    assert "04.2: not yet. 'random intercepts' and 'random slopes' are not right." in text
    browser.run_all(driver)
    last = f"[...{browser.PANEL}.node.querySelectorAll('.jp-Cell-outputArea')].at(-1).innerText"
    summary = driver.execute_script(f"return {last};")
    assert "04.1  right  " in summary and "04.2  open   " in summary


def test_a_quiz_answered_by_clicks(server, driver):
    browser.open_notebook(driver, server, EXERCISES)
    browser.run_all(driver)
    assert browser.widgets(driver) == (1, [])
    choices = driver.find_elements("css selector", ".widget-radio-box input")
    assert len(choices) == 4
    for choice, words in ((choices[0], "04.4: not yet."), (choices[2], "04.4 is right.")):
        choice.click()
        status = f"document.querySelector('[role=status]')?.innerText.includes('{words}')"
        browser._until(driver, status, 10, words)


EXPLORERS = (
    # explorer, and how its words begin once the first slider's handle is dragged to the left
    ("assumptions", None),
    ("shrinkage", "σ = 0 points"),
    ("random_slopes", "Not possible: σ = 0"),
    ("centring", "Zero at −6 hours"),
    ("singular_rate", "Not possible: One school"),
    ("power_curve", "Not possible: One school"),
)
# What the explorer in the cell at arguments[0] shows: the picture's pixels, and the words.
SEEN = f"""
const cell = {browser.PANEL}.content.widgets[arguments[0]].node;
const area = cell.querySelector('.jp-Cell-outputArea');
const image = area.querySelector('img');
if (!image.complete || !image.naturalWidth) return null;
const canvas = document.createElement('canvas');
[canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
canvas.getContext('2d').drawImage(image, 0, 0);
const words = area.querySelector('[role=status]').innerText;
return [canvas.toDataURL(), words.replaceAll('\\u00a0', ' ')];
"""


def seen(driver, cell):
    """Picture and words once they have stood still for a second: they come one after the other."""
    last, still = None, 0
    deadline = time.monotonic() + 20
    while still < 10:
        assert time.monotonic() < deadline, "the picture does not come to rest"
        now = driver.execute_script(SEEN, cell)
        still = still + 1 if now and now == last else 0
        last = now
        time.sleep(0.1)
    return last


def shows_again(driver, cell, before, name):
    """Wait until picture and words are as they were; on a busy machine one may come late."""
    deadline = time.monotonic() + 20
    while (now := driver.execute_script(SEEN, cell)) != before:
        said = now and now[1]
        assert time.monotonic() < deadline, f"{name}: another picture, or these words: {said}"
        time.sleep(0.1)


def handles(driver, cell):
    """The handles of the sliders in a cell, scrolled into view."""
    found = driver.execute_script(
        f"const node = {browser.PANEL}.content.widgets[arguments[0]].node;"
        "node.scrollIntoView(); return [...node.querySelectorAll('.noUi-handle')];",
        cell,
    )
    assert found
    return found


def drag(driver, handle, by):
    """Drag with the mouse, in steps, `by` so many pixels."""
    from selenium.webdriver.common.action_chains import ActionChains

    chain = ActionChains(driver, duration=20).click_and_hold(handle)
    for _ in range(10):
        chain.move_by_offset(by // 10, 0)
    chain.release().perform()


@pytest.fixture(scope="module")
def explorers(server):
    """A notebook with an explorer in each cell, and a flipbook in the last."""
    frames = "def draw(ax, value):\n    ax.plot([0, value])\n    ax.set(ylim=(0, 4))\n\n\n"
    cells = [
        new_code_cell("from helpers import explore"),
        *(new_code_cell(f"explore.{name}()") for name, _ in EXPLORERS),
        new_code_cell(frames + "explore.flipbook(draw, (1, 2, 3), 'Height (points)')"),
    ]
    notebook = new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, server.root / "explorers.ipynb")
    return "explorers.ipynb"


def test_explorers_follow_the_mouse_and_the_arrow_keys(explorers, server, driver):
    from selenium.webdriver.common.keys import Keys

    browser.open_notebook(driver, server, explorers)
    browser.run_all(driver)
    assert browser.complaints(driver) == []
    for cell, (name, leftmost) in enumerate(EXPLORERS, 1):
        picture, words = seen(driver, cell)
        first = handles(driver, cell)[0]
        drag(driver, first, 60)
        dragged, said = seen(driver, cell)
        assert dragged != picture and said != words, name
        first.send_keys(Keys.ARROW_LEFT)
        stepped, said_then = seen(driver, cell)
        assert stepped != dragged and said_then != said, name
        if leftmost:
            drag(driver, first, -200)
            assert seen(driver, cell)[1].startswith(leftmost), name
        driver.execute_script("arguments[0].click();", reset_button(driver, cell))
        shows_again(driver, cell, [picture, words], name)
        assert seen(driver, cell) == [picture, words], name  # and it stays so


def reset_button(driver, cell):
    return driver.execute_script(
        f"return {browser.PANEL}.content.widgets[arguments[0]].node.querySelector('button');", cell
    )


def test_a_flipbook_turns_without_a_kernel(explorers, server, driver):
    from selenium.webdriver.common.keys import Keys

    browser.open_notebook(driver, server, explorers)
    browser.run_all(driver)
    shown = "[...document.querySelectorAll('img[alt]')].filter(i => i.offsetParent).at(-1)?.alt"
    assert driver.execute_script(f"return {shown};") == "Height (points): 1."
    browser.end_kernel(driver)
    handle = handles(driver, len(EXPLORERS) + 1)[-1]
    handle.send_keys(Keys.ARROW_RIGHT)
    browser._until(driver, f"{shown} === 'Height (points): 2.'", 10, "second frame")
    drag(driver, handle, 300)
    browser._until(driver, f"{shown} === 'Height (points): 3.'", 10, "third frame")
