"""`verify`: faults that are planted in a sink are found, each where it is and as often as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from helpers.clocks import NOW
from helpers.sinks import numbered_batch, numbered_frame
from logistream import fit, verify
from logistream.errors import DataError, NotYetError, RequestError, StreamError
from logistream.schema import EVENT_NUMBER, Schema
from logistream.server.server import StreamServer
from logistream.stream.encoding import Encoder
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry
from logistream.verification import counting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from logistream.model.model import Model
    from logistream.verification.result import Verification

ROWS = 500


def lines(stream: Stream, start: int = 0, stop: int = ROWS) -> list[bytes]:
    """Return events as lines of JSON, with their numbers."""
    encoder = Encoder(Schema((*stream.model.full_schema, EVENT_NUMBER)))
    return encoder.encode(numbered_batch(stream, start, stop))


def found(verification: Verification) -> dict[str, int]:
    """Return what the pipeline did; the wire did nothing."""
    assert not any(finding.wire for finding in verification.findings.values())
    return {kind: f.pipeline for kind, f in verification.findings.items() if f.pipeline}


def parquet(stream: Stream, folder: Path) -> Path:
    """Write a Parquet file as pandas does."""
    path = folder / "sink.parquet"
    numbered_frame(stream, 0, ROWS).to_parquet(path)
    return path


def folder_of_spark(stream: Stream, folder: Path) -> Path:
    """Write a folder with parts, partitioned by Market, as Spark does, with what Spark leaves beside them."""
    sink = folder / "sink"
    frame = numbered_frame(stream, 0, ROWS)
    for market, rows in frame.groupby("Market"):
        place = sink / f"Market={str(market).replace(' ', '%20')}"
        place.mkdir(parents=True)
        rows.drop(columns="Market").to_parquet(place / "part-00000.snappy.parquet")
    (sink / "_SUCCESS").touch()
    (sink / "_temporary").mkdir()
    (sink / "_temporary" / "half.parquet").write_bytes(b"PAR1")
    return sink


def ndjson(stream: Stream, folder: Path) -> Path:
    """Write the lines that a reader gets."""
    path = folder / "sink.ndjson"
    path.write_bytes(b"\n".join(lines(stream)) + b"\n")
    return path


def ndjson_of_pandas(stream: Stream, folder: Path) -> Path:
    """Write lines as pandas does: timestamps as milliseconds since 1970, or microseconds."""
    path = folder / "pandas.ndjson"
    frame = numbered_frame(stream, 0, ROWS)
    frame.to_json(path, orient="records", lines=True, date_format="iso", date_unit="us", double_precision=15)
    return path


def mixed(stream: Stream, folder: Path) -> Iterator[Any]:  # noqa: ARG001
    """Give rows of every form."""
    yield from map(json.loads, lines(stream, 0, 100))
    yield numbered_frame(stream, 100, 200)
    yield numbered_batch(stream, 200, 300)
    yield from lines(stream, 300, 400)
    yield pa.table(numbered_batch(stream, 400, ROWS))


SINKS: dict[str, Callable[[Stream, Path], Any]] = {
    "DataFrame": lambda stream, _: numbered_frame(stream, 0, ROWS),
    "indexed": lambda stream, _: numbered_frame(stream, 0, ROWS).set_index("event_number"),
    "table": lambda stream, _: pa.table(numbered_batch(stream, 0, ROWS)),
    "Parquet": parquet,
    "list of paths": lambda stream, folder: [str(parquet(stream, folder))],
    "folder": folder_of_spark,
    "NDJSON": ndjson,
    "NDJSON of pandas": ndjson_of_pandas,
    "iterator": mixed,
}


@pytest.mark.parametrize("make", SINKS.values(), ids=SINKS)
def test_a_right_sink_has_no_findings(
    stream: Stream, tmp_path: Path, make: Callable[[Stream, Path], Any]
) -> None:
    """Whatever form it has, all rows and columns are compared, and nothing is found."""
    result = verify(make(stream, tmp_path), stream)
    assert (found(result), result.ok) == ({}, True)
    assert (result.start, result.stop, result.rows) == (0, ROWS, ROWS)
    assert set(result.columns) == set(stream.model.full_schema.names)


def test_each_planted_fault_is_found(stream: Stream) -> None:
    """Lost, doubled, reordered, altered, late and foreign rows: as many as there are, with their numbers."""
    frame = numbered_frame(stream, 100, 100 + ROWS)
    frame["arrived"] = frame["event_time"] + pd.Timedelta("1s")
    frame.loc[[7, 8], "arrived"] += pd.Timedelta("1min")
    frame["Sales"] += np.where(frame.index == 20, 0.01, 0)
    frame.loc[[20, 21], "Market"] = "Mars"
    frame.loc[[40, 41]] = frame.loc[[41, 40]].to_numpy()
    frame = pd.concat([frame.drop(index=[3, 4, 5]), frame.loc[[50, 50, 60]]])
    foreign = frame.iloc[:1].assign(event_number=10**9)
    result = verify(pd.concat([frame, foreign]), stream, arrived="arrived", late="30s")
    assert found(result) == {
        "lost": 3, "doubled": 3, "reordered": 1, "altered": 2, "late": 2, "foreign": 1
    }  # fmt: skip
    assert result.lost.examples == (103, 104, 105)
    assert result.doubled.examples == (150, 160)
    assert result.altered.examples == (120, 121)
    assert {name: f.pipeline for name, f in result.altered_columns.items()} == {"Market": 2, "Sales": 1}
    assert not result.ok
    assert "The pipeline is at fault: 3 lost, 3 doubled, 1 reordered, 2 altered, 2 late" in str(result)
    table = result.to_frame()
    assert table.loc["late", "pipeline"] == 2
    assert table[table["column"] == "Sales"]["total"].tolist() == [1]
    assert ">&emsp;Sales</td><td>1</td>" in result._repr_html_()


@pytest.mark.slow
@settings(max_examples=30)
@given(data=st.data())
def test_random_edits_are_found(stream: Stream, data: st.DataObject) -> None:
    """Rows are lost, doubled, altered and shuffled at random: the counts are exact."""
    start, stop = 60, 260
    frame = numbered_frame(stream, start, stop)
    numbers = st.integers(start + 1, stop - 2)  # the ends stay, which the range is taken from
    lost = data.draw(st.sets(numbers, max_size=20))
    doubled = data.draw(st.lists(numbers.filter(lambda n: n not in lost), max_size=20))
    altered = data.draw(st.sets(numbers.filter(lambda n: n not in lost), max_size=20))
    column = data.draw(st.sampled_from(["Sales", "Order Item Quantity", "Market", "event_time"]))
    changed: Any = {"Market": "Mars", "event_time": pd.Timestamp("2020-01-01", tz="UTC")}.get(column, -1)
    frame.loc[frame["event_number"].isin(altered), column] = changed
    frame = frame[~frame["event_number"].isin(lost)]
    frame = pd.concat([frame, *(frame[frame["event_number"] == number] for number in doubled)])
    if data.draw(st.booleans()):
        frame = frame.sample(frac=1, random_state=data.draw(st.integers(0, 2**31)))
    arrived, highest, reordered = set(), -1, 0
    for number in frame["event_number"]:
        reordered += number < highest and number not in arrived
        highest = max(number, highest)
        arrived.add(number)
    wrong = int(frame["event_number"].isin(altered).sum())
    expected = {"lost": len(lost), "doubled": len(doubled), "reordered": reordered, "altered": wrong}
    assert found(verify(frame, stream)) == {kind: n for kind, n in expected.items() if n}


@pytest.mark.parametrize("held", [1000, 10**9], ids=["in files", "in memory"])
def test_rows_in_any_order_are_compared(stream: Stream, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    """A shuffled sink over two spans of numbers goes through files, or not: the findings are the same."""
    monkeypatch.setattr(counting, "_HELD", held)
    batch = numbered_batch(stream, 30_000, counting.SPAN + 40_000)
    sales = np.array(batch.column("Sales"))
    sales[[5, 70_005]] += 1
    batch = batch.set_column(batch.schema.get_field_index("Sales"), "Sales", pa.array(sales))
    order = np.random.default_rng(1).permutation(len(batch))
    order = np.append(order[(order != 60_000) & (order != 60_001)], [9, 9])
    shuffled = pa.table(batch).take(pa.array(order))
    pieces = (
        shuffled.slice(low, 5000).combine_chunks().to_batches()[0] for low in range(0, len(order), 5000)
    )
    result = verify(pieces, stream, ordered=False)
    assert found(result) == {"lost": 2, "doubled": 2, "altered": 2}
    assert result.lost.examples == (90_000, 90_001)
    assert result.altered.examples == (30_005, 100_005)


def test_rows_that_are_far_apart_are_compared(stream: Stream) -> None:
    """A sink with a few rows of a long stream: only their blocks are made, and all others are lost."""
    batch = numbered_batch(stream, 0, 200_000).take(pa.array([0, 70_000, 70_001, 199_999]))
    assert found(verify(batch, stream)) == {"lost": 199_996}


def test_each_file_has_an_order_of_its_own(stream: Stream, tmp_path: Path) -> None:
    """Files that were written side by side are no reordering."""
    frame = numbered_frame(stream, 0, ROWS)
    frame[frame.index % 2 == 0].to_parquet(tmp_path / "a.parquet")
    frame[frame.index % 2 == 1].to_parquet(tmp_path / "b.parquet")
    assert found(verify(tmp_path, stream)) == {}
    swapped = pd.concat([frame.iloc[250:], frame.iloc[:250]])
    assert found(verify(swapped, stream)) == {"reordered": 250}
    assert found(verify(swapped, stream, ordered=False)) == {}


def test_a_range_is_kept_to(stream: Stream) -> None:
    """With start and stop what lacks at the ends is lost, and rows of other events are left out."""
    frame = numbered_frame(stream, 100, 200)
    result = verify(frame, stream, start=90, stop=150)
    assert (found(result), result.rows) == ({"lost": 10}, 50)
    assert found(verify(frame.iloc[:0], stream, start=90, stop=150)) == {"lost": 60}


def test_a_range_may_be_given_in_the_numbers_of_pandas(stream: Stream) -> None:
    """As the least and the greatest number of a column, which are not of the type int."""
    numbers = (frame := numbered_frame(stream, 100, 200))["event_number"]
    result = verify(frame.iloc[1:], stream, start=numbers.min(), stop=numbers.max() + 1)
    assert (found(result), result.start, result.stop) == ({"lost": 1}, 100, 200)


def test_rows_without_a_time_of_arrival_are_not_late(stream: Stream) -> None:
    """Also where all rows that are compared together have none."""
    batch = numbered_batch(stream, 0, 200_000).take(pa.array([0, 70_000, 199_999]))
    frame = pa.table(batch).to_pandas()
    frame["arrived"] = (frame["event_time"] + pd.Timedelta("1min")).where(frame.index != 1)
    assert found(verify(frame, stream, arrived="arrived")) == {"lost": 199_997, "late": 2}


def test_numbers_that_no_event_has_are_foreign(stream: Stream) -> None:
    """Missing, negative, fractional, textual and future numbers, which do not stretch the range."""
    frame = numbered_frame(stream, 0, 10).astype({"event_number": object})
    frame["event_number"] = [0, None, -2, "three", 4.5, 5.0, "6", 7, 2.0**60, 10**7]
    result = verify(frame, stream)
    assert found(result) == {"lost": 4, "foreign": 6}
    assert (result.start, result.stop) == (0, 8)


def test_lines_that_cannot_be_read_are_counted(stream: Stream, tmp_path: Path) -> None:
    """Cut lines, other JSON and text are unreadable; a value of another type is altered."""
    path = tmp_path / "sink.ndjson"
    good = lines(stream)
    wrong = json.loads(good[9])
    wrong["Sales"] = {"usd": 1}
    path.write_bytes(
        b"\n".join([*good[:5], good[5][:40], b"[1]", b"\xff", *good[6:9], json.dumps(wrong).encode()])
    )
    assert found(verify(path, stream)) == {"lost": 1, "altered": 1, "unreadable": 3}


def test_a_server_and_its_timeline_are_sources(model: Model, tmp_path: Path) -> None:
    """By object, by address and by its timeline file the same is found."""
    timeline = tmp_path / "orders.timeline"
    with StreamServer(model, rate=1000, port=0, seed=3, history="10s", timeline=timeline) as server:
        batch = numbered_batch(Stream(model, server.timeline, seed=3), 0, 2000)
        rows = batch.to_pylist()
        rows[4]["Sales"] += 1
        del rows[7]
        for source in (server, server.url, server.websocket_url):
            result = verify(iter(rows), source)
            assert found(result) == {"lost": 1, "altered": 1}
    assert found(verify(rows, timeline)) == {"lost": 1, "altered": 1}
    assert found(verify(rows, str(timeline), model=model)) == {"lost": 1, "altered": 1}


def test_without_the_model_the_events_are_read_from_the_server(model: Model) -> None:
    """A server with a model that is not here gives its events."""
    names = ["Market", "Sales", "Order Item Quantity", "Late_delivery_risk"]
    other = fit(model.sample(400, seed=1)[names], name="other")
    with StreamServer(other, rate=1000, port=0, history="10s") as server:
        frame = numbered_frame(Stream(other, server.timeline), 100, 900)
        frame.loc[3, "Market"] = "Mars"
        assert found(verify(frame, server.url)) == {"altered": 1}
        result = verify(frame, server.url, window="1s", by="Market", sums="Sales")
        assert result.windows is not None
        assert result.windows["events"].sum() == 800
        with pytest.raises(RequestError, match=r"serves another model, other: give its file, or leave out"):
            verify(frame, server.url, model=model)


ERRORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no numbers": (
        {"what": pd.DataFrame({"Sales": [1.0]})},
        DataError,
        r"the sink has no column 'event_number' \(there are Sales\): store it too, as readers get it with "
        r"numbered=true",
    ),
    "rows of something else": (
        {"what": [{"x": 1}], "start": 0, "stop": 5},
        DataError,
        r"the sink has no column 'event_number' \(there are none of the stream\): store it too, as .*",
    ),
    "empty": (
        {"what": pd.DataFrame({"event_number": []})},
        DataError,
        "the sink holds no rows: if events should be in it, give start and stop",
    ),
    "nothing to read": ({"what": 7}, RequestError, "no rows in int: expected a DataFrame, Parquet or .*"),
    "iterator of numbers": ({"what": iter([1])}, RequestError, "an iterator must give dicts, .*, not int"),
    "no file": ({"what": "no.parquet"}, DataError, "no file at no.parquet: check the path"),
    "future": ({"stop": 10**9}, NotYetError, "event 999999999 has not happened yet: the newest is 360000"),
    "backwards": ({"start": 5, "stop": 5}, RequestError, "start must be before stop, .*"),
    "start": ({"start": -1}, RequestError, "start must be an event number from 0, not -1"),
    "late": ({"late": "30s"}, RequestError, "late needs arrived, the column with the time at which .*"),
    "duration": ({"late": "soon", "arrived": "a"}, RequestError, "late: expected a length of time .*'soon'"),
    "no arrivals": ({"arrived": "at"}, DataError, "the sink has no column 'at' with the times of arrival"),
    "arrivals": (
        {"arrived": "Market"},
        DataError,
        "column 'Market' holds no times of arrival: expected timestamps",
    ),
    "watermark": ({"watermark": "1s"}, RequestError, "watermark needs window, the length of the windows, .*"),
    "window": ({"window": "0s"}, RequestError, "window must be longer than 0 and .*, got 0s and None"),
    "by": ({"window": "1s", "by": "Markt"}, RequestError, "no column 'Markt' .*'Market'.*"),
    "sums": ({"window": "1s", "sums": "Market"}, RequestError, "column 'Market' cannot be summed up.*"),
    "twice": ({"window": "1s", "by": ["Sales"], "sums": "Sales"}, RequestError, "by and sums must name .*"),
    "source": ({"source": 7}, RequestError, "cannot compare with int: expected the address of a server, .*"),
    "timeline": ({"source": "no.timeline"}, StreamError, "there is no timeline file at .*: check the path"),
    "model": ({"model": "x"}, RequestError, "a server knows its model: leave out model"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "kind", "sentence"), ERRORS.values(), ids=ERRORS)
def test_what_is_not_allowed_is_one_sentence(
    stream: Stream, given: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    """Each error says what was expected."""
    arguments = {"what": numbered_frame(stream, 0, 20), "source": stream, **given}
    with pytest.raises(kind, match=f"^{sentence}$"):
        verify(**arguments)


def test_files_that_cannot_be_read_are_named(stream: Stream, tmp_path: Path) -> None:
    """A damaged file, one of another format, an empty folder."""
    path = tmp_path / "sink.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"sink\.parquet cannot be read: .+"):
        verify(path, stream)
    path.write_bytes(b"event_number,Sales\n1,2\n")
    with pytest.raises(DataError, match=r"sink\.parquet is neither Parquet nor NDJSON: give the files"):
        verify(path, stream)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no files: expected Parquet or NDJSON files"):
        verify(tmp_path / "empty", stream)


def test_the_sink_of_another_stream_is_refused(stream: Stream) -> None:
    """Another seed makes other events; numbers that have not happened are of no stream that is known."""
    other = Stream(stream.model, Timeline([first_entry(NOW, rate=50)]), seed=6)
    with pytest.raises(DataError, match=f"the sink is of another stream than {stream.id}: none of its first"):
        verify(numbered_frame(other, 0, 100), stream)
    later = numbered_frame(stream, 0, 100).assign(event_number=lambda frame: frame["event_number"] + 10**9)
    with pytest.raises(DataError, match="none of its 100 rows has the number of an event there"):
        verify(later, stream)
    scaled = numbered_frame(stream, 0, 100).assign(Sales=1.0)[["event_number", "Sales", "Market", "Type"]]
    assert found(verify(scaled, stream))["altered"] > 90  # a column that is wrong in all rows is altered


def test_parquet_parts_may_have_other_columns(stream: Stream, tmp_path: Path) -> None:
    """A column is compared in the files that have it."""
    frame = numbered_frame(stream, 0, 100)
    frame.iloc[:50].to_parquet(tmp_path / "a.parquet")
    frame.iloc[50:][["event_number", "Sales"]].to_parquet(tmp_path / "b.parquet")
    pq.write_table(pa.table(numbered_batch(stream, 100, 150)), tmp_path / "c.parquet")
    assert found(verify(tmp_path, stream)) == {}


def test_a_column_that_is_there_twice_is_refused(stream: Stream) -> None:
    """It is not known which of them is meant."""
    frame = numbered_frame(stream, 0, ROWS)
    twice = pd.concat([frame, frame[["Sales"]]], axis=1)
    batch = pa.RecordBatch.from_arrays(
        [pa.array([0]), pa.array([1]), pa.array([2])], ["event_number", "Sales", "Sales"]
    )
    for sink in (twice, batch, iter([twice])):
        with pytest.raises(DataError, match=r"^the sink has 2 columns 'Sales': keep the one that is meant$"):
            verify(sink, stream)


def test_a_file_may_begin_with_a_byte_order_mark(stream: Stream, tmp_path: Path) -> None:
    """As editors and tools of Windows write it."""
    path = tmp_path / "sink.ndjson"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines(stream)) + b"\n")
    assert verify(path, stream).ok
