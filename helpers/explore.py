"""Pictures that move: flipbooks that need no kernel, and explorers that redraw as you drag.

A live explorer is a picture and some sliders. The picture is a class that draws on the Axes it
is given: ``Shrinkage(axes).update(sigma=5, tau=4, n=10)`` moves its artists and returns in
words what can be seen. The widget calls `update` when a slider moves, and `stills` draws the
same picture at settings side by side, for paper and for pages without a kernel.

============================================  ================================================
``flipbook``                                  frames and a slider (``explore_flipbook.py``)
``Explorer``, ``stills``                      sliders; paper (``explore_widget.py``)
``line_fit``, ``assumptions``                 one line for everyone (``explore_ols.py``)
``shrinkage``, ``random_slopes``,             schools and their lines (``explore_schools.py``)
``centring``
``singular_rate``, ``power_curve``            studies by the thousand (``explore_power.py``)
============================================  ================================================

The numbers behind the studies are in ``explore_studies.py``, what a setting must not be in
``explore_checks.py``. Everything a lesson needs is imported from here.
"""

from helpers.explore_flipbook import flipbook
from helpers.explore_ols import Assumptions, LineFit
from helpers.explore_power import PowerCurve, SingularRate
from helpers.explore_schools import Centring, RandomSlopes, Shrinkage
from helpers.explore_studies import (
    PlannedStudies,
    planned_covariance,
    planned_fits,
    planned_hours,
)
from helpers.explore_widget import Explorer, slider, stills

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
    sliders = {"slope": slider(0.0, low, high, 0.1, "Slope (points an hour)")}
    return Explorer(Picture, sliders, figsize=(8.0, 4.1))


def assumptions():
    """Break the fine print of one line for everyone: what its standard error promises and keeps.

    Returns
    -------
    Explorer
    """
    sliders = {
        "sd_intercept": slider(0.0, 0, 6, 0.5, "SD of schools' intercepts, τ₀ (points)"),
        "sd_slope": slider(0.0, 0, 1.2, 0.1, "SD of schools' slopes, τ₁ (points an hour)"),
        "bend": slider(0.0, 0, 20, 1, "Bend of the true curve (points)"),
        "sd_late": slider(5.0, 1, 15, 1, "SD of students at 10 hours (points)"),
    }
    return Explorer(Assumptions, sliders, figsize=(9.4, 3.7))


def shrinkage():
    """Explore the shrinkage factor: the two SDs and the number of students on sliders.

    Returns
    -------
    Explorer
    """
    sliders = {
        "sigma": slider(5.0, 0, 15, 0.5, "SD of students in a school, σ (points)"),
        "tau": slider(4.0, 0, 10, 0.5, "SD between schools, τ (points)"),
        "n": slider(10, 1, 60, 1, "Number of students in the school, n"),
    }
    return Explorer(Shrinkage, sliders, figsize=(8.0, 4.0))


def random_slopes():
    """Explore schools' lines: the three SDs and the correlation on sliders.

    Returns
    -------
    Explorer
    """
    sliders = {
        "sd_residual": slider(5.0, 0, 10, 0.5, "SD of students in a school, σ (points)"),
        "sd_intercept": slider(4.0, 0, 8, 0.5, "SD of intercepts, τ₀ (points)"),
        "sd_slope": slider(0.8, 0, 1.6, 0.1, "SD of slopes, τ₁ (points an hour)"),
        "correlation": slider(0.3, -1, 1, 0.1, "Correlation, ρ (from −1 to 1)"),
    }
    return Explorer(RandomSlopes, sliders, figsize=(8.6, 4.2))


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
    sliders = {"zero": slider(0.0, low, high, 0.5, "Zero at (hours on the app)")}
    return Explorer(Picture, sliders, figsize=(9.4, 3.7))


def power_curve():
    """Explore power and precision: numbers of schools and students, slope and its SD on sliders.

    Returns
    -------
    Explorer
    """
    sliders = {
        "n_schools": slider(30, 1, 100, 1, "Number of schools, J"),
        "n_students": slider(20, 1, 60, 1, "Number of students in each school, n"),
        "slope": slider(0.5, 0, 2, 0.1, "True average slope, γ₁ (points an hour)"),
        "sd_slope": slider(0.8, 0, 2, 0.1, "True SD of slopes, τ₁ (points an hour)"),
    }
    return Explorer(PowerCurve, sliders, figsize=(8.6, 4.0))


def singular_rate():
    """Explore singular fits: design, spread of slopes and correlation on sliders.

    Returns
    -------
    Explorer
    """
    sliders = {
        "n_schools": slider(3, 1, 100, 1, "Number of schools, J"),
        "n_students": slider(20, 1, 60, 1, "Number of students in each school, n"),
        "sd_slope": slider(0.8, 0, 1.6, 0.1, "True SD of slopes, τ₁ (points an hour)"),
        "correlation": slider(0.3, -1, 1, 0.1, "True correlation, ρ (from −1 to 1)"),
    }
    return Explorer(SingularRate, sliders, figsize=(8.6, 4.2))
