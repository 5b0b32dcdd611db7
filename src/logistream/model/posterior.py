"""The exact probability of a yes-or-no column given other columns of the same event.

What the known columns say is *evidence* about the codes of the factors that give them. All other factors are
summed out by variable elimination, for many events at once: a table has one row for each event, and an axis
for each factor that is not known. As in `logistream.model.elimination`, tables keep codes apart only as far
as it matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from logistream.errors import RequestError, listed
from logistream.model.bounds import MAX_CELLS, common_refinement
from logistream.model.elimination import TooManyCellsError
from logistream.model.network import Emission
from logistream.model.sampling import SMALLEST_STEP, compute, scaled

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from logistream.model.elimination import Table
    from logistream.model.network import Factor, Formula, Network

__all__ = ["Posterior", "Rows", "multiplied", "yes_codes"]

_EXACT = 1e-9  # computed numbers so near are the same
_ROWS = 1024  # looked at together, or fewer where tables are large


@lru_cache(maxsize=1024)
def _refined_bytes(*groupings: bytes) -> np.ndarray:
    return common_refinement([np.frombuffer(groups, np.int64) for groups in groupings])


def _refinement(groupings: Sequence[np.ndarray]) -> np.ndarray:
    """Return what `common_refinement` does; remembered, since it is needed for all rows alike."""
    different = {groups.tobytes(): groups for groups in groupings}
    return groupings[0] if len(different) == 1 else _refined_bytes(*different)


@lru_cache(maxsize=1024)
def _first_bytes(groups: bytes) -> np.ndarray:
    return np.unique(np.frombuffer(groups, np.int64), return_index=True)[1]


def _first(groups: np.ndarray) -> np.ndarray:
    """Return one code of each group; remembered, too."""
    return _first_bytes(groups.tobytes())


@dataclass(frozen=True, slots=True)
class Rows:
    """A value for each event and each combination of groups of factors that are not known.

    Parameters
    ----------
    over : dict of str to ndarray of shape (n_codes,)
        For each such factor the group of each of its codes, in the order of the axes behind the first.
    values : ndarray of shape (n_events or 1, ...)
        The values.
    """

    over: dict[str, np.ndarray]
    values: np.ndarray

    def spread(self, fine: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the values over the finer groups `fine`: an axis for each, of length 1 if not concerned."""
        values = self.values
        for axis, (name, groups) in enumerate(self.over.items(), 1):
            if groups is not fine[name]:
                values = np.take(values, groups[_first(fine[name])], axis=axis)
        order = [list(self.over).index(name) + 1 for name in fine if name in self.over]
        values = values.transpose([0, *order])
        lengths = iter(values.shape[1:])
        return values.reshape([len(values), *(next(lengths) if n in self.over else 1 for n in fine)])


def yes_codes(network: Network, target: str) -> tuple[str, np.ndarray]:
    """Return the factor that gives a column of yes and no, and which of its codes are a yes.

    Raises
    ------
    RequestError
        If the column is unknown, or does not have two values of which one is true or 1.
    """
    if target not in network.schema:
        raise RequestError(
            f"no column is called {target!r}: there are {listed(network.schema.names, target)}"
        )
    found = [(f, e) for f in network.factors for e in f.emissions if e.column == target]
    column = network.schema[target]
    if found and column.kind in ("boolean", "integer"):
        [(factor, emission)] = found
        values = scaled(emission, emission.low)
        if emission.high is None and emission.missing is None and set(values.tolist()) <= {0, 1}:
            return factor.name, np.asarray(values == 1)
    raise RequestError(
        f"{target!r} is no column of yes and no: its probability needs a drawn column of true and false, or "
        f"of 0 and 1, without gaps"
    )


