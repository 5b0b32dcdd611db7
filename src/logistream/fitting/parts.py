"""Parts of strings that follow from other columns: the category in an article number, a state in a code.

The strings of a column are cut into runs of letters, of digits and of other signs. Where all have the same
runs, each run is compared with the other columns. What is found is kept in three ways: an invented string
keeps such parts; the string is drawn given the other column; and a string all of whose parts follow from
other columns is put together of them, also for combinations that did not occur.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from logistream.fitting.coding import SMALLEST_GROUP, Coded
from logistream.fitting.identifiers import Inventor, Numbered, determines
from logistream.fitting.order import Step
from logistream.model.network import Emission, Factor, Rule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from logistream.fitting.columns import Values

__all__ = ["Parts", "find_parts", "joined", "part_rules"]

_RUNS = re.compile(r"[^\W\d_]+|\d+|[\W_]+")
_MOST_RUNS = 12
_FEW_VALUES = 0.2  # of the rows: a column of more different values determines no parts
_LONGEST_END = 4  # letters of a run that follow from a column though the rest does not
_NAMING = 0.9  # of the rows: a column of more different strings names them
_MOST_COMBINATIONS = 2**13
_COUNTS = 100  # of a distribution over what a missing source may have been


@dataclass(frozen=True)
class Parts:
    """What the runs of a column's strings follow from.

    Parameters
    ----------
    column : str
        Its name.
    runs : dict of str to tuple of str
        The runs of each string that occurs.
    source : dict of int to str
        For the place of a run, the column that determines it.
    rows : dict of str to int
        In how many rows both columns are present, by source.
    rare : dict of (int, str) to str
        For a run that fewer than five rows have, the invented one that stands for it.
    literal : frozenset of int
        The places of runs that are the string of their source.
    """

    column: str
    runs: dict[str, tuple[str, ...]]
    source: dict[int, str]
    rows: dict[str, int]
    rare: dict[tuple[int, str], str]
    literal: frozenset[int]

    @property
    def sources(self) -> list[str]:
        """The columns from which parts follow."""
        return list(dict.fromkeys(self.source.values()))

    def not_drawn(self, coded: Mapping[str, Coded]) -> list[str]:
        """Return the sources that are not drawn, or not as single values."""
        return [name for name in self.sources if name not in coded or not coded[name].exact]

    def written_as(self, strings: Mapping[str, Mapping[str, str]]) -> Parts:
        """Return the same with the strings of the sources as they are drawn, by source and real string."""
        as_drawn = {
            (place, old): new
            for place in self.literal
            for old, new in strings.get(self.source[place], {}).items()
        }
        return replace(self, rare={**self.rare, **as_drawn})

    @property
    def whole(self) -> bool:
        """Whether all runs follow from other columns, or are always the same."""
        varied = {i for i, runs in enumerate(zip(*self.runs.values(), strict=True)) if len(set(runs)) > 1}
        return varied <= set(self.source)

    def run(self, place: int, string: str) -> str:
        """Return a run of a string as it may be kept."""
        run = self.runs[string][place]
        return self.rare.get((place, run), run)

    def kept(self, string: str) -> tuple[str, frozenset[int]]:
        """Return a string with rare runs replaced, and the places of letters that follow from columns."""
        runs = [self.run(i, string) for i in range(len(self.runs[string]))]
        ends = list(itertools.accumulate(map(len, runs)))
        places = {k for i in self.source for k in range(ends[i] - len(runs[i]), ends[i])}
        return "".join(runs), frozenset(places)


def find_parts(table: Mapping[str, Values], skipped: Collection[str]) -> dict[str, Parts]:
    """Return the columns of strings of which parts follow from other columns, in all rows that have both.

    Parameters
    ----------
    table : mapping of str to Values
        The columns by name.
    skipped : collection of str
        Columns whose strings name the rows, or are kept as they are.
    """
    kinds = ("category", "integer", "boolean")
    codes = {n: Numbered.of(v) for n, v in table.items() if v.column.kind in kinds and len(v.known)}
    few = {n: c for n, c in codes.items() if 2 <= c.different <= _FEW_VALUES * len(c.codes)}
    found = {}
    for name, values in table.items():
        if values.column.kind != "category" or name in skipped or name not in codes:
            continue
        if values.scale or codes[name].different > _NAMING * len(values.known):
            continue
        strings = [values.strings[i] for i in np.unique(values.known)]
        runs = [tuple(_RUNS.findall(string)) for string in strings]
        shapes = {tuple(map(_kind, each)) for each in runs}
        if len(shapes) > 1 or not 2 <= len(runs[0]) <= _MOST_RUNS:
            continue
        others = sorted((other for other in few if other != name), key=lambda n: few[n].different)
        candidates = {n: few[n].codes for n in others if not determines(few[n].codes, codes[name].codes)}
        pieces: list[tuple[str, ...]] = []  # of each run, or of its beginning, middle and end, in all strings
        source: dict[int, str] = {}
        for run in zip(*runs, strict=True):
            for piece, other in _pieces(run, codes[name].codes, candidates):
                if other:
                    source[len(pieces)] = other
                pieces.append(piece)
        rows: dict[str, int] = {}
        rare: dict[tuple[int, str], str] = {}
        literal: set[int] = set()
        for place, other in source.items():
            rows[other] = int(((few[other].codes >= 0) & ~values.missing).sum())
            counts = Counter(
                np.array(pieces[place], dtype=object)[codes[name].codes[~values.missing]].tolist()
            )
            inventor = Inventor(list(counts))
            rare |= {(place, run): inventor.like(run) for run, n in counts.items() if n < SMALLEST_GROUP}
            if table[other].column.kind == "category":
                both = ~(values.missing | table[other].missing)
                pairs = set(
                    zip(codes[name].codes[both].tolist(), table[other].numbers[both].tolist(), strict=True)
                )
                if all(pieces[place][i] == table[other].strings[k] for i, k in pairs):
                    literal.add(place)
        if source:
            found[name] = Parts(
                name,
                dict(zip(strings, zip(*pieces, strict=True), strict=True)),
                source,
                rows,
                rare,
                frozenset(literal),
            )
    return found


def _pieces(
    run: tuple[str, ...], of_row: np.ndarray, sources: Mapping[str, np.ndarray]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give a run, or its beginning, middle and end, in all strings, each with what it follows from.

    Parameters
    ----------
    run : tuple of str
        The run in each string.
    of_row : ndarray of int64 of shape (n_rows,)
        The string of each row, -1 where it is missing.
    sources : mapping of str to ndarray of int64 of shape (n_rows,)
        The columns that it may follow from, as codes.
    """

    def source(piece: Sequence[str]) -> str:
        labels = np.unique(np.array(piece, dtype=object).astype(str), return_inverse=True)[1].reshape(-1)
        if labels.max() == 0:
            return ""
        part = np.where(of_row >= 0, labels[of_row], -1)
        return next((name for name, codes in sources.items() if determines(codes, part)), "")

    whole, shortest = source(run), min(map(len, run))
    head, tail, first, last = 0, 0, "", ""
    if not whole:
        for n in range(min(_LONGEST_END, shortest - 1), 0, -1):
            first = first or source([text[:n] for text in run])
            head = head or n * bool(first)
        for n in range(min(_LONGEST_END, shortest - 1 - head), 0, -1):
            last = last or source([text[-n:] for text in run])
            tail = tail or n * bool(last)
    if head:
        yield tuple(text[:head] for text in run), first
    yield tuple(text[head : len(text) - tail] for text in run), whole
    if tail:
        yield tuple(text[-tail:] for text in run), last


