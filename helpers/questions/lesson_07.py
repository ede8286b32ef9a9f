"""The questions of lesson 07, when fits fail: six schools, growing children, cheese."""

import warnings
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLMParams

from helpers import datasets, mixed, plots, reml, simulate
from helpers.check import Choice, Number, Several

FORMULA = "math_score ~ app_hours"
PROGRAMS = {  # SD of intercepts, SD of slopes, their correlation, residual SD
    "A": (22_800, 6_560, -0.989, 2_810),
    "B": (19_500, 5_500, -0.981, 2_840),
}


# Tasks 1 to 3: six schools


@cache
def _six():
    return simulate.schools(6, 15, sd_slope=0.6, seed=38)


@cache
def _fit(re_formula="~app_hours", reml=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mixed.SingularFitWarning)
        return mixed.fit(FORMULA, _six(), "school_id", re_formula, reml=reml)


def _between(reml=True, power=0.5):
    """SDs of the schools (power 0.5), or their variances (power 1), and the correlation."""
    C = _fit(reml=reml).cov_re.to_numpy()
    sds = np.sqrt(np.diag(C))
    return {
        "intercepts": C[0, 0] ** power,
        "slopes": C[1, 1] ** power,
        "correlation": C[0, 1] / sds.prod(),
    }


@cache
def _null_fits(by_reml=True):
    """Fits to 300 data sets without correlation between intercepts and slopes."""
    hours = _six()["app_hours"]
    X = np.column_stack([np.ones(len(hours)), hours])
    scores = simulate.replicates(_six(), 300, sd_slope=0.6, correlation=0, seed=7)
    return reml.fit_many(scores, X, X, _six()["school_id"], reml=by_reml)


def _correlations(by_reml=True):
    C = _null_fits(by_reml).cov_re
    with np.errstate(invalid="ignore"):
        correlations = C[:, 0, 1] / np.sqrt(C[:, 0, 0] * C[:, 1, 1])
    return np.clip(correlations, -1, 1)  # rounding leaves some beyond, where a histogram has no bar


def _at_edges(limit=0.9999, by_reml=True):
    """Per cent of the 300 with a correlation beyond ± the limit."""
    return {
        "minus 1": 100 * np.mean(_correlations(by_reml) < -limit),
        "plus 1": 100 * np.mean(_correlations(by_reml) > limit),
    }


def _interval(fit, width):
    slope, se = fit.fe_params["app_hours"], fit.bse_fe["app_hours"]
    return {"lower": slope - width * se, "upper": slope + width * se}


def _by_ols():
    lower, upper = smf.ols(FORMULA, _six()).fit().conf_int().loc["app_hours"]
    return {"lower": lower, "upper": upper}


def _t(df):
    return stats.t.ppf(0.975, df)


# Task 4: children; task 5: cheese


@cache
def _children(by_us=False):
    teeth = datasets.load("orthodont")
    if by_us:
        return mixed.fit("distance ~ age", teeth, "subject")
    return smf.mixedlm("distance ~ age", teeth, groups=teeth["subject"]).fit()


@cache
def _variances(on="variance"):
    return mixed.variance_table(_children(by_us=True), on=on)


def _read(divided=1.0):
    return {
        "children": np.sqrt(_children().cov_re.iloc[0, 0] / divided),
        "residual": np.sqrt(_children().scale),
        "se": _variances()["se"][0],
    }


@cache
def _cheese_model():
    return mixed.fit("volume ~ price", datasets.load("cheese"), "retailer", "~price").model


def _difference(power=2, factor=-2):
    """Criterion of program B less that of A; the covariance over (residual SD) ** power."""
    values = []
    for sd_0, sd_1, correlation, sd_residual in PROGRAMS.values():
        covariance = correlation * sd_0 * sd_1
        C = np.array([[sd_0**2, covariance], [covariance, sd_1**2]]) / sd_residual**power
        place = MixedLMParams.from_components(np.zeros(2), C)
        values.append(factor * _cheese_model().loglike(place))
    return abs(values[1] - values[0])


