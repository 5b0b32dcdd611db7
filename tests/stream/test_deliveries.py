"""Deliveries under faults of the wire: a function of the slot, whoever computes them and in what parts."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import defaultdict
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.clocks import NOW, SECOND, Clock
from logistream.errors import StreamError
from logistream.model.model import load_model
from logistream.model.sampling import BLOCK
from logistream.stream import deliveries as module
from logistream.stream.arrivals import Arrivals
from logistream.stream.corruption import Corruption
from logistream.stream.deliveries import Deliveries
from logistream.stream.faults import REACH
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry
from logistream.stream.timeline_file import open_timeline_file

SEED = 3
MODEL = load_model()

shares = st.sampled_from([0.05, 0.3, 1.0])
wheres = st.sampled_from([{}, {}, {"where": "Market:Europe"}])


def spans(least: Any, most: Any) -> st.SearchStrategy[list[Any]]:
    """Return pairs of numbers in order."""
    number: Any = st.integers(least, most) if isinstance(most, int) else st.floats(least, most)
    return st.lists(number, min_size=2, max_size=2).map(sorted)


delays = spans(1, 60).map(lambda d: {"events": d}) | spans(0.001, 0.9).map(lambda d: {"seconds": d})
kinds = st.one_of(
    delays.map(lambda delay: {"late": delay}),
    st.integers(1, 20).map(lambda within: {"reorder": {"within": within}}),
    st.tuples(st.integers(1, 2), spans(0, 20)).map(lambda d: {"duplicate": {"copies": d[0], "events": d[1]}}),
    spans(0.0, 0.5).map(lambda d: {"duplicate": {"seconds": d}}),
    st.just({"drop": True}),
    st.sampled_from(["null", "cut", "extra"]).map(lambda what: {"corrupt": what}),
)
faults = st.builds(lambda kind, share, where: {**kind, "share": share, **where}, kinds, shares, wheres)
settings_ = st.one_of(
    st.lists(faults, max_size=3).map(lambda given: {"faults": given}),
    st.sampled_from([15.0, 100.0, 700.0]).map(lambda rate: {"rate": rate}),
    st.booleans().map(lambda paused: {"paused": paused}),
)
changes = st.lists(st.tuples(st.integers(1, SECOND), settings_), min_size=1, max_size=6)
arrivals = st.sampled_from([Arrivals("even", SEED), Arrivals("poisson", SEED)])

Delivered = tuple[int, int, int, int, tuple[Corruption, ...]]


def begun(clock: Clock, *, rate: float = 100.0, first: int = 0, kind: Arrivals | None = None) -> Stream:
    """Return a stream that begins now."""
    timeline = Timeline([first_entry(NOW, rate=rate, first=first)], kind or Arrivals("even", SEED))
    return Stream(MODEL, timeline, seed=SEED, clock=clock)


def copy_of(stream: Stream, clock: Clock) -> Stream:
    """Return another stream on the same timeline, which has computed nothing yet."""
    timeline = Timeline(stream.timeline.entries, stream.timeline.arrivals)
    return Stream(MODEL, timeline, seed=SEED, clock=clock)


def listed(delivered: Deliveries) -> list[Delivered]:
    """Return deliveries as tuples of slot, index, number, copy and corruptions."""
    columns = (delivered.slots, delivered.indices, delivered.numbers, delivered.copies)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [(*row, delivered.corruptions.get(i, ())) for i, row in enumerate(rows)]


@lru_cache(maxsize=1000)
def lane(block: int, place: int, purpose: int, copy: int) -> list[float]:
    """Return what the events of a block draw."""
    drawn = module._Draws(SEED, block, block * BLOCK, (block + 1) * BLOCK)
    found: list[float] = drawn.uniforms(place, purpose, copy).tolist()
    return found


def reference(stream: Stream, stop: int) -> list[Delivered]:
    """Return the deliveries of all slots before `stop`, event by event and slot by slot."""
    timeline = stream.timeline
    first = timeline.entries[0].first
    times = dict(zip(range(first, stop), timeline.times(first, stop).tolist(), strict=True))
    events = stream.batch(first, stop).column("Market").to_pylist()
    by_slot: dict[int, list[tuple[bool, int, int, tuple[Corruption, ...]]]] = defaultdict(list)

    def after(slot: int, number: int, micros: int, later: int) -> int:
        if micros and slot < stop:
            due = times[slot] + micros
            while slot < stop and times[slot] < due:
                slot += 1
        return min(slot + later, number + REACH)

    for number in range(first, stop):
        [(_, _, here)] = list(timeline.faults(number, number + 1))

        def draw(place: int, purpose: int, copy: int = 0, number: int = number) -> float:
            return lane(number // BLOCK, place, purpose, copy)[number % BLOCK]

        def amount(fault: Any, place: int, copy: int = 0, draw: Any = draw) -> tuple[int, int]:
            scale = 1 if fault.unit == "events" else 1e6
            low, high = round(fault.low * scale), round(fault.high * scale)
            drawn = low if low == high else low + int(draw(place, 1, copy) * (high - low + 1))
            return (0, drawn) if fault.unit == "events" else (drawn, 0)

        meant = [not fault.where or events[number - first] == "Europe" for fault in here]
        hit = [
            m and draw(place, 0) < fault.share
            for place, (fault, m) in enumerate(zip(here, meant, strict=True))
        ]
        if any(fault.kind == "drop" and h for fault, h in zip(here, hit, strict=True)):
            continue
        late = [amount(f, p) for p, f in enumerate(here) if hit[p] and f.kind in ("late", "reorder")]
        slot = after(number, number, sum(d[0] for d in late), sum(d[1] for d in late))
        slots = [slot]
        for place, fault in enumerate(here):
            if fault.kind == "duplicate" and hit[place]:
                slots += [after(slot, number, *amount(fault, place, nth)) for nth in range(fault.copies)]
        for copy, slot in enumerate(slots):
            damage: list[Corruption] = []
            for place, fault in enumerate(here):
                if not fault.corruption or not meant[place] or draw(place, 0, copy) >= fault.share:
                    continue
                value = draw(place, 1, copy)
                name = ""
                if fault.corruption != "cut":
                    value = float(int(value * 1000))
                if fault.corruption == "null":
                    name = MODEL.event_schema.names[int(draw(place, 2, copy) * len(MODEL.event_schema))]
                if (fault.corruption, name) not in [(c.kind, c.column) for c in damage]:
                    damage.append(Corruption(fault.corruption, name, value))
            by_slot[slot].append((slot != number, number, copy, tuple(damage)))
    return [
        (slot, index, number, copy, damage)
        for slot in range(first, stop)
        for index, (_, number, copy, damage) in enumerate(sorted(by_slot[slot], key=lambda d: d[:3]))
    ]


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(arrivals, changes, st.lists(st.floats(0, 1), max_size=4), st.randoms(use_true_random=False))
def test_deliveries_are_those_of_the_definition(
    kind: Arrivals, changed: list[tuple[int, dict[str, Any]]], cuts: list[float], random: Any
) -> None:
    """Through every change, computed ahead of time, in any parts and order; what has passed never changes."""
    clock = Clock()
    stream = begun(clock, kind=kind)
    passed: list[tuple[int, list[Delivered]]] = []
    for wait, change in changed:
        clock.now += wait
        now = stream.next_number()
        held = stream.timeline.last.first if stream.paused else now + 300
        ahead = listed(stream.deliveries(0, max(now, min(held, now + 300)))[1])  # as a server makes parts
        passed.append((now, [d for d in ahead if d[0] < now]))
        stream.change(**change)
    stream.change(paused=False)
    clock.now += SECOND
    stop = stream.next_number()
    expected = reference(stream, stop)
    batch, found = stream.deliveries(0, stop)
    assert listed(found) == expected
    for now, before in passed:
        assert before == [d for d in expected if d[0] < now]
    events = stream.batch(0, stop)
    assert batch.equals(events.take(pa.array(found.numbers)))
    other = copy_of(stream, clock)
    places = sorted({0, stop, *(int(cut * stop) for cut in cuts)})
    parts = list(pairwise(places))
    random.shuffle(parts)
    made = {low: other.deliveries(low, high) for low, high in parts}
    assert [d for low in sorted(made) for d in listed(made[low][1])] == expected
    assert [row for low in sorted(made) for row in made[low][0].to_pylist()] == batch.to_pylist()
    for low, high in parts:
        if not other.has_faults(low, high):
            assert made[low][0].equals(events.slice(low, high - low))
            assert made[low][1].numbers.tolist() == list(range(low, high))
            assert not made[low][1].corruptions


def counted(faults: list[dict[str, Any]], n: int = 60_000) -> tuple[Deliveries, pa.RecordBatch, Stream]:
    """Return all deliveries of n events that have these faults."""
    clock = Clock()
    stream = begun(clock, rate=10_000)
    stream.change(faults=faults)
    clock.now += n * 100
    stop = stream.change(faults=[]).first
    clock.now += 100 * SECOND
    batch, found = stream.deliveries(1, stop + 20_000)
    wanted = found.numbers < stop
    rows = np.flatnonzero(wanted)
    of = {int(np.searchsorted(rows, row)): c for row, c in found.corruptions.items()}
    slots, indices, numbers, copies = (
        getattr(found, name)[wanted] for name in ("slots", "indices", "numbers", "copies")
    )
    taken = Deliveries(slots, indices, numbers, copies, of)
    return taken, batch.take(pa.array(rows)), stream


def near(count: float, n: int, share: float) -> bool:
    """Return whether a count of n is a share within five standard deviations."""
    return bool(abs(count - n * share) < 5 * np.sqrt(n * share * (1 - share)) + 1e-9)


def test_shares_and_delays_are_those_that_are_set() -> None:
    """Each event is delivered once and as often again as it is duplicated, or dropped; never too early."""
    found, _, stream = counted(
        [
            {"late": {"events": [1, 500]}, "share": 0.2},
            {"reorder": {"within": 9}, "share": 0.1},
            {"duplicate": {"copies": 2, "seconds": [0, 0.5]}, "share": 0.05},
            {"drop": True, "share": 0.03},
        ]
    )
    numbers, slots, copies = found.numbers, found.slots, found.copies
    n = stream.timeline.entries[-1].first - 1
    delivered = np.bincount(numbers, minlength=n + 1)[1:]
    assert set(np.unique(delivered)) == {0, 1, 3}
    assert near((delivered == 0).sum(), n, 0.03)
    assert near((delivered == 3).sum(), int((delivered > 0).sum()), 0.05)
    assert (slots >= numbers).all()
    first = copies == 0
    waited = slots[first] - numbers[first]
    assert near((waited > 0).sum(), len(waited), 1 - 0.8 * 0.9)
    assert waited.max() <= 509
    only_late = waited[waited > 9]
    assert abs(only_late.mean() - 255) < 5 * 144 / np.sqrt(len(only_late))
    slot_of = np.zeros(n + 1, np.int64)
    slot_of[numbers[first]] = slots[first]
    again = slots[~first] - slot_of[numbers[~first]]
    assert again.min() >= 0
    assert again.max() <= 5000  # half a second
    assert abs(again.mean() - 2500) < 5 * 1443 / np.sqrt(len(again))


def test_a_condition_chooses_the_events_as_they_happened() -> None:
    """Only those are dropped or corrupted, also if the corrupted column is that of the condition."""
    found, batch, stream = counted(
        [
            {"drop": True, "share": 0.5, "where": {"Market": "Europe"}},
            {"corrupt": "missing", "column": "Market", "share": 0.5, "where": ["Market:LATAM", "Sales>=200"]},
        ],
        20_000,
    )
    events = stream.batch(1, stream.timeline.entries[-1].first).to_pandas()
    n_europe = int((events["Market"] == "Europe").sum())
    delivered = batch.to_pandas()
    assert len(delivered) == len(events) - n_europe + (delivered["Market"] == "Europe").sum()
    assert near((delivered["Market"] == "Europe").sum(), n_europe, 0.5)
    meant = (delivered["Market"] == "LATAM") & (delivered["Sales"] >= 200)
    assert near(len(found.corruptions), int(meant.sum()), 0.5)
    assert meant.to_numpy()[list(found.corruptions)].all()


def test_corruption_draws_for_each_delivery() -> None:
    """A copy is corrupted or not whatever happens to the first delivery; columns are drawn evenly."""
    found, _, _ = counted(
        [{"duplicate": {}, "share": 1}, {"corrupt": "null", "share": 0.3}, {"corrupt": "cut", "share": 0.2}],
        20_000,
    )
    nulls = {row for row, of in found.corruptions.items() if any(c.kind == "null" for c in of)}
    cuts = [c.value for of in found.corruptions.values() for c in of if c.kind == "cut"]
    m = len(found)
    assert near(len(nulls), m, 0.3)
    assert near(len(cuts), m, 0.2)
    pairs = sum(1 for row in nulls if found.copies[row] == 0 and row + 1 in nulls)
    assert near(pairs, m // 2, 0.09)
    assert abs(np.mean(cuts) - 0.5) < 5 * 0.289 / np.sqrt(len(cuts))
    columns = [c.column for of in found.corruptions.values() for c in of if c.kind == "null"]
    names = MODEL.event_schema.names
    assert all(near(columns.count(name), len(columns), 1 / len(names)) for name in names)


def test_no_delivery_is_later_than_its_bound() -> None:
    """Delays that add up to more than 100,000 events end there, copies included."""
    clock = Clock()
    stream = begun(clock, rate=100_000)
    late = {"late": {"events": 99_999}, "share": 1}
    stream.change(
        faults=[late, {"late": {"seconds": 3000}, "share": 1}, {"duplicate": {"events": 7}, "share": 1}]
    )
    clock.now += 3 * SECOND
    _, found = stream.deliveries(150_000, 150_003)
    assert found.slots.tolist() == [150_000, 150_000, 150_001, 150_001, 150_002, 150_002]
    assert found.indices.tolist() == [0, 1] * 3
    assert (found.slots - found.numbers == REACH).all()
    assert found.copies.tolist() == [0, 1] * 3
    assert len(stream.deliveries(1, 100_001)[1]) == 0
    assert stream.deliveries(1, 100_001)[0].schema == stream.batch(0, 0).schema
    end = stream.change(faults=[]).first
    clock.now += 2 * SECOND
    assert stream.has_faults(end + REACH - 1, end + REACH)
    assert not stream.has_faults(end + REACH, end + REACH + 1)
    assert (
        stream.deliveries(end + REACH - 1, end + REACH)[1].numbers.tolist()
        == [end + REACH - 1] + [end - 1] * 2
    )
    assert stream.deliveries(end + REACH, end + REACH + 1)[1].numbers.tolist() == [end + REACH]


def test_without_faults_in_reach_the_stream_is_clean() -> None:
    """Before the first fault, and where its longest delay has ended."""
    clock = Clock()
    stream = begun(clock, first=7)
    clock.now += 10 * SECOND
    first = stream.change(faults=[{"late": {"seconds": [1, 2]}, "share": 0.5}]).first
    clock.now += 10 * SECOND
    stop = stream.change(faults=[]).first
    clock.now += 10 * SECOND
    assert not stream.has_faults(7, first)
    assert stream.has_faults(7, first + 1)
    assert stream.has_faults(stop + 190, stop + 191)
    assert not stream.has_faults(stop + 200, stop + 500)
    batch, found = stream.deliveries(stop + 200, stop + 500)
    assert batch.equals(stream.batch(stop + 200, stop + 500))
    assert found.numbers.tolist() == found.slots.tolist() == list(range(stop + 200, stop + 500))
    assert len(stream.deliveries(20, 20)[1]) == 0


def test_what_has_no_time_has_no_slot() -> None:
    """Neither before the stream nor behind a pause; what a pause holds back comes after it."""
    clock = Clock()
    stream = begun(clock, first=7)
    stream.change(faults=[{"late": {"seconds": 1}, "share": 1}])
    clock.now += 3 * SECOND
    held = stream.change(paused=True).first
    assert stream.deliveries(held - 5, held)[1].numbers.tolist() == list(range(held - 105, held - 100))
    with pytest.raises(StreamError, match=r"^event 6 is before the stream, which begins with 7$"):
        stream.deliveries(6, 8)
    with pytest.raises(StreamError, match="the stream is paused before"):
        stream.deliveries(held - 1, held + 1)
    assert stream.has_faults(held, held + 1)
    clock.now += 60 * SECOND
    stream.change(paused=False)
    clock.now += SECOND
    # Seconds go by in a pause too: all that were due in it come in the first slot after it.
    assert stream.deliveries(held, held + 1)[1].numbers.tolist() == list(range(held - 100, held))


def digest(stream: Stream, stop: int) -> str:
    """Return a checksum of everything that is delivered before a slot."""
    batch, found = stream.deliveries(0, stop)
    return hashlib.sha256(repr((listed(found), batch.to_pylist())).encode()).hexdigest()


@pytest.mark.slow
def test_another_process_delivers_the_same(tmp_path: Path) -> None:
    """From the timeline file alone, whatever the process hashes strings with."""
    clock = Clock()
    path = tmp_path / "timeline"

    def first(now: int) -> Any:
        return first_entry(now, rate=100)

    timeline = open_timeline_file(path, header={}, first_entry=first, clock=clock)
    stream = Stream(MODEL, timeline, seed=SEED, clock=clock)
    stream.change(
        faults=[
            {"late": {"seconds": [0.5, 3]}, "share": 0.3, "where": "Market:Europe"},
            {"duplicate": {"copies": 3, "events": [0, 50]}, "share": 0.1},
            {"corrupt": "type", "share": 0.2},
        ]
    )
    clock.now += 20 * SECOND
    stream.change(rate=300, faults=[{"drop": True, "share": 0.5}])
    clock.now += 10 * SECOND
    stop = stream.next_number()
    expected = digest(stream, stop)
    timeline.close()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from logistream.stream.timeline_file import FileTimeline\n"
        "from stream.test_deliveries import MODEL, SEED, Stream, digest\n"
        "print(digest(Stream(MODEL, FileTimeline(Path(sys.argv[2])), seed=SEED), int(sys.argv[3])))"
    )
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, tests, str(path), str(stop)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_the_truth_says_what_is_done_to_each_delivery() -> None:
    """Places, drops and corruptions are those of the deliveries; what is still to come has no place yet."""
    clock = Clock()
    stream = begun(clock)
    clock.now += 10 * SECOND
    first = stream.change(
        faults=[
            {"late": {"events": [1, 100]}, "share": 0.3},
            {"duplicate": {"copies": 2, "seconds": [0, 1]}, "share": 0.2},
            {"drop": True, "share": 0.1},
            {"corrupt": "null", "column": "Department Id", "share": 0.1},
            {"corrupt": "cut", "share": 0.1},
        ]
    ).first
    clock.now += 5 * SECOND
    now = stream.next_number()
    truth = stream.truth(first - 50, now)["delivery"]
    _, found = stream.deliveries(first - 50, now)
    places = found.places().to_pylist()
    delivered: dict[int, dict[int, tuple[str, tuple[Corruption, ...]]]] = defaultdict(dict)
    for i, (_, _, number, copy, damage) in enumerate(listed(found)):
        delivered[number][copy] = places[i], damage
    for number, done in zip(range(first - 50, now), truth, strict=True):
        known = delivered[number]
        if not done:
            assert known == {0: (f"{number}.0", ())}
            continue
        if "dropped" in done:
            assert (done, known) == ({"dropped": True}, {})
            continue
        assert {copy: place for copy, place in enumerate(done["places"]) if place is not None} == {
            copy: place for copy, (place, _) in known.items()
        }
        damaged = done.get("corrupt", [None] * len(done["places"]))
        for copy, (_, damage) in known.items():
            assert set(damaged[copy] or ()) == {c.kind for c in damage}
            if any(c.kind == "null" for c in damage):
                assert damaged[copy]["null"] == ["Department Id"]
    assert any(None in done.get("places", ()) for done in truth)
    assert any("dropped" in done for done in truth)
    clock.now += 30 * SECOND
    assert not any(None in done.get("places", ()) for done in stream.truth(first, now)["delivery"])


def test_other_users_of_a_stream_see_what_happened() -> None:
    """Its batches have no faults, and the events are those of a stream that never had any."""
    clock = Clock()
    clean, faulty = begun(clock), begun(clock)
    # Each change rounds times up to a microsecond, so both change something.
    clean.change(rate=200)
    faulty.change(rate=200, faults=[{"drop": True, "share": 1}])
    clock.now += 10 * SECOND
    assert faulty.batch(0, 500).equals(clean.batch(0, 500))
    assert len(faulty.deliveries(1, 500)[1]) == 0
