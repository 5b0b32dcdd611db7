"""Tables of every usual format, from the file to a model and back to a file."""

from __future__ import annotations

import bz2
import decimal
import gzip
import io
import json
import lzma
import math
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logistream as ls
from logistream.cli import main
from logistream.errors import DataError, DataWarning, RequestError
from logistream.tables import files
from logistream.tables.files import check_writable, open_table, write_table

if TYPE_CHECKING:
    from collections.abc import Callable

N = 120


def table() -> pd.DataFrame:
    """Return a table of all kinds, as a file should be read."""
    rng = np.random.default_rng(5)
    sold = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 300 * 1440, N), "min")
    return pd.DataFrame(
        {
            "sold": sold.as_unit("us"),
            "price": rng.normal(0, 5000, N).round(2),
            "pieces": rng.integers(0, 10**6, N),
            "zip": [f"{code:05d}" for code in rng.integers(501, 99950, N)],
            "city": rng.choice(["Köln", "São Paulo", "Łódź", "a;b, c|d\te"], N),
            "gift": rng.random(N) < 0.3,
            "note": pd.Series(rng.choice(["x", "y"], N), dtype="str").mask(rng.random(N) < 0.2),
            "score": pd.Series(rng.integers(0, 9, N), dtype="Int64").mask(rng.random(N) < 0.2),
        }
    )


def written(frame: pd.DataFrame, pattern: str, thousands: str, mark: str) -> pd.DataFrame:
    """Return a table as strings, as a program of some country exports it."""
    other = frame.astype(object)
    other["sold"] = frame["sold"].dt.strftime(pattern)
    other["price"] = [
        f"{x:,.2f}".replace(",", "t").replace(".", mark).replace("t", thousands) for x in frame["price"]
    ]
    other["pieces"] = [f"{n:,d}".replace(",", thousands) for n in frame["pieces"]]
    return other


