"""Measure the engine beside other fitters, all in one run, so that ratios mean something.

    python3 course.py bench             one to four minutes on an idle machine
    python3 course.py bench --quick     some twenty seconds, with smaller sizes
    python3 course.py bench --out FILE  where the machine-readable copy goes

Four tables: single fits, refits of one model to many responses, the growth of cost with size, and
fits by formula. Fitters take turns, round after round, and the median counts, so that a busy moment
hits all alike. In its turn a quick one is asked again for a fiftieth of a second, and of these
times, too, the median counts. Those that are not installed (mixedlm-rs, R with lme4) are left out.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

# Before NumPy is loaded. `course.py` sets the same: the matrices are small.
THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
for setting in THREAD_SETTINGS:
    os.environ.setdefault(setting, "1")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import statsmodels.api as sm  # noqa: E402
import statsmodels.formula.api as smf  # noqa: E402

from helpers import datasets, mixed, reml, simulate  # noqa: E402

try:
    import mixedlm_rs
except ImportError:
    mixedlm_rs = None

HIT = 1e-3  # how far above the best criterion still counts as having reached it
SLOW = 1.0  # seconds after which a fitter is not asked again
TURN = 0.02  # seconds that a fitter has at least: at first its caches hold what another left there
MOST_A_TURN = 50
OURS = "course"


@dataclass(frozen=True)
class Case:
    """A model to fit: arrays as `reml.fit` takes them."""

    name: str
    y: np.ndarray  # (n,)
    X: np.ndarray  # (n, p)
    Z: np.ndarray  # (n, q)
    groups: np.ndarray  # (n,), whole numbers


# Cases -----------------------------------------------------------------------------------


def textbook(name, group, y, *terms, slope):
    """A case from the course's data: y on the terms, the first `slope` of them varying too."""
    data = datasets.load(name)
    columns = [np.ones(len(data)), *(np.asarray(term(data), dtype=float) for term in terms)]
    X = np.column_stack(columns)
    codes = pd.factorize(data[group], sort=True)[0]
    return Case(name, np.asarray(y(data), dtype=float), X, X[:, : 1 + slope], codes)


def simulated(n_schools, n_students, seed=1):
    """A case from the running example, with slopes that vary."""
    data = simulate.schools(n_schools, n_students, seed=seed)
    X = np.column_stack([np.ones(len(data)), data["app_hours"]])
    codes = np.repeat(np.arange(n_schools), n_students)
    return Case(f"{n_schools} x {n_students}", data["math_score"].to_numpy(), X, X, codes)


def battery(quick):
    """Small tables from textbooks, larger ones, and simulated schools of all shapes."""
    sleep = textbook("sleepstudy", "subject", lambda d: d.reaction, lambda d: d.days, slope=1)
    rats = textbook("bodyweight", "rat", lambda d: d.weight, lambda d: d.time, slope=1)
    if quick:
        return [sleep, rats, simulated(5, 6), simulated(30, 20)]
    sizes = [(5, 6), (18, 10), (30, 20), (160, 45), (500, 10)]
    return [
        sleep,
        textbook("orthodont", "subject", lambda d: d.distance, lambda d: d.age, slope=1),
        rats,
        textbook("theoph", "subject", lambda d: d.conc, lambda d: d.time, slope=1),
        textbook(
            "cheese",
            "retailer",
            lambda d: np.log(d.volume),
            lambda d: np.log(d.price),
            lambda d: d.disp,
            slope=1,
        ),
        textbook("hsb", "school", lambda d: d.mathach, lambda d: d.ses - d.meanses, slope=1),
        *(simulated(*size) for size in sizes),
    ]


# Fitters: each takes a case and returns (seconds, criterion) ---------------------------------


