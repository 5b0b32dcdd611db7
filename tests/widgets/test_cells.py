"""The counts are right for any stream, and the same however the events come in."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from logistream.widgets.cells import MISSING_LABEL, MOST_GROUPS, OTHERS, Cells
from logistream.widgets.choice import Amount, Columns

START = 1_700_000_000_000_000  # microseconds; any whole quarter second
COLUMNS = Columns(
    share="late",
    by="market",
    groupings=("market",),
    amounts=(Amount("sales", "Sales", "USD", total=True),),
    place="country",
    latitude="lat",
    longitude="lon",
    positions="lat, lon",
    table=(),
    title="Late",
    hit="late",
    rest="on time",
)


def events(times: np.ndarray, **columns: Any) -> pd.DataFrame:
    """Return events as a frame gives them."""
    n = len(times)
    values = {"late": 0, "market": "Europe", "sales": 10.0, "country": "Francia", "lat": 18.2, "lon": -66.4}
    wide = {name: np.broadcast_to(np.asarray(v), n) for name, v in (values | columns).items()}
    when = pd.to_datetime(times, unit="us", utc=True).astype("datetime64[us, UTC]")
    made = pd.DataFrame({"event_time": when, **wide})
    return made.astype({"market": "category", "country": "category"})


def even(rate: float, seconds: float, start: int = START) -> np.ndarray:
    """Return the times of evenly spaced events."""
    return start + (np.arange(round(rate * seconds)) * 1e6 / rate).astype(np.int64)


def fresh(**options: Any) -> Cells:
    """Return empty cells of 0.25 s over two minutes."""
    return Cells(COLUMNS, **{"step": 0.25, "size": 480, **options})


def counts(cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return events and hits per group, and the sum of the amount, over all cells."""
    _, table = cells.everything()
    used = len(cells.labels)
    sums = table.sum(axis=0, dtype=float)
    return sums[2 : 2 + used], sums[2 + used :], sums[1:2]


@given(
    gaps=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=80),
    pieces=st.lists(st.integers(0, 80), max_size=6),
    shuffled=st.randoms(use_true_random=False),
)
def test_it_does_not_matter_how_events_come_in(gaps: list[int], pieces: list[int], shuffled: Any) -> None:
    """One batch, many batches and batches out of order give the counts that one gets by hand."""
    times = START + np.cumsum(gaps)
    late = np.arange(len(times)) % 3 == 0
    frame = events(times, late=late, market=np.array(["A", "B"])[np.arange(len(times)) % 2])
    whole, parts = fresh(labels=["A", "B"]), fresh(labels=["A", "B"])
    whole.update(frame)
    cuts = [0, *sorted(min(cut, len(frame)) for cut in pieces), len(frame)]
    chunks = [frame.iloc[a:b] for a, b in itertools.pairwise(cuts)]
    shuffled.shuffle(chunks)
    for chunk in chunks:
        parts.update(chunk)
    parts.begin = whole.begin  # which is that of the first chunk that came
    np.testing.assert_array_equal(whole.everything()[1], parts.everything()[1])
    inside = times // 250_000 > times[-1] // 250_000 - 480
    by_group, hits, amount = counts(whole)
    assert by_group.sum() == inside.sum()
    assert hits.sum() == late[inside].sum()
    assert amount[0] == 10 * inside.sum()


