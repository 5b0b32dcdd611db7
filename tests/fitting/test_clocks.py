"""Parts of a timestamp on the clock of the place: found from the columns alone, kept in synthetic rows."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logistream.fitting.clocks import read_clock
from logistream.fitting.fit import fit
from logistream.model.model import Model, load_model
from logistream.times import CALENDAR, DAY, HOUR, ahead_of_utc, from_local

if TYPE_CHECKING:
    from pathlib import Path

ZONES = ("America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Europe/Berlin", "Pacific/Apia", "UTC")
N = 1500
PARTS = ("year", "month", "day", "hour", "minute")


def instants_of(seed: int, days: int = 728, step: int = HOUR // 60) -> np.ndarray:
    """Return timestamps of the years 2022 and 2023 in no order, from the second of January on."""
    start = 1_641_081_600_000_000
    return start + np.random.default_rng(seed).integers(0, days * DAY // step, N) * step


def shown(instants: np.ndarray, zone: str) -> dict[str, np.ndarray]:
    """Return what a clock on the wall there showed, by the standard library's time zones."""
    local = pd.DatetimeIndex(instants.astype("datetime64[us]")).tz_localize("UTC").tz_convert(ZoneInfo(zone))
    return {part: getattr(local, part).to_numpy().astype(np.int64) for part in PARTS}


@pytest.mark.slow
@given(st.sampled_from(ZONES), st.sets(st.sampled_from(PARTS), min_size=1), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_every_part_is_right_on_the_clock_found(zone: str, parts: set[str], seed: int) -> None:
    """Whatever the zone and whichever parts: all are found, and no other column is."""
    instants = instants_of(seed)
    rng = np.random.default_rng(seed)
    columns = {part: values for part, values in shown(instants, zone).items() if part in parts}
    noise = {"any hour": rng.integers(0, 24, N), "late": columns[min(parts)] + (rng.random(N) < 0.01)}
    clock = read_clock(instants, columns | noise)
    assert set(clock.parts) == parts
    local = instants + ahead_of_utc(instants, clock.offsets)
    for column, part in clock.parts.items():
        assert np.array_equal(CALENDAR[part](local), columns[column])


def test_offset_and_change_are_found_from_the_hour() -> None:
    """With the hour in the table the offsets are those of the zone, changed within hours of when it was."""
    instants = instants_of(1)
    clock = read_clock(instants, shown(instants, "Europe/Berlin"))
    assert [offset // HOUR for _, offset in clock.offsets] == [1, 2, 1, 2, 1]
    assert not any(start % HOUR for start, _ in clock.offsets)  # no row's own timestamp would be round
    changes = ["2022-03-27 01:00", "2022-10-30 01:00", "2023-03-26 01:00", "2023-10-29 01:00"]
    gap = np.diff(np.sort(instants)).max()
    for (start, _), change in zip(clock.offsets[1:], changes, strict=True):
        assert abs(start - pd.Timestamp(change).value // 1000) <= gap


def test_few_rows_and_constant_columns_are_no_evidence() -> None:
    """Neither a year that is always the same nor some rows by chance are a part."""
    assert read_clock(instants_of(2, days=300), {"year": np.full(N, 2022)}).parts == {}
    few = instants_of(3)[:20]
    assert read_clock(few, {"hour": (few + 5 * HOUR) % DAY // HOUR}).parts == {}
    assert read_clock(np.empty(0, np.int64), {"hour": np.empty(0, np.int64)}).parts == {}


@given(st.integers(0, 2 * 10**15), st.lists(st.integers(-12, 14), min_size=1, max_size=6))
def test_local_time_leads_back(instant: int, hours: list[int]) -> None:
    """Except for the hours that a clock showed twice or left out, a timestamp follows from what it showed."""
    offsets = [(i * 40 * DAY, hour * HOUR) for i, hour in enumerate(hours)]
    micros = np.array([instant])
    assert ahead_of_utc(micros, []) == 0
    near = any(abs(instant - start) <= 27 * HOUR for start, _ in offsets[1:])
    back = from_local(micros + ahead_of_utc(micros, offsets), offsets)
    assert near or back == micros


@pytest.fixture(scope="module")
def trips() -> pd.DataFrame:
    """Return trips of taxis: hours, days and weekdays of New York beside a timestamp in UTC."""
    instants = instants_of(5)
    rng = np.random.default_rng(5)
    local = shown(instants, "America/New_York")
    when = pd.DatetimeIndex(instants.astype("datetime64[us]")).tz_localize("UTC")
    return pd.DataFrame(
        {
            "when": when,
            "hour": local["hour"],
            "day": local["day"],
            "month": local["month"],
            "weekday": when.tz_convert(ZoneInfo("America/New_York")).day_of_week,
            "shift": local["hour"] // 8,
            "fare": np.round(5 + local["hour"] + rng.exponential(3, N), 2),
        }
    )


@pytest.fixture(scope="module")
def model(trips: pd.DataFrame) -> Model:
    """Return a model of the trips."""
    return fit(trips)


def test_rows_keep_to_the_clock(model: Model) -> None:
    """Synthetic rows have the parts of their timestamp on that clock, and what depends on the hour."""
    made = model.sample(20_000)
    when = next(formula for formula in model.formulas if formula.column == "when")
    instants = made["when"].dt.tz_localize(None).astype("datetime64[us]").astype("int64").to_numpy()
    local = pd.DatetimeIndex((instants + ahead_of_utc(instants, when.offsets)).astype("datetime64[us]"))
    right = (local.hour == made["hour"]) & (local.day == made["day"]) & (local.day_of_week == made["weekday"])
    assert right.mean() > 0.999  # except for the hour that a clock leaves out once in a year
    assert (made["shift"] == made["hour"] // 8).all()
    assert str(made["when"].dtype) == "datetime64[us, UTC]"


def test_an_hour_can_be_asked_for(model: Model) -> None:
    """Of times and dates that are drawn from ranges, none of which spans two hours or two months."""
    made = model.sample(500, where={"hour": [7, 8], "month": 5})
    assert made["hour"].isin([7, 8]).all()
    assert (made["month"] == 5).all()
    assert made["day"].nunique() > 20
    assert (model.sample(50, where={"day": 1})["day"] == 1).all()


def test_the_clock_is_described_and_saved(model: Model, tmp_path: Path) -> None:
    """The description names its offsets; a file keeps them."""
    assert "hour = hour of when, on a clock at UTC-5 or UTC-4" in str(model.describe())
    model.save(tmp_path / "trips.model")
    again = load_model(tmp_path / "trips.model")
    assert again.formulas == model.formulas
    assert again.sample(50).equals(model.sample(50))


@pytest.mark.parametrize("grid", ["min", "h"])
def test_a_timestamp_on_a_grid_stays_on_it_beside_a_finer_one(grid: str) -> None:
    """What ends at full minutes or hours does so in synthetic rows, and not before it begins."""
    rng = np.random.default_rng(0)
    begun = pd.to_datetime(instants_of(0, step=1_000_000), unit="us")
    ended = (begun + pd.to_timedelta(rng.integers(3600, 3 * 86400, N), "s")).floor(grid)
    rows = fit(pd.DataFrame({"begun": begun, "ended": ended})).sample(3000)
    assert (rows["ended"] == rows["ended"].dt.floor(grid)).all()
    assert (rows["ended"] >= rows["begun"]).all()
    assert (rows["begun"] != rows["begun"].dt.floor("min")).mean() > 0.9