def silently(path: Path, **options: Any) -> pd.DataFrame:
    """Read a file of which nothing is doubtful."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ls.read_table(path, **options)


AMERICAN, GERMAN, FRENCH = (
    ("%m/%d/%Y %H:%M", ",", "."),
    ("%d.%m.%Y %H:%M", ".", ","),
    ("%Y-%m-%dT%H:%M", " ", ","),
)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("style", [AMERICAN, GERMAN, FRENCH], ids=["American", "German", "French"])
def test_text_of_any_country(tmp_path: Path, separator: str, style: tuple[str, str, str]) -> None:
    """Separator, thousands, decimal mark and the pattern of dates are found."""
    path = tmp_path / "table.txt"
    written(table(), *style).to_csv(path, index=False, sep=separator)
    pd.testing.assert_frame_equal(silently(path), table())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    """The encoding is found, with or without a byte order mark."""
    path = tmp_path / "table.txt"
    written(table(), *GERMAN).to_csv(path, index=False, sep=";", encoding=encoding)
    pd.testing.assert_frame_equal(silently(path), table())


PACKED: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("ending", [*PACKED, "zip"])
def test_a_packed_file(tmp_path: Path, ending: str) -> None:
    """What is packed is known by its content, whatever it is called."""
    content = table().to_csv(index=False).encode()
    path = tmp_path / "table.csv"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("folder/", "")
            archive.writestr("folder/table.csv", content)
            archive.writestr("__MACOSX/._table.csv", b"\0")
    else:
        path.write_bytes(PACKED[ending](content))
    pd.testing.assert_frame_equal(silently(path), table())


@pytest.mark.parametrize("ending", ["parquet", "feather", "xlsx", "ndjson", "json"])
def test_a_file_with_types(tmp_path: Path, ending: str) -> None:
    """Parquet, Feather, Excel and JSON give the table that was written to them."""
    path, frame = tmp_path / f"table.{ending}", table()
    if ending == "parquet":
        frame.to_parquet(path)
    elif ending == "feather":
        frame.to_feather(path)
    elif ending == "xlsx":
        frame.to_excel(path, index=False)
    else:
        text = frame.assign(sold=frame["sold"].dt.strftime("%d.%m.%Y %H:%M"))
        text.to_json(path, orient="records", lines=ending == "ndjson", force_ascii=False)
    pd.testing.assert_frame_equal(silently(path), frame)


def test_types_that_only_a_columnar_file_has(tmp_path: Path) -> None:
    """A day is a timestamp, a decimal a number; a whole number that looks like a date stays one."""
    days = pa.array([20_000, 20_001], pa.date32())
    money = pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.25")])
    pq.write_table(pa.table({"d": days, "m": money, "n": [20260331, 20260401]}), tmp_path / "t.parquet")
    got = silently(tmp_path / "t.parquet")
    assert [dtype.kind for dtype in got.dtypes] == ["M", "f", "i"]
    assert got["d"].iloc[0] == pd.Timestamp("2024-10-04")


def test_windows_text_and_a_declared_separator(tmp_path: Path) -> None:
    """Curly quotes of Windows-1252, and the first line that Excel writes to say how fields are separated."""
    path = tmp_path / "t.csv"
    path.write_bytes("sep=;\r\nname;n\r\n“a”, b;1\r\n€;2\r\n".encode("cp1252"))
    assert silently(path).to_dict("list") == {"name": ["“a”, b", "€"], "n": [1, 2]}


LOOKS: list[tuple[str, str, str, dict[str, list[Any]]]] = [
    (
        "one column",
        "a b\n1 2\n3 4\n",
        "read as one column: fields are expected between commas",
        {"a b": ["1 2", "3 4"]},
    ),
    (
        "too long",
        "a,b\n" + "1,2\n" * 3 + "1,2,3\n",
        "left out 1 of 4 rows, which have more fields than the header, 2",
        {"a": [1] * 3, "b": [2] * 3},
    ),
    (
        "too short",
        "a,b\n" + "1,2\n" * 2 + "1\n",
        "1 of 3 rows have fewer fields than the header, 2",
        {"a": [1, 1, 1], "b": [2, 2, pd.NA]},
    ),
    (
        "separator at the end",
        "a,b\n1,2,\n3,4,\n",
        "each row ends with a separator",
        {"a": [1, 3], "b": [2, 4]},
    ),
    (
        "row names",
        "a,b\nx,1,2\ny,3,4\n",
        "the first field of the rows has no name",
        {"a": [1, 3], "b": [2, 4]},
    ),
    ("row numbers", ",a\n0,5\n1,6\n", "the first column has no name and numbers the rows", {"a": [5, 6]}),
    (
        "no header",
        "5.1,x\n4.9,x\n",
        "the first row holds values",
        {"column_1": [5.1, 4.9], "column_2": ["x", "x"]},
    ),
    ("perhaps no header", "5.1,y\n4.9,x\n", "the first row looks like values", {"5.1": [4.9], "y": ["x"]}),
    (
        "title",
        "Sales of 2026\nnot audited\n\na,b,c\n1,2,3\n4,5,6\n7,8,9\n1,2,3\n",
        "left out 3 lines before the names of the columns",
        {"a": [1, 4, 7, 1], "b": [2, 5, 8, 2], "c": [3, 6, 9, 3]},
    ),
    (
        "commas in one column",
        "name\nDoe, Jane\nRoe, Ann\n",
        "read as one column",
        {"name": ["Doe, Jane", "Roe, Ann"]},
    ),
    ("marks", "a\n1\n?\n", "column 'a': '?' was read as a missing value", {"a": [1, pd.NA]}),
]


@pytest.mark.parametrize(
    ("text", "sentence", "expected"), [pytest.param(*look, id=name) for name, *look in LOOKS]
)
def test_what_looks_misread_is_reported(
    tmp_path: Path, text: str, sentence: str, expected: dict[str, list[Any]]
) -> None:
    """A warning names the file and what was done; the rest is read."""
    path = tmp_path / "t.csv"
    path.write_text(text, "utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = ls.read_table(path)
    assert [warning.category for warning in caught] == [DataWarning] * len(caught)
    assert any(str(warning.message).startswith(f"{path}: {sentence}") for warning in caught)
    assert {Path(warning.filename) for warning in caught} == {Path(__file__)}
    pd.testing.assert_frame_equal(got, pd.DataFrame(expected).convert_dtypes(), check_dtype=False)


def zipped(*names: str) -> bytes:
    """Return an archive of empty files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty: expected a table"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "it holds binary data; expected CSV, Parquet, Feather, Excel or JSON"),
        (b"PAR1 and then nothing", "starts like a Parquet file but cannot be read"),
        (b"ARROW1 and then nothing", "starts like a Feather file but cannot be read"),
        (gzip.compress(b"a,b\n1,2\n" * 99)[:30], "cannot be unpacked: it is damaged or cut short"),
        (b"PK\x03\x04 and then nothing", "cannot be unpacked: it is damaged, cut short or encrypted"),
        (zipped("a.csv", "b.csv"), "holds 2 files: a.csv, b.csv; expected one table: unpack it"),
        (zipped("xl/workbook.xml"), "starts like an Excel file but cannot be read"),
        (b'{"a": 1}\n{"a": 2\n', "is not a table of JSON lines: line 2 is not JSON: "),
        (b"[1, 2]", "is JSON but not a table: expected an array of objects"),
        (b"a,b\n" + b"1,2,3,4\n1,2,3\n" * 9, "18 of 18 rows have more fields than the first line, 2"),
        (b'a,b\n"1,2\n', "is not a table"),
        (b"a,b\n", "has a header but no rows: expected at least one"),
        (b"\xff\xfea\0,\0b", "is"),
    ],
    ids=[
        "empty",
        "PNG",
        "Parquet",
        "Feather",
        "gzip",
        "zip",
        "zip of two",
        "Excel",
        "lines",
        "array",
        "ragged",
        "quote",
        "header",
        "UTF-16",
    ],  # a zip file holds the time at which it was made
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    """One sentence: the file, and what is wrong with it."""
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        ls.read_table(path)
    assert str(caught.value).startswith(str(path)) or str(path) in str(caught.value)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_that_are_asked_for(tmp_path: Path) -> None:
    """Some columns are read, others left out, and types are as the caller says, in any format."""
    frame = table()
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        got = silently(
            tmp_path / name, columns=["zip", "pieces", "city"], drop=["city"], types={"pieces": "category"}
        )
        assert got.dtypes.astype(str).to_dict() == {"pieces": "str", "zip": "str"}
        with pytest.raises(RequestError, match="no column 'town'; there are"):
            ls.read_table(tmp_path / name, drop=["town"])
    with pytest.raises(DataError, match="column 'city' should hold numbers, but row "):
        ls.read_table(tmp_path / "t.csv", types={"city": "number"})


