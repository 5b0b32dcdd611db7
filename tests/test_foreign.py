"""An unknown table, from the frame to the chart: its columns become the event."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pandas as pd
import pytest

import logistream as ls
from helpers.ruled import birds as birds_table
from helpers.waiting import until
from helpers.websocket import connect
from logistream import tail
from logistream.errors import RequestError
from logistream.fitting.fit import fit
from logistream.schema import EVENT_TIME, Column, Schema
from logistream.server.server import StreamServer
from logistream.widgets.summary import group_counts, lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.model.model import Model


@pytest.fixture(scope="module")
def birds() -> pd.DataFrame:
    """Return a table of all kinds, with missing values, and difficult names."""
    return birds_table()


@pytest.fixture(scope="module")
def model_of_birds(birds: pd.DataFrame) -> Model:
    """Return a model of it."""
    return fit(birds, name="birds")


@pytest.fixture(scope="module")
def aviary(model_of_birds: Model) -> Iterator[StreamServer]:
    """Give a server that streams it."""
    with StreamServer(model_of_birds, rate=200, port=0) as running:
        yield running


def get(url: str) -> Any:
    """Return the JSON at an address."""
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def test_a_sample_is_a_frame_of_the_same_kind(birds: pd.DataFrame, model_of_birds: Model) -> None:
    """Columns, dtypes, ranges and shares of missing values are those of the table."""
    made = model_of_birds.sample(2000)
    assert made.dtypes.astype(str).to_dict() == birds.dtypes.astype(str).to_dict()
    assert (made.isna().mean() - birds.isna().mean()).abs().max() < 0.04
    off = made["flipper length"] - made["Körpermasse (g)"] / 25  # found, in spite of gaps, and never broken
    assert off.dropna().abs().max() < 0.5 + 1e-6
    for name in ("bill", "Körpermasse (g)"):
        assert made[name].between(birds[name].min(), birds[name].max())[made[name].notna()].all(), name
    for name in ("seen", "hatched", "local"):  # to the day, since the time of day is drawn by itself
        days, real = made[name].dt.floor("D"), birds[name].dt.floor("D")
        assert days.between(real.min(), real.max())[days.notna()].all(), name


def test_the_schema_is_that_of_the_table(aviary: StreamServer, birds: pd.DataFrame) -> None:
    """A valid JSON Schema with the table's columns, then the event's time; closed sets of strings."""
    published = get(f"{aviary.url}/schema")
    jsonschema.Draft202012Validator.check_schema(published)
    assert list(published["properties"]) == [*birds.columns, "event_time"]
    assert set(published["properties"]["class"]["enum"]) == set(birds["class"])
    assert published["properties"]["breeding"]["type"] == ["boolean", "null"]
    assert published["title"] == "event of birds"


def test_every_event_obeys_the_schema(aviary: StreamServer) -> None:
    """What a plain client reads is valid, with missing values as null."""
    check = jsonschema.Draft202012Validator(get(f"{aviary.url}/schema"))
    with connect(aviary.websocket_url) as socket:
        events = [json.loads(socket.recv()) for _ in range(100)]
    for event in events:
        check.validate(event)
    assert any(event["breeding"] is None for event in events)


def test_our_client_reads_it(aviary: StreamServer, birds: pd.DataFrame) -> None:
    """`connect` needs no schema."""

    async def first() -> dict[str, Any]:
        async with ls.connect(aviary.url) as events:
            return await anext(events)

    assert list(asyncio.run(first())) == [*birds.columns, "event_time"]


@pytest.mark.slow
def test_a_frame_learns_the_columns_from_the_server(aviary: StreamServer, model_of_birds: Model) -> None:
    """A frame that follows has the dtypes of the table; numbers of missing values and times stay right."""
    frame = ls.RollingFrame()
    with frame.follow(aviary.url):
        assert frame.wait(events=300, timeout=60)
    df = frame.df
    assert df.dtypes.astype(str).to_dict() == model_of_birds.event_schema.pandas_dtypes
    assert 0.01 < df["breeding"].isna().mean() < 0.3
    assert df["event_time"].is_monotonic_increasing
    assert set(df["class"].cat.categories) <= set(model_of_birds.categories["class"])


def test_what_is_streamed_is_what_the_model_makes(aviary: StreamServer, model_of_birds: Model) -> None:
    """Event n of the stream is row n of the model, whatever its columns."""
    frame = ls.RollingFrame()
    with frame.follow(aviary.url, numbered=True):
        assert frame.wait(events=50, timeout=60)
    df = frame.df
    start = int(df["event_number"].iloc[0])
    rows = model_of_birds.events(start, start + len(df), seed=aviary.state["seed"]).to_pandas()
    for name in ("class", "bill", "seen", "breeding", "flipper length"):
        assert rows[name].astype("object").where(rows[name].notna(), None).tolist() == (
            df[name].astype("object").where(df[name].notna(), None).tolist()
        ), name


def test_the_server_documents_it(aviary: StreamServer) -> None:
    """Docs, status and state know the model by its name."""
    with urllib.request.urlopen(aviary.docs_url) as page:
        assert b"swagger" in page.read()
    assert get(f"{aviary.url}/stream")["model"] == "birds"
    assert get(f"{aviary.url}/openapi.json")["info"]["title"] == "Logistream"


def test_tail_prints_it(aviary: StreamServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object a line, exactly as sent."""
    tail.run(aviary.url, count=3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("Körpermasse (g)" in json.loads(line) for line in lines)


@pytest.mark.slow
def test_the_widgets_suit_it(aviary: StreamServer) -> None:
    """The panel steers it; the dashboard takes the first yes/no and groups by any category."""
    frame = ls.RollingFrame()
    panel, board = ls.ControlPanel(aviary), ls.Dashboard(frame, aviary, by="class")
    assert board.columns is not None
    assert board.columns.title == "Share of ringed?"
    assert {"class", "島"} <= set(board.columns.groupings)
    with frame.follow(aviary.url):
        assert frame.wait(events=300, timeout=60)
        panel._handle_custom_msg({"kind": "rate", "value": 100.5}, [])
        assert aviary.rate == 100.5
        aviary.rate = 200
        picture = board.picture()
    assert picture.cells is not None
    assert 0.1 < np.nanmax(lines(picture.cells, picture.start, picture.stop, window=30).share) <= 1
    groups = group_counts(picture.cells, picture.start, picture.stop)
    assert set(groups.labels) == {"Adélie", "Gentoo", 'Chin"strap\\'}
    assert "image/png" in board._repr_mimebundle_()[0]
    again = ls.Dashboard(frame, aviary, by="class")  # of a frame that knows its columns
    assert again.columns is not None
    assert (again.columns.share, again.columns.amounts) == (board.columns.share, board.columns.amounts)
    again.close()
    board.close()
    panel.close()


def test_a_chart_without_a_server_learns_the_columns_with_its_frame(aviary: StreamServer) -> None:
    """A chart that was made before anything was known begins anew when the frame knows its columns."""
    frame = ls.RollingFrame()
    board = ls.Dashboard(frame)
    wrong = ls.Dashboard(frame, share="Product Status", by="Order Region")
    assert board.columns is not None
    assert board.columns.share == "Late_delivery_risk"
    with frame.follow(aviary.url):
        assert frame.wait(events=100, timeout=60)
        until(lambda: board.picture().total >= 100)
    assert board.columns.title == "Share of ringed?"
    assert board.columns.by in ("class", "島")
    state, reason = wrong.picture().state
    assert state == "refused"
    assert reason.startswith("no column 'Product Status'; there are class,")
    board.close()
    wrong.close()


@pytest.mark.parametrize("extra", [{}, {"n": Column("n", "integer")}, {"t": Column("t", "category")}])
def test_a_chart_of_a_table_without_the_columns_for_it(extra: dict[str, Column]) -> None:
    """Without a yes/no there is no share, without strings there are no groups, but there is a picture."""
    schema = Schema((Column("x", "number"), *extra.values(), EVENT_TIME))
    frame = ls.RollingFrame(schema=schema)
    when = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(100), "s")
    values = {"x": 1.5, "n": 7, "t": pd.Categorical(["a", "b"] * 50), "event_time": when}
    frame.append(pd.DataFrame(values, index=range(100)))
    board = ls.Dashboard(frame)
    assert board.columns is not None
    assert (board.columns.share, board.columns.by) == (None, "t" if "t" in extra else None)
    picture = board.picture()
    assert picture.total == 100
    assert picture.cells is not None
    groups = group_counts(picture.cells, picture.start, picture.stop)
    assert groups.labels == (("a", "b") if "t" in extra else ("",))
    assert groups.hits.sum() == 0
    assert "image/png" in board._repr_mimebundle_()[0]
    with pytest.raises(RequestError, match="no column 'Market'"):
        ls.Dashboard(frame, by="Market")
    board.close()
