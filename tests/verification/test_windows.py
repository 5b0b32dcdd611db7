"""The right sums of windows, against pandas and a loop over the deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from helpers.sinks import numbered_frame
from logistream import verify

if TYPE_CHECKING:
    from logistream.stream.stream import Stream


def test_sums_are_those_of_pandas(stream: Stream) -> None:
    """For each window and group the number of events, and the sums to the cent."""
    frame = numbered_frame(stream, 150, 70_150)
    windows = verify(
        frame,
        stream,
        window="1min",
        watermark="30s",
        by=["Market", "Type"],
        sums=["Sales", "Late_delivery_risk"],
    ).windows
    assert windows is not None
    frame["cents"] = (frame["Sales"] * 100).round().astype("int64")
    keys = [frame["event_time"].dt.floor("1min").rename("window"), "Market", "Type"]
    expected = frame.groupby(keys).agg(
        events=("Sales", "size"), cents=("cents", "sum"), risk=("Late_delivery_risk", "sum")
    )
    found = windows.set_index(["window", "Market", "Type"])
    assert (found["events"] == expected["events"]).all()
    assert len(found) == len(expected) > 100
    assert found["Sales"].tolist() == (expected["cents"] / 100).tolist()
    assert (found["Late_delivery_risk"] == expected["risk"]).all()
    assert (found[["too_late", "corrupted"]] == 0).all(axis=None)


@pytest.mark.parametrize("watermark", [None, "0s", "1s"])
def test_a_watermark_leaves_out_what_the_wire_delivers_too_late(
    faulty: Stream, watermark: str | None
) -> None:
    """Each event counts once, if it is delivered before the watermark reaches the end of its window."""
    start, stop = 2000, 6000
    rows = numbered_frame(faulty, start, stop)
    windows = verify(
        rows, faulty, start=start, stop=stop, window="2s", watermark=watermark, by="Market", sums="Sales"
    ).windows
    assert windows is not None
    batch, deliveries = faulty.deliveries(start, stop)
    times = faulty.timeline.times(0, stop)
    width, behind = 2_000_000, 1_000_000 if watermark == "1s" else 0
    newest = 0
    counted: list[tuple[int, str, float, bool, bool]] = []
    for row, (number, copy) in enumerate(zip(deliveries.numbers, deliveries.copies, strict=True)):
        newest = max(newest, int(times[number]))
        if copy:
            continue
        window = int(times[number]) // width * width
        late = watermark is not None and window + width <= newest - behind
        market, sales = batch.column("Market")[row].as_py(), batch.column("Sales")[row].as_py()
        counted.append((window, market, sales, late, row in deliveries.corruptions))
    frame = pd.DataFrame(counted, columns=["window", "Market", "Sales", "late", "corrupted"])
    frame["window"] = pd.to_datetime(frame["window"], unit="us", utc=True)
    for (begin, market), group in frame.groupby(["window", "Market"]):
        [(_, found)] = windows[(windows["window"] == begin) & (windows["Market"] == market)].iterrows()
        in_time = group[~group["late"]]
        assert (found["events"], found["too_late"]) == (len(in_time), group["late"].sum())
        assert found["corrupted"] == in_time["corrupted"].sum()
        assert found["Sales"] == pytest.approx(in_time["Sales"].sum(), abs=0.001)
    assert windows["events"].sum() == (~frame["late"]).sum()
    assert (windows["too_late"].sum() > 0) == (watermark is not None)
