"""The figures of the course: each takes ``ax=None`` and returns the Axes it drew on.

What is drawn is computed elsewhere: lines and deviations come from ``mixed``, simulations from
``simulate``. The one exception is a least-squares line, which is part of the picture.

The same thing looks the same in every lesson, and never by colour alone: one line for all is
dashed, the average line is dotted, a group's line after partial pooling is solid (blue where
roles are compared), and what a group says on its own is vermillion, thin and dash-dotted, or a
hollow point. The colours are those of Okabe & Ito, which stay apart for readers with a
colour-vision deficiency.
"""

import os
import sys
import textwrap
import warnings
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, FancyArrowPatch
from matplotlib.ticker import MaxNLocator
from scipy import optimize, stats

from helpers import mixed

INK = "#1f2328"
GREY = "#6e7781"
PALE = "#b6bec7"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
GROUP_COLOURS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
GROUP_MARKERS = ("o", "s", "^", "D", "v", "P")

POOLED = {"color": INK, "linestyle": (0, (5, 2.5)), "linewidth": 2.2, "zorder": 5}
AVERAGE = {"color": INK, "linestyle": (0, (1, 1.3)), "linewidth": 2.8, "zorder": 6}
OWN = {"color": VERMILLION, "linestyle": (0, (4, 1.5, 1, 1.5)), "linewidth": 1.9, "zorder": 8}
PARTIAL = {"color": BLUE, "linestyle": "-", "linewidth": 2.4, "zorder": 7}

# Size and opacity of points, up to a number of rows: the more, the smaller and fainter.
POINTS = ((100, (34, 0.6)), (1000, (20, 0.55)), (3000, (10, 0.4)), (np.inf, (5, 0.3)))

STYLE = {
    "figure.figsize": (8.0, 4.8),
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.09,
    "savefig.dpi": 110,
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "font.size": 12.5,
    "axes.titlesize": 13.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 12.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=GROUP_COLOURS),
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
    "lines.linewidth": 2.0,
}

# Names of the course's columns as an axis should say them, with units.
LABELS = {
    "app_hours": "Hours on the app",
    "math_score": "Maths score (points)",
    "mathach": "Maths achievement (points)",
    "ses": "Socioeconomic status (SD)",
    "meanses": "School's mean socioeconomic status (SD)",
    "cses": "Socioeconomic status, centred on the school's mean (SD)",
    "days": "Day of the study",
    "reaction": "Reaction time (ms)",
    "age": "Age (years)",
    "distance": "Pituitary to pterygomaxillary fissure (mm)",
    "weight": "Weight (g)",
    "bdi": "Beck depression score (points)",
}

# One unit of a predictor, for the label of a slope.
ONE_UNIT = {
    "app_hours": "an hour",
    "days": "a day",
    "age": "a year",
    "ses": "an SD",
    "cses": "an SD",
}


# In front of a room, type is larger. A letter is read without effort when it fills 15 minutes of
# arc: 4.4 cm at 10 m, on a screen 1.8 m high a capital of 1/41 of its height. Capitals are 0.7 of
# the size of their type, so type must be 1/30 of the screen. At 1.3 times the course's sizes that
# holds for every figure of up to 11 inches that fills the screen, and for one of 8 inches that
# fills three quarters of it.
LARGER = 1.3
STYLES = ("course", "presenter")
# A line of a legend in the presenter's style.
LEGEND_LETTERS = 22


def use_style(style=None):
    """Set the course's style for every figure drawn after this call.

    Starts from matplotlib's own defaults, so that neither a personal matplotlibrc, nor the
    order of calls, nor a second call makes a difference. In Jupyter it also fixes how inline
    figures are written: whole (not cropped to their ink), so that figures of one size have one
    size on the page, and without the version of matplotlib in the file.

    Parameters
    ----------
    style : {"course", "presenter"}, optional
        The presenter's has larger type, lines and points, to be read at 10 m. Without it, the
        environment variable COURSE_STYLE decides, so that a teacher has all lessons follow
        without editing a cell; without that too, it is the course's.

    Raises
    ------
    ValueError
        If there is no such style.
    """
    style = style or os.environ.get("COURSE_STYLE") or "course"
    if style not in STYLES:
        raise ValueError(f"style={style!r}: use one of {STYLES}, also for COURSE_STYLE.")
    mpl.style.use(["default", STYLE])
    mpl.rcParams["figure.hooks"] = ["helpers.plots:enlarge"] if style == "presenter" else []
    # Outside Jupyter there is nothing to configure, and importing IPython would cost time.
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from matplotlib_inline.config import InlineBackend

        InlineBackend.instance().print_figure_kwargs = {
            "bbox_inches": None,
            "metadata": {"Software": None},
            "pil_kwargs": {"optimize": True},
        }
        # A projector shows a figure larger than it was drawn: twice the pixels keep it sharp.
        InlineBackend.instance().figure_formats = {"retina" if style == "presenter" else "png"}


def is_presenting():
    """Whether figures are drawn in the presenter's style."""
    return bool(mpl.rcParams["figure.hooks"])


def enlarge(figure):
    """Draw a figure on a smaller sheet and print it larger, so that it keeps its size in pixels.

    Whatever matplotlib measures in points grows alike: type, lines, markers, arrows, and what a
    lesson sets by itself. Titles and labels that have become too long are broken into lines.
    pyplot calls this for each new figure in the presenter's style.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure(figsize=(6.5, 3.25), dpi=100)
    >>> enlarge(figure)
    >>> [round(float(side), 2) for side in figure.get_size_inches()], round(figure.dpi)
    ([5.0, 2.5], 130)
    """
    figure.set_size_inches(figure.get_size_inches() / LARGER)
    figure.set_dpi(figure.dpi * LARGER)
    pads = {side: mpl.rcParams[f"figure.constrained_layout.{side}"] for side in ("h_pad", "w_pad")}
    figure.set_layout_engine(_RoomForWords(**pads))


class _RoomForWords(ConstrainedLayoutEngine):
    """Constrained layout in which words that are too long for their place are made to fit."""

    def execute(self, fig):
        with warnings.catch_warnings():
            # As long as a word takes all the room there may be none for the axes.
            warnings.simplefilter("ignore")
            super().execute(fig)
        width, height = fig.bbox.size
        for ax in fig.axes:
            box, right = ax.bbox, _next_to(ax)
            for title in (ax.title, ax._left_title):
                _break(title, 0.96 * (right - box.x0))
            _break(ax.xaxis.label, width if len(fig.axes) == 1 else 1.02 * box.width)
            _break(ax.yaxis.label, min(height, 1.3 * box.height))
            if ax.get_legend() is not None:
                _shrink(ax.get_legend(), (0.5 if ax.get_legend()._ncols == 1 else 1) * box.width)
        for legend in fig.legends:
            _shrink(legend, 0.98 * width)
        for text, room in ((fig._suptitle, width), (fig._supylabel, height)):
            if text is not None:
                _break(text, 0.98 * room)
        super().execute(fig)


