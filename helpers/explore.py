"""Pictures that move: flipbooks that need no kernel, and explorers that redraw as you drag.

A live explorer is a picture and some sliders. The picture is a class that draws on the Axes it
is given: ``Shrinkage(axes).update(sigma=5, tau=4, n=10)`` moves its artists and returns in
words what can be seen. The widget calls `update` when a slider moves, and `stills` draws the
same picture at settings side by side, for paper and for pages without a kernel.

Pictures are sent as PNG from matplotlib's own canvas, so that no pyplot figure is left behind.
"""

import base64
import html
import io

import ipywidgets as widgets
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from scipy import special, stats

from helpers import plots, simulate

MOST_BYTES = 1_000_000
# arguments as the lessons write them
SYMBOLS = {
    "sigma": "σ",
    "tau": "τ",
    "n_schools": "J",
    "n_students": "n",
    "slope": "γ₁",
    "sd_slope": "τ₁",
}


# ---------------------------------------------------------------------------------------------
# Flipbooks


def flipbook(draw, values, label, *, describe=None, shape=(1, 1), figsize=(8.0, 4.6)):
    """Pre-drawn frames and a slider that turns them, in the browser alone.

    Parameters
    ----------
    draw : callable
        ``draw(ax, value)`` draws one frame on an empty Axes (or on an array of Axes, with
        `shape`). Give every frame the same limits, so that only the message moves.
    values : sequence
        One a frame, in the order of the slider.
    label : str
        What the slider sets, with its unit.
    describe : callable, optional
        ``describe(value)`` says in a sentence what the frame shows, for readers who can't see
        it; the label and the value by default.
    shape : pair of int
        Rows and columns of Axes on a frame.
    figsize : pair of float
        Inches.

    Returns
    -------
    ipywidgets.VBox
        The slider above a Stack of frames, joined by a link that runs in the browser: it moves
        without a kernel. The arrow keys work when the slider has the focus.

    Raises
    ------
    ValueError
        If there are fewer than two values, or the frames together exceed 1 MB.
    """
    values = list(values)
    if len(values) < 2:
        raise ValueError(f"values has {len(values)} entries: a flipbook needs two frames or more.")
    if describe is None:

        def describe(value):
            return f"{label}: {_short(value)}."

    frames = [_frame(draw, value, describe(value), shape, figsize) for value in values]
    size = sum(len(frame.value) for frame in frames)
    if size > MOST_BYTES:
        raise ValueError(
            f"values gives {len(values)} frames of {size:,} bytes together, and a page should not "
            f"carry more than {MOST_BYTES:,}: give fewer values or a smaller figsize."
        )
    slider = widgets.SelectionSlider(
        options=[(_short(value), at) for at, value in enumerate(values)],
        description=label,
        style={"description_width": "initial"},
        layout={"width": "min(100%, 34em)"},
    )
    stack = widgets.Stack(frames, selected_index=0)
    widgets.jslink((slider, "index"), (stack, "selected_index"))
    return widgets.VBox([slider, stack])


def _frame(draw, value, text, shape, figsize):
    with mpl.style.context(["default", plots.STYLE]):
        figure = Figure(figsize=figsize)
        axes = figure.subplots(*shape)
        draw(axes, value)
        png = _few_colours(_png(figure))
    source = base64.b64encode(png).decode("ascii")
    return widgets.HTML(
        f'<img src="data:image/png;base64,{source}" alt="{html.escape(text)}" '
        f'style="max-width:100%;height:auto">'
    )


