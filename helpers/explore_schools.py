"""Pictures of schools: the shrinkage factor, lines that tilt, and the place of zero.

The widgets around them are in ``explore``.
"""

import numpy as np
from matplotlib.collections import LineCollection

from helpers import plots, reml, simulate
from helpers.explore_checks import check_correlation, check_sds


def sd_at(x, sd_intercept, sd_slope, correlation):
    """SD of schools' lines at x hours, and their correlation with the slopes there.

    Parameters
    ----------
    x : float or numpy.ndarray
        Hours.
    sd_intercept, sd_slope, correlation : float
        τ₀ (points), τ₁ (points an hour) and ρ, with zero at 0 hours.

    Returns
    -------
    sd, correlation : numpy.ndarray
        The correlation is nan where lines or slopes do not vary.

    Examples
    --------
    >>> [round(float(value), 2) for value in sd_at(5.5, 4, 0.8, 0.3)]
    [6.78, 0.83]
    """
    covariance = correlation * sd_intercept * sd_slope
    variance = sd_intercept**2 + 2 * x * covariance + (x * sd_slope) ** 2
    sd = np.sqrt(np.maximum(variance, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return sd, np.divide(covariance + x * sd_slope**2, sd * sd_slope)


def waist_at(sd_intercept, sd_slope, correlation):
    """Hours at which schools' lines are closest, −ρτ₀/τ₁; nan where they are parallel.

    Examples
    --------
    >>> waist_at(4, 0.8, -0.9)
    4.5
    """
    return -correlation * sd_intercept / sd_slope if sd_slope > 0 else np.nan


class Shrinkage:
    """The shrinkage factor τ²/(τ² + σ²/n), and what it does to the line of one school.

    Parameters
    ----------
    axes : sequence of two Axes
    """

    panels = 2
    most_students = 60
    above = 8.0  # points by which the school's own line lies above the average line

    def __init__(self, axes):
        rng = np.random.default_rng(3)
        self._hours = rng.uniform(1, 10, self.most_students)
        self._noise = rng.standard_normal(self.most_students)
        self._draw_curve(axes[0])
        self._draw_school(axes[1])
        self.moving = [self._curve, self._guide, self._dot, self._number]
        self.moving += [self._points, self._own, self._partial]

    def _draw_curve(self, ax):
        self._curve = ax.plot([], [], color=plots.PALE, linewidth=2.4)[0]
        self._guide = ax.plot([], [], color=plots.BLUE, linewidth=1.2, linestyle=":")[0]
        self._dot = ax.plot([], [], "o", color=plots.BLUE, markersize=10)[0]
        self._number = ax.text(0, 0, "", color=plots.BLUE, fontweight="bold", va="top")
        ax.set(xlim=(0, self.most_students + 2), ylim=(0, 1.04))
        ax.set_xlabel("Students in the school, n")
        ax.set_ylabel("Shrinkage factor")
        ax.set_title("How far the school is believed", fontsize="medium")

    def _draw_school(self, ax):
        ends = np.array([1.0, 10.0])
        self._average = 60 + 2 * ends
        ax.set(xlim=(0.5, 10.5), ylim=(45, 105))
        self._points = ax.plot([], [], "o", color=plots.INK, alpha=0.45, markersize=5)[0]
        self._points.set_markeredgewidth(0)
        ax.plot(ends, self._average, **plots.AVERAGE)
        self._own = ax.plot(ends, self._average + self.above, **plots.OWN)[0]
        self._partial = ax.plot(ends, self._average, **plots.PARTIAL)[0]
        kinds = ((plots.OWN, "its own line"), (plots.PARTIAL, "partial pooling"))
        for height, (look, text) in zip((0.95, 0.86), kinds, strict=True):
            ax.plot([0.04, 0.16], [height] * 2, transform=ax.transAxes, **look)
            ax.text(0.19, height, text, transform=ax.transAxes, va="center", fontsize="small")
        ax.plot([0.04, 0.16], [0.77] * 2, transform=ax.transAxes, **plots.AVERAGE)
        ax.text(0.19, 0.77, "average line", transform=ax.transAxes, va="center", fontsize="small")
        ax.set_xlabel(plots.axis_label("app_hours"))
        ax.set_ylabel(plots.axis_label("math_score"))
        ax.set_title(f"A school {self.above:g} points up", fontsize="medium")

    def update(self, sigma, tau, n):
        """Set both SDs (points) and the number of students; return what can be seen, in words.

        Raises
        ------
        ValueError
            If both SDs are zero, an SD is negative, or `n` is not between 1 and 60.
        """
        check_sds(sigma=sigma, tau=tau)
        if sigma == 0 and tau == 0:
            raise ValueError(
                "σ = 0 and τ = 0: every score would lie on the average line, and the factor "
                "would be 0/0. Raise one of the two."
            )
        if not 1 <= n <= self.most_students or n != int(n):
            raise ValueError(f"n={n!r}: give a whole number from 1 to {self.most_students}.")
        factor = tau**2 / (tau**2 + sigma**2 / n)
        self._move_curve(sigma, tau, n, factor)
        self._move_school(sigma, n, factor)
        return (
            f"σ = {sigma:g} points, τ = {tau:g} points, n = {n}: the factor is {factor:.2f}. "
            f"A school {self.above:g} points above the average line is put "
            f"{factor * self.above:.1f} points above it."
        )

    def _move_curve(self, sigma, tau, n, factor):
        sizes = np.arange(1, self.most_students + 1)
        self._curve.set_data(sizes, tau**2 / (tau**2 + sigma**2 / sizes))
        self._guide.set_data([0, n, n], [factor, factor, 0])
        self._dot.set_data([n], [factor])
        right = n > 0.75 * self.most_students
        below = factor > 0.15
        self._number.set(
            x=n - 2 if right else n + 2,
            y=factor - 0.04 if below else factor + 0.04,
            text=f"{factor:.2f}",
            ha="right" if right else "left",
            va="top" if below else "bottom",
        )

    def _move_school(self, sigma, n, factor):
        hours, noise = self._hours[:n], self._noise[:n]
        # The school's mean stays where it is, so that only the belief in it moves.
        scores = 60 + 2 * hours + self.above + sigma * (noise - noise.mean())
        self._points.set_data(hours, scores)
        self._partial.set_ydata(self._average + factor * self.above)


class RandomSlopes:
    """Thirty schools' lines and students, and the SD of scores along the hours.

    The schools and students are drawn once, and so that they have the SDs and the correlation of
    the setting exactly: what moves is due to the setting.

    Parameters
    ----------
    axes : sequence of two Axes
    """

    panels = 2
    intercept, slope = 60.0, 2.0

    def __init__(self, axes, *, n_schools=30, n_students=12, seed=3):
        rng = np.random.default_rng(seed)
        deviations = rng.standard_normal((n_schools, 2))
        deviations = np.linalg.qr(deviations - deviations.mean(axis=0))[0]
        self._start, self._rest = np.sqrt(n_schools - 1) * deviations.T
        self.hours = rng.uniform(1, 10, (n_schools, n_students))
        noise = rng.standard_normal((n_schools, n_students))
        for x, e in zip(self.hours, noise, strict=True):
            X = np.column_stack([np.ones(n_students), x])
            e -= X @ np.linalg.lstsq(X, e)[0]
        self._noise = noise / np.sqrt((noise**2).sum() / (n_schools * (n_students - 2)))
        # The two schools that start lowest and highest show what a correlation means.
        self._marked = [self._start.argmin(), self._start.argmax()]
        self._grid = np.linspace(0, 10, 101)
        self._draw_lines(axes[0])
        self._draw_spread(axes[1])
        self.moving = [self._students, self._lines, *self._dots, *self._strong]
        self.moving += [*self._curves, self._guide, self._waist]

    def _draw_lines(self, ax):
        self._students = ax.plot([], [], "o", color=plots.PALE, markersize=3, mew=0)[0]
        self._lines = LineCollection([], colors=plots.BLUE, linewidths=0.9, alpha=0.7, zorder=3)
        ax.add_collection(self._lines, autolim=False)
        ax.plot([0, 10], [self.intercept, self.intercept + 10 * self.slope], **plots.AVERAGE)
        looks = (("o", plots.GREEN, "lowest start"), ("s", plots.VERMILLION, "highest start"))
        self._dots, self._strong = [], []
        for marker, color, label in looks:
            dot = {"color": color, "markersize": 5, "markeredgewidth": 0, "zorder": 8}
            self._dots += ax.plot([], [], marker, **dot)
            self._strong += ax.plot([], [], color=color, linewidth=2.6, zorder=9)
            ax.plot([], [], marker=marker, color=color, markersize=5, label=label)
        ax.legend(loc="upper left", fontsize="small")
        ax.set(xlim=(-0.3, 10.3), ylim=(25, 135))
        ax.set_xlabel(plots.axis_label("app_hours"))
        ax.set_ylabel(plots.axis_label("math_score"))
        ax.set_title("Thirty schools' lines", fontsize="medium")

    def _draw_spread(self, ax):
        looks = (
            {"color": plots.INK, "linestyle": "-", "label": "all scores"},
            {"color": plots.BLUE, "linestyle": "-.", "label": "schools' lines"},
            {"color": plots.GREY, "linestyle": "--", "label": "students in a school, σ"},
        )
        self._curves = []
        for look in looks:
            ax.plot([], [], linewidth=2.2, **look)
            self._curves += ax.plot([], [], linewidth=2.2, **(look | {"label": None}))
        self._guide = ax.plot([], [], color=plots.BLUE, linewidth=1.2, linestyle=":")[0]
        self._waist = ax.plot([], [], "o", color=plots.BLUE, markersize=9)[0]
        ax.legend(loc="upper left", fontsize="small")
        ax.set(xlim=(-0.3, 10.3), ylim=(0, 27))
        ax.set_xlabel(plots.axis_label("app_hours"))
        ax.set_ylabel("SD (points)")
        ax.set_title("SD along the hours", fontsize="medium")

    def lines(self, sd_intercept, sd_slope, correlation):
        """Intercepts (points) and slopes (points an hour) of the schools."""
        mixed = correlation * self._start + np.sqrt(1 - correlation**2) * self._rest
        return self.intercept + sd_intercept * self._start, self.slope + sd_slope * mixed

    def update(self, sd_residual, sd_intercept, sd_slope, correlation):
        """Set σ, τ₀ (points), τ₁ (points an hour) and ρ; return what can be seen, in words.

        Raises
        ------
        ValueError
            If σ is zero, an SD is negative or the correlation is outside −1 to 1.
        """
        check_sds(sd_residual=sd_residual, sd_intercept=sd_intercept, sd_slope=sd_slope)
        check_correlation(correlation)
        if sd_residual == 0:
            raise ValueError(
                "σ = 0: every student would lie on the school's line exactly. Two students would "
                "give the line away, and there would be nothing left for a model to weigh. "
                "Raise σ."
            )
        starts, slopes = self.lines(sd_intercept, sd_slope, correlation)
        scores = starts[:, None] + slopes[:, None] * self.hours + sd_residual * self._noise
        ends = starts + 10 * slopes
        self._students.set_data(self.hours.ravel(), scores.ravel())
        self._lines.set_segments([((0, a), (10, b)) for a, b in zip(starts, ends, strict=True)])
        for dots, line, j in zip(self._dots, self._strong, self._marked, strict=True):
            dots.set_data(self.hours[j], scores[j])
            line.set_data([0, 10], [starts[j], ends[j]])
        self._move_spread(sd_residual, sd_intercept, sd_slope, correlation)
        return self._words(sd_residual, sd_intercept, sd_slope, correlation)

    def _move_spread(self, sd_residual, sd_intercept, sd_slope, correlation):
        between = sd_at(self._grid, sd_intercept, sd_slope, correlation)[0]
        for curve, sds in zip(
            self._curves,
            (np.hypot(between, sd_residual), between, np.full(len(between), sd_residual)),
            strict=True,
        ):
            curve.set_data(self._grid, sds)
        waist = waist_at(sd_intercept, sd_slope, correlation)
        at = [waist] if 0 <= waist <= 10 else []
        height = [sd_at(x, sd_intercept, sd_slope, correlation)[0] for x in at]
        self._waist.set_data(at, height)
        self._guide.set_data(at * 2, [0, *height] if at else [])

    @staticmethod
    def _words(sd_residual, sd_intercept, sd_slope, correlation):
        early, late = (
            np.hypot(sd_at(x, sd_intercept, sd_slope, correlation)[0], sd_residual) for x in (1, 10)
        )
        words = f"Scores have an SD of {early:.1f} points at 1 hour and {late:.1f} at 10 hours. "
        if sd_slope == 0:
            same = "one line for all schools" if sd_intercept == 0 else "parallel lines"
            return words + f"τ₁ = 0: {same}, and ρ means nothing."
        low, high = (RandomSlopes.slope + side * 1.96 * sd_slope for side in (-1, 1))
        words += f"95 % of schools' slopes lie between {low:.1f} and {high:.1f} points an hour. "
        waist = waist_at(sd_intercept, sd_slope, correlation)
        if sd_intercept == 0:
            words += "τ₀ = 0: all lines start at one point, and ρ means nothing."
        elif 0 < waist <= 10:
            words += f"The lines are closest at {waist:.1f} hours."
        elif waist > 10:
            words += "The lines close in, and are closest beyond 10 hours."
        else:
            words += "The lines fan out from the start."
        return words.replace("-", "−")


class Centring:
    """One fit, read from another zero of the hours: its lines, τ₀ and ρ.

    The fit is made anew at every zero, so that what stays the same is seen to do so.

    Parameters
    ----------
    axes : sequence of three Axes
    data : pandas.DataFrame, optional
        With ``school_id``, ``app_hours`` and ``math_score``; the running example by default.
    """

    panels = 3
    zeros = (-6.0, 12.0)

    def __init__(self, axes, data=None):
        data = simulate.schools(30, 20, seed=3) if data is None else data
        self._hours = data["app_hours"].to_numpy(dtype=float)
        self._scores = data["math_score"].to_numpy(dtype=float)
        self._groups = data["school_id"].to_numpy()
        self.at_zero = self.fit(0.0)
        self._draw_fan(axes[0])
        self._draw_curves(axes[1:])
        self.moving = [self._zero, self._crossings, *self._guides, *self._dots]

    def fit(self, zero):
        """Fit random slopes of the hours less `zero`."""
        X = np.column_stack([np.ones(len(self._hours)), self._hours - zero])
        return reml.fit(self._scores, X, X, self._groups)

    def _draw_fan(self, ax):
        starts, slopes = (self.at_zero.beta + self.at_zero.random_effects).T
        data = self._hours.min(), self._hours.max()
        looks = (((self.zeros[0], data[0]), ":"), (data, "-"), ((data[1], self.zeros[1]), ":"))
        for ends, look in looks:
            heights = starts + np.outer(ends, slopes)
            ax.plot(ends, heights, color=plots.BLUE, linewidth=0.9, linestyle=look, alpha=0.6)
        self._zero = ax.axvline(0, color=plots.INK, linewidth=2, zorder=8)
        self._crossings = ax.plot([], [], "o", color=plots.VERMILLION, markersize=5, zorder=9)[0]
        self._crossings.set_markeredgewidth(0)
        ax.set_xlim(self.zeros[0] - 0.5, self.zeros[1] + 0.5)
        ax.set_xlabel(plots.axis_label("app_hours"))
        ax.set_ylabel(plots.axis_label("math_score"))
        ax.set_title("School lines, and zero", fontsize="medium")

    def _draw_curves(self, axes):
        (var_0, cov), (_, var_1) = self.at_zero.cov_re
        sd_0, sd_1 = np.sqrt([var_0, var_1])
        grid = np.linspace(*self.zeros, 181)
        sds, correlations = sd_at(grid, sd_0, sd_1, cov / (sd_0 * sd_1))
        self._guides, self._dots = [], []
        for ax, values, color in zip(
            axes, (sds, correlations), (plots.BLUE, plots.GREEN), strict=True
        ):
            ax.plot(grid, values, color=plots.PALE, linewidth=2.4)
            self._guides += ax.plot([], [], color=plots.INK, linewidth=1.2, linestyle=":")
            self._dots += ax.plot([], [], "o", color=color, markersize=10)
            ax.set_xlim(self.zeros[0] - 0.5, self.zeros[1] + 0.5)
            ax.set_xlabel("Zero at (hours)")
        axes[0].set(ylim=(0, 1.08 * sds.max()), ylabel="SD of intercepts, τ₀ (points)")
        axes[0].set_title("How far apart at zero", fontsize="medium")
        axes[1].axhline(0, color=plots.GREY, linewidth=1)
        axes[1].set(ylim=(-1.05, 1.05), ylabel="Correlation, ρ")
        axes[1].set_title("Height with slope", fontsize="medium")

    def update(self, zero):
        """Put zero at so many hours and fit again; return what can be seen, in words.

        Raises
        ------
        ValueError
            If `zero` is outside of the picture.
        """
        low, high = self.zeros
        if not low <= zero <= high:
            raise ValueError(
                f"zero={zero!r}: give hours from {low:g} to {high:g}. The fit would be the same "
                "further out, but no student is near enough to check a line there."
            )
        fit = self.fit(zero)
        (var_0, cov), (_, var_1) = fit.cov_re
        sd_0, sd_1 = np.sqrt([var_0, var_1])
        correlation = cov / (sd_0 * sd_1)
        self._zero.set_xdata([zero, zero])
        heights = fit.beta[0] + fit.random_effects[:, 0]
        self._crossings.set_data(np.full(len(heights), zero), heights)
        for guide, dot, value, floor in zip(
            self._guides, self._dots, (sd_0, correlation), (0, -1.05), strict=True
        ):
            guide.set_data([zero, zero], [floor, value])
            dot.set_data([zero], [value])
        return (
            f"Zero at {zero:g} hours: average intercept {fit.beta[0]:.1f} points, "
            f"τ₀ = {sd_0:.2f} points, ρ = {correlation:.2f}. As at every zero: average slope "
            f"{fit.beta[1]:.3f} and τ₁ = {sd_1:.3f} points an hour, σ = {np.sqrt(fit.scale):.2f} "
            f"points, criterion {fit.criterion:.2f}."
        ).replace("-", "−")
