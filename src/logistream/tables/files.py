"""Files: read tables of every usual format, write them whole or not at all, find what is shipped."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import os
import re
import tempfile
import zipfile
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.api.types import is_float_dtype
from pyarrow import feather

from logistream.errors import DataError, RequestError
from logistream.tables.dates import is_number, write_dates
from logistream.tables.kinds import header_is_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["FORMATS", "RawTable", "check_writable", "open_table", "replacing", "shipped_file", "write_table"]


FORMATS = (".parquet", ".csv", ".ndjson")
"""Endings of the files that `write_table` makes."""

_EXPECTED = "expected CSV, Parquet, Feather, Excel or JSON lines"
_SEPARATORS = ("\t", ";", "|", ",")  # of two that fit alike the first
_ONE_COLUMN = "\x1f"  # the separator where there is none: it stands in no text
_MOST_ALIKE = 0.8  # of the rows, below lines that hold a title
_SNIFFED = 1 << 18  # characters of a file from which its separator is found
_LINES = 65_536  # rows that are written at once
_PROBED = 1000  # rows from which the first is known to hold names or values
_MOST_LEFT_OUT = 0.5  # of the rows, for being longer than the header
_PACKED: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\0": lzma.decompress,
}
_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


Choose: TypeAlias = "Callable[[Sequence[str]], Sequence[str]]"


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table as it stands in a file.

    Attributes
    ----------
    frame : DataFrame of shape (n_rows, n_columns)
        Of a text file strings without gaps, as they are written; else what the file says.
    separator : str or None
        Between the fields of a text file, None for one column.
    typed : bool
        Whether its types can be relied on: a number in a text file or a sheet may be a string.
    columnar : bool
        Whether these types include dates, as in Parquet and Feather files.
    notes : tuple of str
        What looks misread.
    """

    frame: pd.DataFrame
    separator: str | None = None
    typed: bool = True
    columnar: bool = False
    notes: tuple[str, ...] = ()


def open_table(path: str | os.PathLike[str], choose: Choose | None = None) -> RawTable:
    """Read a file as it is.

    The format is that of the content, whatever the file is called: Parquet, Feather, Excel (.xlsx), JSON (an
    array of objects, or an object a line), or text with fields between commas, semicolons, tabs or |, in
    UTF-8, UTF-16, UTF-32 or Windows-1252; each of them also packed with gzip, bzip2, xz or zip.

    Parameters
    ----------
    path : path
        The file.
    choose : callable, optional
        From the names of all columns to those to read.

    Raises
    ------
    DataError
        If the file does not exist, or is empty, damaged or not a table.
    """
    source = Path(path)
    try:
        content = source.read_bytes()
    except FileNotFoundError:
        raise DataError(f"no file at {source}: check the path") from None
    except OSError as exc:
        raise DataError(f"{source} cannot be read: {exc.strerror or exc}") from exc
    return _open(content, str(source), choose)


def _open(content: bytes, source: str, choose: Choose | None) -> RawTable:
    if not content:
        raise DataError(f"{source} is empty: expected a table")
    for magic, unpack in _PACKED.items():
        if content.startswith(magic):
            try:
                unpacked = unpack(content)
            except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as exc:
                raise DataError(f"{source} cannot be unpacked: it is damaged or cut short") from exc
            return _open(unpacked, source, choose)
    if content.startswith(b"PK\x03\x04"):
        return _open_zip(content, source, choose)
    if content.startswith((b"PAR1", b"ARROW1", b"FEA1")):
        return _chosen(_open_columnar(content, source), choose)
    text = _decode(content, source)
    if re.match(r"\s*[\[{]", text):
        table = _open_json(text, source)
        if table is not None:
            return _chosen(table, choose)
    return _open_text(text, source, choose)


def _chosen(table: RawTable, choose: Choose | None) -> RawTable:
    names = list(table.frame.columns)
    return table if choose is None else replace(table, frame=table.frame[choose(names)])