def _next_to(ax):
    """Where the next Axes of the same row begins, or the figure ends, in pixels."""
    beside = [
        other.bbox.x0
        for other in ax.figure.axes
        if other.bbox.x0 > ax.bbox.x0 and other.bbox.y0 < ax.bbox.y1 and other.bbox.y1 > ax.bbox.y0
    ]
    return min(beside, default=ax.figure.bbox.width)


def _break(text, room):
    """Break a text into lines that fit the room, in pixels; an equation stays whole."""
    words, box = text.get_text(), text.get_window_extent()
    length = box.height if text.get_rotation() == 90 else box.width
    if length <= room or "$" in words:
        return
    longest = max(map(len, words.splitlines()))
    lines = [textwrap.fill(line, int(longest * room / length)) for line in words.splitlines()]
    text.set_text("\n".join(lines))


def _shrink(legend, room):
    """Break the lines of a legend that is too wide for its room; then type as in the course."""
    texts, least = legend.get_texts(), mpl.rcParams["legend.fontsize"] / LARGER
    if legend.get_window_extent().width > room and legend._ncols == 1:
        for text in texts:
            text.set_text(textwrap.fill(text.get_text(), LEGEND_LETTERS))
    while legend.get_window_extent().width > room and texts[0].get_fontsize() > least:
        for text in texts:
            text.set_fontsize(max(0.95 * text.get_fontsize(), least))


def axis_label(name):
    """Say a column's name as an axis label, with its unit where the course knows it.

    Examples
    --------
    >>> axis_label("math_score"), axis_label("hours_slept")
    ('Maths score (points)', 'Hours slept')
    """
    name = str(name)
    text = name.replace("_", " ")
    return LABELS.get(name, text[:1].upper() + text[1:])


# ---------------------------------------------------------------------------------------------
# Lines over points


def pooled_line(data, x, y, *, ax=None, residuals=False, label="one line for all", points=True):
    """Scatter of y on x with one least-squares line through all rows, dashed.

    Parameters
    ----------
    data : pandas.DataFrame
        One row an observation; rows with a missing x or y are left out.
    x, y : str
        Columns of numbers.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure otherwise.
    residuals : bool
        Draw each point's vertical distance from the line.
    label : str or None
        Text at the line's end.
    points : bool
        Draw the points; False adds the line alone to a picture that has them.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        If `data` is not a DataFrame.
    ValueError
        If a column is missing or not numeric, or x has fewer than two values.
    """
    data = _columns(data, numeric={"x": x, "y": y})
    line = _least_squares(data[x], data[y], f"x={x!r}")
    ax = _axes(ax)
    if points:
        _scatter(ax, data, x, y, None, {})
    if residuals:
        fitted = line.at(data[x])
        ax.vlines(data[x], fitted, data[y], color=VERMILLION, linewidth=1, alpha=0.7, zorder=2)
    ends = _draw(ax, line, **POOLED)
    _label_ends(ax, [(*ends, label, INK)] if label else [])
    return ax


def separate_lines(data, x, y, group, *, ax=None, highlight=None, points=True):
    """Scatter of y on x with a least-squares line for each group: no pooling.

    Each line is as long as its group's range of x. Up to six groups get a colour, a marker and
    a label each; with more, lines are pale but for those in `highlight`.

    Parameters
    ----------
    data : pandas.DataFrame
        One row an observation; rows with a missing value are left out.
    x, y : str
        Columns of numbers.
    group : str
        Column with each row's group. A group whose x does not vary gets no line.
    ax : matplotlib.axes.Axes, optional
    highlight : sequence of group labels, optional
        Up to six groups to colour and label; the flattest and the steepest line by default,
        an empty list for none.
    points : bool

    Returns
    -------
    matplotlib.axes.Axes
    """
    data = _columns(data, numeric={"x": x, "y": y}, group=group)
    lines = _own_lines(data, x, y, group)
    if not lines:
        raise ValueError(f"x={x!r} varies within no group of {group!r}: no line can be drawn.")
    ax = _axes(ax)
    looks = _looks(_sorted(data[group]), highlight, lines, by="slope")
    if points:
        _scatter(ax, data, x, y, group, looks)
    _label_ends(ax, _draw_groups(ax, lines, looks, group))
    return ax


def parallel_lines(fit, x, *, ax=None, highlight=None, points=True, full_range=False):
    """School lines of a random-intercept fit: parallel, with the average line dotted.

    Parameters are those of `group_lines`; the highest and the lowest line are highlighted by
    default.

    Raises
    ------
    ValueError
        If the slope of x varies between the groups of the fit: use `group_lines`.
    """
    if x in _random_terms(fit):
        raise ValueError(
            f"fit has a random slope of {x!r}, so its lines are not parallel: use group_lines, or "
            "fit without re_formula."
        )
    return _model_picture(fit, x, ax, highlight, points, full_range, by="intercept")


def group_lines(fit, x, *, ax=None, highlight=None, points=True, full_range=False):
    """Each group's line, fixed effects plus BLUPs, solid; the average line dotted.

    Parameters
    ----------
    fit : result of ``mixed.fit``
        With `x` as one of its terms. Other terms are held at their mean in the data.
    x : str
        The term on the horizontal axis.
    ax : matplotlib.axes.Axes, optional
    highlight : sequence of group labels, optional
        Up to six groups to colour and label. By default all of them when there are six or
        fewer, else the flattest and the steepest line; an empty list for none.
    points : bool
        Draw the observations.
    full_range : bool
        Draw every line over the whole range of x rather than over its group's own.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `x` is not a term of the fit or also sits in an interaction, or `highlight` names an
        unknown group or more than six.
    """
    return _model_picture(fit, x, ax, highlight, points, full_range, by="slope")


def three_way(fit, x, *, ax=None, highlight=None, full_range=False):
    """Three answers in one picture: one line for all, the average line, a line for each group.

    Least squares through all rows is dashed, the average line of the fit is dotted, and the
    groups' lines from the fit are solid. Parameters are those of `group_lines`.
    """
    return _model_picture(fit, x, ax, highlight, True, full_range, by="slope", pooled=True)


