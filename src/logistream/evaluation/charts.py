"""Pictures of where synthetic rows differ from real ones, as inline SVG without colours of its own.

Real rows are a filled shape of class `real`, synthetic ones an outline or a bar of class `synthetic` over it.
A value that fewer than five real rows have is never named: it is counted among the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.evaluation.measures import correlation, equal_width_edges

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from logistream.evaluation.numeric import NumericTable
    from logistream.schema import Column

__all__ = ["Chart", "column_chart", "pair_chart"]


_WIDTH, _HEIGHT = 360, 190  # of every picture, in its own units
_AXIS = 22  # of the height, for the labels below
_BINS = 36  # of a histogram
_GRID = 14  # cells along each side of a picture of two numbers
_ROWS = 6  # values or combinations that are shown as bars
_FEWEST = 5  # real rows that have a value which is named
_LONGEST = 44  # letters of a label
_SKEWED = 3.5  # times the range of nine tenths of the values: a wider range is shown on a bent axis
_TICK_SPACE = 52  # between the labels of an axis


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture with its title and a line of explanation."""

    title: str
    note: str
    svg: str


def column_chart(
    real: NumericTable, synthetic: NumericTable, known: NumericTable, i: int, note: str
) -> Chart:
    """Draw the distributions of column `i`, one over the other.

    Parameters
    ----------
    real, synthetic : NumericTable
        The rows that are compared.
    known : NumericTable
        All real rows: what fewer than five of them have is not named.
    i : int
        Position of the column.
    note : str
        What to write below the title.
    """
    name = real.schema.names[i]
    a, b, c = (table.matrix[:, i] for table in (real, synthetic, known))
    if real.discrete[i]:
        return Chart(name, note, _differing_bars(a, b, c, _names([real, synthetic, known], i)))
    missing = [float(np.isnan(part).mean()) for part in (a, b)]
    if max(missing) > 0:
        note += f"; missing {_percent(missing[0])} real, {_percent(missing[1])} synthetic"
    return Chart(name, note, _histograms(a, b, _Axis.of(a, real.schema.columns[i])))


def pair_chart(
    real: NumericTable, synthetic: NumericTable, known: NumericTable, i: int, j: int, note: str
) -> Chart:
    """Draw the joint distributions of columns `i` and `j`, one over the other; parameters as above.

    Two numbers are drawn in cells of a grid, all else as the combinations that differ most.
    """
    title = f"{real.schema.names[i]} and {real.schema.names[j]}"
    tables = (real, synthetic, known)
    if not real.discrete[[i, j]].any():
        strengths = [correlation(table.matrix[:, i], table.matrix[:, j]) for table in (real, synthetic)]
        note += f"; correlation {_signed(strengths[0])} real, {_signed(strengths[1])} synthetic"
        return Chart(title, note, _bubbles(real, synthetic, i, j))
    (first, first_labels), (second, second_labels) = (_labelled(tables, k) for k in (i, j))
    width = len(second_labels)
    a, b, c = (x * width + y for x, y in zip(first, second, strict=True))

    def name(code: float) -> str:
        return f"{first_labels[int(code) // width]} · {second_labels[int(code) % width]}"

    return Chart(title, note, _differing_bars(a, b, c, name))


