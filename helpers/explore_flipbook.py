"""Flipbooks: pre-drawn frames and a slider that turns them, with no kernel behind it."""

import base64
import html
import io

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from helpers import plots

# All the frames: what is left of a megabyte is enough for the slider, the link and the layout.
MOST_BYTES = 980_000


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