def three_panels(data, x, y, group, intercepts, slopes, *, axes=None, highlight=None):
    """The course in one picture: one line, parallel lines, beyond parallel, on the same axes.

    Parameters
    ----------
    data : pandas.DataFrame
    x, y, group : str
        Columns of `data`.
    intercepts, slopes : results of ``mixed.fit``
        The random-intercept and the random-slope fit to `data`.
    axes : sequence of three Axes, optional
        A new figure of 11 × 4.2 inches otherwise.
    highlight : sequence of group labels, optional
        The same groups are highlighted in the second and the third panel; by default the
        flattest and the steepest line of the third.

    Returns
    -------
    numpy.ndarray of three Axes
    """
    data = _columns(data, numeric={"x": x, "y": y}, group=group)
    if axes is None:
        _, axes = plt.subplots(1, 3, figsize=(11, 4.4), sharex=True, sharey=True)
    axes = np.asarray(axes, dtype=object).ravel()
    if axes.size != 3:
        raise ValueError(f"axes holds {axes.size} Axes: three_panels needs 3.")
    looks = _looks(_sorted(data[group]), highlight, _fit_lines(slopes, x), by="slope")
    _scatter(axes[0], data, x, y, group, {})
    _draw(axes[0], _least_squares(data[x], data[y], f"x={x!r}"), **POOLED)
    for ax, fit in zip(axes[1:], (intercepts, slopes), strict=True):
        _scatter(ax, data, x, y, group, looks)
        ends = _draw_groups(ax, _fit_lines(fit, x), looks, group)
        ends.append((*_draw(ax, _average_line(fit, x), **AVERAGE), "average line", INK))
        ax.set_ylabel("")
    _same_limits(axes)
    _label_ends(axes[2], ends)
    noun = _noun(group)
    for ax, title, text in zip(
        axes,
        ("One line", "Parallel lines", "Beyond parallel lines"),
        (f"the same for every {noun}", f"each {noun} may shift", f"each {noun} may shift and tilt"),
        strict=True,
    ):
        ax.set_title(title, pad=26)
        ax.text(0, 1.03, text, transform=ax.transAxes, color=GREY)
    return axes


def panel(data, x, y, group, *, groups=None, fit=None, axes=None, n_columns=4):
    """Small multiples: a group a panel, ordered by size, each with its lines, same limits.

    A panel is headed by its group, with the number of rows where groups differ in it. Every
    panel has the group's own least-squares line (no pooling) and one line that is the
    same in all: through all rows, or, with a fit, the average line. With a fit the group's line
    after partial pooling is added.

    Parameters
    ----------
    data : pandas.DataFrame
    x, y, group : str
        Columns of `data`.
    groups : sequence of group labels, optional
        Which groups, drawn from the fewest rows to the most. By default eight, spread evenly
        over the groups as ordered by size (and, among equals, by the slope of their own line).
    fit : result of ``mixed.fit``, optional
    axes : sequence of Axes, optional
        One for each group; a new figure otherwise.
    n_columns : int
        Columns of the new figure.

    Returns
    -------
    numpy.ndarray of Axes
        As many as groups.
    """
    data = _columns(data, numeric={"x": x, "y": y}, group=group)
    own = _own_lines(data, x, y, group)
    groups = _panel_groups(data[group], own, groups)
    sizes = data[group].value_counts().loc[groups]
    partial = {} if fit is None else _fit_lines(fit, x)
    shared = _least_squares(data[x], data[y], f"x={x!r}") if fit is None else _average_line(fit, x)
    axes = _panel_axes(axes, len(groups), n_columns)
    for ax, label in zip(axes, groups, strict=True):
        rows = data[data[group] == label]
        ax.scatter(rows[x], rows[y], s=24, color=INK, alpha=0.6, linewidths=0, zorder=3)
        _draw(ax, shared, **(POOLED if fit is None else AVERAGE) | {"linewidth": 2})
        if label in own:
            _draw(ax, own[label], **OWN)
        if label in partial:
            _draw(ax, partial[label].over(data[x]), **PARTIAL)
        size = f", n = {len(rows)}" if sizes.nunique() > 1 else ""
        ax.set_title(_say(label, group) + size, fontsize=12, pad=4)
    _same_limits(axes, data[x], data[y])
    _finish_panel(axes, x, y, group, fit is not None)
    return axes


# ---------------------------------------------------------------------------------------------
# Shrinkage and group effects


def shrinkage(fit, terms=None, *, ax=None, highlight=()):
    """Each group's estimate on its own, and where partial pooling moves it.

    For one term: estimates against the number of rows of the group (or against rank, when all
    groups have the same number). For two: the plane of the two coefficients, with the ellipse
    that the fit expects to hold 95 % of groups.

    A group's estimate on its own is least squares within the group for the terms that vary
    between groups, the other terms held at the fit's. Where a group has too few rows for that,
    only its partial-pooling estimate is drawn.

    Parameters
    ----------
    fit : result of ``mixed.fit``
    terms : str or pair of str, optional
        Terms that vary between groups; by default the first two, or the only one.
    ax : matplotlib.axes.Axes, optional
    highlight : sequence of group labels
        Groups to name.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If a term does not vary between the groups of the fit, or there are more than two.
    """
    names = _random_terms(fit)
    terms = names[:2] if terms is None else ([terms] if isinstance(terms, str) else list(terms))
    for term in terms:
        _check_random_term(fit, term)
    if len(terms) not in (1, 2):
        raise ValueError(f"terms={terms!r} has {len(terms)} terms: name one or two of {names}.")
    own = _own_estimates(fit)
    partial = _estimates(fit).loc[own.index]
    _check_groups(highlight, own.index)
    ax = _axes(ax)
    if len(terms) == 1:
        return _shrinkage_by_size(ax, fit, own[terms[0]], partial[terms[0]], highlight)
    return _shrinkage_plane(ax, fit, own[terms], partial[terms], highlight)


