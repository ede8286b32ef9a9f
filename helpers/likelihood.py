"""The likelihood of a mixed model around its optimum, for standard errors and intervals.

`reml` finds the optimum; this module looks at the hill around it: how sharply it falls (the
information, and from it standard errors) and where it has fallen too far (profile intervals).

`reml` profiles σ out. With it the deviance is, up to a constant,

    D(Λ, σ) = criterion(Λ) + x − df log x,    x = rᵀ W⁻¹ r / σ²,

least where x = df. It comes from the rotated rows, so that a call costs groups × parameters,
whatever the number of rows, and no digit goes by squaring.

Source: Bates, Mächler, Bolker & Walker (2015), doi:10.18637/jss.v067.i01; for profile likelihood
Pawitan (2001), *In All Likelihood*, chapter 3.
"""

from __future__ import annotations

from math import exp, log

import numpy as np
from scipy import optimize, stats

from helpers.reml_one import One, divide, lower, triangle
from helpers.reml_optimum import measured


class Likelihood:
    """The deviance of one data set, and how it rises from a fit.

    Inside, Z is measured so that ΛΛᵀ at the optimum, and the error (in units of σ) with which an
    average group's own rows tell its coefficients, together make I: Λ is near I where groups differ
    much and near 0 where they do not, in whatever units and whatever their correlations.

    Parameters
    ----------
    fit : reml.Fit
        The optimum; of what `mixed.fit` returns, ``fit.optimum``.
    keep : tuple of int
        One or two random effects that come first in Λ, and are not mixed with others.

    Attributes
    ----------
    factor : ndarray, shape (q, q)
        Λ at the optimum, a lower triangle.
    natural : ndarray, shape (q, q)
        From there to the random effects as they were given: their covariance is
        ``scale * natural @ factor @ factor.T @ natural.T``.
    unit : ndarray, shape (q,)
        The diagonal of ``natural``, with the rows in the order of Λ: for a random effect that was
        kept, the only entry of its row, its unit here in its own unit.
    """

    def __init__(self, fit, keep=()):
        design, response, factor = fit.rotated
        q = len(factor)
        order = [*keep, *(k for k in range(q) if k not in keep)]
        root = np.hstack([factor, np.eye(q)])
        turn, natural = np.linalg.qr((design.to_re[order] @ root).T)
        sign = np.where(natural.diagonal() < 0, -1, 1)
        measure, natural = root @ turn * sign, natural.T * sign
        if len(keep) == 2:
            apart = np.diag([natural[0, 0], np.hypot(*natural[1, :2])])
            change = np.linalg.solve(natural[:2, :2], apart)
            measure[:, :2], natural[:, :2] = measure[:, :2] @ change, natural[:, :2] @ change
        design, response, _ = measured(design, response, measure[None])
        self.one = One(design.take(0), response.take(0), fit.reml)
        self.scale = fit.scale
        self.natural, self.unit = natural[np.argsort(order)], natural.diagonal()
        self.factor = triangle(np.linalg.solve(measure, factor))
        self.factor *= np.where(self.factor.diagonal() < 0, -1, 1)
        self.at = self.one.evaluate(self.factor[lower(q)])

    def deviance(self, root, sigma):
        """How much D is above its least where C = ``root @ root.T``, and its slopes.

        Parameters
        ----------
        root : ndarray, shape (q, q)
            A root of the covariance C of the random effects, in units of y per unit of Z.
        sigma : float
            The residual SD, in units of y.

        Returns
        -------
        float; ndarray (q, q); float
            The rise, and its derivatives in ``root`` and in ``sigma``.
        """
        size = self.scale**0.5
        to_factor = np.linalg.inv(size * self.natural)
        rise, slope, by_log = self.rise(to_factor @ root, log(sigma / size))
        return rise, to_factor.T @ slope, by_log / sigma

    def rise(self, T, log_sigma):
        """`deviance` where Λ = T / σ and σ is in units of its estimate; slopes in T and log σ."""
        one, far = self.one, (np.inf, np.zeros(T.shape), 0.0)
        if not max(abs(log_sigma), np.log1p(np.abs(T).max())) < 50:
            return far
        sigma = exp(log_sigma)
        at = one.evaluate(triangle(T / sigma)[lower(one.q)])
        if at.criterion == np.inf:
            return far
        x = one.df * (at.L[-1, -1] / self.at.L[-1, -1] / sigma) ** 2
        rise = at.criterion - self.at.criterion + x - one.df * (1 + log(x / one.df))
        weights = np.append(one.weights[:-1], x)  # rᵀ W⁻¹ r counts as it is, not by its logarithm
        by_psi = at.white.by_psi(np.sqrt(weights)[:, None] * at.L_inv).reshape(one.q, -1)
        slope = 2 * by_psi @ T / sigma**2
        return rise, slope, 2 * (one.df - x) - np.sum(slope * T)


