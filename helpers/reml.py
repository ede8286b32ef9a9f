"""Exact (RE)ML fits of linear mixed models with one grouping factor, one or thousands at a time.

Model, for group j with n_j rows:  y_j = X_j β + Z_j b_j + e_j,
b_j ~ N(0, σ² Λ Λᵀ),  e_j ~ N(0, σ² I),  Λ lower triangular.

Three steps, in the order of the file:

1. **Reduce.** An orthogonal change of rows turns each group into q rows, and what is left within
   all groups together into p rows and one sum of squares. After this a fit costs groups ×
   parameters, whatever the number of rows. Nothing is squared on the way, so that no digits go.
2. **Criterion.** β and σ² have closed forms given Λ. What remains is a function of Λ alone, −2 log
   of the profiled (restricted) likelihood, with an analytic gradient.
3. **Minimise.** BFGS from moment estimates, then a look from the boundary in both directions: is
   there a way down off it, and is it as good on it?

Arrays that a fit repeats for each group and each replicate are laid out (entries…, groups,
replicates): the matrices are small and the batch is long, so loops run over the entries of a matrix
and NumPy runs over the batch, in blocks that fit the processor's cache. The last few replicates are
fitted one after another, in arrays without their axis. For an intercept and a slope, the model of
most people, the 2 × 2 algebra is written out. ``fit`` is ``fit_many`` with one replicate.

Sources: Bates, Mächler, Bolker & Walker (2015), doi:10.18637/jss.v067.i01, sections 2–3;
Lindstrom & Bates (1988), doi:10.1080/01621459.1988.10478693.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from scipy import sparse

TOLERANCE = 1e-10  # of the criterion
LAST_STEP = 2e-8  # a step that promises less of the criterion is taken unseen, and is the last
SHORTEST_STEP = 1e-8  # of the direction; where even that leads up, the search ends
MOST_STEPS = 500
SINGULAR = 1e-5  # standard deviation of Λ below which we call it zero; at 1, half is shrunk away
NO_INFORMATION = 0.1  # on an entry of Λ, a group, where Λ is small
LARGE = 1e8  # entry of I + ZΨZ' beside which its I loses half of its digits
FEW = 3  # replicates that are quicker one after another
FEW_GROUPS = 15  # for each random slope; with fewer, a second valley is looked for always
THREADS = 1 if sys.platform == "emscripten" else 2
WORTH_A_THREAD = 131_072  # groups × replicates; with less, threads mostly wait for each other
BATCH = 262_144  # groups × replicates that one thread holds at once
BLOCK = 32_768  # groups × replicates computed at once: what stays in the processor's cache


# ---------------------------------------------------------------------------------- 1. reduce


@dataclass(frozen=True)
class _Design:
    """X, Z and the groups after the rows have been rotated; see `_reduce_design`.

    ``X = Q @ R_x`` and ``Z = (scaled Z) @ R_z``: inside, neither units nor origin matter.
    """

    labels: np.ndarray  # (J,)
    Q: np.ndarray  # (n, p), orthonormal
    R_x: np.ndarray  # (p, p)
    R_z: np.ndarray  # (q, q)
    spread: sparse.csr_array  # (n, q·J): orthonormal columns, q for each group
    gather: sparse.csc_array  # its transpose
    rows: np.ndarray  # (q, q + p, J): scaled Z and Q, side by side, in the rotated rows
    Q_within: np.ndarray  # (n, w), orthonormal: what w columns of Q hold within groups
    X_within: np.ndarray  # (w, p), diagonal: how much
    df_within: int  # rows that neither X nor Z can reach

    @cached_property
    def XX_within(self):
        return self.X_within.T @ self.X_within

    @cached_property
    def pair(self):
        return _Pair.of(self.rows)

    @cached_property
    def sizes(self):
        """Rows n, fixed effects p, random effects q, groups J."""
        return *self.Q.shape, self.rows.shape[0], self.rows.shape[2]


class _Response(NamedTuple):
    """The replicates of y in the rotated rows, with the least-squares fit taken out."""

    start: np.ndarray  # (p, R): least-squares coefficients of y on Q
    unit: np.ndarray  # (R,): root mean square of what is left, by which it is divided
    rows: np.ndarray  # (q, J, R); for q = 2 (4, J, R), see `_Pair`
    within: np.ndarray  # (w, R): y in the rows of X_within
    Xy_within: np.ndarray  # (p, R)
    ss_within: np.ndarray  # (R,): sum of squares that neither X nor Z can reach

    def take(self, keep):
        """Some of the replicates; of one that is named by its number, arrays without axis R."""
        if isinstance(keep, slice):
            return _Response(*(part[..., keep] for part in self))
        return _Response(*(part.take(keep, axis=-1) for part in self))


def _orthonormal(M, name):
    """M = Q R with orthonormal Q, or an error if a column adds nothing to those before it."""
    length = np.sqrt(np.einsum("ij,ij->j", M, M))
    Q, R = np.linalg.qr(M / np.where(length > 0, length, 1))
    missing = np.flatnonzero((length == 0) | (np.abs(np.diag(R)) < 1e-11))
    if missing.size:
        raise ValueError(
            f"{name} is rank-deficient: column {missing[0]} is a linear combination of the columns "
            "before it (or all zero); drop it, or recode the variables"
        )
    return Q, R * length


def _coded(groups):
    """The labels, sorted, and each row's place among them; at once where the rows are in order."""
    if not np.all(groups[1:] >= groups[:-1]):
        return np.unique(groups, return_inverse=True)
    new = np.concatenate([[True], groups[1:] != groups[:-1]])
    return groups[new], np.cumsum(new) - 1


