"""One Spark session for all tests, and what Spark cannot bear on a busy machine."""

from __future__ import annotations

import inspect
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from helpers.spark import QUICK
from logistream.spark import local_session, stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession


TOO_BUSY = "Python worker failed to connect back"
"""Spark gives a Python process ten seconds to start, which no setting changes, and then ends the query."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test with Spark again if the machine was too busy for it, as whoever runs a query would."""
    if pyfuncitem.get_closest_marker("spark") is None:
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    for _ in range(4):
        try:
            pyfuncitem.obj(**arguments)
        except Exception as error:
            if TOO_BUSY not in str(error):
                raise
            for left in arguments["tmp_path"].iterdir() if "tmp_path" in arguments else ():
                shutil.rmtree(left) if left.is_dir() else left.unlink()  # or a query would be continued
        else:
            return True
    pyfuncitem.obj(**arguments)
    return True


@pytest.fixture(scope="module", autouse=True)
def quick_java() -> Iterator[None]:
    """Let every JVM start quickly, also those of notebooks and programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JDK_JAVA_OPTIONS", QUICK["spark.driver.extraJavaOptions"])
        yield


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """Give a session with two tasks at a time, which reads no setting of the machine."""
    session = local_session(2, settings=QUICK)
    yield session
    stop(session)
