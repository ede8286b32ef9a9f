"""The criterion of one data set and its minimum: the mathematics of `reml`.

Let W = I + ZΨZ' with Ψ = ΛΛᵀ, which is C / σ²: q × q for each group in the rows of `reml_reduce`,
and I in the rows within groups. W is factored, and with it the table of cross-products, in which y
stands beside X; that tells all:

    [X y]' W⁻¹ [X y] = LLᵀ      −2 log-likelihood = constant + log|W| + 2 Σ wᵢ log Lᵢᵢ

The last entry on the diagonal of L is the root of the residual sum of squares, df · σ²; its weight
w is the degrees of freedom df. The others make |X'W⁻¹X|; their weight is 1 for REML and 0 for ML.
The last row and those above it tell β. The constant is df (log(2π / df) + 1). The derivative in Ψ,
`by_psi`, is Z'W⁻¹Z − Z'W⁻¹U'UW⁻¹Z with U = diag(√w) L⁻¹ [X y]', summed over groups.

`White` has it in general; for one and two random effects `Pair` has W⁻¹ in closed form.

The search starts from moments, takes quasi-Newton steps, and then looks across the edge where Λ is
singular: is there a way down off it, and is it as low as the point that was found?

`reml_many` has the same for thousands of data sets at once. Where it is called often, `dot` stands
for `@`: it takes half the time when matrices are small.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache, cached_property
from math import log, pi, sqrt

import numpy as np
from scipy.linalg import lapack

from helpers.reml_reduce import Products

TOLERANCE = 1e-10  # of the criterion
LAST_STEP = 1e-9  # a step that promises less of the criterion is taken unseen, and is the last
AT_ONCE = 1e-12  # the same before a step has met the curvature that the promise rests on
WIDER = 2  # times the inverse Hessian where none was met
LEAP = 3  # a step that takes more off the criterion has left behind what was learnt of curvature
SHORTEST_STEP = 1e-8  # of the direction; where even that leads up, the search ends
MOST_STEPS = 500
SINGULAR = 1e-4  # length of an axis of Λ that we call zero; at 1, half is shrunk away
SHORT = 0.1  # length of an axis of Λ that may be left out for a while
NO_INFORMATION = 0.1  # curvature, a group, to count on where the data have none
LARGE = 1e8  # beside this, what is of the order of 1 loses half of its digits
MOST_UNEQUAL = 1000  # variances in different directions, at the start
FAR = 5  # above an optimum what else there is is left alone; of 3,900 none led lower from 3 above
LONG = 1e4  # length of an axis of Λ beside which others lose digits


# ------------------------------------------------------------------------------- Λ and theta


@cache
def lower(q):
    """Rows and columns of a lower triangle, column by column."""
    columns, rows = np.triu_indices(q)
    return rows, columns


@cache
def whole(q):
    """Where in its lower triangle each entry of a symmetric matrix is, (q, q)."""
    rows, columns = lower(q)
    place = np.empty((q, q), int)
    place[rows, columns] = place[columns, rows] = range(len(rows))
    return place


@cache
def crossed(q):
    """Which two entries of the lower triangle of H make h_ij h_km, for rows jk and columns mi."""
    j, k, m, i = np.indices((q, q, q, q)).reshape(4, q * q, q * q)
    return whole(q)[i, j], whole(q)[k, m]


@cache
def corners(q):
    """Where the diagonal of Λ is in theta."""
    rows, columns = lower(q)
    return np.flatnonzero(rows == columns)


def unfold(theta, q):
    """Λ (q, q, …) from its lower triangle theta (q(q+1)/2, …), column by column."""
    out = np.zeros((q, q) + theta.shape[1:])
    out[lower(q)] = theta
    return out


def triangle(root):
    """The lower triangular matrices L (…, q, q) with the LLᵀ of a root (…, q, q or more)."""
    return np.linalg.qr(root.swapaxes(-1, -2), mode="r").swapaxes(-1, -2)


def factors(theta, q):
    """Λ of each replicate, (R, q, q), from theta (q(q+1)/2, R)."""
    return unfold(theta, q).transpose(2, 0, 1)


def thetas(roots):
    """Theta (q(q+1)/2, R) of the lower triangles with the LLᵀ of roots (R, q, q or more)."""
    return triangle(roots)[:, *lower(roots.shape[1])].T


def is_long(theta):
    """Whether an axis of Λ may be so long that digits go: of other axes beside it, or of y."""
    return (theta * theta).sum(axis=0) > LONG**2


@cache
def identity(q):
    """For as many parameters as Λ has."""
    return np.eye(q * (q + 1) // 2)


@cache
def bends(q):
    """Second derivatives of Ψ = ΛΛᵀ in theta, (m, q², m); times theta, they are the first."""
    entry = unfold(identity(q), q)
    product = np.einsum("ika,jkb->aijb", entry, entry)
    return (product + product.transpose(3, 1, 2, 0)).reshape(len(product), q * q, -1)


# ---------------------------------------------------------------------------- W of each group


def cholesky(A):
    """Lower factors of symmetric positive definite matrices A (m, m, …); nan where one is not."""
    m = len(A)
    if m > 4:
        with suppress(np.linalg.LinAlgError):  # raised for all if one is lost in rounding
            return np.linalg.cholesky(A.T).swapaxes(-1, -2).T
    L = np.zeros(A.shape)
    for i in range(m):
        for k in range(i + 1):
            entry = A[i, k]
            for h in range(k):
                entry = entry - L[i, h] * L[k, h]
            L[i, k] = np.sqrt(entry) if i == k else entry / L[k, k]
    return L


def solve(L, B):
    """L⁻¹ B for lower triangular L (m, m, …) and B (m, …)."""
    out = np.empty(B.shape)
    for i in range(len(L)):
        entry = B[i]
        for h in range(i):
            entry = entry - L[i, h] * out[h]
        out[i] = entry / L[i, i]
    return out


def diagonal(A):
    """The diagonals (m, …) of matrices A (m, m, …), as a view."""
    return np.einsum("kk...->k...", A)


def divide(theta, rows):
    """Cholesky factors of W_j = I + Z_j Ψ Z_j', and the rows (q, c, J) divided by them.

    Z_j is the first q columns. With theta (m, R) for R replicates both end with their axis; the
    rows may, too.
    """
    q = len(rows)
    G = np.einsum("klj...,lm...->kmj...", rows[:, :q], unfold(theta, q))
    W = np.einsum("kmj...,lmj...->klj...", G, G)
    diagonal(W)[:] += 1
    if W.max() < LARGE:
        W_factor = cholesky(W)
    else:  # without the squares
        root = G.T.swapaxes(-1, -2)
        one = np.broadcast_to(np.eye(q), root.shape)
        W_factor = triangle(np.concatenate([root, one], axis=-1)).swapaxes(-1, -2).T
    rows = rows if rows.ndim > theta.ndim + 1 else rows[..., None]
    return W_factor, solve(W_factor, np.broadcast_to(rows, rows.shape[:3] + theta.shape[1:]))


class White:
    """Z and [X y] of each group divided by a Cholesky factor of its W."""

    def __init__(self, theta, rows):
        q, _, J = rows.shape
        W_factor, white = divide(theta, rows)
        self.log_det = 2 * np.log(np.abs(diagonal(W_factor))).sum()
        self.Z, self.Xy = white[:, :q], white[:, q:]
        Xy = self.Xy.swapaxes(0, 1).reshape(-1, q * J)
        self.sums = Xy @ Xy.T

    def by_psi(self, half):
        """The derivative in Ψ (q²,), from the half diag(√w) L⁻¹."""
        q = len(self.Z)
        ZU = np.matmul(half, np.einsum("klj,kaj->laj", self.Z, self.Xy)).reshape(q, -1)
        return (np.einsum("klj,kmj->lm", self.Z, self.Z) - ZU @ ZU.T).ravel()

    def precision(self):
        """Z_j' W_j⁻¹ Z_j, its lower triangle (q(q+1)/2, J)."""
        return np.einsum("klj,kmj->lmj", self.Z, self.Z)[lower(len(self.Z))]