def _group_basis(Z, codes, n_groups):
    """Orthonormal basis of each group's columns of Z, (n, q): Gram–Schmidt, done twice."""
    basis = np.zeros_like(Z)
    for k in range(Z.shape[1]):
        column = Z[:, k].copy()
        before = np.bincount(codes, column**2, n_groups)
        for i in 2 * list(range(k)):
            column -= basis[:, i] * np.bincount(codes, basis[:, i] * column, n_groups)[codes]
        after = np.bincount(codes, column**2, n_groups)
        seen = after > 1e-20 * before  # a predictor that is constant in a group has no slope there
        basis[:, k] = column * np.where(seen, 1 / np.sqrt(np.where(seen, after, 1)), 0)[codes]
    return basis


def _reduce_design(X, Z, groups):
    """Rotate the rows of X and Z, group by group.

    In each group the first q rotated rows span Z_j; the random effects do not reach the others.
    Scaled as here, Z makes a standard deviation of Λ = 1 the one that is shrunk by half in an
    average group.
    """
    labels, codes = _coded(groups)
    (n, p), q, J = X.shape, Z.shape[1], len(labels)
    _check_sizes(n, p, q, J)
    Q, R_x = _orthonormal(X, "X")
    begins = np.array_equal(X[:, :q], Z)  # as often; then its basis begins that of X
    Z, R_z = (Q[:, :q], R_x[:q, :q]) if begins else _orthonormal(Z, "Z")
    Z, R_z = Z * np.sqrt(J), R_z / np.sqrt(J)
    basis = _group_basis(Z, codes, J)
    place = codes[:, None] + J * np.arange(q)
    spread = sparse.csr_array(
        (basis.ravel(), place.ravel(), np.arange(0, n * q + 1, q)), shape=(n, q * J)
    )
    gather = spread.T
    ZX = gather @ np.hstack([Z, Q])
    Q_within, X_within = np.empty((n, 0)), np.empty((0, p))
    left = Q - spread @ ZX[:, q:]
    if np.vdot(left, left) > 1e-24:
        # Turn X once more, so that what only groups can tell of it stands apart: where groups
        # differ a million times as much as their rows, it would drown in the rounding of the rest.
        Q_within, triangle = np.linalg.qr(left)
        ways, length, turn = np.linalg.svd(triangle)
        told = length > 1e-10
        Q_within, X_within = Q_within @ ways[:, told], np.diag(length)[told]
        Q, R_x, ZX[:, q:] = Q @ turn.T, turn @ R_x, ZX[:, q:] @ turn.T
    reached = round(np.vdot(basis, basis)) + len(X_within)
    if n <= reached:
        raise ValueError(
            "no residual degrees of freedom: X and the random effects together fit every row; "
            "use fewer columns in X or Z, or more rows a group"
        )

    rows = ZX.reshape(q, J, q + p).swapaxes(1, 2).copy()
    return _Design(labels, Q, R_x, R_z, spread, gather, rows, Q_within, X_within, int(n - reached))


