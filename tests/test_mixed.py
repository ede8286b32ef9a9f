"""helpers.mixed: fits, tables, predictions, comparison, bootstrap.

Figures marked "lme4" were computed with lme4 1.1.31 in R; "SAS" is Singer (1998),
doi:10.3102/10769986023004323, with PROC MIXED.
"""

import doctest
import importlib
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from helpers import datasets, mixed, mixed_refits, simulate
from helpers.likelihood import Likelihood


@pytest.fixture(scope="module")
def hsb():
    data = datasets.load("hsb")
    return data.assign(cses=data["ses"] - data["meanses"])


@pytest.fixture(scope="module")
def sleep():
    return datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def sleep_fit(sleep):
    return mixed.fit("reaction ~ days", sleep, groups="subject", re_formula="~days")


@pytest.fixture(scope="module")
def article_fit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mixed.SingularFitWarning)
        data = simulate.article_example()
        return mixed.fit("math_score ~ app_hours", data, "school_id", "~app_hours")


@pytest.fixture(scope="module")
def school_data():
    return simulate.schools(12, 8, seed=1)


@pytest.fixture(scope="module")
def school_fit(school_data):
    return mixed.fit("math_score ~ app_hours", school_data, "school_id", "~app_hours")


@pytest.mark.parametrize("name", ["fit", "variances", "predict", "refits"])
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"helpers.mixed_{name}"))
    assert result.attempted > 3
    assert result.failed == 0


# ---------------------------------------------------------------------------------------- fits


def check(result, criterion, fixed, errors, variances, scale):
    """Compare a fit with published figures, to their last digit or so."""
    assert result.converged
    assert result.criterion == pytest.approx(criterion, abs=0.01)
    np.testing.assert_allclose(np.asarray(result.fe_params), fixed, atol=6e-4)
    np.testing.assert_allclose(np.asarray(result.bse_fe), errors, atol=6e-4)
    lower = np.asarray(result.cov_re)[np.tril_indices(len(result.cov_re))]
    np.testing.assert_allclose(lower, variances, atol=6e-4, rtol=2e-5)
    assert result.scale == pytest.approx(scale, abs=6e-4, rel=1e-5)


def test_hsb_null_model(hsb):
    result = mixed.fit("mathach ~ 1", hsb, groups="school")
    check(result, 47116.79, [12.637], [0.244], [8.614], 39.148)


def test_hsb_means_as_outcomes(hsb):
    result = mixed.fit("mathach ~ meanses", hsb, groups="school")
    assert result.criterion == pytest.approx(46961.3, abs=0.06)
    np.testing.assert_allclose(result.fe_params, [12.6495, 5.8635], atol=6e-4)
    np.testing.assert_allclose(result.bse_fe, [0.149, 0.361], atol=6e-4)
    assert result.cov_re.iloc[0, 0] == pytest.approx(2.636, abs=0.004)
    assert result.scale == pytest.approx(39.158, abs=0.002)


def test_hsb_random_coefficients(hsb):
    result = mixed.fit("mathach ~ cses", hsb, groups="school", re_formula="~cses")
    check(result, 46714.24, [12.649, 2.193], [0.245, 0.128], [8.682, 0.051, 0.694], 36.700)
    assert not result.singular


def test_hsb_full_model(hsb):
    formula = "mathach ~ meanses * cses + C(sector, Treatment('public')) * cses"
    result = mixed.fit(formula, hsb, groups="school", re_formula="~cses")
    fixed = result.fe_params.round(3).tolist()
    assert sorted(fixed) == [-1.643, 1.039, 1.217, 2.939, 5.339, 12.114]
    assert sorted(result.bse_fe.round(3)) == [0.155, 0.199, 0.240, 0.299, 0.306, 0.369]
    assert result.cov_re.iloc[0, 0] == pytest.approx(2.382, abs=6e-4)
    assert result.cov_re.iloc[1, 1] == pytest.approx(0.101, abs=6e-4)
    assert result.scale == pytest.approx(36.721, abs=6e-4)
    assert result.criterion == pytest.approx(46503.66, abs=0.01)


def test_sleepstudy(sleep_fit):
    # lme4 prints 612.10, a little beside the optimum
    variances = [612.090, 9.604, 35.072]
    check(sleep_fit, 1743.628, [251.405, 10.467], [6.825, 1.546], variances, 654.941)
    correlation = sleep_fit.cov_re.iloc[0, 1] / np.sqrt(np.prod(np.diag(sleep_fit.cov_re)))
    assert correlation == pytest.approx(0.066, abs=5e-4)


def test_article_example_is_found_to_be_singular():
    data = simulate.article_example()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = mixed.fit("math_score ~ app_hours", data, "school_id", "~app_hours")
    assert [w.category for w in caught] == [mixed.SingularFitWarning]
    assert "correlation of Intercept and app_hours is 1" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert result.singular and result.converged
    # lme4
    assert result.criterion == pytest.approx(186.551, abs=5e-4)
    np.testing.assert_allclose(result.fe_params, [64.0036, 2.6006], atol=2e-4)
    np.testing.assert_allclose(result.bse_fe, [3.2284, 0.4886], atol=2e-4)
    np.testing.assert_allclose(np.diag(result.cov_re), [18.155, 0.2281], rtol=1e-4)
    assert result.cov_re.iloc[0, 1] ** 2 == pytest.approx(np.prod(np.diag(result.cov_re)))


