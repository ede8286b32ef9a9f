"""Each question: blank, wrong type, each known mistake, right, right with noise, wrong thrice."""

import doctest

import numpy as np
import pandas as pd
import pytest

from helpers import check


@pytest.fixture(autouse=True)
def first_try():
    check._tries.clear()


def said(capsys, name, answer):
    assert check.q(name, answer) is None
    return capsys.readouterr().out


@pytest.mark.parametrize("name", check.QUESTIONS)
def test_right_answers_of_any_kind(name, capsys):
    value = check.QUESTIONS[name].answer()
    kinds = [value, np.float32(value), value * (1 + 1e-9), round(value, 2), np.array([value])]
    for answer in [*kinds, pd.Series([value], index=["x"])]:
        text = said(capsys, name, answer)
        assert f"{name} is right." in text and check.QUESTIONS[name].insight in text


@pytest.mark.parametrize("name", check.QUESTIONS)
def test_each_known_mistake_is_named(name, capsys):
    for mistake, explanation in check.QUESTIONS[name].mistakes:
        text = said(capsys, name, mistake())
        assert "not yet" in text and explanation in text


@pytest.mark.parametrize("name", check.QUESTIONS)
def test_no_mistake_is_taken_for_the_answer_or_for_another(name):
    question = check.QUESTIONS[name]
    values = [question.answer(), *(mistake() for mistake, _ in question.mistakes)]
    for i, value in enumerate(values):
        assert not any(check._same(value, other) for other in values[:i])


@pytest.mark.parametrize("name", check.QUESTIONS)
def test_hints_get_more_specific_and_stop_at_the_last(name, capsys):
    hints = check.QUESTIONS[name].hints
    for expected in (*hints, hints[-1]):
        assert expected in said(capsys, name, -123.4)


@pytest.mark.parametrize("name", check.QUESTIONS)
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (..., "not answered yet"),
        (None, "not answered yet"),
        ("7.8", "leave out quotes"),
        (True, "a number is asked for"),
        ([1, 2], "this holds 2"),
        (np.nan, "missing values"),
        ({"a": 1}, "not a dict"),
    ],
)
def test_what_is_no_number_is_said_to_be_none(name, answer, message, capsys):
    assert message in said(capsys, name, answer)


def test_an_unknown_question_is_met_with_the_nearest(capsys):
    assert "Did you mean '00.1'?" in said(capsys, "00.11", 3)


def test_nothing_is_given_away(capsys):
    for name, question in check.QUESTIONS.items():
        help(check)
        print(check.QUESTIONS[name])
        assert f"{question.answer():.2f}" not in capsys.readouterr().out


def test_the_example_of_the_docstring():
    assert doctest.testmod(check).failed == 0
