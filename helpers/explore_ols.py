"""Pictures of one line for everyone: least squares by hand, and what its standard error keeps.

The widgets around them are in ``explore``.
"""

import numpy as np
from matplotlib.patches import Rectangle
from scipy import stats

from helpers import plots, simulate
from helpers.explore_checks import check_sds


class LineFit:
    """A line that turns about the mean point, its squared residuals, and their sum.

    Parameters
    ----------
    axes : sequence of two Axes
    data : pandas.DataFrame, optional
        With ``app_hours`` and ``math_score``; twelve simulated students by default.
    """

    panels = 2
    slopes = (-2.0, 6.0)

    def __init__(self, axes, data=None):
        data = simulate.schools(1, 12, seed=11) if data is None else data
        self._x = data["app_hours"].to_numpy(dtype=float)
        self._y = data["math_score"].to_numpy(dtype=float)
        deviation = self._x - self._x.mean()
        self.best = deviation @ self._y / (deviation @ deviation)
        self.least = self._sum_of_squares(self.best)
        self._draw_points(axes[0])
        self._draw_bowl(axes[1])
        self.moving = [*self._squares, self._line, self._drop, self._dot, self._students]

    def _fitted(self, slope):
        return self._y.mean() + slope * (self._x - self._x.mean())

    def _sum_of_squares(self, slope):
        return float(((self._y - self._fitted(slope)) ** 2).sum())

    def _draw_points(self, ax):
        steepest = np.concatenate([self._y, *(self._fitted(slope) for slope in self.slopes)])
        ax.set(xlim=(0, 11), ylim=(steepest.min() - 2, steepest.max() + 2), box_aspect=1)
        # Axes as wide as high, so that this many hours take the room of one point.
        low, high = ax.get_ylim()
        self._hours_per_point = 11 / (high - low)
        self._squares = [
            ax.add_patch(Rectangle((0, 0), 0, 0, color=plots.VERMILLION, alpha=0.25, linewidth=0))
            for _ in self._x
        ]
        self._line = ax.plot([], [], color=plots.BLUE, linewidth=2.4)[0]
        # The points stand still, but belong on top of what moves.
        self._students = ax.scatter(self._x, self._y, s=34, color=plots.INK, zorder=3)
        ax.set_xlabel(plots.axis_label("app_hours"))
        ax.set_ylabel(plots.axis_label("math_score"))
        ax.set_title("Squares from points to line", fontsize="medium")

    def _draw_bowl(self, ax):
        grid = np.linspace(*self.slopes, 161)
        sums = [self._sum_of_squares(slope) for slope in grid]
        ax.plot(grid, sums, color=plots.PALE)
        ax.set(box_aspect=1, ylim=(0, 1.08 * max(sums)))
        self._drop = ax.plot([], [], color=plots.VERMILLION, linewidth=1.2, linestyle=":")[0]
        self._dot = ax.plot([], [], "o", color=plots.VERMILLION, markersize=10)[0]
        ax.set_xlabel("Slope (points an hour)")
        ax.set_ylabel("Sum of squares (points²)")
        ax.set_title("Their areas, added up", fontsize="medium")

    def update(self, slope):
        """Turn the line to a slope in points an hour; return what can be seen, in words."""
        fitted = self._fitted(slope)
        ends = np.array([0.0, 11.0])
        self._line.set_data(ends, self._y.mean() + slope * (ends - self._x.mean()))
        for square, x, y, on_line in zip(self._squares, self._x, self._y, fitted, strict=True):
            # A square stands on the side of its point that the line leaves free.
            side = (y - on_line) * (-1 if slope > 0 else 1)
            square.set(xy=(x, on_line), height=y - on_line, width=side * self._hours_per_point)
        total = self._sum_of_squares(slope)
        self._drop.set_data([slope, slope], [0, total])
        self._dot.set_data([slope], [total])
        return f"Slope {slope:.1f} points an hour: the squares add up to {total:,.0f} points², " + (
            "and no slope on this slider does better."
            if abs(slope - self.best) <= 0.05
            else f"{100 * (total / self.least - 1):.0f} % more than they need to."
        )


