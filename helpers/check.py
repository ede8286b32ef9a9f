"""Checks for the exercises: whether an answer is right and, if not, what went wrong.

A question knows its answer only as a way to compute it from the data, so that it can't go stale,
and so that neither ``print`` nor ``help`` gives it away. The questions are in `helpers.questions`,
a file a lesson, which is read when one of its questions is asked.

What has been answered is noted in the file ``.progress.json`` in the course's folder, and nowhere
else; delete it to start afresh. The environment variable ``COURSE_PROGRESS`` names another file,
or is "off" to keep no file.
"""

import contextlib
import difflib
import html
import importlib
import itertools
import json
import math
import os
import pkgutil
import re
import textwrap
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import questions

WIDTH = 95  # characters a line, as wide as a page without a kernel shows without scrolling
DIGITS = {3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}
_session = {}  # what has been answered since Python started, for where no file can be kept
_hinted = Counter()


# ---------------------------------------------------------------------------------------------
# Kinds of question


@dataclass(frozen=True, repr=False)
class Number:
    """A question whose answer is one number.

    Attributes
    ----------
    answer : callable
        Computes it.
    insight : str
        Said when it is found: a sentence worth knowing.
    mistakes : tuple of pairs
        A way to go wrong (a callable like `answer`) and what to say of it.
    hints : tuple of str
        For other wrong answers, one a try, the last being the most specific.
    tolerance : float
        Relative to the answer; the default lets it be rounded to three digits.
    """

    answer: Callable[[], float]
    insight: str
    mistakes: tuple[tuple[Callable[[], float], str], ...]
    hints: tuple[str, ...]
    tolerance: float = 0.005

    def judge(self, given, hint):
        """Return whether it is right, and what to say."""
        number, value = _number(given), self.answer()
        if _same(number, value, self.tolerance):
            return True, self.insight
        for mistake, explanation in self.mistakes:
            if _same(number, mistake(), self.tolerance):
                return False, explanation
        return False, _slip(number, value, self.tolerance) or hint()


@dataclass(frozen=True, repr=False)
class Several:
    """A question whose answer is a few numbers, each with a label.

    `answer` and the mistakes return dicts from label to number; a mistake may hold only the
    labels in which it shows. The other attributes are those of `Number`. The answer given may be
    a dict, a Series or a one-row DataFrame with these labels in any order, or numbers alone in
    the order of `answer`.
    """

    answer: Callable[[], dict[str, float]]
    insight: str
    mistakes: tuple[tuple[Callable[[], dict[str, float]], str], ...]
    hints: tuple[str, ...]
    tolerance: float = 0.005

    def judge(self, given, hint):
        """Return whether it is right, and what to say."""
        values = self.answer()
        numbers = _numbers(given, list(values))
        wrong = self._differing(numbers, values)
        if not wrong:
            return True, self.insight
        for mistake, explanation in self.mistakes:
            if not self._differing(numbers, mistake()):
                return False, explanation
        if self._exchanged(numbers, values):
            return False, f"{_listed(wrong)} are the right numbers in each other's place."
        slip = _slip(numbers[wrong[0]], values[wrong[0]], self.tolerance)
        are = "is" if len(wrong) == 1 else "are"
        return False, f"{_listed(wrong)} {are} not right. {slip or hint()}"

    def _exchanged(self, numbers, values):
        orders = itertools.permutations(numbers[label] for label in values)
        return any(
            not self._differing(dict(zip(values, order, strict=True)), values) for order in orders
        )

    def _differing(self, numbers, values):
        return [
            label
            for label, value in values.items()
            if not _same(numbers[label], value, self.tolerance)
        ]


