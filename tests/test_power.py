"""Power and precision by simulation, held against formulas, a plain loop and known levels.

Where a simulated quantity is compared with its truth, the tolerance is four Monte Carlo standard
errors. The seeds are fixed, so a test that passes keeps passing.
"""

import doctest
import inspect
import threading

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import power, reml, simulate
from helpers.power import Design


def evenly(rng, n):
    """The same hours in every school: the balanced design, for which formulas are exact."""
    return np.linspace(1, 10, n)


def evenly_around_zero(rng, n):
    return np.linspace(-4.5, 4.5, n)


def spread(n):
    """Sum of squares of `evenly` around its mean."""
    return np.sum((evenly(None, n) - 5.5) ** 2)


def assert_near(found, truth, se):
    assert abs(found - truth) < 4 * se, f"{found:.5g} is not {truth:.5g} ± 4 · {se:.2g}"


def assert_sd(values, truth):
    """A standard deviation of normal values is known to sd / √(2N)."""
    assert_near(np.std(values, ddof=1), truth, truth / np.sqrt(2 * len(values)))


def quietly(function, *arguments, seed=1, **options):
    return function(*arguments, seed=seed, progress=False, **options)


def test_examples():
    results = doctest.testmod(power)
    assert results.attempted > 0
    assert results.failed == 0


# The formula -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_schools, n_students, correlation", [(10, 5, 0.3), (30, 20, -1.0)])
def test_formula_for_the_same_hours_in_every_school(n_schools, n_students, correlation):
    design = Design(n_schools, n_students, slope=0.5, correlation=correlation, hours=evenly)
    row = power.analytic(design, n_draws=2, seed=1).iloc[0]
    variance = (0.8**2 + 5**2 / spread(n_students)) / n_schools
    assert np.isclose(row.sd_of_slope**2, variance, rtol=1e-12)
    limit, shift = stats.t.ppf(0.975, n_schools - 1), 0.5 / np.sqrt(variance)
    by_hand = 1 - np.diff(stats.nct.cdf([-limit, limit], n_schools - 1, shift))[0]
    assert np.isclose(row.power_slope, by_hand, rtol=1e-10)


def test_formula_is_the_generalised_least_squares_one():
    design = Design(4, [3, 7, 1, 12], correlation=0.6)
    x = np.random.default_rng(1).uniform(1, 10, design.n_rows)
    school = np.repeat(np.arange(4), design.sizes)
    X = np.column_stack([np.ones(len(x)), x])
    T = np.array([[16, 0.6 * 4 * 0.8], [0.6 * 4 * 0.8, 0.64]])
    V = np.where(school[:, None] == school, X @ T @ X.T, 0) + 25 * np.eye(len(x))
    expected = np.linalg.inv(X.T @ np.linalg.solve(V, X))
    np.testing.assert_allclose(power._known_cov(design, x), expected, rtol=1e-9)


def test_formula_knows_that_groups_beat_group_size():
    designs = [Design(20, 10), Design(40, 10), Design(20, 20), Design(20, 100_000)]
    start, schools, students, all_students = (
        power.analytic(design, n_draws=2, seed=1).sd_of_slope[0] ** 2 for design in designs
    )
    assert np.isclose(schools, start / 2, rtol=0.1)
    assert students > 0.7 * start
    assert np.isclose(all_students, 0.8**2 / 20, rtol=1e-3)  # what no number of students removes


# The simulation against formulas ---------------------------------------------------------


@pytest.fixture(scope="module")
def balanced():
    design = Design(20, 10, slope=0.5, hours=evenly)
    return design, quietly(power.studies, design, n_simulations=3000)


def test_spread_of_the_slope(balanced):
    design, table = balanced
    truth = power.analytic(design, n_draws=1, seed=1).sd_of_slope[0]
    assert_sd(table.slope, truth)
    assert_near(table.slope.mean(), 0.5, truth / np.sqrt(len(table)))


def test_power_by_noncentral_t(balanced):
    design, table = balanced
    row = power._summary(design, table, 0.05).iloc[0]
    formula = power.analytic(design, n_draws=1, seed=1).power_slope[0]
    assert 0.5 < formula < 0.95
    assert_near(row.power_slope, formula, row.power_slope_se)


