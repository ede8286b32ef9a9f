"""Rotate the rows of a grouped data set, so that what a fit costs does not depend on their number.

An orthogonal change of rows turns each group into q rows, and what is left within all groups
together into at most p rows and one sum of squares. No cross-products are formed on the way, so
that no digits go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import sqrt
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

ROUNDING = 50 * np.finfo(float).eps  # of the largest number; what is less beside it is nothing
FEW_COLUMNS = 8  # up to which a sparse matrix does not pay
BLOCK = 32_768  # numbers of one kind computed at once: what stays in the processor's cache


@dataclass(frozen=True)
class Design:
    """X, Z and the groups after the rows have been rotated; see `reduce_design`.

    ``X = Q @ R_x`` and ``Z = (scaled Z) @ R_z``: inside, neither units nor origin matter.

    Where replicates are measured along axes of their own, rows and X_within are of that, with a
    last axis R; the others are of the design that it was made from.
    """

    labels: np.ndarray  # (J,)
    order: np.ndarray | slice  # of the rows, one group after another; all below is in it
    basis: Basis
    Q: np.ndarray  # (n, p), orthonormal
    R_x: np.ndarray  # (p, p)
    R_z: np.ndarray  # (q, q)
    rows: np.ndarray  # (q, q + p, J): scaled Z and Q, side by side, in the rotated rows
    Q_within: np.ndarray  # (n, w), orthonormal: a basis of what is within groups in Q
    X_within: np.ndarray  # (w, p): its coordinates there
    df_within: int  # rows that neither X nor Z can reach
    log_det: float  # of X'X
    origin: Design | None = None  # what it was made from, where each replicate has its own

    @property
    def own(self):
        """Whether each replicate has its own."""
        return self.origin is not None

    def take(self, keep):
        """The design of some replicates, by number; of one number, without the axis R."""
        if not self.own:
            return self
        return replace(self, rows=self.rows[..., keep], X_within=self.X_within[..., keep])

    @cached_property
    def XX_within(self):
        """(p, p, R), or (p, p, 1) where replicates share it."""
        X = self.X_within if self.own else self.X_within[..., None]
        return np.einsum("war,wbr->abr", X, X)

    @cached_property
    def ZZ(self):
        """Z_j'Z_j of each group, (q, q, J)."""
        Z = self.rows[:, : self.sizes[2]]
        return np.einsum("klj,kmj->lmj", Z, Z)

    @cached_property
    def effective_groups(self):
        """How many groups of one size would tell as much as these, where that is least.

        Where they tell of a direction d of Z as w_j = d'Z_j'Z_j d, they are as good as (Σw)² / Σw²
        of one size; that is taken where it is least, of directions all around.
        """
        if self.own:
            return self.origin.effective_groups
        q, J = self.sizes[2:]
        weight = squares(q) @ self.ZZ.reshape(-1, J)
        return (weight.sum(axis=1) ** 2 / np.einsum("dj,dj->d", weight, weight)).min()

    @cached_property
    def to_beta(self):
        """R_x⁻¹"""
        return lapack.dgesv(self.R_x, np.eye(len(self.R_x)))[2]

    @cached_property
    def to_re(self):
        """R_z⁻¹"""
        return lapack.dgesv(self.R_z, np.eye(len(self.R_z)))[2]

    @cached_property
    def products(self):
        return Products(self.rows)

    @cached_property
    def balanced(self):
        """Whether groups are alike in Z and X, and X holds all that Z holds.

        Then the likelihood is that of a covariance matrix, between groups, and a variance, within
        them: concave in their inverses, so that the criterion has one minimum.
        """
        if self.own:
            return self.origin.balanced
        _, p, q, _ = self.sizes
        return len(self.X_within) == p - q and np.ptp(self.rows, axis=2).max() < 1e-9

    @cached_property
    def sizes(self):
        """Rows n, fixed effects p, random effects q, groups J."""
        return *self.Q.shape, self.rows.shape[0], self.rows.shape[2]


@cache
def all_around(q, number):
    """Unit vectors (q, number), evenly for two dimensions and at random for more; one for one."""
    if q == 1:
        return np.ones((1, 1))
    if q == 2:
        angle = np.pi * np.arange(number) / number
        return np.stack([np.cos(angle), np.sin(angle)])
    way = np.random.default_rng(0).normal(size=(q, number))
    return way / np.linalg.norm(way, axis=0)


