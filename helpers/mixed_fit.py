"""Fits of linear mixed models by formula: statsmodels' results at the optimum of ``reml``."""

from __future__ import annotations

import ast
import builtins
import difflib
import re
import warnings
from functools import cached_property

import numpy as np
import pandas as pd
import patsy
from statsmodels.regression import mixed_linear_model as statsmodels_mixed

from helpers import likelihood, reml


class SingularFitWarning(UserWarning):
    """The best fit has a variance of zero or a correlation of ±1."""


class MissingRowsWarning(UserWarning):
    """Rows with missing values were left out."""


def fit(formula, data, groups, re_formula=None, *, reml=True):
    """Fit a linear mixed model; the arguments are those of ``smf.mixedlm``.

    Parameters
    ----------
    formula : str
        Response and fixed effects, ``"math_score ~ app_hours"``. Transformations such as
        ``np.log(x)``, ``I(x**2)``, ``center(x)``, ``C(x)`` and variables of the calling code work.
    data : pandas.DataFrame
        One row an observation.
    groups : str or array of length ``len(data)``
        The column that says which group a row is in, or the labels themselves.
    re_formula : str, optional
        What varies from group to group: ``"~app_hours"`` for intercepts and slopes. By default
        intercepts only.
    reml : bool, default True
        Restricted maximum likelihood; False for maximum likelihood.

    Returns
    -------
    MixedFit
        A ``MixedLMResults`` of statsmodels, in its usual wrapper. Beyond that it has ``singular``
        (bool), ``criterion`` (−2 log-likelihood), ``n_dropped`` (rows left out), ``group_labels``.

    Warns
    -----
    MissingRowsWarning
        Once, with the count, if a formula variable or the group is missing in some rows.
    SingularFitWarning
        Once, if the optimum is on the boundary.

    Raises
    ------
    TypeError, ValueError
        In plain words, if a column is unknown, or if the model cannot be estimated from the data.

    Notes
    -----
    Where statsmodels reaches the optimum, the estimates are the same. Two things in the result
    differ on purpose: the standard errors of variances (``bse_re``, ``summary()``) are those of
    `variance_table`, empty for a singular fit; those of fixed effects treat the variances as known,
    as lme4 and SAS do.

    Source: Bates, Mächler, Bolker & Walker (2015), doi:10.18637/jss.v067.i01.

    Examples
    --------
    >>> from helpers import datasets, mixed
    >>> sleep = datasets.load("sleepstudy")
    >>> result = mixed.fit("reaction ~ days", sleep, groups="subject", re_formula="~days")
    >>> result.fe_params.round(3).to_dict()
    {'Intercept': 251.405, 'days': 10.467}
    >>> result.converged, result.singular, round(result.criterion, 3)
    (True, False, 1743.628)
    """
    environment = patsy.EvalEnvironment.capture(1)
    re_formula = _checked_formulas(formula, re_formula)
    labels, column = _group_labels(data, groups)
    try:
        used = _names_in_formulas(formula, re_formula)
        _check_names(used, data, environment)
        data, labels, n_dropped = _complete_rows(data, labels, used)
        design = patsy.dmatrix(re_formula, data, environment, "raise", "dataframe")
        _check_numbers(formula, data, design)
        with warnings.catch_warnings():
            # statsmodels counts frames differently for its two formulas, so it gets the frame
            # itself, which 0.15 announces to replace by a dict that 0.14 does not know.
            warnings.simplefilter("ignore", FutureWarning)
            model = statsmodels_mixed.MixedLM.from_formula(
                formula, data, re_formula, groups=column or labels, eval_env=environment
            )
    except patsy.PatsyError as error:
        raise ValueError(_in_plain_words(error)) from error
    result = _at_optimum(model, labels, reml)
    result.n_dropped, result.group_column, result.re_formula = n_dropped, column, re_formula
    result.random_design, result.random_terms = design.design_info, list(design.columns)
    result.fixed_columns, result.random_columns = (
        used[side] & set(data.columns) for side in ("fixed", "random")
    )
    if result.singular:
        warnings.warn(_singular_message(result), SingularFitWarning, stacklevel=2)
    return statsmodels_mixed.MixedLMResultsWrapper(result)