def test_summary_is_of_the_studies(balanced):
    design, table = balanced
    row = power._summary(design, table, 0.1).iloc[0]
    half_width = stats.t.ppf(0.95, 19) * table.se
    assert row.n_simulations == len(table)
    assert row.power_slope == np.mean(np.abs(table.slope) > half_width)
    assert row.coverage == np.mean(np.abs(table.slope - 0.5) < half_width)
    assert row.half_width == pytest.approx(half_width.mean())
    assert row.sd_of_slope == pytest.approx(np.std(table.slope, ddof=1))
    assert row.mean_se == pytest.approx(table.se.mean())
    assert row.bias_sd_slope == pytest.approx(table.sd_slope.mean() - 0.8)
    assert row.rmse_sd_slope**2 == pytest.approx(row.bias_sd_slope**2 + table.sd_slope.var(ddof=0))
    assert row.singular == table.singular.mean()
    assert row.not_converged == 0


def test_design_effect_holds_for_the_mean_and_not_for_the_slope():
    """Random intercepts: the mean pays 1 + (n − 1) ICC for schools, a slope within schools not."""
    J, n, between, within = 15, 8, 4.0, 5.0
    design = Design(J, n, sd_slope=0.0, sd_intercept=between, hours=evenly_around_zero)
    table = quietly(power.studies, design, n_simulations=2000)
    icc = between**2 / (between**2 + within**2)
    independent = np.sqrt((between**2 + within**2) / (J * n))
    assert_sd(table.intercept, independent * np.sqrt(1 + (n - 1) * icc))
    assert_sd(table.slope, within / np.sqrt(J * spread(n)))


def test_hours_drawn_for_each_student():
    design = Design(30, 20, slope=0.5)
    row = quietly(power.power, design, n_simulations=3000).iloc[0]
    formula = power.analytic(design, seed=1).iloc[0]
    assert_near(row.power_slope, formula.power_slope, row.power_slope_se)
    assert_near(row.sd_of_slope, formula.sd_of_slope, row.sd_of_slope / np.sqrt(2 * 3000))
    assert_near(row.coverage, 0.95, row.coverage_se)
    # With few fits singular, the model's standard errors are those of the estimates.
    assert_near(row.mean_se, row.sd_of_slope, row.sd_of_slope / np.sqrt(2 * 3000))


def test_agrees_with_a_plain_loop():
    """The same study by hand: simulate a table, fit it twice, test."""
    found = []
    for seed in range(150):
        data = simulate.schools(16, 6, slope=0.6, seed=seed)
        y, x, school = data.math_score, data.app_hours.to_numpy(), data.school_id
        X = np.column_stack([np.ones(len(x)), x])
        large, small = reml.fit(y, X, X, school), reml.fit(y, X, X[:, :1], school)
        t = large.beta[1] / np.sqrt(large.cov_beta[1, 1])
        ratio = max(small.criterion - large.criterion, 0)
        found.append(
            {
                "power_slope": 2 * stats.t.sf(abs(t), 15) < 0.05,
                "power_sd_slope": np.mean(stats.chi2.sf(ratio, [1, 2])) < 0.05,
                "singular": large.singular,
            }
        )
    loop = pd.DataFrame(found).mean()
    row = quietly(power.power, Design(16, 6, slope=0.6), n_simulations=2000, n_draws=40).iloc[0]
    for name, share in loop.items():
        assert 0.1 < share < 0.9
        assert_near(
            share, row[name], np.hypot(row[f"{name}_se"], np.sqrt(share * (1 - share) / 150))
        )


# What the tests promise ------------------------------------------------------------------


@pytest.mark.parametrize("n_schools, n_simulations", [(10, 1500), (30, 4000)])
def test_level_where_the_average_slope_is_0(n_schools, n_simulations):
    design = Design(n_schools, 20, slope=0.0)
    row = quietly(power.power, design, n_simulations=n_simulations).iloc[0]
    assert_near(row.power_slope, 0.05, row.power_slope_se)
    assert_near(row.coverage, 0.95, row.coverage_se)
    assert row.power_slope == pytest.approx(1 - row.coverage)


