"""Likeness of columns and pairs, and what was copied: cases with a known answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.compared import SCHEMA, apart, rows, tables
from logistream.evaluation.measures import column_pairs, column_shapes, copied, copied_strings, identifiers
from logistream.evaluation.numeric import numeric_tables
from logistream.schema import Column, Schema


@pytest.mark.parametrize("missing", [False, True])
def test_identical_rows_score_as_identical(missing: bool) -> None:
    """The same rows in another order have likeness 1 in every column and pair, missing values or not."""
    frame = rows(300, 0, missing=missing)
    a, b = tables(frame, frame.sample(frac=1, random_state=1))
    np.testing.assert_allclose(column_shapes(a, b), 1)
    np.testing.assert_allclose(column_pairs(a, b)[1], 1)
    assert copied(a, b) == 1


def test_shapes_are_what_the_definitions_say() -> None:
    """Total variation for strings, Kolmogorov-Smirnov for numbers, missing as a value of its own."""
    schema = Schema((Column("c", "category", nullable=True), Column("v", "number", nullable=True)))
    a, b = numeric_tables(
        schema,
        [
            pd.DataFrame({"c": ["p", "p", "q", None], "v": [1.0, 2.0, 3.0, 4.0]}),
            pd.DataFrame({"c": ["p", "q", "q", "r"], "v": [1.0, 2.0, np.nan, np.nan]}),
        ],
    )
    np.testing.assert_allclose(column_shapes(a, b), [1 - 0.5, 1 - 0.5])


def test_columns_pulled_apart_keep_their_shapes_and_lose_their_pairs() -> None:
    """Shuffling every column by itself changes no shape, and the pairs that hang together."""
    frame = rows(2000, 0)
    a, b = tables(frame, apart(frame))
    np.testing.assert_allclose(column_shapes(a, b), 1)
    places, scores = column_pairs(a, b)
    score = {tuple(SCHEMA.names[i] for i in pair): s for pair, s in zip(places, scores, strict=True)}
    assert score["town", "state"] < 0.7
    assert score["x", "y"] == pytest.approx(1 - frame["x"].corr(frame["y"]) / 2, abs=0.03)
    assert score["town", "n"] > 0.9


def test_a_constant_says_nothing_in_real_rows_and_is_no_correlation_in_others() -> None:
    """A correlation with a real constant is undefined; with a column that became constant it is 0."""
    frame = rows(200, 0)
    a, b = tables(frame, frame.assign(x=1.0))
    places = [tuple(pair) for pair in column_pairs(a, b)[0]]
    at = places.index((SCHEMA.names.index("x"), SCHEMA.names.index("y")))
    assert column_pairs(a, b)[1][at] == pytest.approx(1 - abs(frame["x"].corr(frame["y"])) / 2)
    assert np.isnan(column_pairs(b, a)[1][at])


def test_copies_and_locations_are_exact_matches() -> None:
    """A row that differs in one column is not a copy, but its position can be; -0.0 is 0 and NaN is NaN."""
    frame = rows(100, 0, missing=True)
    known, near = tables(frame, frame.assign(when=frame["when"] + pd.Timedelta("1us")))
    assert copied(near, known) == 0
    assert copied(near, known, ["x", "y"]) == 1
    schema = Schema((Column("v", "number"),))
    a, b = numeric_tables(
        schema, [pd.DataFrame({"v": [0.0, np.nan, 1.0]}), pd.DataFrame({"v": [-0.0, -np.nan, 2.0]})]
    )
    assert copied(a, b) == pytest.approx(2 / 3)


def test_strings_of_one_row_are_looked_for_in_synthetic_rows() -> None:
    """Only strings that a single real row has count, and each counts once, however often it was made."""
    schema = Schema((Column("name", "category"), Column("v", "number")))
    train, held, made = (
        pd.DataFrame({"name": names, "v": 1.0})
        for names in (
            ["Ann", "Bea", "Cy", "Di", "Di"],
            ["Cy", "Eve", "Flo", None, "Gil"],
            ["Ann", "Ann", "Di", "Eve"],
        )
    )
    fitted, others, synthetic = numeric_tables(schema, [train, held, made])
    assert (
        copied_strings(fitted, others, synthetic) == 1 / 2
    )  # Ann and Bea: Cy is held out as well, Di repeats
    assert copied_strings(others, fitted, synthetic) == 1 / 3  # Eve, Flo and Gil
    assert np.isnan(copied_strings(synthetic.take(slice(0)), others, synthetic))


def test_columns_that_never_repeat_a_value_are_identifiers() -> None:
    """Strings and whole numbers can be; real numbers, and columns with a repeated value, are not."""
    schema = Schema(
        (
            Column("code", "category", nullable=True),
            Column("number", "integer"),
            Column("size", "number"),
            Column("town", "category"),
        )
    )
    frame = pd.DataFrame(
        {
            "code": ["a1", "a2", "a3", None, None],
            "number": [7, 5, 3, 9, 1],
            "size": [0.1, 0.2, 0.3, 0.4, 0.5],
            "town": ["Ayr", "Bath", "Ayr", "Cork", "Dover"],
        }
    )
    (table,) = numeric_tables(schema, [frame])
    assert list(identifiers(table)) == [True, True, False, False]
