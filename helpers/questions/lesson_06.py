"""The questions of lesson 06, do the slopes vary: twelve schools, then growing children."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from helpers import datasets, mixed, plots, simulate
from helpers.check import Choice, Number, Several

FORMULA = "math_score ~ app_hours"


# Tasks 1 to 4: twelve schools


@cache
def _twelve():
    return simulate.schools(12, 12, sd_slope=0.5, seed=62)


@cache
def _fits(reml=True):
    """The fits without and with random slope."""
    return tuple(
        mixed.fit(FORMULA, _twelve(), "school_id", varies, reml=reml)
        for varies in (None, "~app_hours")
    )


def _statistic(reml=True):
    small, large = _fits(reml)
    return small.criterion - large.criterion


def _p(naive=2, mixed_with=1, reml=True):
    """P-values with these degrees of freedom; the mixture is half of each."""
    D = _statistic(reml)
    tails = stats.chi2.sf(D, naive), stats.chi2.sf(D, mixed_with)
    return {"naive": tails[0], "mixture": sum(tails) / 2}


@cache
def _bootstrap():
    return mixed.compare(*_fits(), n_boot=300, seed=1, progress=False)


@cache
def _row(on="sd", term="app_hours", with_term=""):
    table = mixed.variance_table(_fits()[1], on=on)
    return table[(table["term"] == term) & (table["with_term"] == with_term)].iloc[0]


def _slope_row(**which):
    return {end: _row(**which)[end] for end in ("lower", "upper")}


def _wald():
    sd, se = _row()["sd"], _row()["se"]
    return {"lower": sd - 1.96 * se, "upper": sd + 1.96 * se}


def _average(width=1.96):
    large = _fits()[1]
    slope, se = large.fe_params["app_hours"], large.bse_fe["app_hours"]
    return {"lower": slope - width * se, "upper": slope + width * se}


def _range():
    large = _fits()[1]
    slope, sd = large.fe_params["app_hours"], np.sqrt(large.cov_re.iloc[1, 1])
    return {"lower": slope - 1.96 * sd, "upper": slope + 1.96 * sd}


# Task 5: children


@cache
def _sex(reml=False, larger="distance ~ age * sex", varying="~age"):
    """The statistic for sex and its share in growth, and its p-value."""
    teeth = datasets.load("orthodont")
    small, large = (
        mixed.fit(formula, teeth, "subject", varying, reml=reml).criterion
        for formula in ("distance ~ age", larger)
    )
    return {"statistic": small - large, "p": stats.chi2.sf(small - large, 2)}


def _draw_null():
    """The simulated statistics, with that of the twelve schools."""
    _, ax = plt.subplots()
    ax.hist(_bootstrap().attrs["simulated"], np.arange(0, 12.5, 0.5), color=plots.PALE)
    ax.axvline(_statistic(), color=plots.VERMILLION)
    ax.annotate("our twelve schools", (_statistic() + 0.15, 50), color=plots.VERMILLION)
    ax.set(xlabel="Likelihood-ratio statistic D", ylabel="Data sets without slope variance")
    ax.set_title("Equal slopes seldom get as far as the data did")


TARGETS = {"06.3": _draw_null}

QUESTIONS = {
    "06.1": Number(
        answer=_statistic,
        insight=(
            "Two parameters bought this: the variance of slopes and their covariance with "
            "intercepts. The ruler says how much better, not yet how surprising."
        ),
        mistakes=(
            (
                lambda: _statistic() / 2,
                "That is the difference of log-likelihoods; the statistic is twice as large.",
            ),
            (lambda: _statistic(reml=False), "You fitted by ML; the question says REML."),
            (
                lambda: _fits(reml=False)[0].criterion - _fits()[1].criterion,
                "One of your fits is by ML and one by REML; take the same for both.",
            ),
            (
                lambda: _statistic(reml=False) - 4,
                "That is the difference of AIC, which has already paid for two parameters.",
            ),
            (
                lambda: _statistic() - 4,
                "That is D less the price that AIC puts on two parameters; D itself is asked.",
            ),
        ),
        hints=(
            "Fit both models; the one with more freedom has the lower −2 log-likelihood.",
            "A fit keeps it as .criterion; the models differ in re_formula alone.",
            "small.criterion - large.criterion, both as mixed.fit returns them.",
        ),
    ),
    "06.2": Several(
        answer=_p,
        insight=(
            "The two lie on different sides of 5 %. The one that software prints counts on a "
            "variance that could be negative."
        ),
        mistakes=(
            (
                lambda: {"naive": _p(naive=1)["naive"]},
                "Your 'naive' has one degree of freedom; the random slope brings two parameters.",
            ),
            (
                lambda: {"naive": _p()["mixture"], "mixture": _p()["naive"]},
                "They are the right two under the wrong labels; which of them is too large?",
            ),
            (
                lambda: {"mixture": _p()["naive"] / 2},
                "Your 'mixture' is half of the naive one. The other half is no zero: where the "
                "variance is stuck, the covariance still helps, with one degree of freedom.",
            ),
            (
                lambda: {"mixture": _p(naive=1)["naive"] / 2},
                "Half χ² with 1 and half exactly 0 is the mixture for a first random effect; here "
                "the small model has one already.",
            ),
            (
                lambda: {"naive": 1 - _p()["naive"], "mixture": 1 - _p()["mixture"]},
                "Those are the probabilities below D; a p-value is that above it.",
            ),
            (
                lambda: {"mixture": stats.chi2.sf(_statistic(), 1)},
                "Your 'mixture' is the tail with one degree of freedom alone; it is the mean of "
                "two tails.",
            ),
            (
                lambda: {"naive": stats.chi2.sf(_statistic() / 2, 2)},
                "For 'naive' you looked up half of D, the difference of log-likelihoods; the "
                "table is for D.",
            ),
            (
                lambda: _p(reml=False),
                "Those go with fits by ML; stay with the D of task 1, which is by REML.",
            ),
        ),
        hints=(
            "How many parameters more has the large model, and which of them cannot be negative?",
            "stats.chi2.sf(D, df) is the tail; or look at the columns of mixed.compare.",
            "The mixture: (stats.chi2.sf(D, 1) + stats.chi2.sf(D, 2)) / 2.",
        ),
    ),
    "06.3": Number(
        answer=lambda: _bootstrap().loc["large", "p_bootstrap"],
        tolerance=0.02,
        insight=(
            "It asks twelve schools of twelve, not infinitely many. With 300 data sets it is "
            "known to about one percentage point; ask for more where that matters."
        ),
        mistakes=(
            (lambda: _p()["naive"], "That is p_naive; the question asks for the simulated one."),
            (lambda: _p()["mixture"], "That is p_mixture; the question asks for p_bootstrap."),
            (
                lambda: np.mean(np.array(_bootstrap().attrs["simulated"]) >= _statistic()),
                "You left out the observed statistic (or rounded too far); it counts as one of the "
                "data sets, so that no p-value is zero.",
            ),
            (
                lambda: 301 * _bootstrap().loc["large", "p_bootstrap"],
                "That is a number of data sets; divide it by all of them, the observed one too.",
            ),
            (
                lambda: 1 - _bootstrap().loc["large", "p_bootstrap"],
                "That is the share of data sets with a smaller statistic; a p-value counts those "
                "at least as large.",
            ),
            (
                lambda: np.sum(np.array(_bootstrap().attrs["simulated"]) >= _statistic()),
                "That is how many of the simulated statistics are as large; make a share of it, "
                "and count the observed one too.",
            ),
        ),
        hints=(
            "Which model makes up the data, if the question is how far equal slopes get?",
            "mixed.compare(small, large, n_boot=300, seed=1) simulates from the small one.",
            'Of that table, take the entry in row "large" and column "p_bootstrap".',
        ),
    ),
    "06.4": Several(
        answer=_slope_row,
        insight=(
            "Nearly equal slopes and wildly different ones both remain possible. A p-value on "
            "either side of 5 % would have told nobody so."
        ),
        mistakes=(
            (
                lambda: _slope_row(on="variance"),
                'Those are the ends for the variance of slopes; ask for on="sd".',
            ),
            (
                _average,
                "That is the interval of the average slope; the question is how much slopes vary.",
            ),
            (
                _range,
                "That is the range of schools' slopes by the estimate; the question is how well "
                "their SD itself is known.",
            ),
            (
                lambda: _slope_row(term="Intercept"),
                "Those are the ends for the SD of intercepts; take the row of app_hours.",
            ),
            (
                lambda: _slope_row(term="Intercept", with_term="app_hours"),
                "Those are the ends for the correlation; take the row of app_hours alone.",
            ),
            (
                lambda: _wald(),
                "That is the estimate ± 1.96 standard errors. An SD is not that symmetric; the "
                "table's own ends are by profile likelihood.",
            ),
        ),
        hints=(
            "An estimate with its interval says what a p-value leaves out; which table has both?",
            'mixed.variance_table(large, on="sd") has a row for the SD of app_hours.',
            'Take "lower" and "upper" of the row whose term is app_hours and with_term is empty.',
        ),
    ),
    "06.5": Choice(
        question=(
            "A test finds no sign that slopes vary between ten schools. Your question is whether "
            "their average is zero. What becomes of the random slope?"
        ),
        options={
            "a": "Drop the random slope: slopes are equal.",
            "b": "Drop it: the RMSE for new schools stays the same.",
            "c": "Keep it: schools may differ, and the test is weak.",
            "d": "Keep it only if AIC is lower with it.",
        },
        right="c",
        reasons={
            "a": (
                "Not found is not absent. With ten schools the test misses much, and then the "
                "average slope's standard error is too small."
            ),
            "b": (
                "That error is all but blind to a random slope, however large. It says nothing "
                "about the standard error."
            ),
            "d": (
                "AIC is a test in disguise that leans to the small model at the boundary; it "
                "repeats the mistake of asking a test first."
            ),
        },
        insight=(
            "For the average slope the design decides. The test is for questions about the "
            "variance itself."
        ),
    ),
    "06.6": Several(
        answer=_sex,
        tolerance=0.01,
        insight=(
            "Fixed effects can err to both sides, so the naive table is meant for them, with fits "
            "by ML. With only 27 children its p is a little too small."
        ),
        mistakes=(
            (
                lambda: {"statistic": _sex(reml=True)["statistic"]},
                "You compared REML fits whose fixed effects differ; each leaves out its own, so "
                "fit both by ML.",
            ),
            (
                lambda: {"p": (_sex()["p"] + stats.chi2.sf(_sex()["statistic"], 1)) / 2},
                "You took the mixture for p. It is for variances; a fixed effect has no edge.",
            ),
            (
                lambda: {"p": _sex()["p"] / 2},
                "You halved p; that is for a variance at its edge, and fixed effects have none.",
            ),
            (
                lambda: {"p": stats.chi2.sf(_sex()["statistic"], 1)},
                "You took one degree of freedom; sex adds a shift and a tilt.",
            ),
            (
                lambda: {"statistic": _sex()["statistic"] / 2},
                "The statistic is twice the difference of the log-likelihoods.",
            ),
            (
                lambda: {"statistic": _sex(varying=None)["statistic"]},
                "In your models all children grow alike; let the slope of age vary between "
                "children.",
            ),
            (
                lambda: {"statistic": _sex(larger="distance ~ age + sex")["statistic"]},
                "Your larger model gives girls and boys the same growth; age * sex lets it differ "
                "as well.",
            ),
        ),
        hints=(
            "What differs between the two models, fixed effects or variances? Which method then?",
            'Fit both with reml=False and re_formula="~age"; the large one has age * sex.',
            "The difference of .criterion is the statistic; stats.chi2.sf(statistic, 2) is p.",
        ),
    ),
}
