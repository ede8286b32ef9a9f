"""Explorers and flipbooks: what moves, what it says, what it weighs, and how fast it is."""

import base64
import html
import io
import json
import time
from pathlib import Path

import ipywidgets as widgets
import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from ipywidgets import embed
from PIL import Image

from helpers import (
    explore,
    explore_flipbook,
    explore_schools,
    mixed,
    plots,
    power,
    reml,
    simulate,
)

REPO = Path(__file__).resolve().parent.parent
mpl.use("Agg")


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


def picture(explorer):
    return np.asarray(Image.open(io.BytesIO(bytes(explorer.image.value))))


def said(explorer):
    """The words under the picture, with ordinary spaces."""
    return html.unescape(explorer.text.value).replace("\N{NO-BREAK SPACE}", " ")


EXPLORERS = {
    "line_fit": explore.line_fit,
    "shrinkage": explore.shrinkage,
    "power_curve": explore.power_curve,
    "assumptions": explore.assumptions,
    "random_slopes": explore.random_slopes,
    "centring": explore.centring,
    "singular_rate": explore.singular_rate,
}


IN_LESSON = {
    "00": "line_fit",
    "01": "assumptions",
    "03": "shrinkage",
    "04": "random_slopes",
    "05": "centring",
    "07": "singular_rate",
    "13": "power_curve",
}


@pytest.mark.parametrize("number", IN_LESSON)
def test_an_explorer_is_in_its_lesson_with_three_settings_after_it(number):
    (path,) = (REPO / "notebooks").glob(f"{number}-*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    (at,) = (i for i, c in enumerate(cells) if f"explore.{IN_LESSON[number]}()" in c.source)
    # A reader without a kernel sees no empty box, and the figure at once.
    assert cells[at].outputs == []
    assert "nbval-ignore-output" in cells[at].metadata.tags
    pictured = type(EXPLORERS[IN_LESSON[number]]().picture).__mro__
    name = next(kind.__name__ for kind in pictured if hasattr(explore, kind.__name__))
    assert f"explore.stills(explore.{name}, " in cells[at + 1].source
    assert any("image/png" in output.get("data", {}) for output in cells[at + 1].outputs)


# Live explorers


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_slider_moves_the_picture_and_the_words_and_reset_undoes_it(name):
    explorer = EXPLORERS[name]()
    first, words = picture(explorer), said(explorer)
    for key, slider in explorer.sliders.items():
        start = slider.value
        slider.value = slider.min + 0.8 * (slider.max - slider.min)
        assert (picture(explorer) != first).any(), key
        assert said(explorer) != words, key
        slider.value = start
        assert (picture(explorer) == first).all(), key
    axes, moving = list(explorer._figure.axes), list(explorer.picture.moving)
    for slider in explorer.sliders.values():
        slider.value = slider.max
    explorer.reset.click()
    assert (picture(explorer) == first).all() and said(explorer) == words
    # What moved are the artists of the first drawing, on the figure of the first drawing.
    assert explorer._figure.axes == axes and explorer.picture.moving == moving
    assert all(artist.figure is explorer._figure for artist in moving)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_slider_redraws_in_less_than_a_blink(name):
    explorer = EXPLORERS[name]()
    for key, slider in explorer.sliders.items():
        times, start = [], slider.value
        for share in np.linspace(0.2, 1, 7):
            before = time.process_time()
            slider.value = type(start)(slider.min + share * (slider.max - slider.min))
            times.append(time.process_time() - before)
        slider.value = start
        # Processor time, the middle of seven, so that a busy machine does not fail the test.
        assert np.median(times) < 0.150, key


@pytest.mark.parametrize("name", EXPLORERS)
def test_sliders_say_what_they_set(name):
    explorer = EXPLORERS[name]()
    for slider in explorer.sliders.values():
        label = slider.description
        assert label.startswith("Number of") or label.endswith(("points)", "hour)", "app)", "1)"))
        assert len(label) <= 42, "a longer label is cut off"
        assert slider.readout and slider.continuous_update and not slider.disabled
    assert explorer.reset.description == "Reset"


def test_what_a_browser_makes_of_a_number_is_rounded():
    """A browser's slider sends -8.9e-16 for 0 hours and 1.0000000000000002 for ρ = 1."""
    explorer = explore.centring()
    explorer.sliders["zero"].value = -8.9e-16
    assert "Zero at 0 hours" in said(explorer)
    explorer = explore.singular_rate()
    explorer.sliders["correlation"].max = 2
    explorer.sliders["correlation"].value = 1.0000000000000002
    assert "The truth is at an edge itself" in said(explorer)


def test_reset_goes_through_no_impossible_setting():
    explorer, heard = explore.power_curve(), []
    explorer.sliders["n_students"].value = 2
    explorer.sliders["n_schools"].value = 1
    explorer.text.observe(lambda change: heard.append(change["new"]), names="value")
    explorer.reset.click()
    assert len(heard) == 1 and "30 schools × 20 students" in heard[0]
    explorer.sliders["n_schools"].value = 12
    assert "12 schools × 20 students" in said(explorer)


def test_the_picture_has_the_courses_look_before_use_style():
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        plain = picture(explore.shrinkage())
    plots.use_style()
    assert (picture(explore.shrinkage()) == plain).all()


def test_shrinkage_says_the_factor():
    explorer = explore.shrinkage()
    for name, value in {"sigma": 6.0, "tau": 3.0, "n": 4}.items():
        explorer.sliders[name].value = value
    assert "the factor is 0.50" in said(explorer)
    assert "put 4.0 points above it" in said(explorer)


def test_an_impossible_setting_says_why_and_the_picture_waits():
    explorer = explore.shrinkage()
    explorer.sliders["sigma"].value = 0
    before = picture(explorer)
    explorer.sliders["tau"].value = 0
    assert (picture(explorer) == before).all()
    assert "0/0" in said(explorer)
    explorer.sliders["tau"].value = 1
    assert "the factor is 1.00" in said(explorer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0, "tau": 0, "n": 5}, "σ = 0 and τ = 0.*Raise one"),
        ({"sigma": -1, "tau": 4, "n": 5}, "sigma=-1.*negative"),
        ({"sigma": 5, "tau": 4, "n": 0}, "n=0: give a whole number from 1 to 60"),
        ({"sigma": 5, "tau": 4, "n": 2.5}, "n=2.5: give a whole number"),
    ],
)
def test_shrinkage_refuses_what_cannot_be(settings, message):
    axes = plt.subplots(1, 2)[1]
    with pytest.raises(ValueError, match=message):
        explore.Shrinkage(axes).update(**settings)


