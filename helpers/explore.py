"""Pictures that move: flipbooks that need no kernel, and explorers that redraw as you drag.

A live explorer is a picture and some sliders. The picture is a class that draws on the Axes it
is given: ``Shrinkage(axes).update(sigma=5, tau=4, n=10)`` moves its artists and returns in
words what can be seen. The widget calls `update` when a slider moves, and `stills` draws the
same picture at settings side by side, for paper and for pages without a kernel.

============================================  ================================================
``flipbook``                                  pre-drawn frames and a slider
``Explorer``, ``stills``                      a picture with sliders; the same on paper
``line_fit``, ``assumptions``                 one line for everyone (``explore_ols.py``)
``shrinkage``, ``random_slopes``,             schools and their lines (``explore_schools.py``)
``centring``
``singular_rate``, ``power_curve``            studies by the thousand (``explore_power.py``)
============================================  ================================================

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
from PIL import Image

from helpers import plots
from helpers.explore_ols import Assumptions, LineFit
from helpers.explore_power import (
    PlannedStudies,
    PowerCurve,
    SingularRate,
    planned_covariance,
    planned_fits,
    planned_hours,
)
from helpers.explore_schools import Centring, RandomSlopes, Shrinkage

__all__ = [
    "Assumptions",
    "Centring",
    "Explorer",
    "LineFit",
    "PlannedStudies",
    "PowerCurve",
    "RandomSlopes",
    "Shrinkage",
    "SingularRate",
    "assumptions",
    "centring",
    "flipbook",
    "line_fit",
    "planned_covariance",
    "planned_fits",
    "planned_hours",
    "power_curve",
    "random_slopes",
    "shrinkage",
    "singular_rate",
    "stills",
]

MOST_BYTES = 1_000_000
# arguments as the lessons write them
SYMBOLS = {
    "sigma": "σ",
    "tau": "τ",
    "n_schools": "J",
    "n_students": "n",
    "slope": "γ₁",
    "sd_intercept": "τ₀",
    "sd_slope": "τ₁",
    "correlation": "ρ",
    "sd_residual": "σ",
    "zero": "zero at",
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
# Their sliders


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


def assumptions():
    """Break the fine print of one line for everyone: what its standard error promises and keeps.

    Returns
    -------
    Explorer
    """
    return Explorer(
        Assumptions,
        {
            "sd_intercept": _slider(
                widgets.FloatSlider, 0.0, 0, 6, 0.5, "SD of schools' intercepts, τ₀ (points)"
            ),
            "sd_slope": _slider(
                widgets.FloatSlider, 0.0, 0, 1.2, 0.1, "SD of schools' slopes, τ₁ (points an hour)"
            ),
            "bend": _slider(
                widgets.FloatSlider, 0.0, 0, 20, 1, "Bend of the true curve (points in the middle)"
            ),
            "sd_late": _slider(
                widgets.FloatSlider, 5.0, 1, 15, 1, "SD of students at 10 hours (points; at 1: 5)"
            ),
        },
        figsize=(11.0, 3.9),
    )


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


def random_slopes():
    """Explore schools' lines: the three SDs and the correlation on sliders.

    Returns
    -------
    Explorer
    """
    return Explorer(
        RandomSlopes,
        {
            "sd_residual": _slider(
                widgets.FloatSlider, 5.0, 0, 10, 0.5, "SD of students in a school, σ (points)"
            ),
            "sd_intercept": _slider(
                widgets.FloatSlider, 4.0, 0, 8, 0.5, "SD of intercepts, τ₀ (points)"
            ),
            "sd_slope": _slider(
                widgets.FloatSlider, 0.8, 0, 1.6, 0.1, "SD of slopes, τ₁ (points an hour)"
            ),
            "correlation": _slider(
                widgets.FloatSlider, 0.3, -1, 1, 0.1, "Correlation, ρ (from −1 to 1)"
            ),
        },
        figsize=(9.6, 4.4),
    )


def centring(data=None):
    """Move zero along the hours: one slider, and a fit that stays what it was.

    Parameters
    ----------
    data : pandas.DataFrame, optional
        As for `Centring`.

    Returns
    -------
    Explorer
    """

    class Picture(Centring):
        def __init__(self, axes):
            super().__init__(axes, data)

    low, high = Centring.zeros
    slider = _slider(widgets.FloatSlider, 0.0, low, high, 0.5, "Zero at (hours on the app)")
    return Explorer(Picture, {"zero": slider}, figsize=(11.0, 3.9))


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


def singular_rate():
    """Explore singular fits: design, spread of slopes and correlation on sliders.

    Returns
    -------
    Explorer
    """
    return Explorer(
        SingularRate,
        {
            "n_schools": _slider(widgets.IntSlider, 3, 1, 100, 1, "Schools, J (number)"),
            "n_students": _slider(widgets.IntSlider, 20, 1, 60, 1, "Students in each school, n"),
            "sd_slope": _slider(
                widgets.FloatSlider, 0.8, 0, 2, 0.1, "True SD of slopes, τ₁ (points an hour)"
            ),
            "correlation": _slider(
                widgets.FloatSlider, 0.3, -1, 1, 0.1, "True correlation, ρ (from −1 to 1)"
            ),
        },
        figsize=(9.6, 4.4),
    )
