"""The questions of lesson 03, random intercepts: schools of 3 to 30 students, then patients."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import statsmodels.formula.api as smf

from helpers import datasets, mixed, plots, simulate
from helpers.check import Choice, Number, Several

FORMULA = "math_score ~ app_hours"
WORLD = {"intercept": 45, "slope": 3, "sd_slope": 0, "sd_residual": 9}


@cache
def _valley():
    return simulate.schools(24, [3, 4, 6, 8, 12, 30] * 4, **WORLD, seed=83)


@cache
def _fit(reml=True):
    return mixed.fit(FORMULA, _valley(), "school_id", reml=reml)


@cache
def _one_line():
    return smf.ols(FORMULA, _valley()).fit()


@cache
def _clinic():
    visits = ["bdi_2m", "bdi_3m", "bdi_5m", "bdi_8m"]
    return datasets.load("btheb").melt("patient", visits, "visit", "score").dropna()


@cache
def _patients(month=True):
    data = _clinic().assign(month=_clinic()["visit"].str[4].astype(int))
    return mixed.fit("score ~ month" if month else "score ~ 1", data, "patient")


def _sds(fit):
    """SD between groups and SD within."""
    return np.sqrt(fit.cov_re.iloc[0, 0]), np.sqrt(fit.scale)


def _kept(n, between, within):
    """The share of its own deviation that a group of n keeps, from two variances."""
    return between / (between + within / n)


def _enough(fit, power=2):
    """Students that a school needs to keep 80 %; power 1 puts SDs for variances."""
    between, within = _sds(fit)
    return np.ceil(4 * within**power / between**power)


def _guess(n=3, power=2):
    """Points by which the model puts a school of n above the average line, if its own are 10."""
    between, within = _sds(_fit())
    return 10 * _kept(n, between**power, within**power)


def _range(width, hours=5):
    """The average line at so many hours, less and plus a width."""
    average = _fit().fe_params["Intercept"] + hours * _fit().fe_params["app_hours"]
    return {"lower": average - width, "upper": average + width}


def _standard_error():
    """Of the average line at 5 hours."""
    at = np.array([1, 5])
    return np.sqrt(at @ _fit().cov_params().iloc[:2, :2].to_numpy() @ at)


def _believed(fit, power=2):
    between, within = (sd**power for sd in _sds(fit))
    return {
        "one visit": _kept(1, between, within),
        "four visits": _kept(4, between, within),
    }


def _draw_kept():
    """Each school's predicted deviation against its own."""
    fit, data = _fit(), _valley()
    average = fit.fe_params["Intercept"] + fit.fe_params["app_hours"] * data["app_hours"]
    schools = (data["math_score"] - average).groupby(data["school_id"]).agg(["size", "mean"])
    blup = mixed.group_coefficients(fit).set_index("group")["blup"]
    _, ax = plt.subplots()
    ends = [-11, 11]
    ax.plot(ends, ends, **plots.AVERAGE, label="believed in full")
    looks = {"30": ("D", plots.BLUE), "4 to 12": ("o", plots.GREY), "3": ("s", plots.VERMILLION)}
    sizes = pd.cut(schools["size"], [0, 3, 12, 30], labels=list(looks)[::-1])
    for name, (marker, colour) in looks.items():
        these = schools.index[sizes == name]
        ax.plot(schools.loc[these, "mean"], blup[these], marker, color=colour, label=name)
    ax.set(xlabel="Own deviation (points)", ylabel="Predicted deviation (points)")
    ax.set_title("The fewer students, the less of its own deviation a school keeps")
    ax.legend(title="Students")


TARGETS = {"03.3": _draw_kept}