def information(fit):
    """Covariance of the estimates of (vech C, σ²), from the observed information.

    Half the second derivatives of the deviance at the optimum, inverted. C = σ²ΛΛᵀ, the covariance
    of the random effects, runs along the rows of its lower triangle; σ² comes last. Meaningful only
    off the boundary.

    Parameters
    ----------
    fit : reml.Fit

    Returns
    -------
    ndarray, shape (q(q + 1)/2 + 1, q(q + 1)/2 + 1)

    Notes
    -----
    With P = W⁻¹ − W⁻¹X(XᵀW⁻¹X)⁻¹XᵀW⁻¹, where σ = 1, the second derivative in the directions E and F
    of C is  −tr(PZEZᵀPZFZᵀ) + 2 yᵀPZEZᵀPZFZᵀPy  (for ML, with W⁻¹ for P in the trace). That in σ²
    follows: log-determinants gain df log c when C and σ² are multiplied by c, and yᵀPy is divided.
    """
    hill = Likelihood(fit)
    one, q = hill.one, len(hill.factor)
    _, white = divide(hill.factor[lower(q)], one.rows)
    Z, columns = white[:, :q], hill.at.L_inv @ white[:, q:]
    H = np.einsum("klj,kmj->jlm", Z, Z)
    U = np.einsum("klj,kaj->jla", Z, columns)
    U, u = U[..., :-1], U[..., -1] * np.sqrt(one.df)
    rows, across = np.tril_indices(q)
    E = np.zeros((len(rows), q, q))
    E[range(len(rows)), rows, across] = E[range(len(rows)), across, rows] = 1

    HE, EU, Eu = H @ E[:, None], E[:, None] @ U, u @ E
    first = np.einsum("ajkk->a", HE)
    second = -np.einsum("ajkl,bjlk->ab", HE, HE)
    UEU = np.einsum("jka,ejkb->eab", U, EU)
    uEU = np.einsum("ejk,jka->ea", Eu, U)
    if fit.reml:
        first -= np.einsum("eaa->e", UEU)
        second += 2 * np.einsum("ajkp,jkl,bjlp->ab", EU, H, EU, optimize=True)
        second -= np.einsum("eab,fab->ef", UEU, UEU)
    second += 2 * np.einsum("ajk,jkl,bjl->ab", Eu, H, Eu, optimize=True) - 2 * uEU @ uEU.T
    psi = (hill.factor @ hill.factor.T)[rows, across]
    cross = first - second @ psi
    corner = one.df - first @ psi - cross @ psi
    hessian = np.block([[second, cross[:, None]], [cross, corner]])

    to_natural = np.zeros(hessian.shape)
    to_natural[-1, -1] = 1
    to_natural[:-1, :-1] = (hill.natural @ E @ hill.natural.T)[:, rows, across].T
    return 2 * fit.scale**2 * to_natural @ np.linalg.inv(hessian) @ to_natural.T