class Pair:
    """`White` for up to two random effects, in closed form; see `reml_reduce.Products`."""

    def __init__(self, theta, products, q):
        self.products, self.q = products, q
        a, b, c = theta = (*theta.tolist(), 0.0, 0.0)[:3]
        det = products.determinant(theta)
        self.log_det = np.log(det).sum()
        self.over_det = np.reciprocal(det, out=det)
        self.adj = np.array([1, b * b + c * c, -a * b, a * a])  # 1, and adj(Ψ)
        self.parts = products.pairs.dot(self.over_det).reshape(-1, 4)
        self.sums = self.parts.dot(self.adj).reshape(products.n_columns, -1)

    def by_psi(self, half):
        """The derivative in Ψ (q²,), from the half diag(√w) L⁻¹.

        A form (x'x + t' adj(Ψ) t) / |W| changes with adj(Ψ), and by −form / |W| with |W|, whose
        derivative is Z'Z + |Z'Z| adj(Ψ).
        """
        P = half.T.dot(half).ravel()
        form = self.adj.dot(P.dot(self.products.pairs.reshape(len(P), -1)).reshape(4, -1))
        form *= self.over_det
        form -= 1
        form *= self.over_det
        k11, k12, k22, det = self.products.ZZ.dot(form).tolist()
        _, t11, t12, t22 = P.dot(self.parts).tolist()
        _, s11, s12, s22 = self.adj.tolist()
        cross = -t12 / 2 - k12 - det * s12
        by_psi = [t22 - k11 - det * s11, cross, cross, t11 - k22 - det * s22]
        return np.array(by_psi[: self.q**2])

    def precision(self):
        """Z_j' W_j⁻¹ Z_j, its lower triangle (q(q+1)/2, J)."""
        ZZ = self.products.ZZ
        out = (ZZ[:3] + self.adj[1:, None] * ZZ[3]) * self.over_det
        return out if self.q == 2 else out[:1]


