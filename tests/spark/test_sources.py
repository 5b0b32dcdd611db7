"""The data sources in Spark, batch and stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

import logistream as ls
from helpers.processes import ServerProcess
from helpers.waiting import until
from logistream.schema import EVENT_NUMBER, Schema
from logistream.stream.encoding import Encoder
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry
from logistream.times import parse_instant, wall_clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

    from logistream.model.model import Model

pytest.importorskip("pyspark", reason="Spark needs pyspark: pip install 'logistream[spark]'")
from pyspark.errors import PySparkException, StreamingQueryException
from pyspark.sql.functions import spark_partition_id
from pyspark.sql.streaming.datasource import ReadAllAvailable

from logistream.spark.sources import ServerSource, StreamReader

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 300.0  # seconds for a query on a busy machine
RATE = {"eventsPerSecond": "1000", "startTime": "2026-01-01"}


@pytest.fixture(scope="module")
def past() -> Iterator[ls.StreamServer]:
    """Give a paused stream with a minute of history, 500 events a second."""
    with ls.StreamServer(rate=500, port=0, history="1min") as running:
        running.paused = True
        yield running


def numbered(batch: pa.RecordBatch, first: int = 0) -> pa.Table:
    """Return events with their numbers."""
    numbers = pa.array(range(first, first + batch.num_rows), pa.int64())
    return pa.Table.from_batches([batch.append_column(EVENT_NUMBER.arrow_field, numbers)])


def lines(events: DataFrame | pa.Table, schema: Schema) -> list[bytes]:
    """Return events as the server would send them, in the order of their numbers."""
    table = events if isinstance(events, pa.Table) else events.toArrow()
    batches = table.sort_by("event_number").combine_chunks().to_batches()
    return [line for batch in batches for line in Encoder(schema).encode(batch)]


def run(query: Any) -> None:
    """Wait for the end of a query that ends by itself; raise what ended it."""
    assert query.awaitTermination(PATIENCE)


def written(stream: DataFrame, folder: Path, *, ends: bool) -> Any:
    """Start a query that writes each micro-batch to a folder, over what is there; return it.

    Parameters
    ----------
    ends : bool
        Whether it ends with what is available now.
    """

    def write(batch: DataFrame, number: int) -> None:
        batch.write.mode("overwrite").parquet(f"{folder}/out/batch={number}")

    writer = stream.writeStream.foreachBatch(write).option("checkpointLocation", f"{folder}/checkpoint")
    return (writer.trigger(availableNow=True) if ends else writer).start()


def wait_for(query: Any, folder: Path, batches: int = 1) -> None:
    """Wait until so many micro-batches are committed; raise what has ended the query before."""

    def committed() -> bool:
        return len(list((folder / "checkpoint" / "commits").glob("[0-9]*"))) >= batches

    until(lambda: committed() or not query.isActive, within=PATIENCE)
    if not query.isActive:
        run(query)


@pytest.mark.parametrize("parts", [1, 3])
def test_generated_batch_is_what_the_model_makes(spark: SparkSession, model: Model, parts: int) -> None:
    """Byte for byte the events of `Model.events`, whatever the partitioning."""
    schema = Schema((*model.schema, EVENT_NUMBER))
    options = {"start": 1000, "stop": 20_000, "seed": 4, "columns": ",".join(schema.names)}
    made = spark.read.format("logistream-generator").options(**options, numPartitions=parts).load()
    numbers = made.select("event_number", spark_partition_id().alias("part")).toArrow()
    assert len(set(numbers["part"].to_pylist())) == parts
    assert lines(made, schema) == lines(numbered(model.events(1000, 20_000, seed=4), 1000), schema)


def test_generated_stream_is_that_of_a_server(spark: SparkSession, model: Model, tmp_path: Path) -> None:
    """Also if it is stopped, and continued with micro-batches of another size: byte for byte."""
    timeline, schema = tmp_path / "orders.timeline", Schema((*model.event_schema, EVENT_NUMBER))
    with ls.StreamServer(rate=500, seed=5, port=0, history="1min", timeline=timeline) as server:
        server.rate = 1000
        server.paused = True
        until(lambda: server.state["paused"])
        stop = server._stream.timeline.last.first
        expected = numbered(server._stream.batch(0, stop))
    for limit, parts in ((9000, 1), (7000, 3)):
        options = {"timeline": str(timeline), "maxEventsPerBatch": limit, "numPartitions": parts}
        events = spark.readStream.format("logistream-generator").options(**options).load()
        query = written(events, tmp_path, ends=parts == 3)
        if parts == 1:
            wait_for(query, tmp_path)
            query.stop()
        else:
            run(query)
    assert lines(spark.read.parquet(f"{tmp_path}/out").drop("batch"), schema) == lines(expected, schema)


def test_a_repeated_micro_batch_has_the_same_bytes(spark: SparkSession, tmp_path: Path) -> None:
    """The times too, though the stream began when the query did."""
    versions: list[pa.Table] = []
    for parts in (1, 2):
        options = {"eventsPerSecond": 100_000, "maxEventsPerBatch": 9000, "numPartitions": parts}
        events = spark.readStream.format("logistream-generator").options(**options).load()
        query = written(events, tmp_path, ends=False)
        wait_for(query, tmp_path)
        query.stop()
        versions.append(spark.read.parquet(f"{tmp_path}/out/batch=0").toArrow().sort_by("event_number"))
        for file in (tmp_path / "checkpoint" / "commits").iterdir():
            file.unlink()  # as if Spark had been killed before it noted the first micro-batch
        for file in (tmp_path / "checkpoint" / "offsets").iterdir():
            if file.name.strip(".").removesuffix(".crc") != "0":
                file.unlink()
    assert versions[0].num_rows > 0
    assert versions[0].equals(versions[1])


def test_a_rate_gives_the_stream_of_a_server_with_that_start(spark: SparkSession, model: Model) -> None:
    """Event times included."""
    made = spark.read.format("logistream-generator").options(**RATE, stop=5000).load()
    stream = Stream(
        model, Timeline([first_entry(wall_clock(), rate=1000, start=parse_instant("2026-01-01"))])
    )
    schema = Schema((*model.event_schema, EVENT_NUMBER))
    assert lines(made, schema) == lines(numbered(stream.batch(0, 5000)), schema)


def test_a_batch_of_a_server(spark: SparkSession, past: ls.StreamServer, model: Model) -> None:
    """All that has happened, with Spark's types; `where` and `columns` choose."""
    events = spark.read.format("logistream").options(url=past.url, numPartitions=3).load()
    assert [field.dataType.simpleString() for field in events.schema][-2:] == ["timestamp", "bigint"]
    assert not any(field.nullable for field in events.schema)
    schema = Schema((*model.event_schema, EVENT_NUMBER))
    newest = past.state["next_event_number"]
    assert lines(events, schema) == lines(numbered(past._stream.batch(0, newest)), schema)
    some = spark.read.format("logistream").options(
        url=past.url, columns="Market", where='["Market:Europe"]', stop=9000
    )
    assert {row["Market"] for row in some.load().distinct().collect()} == {"Europe"}
    assert spark.read.format("logistream").options(url=past.url, start=5, stop=5).load().count() == 0


