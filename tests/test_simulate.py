"""The simulations: known facts of the tutorial's data, known truth recovered, clear errors.

Where a simulated quantity is compared with its truth, the tolerance is four Monte Carlo standard
errors, stated beside it. The seeds are fixed, so a test that passes keeps passing.
"""

import doctest
import inspect
import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from helpers import simulate

TRUTH = {
    "intercept": 60.0,
    "slope": 2.0,
    "sd_intercept": 4.0,
    "sd_slope": 0.8,
    "correlation": 0.3,
    "sd_residual": 5.0,
}


# The tutorial's three schools ------------------------------------------------------------


def test_article_example_has_the_published_shape():
    data = simulate.article_example()
    assert list(data.columns) == ["student_id", "school_id", "app_hours", "math_score"]
    assert data["school_id"].value_counts().to_dict() == {f"School_{j}": 10 for j in range(3)}
    assert data["student_id"].iloc[[0, 9, 10, 29]].tolist() == ["S_0_0", "S_0_9", "S_1_0", "S_2_9"]
    assert data["app_hours"].between(1, 10).all()


def test_article_example_gives_the_published_ols_line():
    fit = smf.ols("math_score ~ app_hours", simulate.article_example()).fit()
    assert fit.params.round(3).tolist() == [61.034, 3.294]


def test_article_example_gives_the_published_random_intercept():
    data = simulate.article_example()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = smf.mixedlm("math_score ~ app_hours", data, groups="school_id").fit()
    assert fit.fe_params.round(3).tolist() == [63.526, 2.759]
    assert round(fit.cov_re.iloc[0, 0], 2) == 42.34
    assert round(fit.scale, 2) == 28.61


def test_article_example_knows_what_was_drawn():
    data = simulate.article_example()
    schools = pd.DataFrame(data.attrs["truth"]["schools"]).set_index("school_id")
    errors = data["math_score"] - (
        data["school_id"].map(schools["intercept"]).astype(float)
        + data["school_id"].map(schools["slope"]).astype(float) * data["app_hours"]
    )
    # 30 errors from N(0, 5): their SD has a Monte Carlo standard error of 5/√60.
    assert abs(errors.std(ddof=0) - 5) < 4 * 5 / np.sqrt(60)


# Schools ---------------------------------------------------------------------------------


def test_schools_has_the_promised_columns_and_names():
    data = simulate.schools(30, 20, seed=1)
    assert data.dtypes.map(pd.api.types.is_numeric_dtype).to_dict() == {
        "student_id": False,
        "school_id": False,
        "app_hours": True,
        "math_score": True,
    }
    assert data["school_id"].unique().tolist() == [f"School_{j:02d}" for j in range(30)]
    assert data["student_id"].is_unique
    assert data["student_id"].iloc[[0, -1]].tolist() == ["S_0_0", "S_29_19"]


@pytest.mark.parametrize(("n_schools", "last"), [(10, "9"), (11, "10"), (101, "100")])
def test_school_names_are_as_wide_as_needed(n_schools, last):
    schools = simulate.schools(n_schools, 1, seed=1)["school_id"]
    assert schools.iloc[-1] == f"School_{last}"
    assert schools.is_monotonic_increasing


def test_schools_can_differ_in_size():
    data = simulate.schools(3, [2, 40, 7], seed=1)
    assert data.groupby("school_id").size().tolist() == [2, 40, 7]
    pd.testing.assert_frame_equal(data, simulate.schools(3, np.array([2, 40, 7]), seed=1))


def test_the_truth_is_a_plain_dictionary():
    data = simulate.schools(4, 2, sd_slope=0, seed=np.int64(7))
    truth = data.attrs["truth"]
    schools = truth.pop("schools")
    assert truth == {**TRUTH, "sd_slope": 0.0, "seed": 7}
    assert json.loads(json.dumps(schools)) == schools
    assert schools["school_id"] == data["school_id"].unique().tolist()
    assert schools["slope"] == [2.0] * 4


def test_the_truth_is_the_lines_that_the_scores_lie_on():
    data = simulate.schools(5, 6, sd_residual=0, seed=3)
    lines = pd.DataFrame(data.attrs["truth"]["schools"]).set_index("school_id")
    own = lines.loc[data["school_id"]]
    expected = own["intercept"].to_numpy() + own["slope"].to_numpy() * data["app_hours"]
    np.testing.assert_allclose(data["math_score"], expected, rtol=1e-13)


