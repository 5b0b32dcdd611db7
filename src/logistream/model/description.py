"""The structure of a model in words and as a picture."""

from __future__ import annotations

from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from logistream.model.drawing import Box, Wire, draw
from logistream.model.findings import MUCH, SLIGHT, Findings, find
from logistream.times import CALENDAR, DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from logistream.model.findings import ColumnGroup, Dependence, Marginal
    from logistream.model.network import Formula, Network, Rule

__all__ = ["Description"]


_SIGNS = {"product": "×", "sum": "+", "local": "+"}
_UNITS = {1_000_000: "seconds", 60_000_000: "minutes", HOUR: "hours", DAY: "days", 7 * DAY: "weeks"}
_POINT_MASSES_NAMED = 3
_WIDE = 40  # groups: of more than so many the picture leaves out those that hardly depend on others
_INSTANTS = {"date of ": "%Y-%m-%d", "time of day of ": "%H:%M"}


class Description:
    """The structure of a model: print it, or let a notebook show it with its picture.

    Two descriptions are equal if their words are.

    Parameters
    ----------
    model : Network
        The model described.

    Examples
    --------
    >>> import logistream as ls
    >>> print(ls.load_model().describe())  # doctest: +ELLIPSIS
    DataCo orders: 24 columns learned from ...
    """

    def __init__(self, model: Network) -> None:
        self.model = model

    @cached_property
    def findings(self) -> Findings:
        """Groups, dependences and marginal distributions, for a program to read."""
        return find(self.model)

    @property
    def _computed(self) -> list[Formula]:
        """The formulas of columns that are not drawn at all."""
        return [formula for formula in self.model.formulas if not formula.adjusts]

    @property
    def title(self) -> str:
        """One line."""
        model = self.model
        return f"{model.name}: {len(model.schema)} columns learned from {model.rows:,} rows"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Description) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        lines = [self.title]
        for heading, hint, sentences in self._sections():
            lines += ["", f"{heading} ({hint})" if hint else heading, *(f"  {text}" for text in sentences)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        sections = "".join(
            f'<div style="margin: 0 0 10px"><b>{escape(heading)}</b>'
            f'<span style="opacity: 0.65">{escape(f" ({hint})" if hint else "")}</span>'
            f'<ul style="margin: 2px 0 0; padding-left: 20px">'
            f"{''.join(f'<li>{escape(text)}</li>' for text in sentences)}</ul></div>"
            for heading, hint, sentences in self._sections()
        )
        return (
            f'<div style="line-height: 1.45"><p style="margin: 0 0 8px"><b>{escape(self.title)}</b></p>'
            f'<div style="overflow: auto; max-height: 1600px; margin: 0 0 12px">{self.svg}</div>'
            f"{sections}</div>"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:  # noqa: ANN401 - whatever a front end asks for
        return {"text/plain": str(self), "text/html": self._repr_html_()}

    @property
    def svg(self) -> str:
        """The picture alone, as the text of an SVG file; of a wide table its main parts."""
        groups, dependences, names = self.findings.groups, self.findings.dependences, self.findings.names
        if len(groups) > _WIDE:
            dependences = tuple(d for d in dependences if d.weight >= SLIGHT)
            read = {names[name] for f in self._computed for name in f.inputs}
            tied = {id(group) for d in dependences for group in (d.source, d.target)}
            groups = tuple(
                g for g in groups if id(g) in tied or len(g.columns) > 1 or read & {*g.columns, *g.helpers}
            )
        place = {id(group): i for i, group in enumerate(groups)}
        boxes = [
            Box(
                tuple((name, name in group.helpers) for name in group.keys),
                tuple((name, name in group.helpers) for name in group.determined),
                note=self._note(group),
            )
            for group in groups
        ]
        wires = [
            Wire(
                place[id(d.source)],
                place[id(d.target)],
                d.weight,
                f"{d.target.short} depends {_strength(d)} on {d.source.short} ({d.weight:.2f})",
            )
            for d in dependences
        ]
        home = {name: i for i, group in enumerate(groups) for name in (*group.columns, *group.helpers)}
        for formula in self._computed:
            home[formula.column] = len(boxes)
            wires += [
                Wire(source, len(boxes), 1.0, f"{formula.column} is computed from it")
                for source in sorted({home[names[name]] for name in formula.inputs})
            ]
            boxes.append(Box(equation=self._equation(formula)))
        return draw(boxes, wires, f"Structure of {self.title}")

    def _note(self, group: ColumnGroup) -> str:
        """Return a few words for the group's box."""
        if len(group.keys) > 1:
            return "associated"
        return ", ".join(
            words
            for marginal in self.findings.marginals
            if marginal.column in group.keys
            for words in _brief(marginal)
        )

    def _sections(self) -> Iterator[tuple[str, str, list[str]]]:
        """Give heading, hint and sentences of each part of the description."""
        groups, dependences = self.findings.groups, self.findings.dependences
        determined: dict[str, list[str]] = {}
        for group in groups:
            for column, key in group.determined.items():
                determined.setdefault(key, []).append(column)
        tied = {id(group) for d in dependences for group in (d.source, d.target)}
        independent = [group.short for group in groups if id(group) not in tied]
        delays = [
            f"{d.column} = event_time + the days that {d.service} takes" for d in self.model.days_after_event
        ]
        sections: list[tuple[str, str, list[str]]] = [
            ("Computed", "not drawn", [self._equation(f) for f in self._computed]),
            (
                "In order",
                "never above",
                [
                    (f"{f.left} ≤ {f.column}" if f.operation == "at least" else f"{f.column} ≤ {f.left}")
                    + _support(f.rows, f.checked)
                    for f in self.model.formulas
                    if f.keeps_order
                ],
            ),
            (
                "Functional dependencies",
                "each value of the first column has a single one of the others",
                list(self._functional(determined)),
            ),
            (
                "Unique",
                "no value, or combination of values, comes twice",
                [
                    " with ".join(rule.columns)
                    for rule in self.model.rules
                    if rule.kind == "unique" and not rule.why_not
                ],
            ),
            (
                "Parts of strings",
                "the same for each value of the other column",
                [
                    f"{rule.columns[1]} → a part of {rule.columns[0]}{_support(rule.held, rule.checked)}"
                    for rule in self.model.rules
                    if rule.kind == "part" and not rule.why_not
                ],
            ),
            (
                "Seen and not kept",
                "in synthetic rows",
                [
                    f"{_in_words(rule)} (held in {rule.held:,} of {rule.checked:,} rows): {rule.why_not}"
                    for rule in self.model.rules
                    if rule.why_not
                ],
            ),
            (
                "Associated",
                "only certain combinations occur",
                [", ".join(group.keys) for group in groups if len(group.keys) > 1],
            ),
            (
                "Dependent",
                "on what, and how much; + 2: with two more columns associated with it",
                list(self._dependences()),
            ),
            ("Independent of all others", "", [", ".join(independent)] if independent else []),
            (
                "Values",
                "",
                [words for marginal in self.findings.marginals if (words := self._values(marginal))],
            ),
            ("In a live stream", "", delays),
        ]
        return ((heading, hint, sentences) for heading, hint, sentences in sections if sentences)

    def _functional(self, determined: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """Give functional dependencies: those of the network, then those with gaps or exceptions."""
        kept = [rule for rule in self.model.rules if not rule.why_not]
        rules = {rule.columns: rule for rule in kept if rule.kind == "functional dependency"}
        for key, columns in determined.items():
            found = [rules.pop((key, column), None) for column in columns]
            supports = {_support(rule.held, rule.checked) for rule in found if rule}
            if len(supports) == 1 and None not in found:
                yield f"{key} → {', '.join(columns)}{supports.pop()}"
                continue
            for column, rule in zip(columns, found, strict=True):
                yield f"{key} → {column}{_support(rule.held, rule.checked) if rule else ''}"
        implied = {(a, d) for a, b in rules for c, d in rules if b == c}
        for (key, column), rule in rules.items():
            if (key, column) not in implied or rule.held < rule.checked:
                yield f"{key} → {column}{_support(rule.held, rule.checked)}"

    def _dependences(self) -> Iterator[str]:
        """Give a sentence for each group that depends on others, except by a functional dependency."""
        functional = [
            {*rule.columns}
            for rule in self.model.rules
            if rule.kind == "functional dependency" and not rule.why_not
        ]
        for group in self.findings.groups:
            by_strength: dict[str, list[str]] = {}
            for dependence in self.findings.dependences:
                source = dependence.source
                known = any(pair & {*group.columns} and pair & {*source.columns} for pair in functional)
                if dependence.target is group and not known:
                    by_strength.setdefault(_strength(dependence), []).append(source.short)
            if by_strength:
                words = "; ".join(f"{how} on {', '.join(names)}" for how, names in by_strength.items())
                yield f"{group.short}: {words}"

    def _equation(self, formula: Formula) -> str:
        """Return a formula as one reads it, with the rows in which it was seen to hold."""
        support = _support(formula.rows, formula.checked)
        if formula.operation in CALENDAR:  # of the date or the time of day, where those are drawn
            whole = next((f for f in self._computed if f.right and formula.left in (f.left, f.right)), None)
            if whole is None or formula.left in self.model.schema:
                clock = _clock(formula.offsets)
                return f"{formula.column} = {formula.operation} of {formula.left}{clock}{support}"
            return f"{formula.column} = {formula.operation} of {whole.column}{_clock(whole.offsets)}"
        return f"{formula.column} = {self._right_side(formula)}{_clock(formula.offsets)}{support}"

    def _right_side(self, formula: Formula) -> str:
        names = [name.removeprefix(f"{formula.column}: ") for name in formula.inputs]
        factors = formula.factors
        if formula.operation in _SIGNS:
            right = names[1]
            if right.startswith((f"{formula.column} / ", f"{formula.column} - ")):
                right = "rate" if formula.operation == "product" else "difference"
                of_helper = f"{right} of {formula.column}"
                marginal = next(m for m in self.findings.marginals if m.column == of_helper)
                right = f"its {right}" if marginal.different > 1 else self._value(marginal, marginal.low)
            return f"{names[0]} {_SIGNS[formula.operation]} {right}"
        if formula.operation == "linear":
            terms = [(factor, name) for factor, name in zip(factors, names, strict=False) if factor]
            if factors[-1]:
                terms.append((factors[-1], ""))
            words = " ".join(_term(factor, name, first=i == 0) for i, (factor, name) in enumerate(terms))
        elif formula.operation == "ratio":
            words = f"{_number(factors[0])} × " * (factors[0] != 1) + f"{names[0]} / {names[1]}"
        elif formula.operation == "elapsed":
            unit = _UNITS.get(int(factors[0]), f"units of {factors[0] / 1e6:g} seconds")
            words = f"{names[0]} - {names[1]} in {unit}"
        elif formula.operation == "product and sum":
            words = f"{names[0]} × {names[1]} {_term(factors[0], names[2], first=False)}"
        elif formula.operation == "square":
            words = f"{names[0]}²"
        else:
            inside = f"{names[0]} + {_number(factors[1])}" if factors[1] else names[0]
            words = f"{_number(factors[0])} × " * (factors[0] != 1) + f"log({inside})"
        return f"{words}, rounded down" if formula.floor else words

    def _values(self, marginal: Marginal) -> str:
        """Return what is remarkable about the values of a column; an empty string for a plain one."""
        parts = []
        for identifier in self.model.identifiers:
            if identifier.column == marginal.column:
                example = identifier.values(np.zeros(1, np.int64), np.zeros(1, np.int64), 0).tolist()[0]
                how = "for each row, never twice"
                if identifier.within:
                    how = f"for each group of rows, once with each {identifier.within[0]}"
                return f"{marginal.column}: invented {how}, such as {example!r}"
        if marginal.different == 1 and not marginal.missing:
            parts.append(f"always {self._value(marginal, marginal.low)}")
        if marginal.continuous:
            parts.append(
                f"from {self._value(marginal, marginal.low)} to {self._value(marginal, marginal.high)}"
            )
        masses = marginal.point_masses
        if masses:
            named = [
                f"{self._value(marginal, value)} ({share:.1%})"
                for value, share in masses[:_POINT_MASSES_NAMED]
            ]
            more = len(masses) - len(named)
            parts.append(f"point masses at {', '.join(named)}{f' and {more} more' if more else ''}")
        if marginal.missing:
            parts.append(f"{marginal.missing:.1%} missing")
        return f"{marginal.column}: {'; '.join(parts)}" if parts else ""

    def _value(self, marginal: Marginal, value: float | None) -> str:
        """Return a value of a column as one reads it."""
        if value is None:
            return "missing"
        schema = self.model.schema
        column = next((column for column in schema if column.name == marginal.column), None)
        if column is None:
            for start, pattern in _INSTANTS.items():
                if marginal.column.startswith(start) and marginal.column.removeprefix(start) in schema:
                    return f"{pd.Timestamp(int(value), unit='us'):{pattern}}"
            of = marginal.column.removeprefix("exception of ").removeprefix("difference of ")
            if of in schema and schema[of].kind == "timestamp":
                return _duration(value)
        if column is None or column.kind == "number":
            return f"{value:.9g}"
        if column.kind == "timestamp":
            return f"{pd.Timestamp(int(value), unit='us'):%Y-%m-%d %H:%M}"
        if column.kind == "category":
            return repr(self.model.categories[column.name][int(value)])
        if column.kind == "boolean":
            return "true" if value else "false"
        return f"{value:.0f}"


def _support(held: int, checked: int) -> str:
    """Return in how many rows a rule held, in words; an empty string if that was not counted."""
    if not held:
        return ""
    of_all = f" of {checked:,}" if checked else ""
    kept = "; exceptions come as often" if held < checked else ""
    return f" (holds in {held:,}{of_all} rows{kept})"


def _in_words(rule: Rule) -> str:
    if rule.kind == "unique":
        return f"{' with '.join(rule.columns)}: none twice"
    if rule.kind == "part":
        return f"a part of {rule.columns[0]} follows from {rule.columns[1]}"
    if rule.kind == "repeated":
        return f"several rows have the same {rule.columns[0]}"
    return " → ".join(rule.columns)


def _number(value: float) -> str:
    return f"{value:g}"


def _term(factor: float, name: str, *, first: bool) -> str:
    """Return a term of a sum with its sign; no name for the constant."""
    sign = "-" if factor < 0 else "" if first else "+"
    size = "" if abs(factor) == 1 and name else _number(abs(factor))
    words = f"{size} × {name}" if size and name else size or name
    return f"{sign} {words}" if sign and not first else f"{sign}{words}"


def _duration(microseconds: float) -> str:
    """Return a time span in the largest unit of which it is one at least."""
    unit = next((unit for unit in (DAY, HOUR, 60_000_000) if abs(microseconds) >= unit), 1_000_000)
    count = f"{microseconds / unit:.4g}"
    return f"{count} {_UNITS[unit].removesuffix('s') if count in ('1', '-1') else _UNITS[unit]}"


def _clock(offsets: Sequence[tuple[int, int]]) -> str:
    """Return the clock of a timestamp in words, an empty string for UTC."""
    hours = [offset / HOUR for offset in sorted({offset for _, offset in offsets})]
    names = [f"UTC{hour:+g}" if hour else "UTC" for hour in hours]
    return f", on a clock at {' or '.join(names)}" if names else ""


def _strength(dependence: Dependence) -> str:
    weight = dependence.weight
    return "much" if weight >= MUCH else "in part" if weight >= SLIGHT else "slightly"


def _brief(marginal: Marginal) -> Iterator[str]:
    """Give a few words on how values are distributed."""
    if marginal.different == 1 and not marginal.missing:
        yield "constant"
    elif marginal.continuous:
        yield "continuous with point masses" if marginal.point_masses else "continuous"
    else:
        yield f"{marginal.different:,} values"
    if marginal.missing:
        yield f"{marginal.missing:.0%} missing"