@dataclass(frozen=True, slots=True)
class _Axis:
    """A straight or bent axis from `low` to `high`; values beyond lie in its first or last bin."""

    low: float
    high: float
    bend: float  # scale of an inverse hyperbolic sine; infinite for a straight axis
    timestamps: bool
    steps: int  # whole numbers between low and high that have a bin each; 0 for `_BINS` equal ones

    @classmethod
    def of(cls, values: np.ndarray, column: Column) -> _Axis:
        known = values[~np.isnan(values)]
        if len(known) == 0:
            return cls(0.0, 1.0, np.inf, timestamps=False, steps=0)
        low, fifth, middle, last, high = np.quantile(known, [0.005, 0.05, 0.5, 0.95, 0.995])
        timestamps = column.kind == "timestamp"
        bend = np.inf
        if not timestamps and high - low > _SKEWED * (last - fifth):
            away = np.abs(known[known != middle])
            bend = float(np.median(away)) / 2 if len(away) else np.inf
        whole = column.kind == "integer" or bool((known == known.round()).all())
        if whole and not timestamps and high - low < _BINS:
            return cls(float(low), float(high), np.inf, timestamps=False, steps=int(high - low) + 1)
        if low == high:
            low, high = low - 0.5, high + 0.5
        return cls(float(low), float(high), bend or np.inf, timestamps=timestamps, steps=0)

    def _bent(self, values: np.ndarray) -> np.ndarray:
        return values if np.isinf(self.bend) else np.asarray(np.arcsinh(values / self.bend))

    def place(self, values: np.ndarray) -> np.ndarray:
        """Return where values lie, from 0 at `low` to 1 at `high`."""
        if self.steps:
            return np.asarray((values - self.low + 0.5) / self.steps).clip(0, 1)
        low, high = self._bent(np.array([self.low, self.high]))
        return np.asarray((self._bent(values) - low) / (high - low)).clip(0, 1)

    def shares(self, values: np.ndarray) -> np.ndarray:
        """Return the share of all values, missing ones included, in each bin."""
        bins = self.steps or _BINS
        places = self.place(values[~np.isnan(values)])
        cells = (places * bins).astype(np.int64).clip(0, bins - 1)
        return np.asarray(np.bincount(cells, minlength=bins) / max(len(values), 1))

    def ticks(self, space: float) -> list[tuple[float, str]]:
        """Return the place from 0 to 1 and the label of ticks, no nearer to each other than `space`."""
        if self.timestamps:
            values = np.linspace(self.low, self.high, 4)
            form = "%Y-%m-%d" if self.high - self.low > 4 * 86400e6 else "%m-%d %H:%M"
            labels = [f"{pd.Timestamp(value, unit='us'):{form}}" for value in values]
        elif np.isinf(self.bend):
            values = _round_numbers(self.low, self.high)
            labels = [_short(value) for value in values]
        else:
            powers = 10.0 ** np.arange(12, -7, -1)
            round_numbers = np.concatenate([factor * powers for factor in (1, 5, 2)])
            values = np.concatenate([[0.0], round_numbers, -round_numbers])
            values = values[(values >= self.low) & (values <= self.high)]
            labels = [_short(value) for value in values]
        shown: list[tuple[float, str]] = []
        for place, label in zip(self.place(values), labels, strict=True):
            if all(abs(place - other) >= space for other, _ in shown):
                shown.append((float(place), label))
        return shown


def _round_numbers(low: float, high: float) -> np.ndarray:
    """Return some four numbers from `low` to `high` that are easily read."""
    rough = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(rough)) if rough > 0 else 1.0
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
    return np.asarray(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step)


def _histograms(a: np.ndarray, b: np.ndarray, axis: _Axis) -> str:
    real, synthetic = axis.shares(a), axis.shares(b)
    ordered = np.sort(np.maximum(real, synthetic))[::-1]
    top = max(float(ordered[0]), 1e-9)
    cut = (
        len(ordered) > 1 and top > 4 * ordered[1] > 0
    )  # one value that most rows have would flatten the rest
    if cut:
        top = 1.6 * float(ordered[1])
    floor, room = _HEIGHT - _AXIS, _HEIGHT - _AXIS - 16
    width = _WIDTH / len(real)
    heights = [np.minimum(shares / top, 1) * room for shares in (real, synthetic)]
    steps = [
        "".join(f"V{floor - height:.1f}H{(k + 1) * width:.1f}" for k, height in enumerate(part))
        for part in heights
    ]
    labels = ""
    if cut:
        k = int(np.argmax(np.maximum(real, synthetic)))
        x, anchor = (k * width, "start") if k < len(real) / 2 else ((k + 1) * width, "end")
        text = f"{_percent(real[k])} real, {_percent(synthetic[k])} synthetic, bar cut"
        labels = f'<text x="{x:.1f}" y="10" text-anchor="{anchor}">{escape(text)}</text>'
    return _svg(
        f'<path class="real" d="M0 {floor}{steps[0]}V{floor}Z"/>'
        f'<path class="synthetic" d="M0 {floor}{steps[1]}V{floor}"/>{_ticks(axis)}{labels}'
    )


