"""The questions of lesson 02, the data have groups: three new districts, then cheese."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import statsmodels.formula.api as smf
from scipy import stats

from helpers import datasets, plots, simulate
from helpers.check import Choice, Several

FORMULA = "math_score ~ app_hours"
DUMMIES = "math_score ~ app_hours + C(school_id)"
BOOK = "math_score ~ app_hours + textbook"
ELASTICITY = "log_volume ~ log_price + C(retailer)"
SCHOOLS, STUDENTS = 40, 15


@cache
def _level():
    return simulate.schools(
        SCHOOLS, STUDENTS, intercept=70, slope=0, sd_slope=0, sd_residual=6, seed=75
    )


def _components(n=STUDENTS, ddof=1):
    """Variances between schools and within, by averages."""
    by_school = _level().groupby("school_id")["math_score"]
    within = by_school.var(ddof=ddof).mean()
    return by_school.mean().var(ddof=ddof) - within / n, within


def _icc(between, within):
    return between / (between + within)


def _worth(icc):
    effect = 1 + (STUDENTS - 1) * icc
    return {"ICC": icc, "design effect": effect, "worth": SCHOOLS * STUDENTS / effect}


def _our_icc():
    return _icc(*_components())


def _plan(students, schools):
    """What 1,200 students are worth, with these numbers for n − 1."""
    icc = _our_icc()
    return {
        "more students": 1200 / (1 + students * icc),
        "more schools": 1200 / (1 + schools * icc),
    }


@cache
def _city():
    """Schools whose hours follow their start: the higher it is, the more they use the app."""
    data = simulate.schools(15, 20, slope=0.5, sd_intercept=6, sd_slope=0, hours=(0, 4), seed=84)
    start = np.repeat(data.attrs["truth"]["schools"]["intercept"], 20)
    extra_hours = 5 + 0.3 * (start - 60)
    data["app_hours"] += extra_hours
    data["math_score"] += 0.5 * extra_hours
    return data


def _city_means():
    return _city().groupby("school_id")[["app_hours", "math_score"]].mean()


@cache
def _slopes():
    """Slopes in the city: within schools, between them, and of one line for all."""
    fits = {
        "within": smf.ols(DUMMIES, _city()).fit(),
        "between": smf.ols(FORMULA, _city_means()).fit(),
        "one line": smf.ols(FORMULA, _city()).fit(),
    }
    return {name: fit.params["app_hours"] for name, fit in fits.items()}


def _own_slope():
    """Average slope of the schools' own lines."""
    by_school = _city().groupby("school_id")
    return np.mean([np.polyfit(s["app_hours"], s["math_score"], 1)[0] for _, s in by_school])


@cache
def _with_book():
    data = simulate.schools(8, 40, seed=96)
    return data.assign(textbook=np.repeat([0, 1] * 4, 40))


def _book(formula=BOOK, term="textbook", **how):
    """Ends of the interval of the textbook's coefficient, or of another one."""
    lower, upper = smf.ols(formula, _with_book()).fit(**how).conf_int().loc[term]
    return {"lower": lower, "upper": upper}


def _clusters():
    return {"cov_type": "cluster", "cov_kwds": {"groups": _with_book()["school_id"]}}


def _around(reach):
    """Ends of estimate ± that many cluster-robust standard errors."""
    fit = smf.ols(BOOK, _with_book()).fit(**_clusters())
    estimate, error = fit.params["textbook"], fit.bse["textbook"]
    return {"lower": estimate - reach * error, "upper": estimate + reach * error}


def _means_test():
    """The interval from a t-test of the schools' means."""
    means = _with_book().groupby("school_id")[["math_score", "textbook"]].mean()
    lower, upper = smf.ols("math_score ~ textbook", means).fit().conf_int().loc["textbook"]
    return {"lower": lower, "upper": upper}


@cache
def _cheese():
    data = datasets.load("cheese")
    return data.assign(log_volume=np.log(data["volume"]), log_price=np.log(data["price"]))


@cache
def _demand(formula, robust):
    how = {"cov_type": "cluster", "cov_kwds": {"groups": _cheese()["retailer"]}}
    return smf.ols(formula, _cheese()).fit(**how if robust else {})


def _price(formula, robust=True):
    fit = _demand(formula, robust)
    return {"slope": fit.params["log_price"], "SE": fit.bse["log_price"]}


@cache
def _own_weeks():
    """Standard error within retailers if scatter is unequal and weeks are independent."""
    return _demand(ELASTICITY, False).get_robustcov_results("HC1").bse[-1]