@dataclass(frozen=True, repr=False)
class Choice:
    """A question with one best answer of four.

    Attributes
    ----------
    question : str
    options : dict
        Letter to text: ``{"a": "…", "b": "…", "c": "…", "d": "…"}``. Plain text, no equations.
    right : str
        The letter of the best one.
    reasons : dict
        Letter of each other option to why it is wrong.
    insight : str
        Said of the right one: why it is right.
    """

    question: str
    options: dict[str, str]
    right: str
    reasons: dict[str, str]
    insight: str

    def judge(self, given, _hint):
        """Return whether it is right, and what to say."""
        letter = self._letter(given)
        if letter == self.right:
            return True, self.insight
        return False, self.reasons[letter]

    def _letter(self, given):
        if isinstance(given, str):
            text = given.strip().casefold()
            for letter, option in self.options.items():
                whole = (option.casefold(), f"{letter}) {option}".casefold())
                if text.strip("().") == letter or text in whole:
                    return letter
        raise _Unfit(f"the answer is one of the letters {_listed(self.options)}, in quotes.")


# ---------------------------------------------------------------------------------------------
# Asking


def q(name, answer):
    """Say whether the answer to a question is right and, if not, what went wrong.

    Parameters
    ----------
    name : str
        The question's number, such as ``"00.1"``.
    answer : number, or several, or text
        A number of any kind, alone or in a Series or an array of one; where several are asked
        for, a dict, a Series, a one-row DataFrame or a list; a letter where options are given.
        ``...`` is no answer yet.

    Examples
    --------
    >>> q("00.1", ...)
    00.1 is not answered yet: put your answer in place of the three dots, and run the cell again.
    """
    with warnings.catch_warnings():
        # A fit that is asked to go wrong on purpose warns, and that warning is not the learner's.
        warnings.simplefilter("ignore")
        text = _verdict(name, answer)
    print(textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def quiz(name):
    """Show a question with four options; a click says at once whether it is right, and why.

    Parameters
    ----------
    name : str
        The question's number, such as ``"04.4"``.

    Returns
    -------
    ipywidgets.VBox or None
        None, and a line of text, if there is no such question or it has no options.
    """
    import ipywidgets as widgets

    question = _find(name)
    if not isinstance(question, Choice):
        print(f"{name} has no options to choose from." if question else _unknown(name))
        return None
    asked = widgets.HTML(_paragraph(f"<b>{html.escape(question.question)}</b>"))
    choices = widgets.RadioButtons(
        options=[(f"{letter}) {text}", letter) for letter, text in question.options.items()],
        value=None,
        layout={"width": "auto"},
    )
    words = widgets.HTML()

    def say(change):
        words.value = _paragraph(html.escape(_verdict(name, change["new"])), ' role="status"')

    choices.observe(say, names="value")
    return widgets.VBox([asked, choices, words])


def _paragraph(text, attributes=""):
    return f'<p{attributes} style="margin:0; line-height:1.5">{text}</p>'


def in_words(name):
    """Return the Markdown of a question with four options, for readers without a kernel.

    Parameters
    ----------
    name : str
        The question's number; it must be a `Choice`.

    Returns
    -------
    str
        The question, its options and, folded away, the right one with a reason for each other.
    """
    question = _find(name)
    options = [f"- {letter}) {text}" for letter, text in question.options.items()]
    reasons = [f"- {letter}) {reason}" for letter, reason in question.reasons.items()]
    right = f"{question.right}) is right. {question.insight}"
    answer = ["<details>", "<summary>Answer</summary>", "", right, "", *reasons, "", "</details>"]
    return "\n".join([f"**{question.question}**", "", *options, "", *answer])


def target(name):
    """Draw what the figure that a task asks for should look like.

    Parameters
    ----------
    name : str
        The number that the task gives, a key of ``TARGETS`` in its lesson's questions.
    """
    draw = _targets(str(name)[:2]).get(name)
    if draw is None:
        print(f"There is no figure to aim at for {name!r}.")
        return
    draw()


def _verdict(name, answer):
    question = _find(name)
    if question is None:
        return _unknown(name)
    if answer is ... or answer is None:
        return (
            f"{name} is not answered yet: put your answer in place of the three dots, and run the "
            "cell again."
        )
    try:
        right, text = question.judge(answer, lambda: _next_hint(name, question))
    except _Unfit as trouble:
        return f"{name}: {trouble}"
    except Exception as error:
        # An error may fail even at saying what it is; this never does.
        trouble = traceback.format_exception_only(error)[-1].strip()
        return f"{name} could not be checked here ({trouble})."
    _note(name, right)
    return f"{name} is right. {text}" if right else f"{name}: not yet. {text}"


def _next_hint(name, question):
    hint = question.hints[min(_hinted[name], len(question.hints) - 1)]
    _hinted[name] += 1
    return hint


def _lessons():
    """The numbers of the lessons that have questions."""
    names = [module.name for module in pkgutil.iter_modules(questions.__path__)]
    return sorted(name.removeprefix("lesson_") for name in names)


def _module(lesson):
    return importlib.import_module(f"helpers.questions.lesson_{lesson}")


def _questions(lesson):
    return _module(lesson).QUESTIONS


def _targets(lesson):
    return getattr(_module(lesson), "TARGETS", {}) if lesson in _lessons() else {}


def _find(name):
    lesson = str(name)[:2]
    return _questions(lesson).get(name) if lesson in _lessons() else None


def _unknown(name):
    known = [question for lesson in _lessons() for question in _questions(lesson)]
    near = difflib.get_close_matches(str(name), known, 1, 0)[0]
    return f"There is no question {str(name)!r}. Did you mean {near!r}?"


# ---------------------------------------------------------------------------------------------
# Reading an answer


class _Unfit(Exception):
    """What is wrong with the kind of an answer, in words."""


def _number(given):
    """The answer as a float."""
    if isinstance(given, str | bytes):
        raise _Unfit(f"a number is asked for, not {given!r}; leave out quotes and units.")
    if given is pd.NA or given is pd.NaT or np.ma.is_masked(given):
        raise _Unfit("the answer is a missing value; look for others on the way.")
    if callable(given):
        raise _Unfit("a number is asked for, not a function; put () behind its name to call it.")
    kind = f"a number is asked for, and this is of type {type(given).__name__}."
    try:
        values = np.asarray(given)
        if values.dtype.kind not in "iufO":
            raise _Unfit(kind)
        values = values.astype(float).ravel()
    except Exception:  # an object may do anything when it is turned into an array
        raise _Unfit(kind) from None
    if values.size != 1:
        raise _Unfit(f"one number is asked for, and this holds {values.size}.")
    if not np.isfinite(values[0]):
        raise _Unfit(f"the answer came out as {values[0]}; look for missing values on the way.")
    return float(values[0])


def _numbers(given, labels):
    """The answer as a dict from label to float."""
    found, numbers = _labelled(given, labels), {}
    for label in labels:
        if found[label] is ... or found[label] is None:
            raise _Unfit(f"{label!r} is not answered yet.")
        try:
            numbers[label] = _number(found[label])
        except _Unfit as trouble:
            raise _Unfit(f"{label!r}: {trouble}") from None
    return numbers


def _labelled(given, labels):
    """The entries of an answer by the question's labels."""
    if isinstance(given, str | bytes):
        raise _Unfit(f"numbers for {_listed(labels)} are asked for, not the text {given!r}.")
    if callable(given):
        raise _Unfit("numbers are asked for, not a function; put () behind its name to call it.")
    if isinstance(given, pd.DataFrame):
        if 1 not in given.shape:
            rows, columns = given.shape
            raise _Unfit(f"one row is asked for, and this table is {rows} by {columns}.")
        given = given.iloc[0] if len(given) == 1 else given.iloc[:, 0]
    # Positions 0, 1, … are no labels: a row of conf_int() has them.
    if isinstance(given, pd.Series) and list(given.index) != list(range(len(given))):
        given = dict(zip(given.index, given, strict=True))
    if isinstance(given, Mapping):
        by_name = {_plain(label): value for label, value in given.items()}
        for label in labels:
            if _plain(label) not in by_name:
                raise _Unfit(f"there is no entry {label!r}; it takes {_listed(labels)}.")
        return {label: by_name[_plain(label)] for label in labels}
    kind = f"numbers are asked for, and this is of type {type(given).__name__}."
    try:
        values = list(given) if isinstance(given, list | tuple) else list(np.ravel(given))
    except Exception:
        raise _Unfit(kind) from None
    if len(values) == 1 and values[0] is given:  # a fit, say, of which NumPy makes one object
        raise _Unfit(kind)
    if len(values) != len(labels):
        raise _Unfit(f"numbers for {_listed(labels)} are asked for, and this holds {len(values)}.")
    return dict(zip(labels, values, strict=True))


def _plain(label):
    return " ".join(re.split(r"[\s_-]+", str(label).strip().casefold()))


def _listed(names):
    *first, last = [repr(name) for name in names]
    return f"{', '.join(first)} and {last}" if first else last


def _same(number, value, tolerance):
    return bool(abs(number - value) <= max(tolerance * abs(value), 1e-12))


def _slip(number, value, tolerance):
    """What the digits alone tell of a wrong number: sign, percentage, rounding; "" if nothing."""
    if _same(-number, value, tolerance):
        return "The size is right and the sign is not."
    if _same(number / 100, value, tolerance):
        return "That is 100 times too large: a share is not a percentage."
    if _same(number * 100, value, tolerance):
        return "That is 100 times too small: a percentage is not a share."
    digits = math.ceil(1 - math.log10(2 * tolerance) - 1e-9)  # so many always meet the tolerance
    if any(_same(number, float(f"{value:.{few}g}"), 1e-9) for few in range(1, digits)):
        return f"If that is rounded, it is rounded too far; give {DIGITS[digits]} digits or more."
    return ""


# ---------------------------------------------------------------------------------------------
# Progress


def progress():
    """Return how many questions of each lesson have been answered on this machine.

    Returns
    -------
    pandas.DataFrame
        Columns lesson, passed and of; a row for each lesson with questions.
    """
    noted = _noted()
    rows = []
    for lesson in _lessons():
        names = _questions(lesson)
        passed = sum(noted[name]["passed"] for name in names if name in noted)
        rows.append((lesson, passed, len(names)))
    return pd.DataFrame(rows, columns=["lesson", "passed", "of"])


def summary(lesson):
    """Print which questions of a lesson have been answered: text to keep or to hand in.

    Parameters
    ----------
    lesson : str
        Such as ``"05"``.
    """
    lesson = str(lesson).zfill(2)
    if lesson not in _lessons():
        print(f"There are no questions of lesson {lesson!r}; there are: {', '.join(_lessons())}.")
        return
    noted, names = _noted(), _questions(lesson)
    lines, passed = [], 0
    for name in names:
        note = noted.get(name, {"tries": 0, "passed": False})
        passed += note["passed"]
        tries = f"{note['tries']} {'try' if note['tries'] == 1 else 'tries'}"
        lines.append(f"  {name}  {'right' if note['passed'] else 'open '}  {tries}")
    print(f"Lesson {lesson}: {passed} of {len(names)} right.", *lines, sep="\n")
    print("Noted on this machine only; nothing is sent anywhere.")


def _file():
    """Where progress is kept; None for nowhere."""
    named = os.environ.get("COURSE_PROGRESS")
    if named == "off":
        return None
    return Path(named) if named else Path(__file__).resolve().parent.parent / ".progress.json"


def _noted():
    """A dict from question to its tries (up to the right answer) and whether it was passed."""
    if path := _file():
        # A file that is missing or damaged counts as none.
        with contextlib.suppress(Exception):
            stored = json.loads(path.read_text(encoding="utf-8"))
            return {
                name: {"tries": int(note["tries"]), "passed": bool(note["passed"])}
                for name, note in stored.items()
            }
    return dict(_session)


def _note(name, right):
    noted = _noted()
    before = noted.get(name, {"tries": 0, "passed": False})
    if before["passed"]:
        return
    noted[name] = _session[name] = {"tries": before["tries"] + 1, "passed": right}
    if path := _file():
        draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(noted, indent=1, sort_keys=True), encoding="utf-8")
            os.replace(draft, path)
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