# ------------------------------------------------------------------------------- the criterion


class Value:
    """The criterion at one Λ, theta (q(q+1)/2,); its derivatives when they are asked for."""

    def __init__(self, theta, one, white, L, criterion):
        self.theta, self.one, self.white, self.L = theta, one, white, L
        self.criterion = criterion
        self.taken_out = one.taken_out  # with this L, as y may have more taken out of it later

    @property
    def L_inv(self):
        """L⁻¹, (p + 1, p + 1)."""
        return lapack.dtrtri(self.L, lower=1)[0]

    @cached_property
    def by_psi(self):
        """The derivative of the criterion in Ψ, (q²,)."""
        if self.criterion == np.inf:
            return np.zeros(self.one.q**2)
        return self.white.by_psi(self.one.root_weights * self.L_inv)

    @property
    def gradient(self):
        """Derivative of the criterion in theta."""
        return bends(self.one.q).dot(self.theta).dot(self.by_psi)


class One:
    """One response beside its design, in the rotated rows of `reml_reduce`."""

    def __init__(self, design, response, reml):
        self.n, p, self.q, self.n_groups = design.sizes
        self.design = design
        self.df = df = self.n - p if reml else self.n
        self.rows = np.concatenate([design.rows, response.rows[: self.q, None]], axis=1)
        self.within = np.concatenate([design.X_within, response.within[:, None]], axis=1)
        self.ss_within, self.df_within = float(response.ss_within), design.df_within
        self.weights = np.array([float(reml)] * p + [df])
        self.constant = df * (log(2 * pi / df) + 1)
        self.df_groups = self.n_groups - reml
        self.root_weights = np.sqrt(self.weights)[:, None]
        self.taken_out = np.zeros(p)  # coefficients of what `take_out` took
        self.eye = identity(self.q)
        self.prepare()

    def prepare(self):
        """Sums that no Λ changes."""
        self.sums_within = self.within.T @ self.within
        self.sums_within[-1, -1] += self.ss_within
        rows, self.products = self.rows, None
        if self.q == 1:  # as two, the second with a column of zeros
            rows = np.zeros((2, rows.shape[1] + 1, self.n_groups))
            rows[0, 0], rows[0, 2:] = self.rows[0, 0], self.rows[0, 1:]
        if self.q <= 2:
            self.products = Products(rows)

    def take_out(self, beta):
        """Take Xβ out of y: where it is most of y, the last entry of L is lost in its rounding."""
        self.taken_out = self.taken_out + beta
        self.rows[:, -1] -= np.einsum("kaj,a->kj", self.rows[:, self.q : -1], beta)
        self.within[:, -1] -= self.within[:, :-1] @ beta
        self.prepare()

    def whiten(self, theta):
        """In closed form where there is one and it loses no digits."""
        if self.products is not None:
            white = Pair(theta, self.products, self.q)
            if white.over_det.min() > 1 / LARGE:
                return white
        return White(theta, self.rows)

    def evaluate(self, theta, again=True):
        """−2 log of the profiled (restricted) likelihood at theta, a `Value`."""
        white = self.whiten(theta)
        sums = white.sums + self.sums_within
        L, failed = lapack.dpotrf(sums, lower=1)
        drowned = not failed and self.df * sums[-1, -1] > LARGE * L[-1, -1] ** 2
        if again and (drowned or failed == len(L)):
            self.take_out(lapack.dpotrs(L[:-1, :-1], sums[:-1, -1], lower=1)[0])
            return self.evaluate(theta, again=False)
        if failed:
            return Value(theta, self, white, L, np.inf)
        criterion = self.constant + white.log_det + 2 * self.weights.dot(np.log(L.diagonal()))
        return Value(theta, self, white, L, criterion)

    def estimates(self, at):
        """The numbers of a `Point` of `reml_many`: with β and σ², which have closed forms."""
        last, L_inv = at.L[-1, -1], at.L_inv
        beta = at.taken_out - last * L_inv[-1, :-1]
        by_psi = at.by_psi.reshape(self.q, -1)
        return at.criterion, beta, last**2 / self.df, L_inv[:-1, :-1], by_psi

    def information(self, at):
        """What to expect of the Hessian of the criterion in theta, (m, m); and a ridge for it.

        Were β known, it would be Σ tr(H ∂_aΨ H ∂_bΨ) over groups, less what goes with σ². H =
        Z'W⁻¹Z is what a group's data say of its random effects. The ridge is what to count on where
        that is nil, as it is in Λ at Λ = 0.
        """
        H = at.white.precision()
        dPsi = bends(self.q).dot(at.theta)  # how Ψ changes with each entry of theta
        total = dPsi.dot(H.sum(axis=1)[whole(self.q).ravel()])
        expected = dPsi.dot(H.dot(H.T)[crossed(self.q)]).dot(dPsi.T)
        expected -= total[:, None] * total / self.n
        return expected, least_curvature(at.theta.dot(at.theta), self.n_groups) * self.eye

    def inverse(self, at):
        """Inverse of the information, where it is nil with what to count on."""
        return lapack.dgesv(sum(self.information(at)), self.eye)[2]


