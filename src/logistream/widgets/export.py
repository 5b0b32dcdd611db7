"""Export what a widget shows: its rows as a file beside the notebook, or code that returns them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from logistream.errors import RequestError
from logistream.frame.events import events
from logistream.schema import EVENT_TIME
from logistream.widgets.cells import MISSING_LABEL, matching
from logistream.widgets.past import numbers_between

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from logistream.frame.frame import RollingFrame
    from logistream.widgets.control import Control

__all__ = ["copied_code", "save_rows"]


MOST_ROWS = 1_000_000
"""Rows of a file, at most."""


def _numbers(control: Control | None, start: int, stop: int) -> tuple[int, int] | None:
    """Return the event numbers of a stretch of time; None without a server that can be reached."""
    settings = None if control is None else control.look()
    timeline = None if control is None else control.timeline()
    if settings is None or timeline is None or not settings.reachable:
        return None
    return numbers_between(timeline, start, stop, settings.next_number)


def save_rows(
    control: Control | None,
    frame: RollingFrame | None,
    start: int,
    stop: int,
    filters: Mapping[str, Iterable[str]],
    *,
    stem: str,
    form: str,
) -> tuple[str, int]:
    """Save the events from `start` to `stop` (microseconds since 1970) in the working folder.

    They come from the server if there is one, so that the past is complete, else from the frame.

    Returns
    -------
    str, int
        Name of the file and number of rows.

    Raises
    ------
    RequestError
        For another form than csv and parquet, and for too many rows.
    """
    if form not in ("csv", "parquet"):
        raise RequestError(f"rows can be saved as csv or parquet, not {form!r}")
    numbers = _numbers(control, start, stop)
    if numbers is not None and control is not None:
        first, last = numbers
        if last - first > MOST_ROWS:
            raise RequestError(
                f"the view holds {last - first:,} events, more than {MOST_ROWS:,}: zoom in and export again"
            )
        rows = events(control.url, first, last, columns=None if frame is None else frame.schema.names)
    elif frame is not None:
        rows = frame.df
        begin, end = (pd.Timestamp(at, unit="us", tz="UTC") for at in (start, stop))
        rows = rows[(rows[EVENT_TIME.name] >= begin) & (rows[EVENT_TIME.name] < end)]
    else:
        raise RequestError("there are no rows to save")
    rows = matching(rows, filters)
    path = Path(f"{stem}.{form}")
    if form == "csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path, index=False)
    return path.name, len(rows)


def copied_code(control: Control | None, start: int, stop: int, filters: Mapping[str, Iterable[str]]) -> str:
    """Return Python code that makes a DataFrame of the view."""
    numbers = _numbers(control, start, stop)
    if numbers is not None and control is not None:
        wanted = {
            name: [None if label == MISSING_LABEL else label for label in labels]
            for name, labels in filters.items()
        }
        where = f", where={wanted!r}" if wanted else ""
        address = control.url.partition("?")[0]
        return (
            f'import logistream as ls\n\nrows = ls.events("{address}", {numbers[0]}, {numbers[1]}{where})\n'
        )
    begin, end = (f"{pd.Timestamp(at, unit='us', tz='UTC').isoformat()}" for at in (start, stop))
    between = f'between("{begin}", "{end}", inclusive="left")'
    lines = ["rows = frame.df", f'rows = rows[rows["{EVENT_TIME.name}"].{between}]']
    lines += [
        f'rows = rows[rows[{name!r}].astype("str").fillna({MISSING_LABEL!r}).isin({list(labels)!r})]'
        for name, labels in filters.items()
    ]
    return "\n".join(lines) + "\n"
