"""One Spark session for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers.spark import QUICK
from logistream.spark import local_session, stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """Give a session with two tasks at a time, which reads no setting of the machine."""
    session = local_session(2, settings=QUICK)
    yield session
    stop(session)