def _ticks(axis: _Axis) -> str:
    floor = _HEIGHT - _AXIS
    marks = [f'<path class="axis" d="M0 {floor}H{_WIDTH}"/>']
    for place, label in axis.ticks(_TICK_SPACE * (1.6 if axis.timestamps else 1) / _WIDTH):
        anchor = "start" if place < 0.06 else "end" if place > 0.94 else "middle"
        marks.append(
            f'<path class="axis" d="M{place * _WIDTH:.1f} {floor}v4"/>'
            f'<text x="{place * _WIDTH:.1f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{escape(label)}</text>'
        )
    return "".join(marks)


def _bubbles(real: NumericTable, synthetic: NumericTable, i: int, j: int) -> str:
    """Draw the share of rows in each cell of a grid: a disc for real rows, a ring for synthetic ones."""
    axes = [_Axis.of(real.matrix[:, k], real.schema.columns[k]) for k in (i, j)]
    shares = []
    for table in (real, synthetic):
        pair = table.matrix[:, [i, j]]
        pair = pair[~np.isnan(pair).any(axis=1)]
        cells = [
            (axis.place(pair[:, k]) * _GRID).clip(0, _GRID - 1).astype(int) for k, axis in enumerate(axes)
        ]
        counts = np.bincount(cells[0] * _GRID + cells[1], minlength=_GRID**2)
        shares.append(counts / max(len(pair), 1))
    left, bottom = (66 if axes[1].timestamps else 40), _HEIGHT - _AXIS
    width, height = (_WIDTH - left) / _GRID, bottom / _GRID
    largest = np.quantile(shares[0][shares[0] > 0], 0.97) if shares[0].any() else 1.0
    radii = [np.minimum(np.sqrt(share / largest), 1.15) * height * 0.62 for share in shares]
    marks = []
    for kind, radius in zip(("real", "synthetic"), radii, strict=True):
        marks += [
            f'<circle class="{kind}" cx="{left + (cell // _GRID + 0.5) * width:.1f}" '
            f'cy="{bottom - (cell % _GRID + 0.5) * height:.1f}" r="{radius[cell]:.1f}"/>'
            for cell in np.flatnonzero(radius > 0.35)
        ]
    across, upward = axes
    marks.append(f'<path class="axis" d="M{left} 0V{bottom}H{_WIDTH}"/>')
    for place, label in across.ticks(_TICK_SPACE * (1.6 if across.timestamps else 1) / (_WIDTH - left)):
        anchor = "end" if place > 0.94 else "middle"
        x = left + place * (_WIDTH - left)
        marks.append(f'<text x="{x:.1f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{escape(label)}</text>')
    for place, label in upward.ticks(0.16):
        y = np.clip(bottom - place * bottom + 4, 10, bottom)
        marks.append(f'<text x="{left - 4}" y="{y:.1f}" text-anchor="end">{escape(label)}</text>')
    return _svg("".join(marks))


