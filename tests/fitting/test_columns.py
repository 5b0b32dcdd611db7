"""Frames that are hard to learn: what cannot be is refused in one sentence, all else works."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from logistream.errors import DataError, DataWarning
from logistream.fitting.fit import fit
from logistream.stream.encoding import Encoder, decode

N = 400
DIGITS = np.random.default_rng(0).integers(0, 9, N)
DAYS = pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(DIGITS, "D"))


def beside(values: Any) -> pd.DataFrame:
    """Return a frame with these values in column c, beside two plain columns."""
    rng = np.random.default_rng(1)
    return pd.DataFrame({"x": rng.normal(size=N), "k": rng.choice(list("abc"), N), "c": values})


def objects(*values: Any) -> pd.Series:
    """Return these values over and over, as objects."""
    return pd.Series(list(values) * (N // len(values)), dtype=object)


SHAPES: list[tuple[str, Any, str]] = [
    ("empty frame", pd.DataFrame(), "nothing to learn from: the frame has 0 rows and 0 columns, expected"),
    ("no rows", beside(1)[:0], "the frame has 0 rows and 3 columns, expected at least 20 rows"),
    ("one row", beside(1)[:1], "the frame has 1 row and 3 columns, expected at least 20 rows"),
    ("no columns", pd.DataFrame(index=range(30)), "the frame has 30 rows and 0 columns"),
    ("twice", pd.DataFrame([[1, 2]] * 30, columns=["a", "a"]), "column 'a' occurs more than once"),
    ("number", pd.DataFrame({0: DIGITS}), "column names must be strings, and 0 is of type int: rename"),
    ("no name", pd.DataFrame({None: DIGITS}), "column names must be strings, and"),
    ("pair", pd.DataFrame({("a", "b"): DIGITS}), "the column names have 2 levels: expected plain ones"),
    ("time", beside(1).rename(columns={"c": "event_time"}), "the stream adds a column 'event_time'"),
    ("a series", DAYS, "expected a DataFrame of pandas or polars, or an Arrow table, got Series"),
    ("a path", "orders.csv", "expected a DataFrame of pandas or polars, or an Arrow table, got str"),
    ("nothing", None, "expected a DataFrame of pandas or polars, or an Arrow table, got NoneType"),
]

COLUMNS: list[tuple[str, Any, str]] = [
    ("missing", np.nan, "column 'c' has no values at all: drop it"),
    ("None", objects(None), "column 'c' has no values at all: drop it"),
    ("NA", pd.array([pd.NA] * N, dtype="Int64"), "column 'c' has no values at all: drop it"),
    ("infinite", np.where(DIGITS == 0, np.inf, 1), "column 'c' holds infinite numbers: replace or drop them"),
    (
        "mixed",
        objects(1, "x"),
        "column 'c' mixes int, str: expected text, boolean, whole number, real number",
    ),
    ("mixed flags", objects(True, "x"), "column 'c' mixes bool, str: expected text"),
    ("flags, numbers", objects(True, 2), "column 'c' mixes bool, int: expected text"),
    ("mixed categories", pd.Categorical(objects("a", 1)), "column 'c' mixes int, str: expected text"),
    ("timedelta", pd.to_timedelta(DIGITS, "D"), "holds values of type Timedelta: .*dt.total_seconds"),
    ("complex", DIGITS + 1j, "column 'c' holds values of type complex: .*; split it"),
    ("list", objects([1], [2]), "holds values of type list: .*turn it into text"),
    ("nested", objects([1], {2: 3}), "column 'c' mixes dict, list: expected text"),
    ("Decimal", objects(decimal.Decimal("1.5")), r"holds values of type Decimal: .*with .astype\(float\)"),
    ("date", objects(dt.date(2020, 1, 1)), "holds values of type date: .*pd.to_datetime"),
    ("time", objects(dt.time(1)), "holds values of type time: expected text"),
    ("period", pd.period_range("2020", periods=N, freq="D"), r"type Period: .*with .dt.to_timestamp\(\)"),
    ("interval", pd.cut(pd.Series(DIGITS), 3), "holds values of type Interval: .*turn it into text"),
    ("bytes", objects(b"a"), "holds values of type bytes: .*turn it into text"),
    ("huge integers", objects(10**30), "column 'c' holds whole numbers of more than 64 bits"),
    ("unsigned", DIGITS.astype("uint64") + np.uint64(2**63), "more than 64 bits with a sign can: scale it"),
    ("half a character", objects("\ud800", "b"), r"holds '\\ud800', which is no valid Unicode"),
]


@pytest.mark.parametrize(("frame", "sentence"), [pytest.param(f, s, id=i) for i, f, s in SHAPES])
def test_a_frame_that_cannot_be_learned_is_refused(frame: Any, sentence: str) -> None:
    """What was expected, what came, what to do."""
    with pytest.raises(DataError, match=sentence) as caught:
        fit(frame)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("values", "sentence"), [pytest.param(v, s, id=i) for i, v, s in COLUMNS])
def test_a_column_that_cannot_be_learned_is_left_out(values: Any, sentence: str) -> None:
    """One sentence names the column, with what it holds and how to convert it; the others are learned."""
    with pytest.warns(DataWarning, match=sentence) as caught:
        model = fit(beside(values))
    assert model.schema.names == ("x", "k")
    assert [("\n" in str(warning.message)) for warning in caught] == [False]


def test_a_frame_of_nothing_that_can_be_learned_is_refused() -> None:
    """Where every column is left out, the fit ends with the sentence of the last."""
    with (
        pytest.warns(DataWarning, match="column 'c' has no values"),
        pytest.raises(DataError, match="column 'c' has no values at all"),
    ):
        fit(beside(np.nan)[["c"]])


GOOD: dict[str, tuple[Any, str]] = {
    "objects of bool": (objects(True, None, False, True), "boolean"),
    "objects of int": (objects(1, 2, None, 3), "integer"),
    "objects of int and float": (objects(1, 2.5), "number"),
    "objects of datetime": (
        objects(dt.datetime(2020, 1, 1), dt.datetime(2021, 1, 1), None, None),
        "timestamp",
    ),
    "objects of str": (objects("a", None), "category"),
    "empty strings": (objects("", " ", "nan", "None"), "category"),
    "categories of int": (pd.Categorical(DIGITS), "integer"),
    "categories of float": (pd.Categorical(DIGITS / 2), "number"),
    "categories of bool": (pd.Categorical(DIGITS > 3), "boolean"),
    "ordered categories": (
        pd.Categorical(np.where(DIGITS > 3, "low", "high"), ["low", "mid", "high"], ordered=True),
        "category",
    ),
    "Int64": (pd.Series(DIGITS, dtype="Int64").mask(DIGITS == 0), "integer"),
    "Int8": (pd.Series(DIGITS, dtype="Int8"), "integer"),
    "uint8": (DIGITS.astype("uint8"), "integer"),
    "large int64": (DIGITS * 10**17, "integer"),
    "float32": ((DIGITS / 7).astype("float32"), "number"),
    "Float64": (pd.Series(DIGITS / 7, dtype="Float64").mask(DIGITS == 0), "number"),
    "large and small": (np.where(DIGITS > 3, 1e300, -1e-300), "number"),
    "boolean": (pd.Series(DIGITS > 3, dtype="boolean").mask(DIGITS == 0), "boolean"),
    "string": (pd.Series(np.where(DIGITS > 3, "a", "b"), dtype="string").mask(DIGITS == 0), "category"),
    "int64[pyarrow]": (pd.Series(DIGITS, dtype="int64[pyarrow]").mask(DIGITS == 0), "integer"),
    "double[pyarrow]": (pd.Series(DIGITS / 2, dtype="double[pyarrow]").mask(DIGITS == 0), "number"),
    "bool[pyarrow]": (pd.Series(DIGITS > 3, dtype="bool[pyarrow]").mask(DIGITS == 0), "boolean"),
    "string[pyarrow]": (
        pd.Series(np.where(DIGITS > 3, "a", "b"), dtype=pd.ArrowDtype(pa.string())),
        "category",
    ),
    "timestamp[pyarrow]": (DAYS.astype("timestamp[us][pyarrow]").mask(DIGITS == 0), "timestamp"),
    "date32[pyarrow]": (DAYS.astype(pd.ArrowDtype(pa.date32())), "timestamp"),
    "datetime64[ns]": (DAYS.astype("datetime64[ns]"), "timestamp"),
    "datetime64[s]": (DAYS.astype("datetime64[s]").mask(DIGITS == 0), "timestamp"),
    "datetime64[us, UTC]": (DAYS.dt.tz_localize("UTC").mask(DIGITS == 0), "timestamp"),
    "datetime64[us, Europe/Berlin]": (DAYS.dt.tz_localize("Europe/Berlin"), "timestamp"),
    "datetime64[us, UTC+02:00]": (DAYS.dt.tz_localize("+02:00"), "timestamp"),
    "long ago": (pd.Series(np.array(["0900-05-05", "1800-01-01"] * (N // 2), "datetime64[s]")), "timestamp"),
}


@pytest.mark.parametrize(("values", "kind"), GOOD.values(), ids=GOOD.keys())
def test_every_dtype_that_holds_plain_values_works(values: Any, kind: str) -> None:
    """Synthetic rows have the very dtype and only values that occur; events pass through JSON unharmed."""
    frame = beside(values)
    model = fit(frame)
    assert model.schema["c"].kind == kind
    made = model.sample(200)["c"]
    assert made.dtype == frame["c"].dtype
    assert set(made.dropna()) <= set(frame["c"].dropna())
    assert made.isna().any() == frame["c"].isna().any()
    batch = model.events(0, 50)
    assert (
        decode(Encoder(model.schema).encode(batch), model.schema)["c"].to_pylist() == batch["c"].to_pylist()
    )
    assert "c" in str(model.describe()) or "c" in model.describe().svg


def test_a_constant_frame_is_learned() -> None:
    """Nothing varies, and that is what comes out."""
    frame = pd.DataFrame(
        {"a": [1] * 30, "b": ["x"] * 30, "c": [2.5] * 30, "d": [True] * 30, "e": pd.Timestamp("2020-01-01")}
    )
    model = fit(frame)
    pd.testing.assert_frame_equal(model.sample(30), frame)
    assert "a: always 1" in str(model.describe())


def test_names_that_are_keywords_or_odd_are_kept() -> None:
    """A name is a name, whatever it means elsewhere."""
    rng = np.random.default_rng(0)
    names = [
        "class",
        "def",
        "None",
        "lambda",
        "self",
        "",
        " ",
        "a: date",
        "x / y",
        "📦",
        "event_number",
        "t\n",
    ]
    frame = pd.DataFrame({name: rng.choice(["True", "None", "nan", ""], N) for name in names})
    model = fit(frame)
    assert list(model.sample(5).columns) == names
    assert set(model.sample(N)["None"]) == {"True", "None", "nan", ""}


def test_a_column_named_like_a_helper_is_not_mixed_up_with_it() -> None:
    """Names of what is computed inside cannot hide a column of the table."""
    rng = np.random.default_rng(0)
    paid = np.arange(1, N + 1)
    kept = paid * rng.choice([0.25, 0.5], N)
    frame = pd.DataFrame({"paid": paid, "kept": kept, "kept / paid": rng.normal(size=N)})
    made = fit(frame).sample(N)
    assert made["kept / paid"].between(frame["kept / paid"].min(), frame["kept / paid"].max()).all()
    assert set((made["kept"] / made["paid"]).round(6)) <= {0.25, 0.5}


@pytest.mark.slow
@pytest.mark.timeout(300)  # it takes a second
def test_ten_thousand_categories_are_learned(tmp_path: Path) -> None:
    """Identifiers of nearly every row: in time, and small as a file."""
    rng = np.random.default_rng(0)
    strings = rng.permutation(np.resize([f"customer {i:05d}" for i in range(10_000)], 20_000))
    model = fit(pd.DataFrame({"id": strings, "x": rng.normal(size=20_000)}))
    assert model.save(tmp_path / "m.model").stat().st_size < 2_000_000
    assert not set(model.sample(1000)["id"]) & set(strings)  # two rows have each
    assert len(model.describe()._repr_html_()) < 20_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_hundred_columns_are_learned() -> None:
    """A wide table takes its time, but not for ever."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(400, 10))
    columns = {}
    for i in range(300):
        values = hidden[:, i % 10] + rng.normal(size=400) * (0.3 + i % 7)
        letters = np.array(list("abcdef"))[np.clip(2 * values + 3, 0, 5).astype(int)]
        columns[f"v{i}"] = values if i % 3 == 0 else (3 * values).astype(int) if i % 3 == 1 else letters
    frame = pd.DataFrame(columns)
    model = fit(frame)
    assert model.sample(100).dtypes.equals(frame.dtypes)
    described = model.describe()
    assert len(str(described)) < 50_000
    assert 0 < described.svg.count("<rect") < 400


def test_an_index_of_any_kind_is_left_alone() -> None:
    """The index is no column, may repeat itself, and is not drawn."""
    frame = beside(DIGITS)
    frame.index = pd.Index(np.zeros(N), name="c")
    assert list(fit(frame).sample(3).columns) == ["x", "k", "c"]