def timed(function, *arguments, **options):
    """Seconds that a call took, and what it returned; None where it gave up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        try:
            value = function(*arguments, **options)
        except (np.linalg.LinAlgError, ValueError, RuntimeError):
            value = None
        return time.perf_counter() - start, value


def course_fit(case):
    seconds, found = timed(reml.fit, case.y, case.X, case.Z, case.groups)
    return seconds, found.criterion


def by_class(MixedLM):
    """A fitter that uses the array interface of statsmodels, or one that mirrors it."""

    def fit(case):
        seconds, found = timed(
            lambda: MixedLM(case.y, case.X, groups=case.groups, exog_re=case.Z).fit()
        )
        return seconds, np.nan if found is None else -2 * found.llf

    return fit


def python_fitters():
    fitters = {OURS: course_fit, "statsmodels": by_class(sm.MixedLM)}
    if mixedlm_rs is not None:
        fitters["mixedlm-rs"] = by_class(mixedlm_rs.MixedLM)
    return fitters


R_SCRIPT = r"""
suppressPackageStartupMessages(library(lme4))
cases <- list()
quiet <- function(expr) suppressMessages(suppressWarnings(expr))
answer <- function(x) { cat(format(x, digits = 15, trim = TRUE), "\n"); flush(stdout()) }
numbers <- function(file) readBin(file, "double", file.size(file) / 8, endian = "little")
timed <- function(expr) {
  start <- Sys.time()
  value <- tryCatch(quiet(expr), error = function(e) NULL)
  list(as.numeric(difftime(Sys.time(), start, units = "secs")), value)
}
lmm <- function(case) lmer(y ~ 0 + X + (0 + Z | g), case)
# From its parts: after a refit, REMLcrit of lme4 1.1-31 counts one degree of freedom too many.
criterion <- function(fit) {
  if (is.null(fit)) return(NaN)
  part <- as.list(getME(fit, "devcomp")$cmp)
  df <- nobs(fit) - length(fixef(fit))
  part$ldL2 + part$ldRX2 + df * (1 + log(2 * pi * part$pwrss / df))
}
commands <- list(
  load = function(name, file, n, p, q) {
    table <- matrix(numbers(file), as.integer(n))
    p <- as.integer(p)
    q <- as.integer(q)
    cases[[name]] <<- list(
      y = table[, 1], X = table[, 1 + 1:p], Z = table[, 1 + p + 1:q], g = factor(table[, 2 + p + q])
    )
    0
  },
  fit = function(name) {
    found <- timed(lmm(cases[[name]]))
    c(found[[1]], criterion(found[[2]]))
  },
  refit = function(name, file) {
    Y <- matrix(numbers(file), length(cases[[name]]$y))
    model <- quiet(lmm(cases[[name]]))
    found <- timed(apply(Y, 2, function(y) criterion(refit(model, y))))
    c(found[[1]], found[[2]])
  }
)
input <- file("stdin", "r")
answer(as.character(packageVersion("lme4")))
while (length(line <- readLines(input, 1))) {
  words <- strsplit(line, "\t")[[1]]
  answer(do.call(commands[[words[1]]], as.list(words[-1])))
}
"""


class Lme4:
    """R with lme4 in a process of its own that answers one question at a time."""

    def __init__(self, folder):
        self.folder = folder
        self.known = set()
        script = folder / "lme4.R"
        script.write_text(R_SCRIPT, encoding="utf-8")
        self.process = subprocess.Popen(
            ["Rscript", "--vanilla", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self.version = self.process.stdout.readline().strip()  # empty where lme4 is not installed

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with suppress(OSError):
            self.process.stdin.close()  # the end of its questions is the end of its work
        self.process.stdout.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, *words):
        """The numbers that R answers."""
        print(*words, sep="\t", file=self.process.stdin, flush=True)
        return [float(word) for word in self.process.stdout.readline().split()]

    def store(self, name, array):
        path = self.folder / f"{name}.bin"
        array.astype("<f8").tofile(path)
        return path.as_posix()

    def load(self, case):
        if case.name not in self.known:
            table = np.vstack([case.y, case.X.T, case.Z.T, case.groups])
            path = self.store(f"case{len(self.known)}", table)
            self.ask("load", case.name, path, *case.X.shape, case.Z.shape[1])
            self.known.add(case.name)

    def fit(self, case):
        self.load(case)
        return self.ask("fit", case.name)

    def refit(self, case, Y):
        """Seconds, and the criterion for each row of Y."""
        self.load(case)
        seconds, *criteria = self.ask("refit", case.name, self.store("responses", Y))
        return seconds, np.array(criteria)


def find_lme4(stack, folder):
    """lme4 at the ready, or None."""
    if shutil.which("Rscript") is None:
        return None
    lme4 = stack.enter_context(Lme4(folder))
    return lme4 if lme4.version else None


# Measuring -------------------------------------------------------------------------------


def take_turns(runs, rounds):
    """Median seconds and last value of each run, `{name: (seconds, value)}`.

    The first round is a warm-up and does not count, but for a run that is slow: it is asked once.
    """
    seconds, values = {name: [] for name in runs}, {}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            if not seconds[name] or max(seconds[name]) < SLOW:
                took, values[name] = one_turn(run)
                seconds[name].append(took)
    return {
        name: (float(np.median(took[1:] or took)), values[name]) for name, took in seconds.items()
    }


def one_turn(run):
    """Median seconds and last value of a run, asked again until its turn is over."""
    seconds = []
    while sum(seconds) < TURN and len(seconds) < MOST_A_TURN:
        took, value = run()
        seconds.append(took)
    return np.median(seconds), value


def single_fits(cases, fitters, rounds):
    """A row for each case and fitter: milliseconds, whether the optimum was reached."""
    rows = []
    for case in cases:
        runs = {name: lambda fit=fit, case=case: fit(case) for name, fit in fitters.items()}
        found = take_turns(runs, rounds)
        best = np.nanmin([value for _, value in found.values()])
        ours = found[OURS][0]
        for name, (seconds, value) in found.items():
            rows.append(
                {
                    "case": case.name,
                    "rows": len(case.y),
                    "fitter": name,
                    "ms": 1e3 * seconds,
                    "times_ours": seconds / ours,
                    "above_best": value - best,
                    "reached": bool(value - best < HIT),
                }
            )
    return pd.DataFrame(rows)


def refits(lme4, rounds, n_fits):
    """A row for each fitter: fits a second of one model to many responses.

    `n_fits` says how many each fitter is given: about half a second's work, so that fast moments of
    the machine, which are shorter, favour nobody.
    """
    data = simulate.schools(30, 20, seed=1)
    case = simulated(30, 20)
    Y = simulate.replicates(data, n_fits[OURS], seed=2)

    def ours():
        seconds, found = timed(reml.fit_many, Y, case.X, case.Z, case.groups)
        return seconds, found.criterion

    def loop(fit, n):
        def run():
            found = [fit(Case("", y, case.X, case.Z, case.groups)) for y in Y[:n]]
            return sum(seconds for seconds, _ in found), np.array([value for _, value in found])

        return run

    runs = {OURS: ours}
    for name, fit in python_fitters().items():
        if name != OURS:
            runs[name] = loop(fit, n_fits[name])
    if lme4:
        runs["lme4"] = lambda: lme4.refit(case, Y[: n_fits["lme4"]])
    found = take_turns(runs, rounds)
    best = np.full(len(Y), np.inf)
    for _, criteria in found.values():
        best[: len(criteria)] = np.fmin(best[: len(criteria)], criteria)
    rows = [
        {
            "fitter": name,
            "fits": len(criteria),
            "fits_per_second": len(criteria) / seconds,
            "reached": int(np.sum(criteria - best[: len(criteria)] < HIT)),
        }
        for name, (seconds, criteria) in found.items()
    ]
    table = pd.DataFrame(rows)
    table["ours_times"] = table["fits_per_second"][0] / table["fits_per_second"]
    return table


def by_formula(lme4, rounds):
    """Seconds for High School & Beyond by formula, slopes of centred SES varying."""
    data = datasets.load("hsb").assign(cses=lambda d: d.ses - d.meanses)
    arguments = {"groups": "school", "re_formula": "~cses"}
    formula = "mathach ~ cses"

    def statsmodels_fit():
        return smf.mixedlm(formula, data, groups=data["school"], re_formula="~cses").fit()

    runs = {
        OURS: lambda: timed(mixed.fit, formula, data, **arguments),
        "statsmodels": lambda: timed(statsmodels_fit),
    }
    if lme4:
        X = np.column_stack([np.ones(len(data)), data["cses"]])
        case = Case("hsb", data["mathach"].to_numpy(), X, X, pd.factorize(data["school"])[0])
        runs["lme4"] = lambda: lme4.fit(case)
    found = take_turns(runs, rounds)
    rows = [{"fitter": name, "ms": 1e3 * seconds} for name, (seconds, _) in found.items()]
    return pd.DataFrame(rows)


# How cost grows --------------------------------------------------------------------------


def one_slope(n_groups, n_rows, seed=1):
    """A case of equal groups, without the names that make a table slow."""
    rng = np.random.default_rng(seed)
    groups = np.arange(n_rows) % n_groups
    x = rng.uniform(1, 10, n_rows)
    X = np.column_stack([np.ones(n_rows), x])
    b = rng.normal(0, [4, 0.8], (n_groups, 2))[groups]
    y = 60 + 2 * x + b[:, 0] + b[:, 1] * x + rng.normal(0, 5, n_rows)
    return Case("", y, X, X, groups)


def many_responses(n):
    """Responses in which slopes clearly vary, as in larger studies, on few rows, to save memory."""
    case = simulated(30, 6)
    data = simulate.schools(30, 6, seed=1)
    return case, simulate.replicates(data, n, sd_residual=2.0, seed=2)


def scaling(quick):
    """What grows, its sizes, and for a size the thing to measure and the bytes of its data."""

    def rows(n):
        case = one_slope(100, n)
        return lambda: reml.fit(case.y, case.X, case.Z, case.groups), case.X.nbytes + case.y.nbytes

    def groups(n):
        case = one_slope(n, 10 * n)
        return lambda: reml.fit(case.y, case.X, case.Z, case.groups), case.X.nbytes + case.y.nbytes

    def replicates(n):
        case, Y = many_responses(n)
        return lambda: reml.fit_many(Y, case.X, case.Z, case.groups), Y.nbytes

    less = 1 if quick else 0
    return [
        ("rows, in 100 groups", [10**k for k in range(3, 7 - less)], rows),
        ("groups of 10 rows", [10**k for k in range(1, 6 - less)], groups),
        ("responses of 30 x 6", [10**k for k in range(1, 6 - less)], replicates),
    ]


def growth(curves, rounds):
    """A row for each size: seconds; for the largest, the exponent and the peak of memory."""
    table = []
    for name, sizes, make in curves:
        seconds = []
        for size in sizes:
            run, n_bytes = make(size)
            found = take_turns({name: lambda run=run: timed(run)}, rounds)
            seconds.append(found[name][0])
            table.append({"what": name, "size": size, "seconds": seconds[-1]})
        table[-1] |= {
            "exponent": float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]),
            "last_exponent": float(
                np.log(seconds[-1] / seconds[-2]) / np.log(sizes[-1] / sizes[-2])
            ),
            "data_MB": n_bytes / 1e6,
            "peak_MB": peak_memory(run) / 1e6,
        }
    return pd.DataFrame(table)


def peak_memory(run):
    """Bytes that a call held at once beyond its data. NumPy reports its arrays to tracemalloc."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peak_of_process():
    """The most memory this process ever held, in bytes; None where that is not to be had."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


# Reporting -------------------------------------------------------------------------------


def setting_of(lme4):
    """What the figures depend on: versions, threads, and how busy the machine was."""
    versions = {name: version(name) for name in ("numpy", "scipy", "statsmodels")}
    if mixedlm_rs is not None:
        versions["mixedlm-rs"] = version("mixedlm-rs")
    if lme4:
        versions["lme4"] = lme4.version
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "versions": versions,
        "threads": {name: os.environ[name] for name in THREAD_SETTINGS}
        | {"reml.fit_many": reml.THREADS},
        "load_at_start": load(),
    }


def load():
    """Programs that wanted a processor during the last minute; None where that is not told."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def say(title, table, *notes):
    print(f"\n{title}\n")
    print(
        table.to_string(index=False, na_rep="", float_format=lambda x: f"{x:,.3g}"),
        *notes,
        sep="\n",
    )
    sys.stdout.flush()


