"""Events by number: the stream is a function."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logistream.errors import RequestError
from logistream.model.model import Model, load_model
from logistream.model.network import Emission, Factor, Formula
from logistream.model.sampling import BLOCK, SEGMENT, Sampler, compute
from logistream.schema import Column, Schema


@pytest.mark.slow
@given(
    cuts=st.lists(st.integers(0, 3 * BLOCK), min_size=2, max_size=6).map(sorted),
    seed=st.integers(0, 2**64 - 1),
)
@settings(deadline=None, max_examples=25)
def test_any_split_gives_the_same_events(cuts: list[int], seed: int) -> None:
    """Events a to c are those from a to b and then those from b to c."""
    sampler = Sampler(load_model(), seed)
    whole = sampler.batch(cuts[0], cuts[-1]).to_pylist()
    parts = [row for a, b in itertools.pairwise(cuts) for row in sampler.batch(a, b).to_pylist()]
    assert parts == whole


def digest(model: Model) -> str:
    """Fingerprint of some events near and far."""
    rows = [model.events(start, start + 40, seed=7).to_pylist() for start in (0, BLOCK - 20, 10**12)]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


@pytest.mark.slow
def test_other_process_gives_the_same_events(model: Model) -> None:
    """Nothing depends on hash seeds, caches or what ran before."""
    code = "import logistream, test_sampling as t; print(t.digest(logistream.load_model()))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == digest(model)


def small_model() -> Model:
    """Return a model made by hand: two strings, a number in cents within a range, and a sum."""
    letter = Factor(
        name="letter",
        size=2,
        parents=(),
        groups=(),
        distribution_of=np.array([0]),
        offsets=np.array([0, 2]),
        codes=np.array([0, 1]),
        counts=np.array([3, 1]),
        emissions=(Emission("letter", np.array([0, 1])),),
    )
    price = Factor(
        name="price",
        size=2,
        parents=("letter",),
        groups=(np.array([0, 1]),),
        distribution_of=np.array([0, 1]),
        offsets=np.array([0, 1, 3]),
        codes=np.array([0, 0, 1]),
        counts=np.array([1, 1, 4]),
        emissions=(Emission("price", np.array([100, 900]), np.array([199, 999]), (1, 100)),),
    )
    schema = Schema(
        (Column("letter", "category"), Column("price", "number", decimals=2), Column("twice", "number"))
    )
    return Model(
        name="small",
        schema=schema,
        categories={"letter": ("a", "b")},
        dtypes={"letter": "str", "price": "float64", "twice": "float64"},
        factors=(letter, price),
        formulas=(Formula("twice", "sum", "price", "price", 2),),
    )


def test_golden_events() -> None:
    """The meaning of a seed never changes: these are the events of a model made by hand."""
    model = small_model()
    got = [tuple(row.values()) for row in model.events(BLOCK - 2, BLOCK + 2, seed=7).to_pylist()]
    assert got == GOLDEN


@pytest.mark.parametrize("n", [-1, 2.5, True, "10", None, float("nan")])
def test_a_number_of_rows_is_a_whole_number(model: Model, n: Any) -> None:
    """Anything else is refused with what is expected."""
    with pytest.raises(RequestError) as caught:
        model.sample(n)
    assert str(caught.value) == f"the number of rows must be a whole number of at least 0, not {n!r}"


@pytest.mark.parametrize(
    ("formula", "wanted"),
    [
        (Formula("z", "linear", "a", "b", 1, others=("c",), factors=(1, -1, 2.5, 10)), [16.5, 10.0]),
        (Formula("z", "linear", "a", factors=(1000, 7)), [3007, -1993]),
        (Formula("z", "ratio", "a", "b", 2, factors=(100,)), [75.0, -66.67]),
        (Formula("z", "ratio", "a", "b", 0, factors=(100,), floor=True), [75.0, -67.0]),
        (Formula("z", "ratio", "a", "zero", 2, factors=(1,)), [3.0, -2.0]),
        (Formula("z", "elapsed", "a", "b", 3, factors=(2,)), [-0.5, -2.5]),
        (Formula("z", "product and sum", "a", "b", 0, others=("c",), factors=(-1,)), [9, -8]),
        (Formula("z", "square", "a"), [9, 4]),
        (Formula("z", "log", "b", decimals=3, factors=(1 / np.log(2), 0.0)), [2.0, 1.585]),
        (Formula("z", "yyyymmdd", "day"), [19700101, 19700102]),
    ],
    ids=lambda value: value.operation if isinstance(value, Formula) else "",
)
def test_every_operation_computes_what_it_says(formula: Formula, wanted: list[float]) -> None:
    """By hand, with the rounding of the column; a division by zero is none."""
    numbers = {
        "a": np.array([3, -2]),
        "b": np.array([4, 3]),
        "c": np.array([3, 2]),
        "zero": np.zeros(2),
        "day": np.array([0, 86_400_000_000]),
    }
    assert compute(formula, numbers).tolist() == pytest.approx(wanted)


GOLDEN = [("b", 9.41, 18.82), ("b", 1.06, 2.12), ("a", 1.0, 2.0), ("a", 1.09, 2.18)]


def test_seeds_differ_and_are_checked(model: Model) -> None:
    """Another seed is another stream; a wrong one gets a sentence."""
    assert model.events(0, 5, seed=1).to_pylist() != model.events(0, 5, seed=2).to_pylist()
    for wrong in (-1, 2**64, 1.5, "1", True):
        with pytest.raises(RequestError, match="seed must be a whole number"):
            model.events(0, 5, seed=wrong)  # type: ignore[arg-type]
    for start, stop in ((5, 4), (-1, 3), (0, 2**53 + 1), (0, 1.5), ("0", 3)):
        with pytest.raises(RequestError, match="event number"):
            model.events(start, stop)  # type: ignore[arg-type]


def test_live_dates_follow_the_clock(model: Model) -> None:
    """Delivery is event time plus whole days, more than scheduled exactly when late."""
    start = pd.Timestamp("2026-11-24T06:00:00.000001Z").value // 1000
    times = start + np.arange(5000) * 500_000
    frame = Sampler(model).batch(0, 5000, times).to_pandas()
    assert tuple(frame.columns) == model.full_schema.names
    days = frame["shipping date (DateOrders)"] - frame["event_time"]
    assert (days % pd.Timedelta(days=1) == pd.Timedelta(0)).all()
    late = days.dt.days > frame["Days for shipment (scheduled)"]
    assert (late == (frame["Late_delivery_risk"] == 1)).all()


def test_empty_range(model: Model) -> None:
    """No events are an empty batch with all columns."""
    assert model.events(7, 7).num_rows == 0
    assert model.sample(0).shape == (0, len(model.schema))


def test_rare_values_come_about_as_often_as_they_should(model: Model) -> None:
    """Within a segment, no code of a factor of many codes strays by two draws from its share."""
    sampler = Sampler(model, 5)
    of_date = next(s for s in sampler._samplers if s.factor.name.endswith(": date"))
    bits = np.random.Philox(5).random_raw(BLOCK) >> np.uint64(11)
    codes = of_date.draw(bits * 2.0**-53, {})
    share = of_date.factor.counts * SEGMENT / of_date.factor.counts.sum()
    for segment in codes.reshape(-1, SEGMENT):
        assert (abs(np.bincount(segment, minlength=of_date.factor.size) - share) <= 2).all()


def test_a_live_sampler_leaves_out_only_what_nobody_sees(model: Model) -> None:
    """With times, the same batches, though it does not draw what the clock overwrites."""
    times = np.arange(6000, dtype=np.int64) * 1000 + 10**15
    whole = Sampler(model, 3).batch(3000, 9000, times)
    live = Sampler(model, 3, live=True)
    assert live.batch(3000, 9000, times).equals(whole)
    assert len(live._needed.columns) < len(Sampler(model, 3)._needed.columns)