@cache
def squares(q):
    """Products of the entries of unit vectors all around, (D, q²)."""
    way = all_around(q, 8 if q == 2 else 32)
    return np.einsum("ad,bd->dab", way, way).reshape(-1, q * q)


class Response(NamedTuple):
    """The replicates of y in the rotated rows, with the least-squares fit taken out."""

    start: np.ndarray  # (p, R): least-squares coefficients of y on Q
    unit: np.ndarray  # (R,): root mean square of what is left, by which it is divided
    rows: np.ndarray  # (q, J, R); if q = 2, `Many.of` adds two for `Products`
    within: np.ndarray  # (w, R): y in the rows of X_within
    Xy_within: np.ndarray  # (p, R)
    ss_within: np.ndarray  # (R,): sum of squares that neither X nor Z can reach

    def take(self, keep):
        """Some of the replicates, by number; of one number, arrays without the axis R."""
        if isinstance(keep, (slice, int)):
            return Response(*(part[..., keep] for part in self))
        return Response(*(part.take(keep, axis=-1) for part in self))


class Products:
    """What the closed form for two random effects needs of Z and other columns, in rotated rows.

    There W = I + GG' with G = ZΛ is 2 × 2, and W⁻¹ = (I + A'A) / |W| with A = adj(G) and
    |W| = 1 + tr(G'G) + |G|². As adj(ZΛ) = adj(Λ) adj(Z), a column x of a group is kept as
    four numbers, x and t = adj(Z) x. Then x'W⁻¹x = (x'x + t' adj(Ψ) t) / |W|: but for 1/|W| a
    polynomial in Λ, the same in each group, so that sums over groups are products of matrices.
    """

    def __init__(self, rows):
        self.z11, self.z12, self.z22 = z11, z12, z22 = rows[0, 0], rows[0, 1], rows[1, 1]
        self.Z = rows[0, :2].T.copy()  # (J, 2); the rotated Z is upper triangular
        square, one = z22 * z22, np.ones(len(z22))
        ZZ = np.array([z11 * z11, z11 * z12, z12 * z12 + square, z11 * z11 * square, square, one])
        self.ZZ = ZZ[:4]  # entries 11, 12 and 22 of Z'Z, and its determinant
        self.squares = ZZ[2:].T.copy()  # (J, 4): what c², (ac)², b² and 1 have to do with |W|
        self.four = self.four_of(rows[:, 2:])  # (4, c, J): x and t of each column
        self.n_columns = rows.shape[1] - 2

    def four_of(self, x):
        """The four numbers (4, …, J) of columns in the rotated rows (2, …, J)."""
        return np.array([x[0], x[1], self.z22 * x[0] - self.z12 * x[1], self.z11 * x[1]])

    def determinant(self, theta):
        """|W| (J, …) at theta = (a, b, c), numbers or arrays (…), as a sum of squares."""
        a, b, c = theta
        det = self.Z.dot(np.array([a, b]))
        det *= det
        det += self.squares.dot(np.array([c * c, (a * c) ** 2, b * b, a**0]))
        return det

    @cached_property
    def pairs(self):
        """Of each two columns x·x, t₁t₁, t₁t₂ + t₂t₁ and t₂t₂, (4c², J)."""
        four = self.four.swapaxes(0, 1)
        pairs = four[:, None] * four
        pairs[:, :, 0] += pairs[:, :, 1]
        pairs[:, :, 1] = pairs[:, :, 2]
        pairs[:, :, 2] = four[:, None, 2] * four[:, 3]
        pairs[:, :, 2] += pairs[:, :, 2].swapaxes(0, 1).copy()
        return pairs.reshape(-1, pairs.shape[-1])

    @cached_property
    def beside(self):
        """What makes the same of these columns and the four numbers of another, (4c, 4J)."""
        x1, x2, t1, t2 = self.four
        out = np.zeros((4, self.n_columns, 4, len(self.z11)))
        for k, i, x in ((0, 0, x1), (0, 1, x2), (1, 2, t1), (2, 2, t2), (2, 3, t1), (3, 3, t2)):
            out[k, :, i] = x
        return out.reshape(4 * self.n_columns, -1)

    @cached_property
    def columns(self):
        """The four numbers of each group, one column after another, (4J, c)."""
        return np.ascontiguousarray(np.hstack(self.four).T)


@cache
def upper(m):
    """An upper triangle of ones, (m, m)."""
    return np.triu(np.ones((m, m)))


