"""Whether Spark can run here, and settings with which it starts quickly."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pkgutil import walk_packages

import logistream
from logistream.errors import MissingJavaError, MissingPackageError
from logistream.spark import session

__all__ = ["QUICK", "modules", "why_no_spark"]

QUICK = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData"}
"""A session that is used for a minute does not earn back what the JVM's better compiler costs."""


def modules() -> list[str]:
    """Return the modules of the package that can be imported: one needs pyspark, which may be missing."""
    names = [info.name for info in walk_packages(logistream.__path__, "logistream.")]
    return [name for name in names if find_spec("pyspark") or name != "logistream.spark.sources"]


@lru_cache(maxsize=1)
def why_no_spark() -> str:
    """Return what has to be installed before Spark runs here; nothing if it does."""
    try:
        session._require_pyspark()
        session._require_java()
    except (MissingPackageError, MissingJavaError) as missing:
        return str(missing)
    return ""
