"""Each question: blank, wrong type, each known mistake, right, right with noise, wrong thrice."""

import doctest
import json
import subprocess
import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from helpers import check
from helpers.check import Choice, Number, Several

ALL = {
    name: question
    for lesson in check._lessons()
    for name, question in check._questions(lesson).items()
}
NUMBERS = [name for name, question in ALL.items() if isinstance(question, Number)]
SEVERALS = [name for name, question in ALL.items() if isinstance(question, Several)]
CHOICES = [name for name, question in ALL.items() if isinstance(question, Choice)]
COMPUTED = NUMBERS + SEVERALS


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No file, and nothing tried before."""
    monkeypatch.setenv("COURSE_PROGRESS", "off")
    check._session.clear()
    check._hinted.clear()


def said(capsys, name, answer):
    """The message in one line, with its newline."""
    assert check.q(name, answer) is None
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= check.WIDTH for line in lines)
    return " ".join(lines) + "\n"


def mistaken(question, mistake):
    """The whole answer of somebody who makes this mistake."""
    wrong = mistake()
    return question.answer() | wrong if isinstance(question, Several) else wrong


class Broken:
    """An answer that fails whatever is done with it."""

    def __array__(self, *_args, **_kwargs):
        raise RuntimeError("broken")

    __float__ = __len__ = __iter__ = __array__


# Every question of every lesson


@pytest.mark.parametrize("name", NUMBERS)
def test_a_right_number_of_any_kind(name, capsys):
    value = ALL[name].answer()
    kinds = [value, np.float32(value), value * (1 + 1e-9), np.array([value]), [value]]
    if ALL[name].tolerance >= 0.005:
        kinds.append(float(f"{value:.3g}"))
    for answer in [*kinds, pd.Series([value], index=["x"]), pd.DataFrame({"x": [value]})]:
        assert said(capsys, name, answer) == f"{name} is right. {ALL[name].insight}\n"


@pytest.mark.parametrize("name", SEVERALS)
def test_right_numbers_in_any_order(name, capsys):
    values = {label: value * (1 + 1e-9) for label, value in ALL[name].answer().items()}
    backwards = dict(reversed(values.items()))
    kinds = [values, backwards, {f" {label.upper()}": v for label, v in values.items()}]
    kinds += [pd.Series(values), pd.Series(backwards), pd.DataFrame([backwards])]
    kinds += [pd.DataFrame({"estimate": backwards}), {**values, "and one more": 7}]
    plain = list(values.values())
    kinds += [plain, tuple(plain), np.array(plain), np.array([plain]), pd.Series(plain)]
    for answer in kinds:
        assert said(capsys, name, answer) == f"{name} is right. {ALL[name].insight}\n"


@pytest.mark.parametrize("name", CHOICES)
def test_the_right_option_however_it_is_written(name, capsys):
    question = ALL[name]
    letter, text = question.right, question.options[question.right]
    for answer in (letter, letter.upper(), f"({letter})", f" {letter}.", text, f"{letter}) {text}"):
        assert said(capsys, name, answer) == f"{name} is right. {question.insight}\n"


@pytest.mark.parametrize("name", CHOICES)
def test_each_other_option_has_a_reason(name, capsys):
    question = ALL[name]
    assert list(question.options) == ["a", "b", "c", "d"]
    assert set(question.reasons) == set(question.options) - {question.right}
    assert len(set(question.options.values())) == 4
    for letter, reason in question.reasons.items():
        assert said(capsys, name, letter) == f"{name}: not yet. {reason}\n"


@pytest.mark.parametrize("name", COMPUTED)
def test_each_known_mistake_is_named(name, capsys):
    question = ALL[name]
    for mistake, explanation in question.mistakes:
        text = said(capsys, name, mistaken(question, mistake))
        assert text == f"{name}: not yet. {explanation}\n"


@pytest.mark.parametrize("name", COMPUTED)
def test_no_mistake_is_so_near_to_the_answer_that_rounding_meets_it(name):
    """Twice the tolerance apart: an answer rounded towards a mistake is still the answer."""
    question = ALL[name]
    for mistake, explanation in question.mistakes:
        right, wrong = question.answer(), mistaken(question, mistake)
        if isinstance(question, Number):
            right, wrong = {"": right}, {"": wrong}
        assert set(right) == set(wrong), explanation
        assert any(
            not check._same(wrong[label], right[label], 2 * question.tolerance) for label in right
        ), explanation


@pytest.mark.parametrize("name", COMPUTED)
def test_hints_get_more_specific_and_stop_at_the_last(name, capsys):
    question = ALL[name]
    assert len(question.hints) == 3 and len(set(question.hints)) == 3
    assert question.mistakes
    wrong = -1234.5
    if isinstance(question, Several):
        wrong = dict.fromkeys(question.answer(), wrong)
    for expected in (*question.hints, question.hints[-1]):
        assert expected in said(capsys, name, wrong)


NO_NUMBERS = [
    (..., "not answered yet"),
    (None, "not answered yet"),
    ("7.8", "leave out quotes"),
    (True, "type bool"),
    ([1, 2], "this holds 2"),
    (np.nan, "missing values"),
    (pd.NA, "a missing value"),
    (np.ma.masked, "a missing value"),
    (10**400, "type int"),
    (np.array(["7.8"]), "type ndarray"),
    (3 + 4j, "type complex"),
    ({"a": 1}, "type dict"),
    (len, "put () behind"),
    (Broken(), "type Broken"),
]


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_said_to_be_none(name, capsys):
    for answer, message in NO_NUMBERS:
        text = said(capsys, name, answer)
        assert message in text and "right" not in text


@pytest.mark.parametrize("name", SEVERALS)
def test_what_is_no_such_numbers_is_said_to_be_none(name, capsys):
    values = ALL[name].answer()
    first, *others = values
    cases = [
        (..., "not answered yet"),
        (values | {first: ...}, f"{first!r} is not answered yet"),
        (values | {first: "7.8"}, "leave out quotes"),
        (values | {first: np.nan}, "missing values"),
        ({label: values[label] for label in others}, f"there is no entry {first!r}"),
        (list(values.values())[1:], f"this holds {len(others)}"),
        (3.0, "this holds 1"),
        ("text", "not the text 'text'"),
        (len, "put () behind"),
        (object(), "type object"),
        (pd.DataFrame([values, values]).T.assign(more=1), "this table is"),
        (Broken(), "type Broken"),
    ]
    for answer, message in cases:
        text = said(capsys, name, answer)
        assert message in text and f"{name} is right" not in text


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_no_option_is_said_to_be_none(name, capsys):
    assert "not answered yet" in said(capsys, name, ...)
    for answer in ("e", "", 3, True, ["a"], Broken()):
        assert "one of the letters 'a', 'b', 'c' and 'd'" in said(capsys, name, answer)


@pytest.mark.parametrize("lesson", [lesson for lesson in check._lessons() if lesson != "00"])
def test_a_lesson_knows_three_misconceptions(lesson):
    asked = check._questions(lesson)
    known = sum(len(getattr(question, "mistakes", ())) for question in asked.values())
    assert known >= 3
    assert all(name.startswith(f"{lesson}.") for name in asked)


@pytest.mark.parametrize("name", COMPUTED)
def test_no_message_holds_the_answer(name):
    question, values = ALL[name], ALL[name].answer()
    values = values.values() if isinstance(question, Several) else [values]
    forms = {form % value for value in values for form in ("%.2f", "%.3f", "%.3g")}
    telling = {form for form in forms if "." in form and len(form.strip("-0.")) >= 3}
    explanations = [explanation for _, explanation in question.mistakes]
    for text in (question.insight, *explanations, *question.hints):
        assert not any(form in text for form in telling), text


@pytest.mark.parametrize("name", ALL)
def test_messages_are_sober_sentences(name):
    question = ALL[name]
    texts = [question.insight, *getattr(question, "hints", ())]
    texts += [explanation for _, explanation in getattr(question, "mistakes", ())]
    texts += [*getattr(question, "reasons", {}).values()]
    for text in texts:
        assert "!" not in text.replace("!=", "") and text == text.strip()
        assert text.endswith((".", "?")), text


@pytest.mark.parametrize("name", ALL)
def test_printing_and_help_give_nothing_away(name, capsys):
    question = ALL[name]
    print(question, repr(question), f"{question}")
    help(type(question))
    text = capsys.readouterr().out
    assert question.insight not in text
    for value in getattr(question, "options", {}).values():
        assert value not in text


@pytest.mark.parametrize("lesson", check._lessons())
def test_help_on_a_lesson_gives_nothing_away(lesson, capsys):
    help(f"helpers.questions.lesson_{lesson}")
    text = capsys.readouterr().out
    for question in check._questions(lesson).values():
        assert question.insight not in text


TARGETS = [name for lesson in check._lessons() for name in check._targets(lesson)]


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_one_figure_with_named_axes(name):
    plt.close("all")
    check.target(name)
    (number,) = plt.get_fignums()
    axes = plt.figure(number).axes
    assert any(ax.get_xlabel() for ax in axes) and any(ax.get_ylabel() for ax in axes)
    plt.close("all")


def test_a_figure_that_is_not_there(capsys):
    for name in ("00.1", "98.1", 3):
        check.target(name)
        assert capsys.readouterr().out == f"There is no figure to aim at for {name!r}.\n"


# The engine


@pytest.fixture
def toy(monkeypatch):
    """A lesson 99 of three questions, one of each kind."""
    mistakes = ((lambda: {"sd": 9.0}, "That is the variance."),)
    asked = {
        "99.1": Number(lambda: 12.34, "Known.", ((lambda: 5.0, "Five."),), ("h1.", "h2.", "h3.")),
        "99.2": Several(
            lambda: {"mean": 0.25, "sd": 3.0}, "Known.", mistakes, ("h1.", "h2.", "h3.")
        ),
        "99.3": Choice(
            "Which?",
            {"a": "one", "b": "two < three", "c": "three", "d": "four"},
            "c",
            {"a": "No a.", "b": "No b.", "d": "No d."},
            "Because.",
        ),
    }
    lessons = check._lessons()
    questions = check._questions
    monkeypatch.setattr(check, "_lessons", lambda: [*lessons, "99"])
    monkeypatch.setattr(check, "_questions", lambda n: asked if n == "99" else questions(n))
    return asked


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (-12.34, "the sign is not"),
        (1234, "100 times too large"),
        (0.1234, "100 times too small"),
        (12, "rounded too far"),
        (10, "rounded too far"),
        (13, "h1."),
        (5, "Five."),
        (12.3, "is right"),
    ],
)
def test_digits_tell_of_a_slip(toy, answer, message, capsys):
    assert message in said(capsys, "99.1", answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"mean": 0.25, "sd": 9}, "99.2: not yet. That is the variance."),
        ({"mean": 7, "sd": 9}, "99.2: not yet. That is the variance."),
        ({"mean": 7, "sd": 3}, "99.2: not yet. 'mean' is not right. h1."),
        ({"mean": 0.25, "sd": -3}, "99.2: not yet. 'sd' is not right. The size is right"),
        ([7, 7], "99.2: not yet. 'mean' and 'sd' are not right. h1."),
        ({"mean": 0.25, "SD ": 3}, "99.2 is right."),
        ({"mean": 3, "sd": 0.25}, "99.2: not yet. 'mean' and 'sd' are the right numbers in each"),
        (pd.Series([0.25, 3], [0, 1]), "99.2 is right."),
        (pd.Series([0.25, 3], [1, 2]), "99.2: there is no entry 'mean'"),
    ],
)
def test_which_of_several_is_wrong(toy, answer, message, capsys):
    assert said(capsys, "99.2", answer).startswith(message)


def test_a_label_may_be_written_with_any_gap(toy, capsys):
    values = {"more schools": 0.25, "SD of growth": 3.0}
    toy["99.2"] = Several(lambda: values, "Known.", (), ("h1.",))
    for gap in ("_", "-", "  "):
        given = {label.replace(" ", gap): value for label, value in values.items()}
        assert "is right" in said(capsys, "99.2", given)


@pytest.mark.parametrize(
    ("tolerance", "digits"), [(0.03, "three"), (0.005, "three"), (0.002, "four"), (1e-5, "six")]
)
def test_too_few_digits_are_told_how_many_it_takes(toy, tolerance, digits, capsys):
    toy["99.1"] = Number(lambda: 1123.5197532, "Known.", (), ("h1.",), tolerance)
    assert f"rounded too far; give {digits} digits" in said(capsys, "99.1", 1000)
    assert "is right" in said(capsys, "99.1", 1123.52)
    if digits == "six":
        assert "rounded too far" in said(capsys, "99.1", 1123.5)


def test_an_answer_of_zero_can_be_met(toy, capsys):
    toy["99.1"] = Number(lambda: 0.0, "Known.", (), ("h1.",))
    assert "is right" in said(capsys, "99.1", 0)
    assert "h1." in said(capsys, "99.1", 0.01)


@pytest.mark.parametrize("name", ["00.11", "0.1", 3, None, "", "__init__"])
def test_an_unknown_question_is_met_with_the_nearest(name, capsys):
    assert f"There is no question {str(name)!r}. Did you mean '" in said(capsys, name, 3)
    assert check.quiz(name) is None


def test_a_question_that_fails_says_so_and_counts_no_try(toy, capsys):
    toy["99.1"] = Number(lambda: 1 / 0, "Known.", (), ("h1.",))
    text = said(capsys, "99.1", 3)
    assert text.startswith("99.1 could not be checked here (ZeroDivisionError")
    assert check._session == {}


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("broken")


class Trap(dict):
    def items(self):
        raise Mute


@pytest.mark.parametrize("name", ["99.1", "99.2", "99.3"])
def test_nothing_raises(toy, name, capsys):
    loop = []
    loop.append(loop)
    odd = [loop, Trap(a=1), {1, 2}, object(), int, sys, pd.NaT, pd.Timestamp("2020"), b"3"]
    odd += [pd.DataFrame(), pd.Series(dtype=float), {}, [], {(1, 2): 3}, NotImplemented]
    odd += [(n for n in range(3)), np.zeros((2, 2)), [[1], [2, 3]], pd.Series([1, 2], [0, 0])]
    for answer in odd:
        assert said(capsys, name, answer).startswith(f"{name}")
    assert check._session == {}


def test_checks_are_quiet_about_warnings(toy, capsys, recwarn):
    def answer():
        warnings.warn("a singular fit", stacklevel=1)
        return 1.0

    toy["99.1"] = Number(answer, "Known.", (), ("h1.",))
    assert "is right" in said(capsys, "99.1", 1)
    assert not recwarn.list


def test_questions_are_only_read_when_asked():
    code = (
        "import sys; from helpers import check; "
        "loaded = [m for m in sys.modules if m.startswith('helpers.questions.')]; "
        "assert loaded == [], loaded; assert 'ipywidgets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_example_of_the_docstring():
    assert doctest.testmod(check).failed == 0


# The quiz


def test_a_click_says_whether_it_is_right(toy):
    question, choices, words = check.quiz("99.3").children
    assert "<b>Which?</b>" in question.value
    assert choices.value is None and words.value == ""
    assert [text for text, _ in choices.options][1] == "b) two < three"
    choices.value = "b"
    assert "99.3: not yet. No b." in words.value
    choices.value = "c"
    assert "99.3 is right. Because." in words.value
    assert check._session["99.3"] == {"tries": 2, "passed": True}


def test_a_quiz_of_a_number_says_that_it_has_no_options(toy, capsys):
    assert check.quiz("99.1") is None
    assert capsys.readouterr().out == "99.1 has no options to choose from.\n"


def test_a_quiz_in_words_has_it_all(toy):
    text = check.in_words("99.3")
    shown, answer = text.split("<details>")
    assert "**Which?**" in shown and "- b) two < three" in shown and "Because" not in shown
    assert "c) is right. Because." in answer and "- d) No d." in answer


# Progress


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("COURSE_PROGRESS", str(path))
    return path


def test_progress_is_noted_in_the_file_and_read_from_it(toy, file, capsys):
    check.q("99.1", ...)
    check.q("99.1", "text")
    assert not file.exists()
    for answer in (1, 2, 12.34, 12.34, 3):
        check.q("99.1", answer)
    check.q("99.2", [1, 1])
    assert json.loads(file.read_text()) == {
        "99.1": {"tries": 3, "passed": True},
        "99.2": {"tries": 1, "passed": False},
    }
    check._session.clear()
    table = check.progress().set_index("lesson")
    assert list(table.columns) == ["passed", "of"]
    assert table.loc["99"].tolist() == [1, 3]
    assert table.loc["00"].tolist() == [0, 1]
    assert list(file.parent.iterdir()) == [file]


def test_a_summary_to_hand_in(toy, file, capsys):
    check.q("99.1", 1)
    check.q("99.1", 12.34)
    capsys.readouterr()
    check.summary("99")
    assert capsys.readouterr().out.splitlines() == [
        "Lesson 99: 1 of 3 right.",
        "  99.1  right  2 tries",
        "  99.2  open   0 tries",
        "  99.3  open   0 tries",
        "Noted on this machine only; nothing is sent anywhere.",
    ]
    check.summary(0)
    assert capsys.readouterr().out.startswith("Lesson 00: 0 of 1 right.")
    check.summary("98")
    assert "There are no questions of lesson '98'" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b'{"99.1": 3}', b'{"99.1": {"tries": "x"}}', b"\xff\x00"]
)
def test_a_damaged_file_is_replaced(toy, file, content, capsys):
    file.write_bytes(content)
    assert check.progress()["passed"].sum() == 0
    assert "is right" in said(capsys, "99.1", 12.34)
    assert json.loads(file.read_text())["99.1"]["passed"]


def test_where_no_file_can_be_written_the_session_remembers(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "no" / "folder" / "file.json"))
    assert "is right" in said(capsys, "99.1", 12.34)
    assert check.progress()["passed"].sum() == 1


def test_a_folder_in_the_place_of_the_file_breaks_nothing(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path))
    assert "is right" in said(capsys, "99.1", 12.34)


def test_off_keeps_no_file(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "is right" in said(capsys, "99.1", 12.34)
    assert check.progress()["passed"].sum() == 1
    assert list(tmp_path.iterdir()) == []


def test_by_default_the_file_is_in_the_course_and_not_in_git(monkeypatch):
    monkeypatch.delenv("COURSE_PROGRESS")
    path = check._file()
    assert (path.parent / "course.py").exists()
    ignored = (path.parent / ".gitignore").read_text().splitlines()
    assert f"{path.name}*" in ignored