def say_single(table):
    wide = table.pivot(index=["case", "rows"], columns="fitter", values="ms")
    wide = wide.loc[table["case"].unique(), table["fitter"].unique()].round(2).astype(str)
    missed = table[~table["reached"]].set_index(["case", "rows", "fitter"])["above_best"]
    for (case, rows, fitter), above in missed.items():
        wide.loc[(case, rows), fitter] += " !" if np.isfinite(above) else " failed"
    others = table[table["fitter"] != OURS]
    fastest = others.groupby("case")["times_ours"].min()
    wide["fastest_other/ours"] = fastest[wide.index.get_level_values("case")].round(1).to_numpy()
    hits = table.groupby("fitter", sort=False)["reached"].agg(["sum", "size"])
    say(
        "Single fits by arrays (lme4: by formula): milliseconds; ! marks a miss of the optimum",
        wide.reset_index(),
        "reached the best criterion: "
        + ", ".join(f"{name} {hit} of {n}" for name, hit, n in hits.itertuples()),
        f"median ratio, fastest other to ours: {fastest.median():.2g}",
    )


def say_refits(table):
    say(
        "Refits of 30 x 20, intercept and slope correlated, REML",
        table,
        f"ours to the fastest other: {table['ours_times'][1:].min():.0f} times as many a second",
    )


