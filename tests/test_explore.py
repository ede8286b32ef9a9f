"""Explorers and flipbooks: what moves, what it says, what it weighs, and how fast it is."""

import base64
import io
import json
import time

import browser
import ipywidgets as widgets
import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from ipywidgets import embed
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from helpers import explore, plots, power, reml, simulate

mpl.use("Agg")


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


def picture(explorer):
    return np.asarray(Image.open(io.BytesIO(bytes(explorer.image.value))))


EXPLORERS = {
    "line_fit": explore.line_fit,
    "shrinkage": explore.shrinkage,
    "power_curve": explore.power_curve,
}


# Live explorers


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_slider_moves_the_picture_and_the_words_and_reset_undoes_it(name):
    explorer = EXPLORERS[name]()
    first, words = picture(explorer), explorer.text.value
    for key, slider in explorer.sliders.items():
        start = slider.value
        slider.value = slider.min + 0.8 * (slider.max - slider.min)
        assert (picture(explorer) != first).any(), key
        assert explorer.text.value != words, key
        slider.value = start
        assert (picture(explorer) == first).all(), key
    for slider in explorer.sliders.values():
        slider.value = slider.max
    explorer.reset.click()
    assert (picture(explorer) == first).all()
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_redraw_takes_less_than_a_blink(name):
    explorer = EXPLORERS[name]()
    slider = next(iter(explorer.sliders.values()))
    times = []
    for value in np.linspace(slider.min + slider.step, slider.max, 9):
        start = time.perf_counter()
        slider.value = value
        times.append(time.perf_counter() - start)
    # The quickest few of nine, so that a busy machine does not fail the test.
    assert sorted(times)[2] < 0.150


@pytest.mark.parametrize("name", EXPLORERS)
def test_sliders_say_what_they_set(name):
    explorer = EXPLORERS[name]()
    for slider in explorer.sliders.values():
        assert "(" in slider.description or slider.description.endswith(", n")
        assert not slider.disabled
    assert explorer.reset.description == "Reset"


def test_the_picture_has_the_courses_look_before_use_style():
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        plain = picture(explore.shrinkage())
    plots.use_style()
    assert (picture(explore.shrinkage()) == plain).all()


def test_shrinkage_says_the_factor():
    explorer = explore.shrinkage()
    for name, value in {"sigma": 6.0, "tau": 3.0, "n": 4}.items():
        explorer.sliders[name].value = value
    assert "the factor is 0.50" in explorer.text.value
    assert "put 4.0 points above it" in explorer.text.value


def test_an_impossible_setting_says_why_and_the_picture_waits():
    explorer = explore.shrinkage()
    explorer.sliders["sigma"].value = 0
    before = picture(explorer)
    explorer.sliders["tau"].value = 0
    assert (picture(explorer) == before).all()
    assert "0/0" in explorer.text.value
    explorer.sliders["tau"].value = 1
    assert "the factor is 1.00" in explorer.text.value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0, "tau": 0, "n": 5}, "sigma=0 and tau=0.*Raise one"),
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
    assert "30 schools × 20 students: an average slope of 0.5" in explorer.text.value
    shares = []
    for n_schools in (12, 30, 60):
        explorer.sliders["n_schools"].value = n_schools
        shares.append(explorer.picture._now["power_slope"].get_ydata().item())
        assert f"found in {shares[-1]:.0%} of studies" in explorer.text.value
    assert shares == sorted(shares)


@pytest.mark.parametrize("name", ["n_schools", "n_students", "slope", "sd_slope"])
def test_a_power_curve_of_many_studies_takes_less_than_a_blink(name):
    explorer = explore.power_curve()
    assert explorer.picture.studies.n_studies >= 500
    slider = explorer.sliders[name]
    times = []
    for share in np.linspace(0.2, 1, 5):
        start = time.process_time()
        slider.value = type(slider.value)(slider.min + share * (slider.max - slider.min))
        times.append(time.process_time() - start)
    assert min(times) < 0.150


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
    assert "Take three or more. The picture shows the last setting" in explorer.text.value
    explorer.sliders["n_students"].value = 3
    assert "30 schools × 3 students" in explorer.text.value


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
    assert 'alt="A line of slope &quot;-5&quot;."' in frames(book)[0]
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
    monkeypatch.setattr(explore, "MOST_BYTES", 5_000)
    with pytest.raises(ValueError, match="values gives 2 frames of .* fewer values or a smaller"):
        explore.flipbook(draw_tilt, [1, 2], "Slope")


# In a real JupyterLab

CELLS = [
    "from helpers import explore",
    "explore.shrinkage()",
    "def draw(ax, value):\n    ax.plot([0, value])\n    ax.set(ylim=(0, 4))",
    "explore.flipbook(draw, (1, 2, 3), 'Height')",
]
SEE = """
const images = [...document.querySelectorAll('.jp-OutputArea-output img')];
return [images[0].src, document.querySelector('[role=status]').innerText, images.at(-1).alt];
"""


@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "can run")
def test_arrow_keys_move_the_picture_and_a_flipbook_needs_no_kernel():
    from selenium.webdriver.common.keys import Keys

    notebook = new_notebook(cells=[new_code_cell(source) for source in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    with browser.lab() as server, browser.chrome() as driver:
        nbformat.write(notebook, server.root / "explore.ipynb")
        browser.open_notebook(driver, server, "explore.ipynb")
        browser.run_all(driver)
        assert browser.complaints(driver) == []
        handles = driver.find_elements("css selector", ".noUi-handle")
        source, words, alt = driver.execute_script(SEE)
        handles[0].send_keys(Keys.ARROW_RIGHT)
        moved = wait_for(lambda: changed(driver, source, words))
        assert moved[1].startswith("σ = 5.5 points")
        browser.end_kernel(driver)
        handles[-1].send_keys(Keys.ARROW_RIGHT)
        wait_for(lambda: driver.execute_script(SEE)[2] == "Height: 2.")
        assert alt == "Height: 1."


def changed(driver, source, words):
    now = driver.execute_script(SEE)
    return now if now[0] != source and now[1] != words else None


def wait_for(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "nothing changed"
        time.sleep(0.1)
    return result