QUESTIONS = {
    "03.1": Several(
        answer=lambda: dict(zip(("between", "within"), _sds(_fit()), strict=True)),
        insight=(
            "In this district students of one school differ far more than schools do: a few "
            "students will say little about their school."
        ),
        mistakes=(
            (
                lambda: {"between": _fit().cov_re.iloc[0, 0], "within": _fit().scale},
                "Those are the variances, in squared points, as summary() prints them; the "
                "question asks for SDs.",
            ),
            (
                lambda: dict(zip(("within", "between"), _sds(_fit()), strict=True)),
                "They are the right two in the wrong order: Scale is about students.",
            ),
            (
                lambda: {"between": np.sqrt(_fit().cov_re.iloc[0, 0] / _fit().scale)},
                "Your 'between' is in units of the other: statsmodels keeps variances in params "
                "divided by the scale. Take it from cov_re.",
            ),
            (
                lambda: {"between": _fit().bse["Intercept"]},
                "Your 'between' is the standard error of the intercept: how well the average "
                "school is known, not how far schools lie from it.",
            ),
            (
                lambda: {"between": mixed.group_coefficients(_fit())["blup"].std()},
                "Your 'between' is the SD of the predicted deviations, which are shrunk and so "
                "spread less than schools do.",
            ),
            (
                lambda: {"between": _sds(_fit(reml=False))[0]},
                "You fitted by ML, which makes the variance between schools too small on average; "
                "the question says REML.",
            ),
            (
                lambda: {"within": np.sqrt(_one_line().scale)},
                "Your 'within' is the scatter around one line for all (OLS), schools' differences "
                "included.",
            ),
            (
                lambda: {"between": _one_line().resid.groupby(_valley()["school_id"]).mean().std()},
                "Your 'between' is the SD of the schools' mean residuals, in which the luck of "
                "their students is still contained; take the model's variance.",
            ),
            (
                lambda: {"between": _valley().groupby("school_id")["math_score"].mean().std()},
                "Your 'between' is the SD of the schools' mean scores, in which the luck of their "
                "students and their hours are still contained.",
            ),
            (
                lambda: {"within": _fit().resid.std()},
                "Your 'within' is the SD of the residuals of this sample, which come out a little "
                "small because the lines were fitted to them; the model's own estimate is asked.",
            ),
        ),
        hints=(
            "The model has two variances: schools around the average line, students around theirs.",
            "They are fit.cov_re and fit.scale; compare with the units that the question wants.",
            'A dict: {"between": root of fit.cov_re.iloc[0, 0], "within": root of fit.scale}.',
        ),
    ),
    "03.2": Number(
        answer=lambda: _enough(_fit()),
        insight=(
            "What counts is the ratio of the variances. In the lesson students scatter by a true 5 "
            "points, schools by 4, and there seven students would do."
        ),
        mistakes=(
            (
                lambda: 4 * _fit().scale / _fit().cov_re.iloc[0, 0],
                "That is where it happens; students come whole, so round up.",
            ),
            (
                lambda: np.floor(4 * _fit().scale / _fit().cov_re.iloc[0, 0]),
                "With so many it just falls short of 80 %; round up.",
            ),
            (
                lambda: _enough(_fit(), power=1),
                "You put SDs into the formula; it wants variances.",
            ),
            (
                lambda: np.ceil(0.8 * _fit().scale / _fit().cov_re.iloc[0, 0]),
                "You have multiplied by 0.8 alone; solving for the number also divides by 1 − 0.8.",
            ),
            (
                lambda: np.ceil(0.25 * _fit().scale / _fit().cov_re.iloc[0, 0]),
                "So many students keep 20 %, which is the part that should be given up.",
            ),
            (
                lambda: _enough(_fit(reml=False)),
                "That is the answer to a fit by ML; the question goes on with the fit by REML.",
            ),
        ),
        hints=(
            "Write down the shrinkage factor of a school of n students, and set it to 0.8.",
            "With λ = τ² / (τ² + σ²/n), what is n? Or try n = 1, 2, 3, … and see where λ passes.",
            "n = λ / (1 − λ) × σ² / τ² with λ = 0.8, rounded up to the next whole number.",
        ),
    ),
    "03.3": Number(
        answer=_guess,
        insight=(
            "This is the same rule as for schools in the study: the average, moved by what the "
            "school's own students can carry."
        ),
        mistakes=(
            (
                lambda: 10.0,
                "That believes three students in full, as a line of the school's own would (no "
                "pooling).",
            ),
            (
                lambda: 0.0,
                "That is the average line, as if nothing were known of the school; its three "
                "students do say something.",
            ),
            (
                lambda: 10 - _guess(),
                "That is what is taken off; the question asks for what is left.",
            ),
            (
                lambda: _guess(n=1),
                "You used the ICC, which is the shrinkage factor of a single student; there are "
                "three.",
            ),
            (
                lambda: _guess(n=1 / 3),
                "You multiplied the variance within by the number of students; a mean of three has "
                "a third of it.",
            ),
            (lambda: _guess(power=1), "You put SDs into the shrinkage factor; it wants variances."),
            (
                lambda: _guess() / 10,
                "That is the share of its own deviation that the school keeps; the question asks "
                "for points.",
            ),
            (lambda: 10 * _guess(), "That is the share in per cent; the question asks for points."),
        ),
        hints=(
            "Nothing is fitted again: the rule needs the two variances and the 3 students.",
            "Work out the shrinkage factor of a school of three; it is a number below one half.",
            "The answer is 10 × τ² / (τ² + σ²/3), with the variances of your fit.",
        ),
    ),
    "03.4": Choice(
        question=(
            "The SD of the 24 predicted deviations is smaller than the SD between schools of the "
            "model. Why?"
        ),
        options={
            "a": "The search for the best values stopped too early.",
            "b": "REML makes the SD between schools too large.",
            "c": "Twenty-four schools are too few to show the full spread.",
            "d": "Each is pulled to the average, more where less is known.",
        },
        right="d",
        reasons={
            "a": (
                "The fit has converged, and a better search would find the same. Predicted "
                "deviations spread less than schools in every fit of this kind."
            ),
            "b": (
                "REML is about right for the variance on average, and its root, the SD, comes out "
                "a little too small rather than too large."
            ),
            "c": (
                "With few schools an SD is less certain, and hardly smaller. With 2,400 schools of "
                "these sizes the gap would be about as large."
            ),
        },
        insight=(
            "Best guesses stay nearer to the average than the truth does. The schools themselves "
            "are not shrunk: for their spread, report the model's SD."
        ),
    ),
    "03.5": Several(
        answer=lambda: _range(1.96 * _sds(_fit())[0]),
        insight=(
            "It is a range of schools. A student's score adds the student's own distance from the "
            "school's line, and would need a much wider one."
        ),
        mistakes=(
            (
                lambda: _range(1.96 * _standard_error()),
                "That is the confidence interval of the average line at 5 hours; the question is "
                "where schools lie.",
            ),
            (
                lambda: _range(1.96 * np.sqrt(sum(sd**2 for sd in _sds(_fit())))),
                "That range holds 95 % of students with 5 hours; the question is about schools' "
                "expected scores, so leave out the scatter within them.",
            ),
            (
                lambda: _range(1.96 * _sds(_fit())[1]),
                "You took the SD of students within a school; schools have one of their own.",
            ),
            (
                lambda: _range(1.96 * _sds(_fit())[0], hours=0),
                "That is the range at 0 hours, the intercepts; the question says 5 hours.",
            ),
            (
                lambda: _range(1.96 * _sds(_fit())[0] ** 2),
                "You took 1.96 times the variance between schools; take its root first.",
            ),
            (
                lambda: _range(_sds(_fit())[0]),
                "That is one SD either way, which holds two schools in three.",
            ),
            (
                lambda: _range(1.96 * mixed.group_coefficients(_fit())["blup"].std()),
                "You used the 24 predicted deviations, their SD or the two at the ends. They are "
                "shrunk; the quiz above has the reason.",
            ),
        ),
        hints=(
            "Where is the average school at 5 hours, and which SD says how far others lie from it?",
            "The middle is the average line there, from fit.fe_params; the SD is that of 03.1.",
            "Lower end: intercept + 5 × slope − 1.96 × SD between; the upper end with a plus.",
        ),
    ),
    "03.6": Several(
        answer=lambda: _believed(_patients()),
        insight=(
            "The first is also the ICC: λ of a single visit. People differ so much that one "
            "visit says more of a patient than twelve students say of a school in the valley."
        ),
        mistakes=(
            (
                lambda: {
                    "one visit": _believed(_patients())["four visits"],
                    "four visits": _believed(_patients())["one visit"],
                },
                "They are the right two in the wrong order: which patient is known better?",
            ),
            (
                lambda: _believed(_fit()),
                "Those are the shares for schools of the valley; take the variances from the fit "
                "to the patients.",
            ),
            (
                lambda: _believed(_patients(), power=1),
                "You put SDs into the shrinkage factor; it wants variances.",
            ),
            (
                lambda: _believed(_patients(month=False)),
                "You fitted no slope of the month, so that people's getting better counts as "
                "scatter within them.",
            ),
            (
                lambda: {key: 1 - share for key, share in _believed(_patients()).items()},
                "Those are the shares that are taken off; the question asks for what is kept.",
            ),
            (
                lambda: {"four visits": _believed(_patients())["one visit"]},
                "Both cannot be the same: the mean of four visits has a quarter of the variance "
                "within.",
            ),
            (
                lambda: {"one visit": _patients().cov_re.iloc[0, 0] / _patients().scale},
                "Your 'one visit' is the ratio of the two variances, as statsmodels keeps it in "
                "params; a share has both of them below the line.",
            ),
            (
                lambda: {"four visits": _kept(1 / 4, *(sd**2 for sd in _sds(_patients())))},
                "You multiplied the variance within by four; the mean of four visits has a "
                "quarter of it.",
            ),
        ),
        hints=(
            "Fit the model first: what is the group here, and what are the students of a group?",
            "It is the shrinkage factor once more, with visits in place of students.",
            "The variances are .cov_re.iloc[0, 0] and .scale of the patients' fit; n is 1, then 4.",
        ),
    ),
}
