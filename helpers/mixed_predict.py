"""Predictions from a mixed model, for the average, for known groups and for new ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from helpers.mixed_fit import check_columns, check_share, listed, new_design, result_of


def predict(fit, data, *, target="population", interval="confidence", coverage=0.95, groups=None):
    """Predict for new rows, with intervals.

    Parameters
    ----------
    fit : MixedFit
        What `fit` returned.
    data : pandas.DataFrame
        The predictors, a row for each prediction; the response is not needed. Transformations in
        the formula, ``center(x)`` say, are those learnt from the data of the fit.
    target : {"population", "group", "new group"}
        Whose line: the average one; that of the row's own group, which must have been in the fit;
        or that of a group not seen before (the mean is that of the population, the interval is
        not).
    interval : {"confidence", "prediction", None}
        For the line itself, or for one new observation about it. There is no prediction interval
        for the population: an observation is always in some group.
    coverage : float, default 0.95
    groups : array, optional
        The rows' groups, for ``target="group"``; by default the column that `fit` was given.

    Returns
    -------
    pandas.DataFrame
        With the index of ``data``: ``mean``; with an interval also ``se``, ``lower`` and ``upper``;
        all in units of y.

    Notes
    -----
    Normal intervals with the variances taken as known, so a little too short when groups are few.
    For a known group the errors of fixed effects and deviation are taken jointly, from Henderson's
    mixed-model equations. For a singular fit the deviations carry no error in the directions where
    their variance is estimated as zero.

    Source: Henderson (1975), doi:10.2307/2529430.

    Examples
    --------
    >>> from helpers import datasets, mixed
    >>> sleep = datasets.load("sleepstudy")
    >>> result = mixed.fit("reaction ~ days", sleep, groups="subject", re_formula="~days")
    >>> day_5 = sleep.query("subject == '308' and days == 5")[["subject", "days"]]
    >>> mixed.predict(result, day_5, target="group", interval="prediction").round(1)
        mean    se  lower  upper
    5  352.0  26.8  299.4  404.6
    """
    result = result_of(fit)
    _check_predict(data, target, interval, coverage)
    spec = getattr(result.model.data, "model_spec", None) or result.model.data.design_info
    X = new_design(spec, data, result.fixed_columns, "data")
    mean = X @ result.fe_params
    variance, Z = 0.0, None
    if target != "population":
        Z = new_design(result.random_design, data, result.random_columns, "data")
    if target == "group":
        group = _group_numbers(result, data, groups)
        mean = mean + np.sum(Z * result.optimum.random_effects[group], axis=1)
        variance = np.einsum("nq,nqr,nr->n", Z, result.optimum.random_effects_cov[group], Z)
        # Where β̂ is off, b̂ takes some of it back: the error of xβ̂ + zb̂ is less than that of xβ̂.
        X = X - np.einsum("nq,nqp->np", Z, result.optimum.taken_back[group])
    elif target == "new group":
        variance = np.sum((Z @ result.root) ** 2, axis=1)
    table = pd.DataFrame({"mean": mean}, index=data.index)
    if interval is None:
        return table
    variance = variance + np.einsum("np,pr,nr->n", X, result.optimum.cov_beta, X)
    table["se"] = np.sqrt(variance + (result.scale if interval == "prediction" else 0.0))
    reach = stats.norm.ppf((1 + coverage) / 2) * table["se"]
    return table.assign(lower=mean - reach, upper=mean + reach)


def _check_predict(data, target, interval, coverage):
    if not isinstance(data, pd.DataFrame):
        raise TypeError(f"data is a {type(data).__name__}; give a pandas DataFrame")
    if target not in ("population", "group", "new group"):
        raise ValueError(f"target={target!r}: give 'population', 'group' or 'new group'")
    if interval not in ("confidence", "prediction", None):
        raise ValueError(f"interval={interval!r}: give 'confidence', 'prediction' or None")
    check_share("coverage", coverage)
    if target == "population" and interval == "prediction":
        raise ValueError(
            "interval='prediction' needs a group: an observation is always in some group; "
            "give target='new group', or target='group' for the groups of the fit"
        )


def _group_numbers(result, data, groups):
    """The number of each new row's group among those of the fit."""
    if groups is None:
        if result.group_column is None:
            raise ValueError("groups: the fit was given labels, not a column; give them here too")
        check_columns([result.group_column], data, "data")
        groups = data[result.group_column]
    if len(groups) != len(data):
        raise ValueError(f"groups has {len(groups)} labels for {len(data)} rows of data")
    numbers = pd.Index(result.group_labels).get_indexer(np.asarray(groups))
    unknown = np.asarray(groups, dtype=object)[numbers < 0]
    if len(unknown):
        raise ValueError(
            f"groups: not among those of the fit: {listed(dict.fromkeys(unknown))}; "
            "for groups not seen before give target='new group'"
        )
    return numbers
