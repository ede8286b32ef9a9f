"""The questions of lesson 01, one line for everyone: a new district, then growing children."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import statsmodels.formula.api as smf

from helpers import datasets, plots, simulate
from helpers.check import Choice, Number, Several

FORMULA = "math_score ~ app_hours"
SCHOOLS, STUDENTS = 24, 30


@cache
def _district():
    return simulate.schools(SCHOOLS, STUDENTS, seed=61)


@cache
def _line():
    return smf.ols(FORMULA, _district()).fit()


def _three_hours(below, above):
    """Three slopes, and that far below and above."""
    middle = 3 * _line().params["app_hours"]
    return {"estimate": middle, "lower": middle - below, "upper": middle + above}


def _reach():
    """Half the width of the 95 % interval of the slope."""
    lower, upper = _line().conf_int().loc["app_hours"]
    return (upper - lower) / 2


def _timetabled():
    """Hours that belong to the school, nearly."""
    hours = _district()["app_hours"]
    first = hours.groupby(_district()["school_id"]).transform("first")
    return _district().assign(app_hours=0.9 * first + 0.1 * hours)


@cache
def _studies(timetabled):
    """Slopes and their standard errors by least squares, in 1,000 studies."""
    data = _timetabled() if timetabled else _district()
    studies = simulate.replicates(data, 1000, seed=62)
    x = (data["app_hours"] - data["app_hours"].mean()).to_numpy()
    slopes = studies @ x / np.sum(x**2)
    rests = studies - studies.mean(axis=1, keepdims=True) - slopes[:, None] * x
    return slopes, np.sqrt(np.sum(rests**2, axis=1) / (len(x) - 2) / np.sum(x**2))


def _share(judge):
    """Per cent of studies for which judge(slopes, errors) is true, in both designs."""
    designs = {"as in the file": False, "timetabled": True}
    return {label: 100 * np.mean(judge(*_studies(way))) for label, way in designs.items()}


def _residual_means():
    return _line().resid.groupby(_district()["school_id"]).mean()


@cache
def _differences():
    """Difference in mean score, with less without: of the lot that was drawn, and of redraws."""
    rng = np.random.default_rng(61)
    means = _district().groupby("school_id")["math_score"].mean().to_numpy()
    lots = [rng.permutation(SCHOOLS) < SCHOOLS / 2 for _ in range(1001)]
    first, *others = [means[lot].mean() - means[~lot].mean() for lot in lots]
    return first, np.array(others)


def _reminder_p():
    rng = np.random.default_rng(61)
    reminder = np.repeat(rng.permutation(SCHOOLS) < SCHOOLS / 2, STUDENTS).astype(int)
    fit = smf.ols("math_score ~ reminder", _district().assign(reminder=reminder)).fit()
    return fit.pvalues["reminder"]


@cache
def _children():
    return datasets.load("orthodont")


def _growth(formula, term):
    return smf.ols(formula, _children()).fit().bse[term]


def _own_slopes():
    by_child = _children().groupby("subject")
    return np.array([np.polyfit(c["age"], c["distance"], 1)[0] for _, c in by_child])


def _child_means():
    return _children().groupby(["subject", "sex"], as_index=False)["distance"].mean()


def _boys_less_girls():
    """How much larger the mean distance of boys is."""
    return smf.ols("distance ~ sex", _child_means()).fit().params["sex[T.male]"]


def _by_child():
    sex = smf.ols("distance ~ sex", _child_means()).fit().bse["sex[T.male]"]
    return {"age": _own_slopes().std(ddof=1) / np.sqrt(27), "sex": sex}


def _draw_means():
    """The schools' mean residuals in order, over the band where independent ones would lie."""
    means = _residual_means().sort_values().to_numpy()
    reach = 1.96 * np.sqrt(_line().scale / STUDENTS)
    _, ax = plt.subplots()
    ax.axhspan(-reach, reach, color=plots.PALE, alpha=0.5, label="95 % if independent")
    ax.axhline(0, color=plots.INK, linewidth=1)
    ax.plot(means, "o", color=plots.VERMILLION, label="a school's mean")
    ax.set(xticks=[], xlabel="24 schools, in order", ylabel="Mean residual (points)")
    ax.set_title("Most schools lie where hardly any should")
    ax.legend()


