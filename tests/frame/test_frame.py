"""The rolling window of the newest events."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.strategies import batches, schemas
from logistream.dataco import EVENT
from logistream.errors import DataError, RequestError
from logistream.frame import window
from logistream.frame.frame import RollingFrame
from logistream.schema import EVENT_TIME, Column, Schema
from logistream.stream.encoding import Encoder

SMALL = Schema((Column("n", "integer"), Column("text", "category"), EVENT_TIME))
START = datetime(2026, 11, 24, tzinfo=UTC)


def small(numbers: range, seconds: float = 1.0, text: str = "a") -> pa.RecordBatch:
    """Make a batch with one event every `seconds`, numbered."""
    times = [START + timedelta(seconds=n * seconds) for n in numbers]
    columns = [list(numbers), [text] * len(numbers), times]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SMALL.arrow, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SMALL.arrow)


def plain(df: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as Arrow would give them: missing values are None."""
    rows = []
    for row in df.to_dict("records"):
        clean = {name: None if value is None or pd.isna(value) else value for name, value in row.items()}
        rows.append(
            {
                str(name): value.to_pydatetime() if isinstance(value, pd.Timestamp) else value
                for name, value in clean.items()
            }
        )
    return rows


@pytest.mark.slow
@settings(deadline=None)
@given(st.data())
def test_frame_keeps_exactly_the_newest_rows(data: Any) -> None:
    """Any appends of any schema leave the last `rows` rows, less those older than the window."""
    drawn = data.draw(schemas()).columns
    schema = Schema((*(column for column in drawn if column.name != EVENT_TIME.name), EVENT_TIME))
    rows = data.draw(st.none() | st.integers(1, 12))
    span = data.draw(st.none() | st.integers(1, 40))
    seconds = st.lists(st.integers(0, 60), max_size=12)
    frame = RollingFrame(rows, None if span is None else f"{span}s", schema=schema)
    everything: list[dict[str, Any]] = []
    with patch.object(window, "CHUNK_ROWS", 4):
        for _ in range(data.draw(st.integers(0, 4))):
            ages = data.draw(seconds if data.draw(st.booleans()) else seconds.map(sorted))
            field = schema.arrow.field(EVENT_TIME.name)
            times = pa.array([START + timedelta(seconds=age) for age in ages], field.type)
            batch = data.draw(batches(schema, rows=len(ages))).set_column(len(schema) - 1, field, times)
            frame.append(batch)
            everything += batch.to_pylist()
            kept = everything if rows is None else everything[-rows:]
            if span is not None and everything:
                cutoff = max(row[EVENT_TIME.name] for row in everything) - timedelta(seconds=span)
                kept = [row for row in kept if row[EVENT_TIME.name] >= cutoff]
            df = frame.df
            assert {name: str(dtype) for name, dtype in df.dtypes.items()} == schema.pandas_dtypes
            assert plain(df) == kept
            assert len(frame) == len(kept)
            assert plain(frame.tail(3)) == kept[-3:]
            assert frame.appended == len(everything)


def test_published_event_has_proper_dtypes() -> None:
    """The published event has categories, UTC times, whole and real numbers, even in an empty frame."""
    dtypes = {name: str(dtype) for name, dtype in RollingFrame().df.dtypes.items()}
    assert dtypes == EVENT.pandas_dtypes
    assert set(dtypes.values()) == {"category", "int64", "float64", "datetime64[us, UTC]"}


def test_rows_bound() -> None:
    """Only the newest rows stay, across many chunks and from one long batch."""
    frame = RollingFrame(rows=5000, window=None, schema=SMALL)
    for start in range(0, 30_000, 700):
        frame.append(small(range(start, start + 700)))
    assert frame.df["n"].tolist() == list(range(25_100, 30_100))
    frame.append(small(range(30_100, 60_000)))
    assert frame.df["n"].tolist() == list(range(55_000, 60_000))


