"""A timeline file: shared by processes, killed, damaged, and never contradicted."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import zlib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from helpers.clocks import NOW, SECOND, Clock
from helpers.waiting import until
from logistream.errors import DataError, RequestError, StreamError
from logistream.model.scenario import Scenario
from logistream.stream import timeline_file
from logistream.stream.faults import read_faults
from logistream.stream.stream import Stream
from logistream.stream.timeline import Entry, Timeline, first_entry
from logistream.stream.timeline_file import LEAD_MICROS, FileTimeline, open_timeline_file, timeline_table
from logistream.times import wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from logistream.model.model import Model

HEADER: dict[str, str | int] = {"model": "a1b2c3", "model_name": "orders", "seed": 5, "arrivals": "poisson"}

_opened: list[FileTimeline] = []

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs signals, limits or POSIX names")


def opened(
    path: Path,
    header: dict[str, str | int] = HEADER,
    clock: Callable[[], int] = wall_clock,
    rate: float = 100.0,
) -> FileTimeline:
    """Open a timeline file, or make one that begins a second ago."""
    timeline = open_timeline_file(
        path,
        header=header,
        first_entry=lambda now: first_entry(now, rate=rate, history=SECOND),
        clock=clock,
    )
    _opened.append(timeline)
    return timeline


@pytest.fixture(autouse=True)
def _all_closed() -> Iterator[None]:
    """Close what a test has opened."""
    yield
    while _opened:
        _opened.pop().close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where no file is yet."""
    return tmp_path / "timeline"


