"""Tables of other libraries as DataFrames of pandas."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import logistream as ls
from logistream.errors import DataError
from logistream.tables.interchange import as_dataframe

ROWS = 400
DAY = dt.datetime(2026, 3, 1)
COLUMNS: dict[str, list[Any]] = {
    "city": [("Lyon", "Lille", None)[i % 3] for i in range(ROWS)],
    "pieces": [None if i % 5 == 0 else i % 4 for i in range(ROWS)],
    "id": [2**53 + i if i else None for i in range(ROWS)],
    "price": [None if i % 7 == 0 else i / 4 for i in range(ROWS)],
    "paid": [None if i % 11 == 0 else i % 2 == 0 for i in range(ROWS)],
    "sold": [DAY + dt.timedelta(hours=i) for i in range(ROWS)],
}
DTYPES = {
    "city": "str",
    "pieces": "Int64",
    "id": "Int64",
    "price": "float64",
    "paid": "boolean",
    "sold": "datetime64[us]",
}


class OnlyInterchange:
    """A frame of a library that speaks the interchange protocol and no other."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __dataframe__(self, **options: Any) -> Any:
        return self._table.__dataframe__(**options)


def check(frame: pd.DataFrame) -> None:
    """Compare a frame with what it was made of."""
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == DTYPES
    for name, values in COLUMNS.items():
        assert [None if pd.isna(value) else value for value in frame[name]] == values


def test_an_arrow_table_has_the_dtypes_of_pandas() -> None:
    """Whole numbers stay whole where some are missing, however large."""
    table = pa.table(COLUMNS)
    check(as_dataframe(table))
    check(as_dataframe(pa.concat_tables([table.slice(0, 7), table.slice(7)])))
    check(as_dataframe(table.to_batches()[0]))
    check(as_dataframe(OnlyInterchange(table)))


def test_types_that_only_arrow_has() -> None:
    """Dictionaries are categories, decimals numbers, days times; views and large strings are strings."""
    strings = pa.array(["a", "b", None])
    table = pa.table(
        {
            "dictionary": strings.dictionary_encode().cast(pa.dictionary(pa.uint32(), pa.large_string())),
            "large": strings.cast(pa.large_string()),
            "view": strings.cast(pa.string_view()),
            "decimal": pa.array([Decimal("1.50"), None, Decimal(2)]),
            "day": pa.array([dt.date(2026, 3, 1)] * 3),
            "unsigned": pa.array([2**64 - 1, None, 0], pa.uint64()),
        }
    )
    frame = as_dataframe(table)
    assert [str(dtype) for dtype in frame.dtypes] == [
        "category",
        "str",
        "str",
        "float64",
        "datetime64[ms]",
        "UInt64",
    ]
    assert frame["unsigned"].tolist() == [2**64 - 1, pd.NA, 0]
    assert frame["view"].fillna("").tolist() == ["a", "b", ""]
    np.testing.assert_array_equal(frame["decimal"], [1.5, np.nan, 2.0])


def test_a_model_is_the_same_whatever_the_table_comes_in() -> None:
    """Of pandas, of Arrow, of a library with the interchange protocol."""
    table = pa.table(COLUMNS).drop_columns(["id"])
    model = ls.fit(as_dataframe(table))
    for same in (table, OnlyInterchange(table)):
        assert ls.fit(same).checksum == model.checksum
    assert model.sample(5).dtypes.astype(str).to_dict() == {k: v for k, v in DTYPES.items() if k != "id"}


def test_polars_frames_are_learned() -> None:
    """With the columns and the model of the same table in Arrow."""
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = polars.DataFrame(COLUMNS)
    check(as_dataframe(frame))
    chosen = [name for name in COLUMNS if name != "id"]
    expected = ls.fit(pa.table(COLUMNS).select(chosen))
    assert ls.fit(frame.select(chosen)).checksum == expected.checksum
    named = as_dataframe(frame.with_columns(polars.col("city").cast(polars.Categorical)))
    assert named["city"].astype("str").fillna("").tolist() == [city or "" for city in COLUMNS["city"]]
    assert isinstance(named["city"].dtype, pd.CategoricalDtype)


@pytest.mark.parametrize("wrong", [3, "orders.csv", None, pd.Series([1.0]), [1, 2]])
def test_what_is_no_table_is_refused(wrong: object) -> None:
    """In one sentence."""
    with pytest.raises(DataError) as caught:
        as_dataframe(wrong)
    expected = "expected a DataFrame of pandas or polars, or an Arrow table, got"
    assert str(caught.value) == f"{expected} {type(wrong).__name__}"


def test_a_stream_that_is_no_table_is_refused() -> None:
    """A column of Arrow gives itself as a stream too."""
    with pytest.raises(DataError, match=r"^this ChunkedArray cannot be read as an Arrow table: "):
        as_dataframe(pa.chunked_array([[1, 2]]))