def test_line_fit_is_least_at_least_squares():
    axes = plt.subplots(1, 2)[1]
    fit = explore.LineFit(axes)
    assert fit.slopes[0] < fit.best < fit.slopes[1]
    assert "no slope on this slider does better" in fit.update(round(fit.best, 1))
    assert "more than they need to" in fit.update(0)
    # A square's sides are as long as the residual, in the units of the picture.
    figure = axes[0].figure
    figure.set_layout_engine("none")
    figure.canvas.draw()
    for square in fit._squares:
        box = square.get_window_extent()
        assert box.width == pytest.approx(box.height, rel=1e-6, abs=1e-6)


# Power, while the slider moves


def planned_scores(n_schools, n_students, sd_slope):
    """Scores of 100 studies with the same hours in every school; hours; schools."""
    hours = np.tile(explore.planned_hours(n_students), n_schools)
    school = np.repeat(np.arange(n_schools), n_students)
    table = pd.DataFrame({"school_id": school, "app_hours": hours})
    return simulate.replicates(table, 100, slope=0.5, sd_slope=sd_slope, seed=1), hours, school


@pytest.mark.parametrize(("n_schools", "n_students"), [(3, 4), (8, 5), (30, 20)])
@pytest.mark.parametrize("sd_slope", [0, 0.4])
def test_the_closed_form_is_the_fit(n_schools, n_students, sd_slope):
    scores, hours, school = planned_scores(n_schools, n_students, sd_slope)
    X = np.column_stack([np.ones(len(hours)), hours])
    large = reml.fit_many(scores, X, X, school)
    small = reml.fit_many(scores, X, X[:, :1], school)
    # Edges and the inside both have to be there for the comparison to mean anything.
    assert large.singular.any() and not large.singular.all()

    y = scores.reshape(-1, n_schools, n_students)
    x = hours[:n_students] - hours[:n_students].mean()
    own_slope, own_mean = y @ x / (x @ x), y.mean(axis=2)
    rest = y - own_mean[..., None] - own_slope[..., None] * x
    within = (rest**2).sum(axis=(1, 2)) / (n_schools * (n_students - 2))
    scaled = np.stack([np.sqrt(n_students) * own_mean, np.sqrt(x @ x) * own_slope])
    scaled -= scaled.mean(axis=2, keepdims=True)
    between = [
        (scaled[i] * scaled[j]).sum(axis=1) / (n_schools - 1) for i, j in ((0, 0), (0, 1), (1, 1))
    ]
    variance, residual, ratio = explore.planned_fits(between, within, n_schools, n_students)

    close = {"rtol": 2e-4, "atol": 2e-4}  # the engine stops this near to the optimum
    np.testing.assert_allclose(variance / (x @ x) / n_schools, large.cov_beta[:, 1, 1], **close)
    np.testing.assert_allclose(residual, large.scale, **close)
    np.testing.assert_allclose((variance - residual) / (x @ x), large.cov_re[:, 1, 1], **close)
    np.testing.assert_allclose(ratio, small.criterion - large.criterion, atol=1e-6)