def test_available_now_reads_all_in_limited_micro_batches(
    spark: SparkSession, past: ls.StreamServer, tmp_path: Path
) -> None:
    """It ends with the newest event, however many micro-batches that takes, and continues later."""
    options = {"url": past.url, "start": "earliest", "columns": "event_number"}
    events = spark.readStream.format("logistream").options(**options, maxEventsPerBatch=8000).load()
    query = written(events, tmp_path, ends=True)
    run(query)
    batches = [progress for progress in query.recentProgress if progress["numInputRows"]]
    newest = past.state["next_event_number"]
    assert [batch["numInputRows"] for batch in batches] == [8000, 8000, 8000, newest - 24_000]
    numbers = spark.read.parquet(f"{tmp_path}/out").toArrow()["event_number"].to_pylist()
    assert sorted(numbers) == list(range(newest))
    again = written(events, tmp_path, ends=True)
    run(again)
    assert not any(progress["numInputRows"] for progress in again.recentProgress)


def test_a_stream_query_outlives_its_server(spark: SparkSession, tmp_path: Path) -> None:
    """It waits for a server that is killed, and continues without a gap or a repeat."""
    timeline = str(tmp_path / "orders.timeline")
    with ServerProcess("--rate", "500", "--timeline", timeline) as server:
        options = {"url": server.url, "start": "earliest", "columns": "event_number"}
        query = written(spark.readStream.format("logistream").options(**options).load(), tmp_path, ends=False)
        wait_for(query, tmp_path, 2)
        server.kill()
        reached = len(list((tmp_path / "checkpoint" / "commits").glob("[0-9]*")))
        server.start()
        wait_for(query, tmp_path, reached + 3)  # one may have been read before
        query.stop()
    numbers = sorted(spark.read.parquet(f"{tmp_path}/out").toArrow()["event_number"].to_pylist())
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 500


def test_what_is_wrong_is_said_where_the_query_is_made(spark: SparkSession, past: ls.StreamServer) -> None:
    """A misspelt option, a refusal of the server, or a schema of one's own."""
    reader = spark.read.format("logistream").options(url=past.url)
    with pytest.raises(PySparkException, match="no option 'colums': there are url, token, start"):
        spark.read.format("logistream").options(url=past.url, colums="Market").load()
    with pytest.raises(PySparkException, match=r"refuses: no column 'x': there are Type,"):
        spark.read.format("logistream").options(url=past.url, columns="x").load()
    with pytest.raises(PySparkException, match=r"the columns are Type, .*: leave out schema\(\)"):
        reader.schema("Market string").load().count()
    with pytest.raises(PySparkException, match="to stream, give option timeline or eventsPerSecond"):
        run(spark.readStream.format("logistream-generator").load().writeStream.format("noop").start())


def test_another_stream_ends_the_query(spark: SparkSession, tmp_path: Path) -> None:
    """Its numbers are other events, so nothing of it is taken for what was missed."""
    with ServerProcess("--rate", "500") as server:
        options = {"url": server.url, "start": "earliest", "columns": "event_number"}
        events = spark.readStream.format("logistream").options(**options).load()
        query = written(events, tmp_path, ends=False)
        wait_for(query, tmp_path)
        server.kill()
        server.start()
        with pytest.raises(StreamingQueryException, match="serves another stream than before"):
            run(query)


def test_a_first_micro_batch_that_is_repeated_begins_where_it_began(model: Model) -> None:
    """Though the newest event, with which the query began, is another one by then."""
    with ls.StreamServer(model, rate=1000, port=0) as server:

        def reader() -> StreamReader:
            source = ServerSource({"url": server.url})
            return source.streamReader(source.schema())

        before = reader()
        start = before.initialOffset()
        until(lambda: before.latestOffset(start, ReadAllAvailable()) != start)
        end = before.latestOffset(start, ReadAllAvailable())
        after = reader()
        until(lambda: after.initialOffset()["next"] > end["next"])
        (first,), (again,) = before.partitions(start, end), after.partitions(after.initialOffset(), end)
    assert first.value == again.value
    assert (first.value.first, first.value.stop) == (start["next"], end["next"])
