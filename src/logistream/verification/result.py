"""What was found in a sink, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["EXAMPLES", "KINDS", "Finding", "Verification"]


EXAMPLES = 5
"""Event numbers that a finding names."""

KINDS: Mapping[str, str] = {
    "lost": "events that are not in the sink",
    "doubled": "rows of events that were there before",
    "reordered": "rows that come after a row of a later event",
    "altered": "rows with other values than the event",
    "late": "rows that arrived later than the bound",
    "foreign": "rows of events that the stream does not have",
    "unreadable": "lines that are not JSON objects",
}
"""What can be found, and what is counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How often something was found, and who did it.

    Attributes
    ----------
    wire : int
        What faults of the stream did.
    pipeline : int
        What happened between the stream and the sink.
    examples : tuple of int
        The first event numbers of what the pipeline did, at most `EXAMPLES`.
    """

    wire: int = 0
    pipeline: int = 0
    examples: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """How often in all."""
        return self.wire + self.pipeline


@dataclass(frozen=True, eq=False)
class Verification:
    """What is wrong with a sink, and who did it; a table in a notebook.

    Attributes
    ----------
    stream_id : str
        Identity of the stream that the sink was compared with.
    start, stop : int
        The range of event numbers, `stop` excluded.
    rows : int
        Rows of the sink that were looked at.
    columns : tuple of str
        Columns whose values were compared.
    lost, doubled, reordered, altered, late, foreign, unreadable : Finding
        `KINDS` says what each counts. `late` is None without a column of arrivals, `reordered` is None if the
        order was not to be checked.
    altered_columns : mapping of str to Finding
        Of each column that was altered somewhere, the rows.
    windows : DataFrame or None
        The right sums, if they were asked for.
    """

    stream_id: str
    start: int
    stop: int
    rows: int
    columns: tuple[str, ...]
    lost: Finding
    doubled: Finding
    reordered: Finding | None
    altered: Finding
    late: Finding | None
    foreign: Finding
    unreadable: Finding
    altered_columns: Mapping[str, Finding] = field(default_factory=dict)
    windows: pd.DataFrame | None = None

    @property
    def findings(self) -> dict[str, Finding]:
        """Whatever was looked for, by its name."""
        found = {kind: getattr(self, kind) for kind in KINDS}
        return {kind: finding for kind, finding in found.items() if finding is not None}

    @property
    def ok(self) -> bool:
        """Whether the pipeline did nothing wrong, whatever the wire did."""
        return not any(finding.pipeline for finding in self.findings.values())

    def to_frame(self) -> pd.DataFrame:
        """Return the findings as a DataFrame, one row each, and one for each altered column.

        Returns
        -------
        DataFrame of shape (n_findings + n_altered_columns, 5)
            Indexed by `finding`, with the columns `column` (of what was altered, else missing), `total`,
            `wire`, `pipeline` and `examples` (a tuple of event numbers).
        """
        rows = list(self._rows())
        return pd.DataFrame(
            {
                "column": [column for _, column, _ in rows],
                "total": [finding.total for *_, finding in rows],
                "wire": [finding.wire for *_, finding in rows],
                "pipeline": [finding.pipeline for *_, finding in rows],
                "examples": [finding.examples for *_, finding in rows],
            },
            index=pd.Index([kind for kind, *_ in rows], name="finding"),
        )

    def _rows(self) -> Iterator[tuple[str, str | None, Finding]]:
        for kind, finding in self.findings.items():
            yield kind, None, finding
            if kind == "altered":
                for column, altered in self.altered_columns.items():
                    yield kind, column, altered

    @property
    def _heading(self) -> str:
        return (
            f"{self.rows:,} rows, compared in {len(self.columns)} columns with events {self.start:,} to "
            f"{self.stop - 1:,} of stream {self.stream_id}"
        )

    @property
    def _verdict(self) -> str:
        done = [f"{finding.pipeline:,} {kind}" for kind, finding in self.findings.items() if finding.pipeline]
        if done:
            return f"The pipeline is at fault: {', '.join(done)}."
        wire = any(finding.wire for finding in self.findings.values())
        return f"The pipeline did nothing wrong{': the wire did all of this' if wire else ''}."

    def __str__(self) -> str:
        lines = [self._heading, "", f"{'':<32}{'found':>12}{'wire':>12}{'pipeline':>12}  event numbers"]
        for kind, column, finding in self._rows():
            label = kind if column is None else f"  {column}"
            numbers = f"  {_examples(finding)}" if finding.examples else ""
            lines.append(
                f"{label:<32}{finding.total:>12,}{finding.wire:>12,}{finding.pipeline:>12,}{numbers}"
            )
        return "\n".join([*lines, "", self._verdict])

    def __repr__(self) -> str:
        return f"<Verification of {self.rows:,} rows: {self._verdict}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td title='{escape(KINDS[kind])}'>"
            f"{kind if column is None else '&emsp;' + escape(column)}</td>"
            f"<td>{finding.total:,}</td><td>{finding.wire:,}</td><td>{finding.pipeline:,}</td>"
            f"<td>{_examples(finding)}</td></tr>"
            for kind, column, finding in self._rows()
        )
        windows = "" if self.windows is None else self.windows.head(10).to_html(index=False)
        return (
            f"<p>{escape(self._heading)}. <b>{escape(self._verdict)}</b></p><table><thead><tr><th></th>"
            f"<th>found</th><th>wire</th><th>pipeline</th><th>event numbers</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>{windows}"
        )


def _examples(finding: Finding) -> str:
    more = ", ..." if finding.pipeline > len(finding.examples) and finding.examples else ""
    return ", ".join(f"{number:,}" for number in finding.examples) + more