@pytest.mark.parametrize(("n_schools", "n_students", "sd_slope"), [(5, 10, 0.8), (30, 20, 0.4)])
def test_the_power_explorer_agrees_with_power(n_schools, n_students, sd_slope):
    studies = explore.PlannedStudies(seed=2)
    quick = studies.simulate(np.array([n_schools]), n_students, 0.5, sd_slope)
    design = power.Design(
        n_schools,
        n_students,
        slope=0.5,
        sd_slope=sd_slope,
        hours=lambda rng, n: explore.planned_hours(n),
    )
    slow = power.power(design, n_simulations=500, n_draws=1, seed=1, progress=False).iloc[0]
    for name in ("power_slope", "power_sd_slope"):
        assert quick[name].item() == pytest.approx(slow[name], abs=4 * slow[f"{name}_se"]), name
    for name in ("half_width", "rmse_sd_slope"):
        assert quick[name].item() == pytest.approx(slow[name], rel=0.1), name
    exact = power.analytic(design, n_draws=1, seed=1)["power_slope"].item()
    assert studies.formula(n_schools, n_students, 0.5, sd_slope) == pytest.approx(exact)


def test_the_power_explorer_holds_its_level():
    picture = explore.PowerCurve(plt.subplots(1, 2)[1])
    alarms = picture.studies.simulate(np.array([10, 40]), 20, 0.0, 0.0)
    for name in ("power_slope", "power_sd_slope"):
        assert (alarms[name] < 0.05 + 4 * np.sqrt(0.05 * 0.95 / picture.studies.n_studies)).all(), (
            name
        )
    assert "false alarm" in picture.update(30, 20, 0, 0)


def test_the_power_explorer_says_what_it_shows():
    explorer = explore.power_curve()
    assert explorer.picture.studies.n_studies == 1000
    assert "30 schools × 20 students: an average slope of 0.5" in said(explorer)
    shares = []
    for n_schools in (12, 30, 60):
        explorer.sliders["n_schools"].value = n_schools
        shares.append(explorer.picture._now["power_slope"].get_ydata().item())
        assert f"found in {100 * shares[-1]:.0f} % of studies" in said(explorer)
    assert shares == sorted(shares)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_schools": 1}, "One school can't show how schools differ.*Take two or more"),
        ({"n_students": 2}, "n=2 in each school.*tell slope from chance. Take three or more"),
        ({"n_schools": 101}, "n_schools=101: give a whole number from 1 to 100"),
        ({"n_students": 4.5}, "n_students=4.5: give a whole number from 1 to 60"),
        ({"sd_slope": -0.1}, "sd_slope=-0.1: an SD can't be negative"),
    ],
)
def test_the_power_explorer_refuses_what_cannot_be_fitted(settings, message):
    picture = explore.PowerCurve(plt.subplots(1, 2)[1])
    design = {"n_schools": 30, "n_students": 20, "slope": 0.5, "sd_slope": 0.8}
    with pytest.raises(ValueError, match=message):
        picture.update(**(design | settings))


def test_a_study_that_cannot_be_fitted_leaves_the_power_curve_as_it_is():
    explorer = explore.power_curve()
    before = picture(explorer)
    explorer.sliders["n_students"].value = 2
    assert (picture(explorer) == before).all()
    assert "Take three or more. The picture still shows the setting before" in said(explorer)
    explorer.sliders["n_students"].value = 3
    assert "30 schools × 3 students" in said(explorer)


# One line for everyone, its fine print broken