def covariance_ellipse(fit, terms=None, *, mean=None, level=0.95, ax=None, **style):
    """The ellipse that holds a share of groups' coefficients, by the fit's covariance matrix.

    Parameters
    ----------
    fit : result of ``mixed.fit``, or array of shape (2, 2)
        A covariance matrix may be given as such.
    terms : pair of str, optional
        Which two random terms of the fit; the first two by default.
    mean : pair of float, optional
        The centre: the fixed effects of the fit, or zero for a matrix.
    level : float
        Share of a bivariate normal inside, between 0 and 1.
    ax : matplotlib.axes.Axes, optional
    **style
        Passed to ``matplotlib.patches.Ellipse``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level!r} is not between 0 and 1: give a share such as 0.95.")
    if hasattr(fit, "cov_re"):
        names = _random_terms(fit)
        terms = names[:2] if terms is None else list(terms)
        for term in terms:
            _check_random_term(fit, term)
        at = [names.index(term) for term in terms]
        cov = np.asarray(fit.cov_re, dtype=float)[np.ix_(at, at)]
        mean = fit.fe_params[terms].to_numpy() if mean is None else mean
    else:
        cov = np.asarray(fit, dtype=float)
    if cov.shape != (2, 2):
        raise ValueError(f"fit gives a covariance matrix of shape {cov.shape}: two terms needed.")
    values, vectors = np.linalg.eigh(cov)
    width, height = 2 * np.sqrt(np.clip(values, 0, None) * stats.chi2.ppf(level, 2))
    angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
    look = {"facecolor": "none", "edgecolor": GREY, "linewidth": 1.6, "linestyle": "--"} | style
    ax = _axes(ax)
    ellipse = Ellipse((0, 0) if mean is None else tuple(mean), width, height, angle=angle, **look)
    ax.add_patch(ellipse)
    ax.autoscale_view()
    return ax


def caterpillar(fit, term="Intercept", *, level=0.95, ax=None, highlight=None):
    """Groups' deviations from the average (BLUPs) in order, each with its interval.

    Intervals that leave out zero have a filled point, the others a hollow one. The intervals
    take the fixed effects and the variance components as known.

    Parameters
    ----------
    fit : result of ``mixed.fit``
    term : str
        The coefficient that varies between groups.
    level : float
        Level of the intervals.
    ax : matplotlib.axes.Axes, optional
    highlight : sequence of group labels, optional
        Groups to name; by default the first and the last. An empty list names none.

    Returns
    -------
    matplotlib.axes.Axes
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level!r} is not between 0 and 1: give a share such as 0.95.")
    _check_random_term(fit, term)
    table = mixed.group_coefficients(fit)
    table = table[table["term"] == term].sort_values("blup", kind="stable").set_index("group")
    ends = [table.index[0], table.index[-1]]
    highlight = ends if highlight is None else highlight
    _check_groups(highlight, table.index)
    ax = _axes(ax)
    blup = table["blup"].to_numpy()
    half = stats.norm.ppf(0.5 + level / 2) * table["sd"].to_numpy()
    named = table.index.isin(highlight)
    apart = np.abs(blup) > half
    ax.axhline(0, **AVERAGE | {"linewidth": 2})
    for rows, face, colour in (
        (~apart & ~named, "white", GREY),
        (apart & ~named, BLUE, BLUE),
        (~apart & named, "white", VERMILLION),
        (apart & named, VERMILLION, VERMILLION),
    ):
        _intervals(ax, np.flatnonzero(rows), blup[rows], half[rows], face, colour, len(table))
    noun = _noun(_group_name(fit))
    for at in np.flatnonzero(named):
        _name_interval(ax, at, blup[at], half[at], _say(table.index[at], noun))
    ax.margins(x=0.03, y=0.12)
    _rank_axis(ax, table.index, noun, f"in order, with {level:.0%} intervals")
    ax.set_ylabel(f"Deviation from the average{_coefficient_unit(fit, term)}")
    return ax


# ---------------------------------------------------------------------------------------------
# Variances, sampling distributions, residuals


