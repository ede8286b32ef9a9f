"""The data sets: whole, as published, as their cards say, and clear when damaged."""

import csv
import doctest
import hashlib
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from helpers import datasets, simulate

ALL = datasets.names()
FOLDER = datasets._FOLDER


# As published ----------------------------------------------------------------------------


def test_high_school_and_beyond():
    data = datasets.load("hsb")
    assert data.shape == (7185, 11)
    assert round(data["mathach"].mean(), 3) == 12.748
    assert round(data["ses"].mean(), 3) == 0.000
    assert data.groupby("school").size().agg(["min", "max"]).tolist() == [14, 67]
    schools = data.groupby("school").first()
    assert schools["sector"].value_counts().to_dict() == {"public": 90, "catholic": 70}
    school_columns = ["meanses", "sector", "size", "pracad", "disclim", "himinty"]
    assert (data.groupby("school")[school_columns].nunique() == 1).all(axis=None)


def test_meanses_is_the_published_mean_and_not_a_recomputed_one():
    schools = datasets.load("hsb").groupby("school")
    difference = schools["meanses"].first() - schools["ses"].mean()
    assert difference.between(0.0055 - 1e-9, 0.0065).all()
    assert schools["meanses"].first()["1224"] == -0.428


def test_sleepstudy():
    data = datasets.load("sleepstudy")
    assert (data.groupby("subject").size() == 10).all()
    assert {tuple(days) for _, days in data.groupby("subject")["days"]} == {tuple(range(10))}
    line = np.polyfit(data["days"], data["reaction"], 1)
    assert line.round(3).tolist() == [10.467, 251.405]


def test_article_is_the_simulation_to_the_last_digit():
    # The generator's logarithms may differ in the last bit from one system to another.
    pd.testing.assert_frame_equal(
        datasets.load("article"), simulate.article_example(), rtol=1e-12, atol=0
    )


def test_orthodont():
    data = datasets.load("orthodont")
    assert {tuple(ages) for _, ages in data.groupby("subject")["age"]} == {(8, 10, 12, 14)}
    children = data.groupby("subject").first()
    assert (children["sex"] == children.index.str[0].map({"M": "male", "F": "female"})).all()
    girls = data[data["sex"] == "female"].groupby("age")["distance"].mean()
    assert girls.round(2).tolist() == [21.18, 22.23, 23.09, 24.09]


def test_bodyweight():
    data = datasets.load("bodyweight")
    assert data.groupby("diet")["rat"].nunique().to_dict() == {"1": 8, "2": 4, "3": 4}
    assert sorted(data["time"].unique()) == [1, 8, 15, 22, 29, 36, 43, 44, 50, 57, 64]


def test_theoph():
    data = datasets.load("theoph")
    assert (data.groupby("subject").size() == 11).all()
    assert (data.groupby("subject")[["weight", "dose"]].nunique() == 1).all(axis=None)


def test_btheb():
    data = datasets.load("btheb")
    visits = data[["bdi_2m", "bdi_3m", "bdi_5m", "bdi_8m"]]
    assert visits.notna().sum().tolist() == [97, 73, 58, 52]
    assert data["treatment"].value_counts().to_dict() == {"BtheB": 52, "TAU": 48}
    # Dropout is monotone: nobody who missed a visit came back.
    assert (visits.isna().astype(int).diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)


def test_cheese():
    data = datasets.load("cheese")
    weeks = data.groupby("retailer").size().value_counts()
    assert weeks.to_dict() == {68: 28, 61: 59, 52: 1}
    assert (data["price"] > 0).all() and data["disp"].between(0, 1).all()


# As the cards say ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_data_set_is_what_its_card_says(name):
    data, card = datasets.load(name), datasets._card(name)
    assert len(data) == card["rows"]
    for column in card["columns"]:
        values = data[column["name"]]
        assert values.isna().sum() == column.get("missing", 0)
        if column["type"] == "text":
            assert pd.api.types.is_string_dtype(values)
            assert values.nunique() == column.get("count", len(column.get("values", [])))
            assert set(column.get("values", values)) == set(values)
        else:
            whole = column["type"] == "whole number" and "missing" not in column
            assert values.dtype == (np.int64 if whole else np.float64)
            assert [values.min(), values.max()] == column["range"]
    group = "school_id" if name == "article" else data.columns[0]
    assert data[group].nunique() == int(card["groups"].split()[0])


@pytest.mark.parametrize("name", ALL)
def test_the_readme_says_what_the_card_says(name):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL).group(1)
    card, columns = datasets._card(name), datasets.describe(name)
    assert f"*{card['title']}*" in section
    assert f"**Size.** {card['rows']:,} rows, {card['groups']}." in section
    assert re.findall(r"\b[0-9a-f]{64}\b", section) == [card["sha256"]]
    for heading in ("What", "Who and when", "How sampled", "Reference", "Licence", "How made"):
        assert f"**{heading}.** " in section
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    assert cells == columns.replace({"unit": {"": "—"}}).to_numpy().tolist()