def test_time_bound() -> None:
    """Only events within the window before the newest stay, the oldest of them included."""
    frame = RollingFrame(window="10s", schema=SMALL)
    frame.append(small(range(100)))
    assert frame.df["n"].tolist() == list(range(89, 100))


def test_late_event_older_than_the_window_is_not_shown() -> None:
    """An event that comes late is kept while it is young enough, whatever its position."""
    frame = RollingFrame(window="10s", schema=SMALL)
    for numbers in (range(50, 51), range(45, 46), range(3, 4), range(52, 57)):
        frame.append(small(numbers))
    assert frame.df["n"].tolist() == [50, 52, 53, 54, 55, 56]
    assert len(frame) == 6


def test_memory_is_bounded_for_ever_new_strings() -> None:
    """A column whose strings never repeat does not keep the strings of rows that are gone."""
    frame = RollingFrame(rows=100, window=None, schema=SMALL)
    for start in range(0, 100_000, 1000):
        strings = pa.array([str(n) for n in range(start, start + 1000)]).dictionary_encode()
        frame.append(small(range(start, start + 1000)).set_column(1, SMALL.arrow.field("text"), strings))
    df = frame.df
    assert df["text"].tolist() == [str(n) for n in df["n"]] == [str(n) for n in range(99_900, 100_000)]
    assert len(df["text"].cat.categories) < 10_000


def of_dictionary(numbers: range, strings: list[str], indices: list[int]) -> pa.RecordBatch:
    """Make a batch whose strings are those indices of a dictionary."""
    column = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(strings))
    return small(numbers).set_column(1, SMALL.arrow.field("text"), column)


def test_strings_that_no_row_uses_are_not_categories() -> None:
    """Batches share a long dictionary, of which each uses a part; what others used before is remembered."""
    frame = RollingFrame(rows=None, window=None, schema=SMALL)
    strings = [f"t{n:04d}" for n in range(1000)]
    frame.append(of_dictionary(range(2), strings, [7, 5]))
    frame.append(of_dictionary(range(2, 5), list(strings), [7, 999, 5]))
    frame.append(of_dictionary(range(5, 7), strings[::-1], [0, 992]))
    assert frame.df["text"].tolist() == ["t0007", "t0005", "t0007", "t0999", "t0005", "t0999", "t0007"]
    assert frame.df["text"].cat.categories.tolist() == ["t0005", "t0007", "t0999"]


@settings(deadline=None)
@given(st.data())
def test_any_dictionaries_give_the_strings_they_mean(data: Any) -> None:
    """Dictionaries of any length, shared or not, with repeated and unused strings, and missing values."""
    schema = Schema((Column("text", "category", nullable=True),))
    frame = RollingFrame(rows=data.draw(st.none() | st.integers(1, 5)), window=None, schema=schema)
    words = st.lists(st.sampled_from(["", "a", "b", "é", "ab"]), min_size=1, max_size=6)
    dictionaries = data.draw(st.lists(words, min_size=1, max_size=3))
    meant: list[str | None] = []
    with patch.object(window, "CHUNK_ROWS", 4), patch.object(window, "_SHORT", data.draw(st.integers(0, 3))):
        for strings in data.draw(st.lists(st.sampled_from(dictionaries), max_size=5)):
            indices = data.draw(st.lists(st.none() | st.integers(0, len(strings) - 1), max_size=6))
            column = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(strings))
            frame.append(pa.RecordBatch.from_arrays([column], schema=schema.arrow))
            meant += [None if index is None else strings[index] for index in indices]
        kept = meant if frame._rows is None else meant[-frame._rows :]
        assert [None if pd.isna(value) else value for value in frame.df["text"]] == kept


def test_snapshot_is_stable_and_belongs_to_the_caller() -> None:
    """A DataFrame stays as it was when events come, and changing it changes no later one."""
    frame = RollingFrame(rows=10, window=None, schema=SMALL)
    frame.append(small(range(8)))
    before = frame.df
    copy = before.copy(deep=True)
    frame.append(small(range(8, 5000), text="b"))
    pd.testing.assert_frame_equal(before, copy)
    mine = frame.df
    mine["n"] = 0
    mine.loc[0, "text"] = "b"
    mine["extra"] = 1
    assert frame.df["n"].tolist() == list(range(4990, 5000))
    assert list(frame.df.columns) == list(SMALL.names)