def variance_function(fit, x, *, values=None, scale="sd", ax=None):
    """How the spread of the outcome changes with x, between groups and within.

    Between groups, Var = τ₀² + 2·τ₀₁·x + τ₁²·x² for a random intercept and a random slope of x;
    within, the residual variance.

    Parameters
    ----------
    fit : result of ``mixed.fit``
    x : str
        A term of the fit.
    values : array_like, optional
        Where on x; the range of the data by default.
    scale : {"sd", "variance"}
        SDs as three lines (they do not add up), or variances as two stacked areas (they do).
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    if scale not in ("sd", "variance"):
        raise ValueError(f"scale={scale!r}: use 'sd' or 'variance'.")
    data = _observations(fit, x)
    if values is None:
        values = np.linspace(data[x].min(), data[x].max(), 101)
    values = np.asarray(values, dtype=float)
    between = _between_variance(fit, x, values)
    ax = _axes(ax)
    ax.set_xlabel(axis_label(x))
    outcome, unit = _label_and_unit(fit.model.endog_names)
    noun = _noun(_group_name(fit))
    if scale == "variance":
        _stacked_variances(ax, values, between, fit.scale, noun)
        ax.set_ylabel(f"{outcome}: variance" + (f" ({unit}²)" if unit else ""))
    else:
        _sd_lines(ax, values, between, fit.scale, noun)
        ax.set_ylabel(f"{outcome}: SD" + (f" ({unit})" if unit else ""))
    ax.set_ylim(bottom=0)
    return ax


def sampling(estimates, *, truth=None, claimed_se=None, ax=None, xlabel="Estimate", bins=40):
    """Histogram of simulated estimates, with the normal curve that a standard error claims.

    Parameters
    ----------
    estimates : array_like of shape (replicates,)
        One estimate a simulated data set.
    truth : float, optional
        The true value: a dotted line, and the centre of the curve (else the mean is).
    claimed_se : float, optional
        SD of the curve.
    ax : matplotlib.axes.Axes, optional
    xlabel : str
    bins : int

    Returns
    -------
    matplotlib.axes.Axes
    """
    estimates = np.asarray(estimates, dtype=float)
    if estimates.ndim != 1 or estimates.size < 2 or not np.isfinite(estimates).all():
        raise ValueError(
            f"estimates has shape {estimates.shape} and {np.sum(~np.isfinite(estimates))} values "
            "that are not finite: give one finite number a replicate, at least two."
        )
    if claimed_se is not None and not claimed_se > 0:
        raise ValueError(f"claimed_se={claimed_se!r} is not positive: give an SD.")
    ax = _axes(ax)
    ax.hist(estimates, bins=bins, density=True, color=PALE, edgecolor="white", linewidth=0.5)
    handles = [Line2D([], [], color=PALE, linewidth=8, label=f"{estimates.size:,} simulations")]
    if claimed_se is not None:
        centre = estimates.mean() if truth is None else truth
        grid = centre + claimed_se * np.linspace(-4, 4, 201)
        claim = "what the standard error claims"
        curve = stats.norm.pdf(grid, centre, claimed_se)
        handles += ax.plot(grid, curve, color=VERMILLION, zorder=5, label=claim)
    if truth is not None:
        handles.append(ax.axvline(truth, **AVERAGE, label="truth"))
    ax.legend(handles=handles, loc="best")
    ax.set_xlabel(xlabel)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    return ax


def residuals(fit, *, by=None, ax=None, highlight=None):
    """Residuals against fitted values, or side by side for each group.

    Parameters
    ----------
    fit : a statsmodels result
        Anything with ``fittedvalues`` and ``resid``: ``smf.ols(...).fit()`` or ``mixed.fit``.
    by : array_like of group labels, optional
        One label a row: draws each group's residuals in a strip, groups ordered by their mean
        residual, which is marked. Independent rows would give a level band.
    ax : matplotlib.axes.Axes, optional
    highlight : sequence of group labels, optional
        With `by`, groups to name; by default the first and the last. An empty list names none.

    Returns
    -------
    matplotlib.axes.Axes
    """
    resid = np.asarray(fit.resid, dtype=float)
    if by is not None:
        if len(by) != len(resid):
            raise ValueError(
                f"by has {len(by)} labels for {len(resid)} residuals: give one a row, in order."
            )
        _check_groups(() if highlight is None else highlight, pd.unique(pd.Series(by)))
    ax = _axes(ax)
    ax.axhline(0, color=INK, linewidth=1, zorder=1)
    if by is None:
        ax.scatter(np.asarray(fit.fittedvalues), resid, s=24, color=BLUE, alpha=0.5, linewidths=0)
        ax.set_xlabel(f"Fitted: {axis_label(fit.model.endog_names)}")
    else:
        _residual_strips(ax, resid, by, highlight)
    unit = _label_and_unit(fit.model.endog_names)[1]
    ax.set_ylabel(f"Residual ({unit})" if unit else "Residual")
    return ax


def qq(values, *, ax=None, ylabel="Ordered values", label=None):
    """Normal quantile plot: ordered values against those of a normal, with the line they'd follow.

    Parameters
    ----------
    values : array_like of shape (n,)
        Residuals or BLUPs; missing values are left out.
    ax : matplotlib.axes.Axes, optional
    ylabel : str
    label : str, optional
        Text at the line's end.

    Returns
    -------
    matplotlib.axes.Axes
    """
    values = np.asarray(values, dtype=float).ravel()
    values = values[np.isfinite(values)]
    if values.size < 3:
        raise ValueError(f"values has {values.size} finite numbers: a Q–Q plot needs 3 or more.")
    (expected, ordered), (slope, intercept, _) = stats.probplot(values)
    ax = _axes(ax)
    line = _Line(intercept, slope, expected[0], expected[-1])
    ends = _draw(ax, line, color=GREY, linewidth=1.4, zorder=2)
    ax.scatter(expected, ordered, s=28, color=BLUE, alpha=0.7, linewidths=0, zorder=3)
    _label_ends(ax, [(*ends, label, GREY)] if label else [])
    ax.set_xlabel("Normal quantile")
    ax.set_ylabel(ylabel)
    return ax


# ---------------------------------------------------------------------------------------------
# Lines and where they come from


@dataclass(frozen=True)
class _Line:
    """A line over a range of x."""

    intercept: float
    slope: float
    low: float
    high: float

    def at(self, x):
        return self.intercept + self.slope * np.asarray(x, dtype=float)

    def over(self, x):
        """Return the same line over the range of `x`."""
        return _Line(self.intercept, self.slope, float(np.min(x)), float(np.max(x)))


def _least_squares(x, y, what):
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    deviation = x - x.mean()
    if not deviation.any():
        raise ValueError(f"{what} takes a single value: a line needs two or more.")
    slope = deviation @ y / (deviation @ deviation)
    return _Line(y.mean() - slope * x.mean(), slope, x.min(), x.max())


def _own_lines(data, x, y, group):
    """Least-squares line of each group whose x varies."""
    return {
        label: _least_squares(rows[x], rows[y], f"x={x!r}")
        for label, rows in data.groupby(group, observed=True)
        if rows[x].nunique() > 1
    }


def _observations(fit, x):
    """Columns x, outcome and group of a fit, as the model sees them."""
    model = fit.model
    names = list(model.exog_names)
    if x not in names:
        raise ValueError(f"x={x!r} is not a term of the fit: name one of {names}.")
    return pd.DataFrame(
        {
            x: model.exog[:, names.index(x)],
            model.endog_names: model.endog,
            _group_name(fit): np.asarray(model.groups),
        }
    )


def _average_line(fit, x):
    """Line of the fixed effects, other terms at their mean."""
    data = _observations(fit, x)
    return _with_offset(fit, x, fit.fe_params.get("Intercept", 0.0), fit.fe_params[x]).over(data[x])


def _with_offset(fit, x, intercept, slope):
    """Add what the terms other than the intercept and x contribute at their mean."""
    names = list(fit.model.exog_names)
    others = [name for name in names if name not in ("Intercept", x)]
    for name in others:
        if x in name.split(":"):
            raise ValueError(
                f"x={x!r} is part of the interaction {name!r}, so its slope depends on another "
                "term: draw predictions of mixed.predict."
            )
    means = fit.model.exog.mean(axis=0)
    offset = sum(fit.fe_params[name] * means[names.index(name)] for name in others)
    return _Line(intercept + offset, slope, 0.0, 0.0)


def _fit_lines(fit, x):
    """Line of each group by fixed effects plus BLUPs, over the group's range of x."""
    data = _observations(fit, x)
    table = _estimates(fit)
    lines = {}
    for label, rows in data.groupby(_group_name(fit), observed=True):
        own = table.loc[label]
        intercept = own.get("Intercept", fit.fe_params.get("Intercept", 0.0))
        slope = own.get(x, fit.fe_params[x])
        lines[label] = _with_offset(fit, x, intercept, slope).over(rows[x])
    return lines


def _estimates(fit):
    """Estimate of each varying coefficient, a row a group."""
    table = mixed.group_coefficients(fit)
    table = table[table["term"].isin(_random_terms(fit))]
    return table.pivot(index="group", columns="term", values="estimate")


def _own_estimates(fit):
    """Least squares within each group for the varying terms, the other terms as in the fit."""
    model, terms = fit.model, _random_terms(fit)
    fixed = np.asarray(fit.fe_params)
    is_random = np.isin(model.exog_names, terms)
    rest = model.endog - model.exog[:, ~is_random] @ fixed[~is_random]
    design = np.asarray(model.exog_re)
    rows = {}
    for label in _sorted(model.groups):
        mine = np.asarray(model.groups) == label
        solution, _, rank, _ = np.linalg.lstsq(design[mine], rest[mine], rcond=None)
        rows[label] = solution if rank == len(terms) else np.full(len(terms), np.nan)
    return pd.DataFrame.from_dict(rows, orient="index", columns=terms)