KEPT = {"sd_intercept": 0, "sd_slope": 0, "bend": 0, "sd_late": 5}


@pytest.fixture(scope="module")
def assumptions():
    picture = explore.Assumptions(plt.figure().subplots(1, 3))
    plt.close("all")
    return picture


def test_the_parts_of_a_study_add_up_to_least_squares(assumptions):
    """Study 0 is the one that is drawn, so its scores are there to be fitted."""
    world = {"sd_intercept": 4, "sd_slope": 0.8, "bend": 6, "sd_late": 9}
    assumptions.update(**world)
    fit = sm.OLS(assumptions._scores[0].get_ydata(), assumptions.X).fit()
    estimates, errors = assumptions.judge(**world)
    np.testing.assert_allclose(estimates[:, 0], fit.params)
    np.testing.assert_allclose(errors[:, 0], fit.bse)
    np.testing.assert_allclose(assumptions._residuals[0].get_ydata(), fit.resid)
    order = np.argsort(assumptions.hours)
    np.testing.assert_allclose(assumptions._line.get_ydata(), fit.fittedvalues[order])
    # The best straight line through the bent truth has the slope and intercept it had.
    truth = np.empty(600)
    truth[order] = assumptions._truth.get_ydata()
    np.testing.assert_allclose(sm.OLS(truth, assumptions.X).fit().params, [60, 2])


@pytest.mark.parametrize("changes", [{}, {"sd_intercept": 4}, {"sd_intercept": 4, "sd_slope": 0.8}])
def test_the_promise_is_kept_as_often_as_in_studies_simulated_anew(assumptions, changes):
    schools = simulate.schools(30, 20, seed=3)
    truth = {"sd_intercept": 0, "sd_slope": 0} | changes
    scores = simulate.replicates(schools, 2000, **truth, seed=2)
    X = np.column_stack([np.ones(600), schools["app_hours"]])
    inverse = np.linalg.inv(X.T @ X)
    slow = scores @ X @ inverse
    variance = ((scores - slow @ X.T) ** 2).sum(axis=1) / 598
    slow_errors = np.sqrt(np.outer(np.diag(inverse), variance))
    estimates, errors = assumptions.judge(**(KEPT | changes))
    np.testing.assert_allclose(errors.mean(axis=1), slow_errors.mean(axis=1), rtol=0.02)
    np.testing.assert_allclose(estimates.std(axis=1), slow.std(axis=0), rtol=0.08)
    limit, line = 1.9639, np.array([[60], [2]])
    covers = (np.abs(estimates - line) < limit * errors).mean(axis=1)
    slow_covers = (np.abs(slow.T - line) < limit * slow_errors).mean(axis=1)
    np.testing.assert_allclose(covers, slow_covers, atol=0.04)
    said = assumptions.update(**(KEPT | changes))
    assert (
        f"truth in {100 * covers[1]:.1f} % of studies for the slope, in {100 * covers[0]:.1f}"
        in said
    )


def test_each_assumption_breaks_something_else(assumptions):
    def claimed_and_kept(**changes):
        estimates, errors = assumptions.judge(**(KEPT | changes))
        return errors[1].mean(), estimates[1].std()

    claimed, kept = claimed_and_kept()
    assert claimed == pytest.approx(kept, rel=0.05)
    claimed, kept = claimed_and_kept(sd_slope=0.8)
    assert kept > 1.3 * claimed
    claimed, kept = claimed_and_kept(bend=15)
    assert claimed > 1.2 * kept
    assert "misses the curve by up to" in assumptions.update(**(KEPT | {"bend": 15}))
    assert "misses" not in assumptions.update(**KEPT)
    bars = assumptions._kept.get_data()
    assert (bars.values * np.diff(bars.edges)).sum() == pytest.approx(1)


def test_the_assumptions_refuse_a_negative_sd(assumptions):
    with pytest.raises(ValueError, match="sd_intercept=0, sd_slope=-1.*can't be negative"):
        assumptions.update(**(KEPT | {"sd_slope": -1}))


# Schools' lines

SETTING = {"sd_residual": 5, "sd_intercept": 4, "sd_slope": 0.8, "correlation": 0.3}


