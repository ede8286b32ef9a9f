"""Design questions: how many schools, how many students, to find an effect and to measure it.

A design says who takes part and what is true. `power` simulates the study many times, analyses
each as its owner would, and reports how often that succeeds and how precise it is; `curve` does so
over a grid of designs; `studies` hands out the simulated studies themselves; `analytic` is a
formula to hold against the simulation.

Every study is analysed with a random slope, ``score ~ hours + (hours | school)``, by REML:

- **The average slope** is tested with Wald's t on J − 1 degrees of freedom for J schools. The
  slopes of the schools are what is sampled: were each school's slope known, theirs would be a
  one-sample t-test with J − 1. (With the same hours in every school and slopes that vary it is
  exactly that test.) The normal distribution forgets that the spread of the slopes is an
  estimate: at a level of 5 % and with 10 schools × 20 students it rejects a true null hypothesis
  in 7 % of studies, t in 4 %. Where slopes hardly vary, t errs on the safe side (2 %).
- **That slopes vary at all** is tested by the likelihood ratio to the model without a random slope,
  by REML both, against half χ² with 1 and half with 2 degrees of freedom (Stram & Lee 1994,
  doi:10.2307/2533455), for a variance of 0 is the least there can be. It errs on the safe side too
  (4 % for 5 %).

The hours are random too. As studies that share their hours are analysed together at a fraction of
the cost, a set of hours serves many of them, and is drawn anew ``n_draws`` times.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import KW_ONLY, dataclass, fields, replace
from itertools import product
from numbers import Integral, Real

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats

from helpers import reml, simulate
from helpers.progress import bar

MOST_CELLS = 4_000_000  # studies × rows simulated at once, so that memory stays bounded


@dataclass(frozen=True)
class Design:
    """A study of students in schools: its size, what is true, and what it costs.

    Parameters
    ----------
    n_schools : int
        Number of schools J, at least 2.
    n_students : int or sequence of int
        Students in every school, or one number for each school.
    intercept, slope : float
        Line of the average school: the intercept is its score at 0 hours (points), the slope its
        gain per hour (points an hour).
    sd_intercept, sd_slope : float
        Standard deviations of the schools' intercepts (points) and slopes (points an hour).
    correlation : float
        Correlation of a school's intercept and slope.
    sd_residual : float
        Standard deviation of a student's score around the school's line (points), above 0.
    hours : (float, float), sequence of float, or callable
        Where the students' hours come from: a pair ``(low, high)``, between which they are uniform;
        more than two values, of a pilot study say, drawn from with replacement; or
        ``hours(rng, n)`` that returns the n hours of one school.
    cost_per_school, cost_per_student : float
        In any one currency; a design costs J times the first plus all students times the second.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above or is out of its range.

    Examples
    --------
    >>> design = Design(30, 20, slope=0.5, cost_per_school=500, cost_per_student=20)
    >>> design.n_rows, design.cost
    (600, 27000.0)
    """

    n_schools: int
    n_students: int | Sequence[int]
    _: KW_ONLY
    intercept: float = 60.0
    slope: float = 2.0
    sd_intercept: float = 4.0
    sd_slope: float = 0.8
    correlation: float = 0.3
    sd_residual: float = 5.0
    hours: tuple[float, ...] | Callable = (1.0, 10.0)
    cost_per_school: float = 0.0
    cost_per_student: float = 0.0

    def __post_init__(self):
        set_to = object.__setattr__  # a frozen dataclass may still be tidied while it is made
        set_to(self, "n_schools", _count("n_schools", self.n_schools, least=2))
        set_to(self, "n_students", _checked_students(self.n_students, self.n_schools))
        # The simulation checks its own parameters; one student is enough to ask.
        student = pd.DataFrame({"school_id": [0], "app_hours": [1.0]})
        simulate.replicates(student, 1, **self.truth, seed=0)
        if self.sd_residual == 0:
            raise ValueError("sd_residual is 0; students of one school differ: give more than 0.")
        if not callable(self.hours):
            set_to(self, "hours", _checked_hours(self.hours))
        for name in ("cost_per_school", "cost_per_student"):
            if not _is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a number of 0 or more.")

    @property
    def truth(self):
        """The six parameters of the model, by name."""
        names = ("intercept", "slope", "sd_intercept", "sd_slope", "correlation", "sd_residual")
        return {name: getattr(self, name) for name in names}

    @property
    def sizes(self):
        """Students in each school, (n_schools,)."""
        return np.broadcast_to(self.n_students, self.n_schools)

    @property
    def n_rows(self):
        """Students in all."""
        return int(self.sizes.sum())

    @property
    def cost(self):
        """Cost of the study."""
        return float(self.n_schools * self.cost_per_school + self.n_rows * self.cost_per_student)


def power(design, *, n_simulations=1000, n_draws=10, alpha=0.05, seed, n_jobs=None, progress=True):
    """Simulate a study many times: how often it finds what is there, and how precisely.

    Parameters
    ----------
    design : Design
    n_simulations : int
        Studies to simulate, at least 2. With 1,000 a power of 0.8 is known to ± 0.025.
    n_draws : int
        Sets of hours that the studies share out among them; more where memory asks for it. 1 is the
        fastest, and tells of studies with just those hours.
    alpha : float
        Level of the tests; intervals have level 1 − alpha.
    seed : int or numpy.random.SeedSequence
        Where the random numbers start. The result depends on nothing else, ``n_jobs`` included.
    n_jobs : int, optional
        Processes, as joblib counts them; by default one, or what ``joblib.parallel_config`` says.
    progress : bool
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        One row: ``n_schools``, ``n_students`` (per school, the mean if they differ), ``slope``,
        ``sd_slope``, ``n_rows``, ``cost``, ``n_simulations``, then as shares from 0 to 1, each with
        its Monte Carlo standard error in a column ``…_se``:

        - ``power_slope``, ``power_sd_slope``: studies that reject that the average slope is 0, that
          the slopes do not vary;
        - ``coverage``: intervals of the average slope that hold the true one;
        - ``singular``: fits with a variance of 0 or a correlation of ±1;
        - ``not_converged``: fits not verified to be an optimum;

        and in points an hour:

        - ``sd_of_slope``: standard deviation of the estimates of the average slope;
        - ``mean_se``: mean of their standard errors by the model;
        - ``half_width``: mean half-width of the interval of the average slope;
        - ``bias_sd_slope``, ``rmse_sd_slope``: of the estimates of ``sd_slope``.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.

    Notes
    -----
    The tests, and why these, are at the top of this module. The Monte Carlo standard error of a
    share is the binomial one (with two successes and two failures added, so that 0 of 1,000 is not
    taken for certain), or the one found from how the sets of hours differ, if that is larger.

    Examples
    --------
    >>> row = power(Design(30, 20, slope=0.5), n_simulations=500, seed=1).iloc[0]
    >>> bool(0.7 < row.power_slope < 0.95)
    True
    """
    _check_alpha(alpha)
    table = studies(
        design,
        n_simulations=n_simulations,
        n_draws=n_draws,
        seed=seed,
        n_jobs=n_jobs,
        progress=progress,
    )
    return _summary(design, table, alpha)


def curve(
    design, over, *, n_simulations=1000, n_draws=10, alpha=0.05, seed, n_jobs=None, progress=True
):
    """Do what `power` does for many designs.

    Parameters
    ----------
    design : Design
        What all have in common.
    over : dict of str to sequence, or pandas.DataFrame
        What varies. ``{"n_schools": [10, 20, 40], "n_students": [5, 10]}`` takes every pair; a
        table takes its rows as they are, and has fields of `Design` as its columns.
    n_simulations, n_draws, alpha, seed, n_jobs, progress
        As for `power`. Every design has random numbers of its own, spawned from the seed, so that
        the result does not depend on ``n_jobs``.

    Returns
    -------
    pandas.DataFrame
        The row of `power` for each design, in the order of ``over`` (the last name varies fastest).

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range, before anything is simulated.

    Notes
    -----
    A grid too large for one machine goes to a Dask cluster by joblib's own backend::

        client = dask.distributed.Client(...)
        with joblib.parallel_config("dask"):
            table = power.curve(design, over, seed=1)

    The workers of the cluster must be able to import ``helpers``.

    Examples
    --------
    >>> grid = {"n_schools": [15, 30], "n_students": [10, 20]}
    >>> table = curve(Design(30, 20), grid, n_simulations=100, seed=1, progress=False)
    >>> table[["n_schools", "n_students"]].values.tolist()
    [[15, 10], [15, 20], [30, 10], [30, 20]]
    """
    _check_design(design)
    points = _points(over)
    designs = [replace(design, **point) for point in points]
    _check_run(n_simulations, n_draws)
    _check_alpha(alpha)
    seeds = _spawn(seed, len(designs))
    tasks = [
        delayed(_one_design)(design, n_simulations, n_draws, alpha, seed)
        for design, seed in zip(designs, seeds, strict=True)
    ]
    rows = pd.concat(_run(tasks, "Simulating designs", n_jobs, progress), ignore_index=True)
    for name in reversed(points[0]):
        if name not in rows:
            # As objects first: a value may be a pair, which pandas would take apart.
            column = pd.Series([point[name] for point in points], dtype=object).infer_objects()
            rows.insert(2, name, column)
    return rows


def studies(design, *, n_simulations=1000, n_draws=10, seed, n_jobs=None, progress=True):
    """Simulate a study many times and analyse each.

    Parameters
    ----------
    design, n_simulations, n_draws, seed, n_jobs, progress
        As for `power`.

    Returns
    -------
    pandas.DataFrame
        A row for each simulated study: ``batch`` (studies of one batch share their hours);
        ``intercept`` and ``slope``, the estimated averages; ``se``, the standard error of the
        slope; ``p_slope``, the p-value for an average slope of 0; ``sd_slope``, the estimated
        standard deviation of the schools' slopes; ``p_sd_slope``, the p-value for one of 0;
        ``singular`` and ``converged``.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> studies(Design(30, 20), n_simulations=100, seed=1, progress=False).shape
    (100, 9)
    """
    _check_design(design)
    _check_run(n_simulations, n_draws)
    tasks = [delayed(_batch)(*batch) for batch in _batches(design, n_simulations, n_draws, seed)]
    return _bound(_run(tasks, "Simulating studies", n_jobs, progress))


def analytic(design, *, alpha=0.05, n_draws=200, seed):
    """Find standard error and power of the average slope by formula.

    With the variances known, the estimate of the average intercept and slope has the covariance
    (Σ_j X_jᵀ V_j⁻¹ X_j)⁻¹, V_j = X_j T X_jᵀ + σ² I, where T is the covariance of the schools'
    intercepts and slopes. With the same hours in every school that makes the variance of the slope
    (τ₁² + σ² / Σ(x − x̄)²) / J: more students shrink its second part only, more schools both.

    Parameters
    ----------
    design : Design
    alpha : float
        Level of the two-sided t-test with J − 1 degrees of freedom.
    n_draws : int
        Sets of hours to average the variance and the power over.
    seed : int or numpy.random.SeedSequence
        For the hours.

    Returns
    -------
    pandas.DataFrame
        One row: ``n_schools``, ``n_students``, ``slope``, ``sd_slope``, ``n_rows``, ``cost``,
        ``sd_of_slope`` (points an hour) and ``power_slope``, by the noncentral t distribution.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.

    Notes
    -----
    An approximation where hours or numbers of students differ between schools: the variances must
    be estimated, which costs a little. Source: Snijders & Bosker (1993),
    doi:10.3102/10769986018003237.

    Examples
    --------
    >>> analytic(Design(30, 20, slope=0.5), seed=1)[["sd_of_slope", "power_slope"]].round(2)
       sd_of_slope  power_slope
    0         0.17         0.82
    """
    _check_design(design)
    _check_alpha(alpha)
    _count("n_draws", n_draws)
    rng = np.random.default_rng(_spawn(seed, 1)[0])
    draws = (_draw_hours(design, rng) for _ in range(n_draws))
    variance = np.array([_known_cov(design, hours)[1, 1] for hours in draws])
    df = design.n_schools - 1
    limit = stats.t.isf(alpha / 2, df)
    shift = design.slope / np.sqrt(variance)
    found = stats.nct.sf(limit, df, shift) + stats.nct.cdf(-limit, df, shift)
    return pd.DataFrame(
        [
            {
                **_description(design),
                "sd_of_slope": np.sqrt(variance.mean()),
                "power_slope": found.mean(),
            }
        ]
    )


# Simulating ------------------------------------------------------------------------------


def _batches(design, n_simulations, n_draws, seed):
    """Split the studies into batches with hours of their own: arguments for `_batch`."""
    largest = max(1, MOST_CELLS // design.n_rows)
    n_batches = min(max(n_draws, -(-n_simulations // largest)), n_simulations)
    counts = [len(part) for part in np.array_split(np.arange(n_simulations), n_batches)]
    return list(zip([design] * n_batches, counts, _spawn(seed, n_batches), strict=True))


def _batch(design, n_studies, seed):
    """Simulate and analyse studies that share their hours; the columns of `studies`."""
    rng = np.random.default_rng(seed)
    x = _draw_hours(design, rng)
    school = np.repeat(np.arange(design.n_schools), design.sizes)
    table = pd.DataFrame({"school_id": school, "app_hours": x})
    scores = simulate.replicates(table, n_studies, **design.truth, seed=rng)
    X = np.column_stack([np.ones(len(x)), x])
    large = reml.fit_many(scores, X, X, school)
    small = reml.fit_many(scores, X, X[:, :1], school)
    slope, se = large.beta[:, 1], np.sqrt(large.cov_beta[:, 1, 1])
    ratio = np.maximum(small.criterion - large.criterion, 0)
    return pd.DataFrame(
        {
            "intercept": large.beta[:, 0],
            "slope": slope,
            "se": se,
            "p_slope": 2 * stats.t.sf(np.abs(slope / se), design.n_schools - 1),
            "sd_slope": np.sqrt(large.cov_re[:, 1, 1]),
            "p_sd_slope": (stats.chi2.sf(ratio, 1) + stats.chi2.sf(ratio, 2)) / 2,
            "singular": large.singular,
            "converged": large.converged & small.converged,
        }
    )


def _draw_hours(design, rng):
    """Draw every student's hours, (n_rows,), school by school."""
    hours = design.hours
    if not callable(hours):
        draw = rng.choice if len(hours) > 2 else lambda ends, size: rng.uniform(*ends, size)
        return draw(hours, design.n_rows)
    drawn = []
    for size in design.sizes:
        one = np.asarray(hours(rng, int(size)), dtype=float)
        if one.shape != (size,) or not np.isfinite(one).all():
            raise ValueError(
                f"hours(rng, {size}) returned shape {one.shape}"
                f"{'' if np.isfinite(one).all() else ' with missing or infinite values'}; "
                f"return {size} numbers, the hours of one school."
            )
        drawn.append(one)
    return np.concatenate(drawn)


