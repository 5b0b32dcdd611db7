"""What is learned of a table: factors, the values that their codes stand for, and formulas.

A model is a Bayesian network over discrete variables. Its *factors* are drawn one after another, each from
the conditional distribution that the factors before it select. *Emissions* turn a factor's code into the
values of columns; *formulas* compute further columns from those. A model file is a zip archive of JSON and
NumPy arrays: it holds no code and no row of the table.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from logistream.errors import RequestError
from logistream.model.archive import FORMAT, VERSION, damaged, read_archive
from logistream.model.patterns import Identifier, Pattern
from logistream.schema import EVENT_TIME, Schema
from logistream.tables.files import replacing, shipped_file

if TYPE_CHECKING:
    import os

__all__ = ["DaysAfterEvent", "Emission", "Factor", "Formula", "Network", "Rule", "missing_name"]


N = TypeVar("N", bound="Network")

_SHIPPED = "dataco.model"


@dataclass(frozen=True, slots=True)
class Emission:
    """How the code of a factor becomes the value of one column.

    A category column takes the string of index `low[code]`, a column with an identifier the pattern of that
    index, any other column the number `low[code]`; where `high` is given, one that is drawn evenly from
    `low[code]` to `high[code]`.

    Parameters
    ----------
    column : str
        Column of the table, or a helper that only formulas read.
    low : ndarray of shape (n_codes,)
        Int64 indices into the categories, or int64 multiples of the column's quantum, or float64 values
        where there is no quantum.
    high : ndarray of shape (n_codes,) or None
        The other end, inclusive; None if every code is a single value.
    quantum : tuple of (int, int) or None
        Numerator and denominator: a value is `multiple * numerator / denominator`. (1, 100) for cents,
        (60_000_000, 1) for whole minutes in microseconds. None for full precision.
    missing : ndarray of bool of shape (n_codes,) or None
        Which codes stand for a missing value; None if none does.
    step : ndarray of shape (n_codes,) or None
        Distance of the numbers that are drawn from `low` to `high`, of the dtype of `low`; None if it is the
        quantum, or nothing where there is none. Without a quantum 0 is every number, and others are whole
        numbers or one part of a whole number of parts.
    """

    column: str
    low: np.ndarray
    high: np.ndarray | None = None
    quantum: tuple[int, int] | None = (1, 1)
    missing: np.ndarray | None = None
    step: np.ndarray | None = None

    @property
    def last(self) -> np.ndarray:
        """The greatest value of each code: `high`, or `low` where every code is a single value."""
        return self.low if self.high is None else self.high


@dataclass(frozen=True)
class Factor:
    """A discrete variable: its conditional distributions, and which one the factors before it select.

    Parameters
    ----------
    name : str
        The columns it stands for, in words.
    size : int
        Number of codes.
    parents : tuple of str
        Names of the earlier factors that select the distribution.
    groups : tuple of ndarray of shape (n_codes of that parent,)
        For each parent, the group of each of its codes.
    distribution_of : ndarray of shape (product of the numbers of groups,)
        Number of the distribution for each combination of groups, the last parent's group varying fastest.
    offsets : ndarray of shape (n_distributions + 1,)
        Where the entries of each distribution begin in `codes` and `counts`.
    codes, counts : ndarray of shape (n_entries,)
        The distributions: codes, and how often each was counted.
    emissions : tuple of Emission
        The columns this factor gives.
    """

    name: str
    size: int
    parents: tuple[str, ...]
    groups: tuple[np.ndarray, ...]
    distribution_of: np.ndarray
    offsets: np.ndarray
    codes: np.ndarray
    counts: np.ndarray
    emissions: tuple[Emission, ...]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Number of groups of each parent."""
        return tuple(int(group.max()) + 1 for group in self.groups)

    @cached_property
    def totals(self) -> np.ndarray:
        """The sum of the counts of each distribution, shape (n_distributions,)."""
        return np.add.reduceat(self.counts, self.offsets[:-1])

    @property
    def deterministic(self) -> bool:
        """Whether every distribution has a single count: then nothing is drawn."""
        return len(self.totals) == int(self.counts.sum())

    def combination(self, codes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the combination of the parents' groups in each row, int64: an index of `distribution_of`.

        Parameters
        ----------
        codes : mapping of str to ndarray of shape (n_rows,)
            Codes of each parent.

        Returns
        -------
        ndarray of shape (n_rows,), or (1,) without parents
        """
        combination: np.ndarray | None = None
        stride = len(self.distribution_of)
        for parent, group, size in zip(self.parents, self.groups, self.shape, strict=True):
            stride //= size
            part = group.take(codes[parent])
            if stride != 1:
                part *= stride
            combination = part if combination is None else np.add(combination, part, out=combination)
        return np.zeros(1, np.int64) if combination is None else combination


@dataclass(frozen=True, slots=True)
class Formula:
    """A column computed from others, or adjusted to another one.

    Parameters
    ----------
    column : str
        What is computed.
    operation : str
        One of these, with the inputs `left`, `right` and `others` in this order:

        - "product" or "sum" of two;
        - "linear": of any number, each times its factor, plus one factor more;
        - "ratio": `left / right` times a factor; "elapsed": `(left - right)` divided by a factor;
        - "product and sum": `left * right` plus a factor times the third;
        - "square" of one; "log": a factor times the logarithm of one plus a second factor;
        - "local": the timestamp at which a clock showed the sum of two; or the name of a part of a timestamp,
          as in `logistream.times.CALENDAR`;
        - "at least" or "at most": the column itself, `right`, moved to that side of `left`, by multiples of a
          factor if there is one;
        - "unless": the column itself, `right`, but the sum of `others` where `left` is 1: an exception;
        - "blank": the column itself, `right`, missing where `left` is 1.
    left, right : str
        Columns or helpers; `right` is empty for an operation on one.
    decimals : int or None
        Digits that the result is rounded to.
    offsets : tuple of (int, int)
        The clock of a local time or of a part of it: from which microsecond since 1970, UTC, the clock is
        how many microseconds ahead of UTC; empty for UTC.
    others : tuple of str
        Further inputs.
    factors : tuple of float
        What the operation multiplies, adds or divides by.
    floor : bool
        Whether the result is rounded down, and not to the nearest.
    rows : int
        Fitted rows in which the formula was seen to hold, 0 if it was not counted.
    checked : int
        Fitted rows that have all its columns: those on which it could be checked.
    """

    column: str
    operation: str
    left: str
    right: str = ""
    decimals: int | None = None
    offsets: tuple[tuple[int, int], ...] = ()
    others: tuple[str, ...] = ()
    factors: tuple[float, ...] = ()
    floor: bool = False
    rows: int = 0
    checked: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns and helpers that it reads."""
        return tuple(name for name in (self.left, self.right, *self.others) if name)

    @property
    def adjusts(self) -> bool:
        """Whether it only adjusts a column that is drawn or computed before."""
        return self.column == self.right

    @property
    def keeps_order(self) -> bool:
        """Whether it only moves a column to the right side of another one."""
        return self.operation in ("at least", "at most")


@dataclass(frozen=True, slots=True)
class DaysAfterEvent:
    """In a live stream: a timestamp column is event time plus whole days.

    The days are drawn evenly from those that the service takes; for a late event from those above
    `promised`, for another one from the rest.

    Parameters
    ----------
    column : str
        The timestamp column that follows the clock.
    service : str
        The category column that names the service.
    low, high : ndarray of int64 of shape (n_categories,)
        Fewest and most days of each category of `service`, inclusive.
    promised : str
        The integer column with the days promised.
    late : str
        The column that is 1 for a late event.
    """

    column: str
    service: str
    low: np.ndarray
    high: np.ndarray
    promised: str
    late: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that the fitted rows keep, all or nearly all, and that is not a formula.

    Parameters
    ----------
    kind : str
        "functional dependency": each value of the first column has one of the second; "part": a part of the
        first, which are strings, follows from the second; "unique": no combination of the columns occurs
        twice; "repeated": a value of the column comes in several rows.
    columns : tuple of str
        What it is about.
    held, checked : int
        Fitted rows in which it held, and on which it could be checked.
    why_not : str
        Why synthetic rows do not keep it, a clause; empty if they do.
    """

    kind: str
    columns: tuple[str, ...]
    held: int
    checked: int
    why_not: str = ""


@dataclass(frozen=True, eq=False)
class Network:
    """What was learned of a table: everything needed to make synthetic rows and events of it.

    It holds no row of the table, and what it holds of fewer than five rows is limited; see the notes of
    `logistream.fit`.

    Parameters
    ----------
    name : str
        What a person calls it.
    schema : Schema
        Columns of the table, in order.
    categories : mapping of str to tuple of str
        Closed set of strings of each category column.
    dtypes : mapping of str to str
        The pandas dtype that each column had in the fitted frame.
    factors : tuple of Factor
        In the order of drawing.
    formulas : tuple of Formula
        In the order of computing, after all factors.
    days_after_event : tuple of DaysAfterEvent
        Columns that follow the clock in a live stream.
    on_request : tuple of str
        Columns that a streamed event has only if a client asks for them.
    rows : int
        Number of rows that were fitted.
    identifiers : tuple of Identifier
        Columns that name single rows: their values are invented from the event number. Such a column of
        strings has no categories.
    rules : tuple of Rule
        What else was seen in the fitted rows; sampling does not need it.
    """

    name: str
    schema: Schema
    categories: Mapping[str, tuple[str, ...]]
    dtypes: Mapping[str, str]
    factors: tuple[Factor, ...]
    formulas: tuple[Formula, ...] = ()
    days_after_event: tuple[DaysAfterEvent, ...] = ()
    on_request: tuple[str, ...] = ()
    rows: int = 0
    identifiers: tuple[Identifier, ...] = ()
    rules: tuple[Rule, ...] = ()

    @cached_property
    def event_schema(self) -> Schema:
        """Keys of a streamed event: the table's columns without those on request, then `event_time`."""
        return Schema((*(c for c in self.schema if c.name not in self.on_request), EVENT_TIME))

    @cached_property
    def full_schema(self) -> Schema:
        """`event_schema`, then the columns that a client must ask for."""
        return self.event_schema + (self.schema[name] for name in self.on_request)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of what is learned, in hexadecimal: models with the same one make the same events."""
        return hashlib.sha256(json.dumps(_sums(_members(self))).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self.schema)} columns from {self.rows:,} rows>"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to one file, whole or not at all.

        Returns
        -------
        Path
            The file written: a zip archive of `manifest.json`, `model.json` and `arrays/*.npy`.
        """
        target = Path(path)
        members = _members(self)
        manifest = {"format": FORMAT, "version": VERSION, "sha256": _sums(members)}
        members = {"manifest.json": json.dumps(manifest, indent=1).encode(), **members}
        with replacing(target) as scratch, zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                # a fixed date, so that equal models are equal files
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
        return target

    @classmethod
    def read(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Read what `save` wrote, None for the shipped file; `load_model` checks it besides."""
        source = shipped_file(_SHIPPED) if path is None else Path(path)
        data, arrays = read_archive(source)
        try:
            return _load(cls, data, arrays)
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RequestError) as exc:
            raise damaged(source, exc) from exc


def _members(network: Network) -> dict[str, bytes]:
    """Return what a model file holds, by name."""
    arrays: list[np.ndarray] = []
    plain = json.dumps(_dump(network, arrays), ensure_ascii=False, separators=(",", ":")).encode()
    return {
        "model.json": plain,
        **{f"arrays/{i}.npy": _npy(_smallest(array)) for i, array in enumerate(arrays)},
    }


def _sums(members: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _smallest(array: np.ndarray) -> np.ndarray:
    """Return an integer array in the smallest dtype that holds it."""
    if array.dtype.kind not in "iu" or array.size == 0:
        return array
    low, high = int(array.min()), int(array.max())
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32"):
        info = np.iinfo(name)
        if info.min <= low and high <= info.max:
            return array.astype(name)
    return array


def _dump(value: Any, arrays: list[np.ndarray]) -> Any:  # noqa: ANN401 - walks plain data of any type
    """Return plain data for JSON; an array is appended to `arrays` and stands as its number."""
    if isinstance(value, Schema):
        return value.to_list()
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, (Network, Factor, Emission, Formula, DaysAfterEvent, Identifier, Pattern, Rule)):
        return {f.name: _dump(getattr(value, f.name), arrays) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _dump(item, arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_dump(item, arrays) for item in value]
    return value


def _load(kind: type[N], data: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> N:
    """Rebuild a model from what `_dump` gave, in the dtypes that sampling works in."""

    def array(reference: Any) -> np.ndarray:  # noqa: ANN401 - JSON
        return arrays[f"arrays/{reference['array']}.npy"]

    def emissions(items: list[dict[str, Any]]) -> Iterator[Emission]:
        for item in items:
            high = None if item["high"] is None else array(item["high"])
            quantum = None if item["quantum"] is None else tuple(item["quantum"])
            missing = None if item["missing"] is None else array(item["missing"]).astype(bool)
            step = None if item.get("step") is None else array(item["step"])
            yield Emission(item["column"], array(item["low"]), high, quantum, missing, step)

    factors = tuple(
        Factor(
            name=item["name"],
            size=item["size"],
            parents=tuple(item["parents"]),
            groups=tuple(array(group) for group in item["groups"]),
            emissions=tuple(emissions(item["emissions"])),
            **{key: array(item[key]) for key in ("distribution_of", "offsets", "codes", "counts")},
        )
        for item in data["factors"]
    )
    return kind(
        name=data["name"],
        schema=Schema.from_list(data["schema"]),
        categories={name: tuple(strings) for name, strings in data["categories"].items()},
        dtypes=data["dtypes"],
        factors=factors,
        formulas=tuple(
            Formula(
                **{
                    **item,
                    "offsets": tuple((start, ahead) for start, ahead in item["offsets"]),
                    "others": tuple(item["others"]),
                    "factors": tuple(item["factors"]),
                }
            )
            for item in data["formulas"]
        ),
        days_after_event=tuple(
            DaysAfterEvent(**{**d, "low": array(d["low"]), "high": array(d["high"])})
            for d in data["days_after_event"]
        ),
        on_request=tuple(data["on_request"]),
        rows=data["rows"],
        identifiers=tuple(
            Identifier(
                item["column"],
                tuple(
                    Pattern(**{**p, "places": tuple(p["places"]), "residues": tuple(p["residues"])})
                    for p in item["patterns"]
                ),
                item["separator"],
                tuple(item.get("within", ())),
                tuple(item.get("shared", ())),
            )
            for item in data["identifiers"]
        ),
        rules=tuple(Rule(**{**item, "columns": tuple(item["columns"])}) for item in data.get("rules", ())),
    )


def missing_name(column: str) -> str:
    """Return the name of the variable that is 1 where a column's value is missing."""
    return f"{column}: missing"