def test_the_lines_and_students_have_the_sds_of_the_sliders():
    picture = explore.RandomSlopes(plt.subplots(1, 2)[1])
    picture.update(**(SETTING | {"correlation": -0.6}))
    ends = np.array([line[:, 1] for line in picture._lines.get_segments()])
    starts, slopes = ends[:, 0], (ends[:, 1] - ends[:, 0]) / 10
    assert starts.mean() == pytest.approx(60) and slopes.mean() == pytest.approx(2)
    assert starts.std(ddof=1) == pytest.approx(4) and slopes.std(ddof=1) == pytest.approx(0.8)
    assert np.corrcoef(starts, slopes)[0, 1] == pytest.approx(-0.6)
    hours, scores = (values.reshape(30, 12) for values in picture._students.get_data())
    squares = 0
    for j in range(30):
        (steep, start), rest, *_ = np.polyfit(hours[j], scores[j], 1, full=True)
        assert (start, steep) == (pytest.approx(starts[j]), pytest.approx(slopes[j]))
        squares += rest.item()
    assert squares / (30 * 10) == pytest.approx(25)
    assert picture._strong[1].get_ydata()[0] == starts.max()
    # Between schools, the curve is the SD of the lines that are drawn beside it.
    x, between = picture._curves[1].get_data()
    drawn = (starts + np.outer(x, slopes)).std(axis=1, ddof=1)
    np.testing.assert_allclose(between, drawn)
    np.testing.assert_allclose(picture._curves[0].get_ydata(), np.hypot(drawn, 5))
    assert picture._waist.get_xdata() == pytest.approx([3.0])
    assert picture._waist.get_ydata() == pytest.approx([between.min()])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "fan out from the start"),
        ({"correlation": -0.9}, "closest at 4.5 hours"),
        ({"correlation": -0.9, "sd_intercept": 8, "sd_slope": 0.4}, "closest beyond 10 hours"),
        ({"sd_slope": 0}, "parallel lines, and ρ means nothing"),
        ({"sd_slope": 0, "sd_intercept": 0}, "one line for all schools"),
        ({"sd_intercept": 0}, "start at one point, and ρ means nothing"),
        ({"sd_slope": 1.2}, "slopes lie between −0.4 and 4.4 points an hour"),
    ],
)
def test_random_slopes_say_what_the_lines_do(changes, words):
    assert words in explore.RandomSlopes(plt.subplots(1, 2)[1]).update(**(SETTING | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sd_residual": 0}, "σ = 0: every student would lie on.*Raise σ"),
        ({"sd_slope": -0.1}, "sd_slope=-0.1: an SD can't be negative"),
        ({"correlation": 1.2}, "correlation=1.2: give a number from -1 to 1"),
    ],
)
def test_random_slopes_refuse_what_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        explore.RandomSlopes(plt.subplots(1, 2)[1]).update(**(SETTING | changes))


# Zero


@pytest.mark.parametrize("zero", [-3.0, 5.5, 10.0])
def test_another_zero_is_the_same_fit_read_from_elsewhere(zero):
    picture = explore.Centring(plt.subplots(1, 3)[1])
    words = picture.update(zero)
    schools = simulate.schools(30, 20, seed=3)
    schools["hours"] = schools["app_hours"] - zero
    fit = mixed.fit("math_score ~ hours", schools, groups="school_id", re_formula="~hours")
    table = mixed.variance_table(fit)
    assert picture._dots[0].get_ydata()[0] == pytest.approx(table["sd"][0], rel=1e-4)
    assert picture._dots[1].get_ydata()[0] == pytest.approx(table["correlation"][1], abs=1e-4)
    assert f"criterion {picture.at_zero.criterion:.2f}" in words
    assert fit.criterion == pytest.approx(picture.at_zero.criterion, abs=1e-6)
    lines = mixed.group_coefficients(fit)
    heights = lines[lines["term"] == "Intercept"]["estimate"]
    np.testing.assert_allclose(picture._crossings.get_ydata(), heights, atol=1e-3)
    # The dots of the refits lie on the curves that the fit at 0 hours foretells.
    sd, correlation = explore_schools.sd_at(
        zero,
        np.sqrt(picture.at_zero.cov_re[0, 0]),
        np.sqrt(picture.at_zero.cov_re[1, 1]),
        picture.at_zero.cov_re[0, 1] / np.sqrt(np.diag(picture.at_zero.cov_re).prod()),
    )
    assert picture._dots[0].get_ydata()[0] == pytest.approx(sd, rel=1e-4)
    assert picture._dots[1].get_ydata()[0] == pytest.approx(correlation, abs=1e-4)


