"""A stream is steered and read the same way whether its server is in this process or elsewhere."""

from __future__ import annotations

import gc
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from helpers.sockets import free_port
from helpers.waiting import until
from logistream.errors import RequestError, StreamError
from logistream.model.scenario import Scenario
from logistream.server.server import StreamServer
from logistream.stream.faults import read_faults
from logistream.widgets.cells import MISSING_LABEL
from logistream.widgets.control import Control, LocalControl, RemoteControl
from logistream.widgets.export import copied_code, save_rows
from logistream.widgets.past import MOST_EVENTS, count_past, numbers_between
from widgets.test_cells import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from logistream.model.model import Model


@pytest.fixture(params=["local", "remote"])
def control(request: pytest.FixtureRequest, server: StreamServer) -> Iterator[Control]:
    """Give a control of a running server, of either kind."""
    made: Control = LocalControl(server) if request.param == "local" else RemoteControl(server.url)
    until(lambda: made.look() is not None)
    yield made
    made.close()


def test_rate_and_pause_reach_the_server_to_the_digit(control: Control, server: StreamServer) -> None:
    """What is set is in force, and is what `look` returns then."""
    control.change(rate=123.456)
    assert server.rate == 123.456
    control.change(paused=True)
    assert server.paused
    settings = control.look()
    assert settings is not None
    assert (settings.rate, settings.paused, settings.reachable) == (123.456, True, True)


def test_a_refused_rate_comes_with_the_server_s_sentence(control: Control, server: StreamServer) -> None:
    """A value out of range is refused in words and changes nothing."""
    with pytest.raises(RequestError, match=r"1,?000,?000"):
        control.change(rate=2e6)
    assert server.rate == 200


def test_the_timeline_is_that_of_the_server(control: Control, server: StreamServer) -> None:
    """A change made elsewhere is seen, with the same moments."""
    server.rate = 70
    until(lambda: (timeline := control.timeline()) is not None and timeline.last.rate == 70)
    timeline = control.timeline()
    assert timeline is not None
    assert timeline.entries == server.timeline.entries


@pytest.mark.slow
def test_a_change_and_back_is_seen_after_a_break(model: Model, tmp_path: Path) -> None:
    """Another server of the timeline made both while this one was away."""
    path, port = tmp_path / "orders.timeline", free_port()
    with StreamServer(model, rate=70, port=port, timeline=path) as server:
        control = RemoteControl(server.url)
        until(lambda: control.look() is not None)
    until(lambda: (settings := control.look()) is not None and not settings.reachable)
    with StreamServer(model, port=0, timeline=path) as other:
        other.rate = 9
        other.rate = 70
        entries = other.timeline.entries
    with StreamServer(model, port=port, timeline=path):
        until(lambda: (settings := control.look()) is not None and settings.reachable)
        timeline = control.timeline()
        assert timeline is not None
        assert timeline.entries[: len(entries)] == entries
    control.close()