def _known_cov(design, x):
    """Covariance of the average intercept and slope (2, 2), the variances being known."""
    t0, t1 = design.sd_intercept, design.sd_slope
    T = np.array([[t0**2, design.correlation * t0 * t1], [design.correlation * t0 * t1, t1**2]])
    ends = np.cumsum(design.sizes)[:-1]
    sums = [np.add.reduceat(x**power, np.r_[0, ends]) for power in range(3)]
    XX = np.array([[sums[0], sums[1]], [sums[1], sums[2]]]).transpose(2, 0, 1)
    # X'V⁻¹X = (σ² I + X'X T)⁻¹ X'X, which also holds for a singular T.
    information = np.linalg.solve(design.sd_residual**2 * np.eye(2) + XX @ T, XX)
    return np.linalg.inv(information.sum(axis=0))


def _one_design(design, n_simulations, n_draws, alpha, seed):
    """The row of `power`, without a bar and without processes: one task of `curve`."""
    batches = _batches(design, n_simulations, n_draws, seed)
    table = _bound([_batch(*batch) for batch in batches])
    return _summary(design, table, alpha)


def _run(tasks, label, n_jobs, progress):
    """Results of joblib's tasks in order, with a progress bar; an interrupt ends the workers."""
    found = []
    with (
        bar(len(tasks), label) if progress else nullcontext() as show,
        closing(Parallel(n_jobs=n_jobs, return_as="generator")(tasks)) as results,
    ):
        for result in results:
            found.append(result)
            if show is not None:
                show(len(found))
    return found


