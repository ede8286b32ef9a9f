"""Linear mixed models: fits by formula, and what to do with them."""

import warnings

import numpy as np
import statsmodels.formula.api as smf


def fit(formula, data, groups, re_formula=None, *, reml=True):
    """Fit a linear mixed model by formula, with the arguments of ``smf.mixedlm``."""
    model = smf.mixedlm(formula, data, groups=groups, re_formula=re_formula, eval_env=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = model.fit(reml=reml)
    eigenvalues = np.linalg.eigvalsh(np.asarray(result.cov_re))
    result._results.singular = bool(eigenvalues[0] < 1e-8 * eigenvalues[-1])
    result._results.criterion = -2.0 * result.llf
    result._results.n_dropped = 0
    return result