def _random_terms(fit):
    """Names of the terms that vary between groups, the intercept as Intercept."""
    names = list(fit.model.data.exog_re_names)
    return [name if name in fit.model.exog_names else "Intercept" for name in names]


def _between_variance(fit, x, values):
    names = _random_terms(fit)
    for name in names:
        if name not in ("Intercept", x):
            raise ValueError(
                f"fit also has a random slope of {name!r}: the variance then depends on more than "
                f"x={x!r}, and one curve can't show it."
            )
    design = np.column_stack([np.ones_like(values) if n == "Intercept" else values for n in names])
    return np.einsum("ij,jk,ik->i", design, np.asarray(fit.cov_re), design)


# ---------------------------------------------------------------------------------------------
# Drawing


def _axes(ax):
    return plt.subplots()[1] if ax is None else ax


def _draw(ax, line, **style):
    """Draw a line over its range; return its right end."""
    ax.plot([line.low, line.high], line.at([line.low, line.high]), **style)
    return line.high, float(line.at(line.high))


def _draw_groups(ax, lines, looks, group):
    """Draw groups' lines; return the ends of those to label."""
    ends = []
    for label, line in lines.items():
        look = looks.get(label)
        if look is None:
            _draw(ax, line, color=PALE, linewidth=1.1 if len(lines) <= 60 else 0.7, zorder=2.5)
        else:
            end = _draw(ax, line, color=look[0], linewidth=2.4, zorder=7)
            ends.append((*end, _say(label, group), look[0]))
    return ends


def _scatter(ax, data, x, y, group, looks):
    """Points, with colour and marker for the groups in `looks`, pale for the others."""
    size, alpha = next(look for most, look in POINTS if len(data) <= most)
    rest = data[~data[group].isin(list(looks))] if looks else data
    look = {"color": PALE, "s": 0.7 * size} if looks else {"color": BLUE, "s": size}
    ax.scatter(rest[x], rest[y], alpha=alpha, linewidths=0, zorder=1.5, **look)
    for label, (colour, marker) in looks.items():
        rows = data[data[group] == label]
        ax.scatter(
            rows[x], rows[y], s=36, color=colour, marker=marker, alpha=0.85, linewidths=0, zorder=3
        )
    _name_axes(ax, x, y)


def _model_picture(fit, x, ax, highlight, points, full_range, *, by, pooled=False):
    data = _observations(fit, x)
    group, y = _group_name(fit), fit.model.endog_names
    lines = _fit_lines(fit, x)
    if full_range:
        lines = {label: line.over(data[x]) for label, line in lines.items()}
    looks = _looks(list(lines), highlight, lines, by=by)
    ax = _axes(ax)
    if points:
        _scatter(ax, data, x, y, group, looks)
    else:
        _name_axes(ax, x, y)
    ends = _draw_groups(ax, lines, looks, group)
    ends.append((*_draw(ax, _average_line(fit, x), **AVERAGE), "average line", INK))
    if pooled:
        line = _least_squares(data[x], data[y], f"x={x!r}")
        ends.append((*_draw(ax, line, **POOLED), "one line for all", INK))
    _label_ends(ax, ends)
    return ax


def _looks(labels, highlight, lines, *, by):
    """Colour and marker of each group to highlight."""
    if highlight is None:
        few = len(labels) <= len(GROUP_COLOURS)
        highlight = list(labels) if few else _default_highlight(lines, by=by)
    _check_groups(highlight, labels)
    if len(highlight) > len(GROUP_COLOURS):
        raise ValueError(
            f"highlight names {len(highlight)} groups, and there are {len(GROUP_COLOURS)} colours "
            "that stay apart: name fewer."
        )
    return dict(zip(highlight, zip(GROUP_COLOURS, GROUP_MARKERS, strict=True), strict=False))


def _default_highlight(lines, *, by):
    """Label of the lowest and of the highest line (or of the flattest and the steepest)."""
    ordered = sorted(lines, key=lambda label: getattr(lines[label], by))
    return [ordered[0], ordered[-1]]


def _label_ends(ax, ends):
    """Write labels right of the axes, level with their line's end, moved apart where they touch.

    `ends` holds (x, y, text, colour). The limits are frozen, so that labels stay level.
    """
    if not ends:
        return
    ends = sorted(ends, key=lambda end: end[1])
    ax.set_xlim(ax.get_xlim())
    low, high = ax.set_ylim(ax.get_ylim())
    height = ax.get_position().height * ax.figure.get_size_inches()[1] * 72
    size = mpl.rcParams["font.size"] - 1
    gap = (high - low) * 1.25 * size / height
    steps = gap * np.arange(len(ends))
    # The nearest heights with a gap between neighbours, by isotonic regression.
    places = optimize.isotonic_regression([end[1] for end in ends] - steps).x + steps
    for (x, y, text, colour), place in zip(ends, places, strict=True):
        ax.annotate(
            text,
            (x, y),
            xytext=(1.03, place),
            textcoords=ax.get_yaxis_transform(),
            va="center",
            fontsize=size,
            color=_darker(colour),
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.8,
                "alpha": 0.6,
                "shrinkB": 2,
            },
            annotation_clip=False,
        )


def _name_axes(ax, x, y):
    ax.set_xlabel(axis_label(x))
    ax.set_ylabel(axis_label(y))


def _same_limits(axes, x=None, y=None):
    """Give all panels the widest limits of any, or those of the data given."""
    for values, get, put in ((x, "get_xlim", "set_xlim"), (y, "get_ylim", "set_ylim")):
        if values is None:
            low, high = zip(*(getattr(ax, get)() for ax in axes), strict=True)
            limits = min(low), max(high)
        else:
            margin = 0.06 * (values.max() - values.min())
            limits = values.min() - margin, values.max() + margin
        for ax in axes:
            getattr(ax, put)(*limits)


def _panel_groups(labels, own, groups):
    """Check the groups asked for, or choose eight; from the smallest to the largest."""
    sizes = labels.value_counts()

    def by_size(label):
        return sizes[label], own[label].slope if label in own else 0.0

    ordered = sorted(_sorted(labels), key=by_size)
    if groups is None:
        picks = np.linspace(0, len(ordered) - 1, min(8, len(ordered))).round().astype(int)
        return [ordered[pick] for pick in picks]
    _check_groups(groups, ordered, argument="groups")
    return [label for label in ordered if label in set(groups)]


