"""A Spark driver of its own, to be killed: reads a server and writes each micro-batch to a folder.

    python tests/spark/driver.py URL FOLDER SETTINGS

Prints the process id of the JVM when the query has started.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from pyspark import SparkContext

from logistream.spark import local_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def main(url: str, folder: str, settings: str) -> None:
    """Read and write until killed."""
    spark = local_session(2, settings=json.loads(settings))
    options = {"url": url, "start": "earliest", "maxEventsPerBatch": "2000"}
    events = spark.readStream.format("logistream").options(**options).load()

    def write(batch: DataFrame, number: int) -> None:
        # A repeated micro-batch replaces what its first try has written.
        batch.write.mode("overwrite").parquet(f"{folder}/out/batch={number}")

    writer = events.writeStream.foreachBatch(write).option("checkpointLocation", f"{folder}/checkpoint")
    query = writer.start()
    print(SparkContext._gateway.proc.pid, flush=True)
    query.awaitTermination()


if __name__ == "__main__":
    main(*sys.argv[1:])