cells = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6).filter(
    lambda text: (
        re.search("[^\\W\\d_]", text) and text.lower() not in ("na", "nan", "nat", "null", "none", "inf")
    )
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    strings=st.lists(cells.map("x".__add__), min_size=2, max_size=8),
    numbers=st.data(),
    separator=st.sampled_from([",", ";", "\t", "|"]),
)
def test_any_text_file_reads_back(
    tmp_path_factory: pytest.TempPathFactory, strings: list[str], numbers: st.DataObject, separator: str
) -> None:
    """Any strings and numbers, with quotes, separators and other scripts in them, come back exactly."""
    n = len(strings)
    frame = pd.DataFrame(
        {
            "s": pd.Series(strings, dtype="str"),
            "i": numbers.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=n, max_size=n)),
            "x": numbers.draw(
                st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=n, max_size=n)
            ),
        }
    )
    path = tmp_path_factory.mktemp("any") / "t.csv"
    frame.to_csv(path, index=False, sep=separator)
    raw = open_table(path)
    assert (raw.separator, raw.notes) == (separator, ())
    pd.testing.assert_frame_equal(
        ls.read_table(path, types={"i": "integer"}), frame, check_dtype=bool((frame["x"] % 1 != 0).any())
    )


def test_dates_are_written_as_they_were_read(tmp_path: Path) -> None:
    """From a file to a model and to a file again: each date in the form that its column had."""
    rng = np.random.default_rng(3)
    when = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 300 * 86_400, 200), "s")
    frame = pd.DataFrame(
        {
            "american": [f"{t.month}/{t.day}/{t.year} {t.hour}:{t.minute:02d}" for t in when],
            "german": when.strftime("%d.%m.%Y"),
            "plain": when.strftime("%Y%m%d"),
            "epoch": when.as_unit("s").astype("int64"),
            "iso": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
    frame.loc[::9, "german"] = ""
    frame.to_csv(tmp_path / "t.csv", index=False)
    model = ls.fit(silently(tmp_path / "t.csv"))
    model.save(tmp_path / "t.model")
    for ending in ("csv", "ndjson", "parquet"):
        out = tmp_path / f"out.{ending}"
        assert main(["sample", "-n", "50", "--model", str(tmp_path / "t.model"), "-o", str(out)]) == 0
    forms = {
        "american": r"[1-9]\d?/[1-9]\d?/\d{4} (0|[1-9]\d?):\d\d",
        "german": r"\d\d\.\d\d\.\d{4}",
        "plain": r"202[56]\d{4}",
        "epoch": r"17\d{8}",
        "iso": r"202\d-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    }
    made = pd.read_csv(tmp_path / "out.csv", dtype=str)
    for name, form in forms.items():
        assert made[name].dropna().str.fullmatch(form).all(), name
    assert 0 < made["german"].isna().sum() < 25
    lines = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text("utf-8").splitlines()]
    assert [type(lines[1][name]) for name in forms] == [str, str, int, int, str]
    assert [str(lines[1][name]) for name in forms] == made.iloc[1].tolist()
    typed = pd.read_parquet(tmp_path / "out.parquet")
    assert [dtype.kind for dtype in typed.dtypes] == ["M"] * 5
    again = silently(tmp_path / "out.csv")
    assert again.dtypes.astype(str).to_dict() == model.sample(1).dtypes.astype(str).to_dict()


def test_an_odd_column_does_not_end_the_fit(tmp_path: Path) -> None:
    """What cannot be learned is left out with a sentence on stderr, unless a type says otherwise."""
    frame = table()
    frame["huge"], frame["empty"], frame["infinite"] = "9" * 30, "", ["inf", *["1.5"] * (N - 1)]
    lines = [
        json.dumps({**row, "sold": str(row["sold"]), "nested": {"a": [1]}}, default=str).replace(
            "NaN", "null"
        )
        for row in frame.astype(object).where(frame.notna(), None).to_dict("records")
    ]
    lines = [line.replace('"inf"', "Infinity").replace(f'"{"9" * 30}"', "9" * 30) for line in lines]
    (tmp_path / "t.ndjson").write_text("\n".join(lines), "utf-8")
    command = [
        sys.executable,
        "-m",
        "logistream",
        "fit",
        str(tmp_path / "t.ndjson"),
        "-o",
        str(tmp_path / "m.model"),
    ]
    done = subprocess.run([*command, "--types", "huge=category"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("logistream: note: ")]
    assert [re.findall("column '(.*?)'", note) for note in notes] == [["empty"], ["infinite"], ["nested"]]
    assert ls.load_model(tmp_path / "m.model").schema.names == (*table().columns, "huge")


def test_the_command_line_chooses_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--columns, --drop and --types, with commas between; names with commas in double quotes."""
    frame = table().rename(columns={"note": "note, long"})
    source, target = tmp_path / "t.csv", tmp_path / "m.model"
    frame.assign(sold=frame["sold"].dt.strftime("%B %-d, %Y")).to_csv(source, index=False)
    fit = ["fit", str(source), "-o", str(target)]
    assert (
        main(
            [*fit, "--drop", 'zip,"note, long"', "--drop", "city", "--types", "pieces=number,sold=%B %d, %Y"]
        )
        == 0
    )
    schema = ls.load_model(target).schema
    assert schema.names == ("sold", "price", "pieces", "gift", "score")
    assert (schema["pieces"].kind, schema["sold"].text_format) == ("number", "%B %-d, %Y")
    assert main([*fit, "--columns", "zip,gift"]) == 0
    assert ls.load_model(target).schema.names == ("zip", "gift")
    capsys.readouterr()
    assert main([*fit, "--drop", "town"]) == 2
    assert "logistream: no column 'town'; there are" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*fit, "--types", "zip"])
    assert "must be NAME=TYPE, as in zip=category, not 'zip'" in capsys.readouterr().err


def test_that_a_result_can_be_written_is_known_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`fit` and `sample` refuse a path before they read anything, and leave nothing behind."""
    absent = tmp_path / "absent"
    for arguments, sentence in (
        (["fit", str(absent), "-o", str(absent / "m.model")], f"cannot write to {absent}: "),
        (["fit", str(absent), "-o", str(tmp_path)], f"cannot write to {tmp_path}: it is a folder"),
        (
            ["sample", "-n", "5", "--model", str(absent), "-o", str(absent / "t.csv")],
            f"cannot write to {absent}",
        ),
        (
            ["sample", "-n", "5", "--model", str(absent), "-o", "t.xls"],
            "cannot write 't.xls': the name must end",
        ),
    ):
        assert main(arguments) in (1, 2)
        assert sentence in capsys.readouterr().err
    check_writable(tmp_path / "new.model")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    """A table that cannot be written does not touch what was there."""
    path = tmp_path / "t.csv"
    path.write_text("old", "utf-8")
    with pytest.raises(RequestError, match="a date pattern cannot hold %j"):
        write_table(table(), path, {"sold": "%j"})
    assert path.read_text("utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.sample
def test_the_raw_orders_as_any_other_table(sample_path: Path) -> None:
    """Of all 53 columns dates are found, and numbers are those that pandas reads."""
    raw = pd.read_csv(sample_path, encoding="latin-1")
    got = silently(sample_path, drop=["Market"])
    for name in raw.columns.drop("Market"):
        if pd.api.types.is_numeric_dtype(raw[name]):
            assert np.allclose(got[name].astype("float64"), raw[name], equal_nan=True), name
    dates = ["order date (DateOrders)", "shipping date (DateOrders)"]
    assert [got[name].dtype.kind for name in dates] == ["M", "M"]
    assert (got[dates[1]].dt.strftime("%-m/%-d/%Y %-H:%M") == raw[dates[1]]).all()


@pytest.mark.slow
@pytest.mark.sample
def test_orders_are_found_in_any_form(sample_path: Path, orders: pd.DataFrame, tmp_path: Path) -> None:
    """Packed, separated by semicolons, in UTF-16, the raw table is cleaned all the same."""
    raw = pd.read_csv(sample_path, encoding="latin-1", dtype=str, keep_default_na=False)
    raw.to_csv(tmp_path / "t.gz", sep=";", index=False, encoding="utf-16", compression="gzip")
    pd.testing.assert_frame_equal(silently(tmp_path / "t.gz"), orders)


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet='ab ",\r\n', max_size=40))
def test_rows_that_are_lines_have_as_many_fields_as_a_reader_of_csv_finds(text: str) -> None:
    """The fast count of fields is that of the csv module, for any text whose rows are lines."""
    quick = files._lengths_of_lines(text, ",")
    records = [record for record in files._records(text, ",") if record]
    if quick is not None:
        assert quick[1] == (records[0] if records else [])
        assert sorted(quick[0].elements()) == sorted(map(len, records[1:]))
    assert quick is not None or "\r" in text or '"' in text


def test_lines_hold_every_digit(tmp_path: Path) -> None:
    """Floats of any size come back with every bit, gaps as null, and times to the microsecond."""
    values = [-15.176137600643957, 7.117277635001963e-13, 9.460189604000654e16, float("nan"), 0.1 + 0.2]
    when = pd.Timestamp("2026-03-01T09:05:00.123456", tz="UTC")
    frame = pd.DataFrame({"b": ["ä\u2028"] * 5, "a": values, "when": [when] * 5, "n": range(5)})
    for part in (frame, frame[["a"]], frame.drop(columns="a"), frame.iloc[:0]):
        write_table(part, tmp_path / "out.ndjson")
        lines = (tmp_path / "out.ndjson").read_text("utf-8").split("\n")[:-1]
        rows = [json.loads(line) for line in lines]
        assert [list(row) for row in rows] == [list(part.columns)] * len(part)
        if "a" in part:
            assert [repr(row["a"]) for row in rows] == [
                repr(None if math.isnan(value) else value) for value in part["a"]
            ]
        if "when" in part:
            assert all(pd.Timestamp(row["when"]) == when for row in rows)
