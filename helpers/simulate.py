"""Data with a known truth: students in schools, hours on a maths app, a maths score.

The model of every function is a line for each school,

    score_ij = (γ₀ + u₀_j) + (γ₁ + u₁_j) · hours_ij + e_ij,

with school deviations (u₀, u₁) that are normal with standard deviations τ₀ and τ₁ and
correlation ρ, and independent errors e that are normal with standard deviation σ. In the
arguments γ₀ is ``intercept``, γ₁ ``slope``, τ₀ ``sd_intercept``, τ₁ ``sd_slope``,
ρ ``correlation`` and σ ``sd_residual``. Scores are in points and hours in hours, so a slope
is in points an hour.
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import pandas as pd


def article_example() -> pd.DataFrame:
    """Rebuild the data of the tutorial that the course grew from: 3 schools × 10 students.

    Three baselines are drawn from N([60, 65, 70], 3) and three slope deviations from
    N([−0.5, 0.2, 0.8], 0.3) around a slope of 2; then, student by student within school,
    hours from U(1, 10) and an error from N(0, 5). Nothing can be chosen: the table is the
    same on every machine.

    Returns
    -------
    pandas.DataFrame
        30 rows with the columns ``student_id``, ``school_id``, ``app_hours`` (hours) and
        ``math_score`` (points). ``attrs["truth"]`` holds the values that were drawn.

    Examples
    --------
    >>> article_example().round(2).head(2)
      student_id school_id  app_hours  math_score
    0      S_0_0  School_0       1.52       65.87
    1      S_0_1  School_0       7.37       80.97
    """
    # The tutorial drew from NumPy's legacy generator; a modern one gives other numbers.
    rng = np.random.RandomState(42)  # noqa: NPY002 - the published data came from this generator
    baselines = rng.normal([60, 65, 70], 3)
    slopes = 2 + rng.normal([-0.5, 0.2, 0.8], 0.3)
    hours, errors = np.empty(30), np.empty(30)
    for row in range(30):  # hours and error alternate in the stream, so one student at a time
        hours[row] = rng.uniform(1, 10)
        errors[row] = rng.normal(0, 5)
    school = np.repeat(np.arange(3), 10)
    data = _table(hours, baselines[school] + slopes[school] * hours + errors, [10, 10, 10])
    data.attrs["truth"] = {
        "slope": 2.0,
        "sd_residual": 5.0,
        "seed": 42,
        "schools": _per_school(data, baselines, slopes),
    }
    return data


def schools(
    n_schools: int,
    n_students: int | Sequence[int],
    *,
    intercept: float = 60.0,
    slope: float = 2.0,
    sd_intercept: float = 4.0,
    sd_slope: float = 0.8,
    correlation: float = 0.3,
    sd_residual: float = 5.0,
    hours: tuple[float, float] = (1.0, 10.0),
    seed,
) -> pd.DataFrame:
    """Simulate students in schools, each school with a line of its own.

    The same seed draws the same standard normal numbers whatever the parameters are, so two
    tables that differ in one parameter differ by that parameter alone.

    Parameters
    ----------
    n_schools : int
        Number of schools, at least 1.
    n_students : int or sequence of int
        Students in every school, or one number for each school.
    intercept, slope : float
        Line of the average school: the intercept is its score at 0 hours (points), the slope its
        gain per hour (points an hour).
    sd_intercept, sd_slope : float
        Standard deviations of the schools' intercepts (points) and slopes (points an hour);
        0 makes the schools alike in that respect.
    correlation : float
        Correlation of a school's intercept and slope, from −1 to 1 (both allowed).
    sd_residual : float
        Standard deviation of a student's score around the school's line (points).
    hours : (float, float)
        Lower and upper end of the hours on the app, drawn uniformly between them.
    seed : int, numpy.random.SeedSequence or numpy.random.Generator
        Where the random numbers start; the same whole number gives the same table.

    Returns
    -------
    pandas.DataFrame
        One row a student, schools in order: ``student_id``, ``school_id``, ``app_hours``
        (hours) and ``math_score`` (points). ``attrs["truth"]`` is a plain dictionary of the
        parameters, the seed (None if it was not a whole number) and, under ``"schools"``,
        lists of each school's ``school_id``, true ``intercept`` and ``slope``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number of the kind above or is out of its range.

    Examples
    --------
    >>> data = schools(30, 20, seed=1)
    >>> data.shape
    (600, 4)
    >>> data.attrs["truth"]["sd_slope"]
    0.8
    """
    sizes = _school_sizes(n_schools, n_students)
    low, high = _interval("hours", hours)
    truth = _parameters(intercept, slope, sd_intercept, sd_slope, correlation, sd_residual)
    rng = _generator(seed)

    u0, u1 = _deviations(rng.standard_normal((2, len(sizes))), truth)
    intercepts, slopes = truth["intercept"] + u0, truth["slope"] + u1
    school = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.uniform(low, high, len(school))
    errors = truth["sd_residual"] * rng.standard_normal(len(school))

    data = _table(x, intercepts[school] + slopes[school] * x + errors, sizes)
    data.attrs["truth"] = {
        **truth,
        "seed": int(seed) if isinstance(seed, Integral) else None,
        "schools": _per_school(data, intercepts, slopes),
    }
    return data


def replicates(
    data: pd.DataFrame,
    n_replicates: int,
    *,
    intercept: float = 60.0,
    slope: float = 2.0,
    sd_intercept: float = 4.0,
    sd_slope: float = 0.8,
    correlation: float = 0.3,
    sd_residual: float = 5.0,
    seed,
) -> np.ndarray:
    """Simulate new scores for the same students: what repeating the study would have given.

    Students, their hours and their schools are kept; every replicate has new school
    deviations and new errors.

    Parameters
    ----------
    data : pandas.DataFrame
        Any table with the columns ``school_id`` and ``app_hours``, without missing values.
    n_replicates : int
        Number of new sets of scores, at least 1.
    intercept, slope, sd_intercept, sd_slope, correlation, sd_residual : float
        The truth to simulate from, as in :func:`schools`.
    seed : int, numpy.random.SeedSequence or numpy.random.Generator
        Where the random numbers start.

    Returns
    -------
    numpy.ndarray, shape (n_replicates, rows of data)
        Scores in points, columns in the order of the rows of ``data``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above or is out of its range.

    Examples
    --------
    >>> replicates(article_example(), 1000, seed=1).shape
    (1000, 30)
    """
    x, school, n_schools = _design(data)
    n_replicates = _count("n_replicates", n_replicates)
    truth = _parameters(intercept, slope, sd_intercept, sd_slope, correlation, sd_residual)
    rng = _generator(seed)

    u0, u1 = _deviations(rng.standard_normal((2, n_replicates, n_schools)), truth)
    scores = rng.standard_normal((n_replicates, len(x)))
    # In place: with thousands of replicates each temporary array would cost as much again.
    scores *= truth["sd_residual"]
    scores += truth["intercept"] + truth["slope"] * x
    scores += u0[:, school]
    scores += u1[:, school] * x
    return scores


def _deviations(z, truth):
    """Turn standard normals z (2, …) into school deviations (u0, u1) of the wanted spread."""
    rho = truth["correlation"]
    u0 = truth["sd_intercept"] * z[0]
    # The Cholesky factor of a 2 × 2 correlation matrix, which also holds at ρ = ±1.
    u1 = truth["sd_slope"] * (rho * z[0] + math.sqrt(1 - rho**2) * z[1])
    return u0, u1


def _table(hours, scores, sizes):
    """Name students and schools and put the columns together."""
    width = len(str(len(sizes) - 1))
    labels = np.array([f"School_{j:0{width}d}" for j in range(len(sizes))], dtype=object)
    return pd.DataFrame(
        {
            "student_id": [f"S_{j}_{i}" for j, size in enumerate(sizes) for i in range(size)],
            "school_id": np.repeat(labels, sizes),
            "app_hours": hours,
            "math_score": scores,
        }
    )


def _per_school(data, intercepts, slopes):
    """Give the schools' true coefficients as lists, so that attrs compare and serialise."""
    return {
        "school_id": data["school_id"].unique().tolist(),
        "intercept": intercepts.tolist(),
        "slope": slopes.tolist(),
    }