def test_zero_stays_in_the_picture():
    with pytest.raises(ValueError, match="zero=20: give hours from -6 to 12"):
        explore.Centring(plt.subplots(1, 3)[1]).update(20)


# Singular fits


def test_singular_in_closed_form_is_singular_by_fit():
    scores, hours, school = planned_scores(5, 6, 0.8)
    X = np.column_stack([np.ones(len(hours)), hours])
    fits = reml.fit_many(scores, X, X, school)
    y = scores.reshape(-1, 5, 6)
    x = hours[:6] - hours[:6].mean()
    own_slope, own_mean = y @ x / (x @ x), y.mean(axis=2)
    rest = y - own_mean[..., None] - own_slope[..., None] * x
    scaled = np.stack([np.sqrt(6) * own_mean, np.sqrt(x @ x) * own_slope])
    scaled -= scaled.mean(axis=2, keepdims=True)
    between = [(scaled[i] * scaled[j]).sum(axis=1) / 4 for i, j in ((0, 0), (0, 1), (1, 1))]
    within = (rest**2).sum(axis=(1, 2)) / 20
    estimated, residual, rank = explore.planned_covariance(between, within, 5, 6)
    assert 0.2 < fits.singular.mean() < 0.8
    assert ((rank < 2) == fits.singular).all()
    np.testing.assert_allclose(
        estimated[1] / np.sqrt(6 * (x @ x)),
        fits.cov_re[:, 0, 1] + hours.mean() * fits.cov_re[:, 1, 1],
        atol=2e-3,
    )


@pytest.mark.parametrize(("n_schools", "n_students"), [(3, 20), (10, 20)])
def test_the_singular_rate_agrees_with_refits(n_schools, n_students):
    studies = explore.PlannedStudies(seed=2)
    sds, correlations, rank = studies.spread(np.array([n_schools]), n_students, 0.8, 0.3)
    hours = np.tile(explore.planned_hours(n_students), n_schools)
    school = np.repeat(np.arange(n_schools), n_students)
    table = pd.DataFrame({"school_id": school, "app_hours": hours})
    X = np.column_stack([np.ones(len(hours)), hours])
    fits = reml.fit_many(simulate.replicates(table, 1000, seed=1), X, X, school)
    slow_sds = np.sqrt(fits.cov_re[:, 1, 1])
    assert (rank < 2).mean() == pytest.approx(fits.singular.mean(), abs=0.06)
    np.testing.assert_allclose(
        np.quantile(sds, [0.25, 0.5, 0.75]), np.quantile(slow_sds, [0.25, 0.5, 0.75]), atol=0.08
    )
    with np.errstate(invalid="ignore"):
        slow = fits.cov_re[:, 0, 1] / np.sqrt(fits.cov_re[:, 0, 0]) / slow_sds
    for low, high in ((-1.1, -0.9999), (-0.9999, 0), (0, 0.9999), (0.9999, 1.1)):
        shares = [((low < rho) & (rho <= high)).mean() for rho in (correlations, slow)]
        assert shares[0] == pytest.approx(shares[1], abs=0.06)


def test_the_estimates_pile_up_on_the_edge():
    explorer = explore.singular_rate()
    shown = explorer.picture
    n = shown.studies.n_studies
    edge, inside = len(shown._edge.get_xdata()), len(shown._inside.get_xdata())
    assert (np.abs(shown._edge.get_ydata()) > 1).all()
    assert (np.abs(shown._inside.get_ydata()) < 1).all()
    rate = shown._now.get_ydata()[0]
    assert f"{rate:.0f} % of 1,000 fits are singular" in said(explorer)
    assert inside / n == pytest.approx(1 - rate / 100)
    assert edge / n <= rate / 100 + 1e-9
    below = 100 * (shown._edge.get_ydata() < -1).sum() / n
    assert shown._shares[0].get_text() == f"ρ = −1: {below:.0f} %"
    explorer.sliders["n_schools"].value = 30
    assert shown._now.get_ydata()[0] < 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_schools": 1}, "One school can't show how schools differ"),
        ({"n_students": 2}, "n=2 in each school.*Take three or more"),
        ({"n_schools": 101}, "n_schools=101: give a whole number from 1 to 100"),
        ({"sd_slope": -1}, "sd_slope=-1: an SD can't be negative"),
        ({"correlation": 2}, "correlation=2: give a number from -1 to 1"),
    ],
)
def test_the_singular_rate_refuses_what_cannot_be_fitted(changes, message):
    shown = explore.SingularRate(plt.subplots(1, 2)[1])
    design = {"n_schools": 5, "n_students": 20, "sd_slope": 0.8, "correlation": 0.3}
    with pytest.raises(ValueError, match=message):
        shown.update(**(design | changes))