def _panel_axes(axes, n, n_columns):
    if axes is None:
        n_columns = min(n_columns, n)
        n_rows = -(-n // n_columns)
        width = min(3.0, 10 / n_columns)
        size = (width * n_columns + 0.4, 0.95 * width * n_rows + 0.8)
        _, axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False)
        axes = axes.ravel()
        for spare in axes[n:]:
            spare.remove()
        for at, ax in enumerate(axes[:n]):
            ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
            ax.tick_params(labelleft=at % n_columns == 0, labelbottom=at + n_columns >= n)
        return axes[:n]
    axes = np.asarray(axes, dtype=object).ravel()
    if axes.size != n:
        raise ValueError(f"axes holds {axes.size} Axes for {n} groups: give one a group.")
    return axes


def _finish_panel(axes, x, y, group, has_fit):
    """Name the axes once and say what the three kinds of line are."""
    figure = axes[0].figure
    noun = _noun(group)
    kinds = [(OWN, f"{noun}'s own line (no pooling)")]
    if has_fit:
        kinds += [(PARTIAL, "partial pooling"), (AVERAGE, "average line")]
    else:
        kinds += [(POOLED, "one line for all")]
    handles = [Line2D([], [], **style, label=text) for style, text in kinds]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), handlelength=2.6)
    figure.supxlabel(axis_label(x), fontsize=mpl.rcParams["axes.labelsize"])
    figure.supylabel(axis_label(y), fontsize=mpl.rcParams["axes.labelsize"])


def _shrinkage_by_size(ax, fit, own, partial, highlight):
    sizes = pd.Series(np.asarray(fit.model.groups)).value_counts().loc[own.index]
    noun = _noun(_group_name(fit))
    if sizes.nunique() == 1:
        at = own.rank(method="first")
        ax.set_xlabel(f"{len(own)} {noun}s of {sizes.iloc[0]} rows, by their own estimate")
        ax.set_xticks([])
    else:
        at = _apart(sizes)
        ax.set_xlabel(f"Size of the {noun} (rows)")
    ax.axhline(fit.fe_params[own.name], **AVERAGE | {"zorder": 1})
    _arrows(ax, at, own, at, partial)
    _name_groups(ax, at, partial, highlight, noun)
    _key_to_arrows(ax)
    mean_only = list(fit.model.exog_names) == ["Intercept"]
    what = f"Mean of the {noun}" if mean_only else _coefficient_name(own.name)
    ax.set_ylabel(what + _coefficient_unit(fit, own.name))
    return ax


def _shrinkage_plane(ax, fit, own, partial, highlight):
    (a, b), noun = own.columns, _noun(_group_name(fit))
    covariance_ellipse(fit, [a, b], ax=ax)
    _limit_to_ellipse(ax, own, partial)
    _arrows(ax, own[a], own[b], partial[a], partial[b])
    ax.scatter(*fit.fe_params[[a, b]], marker="+", s=160, color=INK, linewidth=2.4, zorder=8)
    _name_groups(ax, partial[a], partial[b], highlight, noun)
    _key_to_arrows(ax)
    ax.set_xlabel(_coefficient_name(a) + _coefficient_unit(fit, a))
    ax.set_ylabel(_coefficient_name(b) + _coefficient_unit(fit, b))
    return ax


def _limit_to_ellipse(ax, own, partial):
    """Show the ellipse and its surroundings, and say how many estimates lie beyond them.

    A group of two or three rows can have an estimate so far out that nothing else can be seen.
    """
    inside = pd.Series(True, index=own.index)
    for name, get, put in zip(own, ("xlim", "ylim"), (ax.set_xlim, ax.set_ylim), strict=True):
        low, high = getattr(ax, f"get_{get}")()
        reach = 0.5 * (high - low)
        near = own[name].between(low - reach, high + reach) | own[name].isna()
        shown = pd.concat([own[name][near], partial[name], pd.Series([low, high])])
        margin = 0.05 * (shown.max() - shown.min())
        put(shown.min() - margin, shown.max() + margin)
        inside &= near
    beyond = int((~inside).sum())
    if beyond:
        ax.text(
            0.99,
            0.02,
            f"{beyond} arrow{'s' * (beyond > 1)} from outside the picture",
            ha="right",
            color=GREY,
            transform=ax.transAxes,
            fontsize="small",
        )


def _arrows(ax, x_from, y_from, x_to, y_to):
    """Hollow points, filled points, and an arrow from the one to the other for each row."""
    for x0, y0, x1, y1 in zip(x_from, y_from, x_to, y_to, strict=True):
        if np.isfinite([x0, y0]).all():
            style = "-|>,head_width=2.2,head_length=4"
            look = {"arrowstyle": style, "mutation_scale": 1, "color": GREY, "linewidth": 0.9}
            ax.add_patch(FancyArrowPatch((x0, y0), (x1, y1), shrinkA=3, shrinkB=3, **look))
    ax.scatter(
        x_from, y_from, s=36, facecolor="white", edgecolor=VERMILLION, linewidth=1.5, zorder=3
    )
    ax.scatter(x_to, y_to, s=36, color=BLUE, linewidths=0, zorder=4)


