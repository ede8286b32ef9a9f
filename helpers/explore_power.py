"""Pictures of planned studies: how often they find what is there, how often a fit is singular.

The studies are in ``explore_studies``, the widgets in ``explore``.
"""

import numpy as np

from helpers import plots
from helpers.explore_checks import check_correlation, check_design, check_sds
from helpers.explore_studies import PlannedStudies


def percent(share):
    """Say a share of studies in whole per cent; none and all only where it is none or all.

    Examples
    --------
    >>> [percent(share) for share in (0, 0.003, 0.494, 1)]
    ['0 %', 'under 1 %', '49 %', '100 %']
    """
    if 0 < share < 0.005:
        return "under 1 %"
    if 0.995 <= share < 1:
        return "over 99 %"
    return f"{100 * share:.0f} %"


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
        legends = [
            self._frame(axes[0], "Power", "Studies that find it", 1.04, "lower right"),
            self._frame(axes[1], "Precision", "Points an hour", 1.3, "upper right"),
        ]
        axes[0].axhline(0.8, color=plots.PALE, linewidth=1.2, zorder=0)
        self.moving = [*self._guides, *self._lines.values()]
        # The legends stand still, but belong on top of the guides.
        self.moving += [*self._dots.values(), *self._now.values(), *legends]

    def _frame(self, ax, title, ylabel, top, corner):
        ax.set_xscale("log")
        ax.set(xlim=(1.8, 120), ylim=(0, top), xlabel="Schools, J", ylabel=ylabel)
        ax.set_xticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
        ax.minorticks_off()
        ax.set_title(title, fontsize="medium")
        return ax.legend(loc=corner, fontsize="small", frameon=True, framealpha=1, edgecolor="none")

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
            return f"{what} that is 0 raises a false alarm in {percent(share)} of studies"
        return f"{what} of {truth:g} points an hour is found in {percent(share)} of studies"


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
            ax.text(3.45, height, "", ha="right", color=plots.VERMILLION, **look)
            for height in (-1.2, 1.2)
        ]
        ax.set(xlim=(-0.08, 3.5), ylim=(-1.42, 1.42), yticks=[-1, -0.5, 0, 0.5, 1])
        ax.set_xlabel("Estimated τ₁ (points an hour)")
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
        rates = (rank < 2).mean(axis=1)
        here = np.flatnonzero(points == n_schools).item()
        height = 100 * rates[here]
        self._line.set_data(points, 100 * rates)
        self._dots.set_data(points, 100 * rates)
        self._guide.set_data([1.8, n_schools, n_schools], [height, height, 0])
        self._now.set_data([n_schools], [height])
        self._truth.set_data([sd_slope], [correlation])
        at = self._move_estimates(sds[here], correlations[here], rank[here])
        words = (
            f"{n_schools} schools × {n_students} students: {percent(rates[here])} of 1,000 fits "
            f"are singular. The correlation is estimated as −1 in {percent(at[-1])} and as +1 in "
            f"{percent(at[1])}"
        )
        if (rank[here] == 0).any():
            words += f"; in {percent(np.mean(rank[here] == 0))} schools do not differ at all"
        return f"{words}. {self._true(sd_slope, correlation)}"

    def _move_estimates(self, sds, correlations, rank):
        inside, edge = rank == 2, rank == 1
        self._inside.set_data(sds[inside], correlations[inside])
        side = correlations[edge]
        self._edge.set_data(sds[edge], side * (1 + self._beyond[edge]))
        at = {sign: np.sum(side == sign) / len(sds) for sign in (-1, 1)}
        for text, sign, name in zip(self._shares, (-1, 1), ("−1", "+1"), strict=True):
            text.set_text(f"ρ = {name}: {percent(at[sign])}")
        return at

    @staticmethod
    def _true(sd_slope, correlation):
        if sd_slope == 0:
            return "The truth is at an edge itself: slopes do not vary, and ρ means nothing."
        place = "at an edge itself" if abs(correlation) == 1 else "at no edge"
        truth = f"The truth is {place}: τ₁ = {sd_slope:g} points an hour, ρ = {correlation:g}."
        return truth.replace("-", "−")
