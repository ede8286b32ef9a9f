"""What a mixed model says about variation: variances, shares of variance, the groups themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers import likelihood
from helpers.mixed_fit import check_share, new_design, result_of


def variance_table(fit, *, level=0.95, on="variance"):
    """Variances, standard deviations and correlations, with standard errors and intervals.

    Parameters
    ----------
    fit : MixedFit
        What `fit` returned.
    level : float, default 0.95
        Coverage of the intervals.
    on : {"variance", "sd"}
        What ``se``, ``lower`` and ``upper`` are about: variances and covariances, or standard
        deviations and correlations.

    Returns
    -------
    pandas.DataFrame
        A row for each variance, each covariance, and the residual, in the order of ``summary()``:

        - ``term``, ``with_term``: whose variance; the second is empty but for covariances;
        - ``variance``: the variance or covariance, in (units of y) × (units of y) per units of x;
        - ``sd``, ``correlation``: the same as SD (nan for covariances) or correlation (nan for
          variances, and where an SD is zero);
        - ``se``: from the observed information of the (restricted) likelihood; nan for all rows of
          a singular fit, where it has no meaning;
        - ``lower``, ``upper``: the profile-likelihood interval, at the boundary too. A lower end
          of 0 says that a variance of zero agrees with the data. nan for a covariance that cannot
          be profiled, because a predictor is far from its zero: centre it.

    Notes
    -----
    A variance's estimates are skewed, so that ± 2 standard errors is a poor interval, and the
    profile interval is not symmetric. With REML the profile is that of the restricted likelihood
    (lme4's ``confint`` refits by ML first).

    Sources: Bates, Mächler, Bolker & Walker (2015), doi:10.18637/jss.v067.i01, section 5.1;
    Pinheiro & Bates (2000), doi:10.1007/b98882, section 2.4.

    Examples
    --------
    >>> from helpers import datasets, mixed
    >>> result = mixed.fit("mathach ~ 1", datasets.load("hsb"), groups="school")
    >>> mixed.variance_table(result).round(3).to_dict("records")[0]
    {'term': 'Intercept', 'with_term': '', 'variance': 8.614, 'sd': 2.935, 'correlation': nan, \
'se': 1.079, 'lower': 6.777, 'upper': 11.08}
    """
    result = result_of(fit)
    check_share("level", level)
    if on not in ("variance", "sd"):
        raise ValueError(f"on={on!r}: give 'variance' or 'sd'")
    psi, sigma2, terms = result.cov_re, result.scale, result.random_terms
    sd = np.sqrt(np.diag(psi))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = psi / np.outer(sd, sd)
    rows = []
    for i, j in zip(*np.tril_indices(len(psi)), strict=True):
        if i == j:
            kind, which = "sd", (i,)
            values = {"variance": psi[i, i], "sd": sd[i]}
        else:
            kind, which = ("covariance" if on == "variance" else "correlation"), (j, i)
            values = {"variance": psi[i, j], "correlation": correlation[i, j]}
        ends = likelihood.profile_interval(result.optimum, kind, which, level=level)
        rows.append({"term": terms[j], "with_term": terms[i] if i != j else "", **values,
                     "lower": ends[0], "upper": ends[1]})  # fmt: skip
    ends = likelihood.profile_interval(result.optimum, "residual", level=level)
    rows.append({"term": "Residual", "with_term": "", "variance": sigma2, "sd": np.sqrt(sigma2),
                 "lower": ends[0], "upper": ends[1]})  # fmt: skip
    columns = ["term", "with_term", "variance", "sd", "correlation", "se", "lower", "upper"]
    table = pd.DataFrame(rows, columns=columns)
    if on == "variance":
        is_variance = table["with_term"] == ""
        table.loc[is_variance, ["lower", "upper"]] **= 2
        table["se"] = np.sqrt(np.diag(result.variance_cov))
    else:
        table["se"] = _se_of_sds(result)
    return table


def _se_of_sds(result):
    """Standard errors of SDs and correlations, in the order of `variance_table`."""
    psi = result.cov_re
    jacobian = np.zeros_like(result.variance_cov)
    index = {pair: k for k, pair in enumerate(zip(*np.tril_indices(len(psi)), strict=True))}
    for (i, j), k in index.items():
        if i == j:
            jacobian[k, k] = 0.5 / np.sqrt(psi[i, i]) if psi[i, i] > 0 else np.nan
            continue
        size = np.sqrt(psi[i, i] * psi[j, j])
        jacobian[k, k] = 1 / size if size > 0 else np.nan
        for m in (i, j):
            jacobian[k, index[m, m]] = -0.5 * psi[i, j] / (size * psi[m, m]) if size else np.nan
    jacobian[-1, -1] = 0.5 / np.sqrt(result.scale)
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.diag(jacobian @ result.variance_cov @ jacobian.T))


def group_coefficients(fit):
    """Each group's own coefficients: the fixed effect plus the group's deviation (BLUP).

    Parameters
    ----------
    fit : MixedFit
        What `fit` returned.

    Returns
    -------
    pandas.DataFrame
        A row for each group and each term that varies, groups in sorted order:

        - ``group``, ``term``: the label, and the name in the formula ("Intercept", "app_hours");
        - ``fixed``: the fixed effect, 0 for a term that is not among the fixed effects;
        - ``blup``: the predicted deviation, or conditional mode, of the group;
        - ``estimate``: their sum, the group's own coefficient;
        - ``sd``: the conditional standard deviation of the deviation, with variances and fixed
          effects taken as known (lme4's ``condVar``).

        Units are those of y per unit of the term.

    Notes
    -----
    Source: Robinson (1991), doi:10.1214/ss/1177011926.

    Examples
    --------
    >>> from helpers import datasets, mixed
    >>> sleep = datasets.load("sleepstudy")
    >>> result = mixed.fit("reaction ~ days", sleep, groups="subject", re_formula="~days")
    >>> mixed.group_coefficients(result).head(2).round(2)
      group       term   fixed  blup  estimate     sd
    0   308  Intercept  251.41  2.26    253.66  12.07
    1   308       days   10.47  9.20     19.67   2.30
    """
    result = result_of(fit)
    names, terms = list(result.model.exog_names), result.random_terms
    n_groups = len(result.group_labels)
    fixed = [result.fe_params[names.index(t)] if t in names else 0.0 for t in terms]
    table = pd.DataFrame(
        {
            "group": np.repeat(result.group_labels, len(terms)),
            "term": terms * n_groups,
            "fixed": fixed * n_groups,
            "blup": result.optimum.random_effects.ravel(),
        }
    )
    table["estimate"] = table["fixed"] + table["blup"]
    variances = np.diagonal(result.optimum.random_effects_cov, axis1=1, axis2=2)
    table["sd"] = np.sqrt(variances).ravel()
    return table


def icc(fit, at=None):
    """Share of the variance that lies between groups (intraclass correlation).

    Parameters
    ----------
    fit : MixedFit
        What `fit` returned.
    at : dict or pandas.DataFrame, optional
        Values of the predictors in ``re_formula``, ``{"app_hours": [1, 5, 10]}``. Needed when
        slopes vary: groups then differ more at some values than at others.

    Returns
    -------
    pandas.DataFrame
        A row for each value: the predictors, ``group_variance`` z C zᵀ, ``residual_variance`` σ²,
        ``total_variance`` (all in squared units of y) and ``icc``, the ratio of the first to the
        third: also the correlation of two rows of one group, both at that value.

    Notes
    -----
    Source: Goldstein, Browne & Rasbash (2002), doi:10.1207/S15328031US0104_02.

    Examples
    --------
    >>> from helpers import datasets, mixed
    >>> mixed.icc(mixed.fit("mathach ~ 1", datasets.load("hsb"), groups="school")).round(3)
       group_variance  residual_variance  total_variance   icc
    0           8.614             39.148          47.762  0.18
    """
    result = result_of(fit)
    columns = sorted(result.random_columns)
    if columns and at is None:
        example = ", ".join(f"{name!r}: […]" for name in columns)
        raise ValueError(
            f"at: the ICC depends on {' and '.join(columns)} when slopes vary; "
            f"say for which values, as icc(fit, at={{{example}}})"
        )
    if not columns:
        table, Z = pd.DataFrame(index=[0]), np.ones((1, 1))
    else:
        if not isinstance(at, pd.DataFrame):
            at = pd.DataFrame({name: np.atleast_1d(values) for name, values in dict(at).items()})
        Z = new_design(result.random_design, at, result.random_columns, "at")
        table = at[columns].reset_index(drop=True)
    table["group_variance"] = np.sum((Z @ result.root) ** 2, axis=1)
    table["residual_variance"] = result.scale
    table["total_variance"] = table["group_variance"] + table["residual_variance"]
    table["icc"] = table["group_variance"] / table["total_variance"]
    return table


def r_squared(fit):
    """Variance explained by the fixed effects, and by fixed and random effects together.

    Parameters
    ----------
    fit : MixedFit
        What `fit` returned.

    Returns
    -------
    pandas.DataFrame
        One row: ``marginal`` (fixed effects), ``conditional`` (with the groups' deviations), and
        the three variances they are made of, in squared units of y: ``fixed`` (of the predictions
        Xβ), ``random`` (z C zᵀ, averaged over the rows), ``residual`` (σ²).

    Notes
    -----
    Sources: Nakagawa & Schielzeth (2013), doi:10.1111/j.2041-210x.2012.00261.x; for varying slopes
    Johnson (2014), doi:10.1111/2041-210X.12225.

    Examples
    --------
    >>> from helpers import datasets, mixed
    >>> sleep = datasets.load("sleepstudy")
    >>> result = mixed.fit("reaction ~ days", sleep, groups="subject", re_formula="~days")
    >>> mixed.r_squared(result)[["marginal", "conditional"]].round(3)
       marginal  conditional
    0     0.279        0.799
    """
    result = result_of(fit)
    Z = result.model.exog_re
    fixed = np.var(result.model.exog @ result.fe_params, ddof=1)
    random = np.sum((Z @ result.root) ** 2) / len(Z)
    total = fixed + random + result.scale
    return pd.DataFrame(
        {
            "marginal": [fixed / total],
            "conditional": [(fixed + random) / total],
            "fixed": [fixed],
            "random": [random],
            "residual": [result.scale],
        }
    )
