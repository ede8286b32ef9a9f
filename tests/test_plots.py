"""The figures' structure: lines and their styles, labels, limits, and what bad input is told."""

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import statsmodels.formula.api as smf
from matplotlib.patches import Ellipse, FancyArrowPatch

from helpers import mixed, plots, simulate

mpl.use("Agg")
X, Y, G = "app_hours", "math_score", "school_id"


@pytest.fixture(autouse=True)
def clean_figures(monkeypatch):
    monkeypatch.delenv("COURSE_STYLE", raising=False)
    plots.use_style()
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def data():
    return simulate.schools(30, 20, seed=1)


@pytest.fixture(scope="module")
def uneven():
    return simulate.schools(8, [2, 3, 5, 8, 12, 20, 30, 40], seed=7)


@pytest.fixture(scope="module")
def intercepts(data):
    return mixed.fit(f"{Y} ~ {X}", data, G)


@pytest.fixture(scope="module")
def slopes(data):
    return mixed.fit(f"{Y} ~ {X}", data, G, f"~{X}")


# These eight schools say too little of the correlation: the fit is on the edge, and says so.
singular = pytest.mark.filterwarnings("ignore:singular fit")


@pytest.fixture(scope="module")
def uneven_slopes(uneven):
    return mixed.fit(f"{Y} ~ {X}", uneven, G, f"~{X}")


def with_style(ax, look):
    """Lines of the Axes drawn in one of the course's looks."""
    pattern = mpl.lines.Line2D([], [], **look)._unscaled_dash_pattern
    colour = look["color"]
    return [
        line
        for line in ax.lines
        if line.get_color() == colour and line._unscaled_dash_pattern == pattern
    ]


def slope_of(line):
    x, y = line.get_data()
    return (y[-1] - y[0]) / (x[-1] - x[0])


