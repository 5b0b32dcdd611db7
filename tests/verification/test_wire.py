"""What the faults of a stream describe is the wire's; all else is the pipeline's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from helpers.clocks import NOW, SECOND, Clock
from helpers.sinks import delivered_lines, numbered_frame
from helpers.waiting import until
from logistream import verify
from logistream.schema import EVENT_NUMBER, Schema
from logistream.server.server import StreamServer
from logistream.stream.corruption import corrupt_columns
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry
from logistream.verification import counting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from logistream.model.model import Model
    from logistream.verification.result import Verification

START, STOP = 2_000, 9_000


def counted(stream: Stream, start: int, stop: int) -> dict[str, int]:
    """Count from the deliveries themselves what a JSON reader of these slots must find."""
    _, deliveries = stream.deliveries(start, stop)
    cut = {r for r, how in deliveries.corruptions.items() if any(c.kind == "cut" for c in how)}
    rows = [row for row in range(len(deliveries)) if row not in cut]
    firsts = {
        n for n, copy in zip(deliveries.numbers.tolist(), deliveries.copies.tolist(), strict=True) if not copy
    }
    expected = {n for n in range(start, stop) if n not in firsts} | firsts
    numbers = [number for number in deliveries.numbers[rows].tolist() if number in expected]
    reordered, highest, seen = 0, -1, set()
    for number in numbers:
        reordered += number < highest and number not in seen
        highest = max(highest, number)
        seen.add(number)
    return {
        "lost": len(expected - seen),
        "doubled": len(numbers) - len(seen),
        "reordered": reordered,
        "unreadable": len(cut),
    }


def by_wire(result: Verification) -> dict[str, int]:
    return {kind: finding.wire for kind, finding in result.findings.items()}


def by_pipeline(result: Verification) -> dict[str, int]:
    return {kind: finding.pipeline for kind, finding in result.findings.items() if finding.pipeline}


def write(path: Path, lines: Iterable[bytes]) -> Path:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize("given", [True, False], ids=["range given", "range found"])
def test_what_a_faithful_pipeline_stores_is_the_wires(faulty: Stream, tmp_path: Path, given: bool) -> None:
    """Every loss, copy, wrong order and wrong value was on the wire, and is counted exactly."""
    sink = write(tmp_path / "sink.ndjson", delivered_lines(faulty, START, STOP))
    result = verify(sink, faulty, start=START if given else None, stop=STOP if given else None)
    assert by_pipeline(result) == {}
    assert result.ok
    assert "the wire did all of this" in str(result)
    if given:
        wire = by_wire(result)
        assert wire.pop("altered") > 100
        assert wire.pop("foreign") == 0
        assert wire == counted(faulty, START, STOP)
    else:
        assert START <= result.start < START + 10
        assert STOP - 10 < result.stop <= STOP


def test_an_arrow_sink_holds_gaps_where_the_wire_made_them(faulty: Stream) -> None:
    """Values that a type does not allow are missing, and so are the numbers of events that were cut."""
    batch, deliveries = faulty.deliveries(START, STOP)
    batch = batch.append_column(EVENT_NUMBER.name, pa.array(deliveries.numbers))
    schema = Schema((*faulty.model.full_schema, EVENT_NUMBER))
    rows = corrupt_columns(batch, schema, deliveries.corruptions)
    result = verify(rows, faulty)
    assert by_pipeline(result) == {}
    assert result.foreign.wire == rows.column("event_number").null_count > 100


def test_a_sink_may_be_read_while_events_happen(faulty: Stream) -> None:
    """The deliveries that were computed for its first rows are computed again for the later ones."""
    clock = Clock()
    stream = Stream(faulty.model, Timeline([first_entry(NOW, rate=100)]), clock=clock)
    stream.change(faults=faulty.timeline.last.faults)
    clock.now += 20 * SECOND
    schema = Schema((*stream.model.full_schema, EVENT_NUMBER))

    def rows() -> Iterator[pa.RecordBatch]:
        for start in range(1000, 5000, 1000):
            batch, deliveries = stream.deliveries(start, start + 1000)
            batch = batch.append_column(EVENT_NUMBER.name, pa.array(deliveries.numbers))
            yield corrupt_columns(batch, schema, deliveries.corruptions)
            clock.now += 10 * SECOND

    result = verify(rows(), stream, start=1000)
    assert by_pipeline(result) == {}
    assert result.doubled.wire > 100


def test_a_sink_may_end_with_any_delivery(model: Model) -> None:
    """Also with copies of earlier events, which are the wire's; or it holds one event again and again."""
    clock = Clock()
    stream = Stream(model, Timeline([first_entry(NOW, rate=100)]), seed=5, clock=clock)
    faults: list[dict[str, Any]] = [
        {"late": {"events": [1, 50]}, "share": 0.1},
        {"duplicate": {"copies": 2, "events": [0, 60]}, "share": 0.2},
        {"drop": True, "share": 0.1},
    ]
    stream.change(faults=faults)
    clock.now += 20 * SECOND
    for stop in range(1095, 1125):
        _, deliveries = stream.deliveries(1000, stop)
        result = verify(pd.DataFrame({"event_number": deliveries.numbers}), stream)
        assert by_pipeline(result) == {}
        assert result.stop <= stop
    doubled = deliveries.numbers[deliveries.copies == 2][0]
    result = verify(pd.DataFrame({"event_number": [doubled] * 7}), stream)
    assert (by_pipeline(result), by_wire(result)["doubled"]) == ({"doubled": 4}, 2)
    assert result.stop == result.start + 1