def test_changes_are_the_cells_since_the_last_call() -> None:
    """What is sent to the browser is only what has changed, and nothing when nothing has."""
    cells = fresh()
    cells.update(events(even(10, 5)))
    assert len(cells.changes()[1]) == 20
    cells.update(events(even(10, 0.5, START + 5_000_000)))
    first, table = cells.changes()
    assert (first, len(table)) == ((START + 5_000_000) // 250_000, 2)
    assert table[:, 2:].sum() == 5
    assert len(cells.changes()[1]) == 0


def test_a_late_event_is_among_the_changes() -> None:
    """An event that comes out of order changes an old cell, and the cells from there on are sent."""
    cells = fresh()
    cells.update(events(even(10, 5)))
    cells.changes()
    cells.update(events(np.array([START + 1_000_000])))
    first, table = cells.changes()
    assert (first, len(table)) == ((START + 1_000_000) // 250_000, 16)


def test_missed_events_make_what_is_older_unknown() -> None:
    """A cell whose events could not all be had is not drawn with too low a count."""
    cells = fresh()
    cells.update(events(even(10, 5)))
    cells.update(events(even(10, 5, START + 7_000_000)), missed=20)
    assert cells.begin == (START + 7_000_000) // 250_000 + 1
    assert cells.everything()[0] == cells.begin


def test_a_long_absence_empties_the_ring() -> None:
    """Events from before a gap longer than the ring are gone."""
    cells = fresh()
    cells.update(events(even(10, 5)))
    cells.update(events(even(10, 5, START + 3_600_000_000), market="Africa"))
    by_group, _, _ = counts(cells)
    assert dict(zip(cells.labels, by_group, strict=True)) == {OTHERS: 0, "Europe": 0, "Africa": 50}


def test_groups_beyond_the_limit_are_gathered() -> None:
    """Many groups do not widen what is sent without end, and no event is lost."""
    names = np.array([f"m{i:02d}" for i in range(40)])
    cells = fresh()
    cells.update(events(even(40, 1), market=names))
    by_group, _, _ = counts(cells)
    assert len(cells.labels) == MOST_GROUPS + 1
    assert by_group[0] == 40 - MOST_GROUPS
    assert by_group.sum() == 40


def test_a_missing_group_has_a_label() -> None:
    """Rows without a value are a group of their own."""
    cells = fresh()
    cells.update(events(even(4, 1), market=np.array(["A", None, "A", None], dtype=object)))
    by_group, _, _ = counts(cells)
    assert dict(zip(cells.labels, by_group, strict=True)) == {OTHERS: 0, MISSING_LABEL: 2, "A": 2}


def test_a_filter_on_the_groups_leaves_the_others_to_choose_from() -> None:
    """Amounts and the map follow the filter; the other groups are still counted, beside it."""
    frame = events(even(10, 4), market=np.array(["A", "B"] * 20), sales=np.array([1.0, 100.0] * 20))
    cells = fresh(labels=["A", "B"], filters={"market": ["B"]})
    cells.update(frame)
    by_group, _, amount = counts(cells)
    assert by_group.tolist() == [0, 20, 20]
    assert amount.tolist() == [2000.0]
    assert [cells.labels[place] for place in cells.members] == ["B"]
    assert cells.total == 20
    assert cells.spots(0, 2**40)[:, 2].sum() == 20


def test_a_filter_on_another_column_leaves_events_out() -> None:
    """Only matching events are counted anywhere."""
    cells = fresh(filters={"country": ["Alemania"]})
    cells.update(events(even(10, 4), country=np.array(["Alemania", "Francia"] * 20)))
    assert counts(cells)[0].sum() == 20


def test_countries_have_their_place_and_positions_their_square() -> None:
    """The map gets longitude, latitude, events and hits of known countries, and squares of positions."""
    cells = fresh()
    cells.update(events(even(10, 3), country=np.array(["Alemania", "Francia", "Nowhere"] * 10), late=1))
    first, last = START // 250_000, START // 250_000 + 11
    countries = cells.countries(first, last)
    assert [cells.country_names[int(place)] for place in countries[:, 0]] == ["Alemania", "Francia"]
    np.testing.assert_allclose(countries[0, 1:], [10.4, 51.1, 10, 10], atol=0.5)
    np.testing.assert_allclose(cells.spots(first, last), [[-66.5, 18.5, 30]])
    assert len(cells.countries(last + 10, last + 20)) == 0