def test_singular_fit_is_a_whole_result(article_fit):
    # lme4's conditional modes, where statsmodels would raise
    np.testing.assert_allclose(article_fit.random_effects["School_0"], [-4.0774, -0.45705], 1e-4)
    assert article_fit.random_effects_cov["School_0"].shape == (2, 2)
    np.testing.assert_allclose(
        article_fit.fittedvalues + article_fit.resid, article_fit.model.endog
    )
    text = article_fit.summary().as_text()
    assert "Singular fit" in text
    row = next(line for line in text.splitlines() if line.startswith("app_hours Var"))
    assert row.split() == ["app_hours", "Var", "0.228"]
    assert article_fit.bse_re.isna().all() and article_fit.bse_fe.notna().all()
    assert np.isfinite(article_fit.t_test(np.eye(2)).sd).all()
    assert article_fit.conf_int().iloc[:2].notna().all(axis=None)
    assert article_fit.conf_int().iloc[2:].isna().all(axis=None)


def test_variance_of_zero_is_said_to_be_zero():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(range(20), 5), "y": rng.normal(size=100)})
    data["y"] -= data.groupby("g")["y"].transform("mean")
    with pytest.warns(mixed.SingularFitWarning, match="variance of Intercept is zero"):
        result = mixed.fit("y ~ 1", data, "g")
    assert result.cov_re.iloc[0, 0] == pytest.approx(0, abs=1e-12)
    ordinary = smf.ols("y ~ 1", data).fit()
    assert result.bse_fe.iloc[0] == pytest.approx(ordinary.bse.iloc[0])
    assert result.scale == pytest.approx(ordinary.scale)


@pytest.mark.parametrize("reml", [True, False])
def test_same_as_statsmodels_where_that_reaches_the_optimum(sleep, reml):
    ours = mixed.fit("reaction ~ days", sleep, "subject", "~days", reml=reml)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = smf.mixedlm("reaction ~ days", sleep, groups="subject", re_formula="~days").fit(
            reml=reml
        )
    assert ours.llf == pytest.approx(theirs.llf, abs=1e-6)
    pd.testing.assert_series_equal(ours.params, theirs.params, rtol=2e-4)
    pd.testing.assert_frame_equal(ours.cov_re, theirs.cov_re, rtol=2e-4)
    pd.testing.assert_series_equal(ours.bse_fe, theirs.bse_fe, rtol=1e-4)
    # Those of params, which are variances over σ²; only what is made of them differs.
    np.testing.assert_allclose(ours.bse, theirs.bse, rtol=1e-3)
    for label, effects in theirs.random_effects.items():
        pd.testing.assert_series_equal(ours.random_effects[label], effects, atol=2e-3)
        pd.testing.assert_frame_equal(
            ours.random_effects_cov[label], theirs.random_effects_cov[label], rtol=1e-3
        )
    np.testing.assert_allclose(ours.fittedvalues, theirs.fittedvalues, atol=1e-3)
    np.testing.assert_allclose(ours.predict(sleep), theirs.predict(sleep), atol=1e-3)
    np.testing.assert_allclose([ours.aic, ours.bic], [theirs.aic, theirs.bic], atol=1e-5)
    rows = zip(*(_rows(result) for result in (ours, theirs)), strict=True)
    for number, (mine, other) in enumerate(rows):
        if number < 6 or "Var" not in mine and "Cov" not in mine:
            assert _to_two_places(mine) == _to_two_places(other)
        else:  # the standard errors of variances differ, and only they
            assert _to_two_places(mine[:-6]) == _to_two_places(other[:-6])


def _rows(result):
    return result.summary().as_text().splitlines()


def _to_two_places(line):
    words = []
    for word in line.split():
        try:
            words.append(f"{float(word):.1f}")
        except ValueError:
            words.append(word)
    return words[:-1] if "Var" in line or "Cov" in line else words


def test_statsmodels_own_idioms_work(sleep, sleep_fit):
    assert type(sleep_fit).__name__ == "MixedLMResultsWrapper"
    assert list(sleep_fit.params.index) == [
        "Intercept", "days", "subject Var", "subject x days Cov", "days Var"
    ]  # fmt: skip
    assert list(sleep_fit.cov_re.columns) == ["subject", "days"]
    assert sleep_fit.cov_params().shape == (5, 5)
    assert sleep_fit.conf_int().shape == (5, 2)
    assert sleep_fit.tvalues.shape == sleep_fit.pvalues.shape == (5,)
    assert sleep_fit.t_test(np.array([[0, 1]])).effect[0] == pytest.approx(10.467, abs=1e-3)
    assert np.isnan(sleep_fit.aic) and sleep_fit.nobs == 180
    profile = sleep_fit.profile_re(1, "re", num_low=1, num_high=1, dist_low=1.0)
    assert profile[1] == pytest.approx([sleep_fit.cov_re.iloc[1, 1], sleep_fit.llf], abs=1e-3)
    copy = pickle.loads(pickle.dumps(sleep_fit))
    assert copy.summary().as_text() == sleep_fit.summary().as_text()
    pd.testing.assert_frame_equal(
        mixed.predict(copy, sleep, target="group"), mixed.predict(sleep_fit, sleep, target="group")
    )


