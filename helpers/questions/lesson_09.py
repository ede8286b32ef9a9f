"""The questions of lesson 09, change over time: faces that grow, then rats."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats

from helpers import datasets, mixed, plots
from helpers.check import Choice, Number, Several


@cache
def _children():
    children = datasets.load("orthodont")
    return children.assign(years=children["age"] - 8)


@cache
def _growth(time="years", random="~years", reml=True):
    return mixed.fit(f"distance ~ {time}", _children(), "subject", random, reml=reml)


def _sd_growth():
    return np.sqrt(_growth().cov_re.iloc[1, 1])


def _spread_of_blups():
    table = mixed.group_coefficients(_growth())
    return table.loc[table["term"] == "years", "blup"].std()


def _own_slopes():
    return np.array(
        [np.polyfit(c["age"], c["distance"], 1)[0] for _, c in _children().groupby("subject")]
    )


def _curve(intercept, growth, spread):
    return {"at 8": intercept, "growth": growth, "SD of growth": spread}


@cache
def _with_new(random="~years"):
    """The fit to the 27 children and the one who was seen once."""
    new = pd.DataFrame({"subject": ["new"], "age": [10], "distance": [30.0], "years": [2]})
    everyone = pd.concat([_children(), new], ignore_index=True)
    return mixed.fit("distance ~ years", everyone, "subject", random)


def _new_at_14(fit, years=6):
    day = pd.DataFrame({"subject": ["new"], "years": [years]})
    return mixed.predict(fit, day, target="group", interval=None)["mean"].iloc[0]


def _average(years):
    intercept, growth = _with_new().fe_params
    return intercept + growth * years


@cache
def _rats():
    rats = datasets.load("bodyweight").query("diet == '1'")
    day = rats["time"] - rats["time"].mean()
    return rats.assign(day=day, day2=day**2)


@cache
def _bend(reml=False, varying="~day"):
    """The statistic D of the test for an average bend."""
    straight, bent = (
        mixed.fit(f"weight ~ {fixed}", _rats(), "rat", varying, reml=reml)
        for fixed in ("day", "day + day2")
    )
    return straight.criterion - bent.criterion


def _test(statistic, df=1, share=1.0):
    return {"D": statistic, "p": share * stats.chi2.sf(statistic, df)}


def _draw_children():
    """All children, with the average growth curve on top."""
    wide = _children().pivot(index="age", columns="subject", values="distance")
    ages, (intercept, growth) = np.array([8, 14]), _growth().fe_params
    _, ax = plt.subplots()
    ax.plot(wide, color=plots.PALE, linewidth=1)
    ax.plot(ages, intercept + growth * (ages - 8), **plots.AVERAGE)
    ax.set(xlabel="Age (years)", ylabel="Distance (mm)", xticks=[8, 10, 12, 14])
    ax.set_title("On average the distance grows by about 4 mm in six years")


TARGETS = {"09.1": _draw_children}

QUESTIONS = {
    "09.1": Several(
        answer=lambda: _curve(*_growth().fe_params, _sd_growth()),
        insight=(
            "With zero at age 8 the intercept is a distance that somebody measured. Growth does "
            "not depend on where zero is, the intercept and its SD do."
        ),
        mistakes=(
            (
                lambda: {"at 8": _growth("age", "~age").fe_params["Intercept"]},
                "Your intercept is that of age 0, when nobody was measured; put zero at age 8.",
            ),
            (
                lambda: {"SD of growth": _growth().cov_re.iloc[1, 1]},
                "Your SD of growth is a variance; take its root.",
            ),
            (
                lambda: {"SD of growth": _growth().bse["years"]},
                "Your SD of growth is the standard error of the average growth; asked is how far "
                "children lie from it.",
            ),
            (
                lambda: {"SD of growth": _own_slopes().std(ddof=1)},
                "That is the SD of 27 separate regressions' slopes, measurement error included.",
            ),
            (
                lambda: {"SD of growth": np.sqrt(_growth().cov_re.iloc[0, 0])},
                "That is the SD of children's distances at age 8, not of their growth.",
            ),
            (
                lambda: {"SD of growth": np.sqrt(_growth(reml=False).cov_re.iloc[1, 1])},
                "You fitted by ML, which makes SDs between children too small on average; the "
                "question says REML.",
            ),
            (
                lambda: {"SD of growth": _spread_of_blups()},
                "That is the SD of the 27 predicted deviations, which are shrunk; the model's own "
                "SD is asked.",
            ),
            (
                lambda: {"SD of growth": np.sqrt(_growth().scale)},
                "That is the residual SD, of a measurement about the child's own line, in mm.",
            ),
        ),
        hints=(
            "Who is the group, and what is the time?",
            'mixed.fit with groups="subject" and re_formula="~years"; the average is .fe_params.',
            'The third is the root of fit.cov_re.loc["years", "years"].',
        ),
    ),
    "09.2": Number(
        answer=lambda: _own_slopes().std(ddof=1) / np.sqrt(27),
        insight=(
            "It is the model's own standard error. With the same ages for everybody the average "
            "growth is a mean of 27 independent numbers, whatever the errors within a child."
        ),
        mistakes=(
            (
                lambda: _own_slopes().std(ddof=1) / np.sqrt(108),
                "You divided by the root of the number of measurements; independent are the "
                "children.",
            ),
            (
                lambda: _own_slopes().std(ddof=1),
                "That is the SD of the slopes; the standard error of their mean is smaller.",
            ),
            (
                lambda: _sd_growth() / np.sqrt(27),
                "That uses the model's SD of growth, which leaves out that each child's slope is "
                "known only from four measurements.",
            ),
            (
                lambda: _growth(random=None).bse["years"],
                "That is the standard error of the model with random intercepts only.",
            ),
            (
                lambda: _own_slopes().std() / np.sqrt(27),
                "That SD divides by 27, as NumPy's does; a sample's divides by 26, which is "
                "ddof=1.",
            ),
            (
                lambda: smf.ols("distance ~ years", _children()).fit().bse["years"],
                "That is ordinary least squares over 108 rows, which knows of no children.",
            ),
        ),
        hints=(
            "Each child gives one number. What is the standard error of a mean of such numbers?",
            "np.polyfit(age, distance, 1)[0] is a child's own slope; collect the 27.",
            "SD of the slopes (ddof=1) divided by the root of how many children there are.",
        ),
    ),
    "09.3": Number(
        answer=lambda: _new_at_14(_with_new()),
        insight=(
            "One measurement moves the whole line: the model puts a part of the surprise down to "
            "an early start, a part to growth, a part to the measurement."
        ),
        mistakes=(
            (
                lambda: _average(6),
                "That is the average child at 14; this one was far above the average at 10.",
            ),
            (
                lambda: 30 + _average(6) - _average(2),
                "You added the average growth to what was measured, as if no part of it were a "
                "measurement error or luck.",
            ),
            (
                lambda: _new_at_14(_with_new(random=None)),
                "That is from random intercepts only, where all children grow alike.",
            ),
            (
                lambda: 30.0,
                "That is what was measured at 10; the child has four more years to grow.",
            ),
            (
                lambda: _new_at_14(_with_new(), 2),
                "That is the child's line at 10; the question says 14, when years is 6.",
            ),
            (
                lambda: _new_at_14(_with_new(), 14),
                "You put the age of 14 for years, which count from 8; the child would be 22.",
            ),
            (
                lambda: _new_at_14(_with_new()) - _average(6),
                "Those are the deviations of the child's line from the average; add the average "
                "line.",
            ),
        ),
        hints=(
            "Add the new child as a row of the data, and fit again: who knows what about whom?",
            "mixed.predict has a target for a person whom the fit knows.",
            'mixed.predict(refit, new_row, target="group") with years of 6 in new_row.',
        ),
    ),
    "09.4": Choice(
        question=(
            "Residuals of these lines (four ages a child) have a negative lag-1 autocorrelation. "
            "What do you conclude?"
        ),
        options={
            "a": "Errors of neighbouring ages are negatively correlated.",
            "b": "The lines bend.",
            "c": "Little, before comparing it with simulated fits.",
            "d": "The model has failed; its average growth is wrong.",
        },
        right="c",
        reasons={
            "a": (
                "Residuals are not errors. A line through four points makes neighbouring "
                "residuals disagree even where the errors are independent."
            ),
            "b": (
                "A bend raises the autocorrelation, but with four ages it mostly stays negative: "
                "the sign alone speaks neither for a bend nor against one."
            ),
            "d": (
                "Wrong errors hardly touch the average with the same ages for everybody, and "
                "nothing has been shown to be wrong yet."
            ),
        },
        insight=(
            "Lines through few points give negatively correlated residuals by construction. Only "
            "what simulated fits would give is a yardstick."
        ),
    ),
    "09.5": Several(
        answer=lambda: _test(_bend()),
        insight=(
            "The average of these eight rats bends a little. The p leans on independent errors, "
            "on many rats, and on rats that all bend alike: a reason to look, not to celebrate."
        ),
        mistakes=(
            (
                lambda: {"D": _bend(reml=True)},
                "You compared REML fits with different fixed effects; use ML, reml=False.",
            ),
            (
                lambda: _test(_bend(), share=0.5),
                "You halved p, as for a variance at its boundary; a fixed effect has no boundary.",
            ),
            (
                lambda: _test(_bend(), df=2),
                "You took two degrees of freedom; the larger model has one parameter more.",
            ),
            (
                lambda: {"D": _bend() / 2},
                "That is the difference of log-likelihoods; D is twice that.",
            ),
            (
                lambda: _test(_bend(varying=None)),
                "In your models all rats grow alike; let the slope of day vary between rats.",
            ),
            (
                lambda: {"p": np.mean(stats.chi2.sf(_bend(), [1, 2]))},
                "You took the mixture for p. It is for variances; a fixed effect has no boundary.",
            ),
        ),
        hints=(
            "Which two models differ by the average bend alone, and by which method are they fit?",
            "Fit both with reml=False; D is the smaller model's criterion less the larger one's.",
            "p is stats.chi2.sf(D, 1), or take both from mixed.compare(straight, bent).",
        ),
        tolerance=0.01,
    ),
}
