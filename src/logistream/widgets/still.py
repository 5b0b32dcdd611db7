"""The dashboard as a still picture, for places where no widget can live: a saved notebook, a web page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from logistream.widgets.aggregates import Groups, Series

__all__ = ["Picture", "still_png"]


_SHORTEST = 20 / 86_400  # days on the time axis at the least: 20 s, as in the browser
_RATE, _SHARE, _REST, _ASKED, _TEXT = "#1976d2", "#d9480f", "#b9c4d0", "#8a8a8a", "#555555"


@dataclass(frozen=True, slots=True)
class Picture:
    """All that a dashboard shows at one moment.

    Attributes
    ----------
    config : dict
        Titles and words, as the browser gets them.
    series : Series
        The lines.
    asked : ndarray of float64, shape (n,)
        Events per second asked of the server at `series.time`; NaN where unknown.
    groups : Groups
        Events and hits per group.
    state : str
        waiting, live, paused or stopped.
    total, rows : int
        Events seen so far; rows that the frame holds.
    newest : int or None
        Time of the newest event, in microseconds since the Unix epoch, UTC.
    """

    config: dict[str, Any]
    series: Series
    asked: np.ndarray
    groups: Groups
    state: str
    total: int
    rows: int
    newest: int | None


def still_png(picture: Picture) -> str:
    """Draw `picture` and return the PNG as base64 text, as notebooks store it."""
    # Imported here: matplotlib takes most of a second, and a dashboard that is never displayed needs none.
    from matplotlib.dates import AutoDateLocator, DateFormatter
    from matplotlib.figure import Figure

    has_share, has_groups = picture.config["title"] is not None, picture.config["by"] is not None
    figure = Figure(
        figsize=(9.6, 4.0 if has_share else 2.6), dpi=100, facecolor="white", layout="constrained"
    )
    grid = figure.add_gridspec(1 + has_share, 1 + has_groups, width_ratios=(2, 1)[: 1 + has_groups])
    rate = lowest = figure.add_subplot(grid[0, 0])
    time = picture.series.time / 86_400  # matplotlib's dates are days since 1970
    begin = min(time[max(0, int(np.argmax(np.isfinite(picture.series.share))) - 1)], time[-1] - _SHORTEST)
    rate.plot(time, picture.asked, color=_ASKED, lw=1, ls="--", drawstyle="steps-post", label="asked")
    rate.plot(time, picture.series.rate, color=_RATE, lw=1.6, label="measured")
    rate.set_ylim(bottom=0)
    if np.isfinite(picture.asked).any():
        rate.legend(loc="upper left", fontsize=7, frameon=False, ncols=2)
    _title(rate, "Events per second", "")
    if has_share:
        rate.tick_params(labelbottom=False)
        lowest = figure.add_subplot(grid[1, 0])
        _draw_share(lowest, time, picture)
    lowest.xaxis.set_major_locator(AutoDateLocator(maxticks=6))  # type: ignore[no-untyped-call]
    lowest.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))  # type: ignore[no-untyped-call]
    lowest.set_xlabel("time in UTC", fontsize=8, color=_TEXT)
    for axes in figure.axes:
        axes.set_xlim(begin, time[-1])
        axes.grid(visible=True, color="#e6e6e6", lw=0.8)
        if not picture.total:
            axes.text(
                0.5, 0.5, "no events yet", transform=axes.transAxes, ha="center", va="center", color=_TEXT
            )
    if has_groups:
        _draw_bars(figure.add_subplot(grid[:, 1]), picture)
    for axes in figure.axes:
        axes.tick_params(labelsize=8, colors=_TEXT, length=0)
        axes.spines[:].set_visible(False)
    lowest.tick_params(axis="x", pad=7)  # clear of the lowest label of the other axis
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _draw_share(axes: Axes, time: np.ndarray, picture: Picture) -> None:
    axes.fill_between(time, picture.series.low, picture.series.high, color=_SHARE, alpha=0.18, lw=0)
    axes.plot(time, picture.series.share, color=_SHARE, lw=1.6)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    _title(axes, picture.config["title"], f"last {picture.config['shareWindow']} s, 95 % interval")


def _title(axes: Axes, title: str, hint: str) -> None:
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes.set_title(hint, loc="right", fontsize=8, color=_TEXT)


def _draw_bars(axes: Axes, picture: Picture) -> None:
    groups, words = picture.groups, picture.config
    _title(axes, words["by"], f"last {words['spanText']}: {groups.events.sum():,} events")
    places = np.arange(len(groups.labels))
    if words["title"] is None:
        axes.barh(places, groups.events, color=_RATE, height=0.55)
        told = [f"{events:,}" for events in groups.events.tolist()]
    else:
        rest = groups.events - groups.hits
        axes.barh(places, groups.hits, color=_SHARE, height=0.55, label=words["hit"])
        axes.barh(places, rest, left=groups.hits, color=_REST, height=0.55, label=words["rest"])
        told = [f"{share:.0f} %" for share in 100 * groups.hits / np.maximum(groups.events, 1)]
        if len(places):
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), fontsize=7, frameon=False, ncols=2)
    axes.set_yticks(places, groups.labels)
    axes.invert_yaxis()
    axes.set_xticks([])
    for place, events, text in zip(places.tolist(), groups.events.tolist(), told, strict=True):
        axes.text(events, place, f" {text}", va="center", fontsize=8, color=_TEXT)
    axes.margins(x=0.14)