class MixedFit(statsmodels_mixed.MixedLMResults):
    """statsmodels' results at the exact optimum, singular fits included."""

    @cached_property
    def llf(self):
        return -self.criterion / 2

    @cached_property
    def random_effects(self):
        names = self.model.data.exog_re_names
        values = self.optimum.random_effects
        return {
            label: pd.Series(b, index=names)
            for label, b in zip(self.group_labels, values, strict=True)
        }

    @cached_property
    def random_effects_cov(self):
        names = self.model.data.exog_re_names
        values = self.optimum.random_effects_cov
        return {
            label: pd.DataFrame(cov, index=names, columns=names)
            for label, cov in zip(self.group_labels, values, strict=True)
        }

    @cached_property
    def fittedvalues(self):
        b = self.optimum.random_effects[self.group_index]
        return self.model.exog @ self.fe_params + np.sum(self.model.exog_re * b, axis=1)

    @cached_property
    def bse(self):
        bse = np.sqrt(np.diag(self.cov_params()))
        if self.singular:
            bse[self.k_fe :] = np.nan
        return bse

    @cached_property
    def bse_re(self):
        """Standard errors of the entries of ``cov_re``; nan for a singular fit."""
        return np.sqrt(np.diag(self.variance_cov))[:-1]

    def summary(self, *args, **kwargs):
        """As statsmodels', with the standard errors of ``bse_re``; see `fit`."""
        summary = super().summary(*args, **kwargs)
        errors = ["" if np.isnan(se) else f"{se:.3f}" for se in np.asarray(self.bse_re)]
        summary.tables[1].iloc[self.k_fe :, 1] = errors
        if self.singular:
            summary.add_text("Singular fit: variances at their boundary have no standard error.")
        return summary

    def __getstate__(self):
        # patsy's designs can't be pickled; statsmodels rebuilds its own, and so does this.
        return {name: value for name, value in vars(self).items() if name != "random_design"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        frame = self.model.data.frame
        self.random_design = patsy.dmatrix(self.re_formula, frame).design_info


def _at_optimum(model, labels, use_reml):
    """The result object of statsmodels, filled in with the optimum that `reml` finds."""
    group_index, group_labels = pd.factorize(labels, sort=True)
    try:
        optimum = reml.fit(model.endog, model.exog, model.exog_re, group_index, reml=use_reml)
    except ValueError as error:
        raise ValueError(_in_terms_of_formula(str(error), model)) from error
    model.reml, model.cov_pen, model.fe_pen, model._freepat = use_reml, None, None, None
    model._cov_sing = 0
    unscaled = optimum.cov_re / optimum.scale
    params = statsmodels_mixed.MixedLMParams.from_components(optimum.beta, unscaled)
    variance_cov = _variance_cov(optimum)
    result = MixedFit(
        model,
        params.get_packed(use_sqrt=False, has_fe=True),
        _cov_params(optimum, variance_cov) / optimum.scale,
    )
    vars(result).update(
        params_object=params,
        fe_params=optimum.beta,
        cov_re=optimum.cov_re,
        cov_re_unscaled=unscaled,
        vcomp=np.empty(0),
        scale=optimum.scale,
        method="REML" if use_reml else "ML",
        converged=optimum.converged,
        hist=None,
        reml=use_reml,
        cov_pen=None,
        fe_pen=None,
        k_fe=model.k_fe,
        k_re=model.k_re,
        k_re2=model.k_re2,
        k_vc=0,
        use_sqrt=model.use_sqrt,
        freepat=None,
        optimum=optimum,
        singular=optimum.singular,
        criterion=optimum.criterion,
        group_labels=group_labels,
        group_index=group_index,
        root=_root(optimum),
        variance_cov=variance_cov,
    )
    return result


def _root(optimum):
    """A root of C, (q, q): fewer digits are lost with it than with C when Z is badly scaled."""
    q = len(optimum.cov_re)
    root = np.zeros((q, q))
    columns, rows = np.triu_indices(q)
    root[rows, columns] = optimum.theta
    return root * np.sqrt(optimum.scale)


def _variance_cov(optimum):
    """Covariance of the estimates of (vech C, σ²); nan at the boundary, where there is none."""
    if optimum.singular:
        return np.full((len(optimum.theta) + 1,) * 2, np.nan)
    return likelihood.information(optimum)


def _cov_params(optimum, variance_cov):
    """Covariance of statsmodels' ``params``: β, then vech C / σ² (zeros for a singular fit)."""
    p, size = len(optimum.beta), len(variance_cov) - 1
    cov = np.zeros((p + size, p + size))
    cov[:p, :p] = optimum.cov_beta
    if not optimum.singular:
        vech = optimum.cov_re[np.tril_indices(len(optimum.cov_re))]
        jacobian = np.column_stack([np.eye(size), -vech / optimum.scale]) / optimum.scale
        cov[p:, p:] = jacobian @ variance_cov @ jacobian.T
    return cov


def _singular_message(result):
    """What is at its boundary, in words."""
    sd = np.sqrt(np.diag(result.cov_re))
    size = sd * np.sqrt(np.mean(result.model.exog_re**2, axis=0) / result.scale)
    zero = [name for name, s in zip(result.random_terms, size, strict=True) if s < 1e-3]
    if zero:
        what = "the estimated variance of " + " and of ".join(zero) + " is zero"
    elif len(sd) == 2:
        correlation = result.cov_re[1, 0] / (sd[0] * sd[1])
        what = f"the estimated correlation of {' and '.join(result.random_terms)} is "
        what += f"{correlation:.0f}"
    else:
        what = "the random effects are perfectly correlated with each other"
    return (
        f"singular fit: {what}, the edge of what is possible. The data hold too little "
        "information about how groups differ; read variances and correlations with caution, and "
        "do not take the edge for a finding."
    )


def _in_terms_of_formula(message, model):
    """An error of the engine, with the names of the formula for its X, Z and column numbers."""
    names = {"X": model.exog_names, "Z": model.data.exog_re_names}
    message = re.sub(
        r"\b([XZ])( is rank-deficient:) column (\d+)",
        lambda found: f"{found[1]}{found[2]} {names[found[1]][int(found[3])]!r}",
        message,
    )
    message = re.sub(r"\bX\b", "formula (fixed effects)", message)
    message = re.sub(r"\bZ\b", "re_formula (random effects)", message)
    return re.sub(r"\by\b", repr(model.endog_names), message)


# -------------------------------------------------------------------------- formulas and rows


def _checked_formulas(formula, re_formula):
    """re_formula, by default ``~1``, after a check of what is often mistaken in the two."""
    if not isinstance(formula, str) or not formula.partition("~")[0].strip() or "~" not in formula:
        raise ValueError(f"formula={formula!r}: write 'response ~ predictors', as 'score ~ hours'")
    if "|" in formula:
        raise ValueError(
            f"formula={formula!r}: there is no '|' here; what varies by group goes in re_formula, "
            "as fit('score ~ hours', data, groups='school', re_formula='~hours')"
        )
    if re_formula is None or str(re_formula).strip() == "1":
        return "~1"
    if not str(re_formula).strip().startswith("~"):
        raise ValueError(f"re_formula={re_formula!r}: begin with '~', as '~hours'")
    return re_formula


def _group_labels(data, groups):
    """The label of each row, and the name of the column they come from, if they do."""
    if not isinstance(data, pd.DataFrame):
        raise TypeError(f"data is a {type(data).__name__}; give a pandas DataFrame")
    if isinstance(groups, str):
        check_columns([groups], data, "groups")
        return data[groups], groups
    if isinstance(groups, pd.Series) and not groups.index.equals(data.index):
        raise ValueError(
            "groups: its index is not that of data, so that rows could be paired wrongly; "
            "give the name of a column, or groups.to_numpy() if the rows are in the same order"
        )
    if np.shape(groups) != (len(data),):
        raise ValueError(
            f"groups has shape {np.shape(groups)}; give the name of a column, or one label for "
            f"each of the {len(data)} rows of data"
        )
    return pd.Series(np.asarray(groups), index=data.index), None


def _names_in_formulas(formula, re_formula):
    """The names in the response, the fixed and the random effects, a set for each."""
    fixed, random = patsy.ModelDesc.from_formula(formula), patsy.ModelDesc.from_formula(re_formula)
    return {
        "response": _names_in(fixed.lhs_termlist),
        "fixed": _names_in(fixed.rhs_termlist),
        "random": _names_in(random.rhs_termlist),
    }


def _names_in(terms):
    """Every variable in the terms of a formula, quoted ones as in ``Q("a column")`` included."""
    names = set()
    for factor in {factor for term in terms for factor in term.factors}:
        for node in ast.walk(ast.parse(factor.code, mode="eval")):
            if isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Q":
                names.add(node.args[0].value)
    return names


def _closest(name, known):
    """A hint at the known name that is most like this one."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {listed(known)}"


def listed(names, most=12):
    names = [repr(name) for name in names]
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def check_columns(names, data, argument):
    for name in names:
        if name not in data.columns:
            raise ValueError(f"{argument}: no column {name!r}{_closest(name, data.columns)}")


def _check_names(used, data, environment):
    """Raise if a formula holds a name that is neither a column nor known to the calling code."""
    for name in sorted(set().union(*used.values()) - set(data.columns)):
        if not (
            name in environment.namespace
            or hasattr(patsy.builtins, name)
            or hasattr(builtins, name)
        ):
            check_columns([name], data, "formula")


def _complete_rows(data, labels, used):
    """Data and labels without the rows where a formula variable or the label is missing."""
    names = set().union(*used.values())
    columns = [name for name in data.columns if name in names]
    complete = (data[columns].notna().all(axis=1) & labels.notna()).to_numpy()
    n_dropped = len(data) - int(complete.sum())
    if n_dropped == len(data):
        raise ValueError(f"data has no complete row: {n_dropped} of {len(data)} miss a value")
    if n_dropped:
        warnings.warn(
            f"{n_dropped} of {len(data)} rows have missing values and were left out",
            MissingRowsWarning,
            stacklevel=3,
        )
        data, labels = data[complete], labels[complete]
    return data, labels.to_numpy(), n_dropped


def _check_numbers(formula, data, design):
    """Raise for a response of text, and for random effects without a column."""
    response = formula.partition("~")[0].strip()
    if response in data.columns and (
        data[response].dtype == bool or not pd.api.types.is_numeric_dtype(data[response])
    ):
        raise ValueError(f"formula: the response {response!r} is {data[response].dtype}, no number")
    if design.shape[1] == 0:
        raise ValueError("re_formula has no term; '~1' lets intercepts vary, '~x' slopes too")


def _in_plain_words(error):
    """A message of patsy, which points at the place in the formula, with the likely mend."""
    message = f"formula: {error}"
    if "missing values" in error.message:
        message += (
            "\nThe columns have none there, so the transformation made them (the logarithm of a "
            "negative number?)."
        )
    return message


# ------------------------------------------------------------------ for the other modules


def result_of(fit):
    """The `MixedFit` inside the wrapper of statsmodels."""
    result = getattr(fit, "_results", fit)
    if not isinstance(result, MixedFit):
        raise TypeError(f"fit is a {type(fit).__name__}; give what mixed.fit returns")
    return result


def check_share(name, value):
    if not 0 < value < 1:
        raise ValueError(f"{name}={value!r}: give a share between 0 and 1, such as 0.95")


def new_design(spec, data, columns, argument):
    """The design matrix of new rows; a missing value makes its row nan."""
    check_columns(sorted(columns), data, argument)
    try:
        # A formula of constants needs to be told the number of rows.
        frame = data if columns else pd.DataFrame(index=data.index)
        keep = patsy.NAAction(NA_types=[])
        matrix = patsy.build_design_matrices([spec], frame, NA_action=keep)[0]
    except patsy.PatsyError as error:
        raise ValueError(f"{argument}: {error.message}") from error
    return np.broadcast_to(np.asarray(matrix), (len(data), matrix.shape[1]))
