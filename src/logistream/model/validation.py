"""Is a model consistent? Checked when it is read, so that sampling cannot fail halfway.

A model file may come from a stranger, be edited by hand or be damaged. Whatever sampling, conditions and
descriptions rely on is checked here: types, sizes, ranges of codes, names, and the order of dependence.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from logistream.model.sampling import OPERATIONS
from logistream.schema import Column, Kind
from logistream.times import CALENDAR, DAY

if TYPE_CHECKING:
    from logistream.model.network import DaysAfterEvent, Emission, Factor, Formula, Network
    from logistream.model.patterns import Identifier

__all__ = ["check"]

_MOST_COUNTS = 2**28  # of one factor
_MOST_PLACES = 4096  # of a pattern
_MOST_LETTERS = 2**25  # of all patterns of a column, laid out as a table, 128 MiB
_MOST_DECIMALS = 15
_MOST_FACTOR = 1e15
_SMALLEST_DIVISOR = 1e-8
_FIRST, _LAST = -62_135_596_800 * 10**6, 253_402_300_800 * 10**6 - 1  # microseconds of the years 1 to 9999
_INTEGERS = r"u?int(8|16|32|64)|U?Int(8|16|32|64)|u?int(8|16|32|64)\[pyarrow\]"
_FLOATS = r"float(16|32|64)|Float(32|64)|(halffloat|float|double)\[pyarrow\]"
_TIMES = (
    r"datetime64\[(s|ms|us|ns)(, [\w/+:-]+)?\]"
    r"|(timestamp\[(s|ms|us|ns)(, tz=[\w/+:-]+)?\]|date(32|64)(\[(day|ms)\])?)\[pyarrow\]"
)
_DTYPES: dict[Kind, str] = {
    "category": r"str|string|string\[\w+\]|(string|large_string|dictionary<.*>)\[pyarrow\]",
    "boolean": r"bool|boolean|bool\[pyarrow\]",
    "integer": _INTEGERS,
    "number": f"{_FLOATS}|{_INTEGERS}",
    "timestamp": _TIMES,
}
_ANY_KIND = r"object|category|ordered category|Sparse\[.+\]"
_WITHOUT_GAPS = r"bool|u?int(8|16|32|64)"


def check(network: Network) -> None:
    """Raise `ValueError` with one clause that names what is wrong, if anything is.

    Parameters
    ----------
    network : Network
        As read from a file: its fields may hold values of any type.
    """
    _require(isinstance(network.name, str), "its name is no string")
    _whole(network.rows, "its number of rows", 0, 2**53)
    _check_schema(network)
    codes: dict[str, int] = {}
    known: dict[str, tuple[float, float]] = {}  # least and greatest number of each column and helper
    for factor in network.factors:
        _require(isinstance(factor.name, str) and factor.name not in codes, "two factors share a name")
        _check_factor(factor, codes)
        codes[factor.name] = factor.size
        for emission in factor.emissions:
            _require(isinstance(emission.column, str), "a column's name is no string")
            _require(emission.column not in known, f"{emission.column!r} is drawn twice")
            known[emission.column] = _check_emission(emission, factor.size, network)
    for formula in network.formulas:
        known[formula.column] = _check_formula(formula, known, network)
    for column in network.schema:
        _require(column.name in known, f"column {column.name!r} is neither drawn nor computed")
        if column.kind == "timestamp":
            low, high = known[column.name]
            _require(
                low >= _FIRST and high <= _LAST, f"timestamps of {column.name!r} lie beyond the year 9999"
            )
        elif column.kind in ("integer", "boolean"):
            limits = (-(2**63), 2**63 - 1) if column.kind == "integer" else (0, 1)
            low, high = known[column.name]
            _require(limits[0] <= low and high <= limits[1], f"values of {column.name!r} are out of range")
    for identifier in network.identifiers:
        _check_identifier(identifier, network)
    _require(
        len({i.column for i in network.identifiers}) == len(network.identifiers), "an identifier occurs twice"
    )
    for rule in network.rules:
        words = (rule.kind, rule.why_not, *rule.columns)
        _require(all(isinstance(word, str) for word in words), "a rule is not in words")
        _require(
            len(rule.columns) > 0 and all(name in network.schema for name in rule.columns),
            "a rule is about columns that are not there",
        )
        _whole(rule.checked, "the support of a rule", 0, 2**53)
        _whole(rule.held, "the support of a rule", 0, rule.checked)
    for delay in network.days_after_event:
        _check_days(delay, known, network)
    _require(
        len(set(network.on_request)) == len(network.on_request)
        and all(isinstance(name, str) and name in network.schema for name in network.on_request),
        "a column on request is no column of the table",
    )


def _require(holds: bool | np.bool_, clause: str) -> None:
    if not holds:
        raise ValueError(clause)


def _whole(value: Any, what: str, low: int, high: int) -> None:  # noqa: ANN401 - JSON
    fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    _require(fits, f"{what} is {value!r}, expected a whole number from {low} to {high}")


def _integers(array: np.ndarray, size: int | None, low: int, high: int, what: str) -> None:
    """Check a one-dimensional array of whole numbers: its size and the range of its values."""
    _require(array.ndim == 1 and array.dtype.kind == "i", f"{what} is no list of whole numbers")
    _require(size is None or len(array) == size, f"{what} has {len(array)} entries, expected {size}")
    _require(len(array) > 0, f"{what} is empty")
    _require(low <= array.min() and array.max() <= high, f"{what} has an entry that is out of range")


def _check_schema(network: Network) -> None:
    names = [column.name for column in network.schema]
    _require(len(names) > 0, "it has no columns")
    _require(all(isinstance(name, str) for name in names), "a column's name is no string")
    _require(len(set(names)) == len(names), "a column occurs twice")
    for column in network.schema:
        _check_column(column)
    for name, strings in network.categories.items():
        _require(
            name in network.schema and network.schema[name].kind == "category",
            f"there are categories for {name!r}, which is no category column",
        )
        _require(all(isinstance(string, str) for string in strings), f"a category of {name!r} is no string")
        _require(0 < len(set(strings)) == len(strings), f"the categories of {name!r} repeat, or are none")
        for string in strings:
            string.encode()  # a UnicodeEncodeError is a ValueError
    for column in network.schema:
        name = column.name
        known = name in network.categories or name in {i.column for i in network.identifiers}
        _require(column.kind != "category" or known, f"{name!r} has no categories")
        dtype = network.dtypes.get(name)
        _require(
            isinstance(dtype, str) and re.fullmatch(f"{_DTYPES[column.kind]}|{_ANY_KIND}", dtype) is not None,
            f"{name!r} has the dtype {dtype!r}, which does not go with a {column.kind} column",
        )
        gaps = column.nullable and re.fullmatch(_WITHOUT_GAPS, str(dtype)) is not None
        _require(not gaps, f"{name!r} has the dtype {dtype!r}, which cannot hold missing values")


def _check_column(column: Column) -> None:
    name = column.name
    _require(column.kind in get_args(Kind), f"{name!r} is of kind {column.kind!r}, which is unknown")
    _require(
        isinstance(column.meaning, str)
        and isinstance(column.unit, str)
        and isinstance(column.nullable, bool),
        f"meaning, unit or nullable of {name!r} is of a wrong type",
    )
    if column.decimals is not None:
        _whole(column.decimals, f"decimals of {name!r}", 0, _MOST_DECIMALS)
    if column.text_format is not None:
        _require(isinstance(column.text_format, str), f"the format of {name!r} is no string")
        datetime(2026, 11, 26).strftime(column.text_format)


def _check_factor(factor: Factor, before: dict[str, int]) -> None:
    """Check a factor's own tables, and that its parents come before it."""
    name = repr(factor.name)
    _whole(factor.size, f"the size of {name}", 1, 2**31 - 1)
    _require(len(factor.parents) == len(factor.groups), f"{name} has groups for other parents than its own")
    cells = 1
    for parent, group in zip(factor.parents, factor.groups, strict=True):
        _require(parent in before, f"{name} depends on {parent!r}, which is not drawn before it")
        _integers(group, before[parent], 0, before[parent] - 1, f"a list of groups of {name}")
        cells *= int(group.max()) + 1
    _integers(factor.offsets, None, 0, len(factor.codes), f"offsets of {name}")
    _require(
        len(factor.offsets) > 1
        and factor.offsets[0] == 0
        and factor.offsets[-1] == len(factor.codes)
        and bool((np.diff(factor.offsets) > 0).all()),
        f"offsets of {name} do not ascend from 0 to the number of its codes",
    )
    _integers(factor.distribution_of, cells, 0, len(factor.offsets) - 2, f"the table of {name}")
    _integers(factor.codes, None, 0, factor.size - 1, f"the list of codes of {name}")
    _integers(factor.counts, len(factor.codes), 1, _MOST_COUNTS, f"the list of counts of {name}")
    _require(int(factor.counts.sum()) <= _MOST_COUNTS, f"{name} has too many counts")