def _kind(run: str) -> str:
    """Return the kind of a run: of letters, of digits, or the signs that it is."""
    return "letters" if run[0].isalpha() else "digits" if run[0].isdigit() else run


def part_rules(parts: Parts, coded: Mapping[str, Coded], composed: bool) -> list[Rule]:
    """Return the rules of a column, with why they cannot be kept.

    Parameters
    ----------
    parts : Parts
        What its runs follow from.
    coded : mapping of str to Coded
        The variables by name.
    composed : bool
        Whether its strings are put together of what others determine; see `joined`.
    """
    sources = parts.sources
    why_not = ""
    if absent := parts.not_drawn(coded):
        why_not = f"it is drawn before {absent[0]} is known"
    elif len(sources) > 1 and not composed:
        combinations = np.stack([coded[name].codes for name in sources], axis=1)
        if len(np.unique(combinations, axis=0)) < math.prod(coded[name].size for name in sources):
            why_not = f"not for combinations of {' and '.join(sources)} that did not occur"
    return [
        Rule("part", (parts.column, name), parts.rows[name], parts.rows[name], why_not) for name in sources
    ]


def joined(parts: Parts, values: Values, coded: Mapping[str, Coded]) -> tuple[Step, tuple[str, ...]] | None:
    """Return how a column of strings is put together of what others determine, and all its strings.

    Parameters
    ----------
    parts : Parts
        What its runs follow from: all of them do.
    values : Values
        The column.
    coded : mapping of str to Coded
        The variables by name.

    Returns
    -------
    step : Step
        Draws the column.
    strings : tuple of str
        None of both if there would be too many strings, or if a source is not drawn.
    """
    if parts.not_drawn(coded):
        return None
    sources = [coded[name] for name in parts.sources]
    if math.prod(source.size for source in sources) > _MOST_COMBINATIONS:
        return None
    there = np.flatnonzero(~values.missing)
    usual = values.strings[values.numbers[there[0]]]
    runs_of: list[list[dict[int, str]]] = []  # of each source and code, the runs that follow from it
    for source in sources:
        places = [place for place, name in parts.source.items() if name == source.name]
        present, first = np.unique(source.codes[there], return_index=True)
        seen = dict(zip(present.tolist(), values.numbers[there[first]].tolist(), strict=True))
        strings = [values.strings[seen[code]] if code in seen else usual for code in range(source.size)]
        runs_of.append([{place: parts.run(place, string) for place in places} for string in strings])
    fixed = dict(enumerate(parts.runs[usual]))
    known = [[code for code in range(source.size) if code != source.missing_code] for source in sources]
    text = {}
    for combination in itertools.product(*known):
        runs = dict(fixed)
        for of_code, code in zip(runs_of, combination, strict=True):
            runs |= of_code[code]
        text[combination] = "".join(runs[place] for place in range(len(runs)))
    categories = tuple(sorted(set(text.values())))
    number = {string: i for i, string in enumerate(categories)}
    code_of = {combination: number[string] for combination, string in text.items()}
    kept_as = np.array(
        [number.get(parts.kept(string)[0], 0) if string in parts.runs else 0 for string in values.strings]
    )
    size, gap = len(categories), float(values.missing.mean())
    codes = np.where(values.missing, size, kept_as[values.numbers])
    every = size + (gap > 0)
    emission = Emission(
        parts.column,
        np.arange(every) % size,
        missing=np.arange(size + 1) == size if gap else None,
    )
    variable = Coded(parts.column, codes, every, False, (emission,))
    often = [np.bincount(source.codes, minlength=source.size) for source in sources]
    entries: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    for cell in itertools.product(*(range(source.size) for source in sources)):
        choices = [
            possible if code == source.missing_code else [code]
            for code, source, possible in zip(cell, sources, known, strict=True)
        ]
        weight: Counter[int] = Counter()
        for combination in itertools.product(*choices):
            rows = [int(many[code]) for many, code in zip(often, combination, strict=True)]
            weight[code_of[combination]] += math.prod(rows) if len(choices) > 1 else rows[0]
        total = sum(weight.values())
        scaled = [max(1, round(_COUNTS * count / max(total, 1))) for count in weight.values()]
        empty = [max(1, round(sum(scaled) * gap / (1 - gap)))] if gap else []
        entries.append(np.array([*weight, *([size] if gap else [])]))
        counts.append(np.array([*scaled, *empty] if gap or len(weight) > 1 else [1]))
    factor = Factor(
        name=parts.column,
        size=variable.size,
        parents=tuple(source.name for source in sources),
        groups=tuple(np.arange(source.size) for source in sources),
        distribution_of=np.arange(len(entries)),
        offsets=np.cumsum([0, *map(len, entries)]),
        codes=np.concatenate(entries),
        counts=np.concatenate(counts),
        emissions=variable.emissions,
    )
    return Step(variable, tuple(source.name for source in sources), factor=factor), categories