def test_units_do_not_matter(hsb):
    plain = mixed.fit("mathach ~ ses", hsb, "school", "~ses")
    odd = hsb.assign(mathach=hsb["mathach"] * 1e6, ses=2e5 + 1e4 * hsb["ses"])
    result = mixed.fit("mathach ~ ses", odd, "school", "~ses")
    slope = result.cov_re.iloc[1, 1] * (1e4 / 1e6) ** 2
    assert slope == pytest.approx(plain.cov_re.iloc[1, 1], rel=1e-4)
    table, other = mixed.variance_table(plain), mixed.variance_table(result)
    for column in ("se", "lower", "upper"):
        ratio = other[column].iloc[2] / table[column].iloc[2] * (1e4 / 1e6) ** 2
        assert ratio == pytest.approx(1, rel=1e-3)


def test_an_origin_far_away_does_not_matter(sleep, sleep_fit):
    far = sleep.assign(days=sleep["days"] + 738_000)  # as calendar days are counted
    result = mixed.fit("reaction ~ days", far, "subject", "~days")
    assert result.criterion == pytest.approx(sleep_fit.criterion, abs=1e-6)
    for on in ("variance", "sd"):
        table, other = mixed.variance_table(sleep_fit, on=on), mixed.variance_table(result, on=on)
        for column in ("se", "lower", "upper"):
            np.testing.assert_allclose(other[column][2:], table[column][2:], rtol=1e-4)
    assert np.isfinite(other["upper"][0])
    for target in ("population", "group", "new group"):
        pd.testing.assert_frame_equal(
            mixed.predict(result, far, target=target),
            mixed.predict(sleep_fit, sleep, target=target),
            rtol=1e-4,
        )


# -------------------------------------------------------------------------- formulas and rows


def test_groups_by_name_and_by_array_give_the_same_fit(school_data):
    by_name = mixed.fit("math_score ~ app_hours", school_data, "school_id")
    for groups in (
        school_data["school_id"],
        school_data["school_id"].astype("category").to_numpy(),
    ):
        result = mixed.fit("math_score ~ app_hours", school_data, groups)
        assert result.criterion == by_name.criterion
        assert list(result.cov_re.index) == ["Group"]
    assert list(by_name.cov_re.index) == ["school_id"]


def test_missing_rows_are_dropped_and_groups_stay_aligned(school_data):
    holed = school_data.assign(unused=np.nan)
    holed.loc[3, "math_score"] = np.nan
    holed.loc[[5, 6], "app_hours"] = np.nan
    holed.loc[40, "school_id"] = None
    clean = holed.drop(index=[3, 5, 6, 40])
    expected = mixed.fit("math_score ~ app_hours", clean, "school_id")
    for groups in ("school_id", holed["school_id"].to_numpy()):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = mixed.fit("math_score ~ app_hours", holed, groups)
        assert [str(w.message) for w in caught] == [
            "4 of 96 rows have missing values and were left out"
        ]
        assert caught[0].category is mixed.MissingRowsWarning
        assert caught[0].filename == __file__
        assert result.n_dropped == 4
        assert result.criterion == pytest.approx(expected.criterion, abs=1e-9)


def test_variables_and_transformations_of_the_caller(school_data):
    shift = 2.0

    def hours(x):
        return x - shift

    formula = "np.log(math_score) ~ hours(app_hours) + I(app_hours**2)"
    result = mixed.fit(formula, school_data, "school_id", "~I(app_hours - shift)")
    assert result.model.exog_names[1:] == ["hours(app_hours)", "I(app_hours ** 2)"]
    assert result.random_terms == ["Intercept", "I(app_hours - shift)"]
    np.testing.assert_allclose(result.model.exog[:, 1], result.model.exog_re[:, 1])


def test_quoted_and_categorical_columns(school_data):
    data = school_data.rename(columns={"app_hours": "app hours"})
    data["arm"] = np.where(np.arange(len(data)) % 3, "b", "a")
    result = mixed.fit("math_score ~ Q('app hours') + C(arm)", data, "school_id")
    table = mixed.predict(result, pd.DataFrame({"app hours": [1.0, 2.0], "arm": ["a", "b"]}))
    assert table["mean"].notna().all()


@pytest.mark.filterwarnings("ignore:invalid value encountered in log:RuntimeWarning")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formula": "math_score ~ app_hour"}, "no column 'app_hour'; did you mean 'app_hours'"),
        ({"formula": "math_score"}, "response ~ predictors"),
        ({"formula": "math_score ~ app_hours + (1 | school_id)"}, "re_formula='~hours'"),
        ({"formula": "math_score ~ app_hours +"}, "expected a noun"),
        ({"formula": "math_score ~ np.log(app_hours - 5)"}, "logarithm of a negative"),
        ({"formula": "school_id ~ app_hours"}, "the response 'school_id'"),
        ({"formula": "math_score ~ app_hours + I(2 * app_hours)"}, r"'I\(2 \* app_hours\)'"),
        ({"groups": "school"}, "did you mean 'school_id'"),
        ({"groups": ["a", "b"]}, "one label for each of the 96 rows"),
        ({"groups": "student_id"}, "96 random effects for 96 rows"),
        ({"re_formula": "app_hours"}, "begin with '~'"),
        ({"re_formula": "~0"}, "no term"),
        ({"re_formula": "~app_hours + I(2 * app_hours)"}, "re_formula .* rank-deficient"),
    ],
)
def test_mistakes_are_named(school_data, change, message):
    arguments = {"formula": "math_score ~ app_hours", "groups": "school_id"} | change
    with pytest.raises(ValueError, match=message):
        mixed.fit(data=school_data, **arguments)