def test_snapshot_is_kept_until_the_next_append() -> None:
    """Looking twice costs once."""
    frame = RollingFrame(schema=SMALL)
    frame.append(small(range(5)))
    first, second = frame.df, frame.df
    assert np.shares_memory(first["n"].to_numpy(), second["n"].to_numpy())
    frame.append(small(range(5, 6)))
    assert len(frame.df) == 6


def test_categories_are_sorted() -> None:
    """Categories are in order whatever came first."""
    frame = RollingFrame(schema=SMALL)
    for number, text in enumerate(["pear", "apple", "fig", "apple"]):
        frame.append(small(range(number, number + 1), text=text))
    assert frame.df["text"].tolist() == ["pear", "apple", "fig", "apple"]
    assert frame.df["text"].cat.categories.tolist() == ["apple", "fig", "pear"]


def test_every_form_of_events_is_taken() -> None:
    """Batches, tables, DataFrames, dicts, strings, bytes and mixtures give the same frame."""
    batch = small(range(6))
    strings = Encoder(SMALL).encode(batch)
    dicts = [
        {"n": n, "text": "a", "event_time": text.decode().split('"')[-2]} for n, text in enumerate(strings)
    ]
    wanted = RollingFrame(schema=SMALL)
    wanted.append(batch)
    table = pa.concat_tables([pa.Table.from_batches([part]) for part in (batch.slice(0, 2), batch.slice(2))])
    mixed = [*dicts[:3], *strings[3:]]
    for events in (table, batch.to_pandas(), wanted.df, dicts, strings, [t.decode() for t in strings], mixed):
        frame = RollingFrame(schema=SMALL)
        frame.append(events)
        pd.testing.assert_frame_equal(frame.df, wanted.df)
    frame = RollingFrame(schema=SMALL)
    frame.append(dicts[0])
    frame.append(strings[1])
    assert frame.df["n"].tolist() == [0, 1]


def test_columns_are_turned_into_their_types() -> None:
    """Plain strings, small integers, nanoseconds and naive (UTC) times are taken as what they mean."""
    frame = RollingFrame(schema=SMALL)
    frame.append(
        pd.DataFrame(
            {
                "event_time": pd.to_datetime(["2026-11-24T06:00:00.123456789"]),
                "text": pd.Series(["x"], dtype=object),
                "n": np.array([7], np.int8),
                "more": [1],
            }
        )
    )
    assert plain(frame.df) == [
        {"n": 7, "text": "x", "event_time": datetime(2026, 11, 24, 6, 0, 0, 123456, UTC)}
    ]


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        (pd.DataFrame({"n": [1]}), "cannot append: no column 'text', 'event_time'"),
        (
            pd.DataFrame({"n": [1.5], "text": ["a"], "event_time": [START]}),
            "cannot append: column 'n' should be int64, got double",
        ),
        (
            pd.DataFrame({"n": [1], "text": [None], "event_time": [START]}),
            "cannot append: column 'text' has 1 missing values",
        ),
        (
            [1, 2.5],
            "expected a record batch, a DataFrame, or an iterable of dicts or JSON strings to append; got",
        ),
        (["hello"], "an event must be a JSON object, got hello"),
        ([{"n": 1}], "an event must have the key 'text'; it has n"),
    ],
    ids=["columns", "fraction", "missing", "numbers", "text", "key"],
)
def test_what_cannot_be_appended_is_explained_and_changes_nothing(events: Any, sentence: str) -> None:
    """A refused append names the column or key and leaves the frame as it was."""
    frame = RollingFrame(schema=SMALL)
    frame.append(small(range(3)))
    with pytest.raises((DataError, RequestError)) as caught:
        frame.append(events)
    assert str(caught.value).startswith(sentence)
    assert frame.df["n"].tolist() == [0, 1, 2]


