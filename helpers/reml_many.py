"""The criterion of many data sets, of one design as a rule, and their minima, side by side.

The mathematics is that of `reml_one`; `evaluate_any` has its formulas one by one. Here arrays that
a fit repeats for each group and each replicate are laid out (entries…, groups, replicates): the
matrices are small and the batch is long, so loops run over the entries of a matrix and NumPy runs
over the batch, in blocks that fit the processor's cache. For an intercept and a slope, the model of
most people, the 2 × 2 algebra is written out. The last few replicates are finished one after
another by `reml_one`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from helpers import reml_one
from helpers.reml_one import (
    AT_ONCE,
    FAR,
    LARGE,
    LAST_STEP,
    LEAP,
    MOST_STEPS,
    MOST_UNEQUAL,
    SHORT,
    SHORTEST_STEP,
    SINGULAR,
    TOLERANCE,
    WIDER,
    bends,
    cholesky,
    corners,
    crossed,
    diagonal,
    divide,
    factors,
    is_long,
    least_curvature,
    lower,
    solve,
    thetas,
    unfold,
    whole,
)
from helpers.reml_reduce import BLOCK, joined, slices

FEW = 6  # replicates that are quicker one after another


class Point(NamedTuple):
    """The criterion at one Λ for each replicate, and what was computed on the way."""

    criterion: np.ndarray  # (R,)
    beta: np.ndarray  # (p, R): coefficients on Q, of y in its unit and less its start
    scale: np.ndarray  # (R,): σ² in the unit of y
    L_inv: np.ndarray  # (p, p, R): L⁻¹, where LLᵀ = Q' W⁻¹ Q
    by_psi: np.ndarray  # (q, q, R): derivative of the criterion in Ψ = ΛΛᵀ

    def put(self, where, other):
        """Take the replicates `where` from another point, in place."""
        for mine, its in zip(self, other, strict=True):
            mine[..., where] = its


class Many:
    """Many responses beside one design, or each beside its own."""

    def __init__(self, design, response, reml, ones=None):
        self.design, self.response, self.reml = design, response, reml
        self.ones = ones  # (R,): the `One` of each, where there is one already

    @classmethod
    def of(cls, design, response, reml, ones=None):
        """Beside one design with two random effects, y is kept as the four numbers of `Products`.

        The first two of these are its rows.
        """
        if design.sizes[2] == 2 and not design.own:
            rows = design.products.four_of(response.rows.swapaxes(1, 2)).swapaxes(1, 2)
            response = response._replace(rows=rows.copy())
        return cls(design, response, reml, ones)

    def take(self, keep):
        ones = self.ones if self.ones is None else self.ones[keep]
        return Many(self.design.take(keep), self.response.take(keep), self.reml, ones)

    def one(self, i):
        if self.ones is not None:
            return self.ones[i]
        return reml_one.One(self.design.take(i), self.response.take(i), self.reml)

    def evaluate(self, theta):
        """−2 log of the profiled (restricted) likelihood at theta, (q(q+1)/2, R), a `Point`."""
        q, J = self.design.sizes[2:]
        formula = evaluate_pair if q == 2 and not self.design.own else evaluate_any
        blocks = slices(theta.shape[1], BLOCK // J)
        parts = [
            (theta[:, i], self.design.take(i), self.response.take(i), self.reml) for i in blocks
        ]
        with np.errstate(divide="ignore", invalid="ignore"):  # far out, where X is lost in rounding
            point = joined([formula(*part) for part in parts])
        lost = ~np.isfinite(point.criterion)
        point.criterion[lost], point.by_psi[..., lost] = np.inf, 0
        return point

    def value_and_gradient(self, theta):
        point = self.evaluate(theta)
        return point.criterion, gradient_of(theta, point)

    def information(self, theta):
        """Expected Hessian of the criterion in theta, (m, m, R), as in `reml_one`."""
        n, _, q, _ = self.design.sizes
        H, dPsi = precision(theta, self.design), bends(q) @ theta
        HH = np.einsum("ajr,bjr->abr", H, H)[crossed(q)]
        total = np.einsum("axr,xr->ar", dPsi, H.sum(axis=1)[whole(q).ravel()])
        return np.einsum("axr,xyr,byr->abr", dPsi, HH, dPsi) - total[:, None] * total / n

    def ridge(self, theta):
        """What to count on where the information is nil."""
        return least_curvature((theta**2).sum(axis=0), self.design.sizes[3])

    def inverse(self, theta):
        """Inverse of the information, where it is nil with what to count on."""
        return inverse_of(self.information(theta), self.ridge(theta))


def evaluate_any(theta, design, response, reml):
    """`Many.evaluate` for any number of random effects."""
    n, p, q, _ = design.sizes
    df = n - p if reml else n
    W_factor, white = divide(theta, design.rows)
    log_det = 2 * np.log(np.abs(diagonal(W_factor)).prod(axis=0)).sum(axis=0)
    Z, X, y = white[:, :q], white[:, q:], solve(W_factor, response.rows)

    XX = np.einsum("kajr,kbjr->abr", X, X)
    XX += design.XX_within
    Xy = np.einsum("kajr,kjr->ar", X, y) + response.Xy_within
    L, L_inv, beta = coefficients(XX, Xy)
    residual = y - np.einsum("kajr,ar->kjr", X, beta)
    rss = rss_within(beta, design, response) + np.einsum("kjr,kjr->r", residual, residual)
    criterion = df * (np.log(2 * np.pi / df * rss) + 1) + log_det

    score = np.einsum("kljr,kjr->ljr", Z, residual)
    by_psi = np.einsum("kljr,kmjr->lmr", Z, Z)
    by_psi -= np.einsum("ljr,mjr->lmr", score, score) * (df / rss)
    if reml:
        criterion += 2 * np.log(L.diagonal()).sum(axis=-1)
        ZX = solve(L, np.einsum("kljr,kajr->aljr", Z, X))
        by_psi -= np.einsum("aljr,amjr->lmr", ZX, ZX)
    return Point(criterion, beta, rss / df, L_inv, by_psi)


def coefficients(XX, Xy):
    """L of XX = LLᵀ (p, p, R), L⁻¹, and XX⁻¹ Xy."""
    p, _, R = XX.shape
    L = cholesky(XX)
    right = np.empty((p, p + 1, R))
    right.T[:] = np.eye(p + 1, p)
    right[:, p] = Xy
    left = solve(L, right)
    L_inv = left[:, :p]
    return L, L_inv, (L_inv * left[:, p:]).sum(axis=0)


def rss_within(beta, design, response):
    """Sum of squares of the rows that the random effects do not reach."""
    within = response.within - np.einsum("wa...,a...->w...", design.X_within, beta)
    return response.ss_within + (within**2).sum(axis=0)


def evaluate_pair(theta, design, response, reml):
    """`Many.evaluate` for q = 2, in closed form where that loses no digits; see `Products`."""
    (n, p, _, J), products, (a, b, c) = design.sizes, design.products, theta
    df, R = n - p if reml else n, theta.shape[1]
    W_det = products.determinant(theta)
    if W_det.max() > LARGE:
        response = response._replace(rows=response.rows[:2])
        return evaluate_any(theta, design, response, reml)
    # one logarithm for four groups
    log_det = np.log(np.multiply.reduceat(W_det, range(0, J, 4), axis=0)).sum(axis=0)
    over_det = np.divide(1, W_det, out=W_det)
    AA = np.ones((4, R))  # 1, and adj(Ψ)
    AA[1:] = b * b + c * c, -a * b, a * a

    parts = (products.pairs @ over_det).reshape(p * p, 4, R)
    XX = (AA * parts).sum(axis=1).reshape(p, p, R)
    XX += design.XX_within
    Xy = (products.beside @ (response.rows * over_det).reshape(4 * J, R)).reshape(4, p, R)
    Xy = (AA[:, None] * Xy).sum(axis=0) + response.Xy_within
    L, L_inv, beta = coefficients(XX, Xy)

    r1, r2, t1, t2 = response.rows - (products.columns @ beta).reshape(4, J, R)
    tt = np.array([t1 * t1, t1 * t2, t2 * t2])
    form = a * t2 - b * t1  # r'W⁻¹r, in the end
    form *= form
    form += c * c * tt[0]
    form += r1 * r1
    form += r2 * r2
    form *= over_det
    rss = rss_within(beta, design, response) + form.sum(axis=0)
    criterion = df * (np.log(2 * np.pi / df * rss) + 1) + log_det

    # In Ψ a form (x·x + t' adj(Ψ) t) / |W| changes with adj(Ψ), and by −form / |W| with |W|, whose
    # derivative is Z'Z + |Z'Z| adj(Ψ).
    form *= df / rss
    turned = (tt * over_det).sum(axis=1) * (df / rss)
    if reml:
        criterion += 2 * np.log(L.diagonal()).sum(axis=-1)
        inverse = (L_inv[:, :, None] * L_inv[:, None]).sum(axis=0).reshape(p * p, R)
        form += (products.pairs.T @ (AA * inverse[:, None]).reshape(4 * p * p, R)) * over_det
        half = (parts[:, 1:] * inverse[:, None]).sum(axis=0)
        half[1] /= 2
        turned += half
    form -= 1
    form *= over_det
    kk = products.ZZ @ form  # 11, 12, 22, det
    by_psi = np.empty((4, R))
    by_psi[::3] = turned[::-2] - kk[:3:2] - kk[3] * AA[1::2]
    by_psi[1:3] = -turned[1] - kk[1] - kk[3] * AA[2]
    return Point(criterion, beta, rss / df, L_inv, by_psi.reshape(2, 2, R))


def precision(theta, design):
    """H = Z_j' W_j⁻¹ Z_j: what the groups' data say of their random effects.

    Its lower triangle (q(q+1)/2, J, R), column by column.
    """
    q = design.sizes[2]
    if q == 2 and not design.own:
        a, b, c = theta
        k11, k12, k22, det = design.products.ZZ[..., None]
        H = np.array([k11 + det * (b * b + c * c), k12 - det * (a * b), k22 + det * (a * a)])
        H /= design.products.determinant(theta)
        return H
    _, white = divide(theta, design.rows)
    return np.einsum("kljr,kmjr->lmjr", white[:, :q], white[:, :q])[lower(q)]


def moments(design, response, reml):
    """Start for Λ, (q(q+1)/2, R), as `reml_one.moments`."""
    q, J = design.sizes[2:]
    TZ, system, noise = reml_one.moment_equations(design)
    u = np.einsum("lkj,kjr->ljr", TZ, response.rows)
    sigma2 = response.ss_within / design.df_within * (J - reml) / J
    observed = np.einsum("ljr,mjr->lmr", u, u / sigma2).reshape(q * q, -1)
    psi = np.linalg.solve(system, observed - noise[:, None]).reshape(q, q, -1)
    poor = ~is_positive(psi, -np.maximum(0.1, psi.trace() / MOST_UNEQUAL))
    value, vector = np.linalg.eigh(psi[..., poor].T)
    floor = np.maximum(0.1, value[:, -1:] / MOST_UNEQUAL)
    root = vector * np.sqrt(np.maximum(value, floor))[:, None]
    psi.T[poor] = np.eye(q)
    theta = cholesky(psi)[lower(q)]
    theta[:, poor] = thetas(root)
    return theta


def gradient_of(theta, point):
    """Derivative of the criterion in theta, (m, R)."""
    q = len(point.by_psi)
    return 2 * np.einsum("lmr,mkr->lkr", point.by_psi, unfold(theta, q))[lower(q)]


def minimise(theta, many):
    """The minimum from theta, (q(q+1)/2, R), for all replicates side by side.

    The steps are those of `reml_one.minimise`. At each evaluation a replicate either takes its step
    or shortens it; those that are done leave. Those with a long axis are left as they are.
    """
    found, active = theta.copy(), np.flatnonzero(~is_long(theta))
    if len(active) < theta.shape[1]:
        theta, many = theta[:, active], many.take(active)
    step, enough, inverse = np.ones(len(active)), np.full(len(active), AT_ONCE), None
    if len(active) > FEW:
        value, gradient = many.value_and_gradient(theta)
        inverse = many.inverse(theta)
    for _ in range(MOST_STEPS):
        if len(active) <= FEW:
            for i, k in enumerate(active):
                begun = () if inverse is None else (inverse[..., i].copy(), step[i], enough[i])
                found[:, k] = reml_one.minimise(theta[:, i], many.one(i), *begun)
            return found
        direction = -np.einsum("abr,br->ar", inverse, gradient)
        promise = -np.einsum("ar,ar->r", direction, gradient)
        last = promise < enough
        done = last | (step < SHORTEST_STEP)
        if done.any():
            found[:, active[done]] = (theta + np.where(last, direction, 0))[:, done]
            keep = np.flatnonzero(~done)
            active, theta, value, gradient, inverse, step, enough = (
                part[..., keep] for part in (active, theta, value, gradient, inverse, step, enough)
            )
            many = many.take(keep)
            continue
        move = step * stride(theta, direction)
        new_value, new_gradient = many.value_and_gradient(theta + move)
        taken, shorter = judge(value, new_value, np.einsum("ar,ar->r", move, gradient))
        met = update(inverse, np.where(taken, move, 0), np.where(taken, new_gradient - gradient, 0))
        inverse *= np.where(taken & ~met, WIDER, 1)
        enough = np.where(taken, np.where(met, LAST_STEP, AT_ONCE), enough)
        step = np.where(taken, 1, step * shorter)
        theta = np.where(taken, theta + move, theta)
        leapt = np.flatnonzero(taken & (new_value < value - LEAP))
        if leapt.size:
            inverse[..., leapt] = many.take(leapt).inverse(theta[:, leapt])
            enough[leapt] = AT_ONCE
        value = np.where(taken, new_value, value)
        gradient = np.where(taken, new_gradient, gradient)
    found[:, active] = theta
    return found


def stride(theta, direction):
    """The direction, cut where it is longer than what is natural at theta."""
    length = np.sqrt((direction**2).sum(axis=0))
    longest = 1 + np.sqrt((theta**2).sum(axis=0))
    return np.minimum(1, longest / np.maximum(length, 1e-300)) * direction


def judge(value, new_value, change):
    """Whether a step that promised a change did enough, and by how much to shorten it if not."""
    taken = new_value <= value + 1e-4 * change + 1e-13 * np.abs(value)
    shorter = -change / (2 * np.maximum(new_value - value - change, 1e-300))
    return taken, np.clip(shorter, 0.05, 0.5)


def inverse_of(hessian, ridge):
    """Inverse of a positive definite matrix (m, m, R) with a ridge; of that alone if it is lost."""
    diagonal(hessian)[:] += ridge
    with np.errstate(divide="ignore", invalid="ignore"):
        L = cholesky(hessian)
        L_inv = solve(L, np.broadcast_to(np.eye(len(L))[..., None], L.shape))
    inverse = np.einsum("kar,kbr->abr", L_inv, L_inv)
    lost = ~np.isfinite(inverse.trace())
    inverse[..., lost] = np.eye(len(L))[..., None] / ridge[lost]
    return inverse


def update(inverse, move, difference):
    """BFGS update of the inverse Hessian, in place, where the move met positive curvature."""
    along = (move * difference).sum(axis=0)
    by_inverse = (inverse * difference).sum(axis=1)
    use = along > 1e-12 * np.sqrt((move**2).sum(axis=0) * (difference**2).sum(axis=0))
    along = np.where(use, along, 1)
    weight = np.where(use, (1 + (difference * by_inverse).sum(axis=0) / along) / along, 0)
    cross = by_inverse[:, None] * (move * np.where(use, 1 / along, 0))
    inverse += weight * move[:, None] * move - cross - cross.swapaxes(0, 1)
    return use


def look_again(theta, point, design):
    """Which replicates start again, and from where; whether they must; whether a way down is left.

    As `reml_one.look_again`, where the reasons are.
    """
    _, _, q, J = design.sizes
    downhill = ~is_positive(point.by_psi, np.sqrt(20 * J * TOLERANCE))
    rest = np.einsum("klr,lmr->kmr", point.by_psi, unfold(theta, q))
    unseen = (rest**2).sum(axis=(0, 1)) > 10 * J * TOLERANCE
    near = np.flatnonzero(downhill | unseen | (shortest(theta, q) < 1))
    downhill, unseen = downhill[near], unseen[near]
    axis, length, _ = np.linalg.svd(factors(theta[:, near], q))
    drop = ~downhill & ~unseen & (length[:, -1] > SINGULAR) & (length[:, -1] < 1)
    length[drop, -1] = 0
    length[unseen[:, None] & (length < SHORT)] = 0
    push = np.zeros((len(downhill), q, 1))
    value, way = np.linalg.eigh(point.by_psi[..., near[downhill]].T)
    push[downhill] = np.sqrt(np.abs(value[:, :1, None]) / J) * way[..., :1]
    must = downhill | unseen
    look = drop | must
    start = np.concatenate([axis * length[:, None, :], push], axis=2)[look]
    return near[look], thetas(start), must[look], downhill[look]


def shortest(theta, q):
    """A lower bound of the singular values of Λ, from its determinant and its norm."""
    det = np.abs(theta[corners(q)].prod(axis=0))
    square = np.maximum((theta**2).sum(axis=0), 1e-300)
    return det * ((q - 1) / square) ** ((q - 1) / 2)


def settle(theta, many, rounds=10):
    """Look again until nothing is gained: theta, its point, and whether a way down is left.

    What is better takes the place of theta in the array that was given.
    """
    point = many.evaluate(theta)
    again, start, must, its = look_again(theta, point, many.design)
    downhill = np.zeros(theta.shape[1], dtype=bool)
    downhill[again] = its
    if again.size:
        part = many.take(again)
        there = part.evaluate(start)
        rise = there.criterion - point.criterion[again]
        promise = newton(gradient_of(start, there), part.inverse(start))
        hopeful = np.flatnonzero(must | (rise < np.minimum(FAR, 1 + promise)))
        again, start, its = again[hopeful], start[:, hopeful], its[hopeful]
        part = part.take(hopeful)
    if again.size and rounds:
        trial = minimise(start, part)
        value = part.evaluate(trial).criterion
        # A boundary as good as the inside is the answer: what is left of Λ there is rounding.
        # Where one is left, rounding may hide what is gained: as good is good enough there, too.
        better = value < point.criterion[again] + np.where(its, 1, 100) * TOLERANCE
        if better.any():
            moved, part = again[better], part.take(np.flatnonzero(better))
            theta[:, moved], there, downhill[moved] = settle(trial[:, better], part, rounds - 1)
            point.put(moved, there)
    return theta, point, downhill


def is_positive(A, ridge):
    """Whether matrices (m, m, R) with a ridge are positive definite."""
    A = A.copy()
    diagonal(A)[:] += ridge
    if len(A) > 4:
        return np.linalg.eigvalsh(A.T)[:, 0] > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return (diagonal(cholesky(A)) > 0).all(axis=0)


def newton(gradient, inverse):
    """Twice what a Newton step would take off the criterion."""
    return np.einsum("ar,abr,br->r", gradient, inverse, gradient)


def certainty(theta, point, many):
    """Whether the gradient at theta is as good as zero, and whether theta is badly determined."""
    q, hessian, ridge = len(point.by_psi), many.information(theta), many.ridge(theta)
    flat = ~is_positive(hessian, -ridge)
    hessian += np.einsum("xr,axb->abr", point.by_psi.reshape(q * q, -1), bends(q))
    diagonal(hessian)[:] += ridge
    try:
        inverse = np.linalg.inv(hessian.T).T  # which need not be positive definite
    except np.linalg.LinAlgError:  # raised for all if one is singular in rounding
        inverse = np.linalg.pinv(np.nan_to_num(hessian.T), hermitian=True).T
    sure = np.abs(newton(gradient_of(theta, point), inverse)) < 1e-6
    return sure & (point.criterion < np.inf), flat
