"""Explorers: a picture with sliders that moves as they are dragged, and the same on paper.

The canvas is matplotlib's own, so that no pyplot figure is left behind.
"""

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

    def __init__(self, picture, sliders, *, figsize):
        self.sliders = dict(sliders)
        self._start = {name: slider.value for name, slider in self.sliders.items()}
        # For the last row the picture grows as a whole: panels are too narrow for larger type.
        scale = plots.LARGER if plots.is_presenting() else 1
        with mpl.style.context(["default", plots.STYLE]):
            self._figure = Figure(figsize=figsize, dpi=scale * mpl.rcParams["figure.dpi"])
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
        # A browser's slider sends -8.9e-16 for 0, which rounds to -0.0, and that plus 0 is 0.0.
        settings = {name: round(slider.value, 6) + 0 for name, slider in self.sliders.items()}
        try:
            words = self.picture.update(**settings)
        except ValueError as reason:
            self._say(f"Not possible: {reason} The picture still shows the setting before.")
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
        for sign in (" %", " = "):  # no line break here
            words = words.replace(sign, sign.replace(" ", "\N{NO-BREAK SPACE}"))
        self.text.value = f'<p role="status" style="margin:0">{html.escape(words)}</p>'

    def _reset(self, _button):
        # All at once: half-way back there may be a setting that is not possible.
        for name, slider in self.sliders.items():
            slider.unobserve(self._redraw, names="value")
            slider.value = self._start[name]
            slider.observe(self._redraw, names="value")
        self._redraw()


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
    >>> from helpers.explore import Shrinkage
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
            f"{SYMBOLS.get(name, name)} = {value:g}" for name, value in setting.items()
        )
        column[0].set_title(default if title is None else title, fontsize="medium")
        for ax in column[1:]:
            ax.set_title("")
    for ax in axes[:, 1:].ravel():
        ax.set_ylabel("")
    return axes


def slider(value, low, high, step, label):
    """Slider of a setting: of whole numbers when its `value` is one.

    Parameters
    ----------
    value : int or float
        Where it starts.
    low, high, step : int or float
    label : str
        What it sets, with its unit.

    Returns
    -------
    ipywidgets.IntSlider or ipywidgets.FloatSlider
    """
    look = {
        "description": label,
        "style": {"description_width": "22em"},
        "layout": {"width": "min(100%, 46em)"},
    }
    if isinstance(value, int):
        return widgets.IntSlider(value, low, high, step, **look)
    return widgets.FloatSlider(value, min=low, max=high, step=step, readout_format=".1f", **look)