def _between_retailers():
    means = _cheese().groupby("retailer")[["log_volume", "log_price"]].mean()
    fit = smf.ols("log_volume ~ log_price", means).fit()
    return {"slope": fit.params["log_price"], "SE": fit.bse["log_price"]}


@cache
def _own_elasticities():
    by_retailer = _cheese().groupby("retailer")
    return np.array([np.polyfit(r["log_price"], r["log_volume"], 1)[0] for _, r in by_retailer])


def _draw_city():
    """Students, the line through the school means, and a line within each school."""
    means, slopes = _city_means(), _slopes()
    _, ax = plt.subplots()
    ax.scatter(_city()["app_hours"], _city()["math_score"], color=plots.PALE, s=14)
    for school, students in _city().groupby("school_id"):
        hours = students["app_hours"].agg(["min", "max"])
        height = means["math_score"][school]
        line = height + slopes["within"] * (hours - means["app_hours"][school])
        ax.plot(hours, line, color=plots.BLUE)
    hours = means["app_hours"].agg(["min", "max"])
    line = means["math_score"].mean() + slopes["between"] * (hours - means["app_hours"].mean())
    ax.plot(hours, line, color=plots.VERMILLION, linestyle="--", label="between schools")
    ax.plot([], [], color=plots.BLUE, label="within a school")
    ax.scatter(*means.to_numpy().T, color=plots.VERMILLION, zorder=5, label="a school's mean")
    ax.set(xlabel="Hours on the app", ylabel="Maths score (points)")
    ax.set_title("Steep between schools, nearly level within")
    ax.legend()


TARGETS = {"02.3": _draw_city}

