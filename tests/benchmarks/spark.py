"""How fast Spark makes and reads events, beside other ways.

    python tests/benchmarks/spark.py [make] [read] [--events N] [--rounds N] [--cores N]

Needs the extra `spark` and Java 17. All rows of a section take turns. It prints the median of the rounds, and
its ratio to the first row, and the processor time of an event in microseconds, which says most on a busy
machine: it does not depend on what else runs. Every query is written to Spark's `noop` sink, which takes all
columns of all rows and keeps none.

`make`: 24 columns. The plain sampler is one thread without Spark. Tuples are what most Python data sources
yield: the same events as Python objects. `rate-micro-batch` is Spark's own source, with columns of SQL
expressions that do not depend on each other, and no Python. dbldatagen makes such columns too, if installed.

`read`: a server in a process of its own, over HTTP by number, and through `logistream bridge` with Spark's
`socket` source, which reads on the driver and leaves each event a string of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from subprocesses import ours, serving

import logistream as ls
from logistream.model.sampling import BLOCK, Sampler
from logistream.spark.generator_origin import GeneratorOrigin
from logistream.spark.sources import spark_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyspark.sql import DataFrame, SparkSession

RATE = {"eventsPerSecond": "1000", "startTime": "2026-01-01"}
STRINGS = 12  # columns of strings in an event
FLOATS = 6
WHOLES = 6


class Tuples(DataSource):
    """The same events, yielded as tuples."""

    @classmethod
    def name(cls) -> str:
        return "tuples"

    def schema(self) -> Any:
        return spark_schema(GeneratorOrigin.of(self.options).schema)

    def reader(self, schema: Any) -> DataSourceReader:  # noqa: ARG002
        return TupleReader(GeneratorOrigin.of(self.options))


class TupleReader(DataSourceReader):
    """Reads in two partitions."""

    def __init__(self, origin: GeneratorOrigin) -> None:
        self.origin = origin

    def partitions(self) -> list[InputPartition]:
        return [InputPartition(span) for span in self.origin.spans(*self.origin.finished(), 2)]

    def read(self, partition: InputPartition) -> Iterator[tuple[Any, ...]]:
        for batch in self.origin.read(partition.value, patient=False):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def processor_seconds() -> float:
    """Return the processor time of this process, the JVM and its Python workers so far; not of a server."""
    total = time.process_time()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "serve" not in process.cmdline():
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


def plain(events: int) -> float:
    """Return the seconds that the sampler takes on one thread."""
    sampler, start = Sampler(ls.load_model()), time.perf_counter()
    for block in range(events // BLOCK):
        sampler.make(block)
    return time.perf_counter() - start


def batch(frame: DataFrame) -> float:
    """Return the seconds that all rows of a batch query take."""
    start = time.perf_counter()
    frame.write.format("noop").mode("overwrite").save()
    return time.perf_counter() - start


def stream(frame: DataFrame, events: int) -> float:
    """Return the seconds that a stream query takes for at least so many rows, in proportion to these."""
    query = frame.writeStream.format("noop").start()
    rows, millis = 0, 0
    while rows < events:
        time.sleep(0.05)
        done = [progress for progress in query.recentProgress if progress["numInputRows"]]
        rows = sum(progress["numInputRows"] for progress in done)
        millis = sum(progress["durationMs"]["triggerExecution"] for progress in done)
        if not query.isActive:
            raise SystemExit(str(query.exception()))
    query.stop()
    return millis / 1000 * events / rows


def expressions() -> list[str]:
    """Return SQL expressions for as many columns, of the same types, as an event has."""
    words = ", ".join(f"'some word {number}'" for number in range(20))
    strings = [f"element_at(array({words}), 1 + cast(20 * rand({n}) AS int)) AS s{n}" for n in range(STRINGS)]
    floats = [f"round(500 * rand({n}), 2) AS f{n}" for n in range(20, 20 + FLOATS)]
    return strings + floats + [f"cast(100 * rand({n}) AS bigint) AS w{n}" for n in range(40, 40 + WHOLES)]


def dbldatagen(spark: SparkSession, events: int) -> DataFrame:
    """Return as many columns as dbldatagen makes them."""
    module = importlib.import_module("dbldatagen")
    spec = module.DataGenerator(spark, rows=events, partitions=2, randomSeedMethod="hash_fieldname")
    words = [f"some word {number}" for number in range(20)]
    for number in range(STRINGS):
        spec = spec.withColumn(f"s{number}", "string", values=words, random=True)
    for number in range(FLOATS):
        spec = spec.withColumn(f"f{number}", "double", minValue=0, maxValue=500, step=0.01, random=True)
    for number in range(WHOLES):
        spec = spec.withColumn(f"w{number}", "bigint", minValue=0, maxValue=100, random=True)
    built: DataFrame = spec.build()
    return built


def making(spark: SparkSession, events: int) -> dict[str, tuple[Callable[[], float], int]]:
    """Return what makes events, each with how many it makes."""
    spark.dataSource.register(Tuples)

    def generated(parts: int) -> DataFrame:
        options = {**RATE, "stop": events, "numPartitions": parts}
        return spark.read.format("logistream-generator").options(**options).load()

    few = events // 10
    rate = spark.readStream.format("rate-micro-batch").options(rowsPerBatch=events, numPartitions=2)
    ways: dict[str, tuple[Callable[[], float], int]] = {
        "plain sampler, one thread, no Spark": (lambda: plain(events), events),
        **{
            f"logistream-generator, {parts} partitions": (lambda parts=parts: batch(generated(parts)), events)  # type: ignore[misc]
            for parts in (1, 2, 4)
        },
        "the same as tuples, 2 partitions": (
            lambda: batch(spark.read.format("tuples").options(**RATE, stop=few).load()),
            few,
        ),
        "Spark's rate-micro-batch and SQL, 2 partitions": (
            lambda: stream(rate.load().selectExpr(*expressions()), events),
            events,
        ),
    }
    if importlib.util.find_spec("dbldatagen"):
        ways["dbldatagen, 2 partitions"] = (lambda: batch(dbldatagen(spark, events)), events)
    return ways


def reading(spark: SparkSession, events: int, url: str) -> dict[str, tuple[Callable[[], float], int]]:
    """Return what reads events of a server, each with how many it reads."""
    few = events // 5

    def through_a_bridge() -> float:
        command = [sys.executable, "-m", "logistream", "bridge", url, "--port", "0", "--start", "earliest"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            port = process.stdout.readline().split(",")[0].rpartition(":")[2]
            start = time.perf_counter()
            query = (
                spark.readStream.format("socket")
                .options(host="127.0.0.1", port=port)
                .load()
                .writeStream.format("noop")
                .start()
            )
            while sum(progress["numInputRows"] for progress in query.recentProgress) < few:
                time.sleep(0.05)
            seconds = time.perf_counter() - start
            rows = sum(progress["numInputRows"] for progress in query.recentProgress)
            query.stop()
            process.kill()
        return seconds * few / float(rows)

    def numbered(parts: int) -> float:
        options = {"url": url, "stop": events, "numPartitions": parts}
        return batch(spark.read.format("logistream").options(**options).load())

    return {
        "logistream, 1 partition": (lambda: numbered(1), events),
        "logistream, 2 partitions": (lambda: numbered(2), events),
        "socket through logistream bridge": (through_a_bridge, few),
    }


def show(title: str, ways: dict[str, tuple[Callable[[], float], int]], rounds: int) -> None:
    """Measure the ways in turn and print their medians."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, (work, events) in ways.items():
            before = processor_seconds()
            seconds = work()
            if number:  # the first round warms Spark up
                rates[name].append(events / seconds)
                costs[name].append((processor_seconds() - before) * 1e6 / events)
    print(f"\n{title:<58}{'events/s':>14}{'ratio':>8}{'us of CPU':>11}", flush=True)
    first = statistics.median(next(iter(rates.values())))
    for name, measured in rates.items():
        median, cost = statistics.median(measured), statistics.median(costs[name])
        print(f"{name:<58}{median:>14,.0f}{median / first:>8.2f}{cost:>11.2f}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=("make", "read", []), help="all by default")
    parser.add_argument("--events", type=int, default=1_000_000, help="of a measurement (default: 1,000,000)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="that count, after one that warms up (default: 3)"
    )
    parser.add_argument("--cores", type=int, default=2, help="tasks at a time (default: 2)")
    options = parser.parse_args()
    sections = options.sections or ["make", "read"]
    spark = ls.spark.local_session(options.cores, memory="2g")
    try:
        if "make" in sections:
            show(f"making events, local[{options.cores}]", making(spark, options.events), options.rounds)
        if "read" in sections:
            with serving(*ours("--rate", "1000000", "--history", "1h")) as server:
                ways = reading(spark, options.events, server.url)
                show(f"reading events of a server, local[{options.cores}]", ways, options.rounds)
    finally:
        ls.spark.stop(spark)


if __name__ == "__main__":
    main()