@pytest.mark.slow
def test_what_the_pipeline_adds_is_its_own(
    faulty: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that it loses, doubles, alters or moves on top of the faults of the wire are its own, exactly."""
    monkeypatch.setattr(counting, "_HELD", 3000)  # so that all goes through files
    rows: list[Any] = []
    for line in delivered_lines(faulty, START, STOP):
        try:
            rows.append(json.loads(line))
        except ValueError:
            rows.append(line)
    _, deliveries = faulty.deliveries(START, STOP)
    often = pd.Series(deliveries.numbers).value_counts()
    damaged = {int(deliveries.numbers[row]) for row in deliveries.corruptions}
    # Plain events in the middle, delivered once and whole, far enough from each other.
    plain = [
        place
        for place, row in enumerate(rows)
        if isinstance(row, dict)
        and START + 1000 < row.get("event_number", 0) < STOP - 1000
        and often[row["event_number"]] == 1
        and row["event_number"] not in damaged
        and deliveries.slots[place] == row["event_number"]
    ][::200]
    lost, doubled, altered, moved = (plain[first::4] for first in range(4))
    for place in altered:
        rows[place]["Sales"] += 1
    again = [rows[place] for place in doubled]
    carried = [rows[place] for place in moved]
    gone = {*lost, *moved}
    rows = [row for place, row in enumerate(rows) if place not in gone]
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in [*rows, *carried, *again]]
    result = verify(write(tmp_path / "sink.ndjson", lines), faulty, start=START, stop=STOP)
    assert by_pipeline(result) == {
        "lost": len(lost),
        "doubled": len(doubled),
        "reordered": len(moved),
        "altered": len(altered),
    }
    assert min(map(len, (lost, doubled, altered, moved))) > 3
    clean = verify(
        write(tmp_path / "clean.ndjson", delivered_lines(faulty, START, STOP)), faulty, start=START, stop=STOP
    )
    assert by_wire(result) == by_wire(clean) | {"reordered": result.reordered and result.reordered.wire}


@pytest.mark.slow
def test_a_pipeline_may_remove_copies_and_sort(faulty: Stream) -> None:
    """Without doubles, in the order of events: the wire dropped some events, and delivered some late."""
    rows = []
    for line in delivered_lines(faulty, START, STOP):
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    frame = pd.DataFrame(rows).drop_duplicates("event_number").sort_values("event_number")
    result = verify(frame, faulty, start=START, stop=STOP, ordered=False)
    assert by_pipeline(result) == {}
    assert result.lost.wire == counted(faulty, START, STOP)["lost"]
    assert verify(frame.iloc[::-1], faulty, start=START, stop=STOP).reordered != result.reordered


def test_lateness_counts_from_the_delivery(faulty: Stream) -> None:
    """A row that the wire delivered late and the pipeline stored at once is the wire's."""
    batch, deliveries = faulty.deliveries(START, STOP)
    times = faulty.timeline.times(START, STOP)
    frame = pd.DataFrame({"event_number": deliveries.numbers, "Sales": batch.column("Sales").to_pandas()})
    frame["arrived"] = pd.to_datetime(times[deliveries.slots - START] + 5000, unit="us", utc=True)
    late = deliveries.slots - deliveries.numbers >= 100  # a second, and 5 ms
    frame["arrived"] += pd.to_timedelta(np.where(frame.index == 4000, 2, 0), unit="s")
    assert not late[4000]
    result = verify(frame, faulty, arrived="arrived", late="1s", start=START, stop=STOP)
    assert result.late is not None
    assert result.late.pipeline == 1
    first = np.asarray(~frame["event_number"].duplicated())
    assert result.late.wire == late.sum() > (late & first).sum() > 0


def test_the_sink_of_a_clean_reader_is_compared_with_the_clean_stream(faulty: Stream) -> None:
    """What the wire did to others is no excuse then."""
    frame = numbered_frame(faulty, START, STOP).drop(index=[1000, 1001])
    result = verify(frame, faulty, faults=False, window="1min")
    assert by_pipeline(result) == {"lost": 2}
    assert sum(by_wire(result).values()) == 0
    assert result.windows is not None
    assert result.windows["events"].sum() == STOP - START


def test_before_the_first_fault_nothing_changes(faulty: Stream) -> None:
    """Events of a time without faults are compared as those of any stream."""
    frame = numbered_frame(faulty, 0, 1000).drop(index=[500])
    result = verify(frame, faulty)
    assert by_pipeline(result) == {"lost": 1}
    assert result.lost.examples == (500,)
    assert sum(by_wire(result).values()) == 0


@pytest.mark.slow
def test_a_faulty_server_is_a_source(model: Model, tmp_path: Path) -> None:
    """What its readers get over HTTP is the wire's; what they lose of it is their own."""
    faults: list[dict[str, Any]] = [
        {"late": {"events": [1, 50]}, "share": 0.1},
        {"duplicate": {}, "share": 0.1},
        {"drop": True, "share": 0.1},
        {"corrupt": "null", "column": "Sales", "share": 0.1},
    ]
    with StreamServer(model, rate=1000, port=0, seed=3) as server:
        server.faults = faults
        begin = server.timeline.last.first
        until(lambda: server.state["next_event_number"] > begin + 3000)
        address = f"{server.url}/events?start={begin + 100}&stop={begin + 2000}&numbered=true&format=ndjson"
        with urlopen(address, timeout=240) as answer:
            lines = answer.read().splitlines()
        clean = urlopen(f"{address}&faults=false", timeout=240).read().splitlines()
        stored = verify(write(tmp_path / "stored.ndjson", lines), server.url)
        assert by_pipeline(stored) == {}
        assert all(by_wire(stored)[kind] > 100 for kind in ("lost", "doubled", "reordered", "altered"))
        once = [
            n for n in range(len(lines)) if lines.count(lines[n]) == 1 and b'"Sales":null' not in lines[n]
        ]
        del lines[once[len(once) // 2]]
        lost = verify(write(tmp_path / "lost.ndjson", lines), server.url)
        assert by_pipeline(lost) == {"lost": 1}
        assert verify(write(tmp_path / "clean.ndjson", clean), server, faults=False).ok
