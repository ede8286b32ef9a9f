"""The benchmark runs and reports what it says; no time is asserted."""

import importlib.util
import json
import shutil

import bench
import numpy as np
import pandas as pd
import pytest

import course


@pytest.fixture(scope="module")
def tiny():
    return [bench.simulated(5, 6), bench.simulated(8, 5)]


@pytest.fixture
def lme4(tmp_path):
    if shutil.which("Rscript") is None:
        pytest.skip("needs R")
    with bench.Lme4(tmp_path) as asked:
        if not asked.version:
            pytest.skip("needs R's package lme4")
        yield asked


def test_quick_run(tiny, tmp_path, monkeypatch, capsys):
    """All of it on the smallest data, without R; what it wrote is read back."""
    refits, scaling = bench.refits, bench.scaling
    formula = pd.DataFrame({"fitter": [bench.OURS], "ms": [1.0]})
    monkeypatch.setattr(bench, "battery", lambda quick: tiny)
    n_fits = {bench.OURS: 20, "statsmodels": 1, "mixedlm-rs": 2}
    monkeypatch.setattr(bench, "refits", lambda *_: refits(None, 1, n_fits))
    monkeypatch.setattr(bench, "by_formula", lambda *_: formula)
    monkeypatch.setattr(
        bench,
        "scaling",
        lambda quick: [(name, sizes[:2], make) for name, sizes, make in scaling(quick)],
    )
    monkeypatch.setattr(bench, "find_lme4", lambda *_: None)
    out = tmp_path / "new" / "bench.json"
    bench.main(["--quick", "--out", str(out)])
    printed = capsys.readouterr().out
    for words in ["5 x 6", "8 x 5", "fastest other", "exponent", "reached", "Threads", str(out)]:
        assert words in printed
    result = json.loads(out.read_text(encoding="utf-8"))
    assert {"single", "refit", "formula", "growth", "versions", "threads"} <= set(result)
    ours = [row for row in result["single"] if row["fitter"] == bench.OURS]
    assert [row["case"] for row in ours] == ["5 x 6", "8 x 5"]
    assert all(row["reached"] and row["times_ours"] == 1 for row in ours)
    assert result["refit"][0]["reached"] == 20
    assert result["growth"][-1]["peak_MB"] > 0


def test_a_miss_is_seen(tiny):
    def worse(case):
        seconds, criterion = bench.course_fit(case)
        return seconds, criterion + 0.01

    fitters = {bench.OURS: bench.course_fit, "worse": worse, "failed": lambda case: (0.0, np.nan)}
    table = bench.single_fits(tiny[:1], fitters, rounds=1).set_index("fitter")
    assert table.reached.to_dict() == {bench.OURS: True, "worse": False, "failed": False}
    assert table.above_best["worse"] == pytest.approx(0.01)


def test_slow_runs_are_asked_once():
    asked = {"slow": 0, "fast": 0}

    def run(name, seconds):
        asked[name] += 1
        return seconds * asked[name], name.upper()

    found = bench.take_turns(
        {"slow": lambda: run("slow", 5.0), "fast": lambda: run("fast", 0.003)}, rounds=2
    )
    assert asked == {"slow": 1, "fast": 7}  # once; 4, 2 and 1 times, until 20 ms are over
    assert found["slow"] == (5.0, "SLOW")
    assert found["fast"] == (pytest.approx((0.0165 + 0.021) / 2), "FAST")  # without the first turn


def test_growth_finds_the_exponent(monkeypatch):
    monkeypatch.setattr(bench, "timed", lambda run: (run(), None))
    curves = [("squares", [10, 100, 1000], lambda n: (lambda: 3e-9 * n**2, 8 * n))]
    last = bench.growth(curves, rounds=1).iloc[-1]
    assert last.exponent == pytest.approx(2)
    assert last.last_exponent == pytest.approx(2)


def test_peak_memory_is_that_of_the_arrays():
    assert 8e6 <= bench.peak_memory(lambda: np.ones(1_000_000).sum()) < 9e6


def test_every_fitter_of_this_machine_agrees(tiny):
    for case in tiny:
        criteria = {name: fit(case)[1] for name, fit in bench.python_fitters().items()}
        assert np.ptp(list(criteria.values())) < 0.1
    assert ("mixedlm-rs" in bench.python_fitters()) == bool(importlib.util.find_spec("mixedlm_rs"))


def test_lme4_answers(lme4, tiny):
    case = tiny[1]
    seconds, criterion = lme4.fit(case)
    assert seconds > 0
    assert criterion == pytest.approx(bench.course_fit(case)[1], abs=0.1)
    Y = np.stack([case.y, case.y[::-1]])
    _, criteria = lme4.refit(case, Y)
    ours = bench.reml.fit_many(Y, case.X, case.Z, case.groups).criterion
    np.testing.assert_allclose(criteria, ours, atol=0.1)


def test_the_command_runs_the_benchmark(monkeypatch):
    ran = []
    monkeypatch.setattr(course, "ensure_packages", lambda: ran.append("packages"))
    monkeypatch.setattr(course, "run_in_venv", lambda *words: ran.append(words) or 0)
    assert course.main(["bench", "--quick"]) == 0
    assert ran == ["packages", (course.ROOT / "tests" / "bench.py", "--quick")]
