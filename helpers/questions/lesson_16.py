"""The questions of the capstone: sixty-five schools of inner London."""

from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from helpers import datasets, mixed
from helpers.check import Choice, Number, Several


@cache
def _exam():
    return datasets.load("exam")


@cache
def _fit(predictors="standlrt", random="~standlrt", reml=True):
    return mixed.fit(f"normexam ~ {predictors}", _exam(), "school", random, reml=reml)


def _counts():
    sizes = _exam().groupby("school").size()
    return {"students": len(_exam()), "schools": len(sizes), "smallest": sizes.min()}


def _spread(reading, **settings):
    """SD between schools of the expected score of students with this reading score."""
    fit = _fit(**settings)
    where = np.array([1.0, reading])[: len(fit.cov_re)]
    return np.sqrt(where @ fit.cov_re.to_numpy() @ where)


def _spreads(power=1.0, **settings):
    return {
        "weak readers": _spread(-2, **settings) ** power,
        "strong readers": _spread(2, **settings) ** power,
    }


def _without_covariance():
    intercepts, slopes = np.diag(_fit().cov_re)
    return dict.fromkeys(_spreads(), np.sqrt(intercepts + 4 * slopes))


def _of_students():
    return {name: np.sqrt(sd**2 + _fit().scale) for name, sd in _spreads().items()}


def _of_blups():
    lines = mixed.group_coefficients(_fit()).pivot(index="group", columns="term", values="blup")
    at = {"weak readers": -2, "strong readers": 2}
    return {name: (lines["Intercept"] + x * lines["standlrt"]).std() for name, x in at.items()}


def _contextual():
    return _fit("standlrt + schavg").fe_params["schavg"]


def _between():
    centred = _exam().assign(own=_exam()["standlrt"] - _exam()["schavg"])
    return mixed.fit("normexam ~ own + schavg", centred, "school", "~own").fe_params["schavg"]


@cache
def _girls(students="female", predictors="standlrt + girls_school", random="~standlrt", width=1.96):
    """Coefficient of girls' schools among girls and its 95 % interval."""
    data = _exam().assign(girls_school=(_exam()["schgend"] == "girls").astype(int))
    if students == "female":
        data = data[data["sex"] == "female"]
    fit = mixed.fit(f"normexam ~ {predictors}", data, "school", random)
    middle, half = fit.fe_params["girls_school"], width * fit.bse_fe["girls_school"]
    return {"difference": middle, "lower": middle - half, "upper": middle + half}


def _told_apart(width=1.96, term="Intercept", above=False, spread=False):
    """Schools whose interval at an average reader leaves out the average school."""
    table = mixed.group_coefficients(_fit())
    lines = table[table["term"] == term]
    distance = lines["blup"] if above else lines["blup"].abs()
    sd = np.sqrt(_fit().cov_re.iloc[0, 0]) if spread else lines["sd"]
    return int((distance > width * sd).sum())


def _average_reader(variance):
    """The average line at a reading score of 0, and 1.96 roots of a variance either way."""
    middle, half = _fit().fe_params["Intercept"], 1.96 * np.sqrt(variance)
    return {"lower": middle - half, "upper": middle + half}


def _new_school(kind="prediction", target="new group", school="another"):
    row = mixed.predict(
        _fit(),
        pd.DataFrame({"standlrt": [0.0], "school": [school]}),
        target=target,
        interval=kind,
    ).iloc[0]
    return {"lower": row["lower"], "upper": row["upper"]}