def _png(figure):
    """Return the figure as PNG bytes that hold nothing but the picture."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _few_colours(png):
    """Rewrite a PNG with a palette of 64 colours, which a line drawing never misses."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    buffer = io.BytesIO()
    picture.quantize(64, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _short(value):
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


# ---------------------------------------------------------------------------------------------
# Live explorers


class Explorer(widgets.VBox):
    """Sliders above a picture that follows them, what it shows in words, and a reset button.

    Parameters
    ----------
    picture : class
        Constructed with as many Axes as its ``panels``; ``update(**settings)`` moves the artists
        that ``moving`` lists and returns a sentence, or raises ValueError with the reason why
        that setting can't be.
    sliders : dict of str to ipywidgets slider
        One for each argument of ``update``.
    figsize : pair of float
        Inches.
    """

    def __init__(self, picture, sliders, *, figsize=(8.0, 4.0)):
        self.sliders = dict(sliders)
        self._start = {name: slider.value for name, slider in self.sliders.items()}
        with mpl.style.context(["default", plots.STYLE]):
            self._figure = Figure(figsize=figsize)
            self.picture = picture(self._figure.subplots(1, picture.panels))
            # Axes, ticks and names are drawn once; a redraw costs only what moves on top.
            for artist in self.picture.moving:
                artist.set_animated(True)
            self._canvas = FigureCanvasAgg(self._figure)
            self._canvas.draw()
            self._background = self._canvas.copy_from_bbox(self._figure.bbox)
        self.image = widgets.Image(
            format="png", layout={"max_width": "100%", "height": "auto", "align_self": "flex-start"}
        )
        self.text = widgets.HTML()
        self.reset = widgets.Button(description="Reset", tooltip="Set all sliders back")
        self.reset.on_click(self._reset)
        for slider in self.sliders.values():
            slider.observe(self._redraw, names="value")
        self._redraw()
        super().__init__([*self.sliders.values(), self.reset, self.image, self.text])

    def _redraw(self, _change=None):
        settings = {name: slider.value for name, slider in self.sliders.items()}
        try:
            words = self.picture.update(**settings)
        except ValueError as reason:
            self._say(f"{reason} The picture shows the last setting that can be.")
            return
        self.image.value = self._blit()
        self._say(words)

    def _blit(self):
        self._canvas.restore_region(self._background)
        for artist in sorted(self.picture.moving, key=lambda artist: artist.get_zorder()):
            artist.axes.draw_artist(artist)
        buffer = io.BytesIO()
        pixels = np.asarray(self._canvas.buffer_rgba())
        Image.fromarray(pixels).convert("RGB").save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def _say(self, words):
        # An Image widget has no alt text (and breaks if given a tooltip): these words stand in.
        self.text.value = f'<p role="status" style="margin:0">{html.escape(words)}</p>'

    def _reset(self, _button):
        for name, value in self._start.items():
            self.sliders[name].value = value


def stills(picture, settings, *, titles=None, figsize=None):
    """Draw an explorer's picture at several settings, side by side.

    Parameters
    ----------
    picture : class
        `LineFit`, `Shrinkage`, …
    settings : sequence of dict
        One a column: the arguments of the picture's ``update``.
    titles : sequence of str, optional
        One a column; the settings by default.
    figsize : pair of float, optional
        Inches.

    Returns
    -------
    numpy.ndarray of Axes, shape (panels of the picture, settings)

    Examples
    --------
    >>> axes = stills(Shrinkage, [{"sigma": 5, "tau": 4, "n": n} for n in (2, 10, 40)])
    >>> axes.shape
    (2, 3)
    """
    settings = list(settings)
    titles = [None] * len(settings) if titles is None else list(titles)
    if not settings or len(titles) != len(settings):
        raise ValueError(
            f"titles has {len(titles)} entries and settings {len(settings)}: give at least one "
            "setting, and one title for each."
        )
    rows, columns = picture.panels, len(settings)
    size = (3.3 * columns + 0.3, 2.9 * rows + 0.2) if figsize is None else figsize
    _, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex="row", sharey="row")
    for column, setting, title in zip(axes.T, settings, titles, strict=True):
        picture(column).update(**setting)
        default = ", ".join(
            f"{SYMBOLS.get(name, name)} = {_short(value)}" for name, value in setting.items()
        )
        column[0].set_title(default if title is None else title, fontsize="medium")
        for ax in column[1:]:
            ax.set_title("")
    for ax in axes[:, 1:].ravel():
        ax.set_ylabel("")
    return axes


def _slider(kind, value, low, high, step, label):
    return kind(
        value=value,
        min=low,
        max=high,
        step=step,
        description=label,
        style={"description_width": "22em"},
        layout={"width": "min(100%, 46em)"},
        **({"readout_format": ".1f"} if kind is widgets.FloatSlider else {}),
    )


# ---------------------------------------------------------------------------------------------
# Least squares by hand


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
        return f"Slope {slope:.1f} points an hour: the squares add up to {total:,.0f}, " + (
            "and no slope on this slider does better."
            if abs(slope - self.best) <= 0.05
            else f"{total / self.least - 1:.0%} more than they need to."
        )


def line_fit(data=None):
    """Find the least-squares line by hand: one slider, for the slope.

    Parameters
    ----------
    data : pandas.DataFrame, optional
        As for `LineFit`.

    Returns
    -------
    Explorer
    """

    class Picture(LineFit):
        def __init__(self, axes):
            super().__init__(axes, data)

    low, high = LineFit.slopes
    slider = _slider(widgets.FloatSlider, 0.0, low, high, 0.1, "Slope (points an hour)")
    return Explorer(Picture, {"slope": slider}, figsize=(8.0, 4.1))


