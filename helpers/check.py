"""Checks for the exercises: whether an answer is right and, if not, what went wrong.

A question knows its answer only as a way to compute it, so that it can't go stale, and so that
neither ``print`` nor ``help`` gives it away.
"""

import difflib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from helpers import simulate

TOLERANCE = 0.002  # of the value: an answer may be rounded to three digits
_tries = Counter()


@dataclass(frozen=True)
class Question:
    """A question whose answer is one number.

    `answer` computes it; `insight` is said when it is found; `mistakes` are pairs of a way to go
    wrong and what to say of it; `hints` follow one another with each try that is just wrong.
    """

    answer: Callable[[], float]
    insight: str
    mistakes: tuple[tuple[Callable[[], float], str], ...]
    hints: tuple[str, ...]


def q(name, answer):
    """Say whether the answer to a question is right and, if not, what went wrong.

    Parameters
    ----------
    name : str
        The question's number, such as ``"00.1"``.
    answer : number
        Any kind of number, alone or in a Series or an array of one; ``...`` is no answer yet.

    Examples
    --------
    >>> q("00.1", ...)
    00.1 is not answered yet: put your answer in place of the three dots, and run the cell again.
    """
    print(_verdict(name, answer))


def _verdict(name, answer):
    if name not in QUESTIONS:
        near = difflib.get_close_matches(str(name), QUESTIONS, 1, 0)[0]
        return f"There is no question {name!r}. Did you mean {near!r}?"
    if answer is ... or answer is None:
        return (
            f"{name} is not answered yet: put your answer in place of the three dots, and run the "
            "cell again."
        )
    number, trouble = _number(answer)
    if trouble:
        return f"{name}: {trouble}"
    question = QUESTIONS[name]
    if _same(number, question.answer()):
        return f"{name} is right. {question.insight}"
    for mistake, explanation in question.mistakes:
        if _same(number, mistake()):
            return f"{name}: not yet. {explanation}"
    hint = question.hints[min(_tries[name], len(question.hints) - 1)]
    _tries[name] += 1
    return f"{name}: not yet. {hint}"


def _number(answer):
    """The answer as a float, or what is wrong with its kind."""
    if isinstance(answer, str | bytes | bool):
        return None, f"a number is asked for, not {answer!r}; leave out quotes and units."
    try:
        values = np.asarray(answer, dtype=float).ravel()
    except (TypeError, ValueError):
        return None, f"a number is asked for, not a {type(answer).__name__}."
    if values.size != 1:
        return None, f"one number is asked for, and this holds {values.size}."
    if not np.isfinite(values[0]):
        return None, f"the answer came out as {values[0]}; look for missing values on the way."
    return float(values[0]), ""


def _same(number, value):
    return abs(number - value) <= TOLERANCE * abs(value)


def _scores():
    return simulate.schools(30, 20, seed=3)["math_score"]


def _school_means():
    data = simulate.schools(30, 20, seed=3)
    return data.groupby("school_id")["math_score"].mean()


QUESTIONS = {
    "00.1": Question(
        answer=lambda: _school_means().std(),
        insight=(
            "Schools differ by about this much on average; how much of it is chance is a question "
            "for lessons 02 and 03."
        ),
        mistakes=(
            (lambda: _school_means().var(), "That is the variance; the question asks for the SD."),
            (
                lambda: _scores().std(),
                "You took the SD over 600 students; the question asks for that of 30 schools.",
            ),
            (
                lambda: _school_means().std() / np.sqrt(30),
                "That is the standard error of the average school, the SD divided by √30.",
            ),
            (
                lambda: _school_means().mean(),
                "That is the average of the 30 means; the question asks how far they lie apart.",
            ),
        ),
        hints=(
            "First a mean for each school, then one SD over the means.",
            'A mean for each school: schools.groupby("school_id")["math_score"].mean().',
            "Put .std() behind the 30 means.",
        ),
    ),
}