def test_a_frame_is_asked_like_a_dataframe() -> None:
    """Columns by name, the oldest, the newest, and the last stretch of time."""
    frame = RollingFrame(window=None, schema=SMALL)
    frame.append(small(range(100)))
    assert frame.columns.tolist() == list(frame.df.columns)
    pd.testing.assert_series_equal(frame["n"], frame.df["n"])
    pd.testing.assert_frame_equal(frame[["text", "n"]], frame.df[["text", "n"]])
    assert frame.head(2)["n"].tolist() == [0, 1]
    assert frame.last("10s")["n"].tolist() == list(range(89, 100))
    assert frame.last(timedelta(seconds=1))["n"].tolist() == [98, 99]
    assert (list(frame), "n" in frame, "m" in frame) == (list(frame.df), True, False)
    with pytest.raises(RequestError, match="no column 'm'; there are n, text, event_time"):
        frame["m"]
    with pytest.raises(RequestError, match="takes the name of a column or a list of names, not 0"):
        frame[0]  # type: ignore[call-overload]
    with pytest.raises(RequestError, match="span must be a time above 0 such as '5min' or '30s'; got 'soon'"):
        frame.last("soon")


def test_arrow_libraries_read_a_frame() -> None:
    """The window comes through the Arrow stream interface with the types of the schema."""
    frame = RollingFrame(window=None, schema=SMALL)
    assert pa.table(frame).num_rows == 0
    frame.append(small(range(3)))
    table = pa.table(frame)
    assert table.schema.equals(SMALL.arrow)
    assert table.to_pylist() == small(range(3)).to_pylist()


def test_a_notebook_shows_the_state_and_the_newest_events() -> None:
    """The HTML has the sentence of the repr, and a table of five rows."""
    frame = RollingFrame(window=None, schema=SMALL)
    assert frame._repr_html_() == "<p>RollingFrame(rows=100000, window=None): 0 events</p>"
    frame.append(small(range(1200), text="<b>"))
    page = frame._repr_html_()
    assert "1,200 events, newest 2026-11-24 00:19:59 UTC, 1.00 events/s" in page
    assert page.count("<tr") == 6
    assert "<b>" not in page


@pytest.mark.parametrize("rows", [0, -1, 2.5, True, "10"])
def test_impossible_rows_are_refused(rows: Any) -> None:
    """A bound on rows is a whole number from 1."""
    with pytest.raises(RequestError) as caught:
        RollingFrame(rows=rows)
    assert str(caught.value) == f"rows must be a whole number from 1, or None for no bound; got {rows!r}"


@pytest.mark.parametrize("span", ["soon", "0s", "-5min", "NaT", 1.5j])
def test_impossible_window_is_refused(span: Any) -> None:
    """A bound on time is a positive duration."""
    with pytest.raises(RequestError) as caught:
        RollingFrame(window=span)
    assert str(caught.value) == f"window must be a time above 0 such as '5min' or '30s'; got {span!r}"


def test_window_needs_an_event_time() -> None:
    """A schema without event times can be bounded by rows only, and the sentence says how."""
    schema = Schema((Column("n", "integer"),))
    with pytest.raises(RequestError, match="use window=None to bound the frame by rows only"):
        RollingFrame(schema=schema)
    frame = RollingFrame(rows=2, window=None, schema=schema)
    frame.append([{"n": n} for n in range(5)])
    assert (frame.df["n"].tolist(), frame.newest, frame.rate) == ([3, 4], None, 0.0)


def test_state_before_the_first_event() -> None:
    """An empty frame has no newest time and no rate."""
    frame = RollingFrame()
    assert (len(frame), frame.newest, frame.rate, frame.appended) == (0, None, 0.0, 0)
    assert repr(frame) == "<RollingFrame(rows=100000, window='5min'): 0 events>"
    assert len(frame.tail()) == 0


