"""The report as something to look at: plain text, a table in a notebook, a page of its own."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from logistream.tables.files import replacing

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import pandas as pd

__all__ = ["Report"]


@dataclass(frozen=True, slots=True)
class _Measure:
    label: str
    text: str
    share: bool = False  # shown in per cent


_MEASURES = {
    "shapes": _Measure(
        "Column shapes",
        "How alike each column is distributed, averaged: 1 less the total variation distance for texts, "
        "1 less the Kolmogorov-Smirnov distance for numbers and dates, as SDMetrics defines them. "
        "Missing is a value like any other.",
    ),
    "pairs": _Measure(
        "Column pairs",
        "How alike each pair of columns hangs together, averaged: correlation similarity for two numbers, "
        "contingency similarity where a text is among them, as SDMetrics defines them.",
    ),
    "c2st": _Measure(
        "Told from real (AUC)",
        "How well gradient-boosted trees tell the rows from held-out real ones, on rows they have not seen: "
        "0.5 is not at all, 1 is always. The strictest measure: it sees all columns together.",
    ),
    "target": _Measure(
        "Foretelling {target} (AUC)",
        "How well a classifier that has learned from these rows foretells it on held-out real ones; it "
        "should be as good as one that has learned from real rows.",
    ),
    "rules": _Measure(
        "Rows that break a rule",
        "Share of rows that do what real rows never do: values that do not go together, sums that do not "
        "add up. The rules are learned from real rows; other real rows break some of them, seldom.",
        share=True,
    ),
    "copies": _Measure(
        "Copies of fitted rows",
        "Share of rows that equal a fitted row in every column. Real rows that were not fitted may do so "
        "too: a table of few categories repeats itself.",
        share=True,
    ),
    "balance": _Measure(
        "Nearest-record balance",
        "Share of rows that are nearer to a fitted row than to a held-out one, of equally many: 0.5 says "
        "that the fitted rows are not given away, more that they are leant on.",
    ),
    "locations": _Measure(
        "Exact fitted locations",
        "Share of rows whose latitude and longitude are exactly those of a fitted row.",
        share=True,
    ),
}
_SOURCES = {
    "synthetic": "synthetic",
    "real": "real",
    "drawn again": "fitted rows drawn again",
    "ideal": "ideal",
}


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """How close synthetic rows are to real ones.

    Parameters
    ----------
    name : str
        The model's.
    holdout, train : int
        Number of real rows it was compared with, and of the fitted rows (0 if they were not given).
    target : str
        The column that was foretold, empty if none was.
    figures : DataFrame of shape (n_measures, 3 or 4)
        A row for each measure, named `shapes`, `pairs`, `c2st`, `target`, `rules`, `copies`, `balance`,
        `locations`; those that do not apply are left out. Columns `synthetic`, `real`, with fitted rows also
        `drawn again`, and `ideal`. Shares are from 0 to 1.
    shapes : DataFrame of shape (n_columns, 2 or 3)
        The likeness of each column, from 0 to 1.
    pairs : DataFrame of shape (n_pairs, 4 or 5)
        The likeness of each pair of columns `left` and `right`.
    rules : DataFrame of shape (n_rules, 2 or 3)
        The share of rows that break each rule.

    Examples
    --------
    >>> report = model.report(holdout)  # doctest: +SKIP
    >>> report.figures.loc["c2st", "synthetic"]  # doctest: +SKIP
    0.56
    """

    name: str
    holdout: int
    train: int
    target: str
    figures: pd.DataFrame
    shapes: pd.DataFrame
    pairs: pd.DataFrame
    rules: pd.DataFrame

    @property
    def _title(self) -> str:
        fitted = f"; {self.train:,} rows fitted" if self.train else ""
        return f"{self.name} beside {self.holdout:,} held-out real rows{fitted}"

    def _cells(self) -> Iterator[tuple[str, list[str]]]:
        """Give the label and the figures of each measure as text."""
        for key, row in self.figures.iterrows():
            measure = _MEASURES[str(key)]
            yield (
                measure.label.format(target=self.target),
                [_text(value, share=measure.share) for value in row],
            )

    def __repr__(self) -> str:
        heads = [_SOURCES[source] for source in self.figures.columns]
        rows = [("", heads), *self._cells()]
        width = max(len(label) for label, _ in rows)
        lines = [
            f"{label:<{width}}"
            + "".join(f"  {cell:>{max(len(head), 9)}}" for cell, head in zip(cells, heads, strict=True))
            for label, cells in rows
        ]
        return "\n".join([self._title, *(line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        return f"<style>{_TABLE_STYLE}</style>{self._table()}"

    def _table(self) -> str:
        heads = "".join(f"<th>{escape(_SOURCES[source])}</th>" for source in self.figures.columns)
        rows = "".join(
            f'<tr><th title="{escape(_MEASURES[str(key)].text)}">{escape(label)}</th>'
            + "".join(
                f'<td class="{source.replace(" ", "-")}">{escape(cell)}</td>'
                for source, cell in zip(self.figures.columns, cells, strict=True)
            )
            + "</tr>"
            for key, (label, cells) in zip(self.figures.index, self._cells(), strict=True)
        )
        return (
            f'<table class="logistream-report"><caption>{escape(self._title)}</caption>'
            f"<thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        )

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as one page that needs nothing else; whole or not at all.

        Returns
        -------
        Path
            The file written.
        """
        with replacing(path) as scratch:
            scratch.write_text(self._page(), encoding="utf-8")
        return Path(path)

    def _page(self) -> str:
        title = f"Fidelity of {self.name}"
        meanings = "".join(
            f"<dt>{escape(label)}</dt><dd>{escape(_MEASURES[str(key)].text)}</dd>"
            for key, (label, _) in zip(self.figures.index, self._cells(), strict=True)
        )
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{_PAGE_STYLE}{_TABLE_STYLE}</style></head><body><main><h1>{escape(title)}</h1>"
            f"{self._table()}"
            f"<h2>What the measures mean</h2><dl>{meanings}</dl>"
            f"<h2>Columns</h2><p>How alike each column is distributed; the mark is what real rows reach.</p>"
            f"{self._bars()}{self._worst_pairs()}{self._broken_rules()}</main></body></html>\n"
        )

    def _bars(self) -> str:
        """Return a bar for each column, the least alike first."""
        rows = "".join(
            f"<li><span>{escape(str(name))}</span>"
            f'<span class="bar"><i style="width:{row["synthetic"]:.2%}"></i>'
            f'<b style="left:{row["real"]:.2%}"></b></span><span>{row["synthetic"]:.3f}</span></li>'
            for name, row in self.shapes.sort_values("synthetic", kind="stable").iterrows()
        )
        return f'<ul class="bars">{rows}</ul>'

    def _worst_pairs(self, n: int = 10) -> str:
        behind = (self.pairs["real"] - self.pairs["synthetic"]).sort_values(ascending=False, kind="stable")
        worst = self.pairs.loc[behind[behind > 0].index[:n]]
        if worst.empty:
            return ""
        rows = [
            (f"{row['left']} and {row['right']}", _text(row["synthetic"]), _text(row["real"]))
            for _, row in worst.iterrows()
        ]
        return f"<h2>Pairs furthest behind real rows</h2>{_two_columns(rows)}"

    def _broken_rules(self) -> str:
        if self.rules.empty:
            return ""
        rows = [
            (str(name), _text(row["synthetic"], share=True), _text(row["real"], share=True))
            for name, row in self.rules.sort_values("synthetic", ascending=False, kind="stable").iterrows()
        ]
        return (
            f"<h2>Rules</h2><p>{len(self.rules)} rules that real rows keep, and the share of rows that break "
            f"each.</p>{_two_columns(rows)}"
        )


