"""The questions of lesson 14, under the hood: a small district, then a drug leaving the blood."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from helpers import datasets, mixed, plots, simulate
from helpers.check import Choice, Number, Several

FORMULA = "math_score ~ app_hours"


@cache
def _district():
    schools = simulate.schools(12, 15, seed=14)
    return schools.assign(app_minutes=60 * schools["app_hours"])


@cache
def _fit(reml=True, hours="app_hours"):
    return mixed.fit(
        f"math_score ~ {hours}", _district(), "school_id", re_formula=f"~{hours}", reml=reml
    )


def _kept(columns, both_triangles=False):
    """Cross-products of the 27 children, for so many columns in Z, X and y."""
    children = datasets.load("orthodont")["subject"].nunique()
    return children * (columns**2 if both_triangles else columns * (columns + 1) // 2)


def _shared(a, b, fit=_fit):
    """Covariance of two students of a school with a and b hours."""
    return np.array([1, a]) @ fit().cov_re.to_numpy() @ np.array([1, b])


def _pair(fit=_fit):
    return {"covariance": _shared(2, 8, fit), "variance": _shared(8, 8, fit) + fit().scale}


def _without_covariance(a, b):
    C = _fit().cov_re.to_numpy()
    return C[0, 0] + C[1, 1] * a * b


@cache
def _density(reml, blocks=True):
    """−2 log density of all scores by the definition, at the estimates of REML or ML."""
    fit, data = _fit(reml), _district()
    X = np.column_stack([np.ones(len(data)), data["app_hours"]])
    V = X @ fit.cov_re.to_numpy() @ X.T
    if blocks:
        school = data["school_id"].to_numpy()
        V = V * np.equal.outer(school, school)
    V = V + fit.scale * np.eye(len(data))
    density = stats.multivariate_normal(X @ fit.fe_params.to_numpy(), V)
    return -2 * density.logpdf(data["math_score"])


def _per_unit(reml):
    return _fit(reml, "app_minutes").criterion - _fit(reml).criterion


@cache
def _blood(time="time", varying=True, reml=True):
    theoph = datasets.load("theoph")
    late = theoph[theoph["time"] > 2]
    late = late.assign(log_conc=np.log(late["conc"]), minutes=60 * late["time"])
    re_formula = f"~{time}" if varying else None
    return mixed.fit(f"log_conc ~ {time}", late, "subject", re_formula, reml=reml)


def _draw_covariances():
    """What a student shares with a schoolmate at 1 hour and with one at 10 hours."""
    hours = np.linspace(1, 10, 50)
    _, ax = plt.subplots()
    for other, style in ((1, "--"), (10, "-")):
        shared = [_shared(h, other) for h in hours]
        ax.plot(hours, shared, color=plots.BLUE, linestyle=style, label=f"schoolmate at {other} h")
    ax.set(xlabel="Hours on the app", ylabel="Covariance of two scores (points²)")
    ax.set_title("Two with many hours share most")
    ax.legend()


TARGETS = {"14.2": _draw_covariances}

QUESTIONS = {
    "14.1": Number(
        answer=lambda: _kept(6),
        insight=(
            "With a hundred times as many visits a child the number would be the same: it depends "
            "on groups and effects only."
        ),
        mistakes=(
            (
                lambda: _kept(6, both_triangles=True),
                "You counted whole tables; they are symmetric, so that entries off the diagonal "
                "come twice.",
            ),
            (
                lambda: _kept(5),
                "One column is missing. Count the constant, age and sex, what varies, and the "
                "outcome.",
            ),
            (
                lambda: _kept(4),
                "You left out the columns of Z; the lesson keeps them beside those of X and y.",
            ),
            (
                lambda: _kept(6) / 27,
                "That is one child; there is a table for each of them.",
            ),
            (
                lambda: len(datasets.load("orthodont")) ** 2,
                "Those are the entries of V, which need not be built.",
            ),
        ),
        hints=(
            "How many columns stand side by side in Z, X and y together?",
            "A symmetric table of m × m cross-products has m (m + 1) / 2 different entries.",
            "Z has two columns, X three and y is one; then times the number of children.",
        ),
        tolerance=1e-6,
    ),
    "14.2": Several(
        answer=_pair,
        insight=(
            "The covariance is what they share through the school's line; the variance adds what "
            "is the student's own."
        ),
        mistakes=(
            (
                lambda: {"variance": _shared(8, 8)},
                "Your variance is what the school's line contributes; the residual comes on top.",
            ),
            (
                lambda: {"covariance": _shared(2, 8) + _fit().scale},
                "Your covariance holds the residual variance, which two students do not share.",
            ),
            (
                lambda: {"covariance": _without_covariance(2, 8)},
                "Your covariance leaves out that intercepts and slopes go together; use the whole "
                "matrix.",
            ),
            (
                lambda: {"covariance": _shared(8, 8)},
                "Your covariance is that of two students at 8 hours; one of them has 2.",
            ),
            (
                lambda: {
                    "covariance": _shared(2, 8)
                    / np.sqrt((_shared(2, 2) + _fit().scale) * (_shared(8, 8) + _fit().scale))
                },
                "Your covariance is a correlation; leave it in points squared.",
            ),
            (
                lambda: _pair(lambda: _fit(reml=False)),
                "You fitted by ML; the question says REML.",
            ),
            (
                lambda: {"variance": np.sqrt(_pair()["variance"])},
                "Your variance is an SD; leave it in points squared.",
            ),
            (
                lambda: {"variance": _shared(2, 2) + _fit().scale},
                "Your variance is that of a student with 2 hours; the question says 8.",
            ),
        ),
        hints=(
            "Write the deviation of a school's line at h hours as a sum of its two random effects.",
            "With the rows (1, 2) and (1, 8) it is row @ C @ row, C being fit.cov_re.",
            "Covariance: [1, 2] @ C @ [1, 8]. Variance: [1, 8] @ C @ [1, 8] and fit.scale added.",
        ),
    ),
    "14.3": Number(
        answer=lambda: _fit(reml=False).criterion,
        insight=(
            "So the criterion is no secret of a program. It is the density of one normal "
            "distribution, at the scores that we have."
        ),
        mistakes=(
            (
                lambda: -_fit(reml=False).criterion / 2,
                "That is the log-likelihood; the criterion is minus twice that.",
            ),
            (
                lambda: _fit().criterion,
                "That is the criterion of REML; the density of the scores themselves is ML.",
            ),
            (
                lambda: _density(reml=True),
                "That is the density at the estimates of REML; take those of fit_ml for the mean "
                "and for V.",
            ),
            (
                lambda: _density(reml=False, blocks=False),
                "In your V students of different schools share a line. Put zeros between schools.",
            ),
        ),
        hints=(
            "You need a mean for each student and one matrix V for all of them.",
            "V is same_school * (X @ C @ X.T), C being that of fit_ml, with its residual variance "
            "added on the diagonal.",
            "stats.multivariate_normal(X @ gamma, V).logpdf(y), times −2.",
        ),
        tolerance=1e-5,
    ),
    "14.4": Number(
        answer=lambda: _per_unit(reml=True),
        insight=(
            "It is twice the log of the factor, whatever the data. By ML nothing would have moved."
        ),
        mistakes=(
            (
                lambda: np.log(60),
                "That is the log of the factor once; a determinant is made of products of two "
                "columns.",
            ),
            (
                lambda: 4 * np.log(60),
                "That counts the change twice. The random part brings none: its variance is "
                "estimated in the new unit.",
            ),
            (
                lambda: np.log(2 * 60),
                "You took the log of twice the factor; it is twice the log.",
            ),
            (lambda: 60, "Criteria are logarithms; a factor becomes a term that is added."),
            (lambda: 0.0, "Both by ML, units change nothing; the question says REML."),
        ),
        hints=(
            "Fit the same model twice by REML, with hours and with minutes, also in re_formula.",
            "Subtract fit.criterion in hours from that in minutes.",
            'Both with reml as it is: mixed.fit(…, re_formula="~app_minutes").criterion less '
            "fit.criterion.",
        ),
    ),
    "14.5": Choice(
        question=(
            "Same rows, same columns, both by ML, same constants. Program P says 'converged', with "
            "a criterion of 1204. Program Q says 'singular', with 1202. What do you conclude?"
        ),
        options={
            "a": "Q is wrong: singular means that its search failed.",
            "b": "P is wrong: it is not at the lowest place.",
            "c": "Both are right: programs differ by constants.",
            "d": "Q is right: nothing can be lower than its criterion.",
        },
        right="b",
        reasons={
            "a": (
                "Singular says where the search ended, at the edge. The optimum may lie there, "
                "and Q's criterion is the lower one."
            ),
            "c": "The constants have been settled, so the criteria must agree but for last digits.",
            "d": (
                "It is lower than what P found, which does not make it the lowest of all. A look "
                "across the edge tells a bottom from a ridge, and other starts may find a lower "
                "place."
            ),
        },
        insight=(
            "The higher criterion is refuted by the lower one, whatever words are printed beside "
            "it. The lower one is only not yet refuted."
        ),
    ),
    "14.6": Number(
        answer=lambda: _blood().criterion,
        insight=(
            "A criterion may be negative: a density is not a probability, and with little residual "
            "spread it exceeds one."
        ),
        mistakes=(
            (
                lambda: _blood(reml=False).criterion,
                "You fitted by ML; the question says REML.",
            ),
            (
                lambda: _blood("minutes").criterion,
                "You took the time in minutes; the question says hours.",
            ),
            (
                lambda: _blood(varying=False).criterion,
                "In your model all people get rid of the drug at the same rate; let the slope "
                "vary too.",
            ),
            (
                lambda: -_blood().criterion / 2,
                "That is the log-likelihood; the criterion is minus twice that.",
            ),
        ),
        hints=(
            "The outcome is log_conc, the predictor time, and the group is the subject.",
            "Let intercept and slope vary, and leave reml as it is.",
            'Of mixed.fit("log_conc ~ time", late, "subject", "~time") take the criterion.',
        ),
        tolerance=1e-4,
    ),
    "14.7": Choice(
        question="Which of the four sheets do you send back?",
        options={
            "a": "Sheet P",
            "b": "Sheet Q",
            "c": "Sheet R",
            "d": "Sheet S",
        },
        right="d",
        reasons={
            "a": "That is the fit which you made yourself, to the digit.",
            "b": (
                "Multiply its slope and its SD by 60, and look at the difference of the criteria. "
                "It has the time in another unit."
            ),
            "c": (
                "Its average slope is yours and its SD a little smaller, as ML's is with twelve "
                "people. Fit by ML and compare."
            ),
        },
        insight=(
            "Same unit, and a criterion far above yours by REML and further above R's by ML: its "
            "program stopped on the edge, where the slope of the ground vanishes."
        ),
    ),
}
