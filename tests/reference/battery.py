"""The battery of models with lme4's answers; `README.md` beside this file says what is in it."""

import gzip
import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "data"


def _btheb(wide):
    """One row for each patient and visit, as the trial is analysed."""
    visits = {f"bdi_{month}m": month for month in (2, 3, 5, 8)}
    long = wide.melt(
        ["patient", "bdi_pre", "drug", "length", "treatment"], visits, "visit", "bdi"
    ).dropna()
    return long.assign(
        month=long.visit.map(visits),
        btheb=long.treatment == "BtheB",
        drug=long.drug == "Yes",
        long=long.length == ">6m",
    )


# For each table of the course: the column of the groups, and the columns the models need.
COURSE_TABLES = {
    "article": ("school_id", lambda d: d),
    "bodyweight": (
        "rat",
        lambda d: d.assign(diet2=d.diet.astype(str) == "2", diet3=d.diet.astype(str) == "3"),
    ),
    "btheb": ("patient", _btheb),
    "cheese": (
        "retailer",
        lambda d: d.assign(log_volume=np.log(d.volume), log_price=np.log(d.price)),
    ),
    "hsb": (
        "school",
        lambda d: d.assign(cses=d.ses - d.meanses, catholic=d.sector == "catholic"),
    ),
    "orthodont": (
        "subject",
        lambda d: d.assign(age11=d.age - 11, female=d.sex == "female", age2=(d.age - 11) ** 2),
    ),
    "sleepstudy": ("subject", lambda d: d.assign(days2=d.days**2)),
    "theoph": ("subject", lambda d: d.assign(time2=d.time**2)),
}


@cache
def _answers():
    return json.loads((HERE / "lme4.json").read_text(encoding="utf-8"))


@cache
def _stored_tables():
    return json.loads(gzip.decompress((HERE / "battery.json.gz").read_bytes()))


@cache
def _table(name):
    """The table as a dictionary of columns, with the groups under ``"g"``."""
    if name not in COURSE_TABLES:
        return {key: np.array(column) for key, column in _stored_tables()[name].items()}
    group, derive = COURSE_TABLES[name]
    frame = derive(pd.read_csv(DATA / f"{name}.csv", dtype={group: str}))
    return {key: frame[key].to_numpy() for key in frame} | {"g": frame[group].to_numpy(str)}


def _columns(table, terms):
    """A design matrix: "1" is the intercept, "a:b" the product of two columns."""
    ones = np.ones(len(table["g"]))
    return np.column_stack(
        [
            ones if term == "1" else np.prod([table[part] * ones for part in term.split(":")], 0)
            for term in terms
        ]
    )


def names():
    """Names of the cases, sorted."""
    return [case["name"] for case in _answers()["cases"]]


def versions():
    """Versions of R and lme4 that gave the answers."""
    return _answers()["versions"]


@cache
def answer(name):
    """What lme4 found for a case.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    dict
        ``formula``, ``reml``, ``n``, ``groups`` (their number J), ``criterion``,
        ``default_criterion`` (where lme4's default settings end; None where they refuse),
        ``beta`` (p,), ``se`` (p,), ``cov_re`` (q, q), ``scale``, ``singular``, ``labels`` of the
        first 20 groups at most, their ``blups`` (groups, q) and conditional ``sds`` (groups, q).
    """
    case = next(case for case in _answers()["cases"] if case["name"] == name)
    arrays = ("beta", "se", "cov_re", "blups", "sds")
    return case | {key: np.array(case[key], dtype=float) for key in arrays}


@cache
def design(name):
    """The arrays of a case: ``y`` (n,), ``X`` (n, p), ``Z`` (n, q) and group labels (n,)."""
    case = answer(name)
    table = _table(case["table"])
    y = table[case["y"]].astype(float)
    return y, _columns(table, case["x"]), _columns(table, case["z"]), table["g"]