def _open_zip(content: bytes, source: str, choose: Choose | None) -> RawTable:
    """Read an Excel file, or the one file in an archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if "xl/workbook.xml" in names:
                return _chosen(_open_excel(content, source), choose)
            files = [name for name in names if not re.search(r"/$|(?:^|/)(?:\.|__)", name)]  # none of macOS
            if len(files) != 1:
                raise DataError(
                    f"{source} holds {len(files)} files{': ' if files else ''}{', '.join(files[:5])}"
                    f"{', ...' if len(files) > 5 else ''}; expected one table: unpack it, and name the file"
                )
            return _open(archive.read(files[0]), f"{files[0]} in {source}", choose)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise DataError(f"{source} cannot be unpacked: it is damaged, cut short or encrypted") from exc


def _open_excel(content: bytes, source: str) -> RawTable:
    """Read the first sheet that is not empty."""
    try:
        with pd.ExcelFile(io.BytesIO(content), engine="openpyxl") as book:
            for sheet in book.sheet_names:
                frame = pd.read_excel(book, sheet_name=sheet, dtype=object)
                if len(frame.columns):
                    break
            others = [str(name) for name in book.sheet_names if name != sheet]
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, SyntaxError) as exc:
        raise DataError(f"{source} starts like an Excel file but cannot be read: {_last_line(exc)}") from exc
    if frame.empty:
        raise DataError(f"{source} has no rows: expected a table on its first sheet")
    frame.columns = frame.columns.map(str)
    frame = pd.DataFrame({name: _plain_column(_with_none(frame[name])) for name in frame.columns})
    notes = [f"read sheet {sheet!r}, and not {', '.join(map(repr, others))}"] if others else []
    unnamed = [name for name in frame.columns if re.fullmatch(r"Unnamed: \d+", name)]
    if len(unnamed) > len(frame.columns) / 2:
        notes.append("most columns have no name: the first row of the sheet should hold the names")
    return RawTable(frame, typed=False, notes=tuple(notes))


def _open_columnar(content: bytes, source: str) -> RawTable:
    """Read a Parquet or Feather file; days become timestamps, and decimals real numbers."""
    kind = "Parquet" if content.startswith(b"PAR1") else "Feather"
    try:
        buffer = pa.BufferReader(content)
        table = pq.read_table(buffer) if kind == "Parquet" else feather.read_table(buffer)
        for position, field in enumerate(table.schema):
            if pa.types.is_decimal(field.type):
                table = table.set_column(position, field.name, table[position].cast(pa.float64()))
        frame: pd.DataFrame = table.to_pandas(date_as_object=False)
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise DataError(
            f"{source} starts like a {kind} file but cannot be read: it is damaged or cut short"
        ) from exc
    return RawTable(frame, columnar=True)


def _open_json(text: str, source: str) -> RawTable | None:
    """Read an array of objects, or an object a line; None if the text only begins like JSON."""
    records: Any = []
    try:
        records = json.loads(text)
    except ValueError:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        for number, line in lines:
            try:
                records.append(json.loads(line))
            except ValueError as exc:
                if not records:
                    return None
                raise DataError(
                    f"{source} is not a table of JSON lines: line {number:,} is not JSON: {exc}"
                ) from exc
    records = [records] if isinstance(records, dict) else records
    if not records or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{source} is JSON but not a table: expected an array of objects, or one a line")
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: _plain_column([record.get(name) for record in records]) for name in names}
    return RawTable(pd.DataFrame(columns))


def _with_none(values: pd.Series[Any]) -> list[Any]:
    return [None if missing else value for value, missing in zip(values, values.isna(), strict=True)]


def _plain_column(values: list[Any]) -> Any:  # noqa: ANN401 - what a DataFrame takes
    """Return values as a column of their type: whole numbers with gaps stay whole."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pd.array(values, dtype="Int64" if None in values else "int64")
    if kinds and kinds <= {int, float}:
        try:
            return pd.array(values, dtype="float64")
        except OverflowError:
            pass
    if kinds == {bool}:
        return pd.array(values, dtype="boolean" if None in values else "bool")
    if kinds == {datetime}:
        return pd.Series(values, dtype="datetime64[us]")
    return pd.Series(values, dtype="str" if kinds == {str} else object)


