"""Which columns of any table suit the dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from logistream.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

    from logistream.schema import Schema

__all__ = ["check_columns", "same_columns", "suggest_columns"]


_SHARE, _BY = "Late_delivery_risk", "Market"  # of DataCo orders
_FEWEST, _MOST = 2, 12  # groups that are well told apart


def same_columns(one: Schema, other: Schema) -> bool:
    """Whether two schemas have the same columns; what a server publishes tells less of them than a model."""
    return [(c.name, c.kind) for c in one] == [(c.name, c.kind) for c in other]


def check_columns(schema: Schema, share: str | None, by: str | None) -> None:
    """Raise `RequestError` for columns that cannot be drawn so."""
    if share is not None and schema[share].kind not in ("integer", "boolean"):
        raise RequestError(
            f"share needs a column of 0/1 or true/false, and {share!r} is a {schema[share].kind}"
        )
    if by is not None and schema[by].kind != "category":
        raise RequestError(f"by needs a category column, and {by!r} is a {schema[by].kind}")


def suggest_columns(schema: Schema, example: pd.DataFrame) -> tuple[str | None, str | None]:
    """Return a column of yes and no, and one to group by; None where there is none.

    Parameters
    ----------
    schema : Schema
        The columns.
    example : DataFrame of shape (n_rows, n_columns)
        Some rows of it, or none at all.
    """
    different = example.nunique().to_dict() if len(example) else {}
    flags = [c.name for c in schema if c.kind == "boolean" and different.get(c.name, _FEWEST) > 1]
    flags += [c.name for c in schema if c.kind == "integer" and set(example.get(c.name, ())) == {0, 1}]
    texts = [c.name for c in schema if c.kind == "category"]
    groups = [name for name in texts if _FEWEST <= different.get(name, _FEWEST) <= _MOST]
    groups += sorted((name for name in texts if different.get(name, 0) > _MOST), key=different.__getitem__)
    return (
        _SHARE if _SHARE in schema else next(iter(flags), None),
        _BY if _BY in schema else next(iter(groups), None),
    )