def test_the_truth_at_an_edge_is_said():
    shown = explore.SingularRate(plt.subplots(1, 2)[1])
    assert "slopes do not vary, and ρ means nothing" in shown.update(5, 20, 0, 0.3)
    assert "The truth is at an edge itself: τ₁ = 0.8 points" in shown.update(5, 20, 0.8, -1)
    assert "at no edge" in shown.update(5, 20, 0.8, -0.9)


# Stills


def test_stills_draw_the_same_picture_at_settings_side_by_side():
    settings = [{"sigma": 5, "tau": 4, "n": n} for n in (2, 10, 40)]
    axes = explore.stills(explore.Shrinkage, settings)
    assert axes.shape == (2, 3)
    for row in axes:
        assert len({ax.get_xlim() for ax in row}) == len({ax.get_ylim() for ax in row}) == 1
    numbers = [ax.texts[0].get_text() for ax in axes[0]]
    assert numbers == [f"{16 / (16 + 25 / n):.2f}" for n in (2, 10, 40)]
    assert axes[0, 1].get_title(loc="left") == "σ = 5, τ = 4, n = 10"
    assert len(plt.get_fignums()) == 1
    with pytest.raises(ValueError, match="titles has 1 entries and settings 3"):
        explore.stills(explore.Shrinkage, settings, titles=["one"])


# Flipbooks


def draw_tilt(ax, value):
    ax.plot([0, 1], [0, value], color=plots.BLUE)
    ax.set(xlim=(0, 1), ylim=(-5, 5), xlabel="x", ylabel="y")


def frames(book):
    return [frame.value for frame in book.children[1].children]


def test_a_flipbook_is_light_described_and_linked_in_the_browser():
    book = explore.flipbook(
        draw_tilt, range(-5, 6), "Slope", describe=lambda v: f'A line of slope "{v}".'
    )
    slider, stack = book.children
    assert isinstance(stack, widgets.Stack)
    assert [label for label, _ in slider.options][:2] == ["-5", "-4"]
    assert sum(map(len, frames(book))) < 1_000_000
    assert len(set(frames(book))) == 11
    for value, frame in zip(range(-5, 6), frames(book), strict=True):
        assert f'alt="A line of slope &quot;{value}&quot;."' in frame
    png = frames(book)[0].split("base64,")[1].split('"')[0]
    assert Image.open(io.BytesIO(base64.b64decode(png))).mode == "P"
    assert plt.get_fignums() == []
    state = embed.dependency_state([book])
    assert len(json.dumps(state)) < 1_000_000
    (link,) = (model for model in state.values() if model["model_name"] == "LinkModel")
    assert link["state"]["source"] == [f"IPY_MODEL_{slider.model_id}", "index"]
    assert link["state"]["target"] == [f"IPY_MODEL_{stack.model_id}", "selected_index"]


def test_a_flipbook_is_the_same_every_time():
    one, two = (explore.flipbook(draw_tilt, (1, 2), "Slope") for _ in range(2))
    assert frames(one) == frames(two)


def test_a_flipbook_may_have_several_axes():
    def draw(axes, value):
        for ax in axes:
            draw_tilt(ax, value)

    assert len(frames(explore.flipbook(draw, (1, 2), "Slope", shape=(1, 2)))) == 2


def test_a_flipbook_refuses_one_frame_and_too_many_bytes(monkeypatch):
    with pytest.raises(ValueError, match="values has 1 entries"):
        explore.flipbook(draw_tilt, [1], "Slope")
    monkeypatch.setattr(explore_flipbook, "MOST_BYTES", 5_000)
    with pytest.raises(ValueError, match="values gives 2 frames of .* fewer values or a smaller"):
        explore.flipbook(draw_tilt, [1, 2], "Slope")


def test_in_the_presenters_style_the_picture_is_larger_as_a_whole():
    def width():
        return Image.open(io.BytesIO(explore.shrinkage().image.value)).width

    before = width()
    plots.use_style("presenter")
    try:
        assert abs(width() / before - plots.LARGER) < 0.01
    finally:
        plots.use_style("course")