class Worker:
    """Another process, which runs a script that can use `path` and `report`."""

    BEGIN = """
import json, os, random, sys
from pathlib import Path
sys.path[:0] = [os.path.dirname(sys.argv[1]), os.path.dirname(os.path.dirname(sys.argv[1]))]
from logistream.errors import LogistreamError
from logistream.times import wall_clock
from test_timeline_file import LEAD_MICROS, opened
path = Path(sys.argv[2])
def report(value):
    print(json.dumps(value), flush=True)
"""

    def __init__(self, path: Path, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.BEGIN + script, __file__, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def next_report(self) -> Any:
        """Return the next value that it reports."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def let_go_on(self) -> None:
        """Send it a line."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def rest(self) -> list[Any]:
        """Wait for its end and return all else that it reported."""
        assert self.process.stdout
        reported = self.process.stdout.read()
        self.process.wait()
        return [json.loads(line) for line in reported.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def start(path: Path) -> Iterator[Callable[[str], Worker]]:
    """Give a way to start other processes, of which none stays."""
    workers: list[Worker] = []

    def starting(script: str) -> Worker:
        workers.append(Worker(path, script))
        return workers[-1]

    yield starting
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


# One process


def test_a_file_keeps_what_a_timeline_in_memory_would_hold(path: Path) -> None:
    """The same changes at the same times give the same entries, and the file gives them back."""
    clock = Clock()
    kept = opened(path, clock=clock)
    memory = Timeline(kept.entries, kept.arrivals)
    for wait, change in (
        (SECOND, {"rate": 3.5}),
        (10, {"paused": True}),
        (0, {"rate": 70.0}),
        (5 * SECOND, {"paused": False, "scenarios": (Scenario([{"delay": 2}, {"rate": 3}]),)}),
    ):
        clock.now += wait
        assert kept.change(clock.now, **change) == memory.change(clock.now + LEAD_MICROS, **change)
    again = opened(path, clock=clock)
    assert again.entries == kept.entries == memory.entries
    assert again.arrivals == kept.arrivals
    np.testing.assert_array_equal(again.times(0, 1000), memory.times(0, 1000))
    assert again.path == path
    assert again.shared


def test_what_is_in_a_file(path: Path) -> None:
    """The header and the entries as JSON, which any SQLite program shows; and beside it a promise."""
    opened(path, clock=Clock()).close()
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT number, json FROM timeline ORDER BY number").fetchall()
    assert [number for number, _ in rows] == [0, 1]
    assert [json.loads(string) for _, string in rows] == [
        HEADER,
        first_entry(NOW, rate=100, history=SECOND).to_json(),
    ]
    assert sorted(path.parent.iterdir()) == [path, path.with_name("timeline-promised")]


def test_a_file_as_a_table(path: Path) -> None:
    """What people are shown: the header, and a line for each entry."""
    clock = Clock()
    timeline = opened(path, clock=clock)
    timeline.change(clock.now, rate=1234.5)
    timeline.change(clock.now, paused=True, faults=read_faults({"drop": True, "share": 0.5}))
    assert timeline_table(path).splitlines() == [
        "model: a1b2c3",
        "model name: orders",
        "seed: 5",
        "arrivals: poisson",
        "events that may have been delivered: before 105, by 2026-11-18T11:06:40.050000Z",
        "",
        "      from event  since (UTC)                        events/s",
        "               0  2026-11-18T11:06:39.000000Z             100",
        "             105  2026-11-18T11:06:40.050000Z         1,234.5",
        "             105  2026-11-18T11:06:40.050000Z         1,234.5  paused  drop, share 0.5",
    ]
    path.with_name("other").write_text("hello")
    with pytest.raises(DataError, match="other is not a timeline file"):
        timeline_table(path.with_name("other"))


def test_a_change_takes_effect_a_lead_later(path: Path) -> None:
    """An entry is never earlier, so that what has been made known stays."""
    clock = Clock()
    timeline = opened(path, clock=clock)
    assert timeline.change(clock.now, rate=5).since == NOW + LEAD_MICROS
    clock.now += 10
    assert timeline.change(clock.now - 10, rate=6).since == NOW + LEAD_MICROS + 10
    assert (
        timeline.change(clock.now + 30, rate=7).since == NOW + LEAD_MICROS + 40
    )  # the caller's clock is ahead
    assert timeline.change(clock.now, rate=7) == timeline.last
    assert len(timeline.entries) == 4


def test_what_is_known_grows_with_every_look(path: Path) -> None:
    """Up to a lead after it, and never beyond the present."""
    clock = Clock()
    timeline = opened(path, clock=clock)
    assert timeline.known_until(NOW) == NOW
    assert timeline.known_until(NOW + SECOND) == NOW + LEAD_MICROS
    clock.now += SECOND
    assert timeline.refresh()
    assert timeline.known_until(NOW + 9 * SECOND) == NOW + SECOND + LEAD_MICROS
    clock.now += SECOND
    timeline.change(clock.now, rate=5)
    assert timeline.known_until(NOW + 9 * SECOND) == NOW + 2 * SECOND + LEAD_MICROS


def test_a_clock_set_back_rewrites_nothing(path: Path) -> None:
    """Neither within a process nor for one that starts after it do entries come before the last one."""
    clock = Clock()
    timeline = opened(path, clock=clock)
    first = timeline.change(clock.now, rate=5)
    clock.now -= 10 * SECOND
    timeline.refresh()
    assert timeline.known_until(NOW) == NOW
    assert timeline.change(clock.now, rate=6).since == first.since
    later = opened(path, clock=clock)
    assert later.change(clock.now, rate=7).since == first.since + LEAD_MICROS
    clock.now += 30 * SECOND
    assert later.change(clock.now, rate=8).since == clock.now + LEAD_MICROS
    assert timeline.refresh()
    assert timeline.entries == later.entries


def test_a_closed_timeline_can_be_read_but_not_changed(path: Path) -> None:
    """What was known stays; a change is refused."""
    timeline = opened(path)
    times = timeline.times(0, 100)
    timeline.close()
    timeline.close()
    np.testing.assert_array_equal(timeline.times(0, 100), times)
    assert timeline.refresh() is False
    with pytest.raises(StreamError, match=r"^timeline .*timeline is closed$"):
        timeline.change(wall_clock(), rate=5)


def test_a_value_that_is_not_allowed_writes_nothing(path: Path) -> None:
    """The file is as before, and the lock is free."""
    timeline = opened(path)
    before = path.read_bytes()
    with pytest.raises(RequestError, match="rate must be from"):
        timeline.change(wall_clock(), rate=0)
    assert path.read_bytes() == before
    assert opened(path).change(wall_clock(), rate=9).rate == 9


def test_changes_from_many_threads_of_two_views(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of one process, on one open file and on two, exclude each other too."""
    monkeypatch.setattr(timeline_file, "_LOCK_SECONDS", 60.0)  # a disk may be slow
    views = [opened(path), opened(path)]

    def drag(number: int) -> None:
        for step in range(10):
            views[number % 2].change(wall_clock(), rate=1 + number + step / 100)
            views[number % 2].refresh()

    threads = [threading.Thread(target=drag, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for view in views:
        view.refresh()
    assert len(views[0].entries) == 61
    assert views[0].entries == views[1].entries == opened(path).entries


def test_a_file_that_another_process_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change fails with a sentence after a wait; `refresh` returns at once and makes nothing known."""
    monkeypatch.setattr(timeline_file, "_LOCK_SECONDS", 0.05)
    clock = Clock()
    timeline, other = opened(path, clock=clock), opened(path)
    known = timeline.known_until(NOW + SECOND)
    clock.now += SECOND
    assert other._database
    with timeline_file._locked(other._database, "EXCLUSIVE"):
        assert timeline.refresh() is False
        assert timeline.known_until(NOW + SECOND) == known
        sentence = r"is locked by another process \(waited 0.05 s\): check whether that process hangs"
        with pytest.raises(StreamError, match=sentence):
            timeline.change(clock.now, rate=5)
        with pytest.raises(StreamError, match=sentence):
            opened(path)
    timeline.refresh()
    assert timeline.known_until(NOW + SECOND) == NOW + SECOND


# Files that are not as they should be


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({**HEADER, "seed": 0}, "belongs to seed 5, not 0: use that, or name another file"),
        ({**HEADER, "seed": 0, "arrivals": "even"},
         "belongs to seed 5, not 0, and to arrivals poisson, not even: use that, or name another file"),
        ({**HEADER, "more": 1}, "belongs to more none, not 1: use that, or name another file"),
        ({"model": "a1b2c3", "seed": 5, "arrivals": "poisson"},
         "belongs to model name orders, not none: use that, or name another file"),
    ],
)  # fmt: skip
def test_a_timeline_of_another_stream_is_refused(
    path: Path, header: dict[str, str | int], sentence: str
) -> None:
    """The sentence names what differs; the file is left alone."""
    opened(path).close()
    before = path.read_bytes()
    with pytest.raises(RequestError) as caught:
        opened(path, header)
    assert str(caught.value) == f"timeline {path} {sentence}"
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "is empty, so it is not a timeline file"), (b"hello\n", "is not a timeline file"),
     (b"\x00" * 5000, "is not a timeline file")],
)  # fmt: skip
def test_what_is_no_timeline_is_refused(path: Path, content: bytes, what: str) -> None:
    """The sentence describes what is wrong; the file is left alone."""
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        opened(path)
    assert str(caught.value) == f"{path} {what}: name another file, or one that does not exist yet"
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("statements", "sentence"),
    [
        ("PRAGMA application_id = 7", "{path} is not a timeline file: "
         "name another file, or one that does not exist yet"),
        ("PRAGMA user_version = 2", "timeline {path} was written by a later version of Logistream: "
         "update this one"),
        ("DROP TABLE timeline", "timeline {path} is damaged (no such table: timeline): "
         "restore it from a copy, or name another file"),
        ("DELETE FROM timeline", "timeline {path} is damaged (it has no entry): "
         "restore it from a copy, or name another file"),
    ],
)  # fmt: skip
def test_other_databases_are_refused(path: Path, statements: str, sentence: str) -> None:
    """Of another program, of a later version, or without what a timeline needs."""
    opened(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(statements)
    with pytest.raises(DataError) as caught:
        opened(path)
    assert str(caught.value) == sentence.format(path=path)


def test_a_write_ahead_log_is_switched_off(path: Path) -> None:
    """With one, others could read while an entry is written; a program that uses one is not disturbed."""
    opened(path).close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA journal_mode = WAL").fetchall() == [("wal",)]
        database.execute("BEGIN")
        database.execute("SELECT * FROM timeline").fetchall()
        with pytest.raises(StreamError, match="is locked by another process"):
            opened(path)
    timeline = opened(path)
    assert timeline._database
    assert timeline._database.execute("PRAGMA journal_mode").fetchall() == [(b"delete",)]


def test_where_no_file_can_be(tmp_path: Path) -> None:
    """A folder that is missing, or a folder in the file's place."""
    with pytest.raises(StreamError, match=r"^timeline .*file cannot be made: there is no folder .*none$"):
        opened(tmp_path / "none" / "file")
    with pytest.raises(StreamError, match=r"^timeline .* cannot be opened: it is a folder$"):
        opened(tmp_path)


def filled(path: Path) -> tuple[bytes, tuple[Entry, ...]]:
    """Make a file of four entries; return its bytes and its entries."""
    clock = Clock()
    timeline = opened(path, clock=clock)
    for rate in (5, 7, 9):
        clock.now += SECOND
        timeline.change(clock.now, rate=rate)
    timeline.close()
    return path.read_bytes(), timeline.entries


def add_row(path: Path, value: Any) -> None:
    """Write a row with a true checksum, as a program would that does not know what an entry must be."""
    with closing(sqlite3.connect(path)) as database:
        ((number, checksum),) = database.execute("SELECT max(number), crc32 FROM timeline")
        string = json.dumps(value)
        row = number + 1, string, zlib.crc32(string.encode(), checksum)
        database.execute("INSERT INTO timeline VALUES (?, ?, ?)", row)
        database.commit()


@pytest.mark.slow
def test_a_flipped_bit_never_makes_another_timeline(path: Path) -> None:
    """In whichever byte: the file is refused in a sentence, or is the same timeline as before."""
    data, entries = filled(path)
    refused: list[str] = []
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(data):
            file.seek(place)
            file.write(bytes([byte ^ 1 << place % 8]))
            try:
                timeline = opened(path)
            except DataError as error:
                refused.append(str(error))
            else:
                assert timeline.entries == entries
                timeline.close()
                _opened.clear()
            file.seek(place)
            file.write(bytes([byte]))
    assert not [sentence for sentence in refused if "\n" in sentence]
    assert len(refused) > sum(len(json.dumps(entry.to_json())) for entry in entries)
    assert opened(path).entries == entries


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.8, 0.999])
def test_a_file_cut_short_is_refused(path: Path, share: float) -> None:
    """Wherever it was cut."""
    data, _ = filled(path)
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"is damaged|is not a timeline file"):
        opened(path)


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM timeline WHERE number = 2",
        "DELETE FROM timeline WHERE number = 0",
        "UPDATE timeline SET number = 9 - number",
        "UPDATE timeline SET json = replace(json, '7.0', '8.0')",
        "UPDATE timeline SET json = CAST(json AS BLOB) || ' '",
        "UPDATE timeline SET crc32 = 5 WHERE number = 4",
        "INSERT INTO timeline SELECT 5, json, crc32 FROM timeline WHERE number = 4",
    ],
)
def test_rows_that_are_not_as_they_were_written_are_noticed(path: Path, change: str) -> None:
    """Rows that are missing, repeated, in another order, or changed, in a database that is whole."""
    filled(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute(change)
        database.commit()
    with pytest.raises(DataError, match=r"is damaged \(row \d is not what was written\): restore it"):
        opened(path)


def test_an_entry_that_does_not_follow_is_refused(path: Path) -> None:
    """A file with true checksums whose entries cannot be."""
    opened(path, clock=Clock())
    add_row(path, Entry(3, NOW + SECOND, NOW + 2 * SECOND, 5.0).to_json())
    with pytest.raises(DataError, match=r"is damaged \(timeline entry .* does not follow .*\): restore it"):
        opened(path)


def test_a_file_that_is_damaged_in_use_stops_what_reads_it(path: Path) -> None:
    """What was known stays certain, nothing more becomes so, and every look raises the reason."""
    clock = Clock()
    timeline = opened(path, clock=clock)
    known = timeline.known_until(NOW + 9 * SECOND)
    clock.now += SECOND
    add_row(path, Entry(3, NOW + SECOND, NOW + 2 * SECOND, 5.0).to_json())
    add_row(path, Entry(4, NOW + 3 * SECOND, NOW + 4 * SECOND, 5.0).to_json())
    for _ in range(2):
        with pytest.raises(DataError, match="does not follow"):
            timeline.refresh()
        with pytest.raises(DataError, match="does not follow"):
            timeline.change(clock.now, rate=3)
    assert timeline.known_until(NOW + 9 * SECOND) == known
    assert len(timeline.entries) == 1


def test_rows_removed_in_use_are_noticed(path: Path) -> None:
    """Neither a look nor a change takes a shorter list for the timeline."""
    timeline = opened(path)
    timeline.change(wall_clock(), rate=3)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM timeline WHERE number = 2")
        database.commit()
    for act in (timeline.refresh, lambda: timeline.change(wall_clock(), rate=4)):
        with pytest.raises(DataError, match="rows have been removed from it while it was in use"):
            act()


@pytest.mark.parametrize("length", [0, 10])
def test_a_file_cut_short_in_use_is_noticed(path: Path, length: int) -> None:
    """Neither a look nor a change takes what is left for a timeline."""
    timeline = opened(path)
    path.write_bytes(path.read_bytes()[:length])
    for act in (timeline.refresh, lambda: timeline.change(wall_clock(), rate=3)):
        with pytest.raises(DataError, match="is damaged"):
            act()


def test_a_file_that_lost_its_end_takes_no_changes(path: Path) -> None:
    """Although SQLite, which remembers pages that it has read, would not notice."""
    timeline = opened(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(StreamError, match="was deleted, replaced or cut short while in use: start again"):
        timeline.change(wall_clock(), rate=3)


@posix
def test_a_file_deleted_in_use_takes_no_changes(path: Path) -> None:
    """A change that no other process could ever read is refused."""
    timeline = opened(path)
    path.rename(path.with_name("moved"))
    for _ in range(2):
        with pytest.raises(StreamError, match="was deleted, replaced or cut short while in use"):
            timeline.change(wall_clock(), rate=3)
        opened(path).close()  # another one in its place
    assert len(timeline.entries) == 1


# Several processes


@pytest.mark.slow
def test_processes_that_start_together_make_one_file(path: Path, start: Callable[[str], Worker]) -> None:
    """Of four that open the same names at the same time, one makes each file, and all read it."""
    workers = [
        start("""
report("ready")
begin = int(sys.stdin.readline())
for number in range(10):
    while wall_clock() < begin + number * 10_000:
        pass
    timeline = opened(path.with_name(f"shared-{number}"), rate=1 + os.getpid() % 1000)
    report([entry.to_json() for entry in timeline.entries])
""")
        for _ in range(4)
    ]
    for worker in workers:
        worker.next_report()
    begin = wall_clock() + 20_000
    for worker in workers:
        assert worker.process.stdin
        worker.process.stdin.write(f"{begin}\n")
        worker.process.stdin.flush()
    reported = [worker.rest() for worker in workers]
    assert len(reported[0]) == 10
    assert reported[0] == reported[1] == reported[2] == reported[3]
    assert len(list(path.parent.iterdir())) == 20  # and a promise for each


@pytest.mark.slow
def test_changes_of_many_processes_make_one_timeline(path: Path, start: Callable[[str], Worker]) -> None:
    """Four write, one looks: all agree, and no later entry contradicts what a look made known."""
    reader = opened(path, rate=20_000)
    looks: list[tuple[int, int, int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.0005):
            reader.refresh()
            known = reader.known_until(2**62)
            looks.append((len(reader.entries), known, reader.count(known)))

    workers = [
        start("""
timeline = opened(path)
report("ready")
generator = random.Random(os.getpid())
for step in range(25):
    if step % 5 == 0:
        sys.stdin.readline()
    before = wall_clock()
    entry = timeline.change(before, rate=generator.uniform(1_000, 50_000), paused=generator.random() < 0.2)
    assert entry.since >= before + LEAD_MICROS
    report(entry.to_json())
sys.stdin.readline()
while not timeline.refresh():
    pass  # another one reads
times = timeline.times(0, timeline.last.first)
report([len(timeline.entries), timeline.last.to_json(), times.tolist()[-1000:]])
""")
        for _ in range(4)
    ]
    for worker in workers:
        worker.next_report()
    looking = threading.Thread(target=look)
    looking.start()
    changed: list[list[Entry]] = [[] for _ in workers]
    try:
        for entries in range(21, 102, 20):
            for worker in workers:
                worker.let_go_on()
            for worker, made in zip(workers, changed, strict=True):
                made += [Entry.from_json(worker.next_report()) for _ in range(5)]
            until(lambda: len(reader.entries) == entries)  # noqa: B023 - called at once
    finally:
        done.set()
        looking.join()
    for worker in workers:
        worker.let_go_on()
    (views,) = {json.dumps(worker.rest()) for worker in workers}

    final = opened(path)
    reader.refresh()
    assert reader.entries == final.entries
    last = final.last.first
    assert json.loads(views) == [[101, final.last.to_json(), final.times(0, last).tolist()[-1000:]]]
    assert {entry for made in changed for entry in made} == set(final.entries[1:])
    assert (np.diff(final.times(0, last)) > 0).all()

    latest = {entries: (known, count) for entries, known, count in looks}
    assert len(latest) >= 5  # it did look in between
    for entries, (known, count) in latest.items():
        assert final.count(known) == count
        if entries < len(final.entries):
            unseen = final.entries[entries]
            assert unseen.since >= known
            assert unseen.first >= count
            then = Timeline(final.entries[:entries], final.arrivals)
            assert then.count(unseen.since) == unseen.first


@posix
@pytest.mark.slow
def test_writers_killed_at_any_time(path: Path, start: Callable[[str], Worker]) -> None:
    """Twelve are, two at a time; the file always opens, and holds all that a change had returned."""
    opened(path).close()
    worker = start("""
import signal, time
chance = random.Random(3)

def write(pipe):
    timeline = opened(path)
    generator = random.Random(os.getpid())
    while True:
        entry = timeline.change(wall_clock(), rate=generator.uniform(1, 1000))
        os.write(pipe, json.dumps(entry.to_json()).encode() + b"\\n")

for _ in range(6):
    pair = []
    for _ in range(2):
        reading, writing = os.pipe()
        child = os.fork()  # no import to wait for; it opens the file itself
        if not child:
            try:
                write(writing)
            finally:
                os._exit(1)
        os.close(writing)
        pair.append((child, open(reading)))
    returned = [pipe.readline() for _, pipe in pair]
    for child, pipe in pair:
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    for _, pipe in pair:
        returned += pipe.readlines()
        pipe.close()
    report([json.loads(line) for line in returned if line.endswith("\\n")])
    sys.stdin.readline()
""")
    returned: set[Entry] = set()
    seen: tuple[Entry, ...] = ()
    for _ in range(6):
        returned |= set(map(Entry.from_json, worker.next_report()))
        entries = opened(path).entries
        assert entries[: len(seen)] == seen
        assert returned <= set(entries)
        seen = entries
        worker.let_go_on()
    assert len(seen) > 20


@posix
def test_a_full_disk_leaves_the_file_as_it_was(path: Path, start: Callable[[str], Worker]) -> None:
    """Wherever the room ends, in the rollback journal or in the file, nothing of the entry stays."""
    timeline = opened(path)
    while path.stat().st_size < 4096:
        timeline.change(wall_clock(), rate=len(timeline.entries))
    timeline.close()
    worker = start("""
import resource
def change(room, rate):
    before, known = path.read_bytes(), timeline.entries
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        timeline.change(wall_clock(), rate=rate)
    except LogistreamError as error:
        report([type(error).__name__, str(error), path.read_bytes() == before, timeline.entries == known])
        return False
    return True
timeline = opened(path)
for room in (60, 100, 600, 1500, 2000):  # too little for the rollback journal
    change(room, 1000)
rate = 2000
while change(path.stat().st_size, rate):  # until an entry needs another page
    rate += 1
report([timeline.change(wall_clock(), rate=99).to_json()] if change(2**62, 99) else None)
""")
    *failed, (entry,) = worker.rest()
    assert failed == [["StreamError", f"timeline {path} cannot be written: disk I/O error", True, True]] * 6
    assert opened(path).last == Entry.from_json(entry)


@pytest.mark.slow
@posix
def test_a_folder_without_room_gets_no_file(path: Path, start: Callable[[str], Worker]) -> None:
    """A file that cannot be written whole is not there at all."""
    worker = start("""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (60, resource.RLIM_INFINITY))
try:
    opened(path)
except LogistreamError as error:
    report([str(error), os.listdir(path.parent)])
""")
    assert worker.rest() == [[f"timeline {path} cannot be made: disk I/O error", []]]


# Files of strangers: true checksums, and wrong contents


def rewritten(path: Path, values: list[str]) -> None:
    """Write rows with these strings and true checksums in place of those of a file."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")  # a loss of power is not the point
        database.execute("DELETE FROM timeline")
        checksum = 0
        for number, string in enumerate(values):
            checksum = zlib.crc32(string.encode(), checksum)
            database.execute("INSERT INTO timeline VALUES (?, ?, ?)", (number, string, checksum))
        database.commit()


ODD: list[Any] = [
    None, True, -1, 0, 7, 2**53, 2**63, 10**300, 1.5, 1e300, -0.0, "", "x", "poisson", [], {}, [1],
    "1969-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "2026-11-18T11:06:40Z",
]  # fmt: skip


@pytest.mark.slow
def test_values_that_cannot_be_are_refused_when_the_file_is_opened(path: Path) -> None:
    """Of all files with one value changed, each is refused in one sentence or is read to the end."""
    _, entries = filled(path)
    lines: list[dict[str, Any]] = [dict(HEADER), *(entry.to_json() for entry in entries)]
    refused: list[str] = []
    for row, line in enumerate(lines):
        for key in (*line, "more"):
            for odd in ODD:
                changed = [*lines[:row], {**line, key: odd}, *lines[row + 1 :]]
                rewritten(path, [json.dumps(value) for value in changed])
                try:
                    timeline = open_timeline_file(path, header=changed[0], first_entry=lambda _: entries[0])
                except (DataError, RequestError) as error:
                    refused.append(str(error))
                    continue
                stop = timeline.count(NOW + 100 * SECOND)
                first = max(timeline.entries[0].first, stop - 5000)
                timeline.times(first, min(stop, timeline.last.first if timeline.last.paused else stop))
                timeline_table(path)
                timeline.close()
    assert len(refused) > 300
    assert not [sentence for sentence in refused if "\n" in sentence or len(sentence) > 1000]


@pytest.mark.parametrize(
    ("string", "sentence"),
    [
        ("[" * 100_000 + "]" * 100_000, "row 0 is no JSON that can be read: maximum recursion depth"),
        ("{", "row 0 is no JSON that can be read: "),
        ("[]", "its header is no JSON object of strings and whole numbers"),
        ('{"seed": [1]}', "its header is no JSON object of strings and whole numbers"),
        ('{"seed": ' + "9" * 5000 + "}", "row 0 is no JSON that can be read: Exceeds the limit"),
    ],
)
def test_a_header_that_cannot_be_is_refused(path: Path, string: str, sentence: str) -> None:
    """Deep, broken, of another type, or with an absurd number."""
    opened(path).close()
    rewritten(path, [string, json.dumps(first_entry(NOW).to_json())])
    with pytest.raises(DataError, match=sentence):
        opened(path)


def test_a_view_in_place_of_the_table_is_refused(path: Path) -> None:
    """It could compute for ever."""
    opened(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "DROP TABLE timeline; CREATE VIEW timeline AS WITH RECURSIVE t(n) AS "
            "(SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n AS number, n AS json, n AS crc32 FROM t"
        )
    with pytest.raises(DataError, match=r"is damaged \(it has other tables, or views\)"):
        opened(path)


@posix
def test_a_named_pipe_is_refused(path: Path) -> None:
    """Instead of a wait for ever."""
    os.mkfifo(path)
    with pytest.raises(DataError, match="timeline is not a file on a disk, so it is not a timeline file"):
        opened(path)


def test_the_state_of_a_stream_is_not_that_before_a_change(tmp_path: Path, model: Model) -> None:
    """A process that asks for it once sees what another one has set, though nothing has reported that."""
    clock = Clock()
    here, there = (
        Stream(model, opened(tmp_path / "t", clock=lambda: clock.now), clock=lambda: clock.now)
        for _ in range(2)
    )
    there.change(rate=7)
    clock.now += LEAD_MICROS
    assert here.state["rate"] == 7