def test_the_normal_distribution_would_reject_too_often():
    table = quietly(power.studies, Design(10, 20, slope=0.0), n_simulations=1500)
    by_normal = 2 * stats.norm.sf(np.abs(table.slope / table.se)) < 0.05
    assert by_normal.mean() > 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1500)


def test_level_where_slopes_do_not_vary():
    row = quietly(power.power, Design(30, 20, sd_slope=0.0), n_simulations=3000).iloc[0]
    assert 0.02 < row.power_sd_slope < 0.05 + 4 * row.power_sd_slope_se
    assert row.singular > 0.3


def test_more_of_everything_finds_more():
    table = quietly(
        power.curve, Design(15, 6, slope=0.3), {"n_schools": [15, 45], "n_students": [6, 24]}
    ).set_index(["n_schools", "n_students"])
    for name in ("power_slope", "power_sd_slope"):
        assert table[name].idxmin() == (15, 6)
        assert table[name].idxmax() == (45, 24)
    assert table.rmse_sd_slope.idxmax() == (15, 6)
    assert table.singular.idxmax() == (15, 6)


# Standard errors of shares ---------------------------------------------------------------


def test_standard_error_of_a_share_is_never_0():
    found, batch = pd.Series([False] * 1000), pd.Series(np.arange(1000) % 10)
    assert 0.001 < power._share_se(found, batch) < 0.002


def test_standard_error_of_a_share_sees_luck_with_the_hours():
    batch = pd.Series(np.repeat(np.arange(10), 100))
    rng = np.random.default_rng(1)
    alike = pd.Series(rng.random(1000) < 0.5)
    different = pd.Series(rng.random(1000) < np.repeat([0.2, 0.8] * 5, 100))
    assert power._share_se(alike, batch) < 0.025
    assert power._share_se(different, batch) == pytest.approx(0.1, rel=0.2)


def test_one_set_of_hours_has_the_binomial_standard_error():
    row = quietly(power.power, Design(20, 10), n_simulations=50, n_draws=1).iloc[0]
    share = (50 * row.singular + 2) / 54
    assert row.singular_se == pytest.approx(np.sqrt(share * (1 - share) / 50))


# Seeds, grids, processes -----------------------------------------------------------------

SMALL = {"n_schools": [15, 20], "n_students": [5, 8]}


def test_same_seed_same_table():
    design = Design(20, 6)
    assert quietly(power.studies, design, n_simulations=30).equals(
        quietly(power.studies, design, n_simulations=30)
    )
    assert not quietly(power.studies, design, n_simulations=30).equals(
        quietly(power.studies, design, n_simulations=30, seed=2)
    )


def test_a_seed_sequence_is_not_used_up():
    seed = np.random.SeedSequence(5)
    first = quietly(power.power, Design(20, 6), n_simulations=20, seed=seed)
    pd.testing.assert_frame_equal(
        first, quietly(power.power, Design(20, 6), n_simulations=20, seed=seed)
    )


