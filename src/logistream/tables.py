"""Files: read CSV or Parquet, write Parquet, CSV or NDJSON whole or not at all, find what is shipped.

pandas is imported where it is needed: a server that writes a model file or a timeline does without.
"""

from __future__ import annotations

import csv
import os
import tempfile
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logistream.errors import DataError, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

__all__ = ["FORMATS", "open_table", "replacing", "shipped_file", "write_table"]


FORMATS = (".parquet", ".csv", ".ndjson")
"""Endings of the files that `write_table` makes."""

_PARQUET_MAGIC = b"PAR1"


def open_table(path: str | os.PathLike[str], **csv_options: Any) -> pd.DataFrame:  # noqa: ANN401 - pandas' own
    """Read a CSV or Parquet file as it is.

    Parameters
    ----------
    path : path
        A Parquet file, or a CSV file in UTF-8 or latin-1.
    **csv_options
        What to tell `pandas.read_csv`.

    Raises
    ------
    DataError
        If there is no such file, or it is empty, damaged or not a table.
    """
    import pandas as pd

    source = Path(path)
    try:
        with source.open("rb") as file:
            head = file.read(1 << 16)
    except FileNotFoundError:
        raise DataError(f"no file at {source}: check the path") from None
    except OSError as exc:
        raise DataError(f"{source} cannot be read: {exc.strerror or exc}") from exc
    if not head:
        raise DataError(f"{source} is empty: expected a table")
    if head.startswith(_PARQUET_MAGIC):
        return _open_parquet(source)
    if b"\0" in head:
        raise DataError(f"{source} is not a table of text: it holds binary data; expected CSV or Parquet")
    try:
        frame: pd.DataFrame = pd.read_csv(source, encoding=_encoding(source), **csv_options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as exc:
        raise DataError(f"{source} is not a table: {str(exc).strip().splitlines()[-1]}") from exc
    return frame


def _open_parquet(source: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        frame: pd.DataFrame = pq.read_table(source).to_pandas()
    except (pa.ArrowException, OSError) as exc:
        raise DataError(
            f"{source} starts like a Parquet file but cannot be read: it is damaged or cut short"
        ) from exc
    return frame


def _encoding(source: Path) -> str:
    """Return UTF-8 if the whole file is, else latin-1, in which any file can be read."""
    encoding = "utf-8-sig"
    try:
        with source.open(encoding=encoding, newline="") as text:
            while text.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return "latin-1"
    return encoding


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a frame as Parquet, CSV or NDJSON, by the ending of the path; a failure leaves the old file.

    Raises
    ------
    RequestError
        If the ending is none of `FORMATS`.
    DataError
        If the folder cannot be written to.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = Path(path)
    if target.suffix not in FORMATS:
        raise RequestError(f"cannot write {target.name!r}: the name must end in {', '.join(FORMATS)}")
    try:
        with replacing(target) as scratch:
            if target.suffix == ".parquet":
                pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), scratch, compression="zstd")
            elif target.suffix == ".csv":
                frame.to_csv(scratch, index=False)
            else:
                frame.to_json(scratch, orient="records", lines=True, date_format="iso", force_ascii=False)
    except OSError as exc:
        raise DataError(f"cannot write to {target.parent}: {exc.strerror or exc}") from exc
    return target


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
    return packaged if packaged.exists() else Path(__file__).parents[2] / "data" / name