def qr(M):
    """M = Q R with orthonormal Q (n, c) and R an upper triangle."""
    QR, tau, _, _ = lapack.dgeqrf(M)
    return lapack.dorgqr(QR, tau)[0], QR[: M.shape[1]] * upper(M.shape[1])


def orthonormal(M, name):
    """M = Q R as `qr`, or an error if a column adds nothing to those before it."""
    Q, R = qr(M)
    missing = np.abs(R.diagonal()) <= 1e-11 * np.sqrt((R * R).sum(axis=0))
    if missing.any():
        raise ValueError(
            f"{name} is rank-deficient: column {missing.argmax()} is a linear combination of the "
            "columns before it (or all zero); drop it, or recode the variables"
        )
    return Q, R


class Basis:
    """Orthonormal basis (q, n) of each group's columns of Z, side by side for all groups.

    The rows of a group follow each other; `edges` (J + 1,) says where.
    """

    def __init__(self, Z, edges):
        self.starts, self.counts = edges[:-1], edges[1:] - edges[:-1]
        self.columns, self.rank = np.empty(Z.shape[::-1]), 0
        for k, column in enumerate(self.columns):
            column[:] = Z[:, k]
            before = left = self._sum(column * column)
            for _ in range(2 if k else 0):  # Gram–Schmidt, once more where little is left
                for other in self.columns[:k]:
                    column -= other * self._repeat(self._sum(other * column))
                whole, left = left, self._sum(column * column)
                if (left > whole / 100).all():
                    break
            seen = left > 1e-20 * before  # a predictor that is constant in a group: no slope there
            column *= self._repeat(seen / np.sqrt(np.where(seen, left, 1)))
            self.rank += int(seen.sum())

    def _sum(self, rows):
        return np.add.reduceat(rows, self.starts, axis=-1)

    def _repeat(self, groups):
        return groups.repeat(self.counts, axis=-1)

    @cached_property
    def apart(self):
        """The basis with columns for each group, (n, q·J)."""
        (q, n), J = self.columns.shape, len(self.starts)
        place = self._repeat(np.arange(J)) + J * np.arange(q)[:, None]
        ends = np.arange(0, n * q + 1, q)
        return sparse.csr_array((self.columns.T.ravel(), place.T.ravel(), ends), shape=(n, q * J))

    def gather(self, M):
        """The columns M (n, c) in the coordinates of each group, (q, J, c)."""
        q, J = len(self.columns), len(self.starts)
        if M.shape[1] <= FEW_COLUMNS:
            return self._sum(self.columns[:, None] * M.T).swapaxes(1, 2)
        return (self.apart.T @ M).reshape(q, J, -1)

    def spread(self, rows):
        """What has these coordinates (q, J, c), as rows (n, c)."""
        if rows.shape[2] <= FEW_COLUMNS:
            return np.einsum("kn,kcn->nc", self.columns, self._repeat(rows.swapaxes(1, 2)))
        return self.apart @ rows.reshape(-1, rows.shape[2])


def in_order(groups):
    """An order of rows in which each group follows another, and the edges between them."""
    order = slice(None)
    try:
        if not np.all(groups[1:] >= groups[:-1]):
            order = np.argsort(groups, kind="stable")
            groups = groups[order]
    except TypeError:
        raise ValueError(
            "groups has labels of different kinds, such as text and numbers; make them one kind"
        ) from None
    changes = np.flatnonzero(groups[1:] != groups[:-1]) + 1
    return order, np.concatenate([[0], changes, [len(groups)]])


