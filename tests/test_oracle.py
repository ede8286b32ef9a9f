"""`reml` on random designs: against mixedlm-rs, the definition, closed forms and symmetries."""

import warnings

import mixedlm_rs
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import dense
from scipy import optimize

from helpers import reml, reml_many, reml_reduce

CRITERION = 1e-6


def bounded(examples):
    """Few examples, the same in every run, and none kept on disk."""
    return settings(derandomize=True, deadline=None, max_examples=examples, database=None)


def make_design(sizes, p, q, spread, units, exponent, method, seed):
    """y, X, Z, groups, reml. X and Z are the first columns of a common matrix, 1 first.

    Parameters
    ----------
    sizes : list of int
        Rows of each group.
    p, q : int
        Numbers of fixed and of random effects.
    spread : list of float
        SDs of the random effects, in units of the residual SD.
    units : list of int
        Powers of ten that the columns after the first are multiplied by.
    exponent : int
        The power of ten for y.
    method : bool
        REML or ML.
    seed : int
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    n, width = len(groups), max(p, q)
    columns = rng.standard_normal((n, width))
    columns[:, 0] = 1
    mix = np.tril(rng.normal(size=(q, q)), -1) + np.eye(q)
    b = rng.standard_normal((len(sizes), q)) @ mix.T * spread[:q]
    y = columns[:, :p].sum(1) + (columns[:, :q] * b[groups]).sum(1) + rng.standard_normal(n)
    columns[:, 1:] *= 10.0 ** np.array(units[: width - 1])
    return y * 10.0**exponent, columns[:, :p], columns[:, :q], groups, method


@st.composite
def designs(draw, largest=12):
    sizes = draw(st.lists(st.integers(1, largest), min_size=2, max_size=20))
    p, q = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    # Rows must be left over within groups, or there is no residual variance to estimate.
    assume(sum(max(0, size - q) for size in sizes) > p + 1)
    assume(sum(sizes) > q * len(sizes) + p)
    return make_design(
        sizes,
        p,
        q,
        draw(st.lists(st.sampled_from([0.0, 0.3, 1.0, 5.0]), min_size=3, max_size=3)),
        draw(st.lists(st.integers(-4, 4), min_size=3, max_size=3)),
        draw(st.integers(-6, 9)),
        draw(st.booleans()),
        draw(st.integers(0, 2**16)),
    )


def fit(y, X, Z, groups, method):
    return reml.fit(y, X, Z, groups, reml=method)


def fitted_values(found, X, Z, groups):
    place = np.searchsorted(found.group_labels, groups)
    return X @ found.beta + (Z * found.random_effects[place]).sum(1)


# Unequal groups, where the likelihood has a valley on the boundary and another off it, or two
# on the boundary: sizes, p, q, spread, method, seed.
TWO_VALLEYS = [
    ([12, 1, 2], 2, 1, [5.0], False, 153),
    ([15, 1, 1, 2], 2, 1, [5.0], False, 113),
    ([8, 3, 1, 1], 2, 1, [5.0], False, 351),
    ([20, 2, 3, 1, 3, 1, 3, 3, 1, 2, 2, 1, 3, 2, 3, 2, 1, 1, 2, 2], 2, 1, [0.0], False, 31093),
    ([20, 3, 1, 2, 3, 1, 3, 1, 1, 2, 3, 1, 1, 3, 1, 1, 1, 2, 1, 1], 2, 1, [0.3], False, 57332),
    ([27, 3, 21], 4, 2, [1.0, 5.0], False, 50369),
    ([1, 2, 1, 2, 13], 3, 2, [0.0, 0.3], True, 7757),
    ([1, 3, 20], 1, 2, [1.0, 0.0], False, 25735),
    ([20, 3, 1], 1, 2, [5.0, 0.3], True, 52533),
    ([6, 6, 2, 38, 38, 1, 6], 3, 2, [1.0, 5.0], True, 19827),
    ([6, 1, 20, 1, 1, 2, 6], 3, 2, [1.0, 1.0], False, 47377),
    ([60, 1, 2, 2, 1, 2, 1, 2, 2, 2, 2, 2, 1, 1, 2, 2, 3], 1, 2, [1.0, 0.3], False, 28081),
    ([60, 2, 3, 3, 1, 1, 1, 3, 1, 1, 3, 2, 1, 2, 2, 3, 1, 2, 3], 1, 2, [1.0, 0.0], True, 24503),
    ([6, 2, 11], 1, 3, [0.3, 5.0, 1.0], True, 22131),
    ([28, 1, 1], 3, 3, [0.0, 0.0, 5.0], False, 53435),
    ([2, 38, 19, 2], 2, 3, [5.0, 1.0, 5.0], True, 55665),
    ([20, 2, 5], 2, 3, [0.0, 5.0, 5.0], False, 58901),
    ([1, 2, 35, 1], 2, 3, [0.0, 0.3, 5.0], False, 30080),
    ([1, 8, 8, 2], 1, 2, [1.0, 5.0], False, 63806),
    ([2, 1, 1, 9, 1], 2, 2, [5.0, 0.3], True, 25628),
    ([1, 11, 2, 3, 5], 1, 2, [5.0, 0.0], False, 42124),
    ([5, 5, 1, 4, 5, 2], 1, 3, [1.0, 0.3, 0.0], True, 27134),
    ([27, 8, 1, 1, 2, 1], 2, 3, [0.3, 5.0, 5.0], False, 50290),
]


# ------------------------------------------------------------------------- another program


@bounded(60)
@given(designs())
def test_no_worse_than_mixedlm_rs(design):
    y, X, Z, groups, method = design
    found = fit(*design)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own singular and unconverged fits
        other = mixedlm_rs.MixedLM(y, X, groups, exog_re=Z).fit(reml=method, n_starts=3)
    gap = found.criterion + 2 * other.llf
    assert found.converged
    assert gap < CRITERION
    if gap < -CRITERION:
        return  # the other stopped early or in another valley; next test: is our value real?
    se = np.sqrt(np.diag(found.cov_beta))
    np.testing.assert_array_less(np.abs(found.beta - other.fe_params) / se, 1e-3)
    np.testing.assert_allclose(se, other.bse_fe[: len(se)], rtol=1e-2)
    assert found.scale == pytest.approx(other.scale, rel=1e-2)


# --------------------------------------------------------------------------- the definition


@bounded(50)
@given(designs())
def test_criterion_is_the_density_at_the_estimates(design):
    y, X, Z, groups, method = design
    found = fit(*design)
    V = dense.covariance(Z, groups, found.cov_re, found.scale)
    by_definition = dense.criterion(y, X, V, found.beta, method)
    assert found.criterion == pytest.approx(by_definition, rel=0, abs=CRITERION)


@bounded(30)
@given(designs())
def test_estimates_follow_from_the_variances(design):
    y, X, Z, groups, _ = design
    found = fit(*design)
    inverse = np.linalg.inv(dense.covariance(Z, groups, found.cov_re, found.scale))
    cov_beta = np.linalg.inv(X.T @ inverse @ X)
    se = np.sqrt(np.diag(cov_beta))
    unit = np.outer(se, se)
    np.testing.assert_allclose(found.cov_beta / unit, cov_beta / unit, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.beta / se, cov_beta @ X.T @ inverse @ y / se, atol=1e-5)
    residual = y - X @ found.beta
    for j, label in enumerate(found.group_labels):
        rows = groups == label
        ZC = Z[rows] @ found.cov_re
        within = inverse[np.ix_(rows, rows)]
        sd = np.sqrt(np.diag(found.cov_re)) + np.sqrt(found.scale) / np.abs(Z).max(0)
        blup, cov = ZC.T @ within @ residual[rows], found.cov_re - ZC.T @ within @ ZC
        np.testing.assert_allclose(found.random_effects[j] / sd, blup / sd, atol=1e-6)
        np.testing.assert_allclose(
            found.random_effects_cov[j] / np.outer(sd, sd), cov / np.outer(sd, sd), atol=1e-6
        )


@bounded(25)
@given(
    st.lists(st.integers(1, 15), min_size=2, max_size=5),
    st.sampled_from([0.0, 1.0, 5.0]),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_no_better_on_a_grid_with_one_random_effect(sizes, spread, method, seed):
    assume(sum(sizes) > len(sizes) + 3)
    y, X, Z, groups, _ = make_design(sizes, 2, 1, [spread], [0], 0, method, seed)
    lowest = min(
        dense.profiled(y, X, dense.covariance(Z, groups, [[ratio]], 1.0), method)
        for ratio in np.concatenate([[0], np.geomspace(1e-3, 1e4, 40)])
    )
    assert fit(y, X, Z, groups, method).criterion < lowest + CRITERION


@pytest.mark.parametrize("sizes, p, q, spread, method, seed", TWO_VALLEYS)
def test_the_lower_valley_is_found(sizes, p, q, spread, method, seed):
    y, X, Z, groups, _ = make_design(sizes, p, q, spread, [0, 0, 0], 0, method, seed)

    def value(entries):
        factor = np.zeros((q, q))
        factor[np.tril_indices(q)] = entries
        V = dense.covariance(Z, groups, factor @ factor.T, 1.0)
        return dense.profiled(y, X, V, method)

    # Scattered starts on the definition: nothing in common with `reml` but the model.
    rng = np.random.default_rng(seed)
    size = 10 ** rng.uniform(-1, 1, (10, q * (q + 1) // 2))
    starts = [np.zeros(size.shape[1]), *(size * rng.choice([-1, 1], size.shape))]
    lowest = min(optimize.minimize(value, start, tol=1e-4).fun for start in starts)
    assert fit(y, X, Z, groups, method).criterion < lowest + CRITERION


def heavy_tails(n_groups, q, size, seed):
    """A few of the groups tell most, and there is more than one way to take them."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 1 + rng.poisson(size, n_groups))
    Z = rng.standard_t(2, (len(groups), q)) * rng.exponential(size=(n_groups, q))[groups] ** 2
    Z[:, 0] = 1
    b = rng.standard_t(2, (n_groups, q)) * np.exp(rng.uniform(-4, 4, q))
    b = b @ np.linalg.qr(rng.normal(size=(q, q)))[0]
    return (Z * b[groups]).sum(1) + rng.standard_t(2, len(groups)), Z, groups, rng