def _two_columns(rows: list[tuple[str, str, str]]) -> str:
    """Return a table of labels and of figures for synthetic and real rows."""
    body = "".join(
        f"<tr><th>{escape(label)}</th><td>{escape(synthetic)}</td><td>{escape(real)}</td></tr>"
        for label, synthetic, real in rows
    )
    return (
        '<table class="logistream-report"><thead><tr><th></th><th>synthetic</th><th>real</th></tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _text(value: float, *, share: bool = False) -> str:
    if np.isnan(value):
        return ""
    if not share:
        return f"{value:.3f}"
    return "<0.01%" if 0 < value < 0.0001 else f"{value:.2%}"


# Colours are the surroundings' own, mixed: so the table suits any theme, light or dark.
_TABLE_STYLE = """
table.logistream-report{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9em;
color:var(--jp-ui-font-color1,inherit);background:none;margin:.5em 0;
--line:color-mix(in srgb,currentColor 18%,transparent);
--faint:color-mix(in srgb,currentColor 62%,transparent)}
table.logistream-report caption{text-align:left;padding:.3em .6em;color:var(--faint);caption-side:top}
table.logistream-report th,table.logistream-report td{padding:.35em .8em!important;border:0;
border-bottom:1px solid var(--line);background:none!important;font-weight:400;text-align:right!important}
table.logistream-report thead th{color:var(--faint)}
table.logistream-report tbody th{text-align:left!important}
table.logistream-report td.synthetic{font-weight:650}
table.logistream-report td.ideal{color:var(--faint)}
table.logistream-report tbody tr:hover{background:color-mix(in srgb,currentColor 6%,transparent)}
"""
_PAGE_STYLE = """
:root{color-scheme:light dark;--accent:light-dark(#0a6e7c,#4cc3d2)}
body{margin:0;font:16px/1.5 system-ui,sans-serif;background:light-dark(#fff,#16181c);
color:light-dark(#1d2126,#dfe3e8)}
main{max-width:60rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.5rem;margin:0 0 1rem}h2{font-size:1.1rem;margin:2.2rem 0 .5rem}p{margin:.3rem 0 .8rem}
dl{display:grid;grid-template-columns:minmax(10rem,max-content) 1fr;gap:.5rem 1.5rem;margin:0}
dt{font-weight:600}dd{margin:0}
ul.bars{list-style:none;margin:0;padding:0;font-size:.9em}
ul.bars li{display:grid;grid-template-columns:minmax(8rem,16rem) 1fr 3.5rem;gap:.8rem;
align-items:center;padding:.15rem 0}
ul.bars li>span:last-child{text-align:right;font-variant-numeric:tabular-nums}
.bar{position:relative;height:.75rem;border-radius:2px;
background:color-mix(in srgb,currentColor 10%,transparent)}
.bar i{position:absolute;inset:0 auto 0 0;border-radius:2px;background:var(--accent)}
.bar b{position:absolute;top:-3px;bottom:-3px;width:2px;background:currentColor}
@media(max-width:40rem){dl{grid-template-columns:1fr;gap:.1rem}dd{margin-bottom:.7rem}main{overflow-x:auto}}
"""