def words(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


# Every figure: one Axes, the one given or a new one, and no more


def draw_all(data, intercepts, slopes):
    ols = smf.ols(f"{Y} ~ {X}", data).fit()
    rng = np.random.default_rng(1)
    estimates = rng.normal(2, 0.2, 500)
    return {
        "pooled_line": lambda ax: plots.pooled_line(data, X, Y, ax=ax),
        "separate_lines": lambda ax: plots.separate_lines(data, X, Y, G, ax=ax),
        "parallel_lines": lambda ax: plots.parallel_lines(intercepts, X, ax=ax),
        "group_lines": lambda ax: plots.group_lines(slopes, X, ax=ax),
        "three_way": lambda ax: plots.three_way(slopes, X, ax=ax),
        "shrinkage by size": lambda ax: plots.shrinkage(intercepts, ax=ax),
        "shrinkage plane": lambda ax: plots.shrinkage(slopes, ax=ax),
        "covariance_ellipse": lambda ax: plots.covariance_ellipse(slopes, ax=ax),
        "caterpillar": lambda ax: plots.caterpillar(slopes, X, ax=ax),
        "variance_function": lambda ax: plots.variance_function(slopes, X, ax=ax),
        "variances": lambda ax: plots.variance_function(slopes, X, scale="variance", ax=ax),
        "sampling": lambda ax: plots.sampling(estimates, truth=2, claimed_se=0.1, ax=ax),
        "residuals": lambda ax: plots.residuals(ols, ax=ax),
        "residuals by": lambda ax: plots.residuals(ols, by=data[G], ax=ax),
        "qq": lambda ax: plots.qq(ols.resid, label="normal", ax=ax),
    }


def test_every_figure_takes_and_makes_one_axes(data, intercepts, slopes):
    for name, draw in draw_all(data, intercepts, slopes).items():
        figure, ax = plt.subplots()
        assert draw(ax) is ax, name
        assert plt.get_fignums() == [figure.number], name
        assert figure.axes == [ax], name
        plt.close(figure)
        own = draw(None)
        assert plt.get_fignums() == [own.figure.number], name
        own.figure.canvas.draw()
        plt.close(own.figure)
        assert own.get_xlabel() or name == "covariance_ellipse", name


def test_the_axes_are_named_with_units(data, slopes):
    ax = plots.group_lines(slopes, X)
    assert ax.get_xlabel() == "Hours on the app"
    assert ax.get_ylabel() == "Maths score (points)"
    assert plots.caterpillar(slopes, X).get_ylabel().endswith("(points an hour)")
    assert plots.variance_function(slopes, X).get_ylabel() == "Maths score: SD (points)"
    renamed = data.rename(columns={X: "weekly_use"})
    assert plots.pooled_line(renamed, "weekly_use", Y).get_xlabel() == "Weekly use"


# The style


def test_the_style_is_the_same_twice_and_after_other_settings():
    plots.use_style()
    once = dict(mpl.rcParams)
    mpl.rcParams.update({"font.size": 30, "lines.marker": "x", "axes.grid": True})
    plots.use_style()
    assert dict(mpl.rcParams) == once
    assert mpl.rcParams["figure.facecolor"] == "white"


def test_a_figure_is_the_same_bytes_every_time(data, tmp_path):
    for name in ("first.png", "second.png"):
        plots.use_style()
        figure = plots.pooled_line(data, X, Y).figure
        figure.savefig(tmp_path / name)
        assert tuple(figure.get_size_inches()) == (8.0, 4.8)
    first, second = ((tmp_path / name).read_bytes() for name in ("first.png", "second.png"))
    assert first == second
    assert len(first) < 150_000


def test_the_style_needs_no_jupyter():
    code = "import sys; from helpers import plots; plots.use_style(); print(*sys.modules)"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert not {"IPython", "ipywidgets", "matplotlib_inline"} & set(done.stdout.split())


# The presenter's style


def letters(figure):
    """Sizes of all type in a figure, as shares of the height of a 16:9 screen that it fills."""
    figure.canvas.draw()
    width, height = figure.get_size_inches()
    screen = 72 * max(height, width * 9 / 16)
    return [
        text.get_fontsize() / screen for text in figure.findobj(mpl.text.Text) if text.get_text()
    ]


def in_the_picture(figure):
    """Texts of a figure that stick out of it or of which two lie on each other."""
    figure.canvas.draw()
    frame = figure.bbox.padded(1)
    found, boxes = [], []
    for text in figure.findobj(mpl.text.Text):
        if not text.get_text() or not text.get_visible() or isinstance(text.axes, type(None)):
            continue
        box = mpl.text.Text.get_window_extent(text)
        if box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1:
            found.append(f"{text.get_text()!r} sticks out")
        others = [other for other, place in boxes if place.padded(-1).overlaps(box.padded(-1))]
        found += [f"{text.get_text()!r} lies on {other!r}" for other in others]
        boxes.append((text.get_text(), box))
    return found


def test_the_presenters_figures_are_read_at_ten_metres(data, intercepts, slopes):
    plots.use_style("presenter")
    figures = {name: draw(None).figure for name, draw in draw_all(data, intercepts, slopes).items()}
    figures["three panels"] = plots.three_panels(data, X, Y, G, intercepts, slopes)[0].figure
    figures["panel"] = plots.panel(data, X, Y, G, fit=slopes)[0].figure
    for name, figure in figures.items():
        assert min(letters(figure)) >= 1 / 30, name
        assert in_the_picture(figure) == [], name


def test_the_presenters_style_changes_type_and_not_the_size_in_pixels(data, monkeypatch):
    course = plots.pooled_line(data, X, Y).figure
    monkeypatch.setenv("COURSE_STYLE", "presenter")
    plots.use_style()
    larger = plots.pooled_line(data, X, Y).figure
    assert tuple(larger.bbox.size) == pytest.approx(tuple(course.bbox.size))
    assert max(letters(larger)) == pytest.approx(plots.LARGER * max(letters(course)))
    plots.use_style("course")
    again = plots.pooled_line(data, X, Y).figure
    assert tuple(again.get_size_inches()) == tuple(course.get_size_inches())


def test_long_words_are_broken_in_the_presenters_style():
    plots.use_style("presenter")
    title = "A title that says in one sentence what is to be seen in the figure below it"
    figure, axes = plt.subplots(1, 2)
    axes[0].set(title=title, ylabel="A label that is longer than the axis is high (points an hour)")
    axes[1].plot([0, 1], label="what the standard error of one study claims")
    axes[1].legend()
    names = ["school's own line (no pooling)", "partial pooling", "average line"]
    handles = [mpl.lines.Line2D([], [], label=name) for name in names]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    figure.canvas.draw()
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1
    assert axes[0].get_title(loc="left").replace("\n", " ") == title
    assert axes[0].title.get_window_extent().x1 <= figure.bbox.x1
    (entry,) = axes[1].get_legend().get_texts()
    assert "\n" in entry.get_text()
    assert "\n" in axes[0].get_ylabel()


def test_an_unknown_style_is_named(monkeypatch):
    with pytest.raises(ValueError, match="style='huge': use one of"):
        plots.use_style("huge")
    monkeypatch.setenv("COURSE_STYLE", "large")
    with pytest.raises(ValueError, match="style='large'.*COURSE_STYLE"):
        plots.use_style()


# Lines


def test_pooled_line_is_least_squares_and_dashed(data):
    ax = plots.pooled_line(data, X, Y, residuals=True)
    (line,) = with_style(ax, plots.POOLED)
    assert slope_of(line) == pytest.approx(smf.ols(f"{Y} ~ {X}", data).fit().params[X])
    segments = [c for c in ax.collections if hasattr(c, "get_segments")][0].get_segments()
    assert len(segments) == len(data)
    assert "one line for all" in words(ax)


def test_separate_lines_has_a_line_a_group(data):
    ax = plots.separate_lines(data, X, Y, G)
    assert len(ax.lines) == 30
    slopes = [slope_of(line) for line in ax.lines]
    own = [np.polyfit(rows[X], rows[Y], 1)[0] for _, rows in data.groupby(G)]
    assert sorted(slopes) == pytest.approx(sorted(own))
    labelled = {line.get_color(): slope_of(line) for line in ax.lines if line.get_linewidth() > 2}
    assert labelled == {plots.BLUE: min(slopes), plots.VERMILLION: max(slopes)}


def test_a_line_is_as_long_as_its_groups_range(data, slopes):
    hours = data.groupby(G)[X].agg(["min", "max"])
    ax = plots.group_lines(slopes, X, highlight=[])
    drawn = [tuple(line.get_xdata()) for line in ax.lines[:30]]
    assert np.allclose(drawn, hours)
    ax = plots.group_lines(slopes, X, highlight=[], full_range=True)
    whole = (data[X].min(), data[X].max())
    assert all(tuple(line.get_xdata()) == pytest.approx(whole) for line in ax.lines)


def test_parallel_lines_are_parallel_and_random_slopes_refused(intercepts, slopes):
    ax = plots.parallel_lines(intercepts, X)
    assert len(ax.lines) == 31
    assert np.ptp([slope_of(line) for line in ax.lines]) < 1e-9
    assert len(with_style(ax, plots.AVERAGE)) == 1
    with pytest.raises(ValueError, match="random slope of 'app_hours'.*use group_lines"):
        plots.parallel_lines(slopes, X)


def test_group_lines_are_fixed_effects_plus_blups(slopes):
    ax = plots.group_lines(slopes, X)
    table = mixed.group_coefficients(slopes)
    expected = table[table["term"] == X].set_index("group")["estimate"]
    assert [slope_of(line) for line in ax.lines[:30]] == pytest.approx(list(expected.sort_index()))
    (average,) = with_style(ax, plots.AVERAGE)
    assert slope_of(average) == pytest.approx(slopes.fe_params[X])
    assert {text.split()[0] for text in words(ax)} == {"School", "average"}


def test_three_way_has_all_three_kinds(slopes):
    ax = plots.three_way(slopes, X, highlight=["School_03"])
    assert len(ax.lines) == 32
    assert len(with_style(ax, plots.AVERAGE)) == len(with_style(ax, plots.POOLED)) == 1
    assert sorted(words(ax)) == ["School 03", "average line", "one line for all"]


def test_few_groups_get_a_colour_a_marker_and_a_label_each():
    data = simulate.article_example()
    ax = plots.separate_lines(data, X, Y, G)
    assert words(ax) == ["School 0", "School 1", "School 2"]
    assert len({line.get_color() for line in ax.lines}) == 3
    points = [dots for dots in ax.collections if len(dots.get_offsets())]
    assert [len(dots.get_offsets()) for dots in points] == [10, 10, 10]
    assert len({dots.get_paths()[0].vertices.tobytes() for dots in points}) == 3


def test_labels_at_line_ends_do_not_touch(slopes):
    highlight = [f"School_{j:02d}" for j in range(6)]
    ax = plots.three_way(slopes, X, highlight=highlight)
    ax.figure.canvas.draw()
    # An annotation's own extent includes its leader; the text's alone is wanted.
    boxes = [mpl.text.Text.get_window_extent(text) for text in ax.texts]
    boxes.sort(key=lambda box: box.y0)
    assert len(boxes) == 8
    assert all(low.y1 <= high.y0 for low, high in zip(boxes, boxes[1:], strict=False))


def test_other_terms_are_held_at_their_mean(data):
    data = data.assign(girl=np.arange(len(data)) % 2)
    fit = mixed.fit(f"{Y} ~ {X} + girl", data, G)
    (average,) = with_style(plots.group_lines(fit, X), plots.AVERAGE)
    at_zero = average.get_ydata()[0] - slope_of(average) * average.get_xdata()[0]
    assert at_zero == pytest.approx(fit.fe_params["Intercept"] + 0.5 * fit.fe_params["girl"])
    crossed = mixed.fit(f"{Y} ~ {X} * girl", data, G)
    with pytest.raises(ValueError, match="x='app_hours' is part of the interaction"):
        plots.group_lines(crossed, X)


# Panels


def test_three_panels_share_limits(data, intercepts, slopes):
    axes = plots.three_panels(data, X, Y, G, intercepts, slopes)
    assert [len(ax.lines) for ax in axes] == [1, 31, 31]
    assert len({ax.get_xlim() for ax in axes}) == len({ax.get_ylim() for ax in axes}) == 1
    assert [ax.get_title(loc="left") for ax in axes] == [
        "One line",
        "Parallel lines",
        "Beyond parallel lines",
    ]
    with pytest.raises(ValueError, match="axes holds 2 Axes.*needs 3"):
        plots.three_panels(data, X, Y, G, intercepts, slopes, axes=plt.subplots(1, 2)[1])


@singular
def test_panel_is_ordered_by_size_and_shares_limits(uneven, uneven_slopes):
    axes = plots.panel(uneven, X, Y, G, fit=uneven_slopes)
    sizes = [int(ax.get_title(loc="left").split("n = ")[1]) for ax in axes]
    assert sizes == [2, 3, 5, 8, 12, 20, 30, 40]
    assert len({ax.get_xlim() for ax in axes}) == len({ax.get_ylim() for ax in axes}) == 1
    for ax in axes:
        for look in (plots.OWN, plots.PARTIAL, plots.AVERAGE):
            assert len(with_style(ax, look)) == 1
    assert plt.get_fignums() == [axes[0].figure.number]


def test_panel_without_a_fit_has_the_pooled_line(data):
    axes = plots.panel(data, X, Y, G, groups=["School_02", "School_05", "School_01"])
    assert len(axes) == 3
    assert all(len(with_style(ax, plots.POOLED)) == 1 for ax in axes)
    assert {ax.get_title(loc="left") for ax in axes} == {"School 01", "School 02", "School 05"}
    with pytest.raises(ValueError, match="groups names .*School_99.*not among the groups"):
        plots.panel(data, X, Y, G, groups=["School_99"])


# Shrinkage, caterpillar, ellipse


def test_shrinkage_moves_small_groups_most():
    sizes = [2, 2, 4, 10, 20, 40]
    data = simulate.schools(6, sizes, sd_slope=0, sd_intercept=3, seed=4)
    fit = mixed.fit(f"{Y} ~ 1", data, G)
    ax = plots.shrinkage(fit)
    own, partial = (np.asarray(points.get_offsets()) for points in ax.collections)
    means = data.groupby(G)[Y].mean()
    assert own[:, 1] == pytest.approx(means.to_numpy())
    weight = (partial[:, 1] - fit.fe_params["Intercept"]) / (own[:, 1] - fit.fe_params["Intercept"])
    variance = fit.cov_re.iloc[0, 0]
    assert weight == pytest.approx(variance / (variance + fit.scale / np.array(sizes)), abs=1e-5)
    assert len({round(x, 6) for x in own[:, 0]}) == 6  # equal sizes stand side by side


@singular
def test_shrinkage_plane_leaves_out_what_a_group_cannot_estimate(uneven):
    data = uneven.copy()
    first = data[G] == "School_0"
    data.loc[first, X] = 5.0  # no line of its own
    fit = mixed.fit(f"{Y} ~ {X}", data, G, f"~{X}")
    ax = plots.shrinkage(fit, highlight=["School_7"])
    assert sum(isinstance(patch, Ellipse) for patch in ax.patches) == 1
    assert sum(isinstance(patch, FancyArrowPatch) for patch in ax.patches) == 7
    assert "School 7" in words(ax)


def test_covariance_ellipse_holds_its_share():
    cov = np.array([[16.0, 0.96], [0.96, 0.64]])
    ax = plots.covariance_ellipse(cov, mean=(60, 2), level=0.8)
    (ellipse,) = ax.patches
    draws = np.random.default_rng(5).multivariate_normal((60, 2), cov, size=20_000)
    inside = ellipse.get_patch_transform().inverted().transform(draws)
    share = np.mean((inside**2).sum(axis=1) <= 1)
    assert share == pytest.approx(0.8, abs=3 * np.sqrt(0.8 * 0.2 / 20_000))
    with pytest.raises(ValueError, match="level=95.*between 0 and 1"):
        plots.covariance_ellipse(cov, level=95)


def test_caterpillar_is_in_order_and_marks_what_leaves_out_zero(slopes):
    ax = plots.caterpillar(slopes)
    middles = np.concatenate(
        [c.get_offsets() for c in ax.collections if not hasattr(c, "get_segments")]
    )
    middles = middles[np.argsort(middles[:, 0])]
    assert len(middles) == 30
    assert (np.diff(middles[:, 1]) >= 0).all()
    table = mixed.group_coefficients(slopes)
    table = table[table["term"] == "Intercept"]
    apart = (table["blup"].abs() > 1.959964 * table["sd"]).sum()
    filled = sum(
        len(c.get_offsets())
        for c in ax.collections
        if not hasattr(c, "get_segments") and tuple(c.get_facecolor()[0][:3]) != (1, 1, 1)
    )
    assert filled == apart
    assert len(words(ax)) == 2
    with pytest.raises(ValueError, match="term='ses' does not vary between groups.*app_hours"):
        plots.caterpillar(slopes, "ses")


# Variances, sampling, residuals


def test_variance_function_adds_up(slopes):
    ax = plots.variance_function(slopes, X, values=[0, 5])
    total, between, within = (line.get_ydata() for line in ax.lines[:3])
    assert total**2 == pytest.approx(between**2 + within**2)
    psi = slopes.cov_re.to_numpy()
    assert between[1] ** 2 == pytest.approx(psi[0, 0] + 10 * psi[0, 1] + 25 * psi[1, 1])
    assert within[0] ** 2 == pytest.approx(slopes.scale)
    assert ax.get_ylim()[0] == 0
    with pytest.raises(ValueError, match="scale='var'.*'sd' or 'variance'"):
        plots.variance_function(slopes, X, scale="var")


def test_sampling_draws_claim_and_truth():
    estimates = np.random.default_rng(0).normal(2, 0.2, 1000)
    ax = plots.sampling(estimates, truth=2, claimed_se=0.1, xlabel="Slope")
    curve, truth = ax.lines
    area = np.trapezoid(curve.get_ydata(), curve.get_xdata())
    assert area == pytest.approx(1, abs=1e-3)
    assert truth.get_xdata()[0] == 2
    assert "1,000 simulations" in [text.get_text() for text in ax.get_legend().get_texts()]
    with pytest.raises(ValueError, match="claimed_se=-1 is not positive"):
        plots.sampling(estimates, claimed_se=-1)
    with pytest.raises(ValueError, match=r"estimates has shape \(2, 2\)"):
        plots.sampling(np.ones((2, 2)))


def test_residual_strips_are_ordered_by_mean(data):
    ols = smf.ols(f"{Y} ~ {X}", data).fit()
    ax = plots.residuals(ols, by=data[G])
    strips = [c for c in ax.collections if hasattr(c, "get_segments")][0].get_segments()
    heights = [strip[0, 1] for strip in strips]
    assert len(heights) == 30
    assert heights == sorted(heights)
    assert ax.get_xlabel() == "30 schools, ordered by mean residual"
    assert ax.get_ylabel() == "Residual (points)"
    with pytest.raises(ValueError, match="by has 3 labels for 600 residuals"):
        plots.residuals(ols, by=["a", "b", "c"])


def test_qq_of_normal_values_is_straight():
    ax = plots.qq(np.random.default_rng(2).normal(0, 3, 4000), ylabel="Residual")
    (line,) = ax.lines
    assert slope_of(line) == pytest.approx(3, rel=0.05)
    with pytest.raises(ValueError, match="values has 2 finite numbers"):
        plots.qq([1.0, 2.0, np.nan])


# Bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda d, f: plots.pooled_line([1], X, Y), TypeError, "data is a list.*DataFrame"),
        (lambda d, f: plots.pooled_line(d, "hours", Y), ValueError, "x='hours' is not a column"),
        (lambda d, f: plots.pooled_line(d, X, G), ValueError, "y='school_id' has type.*to_numeric"),
        (
            lambda d, f: plots.separate_lines(d, X, Y, "school"),
            ValueError,
            "group='school' is not a column.*school_id",
        ),
        (
            lambda d, f: plots.pooled_line(d.assign(app_hours=1.0), X, Y),
            ValueError,
            "x='app_hours' takes a single value",
        ),
        (
            lambda d, f: plots.pooled_line(d.assign(app_hours=np.nan), X, Y),
            ValueError,
            "data has no row",
        ),
        (lambda d, f: plots.group_lines(f, "ses"), ValueError, "x='ses' is not a term.*app_hours"),
        (
            lambda d, f: plots.group_lines(f, X, highlight=["nowhere"]),
            ValueError,
            "highlight names .*nowhere.*School_00",
        ),
        (
            lambda d, f: plots.group_lines(f, X, highlight="School_00"),
            TypeError,
            "highlight='School_00' is a string.*list",
        ),
        (
            lambda d, f: plots.group_lines(f, X, highlight=list(d[G].unique()[:7])),
            ValueError,
            "highlight names 7 groups.*6 colours",
        ),
        (lambda d, f: plots.shrinkage(f, "ses"), ValueError, "term='ses' does not vary"),
        (
            lambda d, f: plots.residuals(f, by=d[G], highlight=["nowhere"]),
            ValueError,
            "highlight names .*nowhere",
        ),
        (lambda d, f: plots.panel(d, X, Y, G, groups="School_00"), TypeError, "groups='School_00'"),
        (lambda d, f: plots.covariance_ellipse(np.eye(3)), ValueError, r"shape \(3, 3\)"),
    ],
)
def test_bad_input_is_named_with_its_mend(call, error, message, data, slopes):
    with pytest.raises(error, match=message):
        call(data, slopes)
    assert plt.get_fignums() == []


def test_rows_with_missing_values_are_left_out(data):
    holed = data.copy()
    holed.loc[::7, X] = np.nan
    (line,) = with_style(plots.pooled_line(holed, X, Y), plots.POOLED)
    assert slope_of(line) == pytest.approx(smf.ols(f"{Y} ~ {X}", holed).fit().params[X])
