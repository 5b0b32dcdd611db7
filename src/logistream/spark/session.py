"""Spark on this machine: a session to try things in, its end, and the data sources for any session."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logistream.errors import MissingJavaError, MissingPackageError, StreamError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["local_session", "register", "stop"]


_JAVA = 17  # the oldest version that Spark 4 runs on
_INSTALL = (
    f"install one (Debian and Ubuntu: apt install openjdk-{_JAVA}-jre-headless; macOS: brew install "
    f"openjdk@{_JAVA}; conda: conda install openjdk={_JAVA}), and set JAVA_HOME if java is not on the PATH"
)
_SETTINGS = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.executorEnv.PYTHONWARNINGS": "ignore::FutureWarning",  # a line for each task, see `_start`
}


def register(spark: SparkSession) -> None:
    """Add the data sources `logistream` and `logistream-generator` to a session.

    `logistream` reads a server, each event exactly once; `logistream-generator` makes events on the
    executors, without a server. Both can be read as a batch and as a stream. Their options are described by
    `help(logistream.spark.sources.ServerSource)` and `GeneratorSource`.

    Parameters
    ----------
    spark : SparkSession
        A session of Spark 4.2 or later. This package must be installed on every machine of its cluster.

    Raises
    ------
    MissingPackageError
        If pyspark is not installed.

    Examples
    --------
    >>> register(spark)  # doctest: +SKIP
    >>> events = spark.readStream.format("logistream").option("url", server.url).load()  # doctest: +SKIP
    """
    _require_pyspark()
    from logistream.spark.sources import GeneratorSource, ServerSource

    for source in (ServerSource, GeneratorSource):
        spark.dataSource.register(source)


def local_session(
    cores: int | None = None, *, memory: str = "1g", settings: dict[str, str] | None = None
) -> SparkSession:
    """Start Spark in this process and on this machine only, with both data sources registered.

    Its log goes to a file, whose path is the setting `spark.logistream.log`. If a session is active, that one
    is returned.

    Parameters
    ----------
    cores : int, optional
        Tasks at a time; by default as many as the machine has cores.
    memory : str
        Of the JVM, as Spark writes it.
    settings : dict of str to str, optional
        Further settings of Spark.

    Raises
    ------
    MissingPackageError
        If pyspark is not installed.
    MissingJavaError
        If there is no Java 17 or later.
    StreamError
        If Spark does not start, because of a setting for example.
    """
    _require_pyspark()
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    if session is None:
        _require_java()
        session = _start(cores or os.cpu_count() or 1, memory, settings or {})
    register(session)
    return session


def stop(spark: SparkSession) -> None:
    """End a session, its queries, and the JVM, which `spark.stop()` leaves running."""
    from pyspark import SparkContext

    for query in spark.streams.active:
        query.stop()
    gateway = SparkContext._gateway  # noqa: SLF001 - there is no public way to end the JVM
    spark.stop()
    if gateway is not None:
        _end_jvm(gateway)


def _end_jvm(gateway: Any) -> None:  # noqa: ANN401 - pyspark has no types for it
    """End the JVM behind a gateway, so that another session can start."""
    from pyspark import SparkContext

    gateway.shutdown()
    process = gateway.proc
    if process is not None:  # else the JVM was there before Python
        process.stdin.close()  # at the end of its input the JVM ends
        process.wait()
    SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001


def _start(cores: int, memory: str, settings: dict[str, str]) -> SparkSession:
    """Start the JVM with its output in a file, and a session in it."""
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    # Spark 4.3 works with pandas 3 as far as it is used here, and says at every turn that it may not.
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    descriptor, log = tempfile.mkstemp(prefix="logistream-spark-", suffix=".log")
    wanted = {
        **_SETTINGS,
        "spark.master": f"local[{cores}]",
        "spark.app.name": "logistream",
        "spark.driver.memory": memory,
        "spark.sql.shuffle.partitions": str(cores),
        "spark.logistream.log": log,
        **settings,
    }
    conf = SparkConf(loadDefaults=False).setAll(list(wanted.items()))
    before = os.environ.get("PYSPARK_PYTHON")
    os.environ["PYSPARK_PYTHON"] = before or sys.executable  # Spark would take any python3 on the PATH
    gateway = None
    try:
        with os.fdopen(descriptor, "wb") as output:
            gateway = launch_gateway(conf, {"stdout": output, "stderr": output})
        return SparkSession(SparkContext(gateway=gateway, conf=conf))
    except (PySparkRuntimeError, Py4JError) as error:
        if gateway is not None:
            _end_jvm(gateway)  # the next attempt needs one with its own settings
        raise StreamError(f"Spark did not start: {log} holds its messages") from error
    finally:
        if before is None:
            del os.environ["PYSPARK_PYTHON"]


def _require_pyspark() -> None:
    if importlib.util.find_spec("pyspark") is None:
        raise MissingPackageError("Spark", "pyspark", "spark")


def _require_java() -> None:
    """Raise `MissingJavaError` unless the Java that Spark will take is new enough."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else "java"
    if shutil.which(program) is None:
        place = f"JAVA_HOME is {home}, which has no bin/java" if home else "there is no java on the PATH"
        raise MissingJavaError(f"Spark needs Java {_JAVA} or later, and {place}: {_INSTALL}")
    answer = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    found = re.search(r'version "(?:1\.)?(\d+)', answer)
    if found is None or int(found[1]) < _JAVA:
        version = f"is version {found[1]}" if found else "does not give its version"
        raise MissingJavaError(f"Spark needs Java {_JAVA} or later, and {program} {version}: {_INSTALL}")
