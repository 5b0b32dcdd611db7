"""Where the events of the data sources come from, without Spark."""

from __future__ import annotations

import pickle
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import logistream as ls
from helpers.clocks import Clock
from helpers.sockets import free_port
from helpers.waiting import until
from logistream.errors import LogistreamError, ModelError, RequestError, StreamError
from logistream.model.sampling import BLOCK
from logistream.spark import server_origin
from logistream.spark.generator_origin import GeneratorOrigin
from logistream.spark.origin import Options, Origin, Span, split
from logistream.spark.server_origin import ServerOrigin
from logistream.stream.faults import read_faults
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry
from logistream.stream.timeline_file import FileTimeline, open_timeline_file
from logistream.times import parse_instant, wall_clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from logistream.model.model import Model

NEW_YEAR = parse_instant("2026-01-01")
RATE = {"eventsPerSecond": "1000", "startTime": "2026-01-01"}


@pytest.fixture(scope="module")
def past(model: Model) -> Iterator[ls.StreamServer]:
    """Give a paused stream with a minute of history, 100 events a second."""
    with ls.StreamServer(model, rate=100, port=0, history="1min") as running:
        running.paused = True
        yield running


@pytest.fixture
def timeline(model: Model, tmp_path: Path) -> Path:
    """Return a timeline file with a change of the rate and a pause."""
    path = tmp_path / "orders.timeline"
    header: dict[str, str | int] = {
        "model": model.checksum,
        "model_name": model.name,
        "seed": 7,
        "arrivals": "poisson",
    }
    file = open_timeline_file(
        path, header=header, first_entry=lambda now: first_entry(now, rate=100, history=60_000_000)
    )
    file.change(wall_clock(), rate=500_000)
    pause = file.change(wall_clock(), paused=True)
    file.close()
    until(lambda: wall_clock() > pause.since)
    return path


def rows(origin: Origin, first: int, stop: int, parts: int = 1) -> pa.Table:
    """Return what the tasks of a query read; each gets its origin pickled."""
    spans = origin.spans(origin.begin() | {"next": first}, stop, parts)
    assert len(spans) <= parts
    batches = [
        batch for span in spans for batch in pickle.loads(pickle.dumps(origin)).read(span, patient=False)
    ]
    return pa.Table.from_batches(batches)