def _design(data):
    """Read hours, school numbers 0 … J−1 and J from the table, or say what is wrong with it."""
    if not isinstance(data, pd.DataFrame):
        raise TypeError(
            f"data is a {type(data).__name__}; give a pandas DataFrame with the columns "
            "school_id and app_hours."
        )
    for column in ("school_id", "app_hours"):
        if column not in data.columns:
            raise ValueError(
                f"data has no column {column!r} (it has {', '.join(map(str, data.columns))}); "
                "rename or add it."
            )
    if data.empty:
        raise ValueError("data has 0 rows; give at least one student.")
    if not pd.api.types.is_numeric_dtype(data["app_hours"]):
        raise TypeError(
            f"data['app_hours'] has type {data['app_hours'].dtype}; turn it into numbers."
        )
    x = data["app_hours"].to_numpy(dtype=float)
    school, labels = pd.factorize(data["school_id"])
    bad = int((~np.isfinite(x) | (school < 0)).sum())
    if bad:
        raise ValueError(
            f"data has {bad} row(s) with missing or infinite school_id or app_hours; drop them."
        )
    return x, school, len(labels)


def _school_sizes(n_schools, n_students):
    """Turn n_students into one whole number a school."""
    n_schools = _count("n_schools", n_schools)
    if isinstance(n_students, Integral):
        return [_count("n_students", n_students)] * n_schools
    if not isinstance(n_students, Sequence | np.ndarray | pd.Series) or isinstance(n_students, str):
        raise TypeError(
            f"n_students is {n_students!r}; give a whole number, or one for each school."
        )
    if len(n_students) != n_schools:
        raise ValueError(
            f"n_students has {len(n_students)} numbers for n_schools={n_schools}; "
            "give one for each school, or a single whole number for all."
        )
    return [_count(f"n_students[{j}]", size) for j, size in enumerate(n_students)]