TARGETS = {"01.3": _draw_means}

QUESTIONS = {
    "01.1": Several(
        answer=lambda: _three_hours(3 * _reach(), 3 * _reach()),
        insight=(
            "Estimate and interval are stretched alike: a slope is in points an hour, and three "
            "hours are three of them."
        ),
        mistakes=(
            (
                lambda: {
                    "estimate": _line().params["app_hours"],
                    "lower": _line().params["app_hours"] - _reach(),
                    "upper": _line().params["app_hours"] + _reach(),
                },
                "That is for one hour; the two students are three hours apart.",
            ),
            (
                lambda: {"estimate": _line().params @ [1, 3]},
                "Your 'estimate' is the score expected at 3 hours; asked is the difference that 3 "
                "hours go with, and the intercept has no part in it.",
            ),
            (
                lambda: {
                    "lower": _line().params["app_hours"] - _reach(),
                    "upper": _line().params["app_hours"] + _reach(),
                },
                "The ends are those for one hour: what is done to the estimate has to be done to "
                "its interval.",
            ),
            (
                lambda: _three_hours(_reach(), _reach()),
                "The interval is as wide as that for one hour: three hours make it three times "
                "as wide.",
            ),
            (
                lambda: _three_hours(*[3 * _line().bse["app_hours"]] * 2),
                "The ends are one standard error away; even with independent students that "
                "interval would be right in only two studies of three.",
            ),
            (
                lambda: _three_hours(*[1.96 * np.sqrt(_line().scale)] * 2),
                "The ends are 1.96 residual SDs away: so far single students lie from the line. "
                "Asked is how well the line itself is known.",
            ),
            (
                lambda: _three_hours(*[np.sqrt(3) * _reach()] * 2),
                "The interval was widened by √3, as if three independent things were added up. It "
                "is one slope times three, and so three times as wide.",
            ),
        ),
        hints=(
            "Which number of the output is in points an hour? And how many hours apart are they?",
            "The slope is ols.params, the ends of its interval are in ols.conf_int().",
            'For one hour the ends are ols.conf_int().loc["app_hours"]; go on from there.',
        ),
    ),
    "01.2": Several(
        answer=lambda: _share(lambda b, se: np.abs(b - 2) <= 1.96 * se),
        insight=(
            "The more a predictor belongs to the school, the less a row is worth for its slope, "
            "and the output cannot tell."
        ),
        mistakes=(
            (
                lambda: _share(lambda b, se: np.abs(b - 2) <= se),
                "Those intervals reach one standard error either way, and even with independent "
                "students would contain the truth in only two thirds of the studies.",
            ),
            (
                lambda: _share(lambda b, se: np.abs(b - 2) <= 1.96 * b.std(ddof=1)),
                "You took the SD of the thousand slopes for the standard error. A single study "
                "does not know it; its interval is made from its own standard error.",
            ),
            (
                lambda: _share(lambda b, se: np.abs(b) > 1.96 * se),
                "Those are the studies whose interval leaves out zero. Asked is how many contain "
                "the truth.",
            ),
            (
                lambda: _share(lambda b, se: np.abs(b - 2) > 1.96 * se),
                "Those are the studies whose interval misses the truth; asked are the others.",
            ),
            (
                lambda: _share(lambda b, se: np.abs(b - _line().params["app_hours"]) <= 1.96 * se),
                "You counted the intervals that contain the slope estimated in the file. The "
                "truth is the 2 points an hour of the simulation.",
            ),
        ),
        hints=(
            "When does an interval contain a number? Think of how far the estimate is from it.",
            "An interval contains the truth if abs(slope − truth) is at most 1.96 × its error.",
            "For one design: 100 * np.mean(np.abs(slopes - 2) <= 1.96 * errors).",
        ),
        tolerance=0.01,  # 1.96 or the quantile of a t distribution, as anybody likes
    ),
    "01.3": Several(
        answer=lambda: {
            "if independent": np.sqrt(_line().scale / STUDENTS),
            "real": _residual_means().std(),
        },
        insight=(
            "Means of thirty should hardly differ, if students know nothing of each other. "
            "These keep most of the spread of a single student."
        ),
        mistakes=(
            (
                lambda: {"if independent": np.sqrt(_line().scale)},
                "Your 'if independent' is the SD of single students; what would a mean of thirty "
                "have?",
            ),
            (
                lambda: {"if independent": np.sqrt(_line().scale) / STUDENTS},
                "You divided by the number of students; the SD of a mean goes down with its root.",
            ),
            (
                lambda: {"if independent": np.sqrt(_line().scale / SCHOOLS)},
                "You divided by √24, the number of schools; a school's mean is one of 30 students.",
            ),
            (
                lambda: {"if independent": np.sqrt(_line().scale / (SCHOOLS * STUDENTS))},
                "You divided by the root of all students; a school's mean is one of 30.",
            ),
            (
                lambda: {"real": _district().groupby("school_id")["math_score"].mean().std()},
                "Your 'real' is the SD of the schools' mean scores; asked are the residuals, what "
                "the line leaves over.",
            ),
            (
                lambda: {"real": _residual_means().std() / np.sqrt(SCHOOLS)},
                "Your 'real' is the standard error of the average school; asked is how far "
                "schools lie apart.",
            ),
            (
                lambda: {"real": _residual_means().std(ddof=0)},
                "Your 'real' divides by 24; a sample's SD divides by 23, as pandas' .std() does.",
            ),
            (
                lambda: {"real": _residual_means().var()},
                "Your 'real' is a variance; take its root.",
            ),
        ),
        hints=(
            "One number comes from a formula you know, the other from the file.",
            "An SD over √n for a mean of n; and a mean of ols.resid for each school.",
            'The real one: ols.resid.groupby(district["school_id"]).mean(), and then its SD.',
        ),
    ),
    "01.4": Choice(
        question=(
            "Each of the 720 students sat two maths tests, and a colleague enters both: 1,440 "
            "rows. What happens to the standard error of the slope?"
        ),
        options={
            "a": "It goes down by a factor of about √2, and rightly: there are twice the data.",
            "b": "It goes down, further than what is newly known about the slope.",
            "c": "It stays as it is, for the number of students has not changed.",
            "d": "It stays honest, but the slope is now too large.",
        },
        right="b",
        reasons={
            "a": (
                "Twice the rows, but the second score of a student mostly repeats the first: a "
                "student far above the line in one test tends to be far above it in the other."
            ),
            "c": (
                "So it should be, nearly. But least squares never sees a column with the "
                "students; it counts rows."
            ),
            "d": (
                "Rows that repeat each other leave the estimate centred where it was. It is the "
                "standard error that they spoil."
            ),
        },
        insight=(
            "The two rests of a student go together, as those of schoolmates do. A row is a new "
            "fact only as far as the others do not tell it already."
        ),
    ),
    "01.5": Number(
        answer=lambda: 100 * np.mean(np.abs(_differences()[1]) >= abs(_differences()[0])),
        insight=(
            "The lot itself tells how far chance can go, if it is drawn again the way it was "
            "drawn: by schools."
        ),
        mistakes=(
            (
                lambda: 100 * _reminder_p(),
                "That is the p-value of the regression, which believes in 720 independent "
                "students; ask the redraws.",
            ),
            (
                _reminder_p,
                "That is the p-value of the regression, and as a share besides; ask the redraws.",
            ),
            (
                lambda: 0.0,
                "Did you deal the reminders out to students? The lot was drawn between schools, "
                "and a school's students go together.",
            ),
            (
                lambda: 100 * np.mean(_differences()[1] >= _differences()[0]),
                "You counted the draws with a difference as large upwards; count those as large "
                "downwards as well.",
            ),
            (
                lambda: 100 * np.mean(np.abs(_differences()[1]) < abs(_differences()[0])),
                "Those are the draws with a smaller difference; the question asks for the others.",
            ),
            (
                lambda: _differences()[1].std(ddof=1),
                "That is the SD of the redrawn differences, in points; asked is how many of them "
                "are at least as far from zero as the one seen.",
            ),
            (
                lambda: 1000 * np.mean(np.abs(_differences()[1]) >= abs(_differences()[0])),
                "That is a number of redraws out of 1,000; the question asks for per cent.",
            ),
            (
                lambda: _differences()[0],
                "That is the difference that was really seen, in points; asked is how many "
                "redraws are at least as far from zero.",
            ),
        ),
        hints=(
            "If reminders do nothing, the scores would be the same whichever schools got them.",
            "Take the mean of each school once. A row of redraws says which 12 to compare with "
            "the other 12.",
            "For a row: means[row].mean() - means[~row].mean(). Then compare sizes by np.abs.",
        ),
        tolerance=0.02,  # a difference equal to the one seen up to float noise may count or not
    ),
    "01.6": Several(
        answer=_by_child,
        insight=(
            "The same rows, and least squares is too careful about age and too sure about sex: "
            "age varies within every child, and sex belongs to the child."
        ),
        mistakes=(
            (
                lambda: {
                    "age": _growth("distance ~ age + sex", "age"),
                    "sex": _growth("distance ~ age + sex", "sex[T.male]"),
                },
                "Those are the claims of the regression over 108 rows; make the child the unit.",
            ),
            (
                lambda: {"age": _growth("distance ~ age + sex", "age")},
                "For age, that is the claim of the regression over 108 rows; make the child the "
                "unit.",
            ),
            (
                lambda: {"age": _growth("distance ~ age", "age")},
                "For age, that is a regression over 108 rows without sex; make the child the unit.",
            ),
            (
                lambda: {"sex": _growth("distance ~ age + sex", "sex[T.male]")},
                "For sex, that is the claim of the regression over 108 rows; make the child the "
                "unit.",
            ),
            (
                lambda: {"sex": _growth("distance ~ sex", "sex[T.male]")},
                "For sex, that is a regression over 108 rows without age; make the child the unit.",
            ),
            (
                lambda: {"age": _own_slopes().std(ddof=1)},
                "For age, that is the SD of the 27 slopes; the standard error of their mean is "
                "asked.",
            ),
            (
                lambda: {"age": _own_slopes().std(ddof=1) / np.sqrt(108)},
                "For age, you divided by √108; there are 27 slopes, one a child.",
            ),
            (
                lambda: {"sex": _child_means()["distance"].std() / np.sqrt(27)},
                "For sex, that is the standard error of one mean of 27 children; asked is that of "
                "the difference between 16 boys and 11 girls.",
            ),
            (
                lambda: {"sex": _child_means()["distance"].std()},
                "For sex, that is the SD of the 27 children's means; asked is the standard error "
                "of the difference between boys and girls.",
            ),
            (
                lambda: {"age": _own_slopes().mean(), "sex": _boys_less_girls()},
                "Those are the average growth and the difference themselves; asked are their "
                "standard errors.",
            ),
        ),
        hints=(
            "Which one number of a child tells about growth, and which about sex?",
            "For age: a slope for each child (np.polyfit), 27 numbers. For sex: a mean for each.",
            'For sex: smf.ols("distance ~ sex", the table of 27 means). For age: SD over √27.',
        ),
        tolerance=0.03,  # equal or unequal variances of boys and girls, as anybody likes
    ),
}