# Text


def _decode(content: bytes, source: str) -> str:
    """Return the text of a file: by its byte order mark, as UTF-16, as UTF-8, or as Windows-1252."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    head = content[: 1 << 12]
    if encoding is None and b"\0" in head:
        zeros = [head[start::2].count(0) / max(len(head[start::2]), 1) for start in (0, 1)]
        if max(zeros) < 0.4 or min(zeros) > 0.1:
            raise DataError(f"{source} is not a table of text: it holds binary data; {_EXPECTED}")
        encoding = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    for name in (encoding,) if encoding else ("utf-8", "cp1252"):
        try:
            return content.decode(name)
        except UnicodeDecodeError as exc:
            if encoding:
                raise DataError(f"{source} is not valid {name} text") from exc
    return content.decode("latin-1")


def _open_text(text: str, source: str, choose: Choose | None) -> RawTable:
    """Read fields between separators, as strings."""
    declared = re.match(r'"?sep=(.)"?\r?\n', text)  # a line for Excel
    text = text[declared.end() :] if declared else text
    separator, before = (declared[1], 0) if declared else _layout(text)
    if before:
        lines = io.StringIO(text, newline="")
        for _ in range(before):
            lines.readline()
        text = lines.read()
    lengths, header = _record_lengths(text, separator)
    rows = sum(lengths.values())
    width, notes = len(header), [f"left out {before} lines before the names of the columns"] if before else []
    options: dict[str, Any] = {"index_col": False}
    too_long = sum(count for length, count in lengths.items() if length > width)
    if rows and lengths[width + 1] == rows:  # rows end with a separator, or begin with a name
        options = {}
    elif too_long:
        if too_long > _MOST_LEFT_OUT * rows:
            raise DataError(
                f"{source} is not a table: {too_long:,} of {rows:,} rows have more fields than the first "
                f"line, {width}, which should hold the names of the columns"
            )
        notes.append(
            f"left out {too_long:,} of {rows:,} rows, which have more fields than the header, {width}"
        )
        text = _without_long_rows(text, separator, width)
    short = sum(count for length, count in lengths.items() if length < width)
    if short:
        notes.append(f"{short:,} of {rows:,} rows have fewer fields than the header, {width}: check them")
    options |= {"sep": separator, "dtype": str, "keep_default_na": False, "skipinitialspace": True}
    try:
        head = pd.read_csv(io.StringIO(text), nrows=_PROBED, **options)
        missing = header_is_data(header, head)
        names = [f"column_{position + 1}" for position in range(width)] if missing else list(head.columns)
        if missing:
            options |= {"header": None, "names": names}
        if choose is not None and "index_col" in options:
            options["usecols"] = choose(names)
            choose = None
        frame = pd.read_csv(io.StringIO(text), **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as exc:
        raise DataError(f"{source} is not a table: {_last_line(exc)}") from exc
    if "index_col" not in options:
        frame, note = _without_extra_field(frame)
        notes.append(note)
    if missing:
        notes.append("the first row holds values and no names: the columns are called column_1 and so on")
    elif missing is None:
        notes.append("the first row looks like values, and was read as the names of the columns")
    if len(frame.columns) > 1 and frame.columns[0] == "Unnamed: 0" and _counts(frame.iloc[:, 0]):
        frame = frame.iloc[:, 1:]
        notes.append("the first column has no name and numbers the rows: it was left out")
    if width == 1:
        notes.append("read as one column: fields are expected between commas, semicolons, tabs or |")
    known = None if separator == _ONE_COLUMN else separator
    return _chosen(RawTable(frame, known, typed=False, notes=tuple(notes)), choose)


def _counts(values: pd.Series[Any]) -> bool:
    """Return whether strings are consecutive whole numbers."""
    first = int(values.iloc[0]) if len(values) and values.iloc[0].isdecimal() else 0
    return len(values) > 0 and values.tolist() == [str(first + row) for row in range(len(values))]


def _layout(text: str) -> tuple[str, int]:
    """Return the separator of a text, and how many lines stand before the names of the columns.

    The separator is the one by which most rows have as many fields as the first. If there is none, a title
    may stand before a table of at least three columns; else the text is one column.
    """
    head = text[:_SNIFFED]
    if len(head) < len(text):
        head = head[: head.rfind("\n") + 1] or head
    best, score = _ONE_COLUMN, 0.0
    for separator in _SEPARATORS:
        lengths, header = _record_lengths(head, separator)
        if len(header) > 1:
            rows = sum(lengths.values())
            fits = (lengths[len(header)] + lengths[len(header) + 1]) / rows if rows else 0.5
            if fits > score:
                best, score = separator, fits
    if score:
        return best, 0
    for separator in _SEPARATORS:
        lengths, _ = _record_lengths(head, separator)
        usual, count = max(lengths.items(), key=lambda item: item[1], default=(0, 0))
        if usual > 2 and count >= _MOST_ALIKE * sum(lengths.values()):
            records = _records(head, separator)
            before = 0
            while len(next(records)) != usual:
                before = records.line_num
            return separator, before
    return _ONE_COLUMN, 0


def _records(text: str, separator: str) -> Any:  # noqa: ANN401 - csv does not export the type of its readers
    """Return a reader of the rows as lists of fields."""
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)


def _record_lengths(text: str, separator: str) -> tuple[Counter[int], list[str]]:
    """Return how many rows have how many fields, without empty lines, and the first row, not counted."""
    quick = _lengths_of_lines(text, separator)
    if quick is not None:
        return quick
    records = _records(text, separator)
    try:
        header: list[str] = next((record for record in records if record), [])
        lengths = Counter(map(len, records))
    except csv.Error:  # a field without end: pandas says so better
        return Counter(), []
    lengths.pop(0, None)
    return lengths, header


def _lengths_of_lines(text: str, separator: str) -> tuple[Counter[int], list[str]] | None:
    """Do the same for a text of which each line is a row, five times as fast; None for another one."""
    if text.count("\r") != text.count("\r\n"):
        return None
    lines = (line for line in text.split("\n") if line and line != "\r")
    header = next(lines, "")
    lengths: Counter[int] = Counter()
    try:
        names = next(csv.reader([header], delimiter=separator, skipinitialspace=True, strict=True), [])
        for line in lines:
            if '"' not in line:
                lengths[line.count(separator) + 1] += 1
                continue
            [record] = csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True)
            lengths[len(record)] += 1
    except csv.Error:  # a field that goes on in the next line, or has a quote in its middle
        return None
    return lengths, names


def _without_long_rows(text: str, separator: str, width: int) -> str:
    cleaned = io.StringIO()
    records = _records(text, separator)
    csv.writer(cleaned, delimiter=separator).writerows(record for record in records if len(record) <= width)
    return cleaned.getvalue()


def _without_extra_field(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return a frame of which pandas took the first field of each row, one more than names, as the index."""
    if (frame.iloc[:, -1] == "").all():  # a separator at the end of each row
        shifted = frame.reset_index()
        shifted = shifted.iloc[:, :-1].set_axis(frame.columns, axis=1)
        return shifted, "each row ends with a separator: it was left out"
    return frame.reset_index(drop=True), "the first field of the rows has no name: it was left out"


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


