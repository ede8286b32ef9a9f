"""The questions of lesson 12, prediction and checking: another district, then growing children."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers import datasets, mixed, plots, reml, simulate
from helpers.check import Choice, Number, Several

SCHOOL, HOURS = "School_10", 8.0
KNOWN = {"target": "group", "interval": "prediction"}
NEW = {"target": "new group", "interval": "prediction"}


@cache
def _district():
    return simulate.schools(25, 16, seed=5)


def _fitted(data):
    return mixed.fit("math_score ~ app_hours", data, "school_id", "~app_hours")


@cache
def _fit():
    return _fitted(_district())


def _interval(target, interval):
    child = pd.DataFrame({"app_hours": [HOURS], "school_id": [SCHOOL]})
    row = mixed.predict(_fit(), child, target=target, interval=interval).iloc[0]
    return {"lower": row["lower"], "upper": row["upper"]}


def _parts(hours=HOURS, covariance=1.0):
    """Variances of a new school's line, of the average line and of a child about its line."""
    x, C = np.array([1, hours]), _fit().cov_re.to_numpy()
    V = _fit().cov_params().iloc[:2, :2].to_numpy()
    school = C[0, 0] + hours**2 * C[1, 1] + covariance * 2 * hours * C[0, 1]
    return school, x @ V @ x, _fit().scale


def _share(school, line, child):
    return 100 * school / (school + line + child)


@cache
def _halves():
    """The fit to the first eight students of each school, and all other students."""
    first = _district().groupby("school_id").cumcount() < 8
    return _fitted(_district()[first]), _district()[first], _district()[~first]


def _held(fit, students, target="group", interval="prediction"):
    """Share of students, in per cent, whose score lies in the interval."""
    band = mixed.predict(fit, students, target=target, interval=interval)
    return 100 * students["math_score"].between(band["lower"], band["upper"]).mean()


@cache
def _residual_sd(without=None):
    children = datasets.load("orthodont")
    children = children[children["subject"] != without]
    X = np.column_stack([np.ones(len(children)), children["age"]])
    return np.sqrt(reml.fit(children["distance"], X, X, children["subject"]).scale)


@cache
def _without_each():
    return {child: _residual_sd(child) for child in datasets.load("orthodont")["subject"].unique()}


def _draw_bands():
    """The bands of a child in School 10 and of one in a new school, over the hours."""
    students = _district()[_district()["school_id"] == SCHOOL]
    grid = pd.DataFrame({"app_hours": np.linspace(1, 10, 46), "school_id": SCHOOL})
    _, ax = plt.subplots()
    for name, question, colour in (
        ("a new school", NEW, plots.PALE),
        ("School 10", KNOWN, plots.BLUE),
    ):
        band = mixed.predict(_fit(), grid, **question)
        ax.fill_between(
            grid["app_hours"], band["lower"], band["upper"], color=colour, alpha=0.45, label=name
        )
    ax.scatter(students["app_hours"], students["math_score"], color=plots.INK, s=22)
    ax.set(xlabel="Hours on the app", ylabel="Maths score (points)")
    ax.set_title("What is known of a school makes the band narrower")
    ax.legend(title="95 %, a child in", loc="upper left")


TARGETS = {"12.1": _draw_bands}