@given(st.integers(0, 2**40), st.integers(0, 50 * BLOCK), st.integers(1, 9))
def test_a_range_is_cut_at_the_ends_of_blocks(first: int, length: int, parts: int) -> None:
    """Nothing is left out or doubled, no block is made twice, and the parts are of nearly equal length."""
    spans = split(first, first + length, parts)
    assert [number for span in spans for number in span] == sorted(
        number for span in spans for number in span
    )
    assert len(spans) <= parts
    if length:
        assert (spans[0][0], spans[-1][1]) == (first, first + length)
    assert all(left[1] == right[0] and right[0] % BLOCK == 0 for left, right in pairwise(spans))
    blocks = [-(-stop // BLOCK) - low // BLOCK for low, stop in spans]
    assert not blocks or max(blocks) - min(blocks) <= 1


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_generated_events_are_those_of_the_stream(model: Model, parts: int) -> None:
    """In whatever parts they are made."""
    stream = Stream(model, Timeline([first_entry(wall_clock(), rate=1000, start=NEW_YEAR)]), seed=3)
    made = rows(GeneratorOrigin.of(RATE | {"seed": "3", "columns": "all"}), 5000, 40_000, parts)
    assert made.equals(pa.Table.from_batches([stream.batch(5000, 40_000)]))


def test_by_default_the_published_columns_and_the_number(model: Model) -> None:
    """In the order of the event."""
    made = rows(GeneratorOrigin.of(RATE), 10, 20)
    assert made.column_names == [*model.event_schema.names, "event_number"]
    assert made["event_number"].to_pylist() == list(range(10, 20))


def test_without_a_timeline_the_events_are_those_of_the_model(model: Model) -> None:
    """Dates are from the history, and there are no event times."""
    origin = GeneratorOrigin.of({"start": "100", "stop": "9000", "seed": "1", "columns": "all"})
    offset, stop = origin.finished()
    assert (offset["next"], stop) == (100, 9000)
    (span,) = origin.spans(offset, stop, 1)
    made = pa.Table.from_batches(origin.read(span, patient=False))
    assert made.equals(pa.Table.from_batches([model.events(100, 9000, seed=1)]))
    assert "event_time" not in GeneratorOrigin.of({"stop": "1"}).schema


def test_a_timeline_file_is_followed(model: Model, timeline: Path) -> None:
    """With its seed, arrivals, rates and pauses; only entries that matter are sent to a task."""
    origin = GeneratorOrigin.of({"timeline": str(timeline), "columns": "all"})
    offset, stop = origin.finished()
    assert origin.seed == 7
    assert stop == origin.newest(origin.begin()) > 6000
    whole = rows(origin, 0, stop, 3)
    assert np.all(np.diff(whole["event_time"].to_numpy().astype("int64")) > 0)
    assert [len(span.known["entries"]) for span in origin.spans(offset, 4096, 1)] == [1]
    assert [len(span.known["entries"]) for span in origin.spans(offset, stop, 1)] == [2]
    with ls.StreamServer(model, seed=7, arrivals="poisson", timeline=timeline, port=0) as server:
        assert server._stream.id == offset["stream"]
        assert whole.equals(pa.Table.from_batches([server._stream.batch(0, stop)]))


def test_a_scenario_is_the_same_wherever_a_task_begins(model: Model, tmp_path: Path) -> None:
    """Its strength depends on when it took effect, which may be entries before those of a task."""
    path = tmp_path / "orders.timeline"
    header: dict[str, str | int] = {"model": model.checksum, "seed": 3}
    clock = Clock()
    clock.now = wall_clock()
    file = open_timeline_file(
        path,
        header=header,
        first_entry=lambda now: first_entry(now, rate=100, history=60_000_000),
        clock=clock,
    )
    ramp = ls.Scenario(
        [{"weight": 5, "where": {"Market": "Europe"}}],
        {"shape": "ramp", "position": 5_000, "width": 10_000},
    )
    with closing(file):
        file.change(clock.now, rate=20_000, scenarios=(ramp,))
        clock.now += 50_000
        drop = read_faults({"drop": True, "share": 0.5})  # of the wire: rows are what happened
        last = file.change(clock.now, rate=30_000, faults=drop)
        until(lambda: wall_clock() > last.since + 400_000)
    origin = GeneratorOrigin.of({"timeline": str(path), "columns": "all"})
    _, stop = origin.finished()
    first = last.first + 4_500
    assert stop > first
    stream = Stream(model, FileTimeline(path), seed=3)
    made = pa.Table.from_batches([stream.batch(first, stop)])
    stream.timeline.close()
    assert rows(origin, first, stop, 2).equals(made)
    assert 0 < stream.truth(first, first + 1)["strength"][0] < 1


def test_a_stream_query_that_begins_again_keeps_its_beginning() -> None:
    """The time of event 0 is in the offset, so that a repeated micro-batch has the same times."""
    first = GeneratorOrigin.of({"eventsPerSecond": "1000"})
    offset = first.begin()
    again = GeneratorOrigin.of({"eventsPerSecond": "1000"})
    assert again.began > first.began
    one, other = (origin.spans(offset, 5, 1) for origin in (first, again))
    assert one == other
    assert 0 < again.newest(offset) <= again.newest(offset, wall_clock())
    with pytest.raises(RequestError, match="use the model, seed, timeline and eventsPerSecond of before"):
        GeneratorOrigin.of({"eventsPerSecond": "2000"}).newest(offset)


def test_the_past_of_a_rate() -> None:
    """Without `stop` a batch ends with the newest event; numbers and times select a part, or what comes."""
    late = GeneratorOrigin.of(RATE | {"start": "2026-01-01T00:00:01Z"})
    offset, stop = late.finished()
    assert offset["next"] == 1001
    assert stop <= late.newest(offset)
    coming = 10**12
    assert GeneratorOrigin.of(RATE | {"stop": str(coming)}).finished()[1] == coming


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "option stop is needed, or a timeline, or eventsPerSecond"),
        ({"stop": "5", "start": "6"}, "start must not be after stop: 6 is after 5"),
        ({"stop": "soon"}, "stop must be a whole event number from 0 to 2**53, not 'soon'"),
        ({"rows": "5"}, "no option 'rows': there are model, seed, timeline, eventsPerSecond,"),
        ({"seed": "-1"}, "option seed must be a whole number of at least 0, not '-1'"),
        ({"eventsPerSecond": "fast"}, "option eventsPerSecond must be a number, not 'fast'"),
        ({"eventsPerSecond": "0"}, "rate must be from 0.001 to 1,000,000 events per second, not 0.0"),
        ({"startTime": "2026-01-01"}, "option startTime needs eventsPerSecond"),
        (RATE | {"startTime": "soon"}, "option startTime: "),
        (RATE | {"timeline": "x"}, "give option timeline or eventsPerSecond, not both"),
        (RATE | {"columns": "x"}, "no column 'x': there are Type,"),
        ({"timeline": "missing"}, "there is no timeline file at missing: check the path"),
        ({"model": "missing"}, "no model file at missing"),
    ],
)  # fmt: skip
def test_an_impossible_option_of_the_generator_is_refused(options: dict[str, str], sentence: str) -> None:
    """In one sentence, before anything is made."""
    with pytest.raises(LogistreamError) as caught:
        GeneratorOrigin.of(options).finished()
    assert sentence in str(caught.value)