def _check_emission(emission: Emission, size: int, network: Network) -> tuple[float, float]:
    """Check the values of a factor's codes; return the least and the greatest number they stand for."""
    name = repr(emission.column)
    ends = (emission.low, emission.last)
    if emission.quantum is None:
        for end in ends:
            _require(end.shape == (size,) and end.dtype.kind in "if", f"values of {name} have a wrong shape")
            _require(bool(np.isfinite(end).all()), f"values of {name} are not finite")
    else:
        for end in ends:
            _integers(end, size, -(2**62), 2**62, f"the list of values of {name}")
        _require(len(emission.quantum) == 2, f"the quantum of {name} is no pair")
        for part in emission.quantum:
            _whole(part, f"the quantum of {name}", 1, 10**15)
    _require(bool((ends[0] <= ends[1]).all()), f"a range of {name} ends before it begins")
    if emission.step is not None:
        _require(
            emission.high is not None
            and emission.step.shape == (size,)
            and emission.step.dtype.kind == ("f" if emission.quantum is None else "i")
            and bool(np.isfinite(emission.step).all())
            and bool((emission.step >= (0 if emission.quantum is None else 1)).all()),
            f"steps of {name} are not those of its values",
        )
    if emission.missing is not None:
        _require(emission.missing.shape == (size,), f"missing values of {name} have a wrong shape")
    gaps = emission.missing is not None and bool(emission.missing.any())
    column = next((c for c in network.schema if c.name == emission.column), None)
    _require(not (gaps and column and not column.nullable), f"{name} has missing values and may not have any")
    if emission.column in network.categories:
        whole = emission.quantum == (1, 1)
        _require(whole, f"{name} is a category column and has a quantum")
        strings = len(network.categories[emission.column])
        _integers(emission.low, size, 0, strings - 1, f"the list of categories of {name}")
        _integers(emission.last, size, 0, strings - 1, f"the list of categories of {name}")
    low, high = ends[0].min().item(), ends[1].max().item()
    if emission.quantum is not None:
        numerator, denominator = emission.quantum
        low, high = low * numerator, high * numerator
        _require(low >= -(2**62) and high <= 2**62, f"values of {name} are out of range")
        if denominator != 1:
            low, high = low / denominator, high / denominator
    elif isinstance(column, Column) and column.kind != "number":
        raise ValueError(f"{name} is a {column.kind} column and has no quantum")
    return low, high