# Write


def check_writable(path: str | os.PathLike[str], formats: Iterable[str] = ()) -> None:
    """Raise what writing to a path would raise, before there is anything to write.

    Parameters
    ----------
    path : path
        The file to write.
    formats : iterable of str
        Endings of which its name must have one; none for any name.

    Raises
    ------
    RequestError
        If the name does not have one of the endings.
    DataError
        If the folder does not exist or cannot be written to, or the path is a folder itself.
    """
    target = Path(path)
    formats = tuple(formats)
    if formats and target.suffix not in formats:
        raise RequestError(f"cannot write {target.name!r}: the name must end in {', '.join(formats)}")
    if target.is_dir():
        raise DataError(f"cannot write to {target}: it is a folder: give a file name")
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        os.close(handle)
        Path(name).unlink()
    except OSError as exc:
        raise DataError(f"cannot write to {target.parent}: {exc.strerror or exc}") from exc


def write_table(
    frame: pd.DataFrame, path: str | os.PathLike[str], text_formats: Mapping[str, str] | None = None
) -> Path:
    """Write a frame as Parquet, CSV or NDJSON, by the ending of the path; a failure leaves the old file.

    Parameters
    ----------
    frame : DataFrame of shape (n_rows, n_columns)
        The rows.
    path : path
        The file to write.
    text_formats : mapping of str to str, optional
        By which pattern of `logistream.tables.dates` the dates of a column are written in CSV and NDJSON; the
        others in ISO 8601. Parquet has a type for them.

    Raises
    ------
    RequestError
        If the ending is none of `FORMATS`.
    DataError
        If the folder cannot be written to.
    """
    target = Path(path)
    check_writable(target, FORMATS)
    try:
        with replacing(target) as scratch:
            if target.suffix == ".parquet":
                pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), scratch, compression="zstd")
                return target
            frame = frame.assign(
                **{
                    name: _written_dates(frame[name], pattern, numbers=target.suffix == ".ndjson")
                    for name, pattern in (text_formats or {}).items()
                }
            )
            if target.suffix == ".csv":
                frame.to_csv(scratch, index=False)
            else:
                _write_lines(frame, scratch)
    except OSError as exc:
        raise DataError(f"cannot write to {target.parent}: {exc.strerror or exc}") from exc
    return target


