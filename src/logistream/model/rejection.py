"""Rows that fulfil conditions: drawn directly as far as possible, the others rejected.

For each condition the codes of the factors tell which combinations can fulfil it (`logistream.model.bounds`).
Those are drawn by variable elimination. Where such a combination does not say whether a row fulfils the
condition, since its range of values holds the bound, or where a table was bounded since it would be too
large, rows are drawn until enough are accepted. The candidates of a block come in attempts, each with bits of
its own, so a row is a pure function of model, seed, conditions and number.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from logistream.errors import RequestError, RequestWarning, listed
from logistream.model.bounds import find_bounds
from logistream.model.conditions import Condition, read_conditions, string_of
from logistream.model.elimination import Table, eliminate
from logistream.model.random_bits import uniforms
from logistream.model.sampling import BLOCK, Sampler, count_samplers
from logistream.times import rfc3339

if TYPE_CHECKING:
    from logistream.model.bounds import Bounds
    from logistream.model.conditions import Value, Where
    from logistream.model.network import Network
    from logistream.schema import Column

__all__ = ["ConditionedSampler", "possible"]

_KEPT_BLOCKS = 3
_WARNED_FROM = 16  # attempts at a block, after which a low share is worth a warning while rows are drawn
_TRIED = 256  # attempts at a block, after which a share is known well enough to give up
_LOW_RATE = 0.01
_LEAST_RATE = 1e-5


@dataclass(slots=True)
class _Filled:
    """What has been drawn of a block: the rows that were accepted, in order."""

    attempts: int = 0
    accepted: int = 0
    batches: list[pa.RecordBatch] = field(default_factory=list)
    delays: list[list[np.ndarray]] = field(default_factory=list)


class ConditionedSampler(Sampler):
    """The rows that fulfil conditions, by number: row n is the n-th of an endless table of such rows.

    Parameters
    ----------
    model : Network
        What to draw from.
    where : mapping, string, tuple, or iterable of strings and tuples
        The conditions, as `logistream.model.conditions.read_conditions` takes them.
    seed : int
        From 0 to 2**64 - 1.

    Attributes
    ----------
    exact : bool
        Whether every row that is drawn fulfils the conditions, so that none is rejected.

    Raises
    ------
    RequestError
        If a condition cannot be read, if a column is unknown or names the rows, if a value never occurs, or
        if no row can fulfil the conditions. `batch` raises it if fewer than 1 in 100,000 rows that can be
        drawn fulfil them.
    """

    def __init__(self, model: Network, where: Where, seed: int = 0) -> None:
        self.conditions = read_conditions(where, model.schema)
        tables: list[Table] = []
        uncertain: list[Condition] = []
        for condition in self.conditions:
            table, decided = possible(model, condition)
            if not decided:
                uncertain.append(condition)
            if table is not None and table.over:
                tables.append(table)
        found = eliminate(model, tables)
        if found.share == 0:
            asked = " and ".join(map(str, self.conditions))
            raise RequestError(f"no row of this model has {asked} together: ask for others")
        tests, chances = tuple(uncertain), found.chances
        # Rows of a block that are drawn in strata depend on each other; those accepted would be biased.
        samplers = count_samplers(model.factors, stratified=not (tests or chances), replaced=found.samplers)
        super().__init__(model, seed, samplers=samplers)
        self.exact = not (tests or chances)
        self._tests, self._chances = tests, chances
        if not self.exact:
            self._probe = Sampler(
                model,
                seed,
                samplers=samplers,
                columns={test.column for test in tests},
                factors={name for chance in chances for name in chance.over},
            )
        self._share = found.share
        self._tried = self._accepted = 0
        self._warned = False
        self._filled: OrderedDict[int, _Filled] = OrderedDict()
        self._filling = threading.Lock()

    @property
    def acceptance_rate(self) -> float:
        """The share of the rows drawn so far that were accepted; 1.0 if none has to be rejected."""
        if self.exact:
            return 1.0
        if not self._tried:
            self._block(0, 1)
        return self._accepted / self._tried

    @property
    def share(self) -> float:
        """The probability that a row of the model fulfils the conditions; estimated unless `exact`."""
        return self._share * self.acceptance_rate

    def _block(self, number: int, stop: int) -> tuple[pa.RecordBatch, list[np.ndarray]]:
        """Return the first rows of a block, at least `stop` of them."""
        if self.exact:
            return super()._block(number, stop)
        with self._filling:
            filled = self._filled.setdefault(number, _Filled())
            self._filled.move_to_end(number)
            while filled.accepted < stop:
                self._try(number, filled)
            while len(self._filled) > _KEPT_BLOCKS:
                self._filled.popitem(last=False)
            columns = pa.concat_batches(filled.batches)
            delays = [np.concatenate(days) for days in zip(*filled.delays, strict=True)]
        if self._accepted < _LOW_RATE * self._tried:
            self._warn()
        return columns, delays

    def _try(self, number: int, filled: _Filled) -> None:
        """Draw the next candidates of a block and keep those that fulfil the conditions."""
        candidates = filled.attempts * BLOCK
        if filled.attempts >= _TRIED and filled.accepted < _LEAST_RATE * candidates:
            share = f"about {self._share * filled.accepted / candidates:.1g} of"
            if not filled.accepted:
                share = f"fewer than {self._share / candidates:.1g} of"
            raise RequestError(
                f"too few rows fulfil {self._asked()}: {share} all rows, {filled.accepted} of {candidates:,} "
                f"drawn; ask for a wider range or fewer conditions"
            )
        if filled.attempts >= _WARNED_FROM and filled.accepted < _LOW_RATE * candidates:
            self._warn()
        drawn = self._probe.draw(number, filled.attempts)
        probed, _ = self._probe.rows(drawn, number)
        accepted = np.logical_and.reduce([np.ones(BLOCK, bool), *(test.mask(probed) for test in self._tests)])
        if self._chances:
            chance = math.prod(table.at(drawn.codes) for table in self._chances)
            accepted &= uniforms(self._bits(number, filled.attempts, 1), BLOCK) < chance
        count = int(accepted.sum())
        if count:
            places = np.where(accepted, filled.accepted + np.cumsum(accepted) - 1, -1)
            columns, delays = self.rows(self.draw(number, filled.attempts), number, places)
            filled.batches.append(columns.filter(pa.array(accepted)))
            filled.delays.append([days[accepted] for days in delays])
        filled.attempts += 1
        filled.accepted += count
        self._tried += BLOCK
        self._accepted += count

    def _warn(self) -> None:
        """Warn once that many rows are drawn for few."""
        if not self._warned:
            self._warned = True
            share = f"only {self._accepted / self._tried:.2g}" if self._accepted else "none yet"
            warnings.warn(
                f"{share} of the {self._tried:,} rows drawn fulfil {self._asked()}, so each row takes long",
                RequestWarning,
                stacklevel=2,
            )

    def _asked(self) -> str:
        return " and ".join(map(str, self.conditions))


def possible(model: Network, condition: Condition) -> tuple[Table | None, bool]:
    """Return which codes of the factors can fulfil a condition.

    Returns
    -------
    table : Table or None
        1 where a row can fulfil it and 0 elsewhere; None if that is not known.
    decided : bool
        Whether every row that can fulfil it does.

    Raises
    ------
    RequestError
        If no row can, if a value that the condition names never occurs, or if the column names the rows.
    """
    bounds = _bounds(model, condition)
    if bounds is None:
        return None, False
    can, must = condition.between(bounds.low, bounds.high, bounds.missing)
    _check_occurs(model.schema[condition.column], condition, bounds, can)
    return Table(bounds.over, can.astype(np.float64)).merged(), not (can & ~must).any()


def _bounds(model: Network, condition: Condition) -> Bounds | None:
    """Return what is known of a condition's column; `RequestError` if its values name the rows."""
    if any(identifier.column == condition.column for identifier in model.identifiers):
        raise RequestError(
            f"{condition.column!r} is invented, since it names the rows, so its values cannot be asked for: "
            f"filter the rows"
        )
    return find_bounds(model, condition.column)


