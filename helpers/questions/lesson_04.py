"""The questions of lesson 04, random slopes: a district of forty schools, then tired people."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import statsmodels.formula.api as smf
from scipy import stats

from helpers import datasets, mixed, plots, simulate
from helpers.check import Choice, Number, Several

FORMULA = "math_score ~ app_hours"
SCHOOL = "School_38"


@cache
def _district():
    return simulate.schools(40, 12, seed=43)


@cache
def _slopes(reml=True):
    return mixed.fit(FORMULA, _district(), "school_id", "~app_hours", reml=reml)


@cache
def _intercepts():
    return mixed.fit(FORMULA, _district(), "school_id")


@cache
def _sleep():
    return mixed.fit("reaction ~ days", datasets.load("sleepstudy"), "subject", "~days")


def _sd(fit):
    """SD of the slopes between groups."""
    return np.sqrt(fit.cov_re.iloc[1, 1])


@cache
def _error_of_sd():
    return mixed.variance_table(_slopes(), on="sd")["se"].iloc[2]


def _own_line(school):
    """Slope and intercept of least squares in one school."""
    students = _district()[_district()["school_id"] == school]
    return np.polyfit(students["app_hours"], students["math_score"], 1)


def _own_slopes():
    return np.array([_own_line(school)[0] for school in _district()["school_id"].unique()])


def _school_slopes():
    table = mixed.group_coefficients(_slopes())
    return table.loc[table["term"] == "app_hours", "estimate"]


def _line(column, fit=_slopes):
    """Intercept and slope of the school, from a column of `mixed.group_coefficients`."""
    table = mixed.group_coefficients(fit())
    values = table[table["group"] == SCHOOL].set_index("term")[column]
    slope = values.get("app_hours", fit().fe_params["app_hours"])
    return {"intercept": values["Intercept"], "slope": slope}


def _standard_errors(fit_intercepts, fit_slopes):
    return {
        "random intercepts": fit_intercepts.bse["app_hours"],
        "random slopes": fit_slopes.bse["app_hours"],
    }


def _around(slope, width):
    return {"lower": slope - width, "upper": slope + width}


def _range(width):
    """The ends of average slope ± width SDs."""
    return _around(_slopes().fe_params["app_hours"], width * _sd(_slopes()))


def _shorter(sd):
    """Per cent of people whose slope is below zero, if slopes have this SD."""
    return 100 * stats.norm.cdf(-_sleep().fe_params["days"] / sd)


def _own_days():
    """Slopes of least squares, one for each person."""
    by_person = datasets.load("sleepstudy").groupby("subject")
    return np.array([np.polyfit(p["days"], p["reaction"], 1)[0] for _, p in by_person])


def _draw_school():
    """The school's students with its own line, its line in the model and the average line."""
    students = _district()[_district()["school_id"] == SCHOOL]
    hours, average = np.array([1, 10]), _slopes().fe_params
    model = _line("estimate")
    _, ax = plt.subplots()
    ax.scatter(students["app_hours"], students["math_score"], color=plots.GREY)
    ax.plot(hours, np.polyval(_own_line(SCHOOL), hours), **plots.OWN, label="own line")
    ax.plot(hours, model["intercept"] + model["slope"] * hours, **plots.PARTIAL, label="model")
    ax.plot(
        hours,
        average["Intercept"] + average["app_hours"] * hours,
        **plots.AVERAGE,
        label="average line",
    )
    ax.set(xlabel="Hours on the app", ylabel="Maths score (points)")
    ax.set_title("School 38 on its own, in the model, and the average school")
    ax.legend()


TARGETS = {"04.3": _draw_school}

