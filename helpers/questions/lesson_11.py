"""The questions of lesson 11, campaigns: cheese in later weeks, then gaps that vary by school."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from helpers import datasets, mixed, plots
from helpers.check import Choice, Number, Several

FORMULA, VARYING = "log_volume ~ log_price_c + disp", "~log_price_c + disp"
TERMS = ["Intercept", "log_price_c", "disp"]
RETAILER = "Los Angeles – Lucky"
SCHOOLS = "mathach ~ cses + minority"


@cache
def _weeks():
    cheese = datasets.load("cheese")
    cheese["retailer"] = cheese["retailer"].str.title().str.replace(" - ", " – ")
    cheese["week"] = cheese.groupby("retailer").cumcount()
    cheese["log_volume"] = np.log(cheese["volume"])
    log_price = np.log(cheese["price"])
    return cheese.assign(log_price_c=log_price - log_price.mean())


def _late():
    return _weeks().query("week >= 26")


@cache
def _fit(varying=VARYING):
    return mixed.fit(FORMULA, _late(), "retailer", varying)


@cache
def _fit_all_weeks():
    return mixed.fit(FORMULA, _weeks(), "retailer", VARYING)


def _gamma(name, fit=_fit):
    return fit().fe_params[name]


def _least_squares(rows, terms=TERMS):
    X = rows.assign(Intercept=1.0)[terms].to_numpy()
    return np.linalg.lstsq(X, rows["log_volume"].to_numpy(), rcond=None)[0]


@cache
def _own_lines():
    lines = {
        name: _least_squares(rows)
        for name, rows in _late().groupby("retailer")
        if rows["disp"].any()
    }
    return pd.DataFrame(lines, index=TERMS).T


@cache
def _coefficients():
    return mixed.group_coefficients(_fit()).pivot(index="group", columns="term")


def _gains(lines, share=0.1):
    price = _late().groupby("retailer")["log_price_c"].mean()
    base = np.exp(lines["Intercept"] + lines["log_price_c"] * price)
    return (base * (np.exp(share * lines["disp"]) - 1)).dropna()


def _allowed():
    often = (_late()["disp"] >= 0.1).groupby(_late()["retailer"]).sum()
    return often.index[often >= 5]


def _promises(allowed=None, n=10, share=0.1, by="gain"):
    """Gains of the first n of each list, added up; by="lift" orders the lists by lift."""
    lists = {"analyst": _own_lines(), "mixed model": _coefficients()["estimate"]}
    gains = {name: _gains(lines, share) for name, lines in lists.items()}
    allowed = _allowed() if allowed is None else allowed
    promised = {}
    for name, gain in gains.items():
        gain = gain[gain.index.intersection(allowed)]
        order = lists[name].loc[gain.index, "disp"] if by == "lift" else gain
        promised[name] = gain[order.nlargest(n).index].sum()
    return promised


def _tau2():
    return _fit().cov_re.loc["disp", "disp"]


def _reliability(sd):
    return 1 - sd**2 / _tau2()


def _lift():
    """Lift of the retailer by its own regression and in the model, and its shrinkage factor."""
    table = _coefficients()
    return {
        "own": _own_lines().loc[RETAILER, "disp"],
        "model": table["estimate"].loc[RETAILER, "disp"],
        "lambda": _reliability(table["sd"].loc[RETAILER, "disp"]),
    }


def _lift_without_price():
    rows = _late().query("retailer == @RETAILER")
    return _least_squares(rows, ["Intercept", "disp"])[1]


def _own_in_all_weeks():
    return _least_squares(_weeks().query("retailer == @RETAILER"))[2]


def _as_for_a_level():
    n = (_late()["retailer"] == RETAILER).sum()
    return _tau2() / (_tau2() + _fit().scale / n)


@cache
def _schools():
    hsb = datasets.load("hsb")
    return mixed.fit(
        SCHOOLS, hsb.assign(cses=hsb["ses"] - hsb["meanses"]), "school", "~cses + minority"
    )


def _gaps(width, term="minority"):
    average = _schools().fe_params[term]
    return {"lower": average - width, "upper": average + width}


def _gap_variance(term="minority"):
    return _schools().cov_re.loc[term, term]


def _school_gaps():
    table = mixed.group_coefficients(_schools())
    return table.loc[table["term"] == "minority", "estimate"]


def _draw_reliability():
    """Shrinkage factor of each retailer's lift against the spread of its displays."""
    spread = _late().groupby("retailer")["disp"].std()
    reliability = _reliability(_coefficients()["sd"]["disp"])
    _, ax = plt.subplots()
    ax.scatter(spread[spread > 0], reliability[spread > 0], color=plots.BLUE)
    ax.scatter(spread[RETAILER], reliability[RETAILER], color=plots.VERMILLION, marker="D", s=60)
    ax.annotate(
        RETAILER,
        (spread[RETAILER], reliability[RETAILER]),
        (12, -12),
        textcoords="offset points",
    )
    ax.set(xscale="log", xlabel="SD of display (log scale)", ylabel="Shrinkage factor of the lift")
    ax.xaxis.set(major_locator=FixedLocator([0.01, 0.03, 0.1, 0.3]), minor_locator=NullLocator())
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.set_title("Who varies displays is believed")


