"""A structure as a picture: boxes in the order of drawing, and wires to those that depend on them.

The picture is one SVG without scripts, styles or anything from elsewhere. It is drawn in the text colour
of the page around it, so it suits a light and a dark theme.

Boxes stand in a column. A box on which others depend has a wire that runs down beside the boxes; the line of
a dependent box meets the wire at a dot. So any number of dependences can be read, which arrows straight from
box to box would not allow.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Box", "Wire", "draw"]


_WIRE_COLOURS = ("#1e88e5", "#e8590c", "#12a37f", "#a35bd6", "#b58105", "#d6336c")  # on white and on black
_BOX = 470  # px, width of a box
_PAD, _GAP = 9, 5  # px, inside a box and between its labels
_INSET, _ARROW = 9, 17  # px, room beside the words of a label, and for an arrow before it
_LINE, _LABEL, _ROUND = 24, 20, 7  # px, height of a line of labels, of a label; radius of a box's corners
_BETWEEN = 10  # px, between boxes
_LANE, _FIRST_LANE = 17, 30  # px, between two wires, and from the boxes to the first
_ALL_LANES, _LEAST_LANE = 600, 5  # px, for all wires, and between two of very many
_FONT, _SMALL = 12, 11  # px
_SLIGHT = 0.05  # a dependence of less weight is a hollow dot
_BEND = 7  # px, radius of a wire's corner


@dataclass(frozen=True, slots=True)
class Box:
    """Columns that are drawn together, or one that is computed.

    Parameters
    ----------
    labels : tuple of (str, bool)
        What is drawn: a name, and whether it is a helper and no column of the table.
    determined : tuple of (str, bool)
        What those determine.
    equation : str
        The formula of a computed column.
    note : str
        A few words more.
    """

    labels: tuple[tuple[str, bool], ...] = ()
    determined: tuple[tuple[str, bool], ...] = ()
    equation: str = ""
    note: str = ""

    @property
    def computed(self) -> bool:
        """Whether it is computed and not drawn."""
        return bool(self.equation)


@dataclass(frozen=True, slots=True)
class Wire:
    """Box number `target` depends on box number `source`, another one.

    Parameters
    ----------
    weight : float
        From 0 to 1: how much.
    title : str
        Shown when the pointer is on the dot.
    """

    source: int
    target: int
    weight: float
    title: str


def draw(boxes: Sequence[Box], wires: Sequence[Wire], title: str) -> str:
    """Return the picture as an SVG string.

    Parameters
    ----------
    boxes : sequence of Box
        From top to bottom.
    wires : sequence of Wire
        Dependences.
    title : str
        What the picture shows, for those who cannot see it.
    """
    lanes = _lanes(wires)
    pitch = min(_LANE, max(_LEAST_LANE, _ALL_LANES / (1 + max(lanes.values(), default=0))))
    across = {source: round(_BOX + _FIRST_LANE + lane * pitch, 1) for source, lane in lanes.items()}
    parts: list[str] = []
    tops, bottoms = [], []
    y = 1.0
    for box in boxes:
        drawn = _Labels.of(box)
        tops.append(y)
        bottoms.append(y + drawn.height)
        parts += drawn.svg(y)
        y += drawn.height + _BETWEEN
    width = max([*across.values(), _BOX + _FIRST_LANE]) + 12
    paths = [*_wires(boxes, wires, across, tops, bottoms), *_legend(boxes, wires, y + 6)]
    height = y + 32
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escape(title)}" font-size="{_FONT}" '
        f'style="color: var(--jp-ui-font-color1, currentColor); max-width: none; '
        f'font-family: var(--jp-ui-font-family, system-ui, sans-serif)" fill="currentColor">'
        f"<title>{escape(title)}</title>{''.join(parts)}{''.join(paths)}</svg>"
    )


def _lanes(wires: Sequence[Wire]) -> dict[int, int]:
    """Return the lane of each source, from 0: outside of all wires that begin further down beside it.

    So no wire that only runs down crosses another one where it begins.
    """
    reach: dict[int, tuple[int, int]] = {}
    for wire in wires:
        first, last = reach.get(wire.source, (wire.source, wire.source))
        reach[wire.source] = min(first, wire.target), max(last, wire.target)
    lanes: dict[int, int] = {}
    for source in sorted(reach, reverse=True):
        first, last = reach[source]
        beside = [lanes[k] for k in lanes if reach[k][0] <= last and first <= reach[k][1]]
        lanes[source] = 1 + max(beside, default=-1)
    return lanes


@dataclass(slots=True)
class _Labels:
    """The contents of a box, laid out."""

    box: Box
    items: list[tuple[float, int, float, str, str]] = field(
        default_factory=list
    )  # x, line, width, words, style
    lines: int = 1

    @classmethod
    def of(cls, box: Box) -> _Labels:
        self = cls(box)
        x, line = float(_PAD), 0
        for words, style in _pieces(box):
            size, inset = (
                (_SMALL, 0) if style == "note" else (_FONT, 0 if style == "equation" else 2 * _INSET)
            )
            lead = _ARROW if style.startswith("first ") else 0
            shown = _cut(words, _BOX - 2 * _PAD - inset - lead, size)
            wide = _width(shown, size) + inset
            if x > _PAD and x + lead + wide > _BOX - _PAD:
                x, line = float(_PAD), line + 1
            if lead:
                self.items.append((x, line, lead, "→", "arrow"))
            x = _BOX - _PAD - wide if style == "note" else x + lead
            self.items.append((x, line, wide, shown, style.removeprefix("first ")))
            x += wide + _GAP
        self.lines = line + 1
        return self

    @property
    def height(self) -> float:
        return self.lines * _LINE + 2 * _PAD - (_LINE - _LABEL)

    def svg(self, top: float) -> Iterator[str]:
        dash = ' stroke-dasharray="5 4"' if self.box.computed else ""
        ground = 0 if self.box.computed else 0.045
        yield (
            f'<rect x="1" y="{top:g}" width="{_BOX - 1}" height="{self.height:g}" rx="{_ROUND}" '
            f'fill-opacity="{ground}" stroke="currentColor" stroke-opacity="0.4"{dash}/>'
        )
        for x, line, wide, words, style in self.items:
            y = top + _PAD + line * _LINE
            fill, opacity, font = _LOOKS[style]
            if fill:
                yield (
                    f'<rect x="{x:.1f}" y="{y:g}" width="{wide:.1f}" height="{_LABEL}" rx="{_LABEL / 2:g}" '
                    f"{fill}/>"
                )
            anchor, at = ("start", x) if style == "equation" else ("end", x + wide)
            if fill:
                anchor, at = "middle", x + wide / 2  # fonts differ: centred
            yield (
                f'<text x="{at:.1f}" y="{y + 14:g}" text-anchor="{anchor}" fill-opacity="{opacity}"{font}>'
                f"{escape(words)}</text>"
            )


_LOOKS: Mapping[str, tuple[str, float, str]] = {  # ground, opacity of the words, font
    "label": ('fill="#1e88e5" fill-opacity="0.22"', 1.0, ""),
    "determined": ('fill-opacity="0.09"', 0.9, ""),
    "helper": ('fill="none" stroke="#1e88e5" stroke-opacity="0.55"', 0.9, ' font-style="italic"'),
    "determined helper": (
        'fill="none" stroke="currentColor" stroke-opacity="0.3"',
        0.9,
        ' font-style="italic"',
    ),
    "arrow": ("", 0.6, ' dx="-4"'),
    "equation": ("", 1.0, ""),
    "note": ("", 0.62, f' font-size="{_SMALL}"'),
}


def _pieces(box: Box) -> Iterator[tuple[str, str]]:
    """Give the words in a box and the style of each."""
    for name, helper in box.labels:
        yield name, "helper" if helper else "label"
    for i, (name, helper) in enumerate(box.determined):
        yield name, f"{'' if i else 'first '}{'determined helper' if helper else 'determined'}"
    yield from ((line, "equation") for line in _folded(box.equation))
    if box.note:
        yield box.note, "note"


def _folded(equation: str) -> Iterator[str]:
    """Cut an equation at its blanks into lines that fit a box."""
    line = ""
    for word in equation.split():
        longer = f"{line} {word}" if line else word
        if line and _width(longer, _FONT) > _BOX - 2 * _PAD:
            yield line
            longer = word
        line = longer
    if line:
        yield line


def _wires(
    boxes: Sequence[Box],
    wires: Sequence[Wire],
    across: Mapping[int, float],
    tops: Sequence[float],
    bottoms: Sequence[float],
) -> Iterator[str]:
    """Give the wires, then the line of each dependent box with its arrow and dots."""
    into = [top + _PAD + _LABEL / 2 - (4 if i in across else 0) for i, top in enumerate(tops)]
    out = [bottom - _PAD - _LABEL / 2 + 4 for bottom in bottoms]  # below the line into the box, if any
    colours = {source: _WIRE_COLOURS[i % len(_WIRE_COLOURS)] for i, source in enumerate(across)}
    for source, x in across.items():
        y = out[source]
        ends = [into[wire.target] for wire in wires if wire.source == source]
        dash = ' stroke-dasharray="5 4"' if boxes[source].computed else ""
        for end, bend in ((max(ends), _BEND), (min(ends), -_BEND)):
            if (end - y) * bend > 0:
                yield (
                    f'<path d="M{_BOX} {y:g}H{x - _BEND}q{_BEND} 0 {_BEND} {bend}V{end:g}" fill="none" '
                    f'stroke="{colours[source]}" stroke-width="1.6"{dash}/>'
                )
    for target in sorted({wire.target for wire in wires}):
        y, mine = into[target], [wire for wire in wires if wire.target == target]
        far = max(across[wire.source] for wire in mine)
        dash = ' stroke-dasharray="5 4"' if boxes[target].computed else ""
        yield (
            f'<path d="M{far} {y:g}H{_BOX + 8}" fill="none" stroke="currentColor" stroke-opacity="0.45" '
            f'stroke-width="1.2"{dash}/><path d="M{_BOX + 1} {y:g}l9 -4.5v9z" fill-opacity="0.75"/>'
        )
        for wire in mine:
            yield _dot(across[wire.source], y, wire.weight, colours[wire.source], wire.title)


def _dot(x: float, y: float, weight: float, colour: str, title: str = "") -> str:
    """Return a dot whose size grows with the weight; hollow for a slight dependence."""
    shown = f"<title>{escape(title)}</title>" if title else ""
    hollow = weight < _SLIGHT
    radius = 3.0 if hollow else 3.2 + 3.0 * min(weight, 1.0)
    ground = "var(--jp-layout-color0, Canvas)" if hollow else colour
    return (
        f'<circle cx="{x:g}" cy="{y:g}" r="{radius:.1f}" stroke="{colour}" stroke-width="1.6" '
        f'style="fill: {ground}">{shown}</circle>'
    )


def _legend(boxes: Sequence[Box], wires: Sequence[Wire], y: float) -> Iterator[str]:
    """Give one line that explains the picture."""
    x, middle = 2.0, y + 10
    entries: list[tuple[str, str]] = []
    if any(box.determined for box in boxes):
        entries.append(("→", "determines"))
    if any(box.computed for box in boxes):
        entries.append(("dash", "computed"))
    if any(not boxes[wire.target].computed for wire in wires):
        entries += [("0.9", "depends much on where the wire begins"), ("0.3", "in part"), ("0", "slightly")]
    for mark, words in entries:
        if mark == "→":
            yield f'<text x="{x:g}" y="{middle + 4:g}" fill-opacity="0.6">→</text>'
        elif mark == "dash":
            yield (
                f'<rect x="{x:g}" y="{middle - 6:g}" width="16" height="12" rx="3" fill="none" '
                f'stroke="currentColor" stroke-opacity="0.5" stroke-dasharray="4 3"/>'
            )
        else:
            yield _dot(x + 7, middle, float(mark), _WIRE_COLOURS[0])
        yield (
            f'<text x="{x + 21:g}" y="{middle + 4:g}" font-size="{_SMALL}" fill-opacity="0.7">'
            f"{escape(words)}</text>"
        )
        x += 21 + _width(words, _SMALL) + 18


def _width(words: str, size: float) -> float:
    """Return about how wide words are in px; the font is unknown, so a little more than in most."""
    return size * sum(_em(letter) for letter in words)


def _em(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter in "iljtfrI.,:;'|()[]/ -":
        return 0.39
    if letter in "mwMW@%×÷":
        return 0.88
    return 0.7 if letter.isupper() else 0.58


def _cut(words: str, room: float, size: float) -> str:
    """Return as much of the words as there is room for."""
    if _width(words, size) <= room:
        return words
    while words and _width(words, size) > room - size:
        words = words[:-1]
    return f"{words}…"
