"""The questions of lesson 13, design and power: a weak study, a budget, the next sleep study."""

from bisect import bisect_left
from dataclasses import replace
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from helpers import datasets, mixed, plots, power
from helpers.check import Choice, Number, Several
from helpers.explore import planned_hours

SD_SLOPE, SD_RESIDUAL = 0.8, 5.0
ENDS = np.repeat([1.0, 10.0], 5)
BUDGET, SCHOOL, STUDENT = 40_000, 800, 25
SOUGHT = 5.0  # ms a day


# Task 1 and 4: studies of eight schools


@cache
def _studies():
    design = power.Design(8, 25, slope=0.5, hours=lambda rng, n: planned_hours(n))
    return power.studies(design, n_simulations=1000, n_draws=1, seed=21, progress=False)


def _counted(found):
    share = np.mean(found)
    return {"power": share, "error": np.sqrt(share * (1 - share) / 1000)}


def _power(column="p_slope"):
    return _counted(_studies()[column] < 0.05)


def _by_z():
    z = _studies()["slope"] / _studies()["se"]
    return _counted(np.abs(z) > stats.norm.isf(0.025))


def _slope_if(found):
    return _studies().loc[(_studies()["p_slope"] < 0.05) == found, "slope"].mean()


# Task 2: where the hours lie


def _sd(hours, *, n_schools=30, sd_slope=SD_SLOPE, sd_residual=SD_RESIDUAL, size=10, ddof=0):
    sampling = sd_residual**2 / (size * np.var(hours, ddof=ddof))
    return np.sqrt((sd_slope**2 + sampling) / n_schools)


def _sds(power=1, **changes):
    return {
        "even": _sd(planned_hours(10), **changes) ** power,
        "ends": _sd(ENDS, **changes) ** power,
    }


# Task 3: what the money buys


def _var_x():
    return planned_hours(1000).var()


def _half_width(n):
    schools = np.floor(BUDGET / (SCHOOL + n * STUDENT))
    variance = (SD_SLOPE**2 + SD_RESIDUAL**2 / (n * _var_x())) / schools
    return stats.t.isf(0.025, schools - 1) * np.sqrt(variance)


