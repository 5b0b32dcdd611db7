"""Spark: data sources that read a stream exactly once, or make its events on the executors.

`register(spark)` adds them to a session: `logistream` reads a server, `logistream-generator` needs none.
`local_session` starts Spark on this machine, `stop` ends it with its JVM.
"""

from __future__ import annotations

from logistream.spark.session import local_session, register, stop

__all__ = ["local_session", "register", "stop"]
