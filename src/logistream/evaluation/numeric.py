"""Rows of one schema as numbers, which is the form that every measure takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.errors import DataError
from logistream.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logistream.schema import Column

__all__ = ["NumericTable", "numeric_tables"]


@dataclass(frozen=True, eq=False)
class NumericTable:
    """Rows of one schema as numbers.

    Parameters
    ----------
    schema : Schema
        The columns.
    frame : DataFrame of shape (n_rows, n_columns)
        The rows as they were given, columns in the order of the schema.
    matrix : ndarray of float64 of shape (n_rows, n_columns)
        Strings as positions in the sorted list of all strings, booleans as 0 and 1, timestamps in
        microseconds since 1970, missing as NaN.
    sizes : ndarray of int64 of shape (n_columns,)
        How many codes a column of strings has, in all tables that share them; 2 for booleans, 0 for others.
    """

    schema: Schema
    frame: pd.DataFrame
    matrix: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def discrete(self) -> np.ndarray:
        """Which columns hold strings or booleans, bool of shape (n_columns,)."""
        return np.array([column.kind in ("category", "boolean") for column in self.schema])

    def take(self, rows: np.ndarray | slice) -> NumericTable:
        """Return the rows with these positions, in that order."""
        return NumericTable(self.schema, self.frame.iloc[rows], self.matrix[rows], self.sizes)

    def select(self, columns: np.ndarray) -> NumericTable:
        """Return the columns where `columns`, bool of shape (n_columns,), is true."""
        schema = Schema(tuple(c for c, wanted in zip(self.schema, columns, strict=True) if wanted))
        return NumericTable(schema, self.frame.loc[:, columns], self.matrix[:, columns], self.sizes[columns])

    def joined(self, more: NumericTable) -> NumericTable:
        """Return these rows, then those of another table with the same codes."""
        frames = [part.frame.astype(_categories_as_strings(part.frame)) for part in (self, more)]
        matrix = np.concatenate([self.matrix, more.matrix])
        return NumericTable(self.schema, pd.concat(frames), matrix, self.sizes)


def numeric_tables(schema: Schema, frames: Sequence[pd.DataFrame]) -> list[NumericTable]:
    """Return frames as tables with common codes, which depend on the strings alone.

    Raises
    ------
    DataError
        If a frame lacks a column, or holds values that do not fit its kind.
    """
    for frame in frames:
        repeated = frame.columns[frame.columns.duplicated()]
        if len(repeated):
            raise DataError(
                f"column {repeated[0]!r} occurs more than once: give each column a name of its own"
            )
        missing = [name for name in schema.names if name not in frame.columns]
        if missing:
            raise DataError(
                f"the rows to compare lack {len(missing)} of the model's {len(schema)} columns: "
                f"{', '.join(missing)}; give rows of the table that was fitted"
            )
    matrices = [np.empty((len(frame), len(schema))) for frame in frames]
    sizes = np.zeros(len(schema), np.int64)
    for i, column in enumerate(schema):
        series = [frame[column.name] for frame in frames]
        if column.kind == "category":
            parts, sizes[i] = _codes(series)
        else:
            parts, sizes[i] = [_numbers(part, column) for part in series], 2 * (column.kind == "boolean")
        for matrix, part in zip(matrices, parts, strict=True):
            matrix[:, i] = part + 0.0  # no negative zero, which would make equal rows differ
    names = list(schema.names)
    return [
        NumericTable(schema, frame[names], matrix, sizes)
        for frame, matrix in zip(frames, matrices, strict=True)
    ]


def _categories_as_strings(frame: pd.DataFrame) -> dict[str, str]:
    """Return the dtypes to convert to: the categories of two frames may differ."""
    return {
        str(name): "str" for name, dtype in frame.dtypes.items() if isinstance(dtype, pd.CategoricalDtype)
    }


def _numbers(values: pd.Series, column: Column) -> np.ndarray:
    """Return a column of numbers, booleans or timestamps as float64."""
    try:
        if column.kind == "timestamp":
            timestamps = pd.to_datetime(values, utc=True).astype("datetime64[us, UTC]")
            microseconds: np.ndarray = timestamps.astype("int64").to_numpy().astype(np.float64)
            microseconds[values.isna().to_numpy()] = np.nan
            return microseconds
        numbers: np.ndarray = values.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as exc:
        raise DataError(
            f"column {column.name!r} of the rows to compare should hold values of kind {column.kind}, "
            f"as when it was fitted: {str(exc).splitlines()[0]}"
        ) from exc
    if np.isinf(numbers).any():
        raise DataError(f"column {column.name!r} of the rows to compare holds infinite numbers: drop them")
    return numbers


def _codes(parts: Sequence[pd.Series]) -> tuple[list[np.ndarray], int]:
    """Return strings as positions in the sorted list of all of them, and its length."""
    factorized = [pd.factorize(part) for part in parts]  # -1 where missing
    strings = [[str(value) for value in values] for _, values in factorized]
    position = {
        string: float(i) for i, string in enumerate(sorted({string for part in strings for string in part}))
    }
    codes = [np.array([*(position[string] for string in part), np.nan]) for part in strings]
    return [known[places] for (places, _), known in zip(factorized, codes, strict=True)], len(position)