class Posterior:
    """The probability of a yes, given the values of the known columns.

    Parameters
    ----------
    network : Network
        The model.
    target : str
        The column of yes and no.
    known : collection of str
        The columns whose values are known.
    weights : sequence of Table
        How many times as likely events become; none for the model as it is.
    apart : sequence of Table
        What else the answer depends on, besides a yes.

    Raises
    ------
    RequestError
        If the probability cannot be exact.
    """

    def __init__(
        self,
        network: Network,
        target: str,
        known: Collection[str],
        weights: Sequence[Table] = (),
        apart: Sequence[Table] = (),
    ) -> None:
        self.network = network
        self.target, self.yes = yes_codes(network, target)
        self.known = tuple(name for name in network.schema.names if name in known and name != target)
        self._weights = [Rows(dict(table.over), table.values[None]) for table in weights]
        self._factors = {factor.name: factor for factor in network.factors}
        self._evidence = dict(self._find_evidence())
        self._uses = [use for table in (*weights, *apart) for use in table.over.items()]
        self._relevant = self._find_relevant()
        self._dense: dict[str, np.ndarray] = {}

    def _find_evidence(self) -> Iterator[tuple[str, list[Emission | Formula]]]:
        """Give for each factor what the known columns say of it: columns it gives, formulas that read it."""
        model = self.network
        named = {identifier.column for identifier in model.identifiers}
        computed = {formula.column: formula for formula in model.formulas if not formula.adjusts}
        evidence: dict[str, list[Emission | Formula]] = {}
        for formula in model.formulas:
            if formula.adjusts and formula.column in self.known:
                raise RequestError(
                    f"the probability cannot be exact, since {formula.column!r} is adjusted to "
                    f"{formula.left!r}: fit a model without it"
                )
        for factor in model.factors:
            for emission in factor.emissions:
                if emission.column in self.known and emission.column not in named:
                    evidence.setdefault(factor.name, []).append(emission)
        giving = {e.column: (f, e) for f in model.factors for e in f.emissions}
        for name in self.known:
            if name not in computed:
                continue
            unknown = [item for item in computed[name].inputs if item not in self.known]
            if not unknown:
                continue
            [first, *more] = unknown
            if more or first not in giving or giving[first][1].high is not None:
                raise RequestError(
                    f"the probability cannot be exact, since {name!r} is computed from columns that are not "
                    f"known: fit a model without it"
                )
            evidence.setdefault(giving[first][0].name, []).append(computed[name])
        yield from evidence.items()

    def _find_relevant(self) -> set[str]:
        """Return the factors that matter: without those on which nothing known depends."""
        relevant = {self.target, *self._evidence, *(name for name, _ in self._uses)}
        for factor in reversed(self.network.factors):
            if factor.name in relevant:
                relevant |= set(factor.parents)
        return relevant

    def joint(self, batch: pa.RecordBatch, answer: Rows | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return how likely the known values are together with a yes, and at all; up to one constant.

        Parameters
        ----------
        batch : RecordBatch
            The events; at least the known columns.
        answer : Rows, optional
            The probability of a yes, by groups of the target and maybe of other factors; by default 1 for
            codes of a yes.

        Returns
        -------
        tuple of two ndarrays of float64 of shape (n_events,)
        """
        n = batch.num_rows
        both = np.empty((2, n))
        rows = _ROWS
        start = 0
        while start < n:
            part = batch.slice(start, rows)
            here = slice(start, start + part.num_rows)
            of_part = answer
            if answer is not None and len(answer.values) > 1:
                of_part = Rows(answer.over, answer.values[here])
            try:
                both[:, here] = self._joint(part, of_part)
            except TooManyCellsError:
                if rows == 1:
                    raise RequestError(
                        "the probability cannot be exact, since its tables would be too large: "
                        "fit a model of fewer columns"
                    ) from None
                rows = max(1, rows // 8)
                continue
            start += part.num_rows
        return both[0], both[1]

    def _joint(self, batch: pa.RecordBatch, answer: Rows | None) -> tuple[np.ndarray, np.ndarray]:
        tables, codes = self._tables(batch)
        tables += [self.at(table, codes) for table in self._weights]
        groups = self.yes.astype(np.int64)
        if answer is None:
            answer = Rows({self.target: groups}, np.array([[0.0, 1.0]]) if groups.any() else np.zeros((1, 1)))
        answer = self.at(answer, codes)
        n = batch.num_rows
        if set(answer.over) <= {self.target}:
            everything = multiplied(_eliminated(tables, answer.over))
            with_yes = multiplied([everything, answer])
        else:
            everything = multiplied(_eliminated(tables, ()))
            with_yes = multiplied(_eliminated([*tables, answer], ()))
        yes, total = (
            np.broadcast_to(rows.values.reshape(len(rows.values), -1).sum(axis=1), n)
            for rows in (with_yes, everything)
        )
        return yes, total

    def _tables(self, batch: pa.RecordBatch) -> tuple[list[Rows], dict[str, Rows]]:
        """Return the factors as tables, and the codes of those that are known or follow from others."""
        tables: list[Rows] = []
        codes: dict[str, Rows] = {}
        for factor in self.network.factors:
            if factor.name not in self._relevant:
                continue
            choice = self._choice(factor, codes)
            if factor.name in self._evidence:
                candidates, density = self._candidates(factor, batch)
                if candidates.shape[1] == 1 and (density[:, 0] > 0).all():
                    code = candidates[:, 0]
                    codes[factor.name] = Rows({}, code)
                    tables.append(self._likelihood(factor, choice, code, density[:, 0]))
                else:
                    tables.append(self._among(factor, choice, candidates, density))
            elif (np.diff(factor.offsets)[choice.values] == 1).all():  # it follows from others
                codes[factor.name] = Rows(choice.over, factor.codes[factor.offsets[choice.values]])
            else:
                groups = self._groups(factor.name)
                shares = np.zeros((len(factor.totals), int(groups.max()) + 1))
                number = np.repeat(np.arange(len(factor.totals)), np.diff(factor.offsets))
                np.add.at(shares, (number, groups[factor.codes]), factor.counts / factor.totals[number])
                _require_few(choice.values.size * shares.shape[1])
                tables.append(Rows({**choice.over, factor.name: groups}, shares[choice.values]))
        return tables, codes

    def _choice(self, factor: Factor, codes: Mapping[str, Rows]) -> Rows:
        """Return the number of the distribution that each event draws from, by groups of unknown factors."""
        known = {parent: codes[parent] for parent in factor.parents if parent in codes}
        parts: dict[str, list[np.ndarray]] = {}
        for parent, groups in zip(factor.parents, factor.groups, strict=True):
            for name, others in known[parent].over.items() if parent in known else [(parent, groups)]:
                parts.setdefault(name, []).append(others)
        over = {name: _refinement(groups) for name, groups in parts.items()}
        combination = np.zeros([1] * (1 + len(over)), np.int64)
        for parent, groups, size in zip(factor.parents, factor.groups, factor.shape, strict=True):
            if parent in known:
                group = groups[known[parent].spread(over)]
            else:
                group = Rows({parent: groups}, np.arange(size)[None]).spread(over)
            _require_few(math.prod(np.broadcast_shapes(combination.shape, group.shape)))
            combination = combination * size + group
        return Rows(over, factor.distribution_of[combination])

    def _groups(self, name: str) -> np.ndarray:
        """Return how far the codes of an unknown factor have to be kept apart."""
        uses = [
            groups
            for factor in self.network.factors
            if factor.name in self._relevant
            for parent, groups in zip(factor.parents, factor.groups, strict=True)
            if parent == name
        ]
        uses += [groups for other, groups in self._uses if other == name]
        if name == self.target:
            uses.append(self.yes.astype(np.int64))
        return _refinement(uses) if uses else np.zeros(self._factors[name].size, np.int64)

    def _probability(self, factor: Factor, choice: np.ndarray, code: np.ndarray) -> np.ndarray:
        """Return the probability of codes in their distributions."""
        size = factor.size
        if len(factor.totals) * size <= MAX_CELLS:
            if factor.name not in self._dense:
                number = np.repeat(np.arange(len(factor.totals)), np.diff(factor.offsets))
                dense = np.zeros(len(factor.totals) * size)
                np.add.at(dense, number * size + factor.codes, factor.counts / factor.totals[number])
                self._dense[factor.name] = dense
            return np.asarray(self._dense[factor.name][choice * size + code])
        number = np.repeat(np.arange(len(factor.totals)), np.diff(factor.offsets))
        keys = number * size + factor.codes
        order = np.argsort(keys, kind="stable")
        wanted = choice * size + code
        place = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
        found = (factor.counts / factor.totals[number])[order][place]
        return np.where(keys[order][place] == wanted, found, 0.0)

    def _likelihood(self, factor: Factor, choice: Rows, code: np.ndarray, density: np.ndarray) -> Rows:
        """Return the probability of the known values of a factor whose code is known."""
        shape = [-1, *[1] * len(choice.over)]
        probability = self._probability(factor, choice.values, code.reshape(shape))
        return Rows(choice.over, probability * density.reshape(shape))

    def _among(self, factor: Factor, choice: Rows, candidates: np.ndarray, density: np.ndarray) -> Rows:
        """Return the probability of the known values by groups of a factor, of which several codes fit."""
        groups = self._groups(factor.name)
        size = int(groups.max()) + 1
        shape = [-1, *[1] * len(choice.over)]
        rows = np.broadcast_shapes(choice.values.shape, (len(candidates), *[1] * len(choice.over)))
        _require_few(math.prod(rows) * size)
        values = np.zeros((*rows, size))
        for code, dense in zip(candidates.T, density.T, strict=True):
            probability = self._probability(factor, choice.values, code.reshape(shape)) * dense.reshape(shape)
            here = (groups[code][:, None] == np.arange(size)).reshape(len(code), *shape[1:], size)
            values += probability[..., None] * here
        return Rows({**choice.over, factor.name: groups}, values)

    def _candidates(self, factor: Factor, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """Return the codes that fit the known values of each event, and how likely each gives them.

        Returns
        -------
        codes, density : ndarray of shape (n_events, most codes that fit an event)
            The density is 0 where fewer codes fit.
        """
        [item, *more] = self._evidence[factor.name]
        if not more and isinstance(item, Emission):
            single = _single(self.network, item, batch.column(item.column))
            if single is not None:
                return single
        _require_few(batch.num_rows * factor.size)
        density = np.ones((batch.num_rows, factor.size))
        for item in self._evidence[factor.name]:
            if isinstance(item, Emission):
                density *= _density(self.network, item, batch.column(item.column))
            else:
                density *= self._computed(factor, item, batch)
        many = max(1, int((density > 0).sum(axis=1).max(initial=0)))
        codes = (
            np.argsort(-density, axis=1, kind="stable")[:, :many]
            if many > 1
            else density.argmax(axis=1)[:, None]
        )
        return codes, np.take_along_axis(density, codes, axis=1)

    def _computed(self, factor: Factor, formula: Formula, batch: pa.RecordBatch) -> np.ndarray:
        """Return 1 for codes from which a formula gives the known value of each event."""
        n, size = batch.num_rows, factor.size
        inputs: dict[str, np.ndarray] = {}
        for name in formula.inputs:
            emission = next(
                (e for e in factor.emissions if e.column == name and name not in self.known), None
            )
            if emission is None:
                inputs[name] = np.repeat(_numbers(batch.column(name)), size)
            else:
                inputs[name] = np.tile(scaled(emission, emission.low), n)
        value = compute(formula, inputs).reshape(n, size)
        known = _numbers(batch.column(formula.column))[:, None]
        return np.asarray(np.abs(value - known) <= _EXACT * np.maximum(1.0, np.abs(known)), np.float64)

    def at(self, table: Rows, codes: Mapping[str, Rows]) -> Rows:
        """Return a table for the codes that are known or follow from others."""
        parts: dict[str, list[np.ndarray]] = {}
        for name, groups in table.over.items():
            for other, others in codes[name].over.items() if name in codes else [(name, groups)]:
                parts.setdefault(other, []).append(others)
        over = {name: _refinement(groups) for name, groups in parts.items()}
        index: list[np.ndarray] = [np.arange(len(table.values)).reshape([-1, *[1] * len(over)])]
        for name, groups in table.over.items():
            if name in codes:
                index.append(groups[codes[name].spread(over)])
            else:
                size = int(groups.max()) + 1
                index.append(Rows({name: groups}, np.arange(size)[None]).spread(over))
        return Rows(over, np.asarray(table.values[tuple(index)]))


def _require_few(cells: int) -> None:
    if cells > MAX_CELLS:
        raise TooManyCellsError


def _eliminated(tables: Sequence[Rows], kept: Collection[str]) -> list[Rows]:
    """Return tables without all factors but those that are kept: these are summed over."""
    left = list(tables)
    while names := dict.fromkeys(name for table in left for name in table.over if name not in kept):

        def cost(name: str) -> int:
            over = _refined([table for table in left if name in table.over and len(table.over) > 1])  # noqa: B023
            return math.prod(int(groups.max()) + 1 for groups in over.values())

        name = min(names, key=cost)
        received = [table for table in left if name in table.over]
        left = [table for table in left if name not in table.over]
        left.append(_summed(received, name))
    return left


def multiplied(tables: Sequence[Rows]) -> Rows:
    """Return the product of tables, over all factors that they mention."""
    over = _refined(tables)
    product = np.ones([1] * (1 + len(over)))
    for table in sorted(
        tables, key=lambda table: table.values.size
    ):  # the small ones first: that is less work
        product = product * table.spread(over)
    return Rows(over, product)


def _refined(tables: Sequence[Rows]) -> dict[str, np.ndarray]:
    """Return groups of all factors of some tables that keep apart what any table does."""
    names = dict.fromkeys(name for table in tables for name in table.over)
    return {name: _refinement([t.over[name] for t in tables if name in t.over]) for name in names}


def _summed(tables: Sequence[Rows], name: str) -> Rows:
    """Return the sum of the product of tables over the codes of one factor.

    A table of groups stands for the sum over the codes of a group if the factor itself gave it, and for one
    value at each of them otherwise; so the first may only be made coarser by adding.
    """
    alone = [table for table in tables if len(table.over) == 1]
    others = [table for table in tables if len(table.over) > 1]
    over = _refined(others)
    if alone:
        fine = _refinement([t.over[name] for t in tables])
        vector = np.ones((1, 1))
        for table in alone:
            vector = vector * table.spread({name: fine})
        if not others:
            return Rows({}, vector.sum(axis=1))
        first = _first(fine)
        onto = np.zeros((len(first), int(over[name].max()) + 1))
        onto[np.arange(len(first)), over[name][first]] = 1.0
        alone = [Rows({name: over[name]}, vector @ onto)]
    sizes = [int(groups.max()) + 1 for groups in over.values()]
    _require_few(max(len(t.values) for t in tables) * math.prod(sizes))
    summand = multiplied([*others, *alone]).values
    axis = list(over).index(name) + 1
    rest = {other: groups for other, groups in over.items() if other != name}
    return Rows(rest, summand.sum(axis=axis))


def _numbers(array: pa.Array) -> np.ndarray:
    """Return a column as numbers; timestamps are microseconds since 1970 UTC."""
    if pa.types.is_timestamp(array.type):
        array = array.view(pa.int64())
    elif pa.types.is_boolean(array.type):
        array = array.cast(pa.int64())
    return np.asarray(array.fill_null(0).to_numpy(zero_copy_only=False))


def _single(network: Network, emission: Emission, array: pa.Array) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the code that gives the value of each event, and how likely it does; None if several can.

    The shapes are those of `Posterior._candidates`.
    """
    if array.null_count or emission.missing is not None:
        return None
    if emission.column in network.categories:
        low, high, value = emission.low, emission.last, _indices(network, emission, array)
        count = (high - low + 1).astype(float)
    else:
        low, high = scaled(emission, emission.low), scaled(emission, emission.last)
        value = _numbers(array)
        count = _lattice(emission, value[:0])[0]
    order = np.argsort(low, kind="stable")
    room = _EXACT * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))[order]
    low, high = low[order] - room, high[order] + room
    if (low[1:] <= high[:-1]).any():
        return None
    place = np.maximum(np.searchsorted(low, value, "right") - 1, 0)
    code = order[place]
    return code[:, None], np.where(value <= high[place], 1 / count[code], 0.0)[:, None]


