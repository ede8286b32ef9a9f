"""The questions of lesson 05, intercepts and slopes together: a waist at 4 hours, then cheese."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np

from helpers import datasets, mixed, plots, simulate
from helpers.check import Choice, Several

FORMULA = "math_score ~ app_hours"


@cache
def _town():
    return simulate.schools(40, 15, sd_intercept=6, sd_slope=1, correlation=-0.7, seed=55)


@cache
def _fit():
    return mixed.fit(FORMULA, _town(), "school_id", "~app_hours")


@cache
def _parallel():
    return mixed.fit(FORMULA, _town(), "school_id")


@cache
def _cheese():
    data = datasets.load("cheese")
    data = data.assign(log_volume=np.log(data["volume"]), log_price=np.log(data["price"]))
    return mixed.fit("log_volume ~ log_price", data, "retailer", "~log_price")


def _own_lines():
    """Slope and intercept of least squares in each school, as two rows."""
    lines = [
        np.polyfit(students["app_hours"], students["math_score"], 1)
        for _, students in _town().groupby("school_id")
    ]
    return np.array(lines).T


def _blups():
    table = mixed.group_coefficients(_fit())
    return table.pivot(index="group", columns="term", values="blup").to_numpy().T


def _covariances(fit=_fit):
    """Variance of the intercepts, covariance, variance of the slopes."""
    matrix = fit().cov_re.to_numpy()
    return matrix[0, 0], matrix[0, 1], matrix[1, 1]


def _parameters(c=0.0, fit=_fit):
    """SD of the intercepts, SD of the slopes and correlation, with zero at c."""
    at_0, covariance, slopes = _covariances(fit)
    sd, sd_slope = np.sqrt(at_0 + 2 * c * covariance + c**2 * slopes), np.sqrt(slopes)
    return sd, sd_slope, (covariance + c * slopes) / (sd * sd_slope)


def _coded(c=6.0, per_hour=60.0):
    """The parameters, with zero at c hours and this many units an hour."""
    sd, sd_slope, correlation = _parameters(c)
    return {"sd_intercept": sd, "sd_slope": sd_slope / per_hour, "correlation": correlation}


def _start(covariance, intercepts):
    """Points an hour that a school gains more if it starts 10 points higher."""
    return {"gain": 10 * covariance / intercepts}


def _waist():
    _, covariance, slopes = _covariances()
    hours = -covariance / slopes
    return {"hours": hours, "sd": _parameters(hours)[0]}


def _shares(power=2):
    """The ICC at 1, 4 and 10 hours; power 1 puts SDs for variances."""
    within = np.sqrt(_fit().scale) ** power
    between = {c: _parameters(c)[0] ** power for c in (1, 4, 10)}
    return _named([between[c] / (between[c] + within) for c in between])


def _named(values):
    return dict(zip(("1 hour", "4 hours", "10 hours"), values, strict=True))


def _uncorrelated():
    """The ICCs as if intercepts and slopes were uncorrelated."""
    at_0, _, slopes = _covariances()
    between = np.array([at_0 + slopes * c**2 for c in (1, 4, 10)])
    return _named(between / (between + _fit().scale))


def _prices(one=0.0, three=None):
    """Correlations with zero at two places of the logarithm of the price."""
    three = np.log(3) if three is None else three
    return {
        "1 dollar": _parameters(one, _cheese)[2],
        "3 dollars": _parameters(three, _cheese)[2],
    }


def _draw_spread():
    """SD between schools along the hours, of both models."""
    hours = np.linspace(0, 10, 101)
    sd = _parameters(hours)[0]
    _, ax = plt.subplots()
    ax.plot(hours, sd, color=plots.BLUE, label="lines that tilt")
    level = np.sqrt(_parallel().cov_re.iloc[0, 0])
    ax.plot([0, 10], [level, level], color=plots.VERMILLION, ls="--", label="parallel lines")
    waist = _waist()
    ax.plot(waist["hours"], waist["sd"], "o", color=plots.INK)
    ax.annotate("waist", (waist["hours"], waist["sd"]), (0, -20), textcoords="offset points")
    ax.set(xlabel="Hours on the app", ylabel="SD between schools (points)", ylim=(0, None))
    ax.set_title("Schools draw together until the waist, then apart")
    ax.legend()


TARGETS = {"05.2": _draw_spread}

QUESTIONS = {
    "05.1": Several(
        answer=lambda: {"correlation": _parameters()[2], **_start(*_covariances()[1::-1])},
        insight=(
            "Of two schools without the app, the higher one is expected to gain less an hour. "
            "Without the app is where the sentence is true, and tasks 2 to 4 walk away from there."
        ),
        mistakes=(
            (
                lambda: {"correlation": _covariances()[1]},
                "Your 'correlation' is the covariance, in points × points an hour; divide it by "
                "both SDs.",
            ),
            (
                lambda: {"correlation": np.corrcoef(_own_lines())[0, 1]},
                "Your 'correlation' is the correlation of forty separate regressions, see-saw of "
                "their errors included; take the model's.",
            ),
            (
                lambda: {"correlation": np.corrcoef(_blups())[0, 1]},
                "Your 'correlation' is the correlation of the BLUPs, which are shrunk both at "
                "once; take the model's.",
            ),
            (
                lambda: {
                    "correlation": _covariances()[1] / (_covariances()[0] * _covariances()[2])
                },
                "Your 'correlation' is the covariance over both variances; divide by both SDs.",
            ),
            (
                lambda: _start(_covariances()[1], _covariances()[2]),
                "Your 'gain' is divided by the variance of the slopes, which says how much higher "
                "a steep school starts; asked is the other way round.",
            ),
            (
                lambda: _start(_covariances()[1], 1),
                "Your 'gain' is ten covariances; per point at the start it is the covariance over "
                "the variance of the intercepts.",
            ),
            (
                lambda: {"gain": 10 * _parameters()[2]},
                "Your 'gain' is ten correlations, which have no unit; it takes the covariance over "
                "the variance of the intercepts.",
            ),
            (
                lambda: {"gain": _covariances()[1] / _covariances()[0]},
                "Your 'gain' is for a school that starts one point higher; the question says ten.",
            ),
            (
                lambda: {"gain": 10 * np.polyfit(*_own_lines()[::-1], 1)[0]},
                "Your 'gain' comes from forty separate regressions, see-saw of their errors "
                "included; take the model's covariance and variance.",
            ),
            (
                lambda: {
                    "gain": _fit().fe_params["app_hours"] + _start(*_covariances()[1::-1])["gain"]
                },
                "Your 'gain' is the gain of a school that starts ten points above the average; "
                "asked is by how much it differs from the other's.",
            ),
        ),
        hints=(
            "Both come from the covariance matrix of schools' deviations and from nothing else.",
            "It is fit.cov_re; the covariance stands off the diagonal, variances on it.",
            "correlation: covariance over the root of both variances; gain: 10 × covariance over "
            "the variance of the intercepts.",
        ),
    ),
    "05.2": Several(
        answer=_waist,
        insight=(
            "A waist belongs to the lines, so that another zero does not move it among the "
            "students. In this town it lies where many of them are."
        ),
        mistakes=(
            (
                lambda: {"hours": -_waist()["hours"]},
                "The waist is on the other side of zero: where the covariance is negative, lines "
                "first draw together.",
            ),
            (
                lambda: {"hours": -_covariances()[1] / _covariances()[0]},
                "You divided by the variance of the intercepts; that of the slopes moves the "
                "covariance to zero.",
            ),
            (
                lambda: {"hours": -_parameters()[2]},
                "That is the correlation; to be a number of hours it has to be multiplied by the "
                "SD of the intercepts over that of the slopes.",
            ),
            (
                lambda: {"sd": _parameters()[0]},
                "The SD is that at 0 hours, or the covariance went in once: it counts twice. The "
                "waist is further on, where schools are closer.",
            ),
            (
                lambda: {"sd": _waist()["sd"] ** 2},
                "Your 'sd' is the variance between schools at the waist; the question asks for "
                "the SD.",
            ),
            (
                lambda: {"sd": np.sqrt(_waist()["sd"] ** 2 + _fit().scale)},
                "Your 'sd' is the SD of all students there, their scatter within schools "
                "included; the question is about schools.",
            ),
            (
                lambda: {
                    "sd": np.sqrt(_covariances()[0] + _waist()["hours"] ** 2 * _covariances()[2])
                },
                "Your 'sd' leaves out the covariance, which is what draws the lines together.",
            ),
            (
                lambda: {"sd": _parameters()[1]},
                "Your 'sd' is the SD of the slopes, in points an hour; asked is how far apart "
                "schools are at the waist, in points.",
            ),
        ),
        hints=(
            "At the waist the variance between schools is smallest: a parabola at its minimum.",
            "The covariance of height and slope is zero there; an hour adds the slopes' variance.",
            "hours = −covariance / variance of slopes; put it as x into the parabola, take a root.",
        ),
    ),
    "05.3": Several(
        answer=_coded,
        insight=(
            "The correlation has changed its sign, and both of you have fitted the same lines. A "
            "unit changes SDs, a zero changes what is measured there."
        ),
        mistakes=(
            (
                lambda: _coded(c=0),
                "You changed the unit and left zero where it was; the colleague counts from the "
                "sixth hour.",
            ),
            (
                lambda: _coded(per_hour=1),
                "The SD of slopes is still in points an hour; the colleague's unit is the minute.",
            ),
            (
                lambda: _coded(per_hour=1 / 60),
                "The SD of slopes is multiplied by 60; a minute brings a sixtieth of an hour's "
                "gain.",
            ),
            (
                lambda: _coded(c=-6),
                "You moved zero to the wrong side: app_hours − 6 is zero at 6 hours, not at −6.",
            ),
            (
                lambda: {**_coded(), "correlation": _parameters(0)[2]},
                "The correlation is still that at 0 hours; its sign depends on the side of the "
                "waist.",
            ),
            (
                lambda: {**_coded(), "correlation": _coded()["correlation"] / 60},
                "A correlation has no unit, so minutes change nothing in it.",
            ),
            (
                lambda: {**_coded(), "sd_intercept": _parameters(0)[0]},
                "The SD of intercepts is still that at 0 hours; the colleague's is at 6 hours.",
            ),
            (
                lambda: {**_coded(), "sd_intercept": _coded()["sd_intercept"] ** 2},
                "Your 'sd_intercept' is the variance of the intercepts; the question asks for the "
                "SD.",
            ),
            (
                lambda: _coded(c=360),
                "You moved zero by 360 hours: turn into minutes first or last, but not in between.",
            ),
            (
                lambda: _coded(c=0, per_hour=1),
                "Those are the three numbers of your own fit; the colleague has another zero and "
                "another unit.",
            ),
            (
                lambda: {"sd_slope": _covariances()[2] / 60},
                "You divided the variance of the slopes by 60; it is their SD that is divided so.",
            ),
        ),
        hints=(
            "Two things change: the place of zero, and the unit of the slope. Take one at a time.",
            "With zero at c: variance τ₀² + 2cρτ₀τ₁ + c²τ₁², covariance ρτ₀τ₁ + cτ₁². Here c is 6.",
            "The formulas at c = 6 hours give SD and correlation; the slopes' SD is divided by 60.",
        ),
    ),
    "05.4": Choice(
        question="Which of these numbers is the same in your fit and in the colleague's?",
        options={
            "a": "The covariance of intercepts and slopes",
            "b": "The SD between schools, among students with 8 hours",
            "c": "The average slope, as the summary prints it",
            "d": "The SD of the intercepts",
        },
        right="b",
        reasons={
            "a": (
                "It depends on zero, as the correlation does, and on the unit besides: the "
                "colleague's has another sign and another size."
            ),
            "c": (
                "Moving zero leaves it alone, but the colleague's is printed in points a minute, "
                "a sixtieth of yours. It is the same gain in other words."
            ),
            "d": (
                "An intercept is a height at zero. Yours are heights at 0 hours, the colleague's "
                "at 6 hours, where schools are not as far apart."
            ),
        },
        insight=(
            "It is about students that anybody can point at, so no coding can change it. What is "
            "said at such a place can be compared between papers."
        ),
    ),
    "05.5": Several(
        answer=_shares,
        insight=(
            "One number for all hours would hide that the share between schools is smallest near "
            "the waist and largest where students spend the most hours."
        ),
        mistakes=(
            (
                lambda: _named([mixed.icc(_parallel())["icc"].item()] * 3),
                "That is the one ICC of parallel lines; where lines tilt it depends on the hours.",
            ),
            (
                lambda: _named([_covariances()[0] / (_covariances()[0] + _fit().scale)] * 3),
                "That is the ICC at 0 hours, three times; put the hours into the variance between "
                "schools.",
            ),
            (
                _uncorrelated,
                "You left out the covariance, so that schools could only draw apart.",
            ),
            (
                lambda: _shares(power=1),
                "That is a ratio of SDs; an ICC is a share of the variance.",
            ),
            (
                lambda: _named(
                    [_parameters(c)[0] ** 2 / _fit().scale for c in (1, 4, 10)],
                ),
                "That is the variance between schools over that within; a share has both below "
                "the line.",
            ),
            (
                lambda: {key: 1 - share for key, share in _shares().items()},
                "Those are the shares within schools; the question asks for those between.",
            ),
            (
                lambda: _named([_parameters(c)[0] for c in (1, 4, 10)]),
                "Those are the SDs between schools, in points; the question asks for a share of "
                "the variance.",
            ),
            (
                lambda: _named(
                    [_parameters(c)[0] ** 2 / _town()["math_score"].var() for c in (1, 4, 10)]
                ),
                "You divided by the variance of all scores in the town, whose hours differ; asked "
                "is a share among students with the same hours.",
            ),
        ),
        hints=(
            "The variance between schools is a parabola in the hours; that within is the same.",
            'mixed.icc takes the places where you want it: at={"app_hours": […]}.',
            'mixed.icc(fit, at={"app_hours": [1, 4, 10]})["icc"] holds the three, in this order.',
        ),
    ),
    "05.6": Several(
        answer=_prices,
        insight=(
            "The strong correlation belongs to a price at which nobody sells. At 3 dollars the "
            "sign is open, and among real prices it goes from negative to positive: a sentence "
            "about big sellers needs a price."
        ),
        mistakes=(
            (
                lambda: _prices(three=0),
                "Both cannot be the same: at 3 dollars the zero is elsewhere.",
            ),
            (
                lambda: _prices(three=3),
                "You moved zero to 3 on the scale of the logarithm, which is a price of 20 "
                "dollars; 3 dollars are at log 3.",
            ),
            (
                lambda: _prices(one=1),
                "You moved zero to 1 on the scale of the logarithm, which is a price of e dollars; "
                "what is the logarithm of 1?",
            ),
            (
                lambda: _prices(three=-np.log(3)),
                "You moved zero the wrong way, to a price of a third of a dollar.",
            ),
            (
                lambda: {"1 dollar": _covariances(_cheese)[1]},
                "Your '1 dollar' is a covariance; the question asks for correlations.",
            ),
        ),
        hints=(
            "Where is zero when the predictor is the logarithm of the price in dollars?",
            "At log price 0, which is 1 dollar; for 3 dollars move zero to log 3.",
            "The formulas of task 3 with c = log 3, or a refit on log_price − log 3.",
        ),
    ),
}