@pytest.mark.parametrize(("seconds", "rate"), [(0.5, 2.0), (0.001, 1000.0), (20.0, 0.05)])
def test_rate_is_that_of_the_event_times(seconds: float, rate: float) -> None:
    """The rate is exact for even spacing, also below one event in the time looked back on."""
    frame = RollingFrame(window=None, schema=SMALL)
    frame.append(small(range(9000), seconds))
    assert frame.rate == pytest.approx(rate, rel=1e-9)


def test_rate_follows_a_change() -> None:
    """Five seconds after a change only the new rate counts."""
    frame = RollingFrame(schema=SMALL)
    frame.append(small(range(1000), 0.01))
    frame.append(small(range(20, 40), 0.5))
    assert frame.rate == pytest.approx(2.0)


def test_repr_is_short() -> None:
    """The repr shows bounds, size, newest time and rate, no data."""
    frame = RollingFrame(rows=5000, window="1h", schema=SMALL)
    frame.append(small(range(1200)))
    assert repr(frame) == (
        "<RollingFrame(rows=5000, window='1h'): 1,200 events, newest 2026-11-24 00:19:59 UTC, 1.00 events/s>"
    )


def test_appends_and_looks_from_many_threads() -> None:
    """Threads that append and look at once lose nothing and never see half a batch."""
    frame = RollingFrame(rows=None, window=None, schema=SMALL)
    broken: list[str] = []

    def append(start: int) -> None:
        for step in range(50):
            first = start + step * 100
            frame.append(small(range(first, first + 100), text=str(start)))

    def look() -> None:
        while writers_alive():
            df = frame.df
            if len(df) % 100 or (df["n"].to_numpy()[::100] % 100).any():
                broken.append("a batch was torn")

    writers = [threading.Thread(target=append, args=(n * 10_000,)) for n in range(3)]

    def writers_alive() -> bool:
        return any(writer.is_alive() for writer in writers)

    reader = threading.Thread(target=look)
    for thread in (*writers, reader):
        thread.start()
    for thread in (*writers, reader):
        thread.join()
    assert not broken
    df = frame.df
    assert sorted(df["n"]) == sorted(n * 10_000 + i for n in range(3) for i in range(5000))
    assert (df["text"].astype(int) == df["n"] // 10_000 * 10_000).all()


def test_wait() -> None:
    """Waiting returns as soon as enough events came, or False after the time given."""
    frame = RollingFrame(schema=SMALL)
    assert not frame.wait(1, timeout=0.01)
    threading.Timer(0.01, frame.append, [small(range(3))]).start()
    assert frame.wait(3, timeout=60)


def test_since_gives_each_event_once() -> None:
    """Looking at what is new gives every event once, in the columns asked for; what fell out is skipped."""
    frame = RollingFrame(rows=100, window=None, schema=SMALL)
    seen: list[int] = []
    position = 0
    for start, stop in itertools.pairwise([0, 1, 50, 60, 90]):
        frame.append(small(range(start, stop)))
        fresh, position = frame.since(position, ["text", "n"])
        assert list(fresh.columns) == ["text", "n"]
        seen += fresh["n"].tolist()
    assert seen == list(range(90))
    frame.append(small(range(90, 1000)))
    fresh, position = frame.since(position)
    assert (fresh["n"].tolist(), position) == (list(range(900, 1000)), 1000)
    assert len(frame.since(position)[0]) == 0
    with pytest.raises(RequestError, match="no column 'm'; there are n, text, event_time"):
        frame.since(0, ["m"])


def test_append_does_not_depend_on_the_window() -> None:
    """A small append to a large window touches one chunk: older chunks are the very same arrays."""
    frame = RollingFrame(rows=None, window=None, schema=SMALL)
    frame.append(small(range(50_000)))
    store = frame._store
    assert store is not None
    before = [chunk.columns[0] for chunk in store._chunks]
    held = [array.copy() for array in before[:-1]]
    frame.append(small(range(50_000, 50_001)))
    after = [chunk.columns[0] for chunk in store._chunks]
    assert all(a is b for a, b in zip(before, after, strict=True))
    assert all((a == b).all() for a, b in zip(before[:-1], held, strict=True))