def least_curvature(square, n_groups):
    """What to count on where the information is nil, as it is in Λ at Λ = 0; square = |Λ|²."""
    return NO_INFORMATION * n_groups / (1 + square)


# ------------------------------------------------------------------------------- the search


def moment_equations(design):
    """Linear equations for Ψ from the moments of u = Z'W⁻¹y at Ψ = I, summed over groups.

    With T = (I + Z'Z)⁻¹ and H = I − T = Z'W⁻¹Z, u is TZ'y, and uu' is expected to be HΨH + TH, in
    units of σ². Groups with much data do not decide alone. The equations are those of MINQUE (Rao,
    1971, doi:10.1016/0047-259X(71)90001-7), with β and σ² taken from least squares.

    Returns
    -------
    TZ' (q, q, J); the sums of H⊗H (q², q²) and of TH (q²,)
    """
    q, eye = design.sizes[2], np.eye(design.sizes[2])[..., None]
    L_inv = solve(cholesky(eye + design.ZZ), np.broadcast_to(eye, design.ZZ.shape))
    T = np.einsum("klj,kmj->lmj", L_inv, L_inv)
    H = eye - T
    flat = H.reshape(q * q, -1)
    system = (flat @ flat.T).reshape(q, q, q, q).swapaxes(1, 2).reshape(q * q, q * q)
    system += 1e-12 * system.trace() * np.eye(q * q)  # it may be singular, as with one row each
    TZ = np.einsum("lmj,kmj->lkj", T, design.rows[:, :q])
    return TZ, system, np.einsum("lmj,mkj->lk", T, H).ravel()


def moments(one):
    """Start for theta: the Ψ by `moment_equations`.

    Eigenvalues are kept off zero, so that no direction is closed from the start.
    """
    q = one.q
    TZ, system, noise = moment_equations(one.design)
    u = (TZ * one.rows[:, -1]).sum(axis=1)
    over = one.n_groups / one.df_groups * one.df_within / one.ss_within
    psi = lapack.dgesv(system, u.dot(u.T).ravel() * over - noise)[2]
    value, vector, _ = lapack.dsyev(psi.reshape(q, q))
    root = vector * np.sqrt(np.maximum(value, max(0.1, value[-1] / MOST_UNEQUAL)))
    return lapack.dgeqrf(root.T)[0].T[lower(q)]