def _check_formula(
    formula: Formula, known: dict[str, tuple[float, float]], network: Network
) -> tuple[float, float]:
    """Check a formula's names and kinds; return the least and the greatest number that it can give."""
    names = (formula.column, formula.operation, formula.left, formula.right)
    _require(all(isinstance(name, str) for name in names), "a formula names no column")
    name = repr(formula.column)
    _require(formula.column in network.schema, f"{name} is computed and is no column of the table")
    _require(
        isinstance(formula.others, tuple)
        and all(isinstance(other, str) and other for other in formula.others),
        f"{name} has an input that is no name",
    )
    wanted = 1 if formula.operation in CALENDAR else 2 if formula.operation == "local" else -1
    factors = 0
    if wanted < 0:
        _require(
            formula.operation in OPERATIONS, f"{name} is computed by {formula.operation!r}, which is unknown"
        )
        wanted, factors, _ = OPERATIONS[formula.operation]
    if formula.operation == "unless":
        wanted = max(3, len(formula.inputs))
    if formula.operation == "linear":
        wanted, factors = max(1, len(formula.inputs)), len(formula.inputs) + 1
    if formula.keeps_order and formula.factors:
        factors = 1
        [step, *_] = formula.factors
        _require(step >= 1 and step == int(step), f"{name} is moved by {step}, which is no whole number")
    _require(
        bool(formula.left) and len(formula.inputs) == wanted and bool(formula.right or not formula.others),
        f"{name} is computed from {len(formula.inputs)} columns by {formula.operation!r}",
    )
    _require(
        len(formula.factors) == factors
        and all(type(f) in (int, float) and abs(f) < _MOST_FACTOR for f in formula.factors),
        f"{name} is computed with wrong factors",
    )
    _require(isinstance(formula.floor, bool), f"{name} is rounded neither down nor to the nearest")
    _whole(formula.rows, f"the support of {name}", 0, 2**53)
    _whole(formula.checked, f"the support of {name}", 0, 2**53)
    adjusts = formula.operation in ("at least", "at most", "unless", "blank")
    _require(
        adjusts == formula.adjusts == (formula.column in known), f"{name} is computed twice, or out of itself"
    )
    for read in formula.inputs:
        _require(read in known, f"{name} is computed from {read!r}, which is not known before it")
        strings = read in network.schema and network.schema[read].kind == "category"
        invented = read in {identifier.column for identifier in network.identifiers}
        _require(not strings and not invented, f"{name} is computed from strings, or from invented values")
    _require(network.schema[formula.column].kind != "category", f"{name} is computed and is of strings")
    if formula.decimals is not None:
        _whole(formula.decimals, f"decimals of {name}", 0, _MOST_DECIMALS)
    before = -(2**63)
    for start, ahead in formula.offsets:
        _whole(start, f"a clock of {name}", before, 2**62)
        _whole(ahead, f"a clock of {name}", -DAY, DAY)
        before = start + 1
    if formula.operation in CALENDAR:
        low, high = known[formula.left]
        _require(low >= _FIRST and high <= _LAST, f"{name} is a part of timestamps beyond the year 9999")
        return 0, 9999
    return _bounds(formula, [known[read] for read in formula.inputs])


