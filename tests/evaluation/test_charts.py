"""Pictures of distributions: what they show, and what they must not show."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from helpers.compared import SCHEMA, apart, rows, tables
from logistream.evaluation.charts import column_chart, pair_chart
from logistream.evaluation.numeric import NumericTable, numeric_tables
from logistream.schema import Column, Schema

Tables = tuple[NumericTable, NumericTable, NumericTable]


def compared(schema: Schema, real: pd.DataFrame, synthetic: pd.DataFrame) -> Tables:
    """Return the three tables that a chart takes, where all real rows are those that are shown."""
    a, b = numeric_tables(schema, [real, synthetic])
    return a, b, a


def words(svg: str) -> list[str]:
    """Return the labels of a picture that is well-formed."""
    return [text.strip() for text in ElementTree.fromstring(svg).itertext()]


@pytest.mark.parametrize("missing", [False, True])
def test_every_column_and_pair_has_a_picture(missing: bool) -> None:
    """All kinds, with and without missing values, beside rows in which nothing is known."""
    frame = rows(300, 0, missing=missing)
    nothing = frame.iloc[:50].assign(x=np.nan, y=5.0, town=None, when=pd.Series(pd.NaT, frame.index[:50]))
    for other in (rows(300, 1, missing=missing), apart(frame), nothing):
        real, synthetic = tables(frame, other)
        for table in ((real, synthetic, real), (synthetic, real, real)):
            for i in range(len(SCHEMA)):
                chart = column_chart(*table, i, "note")
                assert chart.title == SCHEMA.names[i]
                words(chart.svg)
            for i, j in combinations(range(len(SCHEMA)), 2):
                words(pair_chart(*table, i, j, "note").svg)


def test_values_of_few_rows_are_not_named() -> None:
    """A string of one to four real rows is counted among the others; one that no real row has is named."""
    schema = Schema((Column("c", "category"), Column("d", "boolean")))
    real = ["Ayr"] * 50 + ["Bath"] * 50 + ["Jane Doe"] * 4
    synthetic = ["Ayr"] * 40 + ["Bath"] * 40 + ["Jane Doe"] * 20 + ["Nowhere"] * 20
    data = compared(schema, *(pd.DataFrame({"c": c, "d": True}) for c in (real, synthetic)))
    for chart in (column_chart(*data, 0, ""), pair_chart(*data, 0, 1, "")):
        named = " ".join(words(chart.svg))
        assert "Jane" not in named
        assert all(name in named for name in ("Ayr", "Bath", "Nowhere", "1 other"))


def test_bars_show_the_values_that_differ_most() -> None:
    """Of twenty values the one whose share doubled stands with both shares."""
    schema = Schema((Column("c", "category"),))
    real = [f"v{i:02}" for i in range(20)] * 10
    data = compared(schema, *(pd.DataFrame({"c": c}) for c in (real, [*real, *["v07"] * 10])))
    shown = words(column_chart(*data, 0, "").svg)
    assert "v07" in shown
    assert "5.0 % →" in shown
    assert "9.5 %" in shown
    assert "14 others" in shown


def test_one_frequent_value_does_not_flatten_the_rest() -> None:
    """The bar of a value that nearly all rows have is cut, and its shares are written beside it."""
    schema = Schema((Column("gain", "number"),))
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame({"gain": np.where(rng.random(2000) < 0.9, 0, rng.gamma(2, 900, 2000))}) for _ in "ab"
    ]
    chart = column_chart(*compared(schema, *frames), 0, "")
    assert any("real" in text and "bar cut" in text for text in words(chart.svg))


def test_a_note_tells_correlations_and_missing_values() -> None:
    """What a picture of numbers cannot show is written below its title."""
    frame = rows(500, 0, missing=True)
    data = compared(SCHEMA, frame, apart(frame))
    assert "missing 2" in column_chart(*data, SCHEMA.names.index("n"), "note").note
    note = pair_chart(*data, SCHEMA.names.index("x"), SCHEMA.names.index("y"), "note").note
    real = frame["x"].corr(frame["y"])
    assert f"correlation {real:.2f} real" in note