def _draw_edges():
    """The 300 correlations, with the fit of the six schools."""
    _, ax = plt.subplots()
    ax.hist(_correlations(), np.linspace(-1, 1, 21), color=plots.BLUE, alpha=0.75)
    ax.axvline(-1, color=plots.INK, linestyle="--")
    ax.annotate("our six schools", (-0.97, ax.get_ylim()[1] * 0.9))
    ax.set(xlabel="Estimated correlation (true: 0)", ylabel="Data sets")
    ax.set_title("Six schools often answer with an end, though the truth is 0")


TARGETS = {"07.2": _draw_edges}

QUESTIONS = {
    "07.1": Several(
        answer=_between,
        insight=(
            "Both SDs are above zero, and still the fit is singular: a correlation at ±1 is the "
            "other way to stand at the edge."
        ),
        mistakes=(
            (
                lambda: {k: v for k, v in _between(power=1).items() if k != "correlation"},
                "The first two are variances; the question asks for SDs.",
            ),
            (
                lambda: {"correlation": _fit().cov_re.iloc[0, 1]},
                "Your 'correlation' is the covariance; divide it by the product of the two SDs.",
            ),
            (
                lambda: {"correlation": 0.3},
                "That is the correlation built into the simulation; the question asks what the "
                "fit says.",
            ),
            (
                lambda: {k: v for k, v in _between(reml=False).items() if k != "correlation"},
                "You fitted by ML; the question says REML.",
            ),
            (
                lambda: {"slopes": _fit().bse_fe["app_hours"]},
                "Your 'slopes' is the standard error of the average slope; the question is how far "
                "schools lie from it.",
            ),
        ),
        hints=(
            "All three come from the covariance matrix of the schools' deviations.",
            "fit.cov_re has variances on its diagonal and the covariance beside it.",
            "np.sqrt(np.diag(fit.cov_re)) gives the SDs; covariance / their product is the third.",
        ),
    ),
    "07.2": Several(
        answer=_at_edges,
        tolerance=0.03,
        insight=(
            "With six schools the two ends are the commonest answers of all to a question whose "
            "true answer is 0. So an end, once seen, is at best a hint at the sign."
        ),
        mistakes=(
            (
                lambda: _at_edges(limit=0),
                "You counted all negative and all positive correlations; count those at the edge.",
            ),
            (
                lambda: {
                    "minus 1": 100 * _null_fits().singular.mean(),
                    "plus 1": 100 * _null_fits().singular.mean(),
                },
                "That is the share of all singular fits; keep the two ends apart.",
            ),
            (
                lambda: _at_edges(limit=0.9),
                "You counted beyond ±0.9; the edge itself is asked, within rounding.",
            ),
            (
                lambda: {
                    "minus 1": _at_edges()["plus 1"],
                    "plus 1": _at_edges()["minus 1"],
                },
                "They are the right two under the wrong labels; look at the signs again.",
            ),
            (
                lambda: {end: 3 * share for end, share in _at_edges().items()},
                "Those are numbers of data sets out of 300; the question asks for per cent.",
            ),
            (
                lambda: _at_edges(by_reml=False),
                "You fitted by ML; the question says REML, which is what fit_many does unless "
                "told otherwise.",
            ),
        ),
        hints=(
            "Each data set gives a covariance matrix: turn each into a correlation, then count.",
            "fits.cov_re has the shape (300, 2, 2); cov_re[:, 0, 1] are the covariances.",
            "100 * np.mean(correlation < -0.9999) is the first; nan counts as neither.",
        ),
    ),
    "07.3": Choice(
        question=(
            "A program prints a correlation of −1 and Converged: Yes, and its criterion is the "
            "lowest that anybody finds. What follows?"
        ),
        options={
            "a": "The optimiser failed; a better one stops short of −1.",
            "b": "Schools that start lower gain more, for certain.",
            "c": "The best fit is at an edge; how sure, it does not say.",
            "d": "Slopes do not vary, so the random slope can go.",
        },
        right="c",
        reasons={
            "a": (
                "If no criterion is lower, this is the best fit. A singular fit is a property of "
                "the data and the model, not a fault of the walk downhill."
            ),
            "b": (
                "A perfect correlation in the output is no certainty. With few groups it often "
                "comes from an ordinary truth, and now and then with the wrong sign."
            ),
            "d": (
                "A correlation of −1 needs a slope variance above zero. The flag does not test "
                "whether slopes vary."
            ),
        },
        insight=(
            "The edge says where the ground is lowest, the flatness what we know. An interval or a "
            "simulation shows the second."
        ),
    ),
    "07.4": Several(
        answer=lambda: _interval(_fit(), _t(5)),
        insight=(
            "The random slope stays, the warning is reported, and six schools count as six: the "
            "question about the average survives a correlation that nobody can know."
        ),
        mistakes=(
            (
                lambda: _interval(_fit(None), 1.96),
                "You dropped the random slope and took 1.96: that interval denies that schools "
                "differ in slope, and that there are only six.",
            ),
            (
                lambda: _interval(_fit(None), _t(5)),
                "You dropped the random slope; t does not make up for that.",
            ),
            (
                lambda: _interval(_fit(), 1.96),
                "You took 1.96, or t as if each student counted; count the schools, all six.",
            ),
            (
                lambda: {
                    "lower": _fit().fe_params["app_hours"] - _t(5) * _between()["slopes"],
                    "upper": _fit().fe_params["app_hours"] + _t(5) * _between()["slopes"],
                },
                "You took the SD of slopes, which says where schools lie; the question is how well "
                "their average is known.",
            ),
            (
                lambda: _interval(_fit(), 1),
                "That is one standard error either way; with six schools 95 % takes a good deal "
                "more.",
            ),
            (
                lambda: _interval(_fit(reml=False), _t(5)),
                "You fitted by ML, whose variances are too small on average with six schools; "
                "stay with REML.",
            ),
            (
                lambda: _by_ols(),
                "That is ordinary least squares, which takes the 90 students for independent.",
            ),
        ),
        hints=(
            "Which fit keeps the doubt about schools in the standard error?",
            "Estimate ± factor × standard error, the factor from t with schools − 1 degrees.",
            "stats.t.ppf(0.975, 5) is the factor; fit.bse_fe has the standard error.",
        ),
    ),
    "07.5": Several(
        answer=_read,
        insight=(
            "Printed tables mix scales: a variance here, a ratio there, a standard error that "
            "belongs to neither. Ask of each number what its unit would be."
        ),
        mistakes=(
            (
                lambda: {
                    "children": _children().cov_re.iloc[0, 0],
                    "residual": _children().scale,
                },
                "The first two are variances, in mm²; take their roots.",
            ),
            (
                lambda: {"children": _read(divided=_children().scale)["children"]},
                "For the children you took params, where variances are divided by the scale.",
            ),
            (
                lambda: {"children": _children().params["Group Var"]},
                "For the children you took params: a variance, and divided by the scale.",
            ),
            (
                lambda: {"residual": _children().scale},
                "Scale is the residual variance; the question asks for the SD.",
            ),
            (
                lambda: {"se": _children().bse_re.iloc[0]},
                "The standard error is the printed one, which is wrong by the root of the scale.",
            ),
            (
                lambda: {"se": _children().bse_re.iloc[0] * np.sqrt(_children().scale)},
                "The printed error times √scale still takes the residual variance as known; "
                "mixed.variance_table has the full answer.",
            ),
            (
                lambda: {"se": _variances(on="sd")["se"][0]},
                "The standard error is that of the SD, in mm; the question asks for that of the "
                "variance, in mm².",
            ),
        ),
        hints=(
            "Ask of each printed number: variance or SD, and divided by the scale or not?",
            "SDs: roots of fit.cov_re and fit.scale. The standard error: fit by mixed.fit as well.",
            'mixed.variance_table(ours) has a column "se", of variances unless told otherwise.',
        ),
    ),
    "07.6": Number(
        answer=_difference,
        insight=(
            "The one that said converged is the worse. The judge needed neither program: "
            "only the two answers and a likelihood."
        ),
        mistakes=(
            (
                lambda: _difference(power=0),
                "The covariance matrices went in as they are; statsmodels wants them divided by "
                "the residual variance.",
            ),
            (
                lambda: _difference(power=1),
                "You divided by the residual SD; divide by its square.",
            ),
            (
                lambda: _difference(factor=-1),
                "That is the difference of log-likelihoods; the criterion is −2 times that.",
            ),
        ),
        hints=(
            "Make a covariance matrix of each row, then ask the same judge about both.",
            "Variances are squared SDs; the covariance is correlation × SD × SD.",
            "criterion_at(C / sd_residual**2) for both rows, then the higher less the lower.",
        ),
    ),
}
