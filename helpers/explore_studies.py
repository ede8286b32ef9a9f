"""Studies planned before they are made: thousands drawn and fitted at once, for every setting.

What they look like is in ``explore_power``.
"""

import numpy as np
from scipy import special, stats


def planned_hours(n):
    """Hours of n students planned evenly between 1 and 10: the middles of n equal parts.

    Examples
    --------
    >>> planned_hours(3)
    array([2.5, 5.5, 8.5])
    """
    return 1 + 9 * (np.arange(n) + 0.5) / n


def planned_covariance(between, within, n_schools, n_students):
    """Estimate random slopes by REML in closed form, where every school has the same hours.

    The intercepts (at the mean of the hours) and slopes of the schools' own regressions, each in
    units of what its sampling SD would be for σ = 1, then say all there is to say of the random
    effects. Their covariance matrix is estimated by σ² I plus something with no negative
    eigenvalue, so the REML estimate has its own eigenvectors, and its eigenvalues are those of the
    sample, pooled with the residual variance where they are smaller. (It is probabilistic
    principal components, with as many components as the data can bear.)

    Parameters
    ----------
    between : tuple of three numpy.ndarray
        Variance of the scaled intercepts, their covariance with the scaled slopes, variance of
        those: with J − 1 in the denominator, of any one shape.
    within : numpy.ndarray
        Pooled residual variance of the schools' regressions.
    n_schools, n_students : int or numpy.ndarray
        At least 2 schools of at least 3 students.

    Returns
    -------
    estimated : tuple of three numpy.ndarray
        As `between`: the estimates, sampling included.
    residual : numpy.ndarray
        Estimated σ².
    rank : numpy.ndarray of int
        Directions in which schools are found to vary. 2 is an inside fit; 1 (a correlation of
        ±1) and 0 (no variance at all) are singular.

    Notes
    -----
    Closed form: Tipping & Bishop (1999), doi:10.1111/1467-9868.00196.
    """
    var_0, cov, var_1 = between
    schools, inside = n_schools - 1, n_schools * (n_students - 2)
    middle, radius = (var_0 + var_1) / 2, np.hypot((var_0 - var_1) / 2, cov)
    high, low = middle + radius, middle - radius
    one = (inside * within + schools * low) / (inside + schools)
    both = (inside * within + 2 * schools * middle) / (inside + 2 * schools)
    rank = np.where(low >= within, 2, np.where(high >= one, 1, 0))
    residual = np.choose(rank, [both, one, within])
    first, second = np.maximum(high, residual), np.maximum(low, residual)
    centre, stretch = (first + second) / 2, (first - second) / (2 * radius)
    # Cosine and sine of twice the angle of the first eigenvector, times the radius
    along, across = (var_0 - var_1) / 2, cov
    estimated = (centre + stretch * along, stretch * across, centre - stretch * along)
    return estimated, residual, rank


def planned_fits(between, within, n_schools, n_students):
    """Fit random slopes where every school has the same hours, and test the slopes' variance.

    Parameters
    ----------
    between, within, n_schools, n_students
        As for `planned_covariance`.

    Returns
    -------
    variance : numpy.ndarray
        Estimated variance of the scaled slopes, sampling included.
    residual : numpy.ndarray
        Estimated σ².
    ratio : numpy.ndarray
        Likelihood ratio (−2 log, REML) to the model with a random intercept alone.
    """
    var_0, _, var_1 = between
    schools, inside = n_schools - 1, n_schools * (n_students - 2)
    estimated, residual, _ = planned_covariance(between, within, n_schools, n_students)

    # Without a random slope, the scaled slopes are as good as residuals.
    alone = (inside * within + schools * var_1) / (inside + schools)
    both = (inside * within + schools * (var_0 + var_1)) / (inside + 2 * schools)
    alone = np.where(var_0 >= alone, alone, both)
    determinant = estimated[0] * estimated[2] - estimated[1] ** 2
    gain = np.log(np.maximum(var_0, alone)) + np.log(alone) - np.log(determinant)
    ratio = schools * gain + inside * (np.log(alone) - np.log(residual))
    return estimated[2], residual, np.maximum(ratio, 0)


