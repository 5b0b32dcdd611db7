"""The few things that many tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from logistream.dataco import read_orders
from logistream.fitting.fit import fit
from logistream.model.model import Model, load_model
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator


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