QUESTIONS = {
    "04.1": Number(
        answer=lambda: _sd(_slopes()),
        insight=(
            "It is a parameter of the population of schools. The slopes of forty separate "
            "regressions spread wider, those of the school lines in the model narrower."
        ),
        mistakes=(
            (
                lambda: _slopes().cov_re.iloc[1, 1],
                "That is the variance of the slopes; the question asks for their SD.",
            ),
            (
                lambda: _slopes().bse["app_hours"],
                "That is the standard error of the average slope: how well the average is known, "
                "not how far schools lie from it.",
            ),
            (
                lambda: _own_slopes().std(ddof=1),
                "That is the SD of forty separate regressions' slopes, sampling error included.",
            ),
            (
                lambda: _school_slopes().std(),
                "That is the SD of the school lines' slopes, which are shrunk to the average.",
            ),
            (
                lambda: np.sqrt(_slopes().cov_re.iloc[0, 0]),
                "That is the SD of the intercepts; the question asks for that of the slopes.",
            ),
            (
                lambda: np.sqrt(_slopes().scale),
                "That is the SD of students around their school's line, the residual SD.",
            ),
            (lambda: _sd(_slopes(reml=False)), "You fitted by ML; the question says REML."),
            (
                lambda: np.sqrt(_slopes().params["app_hours Var"]),
                "statsmodels keeps variances in params divided by the scale; take this one from "
                "cov_re.",
            ),
            (
                lambda: _slopes().cov_re.iloc[0, 1],
                "That is the covariance of intercepts and slopes; the slopes' own variance is on "
                "the diagonal.",
            ),
            (
                lambda: _slopes().fe_params["app_hours"],
                "That is the average slope; the question is how far schools' slopes lie from it.",
            ),
            (
                lambda: _error_of_sd(),
                "That is the standard error of the SD: how well it is known. The SD itself is "
                "asked.",
            ),
        ),
        hints=(
            "Which entry of the covariance matrix of schools' deviations belongs to the slope?",
            "The matrix is fit.cov_re; on its diagonal stand variances, and an SD is the root.",
            "Take the root of the entry in the row and the column of app_hours.",
        ),
    ),
    "04.2": Several(
        answer=lambda: _standard_errors(_intercepts(), _slopes()),
        insight=(
            "One slope for everybody makes every student a witness of it; with random slopes it "
            "also counts that schools are few, and here that is the larger part of the doubt."
        ),
        mistakes=(
            (
                lambda: {"random intercepts": smf.ols(FORMULA, _district()).fit().bse["app_hours"]},
                "Your 'random intercepts' is that of one line for all (OLS), which knows of no "
                "schools.",
            ),
            (
                lambda: {
                    "random intercepts": _slopes().bse["app_hours"],
                    "random slopes": _intercepts().bse["app_hours"],
                },
                "They are the right two in the wrong order: which model claims to know less?",
            ),
            (
                lambda: {
                    "random intercepts": _intercepts().bse["Intercept"],
                    "random slopes": _slopes().bse["Intercept"],
                },
                "Those are the standard errors of the intercept; the question is about app_hours.",
            ),
            (
                lambda: {"random slopes": _sd(_slopes())},
                "Your 'random slopes' is the SD of schools' slopes; asked is how well their "
                "average is known.",
            ),
            (
                lambda: {"random slopes": _sd(_slopes()) / np.sqrt(40)},
                "Your 'random slopes' is the SD of slopes over √40; that leaves out that each "
                "school's slope is known only from twelve students.",
            ),
            (
                lambda: {
                    "random intercepts": _intercepts().fe_params["app_hours"],
                    "random slopes": _slopes().fe_params["app_hours"],
                },
                "Those are the average slopes themselves; the question asks for their standard "
                "errors.",
            ),
            (
                lambda: {"random slopes": _own_slopes().std(ddof=1) / np.sqrt(40)},
                "Your 'random slopes' is that of forty separate regressions, the SD of their "
                "slopes over √40: near, but the model's is asked.",
            ),
        ),
        hints=(
            "Fit two models that differ in re_formula, and compare one standard error.",
            'A fit keeps its standard errors in .bse_fe, and "app_hours" names the one asked for.',
            'A dict: {"random intercepts": small.bse_fe["app_hours"], "random slopes": …}.',
        ),
    ),
    "04.3": Several(
        answer=lambda: _line("estimate"),
        insight=(
            "A school's line is fixed effect plus BLUP. Twelve students are weak evidence of a "
            "falling line, so the model leans on the other schools."
        ),
        mistakes=(
            (
                lambda: dict(zip(("slope", "intercept"), _own_line(SCHOOL), strict=True)),
                "That is the no-pooling line, the school's own regression; the question asks for "
                "its line in the model.",
            ),
            (
                lambda: _line("blup"),
                "Those are the BLUPs, the deviations from the average line; add the fixed effects.",
            ),
            (
                lambda: _line("fixed"),
                "That is the average line, the fixed effects; add the school's deviations.",
            ),
            (
                lambda: _line("estimate", _intercepts),
                "That is the school's line in the random-intercept model, parallel to all others.",
            ),
            (
                lambda: {"slope": _line("blup")["slope"]},
                "Your slope is the BLUP alone, the deviation from the average slope; add the "
                "fixed effect.",
            ),
            (
                lambda: dict(
                    zip(
                        ("intercept", "slope"),
                        smf.ols(FORMULA, _district()).fit().params,
                        strict=True,
                    )
                ),
                "That is one line for all schools (OLS); the question is about School 38.",
            ),
        ),
        hints=(
            "Start from the fixed effects and add what is known of this school.",
            'mixed.group_coefficients(fit) has a row for each school and term; look at "estimate".',
            'Of that table, keep the two rows of group "School_38": Intercept, then app_hours.',
        ),
    ),
    "04.4": Choice(
        question=(
            "Ten times as many schools join the study. What becomes of the range that holds 95 % "
            "of schools' slopes?"
        ),
        options={
            "a": "It shrinks by a factor of about 3, the root of 10.",
            "b": "It shrinks by a factor of 10.",
            "c": "It stays about as wide, and its ends are known better.",
            "d": "It widens, because more schools bring more extreme ones.",
        },
        right="c",
        reasons={
            "a": (
                "That is what happens to the confidence interval of the average slope. Schools do "
                "not become more alike because more of them are studied."
            ),
            "b": (
                "No width goes down with the number itself. Standard errors go down with its root, "
                "and this range is no standard error."
            ),
            "d": (
                "The largest and the smallest slope move apart, but the range that holds 95 % is "
                "not a matter of the extremes."
            ),
        },
        insight=(
            "The range describes schools. More schools make its estimate steadier, and leave the "
            "schools as different as they are."
        ),
    ),
    "04.5": Several(
        answer=lambda: _range(1.96),
        insight=(
            "This is the estimated range of schools' slopes; a prediction for one new school has "
            "to add the uncertainty of its ends. The confidence interval of the average slope, "
            "about a fifth as wide, says where the average lies."
        ),
        mistakes=(
            (
                lambda: _around(
                    _slopes().fe_params["app_hours"], 1.96 * _slopes().bse["app_hours"]
                ),
                "That is the confidence interval of the average slope; the question is where the "
                "schools lie.",
            ),
            (lambda: _range(1), "That is one SD either way, which holds two schools in three."),
            (
                lambda: _around(
                    _slopes().fe_params["app_hours"], 1.96 * _slopes().cov_re.iloc[1, 1]
                ),
                "You took 1.96 times the variance; take its root first.",
            ),
            (
                lambda: {"lower": _own_slopes().min(), "upper": _own_slopes().max()},
                "Those are the flattest and the steepest of forty separate regressions, which "
                "sampling error has pushed apart.",
            ),
            (
                lambda: {"lower": _school_slopes().min(), "upper": _school_slopes().max()},
                "Those are the flattest and the steepest school line, which are shrunk and are "
                "only forty.",
            ),
            (
                lambda: _range(2),
                "Two SDs either way hold a little more than 95 %; for 95 % it is 1.96.",
            ),
            (
                lambda: _around(_slopes().fe_params["app_hours"], 1.96 * _own_slopes().std(ddof=1)),
                "You took the SD of forty separate regressions' slopes, in which sampling error "
                "is still contained.",
            ),
            (
                lambda: _around(_slopes().fe_params["app_hours"], 1.96 * _school_slopes().std()),
                "You took the SD of the school lines' slopes, which are shrunk; the model's SD is "
                "that of the schools.",
            ),
            (
                lambda: _around(_slopes().fe_params["app_hours"], 1.96 * np.sqrt(_slopes().scale)),
                "You took the residual SD, which is about students; slopes have an SD of their "
                "own.",
            ),
        ),
        hints=(
            "If slopes are normal between schools, how many SDs either way hold 95 % of them?",
            "Centre it at the average slope, and use the SD of question 04.1.",
            "Lower end: average slope − 1.96 × SD of slopes; the upper end with a plus.",
        ),
    ),
    "04.6": Number(
        answer=lambda: _shorter(_sd(_sleep())),
        insight=(
            "It is a statement about the population of people, and it leans on the normal tail; "
            "eighteen people could not show it directly."
        ),
        mistakes=(
            (
                lambda: _shorter(_sleep().cov_re.iloc[1, 1]),
                "You divided by the variance of the slopes; take their SD.",
            ),
            (
                lambda: _shorter(_sleep().bse["days"]),
                "You divided by the standard error of the average slope; that would be the doubt "
                "about the average, not the share of people.",
            ),
            (
                lambda: 100 / 18,
                "You counted one of the eighteen people; the question is about the population "
                "that they come from.",
            ),
            (
                lambda: 100 - _shorter(_sd(_sleep())),
                "That is the share of people who get slower; the question asks for the others.",
            ),
            (
                lambda: 2 * _shorter(_sd(_sleep())),
                "You counted both tails; people who do not get slower are in the lower one only.",
            ),
            (
                lambda: _shorter(_own_days().std(ddof=1)),
                "You took the SD of eighteen separate regressions' slopes, in which sampling "
                "error is still contained; take the model's.",
            ),
        ),
        hints=(
            "Fit the model first: what varies between people, and in which column is the person?",
            "Normal slopes with the fitted average and SD: which share of them is below zero?",
            "stats.norm.cdf(-average / sd) is the share; times 100 it is a percentage.",
        ),
    ),
}