QUESTIONS = {
    "02.1": Several(
        answer=lambda: _worth(_our_icc()),
        insight=(
            "Who counts rows believes in more than four times the students that there are, in "
            "effect; and for that an ICC of a quarter is enough."
        ),
        mistakes=(
            (
                lambda: {"ICC": _icc(_components()[0] + _components()[1] / 15, _components()[1])},
                "The variance of the school means was taken as it is. A mean of 15 students also "
                "carries noise of the students; subtract it.",
            ),
            (
                lambda: {"ICC": _icc(*np.sqrt(_components()))},
                "That is a ratio of SDs; the ICC is a share of the variance.",
            ),
            (
                lambda: {"ICC": 1 - _our_icc()},
                "That is the share within schools; the ICC is the share between them.",
            ),
            (
                lambda: {"ICC": _icc(*_components(n=SCHOOLS))},
                "You divided the variance within by 40, the number of schools; a school's mean is "
                "one of 15 students.",
            ),
            (
                lambda: {"ICC": _icc(*_components(ddof=0))},
                "These variances divide by n, as NumPy's do; ask for ddof=1.",
            ),
            (
                lambda: {"design effect": 1 + STUDENTS * _our_icc()},
                "The design effect has n − 1 in it: nobody is a schoolmate of their own.",
            ),
            (
                lambda: {"design effect": 1 + (SCHOOLS - 1) * _our_icc()},
                "The design effect has the students of one school in it, not the schools.",
            ),
            (
                lambda: {"worth": 600 / np.sqrt(_worth(_our_icc())["design effect"])},
                "You divided by the root of the design effect. That is for standard errors; rows "
                "go with the variance.",
            ),
            (
                lambda: {"worth": SCHOOLS / _worth(_our_icc())["design effect"]},
                "You divided the number of schools; it is the 600 rows that are worth less.",
            ),
            (
                lambda: {"ICC": _components()[0] / _components()[1]},
                "That is the ratio of the two variances; a share has their sum below the line.",
            ),
            (
                lambda: {"worth": float(SCHOOLS)},
                "Forty would be left if schoolmates were all alike; divide the rows by your "
                "design effect.",
            ),
        ),
        hints=(
            "Each builds on the last, and the ICC on two variances: within schools, and of means.",
            "Between: variance of the 40 means − variance within / 15. ICC: the share of that.",
            "Design effect: 1 + 14 × ICC. Worth: 600 divided by it.",
        ),
        tolerance=0.006,  # between may also be taken as a share of the variance of all rows
    ),
    "02.2": Several(
        answer=lambda: _plan(29, 14),
        insight=(
            "The same number of new students: in the old schools they add next to nothing, in new "
            "schools they double what is known."
        ),
        mistakes=(
            (
                lambda: {
                    label: worth - 600 / (1 + 14 * _our_icc())
                    for label, worth in _plan(29, 14).items()
                },
                "Those are what either plan adds to the 600 of now; asked is what all 1,200 are "
                "worth.",
            ),
            (
                lambda: _plan(14, 29),
                "They are the right two in the wrong order: where does the design effect change?",
            ),
            (
                lambda: {"more students": 1200 / (1 + 14 * _our_icc())},
                "With more students in a school the design effect grows; you kept that of 15.",
            ),
            (
                lambda: {"more students": 1200 / (1 + 30 * _our_icc())},
                "The design effect has n − 1 in it, and n is now 30.",
            ),
            (
                lambda: {"more schools": 1200 / (1 + 29 * _our_icc())},
                "In new schools there are still 15 students each; that design effect is for 30.",
            ),
            (
                lambda: {"more schools": 600 / (1 + 14 * _our_icc())},
                "Your 'more schools' is what the 600 students of now are worth; there are 1,200 "
                "then.",
            ),
            (
                lambda: {"more students": SCHOOLS / _our_icc()},
                "Your 'more students' is what no number of students in 40 schools can exceed; "
                "asked are 30.",
            ),
            (
                lambda: {"more students": 600 / (1 + 29 * _our_icc())},
                "Your 'more students' has the right design effect, but there are 1,200 students to "
                "divide by it.",
            ),
        ),
        hints=(
            "Work out a design effect for each plan. What is n, the students of one school?",
            "Both plans have 1,200 students: 30 in each of 40 schools, or 15 in each of 80.",
            "More students: 1200 / (1 + 29 × ICC). The other one has its own n.",
        ),
    ),
    "02.3": Several(
        answer=lambda: {"parent": 2 * _slopes()["within"], "ministry": 2 * _slopes()["between"]},
        insight=(
            "Both answers are right, each to its question. Most of what the ministry sees was "
            "there before the app: schools that start high use it more."
        ),
        mistakes=(
            (
                lambda: {
                    "parent": 2 * _slopes()["between"],
                    "ministry": 2 * _slopes()["within"],
                },
                "They are in the wrong order: who compares two students of one school?",
            ),
            (
                lambda: {"parent": _slopes()["within"], "ministry": _slopes()["between"]},
                "Those are for one hour; both ask about two.",
            ),
            (
                lambda: {"parent": 2 * _slopes()["between"]},
                "The parent's child stays in its school. To answer from the averages of schools "
                "is the ecological fallacy.",
            ),
            (
                lambda: {"parent": 2 * _slopes()["one line"]},
                "To the parent you gave the slope of one line for all, which mixes what differs "
                "within schools with what differs between them.",
            ),
            (
                lambda: {"parent": 2 * _own_slope()},
                "To the parent you gave the average of 15 separate slopes. It is close, but noisy "
                "schools count as much as others; school dummies give the common slope.",
            ),
            (
                lambda: {"parent": _slopes()["within"]},
                "The parent's is for one hour; the question is about two.",
            ),
            (
                lambda: {"ministry": 2 * _slopes()["one line"]},
                "To the ministry you gave the slope of one line for all. It compares schools, so "
                "average them first.",
            ),
            (
                lambda: {"ministry": _slopes()["between"]},
                "The ministry's is for one hour; the question is about two.",
            ),
            (
                lambda: {"ministry": 2 * _slopes()["within"]},
                "To the ministry you gave the difference between two students of one school.",
            ),
        ),
        hints=(
            "One of the two compares students of the same school, the other compares schools.",
            "Within: add C(school_id) to the formula. Between: fit the line to the 15 means.",
            'Two slopes, named "app_hours" in .params of the two fits; then think of two hours.',
        ),
    ),
    "02.4": Choice(
        question=(
            "A list names the ten schools with the steepest own lines. Nine of them have fewer "
            "than eight students. What explains it best?"
        ),
        options={
            "a": "The app works better in small groups.",
            "b": "Own lines of small schools scatter more, upwards and downwards.",
            "c": "With few students, least squares gives slopes that are too large.",
            "d": "In small schools students are more alike: their ICC is higher.",
        },
        right="b",
        reasons={
            "a": (
                "It may, but the list does not show it: look at its lower end, where you will find "
                "small schools as well."
            ),
            "c": (
                "On average over many studies the slope is right in a school of any size. It is "
                "the scatter around the truth that is large."
            ),
            "d": (
                "An ICC says how alike schoolmates are, in all the schools together. What small "
                "schools have less of is students, and so what is known of their slope."
            ),
        },
        insight=(
            "The top of such a list is where chance is largest. Before it is printed, print the "
            "bottom, and the number of students beside every slope."
        ),
    ),
    "02.5": Several(
        answer=lambda: _book(**_clusters(), use_t=True),
        insight=(
            "What was a triumph by rows now includes zero: eight schools, and a t distribution "
            "with 7 degrees of freedom. With so few, even this one tends to be too short."
        ),
        mistakes=(
            (
                _book,
                "That is the interval of OLS, or one robust to unequal scatter alone: either "
                "believes in 320 independent students.",
            ),
            (
                lambda: _book(**_clusters()),
                "The standard error is cluster-robust, but the interval reaches 1.96 of them, as "
                "if there were many schools; there are eight.",
            ),
            (
                lambda: _around(1),
                "That is one standard error either way.",
            ),
            (
                lambda: _around(stats.t.ppf(0.95, 7)),
                "That is a 90 % interval: for 95 %, each tail is left 2.5 %.",
            ),
            (
                lambda: _around(stats.t.ppf(0.975, 8)),
                "The t distribution has J − 1 degrees of freedom, and J is 8.",
            ),
            (
                lambda: _around(stats.t.ppf(0.975, 6)),
                "Two degrees of freedom fewer than schools are right for a t-test of their means; "
                "the cluster-robust interval takes J − 1.",
            ),
            (
                _means_test,
                "That is the t-test of the eight means, which is a good method too; the question "
                "asks for the cluster-robust interval.",
            ),
            (
                lambda: _book("math_score ~ textbook", **_clusters(), use_t=True),
                "You left app_hours out of the model; keep it, and change the standard error "
                "alone.",
            ),
            (
                lambda: _book(term="app_hours", **_clusters(), use_t=True),
                "Those are the ends for app_hours; the question is about the textbook.",
            ),
        ),
        hints=(
            "The regression stays; its standard error must know the schools, and that they are "
            "few.",
            'fit(cov_type="cluster", cov_kwds={"groups": …}) takes the column of the schools.',
            'Add use_t=True to that fit; .conf_int().loc["textbook"] holds the two ends.',
        ),
    ),
    "02.6": Several(
        answer=lambda: _price(ELASTICITY),
        insight=(
            "Within retailers the volume goes with the price about twice as strongly as one line "
            "says, and OLS claims less than a quarter of the honest error. What else changes "
            "with the price at a retailer, such as displays, is not held constant."
        ),
        mistakes=(
            (
                lambda: {"slope": _price("log_volume ~ log_price")["slope"]},
                "The slope is that of one line for all 88 retailers: it mixes weeks of one "
                "retailer with differences between retailers.",
            ),
            (
                lambda: {"slope": _between_retailers()["slope"]},
                "The slope compares the averages of retailers. The manager asks about weeks "
                "of one retailer, with other prices.",
            ),
            (
                lambda: {"slope": _price(ELASTICITY + " + disp")["slope"]},
                "You held the display constant: a good thought for the next model, but asked is "
                "the one with the price alone.",
            ),
            (
                lambda: {"slope": _own_elasticities().mean()},
                "The slope is the average of 88 separate ones, some from retailers whose price "
                "hardly moves; asked is the common slope.",
            ),
            (
                lambda: {"SE": _price(ELASTICITY, robust=False)["SE"]},
                "The standard error is that of OLS, which takes 5,555 weeks for as many facts.",
            ),
            (
                lambda: {"SE": _price("log_volume ~ log_price")["SE"]},
                "The standard error is cluster-robust, but that of one line for all; it needs "
                "the dummies too.",
            ),
            (
                lambda: {"SE": _own_elasticities().std(ddof=1) / np.sqrt(88)},
                "The standard error is that of an average of 88 separate slopes, some of them "
                "from retailers whose price hardly moves.",
            ),
            (
                lambda: {"SE": _own_weeks()},
                "The standard error allows for unequal scatter, but still takes each week for a "
                "fact of its own; cluster it by retailer.",
            ),
        ),
        hints=(
            "What lets every retailer have its own level, and keeps one slope for all?",
            "Dummies: + C(retailer). And a standard error clustered by the same column.",
            'smf.ols("log_volume ~ log_price + C(retailer)", data=cheese).fit(cov_type="cluster", '
            'cov_kwds={"groups": cheese["retailer"]}) has both: .params and .bse of "log_price".',
        ),
        tolerance=0.01,  # software corrects the clustered error by slightly different factors
    ),
}