def _write_lines(frame: pd.DataFrame, path: Path) -> None:
    """Write rows as JSON objects, one a line; floats with all digits, of which pandas writes ten decimals."""
    floats = [str(name) for name, dtype in frame.dtypes.items() if is_float_dtype(dtype)]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for start in range(0, len(frame), _LINES):
            part = frame.iloc[start : start + _LINES]
            rows = part.drop(columns=floats).to_json(
                orient="records", lines=True, date_format="iso", date_unit="us", force_ascii=False
            )
            exact = {
                name: [value if math.isfinite(value) else None for value in part[name].astype(float).tolist()]
                for name in floats
            }
            others = (
                [json.loads(row) for row in rows.strip("\n").split("\n")]
                if rows.strip()
                else [{}] * len(part)
            )
            for number, other in enumerate(others):
                row = {name: exact[name][number] if name in exact else other[name] for name in frame.columns}
                file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def _written_dates(values: pd.Series[Any], pattern: str, *, numbers: bool) -> pd.Series[Any]:
    """Return dates as strings, or as whole numbers if that is what the pattern writes."""
    if values.dt.tz is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    written: pa.Array = write_dates(values.to_numpy("datetime64[us]"), pattern)
    series: pd.Series[Any] = written.to_pandas().set_axis(values.index)
    return series.astype("Int64") if numbers and is_number(pattern) else series


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a scratch file beside `path` to write to, which takes its place if all goes well.

    A reader sees the old file or the new one, never half of one, even if the power fails. If anything is
    raised inside, the old file stays and the scratch file goes.

    Yields
    ------
    Path
        An empty file in the same folder.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.chmod(0o644)
        scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def shipped_file(name: str) -> Path:
    """Return where a data file of the project is: in the installed package, or in a checkout's `data`."""
    packaged = Path(str(resources.files("logistream"))) / name
    return packaged if packaged.exists() else Path(__file__).parents[3] / "data" / name