def _labelled(tables: Sequence[NumericTable], i: int) -> tuple[list[np.ndarray], list[str]]:
    """Return a column as codes of strings, or of ten ranges of a number, and their labels; 0 is missing."""
    columns = [table.matrix[:, i] for table in tables]
    if tables[0].discrete[i]:
        name = _names(tables, i)
        codes = [np.nan_to_num(column, nan=-1.0).astype(np.int64) + 1 for column in columns]
        largest = max(int(code.max(initial=0)) for code in codes)
        return codes, ["missing", *(name(code) for code in range(largest))]
    column = tables[0].schema.columns[i]
    edges = equal_width_edges(columns[0])
    axis = _Axis.of(columns[0], column)
    bounds = [
        f"{pd.Timestamp(edge, unit='us'):%Y-%m-%d}" if axis.timestamps else _short(edge) for edge in edges
    ]
    ranges = [f"{column.name} under {bounds[0]}"]
    ranges += [f"{column.name} {low} to {high}" for low, high in pairwise(bounds)]
    ranges += [f"{column.name} from {bounds[-1]}"]
    codes = [np.where(np.isnan(part), 0, np.digitize(part, edges) + 1).astype(np.int64) for part in columns]
    return codes, [f"{column.name} missing", *ranges]


def _names(tables: Sequence[NumericTable], i: int) -> Callable[[float], str]:
    """Return a function from a code of column `i` to its string."""
    if tables[0].schema.columns[i].kind == "boolean":
        return lambda code: f"{tables[0].schema.names[i]}: {'yes' if code else 'no'}"
    names: dict[float, str] = {}
    for table in tables:
        codes, first = np.unique(table.matrix[:, i], return_index=True)
        strings = table.frame.iloc[first, i]
        names |= {code: str(string) for code, string in zip(codes, strings, strict=True) if code == code}
    return lambda code: names.get(float(code), "missing")


def _differing_bars(
    real: np.ndarray, synthetic: np.ndarray, known: np.ndarray, name: Callable[[float], str]
) -> str:
    """Draw the values whose shares differ most as two bars each, the most frequent first."""
    parts = [np.nan_to_num(part, nan=-1.0) for part in (real, synthetic, known)]
    values = np.unique(np.concatenate(parts))
    counts = [np.bincount(np.searchsorted(values, part), minlength=len(values)) for part in parts]
    shares = [count / max(count.sum(), 1) for count in counts[:2]]
    nameable = (counts[2] == 0) | (counts[2] >= _FEWEST)
    differing = np.argsort(-np.abs(shares[0] - shares[1]) * nameable, kind="stable")
    shown = [k for k in differing[:_ROWS] if nameable[k] and (shares[0][k] or shares[1][k])]
    shown.sort(key=lambda k: -max(shares[0][k], shares[1][k]))
    rows = [(name(values[k]), float(shares[0][k]), float(shares[1][k])) for k in shown]
    largest = max((max(a, b) for _, a, b in rows), default=1.0)
    step = _HEIGHT / (_ROWS + 1)
    room = _WIDTH - 106
    marks = []
    for k, (label, a, b) in enumerate(rows):
        y = k * step
        cut = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
        marks.append(
            f'<text x="0" y="{y + 11:.1f}"><title>{escape(label)}</title>{escape(cut)}</text>'
            f'<rect class="real" x="0" y="{y + 14:.1f}" width="{a / largest * room:.1f}" height="4"/>'
            f'<rect class="synthetic" x="0" y="{y + 19:.1f}" width="{b / largest * room:.1f}" height="4"/>'
            f"{_shares(y + 21, a, b)}"
        )
    others = len(values) - len(rows)
    if others:
        a, b = (max(0.0, 1 - float(share[shown].sum())) for share in shares)
        y = len(rows) * step + 16
        marks.append(f'<text x="0" y="{y:.1f}">{others:,} other{"s" * (others > 1)}</text>{_shares(y, a, b)}')
    return _svg("".join(marks))


def _shares(y: float, real: float, synthetic: float) -> str:
    return (
        f'<text x="{_WIDTH}" y="{y:.1f}" text-anchor="end">{escape(_percent(real))} → '
        f'<tspan class="figure">{escape(_percent(synthetic))}</tspan></text>'
    )


def _svg(marks: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{marks}</svg>'


def _percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def _signed(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _short(value: float) -> str:
    """Return a number in few letters."""
    size = abs(value)
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= power * (10 if letter == "k" and value % power else 1):
            return f"{value / power:.3g}{letter}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