def test_other_mistakes(school_data):
    with pytest.raises(TypeError, match="DataFrame"):
        mixed.fit("y ~ x", {"y": [1], "x": [2]}, "g")
    shuffled = school_data["school_id"].sample(frac=1, random_state=1)
    with pytest.raises(ValueError, match="paired wrongly"):
        mixed.fit("math_score ~ app_hours", school_data, shuffled)
    with pytest.raises(ValueError, match="no complete row"):
        mixed.fit("math_score ~ app_hours", school_data.assign(app_hours=np.nan), "school_id")
    with pytest.raises(ValueError, match="needs at least 2"):
        mixed.fit("math_score ~ app_hours", school_data.head(8), "school_id")
    with pytest.raises(TypeError, match="what mixed.fit returns"):
        mixed.icc(smf.ols("math_score ~ app_hours", school_data).fit())


# ------------------------------------------------------------------------------------- tables


def dense_deviance(result, vech, sigma2):
    """−2 (restricted) log-likelihood from the covariance matrix of all rows, less a constant."""
    model, q = result.model, len(result.random_terms)
    psi = np.zeros((q, q))
    psi[np.tril_indices(q)] = vech
    psi = psi + np.tril(psi, -1).T
    X, y, Z = model.exog, model.endog, model.exog_re
    same = result.group_index[:, None] == result.group_index
    V = sigma2 * np.eye(len(y)) + same * (Z @ psi @ Z.T)
    VX, Vy = np.linalg.solve(V, X), np.linalg.solve(V, y)
    information = X.T @ VX
    rest = y @ Vy - (X.T @ Vy) @ np.linalg.solve(information, X.T @ Vy)
    restricted = np.linalg.slogdet(information)[1] if result.reml else 0.0
    return np.linalg.slogdet(V)[1] + restricted + rest


@pytest.mark.parametrize("reml", [True, False])
def test_likelihood_and_slopes_agree_with_dense_algebra(sleep, reml):
    result = mixed.fit("reaction ~ days", sleep, "subject", "~days", reml=reml)
    hill = Likelihood(result.optimum)
    root, sigma = np.array([[22.0, 0.0], [1.0, 6.0]]), 25.0
    best = dense_deviance(result, np.asarray(result.cov_re)[np.tril_indices(2)], result.scale)

    def dense(root, sigma):
        return dense_deviance(result, (root @ root.T)[np.tril_indices(2)], sigma**2) - best

    rise, by_root, by_sigma = hill.deviance(root, sigma)
    assert rise == pytest.approx(dense(root, sigma), abs=1e-8)
    for i, j in np.ndindex(2, 2):
        step = np.zeros((2, 2))
        step[i, j] = 1e-3
        numeric = (dense(root + step, sigma) - dense(root - step, sigma)) / 2e-3
        assert by_root[i, j] == pytest.approx(numeric, rel=1e-4, abs=1e-6)
    numeric = (dense(root, sigma + 1e-3) - dense(root, sigma - 1e-3)) / 2e-3
    assert by_sigma == pytest.approx(numeric, rel=1e-4, abs=1e-6)
    assert hill.deviance(result.root, result.scale**0.5)[0] == pytest.approx(0, abs=1e-9)


def test_standard_errors_of_variances_are_those_of_the_numerical_hessian(sleep_fit):
    result = sleep_fit
    at = np.append(np.asarray(result.cov_re)[np.tril_indices(2)], result.scale)
    steps = np.diag(0.02 * np.array([at[0], 40.0, at[2], at[3]]))

    def value(parameters):
        return dense_deviance(result, parameters[:-1], parameters[-1])

    hessian = np.array(
        [
            [
                value(at + a + b) - value(at + a - b) - value(at - a + b) + value(at - a - b)
                for b in steps
            ]
            for a in steps
        ]
    ) / np.outer(4 * steps.sum(axis=0), steps.sum(axis=0))
    expected = np.sqrt(np.diag(np.linalg.inv(hessian / 2)))
    table = mixed.variance_table(result)
    np.testing.assert_allclose(table["se"], expected, rtol=3e-3)
    np.testing.assert_allclose(result.bse_re, expected[:-1], rtol=3e-3)


def test_standard_errors_beside_a_correlation_near_one():
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"school": np.repeat(np.arange(30), 6), "x": rng.normal(3, 1, 180)})
    tilt, noise = rng.normal(size=(2, 30)), rng.normal(size=180)
    start, slope = 2 * tilt[0], 2 * tilt[0] + 0.15 * tilt[1]
    data["y"] = 1 + start[data["school"]] + slope[data["school"]] * data["x"] + noise
    result = mixed.fit("y ~ x", data, "school", "~x")
    # second differences of the dense deviance, with 50 digits
    expected = [1.94159579, 1.43632922, 1.31715811, 0.12823062]
    np.testing.assert_allclose(mixed.variance_table(result)["se"], expected, rtol=1e-7)