def _indices(network: Network, emission: Emission, array: pa.Array) -> np.ndarray:
    """Return the strings of a column as places in the model's list, -1 for others."""
    place = {string: index for index, string in enumerate(network.categories[emission.column])}
    index = np.array([place.get(string, -1) for string in array.dictionary.to_pylist()], np.int64)
    return np.asarray(index[array.indices.fill_null(0).to_numpy()])


def _density(network: Network, emission: Emission, array: pa.Array) -> np.ndarray:
    """Return how likely each code gives the value of each event, shape (n_events, n_codes).

    Numbers in a range are equally likely; how they are counted follows from the step.
    """
    null = np.asarray(array.is_null())
    missing = np.zeros(len(emission.low), bool) if emission.missing is None else emission.missing
    if emission.column in network.categories:
        value = _indices(network, emission, array)
        low, high, count = emission.low, emission.last, (emission.last - emission.low + 1).astype(float)
        fits = (value[:, None] >= low) & (value[:, None] <= high)
    else:
        number = _numbers(array)
        low, high = scaled(emission, emission.low), scaled(emission, emission.last)
        count, on_lattice = _lattice(emission, number)
        room = _EXACT * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
        fits = (number[:, None] >= low - room) & (number[:, None] <= high + room) & on_lattice
    fits = np.where(null[:, None], missing, fits & ~missing)
    return np.where(null[:, None], fits, fits / count)


def _lattice(emission: Emission, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many values the range of each code has, and whether each number can be one of them.

    Of ranges without steps the count is their length: a density.
    """
    span = (emission.last - emission.low).astype(np.float64)
    everywhere = np.ones((1, 1), bool)
    if emission.quantum is not None:
        step = 1 if emission.step is None else emission.step
        return span // step + 1, everywhere
    if emission.step is None:
        return np.where(span > 0, span, 1.0), everywhere
    step = np.maximum(emission.step, SMALLEST_STEP)
    parts = np.maximum(np.rint(1 / step), 1)
    stepped = (emission.step > 0) & (span > 0)
    count = np.where(stepped, np.rint(span / step) + 1, np.where(span > 0, span, 1.0))
    scale = number[:, None] * parts
    on_lattice = np.abs(scale - np.rint(scale)) <= 1e-3
    return count, np.where(stepped, on_lattice, True)