def test_every_file_has_a_card_and_every_card_a_file():
    assert sorted(path.stem for path in FOLDER.glob("*.csv")) == sorted(ALL)


def test_describe_names_the_source_and_the_licence():
    attributes = datasets.describe("hsb").attrs
    assert set(attributes) == {"title", "source", "licence", "rows", "groups"}
    assert "Raudenbush" in attributes["source"] and attributes["licence"].startswith("GPL")


def test_each_load_gives_a_fresh_table():
    first = datasets.load("article")
    first["math_score"] = 0
    assert datasets.load("article")["math_score"].min() > 0


# When something is wrong -----------------------------------------------------------------


def damaged(folder, change, name="hsb"):
    """Copy a file, change its list of rows, and load it."""
    with open(FOLDER / f"{name}.csv", encoding="utf-8", newline="") as file:
        rows = change(list(csv.reader(file)))
    with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return datasets._load(name, folder)


def with_cell(rows, line, column, value):
    """Put a value into a cell; lines are counted from 1, as in an editor."""
    rows[line - 1][rows[0].index(column)] = value
    return rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "it has 7184 rows instead of 7185"),
        (lambda rows: [*rows, rows[-1]], "it has 7186 rows instead of 7185"),
        (lambda rows: [], "the column(s) school, minority, female"),
        (lambda rows: [row[:-1] for row in rows], "the column(s) himinty are missing"),
        (lambda rows: [[*row, "1"] for row in rows], "the column(s) 1 do not belong there"),
        (lambda rows: [row[::-1] for row in rows], "its columns are not in the order school, min"),
        (
            lambda rows: with_cell(rows, 1, "ses", "SES"),
            "the column(s) ses are missing and the column(s) SES do not belong there",
        ),
        (
            lambda rows: [*rows[:9], rows[9][:-1], *rows[10:]],
            "line 10 has 10 values instead of 11",
        ),
        (
            lambda rows: with_cell(rows, 12, "mathach", "n/a"),
            "line 12 has 'n/a' in the column mathach, which is no number",
        ),
        (
            lambda rows: with_cell(rows, 3, "minority", "0.5"),
            "line 3 has '0.5' in the column minority, which is no whole number",
        ),
        (
            lambda rows: with_cell(rows, 3, "size", ""),
            "line 3 has '' in the column size, which is no whole number",
        ),
        (lambda rows: with_cell(rows, 3, "ses", "-0.589"), "so some value was changed"),
    ],
)
def test_a_damaged_file_says_what_is_wrong_and_how_to_mend_it(tmp_path, change, message):
    with pytest.raises(ValueError) as error:
        damaged(tmp_path, change)
    text = str(error.value)
    assert text.startswith("name is 'hsb', but the file data/hsb.csv is damaged: ")
    assert message in text
    assert "restore it with `git checkout -- data/hsb.csv`" in text


@pytest.mark.parametrize("name", ALL)
def test_one_flipped_byte_is_noticed(tmp_path, name):
    content = bytearray((FOLDER / f"{name}.csv").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / f"{name}.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"data/{name}.csv is damaged"):
        datasets._load(name, tmp_path)


def test_a_file_that_is_not_text_is_noticed(tmp_path):
    (tmp_path / "hsb.csv").write_bytes(b"\xff\xfe\x00school")
    with pytest.raises(ValueError, match="damaged: it is not UTF-8 text; restore it"):
        datasets._load("hsb", tmp_path)


def test_a_missing_file_says_how_to_get_it_back(tmp_path):
    with pytest.raises(FileNotFoundError, match="data/hsb.csv is missing; restore it with `git"):
        datasets._load("hsb", tmp_path)


def test_windows_line_ends_do_no_harm(tmp_path):
    shutil.copy(FOLDER / "btheb.csv", tmp_path)
    content = (tmp_path / "btheb.csv").read_bytes()
    (tmp_path / "btheb.csv").write_bytes(content.replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(datasets._load("btheb", tmp_path), datasets.load("btheb"))


def test_the_checksums_are_those_of_the_files_as_git_stores_them():
    for name in ALL:
        content = (FOLDER / f"{name}.csv").read_bytes().replace(b"\r\n", b"\n")
        assert hashlib.sha256(content).hexdigest() == datasets._card(name)["sha256"]


@pytest.mark.parametrize("function", [datasets.load, datasets.describe])
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("sleep", ValueError, "name is 'sleep', which is no data set of the course. Did you mean"),
        ("HSB", ValueError, "Did you mean 'hsb'? Choose one of hsb, sleepstudy, article"),
        ("titanic", ValueError, "of the course. Choose one of hsb, sleepstudy, article"),
        (3, TypeError, "name is 3; give a text such as 'hsb'"),
    ],
)
def test_an_unknown_name_lists_the_names(function, name, error, message):
    with pytest.raises(error, match=re.escape(message)):
        function(name)


def test_the_examples_in_the_docstrings_are_right():
    assert doctest.testmod(datasets).failed == 0