def test_a_stream_needs_a_timeline() -> None:
    """Numbers alone do not say when an event happens."""
    with pytest.raises(RequestError, match="to stream, give option timeline or eventsPerSecond"):
        GeneratorOrigin.of({"stop": "5"}).begin()


def test_a_timeline_of_another_seed_or_model_is_refused(fresh: Model, timeline: Path, tmp_path: Path) -> None:
    """It would make events that no server of the stream sends."""
    with pytest.raises(RequestError, match="belongs to seed 7, and to no other: leave out option seed"):
        GeneratorOrigin.of({"timeline": str(timeline), "seed": "8"})
    other = fresh.save(tmp_path / "other.model")
    with pytest.raises(RequestError, match="belongs to another model, DataCo orders: give its file"):
        GeneratorOrigin.of({"timeline": str(timeline), "model": str(other)})


@pytest.fixture
def fresh() -> Model:
    """Return a model of a small table."""
    return ls.fit(ls.load_orders().head(200)[["Market", "Sales"]], name="small")


def test_a_model_that_was_replaced_is_noticed(fresh: Model, model: Model, tmp_path: Path) -> None:
    """A task does not make events of another model than that which the query began with."""
    path = fresh.save(tmp_path / "some.model")
    origin = GeneratorOrigin.of({"model": str(path), "stop": "10"})
    model.save(path)
    (span,) = origin.spans(*origin.finished(), 1)
    with pytest.raises(ModelError, match="is not the one that the query began with"):
        next(origin.read(span, patient=False))


def test_a_table_of_ones_own(fresh: Model, tmp_path: Path) -> None:
    """Has its own columns."""
    path = fresh.save(tmp_path / "some.model")
    origin = GeneratorOrigin.of(RATE | {"model": str(path)})
    assert origin.schema.names == ("Market", "Sales", "event_time", "event_number")
    assert rows(origin, 0, 10).num_rows == 10


@pytest.mark.parametrize("parts", [1, 3])
def test_events_of_a_server(past: ls.StreamServer, parts: int) -> None:
    """In whatever parts they are read."""
    read = rows(ServerOrigin.of({"url": past.url}), 100, 6000, parts)
    assert read["event_number"].to_pylist() == list(range(100, 6000))
    other = GeneratorOrigin.of({"stop": "6000", "columns": "Order City,event_number"})
    (span,) = other.spans(*other.finished(), 1)
    cities = pa.Table.from_batches(other.read(span, patient=False))["Order City"][100:]
    assert read["Order City"].to_pylist() == cities.to_pylist()