class Assumptions:
    """One line for everyone in worlds that break its fine print: the promise, and what is kept.

    600 students in 30 schools, with the hours of the running example. Every setting judges the
    same 2,000 studies, drawn once: what moves is due to the setting. The estimates are sums of
    what each part of a score contributes, and their residual variances are quadratic forms of the
    same parts, so that a redraw fits nothing anew.

    Parameters
    ----------
    axes : sequence of three Axes
    """

    panels = 3
    n_studies = 2000
    intercept, slope, correlation = 60.0, 2.0, 0.3
    sd_early = 5.0  # SD of students at 1 hour, points

    def __init__(self, axes, *, seed=1):
        hours = simulate.schools(30, 20, seed=3)["app_hours"].to_numpy()
        self._school = np.repeat(np.arange(30), 20)
        self.hours, self._late = hours, (hours - 1) / 9
        self.X = np.column_stack([np.ones(600), hours])
        self._solve = np.linalg.solve(self.X.T @ self.X, self.X.T)
        self._draw_studies(np.random.default_rng(seed))
        self._draw_scores(axes[0])
        self._draw_residuals(axes[1])
        self._draw_promise(axes[2])
        self.moving = [*self._scores, self._truth, self._line]
        self.moving += [*self._residuals]
        self.moving += [self._kept, self._claimed, self._target]

    def _draw_studies(self, rng):
        """Draw what the scores are made of, and keep of it what least squares needs."""
        start, rest = rng.standard_normal((2, self.n_studies, 30))
        tilt = self.correlation * start + np.sqrt(1 - self.correlation**2) * rest
        noise = rng.standard_normal((self.n_studies, 600))
        parts = (
            start[:, self._school],
            tilt[:, self._school] * self.hours,
            noise * (1 - self._late),
            noise * self._late,
        )
        # A bend that no straight line can follow: what is left of a parabola one point high.
        arch = 4 * self._late * (1 - self._late)
        self._arch = arch - self.X @ (self._solve @ arch)
        self._coefficients = np.stack([part @ self._solve.T for part in parts])
        left = [part - at @ self.X.T for part, at in zip(parts, self._coefficients, strict=True)]
        left.append(np.broadcast_to(self._arch, noise.shape))
        self._products = np.array([[np.einsum("ri,ri->r", a, b) for a in left] for b in left])
        self._example = np.stack([part[0] for part in parts])
        own = start[0] + tilt[0]
        self._marked = [self._school == own.argmin(), self._school == own.argmax()]

    def _students(self, ax):
        looks = (("o", plots.PALE, 3.5), ("o", plots.BLUE, 5.5), ("s", plots.VERMILLION, 5.0))
        return [
            ax.plot([], [], marker, color=color, markersize=size, markeredgewidth=0)[0]
            for marker, color, size in looks
        ]

    def _draw_scores(self, ax):
        self._scores = self._students(ax)
        self._truth = ax.plot([], [], **plots.AVERAGE)[0]
        self._line = ax.plot([], [], **plots.POOLED)[0]
        ax.set(xlim=(0.5, 10.5), ylim=(25, 125))
        ax.set_xlabel(plots.axis_label("app_hours"))
        ax.set_ylabel(plots.axis_label("math_score"))
        ax.set_title("One study (dotted: truth)", fontsize="medium")

    def _draw_residuals(self, ax):
        self._residuals = self._students(ax)
        ax.axhline(0, color=plots.INK, linewidth=1)
        ax.set(xlim=(0.5, 10.5), ylim=(-42, 42), yticks=[-40, -20, 0, 20, 40])
        ax.set_xlabel(plots.axis_label("app_hours"))
        ax.set_ylabel("Residual (points)")
        ax.set_title("Its residuals", fontsize="medium")

    def _draw_promise(self, ax):
        self._edges = np.linspace(1.1, 2.9, 61)
        self._grid = np.linspace(1.1, 2.9, 241)
        # It stands still, but belongs on top of the bars.
        self._target = ax.axvline(self.slope, **plots.AVERAGE)
        self._kept = ax.stairs(np.zeros(60), self._edges, fill=True, color=plots.PALE)
        self._claimed = ax.plot([], [], color=plots.VERMILLION, linewidth=2.2)[0]
        ax.plot([], [], color=plots.VERMILLION, linewidth=2.2, label="promised")
        ax.fill_between([], [], color=plots.PALE, linewidth=0, label="kept")
        ax.legend(loc="upper right", fontsize="small", handlelength=1.2)
        ax.set(xlim=(1.1, 2.9), ylim=(0, 8), yticks=[], xlabel="Slope (points an hour)")
        ax.set_title(f"Slopes of {self.n_studies:,} studies", fontsize="medium")

    def judge(self, sd_intercept, sd_slope, bend, sd_late):
        """Estimates and standard errors of all studies in one world.

        Returns
        -------
        estimates, errors : numpy.ndarray, shape (2, studies)
            Of the intercept (points) and of the slope (points an hour).
        """
        sizes = np.array([sd_intercept, sd_slope, self.sd_early, sd_late, bend], dtype=float)
        truth = np.array([[self.intercept], [self.slope]])
        estimates = truth + np.einsum("k,krc->cr", sizes[:4], self._coefficients)
        squares = np.einsum("k,klr,l->r", sizes, self._products, sizes)
        inverse = np.linalg.inv(self.X.T @ self.X)
        return estimates, np.sqrt(np.outer(np.diag(inverse), squares / 598))

    def update(self, sd_intercept, sd_slope, bend, sd_late):
        """Set SDs of the schools' lines, bend and late SD; return what can be seen, in words.

        Parameters
        ----------
        sd_intercept, sd_slope : float
            SDs of the schools' intercepts (points) and slopes (points an hour).
        bend : float
            How high the true curve rises above its chord in the middle (points).
        sd_late : float
            SD of students at 10 hours (points); at 1 hour it is 5, in between on a line.

        Raises
        ------
        ValueError
            If an SD is negative.
        """
        given = {"sd_intercept": sd_intercept, "sd_slope": sd_slope, "sd_late": sd_late}
        check_sds(**given)
        estimates, errors = self.judge(sd_intercept, sd_slope, bend, sd_late)
        self._move_study(np.array([sd_intercept, sd_slope, self.sd_early, sd_late]), bend)
        claimed, kept = errors[1].mean(), estimates[1].std(ddof=1)
        counts = np.histogram(estimates[1], self._edges)[0]
        self._kept.set_data(counts / self.n_studies / (self._edges[1] - self._edges[0]))
        self._claimed.set_data(self._grid, stats.norm.pdf(self._grid, self.slope, claimed))
        truth = np.array([[self.intercept], [self.slope]])
        covers = np.abs(estimates - truth) <= stats.t.ppf(0.975, 598) * errors
        return self._words(claimed, kept, *covers.mean(axis=1), bend)

    def _move_study(self, sizes, bend):
        curve = self.intercept + self.slope * self.hours + bend * self._arch
        scores = curve + sizes @ self._example
        fitted = self.X @ (self._solve @ scores)
        every = np.ones(600, dtype=bool)
        for dots, ys in ((self._scores, scores), (self._residuals, scores - fitted)):
            for artist, rows in zip(dots, (every, *self._marked), strict=True):
                artist.set_data(self.hours[rows], ys[rows])
        order = np.argsort(self.hours)
        self._truth.set_data(self.hours[order], curve[order])
        self._line.set_data(self.hours[order], fitted[order])

    def _words(self, claimed, kept, intercept, slope, bend):
        in_slope, in_intercept = (f"{100 * share:.1f} %" for share in (slope, intercept))
        words = (
            f"The slope's standard error promises {claimed:.3f} points an hour, and the slopes of "
            f"{self.n_studies:,} studies have an SD of {kept:.3f}. The 95 % interval contains the "
            f"truth in {in_slope} of studies for the slope, in {in_intercept} for the intercept."
        )
        if bend:
            off = np.abs(bend * self._arch).max()
            words += f" But the line misses the curve by up to {off:.1f} points."
        return words