@pytest.mark.parametrize(
    "n_groups, q, size, seed",
    [(100, 2, 1, 418), (100, 2, 1, 1567), (60, 2, 1, 2181), (8, 2, 2, 1758), (12, 3, 3, 231)],
)
def test_the_lower_valley_is_found_where_tails_are_heavy(n_groups, q, size, seed):
    y, Z, groups, rng = heavy_tails(n_groups, q, size, seed)
    design = reml_reduce.reduce_design(Z, Z, groups)
    response = reml_reduce.reduce_response(y[None], design).take([0] * 200)
    many = reml_many.Many.of(design, response, True)
    start = 10 ** rng.uniform(-2, 3, (q * (q + 1) // 2, 200))
    start *= rng.choice([-1, 1], start.shape)
    lowest = many.evaluate(reml_many.minimise(start, many)).criterion.min()
    lowest += 2 * (len(y) - q) * np.log(response.unit[0]) + design.log_det
    found = fit(y, Z, Z, groups, True)
    assert found.converged
    assert found.criterion < lowest + CRITERION


@pytest.mark.parametrize(
    "n_groups, q, size, seed, lowest",
    [
        (12, 2, 1, 839, 235.535990),
        (4, 2, 2, 404, 44.801534),
        (4, 2, 2, 1307, 87.188560),
        (4, 2, 2, 2433, 46.541876),
        (5, 3, 3, 1534, 78.774658),
    ],
)
def test_the_lower_valley_is_found_where_it_is_narrow(n_groups, q, size, seed, lowest):
    """Groups are as good as one: of a thousand starts elsewhere few lead here, or none."""
    y, Z, groups, _ = heavy_tails(n_groups, q, size, seed)
    found = fit(y, Z, Z, groups, True)
    assert found.converged
    assert found.criterion < lowest
    V = dense.covariance(Z, groups, found.cov_re / found.scale, 1.0)
    assert dense.profiled(y, Z, V, True) == pytest.approx(found.criterion, abs=1e-5)


@pytest.mark.parametrize("sizes, seed", [([5, 2, 4, 2], 320), ([1, 2, 4, 2, 5, 1], 400)])
def test_a_search_that_is_handed_over_ends_in_the_same_valley(sizes, seed, monkeypatch):
    """The last few replicates of many go on by themselves, with what was learnt on the way."""
    _, X, Z, groups, _ = make_design(sizes, 2, 2, [5.0, 1.0], [0] * 3, 0, False, seed)
    rng = np.random.default_rng(seed)
    b = rng.normal(size=(12, len(sizes), 2)) * [5, 1]
    many_y = (b[:, groups] * Z).sum(2) + rng.standard_t(2, (12, len(groups)))
    design = reml_reduce.reduce_design(X, Z, groups)
    response = reml_reduce.reduce_response(many_y, design)
    many = reml_many.Many.of(design, response, False)
    start, ends = reml_many.moments(design, response, False), []
    for few in (0, 6):
        monkeypatch.setattr(reml_many, "FEW", few)
        ends.append(many.evaluate(reml_many.minimise(start, many)).criterion)
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------ closed forms


@bounded(40)
@given(
    st.integers(2, 12),
    st.integers(2, 8),
    st.sampled_from([0.0, 0.2, 1.0, 10.0]),
    st.integers(0, 2**16),
)
def test_balanced_one_way_is_the_analysis_of_variance(n_groups, size, spread, seed):
    y, X, Z, groups, _ = make_design([size] * n_groups, 1, 1, [spread], [], 0, True, seed)
    table = y.reshape(n_groups, size)
    between = size * table.mean(1).var(ddof=1)
    within = table.var(axis=1, ddof=1).mean()
    found = fit(y, X, Z, groups, True)
    expected = (between - within) / size
    assert found.beta[0] == pytest.approx(y.mean())
    assert found.singular == (expected <= 0)
    assert found.cov_re[0, 0] == pytest.approx(max(expected, 0), abs=1e-4 * within, rel=1e-4)
    if expected > 0:
        assert found.scale == pytest.approx(within, rel=1e-4)
    else:
        assert found.scale == pytest.approx(y.var(ddof=1), rel=1e-6)


# -------------------------------------------------------------------------------- symmetries


@bounded(30)
@given(designs(), st.integers(0, 2**16))
def test_units_and_origin_of_the_predictors(design, seed):
    y, X, Z, groups, method = design
    rng = np.random.default_rng(seed)

    def recoded(columns):
        """Other units (a factor each) and another zero (a multiple of the constant added)."""
        turn = np.diag(10.0 ** rng.uniform(-3, 3, columns.shape[1]))
        turn[0, 0] = 1
        turn[0, 1:] = rng.normal(size=columns.shape[1] - 1) * np.abs(columns @ turn).max(0)[1:]
        return turn

    A, B = recoded(X), recoded(Z)
    before, after = fit(*design), fit(y, X @ A, Z @ B, groups, method)
    # Under REML the criterion counts X in its units: log|X'V⁻¹X| moves with log|A'A|.
    shift = 2 * np.log(np.abs(np.linalg.det(A))) if method else 0
    assert after.criterion - shift == pytest.approx(before.criterion, rel=0, abs=CRITERION)
    assert after.singular == before.singular
    np.testing.assert_allclose(
        fitted_values(after, X @ A, Z @ B, groups) / np.std(y),
        fitted_values(before, X, Z, groups) / np.std(y),
        atol=1e-3,
    )


@bounded(30)
@given(designs(), st.integers(-9, 9), st.integers(0, 2**16))
def test_units_and_origin_of_the_outcome(design, exponent, seed):
    y, X, Z, groups, method = design
    factor = 10.0**exponent
    step = np.random.default_rng(seed).normal(size=X.shape[1]) * np.std(y) / np.abs(X).max(0)
    before, after = fit(*design), fit(factor * (y + X @ step), X, Z, groups, method)
    df = len(y) - method * X.shape[1]
    assert after.criterion - 2 * df * np.log(factor) == pytest.approx(
        before.criterion, rel=0, abs=CRITERION
    )
    se = np.sqrt(np.diag(before.cov_beta))
    np.testing.assert_allclose((after.beta / factor - step - before.beta) / se, 0, atol=1e-3)
    assert after.scale / factor**2 == pytest.approx(before.scale, rel=1e-3)


@bounded(30)
@given(designs(), st.integers(0, 2**16))
def test_order_of_rows_and_names_of_groups(design, seed):
    y, X, Z, groups, method = design
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    labels = np.array([f"school {k}" for k in rng.permutation(groups.max() + 1)])
    before = fit(*design)
    after = fit(y[order], X[order], Z[order], labels[groups][order], method)
    assert after.criterion == pytest.approx(before.criterion, rel=0, abs=CRITERION)
    np.testing.assert_array_equal(after.group_labels, np.sort(labels))
    np.testing.assert_allclose(
        fitted_values(after, X, Z, labels[groups]) / np.std(y),
        fitted_values(before, X, Z, groups) / np.std(y),
        atol=1e-3,
    )


@bounded(30)
@given(designs())
def test_the_same_data_twice_double_the_likelihood(design):
    y, X, Z, groups, _ = design
    before = fit(y, X, Z, groups, False)
    after = fit(
        np.tile(y, 2),
        np.tile(X, (2, 1)),
        np.tile(Z, (2, 1)),
        np.concatenate([groups, groups + groups.max() + 1]),
        False,
    )
    assert after.criterion == pytest.approx(2 * before.criterion, rel=0, abs=2 * CRITERION)
    assert after.scale == pytest.approx(before.scale, rel=1e-3)


@bounded(30)
@given(designs())
def test_a_larger_model_fits_no_worse(design):
    y, X, Z, groups, _ = design
    larger = fit(y, X, Z, groups, False).criterion
    smaller = fit(y, X, Z[:, :1], groups, False).criterion
    without = dense.profiled(y, X, np.eye(len(y)), False)
    assert larger < smaller + CRITERION
    assert smaller < without + CRITERION


# ---------------------------------------------------------------------------------- fit_many


@bounded(25)
@given(designs(), st.integers(0, 2**16))
def test_fit_many_is_fit(design, seed):
    y, X, Z, groups, method = design
    rng = np.random.default_rng(seed)
    Y = y + np.std(y) * np.array([[0.0], [0.2], [1.0], [5.0]]) * rng.standard_normal(len(y))
    many = reml.fit_many(Y, X, Z, groups, reml=method)
    alone = [fit(row, X, Z, groups, method) for row in Y]
    np.testing.assert_allclose(
        many.criterion, [one.criterion for one in alone], rtol=0, atol=CRITERION
    )
    np.testing.assert_array_equal(many.singular, [one.singular for one in alone])
