"""The likelihood of a mixed model as a function of its variances, for errors and intervals.

``reml`` finds the optimum; this module looks at the hill around it: how sharply it falls (the
information, and from it standard errors) and where it has fallen too far (profile intervals).

With V_j = Z_j Ψ Z_jᵀ + σ² I and β profiled out, the deviance is

    D(Ψ, σ²) = Σ log|V_j| + log|Xᵀ V⁻¹ X| + rᵀ V⁻¹ r

(the middle term for REML only). Everything is computed from the cross-products of each group, so a
call costs groups × parameters, whatever the number of rows.

Source: Bates, Mächler, Bolker & Walker (2015), doi:10.18637/jss.v067.i01; for profile likelihood
Pawitan (2001), *In All Likelihood*, chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

LOST = 1e-4  # of the deviance, by the rounding of squares; from there on it is not relied on


@dataclass(frozen=True)
class Likelihood:
    """Cross-products of one data set: all that the deviance needs.

    The random effects are in a basis of their own, in which Z has orthonormal columns, or in one
    chosen with `in_basis`: Ψ stands for the covariance of the coefficients ``basis @ b``.

    Attributes
    ----------
    basis : ndarray, shape (q, q)
        From the coefficients b of Z as it was given.
    zz : ndarray, shape (groups, q, q)
        ZᵀZ of each group.
    zx : ndarray, shape (groups, q, p + 1)
        Zᵀ[X y] of each group.
    xx : ndarray, shape (p + 1, p + 1)
        [X y]ᵀ[X y] over all rows.
    n : int
        Rows.
    reml : bool
    """

    basis: np.ndarray
    zz: np.ndarray
    zx: np.ndarray
    xx: np.ndarray
    n: int
    reml: bool

    @classmethod
    def of(cls, y, X, Z, group_index, reml):
        """From response (n,), designs (n, p) and (n, q), and group numbers 0 … J − 1 (n,)."""
        # Any basis of X's columns gives the same profile; an orthonormal one loses no digits.
        X = np.linalg.qr(X / np.linalg.norm(X, axis=0))[0]
        size = np.linalg.norm(Z, axis=0)
        Z, R = np.linalg.qr(Z / size)
        rows = np.column_stack([X, y - X @ (X.T @ y)])
        order = np.argsort(group_index, kind="stable")
        starts = np.flatnonzero(np.diff(group_index[order], prepend=-1))
        Z, sorted_rows = Z[order], rows[order]
        zz = np.add.reduceat(Z[:, :, None] * Z[:, None, :], starts)
        zx = np.add.reduceat(Z[:, :, None] * sorted_rows[:, None, :], starts)
        return cls(R * size, zz, zx, rows.T @ rows, len(y), reml)

    def in_basis(self, basis):
        """The same likelihood for the coefficients ``basis @ b``."""
        change = np.linalg.solve(basis.T, self.basis.T).T
        return replace(self, basis=basis, zz=change.T @ self.zz @ change, zx=change.T @ self.zx)

    def psi(self, root):
        """Ψ, from a root of the covariance of b: ``root @ root.T``, (q, q)."""
        root = self.basis @ root
        return root @ root.T

    def is_lost(self, sigma2):
        """Whether y is so large beside σ that its squares leave too few digits for the deviance."""
        return np.finfo(float).eps * self.xx[-1, -1] > LOST * sigma2

    def shrinkage(self, psi, sigma2):
        """(σ² I + Ψ ZᵀZ)⁻¹ Ψ of each group: the conditional covariance of its b, over σ²."""
        inner = sigma2 * np.eye(len(psi)) + psi @ self.zz
        return np.linalg.solve(inner, np.broadcast_to(psi, inner.shape))

    def deviance(self, psi, sigma2):
        """D up to a constant, its gradient in Ψ (q, q), symmetric, and in σ².

        A symmetric change dΨ changes D by the sum of gradient × dΨ over all q² entries.
        """
        q, p = len(psi), len(self.xx) - 1
        W = self.shrinkage(psi, sigma2)
        zz_W = self.zz @ W
        U = (self.zx - zz_W @ self.zx) / sigma2
        K = (self.xx - np.tensordot(self.zx, W @ self.zx, axes=([0, 1], [0, 1]))) / sigma2
        F_inverse = np.linalg.inv(K[:p, :p])
        beta = F_inverse @ K[:p, p]
        squares = K[p, p] - K[:p, p] @ beta
        u = U[:, :, p] - U[:, :, :p] @ beta
        value = np.linalg.slogdet(sigma2 * np.eye(q) + psi @ self.zz)[1].sum() + squares
        value += (self.n - q * len(self.zz)) * np.log(sigma2)
        gradient = (self.zz - zz_W @ self.zz).sum(axis=0) / sigma2 - u.T @ u
        free_rows = self.n
        if self.reml:
            value += np.linalg.slogdet(K[:p, :p])[1]
            UX = U[:, :, :p]
            gradient -= np.tensordot(UX @ F_inverse, UX, axes=([0, 2], [0, 2]))
            free_rows -= p
        # D(cΨ, cσ²) is known in closed form, which gives the last derivative without more algebra.
        d_sigma2 = (free_rows - squares - np.sum(gradient * psi)) / sigma2
        return value, gradient, d_sigma2


def _decorrelated(likelihood, root, sigma2, keep=()):
    """The likelihood in a basis with orthogonal columns of Z, of comparable size.

    The coefficients in ``keep`` come first, multiplied by a constant but not mixed with others.
    """
    q = len(root)
    order = [k for k in range(q) if k not in keep] + list(keep)[::-1]
    # R of Z = QR leaves the last coefficient as it was, but for a constant.
    R = np.linalg.qr(likelihood.basis[:, order], mode="r")
    R *= np.where(np.diag(R) < 0, -1.0, 1.0)[:, None]
    if len(keep) == 2:
        R[-2, -1] = 0.0
    basis = np.zeros((q, q))
    basis[:, order] = R
    local = likelihood.in_basis(basis[::-1])
    # The size that matters for a coefficient: its SD and the error of its estimate in one group.
    error = sigma2 / (np.einsum("jqq->q", local.zz) / len(local.zz))
    return local.in_basis(local.basis / np.sqrt(np.diag(local.psi(root)) + error)[:, None])


def information(likelihood, root, sigma2):
    """Covariance of the estimates of (vech Ψ, σ²), from the observed information.

    Half the second derivatives of the deviance at Ψ = ``root @ root.T``, inverted. Ψ is that of Z
    as it was given; its entries run along the rows of its lower triangle, and σ² comes last.
    Meaningful only off the boundary.

    Returns
    -------
    ndarray, shape (q(q + 1)/2 + 1, q(q + 1)/2 + 1)
        All nan where digits are lost: see `profile_interval`.
    """
    if likelihood.is_lost(sigma2):
        return np.full((len(root) * (len(root) + 1) // 2 + 1,) * 2, np.nan)
    local, q = _decorrelated(likelihood, root, sigma2), len(root)
    rows, columns = np.tril_indices(q)
    at = np.append(local.psi(root)[rows, columns], sigma2)
    steps = np.append(np.full(len(rows), 1e-4), 1e-4 * sigma2)

    def gradient(parameters):
        matrix = np.zeros((q, q))
        matrix[rows, columns] = matrix[columns, rows] = parameters[:-1]
        _, d_psi, d_sigma2 = local.deviance(matrix, parameters[-1])
        return np.append(d_psi[rows, columns] * np.where(rows == columns, 1, 2), d_sigma2)

    hessian = np.array(
        [(gradient(at + step) - gradient(at - step)) / (2 * step.sum()) for step in np.diag(steps)]
    )
    back = np.linalg.inv(local.basis)
    to_natural = np.zeros((len(at), len(at)))
    to_natural[-1, -1] = 1.0
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        unit = np.zeros((q, q))
        unit[i, j] = unit[j, i] = 1.0
        to_natural[:-1, k] = (back @ unit @ back.T)[rows, columns]
    return to_natural @ np.linalg.inv((hessian + hessian.T) / 4) @ to_natural.T


def profile_interval(likelihood, root, sigma2, kind, which=(), *, level=0.95):
    """Interval for one parameter: the values whose profile deviance is within χ²₁ of the optimum.

    Parameters
    ----------
    likelihood : Likelihood
    root, sigma2 : ndarray (q, q), float
        The optimum, which may be on the boundary: a root of Ψ, and σ².
    kind : {"sd", "covariance", "correlation", "residual"}
        What to profile: the SD of a coefficient, the covariance or the correlation of two, the
        residual SD.
    which : tuple of int
        The number of the coefficient, or of the two.
    level : float
        Coverage.

    Returns
    -------
    lower, upper : float
        The ends 0 (of an SD) and ±1 (of a correlation) are in the interval when they are returned.
        Both nan if two coefficients are so nearly collinear (a predictor far from its zero) that
        their covariance cannot be profiled, or if digits are lost: squares, of which all here is
        made, have none left for σ where groups differ some 10⁵ times as much as their rows.
    """
    if likelihood.is_lost(sigma2):
        return np.nan, np.nan
    local = _decorrelated(likelihood, root, sigma2, which)
    profile = _Profile(local, root, sigma2, kind, stats.chi2.ppf(level, 1))
    try:
        ends = [profile.end(side) for side in (-1, 1)]
    except np.linalg.LinAlgError:
        return np.nan, np.nan
    if kind == "residual":
        return tuple(np.exp(ends))
    unit = (
        1.0 if kind == "correlation" else np.prod([local.basis[i, k] for i, k in enumerate(which)])
    )
    return tuple(np.array(ends) / unit)


class _Profile:
    """The deviance with one parameter held at a value and minimised over the rest.

    The parameters are the rows of L, where Ψ = L Lᵀ, then log σ: free of constraints, and at a
    boundary of Ψ as smooth as elsewhere.
    """

    def __init__(self, likelihood, root, sigma2, kind, allowed):
        self.likelihood, self.kind = likelihood, kind
        self.rows, self.columns = np.tril_indices(len(root))
        self.lowest, self.allowed = likelihood.deviance(likelihood.psi(root), sigma2)[0], allowed
        L = np.linalg.qr((likelihood.basis @ root).T, mode="r").T
        L *= np.where(np.diag(L) < 0, -1.0, 1.0)
        full = np.append(L[self.rows, self.columns], np.log(sigma2) / 2)
        self.held = {"sd": 0, "covariance": 1, "correlation": 1, "residual": len(full) - 1}[kind]
        self.limits = {"sd": (0.0, np.inf), "correlation": (-1.0, 1.0)}.get(kind, (-np.inf, np.inf))
        self.estimate = full[self.held]
        if kind == "covariance":
            self.estimate = full[0] * full[1]
        if kind == "correlation":
            sd = np.hypot(full[1], full[2])
            self.estimate = full[1] / sd if full[0] * sd > 0 else 0.0
            full[[0, 2]] = np.sqrt([full[0], sd])
        # The deviance is flat at a zero on L's diagonal, so a search must not begin there.
        diagonal = np.append(self.rows == self.columns, False)
        full[diagonal] = np.maximum(full[diagonal], 0.1)
        # Steps of one standard error, or so, in each of the free parameters.
        curvature = np.full(len(full), 2.0 * len(likelihood.zz))
        curvature[-1] = 4.0 * likelihood.n
        self.step = np.delete(1 / np.sqrt(curvature), self.held)
        self.start = np.delete(full, self.held)

    def full(self, free, value):
        """All parameters from the free ones and the value of the one held."""
        full = np.insert(free, self.held, value)
        if self.kind == "covariance":
            full[1] = value / full[0]
        if self.kind == "correlation":
            # Squares, for a change of sign of one SD would turn the correlation around.
            sd = full[2] ** 2
            full[:3] = full[0] ** 2, value * sd, np.sqrt(1 - value**2) * sd
        return full

    def objective(self, free, value):
        """Deviance and its gradient in the free parameters."""
        full = self.full(free, value)
        L = np.zeros((self.rows[-1] + 1,) * 2)
        L[self.rows, self.columns] = full[:-1]
        sigma2 = np.exp(2 * full[-1])
        deviance, d_psi, d_sigma2 = self.likelihood.deviance(L @ L.T, sigma2)
        slope = np.append((2 * d_psi @ L)[self.rows, self.columns], 2 * sigma2 * d_sigma2)
        if self.kind == "covariance":
            slope[0] -= slope[1] * full[1] / full[0]
        if self.kind == "correlation":
            slope[2] = value * slope[1] + np.sqrt(1 - value**2) * slope[2]
            root = np.insert(free, self.held, value)
            slope[[0, 2]] *= 2 * root[[0, 2]]
        return deviance, np.delete(slope, self.held)

    def rise(self, value):
        """Root of the profile deviance, less what is allowed: negative inside the interval.

        The root is nearly a straight line on either side of the estimate, so that its zero is soon
        found.
        """

        def in_steps(steps):
            deviance, slope = self.objective(self.start + steps * self.step, value)
            return deviance, slope * self.step

        origin = np.zeros(len(self.start))
        best = optimize.minimize(in_steps, origin, jac=True, method="BFGS", options={"gtol": 1e-3})
        return np.sqrt(max(best.fun - self.lowest, 0.0)) - np.sqrt(self.allowed)

    def end(self, side):
        """The lower (side = −1) or upper (side = 1) end of the interval."""
        if self.rise(self.estimate) > -0.9 * np.sqrt(self.allowed):
            raise np.linalg.LinAlgError("the profile does not pass through the optimum")
        limit = self.limits[(side + 1) // 2]
        if np.isfinite(limit):
            if self.estimate == limit or self.rise(limit) <= 0:
                return limit
            far = limit
        else:
            step = 2.0 / np.sqrt(len(self.likelihood.zz))
            far = self.estimate + side * step
            while self.rise(far) < 0:
                step *= 2
                far = self.estimate + side * step
                if step > 1e12:
                    return side * np.inf
        return optimize.brentq(self.rise, self.estimate, far, xtol=1e-6)
