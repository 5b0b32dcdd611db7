"""The widget as a static image, in the layout of the live one, for places that cannot run widgets.

Its ground is transparent and its colours are middle tones: it can be read on white and on dark.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from logistream.schema import EVENT_TIME
from logistream.widgets.cells import OTHERS
from logistream.widgets.menus import fault_names
from logistream.widgets.places import coastline
from logistream.widgets.summary import FEWEST, changed_at, group_counts, lines, wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from logistream.widgets.cells import Cells
    from logistream.widgets.choice import Columns
    from logistream.widgets.control import Settings
    from logistream.widgets.summary import Groups, Lines

__all__ = ["PALETTE", "Picture", "draw_png"]


PALETTE = ("#2f86c8", "#d98a00", "#0fa37a", "#c467a0", "#8b7bd8", "#b0623c", "#5f9ea0", "#9a9a2e")
"""Colours of the groups, after Okabe and Ito: the colour-blind can distinguish them, on white and on dark."""

_TEXT, _STRONG, _GRID = "#767a80", "#7a7a7a", "#80808040"  # as much contrast on white as on #111
_RATE, _ASKED, _SPOT = "#2f86c8", "#8c8c8c", "#7a7a7a"
_MARKS = {"pause": "#d98a00", "scenario": "#d98a00", "fault": "#9a6bd0"}
_NAMED = ("scenario", "fault")  # marks whose text is written
_MARK_LETTER = 0.0075  # width of a letter of a mark, as a share of the axis
_FEWEST_LETTERS = 6  # of a mark, for which there must be room
_STATES = {"live": "#2f9e58", "paused": "#d98a00", "connecting": "#d98a00", "reconnecting": "#d98a00"}
_BROKEN = "#d64545"
_WIDTH = 13.0  # inches
_DOTS = 110  # per inch in the file
_COLOURS = 64  # of the file
_SHOWN_WIDTH = 1111  # px; the pages know the image by it: see board.css and board.js


@dataclass(frozen=True, slots=True)
class Picture:
    """All that a widget shows at one time.

    Attributes
    ----------
    parts : tuple of str
        What is shown, of bar, tiles, time, groups, map and table.
    columns : Columns or None
        What is drawn; None if nothing is counted.
    cells : Cells or None
        The counts.
    start, stop : int
        Ends of the time axis, microseconds since 1970.
    window : float
        Seconds over which shares and amounts are taken.
    state : tuple of str
        State and reason.
    settings : Settings or None
        The settings of the stream.
    behind : int or None
        Events that the frame is behind the server.
    filters : dict
        Labels that are shown, by column.
    asked : tuple of (float, float)
        When which rate was asked for, in seconds and events per second.
    marks : tuple of (float, str, str)
        What is marked on the time axis: seconds since 1970, kind and text.
    rows : DataFrame
        The newest rows.
    headers : dict
        Words for columns that are not shown by their names.
    total : int
        Events seen so far.
    weights : ndarray of float64 or None
        See `summary.lines`.
    """

    parts: tuple[str, ...]
    columns: Columns | None
    cells: Cells | None
    start: int
    stop: int
    window: float
    state: tuple[str, str]
    settings: Settings | None
    behind: int | None
    filters: dict[str, tuple[str, ...]]
    asked: tuple[tuple[float, float], ...]
    marks: tuple[tuple[float, str, str], ...]
    rows: pd.DataFrame
    headers: dict[str, str]
    total: int
    weights: np.ndarray | None = None

    @property
    def width(self) -> int:
        """Width at which the picture is to be shown, in pixels."""
        return _SHOWN_WIDTH


def draw_png(picture: Picture, *, dots: int = _DOTS) -> bytes:
    """Draw a picture and return it as a PNG file.

    Parameters
    ----------
    dots : int
        Dots per inch.
    """
    # Imported here: matplotlib takes most of a second, and a widget that is never displayed needs none.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    columns, cells = picture.columns, picture.cells
    below = "map" in picture.parts or "table" in picture.parts
    height = 0.45 + (0.75 if "tiles" in picture.parts else 0) + 3.9 + (2.7 if below else 0)
    figure = Figure(figsize=(_WIDTH, height), dpi=dots, facecolor="none")
    figure.set_layout_engine("none")  # the notebook's style must not change it
    top = 1 - 0.3 / height
    _draw_state(figure, picture, top)
    if columns is not None and cells is not None:
        drawn = lines(
            cells,
            picture.start,
            picture.stop,
            window=picture.window,
            rate_window=max(1.0, cells.step),
            asked=picture.asked,
            weights=picture.weights,
        )
        groups = group_counts(cells, picture.start, picture.stop)
        top -= 0.25 / height
        if "tiles" in picture.parts:
            _draw_tiles(figure, picture, drawn, top, height)
            top -= 0.8 / height
        bottom = (2.9 if below else 0.45) / height
        split = 0.66 if columns.by is not None and "groups" in picture.parts else 0.995
        _draw_time(figure, picture, drawn, (0.055, bottom, split - 0.055, top - bottom - 0.1 / height))
        if split < 0.9:
            _draw_groups(figure, picture, groups, (0.775, bottom, 0.145, top - bottom - 0.3 / height))
        if below:
            _draw_below(figure, picture, 2.3 / height)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    # A palette makes the file a quarter of the size: it is sent again and again, and saved.
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]
    file = io.BytesIO()
    pixels.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:  # noqa: ANN401 - of matplotlib
    figure.text(x, y, text, **{"color": _TEXT, "fontsize": 9, "va": "baseline", **style})


def _draw_state(figure: Figure, picture: Picture, y: float) -> None:
    state, reason = picture.state
    words = [f"{state}: {reason}" if reason else state]
    if picture.settings is not None:
        words.append(f"{picture.settings.rate:,g} events/s asked")
        words += [f"scenario: {_cut(scenario.name, 40)}" for scenario in picture.settings.scenarios]
        words += [f"faults: {_cut(fault_names(faults), 40)}"] if (faults := picture.settings.faults) else []
    words += [f"{picture.total:,} events seen", f"{_clock(picture.stop / 1e6)} UTC"]
    words += [f"{name} = {' or '.join(labels)}" for name, labels in picture.filters.items()]
    _write(figure, 0.008, y, "●", color=_STATES.get(state, _BROKEN), fontsize=11)
    _write(figure, 0.026, y, "   ·   ".join(words), color=_STRONG, fontweight="bold")


def _draw_tiles(figure: Figure, picture: Picture, drawn: Lines, top: float, height: float) -> None:
    columns = picture.columns
    assert columns is not None  # noqa: S101 - the caller looked
    tiles: list[tuple[str, str, str, np.ndarray]] = []
    changes = changed_at(picture.asked, picture.marks, picture.stop / 1e6)
    (by_share, share_span), (by_sum, sum_span) = (_present(picture, drawn, since) for since in changes)
    if columns.share is not None:
        share, low, high = _last(by_share.share), _last(by_share.low), _last(by_share.high)
        known = np.isfinite(share)
        hint = f"{100 * low:.0f} to {100 * high:.0f} %, {share_span}" if known else "waiting for events"
        tiles.append((columns.title, _percent(share), hint, drawn.share))
    settings = picture.settings
    asked = "" if settings is None else "paused" if settings.paused else f"{settings.rate:,g} asked"
    missing = _missing(picture)
    rate = "–" if missing else _short(_last(drawn.rate))
    tiles.append(("Events per second", rate, missing or asked, drawn.rate))
    for place, amount in enumerate(columns.amounts):
        ends, span = (by_sum, sum_span) if amount.total else (by_share, share_span)
        unit = f"{amount.unit or ''}{'/min' if amount.total else ' mean'}, {span}".strip()
        gone = missing if amount.total else ""
        value = "–" if gone else _short(_last(ends.amounts[:, place]))
        tiles.append((amount.label, value, gone or unit, drawn.amounts[:, place]))
    if picture.behind is not None:
        tiles.append(("Behind the server", f"{picture.behind:,}", "events", np.array([])))
    for place, (title, value, hint, values) in enumerate(tiles):
        x = 0.008 + place / len(tiles)
        _write(figure, x, top - 0.12 / height, title, fontsize=8.5)
        _write(figure, x, top - 0.46 / height, value, fontsize=17, color=_STRONG, fontweight="bold")
        _write(figure, x, top - 0.64 / height, hint, fontsize=8)
        if np.isfinite(values).sum() > 1:
            box = (x + 0.52 / len(tiles), top - 0.5 / height, 0.4 / len(tiles), 0.36 / height)
            axes = figure.add_axes(box, facecolor="none")
            axes.plot(values, color=_RATE, lw=1.2)
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
            middle, half = (low + high) / 2, max((high - low) / 2, 0.02 * abs(low + high) / 2, 1e-9)
            axes.set_ylim(middle - 1.1 * half, middle + 1.1 * half)
            axes.set_axis_off()


def _missing(picture: Picture) -> str:
    """Return why the newest figures are missing, as the live view does; empty if they are there."""
    state, reason = picture.state
    if picture.behind is None or picture.settings is None:
        return ""
    if state in ("connecting", "reconnecting", "stopped"):
        return state
    return "catching up" if state == "live" and reason else ""


def _present(picture: Picture, drawn: Lines, since: float) -> tuple[Lines, str]:
    """Return lines whose last values are not taken across a change, and in words what they are taken over."""
    cells, stop = picture.cells, picture.stop
    assert cells is not None  # noqa: S101 - the caller looked
    if since <= stop / 1e6 - picture.window or picture.weights is not None:
        begin = 0
    else:
        begin = int(np.ceil(since / cells.step))
        drawn = lines(cells, stop - 1, stop, window=picture.window, asked=picture.asked, begin=begin)
    over = max(0, stop / 1e6 - max(begin, cells.begin or 0) * cells.step)
    return drawn, f"last {picture.window if over >= picture.window else round(over):g} s"


def _draw_time(
    figure: Figure, picture: Picture, drawn: Lines, box: tuple[float, float, float, float]
) -> None:
    columns = picture.columns
    assert columns is not None  # noqa: S101 - the caller looked
    x, y, width, height = box
    kinds = (["share"] if columns.share is not None else []) + ["rate"]
    kinds += ["amounts"] if columns.amounts else []
    heights = {"share": 2.2, "rate": 1.0, "amounts": 1.0}
    whole = sum(heights[kind] for kind in kinds) + 0.35 * len(kinds)
    top = y + height
    for kind in kinds:
        tall = heights[kind] / whole * height
        axes = figure.add_axes((x, top - tall, width, tall), facecolor="none")
        top -= tall + 0.35 / whole * height
        {"share": _draw_share, "rate": _draw_rate, "amounts": _draw_amounts}[kind](axes, picture, drawn)
        _finish_time(axes, picture, labelled=kind == kinds[-1])
        if kind == "rate":
            _name_marks(axes, picture)


def _finish_time(axes: Axes, picture: Picture, *, labelled: bool) -> None:
    start, stop = picture.start / 1e6, picture.stop / 1e6
    axes.set_xlim(start, stop)
    step = next(
        s for s in (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 10**9) if (stop - start) / s <= 9
    )
    ticks = np.arange(np.ceil(start / step) * step, stop, step)
    axes.set_xticks(ticks, [_clock(tick) for tick in ticks] if labelled else [""] * len(ticks))
    for at, kind, _ in picture.marks:
        if start < at < stop:
            style: Any = (0, (5, 2)) if kind in _NAMED else ":"
            axes.axvline(at, color=_MARKS.get(kind, _ASKED), lw=0.9, ls=style)
    axes.grid(visible=True, color=_GRID, lw=0.7)
    axes.tick_params(labelsize=8, colors=_TEXT, length=0)
    axes.spines[:].set_visible(False)
    if not picture.total:
        axes.text(0.5, 0.5, "no events yet", transform=axes.transAxes, ha="center", va="center", color=_TEXT)


def _name_marks(axes: Axes, picture: Picture) -> None:
    """Write the names of scenarios and faults beside their marks, as far as there is room between these."""
    start, stop = picture.start / 1e6, picture.stop / 1e6
    letter = (stop - start) * _MARK_LETTER
    shown = [(at, text) for at, kind, text in picture.marks if kind in _NAMED and start < at < stop]
    free = start
    for place, (at, text) in enumerate(shown):
        end = shown[place + 1][0] if place + 1 < len(shown) else stop
        right, left = int((end - at) / letter) - 1, int((at - free) / letter) - 1
        to_right = len(text) <= right or (len(text) > left and right >= left)
        name = _cut(text, max(right if to_right else left, 1))
        free = at + len(name) * letter if to_right else at
        if len(name) >= min(_FEWEST_LETTERS, len(text)):
            axes.annotate(
                name, (at, 1), (4 if to_right else -4, -3), xycoords=("data", "axes fraction"),
                textcoords="offset points", fontsize=7.5, color=_TEXT, va="top",
                ha="left" if to_right else "right",
            )  # fmt: skip


def _colours(picture: Picture) -> dict[str, str]:
    """Return a colour for each group that is drawn as a line, by its place among the labels."""
    cells = picture.cells
    assert cells is not None  # noqa: S101 - the caller looked
    return dict(zip(cells.labels[1:], PALETTE, strict=False))


def _draw_share(axes: Axes, picture: Picture, drawn: Lines) -> None:
    columns, cells = picture.columns, picture.cells
    assert columns is not None  # noqa: S101 - the caller looked
    assert cells is not None  # noqa: S101
    for label, colour in _colours(picture).items():
        axes.plot(drawn.time, drawn.groups[:, cells.labels.index(label)], color=colour, lw=1.2)
    axes.fill_between(drawn.time, drawn.low, drawn.high, color=_STRONG, alpha=0.25, lw=0)
    axes.plot(drawn.time, drawn.share, color=_STRONG, lw=2.2)
    axes.margins(y=0.08)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    by = f", by {columns.by}" if columns.by else ""
    _title(axes, columns.title, f"grey: all, with 95 % interval{by}; last {picture.window:g} s")
    if picture.total and not np.isfinite(drawn.share).any():
        axes.text(0.5, 0.5, "waiting for events", transform=axes.transAxes, ha="center", color=_TEXT)


def _draw_rate(axes: Axes, picture: Picture, drawn: Lines) -> None:
    axes.set_yscale("log")
    if picture.asked and not picture.filters:
        times = np.array([at for at, _ in picture.asked])
        rates = np.array([rate if rate else np.nan for _, rate in picture.asked])
        place = np.searchsorted(times, drawn.time, side="right") - 1
        axes.plot(
            drawn.time, np.where(place >= 0, rates[np.maximum(place, 0)], np.nan),
            color=_ASKED, lw=1.2, ls="--", drawstyle="steps-post",
        )  # fmt: skip
    rate = np.where(drawn.rate > 0, drawn.rate, np.nan)
    axes.plot(drawn.time, rate, color=_RATE, lw=1.6)
    known = rate[np.isfinite(rate)]
    low, high = (known.min() / 2.2, known.max() * 2.2) if len(known) else (0.5, 50.0)
    axes.set_ylim(low, high)
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high) + 1)
    ticks = powers if high / low > 300 else np.outer(powers, [1, 2, 5]).ravel()
    shown = [tick for tick in ticks.tolist() if low <= tick <= high]
    axes.set_yticks(shown, [_short(tick) for tick in shown])
    axes.minorticks_off()
    _title(axes, "Events per second", "dashed: asked for" if picture.asked and not picture.filters else "")


def _draw_amounts(axes: Axes, picture: Picture, drawn: Lines) -> None:
    columns = picture.columns
    assert columns is not None  # noqa: S101 - the caller looked
    for place, amount in enumerate(columns.amounts):
        axes.plot(drawn.time, drawn.amounts[:, place], color=PALETTE[2 + place], lw=1.5, label=amount.label)
    axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    axes.legend(loc="upper right", fontsize=7.5, frameon=False, ncols=2, labelcolor=_TEXT, borderpad=0)
    first = columns.amounts[0]
    words = f"{first.unit} per minute".strip() if first.total else "Means"
    _title(axes, f"{words}, last {picture.window:g} s", "")


def _title(axes: Axes, title: str, hint: str) -> None:
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold", color=_STRONG, pad=4)
    axes.set_title(hint, loc="right", fontsize=8, color=_TEXT, pad=4)


def _draw_groups(
    figure: Figure, picture: Picture, groups: Groups, box: tuple[float, float, float, float]
) -> None:
    columns = picture.columns
    assert columns is not None  # noqa: S101 - the caller looked
    axes = figure.add_axes(box, facecolor="none")
    colours = _colours(picture)
    places = np.arange(len(groups.labels))
    names = [label if label != OTHERS else "others" for label in groups.labels]
    low, high = wilson(groups.hits, groups.events)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = groups.hits / groups.events
    for place, label in enumerate(groups.labels):
        colour = colours.get(label, _ASKED)
        if columns.share is None:
            axes.barh(place, groups.events[place], height=0.5, color=colour)
            note = f"{groups.events[place]:,.0f}"
        elif groups.events[place] >= FEWEST:
            axes.plot([low[place], high[place]], [place, place], color=colour, lw=3, alpha=0.5)
            axes.plot(share[place], place, "o", color=colour, ms=7)
            note = f"{_percent(share[place])}  of {groups.events[place]:,.0f}"
        else:
            note = f"{groups.events[place]:,.0f} so far"
        axes.text(
            1.02, place, note, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=_TEXT
        )
    axes.set_yticks(places, [name if len(name) < 22 else f"{name[:20]}…" for name in names])
    axes.set_ylim(len(places) - 0.5 if len(places) else 0.5, -0.5)
    if columns.share is not None:
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    else:
        axes.set_xticks([])
    axes.grid(visible=True, axis="x", color=_GRID, lw=0.7)
    axes.tick_params(labelsize=8, colors=_TEXT, length=0)
    axes.spines[:].set_visible(False)
    _title(axes, f"{columns.title} by {columns.by}" if columns.share else str(columns.by), "")


def _draw_below(figure: Figure, picture: Picture, height: float) -> None:
    from matplotlib.collections import PolyCollection

    columns, cells = picture.columns, picture.cells
    assert columns is not None  # noqa: S101 - the caller looked
    assert cells is not None  # noqa: S101
    mapped = "map" in picture.parts and (columns.place is not None or columns.latitude is not None)
    if mapped:
        axes = figure.add_axes((0.008, 0.01, 0.36, height * 0.98), facecolor="none")
        axes.add_collection(
            PolyCollection(coastline(), facecolor="#80808030", edgecolor="#80808090", lw=0.5), autolim=False
        )
        first, last = cells.cell(picture.start), cells.cell(picture.stop)
        spots, countries = cells.spots(first, last), cells.countries(first, last)
        if len(spots):
            axes.scatter(spots[:, 0], spots[:, 1], s=5, marker="s", color=_SPOT, alpha=0.8, lw=0)
        if len(countries):
            area = 160 * countries[:, 3] / countries[:, 3].max()
            axes.scatter(countries[:, 1], countries[:, 2], s=area, color=_RATE, alpha=0.6, lw=0)
        axes.set_xlim(-170, 180)
        axes.set_ylim(-56, 78)
        axes.set_aspect("equal", anchor="SW")
        axes.set_axis_off()
        words = [f"● by {columns.place}"] if columns.place else []
        words += [f"▪ {columns.positions}"] if columns.positions else []
        _title(axes, "Map", "   ".join(words))
    if "table" in picture.parts and len(picture.rows):
        names = [name for name in columns.table if name in picture.rows.columns]
        left, right = (0.39 if mapped else 0.008), 0.995
        step = (right - left) / len(names)
        rows = picture.rows[names].iloc[::-1]
        for place, name in enumerate(names):
            x = left + place * step
            limit = round(step * 165)
            header = picture.headers.get(name, name)
            _write(figure, x, height, _cut(header, limit), fontsize=8, fontweight="bold", color=_STRONG)
            outcomes = {True: columns.hit, False: columns.rest} if name == columns.share else {}
            cells_shown = (outcomes.get(value) or _cell(name, value) for value in rows[name].tolist())
            values = "\n".join(_cut(text, limit) for text in cells_shown)
            _write(figure, x, height * 0.96, values, fontsize=8, va="top", linespacing=1.55)


def _cell(name: str, value: Any) -> str:  # noqa: ANN401 - any value of a frame
    if name == EVENT_TIME.name:
        return f"{value:%H:%M:%S.%f}"[:-3]
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _last(values: np.ndarray) -> float:
    return float(values[-1]) if len(values) else float("nan")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if np.isfinite(share) else "–"


def _short(value: float) -> str:
    """Return a number in few characters: 1.2k, 34.5, 0.25."""
    if not np.isfinite(value):
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            unit = 1e3 if letter == "k" else size
            return f"{value / unit:.3g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _clock(seconds: float) -> str:
    whole = int(seconds) % 86_400
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
