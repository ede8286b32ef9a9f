"""Studies planned before they are made: how often they find what is there, how often they fail.

`PlannedStudies` draws and fits thousands at once; `PowerCurve` and `SingularRate` show them. The
widgets around them are in ``explore``.
"""

import numpy as np
from scipy import special, stats

from helpers import plots
from helpers.explore_schools import check_correlation, check_sds


def planned_hours(n):
    """Hours of n students planned evenly between 1 and 10: the middles of n equal parts.

    Examples
    --------
    >>> planned_hours(3)
    array([2.5, 5.5, 8.5])
    """
    return 1 + 9 * (np.arange(n) + 0.5) / n


def check_design(n_schools, n_students, most_schools, most_students):
    """Refuse a study that can't be analysed, or is outside of the picture.

    Raises
    ------
    ValueError
        With the reason, and what to do.
    """
    for name, value, most in (
        ("n_schools", n_schools, most_schools),
        ("n_students", n_students, most_students),
    ):
        if not 1 <= value <= most or value != int(value):
            raise ValueError(f"{name}={value!r}: give a whole number from 1 to {most}.")
    if n_schools == 1:
        raise ValueError(
            "One school can't show how schools differ: there is no spread of slopes to see. "
            "Take two or more."
        )
    if n_students <= 2:
        raise ValueError(
            f"n={n_students:g} in each school: a line through one or two students meets them "
            "exactly, and nothing is left to tell slope from chance. Take three or more."
        )


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


class PowerCurve:
    """Power and precision against the number of schools, for the slope and for its spread.

    Every point stands for 1,000 simulated studies (`PlannedStudies`); the line through the power of
    the slope is the noncentral t distribution.

    Parameters
    ----------
    axes : sequence of two Axes
    """

    panels = 2
    schools = np.array([3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100])
    most_students = 60
    kinds = (
        # what, panel, colour, marker, dashes, label
        ("power_slope", 0, plots.BLUE, "o", "-", "average slope, γ₁"),
        ("power_sd_slope", 0, plots.VERMILLION, "D", "-.", "spread of slopes, τ₁"),
        ("half_width", 1, plots.BLUE, "o", "-", "interval of γ₁, ±"),
        ("rmse_sd_slope", 1, plots.VERMILLION, "D", "-.", "typical error of τ₁"),
    )

    def __init__(self, axes):
        self.studies = PlannedStudies(most_schools=self.schools[-1], seed=13)
        self._guides = [ax.plot([], [], color=plots.GREY, lw=1.2, ls=":")[0] for ax in axes]
        self._lines, self._dots, self._now = {}, {}, {}
        for name, panel, color, marker, dashes, label in self.kinds:
            dot = {"color": color, "marker": marker, "linestyle": "none"}
            self._lines[name] = axes[panel].plot([], [], dashes, color=color, linewidth=1.8)[0]
            self._dots[name] = axes[panel].plot([], [], markersize=4, **dot)[0]
            # Where both find nearly all, the circle lies on the diamond, whose corners still show.
            big = dot | {"markersize": 11, "mec": "white", "zorder": 4 if marker == "o" else 3}
            self._now[name] = axes[panel].plot([], [], **big)[0]
            axes[panel].plot([], [], dashes, color=color, marker=marker, ms=5, label=label)
        self._frame(axes[0], "Power", "Studies that find it", 1.04, "lower right")
        self._frame(axes[1], "Precision", "Points an hour", 1.3, "upper right")
        axes[0].axhline(0.8, color=plots.PALE, linewidth=1.2, zorder=0)
        self.moving = [*self._guides, *self._lines.values()]
        self.moving += [*self._dots.values(), *self._now.values()]

    def _frame(self, ax, title, ylabel, top, corner):
        ax.set_xscale("log")
        ax.set(xlim=(1.8, 120), ylim=(0, top), xlabel="Schools, J", ylabel=ylabel)
        ax.set_xticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
        ax.minorticks_off()
        ax.set_title(title, fontsize="medium")
        ax.legend(loc=corner, fontsize="small", frameon=True, framealpha=1, edgecolor="none")

    def update(self, n_schools, n_students, slope, sd_slope):
        """Set the design and the truth (points an hour); return what can be seen, in words.

        Raises
        ------
        ValueError
            If such a study can't be analysed, or is outside of the picture.
        """
        check_design(n_schools, n_students, self.schools[-1], self.most_students)
        check_sds(sd_slope=sd_slope)
        points = np.union1d(self.schools, n_schools)
        found = self.studies.simulate(points, n_students, slope, sd_slope)
        here = points == n_schools
        for name, values in found.items():
            self._lines[name].set_data(points, values)
            self._dots[name].set_data(points, values)
            self._now[name].set_data([n_schools], values[here])
        steps = np.geomspace(3, self.schools[-1], 50)
        exact = self.studies.formula(steps, n_students, slope, sd_slope)
        self._lines["power_slope"].set_data(steps, exact)
        for guide, name in zip(self._guides, ("power_slope", "half_width"), strict=True):
            guide.set_data([n_schools, n_schools], [0, found[name][here].item()])
        now = {name: values[here].item() for name, values in found.items()}
        return (
            f"{n_schools} schools × {n_students} students: "
            f"{self._found('an average slope', slope, now['power_slope'])}, "
            f"{self._found('an SD of slopes', sd_slope, now['power_sd_slope'])}. "
            f"The interval of the average slope is ± {now['half_width']:.2f} points an hour, and "
            f"the SD of slopes is missed by {now['rmse_sd_slope']:.2f} (root mean square)."
        )

    @staticmethod
    def _found(what, truth, share):
        if truth == 0:
            return f"{what} that is 0 raises a false alarm in {share:.0%} of studies"
        return f"{what} of {truth:g} points an hour is found in {share:.0%} of studies"


