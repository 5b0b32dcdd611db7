"""What many tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pandas as pd
import pytest

from helpers.spark import why_no_spark
from logistream.dataco import read_orders
from logistream.fitting.fit import fit
from logistream.model.model import Model, load_model
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts the background jobs of a script with SIGINT ignored, and every process that a test starts
    # would inherit that: none of them could be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)


hypothesis.settings.register_profile("suite", deadline=None)  # a busy machine is not a failure
hypothesis.settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)  # before -m chooses, and before xdist looks at groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need the real sample; run those in a browser, and with Spark, one after another."""
    for item in items:
        if "sample_path" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.sample)
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.xdist_group("browser"))
        if item.get_closest_marker("spark"):  # one session for all of them
            item.add_marker(pytest.mark.xdist_group("spark"))
            if missing := why_no_spark():
                item.add_marker(pytest.mark.skip(missing))


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