def test_the_seed_decides_the_data():
    first, again, other = (simulate.schools(5, 4, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not np.allclose(first["math_score"], other["math_score"])
    from_generator = simulate.schools(5, 4, seed=np.random.default_rng(1))
    np.testing.assert_array_equal(first["math_score"], from_generator["math_score"])
    assert from_generator.attrs["truth"]["seed"] is None


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - its state is what is checked
    simulate.article_example()
    simulate.schools(5, 4, seed=1)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_changing_one_parameter_changes_nothing_else():
    a = simulate.schools(5, 4, seed=1)
    b = simulate.schools(5, 4, slope=3.0, seed=1)
    np.testing.assert_allclose(b["math_score"] - a["math_score"], a["app_hours"], rtol=1e-12)


def test_school_coefficients_have_the_true_moments():
    n = 40_000
    drawn = simulate.schools(n, 1, seed=11).attrs["truth"]["schools"]
    intercepts, slopes = np.array(drawn["intercept"]), np.array(drawn["slope"])
    root = np.sqrt(n)
    assert abs(intercepts.mean() - 60) < 4 * 4 / root
    assert abs(slopes.mean() - 2) < 4 * 0.8 / root
    # Of a normal sample's SD and correlation the standard errors are σ/√(2n) and (1 − ρ²)/√n.
    assert abs(intercepts.std() - 4) < 4 * 4 / (root * np.sqrt(2))
    assert abs(slopes.std() - 0.8) < 4 * 0.8 / (root * np.sqrt(2))
    assert abs(np.corrcoef(intercepts, slopes)[0, 1] - 0.3) < 4 * (1 - 0.3**2) / root


def test_hours_and_errors_have_the_true_moments():
    n = 40_000
    data = simulate.schools(1, n, hours=(2, 8), sd_intercept=0, sd_slope=0, seed=12)
    hours, errors = data["app_hours"], data["math_score"] - 60 - 2 * data["app_hours"]
    assert hours.between(2, 8).all()
    assert abs(hours.mean() - 5) < 4 * (6 / np.sqrt(12)) / np.sqrt(n)
    assert abs(errors.mean()) < 4 * 5 / np.sqrt(n)
    assert abs(errors.std() - 5) < 4 * 5 / np.sqrt(2 * n)
    assert abs(np.corrcoef(hours, errors)[0, 1]) < 4 / np.sqrt(n)


@pytest.mark.parametrize("rho", [-1, 1])
def test_a_perfect_correlation_is_allowed(rho):
    drawn = simulate.schools(50, 1, correlation=rho, seed=1).attrs["truth"]["schools"]
    u0, u1 = np.array(drawn["intercept"]) - 60, np.array(drawn["slope"]) - 2
    np.testing.assert_allclose(u1, rho * 0.8 / 4 * u0, atol=1e-12)


def test_no_spread_at_all_gives_one_line():
    data = simulate.schools(3, 4, sd_intercept=0, sd_slope=0, sd_residual=0, seed=1)
    np.testing.assert_allclose(data["math_score"], 60 + 2 * data["app_hours"], rtol=1e-13)


# Replicates ------------------------------------------------------------------------------


def test_replicates_have_the_mean_and_covariance_of_the_model():
    design = simulate.schools(3, [1, 2, 3], seed=5)
    n = 40_000
    scores = simulate.replicates(design, n, correlation=-0.4, seed=6)
    assert scores.shape == (n, 6)

    hours = design["app_hours"].to_numpy()
    z = np.column_stack([np.ones(6), hours])
    psi = np.array([[16, -0.4 * 4 * 0.8], [-0.4 * 4 * 0.8, 0.64]])
    same = np.equal.outer(design["school_id"].to_numpy(), design["school_id"].to_numpy())
    covariance = (z @ psi @ z.T) * same + 25 * np.eye(6)

    mean_se = np.sqrt(np.diag(covariance) / n)
    assert (abs(scores.mean(axis=0) - (60 + 2 * hours)) < 4 * mean_se).all()
    # Var(s_ab) = (σ_aa σ_bb + σ_ab²)/n for normal data.
    variances = np.diag(covariance)
    covariance_se = np.sqrt((np.outer(variances, variances) + covariance**2) / n)
    assert (abs(np.cov(scores, rowvar=False) - covariance) < 4 * covariance_se).all()


def test_replicates_follow_the_rows_in_any_order_and_under_any_index():
    design = simulate.schools(4, 3, seed=1)
    shuffled = design.sample(frac=1, random_state=1)
    scores = simulate.replicates(shuffled, 2, sd_residual=0, seed=1)
    for school in shuffled["school_id"].unique():
        rows = (shuffled["school_id"] == school).to_numpy()
        hours = shuffled.loc[rows, "app_hours"].to_numpy()
        line = np.polynomial.Polynomial.fit(hours, scores[0, rows], 1)
        np.testing.assert_allclose(line(hours), scores[0, rows], rtol=1e-9)


def test_replicates_take_any_table_with_the_two_columns():
    design = pd.DataFrame({"school_id": [7, 7, 3], "app_hours": [1, 2, 3]})
    assert simulate.replicates(design, 2, seed=1).shape == (2, 3)


def test_replicates_are_reproducible_and_leave_the_table_alone():
    design = simulate.article_example()
    before = design.copy()
    first = simulate.replicates(design, 5, seed=1)
    np.testing.assert_array_equal(first, simulate.replicates(design, 5, seed=1))
    pd.testing.assert_frame_equal(design, before)


def test_schools_and_replicates_have_the_same_defaults():
    for function in (simulate.schools, simulate.replicates):
        parameters = inspect.signature(function).parameters
        assert {name: parameters[name].default for name in TRUTH} == TRUTH


# Bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_schools": 0}, ValueError, "n_schools is 0; give 1 or more"),
        ({"n_schools": 3.0}, TypeError, "n_schools is 3.0; give a whole number"),
        ({"n_schools": True}, TypeError, "n_schools is True; give a whole number"),
        ({"n_students": 0}, ValueError, "n_students is 0; give 1 or more"),
        ({"n_students": "20"}, TypeError, "n_students is '20'; give a whole number, or one for"),
        ({"n_students": 2.5}, TypeError, "n_students is 2.5; give a whole number, or one for"),
        ({"n_students": [2, 3]}, ValueError, "n_students has 2 numbers for n_schools=3; give one"),
        ({"n_students": [2, 0, 3]}, ValueError, "n_students[1] is 0; give 1 or more"),
        ({"n_students": [2, 2.5, 3]}, TypeError, "n_students[1] is 2.5; give a whole number"),
        ({"sd_intercept": -4}, ValueError, "sd_intercept is -4.0; a standard deviation is 0 or"),
        ({"sd_slope": -0.8}, ValueError, "sd_slope is -0.8; a standard deviation is 0 or more"),
        ({"sd_residual": -5}, ValueError, "sd_residual is -5.0; a standard deviation is 0 or more"),
        ({"correlation": 1.01}, ValueError, "correlation is 1.01; give a number from -1 to 1"),
        ({"correlation": -2}, ValueError, "correlation is -2.0; give a number from -1 to 1"),
        ({"intercept": np.nan}, ValueError, "intercept is nan; give a finite number"),
        ({"slope": "2"}, TypeError, "slope is '2'; give a number"),
        ({"hours": (10, 1)}, ValueError, "hours is (10.0, 1.0); give the smaller number first"),
        ({"hours": 5}, TypeError, "hours is 5; give a pair of numbers such as (1, 10)"),
        ({"hours": (1, np.inf)}, ValueError, "hours[1] is inf; give a finite number"),
        ({"seed": None}, TypeError, "seed is None; give a whole number such as seed=1"),
        ({"seed": -1}, ValueError, "seed is -1; give 0 or more"),
        ({"seed": 1.5}, TypeError, "seed is 1.5; give a whole number such as seed=1"),
    ],
)
def test_schools_says_what_is_wrong(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        simulate.schools(**{"n_schools": 3, "n_students": 2, "seed": 1, **arguments})


def test_the_seed_must_be_given_by_name():
    with pytest.raises(TypeError, match="seed"):
        simulate.schools(3, 2)
    with pytest.raises(TypeError, match="seed"):
        simulate.replicates(simulate.article_example(), 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d.to_dict(), TypeError, "data is a dict; give a pandas DataFrame"),
        (lambda d: d.drop(columns="app_hours"), ValueError, "data has no column 'app_hours'"),
        (lambda d: d.iloc[:0], ValueError, "data has 0 rows; give at least one student"),
        (lambda d: d.assign(app_hours="2"), TypeError, "turn it into numbers"),
        (lambda d: d.assign(app_hours=np.inf), ValueError, "data has 30 row(s) with missing"),
        (
            lambda d: d.assign(school_id=d["school_id"].where(d.index > 0)),
            ValueError,
            "data has 1 row(s) with missing",
        ),
    ],
)
def test_replicates_says_what_is_wrong_with_the_table(change, error, message):
    with pytest.raises(error, match=re.escape(message)):
        simulate.replicates(change(simulate.article_example()), 2, seed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_replicates": 0}, "n_replicates is 0; give 1 or more"),
        ({"correlation": 3}, "correlation is 3.0; give a number from -1 to 1"),
        ({"sd_residual": -1}, "sd_residual is -1.0; a standard deviation is 0 or more"),
    ],
)
def test_replicates_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        simulate.replicates(
            simulate.article_example(), **{"n_replicates": 2, "seed": 1, **arguments}
        )


def test_the_examples_in_the_docstrings_are_right():
    assert doctest.testmod(simulate).failed == 0