def _bought(spread=SD_SLOPE**2, residual=SD_RESIDUAL**2, var_x=None, root=0.5):
    ratio = SCHOOL / STUDENT * residual / spread / (var_x or _var_x())
    students = round(ratio**root)
    return {"students": students, "schools": BUDGET // (SCHOOL + students * STUDENT)}


def _draw_valley():
    """Half-width against students a school, with the best size marked."""
    n, best = np.arange(3, 61), _bought()["students"]
    _, ax = plt.subplots()
    ax.plot(n, _half_width(n), color=plots.BLUE)
    ax.plot(best, _half_width(best), "D", color=plots.VERMILLION)
    ax.set(xlabel="Students in each school", ylabel="Half-width (points an hour)", ylim=(0, 0.6))
    ax.set_title("40,000 dollars: a valley with a flat floor")


# Task 5: the next sleep study


@cache
def _sleep():
    return mixed.fit("reaction ~ days", datasets.load("sleepstudy"), "subject", "~days")


def _plan(days, **changes):
    """A sleep study that is like the old one, on other days."""
    sd_intercept, sd_slope = np.sqrt(np.diag(_sleep().cov_re))
    values = {
        "intercept": _sleep().fe_params["Intercept"],
        "slope": SOUGHT,
        "sd_intercept": sd_intercept,
        "sd_slope": sd_slope,
        "correlation": _sleep().cov_re.iloc[0, 1] / sd_intercept / sd_slope,
        "sd_residual": np.sqrt(_sleep().scale),
    }
    return power.Design(20, len(days), **values | changes, hours=lambda rng, n: np.array(days))


def _found(design, n_people, z):
    design = replace(design, n_schools=n_people)
    row = power.analytic(design, n_draws=1, seed=1).iloc[0]
    if z:
        return stats.norm.sf(stats.norm.isf(0.025) - design.slope / row["sd_of_slope"])
    return row["power_slope"]


def _needed(days, goal=0.8, z=False, **changes):
    design = _plan(days, **changes)
    people = range(2, 1000)  # the more of them, the more is found
    return people[bisect_left(people, goal, key=lambda n: _found(design, n, z))]


@cache
def _people(**settings):
    days = {"ten": np.arange(10.0), "three": np.array([0.0, 4, 9])}
    return {label: _needed(values, **settings) for label, values in days.items()}


TARGETS = {"13.4": _draw_valley}

QUESTIONS = {
    "13.1": Several(
        answer=_power,
        insight=(
            "Seven studies in ten would be reported as finding nothing, and nothing would be "
            "wrong with any of them: eight schools are too few for this slope."
        ),
        mistakes=(
            (
                lambda: _power("p_sd_slope"),
                "You counted the studies that find the spread of slopes (p_sd_slope); the "
                "question is about the average slope.",
            ),
            (
                lambda: {"power": 1 - _power()["power"]},
                "That is the share of studies that miss it; power counts those that find it.",
            ),
            (
                lambda: {"power": _by_z()["power"]},
                "You compared slope / se with the normal distribution; with eight schools t has "
                "heavier tails, and p_slope knows it.",
            ),
            (
                lambda: {"power": np.mean(_studies()["slope"] > 0)},
                "You counted the slopes above zero; a study finds the slope only if p is below "
                "one in twenty.",
            ),
            (
                lambda: {"error": np.sqrt(_power()["error"] ** 2 * 1000)},
                "The error is that of a single study's yes or no; divide by the root of the "
                "number of studies.",
            ),
            (
                lambda: {"error": _power()["error"] ** 2},
                "Your 'error' is a variance; the error asked for is its root.",
            ),
            (
                lambda: {"error": _studies()["se"].mean()},
                "Your 'error' is the mean standard error of a study's slope; asked is how well "
                "your thousand studies know the power.",
            ),
            (
                lambda: {"error": np.sqrt(_power()["power"] * (1 - _power()["power"]) / 8)},
                "For the error you divided by the schools of a study; what was counted are 1,000 "
                "studies.",
            ),
            (
                lambda: {"power": 1000 * _power()["power"]},
                "Your 'power' is a number of studies; the power is their share.",
            ),
        ),
        hints=(
            "A share is a mean: of which true or false statement about a study?",
            "Compare the column p_slope with the level, and take the mean of that.",
            'With share = (many["p_slope"] < 0.05).mean(), the error is √(share (1 − share) / n).',
        ),
    ),
    "13.2": Several(
        answer=_sds,
        insight=(
            "Students at the two ends tell more about a slope for the same money. They can't "
            "tell whether the line is a line."
        ),
        mistakes=(
            (lambda: _sds(2), "Those are variances; the question asks for SDs."),
            (
                lambda: _sds(n_schools=1),
                "That is how far one school's own slope may lie from the average; an average of "
                "thirty is asked for.",
            ),
            (
                lambda: _sds(sd_slope=0.0),
                "You left out that schools' true slopes differ, the first part of the sum.",
            ),
            (
                lambda: _sds(sd_slope=np.sqrt(SD_SLOPE)),
                "You took the SD of slopes for their variance; square it.",
            ),
            (
                lambda: _sds(size=1),
                "The sampling part is for one student in a school; divide it by the ten.",
            ),
            (
                lambda: _sds(sd_residual=np.sqrt(SD_RESIDUAL)),
                "You took the residual SD for its variance; square it.",
            ),
            (
                lambda: _sds(ddof=1),
                "Your var(x) divides by 9. Those ten hours are the whole plan and no sample of "
                "hours; np.var divides by ten.",
            ),
        ),
        hints=(
            "Two parts in brackets, schools and students, and the number of schools beneath both.",
            "Only var(x) differs: np.var(hours) of the ten hours of a school.",
            "SD = √((τ₁² + σ² / (n var(x))) / J), with n = 10 and J = 30, for each of the two.",
        ),
    ),
    "13.3": Choice(
        question=(
            "20 schools of 25 give the average slope with a half-width of half a point an hour. "
            "Slopes vary a good deal. Which change comes nearest to halving it?"
        ),
        options={
            "a": "Four times as many students in each school.",
            "b": "Four times as many schools.",
            "c": "Twice as many schools.",
            "d": "A thousand simulated studies instead of a hundred.",
        },
        right="b",
        reasons={
            "a": (
                "That quarters the part that comes from students. With schools of 25 most of the "
                "variance is that schools differ, and it stays."
            ),
            "c": (
                "Twice as many schools halve the variance; the half-width goes down with its root."
            ),
            "d": (
                "That makes your knowledge of the half-width better, not the half-width of the "
                "study smaller."
            ),
        },
        insight=(
            "The number of schools divides both parts of the variance, so four times as many "
            "quarter it and halve its root."
        ),
    ),
    "13.4": Several(
        answer=_bought,
        insight=(
            "A dearer school pays for more students in it, by the root of the ratio of prices. "
            "The budget decides only how many such schools there are."
        ),
        mistakes=(
            (
                lambda: {"students": _bought(root=1)["students"]},
                "The root is missing from the number of students.",
            ),
            (
                lambda: {"students": _bought(spread=SD_SLOPE)["students"]},
                "You took the SD of slopes where the formula has their variance.",
            ),
            (
                lambda: {"students": _bought(var_x=1)["students"]},
                "You left out var(x), how far the hours lie apart.",
            ),
            (
                lambda: {"schools": _bought()["schools"] + 1},
                "The number of schools is rounded up; the money does not reach for the last one.",
            ),
            (
                lambda: {"schools": BUDGET // SCHOOL},
                "You spent all the money on schools; each comes with its students' licences.",
            ),
            (
                lambda: {"students": _bought()["students"] + 1},
                "The number of students was rounded up; the nearest whole number is asked.",
            ),
            (
                lambda: {"students": _bought(residual=SD_RESIDUAL)["students"]},
                "You took the residual SD where the formula has its variance.",
            ),
            (
                lambda: {"students": _bought()["students"] * _bought()["schools"]},
                "Your 'students' is the number of all students; asked is that of one school.",
            ),
        ),
        hints=(
            "First the size of a school, which needs no budget; then what the budget pays for.",
            "n_best is the root of (c₁ / c₂) · σ² / (τ₁² var(x)), rounded to whole students.",
            "A school with n students costs 800 + 25 n; divide 40,000 by it and round down.",
        ),
    ),
    "13.5": Number(
        answer=lambda: _slope_if(True) / 0.5,
        insight=(
            "The factor depends on the design and on the true slope, which nobody knows. Simulate "
            "the study with the smallest slope that matters, and you see how far to trust a "
            "finding."
        ),
        mistakes=(
            (
                lambda: _slope_if(True),
                "That is the mean slope of the studies that found it; divide it by the true one.",
            ),
            (
                lambda: _studies()["slope"].mean() / 0.5,
                "That is the mean of all studies, which is right on average; keep those that "
                "found something.",
            ),
            (
                lambda: _slope_if(False) / 0.5,
                "Those are the studies that found nothing; take the others.",
            ),
            (
                lambda: 0.5 / _slope_if(True),
                "That is the fraction upside down: asked is the estimate over the truth.",
            ),
            (
                lambda: _slope_if(True) / 0.5 - 1,
                "That is the excess as a share of the truth; asked is the estimate over the truth.",
            ),
            (
                lambda: _slope_if(True) - 0.5,
                "That is how many points an hour too large it is; the question asks how many "
                "times.",
            ),
        ),
        hints=(
            "Which rows of the table would a journal see?",
            "Keep the rows with p_slope below the level, and take the mean of their slope.",
            'many.loc[many["p_slope"] < 0.05, "slope"].mean() is to be divided by the truth.',
        ),
    ),
    "13.6": Several(
        answer=_people,
        insight=(
            "Seven of ten measurements could be dropped for a few more people: what counts "
            "is people, not measurements."
        ),
        mistakes=(
            (
                lambda: _people(z=True),
                "You used the normal distribution; the scatter of slopes is estimated from the "
                "people, and t on their number less one allows for it.",
            ),
            (
                lambda: _people(sd_slope=0.0, correlation=0.0),
                "You planned as if all people had the same slope; the old study says that they "
                "differ.",
            ),
            (
                lambda: _people(sd_slope=_sleep().cov_re.iloc[1, 1]),
                "You gave the variance of the slopes as sd_slope; a Design wants the SD.",
            ),
            (
                lambda: _people(slope=_sleep().fe_params["days"]),
                "You planned for the slope that the old study found; asked is a smaller one.",
            ),
            (lambda: _people(goal=0.9), "That is for a power of nine in ten."),
            (
                lambda: {label: people - 1 for label, people in _people().items()},
                "With so many it just falls short of eight in ten; go one further.",
            ),
        ),
        hints=(
            "A person is what a school was, and days are what hours were.",
            "power.Design wants SDs and a correlation; the fit's cov_re has variances.",
            "Go up in n_schools until power.analytic(…) has a power_slope of eight in ten.",
        ),
    ),
}
