"""What a model found in its table, told in words and shown as a picture."""

from __future__ import annotations

from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from logistream.model.drawing import Box, Wire, draw
from logistream.model.findings import MUCH, SLIGHT, Findings, find
from logistream.times import CALENDAR, HOUR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from logistream.model.findings import Block, Link, Spread
    from logistream.model.network import Formula, Network

__all__ = ["Description"]


_SIGNS = {"product": "×", "sum": "+", "local": "+"}
_SPIKES_NAMED = 3
_WIDE = 40  # blocks: of more than so many the picture leaves out those that have little to do with others
_INSTANTS = {"date of ": "%Y-%m-%d", "time of day of ": "%H:%M"}


class Description:
    """What a model found: print it, or let a notebook show it with its picture.

    Two descriptions are equal if they say the same.

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
        """Blocks, links and spreads, for a program to read."""
        return find(self.model)

    @property
    def _computed(self) -> list[Formula]:
        """What is not drawn at all."""
        return [formula for formula in self.model.formulas if not formula.keeps_order]

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
        blocks, links, names = self.findings.blocks, self.findings.links, self.findings.names
        if len(blocks) > _WIDE:
            links = tuple(link for link in links if link.weight >= SLIGHT)
            read = {names[name] for f in self._computed for name in (f.left, f.right) if name}
            tied = {id(block) for link in links for block in (link.source, link.target)}
            blocks = tuple(
                b for b in blocks if id(b) in tied or len(b.columns) > 1 or read & {*b.columns, *b.helpers}
            )
        place = {id(block): i for i, block in enumerate(blocks)}
        boxes = [
            Box(
                tuple((name, name in block.helpers) for name in block.keys),
                tuple((name, name in block.helpers) for name in block.fixed),
                note=self._note(block),
            )
            for block in blocks
        ]
        wires = [
            Wire(
                place[id(link.source)],
                place[id(link.target)],
                link.weight,
                f"{link.target.short} depends {_strength(link)} on {link.source.short} ({link.weight:.2f})",
            )
            for link in links
        ]
        home = {name: i for i, block in enumerate(blocks) for name in (*block.columns, *block.helpers)}
        for formula in self._computed:
            home[formula.column] = len(boxes)
            wires += [
                Wire(source, len(boxes), 1.0, f"{formula.column} is computed from it")
                for source in sorted({home[names[name]] for name in (formula.left, formula.right) if name})
            ]
            boxes.append(Box(text=self._equation(formula)))
        return draw(boxes, wires, f"Structure of {self.title}")

    def _note(self, block: Block) -> str:
        """Return a few words for the block's box."""
        if len(block.keys) > 1:
            return "go together"
        return ", ".join(
            words
            for spread in self.findings.spreads
            if spread.column in block.keys
            for words in _brief(spread)
        )

    def _sections(self) -> Iterator[tuple[str, str, list[str]]]:
        """Give heading, hint and sentences of all that there is to say."""
        blocks, links = self.findings.blocks, self.findings.links
        fixing: dict[str, list[str]] = {}
        for block in blocks:
            for column, key in block.fixed.items():
                fixing.setdefault(key, []).append(column)
        tied = {id(block) for link in links for block in (link.source, link.target)}
        loose = [block.short for block in blocks if id(block) not in tied]
        delays = [f"{d.column} = event_time + the days that {d.service} takes" for d in self.model.delays]
        told: list[tuple[str, str, list[str]]] = [
            ("Computed", "not drawn", [self._equation(f) for f in self._computed]),
            (
                "In order",
                "never above",
                [
                    f"{f.left} ≤ {f.column}" if f.operation == "at least" else f"{f.column} ≤ {f.left}"
                    for f in self.model.formulas
                    if f.keeps_order
                ],
            ),
            (
                "Fixed by another column",
                "each value of it has only one",
                [f"{key} → {', '.join(columns)}" for key, columns in fixing.items()],
            ),
            (
                "Go together",
                "only certain combinations occur",
                [", ".join(block.keys) for block in blocks if len(block.keys) > 1],
            ),
            (
                "Dependent",
                "on what, and how much; + 2: with two more columns that go together",
                list(self._dependences()),
            ),
            ("Independent of all others", "", [", ".join(loose)] if loose else []),
            ("Values", "", [text for spread in self.findings.spreads if (text := self._values(spread))]),
            ("In a live stream", "", delays),
        ]
        return ((heading, hint, sentences) for heading, hint, sentences in told if sentences)

    def _dependences(self) -> Iterator[str]:
        """Give a sentence for each block that depends on others."""
        for block in self.findings.blocks:
            by_strength: dict[str, list[str]] = {}
            for link in self.findings.links:
                if link.target is block:
                    by_strength.setdefault(_strength(link), []).append(link.source.short)
            if by_strength:
                told = "; ".join(f"{how} on {', '.join(names)}" for how, names in by_strength.items())
                yield f"{block.short}: {told}"

    def _equation(self, formula: Formula) -> str:
        """Return a formula as one reads it."""
        if formula.operation in CALENDAR:  # of the date or the time of day, where those are drawn
            whole = next((f for f in self._computed if f.right and formula.left in (f.left, f.right)), None)
            if whole is None or formula.left in self.model.schema:
                return f"{formula.column} = {formula.operation} of {formula.left}{_clock(formula.offsets)}"
            return f"{formula.column} = {formula.operation} of {whole.column}{_clock(whole.offsets)}"
        left, right = (name.removeprefix(f"{formula.column}: ") for name in (formula.left, formula.right))
        if right.startswith((f"{formula.column} / ", f"{formula.column} - ")):
            right = "rate" if formula.operation == "product" else "difference"
            spread = next(s for s in self.findings.spreads if s.column == f"{right} of {formula.column}")
            right = f"its {right}" if spread.different > 1 else self._value(spread, spread.low)
        return f"{formula.column} = {left} {_SIGNS[formula.operation]} {right}{_clock(formula.offsets)}"

    def _values(self, spread: Spread) -> str:
        """Return what is worth telling of the values of a column; nothing of a plain one."""
        facts = []
        if spread.different == 1 and not spread.missing:
            facts.append(f"always {self._value(spread, spread.low)}")
        if spread.continuous and spread.column in self.model.categories:
            facts.append(f"made up, such as {self._value(spread, spread.low)}")
        elif spread.continuous:
            facts.append(f"from {self._value(spread, spread.low)} to {self._value(spread, spread.high)}")
        spikes = [
            f"{self._value(spread, value)} ({share:.1%})" for value, share in spread.spikes[:_SPIKES_NAMED]
        ]
        if spikes:
            more = len(spread.spikes) - len(spikes)
            facts.append(f"spikes at {', '.join(spikes)}{f' and {more} more' if more else ''}")
        if spread.missing:
            facts.append(f"{spread.missing:.1%} missing")
        return f"{spread.column}: {'; '.join(facts)}" if facts else ""

    def _value(self, spread: Spread, value: float | None) -> str:
        """Return a value of a column as one reads it."""
        if value is None:
            return "missing"
        schema = self.model.schema
        column = next((column for column in schema if column.name == spread.column), None)
        if column is None:
            for start, pattern in _INSTANTS.items():
                if spread.column.startswith(start) and spread.column.removeprefix(start) in schema:
                    return f"{pd.Timestamp(int(value), unit='us'):{pattern}}"
        if column is None or column.kind == "number":
            return f"{value:.9g}"
        if column.kind == "timestamp":
            return f"{pd.Timestamp(int(value), unit='us'):%Y-%m-%d %H:%M}"
        if column.kind == "category":
            return repr(self.model.categories[column.name][int(value)])
        if column.kind == "boolean":
            return "true" if value else "false"
        return f"{value:.0f}"


def _clock(offsets: Sequence[tuple[int, int]]) -> str:
    """Return on which clock an instant is told, nothing if that is UTC."""
    hours = [offset / HOUR for offset in sorted({offset for _, offset in offsets})]
    names = [f"UTC{hour:+g}" if hour else "UTC" for hour in hours]
    return f", on a clock at {' or '.join(names)}" if names else ""


def _strength(link: Link) -> str:
    return "much" if link.weight >= MUCH else "in part" if link.weight >= SLIGHT else "slightly"


def _brief(spread: Spread) -> Iterator[str]:
    """Give a few words on how values are spread."""
    if spread.different == 1 and not spread.missing:
        yield "constant"
    elif spread.continuous:
        yield "continuous with spikes" if spread.spikes else "continuous"
    else:
        yield f"{spread.different:,} values"
    if spread.missing:
        yield f"{spread.missing:.0%} missing"