def _bound(batches):
    """One table of all batches, numbered."""
    table = pd.concat(batches, keys=range(len(batches)), names=["batch", None])
    return table.reset_index("batch").reset_index(drop=True)


# Summing up ------------------------------------------------------------------------------


def _summary(design, table, alpha):
    """The row of `power` from the table of `studies`."""
    half_width = stats.t.isf(alpha / 2, design.n_schools - 1) * table["se"]
    error = table["sd_slope"] - design.sd_slope
    shares = {
        "power_slope": table["p_slope"] < alpha,
        "power_sd_slope": table["p_sd_slope"] < alpha,
        "coverage": (table["slope"] - design.slope).abs() <= half_width,
        "singular": table["singular"],
        "not_converged": ~table["converged"],
    }
    row = {**_description(design), "n_simulations": len(table)}
    for name, found in shares.items():
        row[name] = found.mean()
        row[f"{name}_se"] = _share_se(found, table["batch"])
    row |= {
        "sd_of_slope": table["slope"].std(),
        "mean_se": table["se"].mean(),
        "half_width": half_width.mean(),
        "bias_sd_slope": error.mean(),
        "rmse_sd_slope": np.sqrt((error**2).mean()),
    }
    return pd.DataFrame([row])


def _share_se(found, batch):
    """Monte Carlo standard error of a share of studies that come in batches."""
    share = (found.sum() + 2) / (len(found) + 4)
    variance = share * (1 - share) / len(found)
    means = found.groupby(batch).mean()
    between = means.var() / len(means) if len(means) > 1 else 0.0
    return np.sqrt(max(variance, between))