def test_a_part_of_a_server(past: ls.StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns, conditions and places are chosen as with `ls.events`, in several requests as in one."""
    options = {"url": past.url, "columns": "Market,event_number", "start": "50", "stop": "5000"}
    origin = ServerOrigin.of(options | {"where": '["Market:Europe", "Sales>=100"]'})
    offset, stop = origin.finished()
    assert (offset["next"], stop) == (50, 5000)
    monkeypatch.setattr(server_origin, "_PART", 999)
    read = rows(origin, 50, 5000).to_pandas()
    expected = ls.events(
        past, 50, 5000, columns=["Market"], where=["Market:Europe", "Sales>=100"], numbered=True
    )
    assert read["event_number"].tolist() == expected["event_number"].tolist()
    assert set(read["Market"]) == {"Europe"}


def test_where_a_query_begins(past: ls.StreamServer) -> None:
    """A batch with the earliest event, a stream with the next one, or either at `start`."""
    origin = ServerOrigin.of({"url": past.url})
    newest = past.state["next_event_number"]
    assert origin.begin()["next"] == origin.mark() == origin.newest(origin.begin()) == newest
    assert origin.finished() == ({"stream": past._stream.id, "first": 0, "next": 0}, newest)
    assert ServerOrigin.of({"url": past.url, "start": "earliest"}).begin()["next"] == 0
    assert 0 < ServerOrigin.of({"url": past.url, "start": "-10s"}).begin()["next"] <= newest


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "option url is needed"),
        ({"url": "http://"}, "cannot connect to 'http://'"),
        ({"URL": "{url}", "rows": "5"}, "no option 'rows': there are url, token, start,"),
        ({"url": "{url}", "columns": "x"}, "refuses: no column 'x': there are Type,"),
        ({"url": "{url}", "where": "[1]"}, "option where must be one string or a JSON array of strings"),
        ({"url": "{url}", "where": "Market:Mars"}, "'Market' is never 'Mars'"),
        ({"url": "{url}", "start": "9", "stop": "5"}, "start must not be after stop: 9 is after 5"),
        ({"url": "{url}", "stop": "999999999"}, "event 999999999 has not happened yet"),
    ],
)
def test_an_impossible_option_of_a_server_is_refused(
    past: ls.StreamServer, options: dict[str, str], sentence: str
) -> None:
    """In one sentence, of ours or of the server, and without another try."""
    options = {name: value.replace("{url}", past.url) for name, value in options.items()}
    with pytest.raises(RequestError) as caught:
        ServerOrigin.of(options).finished()
    assert sentence in str(caught.value)


@pytest.mark.slow
def test_a_server_that_is_away(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream query sees no new events; what needs an answer gives up after a while, with the reason."""
    monkeypatch.setattr(server_origin, "_PATIENCE", 0.2)
    with ls.StreamServer(model, rate=100, port=0, history="1min") as server:
        origin = ServerOrigin.of({"url": server.url})
        offset = origin.begin()
    assert origin.newest(offset) is None
    span = Span(0, 10, {"stream": offset["stream"]})
    for work in (origin.mark, origin.finished, lambda: list(origin.read(span, patient=False))):
        with pytest.raises(StreamError, match=r"cannot be reached: nothing listens there \(for 0 s\)"):
            work()
    with pytest.raises(StreamError, match="nothing listens there"):
        ServerOrigin.of({"url": f"localhost:{free_port()}"})


def test_another_stream_is_refused(model: Model) -> None:
    """Also if it has not come as far as the one before, so that the answer is `not yet`."""
    with ls.StreamServer(model, rate=100, port=free_port(), history="1min") as server:
        origin = ServerOrigin.of({"url": server.url})
        offset = origin.begin()
        assert offset["next"] > 5000
        port = server.port
    with ls.StreamServer(model, rate=1, port=port):
        span = Span(5000, 5010, {"stream": offset["stream"]})
        works: list[Any] = [
            lambda: origin.newest(offset),
            lambda: origin.newest(offset, 5),
            lambda: list(origin.read(span, patient=True)),
            lambda: list(origin.read(Span(0, 1, span.known), patient=True)),
        ]
        for work in works:
            with pytest.raises(RequestError, match="serves another stream than before"):
                work()


def test_a_server_that_comes_back_is_read_on(model: Model, tmp_path: Path) -> None:
    """A task that has met a server that is away continues as soon as it is there again."""
    timeline = tmp_path / "orders.timeline"
    with ls.StreamServer(model, rate=100, port=free_port(), history="1min", timeline=timeline) as server:
        origin = ServerOrigin.of({"url": server.url})
        offset, port = origin.begin(), server.port
    events = origin.read(Span(0, 10, {"stream": offset["stream"]}), patient=True)
    again = ls.StreamServer(model, port=port, timeline=timeline)
    waits: list[float] = []

    def start(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            again.start()

    with pytest.MonkeyPatch.context() as patch, again:
        again.stop()
        patch.setattr("time.sleep", start)
        assert pa.Table.from_batches(events).num_rows == 10
        assert waits[0] < waits[2]


def test_options_ignore_case() -> None:
    """Spark hands them over as they were written."""
    given = Options({"NUMpartitions": "3", "where": "a"}, ("numPartitions", "where"))
    assert (given.whole("numPartitions", 1), given.strings("where")) == (3, ["a"])
    with pytest.raises(RequestError, match="option numPartitions must be a whole number of at least 4"):
        given.whole("numPartitions", 4)
