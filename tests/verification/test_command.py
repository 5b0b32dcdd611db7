"""`logistream verify`: what it prints, and its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.sinks import numbered_batch
from logistream.cli import main
from logistream.server.server import StreamServer
from logistream.stream.stream import Stream

if TYPE_CHECKING:
    from pathlib import Path

    from logistream.model.model import Model


@pytest.fixture
def written(model: Model, tmp_path: Path) -> tuple[Path, Path]:
    """Return the sink and the timeline file of a server that has run."""
    timeline, sink = tmp_path / "orders.timeline", tmp_path / "orders.parquet"
    with StreamServer(model, rate=1000, port=0, history="10s", timeline=timeline) as server:
        batch = numbered_batch(Stream(model, server.timeline), 0, 5000)
        pq.write_table(pa.table(batch), sink)
    return sink, timeline


def test_a_right_sink_is_exit_code_0(written: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """By the timeline file, and with the sums of windows."""
    sink, timeline = written
    sums = sink.with_suffix(".csv")
    arguments = ["verify", str(sink), "--timeline", str(timeline), "--window", "1s", "--watermark", "1s"]
    assert main([*arguments, "--by", "Market", "--sum", "Sales"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("5,000 rows, compared in 25 columns with events 0 to 4,999 of stream ")
    assert "The pipeline did nothing wrong.\n" in out
    assert "Pacific Asia" in out
    assert main([*arguments, "--sum", "Sales,Order Item Quantity", "-o", str(sums)]) == 0
    assert f"sums of windows: {sums}" in capsys.readouterr().out
    frame = pd.read_csv(sums)
    assert list(frame) == ["window", "events", "Sales", "Order Item Quantity", "too_late", "corrupted"]
    assert frame["events"].sum() == 5000


def test_what_the_pipeline_did_is_exit_code_1(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the address of a running server."""
    sink = tmp_path / "sink"
    sink.mkdir()
    with StreamServer(model, rate=1000, port=0, history="10s") as server:
        batch = pa.table(numbered_batch(Stream(model, server.timeline), 0, 5000))
        pq.write_table(batch.slice(2500), sink / "a.parquet")
        pq.write_table(batch.slice(0, 2499), sink / "b.parquet")
        assert main(["verify", str(sink), "--url", server.url]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert "The pipeline is at fault: 1 lost." in out
    assert "2,499" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no.parquet"], "no file at no.parquet: check the path"),
        (["SINK", "--late", "30s"], "late needs arrived, the column with the time at which each row arrived"),
        (["SINK", "-o", "x.csv"], "--output needs --window: it is for the sums of windows"),
        (["SINK", "--window", "1s", "-o", "x.txt"], "cannot write 'x.txt': the name must end in .parquet, "
         ".csv, .ndjson"),
        (["SINK", "--start", "x"], "argument --start: must be a whole number, not 'x'; "
         "see logistream verify --help"),
        (["SINK", "--url", "x"], "argument --url: not allowed with argument --timeline; "
         "see logistream verify --help"),
    ],
)  # fmt: skip
def test_what_cannot_be_verified_is_exit_code_2(
    written: tuple[Path, Path], arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence on stderr, nothing on stdout: 1 means that the pipeline did something wrong."""
    sink, timeline = written
    given = [str(sink) if argument == "SINK" else argument for argument in arguments]
    try:
        code: object = main(["verify", "--timeline", str(timeline), *given])
    except SystemExit as ended:  # argparse ends the program itself
        code = ended.code
    assert (code, *capsys.readouterr()) == (2, "", f"logistream: {sentence}\n")


def test_a_server_that_is_not_there_is_exit_code_2(
    written: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """It could not be found out what the pipeline did."""
    assert main(["verify", str(written[0]), "--url", "http://127.0.0.1:9"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "127.0.0.1:9" in err
    assert err.count("\n") == 1