def measure(quick, lme4, out):
    """Run all, print the tables, write the copy."""
    start = time.perf_counter()
    result = {"quick": quick, **setting_of(lme4)}
    names = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    print(f"Python {result['python']}, {names}; {result['processors']} processors.")
    print(f"Threads: 1 for linear algebra, {reml.THREADS} in reml.fit_many, 1 process each.")
    fitters = python_fitters() | ({"lme4": lme4.fit} if lme4 else {})
    rounds = 3 if quick else 7
    tables = {}
    tables["single"] = single_fits(battery(quick), fitters, 2 * rounds + 1)
    say_single(tables["single"])
    n_fits = {OURS: 20_000, "statsmodels": 3, "mixedlm-rs": 300, "lme4": 30}
    tables["refit"] = refits(lme4, rounds, n_fits)
    say_refits(tables["refit"])
    tables["formula"] = by_formula(lme4, rounds)
    say("High School & Beyond by formula, 7,185 rows in 160 schools", tables["formula"])
    tables["growth"] = growth(scaling(quick), 1 if quick else 3)
    say(
        "How the cost of the course's fits grows",
        tables["growth"],
        "exponent: of size in seconds, over all sizes and over the last step; "
        "peak_MB: held at once beyond the data",
    )
    result |= {
        name: table.replace({np.nan: None}).to_dict("records") for name, table in tables.items()
    }
    peak = peak_of_process()
    result |= {"peak_of_process_MB": peak and peak / 1e6, "load_at_end": load()}
    result["seconds"] = time.perf_counter() - start
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"\n{result['seconds']:.0f} s in all; a copy for programs is in {out}")
    busy = max(result["load_at_start"] or 0, result["load_at_end"] or 0)
    if busy > (os.cpu_count() or 1) + 1:
        print(f"The machine was busy (load {busy}): times are too long; ratios are rough.")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="course.py bench", description="Measure the engine.")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller, in 20 s")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "dist" / "bench.json", help="file for the copy"
    )
    chosen = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        measure(chosen.quick, find_lme4(stack, folder), chosen.out)


if __name__ == "__main__":
    main()