def reduce_design(X, Z, groups):
    """Rotate the rows of X and Z, group by group.

    In each group the first q rotated rows span Z_j; the random effects do not reach the others.
    Z is scaled so that at Λ = I an average group's own data and what is known of all groups count
    alike: it is shrunk by half.
    """
    order, edges = in_order(groups)
    X, Z, groups = X[order], Z[order], groups[order]
    (n, p), q, J = X.shape, Z.shape[1], len(edges) - 1
    check_sizes(n, p, q, J)
    Q, R_x = orthonormal(X, "X")
    log_det = 2 * np.log(np.abs(R_x.diagonal())).sum()
    # As often, Z begins X; then its basis begins that of X.
    k = q if q <= p and (X[:, :q] == Z).all() else 0
    Z, R_z = (Q[:, :q], R_x[:q, :q]) if k else orthonormal(Z, "Z")
    Z, R_z = Z * sqrt(J), R_z / sqrt(J)
    basis = Basis(Z, edges)
    rows = basis.gather(np.hstack([Z, Q[:, k:]]) if k < p else Z)
    Q_within, X_within = np.empty((n, 0)), np.empty((0, p))
    left = Q[:, k:] - basis.spread(rows[..., q:]) if k < p else Q_within
    if np.vdot(left, left) > 1e-24:
        # Turn X once more, so that what only groups can tell of it stands apart: where groups
        # differ a million times as much as their rows, it would drown in the rounding of the rest.
        Q_within, triangle = qr(left)
        ways, length, Vt, _ = lapack.dgesdd(triangle)
        rank = np.count_nonzero(length > 1e-10)
        Q_within, X_within = Q_within @ ways[:, :rank], np.eye(rank, p, k) * length[:rank, None]
        Q[:, k:] = Q[:, k:] @ Vt.T
        R_x[k:] = Vt @ R_x[k:]
        rows[..., q:] = rows[..., q:] @ Vt.T
    df_within = n - basis.rank - len(X_within)
    if df_within <= 0:
        raise ValueError(
            "no residual degrees of freedom: X and the random effects together fit every row; "
            "use fewer columns in X or Z, or more rows a group"
        )
    rows = rows.swapaxes(1, 2)
    rows = np.concatenate([rows[:, :q], rows[:, :k] / sqrt(J), rows[:, q:]], axis=1)
    labels = groups[edges[:-1]]
    return Design(
        labels, order, basis, Q, R_x, R_z, rows, Q_within, X_within, df_within, log_det
    )  # fmt: skip


def reduce_response(Y, design, *, numbers=None):
    """Rotate the replicates Y (R, n) as the rows of the design.

    An error names the replicate where their `numbers` (R,) are given.
    """
    blocks = slices(len(Y), 4 * BLOCK // Y.shape[1])
    return joined([rotate(Y[i], design, numbers and numbers[i]) for i in blocks])


def rotate(Y, design, numbers=None):
    """`reduce_response` for a block of replicates."""
    n, p, q, J = design.sizes
    largest = np.abs(Y).max(axis=1)
    check_unit(largest)
    y = Y.T[design.order].copy(order="C")
    start = design.Q.T @ y
    y -= design.Q @ start
    unit = np.sqrt(np.einsum("ir,ir->r", y, y) / n)
    rounding = ROUNDING * largest
    message = "the fixed effects fit y exactly, so that no variance is left"
    check_left_over(unit, rounding, numbers, message)
    rows = design.basis.gather(y)
    y -= design.basis.spread(rows)
    within = design.Q_within.T @ y
    if len(within):
        y -= design.Q_within @ within
    ss_within = np.einsum("ir,ir->r", y, y)
    left = np.sqrt(ss_within / design.df_within)
    message = "each group's own fit is exact: the likelihood has no maximum"
    check_left_over(left, rounding, numbers, message)

    # Once more, to take out the rounding of the first subtraction.
    X = design.rows[:, q:].swapaxes(1, 2).reshape(-1, p)
    rows = rows.reshape(q * J, -1)
    step = X.T @ rows + design.X_within.T @ within
    rows = ((rows - X @ step) / unit).reshape(q, J, -1)
    within = (within - design.X_within @ step) / unit
    Xy_within = design.X_within.T @ within
    return Response(start + step, unit, rows, within, Xy_within, ss_within / unit**2)


def slices(length, size):
    """Slices of about equal size, at most `size`, that together make the length."""
    if 0 < length <= size:
        return [slice(0, length)]
    n = max(1, -(-length // max(1, size)))
    ends = [length * i // n for i in range(n + 1)]
    return [slice(*pair) for pair in zip(ends, ends[1:], strict=False)]


def joined(parts):
    """One tuple of arrays out of several, along the last axis."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(*(np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)))


def check_sizes(n, p, q, n_groups):
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


def check_unit(largest):
    """Stop where squares of y would be too large or too small to be numbers."""
    strange = (largest > 1e150) | ((largest < 1e-150) & (largest > 0))
    if strange.any():
        raise ValueError(
            f"y reaches {largest[strange][0]:.0e}, whose square a computer cannot hold; "
            "give y in another unit"
        )


def check_left_over(left, rounding, numbers, message):
    """Stop where what is left of y is no more than rounding."""
    gone = left <= rounding
    if gone.any():
        where = f" (replicate {numbers[gone.argmax()]})" if numbers else ""
        raise ValueError(f"{message}{where}; check that y is measured with error")
