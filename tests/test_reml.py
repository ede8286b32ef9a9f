"""The engine by itself: what it promises of any data, and what it says where it can't fit.

Agreement with lme4 is in test_reference.py, with mixedlm-rs in test_oracle.py.
"""

import doctest
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import reml, reml_many, reml_one, reml_optimum, reml_reduce, simulate

ROOT = Path(__file__).parents[1]
SCHOOLS = simulate.schools(12, 8, seed=4)
X = np.column_stack([np.ones(len(SCHOOLS)), SCHOOLS["app_hours"]])
Y = simulate.replicates(SCHOOLS, 60, sd_slope=0.3, seed=5)
GROUPS = SCHOOLS["school_id"].to_numpy()


def test_the_example_of_the_docstring():
    assert doctest.testmod(reml).failed == 0


def dense_criterion(y, X, Z, groups, cov_re, scale, restricted):
    """−2 log-likelihood at given variances from the full n × n covariance, β by GLS."""
    same = groups[:, None] == groups[None, :]
    V = np.where(same, Z @ cov_re @ Z.T, 0) + scale * np.eye(len(y))
    XVX = X.T @ np.linalg.solve(V, X)
    residual = y - X @ np.linalg.solve(XVX, X.T @ np.linalg.solve(V, y))
    value = np.linalg.slogdet(V)[1] + residual @ np.linalg.solve(V, residual)
    n, p = X.shape
    if restricted:
        return value + np.linalg.slogdet(XVX)[1] + (n - p) * np.log(2 * np.pi)
    return value + n * np.log(2 * np.pi)


@pytest.mark.parametrize("restricted", [True, False])
def test_no_small_change_of_the_estimates_lowers_the_dense_likelihood(restricted):
    y = Y[0]
    fit = reml.fit(y, X, X, GROUPS, reml=restricted)
    best = dense_criterion(y, X, X, GROUPS, fit.cov_re, fit.scale, restricted)
    assert best == pytest.approx(fit.criterion, abs=1e-8)
    root = np.linalg.cholesky(fit.cov_re + 1e-12 * np.eye(2))
    for change in np.random.default_rng(1).normal(0, 0.05, (40, 2, 2)):
        other = root @ (np.eye(2) + change)
        moved = dense_criterion(
            y, X, X, GROUPS, other @ other.T, fit.scale * (1 + change[0, 1]), restricted
        )
        assert moved > best - 1e-9