class PlannedStudies:
    """Thousands of studies at once, for schools that all have the same `planned_hours`.

    A study is drawn as the statistics that REML needs (`planned_fits`), not student by student:
    that takes a microsecond. All designs use the same random numbers, so that what differs between
    two of them is due to the designs. What `power.power` offers beyond this: hours of any kind,
    schools that differ in size, other values of the three attributes.

    Parameters
    ----------
    n_studies : int
    most_schools : int
        Largest number of schools that will be asked for.
    seed : int
    """

    sd_intercept, correlation, sd_residual = 4.0, 0.3, 5.0
    least_ratio = 5.138  # 5 % of half χ² with 1 and half with 2 degrees of freedom lie above

    def __init__(self, n_studies=1000, *, most_schools=100, seed):
        rng = np.random.default_rng(seed)
        self.n_studies = n_studies
        self._mean = rng.standard_normal(n_studies)
        self._share = rng.uniform(size=n_studies)
        a, b = rng.standard_normal((2, most_schools - 1, n_studies))
        # Row k is the scatter of k + 2 schools: one more school adds to the others.
        self._scatter = np.cumsum([a * a, a * b, b * b], axis=1)

    def _scales(self, n_students, sd_slope, correlation=None):
        """Covariance of what schools' own lines estimate, mean of hours and their squared sum."""
        hours = planned_hours(n_students)
        middle, squares = hours.mean(), ((hours - hours.mean()) ** 2).sum()
        correlation = self.correlation if correlation is None else correlation
        shared = correlation * self.sd_intercept * sd_slope
        # The intercept at the mean of the hours, where it is independent of the slope's error.
        var_0 = self.sd_intercept**2 + 2 * middle * shared + (middle * sd_slope) ** 2
        cov = shared + middle * sd_slope**2
        noise = self.sd_residual**2
        scaled = (
            n_students * var_0 + noise,
            np.sqrt(n_students * squares) * cov,
            squares * sd_slope**2 + noise,
        )
        return scaled, squares

    def formula(self, n_schools, n_students, slope, sd_slope):
        """Power to find the average slope, by the noncentral t distribution."""
        (_, _, variance), squares = self._scales(n_students, sd_slope)
        df, shift = n_schools - 1, slope / np.sqrt(variance / squares / n_schools)
        limit = stats.t.isf(0.025, df)
        return stats.nct.sf(limit, df, shift) + stats.nct.cdf(-limit, df, shift)

    def _draw(self, n_schools, n_students, scales):
        """Statistics of the studies: the arguments of `planned_covariance`."""
        J = n_schools[:, None]
        var_0, cov, var_1 = scales
        a, c = np.sqrt(var_0), cov / np.sqrt(var_0)
        b = np.sqrt(var_1 - c**2)
        s, t, u = self._scatter[:, n_schools - 2] / (J - 1)
        between = (a**2 * s, a * (c * s + b * t), c**2 * s + 2 * b * c * t + b**2 * u)
        df = J * (n_students - 2)
        within = self.sd_residual**2 * special.chdtri(df, self._share) / df
        return between, within, J, n_students

    def simulate(self, n_schools, n_students, slope, sd_slope):
        """Simulate the studies at each number of schools, fit them and sum up.

        Parameters
        ----------
        n_schools : numpy.ndarray of int, shape (points,)
        n_students : int
        slope, sd_slope : float
            Points an hour.

        Returns
        -------
        dict of str to numpy.ndarray, shape (points,)
            ``power_slope``, ``power_sd_slope``, ``half_width`` and ``rmse_sd_slope``, as
            `power.power` has them.
        """
        J = n_schools[:, None]
        scales, squares = self._scales(n_students, sd_slope)
        variance, residual, ratio = planned_fits(*self._draw(n_schools, n_students, scales))
        estimate = slope + self._mean * np.sqrt(scales[2] / squares / J)
        half_width = stats.t.isf(0.025, J - 1) * np.sqrt(variance / squares / J)
        sd = np.sqrt(np.maximum(variance - residual, 0) / squares)
        return {
            "power_slope": (np.abs(estimate) > half_width).mean(axis=1),
            "power_sd_slope": (ratio > self.least_ratio).mean(axis=1),
            "half_width": half_width.mean(axis=1),
            "rmse_sd_slope": np.sqrt(((sd - sd_slope) ** 2).mean(axis=1)),
        }

    def spread(self, n_schools, n_students, sd_slope, correlation):
        """Estimate how schools' lines vary, in every study at each number of schools.

        Parameters
        ----------
        n_schools : numpy.ndarray of int, shape (points,)
        n_students : int
        sd_slope, correlation : float
            The truth: τ₁ (points an hour) and ρ, with zero at 0 hours.

        Returns
        -------
        sd_slope, correlation : numpy.ndarray, shape (points, studies)
            Estimates of both; the correlation is nan where nothing varies.
        rank : numpy.ndarray of int, shape (points, studies)
            Of the estimated covariance matrix: below 2 the fit is singular.
        """
        scales, squares = self._scales(n_students, sd_slope, correlation)
        estimated, residual, rank = planned_covariance(*self._draw(n_schools, n_students, scales))
        middle = planned_hours(n_students).mean()
        var_1 = np.maximum(estimated[2] - residual, 0) / squares
        # From the middle of the hours, where the closed form lives, to 0 hours
        cov_middle = estimated[1] / np.sqrt(n_students * squares)
        cov = cov_middle - middle * var_1
        var_0 = (estimated[0] - residual) / n_students - middle * (cov_middle + cov)
        inside = np.where(rank == 2, var_0 * var_1, 1)
        estimate = np.select([rank == 2, rank == 1], [cov / np.sqrt(inside), np.sign(cov)], np.nan)
        return np.sqrt(var_1), estimate, rank