def test_standard_errors_of_hsb_variances(hsb):
    result = mixed.fit("mathach ~ 1", hsb, "school")
    # 1.0788 and 0.6606: the Hessian of lme4's fit by R's numDeriv; SAS gives 1.078 and 0.661
    np.testing.assert_allclose(mixed.variance_table(result)["se"], [1.0788, 0.6606], atol=1e-4)
    slopes = mixed.fit("mathach ~ cses", hsb, "school", "~cses")
    np.testing.assert_allclose(
        slopes.bse_re, [1.0796, 0.4064, 0.2808], atol=1e-4
    )  # R's numDeriv on lme4's fit


def test_profile_intervals_agree_with_lme4(sleep):
    result = mixed.fit("reaction ~ days", sleep, "subject", "~days", reml=False)
    table = mixed.variance_table(result, on="sd")
    # lme4: confint(lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE))
    np.testing.assert_allclose(table["lower"], [14.3815, -0.4815, 3.8012, 22.8983], atol=2e-4)
    np.testing.assert_allclose(table["upper"], [37.7160, 0.6850, 8.7534, 28.8580], atol=2e-4)
    squared = mixed.variance_table(result)
    np.testing.assert_allclose(squared["upper"][[0, 2, 3]], table["upper"][[0, 2, 3]] ** 2, 1e-4)
    narrow = mixed.variance_table(result, level=0.8)
    assert (narrow["lower"] > squared["lower"]).all() and (narrow["upper"] < squared["upper"]).all()


def test_profile_interval_at_the_boundary(article_fit):
    table = mixed.variance_table(article_fit, on="sd")
    assert table["se"].isna().all()
    assert table["lower"].tolist()[:3] == [0.0, -1.0, 0.0]
    assert table["upper"][1] == 1.0
    assert table["correlation"][1] == pytest.approx(1.0)
    assert (table["upper"] > table["sd"].fillna(0)).all()
    # The end is where the deviance has risen by 3.84, here with one parameter left to profile.
    one = mixed.fit("math_score ~ app_hours", simulate.article_example(), "school_id")
    row = mixed.variance_table(one).iloc[0]
    at_best = dense_deviance(one, [row["variance"]], one.scale)
    for end in (row["lower"], row["upper"]):
        best = min(dense_deviance(one, [end], s) for s in np.linspace(15, 60, 2000))
        assert best - at_best == pytest.approx(stats.chi2.ppf(0.95, 1), abs=2e-4)


