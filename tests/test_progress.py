"""The progress bar: what it shows, when it is silent, and that nbval can live with it."""

import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import IPython
import nbformat
import pytest
from nbclient import NotebookClient

from helpers import progress

ROOT = Path(__file__).resolve().parent.parent


class Shell:
    """Stands for a notebook's shell."""


@pytest.fixture
def page(monkeypatch):
    """Everything that a notebook would have been sent: (kind, data) in order."""
    sent = []

    class Handle:
        def update(self, data, raw):
            sent.append(("update", data))

    def display(data, raw, display_id):
        sent.append(("display", data))
        return Handle()

    monkeypatch.setattr(IPython, "get_ipython", Shell)
    monkeypatch.setattr("IPython.display.display", display)
    return sent


class Terminal(io.StringIO):
    """Stands for a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Make standard error a terminal outside IPython."""
    # Not sys.stderr itself: pytest puts its own there between a fixture and the test.
    fake = SimpleNamespace(stderr=Terminal(), modules={})
    monkeypatch.setattr(progress, "sys", fake)
    return fake.stderr


def test_a_notebook_gets_one_display_that_is_updated(page, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_UPDATES", 0)
    with progress.bar(4, "Refitting <schools>") as bar:
        for done in range(1, 5):
            bar(done)
    assert [kind for kind, _ in page] == ["display"] + ["update"] * 4
    assert {data["text/plain"] for _, data in page} == {"Refitting <schools>"}
    half = page[2][1]["text/html"]
    assert 'value="2" max="4" aria-label="Refitting &lt;schools&gt;"' in half
    assert re.search(r"<span>50 %, about \d+ s left</span>", half)


def test_the_last_state_holds_counts_and_no_timing(page):
    with progress.bar(1200, "Refitting") as bar:
        bar(1200)
    assert page[-1][1]["text/html"] == (
        '<div>Refitting: <progress class="course-progress" value="1200" max="1200" '
        'aria-label="Refitting"></progress> <span>1,200 done</span></div>'
    )


def test_updates_are_at_most_ten_a_second(page, monkeypatch):
    clock = iter(step / 1000 for step in range(10**6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.bar(10_000, "Refitting") as bar:
        for done in range(1, 10_001):
            bar(done)
    seconds = next(clock)
    assert 5 * seconds < len(page) < 10 * seconds + 3


def test_it_serves_as_a_progress_argument_without_a_with(page):
    bar = progress.bar(1, "Refitting")
    assert page == []
    bar(0, 50)
    bar(50, 50)
    assert "50 done" in page[-1][1]["text/html"]


def test_a_finished_bar_can_start_anew(page):
    bar = progress.bar(10, "Refitting")
    bar(10)
    bar(1)
    assert "starting" in page[-1][1]["text/html"]


def test_an_interrupt_passes_through_and_leaves_the_count(page):
    with pytest.raises(KeyboardInterrupt), progress.bar(10, "Refitting") as bar:
        bar(3)
        raise KeyboardInterrupt
    assert "<span>3 of 10 done</span>" in page[-1][1]["text/html"]


def test_a_terminal_gets_one_line_rewritten(terminal):
    with progress.bar(10, "Refitting") as bar:
        bar(10)
    written = terminal.getvalue()
    assert written.count("\n") == 1
    assert written.endswith("10 done \n")
    assert all(line.startswith("Refitting [") for line in written.strip().split("\r"))


def test_an_interrupted_line_is_ended(terminal):
    with pytest.raises(KeyboardInterrupt), progress.bar(10, "Refitting") as bar:
        bar(3)
        raise KeyboardInterrupt
    assert terminal.getvalue().rstrip(" \n").endswith("3 of 10 done")


def test_a_line_is_never_wider_than_the_terminal(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    with progress.bar(10, "Refitting a great many schools") as bar:
        bar(10)
    assert max(map(len, re.split("[\r\n]", terminal.getvalue()))) == 29


def test_elsewhere_it_is_silent(capsys):
    with progress.bar(10, "Refitting") as bar:
        bar(5)
        bar(10)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("total", "label", "error", "message"),
    [
        (0, "Refitting", ValueError, "total is 0; give 1 or more"),
        (2.5, "Refitting", TypeError, "total is 2.5; give a whole number"),
        ("ten", "Refitting", TypeError, "total is 'ten'; give a whole number"),
        (10, "", TypeError, "label is ''; give a few words"),
        (10, None, TypeError, "label is None; give a few words"),
    ],
)
def test_bad_input(total, label, error, message):
    with pytest.raises(error, match=re.escape(message)):
        progress.bar(total, label)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (59, "59 s"), (90, "2 min"), (5400, "1.5 h")]
)
def test_durations_are_coarse(seconds, words):
    assert progress._duration(seconds) == words


BAR = """
import time
from helpers import progress
with progress.bar(30, "Refitting") as bar:
    for step in range(30):
        time.sleep(0.02)
        bar(step + 1)
"""
OTHER = """
from IPython.display import HTML
HTML('<progress value="3" max="9"></progress> <span>3 of 9</span>')
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """An executed notebook: a bar; a bar stored under another label; another element, changed."""
    path = tmp_path_factory.mktemp("progress") / "bars.ipynb"
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in (BAR, BAR, OTHER)]
    )
    book.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    client = NotebookClient(book, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    assert "30 done" in book.cells[0].outputs[0].data["text/html"]
    for cell, old, new in ((1, "Refitting", "Bootstrapping"), (2, 'value="3"', 'value="4"')):
        data = book.cells[cell].outputs[0].data
        data["text/html"] = data["text/html"].replace(old, new)
    nbformat.write(book, path)
    return path


def outcomes(notebook, *options):
    """Run nbval on the notebook: the cells' outcomes, as a string of . and F."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        + ["--rootdir", str(notebook.parent), "--nbval", *options, str(notebook)],
        cwd=notebook.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return re.search(r"^([.F]+)\s", run.stdout, re.MULTILINE).group(1)


def test_nbval_passes_a_bar_and_nothing_else_with_our_patterns(notebook):
    assert outcomes(notebook, "--nbval-sanitize-with", str(ROOT / "tests/nbval.cfg")) == ".FF"


def test_nbval_would_fail_a_bar_without_our_patterns(notebook):
    assert outcomes(notebook) == "FFF"


def test_the_examples_in_the_docstrings_are_right():
    assert doctest.testmod(progress).failed == 0