QUESTIONS = {
    "12.1": Several(
        answer=lambda: _interval(**KNOWN),
        insight=(
            "Nearly all of this width is the child. Sixteen schoolmates have told where the line "
            "of the school lies."
        ),
        mistakes=(
            (
                lambda: _interval("group", "confidence"),
                "That is the interval of the school's line; a child lies about the line.",
            ),
            (
                lambda: _interval(**NEW),
                "That is for a child in a new school; this school is in the data.",
            ),
            (
                lambda: _interval("population", "confidence"),
                "That is the confidence interval of the average line, which is no child's.",
            ),
            (
                lambda: _interval("new group", "confidence"),
                "That is the interval of a new school's line; asked is a child of School 10.",
            ),
        ),
        hints=(
            "Whose line is asked for, and is it the line or one observation about it?",
            'In mixed.predict, target "group" takes the line of the school named in the data.',
            'mixed.predict(fit, child, target="group", interval="prediction"), and from its row '
            "the columns lower and upper.",
        ),
    ),
    "12.2": Number(
        answer=lambda: _share(*_parts()),
        insight=(
            "More students in the known schools would not make this part smaller; knowing "
            "something about the new school would."
        ),
        mistakes=(
            (
                lambda: _share(*_parts(covariance=0)),
                "The variance of a school's line has three terms; the covariance is missing.",
            ),
            (
                lambda: _share(*_parts(hours=0)),
                "That is the share at 0 hours, where only the intercepts count.",
            ),
            (
                lambda: 100 * sum(_parts()[:2]) / sum(_parts()),
                "You added the average line's error to the schools' part; it is a part of its own.",
            ),
            (
                lambda: 10 * np.sqrt(_share(*_parts())),
                "That is a share of standard deviations; variances add, so take those.",
            ),
            (
                lambda: 100 * _parts()[2] / sum(_parts()),
                "That is the share of the child, the residual variance.",
            ),
            (
                lambda: _share(_parts()[0], 0, _parts()[2]),
                "You left out the average line's own error, the third part.",
            ),
            (
                lambda: 100 * _parts()[0] / _parts()[2],
                "That is the school's part over the child's; asked is its share of all three.",
            ),
            (
                lambda: 100 * _parts()[1] / sum(_parts()),
                "That is the share of the average line; the question is about the school.",
            ),
        ),
        hints=(
            "Three variances add up: the child's, the school's and that of the average line.",
            "At x hours the school's part is var0 + 2 x cov + x² var1, all from fit.cov_re.",
            'The sum of all three is the square of "se" in the prediction for a new group.',
        ),
    ),
    "12.3": Choice(
        question=(
            "Twenty-five schools with five students each. The Q–Q plot of the slopes' BLUPs lies "
            "on a straight line. What does that say of the schools' slopes?"
        ),
        options={
            "a": "They are normal; the model is right.",
            "b": "There is no odd school among them.",
            "c": "Little: such a plot is straight for other shapes, too.",
            "d": "They do not vary; the points are sampling error.",
        },
        right="c",
        reasons={
            "a": (
                "The model that made these guesses assumes normal slopes, and with five students "
                "a guess is mostly sampling error."
            ),
            "b": (
                "An odd school is shrunk like the others, and with five students a school their "
                "sampling errors hide much of what is left."
            ),
            "d": "A straight plot says nothing on how far the points spread; look at its scale.",
        },
        insight=(
            "A bent plot would say something. To see the shape of the slopes, have many students "
            "in each school."
        ),
    ),
    "12.4": Number(
        answer=lambda: _held(_halves()[0], _halves()[2]),
        insight=(
            "Two hundred students leave room for chance, and variances from half the data are "
            "estimates; both are honest reasons not to see the promised share exactly."
        ),
        tolerance=0.002,
        mistakes=(
            (
                lambda: _held(_halves()[0], _halves()[2], interval="confidence"),
                "You used the interval of the school's line; the promise is about students.",
            ),
            (
                lambda: _held(_halves()[0], _halves()[1]),
                "You counted the students that the fit has seen; count the others.",
            ),
            (
                lambda: _held(_halves()[0], _halves()[2], target="new group"),
                "So many lie in the intervals for new schools (and so many were promised); these "
                "schools are known.",
            ),
            (
                lambda: _held(_fit(), _halves()[2]),
                "The fit has seen all the students; let it learn from the first eight only.",
            ),
            (
                lambda: 100 - _held(_halves()[0], _halves()[2]),
                "That is the share of students outside; asked is the share inside.",
            ),
            (
                lambda: 2 * _held(_halves()[0], _halves()[2]),
                "That is a number of students out of 200; the question asks for per cent.",
            ),
        ),
        hints=(
            "Fit to learn, predict for held_out, and count the scores between the two ends.",
            'The interval: mixed.predict(fit, held_out, target="group", interval="prediction").',
            'held_out["math_score"].between(band["lower"], band["upper"]).mean(), times 100.',
        ),
    ),
    "12.5": Number(
        answer=lambda: min(_without_each().values()),
        insight=(
            "Without one boy of 27 children the SD that the model ascribes to everybody is a "
            "quarter smaller; with him, the interval of every other known child is wider."
        ),
        mistakes=(
            (
                lambda: _residual_sd(),
                "That is the residual SD with all children; leave one out at a time.",
            ),
            (
                lambda: min(_without_each().values()) ** 2,
                "That is the residual variance; the question asks for the SD.",
            ),
            (
                lambda: _residual_sd("M13"),
                "That is without M13, who counts next; look for the child who counts most.",
            ),
            (
                lambda: max(_without_each().values()),
                "That is the largest of them; the question is whose absence lowers it most.",
            ),
            (
                lambda: _residual_sd() - min(_without_each().values()),
                "That is by how much the SD falls; the question asks where it ends.",
            ),
        ),
        hints=(
            "Refit without each child in turn, and keep the residual SD of each fit.",
            'residual_sd(children[children["subject"] != name]) for every name.',
            "The smallest of the 27 values is the answer.",
        ),
    ),
}