def _bounds(formula: Formula, inputs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the least and the greatest result of a formula, for inputs from ... to ...

    Raises
    ------
    ValueError
        If it divides by a factor that is not positive.
    """
    operation, factors, name = formula.operation, formula.factors, repr(formula.column)
    if operation == "blank":
        return inputs[1]
    if operation in ("product", "square", "product and sum"):
        ends = [a * b for a in inputs[0] for b in inputs[-1 if operation == "square" else 1]]
        if operation == "product and sum":
            more = [factors[0] * end for end in inputs[2]]
            ends = [min(ends) + min(more), max(ends) + max(more)]
    elif operation == "ratio":
        divisors = (
            inputs[1] if inputs[1][0] > 0 or inputs[1][1] < 0 else (-_SMALLEST_DIVISOR, _SMALLEST_DIVISOR)
        )
        ends = [factors[0] * a / b for a in inputs[0] for b in divisors]
    elif operation == "elapsed":
        _require(factors[0] > 0, f"{name} divides by a factor that is not positive")
        ends = [(inputs[0][0] - inputs[1][1]) / factors[0], (inputs[0][1] - inputs[1][0]) / factors[0]]
    elif operation == "log":
        ends = [factors[0] * math.log(max(end + factors[1], 1e-300)) for end in inputs[0]]
    elif operation == "linear":
        parts = [sorted(factor * end for end in ends) for factor, ends in zip(factors, inputs, strict=False)]
        ends = [factors[-1] + sum(part[0] for part in parts), factors[-1] + sum(part[1] for part in parts)]
    elif operation == "unless":
        ends = [*inputs[1], *(sum(end) for end in zip(*inputs[2:], strict=True))]
    elif operation in ("sum", "local"):
        slack = DAY if operation == "local" else 0
        ends = [inputs[0][0] + inputs[1][0] - slack, inputs[0][1] + inputs[1][1] + slack]
    else:  # a reflection stays within as far again
        (low, high), (a, b) = inputs
        step = factors[0] if factors else 0
        ends = [low, high, a, b, 2 * high - a + step, 2 * low - b - step]
    return min(ends), max(ends)


def _check_identifier(identifier: Identifier, network: Network) -> None:
    """Check that every pattern that is drawn can be filled."""
    kinds = {column.name: column.kind for column in network.schema}
    name = repr(identifier.column)
    kind = kinds.get(identifier.column)
    _require(kind in ("category", "integer"), f"{name} has patterns and is no such column")
    _require(identifier.column not in network.categories, f"{name} has patterns and categories")
    _require(isinstance(identifier.separator, str), f"the separator of {name} is no string")
    _require(
        (kind == "category") == bool(identifier.separator), f"the separator of {name} is of a wrong kind"
    )
    longest = max((len(pattern.places) for pattern in identifier.patterns), default=0)
    widest = max((len(place) for pattern in identifier.patterns for place in pattern.places), default=0)
    _require(
        longest <= _MOST_PLACES and len(identifier.patterns) * longest * widest <= _MOST_LETTERS,
        f"the patterns of {name} are too long, or too many",
    )
    named = {other.column for other in network.identifiers}
    for other in (*identifier.within, *identifier.shared):
        _require(
            other in kinds and other not in named, f"{name} goes with {other!r}, which is no such column"
        )
    for pattern in identifier.patterns:
        _require(bool(pattern.places), f"a pattern of {name} is empty")
        for letters in pattern.places:
            _require(isinstance(letters, str) and letters != "", f"a pattern of {name} has an empty place")
            _require(len(set(letters)) == len(letters), f"a place of a pattern of {name} repeats a letter")
            letters.encode()
        _whole(pattern.first, f"a pattern of {name}", 0, 10**15)
        _whole(pattern.stop, f"a pattern of {name}", 0, 2**62)
        _whole(pattern.modulus, f"a pattern of {name}", 1, 2**53)
        _require(isinstance(pattern.ordered, bool), f"a pattern of {name} is neither ordered nor not")
        _require(
            len(set(pattern.residues)) == len(pattern.residues) > 0, f"a pattern of {name} repeats residues"
        )
        for residue in pattern.residues:
            _whole(residue, f"a residue of {name}", 0, pattern.modulus - 1)
        if kind == "integer":
            digits = all(letters == "0123456789" for letters in pattern.places)
            _require(digits and len(pattern.places) <= 15, f"a pattern of {name} is not one of whole numbers")
    emissions = [e for f in network.factors for e in f.emissions if e.column == identifier.column]
    _require(len(emissions) == 1 and emissions[0].high is None, f"{name} is not drawn as patterns")
    patterns = len(identifier.patterns)
    _integers(emissions[0].low, None, 0, patterns - 1, f"the list of patterns of {name}")


def _check_days(delay: DaysAfterEvent, known: dict[str, tuple[float, float]], network: Network) -> None:
    kinds = {column.name: column.kind for column in network.schema}
    _require(
        kinds.get(delay.column) == "timestamp", f"{delay.column!r} follows the clock and is no timestamp"
    )
    _require(kinds.get(delay.service) == "category", f"{delay.service!r} is no category column")
    for name in (delay.promised, delay.late):
        invented = name in {identifier.column for identifier in network.identifiers}
        numeric = name in known and kinds.get(name) != "category" and not invented
        _require(numeric, f"{name!r} is no column of numbers")
        _require(max(map(abs, known[name])) < 10**6, f"values of {name!r} are out of range")
    services = len(network.categories.get(delay.service, ()))
    for end in (delay.low, delay.high):
        _integers(end, services, -(10**5), 10**5, f"the days of {delay.column!r}")
    _require(bool((delay.low <= delay.high).all()), f"days of {delay.column!r} end before they begin")