def _description(design):
    n_students = design.n_students
    return {
        "n_schools": design.n_schools,
        "n_students": n_students if isinstance(n_students, int) else np.mean(n_students),
        "slope": design.slope,
        "sd_slope": design.sd_slope,
        "n_rows": design.n_rows,
        "cost": design.cost,
    }


# Checking --------------------------------------------------------------------------------


def _points(over):
    """The fields that vary, a dictionary for each design."""
    if isinstance(over, pd.DataFrame):
        names, points = list(over.columns), over.to_dict("records")
    elif isinstance(over, Mapping):
        for name, values in over.items():
            if not isinstance(values, Iterable) or isinstance(values, str):
                raise TypeError(f"over[{name!r}] is {values!r}; give a list of values.")
        names = list(over)
        points = [dict(zip(names, values, strict=True)) for values in product(*over.values())]
    else:
        raise TypeError(
            f"over is a {type(over).__name__}; give a dict of lists, such as "
            "{'n_schools': [10, 20, 40]}, or a table of designs."
        )
    known = [field.name for field in fields(Design)]
    for name in names:
        if name not in known:
            raise ValueError(f"over has {name!r}, which a Design has not: {', '.join(known)}.")
    if not points or not names:
        raise ValueError("over has no design in it; give each name at least one value.")
    return points