def _parameters(intercept, slope, sd_intercept, sd_slope, correlation, sd_residual):
    """Check the six parameters of the model and return them as a dictionary of floats."""
    truth = {
        "intercept": _number("intercept", intercept),
        "slope": _number("slope", slope),
        "sd_intercept": _number("sd_intercept", sd_intercept),
        "sd_slope": _number("sd_slope", sd_slope),
        "correlation": _number("correlation", correlation),
        "sd_residual": _number("sd_residual", sd_residual),
    }
    for name in ("sd_intercept", "sd_slope", "sd_residual"):
        if truth[name] < 0:
            raise ValueError(
                f"{name} is {truth[name]}; a standard deviation is 0 or more "
                "(give the root if this is a variance)."
            )
    if abs(truth["correlation"]) > 1:
        raise ValueError(
            f"correlation is {truth['correlation']}; give a number from -1 to 1 "
            "(a covariance must be divided by both standard deviations)."
        )
    return truth


def _interval(name, value):
    """Check a pair (low, high) of finite numbers with low < high."""
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str) or len(value) != 2:
        raise TypeError(f"{name} is {value!r}; give a pair of numbers such as (1, 10).")
    low, high = (_number(f"{name}[{i}]", end) for i, end in enumerate(value))
    if low >= high:
        raise ValueError(f"{name} is {(low, high)}; give the smaller number first: (low, high).")
    return low, high


def _count(name, value):
    """Check a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {value!r}; give a whole number (int).")
    if value < 1:
        raise ValueError(f"{name} is {value}; give 1 or more.")
    return int(value)


def _number(name, value):
    """Check a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}; give a number.")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; give a finite number.")
    return float(value)


def _generator(seed):
    """Start a random generator; without a seed no result could be shown twice."""
    if isinstance(seed, np.random.Generator | np.random.SeedSequence):
        return np.random.default_rng(seed)
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed is {seed!r}; give a whole number such as seed=1.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give 0 or more.")
    return np.random.default_rng(int(seed))