def _key_to_arrows(ax):
    """Say what the two kinds of point are, in a strip left free above them."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.12 * (high - low))
    dot = {"marker": "o", "linestyle": "", "markersize": 6.5}
    hollow = dot | {"markerfacecolor": "white", "color": VERMILLION, "markeredgewidth": 1.5}
    handles = [
        Line2D([], [], **hollow, label="on its own (no pooling)"),
        Line2D([], [], **dot, color=BLUE, label="after partial pooling"),
    ]
    ax.legend(handles=handles, loc="upper left", ncols=2, handletextpad=0.2, borderaxespad=0)


def _name_groups(ax, x, y, highlight, noun):
    for label in highlight:
        ax.annotate(
            _say(label, noun), (x[label], y[label]), xytext=(6, 4), textcoords="offset points"
        )


def _apart(sizes):
    """Sizes as positions, with equal ones side by side around their value."""
    within = sizes.groupby(sizes).cumcount()
    count = sizes.map(sizes.value_counts())
    step = 0.8 / count.max() if count.max() > 1 else 0.0
    return sizes + (within - (count - 1) / 2) * step


def _stacked_variances(ax, values, between, residual, noun):
    ax.fill_between(values, 0, residual, color=PALE, linewidth=0)
    ax.fill_between(values, residual, residual + between, color=BLUE, alpha=0.75, linewidth=0)
    widest = between.argmax()
    at = 0.25 * values[len(values) // 2] + 0.75 * values[widest]
    height = residual + 0.5 * np.interp(at, values, between)
    ax.text(values.mean(), residual / 2, f"within {noun}s (residual)", ha="center", va="center")
    ax.text(
        at, height, f"between {noun}s", ha="center", va="center", fontweight="bold", color="white"
    )
    ax.set_xlim(values.min(), values.max())


def _sd_lines(ax, values, between, residual, noun):
    kinds = (
        ("total", np.sqrt(between + residual), {"color": INK, "linewidth": 2.6}),
        (f"between {noun}s", np.sqrt(between), {"color": BLUE, "linewidth": 2.4}),
        (
            f"within {noun}s",
            np.full_like(values, np.sqrt(residual)),
            {"color": GREY, "linestyle": "--"},
        ),
    )
    ends = []
    for text, curve, style in kinds:
        ax.plot(values, curve, **style)
        ends.append((values[-1], curve[-1], text, style["color"]))
    ax.set_ylim(0, 1.08 * np.sqrt(between + residual).max())
    _label_ends(ax, ends)


def _residual_strips(ax, resid, by, highlight):
    labels = pd.Series(np.asarray(by))
    means = pd.Series(resid).groupby(labels).mean().sort_values(kind="stable")
    highlight = [means.index[0], means.index[-1]] if highlight is None else highlight
    rank = pd.Series(np.arange(len(means)), index=means.index)
    named = labels.isin(highlight)
    for rows, colour, alpha in ((~named, GREY, 0.45), (named, INK, 0.9)):
        ax.scatter(rank[labels[rows]], resid[rows], s=18, color=colour, alpha=alpha, linewidths=0)
    ax.hlines(means, rank - 0.4, rank + 0.4, color=VERMILLION, linewidth=3, zorder=5)
    noun = _noun(getattr(by, "name", None))
    column = rank[labels].to_numpy()
    for label in highlight:
        # Clear of every point that the text could cover: its own column and four beside it.
        up = means[label] > 0
        beside = resid[np.abs(column - rank[label]) <= 4]
        ax.annotate(
            _say(label, noun),
            (rank[label], beside.max() if up else beside.min()),
            xytext=(0, 5 if up else -5),
            textcoords="offset points",
            ha="right" if up else "left",
            va="bottom" if up else "top",
        )
    ax.margins(y=0.1)
    _rank_axis(ax, means.index, noun, "ordered by mean residual")


def _intervals(ax, at, middle, half, face, colour, count):
    """Points with intervals at places counted from zero, thinner where there are many."""
    few = count <= 40
    ax.vlines(at, middle - half, middle + half, colour, linewidth=1.8 if few else 0.8, zorder=6)
    look = {"facecolor": face, "edgecolor": colour, "linewidth": 1.5 if few else 0.8}
    ax.scatter(at, middle, s=40 if few else 12, zorder=7, **look)


def _name_interval(ax, at, middle, half, text):
    high = middle > 0
    ax.annotate(
        text,
        (at, middle + half if high else middle - half),
        xytext=(4 if high else -4, 5 if high else -5),
        textcoords="offset points",
        ha="right" if high else "left",
        va="bottom" if high else "top",
        color=_darker(VERMILLION),
    )


def _rank_axis(ax, labels, noun, order):
    """Name each group when there is room, and say how they are ordered."""
    if len(labels) <= 8:
        ax.set_xticks(range(len(labels)), [_say(label, noun) for label in labels])
    else:
        ax.set_xticks([])
    ax.set_xlabel(f"{len(labels)} {noun}s, {order}")


# ---------------------------------------------------------------------------------------------
# Words


def _noun(name):
    """What a group is called, from its column: school_id → school."""
    text = "group" if name is None else str(name).removesuffix("_id").replace("_", " ")
    return text.lower()


def _say(label, group):
    """A group's name as a person would say it: School_07 → School 07, 308 → Subject 308."""
    text = str(label).replace("_", " ")
    return text if text[:1].isalpha() else f"{_noun(group).capitalize()} {text}"


def _group_name(fit):
    """Column of the groups, as far as the fit knows it."""
    first = fit.model.data.exog_re_names[0]
    return "group" if first in fit.model.exog_names else first


def _label_and_unit(name):
    """Split a column's label at its unit: ("Maths score", "points"); the unit may be empty."""
    text, _, unit = axis_label(name).partition(" (")
    return text, unit.removesuffix(")")


def _coefficient_name(term):
    return "Intercept" if term == "Intercept" else "Slope"


def _coefficient_unit(fit, term):
    """The unit of a coefficient, in brackets and with a space before, as far as it is known."""
    unit = _label_and_unit(fit.model.endog_names)[1]
    if term == "Intercept":
        return f" ({unit})" if unit else ""
    if unit and term in ONE_UNIT:
        return f" ({unit} {ONE_UNIT[term]})"
    return f" of {term}"


def _darker(colour):
    """The same hue, dark enough for text on white."""
    return tuple(0.72 * part for part in mpl.colors.to_rgb(colour))


def _sorted(labels):
    return sorted(pd.unique(pd.Series(np.asarray(labels))))


# ---------------------------------------------------------------------------------------------
# Checks


def _columns(data, *, numeric, group=None):
    """Return the complete rows of the columns, or say which column is wrong and how."""
    if not isinstance(data, pd.DataFrame):
        raise TypeError(f"data is a {type(data).__name__}: give a pandas DataFrame.")
    wanted = dict(numeric) if group is None else {**numeric, "group": group}
    for argument, name in wanted.items():
        if name not in data.columns:
            raise ValueError(
                f"{argument}={name!r} is not a column of data: use one of {list(data.columns)}."
            )
    for argument, name in numeric.items():
        if not pd.api.types.is_numeric_dtype(data[name]):
            raise ValueError(
                f"{argument}={name!r} has type {data[name].dtype}: convert it with pd.to_numeric."
            )
    rows = data[list(dict.fromkeys(wanted.values()))].dropna()
    if rows.empty:
        raise ValueError(f"data has no row with all of {list(wanted.values())}.")
    return rows


def _check_groups(asked, known, argument="highlight"):
    if isinstance(asked, str):
        raise TypeError(f"{argument}={asked!r} is a string: give a list of group labels.")
    unknown = [label for label in asked if label not in set(known)]
    if unknown:
        raise ValueError(
            f"{argument} names {unknown!r}, not among the groups: use labels such as "
            f"{list(known)[:3]}."
        )


def _check_random_term(fit, term):
    names = _random_terms(fit)
    if term not in names:
        raise ValueError(f"term={term!r} does not vary between groups in this fit: use {names}.")