def _check_occurs(column: Column, condition: Condition, bounds: Bounds, can: np.ndarray) -> None:
    """Raise `RequestError` if no row fulfils a condition, or if a value that it names never occurs."""
    # An unknown string is probably misspelt; other values may be excluded without occurring.
    if condition.operator == "in" or (condition.operator == "not in" and column.kind == "category"):
        for value in condition.values:
            found, _ = Condition(column.name, "in", (value,)).between(bounds.low, bounds.high, bounds.missing)
            if not found.any():
                wanted = string_of(value) if isinstance(value, datetime) else value
                raise RequestError(
                    f"{column.name!r} is never {wanted!r}: {_occurring(column, bounds, value)}"
                )
    if not can.any():
        raise RequestError(f"no row of this model has {condition}: {_occurring(column, bounds)}")


def _occurring(column: Column, bounds: Bounds, *wanted: Value) -> str:
    """Return in words between what a column lies, or which values it has near a wanted one."""
    there = ~bounds.missing
    low, high = bounds.low[there], bounds.high[there]
    known: list[Any] = np.unique(np.concatenate([low, high])).tolist()
    if not known:
        return "it is always missing"
    if not wanted or not (low == high).all():
        ends = known[0], known[-1]
        if column.kind == "timestamp":
            ends = rfc3339(ends[0]), rfc3339(ends[1])
        return "it lies between {} and {}".format(*(f"{e:.10g}" if isinstance(e, float) else e for e in ends))
    [value] = wanted
    near = _nearest(known, value) if isinstance(value, int | float) else known
    if column.kind == "timestamp":
        near = [rfc3339(micros) for micros in near[:1000]]
    elif column.kind == "boolean":
        near = [bool(number) for number in near]
    words = listed(near + [None] * bool(bounds.missing.any()), value)
    return f"it is {words} (nearest of {len(known):,})" if len(near) < len(known) else f"it is {words}"


def _nearest(known: list[Any], value: float) -> list[Any]:
    """Return the values next to one, in order."""
    return sorted(sorted(known, key=lambda other: abs(other - value))[:4])
