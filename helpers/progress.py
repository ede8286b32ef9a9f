"""A progress bar for computations of more than a moment.

In a notebook it is an HTML ``<progress>`` element that is updated in place; in a terminal it is
one line that is rewritten; elsewhere (in a test, in a pipe) it is silent. Its last state holds
no timing, so that a notebook executed twice is the same file.
"""

import html
import shutil
import sys
import time

_SECONDS_BETWEEN_UPDATES = 0.1


def bar(total: int, label: str) -> "Bar":
    """Make a progress bar.

    Parameters
    ----------
    total : int
        Number of steps, at least 1.
    label : str
        What is being done, in a few words.

    Returns
    -------
    Bar
        Call it with the number of steps done, and optionally with a new total: the form that
        ``reml.fit_many(..., progress=...)`` wants. As a context manager it also tidies up after
        an interrupt or an error.

    Raises
    ------
    TypeError, ValueError
        If the total is not a whole number of at least 1, or the label is not a text.

    Examples
    --------
    >>> with bar(200, "Refitting") as progress:
    ...     for step in range(200):
    ...         progress(step + 1)
    """
    return Bar(total, label)


class Bar:
    """What :func:`bar` returns: a callable ``(done, total=None)`` and a context manager."""

    def __init__(self, total, label):
        if not isinstance(label, str) or not label.strip():
            raise TypeError(f"label is {label!r}; give a few words of text.")
        self._label = label
        self._total = _checked_total(total)
        self._done = 0
        self._view = _view(label)
        self._started = self._last_shown = None
        self._at_rest = False

    def __call__(self, done, total=None):
        """Show that ``done`` steps (of ``total``, if it changed) are done."""
        if total is not None:
            self._total = _checked_total(total)
        self._done = min(max(done, 0), self._total)
        self._begin()
        if self._done == self._total:
            self._rest()
        elif time.monotonic() - self._last_shown >= _SECONDS_BETWEEN_UPDATES:
            self._show(self._running_words())

    def __enter__(self):
        self._begin()
        return self

    def __exit__(self, *exception):
        if not self._at_rest:
            self._rest()

    def _begin(self):
        """Draw the bar the first time, and again when a finished one starts anew."""
        if self._started is None or (self._at_rest and self._done < self._total):
            self._started = time.monotonic()
            self._at_rest = False
            self._show("starting")

    def _rest(self):
        """Draw the state that stays: counts only, so that it is the same in every run."""
        part = "" if self._done == self._total else f" of {self._total:,}"
        self._at_rest = True
        self._show(f"{self._done:,}{part} done")

    def _show(self, words):
        self._last_shown = time.monotonic()
        if self._view is not None:
            self._view.show(self._done, self._total, words, self._at_rest)

    def _running_words(self):
        share = self._done / self._total
        elapsed = time.monotonic() - self._started
        left = f", about {_duration(elapsed / share - elapsed)} left" if share else ""
        return f"{100 * share:.0f} %{left}"


class _Page:
    """The bar in a notebook: one display, updated in place."""

    def __init__(self, label):
        self._label = label
        self._handle = None

    def show(self, done, total, words, at_rest):
        # tests/nbval.cfg knows this form: nbval compares the first state with the stored last.
        label = html.escape(self._label)
        data = {
            "text/html": (
                f'<div>{label}: <progress class="course-progress" value="{done}" max="{total}" '
                f'aria-label="{label}"></progress> <span>{words}</span></div>'
            ),
            "text/plain": self._label,
        }
        if self._handle is None:
            from IPython.display import display  # only there, and only needed, in a notebook

            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


class _Line:
    """The bar in a terminal: one line on standard error, rewritten."""

    def __init__(self, label):
        self._label = label
        self._length = 0

    def show(self, done, total, words, at_rest):
        filled = round(20 * done / total)
        line = f"{self._label} [{'#' * filled}{'.' * (20 - filled)}] {words}"
        line = line[: shutil.get_terminal_size().columns - 1]  # a wrapped line can't be rewritten
        end = "\n" if at_rest else ""
        print(f"\r{line.ljust(self._length)}", end=end, file=sys.stderr, flush=True)
        self._length = 0 if at_rest else len(line)


def _view(label):
    """Choose how to draw: in a notebook, in a terminal, or not at all."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None and type(shell).__name__ != "TerminalInteractiveShell":
        return _Page(label)
    if sys.stderr is not None and sys.stderr.isatty():
        return _Line(label)
    return None


def _duration(seconds):
    """Write a remaining time as coarsely as it is known."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def _checked_total(total):
    """Check a whole number of at least 1 (NumPy's integers included)."""
    try:
        whole = int(total)
    except (TypeError, ValueError):
        whole = None
    if whole is None or whole != total or isinstance(total, bool):
        raise TypeError(f"total is {total!r}; give a whole number.")
    if whole < 1:
        raise ValueError(f"total is {whole}; give 1 or more.")
    return whole