def test_a_change_and_back_is_seen_after_nobody_looked(
    server: StreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A widget that is shown again has all changes since."""
    monkeypatch.setattr("logistream.widgets.control._LOOK_EVERY", 0.01)
    control = RemoteControl(server.url)
    until(lambda: control.look() is not None)
    until(lambda: control._thread is None)
    server.rate = 9
    server.rate = 200
    until(lambda: control.look() is not None and control.timeline().entries == server.timeline.entries)  # type: ignore[union-attr]
    control.close()


def test_scenarios_are_known_set_and_ended(control: Control, server: StreamServer) -> None:
    """The named ones come from the server; what is in force is its, also if it was set elsewhere."""

    def in_force() -> tuple[Scenario, ...]:
        settings = control.look()
        assert settings is not None
        return settings.scenarios

    named = control.known_scenarios()
    assert named == server.known_scenarios
    assert [scenario.name.partition(",")[0] for scenario, _ in named] == [
        "peak season", "port strike", "carrier outage", "fraud wave", "price shock",
    ]  # fmt: skip
    for scenario, sentence in named:
        assert sentence.endswith(".")
        control.change(scenarios=[scenario])
        assert server.scenario == in_force() == (scenario,)
    server.scenario = [{"name": scenario.name, "effects": [{"weight": 2, "where": "Type:CASH"}]}]
    until(lambda: in_force() == server.scenario)
    control.change(scenarios=[])
    assert server.scenario == in_force() == ()


def test_faults_are_set_and_ended(control: Control, server: StreamServer) -> None:
    """What is in force is the server's; a change of the rate does not end it."""
    faults = read_faults([{"drop": True, "share": 0.1}])
    control.change(faults=faults)
    control.change(rate=9)
    settings = control.look()
    assert settings is not None
    assert server.faults == settings.faults == faults
    control.change(faults=())
    assert server.faults == ()


def test_a_server_that_is_gone_is_not_reachable(control: Control, server: StreamServer) -> None:
    """The last settings stay, and a change raises an error."""
    server.stop()
    until(lambda: (settings := control.look()) is not None and not settings.reachable)
    with pytest.raises(StreamError, match=r"stopped|cannot be reached"):
        control.change(rate=5)


def test_a_server_that_was_never_there() -> None:
    """Before the first answer nothing is known, and nothing blocks."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        control = RemoteControl(f"127.0.0.1:{silent.getsockname()[1]}")
        assert control.look() is None
        assert control.timeline() is None
        peer, _ = silent.accept()  # it was asked, and has not answered
        assert control.look() is None
        peer.close()
    until(lambda: control.look() is None and control.timeline() is None)
    control.close()


def test_a_token_is_sent(model: Model) -> None:
    """A server that demands a token is asked with the one in the address."""
    with StreamServer(model, port=0, token="secret") as server:
        control = RemoteControl(server.url)
        until(lambda: control.look() is not None)
        control.change(rate=9)
        assert server.rate == 9
        control.close()


def test_a_proxy_is_not_asked_for_this_machine(server: StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look for loopback on its own machine."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    RemoteControl(server.url).change(rate=9)
    assert server.rate == 9


def test_an_older_answer_does_not_replace_that_to_a_change(server: StreamServer) -> None:
    """A slider would jump back for a moment."""
    answered, released = threading.Event(), threading.Event()
    seen: list[float] = []

    class Slow(RemoteControl):
        """The first answer of the server arrives after that to a change."""

        def _request(self, path: str, *, method: str = "GET", body: bytes | None = None) -> bytes:
            answer = super()._request(path, method=method, body=body)
            if (path, method) == ("/stream", "GET"):
                if answered.is_set() and self._settings is not None:
                    seen.append(self._settings.rate)
                answered.set()
                released.wait(90)
            return answer

    control = Slow(server.url)
    control.look()
    assert answered.wait(90)
    control.change(rate=9)
    released.set()
    until(lambda: control.look() is not None and bool(seen))
    control.close()
    assert set(seen) == {9}


@pytest.mark.parametrize(
    ("status", "error"), [("200 OK", StreamError), ("503 Service Unavailable", RequestError)]
)
def test_an_answer_that_is_cut_off_is_an_error_in_words(status: str, error: type[Exception]) -> None:
    """A server that stops in the middle of an answer raises neither another error nor a ResourceWarning."""
    cut = f"HTTP/1.1 {status}\r\nContent-Length: 100\r\n\r\n{{".encode()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(cut)

        thread = threading.Thread(target=answer)
        thread.start()
        control = RemoteControl(f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(error, match=r"the server (cannot be reached|answers 503)"):
            control.change(rate=5)
        thread.join()
    gc.collect()  # pytest turns the ResourceWarning of a socket that was not closed into a failure


@pytest.fixture
def old(model: Model) -> Iterator[StreamServer]:
    """Give a paused server with a past of ten minutes at 50 events a second."""
    with StreamServer(model, rate=50, port=0, history="10min") as server:
        server.paused = True
        yield server


def columns() -> dict[str, object]:
    """Return columns of orders for counting."""
    from dataclasses import replace

    orders = replace(
        COLUMNS, share="Late_delivery_risk", by="Shipping Mode", place="Order Country",
        latitude="Latitude", longitude="Longitude", amounts=(replace(COLUMNS.amounts[0], column="Sales"),),
    )  # fmt: skip
    return {"columns": orders, "filters": {}, "labels": ["First Class", "Standard Class"]}


def test_the_past_is_counted_event_by_event(old: StreamServer) -> None:
    """An older minute has the events that it had, of which First Class is always late."""
    timeline = old.timeline
    start = timeline.entries[0].since + 60_000_000
    past = count_past(
        old.url,
        timeline,
        start,
        start + 60_000_000,
        newest=30_000,
        **columns(),  # type: ignore[arg-type]
    )
    first, table = past.cells.rows(past.first, past.first + len(past.weights))
    low, high = numbers_between(timeline, first * 250_000, (first + len(table)) * 250_000, 30_000)
    assert past.cells.step == 0.25
    assert table[:, 2 : 2 + len(past.cells.labels)].sum() == high - low
    assert past.weights.tolist() == [1.0] * len(past.weights)
    place = past.cells.labels.index("First Class")
    events, hits = table[:, 2 + place].sum(), table[:, 2 + len(past.cells.labels) + place].sum()
    assert events == hits > 0


@pytest.mark.slow
def test_a_long_past_is_a_sample_that_stands_for_all(model: Model) -> None:
    """Of too many events each cell is represented by some, with the weight that makes up for the rest."""
    with StreamServer(model, rate=2000, port=0, history="5min") as server:
        start = server.timeline.entries[0].since
        newest = int(server.state["next_event_number"])
        past = count_past(
            server.url,
            server.timeline,
            start,
            start + 240_000_000,
            newest=newest,
            **columns(),  # type: ignore[arg-type]
        )
    _, table = past.cells.rows(past.first, past.first + len(past.weights))
    counted = table[:, 2 : 2 + len(past.cells.labels)].sum(axis=1)
    assert counted.sum() <= MOST_EVENTS
    micros = round(past.cells.step * 1e6)
    low, high = numbers_between(
        server.timeline, past.first * micros, (past.first + len(counted)) * micros, newest
    )
    assert high - low > MOST_EVENTS
    assert (counted * past.weights).sum() == pytest.approx(high - low, rel=1e-6)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_rows_are_saved_beside_the_notebook(
    form: str, old: StreamServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the view come from the server, whole, and only those that match."""
    import pandas as pd

    monkeypatch.chdir(tmp_path)
    start = old.timeline.entries[0].since + 1
    filters = {"Shipping Mode": ("First Class",)}
    name, count = save_rows(
        LocalControl(old), None, start, start + 20_000_000, filters, stem="view", form=form
    )
    saved = pd.read_csv(name) if form == "csv" else pd.read_parquet(name)
    assert len(saved) == count > 50
    assert set(saved["Shipping Mode"]) == {"First Class"}


def test_copied_code_gives_the_rows_of_the_view(old: StreamServer) -> None:
    """The code that is copied returns the same rows in any process."""
    start = old.timeline.entries[0].since + 1
    code = copied_code(LocalControl(old), start, start + 20_000_000, {"Shipping Mode": ("First Class",)})
    names: dict[str, object] = {}
    exec(code, names)
    orders = names["rows"]
    assert set(orders["Shipping Mode"]) == {"First Class"}  # type: ignore[index]
    assert 50 < len(orders) < 400  # type: ignore[arg-type]


def test_copied_code_of_a_frame_gives_the_rows_of_the_view() -> None:
    """Those in `[start, stop)` that match, also where a value is missing and a name has quotes."""
    import pandas as pd

    name = 'a "name"'
    when = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(range(4), "s")
    table = pd.DataFrame({name: pd.Categorical(["x", None, "y", "x"]), "event_time": when})
    start, stop = when[0].value // 1000, when[3].value // 1000
    names: dict[str, object] = {"frame": SimpleNamespace(df=table)}
    exec(copied_code(None, start, stop, {name: ("x", MISSING_LABEL)}), names)
    assert names["rows"].index.tolist() == [0, 1]  # type: ignore[attr-defined]
