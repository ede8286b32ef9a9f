"""The likelihood straight from its definition, with n × n matrices: slow, and hard to get wrong."""

import numpy as np


def covariance(Z, groups, cov_re, scale):
    """Marginal covariance of y, (n, n): rows share random effects within their group only."""
    groups = np.asarray(groups)
    same_group = groups[:, None] == groups[None, :]
    return same_group * (Z @ cov_re @ Z.T) + scale * np.eye(len(Z))


def criterion(y, X, V, beta, reml):
    """−2 log density of y ~ N(Xβ, V); under REML of the part of y that X leaves free.

    Parameters
    ----------
    y : ndarray (n,)
    X : ndarray (n, p)
    V : ndarray (n, n)
    beta : ndarray (p,)
    reml : bool

    Returns
    -------
    float
        With every constant but log|X'X|, as lme4 counts it.
    """
    n, p = X.shape
    root = np.linalg.cholesky(V)
    white = np.linalg.solve(root, np.column_stack([X, y - X @ beta]))
    value = n * np.log(2 * np.pi) + 2 * np.log(np.diag(root)).sum() + white[:, -1] @ white[:, -1]
    if reml:
        triangle = np.linalg.qr(white[:, :-1], mode="r")
        value += 2 * np.log(np.abs(np.diag(triangle))).sum() - p * np.log(2 * np.pi)
    return value


def profiled(y, X, V, reml):
    """The smallest `criterion` over β and over multiples of V."""
    n, p = X.shape
    root = np.linalg.cholesky(V)
    white = np.linalg.solve(root, np.column_stack([X, y]))
    beta, *_ = np.linalg.lstsq(white[:, :-1], white[:, -1], rcond=None)
    residual = white[:, -1] - white[:, :-1] @ beta
    scale = residual @ residual / (n - p if reml else n)
    return criterion(y, X, scale * V, beta, reml)