def minimise(theta, one, inverse=None, step=1.0, enough=AT_ONCE):
    """BFGS from theta, (q(q+1)/2,). At each evaluation it takes its step or shortens it.

    As long as steps leap, the information at each place stands for its Hessian.

    The other arguments go on with a search that `reml_many` has begun; `inverse` is written over.
    """
    at = one.evaluate(theta)
    gradient = at.gradient
    if inverse is None:
        inverse = one.inverse(at)
    for _ in range(MOST_STEPS):
        direction = -inverse.dot(gradient)
        promise = -direction.dot(gradient)
        if promise < enough:
            return at.theta + direction
        if step < SHORTEST_STEP:
            break
        move = step * stride(at.theta, direction)
        there, change = one.evaluate(at.theta + move), move.dot(gradient)
        rise = there.criterion - at.criterion
        if rise <= 1e-4 * change + 1e-13 * abs(at.criterion):
            at, step, before, gradient = there, 1.0, gradient, there.gradient
            if rise < -LEAP:
                inverse, enough = one.inverse(at), AT_ONCE
            else:
                enough = update(inverse, move, gradient - before)
        else:
            step *= min(0.5, max(0.05, -change / (2 * (rise - change))))
    return at.theta


def stride(theta, direction):
    """The direction, cut where it is longer than what is natural at theta."""
    length, longest = sqrt(direction.dot(direction)), 1 + sqrt(theta.dot(theta))
    return direction if length <= longest else direction * (longest / length)


def update(inverse, move, difference):
    """BFGS update of the inverse Hessian, in place, and what promise is now enough to stop.

    The difference is that of the gradients after the move and before it.
    Where the move met no positive curvature the inverse says too little, and is not believed.
    """
    along = move.dot(difference)
    if along <= 1e-12 * sqrt(move.dot(move) * difference.dot(difference)):
        inverse *= WIDER
        return AT_ONCE
    cross = inverse.dot(difference) / along
    half = move[:, None] * (move * ((1 + difference.dot(cross)) / (2 * along)) - cross)
    inverse += half
    inverse += half.T
    return LAST_STEP


def settle(theta, one, rounds=10):
    """Look again until nothing is gained: the value there, and whether a way down is left."""
    at = one.evaluate(theta)
    start, must, downhill = look_again(at, one)
    if start is None or not rounds:
        return at, downhill
    there = one.evaluate(lapack.dgeqrf(start.T)[0].T[lower(one.q)])
    rise = there.criterion - at.criterion
    if must or (rise < FAR and rise < 1 + newton(there, sum(one.information(there)))):
        trial = minimise(there.theta, one)
        # A boundary as good as the inside is the answer: what is left of Λ there is rounding.
        # Where one is left, rounding may hide what is gained: as good is good enough there, too.
        worth = at.criterion + (1 if downhill else 100) * TOLERANCE
        if one.evaluate(trial).criterion < worth:
            return settle(trial, one, rounds - 1)
    return at, downhill


def look_again(at, one):
    """A root of Ψ to start from again, if any; whether that is a must; whether a way down is left.

    At an optimum the derivative in Ψ = ΛΛᵀ has no negative eigenvalue, and times Λ it is 0. A
    negative one shows the way down off a boundary (or a saddle); a small singular value of Λ, the
    way onto it. What is not 0 of the product can be unseen in the gradient, which has no entries
    above the diagonal, where a row of Λ is nearly zero: without its short axes, Λ turns so that it
    shows.
    """
    by_psi, tolerance = at.by_psi.reshape(one.q, -1), one.n_groups * TOLERANCE
    axis, length, _, _ = lapack.dgesdd(unfold(at.theta, one.q))
    value, way, _ = lapack.dsyev(by_psi)
    rest = by_psi.dot(axis * length)
    downhill, unseen = value[0] < -sqrt(20 * tolerance), np.vdot(rest, rest) > 10 * tolerance
    if unseen:
        length[length < SHORT] = 0
    elif SINGULAR < length[-1] < 1 and not downhill:
        length[-1] = 0
    elif not downhill:
        return None, False, downhill
    push = sqrt(downhill * -value[0] / one.n_groups) * way[:, :1]
    return np.hstack([axis * length, push]), downhill or unseen, downhill


def newton(at, hessian):
    """Twice what a Newton step would take off the criterion."""
    gradient = at.gradient
    return gradient.dot(lapack.dgesv(hessian, gradient)[2])


def certainty(at, one):
    """Whether the gradient is as good as zero, and whether theta is badly determined."""
    expected, ridge = one.information(at)
    bend = at.by_psi.dot(bends(one.q))
    sure = at.criterion < np.inf and abs(newton(at, expected + bend + ridge)) < 1e-6
    return sure, lapack.dsyev(expected, compute_v=0)[0][0] < ridge[0, 0]