TARGETS = {"11.3": _draw_reliability}

QUESTIONS = {
    "11.1": Number(
        answer=lambda: 100 * (np.exp(0.2 * _gamma("disp")) - 1),
        insight=(
            "On the log scale lifts add up, so factors multiply: two displays go with the factor "
            "of one display, squared."
        ),
        mistakes=(
            (
                lambda: 100 * 0.2 * _gamma("disp"),
                "You read the change of the log as per cent. That is near for a few per cent only; "
                "use the exponential.",
            ),
            (
                lambda: 100 * (np.exp(0.1 * _gamma("disp")) - 1),
                "That is one display, a disp of a tenth, or two by ordinary least squares; asked "
                "are two, by the mixed model.",
            ),
            (
                lambda: 100 * (np.exp(_gamma("disp")) - 1),
                "That is a display in all stores; two displays are a fifth of the trade.",
            ),
            (
                lambda: np.exp(0.2 * _gamma("disp")),
                "That is the factor; the question asks by how many per cent volume is higher.",
            ),
            (
                lambda: 100 * (np.exp(0.2 * _gamma("disp", lambda: _fit("~log_price_c"))) - 1),
                "In your model only the elasticity varies between retailers; let the lift vary "
                "too.",
            ),
            (
                lambda: 200 * (np.exp(0.1 * _gamma("disp")) - 1),
                "You doubled the lift of one display. On the log scale effects add up; here "
                "factors multiply.",
            ),
            (
                lambda: 100 * (np.exp(0.2 * _gamma("disp", lambda: _fit(None))) - 1),
                "In your model only the level varies between retailers; let elasticity and lift "
                "vary too.",
            ),
            (
                lambda: 100 * (np.exp(0.2 * _gamma("disp", _fit_all_weeks)) - 1),
                "You fitted all weeks; the task is about those from week 26 on.",
            ),
        ),
        hints=(
            "The coefficient of disp is on the log scale, and for a display in all stores.",
            "Two displays are a disp of 0.2; what does that add to the log volume?",
            'Take np.exp(0.2 * fit.fe_params["disp"]), and make per cent of the factor.',
        ),
    ),
    "11.2": Number(
        answer=lambda: 0.9 ** _gamma("log_price_c"),
        insight=(
            "A price ratio to the power of the elasticity. Where both prices lie does not matter, "
            "only their ratio."
        ),
        mistakes=(
            (
                lambda: 1 - 0.1 * _gamma("log_price_c"),
                "You took ten times the effect of one per cent. Over ten per cent the curve bends; "
                "use the difference of the logs.",
            ),
            (
                lambda: np.exp(-0.3 * _gamma("log_price_c")),
                "You multiplied the elasticity by the difference in dollars; it belongs to the log "
                "of the price.",
            ),
            (
                lambda: 0.9 ** -_gamma("log_price_c"),
                "That is the way back, from the lower price to the higher one.",
            ),
            (
                lambda: _gamma("log_price_c") * np.log(0.9),
                "That is the change of the log volume; the factor is its exponential.",
            ),
            (
                lambda: 100 * (0.9 ** _gamma("log_price_c") - 1),
                "That is by how many per cent the volume differs; the question asks for the "
                "factor.",
            ),
            (
                lambda: 0.9 ** _gamma("log_price_c") - 1,
                "That is the share by which the volume differs; add one to make it the factor.",
            ),
            (
                lambda: 1 + 0.1 * _gamma("log_price_c"),
                "That is ten times the effect of one per cent, and upward; the price goes the "
                "other way, and over ten per cent the curve bends.",
            ),
        ),
        hints=(
            "By how much does the log of the price change?",
            "Multiply that difference of logs by the elasticity: it is the change in log volume.",
            'The change is fit.fe_params["log_price_c"] * np.log(2.70 / 3.00); the factor follows.',
        ),
    ),
    "11.3": Several(
        answer=_lift,
        insight=(
            "It had a display in nearly every week, so it says little about weeks without one. "
            "Information about a lift is variation in display."
        ),
        mistakes=(
            (
                lambda: {"lambda": 1 - _lift()["lambda"]},
                "Your lambda is the share that comes from the average; it should be the share that "
                "comes from the retailer.",
            ),
            (
                lambda: {"lambda": 1 - np.sqrt(1 - _lift()["lambda"])},
                "For lambda you divided SDs; it is one minus a ratio of variances.",
            ),
            (
                lambda: {"lambda": _as_for_a_level()},
                "Your lambda is the formula for a level, with the number of weeks; weeks are not "
                "what informs a lift.",
            ),
            (
                lambda: {"model": _coefficients()["blup"].loc[RETAILER, "disp"]},
                "Your model lift is the BLUP, the deviation from the average; add the fixed "
                "effect.",
            ),
            (
                lambda: {"model": _gamma("disp")},
                "Your model lift is the average of all retailers; this one has its own.",
            ),
            (
                lambda: {"own": _lift_without_price()},
                "Your own lift leaves price out of the regression, and displays come with price "
                "cuts.",
            ),
            (
                lambda: {"own": _own_in_all_weeks()},
                "Your own lift comes from all weeks of the retailer; take those from week 26 on.",
            ),
            (
                lambda: {"lambda": _lift()["model"] / _lift()["own"]},
                "Your lambda is the model's lift over the own one. Lifts are shrunk to the "
                "average and not to zero; one minus a ratio of variances is asked.",
            ),
            (
                lambda: {
                    "lambda": (_lift()["model"] - _gamma("disp"))
                    / (_lift()["own"] - _gamma("disp"))
                },
                "Your lambda is how far the lift came from the average to its own. Three "
                "coefficients are shrunk together here, so that this is not one minus the ratio "
                "of variances that is asked.",
            ),
        ),
        hints=(
            "The own lift is least squares with this retailer's weeks alone, price included.",
            'mixed.group_coefficients(fit) has the model\'s lift in "estimate", and an "sd".',
            'own: the disp of smf.ols("log_volume ~ log_price_c + disp", its weeks); '
            "model: its estimate; lambda: 1 − sd² / τ₂², τ₂² being on the diagonal of fit.cov_re.",
        ),
    ),
    "11.4": Several(
        answer=_promises,
        insight=(
            "Both lists hold the same ten retailers. Shrinkage changed the promise, and left the "
            "choice alone."
        ),
        mistakes=(
            (
                lambda: _promises(_late()["retailer"].unique()),
                "You let all retailers in; keep to those in allowed.",
            ),
            (
                lambda: _promises(n=1),
                "Those are the first of each list alone; add up its ten.",
            ),
            (
                lambda: _promises(n=100),
                "You added up all who may be chosen; the budget pays for ten.",
            ),
            (
                lambda: dict(zip(_promises(), reversed(_promises().values()), strict=True)),
                "They are the right two in the wrong order.",
            ),
            (
                lambda: {name: total / 10 for name, total in _promises().items()},
                "Those are averages over the ten; the question asks what the ten promise together.",
            ),
            (
                lambda: _promises(by="lift"),
                "You took the ten largest lifts; take the ten largest gains, in packages.",
            ),
        ),
        hints=(
            "Gains by each method, then the allowed retailers, then the ten largest, then a sum.",
            "gains takes a table of lines with a row for each retailer, whoever estimated them.",
            "gains(lines).loc[allowed].nlargest(10) has the ten; do it for both tables.",
        ),
    ),
    "11.5": Choice(
        question=(
            "The analyst's promise came out above what was delivered. Her regressions are unbiased "
            "(in logs). Why did that happen?"
        ),
        options={
            "a": "Retailers sell less when they know that they are watched.",
            "b": "The list keeps those whose errors happened to be upward.",
            "c": "Least squares overestimates lifts when weeks are few.",
            "d": "A regression for each retailer uses up too many parameters.",
        },
        right="b",
        reasons={
            "a": (
                "Nobody changed anything at the retailers. Two stretches of the same record were "
                "compared."
            ),
            "c": (
                "Each lift on its own errs upward as often as downward. It is the choosing among "
                "many that favours the upward errors."
            ),
            "d": (
                "Many parameters make each lift noisy, which is fuel for the curse. Without a "
                "choice the noise would go both ways and cancel."
            ),
        },
        insight=(
            "A list sorted by estimate is sorted by truth and error. Shrinkage takes out the "
            "expected error, most of it where least is known."
        ),
    ),
    "11.6": Several(
        answer=lambda: _gaps(1.96 * np.sqrt(_gap_variance())),
        insight=(
            "A gap that varies between schools is a question to schools. The model describes "
            "scores, and says nothing of where the gaps come from."
        ),
        mistakes=(
            (
                lambda: _gaps(1.96 * _schools().bse["minority"]),
                "That is the confidence interval of the average gap; the question is where the "
                "schools lie.",
            ),
            (
                lambda: _gaps(1.96 * _gap_variance()),
                "You took 1.96 times the variance; take its root first.",
            ),
            (
                lambda: _gaps(np.sqrt(_gap_variance())),
                "That is one SD either way, which holds two schools in three.",
            ),
            (
                lambda: _gaps(1.96 * np.sqrt(_gap_variance("cses")), "cses"),
                "That is the range of the slopes of status; the question is about minority.",
            ),
            (
                lambda: _gaps(1.96 * np.sqrt(_gap_variance("cses"))),
                "You took the SD of the slopes of status; the gaps have one of their own.",
            ),
            (
                lambda: _gaps(2 * np.sqrt(_gap_variance())),
                "Two SDs either way hold a little more than 95 %; for 95 % it is 1.96.",
            ),
            (
                lambda: _gaps(1.96 * _school_gaps().std()),
                "You took the SD of the schools' own gaps in the model, which are shrunk; the "
                "model's SD is that of the schools.",
            ),
            (
                lambda: {"lower": _school_gaps().min(), "upper": _school_gaps().max()},
                "Those are the largest and the smallest of the schools' gaps in the model, which "
                "are shrunk to the average.",
            ),
        ),
        hints=(
            "Two coefficients vary between schools here; which of them is the gap?",
            "The average gap is a fixed effect, and fit.cov_re holds the variance of the gaps.",
            "Lower end: average − 1.96 × SD of the gaps; the upper end with a plus.",
        ),
    ),
}
