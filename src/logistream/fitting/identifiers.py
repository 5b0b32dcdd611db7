"""Strings and numbers of a few rows: invented, so that a model holds none that fewer than five rows have.

- A column in which nearly every row has a value of its own (an order number, a registration, a name) names
  the rows. Its strings become *patterns*: letters that five rows share at a place, such as a year or a
  region, and kinds of letters elsewhere. The pattern of a row is learned as any variable is, so that what it
  shares with other columns stays; the rest is invented from the number of the event
  (`logistream.model.patterns`), never the same one twice. Whole numbers that name the rows are invented
  likewise, or counted on.
- So are values that name a few rows each, such as orders, if another column numbers these rows, such as their
  lines: no two of them have the same number. A new value is made for each group of events, and the events of
  a group have different numbers.
- In any other column of strings, each one that fewer than `SMALLEST_GROUP` rows have, or of many such a few
  more, is replaced by one invented string: what five strings share of their beginnings and endings stays, the
  letters and digits between are drawn. So a rare city becomes another one in the same state.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from logistream.fitting.coding import SMALLEST_GROUP, Coded, code_column, over_all_rows
from logistream.model.network import Emission, Rule
from logistream.model.patterns import MOST_COMBINATIONS, Identifier, Pattern
from logistream.model.random_bits import permutation, uniforms

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from logistream.fitting.columns import Values

    Kept = Callable[[str], tuple[str, Collection[int]]]

__all__ = [
    "Inventor",
    "Numbered",
    "code_integers",
    "code_repeated",
    "code_strings",
    "determines",
    "find_patterns",
    "find_unique",
]


_LEAST_ROWS = 100  # fewer are no evidence
_NEARLY_ALL = 0.95  # of the rows have a string of their own
_COLLISIONS = 10  # equal pairs that whole numbers would have by chance, at least, if they named nothing
_DENSE = 0.5  # of the numbers between the least and the greatest occur: they are a counter
_MOST_DIGITS = 9  # of a number that names a row, beside a counter
_TOKENS = 30  # different values of a part of a string, at most, to be kept
_ROOM = 16  # combinations of open places for each row, where a part need not be kept
_MOST_PATTERNS = 500
_MOST_COMPOSED = 100
_COMMON_SHAPES = 0.5  # of the rows, at least: else letters and digits count as one kind
_MOST_RESIDUES, _LEAST_RESIDUES = 4096, 32  # of all patterns of a column, and of each
_SEPARATORS = "-_.~:/|#"
_TRIES = 30
_LEAST_GROUPS = 30  # different values of a column that names a few rows each,
_MOST_ROWS_EACH = 20  # and rows of each, on average
_MANY_RARE = 20  # strings
_LIMITS = 10  # different numbers of rows of which many rare strings must have one
_LEAST_REDRAWN = 2  # characters
_ASCII = {"d": "0123456789", "l": "abcdefghijklmnopqrstuvwxyz", "u": "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_ASCII["o"] = "一二三四五六七八九十"
_ASCII["a"] = _ASCII["l"] + _ASCII["d"]


def code_strings(
    values: Values, *, public: bool = False, kept: Kept | None = None
) -> tuple[Coded, tuple[str, ...], Identifier | None]:
    """Return a category column as a discrete variable; if its strings are public names, with all of them.

    Parameters
    ----------
    values : Values
        The column.
    public : bool
        Whether all strings are kept.
    kept : callable, optional
        From a string to the one to begin with, and the places of letters that an invented one keeps.

    Returns
    -------
    coded : Coded
    categories : tuple of str
        The closed set of strings that it gives; empty if they are invented from the event number.
    identifier : Identifier or None
        How they are, in that case.
    """
    if public:
        return code_column(values), values.strings, None
    counts = np.bincount(values.known, minlength=len(values.strings))
    rows = len(values.known)
    if rows >= _LEAST_ROWS and (counts == 1).sum() >= _NEARLY_ALL * rows:
        strings = [values.strings[i] for i in values.known.tolist()]
        coded, identifier = _as_patterns(values, strings, np.arange(rows))
        return coded, (), identifier
    inventor: Inventor | None = None
    categories: list[str] = []
    place = np.zeros(len(counts), np.int64)
    least = _least_rows(counts)
    for i, (string, count) in enumerate(zip(values.strings, counts.tolist(), strict=True)):
        if count == 0 and not values.scale:
            continue
        place[i] = len(categories)
        if 0 < count < least[i]:
            inventor = inventor or Inventor([s for s, c in zip(values.strings, counts, strict=True) if c])
            string = inventor.like(*kept(string)) if kept else inventor.like(string)
        categories.append(string)
    if not values.scale:  # the order of the alphabet, in which an invented string has a place of its own
        rank = np.argsort(sorted(range(len(categories)), key=categories.__getitem__))
        place, categories = rank[place], sorted(categories)
    coded = code_column(replace(values, numbers=place[values.numbers]))
    return coded, tuple(categories), None


def _as_patterns(values: Values, strings: Sequence[str], places: np.ndarray) -> tuple[Coded, Identifier]:
    """Return strings as a variable whose codes are patterns, and how they are invented.

    Parameters
    ----------
    values : Values
        The column.
    strings : sequence of str
        Its different strings.
    places : ndarray of int64 of shape (n_known,)
        Which of them each row has.
    """
    name = values.column.name
    patterns, codes = find_patterns(strings)
    separator = next((s for s in _SEPARATORS if not any(s in string for string in strings)), " #")
    present, codes = np.unique(codes[places], return_inverse=True)
    kept = tuple(patterns[i] for i in present.tolist())
    emission = Emission(name, np.arange(len(kept)))
    coded = Coded(name, codes.reshape(-1).astype(np.int64), len(kept), False, (emission,))
    return over_all_rows(coded, values.missing), Identifier(name, kept, separator)


def code_repeated(values: Values, within: str, shared: Sequence[str]) -> tuple[Coded, Identifier] | None:
    """Return values that name a few rows each as a variable of patterns, and how they are invented.

    None if they are numbers below 0, or of too many digits.

    Parameters
    ----------
    values : Values
        A column of strings or whole numbers.
    within : str
        The column that numbers the rows of a value.
    shared : sequence of str
        What a value determines.
    """
    different, places = np.unique(values.known, return_inverse=True)
    if values.column.kind == "category":
        strings = [values.strings[i] for i in different.tolist()]
        coded, identifier = _as_patterns(values, strings, places.reshape(-1))
    else:
        pattern = _digits(different) if different[0] >= 0 else None
        if pattern is None:
            return None
        coded, identifier = _as_numbers(values, pattern)
    return coded, replace(identifier, within=(within,), shared=tuple(shared))


def find_unique(
    table: Mapping[str, Values], fixed: Collection[str]
) -> tuple[dict[str, tuple[str, tuple[str, ...]]], list[Rule]]:
    """Return which columns name a few rows each, numbered by another one, and all pairs without repetition.

    A pair of columns counts if no combination occurs twice, though some would by chance.

    Parameters
    ----------
    table : mapping of str to Values
        The columns by name.
    fixed : collection of str
        Those whose values must be kept, or that are computed or read by formulas.

    Returns
    -------
    repeated : dict of str to (str, tuple of str)
        For a column that names rows: the one that numbers them, and what it determines.
    rules : list of Rule
        The pairs, with why they cannot be kept.
    """
    numbered: dict[str, Numbered] = {}
    for name, values in table.items():
        if values.column.kind in ("category", "integer", "boolean") and len(values.known) >= _LEAST_ROWS:
            numbered[name] = Numbered.of(values)
    pairs: list[tuple[float, str, str, int]] = []
    for (a, one), (b, other) in itertools.combinations(numbered.items(), 2):
        if max(one.most, 2) > other.different or max(other.most, 2) > one.different:
            continue
        known = (one.codes >= 0) & (other.codes >= 0)
        rows = int(known.sum())
        if rows < _LEAST_ROWS or min(one.most, other.most) < 2:
            continue
        x, y = one.codes[known], other.codes[known]
        if len(np.unique(x * other.different + y)) < rows:
            continue
        by_chance = rows - len(np.unique(x * other.different + y[permutation(rows)]))
        if by_chance >= _COLLISIONS:
            large, small = (a, b) if one.different >= other.different else (b, a)
            pairs.append((-by_chance, large, small, rows))
    repeated: dict[str, tuple[str, tuple[str, ...]]] = {}
    rules: list[Rule] = []
    every = {name: Numbered.of(values).codes for name, values in table.items()} if pairs else {}
    for _, large, small, rows in sorted(pairs):
        why_not = ""
        if large in repeated or small in repeated:
            why_not = "a value is numbered by one column only"
        elif large in fixed:
            why_not = f"other columns are computed from {large}, or its values are public"
        elif not _names_rows(table[large], numbered[large]):
            why_not = f"the values of {large} are kept, and there are too few for rows without end"
        else:
            of = numbered[large].codes
            twin = next((n for n, codes in every.items() if n != large and determines(codes, of)), "")
            shared = [n for n, codes in every.items() if n not in (large, small) and determines(of, codes)]
            if twin:
                why_not = f"{large} follows from {twin}, whose values are kept"
            else:
                repeated[large] = small, tuple(shared)
                rules += [Rule("functional dependency", (large, name), rows, rows) for name in shared]
                apart = np.unique(np.stack([every[name] for name in (large, *shared)], axis=1), axis=0)
                if shared and len(np.unique(apart[:, 1:], axis=0)) > len(apart) / 2:
                    why = f"rows share a value of {large} only if they agree in {', '.join(shared)}"
                    often = int((np.bincount(of[of >= 0])[of[of >= 0]] > 1).sum())
                    rules.append(Rule("repeated", (large,), often, int((of >= 0).sum()), why))
        rules.append(Rule("unique", (large, small), rows, rows, why_not))
    return repeated, rules


@dataclass(frozen=True, slots=True)
class Numbered:
    """A column as numbers.

    Parameters
    ----------
    codes : ndarray of int64 of shape (n_rows,)
        The place of each value among the different ones, -1 where it is missing.
    different : int
        Number of different values.
    most : int
        Rows of the commonest value.
    """

    codes: np.ndarray
    different: int
    most: int

    @classmethod
    def of(cls, values: Values) -> Numbered:
        """Return a column as numbers."""
        codes = np.full(len(values.numbers), -1, np.int64)
        codes[~values.missing] = np.unique(values.known, return_inverse=True)[1].reshape(-1)
        counts = np.bincount(codes[codes >= 0], minlength=1)
        return cls(codes, len(counts), int(counts.max()))


def _names_rows(values: Values, numbered: Numbered) -> bool:
    """Return whether a column names groups of few rows: then its values mean nothing else."""
    if numbered.different < _LEAST_GROUPS or len(values.known) > _MOST_ROWS_EACH * numbered.different:
        return False
    if values.column.kind != "category":
        return values.column.kind == "integer"
    digits = sum(any(letter in _ASCII["d"] for letter in values.strings[i]) for i in np.unique(values.known))
    return (
        len(values.known) < SMALLEST_GROUP * numbered.different or digits >= _NEARLY_ALL * numbered.different
    )


def determines(codes: np.ndarray, other: np.ndarray) -> bool:
    """Return whether each value occurs with a single one of another column, beyond chance, gaps aside."""
    known = (codes >= 0) & (other >= 0)
    x, y = codes[known], other[known]
    if len(x) < _LEAST_ROWS or y.min() == y.max():
        return False
    values, size = len(np.unique(x)), int(y.max()) + 1
    pairs, by_chance = (len(np.unique(x * size + z)) for z in (y, y[permutation(len(y))]))
    return pairs == values and by_chance - values >= _COLLISIONS


def _least_rows(counts: np.ndarray) -> np.ndarray:
    """Return how many rows must have each string so that it is kept, from `SMALLEST_GROUP` on.

    Of many rare strings, each has a limit of its own, drawn from five to fourteen. With one limit for all,
    that a string is kept would say much of each of its rows: without that row it often would not be.
    """
    least = np.full(len(counts), SMALLEST_GROUP)
    if ((counts > 0) & (counts < SMALLEST_GROUP + _LIMITS - 1)).sum() > _MANY_RARE:
        least += (uniforms(np.random.Philox(4), len(counts)) * _LIMITS).astype(np.int64)
    return least


def code_integers(values: Values) -> tuple[Coded, Identifier] | None:
    """Return whole numbers that name the rows as a variable of one code; None if they do not.

    They do if none occurs twice, though some would by chance.
    """
    numbers = values.known
    n: int = len(numbers)
    if n < _LEAST_ROWS or numbers.min() < 0 or len(np.unique(numbers)) < n:
        return None
    ascending = np.sort(numbers)
    edges = ascending[np.linspace(0, n - 1, 1 + int(n**0.5)).astype(np.int64)]
    shares = np.diff(np.linspace(0, n - 1, len(edges)).astype(np.int64)) / n
    widths = [b - a for a, b in itertools.pairwise(edges.tolist())]
    expected = (
        n
        * (n - 1)
        / 2
        * sum(share**2 / max(width, 1) for share, width in zip(shares.tolist(), widths, strict=True))
    )
    pattern = _digits(ascending) if expected >= _COLLISIONS else None
    return None if pattern is None else _as_numbers(values, pattern)


def _digits(numbers: np.ndarray) -> Pattern | None:
    """Return a pattern of different numbers, in ascending order; None if they have too many digits."""
    low, high = int(numbers[0]), int(numbers[-1])
    unit = 10 ** max(0, len(str(high)) - 2)  # two digits of the range are kept
    first, stop = low // unit * unit, (high // unit + 1) * unit
    digits = _ASCII["d"]
    if len(numbers) >= _DENSE * (high - low + 1):  # a counter: it goes on
        return Pattern((digits,) * min(15, len(str(stop)) + 6), first=stop, ordered=True)
    width = len(str(stop - 1))
    if width > _MOST_DIGITS:
        return None
    return _without(Pattern((digits,) * width, first=first, stop=stop), numbers, _MOST_RESIDUES)


def _as_numbers(values: Values, pattern: Pattern) -> tuple[Coded, Identifier]:
    """Return whole numbers of one pattern as a variable of one code, and how they are invented."""
    name = values.column.name
    emission = Emission(name, np.zeros(1, np.int64))
    coded = Coded(name, np.zeros(len(values.known), np.int64), 1, False, (emission,))
    return over_all_rows(coded, values.missing), Identifier(name, (pattern,), "")


def _without(pattern: Pattern, combinations: np.ndarray, most: int) -> Pattern:
    """Return a pattern that gives none of these combinations, which are those of real rows.

    It uses some of the residue classes in which none of them lies, `most` at most: not all, so that of the
    others nothing is known.
    """
    room = min(pattern.stop, pattern.size) - pattern.first
    places = np.unique(combinations) - pattern.first
    places = places[(places >= 0) & (places < room)]
    if len(places) == 0:
        return pattern
    for modulus in (2 * len(places) + 1, 4 * len(places) + 1, 16 * len(places) + 1):
        modulus = min(modulus, max(room, 1))
        free = np.setdiff1d(np.arange(modulus), places % modulus)
        if len(free):
            some = permutation(len(free))[: min(max(1, len(free) // 2), most)]
            return replace(pattern, modulus=modulus, residues=tuple(np.sort(free[some]).tolist()))
    return replace(pattern, stop=pattern.first)  # no room: only the counter behind is left


def find_patterns(strings: Sequence[str]) -> tuple[list[Pattern], np.ndarray]:
    """Return patterns of strings, none of which gives one of them, and which pattern each string has.

    Parameters
    ----------
    strings : sequence of str

    Returns
    -------
    patterns : list of Pattern
        No two of them have a string in common.
    codes : ndarray of int64 of shape (n_strings,)
    """
    shapes = [_shape(string) for string in strings]
    if _in_common_shapes(shapes) < _COMMON_SHAPES:
        mixed = [re.sub("[dlu]", "a", shape) for shape in shapes]  # as in hexadecimal numbers
        if _in_common_shapes(mixed) > max(_COMMON_SHAPES, _in_common_shapes(shapes)):
            shapes = mixed
    alphabets = _alphabets(strings)
    frequent = [shape for shape, rows in Counter(shapes).most_common() if rows >= SMALLEST_GROUP]
    common = set(frequent[: _MOST_PATTERNS // 2])
    by_shape: dict[str, list[int]] = defaultdict(list)
    rare: list[int] = []
    for i, shape in enumerate(shapes):
        (by_shape[shape] if shape in common else rare).append(i)
    patterns: list[tuple[Pattern, str]] = []  # with its shape
    codes = np.zeros(len(strings), np.int64)
    share = max(1, _MOST_PATTERNS // (2 * max(len(by_shape), 1)))
    for shape, rows in by_shape.items():
        found, of_rows = _split([strings[i] for i in rows], shape, alphabets, share)
        codes[rows] = of_rows + len(patterns)
        patterns += [(pattern, shape) for pattern in found]
    for shape, rows in _composed([shapes[i] for i in rare], common).items():
        codes[[rare[i] for i in rows]] = len(patterns)
        patterns.append((Pattern(tuple(alphabets.get(kind, kind) for kind in shape)), shape))
    real = np.array(list(strings), dtype=object)
    finished = []
    for number, (pattern, shape) in enumerate(patterns):
        same = codes == number if shape in common else np.array([other == shape for other in shapes])
        found_there = pattern.combinations(real[same])
        most = max(_LEAST_RESIDUES, _MOST_RESIDUES // len(patterns))
        finished.append(_without(pattern, found_there[found_there >= 0], most))
    return finished, codes


def _kind(letter: str) -> str:
    """Return the kind of a letter: d, l, u, o for digits, small, capital, other letters; or the sign."""
    if letter in _ASCII["d"]:
        return "d"
    if letter.isalpha():
        return "u" if letter.isupper() else "l" if letter.islower() else "o"
    return letter


def _shape(string: str) -> str:
    return "".join(map(_kind, string))


def _in_common_shapes(shapes: Sequence[str]) -> float:
    """Return the share of strings whose shape is that of five."""
    return sum(rows for rows in Counter(shapes).values() if rows >= SMALLEST_GROUP) / max(len(shapes), 1)


def _alphabets(strings: Sequence[str]) -> dict[str, str]:
    """Return the letters of each kind: those that five strings have."""
    seen: Counter[str] = Counter()
    for string in strings:
        seen.update(set(string))
    kept = sorted(
        letter for letter, rows in seen.items() if rows >= SMALLEST_GROUP and _kind(letter) in "dluo"
    )
    alphabets = {}
    for kind, usual in _ASCII.items():
        letters = "".join(x for x in kept if (_kind(x) in "dlu" if kind == "a" else _kind(x) == kind))
        alphabets[kind] = letters if len(letters) > 1 else usual
    alphabets["d"] = _ASCII["d"]
    return alphabets


def _split(
    strings: list[str], shape: str, alphabets: dict[str, str], most: int
) -> tuple[list[Pattern], np.ndarray]:
    """Return patterns of strings of one shape: one for each combination of the parts that are kept.

    A part, a run of letters of one kind, is kept if it takes few values, each in five rows; of a run of
    digits, such a beginning.
    """
    n = len(strings)
    if not shape:
        return [Pattern(("",))], np.zeros(n, np.int64)
    runs = [(m.start(), m.end()) for m in re.finditer(r"(.)\1*", shape, re.DOTALL)]
    parts: list[tuple[int, int]] = []
    optional: list[tuple[int, int]] = []
    for start, end in runs:
        if shape[start] not in alphabets:
            continue
        if _few_values(strings, start, end):
            parts.append((start, end))
        elif shape[start] in "da":
            for stop in range(end - 1, start, -1):
                values = len({string[start:stop] for string in strings})
                if _few_values(strings, start, stop) and values <= 10 ** (stop - start) / 2:
                    optional.append((start, stop))
                    break
    while True:
        kept = [*parts, *optional]
        combination = ["\0".join(string[a:b] for a, b in kept) for string in strings]
        rows = Counter(combination)
        inside = {i for a, b in kept for i in range(a, b)}
        room = 1
        for i, kind in enumerate(shape):
            room = min(room * (1 if i in inside else len(alphabets.get(kind, "x"))), MOST_COMBINATIONS)
        if optional and (room < _ROOM * n or len(rows) > most):
            start, stop = optional.pop()
            if stop - start > 1:
                optional.append((start, stop - 1))
            continue
        if parts and (len(rows) > most or room == 1):
            parts.pop()
            continue
        break
    frequent = [value for value, count in rows.most_common() if count >= SMALLEST_GROUP]
    frequent = frequent or [rows.most_common()[0][0]]
    leading = {
        start
        for start, _ in runs
        if shape[start] == "d" and n >= _LEAST_ROWS and not any(string[start] == "0" for string in strings)
    }
    usual = [alphabets.get(kind, kind)[int(i in leading) :] for i, kind in enumerate(shape)]
    patterns = []
    for value in frequent:
        letters = dict(zip((i for a, b in kept for i in range(a, b)), value.replace("\0", ""), strict=True))
        patterns.append(Pattern(tuple(letters.get(i, letter) for i, letter in enumerate(usual))))
    place = {value: i for i, value in enumerate(frequent)}
    codes = np.array([place.get(value, -1) for value in combination])
    for i in np.flatnonzero(codes < 0).tolist():  # of few rows: the one that begins alike
        alike = [_common_start(combination[i], value) for value in frequent]
        codes[i] = alike.index(max(alike))
    return patterns, codes


def _few_values(strings: Sequence[str], start: int, stop: int) -> bool:
    """Return whether a part of the strings takes few values, each in five rows."""
    counts = Counter(string[start:stop] for string in strings)
    return len(counts) <= _TOKENS and min(counts.values()) >= SMALLEST_GROUP


def _composed(shapes: Sequence[str], taken: set[str]) -> dict[str, list[int]]:
    """Return shapes for strings whose own shape is of few rows, and which of them have it.

    They are composed of runs that five strings have (a word of four letters, a comma), as one follows
    another there, until they are as long as the strings of a group of five rows or more.
    """
    if not shapes:
        return {}
    runs = [[match.group() for match in re.finditer(r"(.)\1*", shape, re.DOTALL)] for shape in shapes]
    counts: Counter[str] = Counter()
    for each in runs:
        counts.update(set(each))
    after: dict[str, Counter[str]] = defaultdict(Counter)
    for each in runs:
        usual = [run for run in each if counts[run] >= SMALLEST_GROUP]
        for before, run in itertools.pairwise(["", *usual]):
            after[before][run] += 1
    order = sorted(range(len(shapes)), key=lambda i: len(shapes[i]))
    step = max(SMALLEST_GROUP, len(order) // _MOST_COMPOSED)
    groups = [order[i : i + step] for i in range(0, len(order), step)]
    bits = iter(uniforms(np.random.Philox(1), 2**18).tolist())
    found: dict[str, list[int]] = defaultdict(list)
    for group in groups:
        length = max(1, len(shapes[group[len(group) // 2]]))
        for _ in range(_TRIES):
            shape, last = "", ""
            while len(shape) < length and after[last]:
                choice = list(after[last].items())
                wanted = next(bits, 0.5) * sum(rows for _, rows in choice)
                for token, rows in choice:  # noqa: B007 - the last one if rounding leaves none
                    wanted -= rows
                    if wanted < 0:
                        break
                shape, last = shape + token, token
                if not after[last]:
                    last = ""
            shape = (shape or "l" * length)[:length]
            shape = re.sub(r"^\s|\s$", "l", shape)
            if shape not in taken:
                break
        else:
            shape = "l" * (max(map(len, [*taken, *found, ""])) + 1)
        found[shape] += group
    return found


class Inventor:
    """Makes strings that look like others and are none of them.

    Parameters
    ----------
    strings : sequence of str
        The real ones, each once.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._taken = set(strings)
        self._starts = Counter(string[:i] for string in strings for i in range(1, len(string) + 1))
        self._ends = Counter(string[i:] for string in strings for i in range(len(string)))
        after: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for string in strings:
            for before, letter in zip(("", *string), string, strict=False):
                after[before, _kind(letter)][letter] += 1
                after["any", _kind(letter)][letter] += 1
        for (_, kind), found in after.items():
            if kind in _ASCII:
                found.update(_ASCII[kind] if kind == "d" else ())  # any digit may come, once in so many
        self._after = {key: (list(found), np.cumsum(list(found.values()))) for key, found in after.items()}
        self._bits = np.random.Philox(0)
        self._ready: list[float] = []

    def like(self, string: str, kept: Collection[int] = ()) -> str:
        """Return a new string that looks like this one, with the same letters at some places.

        It is never the same one twice. Where there is no room for another one, it becomes longer.
        """
        n = len(string)
        start = next((i for i in range(n, 0, -1) if self._starts[string[:i]] >= SMALLEST_GROUP), 0)
        end = next((i for i in range(start, n) if self._ends[string[i:]] >= SMALLEST_GROUP), n)
        open_places = [i for i in range(start, end) if _kind(string[i]) in _ASCII and i not in kept]
        for i in (*range(end, n), *range(start - 1, -1, -1)):  # nearly all is common: some of it goes as well
            if len(open_places) < _LEAST_REDRAWN and _kind(string[i]) in _ASCII and i not in kept:
                open_places.append(i)
        letters = list(string)
        for number in itertools.count():
            for i in sorted(open_places):
                letters[i] = self._drawn(letters[i - 1] if i else "", _kind(string[i]))
            if number >= _TRIES:
                last = next((_kind(s) for s in reversed(string) if _kind(s) in _ASCII), "l")
                at = max(open_places) + 1 if kept and open_places else len(letters)
                letters.insert(at, self._drawn(letters[at - 1] if at else "", last))
            new = "".join(letters)
            if new not in self._taken:
                self._taken.add(new)
                return new
        raise AssertionError("it becomes longer until it is new")

    def _drawn(self, before: str, kind: str) -> str:
        """Return a letter or digit, as often as it follows the one before."""
        found = self._after.get((before, kind)) or self._after.get(("any", kind))
        letters, behind = found or (list(_ASCII[kind]), np.arange(1, len(_ASCII[kind]) + 1))
        return letters[int(np.searchsorted(behind, self._below(int(behind[-1])), side="right"))]

    def _below(self, limit: int) -> int:
        if not self._ready:
            self._ready = uniforms(self._bits, 4096).tolist()
        return int(self._ready.pop() * limit)


def _common_start(one: str, other: str) -> int:
    """Return with how many letters two strings begin alike."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
