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
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd

    from logistream.evaluation.charts import Chart

__all__ = ["Report"]


@dataclass(frozen=True, slots=True)
class _Measure:
    """What a figure is called and what it means."""

    label: str
    meaning: str
    share: bool = False  # shown in per cent


_MEASURES = {
    "shapes": _Measure(
        "Column shapes",
        "How alike each column is distributed, averaged: 1 less the total variation distance for strings, "
        "1 less the Kolmogorov-Smirnov distance for numbers and dates, as SDMetrics defines them. "
        "Missing is a value like any other. Columns of strings or whole numbers that never repeat a value "
        "are left out.",
    ),
    "pairs": _Measure(
        "Column pairs",
        "How alike each pair of columns is distributed, averaged: correlation similarity for two numbers, "
        "contingency similarity where a string is among them, as SDMetrics defines them.",
    ),
    "c2st": _Measure(
        "Distinguished from unseen rows (AUC)",
        "How well gradient-boosted trees distinguish the rows from real ones that were not fitted: 0.5 is "
        "not at all, 1 is always. The strictest measure of likeness, since it sees columns together. Columns "
        "of strings or whole numbers that never repeat a value are left out.",
    ),
    "c2st_fitted": _Measure(
        "Distinguished from fitted rows (AUC)",
        "The same beside rows that were fitted, as it is usually published. A generator that copies does "
        "well here and less well beside unseen rows.",
    ),
    "target": _Measure(
        "Predicting {target} (AUC)",
        "How well a classifier that has learned from these rows predicts it on held-out real ones. It should "
        "do as well as one that has learned from real rows.",
    ),
    "rules": _Measure(
        "Rows that break a rule",
        "Share of rows that do what real rows never do: values that do not go together, sums that do not "
        "add up. The rules are learned from real rows; a few other real rows break some of them.",
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
        "Share of rows that are nearer to a fitted row than to a held-out one, of equally many. 0.5 means "
        "that fitted rows are no nearer; more means that rows lie close to them.",
    ),
    "locations": _Measure(
        "Exact fitted locations",
        "Share of rows whose latitude and longitude are exactly those of a fitted row.",
        share=True,
    ),
    "strings": _Measure(
        "Strings of one row made again",
        "Of the strings that only one fitted row has, the share that occurs in synthetic rows. Under real: "
        "the same of strings that only one held-out row has, which the model never saw.",
        share=True,
    ),
    "attack": _Measure(
        "Membership inference (AUC)",
        "How well the best of three attacks distinguishes fitted rows from rows that were not fitted, "
        "given ten times as many synthetic rows as were fitted: 0.5 is a guess.",
    ),
    "found": _Measure(
        "Members found at 1 % false alarms",
        "Share of the fitted rows that the best of three attacks finds while it takes 1 % of the others for "
        "fitted: 1 % is a guess.",
        share=True,
    ),
}
_SOURCES = {
    "synthetic": "synthetic",
    "real": "real",
    "resampled": "training rows, resampled",
    "ideal": "ideal",
}
_TILES = {
    "c2st": "Distinguishable (AUC)",
    "shapes": "Column shapes",
    "target": "Predicting {target}",
    "rules": "Rows that break a rule",
    "attack": "Membership inference",
    "balance": "Nearest-record balance",
}
_MOST_TILES = 5
_LEAST_GAP = 0.02  # at the end of the bars, so that small differences look small


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
        The column that was predicted, empty if none was.
    figures : DataFrame of shape (n_measures, 3 or 4)
        A row for each measure, named `shapes`, `pairs`, `c2st`, `c2st_fitted`, `target`, `rules`, `copies`,
        `balance`, `locations`, `strings`, `attack`, `found`; those that do not apply are left out. Columns
        `synthetic`, `real`, with fitted rows also `resampled`, and `ideal`. Shares are from 0 to 1.
    shapes : DataFrame of shape (n_columns, 2 or 3)
        The likeness of each column, from 0 to 1.
    pairs : DataFrame of shape (n_pairs, 4 or 5)
        The likeness of each pair of columns `left` and `right`.
    rules : DataFrame of shape (n_rules, 2 or 3)
        The share of rows that break each rule.
    attacks : DataFrame of shape (n_attacks, 5)
        What attacks found: in which `rows`, how many `times` as many as were fitted, by which `attack`; `auc`
        and the share of fitted rows that were `found` at 1 % false alarms. Empty if there was no attack.
    identifiers : tuple of str
        Columns of strings or whole numbers that never repeat a value: left out of the means.
    chance : float
        Differences of likeness that chance alone brings about, roughly.
    column_charts, pair_charts : tuple of Chart
        Pictures of the columns and pairs that are furthest behind real rows.

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
    attacks: pd.DataFrame
    identifiers: tuple[str, ...]
    chance: float
    column_charts: tuple[Chart, ...]
    pair_charts: tuple[Chart, ...]

    @property
    def title(self) -> str:
        """What was compared with what, in a line."""
        fitted = f"; {self.train:,} rows fitted" if self.train else ""
        return f"{self.name} beside {self.holdout:,} held-out real rows{fitted}"

    def __repr__(self) -> str:
        heads = [_SOURCES[source] for source in self.figures.columns]
        rows = [("", heads), *_cells(self)]
        width = max(len(label) for label, _ in rows)
        lines = [
            f"{label:<{width}}"
            + "".join(f"  {cell:>{max(len(head), 9)}}" for cell, head in zip(cells, heads, strict=True))
            for label, cells in rows
        ]
        return "\n".join([self.title, *(line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        return f"<style>{_TABLE_STYLE}</style>{_table(self)}"

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as one page that needs nothing else; whole or not at all.

        Returns
        -------
        Path
            The file written.
        """
        with replacing(path) as scratch:
            scratch.write_text(_page(self), encoding="utf-8")
        return Path(path)


def _cells(report: Report) -> Iterator[tuple[str, list[str]]]:
    """Give the label and the figures of each measure as strings."""
    for key, row in report.figures.iterrows():
        measure = _MEASURES[str(key)]
        yield (
            measure.label.format(target=report.target),
            [_figure(value, share=measure.share) for value in row],
        )


def _table(report: Report) -> str:
    """Return the figures as a table in HTML."""
    heads = "".join(f"<th>{escape(_SOURCES[source])}</th>" for source in report.figures.columns)
    rows = "".join(
        f'<tr><th title="{escape(_MEASURES[str(key)].meaning)}">{escape(label)}</th>'
        + "".join(
            f'<td class="{source}">{escape(cell)}</td>'
            for source, cell in zip(report.figures.columns, cells, strict=True)
        )
        + "</tr>"
        for key, (label, cells) in zip(report.figures.index, _cells(report), strict=True)
    )
    return (
        f'<table class="logistream-report"><caption>{escape(report.title)}</caption>'
        f"<thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _figure(value: float, *, share: bool = False) -> str:
    """Return a figure as a string, a share in per cent."""
    if np.isnan(value):
        return ""
    if not share:
        return f"{value:.3f}"
    return "<0.01%" if 0 < value < 0.0001 else f"{value:.2%}"


def _page(report: Report) -> str:
    """Return a page in HTML that needs no other file and suits light and dark surroundings."""
    title = f"Fidelity of {report.name}"
    sections = (
        _tiles(report),
        f'<div class="wide">{_table(report)}</div>',
        _gaps(report),
        _charts(
            "Columns furthest behind real rows",
            "Each column as held-out real rows have it, and synthetic rows over it.",
            report.column_charts,
        ),
        _charts(
            "Pairs furthest behind real rows",
            "Two numbers as shares of the cells of a grid, other pairs as the combinations that differ most.",
            report.pair_charts,
        ),
        _attacks(report),
        _rules(report),
        _meanings(report),
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_PAGE_STYLE}{_TABLE_STYLE}</style></head><body><main><h1>{escape(title)}</h1>"
        f"{''.join(sections)}</main></body></html>\n"
    )


def _tiles(report: Report) -> str:
    """Return the figures that one looks for first."""
    cells = {key: row for key, (_, row) in zip(report.figures.index, _cells(report), strict=True)}
    tiles: list[str] = []
    for key, label in _TILES.items():
        if key not in report.figures.index or len(tiles) == _MOST_TILES:
            continue
        row = dict(zip(report.figures.columns, cells[key], strict=True))
        others = [source for source in ("real", "resampled") if row.get(source)]
        beside = " · ".join(f"{_SOURCES[source]} {row[source]}" for source in others)
        tiles.append(
            f"<div><span>{escape(label.format(target=report.target))}</span>"
            f"<b>{row['synthetic']}</b><small>{escape(beside)}</small></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _charts(title: str, explanation: str, charts: Sequence[Chart]) -> str:
    if not charts:
        return ""
    figures = "".join(
        f"<figure><figcaption><b>{escape(chart.title)}</b><small>{escape(chart.note)}</small></figcaption>"
        f"{chart.svg}</figure>"
        for chart in charts
    )
    return (
        f"<h2>{title}</h2><p>{explanation} "
        f'<span class="key"><i class="real"></i> real <i class="synthetic"></i> synthetic</span></p>'
        f'<div class="charts">{figures}</div>'
    )


def _gaps(report: Report) -> str:
    """Return a bar for each column: how far it is behind real rows, the furthest first."""
    counted = report.shapes.drop(list(report.identifiers))
    gaps = (counted["real"] - counted["synthetic"]).sort_values(ascending=False, kind="stable")
    likeness = counted["synthetic"].reindex(gaps.index)
    end = max(_LEAST_GAP, float(gaps.abs().max())) if len(gaps) else 1.0
    band = min(100.0, 100 * report.chance / end)
    rows = []
    for name, gap, alike in zip(gaps.index, gaps, likeness, strict=True):
        kind = f"{'behind' if gap > 0 else 'ahead'}{' chance' if abs(gap) <= report.chance else ''}"
        rows.append(
            f'<li><span title="{escape(str(name))}">{escape(str(name))}</span>'
            f'<span class="gap"><u style="width:{band:.1f}%"></u>'
            f'<i class="{kind}" style="width:{50 * abs(gap) / end:.1f}%"></i></span>'
            f"<span>{_signed(-gap)}</span><span>{alike:.3f}</span></li>"
        )
    behind = int((gaps > report.chance).sum())
    verdict = f"Columns further behind real rows than chance explains: {behind} of {len(gaps)}."
    left_out = ""
    if report.identifiers:
        names = ", ".join(escape(name) for name in report.identifiers)
        left_out = f"<p>Left out, since no value of theirs ever repeats: {names}.</p>"
    return (
        f"<h2>Columns beside real rows</h2><p>{verdict} The bars are the likeness of each column less the "
        "one that real rows reach: to the left it is behind them, to the right it is nearer to held-out "
        f"rows than other real rows are. Differences within the grey band, {report.chance:.3f} to either "
        "side, are chance. The last figure is the likeness itself.</p>"
        f'<ul class="gaps">{"".join(rows)}</ul>{left_out}'
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}") if round(value, 3) else "0.000"


def _attacks(report: Report) -> str:
    if report.attacks.empty:
        return ""
    made = list(dict.fromkeys(zip(report.attacks["rows"], report.attacks["times"], strict=True)))
    heads = [f"{_SOURCES[source]}, {times} x" for source, times in made]
    rows = []
    for attack, found in report.attacks.groupby("attack", sort=False):
        cells = [
            f"{_figure(auc)} · {_figure(share, share=True)}"
            for auc, share in zip(found["auc"], found["found"], strict=True)
        ]
        rows.append((str(attack), cells))
    return (
        "<h2>Attacks</h2><p>Each attack tries to distinguish fitted rows from rows that were not fitted, "
        "given as many synthetic rows as were fitted, or ten times as many. The figures are the AUC, where "
        "0.5 is a guess, and the share of fitted rows found at 1 % false alarms, where 1 % is a guess. "
        "Training rows, resampled, show what a generator that copies gives away.</p>"
        f"{_plain_table(heads, rows)}"
    )


def _rules(report: Report) -> str:
    if report.rules.empty:
        return ""
    rows = [
        (str(rule), [_figure(row[source], share=True) for source in ("synthetic", "real")])
        for rule, row in report.rules.sort_values("synthetic", ascending=False, kind="stable").iterrows()
    ]
    return (
        f"<h2>Rules</h2><p>{len(report.rules)} rules that real rows keep, and the share of rows that break "
        f"each.</p>{_plain_table(('synthetic', 'real'), rows)}"
    )


def _plain_table(heads: Iterable[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return a table of labels with their figures."""
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join(
        f"<tr><th>{escape(label)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for label, cells in rows
    )
    return (
        f'<div class="wide"><table class="logistream-report"><thead><tr><th></th>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _meanings(report: Report) -> str:
    meanings = "".join(
        f"<dt>{escape(label)}</dt><dd>{escape(_MEASURES[str(key)].meaning)}</dd>"
        for key, (label, _) in zip(report.figures.index, _cells(report), strict=True)
    )
    return f"<h2>What the measures mean</h2><dl>{meanings}</dl>"


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
:root{color-scheme:light dark;--accent:light-dark(#0a6e7c,#4cc3d2);--real:light-dark(#c3c9d0,#5d656f);
--line:light-dark(#dde1e6,#33383f);--faint:light-dark(#5c6570,#9aa3ad);--card:light-dark(#f7f8fa,#1d2025);
--worse:light-dark(#b4451f,#ff9567)}
*{box-sizing:border-box}
body{margin:0;font:16px/1.5 system-ui,sans-serif;background:light-dark(#fff,#16181c);
color:light-dark(#1d2126,#dfe3e8)}
main{max-width:76rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.6rem;margin:0 0 1rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2.6rem 0 .4rem}
p{margin:.3rem 0 .9rem;max-width:48rem;color:var(--faint)}
.wide{overflow-x:auto}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(12rem,1fr));gap:.8rem;margin:0 0 1.4rem}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;
display:flex;flex-direction:column}
.tiles b{font-size:1.7rem;font-weight:600;line-height:1.35;color:var(--accent);
font-variant-numeric:tabular-nums}
.tiles span{font-size:.85rem}.tiles small{color:var(--faint);line-height:1.35}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(21rem,100%),1fr));gap:1rem}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem}
figcaption{display:flex;flex-direction:column;margin-bottom:.6rem}
figcaption b{font-weight:600;overflow-wrap:anywhere}figcaption small{color:var(--faint)}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font:11px system-ui,sans-serif;fill:var(--faint)}
svg .figure{fill:currentColor}
svg .real{fill:var(--real)}
svg path.synthetic,svg circle.synthetic{fill:none;stroke:var(--accent);stroke-width:1.6}
svg rect.synthetic{fill:var(--accent)}
svg .axis{fill:none;stroke:var(--line)}
.key{white-space:nowrap;margin-left:.4rem}
.key i{display:inline-block;width:1.1em;height:.6em;border-radius:2px;margin:0 .1em 0 .5em}
.key i.real{background:var(--real)}.key i.synthetic{background:var(--accent)}
ul.gaps{list-style:none;margin:0;padding:0;font-size:.9rem;columns:32rem 2;column-gap:2.5rem}
ul.gaps li{display:grid;grid-template-columns:minmax(6rem,13rem) minmax(5rem,1fr) 3.6rem 3.2rem;gap:.8rem;
align-items:center;padding:.15rem 0;break-inside:avoid;border-bottom:1px solid var(--line)}
ul.gaps li>span:first-child{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
ul.gaps li>span:nth-child(n+3){text-align:right;font-variant-numeric:tabular-nums}
ul.gaps li>span:last-child{color:var(--faint)}
.gap{position:relative;height:1.1rem}
.gap u{position:absolute;top:0;bottom:0;left:50%;transform:translateX(-50%);
background:color-mix(in srgb,currentColor 8%,transparent)}
.gap::after{content:"";position:absolute;left:50%;top:0;bottom:0;width:1px;background:var(--faint)}
.gap i{position:absolute;top:.3rem;bottom:.3rem;border-radius:2px;background:var(--accent)}
.gap i.behind{right:50%;background:var(--worse)}.gap i.ahead{left:50%}.gap i.chance{background:var(--faint)}
dl{display:grid;grid-template-columns:minmax(10rem,17rem) minmax(0,48rem);gap:.5rem 1.5rem;margin:0}
dt{font-weight:600}dd{margin:0;color:var(--faint)}
@media(max-width:40rem){dl{grid-template-columns:1fr;gap:.1rem}dd{margin-bottom:.7rem}
main table.logistream-report th,main table.logistream-report td{padding:.35em .3em!important}
ul.gaps li{grid-template-columns:minmax(5rem,8rem) minmax(3rem,1fr) 3.4rem 3rem;gap:.5rem}}
"""
