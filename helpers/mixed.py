"""Linear mixed models by formula: fits at the exact optimum, and what to do with them.

``fit`` takes the arguments of ``smf.mixedlm`` and returns the result object of statsmodels, with
the estimates of ``reml`` in it. The other functions take such a fit and return a table.

================================  ============================================================
``fit``                           a fit (``mixed_fit.py``)
``variance_table``                variances, SDs, correlations, with standard errors, intervals
``icc``, ``r_squared``            shares of variance
``group_coefficients``            each group's own intercept and slopes (``mixed_variances.py``)
``predict``                       means and intervals for new rows (``mixed_predict.py``)
``compare``                       a smaller against a larger model
``bootstrap``, ``interval``       refits to simulated data and intervals from them
                                  (``mixed_refits.py``)
================================  ============================================================
"""

from helpers.mixed_fit import MissingRowsWarning, MixedFit, SingularFitWarning, fit
from helpers.mixed_predict import predict
from helpers.mixed_refits import bootstrap, compare, interval
from helpers.mixed_variances import group_coefficients, icc, r_squared, variance_table

__all__ = [
    "MissingRowsWarning",
    "MixedFit",
    "SingularFitWarning",
    "bootstrap",
    "compare",
    "fit",
    "group_coefficients",
    "icc",
    "interval",
    "predict",
    "r_squared",
    "variance_table",
]