@pytest.mark.parametrize(
    "Z", [X[:, :1], X, np.column_stack([X, X[:, 1] ** 2])], ids=["1", "2", "3"]
)
@pytest.mark.parametrize("restricted", [True, False])
def test_many_fits_are_the_single_fits(Z, restricted):
    many = reml.fit_many(Y[:25], X, Z, GROUPS, reml=restricted)
    assert many.converged.all()
    assert many.singular.any() or Z.shape[1] == 1
    for i, y in enumerate(Y[:25]):
        one = reml.fit(y, X, Z, GROUPS, reml=restricted)
        assert many.criterion[i] == pytest.approx(one.criterion, abs=1e-6)
        assert many.singular[i] == one.singular
        np.testing.assert_allclose(many.beta[i], one.beta, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(many.random_effects[i], one.random_effects, rtol=0.01, atol=0.01)


def reduced(q):
    """The design and four responses in rotated rows, with q random effects."""
    Z = np.column_stack([X, X[:, 1] ** 2])[:, :q]
    design = reml_reduce.reduce_design(X, Z, GROUPS)
    return design, reml_reduce.reduce_response(Y[:4], design)


def places(q):
    """Λ inside, on the boundary and far away, as theta."""
    m = q * (q + 1) // 2
    inside = np.random.default_rng(q).uniform(0.2, 0.8, m)
    edge = np.where(np.arange(m) == m - 1, 0, inside)
    return [inside, edge, 30 * inside]


@pytest.mark.parametrize("q", [1, 2, 3])
@pytest.mark.parametrize("restricted", [True, False])
def test_the_gradient_is_what_small_steps_say(q, restricted):
    design, response = reduced(q)
    one = reml_one.One(design, response.take(0), restricted)
    for theta in places(q):
        steps = 1e-5 * np.eye(len(theta)) * (1 + abs(theta))
        values = [
            [one.evaluate(theta + sign * step).criterion for sign in (1, -1)] for step in steps
        ]
        numeric = -np.diff(values, axis=1)[:, 0] / (2 * steps.diagonal())
        np.testing.assert_allclose(one.evaluate(theta).gradient, numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("q", [1, 2])
def test_the_closed_form_is_the_whitened_one(q):
    design, response = reduced(q)
    one = reml_one.One(design, response.take(0), True)
    for theta in places(q):
        closed, whitened = one.whiten(theta), reml_one.White(theta, one.rows)
        assert isinstance(closed, reml_one.Pair)
        half = np.linalg.cholesky(closed.sums).T
        assert closed.log_det == pytest.approx(whitened.log_det, rel=1e-12)
        np.testing.assert_allclose(closed.sums, whitened.sums, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(closed.by_psi(half), whitened.by_psi(half), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(closed.precision(), whitened.precision(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("q", [1, 2, 3])
@pytest.mark.parametrize("restricted", [True, False])
def test_side_by_side_is_one_after_another(q, restricted):
    """Value, slope and information of four data sets at once and of each by itself."""
    design, response = reduced(q)
    many = reml_many.Many.of(design, response, restricted)
    for theta in places(q):
        four = np.repeat(theta[:, None], 4, axis=1)
        point, information = many.evaluate(four), many.information(four)
        for i in range(4):
            one = many.one(i)
            at = one.evaluate(theta)
            for found, expected in zip(point, one.estimates(at), strict=True):
                np.testing.assert_allclose(found[..., i], expected, rtol=1e-8, atol=1e-8)
            expected, _ = one.information(at)
            np.testing.assert_allclose(information[..., i], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("q", [1, 2, 3])
@pytest.mark.parametrize("restricted", [True, False])
def test_along_other_axes_it_is_the_same_model(q, restricted):
    """Where each replicate has axes of its own: side by side, taken apart, and as it was."""
    design, response = reduced(q)
    R = len(response.unit)
    many = reml_many.Many.of(design, response, restricted)
    rng = np.random.default_rng(q)
    for place in places(q):
        theta = place[:, None] * rng.uniform(0.5, 2, R)
        measure = reml_optimum.axes(rng.normal(size=(R, q, q)) * 20)
        own, its_response, turn = reml_optimum.measured(design, response, measure)
        there = reml_many.Many(own, its_response, restricted)
        point = there.evaluate(theta)
        back = reml_optimum.turned_back(point, measure, turn)
        before = reml_one.thetas(measure @ reml_one.factors(theta, q))
        expected = many.evaluate(before)
        for found, value in zip(back, expected, strict=True):
            scale = np.abs(value).max()
            if value is expected.L_inv:  # of which only the square is determined
                found, value = (np.einsum("abr,acr->bcr", L, L) for L in (found, value))
            np.testing.assert_allclose(found, value, rtol=1e-7, atol=1e-7 * scale)
        some = there.take(np.array([R - 1, 0]))
        np.testing.assert_allclose(
            some.evaluate(theta[:, [R - 1, 0]]).criterion, point.criterion[[R - 1, 0]]
        )
        information = there.information(theta)
        for i in (0, R - 1):
            one = there.one(i)
            at = one.evaluate(theta[:, i])
            assert at.criterion == pytest.approx(point.criterion[i], rel=1e-10)
            np.testing.assert_allclose(information[..., i], one.information(at)[0], rtol=1e-6)


def test_where_groups_are_uneven_ways_between_theirs_are_tried_too():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(7), [40, 2, 2, 2, 2, 2, 2])
    columns = np.column_stack([np.ones(52), rng.normal(size=52)])
    design = reml_reduce.reduce_design(columns, columns, groups)
    assert reml_optimum.is_uneven(design)
    way = reml_optimum.directions(design)
    least = np.linalg.svd(design.rows[:, :2].T)[0][:, :, -1]
    angles = np.sort(np.arctan2(least[:, 1], least[:, 0]) % np.pi)
    between = (angles[1:] + angles[:-1]) / 2
    for angle in [*angles, *between]:
        assert np.abs([np.cos(angle), np.sin(angle)] @ way).max() > 1 - 1e-8
    even = reml_reduce.reduce_design(X, X, GROUPS)
    assert not reml_optimum.is_uneven(even)


def test_starts_all_over_leave_no_gap():
    """Of as many at random the emptiest of 48 cells would have one or two, the fullest twelve."""
    first, anew = (reml_optimum.scattered(2, finds) for finds in (0, 1))
    for theta in (first, anew):
        axis, length, _ = np.linalg.svd(reml_one.factors(theta, 2))
        angle = np.arctan2(axis[:, 1, 0], axis[:, 0, 0]) % np.pi
        shortest, longest = np.log(reml_optimum.LENGTHS[[0, -1]])
        share = (np.log(length) - shortest) / (longest - shortest)
        cells = np.floor(np.column_stack([8 * angle / np.pi, 4 * share])).astype(int)
        counts = Counter(tuple(cell) for cell in cells if cell[1] != cell[2])
        assert len(counts) == 8 * 6 and min(counts.values()) >= 3 and max(counts.values()) <= 9
    assert np.abs(first - anew).max(axis=0).min() > 0


def test_starts_near_what_is_known_are_near_it():
    rng = np.random.default_rng(4)
    axis, length = np.linalg.qr(rng.normal(size=(2, 3, 3)))[0], np.array([[50, 2, 0], [9, 3, 1.0]])
    starts = reml_one.factors(reml_optimum.near(axis, length), 3)
    way, size, _ = np.linalg.svd(starts.reshape(2, reml_optimum.NEAR, 3, 3))
    alike = np.abs(np.einsum("rnk,rk->rn", way[..., 0], axis[..., 0]))
    turned, kept = np.hsplit(alike, 2)
    assert (kept > 1 - 1e-9).all()
    assert (turned > 0.999).mean() > 0.2 and (turned < 0.9).mean() > 0.2
    assert (size[..., -1] > 1e-3).all()  # an axis of zero is opened again


@pytest.mark.parametrize("weight, starts", [(20, 384 + 192), (1, 96)])
def test_where_groups_are_uneven_there_are_more_starts(weight, starts):
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(10), 6)
    Z = np.column_stack([np.ones(60), rng.normal(size=(60, 2))])
    Z[groups == 0] *= weight
    design = reml_reduce.reduce_design(Z, Z, groups)
    assert reml_optimum.few_groups(design) and reml_optimum.is_uneven(design) == (weight > 1)
    response = reml_reduce.reduce_response(rng.normal(size=(3, 60)), design)
    many = reml_many.Many.of(design, response, True)
    theta = np.repeat([[2.0], [0], [0], [2], [0], [2]], 3, axis=1)
    _, which = reml_optimum.elsewhere(theta, np.zeros(3), many, finds=0)
    for count in np.bincount(which):
        assert starts <= count <= starts + 2  # and theta without an axis


@pytest.mark.parametrize("seed, lowest", [(1344, -283.2104), (2304, -385.6275)])
def test_where_axes_are_long_the_groups_own_rows_lead_to_the_lower_valley(seed, lowest):
    """From the moments alone the search ends some 20 above."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(5), rng.integers(1, 12, 5))
    Z = np.column_stack([np.ones(len(groups)), rng.normal(size=len(groups))])
    b = rng.standard_t(2, size=(5, 2)) * rng.choice([0.1, 1, 0], 2)
    y = (Z * b[groups]).sum(axis=1) + 1e-6 * rng.normal(size=len(groups))
    fit = reml.fit(y, np.column_stack([Z, rng.normal(size=5)[groups]]), Z, groups)
    assert fit.converged and fit.criterion < lowest + 1e-3


@pytest.mark.parametrize("seed, lowest", [(164, -62.891663), (310, -85.326777)])
def test_where_axes_are_long_there_is_a_lower_valley_afar(seed, lowest):
    """Along the axes of the first optimum the search ends 4 to 5 above."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(4), rng.integers(2, 8, 4))
    steep = rng.normal(size=(len(groups), 2)) * rng.exponential(size=(4, 2))[groups] ** 2
    Z = np.column_stack([np.ones(len(groups)), steep])
    b = rng.standard_t(2, size=(4, 3))
    y = (Z * b[groups]).sum(axis=1) + 1e-4 * rng.normal(size=len(groups))
    fit = reml.fit(y, Z, Z, groups)
    assert fit.converged and fit.criterion < lowest + 1e-3
    exact = dense_criterion(y, Z, Z, groups, fit.cov_re, fit.scale, True)
    assert exact == pytest.approx(fit.criterion, abs=1e-3)


def test_where_a_group_tells_little_a_search_begins_where_it_would_tell_something(monkeypatch):
    rng = np.random.default_rng(2)
    groups = np.repeat([0, 1, 2], [6, 5, 4])
    x = rng.normal(size=15)
    x[groups == 1] *= 1e-6
    Z = np.column_stack([np.ones(15), x])
    design = reml_reduce.reduce_design(Z, Z, groups)
    starts = reml_one.factors(reml_optimum.little_told(design), 2)
    assert len(starts) == 1
    seen = np.linalg.svd(design.rows[:, :2, 1] @ starts[0], compute_uv=False)
    assert seen[0] == pytest.approx(1, rel=0.05) and np.abs(starts).max() > 1e4

    y = Z @ [1, 2] + rng.normal(size=15) + rng.normal(size=(3, 2))[groups][:, 0]
    best = reml.fit(y, Z, Z, groups)
    found = []
    monkeypatch.setattr(
        reml_optimum, "take_lower", lambda rest, *others: found.append(rest) or rest[:0]
    )
    assert reml.fit(y, Z, Z, groups).criterion >= best.criterion - 1e-6
    assert len(found) == 1


def test_a_measure_that_does_not_suit_is_not_convergence(monkeypatch):
    b = 1e6 * np.random.default_rng(1).normal(size=(12, 2))
    y = Y[0] + (X * b[np.unique(GROUPS, return_inverse=True)[1]]).sum(axis=1)
    assert reml.fit(y, X, X, GROUPS).converged
    monkeypatch.setattr(reml_optimum, "FITTING", 1)
    assert not reml.fit(y, X, X, GROUPS).converged


def test_a_fit_does_not_read_y_again():
    y = Y[0].copy()
    fit, expected = reml.fit(y, X, X, GROUPS), reml.fit(Y[0], X, X, GROUPS).random_effects
    y[:] = 0
    np.testing.assert_array_equal(fit.random_effects, expected)


def test_one_singular_hessian_spoils_no_other(monkeypatch):
    design, response = reduced(2)
    many = reml_many.Many.of(design, response, True)
    theta, point, _ = reml_optimum.optimum(design, response, True)
    expected = reml_many.certainty(theta, point, many)
    information = many.information(theta)
    information[..., 0] = 0
    point.by_psi[..., 0] = 0
    monkeypatch.setattr(many, "information", lambda theta: information.copy())
    monkeypatch.setattr(many, "ridge", lambda theta: np.array([0, 1e-9, 1e-9, 1e-9]))
    sure, _ = reml_many.certainty(theta, point, many)
    np.testing.assert_array_equal(sure[1:], expected[0][1:])


@pytest.mark.parametrize("restricted", [True, False])
@pytest.mark.parametrize("q", [1, 2, 3])
def test_the_criterion_along_directions_is_the_criterion(q, restricted):
    design, response = reduced(q)
    many = reml_many.Many.of(design, response, restricted)
    way, length = reml_optimum.directions(design), np.array([0.1, 3.0, 80.0])
    assert way.shape[1] == 1 if q == 1 else way.shape[1] > 30
    for at, direction in zip(reml_optimum.criterion_along(way, length, many), way.T, strict=True):
        for value, size in zip(at, length, strict=True):
            theta = np.zeros((q * (q + 1) // 2, len(value)))
            theta[:q] = size * direction[:, None]
            np.testing.assert_allclose(value, many.evaluate(theta).criterion, rtol=1e-9)


def test_batches_and_threads_change_nothing(monkeypatch):
    whole = reml.fit_many(Y, X, X, GROUPS)
    monkeypatch.setattr(reml, "BATCH", 7 * 12)
    monkeypatch.setattr(reml, "WORTH_A_THREAD", 7 * 12)
    seen = []
    parts = reml.fit_many(Y, X, X, GROUPS, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(parts.criterion, whole.criterion, atol=1e-9)
    assert parts.random_effects.shape == (60, 12, 2)
    assert seen[-1] == (60, 60) and len(seen) == 10  # five for each of two threads


def test_where_there_are_no_threads_none_is_started(monkeypatch):
    """As in a browser, where all batches come one after another."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(reml, "THREADS", 1)
    monkeypatch.setattr(reml, "BATCH", 7 * 12)
    monkeypatch.setattr(threading.Thread, "start", start)
    assert reml.fit_many(Y, X, X, GROUPS).converged.all()


def test_a_singular_fit_is_at_the_boundary_not_near_it():
    article = simulate.article_example()
    A = np.column_stack([np.ones(30), article["app_hours"]])
    fit = reml.fit(article["math_score"], A, A, article["school_id"])
    assert fit.singular and fit.converged
    correlation = fit.cov_re[0, 1] / np.sqrt(fit.cov_re[0, 0] * fit.cov_re[1, 1])
    assert correlation == pytest.approx(1, abs=1e-9)
    # Values of lme4 1.1-31 for the same data.
    np.testing.assert_allclose(fit.beta, [64.004, 2.601], atol=5e-4)
    np.testing.assert_allclose(np.diag(fit.cov_re), [18.155, 0.2281], atol=8e-4)
    assert fit.criterion == pytest.approx(186.551, abs=5e-4)


def balanced_data(n_groups, size, seed):
    """A column of ones and two predictors, the same in every group, and the groups."""
    rng = np.random.default_rng(seed)
    A = np.tile(np.column_stack([np.ones(size), rng.normal(size=(size, 2))]), (n_groups, 1))
    return rng, A, np.repeat(np.arange(n_groups), size)


@pytest.mark.parametrize(
    "q, n_groups, size, seed", [(2, 4, 8, 37), (3, 6, 8, 109), (3, 3, 6, 51), (3, 5, 8, 126)]
)
def test_a_balanced_design_has_one_minimum_and_it_is_found(q, n_groups, size, seed, monkeypatch):
    """Random effects along one direction put the minimum on the boundary, hidden in a corner."""
    rng, A, groups = balanced_data(n_groups, size, seed)
    b = rng.normal(size=(40, n_groups, 1)) * rng.normal(size=q)
    many_y = (b[:, groups] * A[:, :q]).sum(2) + rng.normal(size=(40, len(A)))
    design = reml_reduce.reduce_design(A, A[:, :q], groups)
    assert design.balanced
    response = reml_reduce.reduce_response(many_y, design)
    many = reml_many.Many.of(design, response, True)
    theta, point, sure = reml_optimum.optimum(design, response, True)
    _, lowest = reml_optimum.best_elsewhere(theta, point.criterion, many)
    monkeypatch.setattr(reml_optimum, "FEW", 40)
    _, single, also_sure = reml_optimum.optimum(design, response, True)
    assert sure.all() and also_sure.all()
    assert (point.criterion < lowest + 1e-6).all()
    np.testing.assert_allclose(single.criterion, point.criterion, rtol=0, atol=1e-6)


@pytest.mark.parametrize("restricted", [True, False])
def test_in_a_balanced_design_the_moments_are_the_optimum(restricted):
    rng, A, groups = balanced_data(n_groups=6, size=8, seed=1)
    b = rng.normal(size=(20, 6, 2)) * [2, 1]
    many_y = (b[:, groups] * A[:, :2]).sum(2) + rng.normal(size=(20, len(A)))
    design = reml_reduce.reduce_design(A[:, :2], A[:, :2], groups)
    response = reml_reduce.reduce_response(many_y, design)
    theta, *_ = reml_optimum.optimum(design, response, restricted)
    start = reml_many.moments(design, response, restricted)
    inside = reml_many.shortest(theta, 2) > 0.5
    assert inside.sum() > 10
    np.testing.assert_allclose(start[:, inside], theta[:, inside], rtol=1e-6)
    one = reml_one.One(design, response.take(0), restricted)
    np.testing.assert_allclose(reml_one.moments(one), start[:, 0], rtol=1e-8)


def test_a_flat_optimum_is_not_taken_for_reached_before_a_step():
    """Where one of two groups has one row, curvature can be a thousandth of what is expected."""
    rng = np.random.default_rng(74)
    groups = np.repeat([0, 1], [17, 1])
    X = np.column_stack([np.ones(18), rng.normal(size=18)])
    many_y = rng.normal(size=(1000, 18)) + 0.3 * rng.normal(size=(1000, 2))[:, groups]
    design = reml_reduce.reduce_design(X, X[:, :1], groups)
    response = reml_reduce.reduce_response(many_y, design)
    many = reml_many.Many.of(design, response, True)
    theta, point, sure = reml_optimum.optimum(design, response, True)
    assert sure.all()
    for near in np.geomspace(0.5, 2, 21):
        assert (point.criterion < many.evaluate(near * theta).criterion + 5e-8).all()


@pytest.mark.parametrize("q, large, seed", [(1, 278, 14), (2, 60, 5)])
def test_where_the_criterion_bends_down_the_search_goes_on(q, large, seed, monkeypatch):
    """One large group and two of one row: curvature on the way is small, or the wrong way."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([0, 1, 2], [large, 1, 1])
    X = np.column_stack([np.ones(large + 2), rng.normal(size=large + 2)])
    many_y = rng.normal(size=(1000, large + 2)) + 0.3 * rng.normal(size=(1000, 3))[:, groups]
    design = reml_reduce.reduce_design(X, X[:, :q], groups)
    response = reml_reduce.reduce_response(many_y, design)
    _, point, sure = reml_optimum.optimum(design, response, True)
    some = reml_reduce.reduce_response(many_y[:500], design)
    monkeypatch.setattr(reml_optimum, "FEW", 500)
    _, single, _ = reml_optimum.optimum(design, some, True)
    assert sure.all()
    np.testing.assert_allclose(single.criterion, point.criterion[:500], rtol=0, atol=1e-6)


def test_no_curvature_on_the_way_is_no_reason_to_stop():
    inverse = np.eye(2)
    move, turn = np.array([1.0, 0]), np.array([0.5, 0])
    assert reml_one.update(inverse, move, -turn) == reml_one.AT_ONCE
    np.testing.assert_array_equal(inverse, reml_one.WIDER * np.eye(2))
    assert reml_one.update(inverse, move, turn) == reml_one.LAST_STEP
    np.testing.assert_allclose(inverse @ turn, move)


def test_what_is_not_balanced():
    def balanced(rows, columns, groups):
        return reml_reduce.reduce_design(columns, columns[:, rows], groups).balanced

    hours, treated = np.tile(np.arange(5.0), 8), np.repeat([0.0, 1.0], 20)
    groups, one = np.repeat(np.arange(8), 5), np.ones(40)
    columns = np.column_stack([one, hours, hours**2])
    assert balanced([0, 1], columns, groups)
    assert balanced([1], columns, groups)
    assert not balanced([0, 1], columns[:-1], groups[:-1])
    assert not balanced([0, 1], columns + np.arange(40)[:, None] * [0, 1e-3, 0], groups)
    assert not balanced([0, 1], np.column_stack([one, hours, treated]), groups)
    without = reml_reduce.reduce_design(one[:, None], np.column_stack([one, hours]), groups)
    assert not without.balanced


def test_no_variance_between_groups_is_found_to_be_none():
    rng = np.random.default_rng(2)
    y = rng.normal(size=60)
    groups = np.repeat(np.arange(12), 5)
    y -= np.bincount(groups, y)[groups] / 5  # all group means equal: less variance than chance
    fit = reml.fit(y, np.ones(60), np.ones(60), groups)
    assert fit.singular and fit.cov_re[0, 0] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(fit.random_effects, 0, atol=1e-9)


def test_units_and_origins_do_not_matter():
    fit = reml.fit(Y[1], X, X, GROUPS)
    dollars = np.column_stack([X[:, 0], 1e5 * X[:, 1] + 2e6])
    other = reml.fit(1e9 * Y[1], dollars, dollars, GROUPS)
    assert other.converged
    assert other.beta[1] * 1e5 / 1e9 == pytest.approx(fit.beta[1], rel=1e-6)
    assert other.cov_re[1, 1] * 1e10 / 1e18 == pytest.approx(fit.cov_re[1, 1], rel=1e-4)
    n, p = X.shape
    shift = (n - p) * 2 * np.log(1e9) + 2 * np.log(1e5)  # y in other units; |X| in other units
    assert other.criterion == pytest.approx(fit.criterion + shift, abs=1e-6)


@pytest.mark.parametrize("small", [1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("q", [1, 2, 3])
def test_where_rows_hardly_stray_from_their_groups_the_optimum_is_found(q, small):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(20), 8)
        Z = np.column_stack([np.ones(160), rng.normal(size=(160, q - 1))])
        facts, x = rng.normal(size=(20, 2))[group], rng.normal(size=160)
        X = np.column_stack([Z, facts, x, facts[:, 0] * (Z[:, -1] if q > 1 else x)])
        deviation = (Z * rng.normal(size=(20, q))[group]).sum(axis=1)
        noise = rng.normal(size=160)
        expected = reml.fit(deviation + 1e-3 * noise, X, Z, group)
        fit = reml.fit(deviation + small * noise, X, Z, group)
        assert fit.converged and not fit.singular
        assert fit.scale / small**2 == pytest.approx(expected.scale / 1e-6, rel=1e-3)
        np.testing.assert_allclose(fit.cov_re, expected.cov_re, atol=1e-3)


def test_what_is_zero_is_zero():
    """Variances of the order of rounding would have correlations that differ between machines."""
    many_y = simulate.replicates(SCHOOLS, 60, sd_intercept=1.0, sd_slope=0.05, seed=5)
    fits = reml.fit_many(many_y, X, X, GROUPS)
    none = (fits.cov_re == 0).all(axis=(1, 2))
    assert none.any() and fits.singular[none].all() and not fits.singular.all()
    least = np.linalg.eigvalsh(fits.cov_re / fits.scale[:, None, None])[:, 0]
    assert (least[~fits.singular] > 1e-10).all() and (np.abs(least[fits.singular]) < 1e-15).all()
    for k in np.flatnonzero(none)[:3]:
        assert (reml.fit(many_y[k], X, X, GROUPS).cov_re == 0).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("small", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("q", [1, 2, 3])
def test_no_size_of_the_groups_differences_is_too_large(q, small):
    """Few groups of few rows, whose coefficients differ by up to 10¹⁰ residual SDs."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(12), rng.integers(q + 1, q + 8, 12))
        Z = np.column_stack([np.ones(len(group)), rng.normal(size=(len(group), q - 1))])
        spread = rng.choice([1, 10, 100], q)
        b = rng.normal(size=(8, 12, q)) * spread
        many_y = (b[:, group] * Z).sum(axis=2) + small * rng.normal(size=(8, len(group)))
        fits = reml.fit_many(many_y, Z, Z, group)
        singles = [reml.fit(y, Z, Z, group) for y in many_y]
        assert fits.converged.all() and all(single.converged for single in singles)
        # To the rounding of y, of which so little is left.
        rounding = len(group) * 1e-16 * np.abs(many_y).max() / small
        expected = [single.criterion for single in singles]
        np.testing.assert_allclose(fits.criterion, expected, rtol=0, atol=1e-6 + 50 * rounding)
        np.testing.assert_allclose(fits.random_effects.std(axis=1), b.std(axis=1), rtol=1e-2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("q", [2, 3, 4])
def test_long_axes_hide_no_short_ones(q):
    """However much groups differ in one direction, all else of the fit stays where it is.

    With X = Z the criterion grows, in the limit, by 2 log of that size for each group but one.
    """
    rng = np.random.default_rng(q)
    group = np.repeat(np.arange(25), 8)
    Z = np.column_stack([np.ones(200), rng.normal(size=(200, q - 1))])
    b = rng.normal(size=(12, 25, q)) * np.append([0, 0], rng.uniform(0.3, 1, q - 2))
    rest = (b[:, group] * Z).sum(axis=2) + rng.normal(size=(12, 200))
    long = rng.normal(size=(12, 25))[:, group] * (Z @ rng.normal(size=q))
    base = reml.fit_many(rest + 1e3 * long, Z, Z, group)
    assert 0 < base.singular.sum() < 12
    base_fitted = (Z * (base.beta[:, None] + base.random_effects)[:, group]).sum(axis=2)
    for size in (1e5, 1e7):
        fits = reml.fit_many(rest + size * long, Z, Z, group)
        assert fits.converged.all()
        np.testing.assert_array_equal(fits.singular, base.singular)
        criterion = fits.criterion - 2 * 24 * np.log(size)
        np.testing.assert_allclose(criterion, base.criterion - 2 * 24 * np.log(1e3), atol=0.02)
        np.testing.assert_allclose(fits.scale, base.scale, rtol=1e-3)
        np.testing.assert_allclose(25 * fits.cov_beta, fits.cov_re, rtol=1e-3)
        fitted = (Z * (fits.beta[:, None] + fits.random_effects)[:, group]).sum(axis=2)
        np.testing.assert_allclose(fitted - size * long, base_fitted - 1e3 * long, atol=0.02)
        single = reml.fit((rest + size * long)[0], Z, Z, group)
        # To the rounding of y, which grows with that size.
        rounding = 1e-13 * size
        assert single.converged
        assert single.criterion == pytest.approx(fits.criterion[0], abs=rounding)


def test_the_estimates_recover_the_truth():
    """Means over 2,000 data sets agree with the truth within 4 Monte Carlo standard errors."""
    data = simulate.schools(40, 20, seed=6)
    A = np.column_stack([np.ones(len(data)), data["app_hours"]])
    truth = {"sd_intercept": 4.0, "sd_slope": 0.8, "correlation": 0.3, "sd_residual": 5.0}
    fits = reml.fit_many(
        simulate.replicates(data, 2000, **truth, seed=7), A, A, data["school_id"].to_numpy()
    )
    estimates = np.column_stack([fits.beta, fits.cov_re[:, 0, 0], fits.cov_re[:, 1, 1], fits.scale])
    error = estimates.std(axis=0, ddof=1) / np.sqrt(2000)
    assert np.all(np.abs(estimates.mean(axis=0) - [60, 2, 16, 0.64, 25]) < 4 * error)
    spread = fits.beta[:, 1].std(ddof=1)
    claimed = np.sqrt(fits.cov_beta[:, 1, 1].mean())
    assert claimed == pytest.approx(spread, rel=4 / np.sqrt(2 * 2000))


def test_a_million_rows_need_little_memory():
    code = """
import resource, numpy as np
from helpers import reml
rng = np.random.default_rng(1)
groups = np.repeat(np.arange(10_000), 100)
x = rng.uniform(1, 10, 1_000_000)
b = rng.normal(0, [4, 0.8], (10_000, 2))[groups]
y = 60 + 2 * x + b[:, 0] + b[:, 1] * x + rng.normal(0, 5, 1_000_000)
X = np.column_stack([np.ones_like(x), x])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fit = reml.fit(y, X, X, groups)
print(fit.converged, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 700)
"""
    if sys.platform == "win32":
        pytest.skip("peak memory is read by the POSIX module resource")
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.split() == ["True", "True"]


def test_import_needs_nothing_but_numpy_and_scipy():
    code = (
        "import sys; from helpers import reml; print({'pandas', 'statsmodels'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == "set()"


GOOD = {"y": Y[0], "X": X, "Z": X, "groups": GROUPS}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": np.zeros(96)}, "groups has 1 group.*at least 2"),
        ({"X": np.column_stack([X, X[:, 1] * 2])}, "X is rank-deficient: column 2"),
        ({"Z": np.column_stack([X[:, :1], np.zeros(96)])}, "Z is rank-deficient: column 1"),
        ({"y": ["many"] * 96}, "y must be numbers"),
        ({"y": Y[0] * 1e300}, "y reaches .*e\\+30.*another unit"),
        ({"groups": np.array(["a", *range(95)], dtype=object)}, "groups has labels of different"),
        ({"X": X[:5]}, "X has 5 rows and y has 96"),
        ({"groups": GROUPS[:5]}, "groups has 5 rows and y has 96"),
        ({"groups": np.arange(96)}, "96 groups × 2 random effects.*fewer columns in Z"),
        ({"groups": np.repeat(np.arange(48), 2)}, "random effects for 96 rows"),
        ({"y": np.where(np.arange(96) == 3, np.nan, Y[0])}, "y has 1 missing or infinite"),
        ({"X": np.where(X.max() == X, np.inf, X)}, "X has . missing or infinite"),
        ({"groups": np.where(np.arange(96) == 3, None, GROUPS)}, "groups has missing labels"),
        ({"groups": np.where(np.arange(96) == 3, np.nan, 1.0)}, "groups has missing labels"),
        ({"groups": np.where(np.arange(96) == 3, pd.NA, GROUPS)}, "groups has missing labels"),
        ({"groups": GROUPS[:, None]}, "groups must have one axis"),
        ({"y": Y[:2]}, "y must have one axis.*fit_many"),
        ({"Z": np.empty((96, 0))}, "Z must have two axes, neither empty"),
        ({"y": X @ [60, 2]}, "fixed effects fit y exactly"),
        ({"y": SCHOOLS["school_id"].factorize()[0] * 3.0}, "each group's own fit is exact"),
        ({"X": np.array([["a", "b"]] * 96)}, "X must be numbers"),
        ({"X": np.eye(96)[:, :95], "Z": X[:, :1]}, "no residual degrees of freedom"),
        ({"X": np.eye(96)}, "no residual degrees of freedom"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_plain_words(change, message):
    with pytest.raises(ValueError, match=message):
        reml.fit(**GOOD | change)


def test_no_replicates_are_no_data():
    with pytest.raises(ValueError, match="y must have two axes, neither empty"):
        reml.fit_many(np.empty((0, 96)), X, X, GROUPS)


@pytest.mark.parametrize("number", [0, 3, 1700])
def test_one_exact_replicate_among_many_is_named(number, monkeypatch):
    """In whatever block and batch it is worked on."""
    monkeypatch.setattr(reml, "BATCH", 700 * 12)
    many_y = np.tile(Y, (30, 1))
    many_y[number] = X @ [60, 2]
    with pytest.raises(ValueError, match=rf"exactly.*\(replicate {number}\)"):
        reml.fit_many(many_y, X, X, GROUPS)