@pytest.mark.parametrize("function, arguments", [(power.curve, (SMALL,)), (power.power, ())])
def test_processes_do_not_change_the_table(function, arguments):
    one, two = (
        quietly(function, Design(20, 6), *arguments, n_simulations=40, n_jobs=n_jobs)
        for n_jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_a_row_of_a_curve_is_a_power():
    table = quietly(power.curve, Design(20, 6, slope=0.4), SMALL, n_simulations=40)
    seeds = np.random.SeedSequence(1).spawn(4)
    last = quietly(power.power, Design(20, 8, slope=0.4), n_simulations=40, seed=seeds[3])
    pd.testing.assert_frame_equal(table.iloc[[3]].reset_index(drop=True), last)


def test_grid_of_every_pair():
    table = quietly(power.curve, Design(20, 6), SMALL | {"sd_slope": [0.5]}, n_simulations=4)
    assert table[["n_schools", "n_students"]].values.tolist() == [
        [15, 5],
        [15, 8],
        [20, 5],
        [20, 8],
    ]
    assert table.sd_slope.unique() == [0.5]
    assert table.n_rows.tolist() == [75, 120, 100, 160]


def test_grid_as_a_table():
    over = pd.DataFrame({"n_schools": [40, 15], "n_students": [5, 12], "sd_residual": [5.0, 2.0]})
    table = quietly(power.curve, Design(20, 6), over, n_simulations=4)
    pd.testing.assert_frame_equal(table[list(over)], over)


def test_grid_over_hours():
    hours = [(1, 10), (4, 7)]
    table = quietly(power.curve, Design(20, 10), {"hours": hours}, n_simulations=200)
    assert table.hours.tolist() == hours
    assert table.sd_of_slope[1] > table.sd_of_slope[0]


THREADS = set()


def evenly_and_where(rng, n):
    THREADS.add(threading.current_thread().name)
    return evenly(rng, n)


def test_dask_cluster_gives_the_same_table():
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    design = Design(20, 6, hours=evenly_and_where)
    expected = quietly(power.curve, design, SMALL, n_simulations=20)
    THREADS.clear()
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, timeout=30),
        joblib.parallel_config("dask"),
    ):
        found = quietly(power.curve, design, SMALL, n_simulations=20)
    assert THREADS
    assert all("Dask" in name for name in THREADS)  # the work was done over there
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


# Progress and interrupts -----------------------------------------------------------------


@pytest.fixture
def bars(monkeypatch):
    """What the bars were asked to show: (label, total, done …)."""
    shown = []

    class Bar:
        def __init__(self, total, label):
            shown.append([label, total])

        def __call__(self, done):
            shown[-1].append(done)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            shown[-1].append("closed")

    monkeypatch.setattr(power, "bar", Bar)
    return shown


def test_progress_over_the_grid(bars):
    power.curve(Design(20, 6), SMALL, n_simulations=2, seed=1)
    assert bars == [["Simulating designs", 4, 1, 2, 3, 4, "closed"]]


def test_progress_over_the_sets_of_hours(bars):
    power.power(Design(20, 6), n_simulations=6, n_draws=3, seed=1)
    assert bars == [["Simulating studies", 3, 1, 2, 3, "closed"]]


def test_no_progress(bars):
    quietly(power.power, Design(20, 6), n_simulations=6)
    assert bars == []


def test_interrupt(bars, monkeypatch):
    done = []

    def interrupted(*arguments):
        done.append(arguments)
        if len(done) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    original = power._one_design
    monkeypatch.setattr(power, "_one_design", interrupted)
    with pytest.raises(KeyboardInterrupt):
        power.curve(Design(20, 6), SMALL, n_simulations=2, seed=1)
    assert len(done) == 2
    assert bars == [["Simulating designs", 4, 1, "closed"]]


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(power, "MOST_CELLS", 1000)
    table = quietly(power.studies, Design(20, 10), n_simulations=12, n_draws=1)
    assert table.batch.value_counts().to_dict() == {0: 4, 1: 4, 2: 4}


# Designs ---------------------------------------------------------------------------------


def test_defaults_are_those_of_the_simulation():
    from_simulation = inspect.signature(simulate.schools).parameters
    design = Design(30, 20)
    for name in [*design.truth, "hours"]:
        assert getattr(design, name) == from_simulation[name].default


def test_schools_of_different_sizes():
    design = Design(4, [10, 20, 30, 60], cost_per_school=100, cost_per_student=2)
    assert design == Design(4, np.array([10, 20, 30, 60]), cost_per_school=100, cost_per_student=2)
    assert design.n_rows == 120
    assert design.cost == 640
    row = quietly(power.power, design, n_simulations=4).iloc[0]
    assert (row.n_students, row.n_rows, row.cost) == (30, 120, 640)


def test_hours_from_a_pilot_study():
    pilot = [1.5, 2.0, 2.0, 9.0]
    hours = power._draw_hours(Design(50, 100, hours=pilot), np.random.default_rng(1))
    assert set(hours) == {1.5, 2.0, 9.0}
    assert_near(np.mean(hours == 2.0), 0.5, np.sqrt(0.25 / 5000))
    assert Design(5, 5, hours=pilot) == Design(5, 5, hours=pd.Series(pilot))


