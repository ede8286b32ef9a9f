"""The questions of lesson 08, within and between: Catholic schools, then the price of cheese."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import statsmodels.formula.api as smf

from helpers import datasets, mixed, plots
from helpers.check import Choice, Number, Several


@cache
def _catholic():
    hsb = datasets.load("hsb")
    return hsb[hsb["sector"] == "catholic"].assign(cses=hsb["ses"] - hsb["meanses"])


@cache
def _fit(predictors, random=None):
    return mixed.fit(f"mathach ~ {predictors}", _catholic(), "school", random)


@cache
def _ols(predictors):
    return smf.ols(f"mathach ~ {predictors}", _catholic()).fit()


def _within():
    return _fit("cses + meanses").fe_params["cses"]


def _between():
    return _fit("cses + meanses").fe_params["meanses"]


def _contextual():
    return _fit("ses + meanses").fe_params["meanses"]


def _effects(fit):
    within, between = fit.fe_params["cses"], fit.fe_params["meanses"]
    return {"within": within, "between": between, "contextual": between - within}


@cache
def _all_schools():
    hsb = datasets.load("hsb")
    return mixed.fit(
        "mathach ~ cses + meanses", hsb.assign(cses=hsb["ses"] - hsb["meanses"]), "school"
    )


def _sd_of_schools():
    return _catholic().groupby("school")["meanses"].first().std()


def _interval(scale, form="ses + meanses", width=1.96):
    """The coefficient of meanses and its 95 % interval, times a step of status."""
    fit = _fit(form)
    middle, half = fit.fe_params["meanses"], width * fit.bse_fe["meanses"]
    return {
        "effect": scale * middle,
        "lower": scale * (middle - half),
        "upper": scale * (middle + half),
    }


def _weight(blend):
    """Share of the between effect in a single coefficient."""
    return (blend - _within()) / (_between() - _within())


def _slope(mean):
    """Slope of status in a school of this mean status."""
    b = _fit("cses * meanses", "~cses").fe_params
    return b["cses"] + mean * b["cses:meanses"]


def _of_uncentred():
    b = _fit("ses * meanses", "~ses").fe_params
    return b["ses"] - 0.5 * b["ses:meanses"]


@cache
def _cheese(predictors, random=None):
    cheese = datasets.load("cheese")
    cheese["log_volume"], cheese["log_price"] = np.log(cheese["volume"]), np.log(cheese["price"])
    cheese["mean_price"] = cheese.groupby("retailer")["log_price"].transform("mean")
    cheese["own_price"] = cheese["log_price"] - cheese["mean_price"]
    cheese["log_of_mean"] = np.log(cheese.groupby("retailer")["price"].transform("mean"))
    return mixed.fit(f"log_volume ~ {predictors}", cheese, "retailer", random).fe_params, cheese


def _elasticities(random=None):
    b, _ = _cheese("own_price + mean_price", random)
    return {"within": b["own_price"], "between": b["mean_price"]}


def _from_log_of_mean():
    b, _ = _cheese("I(log_price - log_of_mean) + log_of_mean")
    return b["log_of_mean"]


def _cheese_mundlak():
    return _cheese("log_price + mean_price")[0]["mean_price"]


def _cheese_in_a_line():
    _, cheese = _cheese("own_price + mean_price")
    return smf.ols("log_volume ~ log_price", cheese).fit().params["log_price"]


def _draw_two_schools():
    """Expected scores in a school of low and in one of high mean status."""
    b = _fit("cses * meanses", "~cses").fe_params
    cses = np.array([-1.3, 1.3])
    _, ax = plt.subplots()
    for mean, look, colour in [(-0.5, "-", plots.BLUE), (0.5, "--", plots.VERMILLION)]:
        score = b["Intercept"] + b["meanses"] * mean + _slope(mean) * cses
        name = f"mean status {mean}".replace("-", "−")
        ax.plot(mean + cses, score, look, color=colour, label=name)
    ax.set(xlabel="Status of the student", ylabel="Expected maths score (points)")
    ax.set_title("The line of the poorer school is lower and flatter")
    ax.legend()


TARGETS = {"08.5": _draw_two_schools}

QUESTIONS = {
    "08.1": Several(
        answer=lambda: {
            "within": _within(),
            "between": _between(),
            "contextual": _between() - _within(),
        },
        insight=(
            "Two of the three are free, the third follows: contextual is between less within. In "
            "Catholic schools the gap is more than twice the within effect."
        ),
        mistakes=(
            (
                lambda: {"between": _contextual()},
                "Your between effect is the coefficient of meanses beside uncentred ses, which is "
                "the contextual effect.",
            ),
            (
                lambda: {"contextual": _between()},
                "Your contextual effect is the between effect; take the within effect off.",
            ),
            (
                lambda: {"contextual": _between() + _within()},
                "You added the two effects; the contextual effect is what is left of the between "
                "effect when the within effect has been taken off.",
            ),
            (
                lambda: {"within": _fit("ses").fe_params["ses"]},
                "Your within effect comes from status alone, uncentred: it is a blend with the "
                "between effect.",
            ),
            (
                lambda: {"between": _ols("cses + meanses").params["meanses"]},
                "That is ordinary least squares, which knows of no schools; use mixed.fit.",
            ),
            (
                lambda: _effects(_fit("cses + meanses", "~cses")),
                "You let the slope vary between schools too; the task says random intercepts.",
            ),
            (
                lambda: _effects(_all_schools()),
                "Those are the effects in all 160 schools; the task is about the Catholic ones.",
            ),
        ),
        hints=(
            "Which two predictors make a model that keeps students and schools apart?",
            'Fit "mathach ~ cses + meanses" with groups="school" and look at .fe_params.',
            "within: the coefficient of cses; between: that of meanses; then subtract.",
        ),
    ),
    "08.2": Several(
        answer=lambda: _interval(_sd_of_schools()),
        insight=(
            "A unit of status is more than schools usually differ by. An SD of schools is a step "
            "that occurs, and the interval says how well its size is known."
        ),
        mistakes=(
            (
                lambda: _interval(1.0),
                "That is for one unit of mean status; multiply by the SD of the schools' means.",
            ),
            (
                lambda: _interval(_catholic()["ses"].std()),
                "You took the SD of the students' status; the step asked for is between schools.",
            ),
            (
                lambda: _interval(_catholic()["meanses"].std()),
                "You took the SD over students' rows, in which large schools count more; take one "
                "row a school.",
            ),
            (
                lambda: _interval(_sd_of_schools(), "cses + meanses"),
                "That is the between effect of an SD of schools; the contextual effect is asked.",
            ),
            (
                lambda: _interval(_sd_of_schools(), width=1),
                "The ends are one standard error away; an interval of 95 % takes 1.96.",
            ),
            (
                lambda: _interval(_sd_of_schools(), width=2),
                "The ends are two standard errors away; for 95 % it is 1.96.",
            ),
            (
                lambda: _interval(_sd_of_schools(), width=1.96 / _sd_of_schools()),
                "The estimate is for one SD of schools, and the width of the interval still for "
                "one unit; multiply both.",
            ),
        ),
        hints=(
            "Which spelling of the model prints the contextual effect with a standard error?",
            'Mundlak\'s form has it as the coefficient of meanses; .bse_fe["meanses"] is its SE.',
            "Estimate ± 1.96 × SE, then all three times the SD of one mean a school.",
        ),
    ),
    "08.3": Choice(
        question=(
            "Next year only five students a school are tested. What becomes of the single "
            "coefficient of ses (random intercepts)?"
        ),
        options={
            "a": "It stays the same on average; only its SE grows.",
            "b": "It moves up, towards the between effect.",
            "c": "It moves down, below the within effect.",
            "d": "It becomes the contextual effect.",
        },
        right="b",
        reasons={
            "a": (
                "That holds for the within and the between effect in a model with both, if the "
                "mean is that of the whole school. The blend changes, as its weights do."
            ),
            "c": "A blend with positive weights lies between the two effects, never outside.",
            "d": (
                "The contextual effect is a difference of the two effects; a blend is an average "
                "of them."
            ),
        },
        insight=(
            "Fewer students a school know less about slopes within schools, so the comparison "
            "between schools gets more of the weight."
        ),
    ),
    "08.4": Number(
        answer=lambda: _weight(_fit("ses").fe_params["ses"]),
        insight=(
            "About one part in twenty. The single coefficient is nearly the within effect, and "
            "anybody who uses it to compare schools is far off."
        ),
        mistakes=(
            (
                lambda: 1 - _weight(_fit("ses").fe_params["ses"]),
                "That is the weight of the within effect; the question asks for the other.",
            ),
            (
                lambda: _weight(_ols("ses").params["ses"]),
                "That is the weight in an ordinary regression; asked is the mixed model.",
            ),
            (
                lambda: _fit("ses").fe_params["ses"] / _between(),
                "You divided by the between effect; a weight is how far the blend has come on the "
                "way from one effect to the other.",
            ),
            (
                lambda: _weight(_fit("ses", "~ses").fe_params["ses"]),
                "Either the effects were rounded before you divided, or the slope varies between "
                "schools in your model; take unrounded effects and random intercepts only.",
            ),
        ),
        hints=(
            "Where between the two effects does the single coefficient lie?",
            'Fit "mathach ~ ses" with random intercepts; compare with your answers to 08.1.',
            "(blend − within) / (between − within).",
        ),
    ),
    "08.5": Number(
        answer=lambda: _slope(-0.5),
        insight=(
            "A slope that depends on the school is an equation: average slope plus the product's "
            "coefficient times the school's fact."
        ),
        mistakes=(
            (
                lambda: _slope(0.0),
                "That is the slope in a school of mean status 0; the school asked for is poorer.",
            ),
            (
                lambda: _slope(0.5),
                "That is the slope in a school as far above 0 as this one is below.",
            ),
            (
                lambda: _fit("cses * meanses", "~cses").fe_params["cses:meanses"],
                "That is the coefficient of the product alone: by how much slopes change with a "
                "unit of mean status.",
            ),
            (
                lambda: (
                    _fit("cses * meanses", "~cses").fe_params["cses"]
                    - 0.5 * _fit("cses * meanses", "~cses").fe_params["meanses"]
                ),
                "You used the coefficient of meanses, which moves the height of the line; its "
                "slope is moved by the product.",
            ),
            (
                lambda: _slope(-0.5) - _slope(0.0),
                "That is by how much the line is flatter than in a school of mean status 0; asked "
                "is its slope.",
            ),
            (
                lambda: _of_uncentred(),
                "You used ses as it is in place of cses, so that the product mixes two things; "
                "take the centred one.",
            ),
        ),
        hints=(
            "Collect everything in the fitted equation that is multiplied by cses.",
            "Two coefficients have cses in their name; one of them meets the mean status.",
            'b["cses"] + mean status × b["cses:meanses"].',
        ),
    ),
    "08.6": Several(
        answer=_elasticities,
        insight=(
            "The same retailer sells much less in weeks with a higher price. Comparing dear with "
            "cheap retailers is another question, and 88 of them hardly answer it."
        ),
        mistakes=(
            (
                lambda: {"between": _cheese_mundlak()},
                "Your between effect is the coefficient of the mean beside the uncentred price: "
                "the contextual effect.",
            ),
            (
                lambda: {"within": _cheese_in_a_line()},
                "Your within effect is the slope of one line for all weeks of all retailers, a "
                "blend of the two.",
            ),
            (
                lambda: {
                    "within": _elasticities()["between"],
                    "between": _elasticities()["within"],
                },
                "They are the right two under each other's name.",
            ),
            (
                lambda: {"between": _from_log_of_mean()},
                "You took the log of the retailer's mean price; take the mean of its log prices.",
            ),
            (
                lambda: _elasticities("~own_price"),
                "You let the elasticity vary between retailers; the task says random intercepts.",
            ),
        ),
        hints=(
            "What plays the part of the student here, and what that of the school?",
            "Take logs first, then the mean of the log price of each retailer, then the rest.",
            "Fit log_volume on own_price + mean_price with a random intercept for each retailer.",
        ),
    ),
}
