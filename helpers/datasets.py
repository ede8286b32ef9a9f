"""The course's data sets, checked whenever they are loaded.

The files are in ``data/``; what each must hold (rows, columns, types, checksum) is in
``data/datasets.toml``, and a card with the whole story of each in ``data/README.md``.
"""

import csv
import difflib
import hashlib
import io
import tomllib
from functools import cache
from pathlib import Path

import pandas as pd

_FOLDER = Path(__file__).resolve().parent.parent / "data"


def names() -> list[str]:
    """List the names that :func:`load` and :func:`describe` know.

    Examples
    --------
    >>> names()
    ['hsb', 'sleepstudy', 'article', 'orthodont', 'bodyweight', 'theoph', 'btheb', 'cheese', 'exam']
    """
    return list(_cards())


def load(name: str) -> pd.DataFrame:
    """Load a data set, after checking that its file is whole.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Returns
    -------
    pandas.DataFrame
        A fresh table, rows in the order of the file. Names of groups and people are text even
        where they are digits; whole numbers are integers, or floats with NaN where some are
        missing. Units are in :func:`describe`.

    Raises
    ------
    TypeError, ValueError
        If the name is unknown, or if the file is not the published one; the message says what
        is wrong with it and how to restore it.
    FileNotFoundError
        If the file is not there.

    Examples
    --------
    >>> load("sleepstudy").head(2)
      subject  days  reaction
    0     308     0  249.5600
    1     308     1  258.7047
    """
    return _load(name, _FOLDER)


def describe(name: str) -> pd.DataFrame:
    """Describe the columns of a data set.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Returns
    -------
    pandas.DataFrame
        One row a column of the data: ``column``, ``type``, ``unit``, ``range`` (with the number
        of missing cells) and ``meaning``. ``attrs`` holds ``title``, ``source``, ``licence``,
        ``rows`` and ``groups``.

    Raises
    ------
    TypeError, ValueError
        If the name is unknown.

    Examples
    --------
    >>> describe("sleepstudy")[["column", "type", "unit", "range"]]
         column          type  unit                 range
    0   subject          text                18 different
    1      days  whole number  days                0 to 9
    2  reaction        number    ms  194.3322 to 466.3535
    """
    card = _card(name)
    table = pd.DataFrame(
        {
            "column": [column["name"] for column in card["columns"]],
            "type": [column["type"] for column in card["columns"]],
            "unit": [column.get("unit", "") for column in card["columns"]],
            "range": [_range(column) for column in card["columns"]],
            "meaning": [column["meaning"] for column in card["columns"]],
        }
    )
    table.attrs = {key: card[key] for key in ("title", "source", "licence", "rows", "groups")}
    return table


@cache
def _cards():
    """Read what is known about every file."""
    with open(_FOLDER / "datasets.toml", "rb") as file:
        return tomllib.load(file)


def _card(name):
    """Find a data set's card, or say which names there are."""
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r}; give a text such as 'hsb'.")
    if name not in _cards():
        close = difflib.get_close_matches(name.lower(), names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"name is {name!r}, which is no data set of the course.{hint} "
            f"Choose one of {', '.join(names())}."
        )
    return _cards()[name]


def _load(name, folder):
    """Load a data set from a folder, checking it against its card."""
    card = _card(name)
    mend = f"restore it with `git checkout -- data/{name}.csv`, or download the course again."
    try:
        content = (folder / f"{name}.csv").read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"name is {name!r}, but the file data/{name}.csv is missing; {mend}"
        ) from None
    # Git on Windows may have turned LF into CRLF, which changes nothing that matters.
    content = content.replace(b"\r\n", b"\n")
    try:
        table = _parse(content, card)
        # The checksum speaks last: a lost column or a letter among numbers is a clearer reason.
        found = hashlib.sha256(content).hexdigest()
        if found != card["sha256"]:
            raise ValueError(
                f"its SHA-256 is {found[:12]}… instead of {card['sha256'][:12]}…, "
                "so some value was changed"
            )
    except ValueError as damage:
        raise ValueError(
            f"name is {name!r}, but the file data/{name}.csv is damaged: {damage}; {mend}"
        ) from None
    return table


def _parse(content, card):
    """Turn a file's bytes into the table of the card, or raise with the first difference."""
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    expected = [column["name"] for column in card["columns"]]
    if header != expected:
        raise ValueError(_header_difference(header, expected))
    if len(rows) != card["rows"]:
        raise ValueError(f"it has {len(rows)} rows instead of {card['rows']}")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(expected):
            raise ValueError(f"line {line} has {len(row)} values instead of {len(expected)}")
    columns = zip(card["columns"], zip(*rows, strict=True), strict=True)
    return pd.DataFrame({column["name"]: _column(cells, column) for column, cells in columns})


def _header_difference(header, expected):
    """Say how the column names differ."""
    lost = [name for name in expected if name not in header]
    extra = [name for name in header if name not in expected]
    parts = []
    if lost:
        parts.append(f"the column(s) {', '.join(lost)} are missing")
    if extra:
        parts.append(f"the column(s) {', '.join(extra)} do not belong there")
    return " and ".join(parts) or f"its columns are not in the order {', '.join(expected)}"


def _column(cells, column):
    """Convert the cells of a column to its type, or name the first that does not fit."""
    if column["type"] == "text":
        return list(cells)
    # Python's own conversion is exact to the last bit, which pandas' reader was not always.
    convert = int if column["type"] == "whole number" else float
    may_miss = "missing" in column
    values = []
    for line, cell in enumerate(cells, start=2):
        try:
            values.append(float("nan") if may_miss and not cell else convert(cell))
        except ValueError:
            raise ValueError(
                f"line {line} has {cell!r} in the column {column['name']}, "
                f"which is no {column['type']}"
            ) from None
    return values


def _range(column):
    """Write what values a column holds."""
    if "count" in column:
        text = f"{column['count']} different"
    elif "values" in column:
        text = ", ".join(column["values"])
    else:
        low, high = column["range"]
        text = f"{low:.7g} to {high:.7g}"
    return f"{text}; {column['missing']} missing" if "missing" in column else text
