"""Spark's own `socket` source reads the stream through `logistream bridge`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import logistream as ls
from helpers.bridge import bridge
from helpers.waiting import until

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_socket_source_reads_a_bridge(spark: SparkSession) -> None:
    """As lines of JSON, none of them missing; Spark keeps no order within a micro-batch."""
    numbers: list[int] = []

    def collect(batch: DataFrame, _: int) -> None:
        found = batch.selectExpr("get_json_object(value, '$.event_number') AS number").collect()
        numbers.extend(int(row["number"]) for row in found)

    with ls.StreamServer(rate=200, port=0) as server, bridge(server.url, "--numbered") as port:
        lines = spark.readStream.format("socket").options(host="127.0.0.1", port=port).load()
        query = lines.writeStream.foreachBatch(collect).start()
        until(lambda: len(numbers) > 200 or not query.isActive, within=300)
        query.stop()
        assert query.exception() is None
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))