def test_hours_by_function_are_drawn_a_school_at_a_time():
    def hours(rng, n):
        sizes.append(n)
        return rng.normal(5, 1, n)

    sizes = []
    drawn = power._draw_hours(Design(3, [2, 9, 4], hours=hours), np.random.default_rng(1))
    assert sizes == [2, 9, 4]
    assert drawn.shape == (15,)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"n_schools": 1}, ValueError, "n_schools is 1; give 2 or more"),
        ({"n_schools": 2.5}, TypeError, "n_schools is 2.5; give a whole number"),
        ({"n_students": 2}, ValueError, "n_students is 2; two students fix"),
        ({"n_students": "20"}, TypeError, "n_students is '20'; give a whole number"),
        ({"n_students": [5, 5]}, ValueError, "n_students has 2 numbers for n_schools=30"),
        ({"n_schools": 2, "n_students": [5, 0]}, ValueError, r"n_students\[1\] is 0"),
        ({"sd_slope": -1}, ValueError, "sd_slope is -1"),
        ({"correlation": 2}, ValueError, "correlation is 2"),
        ({"slope": "steep"}, TypeError, "slope is 'steep'"),
        ({"sd_residual": 0}, ValueError, "sd_residual is 0"),
        ({"hours": (10, 1)}, ValueError, "hours is .*smaller number first"),
        ({"hours": 5}, TypeError, "hours is 5; give a pair"),
        ({"hours": [1, 2, np.nan]}, TypeError, "hours is .*give a pair"),
        ({"hours": [3, 3, 3]}, ValueError, "hours are all 3.0"),
        ({"cost_per_school": -5}, ValueError, "cost_per_school is -5"),
        ({"cost_per_student": None}, ValueError, "cost_per_student is None"),
    ],
)
def test_designs_that_cannot_be(arguments, error, words):
    with pytest.raises(error, match=words):
        Design(**{"n_schools": 30, "n_students": 20} | arguments)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"design": {"n_schools": 30}}, TypeError, "design is a dict; give a Design"),
        ({"n_simulations": 1}, ValueError, "n_simulations is 1; give 2 or more"),
        ({"n_simulations": 10.0}, TypeError, "n_simulations is 10.0"),
        ({"n_draws": 0}, ValueError, "n_draws is 0"),
        ({"alpha": 5}, ValueError, "alpha is 5; give a number between 0 and 1"),
        ({"seed": None}, TypeError, "seed is None; give a whole number"),
        ({"seed": -1}, ValueError, "seed is -1"),
    ],
)
@pytest.mark.parametrize("function", [power.power, power.curve])
def test_calls_that_cannot_be(function, arguments, error, words):
    fine = {"design": Design(20, 6), "seed": 1, "n_simulations": 4}
    over = {"over": SMALL} if function is power.curve else {}
    with pytest.raises(error, match=words):
        function(**fine | over | arguments)


@pytest.mark.parametrize(
    "over, error, words",
    [
        ({}, ValueError, "over has no design"),
        ({"n_schools": []}, ValueError, "over has no design"),
        ({"schools": [10]}, ValueError, "over has 'schools', which a Design has not: n_schools"),
        ({"n_schools": 10}, TypeError, r"over\['n_schools'\] is 10; give a list"),
        (["n_schools"], TypeError, "over is a list; give a dict"),
        ({"n_schools": [10, 1]}, ValueError, "n_schools is 1"),
    ],
)
def test_grids_that_cannot_be(over, error, words):
    with pytest.raises(error, match=words):
        quietly(power.curve, Design(20, 6), over)


@pytest.mark.parametrize(
    "hours, words",
    [
        (lambda rng, n: np.ones(n + 1), r"hours\(rng, 6\) returned shape \(7,\); return 6 numbers"),
        (lambda rng, n: np.full(n, np.nan), "with missing or infinite values"),
    ],
)
def test_functions_of_hours_that_cannot_be(hours, words):
    with pytest.raises(ValueError, match=words):
        quietly(power.power, Design(20, 6, hours=hours), n_simulations=4)