def _spawn(seed, n):
    """Seeds for n independent streams; the same again for the same seed."""
    if isinstance(seed, np.random.SeedSequence):
        # A copy: spawning leaves a mark on the original, and a second run would differ.
        return np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key).spawn(n)
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed is {seed!r}; give a whole number such as seed=1.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give 0 or more.")
    return np.random.SeedSequence(int(seed)).spawn(n)


def _check_design(design):
    if not isinstance(design, Design):
        raise TypeError(
            f"design is a {type(design).__name__}; give a Design, such as Design(30, 20)."
        )


def _check_run(n_simulations, n_draws):
    _count("n_simulations", n_simulations, least=2)
    _count("n_draws", n_draws)


def _check_alpha(alpha):
    if not _is_number(alpha) or not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha!r}; give a number between 0 and 1, such as 0.05.")


def _checked_students(n_students, n_schools):
    """A whole number, or a tuple of one for each school, and enough of them for a random slope."""
    if _is_list(n_students):
        if len(n_students) != n_schools:
            raise ValueError(
                f"n_students has {len(n_students)} numbers for n_schools={n_schools}; "
                "give one for each school, or a single whole number for all."
            )
        n_students = tuple(_count(f"n_students[{j}]", n) for j, n in enumerate(n_students))
    else:
        n_students = _count("n_students", n_students)
    if np.mean(n_students) <= 2:
        raise ValueError(
            f"n_students is {n_students}; two students fix a school's line exactly: give more than "
            "2 a school on average."
        )
    return n_students


def _checked_hours(hours):
    """A tuple of finite numbers: low and high, or more values to draw from."""
    if not _is_list(hours) or len(hours) < 2 or not all(_is_number(value) for value in hours):
        raise TypeError(
            f"hours is {hours!r}; give a pair (low, high), more numbers to draw from, or a "
            "function hours(rng, n)."
        )
    hours = tuple(float(value) for value in hours)
    if len(hours) == 2 and hours[0] >= hours[1]:
        raise ValueError(f"hours is {hours}; give the smaller number first: (low, high).")
    if len(set(hours)) == 1:
        raise ValueError(f"hours are all {hours[0]}; a slope needs hours that differ.")
    return hours


def _count(name, value, least=1):
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {value!r}; give a whole number (int).")
    if value < least:
        raise ValueError(f"{name} is {value}; give {least} or more.")
    return int(value)


def _is_list(value):
    return isinstance(value, Sequence | np.ndarray | pd.Series) and not isinstance(value, str)


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))
