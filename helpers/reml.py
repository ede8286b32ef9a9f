"""Exact (RE)ML fits of linear mixed models with one grouping factor, one or thousands at a time.

Model, for group j with n_j rows:  y_j = X_j β + Z_j b_j + e_j,
b_j ~ N(0, σ² Λ Λᵀ),  e_j ~ N(0, σ² I),  Λ lower triangular.

1. **Reduce** (`reml_reduce`). An orthogonal change of rows turns each group into q rows, so that
   W_j = I + Z_jΛΛᵀZ_jᵀ is q × q, and what is left within all groups together into at most p rows
   and one sum of squares. After this a fit costs the same whatever the number of rows.
2. **Criterion** (`reml_one`). β and σ² have closed forms given Λ. What remains is a function of Λ
   alone, −2 log of the profiled (restricted) likelihood, with an analytic gradient.
3. **Minimise** (`reml_one`, `reml_optimum`). BFGS from moment estimates, then a look across the
   edge where Λ is singular: is there a way down off it, and is it as low as the point that was
   found? Where a second valley is likely, other starts follow. Where groups differ very much more
   than their rows do, Z is measured anew.

``fit`` is ``fit_many`` with one replicate. Lesson 14 is found again in this order, with its γ, u,
d, C and σ² as β, b, df, `cov_re` and `scale`:

- the small matrix of each group: `divide`. A_j = I + GᵀG, with G = Z_jΛ, is not there, for in q
  rows a group W_j = I + GGᵀ is as small and has the same determinant;
- the criterion, with β and σ² by closed forms, and its derivative in ΛΛᵀ: `evaluate_any` of
  `reml_many`, a line for each formula; `gradient_of` makes of that the slope in θ;
- the walk: `reml_one.minimise`. The look across the edge: `look_again` and `settle`, below it;
- the random effects: `Fits.random_effects`, here.

All else is for digits, speed and rare cases. Inside, X and Z are made orthogonal, and y is what
least squares leave of it, in units of its size. `One` has the criterion for one data set in fewer
steps, and `Pair` and `evaluate_pair` in closed form, for one or two random effects and for two.
`reml_optimum` goes beyond the lesson: it looks for lower valleys elsewhere.

Sources: Bates, Mächler, Bolker & Walker (2015), doi:10.18637/jss.v067.i01, sections 2–3;
Lindstrom & Bates (1988), doi:10.1080/01621459.1988.10478693.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from helpers.reml_one import factors, lower, triangle
from helpers.reml_optimum import at_the_edge, optimum
from helpers.reml_reduce import Design, Response, joined, reduce_design, reduce_response, slices

THREADS = 1 if sys.platform == "emscripten" else 2
WORTH_A_THREAD = 131_072  # groups × replicates; with less, threads mostly wait for each other
BATCH = 524_288  # groups × replicates that one thread holds at once


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
    criterion : ndarray (R,)
        −2 log-likelihood (restricted if ``reml``) at the estimates, as lme4 counts it.
    converged : ndarray of bool (R,)
        Whether the slope was verified to be zero and no way down to be left.
    singular : ndarray of bool (R,)
        Whether ``cov_re`` is singular: a variance of 0, a correlation of ±1, or the like.
    reml : bool
        Whether it was the restricted likelihood.
    theta : ndarray (R, q(q+1)/2)
        Lower triangle of Λ, column by column: ``cov_re = scale · ΛΛᵀ``.
    random_effects : ndarray (R, J, q)
        Conditional modes (BLUPs), computed when asked for.
    random_effects_cov : ndarray (R, J, q, q)
        Their conditional covariance given y, β and the variance components.
    taken_back : ndarray (R, J, q, p)
        −∂b̂_j/∂β: where β̂ is off, b̂_j takes some of it back.
    group_labels : ndarray (J,)
        Labels of the groups, sorted.
    """

    beta: np.ndarray
    cov_beta: np.ndarray
    cov_re: np.ndarray
    scale: np.ndarray
    criterion: np.ndarray
    converged: np.ndarray
    singular: np.ndarray
    reml: bool
    _inside: np.ndarray  # (q(q+1)/2, R): theta for the scaled Z
    _design: Design
    _response: Response

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

    @property
    def _factor(self):
        """Λ of each replicate for the scaled Z, (R, q, q)."""
        return factors(self._inside, self._design.sizes[2])

    @cached_property
    def theta(self):
        root = triangle(self._design.to_re @ self._factor)
        root = root * np.where(np.diagonal(root, axis1=1, axis2=2) < 0, -1, 1)[:, None, :]
        return root[:, *lower(root.shape[1])]

    @cached_property
    def random_effects(self):
        """b̂_j = Λv_j, v_j being the least squares fit of [y_j − X_j β̂, 0] on [Z_jΛ, I]."""
        design, q = self._design, self._design.sizes[2]
        modes = np.empty((len(self), len(self.group_labels), q))
        for part in slices(len(self), BATCH // modes.shape[1]):
            response = self._response.take(part)
            beta = design.R_x @ self.beta[part].T - response.start
            rest = response.rows * response.unit - np.einsum(
                "kaj,ar->kjr", design.rows[:, q:], beta
            )
            top, half = self._least_squares(part)
            modes[part] = np.einsum("rjlk,rjml,mjr->rjk", half, top, rest, optimize=True)
        return modes

    @cached_property
    def random_effects_cov(self):
        """σ² Λ (I + Λ' Z_j'Z_j Λ)⁻¹ Λ', the middle by its root."""
        _, half = self._least_squares(slice(None))
        return self.scale[:, None, None, None] * (half.swapaxes(-1, -2) @ half)

    @property
    def taken_back(self):
        design, q = self._design, self._design.sizes[2]
        X = np.einsum("kaj,ab->kbj", design.rows[:, q:], design.R_x)
        top, half = self._least_squares(slice(None))
        return np.einsum("rjlk,rjml,maj->rjka", half, top, X, optimize=True)

    def _least_squares(self, part):
        """QR of Z_jΛ on top of I: the first q rows of Q, and R'⁻¹Λ' with Λ for Z as given."""
        q = self._design.sizes[2]
        factor = self._factor[part, None]
        G = self._design.rows[:, :q].transpose(2, 0, 1) @ factor
        Q, R = np.linalg.qr(np.concatenate([G, np.broadcast_to(np.eye(q), G.shape)], axis=-2))
        half = np.linalg.solve(R.swapaxes(-1, -2), (self._design.to_re @ factor).swapaxes(-1, -2))
        return Q[..., :q, :], half


@dataclass(frozen=True)
class Fit:
    """One fitted mixed model: as `Fits`, without the replicate axis."""

    beta: np.ndarray
    cov_beta: np.ndarray
    cov_re: np.ndarray
    scale: float
    criterion: float
    converged: bool
    singular: bool
    reml: bool
    _fits: Fits

    @property
    def group_labels(self):
        return self._fits.group_labels

    @property
    def theta(self):
        return self._fits.theta[0]

    @property
    def random_effects(self):
        return self._fits.random_effects[0]

    @property
    def random_effects_cov(self):
        return self._fits.random_effects_cov[0]

    @property
    def taken_back(self):
        return self._fits.taken_back[0]

    @property
    def rotated(self):
        """The data as `reml_reduce` has them: design, response, and Λ for the scaled Z."""
        fits = self._fits
        return fits._design, fits._response, fits._factor[0]


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

    Notes
    -----
    y is known to 16 digits. Where rows stray from their groups' own fits by a billionth of y and
    less, the rounding of y itself moves the criterion by 10⁻⁵ and more.

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
    y = np.asarray(y)
    if y.ndim != 1:
        raise ValueError(
            f"y must have one axis (rows), not shape {y.shape}; for many, see fit_many"
        )
    many = fit_many(y[None], X, Z, groups, reml=reml)
    return Fit(
        many.beta[0], many.cov_beta[0], many.cov_re[0], float(many.scale[0]),
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
    design = reduce_design(X, Z, groups)
    parts = slices(len(Y), _batch(len(Y), len(design.labels)))

    def work(part):
        numbers = range(len(Y))[part] if len(Y) > 1 else None
        return _fit_part(Y[part], design, reml, numbers)

    done, found, responses = 0, [], []
    pool = ThreadPoolExecutor(THREADS) if min(THREADS, len(parts)) > 1 else None
    try:
        for columns, response in (pool.map if pool else map)(work, parts):
            found.append(columns)
            responses.append(response)
            done += len(columns[0])
            if progress is not None:
                progress(done, len(Y))
    finally:
        if pool:  # an interrupted call must not wait for the batches that have not begun
            pool.shutdown(cancel_futures=True)
    whole = found[0]
    if len(found) > 1:
        whole = [np.concatenate(column) for column in zip(*found, strict=True)]
    *columns, inside = whole
    return Fits(*columns, reml, inside.T, design, joined(responses))


def _batch(n_replicates, n_groups):
    """Replicates to fit at once, so that every thread gets as many batches."""
    threads = min(THREADS, max(1, n_replicates * n_groups // WORTH_A_THREAD))
    rounds = -(-n_replicates * n_groups // (threads * BATCH))
    return max(1, -(-n_replicates // (threads * rounds)))


def _fit_part(Y, design, reml, numbers):
    """Arrays for `Fits`, in the order of its fields, replicates first, undoing all scaling.

    And the response, of which random effects are made when they are asked for.
    """
    n, p, q, _ = design.sizes
    response = reduce_response(Y, design, numbers=numbers)
    theta, point, converged = optimum(design, response, reml)
    theta, singular = at_the_edge(theta, q)
    df, unit = (n - p if reml else n), response.unit
    beta = (response.start + point.beta * unit).T @ design.to_beta.T
    scale = point.scale * unit**2
    root = design.to_beta @ point.L_inv.T
    factor = design.to_re @ factors(theta, q)
    criterion = point.criterion + 2 * df * np.log(unit)
    if reml:
        criterion = criterion + design.log_det
    columns = (
        beta,
        scale[:, None, None] * (root @ root.swapaxes(1, 2)),
        scale[:, None, None] * (factor @ factor.swapaxes(1, 2)),
        scale,
        criterion,
        converged,
        singular,
        theta.T,
    )
    return columns, response


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
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"{name} must have two axes, neither empty, not shape {array.shape}")
        finite = np.isfinite(array)
        if not finite.all():
            raise ValueError(
                f"{name} has {np.count_nonzero(~finite)} missing or infinite values; drop or fill "
                "those rows"
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
    try:
        missing = (groups != groups).any() or groups.dtype == object and None in groups.tolist()
    except TypeError:  # pandas' NA is neither equal to itself nor not
        missing = True
    if missing:
        raise ValueError("groups has missing labels; drop those rows")
    return Y, X, Z, groups
