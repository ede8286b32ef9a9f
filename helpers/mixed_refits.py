"""What takes many fits: comparison of two models, parametric bootstrap."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pandas as pd
from scipy import stats

from helpers import reml
from helpers.mixed_fit import check_share, result_of
from helpers.progress import bar as progress_bar

MOST_CELLS = 4_000_000  # replicates × rows simulated at once, so that memory stays bounded


def compare(small, large, *, n_boot=0, seed=None, progress=True):
    """Compare a model with a larger one that contains it.

    Parameters
    ----------
    small, large : MixedFit
        Fits to the same rows by the same method, the fixed and random effects of the first among
        those of the second. REML fits must have the same fixed effects.
    n_boot : int, default 0
        Number of data sets to simulate from ``small`` and refit both ways, for a p-value that needs
        no theory. 1,000 give a p-value of 0.05 to within ± 0.014.
    seed : int, needed with ``n_boot``
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        A row for each model. ``parameters`` (variances and σ² included), ``log_likelihood``,
        ``aic`` and ``bic`` are by maximum likelihood, refitted where needed, with the number of
        rows in BIC. The second row has the test: ``statistic``, twice the difference of the
        (restricted) log-likelihoods, ``df``, and up to three p-values:

        - ``p_naive``: χ² with ``df``;
        - ``p_mixture``: when ``large`` has one more random effect, half χ² with df − 1 and half χ²
          with df, for the variance of zero is at the edge of what is possible, and ``p_naive`` is
          too large; else nan;
        - ``p_bootstrap``: the share of simulated statistics that reach the observed one, itself
          counted in; nan with ``n_boot=0``. The simulated ones are in ``.attrs["simulated"]``.

    Raises
    ------
    ValueError
        If the fits cannot be compared, with what to do instead.

    Notes
    -----
    Sources: Self & Liang (1987), doi:10.1080/01621459.1987.10478472; Stram & Lee (1994),
    doi:10.2307/2533455.

    Examples
    --------
    >>> from helpers import datasets, mixed
    >>> sleep = datasets.load("sleepstudy")
    >>> small = mixed.fit("reaction ~ days", sleep, "subject", reml=False)
    >>> large = mixed.fit("reaction ~ days", sleep, "subject", "~days", reml=False)
    >>> mixed.compare(small, large)[["parameters", "aic", "statistic", "df"]].round(3)
           parameters       aic  statistic   df
    small           4  1802.079        NaN  NaN
    large           6  1763.939     42.139  2.0
    """
    small, large = result_of(small), result_of(large)
    _check_comparable(small, large)
    if n_boot and seed is None:
        raise ValueError("seed: simulation needs one, so that it can be repeated; give seed=1, say")
    table = pd.DataFrame([_by_ml(small), _by_ml(large)], index=["small", "large"])
    df = int(table["parameters"].diff().iloc[1])
    statistic = max(small.criterion - large.criterion, 0.0)
    p_naive = stats.chi2.sf(statistic, df)
    one_more = large.k_re - small.k_re == 1
    p_mixture = (p_naive + stats.chi2.sf(statistic, df - 1)) / 2 if one_more else np.nan
    p_bootstrap = np.nan
    if n_boot:
        simulated = _simulated_statistics(small, large, n_boot, seed, progress)
        # Fits are exact to about 1e-6, so that a difference below is none.
        p_bootstrap = (1 + np.sum(simulated >= statistic - 1e-6)) / (n_boot + 1)
        table.attrs["simulated"] = simulated.tolist()
    test = [statistic, df, p_naive, p_mixture, p_bootstrap]
    for name, value in zip(
        ["statistic", "df", "p_naive", "p_mixture", "p_bootstrap"], test, strict=True
    ):
        table[name] = [np.nan, value]
    return table


def _check_comparable(small, large):
    """Raise unless ``small`` is nested in ``large`` and their likelihoods can be compared."""
    if small.reml != large.reml:
        raise ValueError("one fit is by REML and one by ML; fit both with reml=False")
    if not np.array_equal(small.model.endog, large.model.endog):
        raise ValueError(
            "the fits are not to the same rows of the same response; drop rows with missing values "
            "from the data before both fits"
        )
    if not np.array_equal(small.group_index, large.group_index):
        raise ValueError("the fits have different groups; use the same groups in both")
    pairs = {
        "fixed": (small.model.exog, large.model.exog),
        "random": (small.model.exog_re, large.model.exog_re),
    }
    inside = {part: _spans(big, little) for part, (little, big) in pairs.items()}
    wider = {part: big.shape[1] > little.shape[1] for part, (little, big) in pairs.items()}
    if not all(inside.values()):
        if all(_spans(little, big) for little, big in pairs.values()):
            raise ValueError("the first fit is the larger one; give the smaller one first")
        part = next(part for part in pairs if not inside[part])
        raise ValueError(
            f"the models are not nested: the first has {part} effects that the second lacks; "
            "add them to the second, or compare AIC alone"
        )
    if not any(wider.values()):
        raise ValueError("the two models are the same; there is nothing to compare")
    if small.reml and (wider["fixed"] or not np.allclose(*pairs["fixed"])):
        raise ValueError(
            "REML fits with different fixed effects can't be compared, for each leaves out "
            "its own fixed effects; fit both with reml=False"
        )


def _spans(wide, narrow):
    """Whether every column of ``narrow`` is a combination of the columns of ``wide``."""
    wide = wide / np.linalg.norm(wide, axis=0)
    narrow = narrow / np.linalg.norm(narrow, axis=0)
    left = narrow - wide @ np.linalg.lstsq(wide, narrow, rcond=None)[0]
    return bool(np.all(np.linalg.norm(left, axis=0) < 1e-7))


def _by_ml(result):
    """Number of parameters, log-likelihood, AIC and BIC by maximum likelihood."""
    criterion = result.criterion
    if result.reml:
        model = result.model
        criterion = reml.fit(
            model.endog, model.exog, model.exog_re, result.group_index, reml=False
        ).criterion
    n_parameters = result.k_fe + result.k_re2 + 1
    return {
        "parameters": n_parameters,
        "log_likelihood": -criterion / 2,
        "aic": criterion + 2 * n_parameters,
        "bic": criterion + np.log(result.nobs) * n_parameters,
    }


def _simulated_statistics(small, large, n, seed, show):
    """Likelihood-ratio statistics of data sets simulated from ``small``, (n,)."""
    parts = []
    for Y, report in _simulations(small, n, seed, show, "Refitting both models", fits=2):
        first = _refit(small, Y, report(0)).criterion
        parts.append(first - _refit(large, Y, report(1)).criterion)
    return np.maximum(np.concatenate(parts), 0.0)


def _simulations(result, n, seed, show, label, fits=1):
    """Yield responses simulated from a fit, (some replicates, rows), n replicates in all.

    With each comes ``report``: ``report(k)`` makes the progress callback of its k-th refit.
    """
    rng = np.random.default_rng(seed)
    model = result.model
    mean, root = model.exog @ result.fe_params, result.root
    most = max(1, MOST_CELLS // len(mean))
    with progress_bar(n * fits, label) if show else nullcontext() as bar:
        for start in range(0, n, most):
            size = min(most, n - start)
            b = rng.normal(size=(size, len(result.group_labels), len(root))) @ root.T
            errors = rng.normal(0, np.sqrt(result.scale), (size, len(mean)))
            deviations = np.einsum("rnq,nq->rn", b[:, result.group_index], model.exog_re)

            def report(k, before=start, size=size):
                done_before = before * fits + k * size
                return (lambda done, _: bar(done_before + done)) if show else None

            yield mean + deviations + errors, report


def _refit(result, Y, report):
    model = result.model
    return reml.fit_many(
        Y, model.exog, model.exog_re, result.group_index, reml=result.reml, progress=report
    )


def bootstrap(fit, n=1000, *, seed, statistic=None, progress=True):
    """Refit the model to data simulated from it (parametric bootstrap).

    Parameters
    ----------
    fit : MixedFit
        What `fit` returned.
    n : int, default 1000
        Number of data sets.
    seed : int
        Of the simulation.
    statistic : callable, optional
        A function of the parameters: takes a table with the columns below, returns a column (or a
        table, or a dict of columns), which is added.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        A row for each data set: each fixed effect under its name; ``sd(…)``, ``var(…)`` of each
        term that varies and of ``Residual``; ``cor(…, …)``, ``cov(…, …)`` of each two; ``singular``
        (bool). A correlation is nan where an SD is zero. The estimates of ``fit`` itself are in
        ``.attrs["estimate"]``. `interval` makes intervals of it.

    Notes
    -----
    Source: Efron & Tibshirani (1993), doi:10.1201/9780429246593, section 6.5.

    Examples
    --------
    >>> from helpers import datasets, mixed
    >>> sleep = datasets.load("sleepstudy")
    >>> result = mixed.fit("reaction ~ days", sleep, groups="subject", re_formula="~days")
    >>> def after_a_week(t):
    ...     return {"day 7": t["Intercept"] + 7 * t["days"]}
    >>> boot = mixed.bootstrap(result, 500, seed=1, statistic=after_a_week, progress=False)
    >>> mixed.interval(boot).loc["day 7", ["estimate", "lower", "upper"]].round().to_dict()
    {'estimate': 325.0, 'lower': 300.0, 'upper': 346.0}
    """
    result = result_of(fit)
    if n < 1:
        raise ValueError(f"n={n}: give a number of data sets of at least 1")
    parts = []
    for Y, report in _simulations(result, n, seed, progress, "Refitting"):
        fits = _refit(result, Y, report(0))
        parts.append(_parameters(result, fits.beta, fits.cov_re, fits.scale, fits.singular))
    table = pd.concat(parts, ignore_index=True)
    estimate = _parameters(
        result,
        result.fe_params[None],
        result.cov_re[None],
        np.array([result.scale]),
        np.array([result.singular]),
    )
    if statistic is not None:
        table, estimate = _with_statistic(table, statistic), _with_statistic(estimate, statistic)
    estimate = estimate.drop(columns="singular").iloc[0]
    table.attrs["estimate"] = {name: float(value) for name, value in estimate.items()}
    return table


def _parameters(result, beta, cov_re, scale, singular):
    """The replicates of all parameters, named as in `bootstrap`."""
    columns = dict(zip(result.model.exog_names, beta.T, strict=True))
    terms, sd = result.random_terms, np.sqrt(np.diagonal(cov_re, axis1=1, axis2=2))
    for i, j in zip(*np.tril_indices(len(terms)), strict=True):
        if i == j:
            columns[f"sd({terms[i]})"] = sd[:, i]
            columns[f"var({terms[i]})"] = cov_re[:, i, i]
        else:
            size = sd[:, i] * sd[:, j]
            known = np.where(size > 0, size, np.nan)
            columns[f"cor({terms[j]}, {terms[i]})"] = np.clip(cov_re[:, i, j] / known, -1, 1)
            columns[f"cov({terms[j]}, {terms[i]})"] = cov_re[:, i, j]
    columns |= {"sd(Residual)": np.sqrt(scale), "var(Residual)": scale, "singular": singular}
    return pd.DataFrame(columns)


def _with_statistic(table, statistic):
    added = statistic(table)
    if not isinstance(added, (dict, pd.DataFrame)):
        added = {"statistic": np.asarray(added)}
    return table.assign(**{str(name): np.asarray(values) for name, values in dict(added).items()})


def interval(boot, level=0.95):
    """Intervals from a bootstrap.

    Parameters
    ----------
    boot : pandas.DataFrame
        What `bootstrap` returned.
    level : float, default 0.95
        Coverage.

    Returns
    -------
    pandas.DataFrame
        A row for each column of ``boot`` but ``singular``: ``estimate`` (of the fit), ``bias``
        (mean of the replicates less the estimate), ``se`` (their SD), ``lower`` and ``upper``
        (their percentiles), ``n`` (replicates that have a value).

    Notes
    -----
    Percentile intervals take the replicates as they are. That is fair to fixed effects and to σ²;
    variances of few groups are estimated too low now and then (``bias``), and the interval inherits
    it: there the profile interval of `variance_table` is the better one.

    Source: Efron & Tibshirani (1993), doi:10.1201/9780429246593, chapter 13.

    Examples
    --------
    >>> from helpers import mixed
    >>> boot = pd.DataFrame({"x": np.arange(101.0), "singular": False})
    >>> boot.attrs["estimate"] = {"x": 49.0}
    >>> mixed.interval(boot, level=0.9).round(2)
       estimate  bias    se  lower  upper    n
    x      49.0   1.0  29.3    5.0   95.0  101
    """
    check_share("level", level)
    if "estimate" not in boot.attrs:
        raise ValueError("boot: its attrs are gone; give the table as bootstrap returned it")
    values = boot[list(boot.attrs["estimate"])]
    estimate = pd.Series(boot.attrs["estimate"])
    return pd.DataFrame(
        {
            "estimate": estimate,
            "bias": values.mean() - estimate,
            "se": values.std(),
            "lower": values.quantile((1 - level) / 2),
            "upper": values.quantile((1 + level) / 2),
            "n": values.count(),
        }
    )