def _reduce_response(Y, design):
    """Rotate the replicates Y (R, n) as the rows of the design."""
    return _joined([_rotate(Y[i], design) for i in _slices(len(Y), 4 * BLOCK // Y.shape[1])])


def _rotate(Y, design):
    """`_reduce_response` for a block of replicates."""
    n, p, q, J = design.sizes
    y = Y.T.copy(order="C")
    start = design.Q.T @ y
    y -= design.Q @ start
    unit = np.sqrt(np.einsum("ir,ir->r", y, y) / n)
    rounding = 50 * np.finfo(float).eps * np.maximum(Y.max(axis=1), -Y.min(axis=1))
    _check_left_over(unit, rounding, "the fixed effects fit y exactly, so that no variance is left")
    rows = design.gather @ y
    y -= design.spread @ rows
    within = design.Q_within.T @ y
    y -= design.Q_within @ within
    ss_within = np.einsum("ir,ir->r", y, y)
    left = np.sqrt(ss_within / design.df_within)
    _check_left_over(left, rounding, "each group's own fit is exact: the likelihood has no maximum")

    # Once more, to take out the rounding of the first subtraction.
    X = design.rows[:, q:].swapaxes(1, 2).reshape(-1, p)
    step = X.T @ rows + design.X_within.T @ within
    rows = ((rows - X @ step) / unit).reshape(q, J, -1)
    if q == 2:
        rows = design.pair.turn(rows)
    within = (within - design.X_within @ step) / unit
    Xy_within = design.X_within.T @ within
    return _Response(start + step, unit, rows, within, Xy_within, ss_within / unit**2)


# ------------------------------------------------------------------------------- 2. criterion


def _cholesky(A):
    """Lower factors of symmetric positive definite matrices A (m, m, …)."""
    m = len(A)
    if m > 4:
        return np.linalg.cholesky(A.T).swapaxes(-1, -2).T
    L = np.zeros(A.shape)
    for i in range(m):
        for k in range(i + 1):
            entry = A[i, k]
            for h in range(k):
                entry = entry - L[i, h] * L[k, h]
            L[i, k] = np.sqrt(entry) if i == k else entry / L[k, k]
    return L


def _solve(L, B):
    """L⁻¹ B for lower triangular L (m, m, …) and B (m, …)."""
    out = np.empty(B.shape)
    for i in range(len(L)):
        entry = B[i]
        for h in range(i):
            entry = entry - L[i, h] * out[h]
        out[i] = entry / L[i, i]
    return out


def _diagonal(A):
    """The diagonals (m, …) of matrices A (m, m, …), as a view."""
    return np.einsum("kk...->k...", A)


def _factor(theta, q):
    """Λ (q, q, R) from its lower triangle theta (q(q+1)/2, R), column by column."""
    rows, columns = _lower(q)
    factor = np.zeros((q, q) + theta.shape[1:])
    factor[rows, columns] = theta
    return factor


@cache
def _lower(q):
    """Rows and columns of a lower triangle, column by column."""
    columns, rows = np.triu_indices(q)
    return rows, columns


@cache
def _whole(q):
    """Where in its lower triangle each entry of a symmetric matrix is, (q, q)."""
    rows, columns = _lower(q)
    place = np.empty((q, q), int)
    place[rows, columns] = place[columns, rows] = range(len(rows))
    return place


class _Point(NamedTuple):
    """The criterion at one Λ for each replicate, and what was computed on the way."""

    criterion: np.ndarray  # (R,)
    beta: np.ndarray  # (p, R): coefficients on Q, of y in its unit and less its start
    scale: np.ndarray  # (R,): σ² in the unit of y
    root_beta: np.ndarray  # (p, p, R): L⁻¹, where LLᵀ = Q' V⁻¹ Q
    slope: np.ndarray  # (q, q, R): derivative of the criterion in Ψ = ΛΛᵀ

    def put(self, where, other):
        """Take the replicates `where` from another point, in place."""
        for mine, its in zip(self, other, strict=True):
            mine[..., where] = its


def _evaluate(theta, design, response, reml):
    """−2 log of the profiled (restricted) likelihood at theta, (q(q+1)/2, R).

    For one replicate the axis R may be left out, throughout: what has none is quicker.
    """
    q, J = design.sizes[2:]
    evaluate = _evaluate_pair if q == 2 else _evaluate_any
    if theta.ndim == 1 or theta.shape[1] * J <= BLOCK:
        return evaluate(theta, design, response, reml)
    blocks = _slices(theta.shape[1], BLOCK // J)
    return _joined([evaluate(theta[:, i], design, response.take(i), reml) for i in blocks])


def _slices(length, size):
    """Slices of about equal size, at most `size`, that together make the length."""
    n = max(1, -(-length // max(1, size)))
    ends = [length * i // n for i in range(n + 1)]
    return [slice(*pair) for pair in zip(ends, ends[1:], strict=False)]


def _joined(parts):
    """One tuple of arrays out of several, along the last axis."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(*(np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)))


def _evaluate_any(theta, design, response, reml):
    """`_evaluate` for any number of random effects."""
    n, p, q, _ = design.sizes
    df = n - p if reml else n
    V_factor, white = _whiten(theta, design)
    log_det = 2 * np.log(np.abs(_diagonal(V_factor)).prod(axis=0)).sum(axis=0)
    Z, X, y = white[:, :q], white[:, q:], _solve(V_factor, response.rows)

    XX = np.einsum("kaj...,kbj...->ab...", X, X)
    XX.T[:] += design.XX_within
    Xy = np.einsum("kaj...,kj...->a...", X, y) + response.Xy_within
    L, root, beta = _coefficients(XX, Xy)
    residual = y - np.einsum("kaj...,a...->kj...", X, beta)
    rss = _rss_within(beta, design, response) + np.einsum("kj...,kj...->...", residual, residual)
    criterion = df * (np.log(2 * np.pi / df * rss) + 1) + log_det

    score = np.einsum("klj...,kj...->lj...", Z, residual)
    slope = np.einsum("klj...,kmj...->lm...", Z, Z)
    slope -= np.einsum("lj...,mj...->lm...", score, score) * (df / rss)
    if reml:
        criterion += 2 * np.log(L.diagonal()).sum(axis=-1)
        ZX = _solve(L, np.einsum("klj...,kaj...->alj...", Z, X))
        slope -= np.einsum("alj...,amj...->lm...", ZX, ZX)
    return _Point(criterion, beta, rss / df, root, slope)


def _whiten(theta, design):
    """Cholesky factors of V_j = I + Z_j Ψ Z_j', and Z_j and X_j divided by them."""
    q = design.sizes[2]
    G = np.einsum("klj,lm...->kmj...", design.rows[:, :q], _factor(theta, q))
    V = np.einsum("kmj...,lmj...->klj...", G, G)
    _diagonal(V)[:] += 1
    if V.max() < LARGE:
        V_factor = _cholesky(V)
    else:  # without the squares
        root = G.T.swapaxes(-1, -2)
        one = np.broadcast_to(np.eye(q), root.shape)
        V_factor = _triangle(np.concatenate([root, one], axis=-1)).swapaxes(-1, -2).T
    rows = design.rows.reshape(design.rows.shape + (1,) * (theta.ndim - 1))
    return V_factor, _solve(V_factor, np.broadcast_to(rows, rows.shape[:3] + theta.shape[1:]))


def _coefficients(XX, Xy):
    """L of XX = LLᵀ (p, p, R), L⁻¹, and XX⁻¹ Xy."""
    p = len(XX)
    if XX.ndim == 2:
        L = np.linalg.cholesky(XX)
        root = np.linalg.inv(L)
        return L, root, root.T @ (root @ Xy)
    L = _cholesky(XX)
    right = np.empty((p, p + 1, *XX.shape[2:]))
    right.T[:] = np.eye(p + 1, p)
    right[:, p] = Xy
    left = _solve(L, right)
    root = left[:, :p]
    return L, root, (root * left[:, p:]).sum(axis=0)


def _rss_within(beta, design, response):
    """Sum of squares of the rows that the random effects do not reach."""
    within = response.within - design.X_within @ beta
    return response.ss_within + (within**2).sum(axis=0)


@dataclass(frozen=True)
class _Pair:
    """What `_evaluate_pair` needs of a design with two random effects.

    There V = I + GG' with G = ZΛ is 2 × 2, and V⁻¹ = (I + A'A) / D with A = adj(G) and
    D = det V = 1 + |G|² + det(G)². As adj(ZΛ) = adj(Λ) adj(Z), a column c of a group is kept as
    four numbers, c and t = adj(Z) c. But for 1/D, all is then a polynomial in Λ, the same in each
    group, so that sums over groups are products of matrices.
    """

    Z: np.ndarray  # (3, J): z₁₁, z₁₂, z₂₂; the rotated Z is upper triangular
    ZZ: np.ndarray  # (4, J): entries 11, 12, 22 and the determinant of Z'Z
    X: np.ndarray  # (4J, p): the four numbers of X
    Xy: np.ndarray  # (4p, 4J): makes of those of y the sums of x·y, t₁t₁, t₁t₂ + t₂t₁, t₂t₂
    XX: np.ndarray  # (4p², J): the same for pairs of columns of X

    @classmethod
    def of(cls, rows):
        z11, z12, z22 = Z = np.array([rows[0, 0], rows[0, 1], rows[1, 1]])
        ZZ = np.array([z11**2, z11 * z12, z12**2 + z22**2, (z11 * z22) ** 2])
        x1, x2 = rows[:, 2:]
        t1, t2 = z22 * x1 - z12 * x2, z11 * x2
        o = np.zeros_like(x1)
        Xy = np.block([[x1, x2, o, o], [o, o, t1, o], [o, o, t2, t1], [o, o, o, t2]])
        pairs = "aj,bj->abj"
        XX = np.concatenate([
            np.einsum(pairs, x1, x1) + np.einsum(pairs, x2, x2), np.einsum(pairs, t1, t1),
            np.einsum(pairs, t1, t2) + np.einsum(pairs, t2, t1), np.einsum(pairs, t2, t2),
        ])  # fmt: skip
        X = np.ascontiguousarray(np.hstack([x1, x2, t1, t2]).T)
        return cls(Z, ZZ, X, Xy, XX.reshape(-1, XX.shape[-1]))

    @cached_property
    def fours(self):
        """Where each four groups begin: one logarithm does for four determinants."""
        return np.arange(0, self.Z.shape[1], 4)

    def turn(self, rows):
        """The four numbers (4, J, R) of the rotated rows (2, J, R)."""
        z11, z12, z22 = self.Z[..., None]
        return np.concatenate([rows, [z22 * rows[0] - z12 * rows[1], z11 * rows[1]]])

    @cached_property
    def squares(self):
        """What b², c² and (ac)² have to do with D, (J, 3)."""
        return np.array([self.Z[2] ** 2, self.ZZ[2], self.ZZ[3]]).T.copy()

    def determinant(self, theta):
        """D (J, R), as a sum of squares."""
        a, b, c = theta
        D = self.Z[:2].T @ theta[:2]
        D *= D
        D += self.squares @ np.array([b * b, c * c, (a * c) ** 2])
        D += 1
        return D


def _evaluate_pair(theta, design, response, reml):
    """`_evaluate` for q = 2, in closed form; see `_Pair`."""
    (n, p, _, J), pair, (a, b, c) = design.sizes, design.pair, theta
    df, R = n - p if reml else n, theta.shape[1:]
    D = pair.determinant(theta)
    log_det = np.log(np.multiply.reduceat(D, pair.fours, axis=0)).sum(axis=0)
    over_D = np.divide(1, D, out=D)
    AA = np.ones((4, *R))  # 1, and adj(Ψ)
    AA[1:] = b * b + c * c, -a * b, a * a

    parts = (pair.XX @ over_D).reshape(4, p * p, *R)
    XX = (AA[:, None] * parts).sum(axis=0).reshape(p, p, *R)
    XX.T[:] += design.XX_within
    Xy = (pair.Xy @ (response.rows * over_D).reshape(4 * J, *R)).reshape(4, p, *R)
    Xy = (AA[:, None] * Xy).sum(axis=0) + response.Xy_within
    L, root, beta = _coefficients(XX, Xy)

    r1, r2, t1, t2 = response.rows - (pair.X @ beta).reshape(4, J, *R)
    tt = np.array([t1 * t1, t1 * t2, t2 * t2])
    form = a * t2 - b * t1  # r'V⁻¹r, in the end
    form *= form
    form += c * c * tt[0]
    form += r1 * r1
    form += r2 * r2
    form *= over_D
    rss = _rss_within(beta, design, response) + form.sum(axis=0)
    criterion = df * (np.log(2 * np.pi / df * rss) + 1) + log_det

    # In Ψ a form (x·x + t' adj(Ψ) t) / D changes with adj(Ψ), and by −form / D with D, whose
    # derivative is Z'Z + det(Z'Z) adj(Ψ).
    form *= df / rss
    turned = (tt * over_D).sum(axis=1) * (df / rss)
    if reml:
        criterion += 2 * np.log(L.diagonal()).sum(axis=-1)
        inverse = (root[:, :, None] * root[:, None]).sum(axis=0).reshape(p * p, *R)
        form += (pair.XX.T @ (AA[:, None] * inverse).reshape(4 * p * p, *R)) * over_D
        half = (parts[1:] * inverse).sum(axis=1)
        half[1] /= 2
        turned += half
    form -= 1
    form *= over_D
    kk = pair.ZZ @ form  # 11, 12, 22, det
    slope = np.empty((4, *R))
    slope[::3] = turned[::-2] - kk[:3:2] - kk[3] * AA[1::2]
    slope[1:3] = -turned[1] - kk[1] - kk[3] * AA[2]
    return _Point(criterion, beta, rss / df, root, slope.reshape(2, 2, *R))


def _precision(theta, design):
    """H = Z_j' V_j⁻¹ Z_j: what the groups' data say of their random effects.

    Its lower triangle (q(q+1)/2, J, R), column by column.
    """
    q = design.sizes[2]
    if q == 2:
        a, b, c = theta
        pair = design.pair
        k11, k12, k22, det = pair.ZZ.reshape(4, -1, *(1,) * (theta.ndim - 1))
        H = np.array([k11 + det * (b * b + c * c), k12 - det * (a * b), k22 + det * (a * a)])
        H /= pair.determinant(theta)
        return H
    _, white = _whiten(theta, design)
    return np.einsum("klj...,kmj...->lmj...", white[:, :q], white[:, :q])[_lower(q)]


def _score(theta, design, response, reml):
    """Z_j' V_j⁻¹ (y_j − X_j β) of each group, (q, J, R)."""
    q = design.sizes[2]
    V_factor, white = _whiten(theta, design)
    beta = _evaluate(theta, design, response, reml).beta
    residual = _solve(V_factor, response.rows[:q])
    residual -= np.einsum("kajr,ar->kjr", white[:, q:], beta)
    return np.einsum("kljr,kjr->ljr", white[:, :q], residual)


# -------------------------------------------------------------------------------- 3. minimise


def _moments(design, response):
    """Start for Λ: the Ψ whose expected Σ w Z'rr'Z over groups is the observed one.

    Groups with much data are weighted down, or they alone would decide. Eigenvalues are kept off
    zero, so that no direction is closed from the start.
    """
    q = design.sizes[2]
    Z, y = design.rows[:, :q], response.rows[:q]
    S = np.einsum("klj,kmj->lmj", Z, Z)
    weight = 1 / (1 + np.trace(S) / q) ** 2
    sigma2 = response.ss_within / design.df_within
    observed = np.empty((q, q, len(sigma2)))
    for i in _slices(len(sigma2), BLOCK // len(weight)):
        Zr = np.einsum("klj,kjr->ljr", Z * np.sqrt(weight), y[..., i])
        np.einsum("ljr,mjr->lmr", Zr, Zr, out=observed[..., i])
    observed = np.moveaxis(observed / sigma2, -1, 0)
    system = np.einsum("j,lmj,kij->lkmi", weight, S, S).reshape(q * q, q * q)
    excess = (observed - S @ weight).reshape(-1, q * q)
    psi = np.linalg.lstsq(system, excess.T, rcond=None)[0].T.reshape(-1, q, q)
    value, vector = np.linalg.eigh((psi + psi.swapaxes(1, 2)) / 2)
    factor = vector * np.sqrt(np.maximum(value, 0.1))[:, None, :]
    return _triangle(factor)[:, *_lower(q)].T


def _gradient(theta, point):
    """Derivative of the criterion in theta, (m, R): that in Ψ times 2Λ."""
    q = len(point.slope)
    return 2 * np.einsum("lm...,mk...->lk...", point.slope, _factor(theta, q))[_lower(q)]


def _minimise(theta, design, response, reml):
    """BFGS from theta, (q(q+1)/2, R), for all replicates side by side.

    At each evaluation a replicate either takes its step or shortens it; those that are done leave.
    """
    found = theta.copy()
    if theta.shape[1] <= FEW:
        for i in range(theta.shape[1]):
            found[:, i] = _minimise_one(found[:, i], design, response.take(i), reml)
        return found

    def evaluate(theta, response):
        point = _evaluate(theta, design, response, reml)
        return point, _gradient(theta, point)

    active, step = np.arange(theta.shape[1]), np.ones(theta.shape[1])
    point, gradient = evaluate(theta, response)
    value = point.criterion
    inverse = _inverse(_information(theta, design), _least_curvature(theta, design))
    for iteration in range(MOST_STEPS):
        direction = -np.einsum("abr,br->ar", inverse, gradient)
        promise = -np.einsum("ar,ar->r", direction, gradient)
        last = (promise < LAST_STEP) & (iteration > 0)
        done = last | (step < SHORTEST_STEP)
        if done.any():
            found[:, active[done]] = (theta + np.where(last, direction, 0))[:, done]
            if done.all():
                break
            keep = np.flatnonzero(~done)
            active, theta, value, gradient, inverse, direction, promise, step = (
                part[..., keep]
                for part in (active, theta, value, gradient, inverse, direction, promise, step)
            )
            response = response.take(keep)
            if keep.size <= FEW:
                found[:, active] = _minimise(theta, design, response, reml)
                break
        move = step * _stride(theta, direction)
        point, new_gradient = evaluate(theta + move, response)
        new_value = point.criterion
        taken, shorter = _judge(value, new_value, np.einsum("ar,ar->r", move, gradient))
        _update(inverse, np.where(taken, move, 0), np.where(taken, new_gradient - gradient, 0))
        step = np.where(taken, 1, step * shorter)
        theta = np.where(taken, theta + move, theta)
        value = np.where(taken, new_value, value)
        gradient = np.where(taken, new_gradient, gradient)
    else:
        found[:, active] = theta
    return found


def _minimise_one(theta, design, response, reml):
    """BFGS from theta, (q(q+1)/2,), for one replicate without axis R."""
    point, step = _evaluate(theta, design, response, reml), 1.0
    value, gradient = point.criterion, _gradient(theta, point)
    inverse = _inverse(_information(theta, design), _least_curvature(theta, design))
    for iteration in range(MOST_STEPS):
        direction = -inverse @ gradient
        promise = -(direction @ gradient)
        if promise < LAST_STEP and iteration:
            return theta + direction
        if step < SHORTEST_STEP:
            break
        move = step * _stride(theta, direction)
        point = _evaluate(theta + move, design, response, reml)
        taken, shorter = _judge(value, point.criterion, move @ gradient)
        if taken:
            theta, value, step, before = theta + move, point.criterion, 1.0, gradient
            gradient = _gradient(theta, point)
            _update(inverse, move, gradient - before)
        else:
            step *= shorter
    return theta


def _stride(theta, direction):
    """The direction, cut where it is longer than what is natural at theta."""
    length = np.sqrt((direction**2).sum(axis=0))
    longest = 1 + np.sqrt((theta**2).sum(axis=0))
    return np.minimum(1, longest / np.maximum(length, 1e-300)) * direction


def _judge(value, new_value, change):
    """Whether a step that promised a change did enough, and by how much to shorten it if not."""
    taken = new_value <= value + 1e-4 * change + 1e-13 * np.abs(value)
    shorter = -change / (2 * np.maximum(new_value - value - change, 1e-300))
    return taken, np.clip(shorter, 0.05, 0.5)


def _information(theta, design):
    """Expected Hessian of the criterion in theta, (m, m, R), σ² profiled out.

    Its entries are Σ tr(H Ψ'_a H Ψ'_b) over groups, with H = Z'V⁻¹Z.
    """
    n, _, q, _ = design.sizes
    rows, columns = _lower(q)
    m = len(rows)
    turn = np.zeros((m, q, q) + theta.shape[1:])  # of Ψ = ΛΛᵀ with each entry of Λ
    turn[range(m), rows] = _factor(theta, q)[:, columns].swapaxes(0, 1)
    turn += turn.swapaxes(1, 2)
    whole = _whole(q)
    H = _precision(theta, design)
    HH = np.einsum("aj...,bj...->ab...", H, H)[whole[..., None, None], whole]
    total = (H.sum(axis=1)[whole] * turn).sum(axis=(1, 2))
    return np.einsum("lmhi...,amh...,bil...->ab...", HH, turn, turn) - total[:, None] * total / n


def _least_curvature(theta, design):
    """What to count on where the information is nil, as it is in Λ at Λ = 0."""
    return NO_INFORMATION * design.sizes[3] / (1 + (theta**2).sum(axis=0))


def _inverse(hessian, ridge):
    _diagonal(hessian)[:] += ridge
    return np.linalg.inv(hessian.T).T


def _update(inverse, move, turn):
    """BFGS update of the inverse Hessian, in place, where the move met positive curvature."""
    along = (move * turn).sum(axis=0)
    turn_inverse = (inverse * turn).sum(axis=1)
    use = along > 1e-12 * np.sqrt((move**2).sum(axis=0) * (turn**2).sum(axis=0))
    along = np.where(use, along, 1)
    weight = np.where(use, (1 + (turn * turn_inverse).sum(axis=0) / along) / along, 0)
    cross = turn_inverse[:, None] * (move * np.where(use, 1 / along, 0))
    inverse += weight * move[:, None] * move - cross - cross.swapaxes(0, 1)


def _triangle(factor):
    """The lower triangular matrices L (…, q, q) with the LLᵀ of a factor (…, q, any)."""
    return np.linalg.qr(factor.swapaxes(-1, -2), mode="r").swapaxes(-1, -2)


def _look_again(theta, point, design):
    """Where to start again from theta: down off the boundary of Λ, or onto it.

    At an optimum the slope D in Ψ = ΛΛᵀ has D Ψ = 0 and no negative eigenvalue. A negative one
    shows the way off a boundary (or a saddle); a small singular value of Λ, the way onto it.
    """
    _, _, q, J = design.sizes
    slope, way = np.linalg.eigh(np.moveaxis(point.slope, -1, 0))
    axis, length, _ = np.linalg.svd(np.moveaxis(_factor(theta, q), -1, 0))
    off = slope[:, 0] < -np.sqrt(20 * J * TOLERANCE)
    on = ~off & (length[:, -1] > SINGULAR) & (length[:, -1] < 1)
    length[on, -1] = 0
    push = np.where(off, np.sqrt(np.abs(slope[:, 0]) / J), 0)[:, None] * way[:, :, 0]
    start = np.concatenate([axis * length[:, None, :], push[:, :, None]], axis=2)
    return _triangle(start)[:, *_lower(q)].T, off, on


def _settle(theta, design, response, reml, rounds=10):
    """Look again from theta until nothing is gained: (theta, its point, whether a way was left)."""
    point = _evaluate(theta, design, response, reml)
    start, off, on = _look_again(theta, point, design)
    again = np.flatnonzero(off | on)
    if again.size:
        start, part = start[:, again], response.take(again)
        there = _evaluate(start, design, part, reml)
        rise = there.criterion - point.criterion[again]
        hopeful = off[again] | (rise < 1 + _promise(start, there, design))
        again, start, part = again[hopeful], start[:, hopeful], part.take(np.flatnonzero(hopeful))
    if again.size and rounds:
        trial = _minimise(start, design, part, reml)
        value = _evaluate(trial, design, part, reml).criterion
        # A boundary as good as the inside is the answer: what is left of Λ there is rounding.
        better = value < point.criterion[again] + np.where(on[again], 100, 0) * TOLERANCE
        if better.any():
            moved, part = again[better], part.take(np.flatnonzero(better))
            theta[:, moved], there, off[moved] = _settle(
                trial[:, better], design, part, reml, rounds - 1
            )
            point.put(moved, there)
    return theta, point, off


@cache
def _elsewhere(q, n_groups):
    """Other starts for Λ, (q(q+1)/2, starts): small, large, larger; large in one direction.

    With two random effects and many groups the first three do: of 201,000 awkward data sets 676 had
    a lower valley that some start found, and these three found all but 4.
    """
    one = np.eye(q)
    pairs = [(i, k) for i in range(q) for k in range(i)]
    between = [(one[i] + sign * one[k]) / np.sqrt(2) for i, k in pairs for sign in (1, -1)]
    along = [np.column_stack([3 * way, one / 10]) for way in [*one, *between]]
    starts = [one / 10, 5 * one, 50 * one, *(along if q > 2 or n_groups < FEW_GROUPS else [])]
    return np.column_stack([_triangle(start)[_lower(q)] for start in starts])


def _optimum(design, response, reml):
    """theta at the minimum for each replicate, its point, and whether it was verified to be one.

    A second valley of the criterion is rare but for two cases, which are challenged from elsewhere:
    few groups, and a first optimum on the boundary or with next to no information in a direction.
    """
    theta = _minimise(_moments(design, response), design, response, reml)
    theta, point, off = _settle(theta, design, response, reml)
    sure, flat = _certainty(theta, point, design)
    q, n_groups = design.sizes[2:]
    few = n_groups < FEW_GROUPS * max(1, q - 1)
    doubtful = np.flatnonzero(flat | ~sure | few)
    if doubtful.size:
        part = response.take(doubtful)
        trial, value = _best_elsewhere(design, part, reml)
        better = value < point.criterion[doubtful] - 100 * TOLERANCE
        if better.any():
            moved = doubtful[better]
            theta[:, moved], there, off[moved] = _settle(
                trial[:, better], design, response.take(moved), reml
            )
            point.put(moved, there)
            sure, _ = _certainty(theta, point, design)
    return theta, point, sure & ~off


def _best_elsewhere(design, response, reml):
    """The best theta from all other starts, for each replicate, and its criterion."""
    q, J = design.sizes[2:]
    starts, n = _elsewhere(q, J), len(response.unit)
    part = response.take(np.tile(np.arange(n), starts.shape[1]))
    trial = _minimise(np.repeat(starts, n, axis=1), design, part, reml)
    value = _evaluate(trial, design, part, reml).criterion.reshape(-1, n)
    trial = trial.reshape(len(trial), -1, n)
    return trial[:, value.argmin(axis=0), np.arange(n)], value.min(axis=0)


def _promise(theta, point, design, hessian=None):
    """Twice what a Newton step would take off the criterion."""
    gradient = _gradient(theta, point)
    hessian = _information(theta, design) if hessian is None else hessian
    inverse = _inverse(hessian, _least_curvature(theta, design))
    return np.einsum("ar,abr,br->r", gradient, inverse, gradient)


def _certainty(theta, point, design):
    """Whether the gradient at theta is as good as zero, and whether theta is badly determined."""
    rows, columns = _lower(design.sizes[2])
    information = _information(theta, design)
    least = np.linalg.eigvalsh(np.moveaxis(information, -1, 0))[:, 0]
    bend = 2 * point.slope[rows[:, None], rows] * (columns[:, None] == columns)[..., None]
    sure = np.abs(_promise(theta, point, design, information + bend)) < 1e-6
    return sure, least < _least_curvature(theta, design)


def _is_singular(theta, q):
    factor = np.moveaxis(_factor(theta, q), -1, 0)
    return np.linalg.svd(factor, compute_uv=False)[:, -1] <= SINGULAR


# ---------------------------------------------------------------------------------- results


@dataclass(frozen=True, repr=False)
class Fits:
    """Mixed models fitted to many replicates; every array leads with the replicate axis R.

    Attributes
    ----------
    beta : ndarray (R, p)
        Fixed effects.
    cov_beta : ndarray (R, p, p)
        Their covariance, variance components taken as known.
    cov_re : ndarray (R, q, q)
        Covariance of the random effects, in squared units of y per unit of Z.
    scale : ndarray (R,)
        Residual variance σ².
    theta : ndarray (R, q(q+1)/2)
        Lower triangle of Λ, column by column: ``cov_re = scale · ΛΛᵀ``.
    criterion : ndarray (R,)
        −2 log-likelihood (restricted if ``reml``) at the estimates, as lme4 counts it.
    converged : ndarray of bool (R,)
        Whether the estimates were verified to be a minimum.
    singular : ndarray of bool (R,)
        Whether ``cov_re`` is singular: a variance of 0, a correlation of ±1, or the like.
    random_effects : ndarray (R, J, q)
        Conditional modes (BLUPs), computed when asked for.
    random_effects_cov : ndarray (R, J, q, q)
        Their conditional covariance given y, β and the variance components.
    group_labels : ndarray (J,)
        Labels of the groups, sorted.
    """

    beta: np.ndarray
    cov_beta: np.ndarray
    cov_re: np.ndarray
    scale: np.ndarray
    theta: np.ndarray
    criterion: np.ndarray
    converged: np.ndarray
    singular: np.ndarray
    reml: bool
    _inside: np.ndarray  # (q(q+1)/2, R): theta for the scaled Z
    _design: _Design
    _Y: np.ndarray

    def __len__(self):
        return len(self.beta)

    def __repr__(self):
        n, p, q, J = self._design.sizes
        return (
            f"Fits({len(self)} replicates: {n} rows, {J} groups, {p} fixed and {q} random effects)"
        )

    @property
    def group_labels(self):
        return self._design.labels

    @cached_property
    def random_effects(self):
        """b̂_j = Ψ Z_j' V_j⁻¹ (y_j − X_j β̂)."""
        _, _, q, J = self._design.sizes
        modes = np.empty((len(self), J, q))
        for part in _slices(len(self), BATCH // J):
            response = _reduce_response(self._Y[part], self._design)
            theta = self._inside[:, part]
            factor = _factor(theta, q)
            score = _score(theta, self._design, response, self.reml)
            inside = np.einsum("kmr,lmr,ljr->rjk", factor, factor, score)
            modes[part] = inside * response.unit[:, None, None]
        return modes @ np.linalg.inv(self._design.R_z).T

    @cached_property
    def random_effects_cov(self):
        """σ² Λ (I + Λ' Z_j'Z_j Λ)⁻¹ Λ'."""
        q = self._design.sizes[2]
        factor = np.moveaxis(_factor(self._inside, q), -1, 0)[:, None]
        Z = self._design.rows[:, :q].transpose(2, 0, 1) @ factor
        out = np.linalg.inv(self._design.R_z) @ factor
        middle = np.linalg.inv(np.eye(q) + Z.swapaxes(-1, -2) @ Z)
        return self.scale[:, None, None, None] * (out @ middle @ out.swapaxes(-1, -2))


@dataclass(frozen=True)
class Fit:
    """One fitted mixed model: as `Fits`, without the replicate axis."""

    beta: np.ndarray
    cov_beta: np.ndarray
    cov_re: np.ndarray
    scale: float
    theta: np.ndarray
    criterion: float
    converged: bool
    singular: bool
    reml: bool
    _fits: Fits

    @property
    def group_labels(self):
        return self._fits.group_labels

    @property
    def random_effects(self):
        return self._fits.random_effects[0]

    @property
    def random_effects_cov(self):
        return self._fits.random_effects_cov[0]


def fit(y, X, Z, groups, *, reml=True):
    """Fit a linear mixed model with one grouping factor by REML, or by ML.

    Parameters
    ----------
    y : array_like (n,)
        Outcome.
    X : array_like (n, p)
        Fixed-effects columns, the constant included.
    Z : array_like (n, q)
        Random-effects columns. Their covariance is unstructured.
    groups : array_like (n,)
        A label for each row.
    reml : bool
        Restricted maximum likelihood (default), or maximum likelihood.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        For what cannot be fitted, with the reason and the mend.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> groups = np.repeat(np.arange(30), 20)
    >>> x = rng.uniform(1, 10, 600)
    >>> X = np.column_stack([np.ones(600), x])
    >>> b = rng.normal([0, 0], [4, 0.8], (30, 2))[groups]
    >>> y = 60 + 2 * x + b[:, 0] + b[:, 1] * x + rng.normal(0, 5, 600)
    >>> result = fit(y, X, X, groups)
    >>> result.converged, result.singular
    (True, False)
    """
    y = np.asarray(y, dtype=float)
    if y.ndim != 1:
        raise ValueError(
            f"y must have one axis (rows), not shape {y.shape}; for many, see fit_many"
        )
    many = fit_many(y[None], X, Z, groups, reml=reml)
    return Fit(
        many.beta[0], many.cov_beta[0], many.cov_re[0], float(many.scale[0]), many.theta[0],
        float(many.criterion[0]), bool(many.converged[0]), bool(many.singular[0]), reml, many,
    )  # fmt: skip


def fit_many(Y, X, Z, groups, *, reml=True, progress=None):
    """Fit one mixed model to many responses that share a design.

    Parameters
    ----------
    Y : array_like (R, n)
        Outcomes, a replicate a row.
    X, Z, groups, reml
        As for `fit`.
    progress : callable, optional
        Called as ``progress(done, R)`` while the fits go on.

    Returns
    -------
    Fits
        The optimum of `fit` for each replicate.

    Notes
    -----
    Replicates are worked on in batches, so that memory stays bounded; many of them in two threads.
    """
    Y, X, Z, groups = _check(Y, X, Z, groups)
    design = _reduce_design(X, Z, groups)
    parts = _slices(len(Y), _batch(len(Y), len(design.labels)))

    def work(part):
        return _fit_part(Y[part], design, reml)

    done, found = 0, []
    pool = ThreadPoolExecutor(THREADS)
    try:
        for part in pool.map(work, parts) if min(THREADS, len(parts)) > 1 else map(work, parts):
            found.append(part)
            done += len(part[0])
            if progress is not None:
                progress(done, len(Y))
    finally:  # an interrupted call must not wait for the batches that have not begun
        pool.shutdown(cancel_futures=True)
    *columns, inside = (np.concatenate(column) for column in zip(*found, strict=True))
    return Fits(*columns, reml, inside.T, design, Y)


def _batch(n_replicates, n_groups):
    """Replicates to fit at once, so that every thread gets as many batches."""
    threads = min(THREADS, max(1, n_replicates * n_groups // WORTH_A_THREAD))
    rounds = -(-n_replicates * n_groups // (threads * BATCH))
    return max(1, -(-n_replicates // (threads * rounds)))


def _fit_part(Y, design, reml):
    """Arrays for `Fits`, in the order of its fields, replicates first, undoing all scaling."""
    n, p, q, _ = design.sizes
    response = _reduce_response(Y, design)
    theta, point, converged = _optimum(design, response, reml)
    df, unit = (n - p if reml else n), response.unit
    to_beta = np.linalg.inv(design.R_x)
    beta = (response.start + point.beta * unit).T @ to_beta.T
    scale = point.scale * unit**2
    root = to_beta @ point.root_beta.T
    inside = np.moveaxis(_factor(theta, q), -1, 0)
    factor = np.linalg.inv(design.R_z) @ inside
    criterion = point.criterion + 2 * df * np.log(unit)
    if reml:
        criterion = criterion + 2 * np.linalg.slogdet(design.R_x)[1]
    triangle = _triangle(factor)
    triangle = triangle * np.where(np.diagonal(triangle, axis1=1, axis2=2) < 0, -1, 1)[:, None, :]
    return (
        beta,
        scale[:, None, None] * (root @ root.swapaxes(1, 2)),
        scale[:, None, None] * (factor @ factor.swapaxes(1, 2)),
        scale,
        triangle[:, *_lower(q)],
        criterion,
        converged,
        _is_singular(theta, q),
        theta.T,
    )


# ---------------------------------------------------------------------------------- checks


def _check(Y, X, Z, groups):
    """Arrays of agreeing shapes and finite numbers, or an error that says which is not."""
    arrays = []
    for name, array in (("y", Y), ("X", X), ("Z", Z)):
        try:
            array = np.asarray(array, dtype=float)
        except (TypeError, ValueError):
            raise ValueError(
                f"{name} must be numbers; turn text or categories into columns"
            ) from None
        if array.ndim == 1 and name != "y":
            array = array[:, None]
        if array.ndim != 2 or array.shape[1] == 0:
            raise ValueError(f"{name} must have two axes and a column, not shape {array.shape}")
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if bad:
            raise ValueError(
                f"{name} has {bad} missing or infinite values; drop or fill those rows"
            )
        arrays.append(array)
    Y, X, Z = arrays
    groups = np.asarray(groups)
    n = Y.shape[1]
    for name, length in (("X", len(X)), ("Z", len(Z)), ("groups", len(np.atleast_1d(groups)))):
        if length != n:
            raise ValueError(f"{name} has {length} rows and y has {n}; they must be the same rows")
    if groups.ndim != 1:
        raise ValueError(f"groups must have one axis, not shape {groups.shape}")
    if np.any(groups != groups) or (groups.dtype == object and any(g is None for g in groups)):
        raise ValueError("groups has missing labels; drop those rows")
    return Y, X, Z, groups


def _check_sizes(n, p, q, n_groups):
    if n_groups < 2:
        raise ValueError(
            f"groups has {n_groups} group; a variance between groups needs at least 2: "
            "check the grouping column, or fit ordinary least squares"
        )
    if n <= p:
        raise ValueError(f"X has {p} columns for {n} rows: no residual degrees of freedom are left")
    if n <= n_groups * q:
        raise ValueError(
            f"{n_groups} groups × {q} random effects make {n_groups * q} random effects for {n} "
            "rows: they cannot be told from the residuals; use fewer columns in Z or more rows"
        )


def _check_left_over(left, rounding, message):
    """Stop where what is left of y is no more than rounding."""
    gone = np.flatnonzero(left <= rounding)
    if gone.size:
        where = f" (replicate {gone[0]})" if len(left) > 1 else ""
        raise ValueError(f"{message}{where}; check that y is measured with error")