QUESTIONS = {
    "16.1": Several(
        answer=_counts,
        insight=(
            "A school of two can stay in a mixed model; its line comes out close to the average "
            "one."
        ),
        mistakes=(
            (
                lambda: {"students": _exam()["student"].nunique()},
                "You counted the different numbers of students. They start afresh in each school, "
                "so count rows.",
            ),
            (
                lambda: {"smallest": _exam().groupby("school")["student"].nunique().mean()},
                "That is the average size of a school; the question asks for the smallest.",
            ),
            (
                lambda: {"smallest": _exam().groupby("school").size().max()},
                "That is the largest school; the question asks for the smallest.",
            ),
        ),
        hints=(
            "One row is one student, and the school stands in a column of its own.",
            'Sizes of the schools: exam.groupby("school").size().',
            "The number of rows, the number of sizes, and the smallest size.",
        ),
    ),
    "16.2": Choice(
        "What is wrong with the column intake?",
        {
            "a": "A third of its cells are empty.",
            "b": "It is the same for all students of a school.",
            "c": "Its names are the wrong way round.",
            "d": "Nothing; bands and reading scores agree.",
        },
        right="c",
        reasons={
            "a": "No cell is empty. Count them with isna.",
            "b": "That is true of the column vr, although its documentation says otherwise.",
            "d": "Compare the mean of standlrt in the three bands.",
        },
        insight=(
            "Students in the band called bottom read best. Only a look at the data shows it: no "
            "program would have complained."
        ),
    ),
    "16.3": Several(
        answer=_spreads,
        insight="Schools lie further apart for strong readers than for weak ones.",
        mistakes=(
            (
                lambda: _spreads(power=2),
                "Those are variances; the question asks for SDs.",
            ),
            (
                lambda: _spreads(random=None),
                "Those come from parallel lines, where schools differ equally everywhere. Let the "
                "slope vary as well.",
            ),
            (
                lambda: dict.fromkeys(_spreads(), _spread(0)),
                "That is the SD at a reading score of 0, the intercepts. The slopes and their "
                "covariance count elsewhere.",
            ),
            (
                lambda: _without_covariance(),
                "You left out the covariance of heights and slopes, which is what tells weak "
                "readers from strong ones.",
            ),
            (
                lambda: _of_students(),
                "Those are SDs of students' scores, scatter within schools included; asked is how "
                "far schools lie apart.",
            ),
            (
                lambda: _of_blups(),
                "You took the SD of the schools' own lines in the model, which are shrunk; the "
                "model's variances are asked.",
            ),
            (lambda: _spreads(reml=False), "You fitted by ML; the question says REML."),
        ),
        hints=(
            "The expected score of a school's student is intercept plus slope times reading score.",
            "Its variance is that of the intercept, twice the score times the covariance, and the "
            "score squared times that of the slope.",
            "With v = np.array([1, score]): the root of v @ fit.cov_re @ v.",
        ),
    ),
    "16.4": Number(
        answer=_contextual,
        insight=(
            "Two equal readers in schools a whole unit of mean reading apart: that is how far "
            "apart their scores are on average. What brought them there is not in the data."
        ),
        mistakes=(
            (
                _between,
                "That is the between effect, with the reading score centred in its school. The "
                "question holds the student's own score fixed.",
            ),
            (
                lambda: _fit("standlrt + schavg").fe_params["standlrt"],
                "That is the effect of the student's own reading score, within schools.",
            ),
            (
                lambda: _fit("schavg").fe_params["schavg"],
                "You left out the students' own reading score, so that equal readers are not "
                "compared.",
            ),
            (
                lambda: _fit("standlrt + schavg", None).fe_params["schavg"],
                "That comes from parallel lines. You have seen that slopes differ between "
                "schools; let them.",
            ),
        ),
        hints=(
            "The student's own score has to stay in the model as it is, beside the school's mean.",
            "The formula is normexam ~ standlrt + schavg, with slopes of standlrt that vary.",
            'Of that fit, fe_params["schavg"].',
        ),
    ),
    "16.5": Several(
        answer=_girls,
        # The lower end is near zero, so that a person would give it with two digits.
        tolerance=0.03,
        insight="Girls chose these schools, or were chosen: it is a difference, not an effect.",
        mistakes=(
            (
                lambda: _girls("all"),
                "You compared girls' schools with all others, boys included. Keep to girls.",
            ),
            (
                lambda: _girls(random=None),
                "That interval comes from parallel lines; let the slope of standlrt vary.",
            ),
            (
                lambda: _girls(predictors="girls_school", random=None),
                "You left out what the girls could read at 11, and that differs between schools.",
            ),
            (
                lambda: _girls(width=1),
                "Those are one standard error away; an interval of 95 % takes 1.96.",
            ),
            (
                lambda: _girls(width=stats.t.ppf(0.975, 53)),
                "You took a t quantile, which is a fair choice with 55 schools; so "
                "that answers can be compared, take 1.96.",
            ),
        ),
        hints=(
            "Keep the girls only: none of them is in a boys' school.",
            "A column that is 1 in a girls' school and 0 in a mixed one, beside standlrt.",
            "Its coefficient, and 1.96 standard errors either way.",
        ),
    ),
    "16.6": Number(
        answer=_told_apart,
        insight=(
            "About half of the schools can't be told from the average one, and they fill the "
            "middle of any league table."
        ),
        mistakes=(
            (
                lambda: _told_apart(1.0),
                "You took one SD either way. An interval of 95 % takes 1.96.",
            ),
            (
                lambda: 65 - _told_apart(),
                "Those are the schools that can't be told from the average one.",
            ),
            (
                lambda: _told_apart(above=True),
                "Those lie above the average school only; count those below it as well.",
            ),
            (
                lambda: _told_apart(term="standlrt"),
                "Those are schools whose slope differs from the average; asked are the heights, "
                "at a reading score of 0.",
            ),
            (
                lambda: _told_apart(spread=True),
                "You measured by the SD between schools; an interval is made from how far off "
                "each school's own deviation may be.",
            ),
        ),
        hints=(
            "mixed.group_coefficients gives each school's deviation and how far off it may be.",
            'Of the rows whose term is "Intercept", the columns blup and sd.',
            "Count the rows where the size of blup is more than 1.96 times sd.",
        ),
    ),
    "16.7": Several(
        answer=_new_school,
        insight=(
            "Nearly all of this width is the student: knowing the school would make it only a "
            "little narrower."
        ),
        mistakes=(
            (
                lambda: _new_school("confidence", "population"),
                "That is where the average line may be; a student needs a prediction interval.",
            ),
            (
                lambda: _new_school("confidence"),
                "That is for the line of a new school; a student scatters around it.",
            ),
            (
                lambda: _new_school(target="group", school="53"),
                "That is for a student in school 53; asked is a school that nobody has seen.",
            ),
            (
                lambda: _average_reader(_fit().scale),
                "You took the scatter of students alone; a new school's line is not known either.",
            ),
            (
                lambda: _average_reader(_fit().cov_re.iloc[0, 0]),
                "You took the SD between schools alone; a student also scatters about the line of "
                "the school.",
            ),
        ),
        hints=(
            "The student is new, and so is the school.",
            'mixed.predict has target="new group" and interval="prediction".',
            'Hand it a table with standlrt 0, and take the columns "lower" and "upper".',
        ),
    ),
}