def profile_interval(fit, kind, which=(), *, level=0.95):
    """Interval for one parameter: the values whose profile deviance is within χ²₁ of the optimum.

    Parameters
    ----------
    fit : reml.Fit
        The optimum, which may be on the boundary.
    kind : {"sd", "covariance", "correlation", "residual"}
        What to profile: the SD of a random effect, the covariance or the correlation of two, the
        residual SD.
    which : tuple of int
        The number of the random effect, or of the two.
    level : float
        Coverage.

    Returns
    -------
    lower, upper : float
        The ends 0 (of an SD) and ±1 (of a correlation) are in the interval when they are returned.
        ±inf where the deviance has not risen enough even 10¹² units of `Likelihood` away.
        Both nan if two random effects are so nearly collinear (a predictor far from its zero) that
        their covariance cannot be profiled.
    """
    hill = Likelihood(fit, which)
    profile = _Profile(hill, kind, stats.chi2.ppf(level, 1))
    try:
        ends = np.array([profile.end(side) for side in (-1, 1)])
    except np.linalg.LinAlgError:
        return np.nan, np.nan
    if kind == "correlation":
        return tuple(ends)
    size = fit.scale ** (0.5 * max(1, len(which)))
    return tuple(
        size * (np.exp(ends) if kind == "residual" else ends * hill.unit[: len(which)].prod())
    )


class _Profile:
    """The deviance with one parameter held at a value and minimised over the rest.

    The parameters are the rows of a lower triangle T, where C = TTᵀ in the units of `Likelihood`,
    then log σ: free of constraints, and at a boundary of C as smooth as elsewhere.
    """

    def __init__(self, hill, kind, allowed):
        self.hill, self.kind, self.allowed = hill, kind, allowed
        self.rows, self.columns = np.tril_indices(len(hill.factor))
        full = np.append(hill.factor[self.rows, self.columns], 0.0)
        self.held = {"sd": 0, "covariance": 1, "correlation": 1, "residual": len(full) - 1}[kind]
        self.limits = {"sd": (0.0, np.inf), "correlation": (-1.0, 1.0)}.get(kind, (-np.inf, np.inf))
        self.estimate = full[self.held]
        if kind == "covariance":
            self.estimate = full[0] * full[1]
        if kind == "correlation":
            sd = np.hypot(full[1], full[2])
            self.estimate = full[1] / sd if full[0] * sd > 0 else 0.0
            full[[0, 2]] = np.sqrt([full[0], sd])
        # The deviance is flat at a zero on T's diagonal, so a search must not begin there.
        diagonal = np.append(self.rows == self.columns, False)
        full[diagonal] = np.maximum(full[diagonal], 0.1)
        # Steps of one standard error, or so, in each of the free parameters.
        curvature = np.full(len(full), 2.0 * hill.one.n_groups)
        curvature[-1] = 4.0 * hill.one.n
        self.step = np.delete(1 / np.sqrt(curvature), self.held)
        self.start = np.delete(full, self.held)
        self.last = np.zeros(len(self.start))

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
        T = np.zeros(self.hill.factor.shape)
        T[self.rows, self.columns] = full[:-1]
        deviance, by_T, by_log_sigma = self.hill.rise(T, full[-1])
        slope = np.append(by_T[self.rows, self.columns], by_log_sigma)
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
        found. There may be two valleys; so the search starts from the last one, too.
        """

        def in_steps(steps):
            deviance, slope = self.objective(self.start + steps * self.step, value)
            return deviance, slope * self.step

        found = [
            optimize.minimize(in_steps, start, jac=True, method="BFGS", options={"gtol": 1e-5})
            for start in (np.zeros(len(self.start)), self.last)
        ]
        best = min(found, key=lambda one: one.fun)
        self.last = best.x
        return np.sqrt(max(best.fun, 0.0)) - np.sqrt(self.allowed)

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
            step = 2.0 / np.sqrt(self.hill.one.n_groups)
            far = self.estimate + side * step
            while self.rise(far) < 0:
                step *= 2
                far = self.estimate + side * step
                if step > 1e12:
                    return side * np.inf
        end = optimize.brentq(self.rise, self.estimate, far, xtol=1e-8)
        # On the way the search may have met a lower valley, in which the limit is allowed.
        return limit if np.isfinite(limit) and self.rise(limit) <= 0 else end