@pytest.mark.parametrize("terms", ["~x", "~x + w"])
def test_intervals_stay_when_groups_differ_ever_more(terms):
    """Rows that hardly stray say of the groups no more than rows that stray not at all."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"school": np.repeat(np.arange(20), 8)})
    data["x"], data["w"], noise = rng.normal(size=(3, 160))
    start, slope, other = rng.normal(size=(3, 20))[:, data["school"]]
    tables = []
    for small in (1e-3, 1e-5, 1e-7, 1e-9):
        data["y"] = 5 + start + slope * data["x"] + other * data["w"] * ("w" in terms)
        data["y"] += small * noise
        table = mixed.variance_table(mixed.fit("y ~ x + w", data, "school", terms), on="sd")
        table.loc[table.index[-1], ["sd", "se", "lower", "upper"]] /= small
        tables.append(table[["sd", "correlation", "se", "lower", "upper"]].to_numpy())
    assert np.isfinite(tables[0][:, 2:]).all()
    for table in tables[1:]:
        np.testing.assert_allclose(table, tables[0], rtol=1e-3, atol=1e-3)
    for table in tables[2:]:
        np.testing.assert_allclose(table, tables[1], rtol=1e-5, atol=1e-5)


def test_interval_of_a_variance_as_small_as_that_of_rows_beside_a_large_one():
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"school": np.repeat(np.arange(20), 8), "x": rng.normal(size=160)})
    start, slope = rng.normal(size=(2, 20))[:, data["school"]]
    noise = rng.normal(size=160)
    ends = []
    for small in (1e-4, 1e-6, 1e-8):
        data["y"] = 5 + start + 2 * data["x"] + small * (slope * data["x"] + noise)
        table = mixed.variance_table(mixed.fit("y ~ x", data, "school", "~x"), on="sd")
        ends.append(table.loc[2:, ["lower", "upper"]].to_numpy() / small)
    assert 0.2 < ends[0][0, 0] < 1 < ends[0][0, 1] < 3
    np.testing.assert_allclose(ends[1:], [ends[0]] * 2, rtol=1e-3)


def test_profile_interval_of_three_random_effects():
    cheese = datasets.load("cheese")
    result = mixed.fit("np.log(volume) ~ np.log(price) + disp", cheese, "retailer", "~disp")
    table = mixed.variance_table(result, on="sd")
    estimate = table["sd"].fillna(table["correlation"])
    assert ((table["lower"] < estimate) & (estimate < table["upper"])).all()
    # Far from the boundary both kinds of interval must be about the same.
    wald = estimate - 1.96 * table["se"]
    np.testing.assert_allclose(table["lower"], wald, atol=0.5 * table["se"].max())


def test_group_coefficients(sleep_fit, sleep):
    table = mixed.group_coefficients(sleep_fit)
    assert list(table.columns) == ["group", "term", "fixed", "blup", "estimate", "sd"]
    assert len(table) == 36
    first = table.iloc[:2]
    np.testing.assert_allclose(first["blup"], [2.2586, 9.1990], atol=2e-3)  # lme4: ranef
    np.testing.assert_allclose(first["sd"], [12.0709, 2.3048], atol=2e-3)  # lme4: condVar
    only_slopes = mixed.fit("reaction ~ 1", sleep, "subject", "~0 + days")
    table = mixed.group_coefficients(only_slopes)
    assert set(table["term"]) == {"days"} and (table["fixed"] == 0).all()


def test_icc(hsb, sleep_fit):
    table = mixed.icc(mixed.fit("mathach ~ 1", hsb, "school"))
    assert table["icc"].item() == pytest.approx(0.180, abs=5e-4)
    table = mixed.icc(sleep_fit, at={"days": [0, 5]})
    psi = np.asarray(sleep_fit.cov_re)
    z = np.array([1, 5])
    assert table["group_variance"].tolist() == pytest.approx([psi[0, 0], z @ psi @ z])
    assert list(table["days"]) == [0, 5]
    pd.testing.assert_frame_equal(
        table, mixed.icc(sleep_fit, at=pd.DataFrame({"days": [0, 5]}, index=[7, 9]))
    )
    with pytest.raises(ValueError, match="at={'days'"):
        mixed.icc(sleep_fit)
    with pytest.raises(ValueError, match="no column 'days'"):
        mixed.icc(sleep_fit, at={"day": 1})


def test_r_squared_agrees_with_the_definition(sleep_fit, sleep):
    row = mixed.r_squared(sleep_fit).iloc[0]
    psi = np.asarray(sleep_fit.cov_re)
    line = 10.4673 * sleep["days"]
    random = np.mean([np.array([1, d]) @ psi @ np.array([1, d]) for d in sleep["days"]])
    total = line.var() + random + sleep_fit.scale
    assert row["marginal"] == pytest.approx(line.var() / total, abs=1e-5)
    assert row["conditional"] == pytest.approx((line.var() + random) / total, abs=1e-5)


# --------------------------------------------------------------------------------- prediction


def test_known_group_errors_are_those_of_hendersons_equations(school_fit, school_data):
    model, p = school_fit.model, 2
    J, q = len(school_fit.group_labels), 2
    Z = np.zeros((len(school_data), J * q))
    for row, group in enumerate(school_fit.group_index):
        Z[row, group * q : group * q + q] = model.exog_re[row]
    C = np.hstack([model.exog, Z])
    equations = C.T @ C / school_fit.scale
    equations[p:, p:] += np.kron(np.eye(J), np.linalg.inv(school_fit.cov_re))
    expected = np.sqrt(np.einsum("np,pr,nr->n", C, np.linalg.inv(equations), C))
    table = mixed.predict(school_fit, school_data, target="group")
    np.testing.assert_allclose(table["se"], expected, rtol=1e-6)
    np.testing.assert_allclose(table["mean"], school_fit.fittedvalues, rtol=1e-9)
    wide = mixed.predict(school_fit, school_data, target="group", interval="prediction")
    np.testing.assert_allclose(wide["se"] ** 2 - table["se"] ** 2, school_fit.scale)


def test_population_and_new_group(school_fit):
    new = pd.DataFrame({"app_hours": [1.0, 10.0]}, index=["a", "b"])
    line = mixed.predict(school_fit, new)
    contrast = school_fit.t_test(np.array([[1, 1.0], [1, 10.0]]))
    np.testing.assert_allclose(line["mean"], contrast.effect)
    np.testing.assert_allclose(line[["lower", "upper"]], contrast.conf_int(), rtol=1e-6)
    assert list(line.index) == ["a", "b"]
    fresh = mixed.predict(school_fit, new, target="new group")
    spread = mixed.icc(school_fit, at=new)["group_variance"]
    np.testing.assert_allclose(fresh["se"] ** 2 - line["se"] ** 2, spread)
    assert list(mixed.predict(school_fit, new, interval=None).columns) == ["mean"]
    half = mixed.predict(school_fit, new, coverage=0.5)
    np.testing.assert_allclose(half["upper"] - half["mean"], 0.6744898 * half["se"])


def test_transformations_are_those_learnt_from_the_data(school_data):
    centred = mixed.fit(
        "math_score ~ center(app_hours)", school_data, "school_id", "~center(app_hours)"
    )
    plain = mixed.fit("math_score ~ app_hours", school_data, "school_id", "~app_hours")
    new = pd.DataFrame({"app_hours": [2.0, 9.0], "school_id": ["School_03", "School_00"]})
    for target in ("population", "group", "new group"):
        pd.testing.assert_frame_equal(
            mixed.predict(centred, new, target=target),
            mixed.predict(plain, new, target=target),
            rtol=1e-4,
        )


def test_prediction_mistakes(school_fit, school_data):
    new = school_data.head(2)
    for change, message in [
        ({"target": "school"}, "'new group'"),
        ({"interval": "wide"}, "'prediction' or None"),
        ({"coverage": 95}, "between 0 and 1"),
        ({"interval": "prediction"}, "always in some group"),
        ({"target": "group", "groups": ["School_00"]}, "1 labels for 2 rows"),
        ({"target": "group", "groups": ["School_00", "Elsewhere"]}, "'Elsewhere'; for groups not"),
        ({"data": new[["school_id"]]}, "no column 'app_hours'"),
        ({"data": new[["app_hours"]], "target": "group"}, "no column 'school_id'"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixed.predict(school_fit, **({"data": new} | change))
    with pytest.raises(TypeError, match="DataFrame"):
        mixed.predict(school_fit, {"app_hours": [1]})
    by_array = mixed.fit("math_score ~ app_hours", school_data, school_data["school_id"])
    with pytest.raises(ValueError, match="give them here too"):
        mixed.predict(by_array, new, target="group")
    table = mixed.predict(by_array, new, target="group", groups=new["school_id"])
    assert table["mean"].notna().all()


def test_missing_predictors_give_missing_predictions(school_fit):
    new = pd.DataFrame({"app_hours": [1.0, np.nan]})
    assert mixed.predict(school_fit, new)["mean"].isna().tolist() == [False, True]


def test_coverage_of_prediction_intervals():
    """95 % intervals hold 95 % of what they are for, over 60 simulated data sets."""
    design = simulate.schools(30, 10, seed=11)
    schools = np.arange(10)
    new = pd.DataFrame({"app_hours": schools + 0.5, "school_id": [f"School_0{k}" for k in schools]})
    rng = np.random.default_rng(12)
    root = np.linalg.cholesky([[16.0, 0.96], [0.96, 0.64]])
    school = design["school_id"].str[-2:].astype(int).to_numpy()
    hits = {}
    for _ in range(60):
        b = rng.normal(size=(40, 2)) @ root.T  # the last ten schools are the new ones
        own = np.array([60.0, 2.0]) + b
        line = own[school, 0] + own[school, 1] * design["app_hours"]
        data = design.assign(math_score=line + rng.normal(0, 5, len(design)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mixed.SingularFitWarning)
            fit = mixed.fit("math_score ~ app_hours", data, "school_id", "~app_hours")
        truth = {
            "population": 60 + 2 * new["app_hours"],
            "group": own[schools, 0] + own[schools, 1] * new["app_hours"],
            "new group": own[30:, 0] + own[30:, 1] * new["app_hours"],
        }
        for target, lines in truth.items():
            for interval in ("confidence", "prediction"):
                if (target, interval) == ("population", "prediction"):
                    continue
                noise = rng.normal(0, 5, 10) if interval == "prediction" else 0.0
                table = mixed.predict(fit, new, target=target, interval=interval)
                inside = (lines + noise).between(table["lower"], table["upper"])
                hits.setdefault((target, interval), []).append(inside.mean())
    for case, inside in hits.items():
        error = np.std(inside) / np.sqrt(len(inside))
        # Variances are estimated, so that a little less than 95 % is expected.
        assert np.mean(inside) == pytest.approx(0.945, abs=3.5 * error), case


# --------------------------------------------------------------------- comparison, simulation


@pytest.fixture(scope="module")
def sleep_pair(sleep):
    return [
        mixed.fit("reaction ~ days", sleep, "subject", re_formula, reml=False)
        for re_formula in ("~1", "~days")
    ]


def test_compare_random_slope(sleep_pair):
    table = mixed.compare(*sleep_pair)
    row = table.loc["large"]
    assert row["statistic"] == pytest.approx(42.139, abs=5e-4)  # lme4: anova
    assert row["df"] == 2
    assert row["p_naive"] == pytest.approx(stats.chi2.sf(row["statistic"], 2))
    expected = (stats.chi2.sf(row["statistic"], 1) + stats.chi2.sf(row["statistic"], 2)) / 2
    assert row["p_mixture"] == pytest.approx(expected)
    assert np.isnan(row["p_bootstrap"]) and table.loc["small"].isna().sum() == 5
    assert table["aic"].round(1).tolist() == [1802.1, 1763.9]  # lme4: anova
    assert table["bic"].round(1).tolist() == [1814.9, 1783.1]  # lme4: anova


def test_compare_reml_fits_with_the_same_fixed_effects(sleep, sleep_fit, sleep_pair):
    small = mixed.fit("reaction ~ days", sleep, "subject")
    table = mixed.compare(small, sleep_fit)
    assert table["statistic"].iloc[1] == pytest.approx(small.criterion - sleep_fit.criterion)
    by_ml = mixed.compare(*sleep_pair)
    np.testing.assert_allclose(table["aic"], by_ml["aic"], atol=1e-5)


def test_compare_fixed_effects(sleep, sleep_pair):
    small = mixed.fit("reaction ~ 1", sleep, "subject", "~days", reml=False)
    row = mixed.compare(small, sleep_pair[1]).loc["large"]
    assert row["df"] == 1 and np.isnan(row["p_mixture"])
    assert row["p_naive"] == pytest.approx(stats.chi2.sf(row["statistic"], 1))


def test_bootstrap_p_value_is_uniform_enough():
    """Under a true null hypothesis; the naive χ² p-value is too large, the mixture about right."""
    data = simulate.schools(20, 8, seed=3, sd_slope=0.0, correlation=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mixed.SingularFitWarning)
        small = mixed.fit("math_score ~ app_hours", data, "school_id", reml=False)
        large = mixed.fit("math_score ~ app_hours", data, "school_id", "~app_hours", reml=False)
    table = mixed.compare(small, large, n_boot=1000, seed=1, progress=False)
    simulated = np.array(table.attrs["simulated"])
    assert simulated.shape == (1000,) and (simulated >= 0).all()
    observed = table.loc["large", "statistic"]
    share = (1 + (simulated >= observed - 1e-6).sum()) / 1001
    assert table.loc["large", "p_bootstrap"] == pytest.approx(share)
    naive = stats.chi2.sf(simulated, 2)
    mixture = (naive + stats.chi2.sf(simulated, 1)) / 2
    assert np.mean(naive < 0.05) < 0.05
    assert np.mean(mixture < 0.05) == pytest.approx(0.05, abs=0.025)
    again = mixed.compare(small, large, n_boot=1000, seed=1, progress=False)
    assert again.attrs["simulated"] == table.attrs["simulated"]


def test_compare_refuses_what_cannot_be_compared(sleep, sleep_fit, sleep_pair):
    small, large = sleep_pair
    cases = [
        (large, small, "smaller one first"),
        (small, small, "the same"),
        (small, sleep_fit, "fit both with reml=False"),
        (mixed.fit("reaction ~ 1", sleep, "subject"), sleep_fit, "different fixed effects"),
        (small, mixed.fit("reaction ~ days", sleep[:-1], "subject", reml=False), "the same rows"),
        (
            small,
            mixed.fit("reaction ~ I(days**2)", sleep, "subject", "~days", reml=False),
            "not nested",
        ),
    ]
    for first, second, message in cases:
        with pytest.raises(ValueError, match=message):
            mixed.compare(first, second)
    with pytest.raises(ValueError, match="seed"):
        mixed.compare(small, large, n_boot=10)
    with pytest.raises(TypeError, match="mixed.fit"):
        mixed.compare(small, 3)


def test_bootstrap(sleep_fit):
    boot = mixed.bootstrap(sleep_fit, 1000, seed=1, progress=False)
    assert list(boot.columns) == [
        "Intercept", "days", "sd(Intercept)", "var(Intercept)", "cor(Intercept, days)",
        "cov(Intercept, days)", "sd(days)", "var(days)", "sd(Residual)", "var(Residual)",
        "singular",
    ]  # fmt: skip
    assert boot["singular"].dtype == bool
    table = mixed.interval(boot)
    np.testing.assert_allclose(table["se"].iloc[:2], sleep_fit.bse_fe, rtol=0.1)
    assert table.loc["var(Residual)", "se"] == pytest.approx(77.2, rel=0.1)
    error = table["se"] / np.sqrt(table["n"])
    unbiased = ["Intercept", "days", "var(Residual)", "cov(Intercept, days)"]
    assert (table["bias"].abs() < 4 * error)[unbiased].all()
    assert (table["lower"] < table["estimate"])[unbiased].all()
    pd.testing.assert_frame_equal(boot, mixed.bootstrap(sleep_fit, 1000, seed=1, progress=False))


def test_bootstrap_of_functions_of_the_parameters(sleep_fit):
    def ratio(table):
        return table["var(days)"] / table["var(Residual)"]

    boot = mixed.bootstrap(sleep_fit, 50, seed=1, statistic=ratio, progress=False)
    np.testing.assert_allclose(boot["statistic"], ratio(boot))
    expected = sleep_fit.cov_re.iloc[1, 1] / sleep_fit.scale
    assert mixed.interval(boot).loc["statistic", "estimate"] == pytest.approx(expected)
    boot = mixed.bootstrap(
        sleep_fit, 50, seed=1, progress=False, statistic=lambda t: {"a": t["days"], "b": 1.0}
    )
    assert {"a", "b"} <= set(boot.columns)


def test_bootstrap_of_a_singular_fit_and_in_chunks(article_fit, monkeypatch):
    boot = mixed.bootstrap(article_fit, 200, seed=2, progress=False)
    assert boot["singular"].mean() > 0.5
    assert boot["cor(Intercept, app_hours)"].abs().max() <= 1
    monkeypatch.setattr(mixed_refits, "MOST_CELLS", 30 * 64)
    shown = []

    class Bar:
        def __init__(self, total, label):
            shown.append(total)

        def __enter__(self):
            return shown.append

        def __exit__(self, *exception):
            return None

    monkeypatch.setattr(mixed_refits, "progress_bar", Bar)
    again = mixed.bootstrap(article_fit, 200, seed=2)
    assert len(again) == 200 and shown[0] == shown[-1] == 200
    assert shown[1:] == sorted(shown[1:])


def test_bootstrap_mistakes(sleep_fit):
    with pytest.raises(ValueError, match="at least 1"):
        mixed.bootstrap(sleep_fit, 0, seed=1)
    with pytest.raises(ValueError, match="attrs"):
        mixed.interval(pd.DataFrame({"a": [1.0]}))