class SingularRate:
    """How often a fit of random slopes is singular, and where its estimates then are.

    Every share stands for 1,000 simulated studies (`PlannedStudies`), each fitted by REML.

    Parameters
    ----------
    axes : sequence of two Axes
    """

    panels = 2
    schools = np.array([2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100])
    most_students = 60

    def __init__(self, axes):
        self.studies = PlannedStudies(most_schools=self.schools[-1], seed=7)
        # Estimates at an edge lie on one line: they are spread out beyond it, to be counted.
        self._beyond = np.random.default_rng(1).uniform(0.06, 0.34, self.studies.n_studies)
        self._draw_rate(axes[0])
        self._draw_estimates(axes[1])
        self.moving = [self._line, self._dots, self._guide, self._now]
        self.moving += [self._inside, self._edge, self._truth, *self._shares]

    def _draw_rate(self, ax):
        self._line = ax.plot([], [], color=plots.PALE, linewidth=1.8)[0]
        self._dots = ax.plot([], [], "o", color=plots.PALE, markersize=5)[0]
        self._guide = ax.plot([], [], color=plots.VERMILLION, linewidth=1.2, linestyle=":")[0]
        self._now = ax.plot([], [], "o", color=plots.VERMILLION, markersize=11, mec="white")[0]
        ax.set_xscale("log")
        ax.set(xlim=(1.8, 120), ylim=(0, 104), xlabel="Schools, J", ylabel="Singular fits (%)")
        ax.set_xticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
        ax.minorticks_off()
        ax.set_title("How often at an edge", fontsize="medium")

    def _draw_estimates(self, ax):
        dot = {"linestyle": "none", "markeredgewidth": 0, "alpha": 0.5}
        self._inside = ax.plot([], [], "o", color=plots.BLUE, markersize=4, **dot)[0]
        self._edge = ax.plot([], [], "D", color=plots.VERMILLION, markersize=3.5, **dot)[0]
        self._truth = ax.plot([], [], "*", color=plots.INK, markersize=16, mec="white")[0]
        self._truth.set_zorder(9)
        for edge in (-1, 1):
            ax.axhline(edge, color=plots.INK, linewidth=1.2)
            ax.axhspan(edge, 1.42 * edge, facecolor="#f3f3f3", linewidth=0, zorder=0)
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
        look = {"va": "center", "fontsize": "small", "bbox": paper, "zorder": 10}
        self._shares = [
            ax.text(2.95, height, "", ha="right", color=plots.VERMILLION, **look)
            for height in (-1.2, 1.2)
        ]
        ax.set(xlim=(-0.08, 3), ylim=(-1.42, 1.42), yticks=[-1, -0.5, 0, 0.5, 1])
        ax.set_xlabel("Estimated SD of slopes, τ₁")
        ax.set_ylabel("Estimated correlation, ρ")
        ax.set_title("1,000 studies (star: truth)", fontsize="medium")

    def update(self, n_schools, n_students, sd_slope, correlation):
        """Set the design and the truth (τ₁ in points an hour); return what can be seen, in words.

        Raises
        ------
        ValueError
            If such a study can't be analysed, or is outside of the picture.
        """
        check_design(n_schools, n_students, self.schools[-1], self.most_students)
        check_sds(sd_slope=sd_slope)
        check_correlation(correlation)
        points = np.union1d(self.schools, n_schools)
        sds, correlations, rank = self.studies.spread(points, n_students, sd_slope, correlation)
        rates = 100 * (rank < 2).mean(axis=1)
        here = np.flatnonzero(points == n_schools).item()
        self._line.set_data(points, rates)
        self._dots.set_data(points, rates)
        self._guide.set_data([1.8, n_schools, n_schools], [rates[here], rates[here], 0])
        self._now.set_data([n_schools], [rates[here]])
        self._truth.set_data([sd_slope], [correlation])
        at = self._move_estimates(sds[here], correlations[here], rank[here])
        words = (
            f"{n_schools} schools × {n_students} students: {rates[here]:.0f} % of 1,000 fits are "
            f"singular. The correlation is estimated as −1 in {at[-1]:.0f} % and as +1 in "
            f"{at[1]:.0f} %"
        )
        if (rank[here] == 0).any():
            words += f"; in {100 * np.mean(rank[here] == 0):.1f} % schools do not differ at all"
        words += ". "
        return words + self._true(sd_slope, correlation)

    def _move_estimates(self, sds, correlations, rank):
        inside, edge = rank == 2, rank == 1
        self._inside.set_data(sds[inside], correlations[inside])
        side = correlations[edge]
        self._edge.set_data(sds[edge], side * (1 + self._beyond[edge]))
        at = {sign: 100 * np.sum(side == sign) / len(sds) for sign in (-1, 1)}
        for text, sign, name in zip(self._shares, (-1, 1), ("−1", "+1"), strict=True):
            text.set_text(f"ρ = {name}: {at[sign]:.0f} %")
        return at

    @staticmethod
    def _true(sd_slope, correlation):
        if sd_slope == 0:
            return "The truth is at an edge itself: slopes do not vary, and ρ means nothing."
        place = "at an edge itself" if abs(correlation) == 1 else "at no edge"
        truth = f"The truth is {place}: τ₁ = {sd_slope:g} points an hour, ρ = {correlation:g}."
        return truth.replace("-", "−")
