"""What many tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pandas as pd
import pytest

from helpers.scheduling import GroupScheduling, group_of
from helpers.spark import why_no_spark
from logistream.dataco import read_orders
from logistream.fitting.fit import fit
from logistream.model.model import Model, load_model
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.remote import Producer

# A shell starts the background jobs of a script with SIGINT ignored, and nohup a program with SIGHUP. Every
# process that a test starts would inherit that, and could not be ended by these signals.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# A busy machine is not a failure, and the same examples in each run make a failure one that can be repeated.
hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Run the tests in a browser, and those with Spark, one after another."""
    return GroupScheduling(config, log)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need the real sample; put the slow ones first, so that all workers end together."""
    for item in items:
        if "sample_path" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.sample)
        if any(item.get_closest_marker(name) for name in ("browser", "spark")):
            assert group_of(item.nodeid), f"helpers/scheduling.py has no group for {item.nodeid}"
        if item.get_closest_marker("spark") and (missing := why_no_spark()):
            item.add_marker(pytest.mark.skip(missing))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def model() -> Model:
    """Return the shipped model."""
    return load_model()


@pytest.fixture(scope="session")
def sample_path() -> Path:
    """Return the raw DataCo sample: named by LOGISTREAM_SAMPLE, or beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "DataCoSupplyChainDataset_sample.csv"
    path = Path(os.environ.get("LOGISTREAM_SAMPLE", beside))
    if not path.exists():
        pytest.skip("the real DataCo sample is not here: set LOGISTREAM_SAMPLE to a raw DataCo CSV")
    return path


@pytest.fixture(scope="session")
def orders(sample_path: Path) -> pd.DataFrame:
    """`df_cleaned` of the real sample."""
    return read_orders(sample_path)


@pytest.fixture(scope="session")
def fitted(orders: pd.DataFrame) -> Model:
    """Return a model fitted on the real sample."""
    return fit(orders)


@pytest.fixture
def server(model: Model) -> Iterator[StreamServer]:
    """Give a running server on a free port, fast enough that no test waits for an event."""
    with StreamServer(model, rate=200, port=0) as running:
        yield running