# ---------------------------------------------------------------------------------------------
# Shrinkage


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
        if sigma < 0 or tau < 0:
            raise ValueError(f"sigma={sigma!r}, tau={tau!r}: an SD can't be negative.")
        if sigma == 0 and tau == 0:
            raise ValueError(
                "sigma=0 and tau=0: every score would lie on the average line, and the factor "
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


def shrinkage():
    """Explore the shrinkage factor: the two SDs and the number of students on sliders.

    Returns
    -------
    Explorer
    """
    return Explorer(
        Shrinkage,
        {
            "sigma": _slider(
                widgets.FloatSlider, 5.0, 0, 15, 0.5, "SD of students in a school, σ (points)"
            ),
            "tau": _slider(widgets.FloatSlider, 4.0, 0, 10, 0.5, "SD between schools, τ (points)"),
            "n": _slider(widgets.IntSlider, 10, 1, 60, 1, "Students in the school, n"),
        },
    )


# ---------------------------------------------------------------------------------------------
# Power


def planned_hours(n):
    """Hours of n students planned evenly between 1 and 10: the middles of n equal parts.

    Examples
    --------
    >>> planned_hours(3)
    array([2.5, 5.5, 8.5])
    """
    return 1 + 9 * (np.arange(n) + 0.5) / n


def planned_fits(between, within, n_schools, n_students):
    """Fit random slopes by REML in closed form, where every school has the same hours.

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
    variance : numpy.ndarray
        Estimated variance of the scaled slopes, sampling included.
    residual : numpy.ndarray
        Estimated σ².
    ratio : numpy.ndarray
        Likelihood ratio (−2 log, REML) to the model with a random intercept alone.

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
    residual = np.where(low >= within, within, np.where(high >= one, one, both))
    first, second = np.maximum(high, residual), np.maximum(low, residual)
    turn = (var_1 - var_0) / (2 * radius)  # cosine of twice the angle of the first eigenvector
    variance = (first + second) / 2 + (first - second) / 2 * turn

    # Without a random slope, the scaled slopes are as good as residuals.
    alone = (inside * within + schools * var_1) / (inside + schools)
    alone = np.where(var_0 >= alone, alone, both)
    gain = np.log(np.maximum(var_0, alone)) + np.log(alone) - np.log(first) - np.log(second)
    ratio = schools * gain + inside * (np.log(alone) - np.log(residual))
    return variance, residual, np.maximum(ratio, 0)


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

    def _scales(self, n_students, sd_slope):
        """Covariance of what schools' own lines estimate, mean of hours and their squared sum."""
        hours = planned_hours(n_students)
        middle, squares = hours.mean(), ((hours - hours.mean()) ** 2).sum()
        shared = self.correlation * self.sd_intercept * sd_slope
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
        (var_0, cov, var_1), squares = self._scales(n_students, sd_slope)
        a, c = np.sqrt(var_0), cov / np.sqrt(var_0)
        b = np.sqrt(var_1 - c**2)
        s, t, u = self._scatter[:, n_schools - 2] / (J - 1)
        between = (a**2 * s, a * (c * s + b * t), c**2 * s + 2 * b * c * t + b**2 * u)
        df = J * (n_students - 2)
        within = self.sd_residual**2 * special.chdtri(df, self._share) / df

        variance, residual, ratio = planned_fits(between, within, J, n_students)
        estimate = slope + self._mean * np.sqrt(var_1 / squares / J)
        half_width = stats.t.isf(0.025, J - 1) * np.sqrt(variance / squares / J)
        sd = np.sqrt(np.maximum(variance - residual, 0) / squares)
        return {
            "power_slope": (np.abs(estimate) > half_width).mean(axis=1),
            "power_sd_slope": (ratio > self.least_ratio).mean(axis=1),
            "half_width": half_width.mean(axis=1),
            "rmse_sd_slope": np.sqrt(((sd - sd_slope) ** 2).mean(axis=1)),
        }


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
        self._check(n_schools, n_students, sd_slope)
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

    def _check(self, n_schools, n_students, sd_slope):
        for name, value, most in (
            ("n_schools", n_schools, self.schools[-1]),
            ("n_students", n_students, self.most_students),
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
        if sd_slope < 0:
            raise ValueError(f"sd_slope={sd_slope!r}: an SD can't be negative.")

    @staticmethod
    def _found(what, truth, share):
        if truth == 0:
            return f"{what} that is 0 raises a false alarm in {share:.0%} of studies"
        return f"{what} of {truth:g} points an hour is found in {share:.0%} of studies"


def power_curve():
    """Explore power and precision: numbers of schools and students, slope and its SD on sliders.

    Returns
    -------
    Explorer
    """
    return Explorer(
        PowerCurve,
        {
            "n_schools": _slider(widgets.IntSlider, 30, 1, 100, 1, "Schools, J (number)"),
            "n_students": _slider(widgets.IntSlider, 20, 1, 60, 1, "Students in each school, n"),
            "slope": _slider(
                widgets.FloatSlider, 0.5, 0, 2, 0.1, "True average slope, γ₁ (points an hour)"
            ),
            "sd_slope": _slider(
                widgets.FloatSlider, 0.8, 0, 2, 0.1, "True SD of slopes, τ₁ (points an hour)"
            ),
        },
        figsize=(9.0, 4.0),
    )
