"""`Model`: a learned network with its methods: rows, events, a report, a description."""

from __future__ import annotations

from html import escape
from numbers import Integral
from typing import TYPE_CHECKING, Literal, overload

from logistream.dataco import booked_columns
from logistream.errors import RequestError
from logistream.model.archive import damaged
from logistream.model.network import Network
from logistream.model.validation import check

if TYPE_CHECKING:
    import os

    import pandas as pd
    import pyarrow as pa

    from logistream.evaluation.report import Report
    from logistream.model.conditions import Where
    from logistream.model.description import Description
    from logistream.model.scenario import Scenarios

__all__ = ["Model", "load_model"]


class Model(Network):
    """A fitted table: makes synthetic rows and events of it, and describes its structure.

    `logistream.fit` makes one, `load_model` reads one from a file. Its fields are those of `Network`.
    """

    def sample(
        self,
        n: int,
        seed: int = 0,
        where: Where | None = None,
        *,
        scenario: Scenarios | None = None,
    ) -> pd.DataFrame:
        """Return rows 0 to `n` of the synthetic table with this seed.

        Parameters
        ----------
        n : int
            Number of rows, at least 0.
        seed : int
            Which table; from 0 to 2**64 - 1.
        where : mapping, string, tuple, or iterable of strings and tuples, optional
            Only rows that fulfil all of these conditions, with their joint distribution:
            `{"Market": "Europe", "Order Item Quantity": [1, 2]}` (a value, or a list of those allowed; None
            is a missing one), `{"Sales": slice(100, 500)}` (a range with both ends), `("Sales", ">=", 100)`
            with one of `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `between`, or `"Sales>=100"`.
            Where the model's structure allows it, such rows are drawn directly. Otherwise rows are drawn
            until enough fulfil the conditions; `frame.attrs["acceptance_rate"]` is the share that did.
        scenario : Scenario, mapping, or iterable of these, optional
            What if: rows as they are under a scenario, or under several at once; see `Scenario`. Not
            together with `where`.

        Returns
        -------
        DataFrame of shape (n, n_columns)
            Columns and dtypes of the frame that was fitted.

        Raises
        ------
        RequestError
            If `n` or `seed` is not in its range, or a condition cannot be read, names a column or value that
            the model does not have, or is fulfilled by fewer than 1 in 100,000 of the rows drawn; or if a
            scenario cannot be exact on this model.

        Warns
        -----
        RequestWarning
            If fewer than 1 in 100 of the rows drawn fulfil the conditions, since each then takes long.
        """
        from logistream.model.dtypes import to_frame  # only this class imports later modules
        from logistream.model.rejection import ConditionedSampler
        from logistream.model.sampling import Sampler

        n = _whole(n)
        if scenario is not None:
            if where:
                raise RequestError("where and scenario cannot be given together: filter the rows instead")
            return to_frame(self, self.events(0, n, seed, scenario=scenario))
        if not where:
            return to_frame(self, Sampler(self, seed).batch(0, n))
        sampler = ConditionedSampler(self, where, seed)
        frame = to_frame(self, sampler.batch(0, n))
        frame.attrs["acceptance_rate"] = sampler.acceptance_rate
        return frame

    @overload
    def events(
        self,
        start: int,
        stop: int,
        seed: int = 0,
        *,
        scenario: Scenarios | None = None,
        twin: Literal[False] = False,
    ) -> pa.RecordBatch: ...

    @overload
    def events(
        self,
        start: int,
        stop: int,
        seed: int = 0,
        *,
        scenario: Scenarios | None = None,
        twin: Literal[True],
    ) -> tuple[pa.RecordBatch, pa.RecordBatch]: ...

    def events(
        self,
        start: int,
        stop: int,
        seed: int = 0,
        *,
        scenario: Scenarios | None = None,
        twin: bool = False,
    ) -> pa.RecordBatch | tuple[pa.RecordBatch, pa.RecordBatch]:
        """Return events `start` to `stop` (exclusive) of the stream with this seed, without their times.

        Dates are those of the fitted history. Any range has the same values however it is cut.

        Parameters
        ----------
        start, stop : int
            Event numbers, 0 <= start <= stop <= 2**53.
        seed : int
            Which stream; from 0 to 2**64 - 1.
        scenario : Scenario, mapping, or iterable of these, optional
            What if: events as they are under a scenario, or under several at once. It takes effect at
            event 0, from which its profile counts.
        twin : bool
            Whether to return beside them the same events as they would be without the scenario. Where the
            scenario changes nothing, an event and its twin are equal.

        Returns
        -------
        pyarrow.RecordBatch, or a tuple of two
            The columns of `schema`, strings dictionary-encoded.

        Raises
        ------
        RequestError
            If the range or the seed is not allowed, or a scenario cannot be exact on this model.
        """
        from logistream.model.mixture import mixture_of, strengths
        from logistream.model.sampling import Sampler, require_range
        from logistream.model.scenario import read_scenarios

        if scenario is None:
            batch = Sampler(self, seed).batch(start, stop)
            return (batch, batch) if twin else batch
        require_range(start, stop)
        mixture = mixture_of(self, read_scenarios(scenario), seed)
        make = mixture.batch_and_twins if twin else mixture.batch
        return make(start, stop, strengths(mixture.scenarios, start, stop))

    def truth(
        self,
        start: int,
        stop: int,
        seed: int = 0,
        *,
        scenario: Scenarios | None = None,
        target: str | None = None,
    ) -> pd.DataFrame:
        """Return what is true of events `start` to `stop` (exclusive): scenario, twin, probability.

        Parameters
        ----------
        start, stop, seed, scenario
            As in `events`.
        target : str, optional
            The column of yes and no whose probability is computed: by default Late_delivery_risk of orders,
            and the only column of truth values of another table.

        Returns
        -------
        DataFrame of shape (stop - start, 6), or (stop - start, 5) without a column of yes and no
            - `event_number`, int64;
            - `strength`, float64: the probability that the event is drawn from a scenario;
            - `scenario`, str: the names of those that it was drawn from, missing if from none;
            - `in_force`, object: a dict of the scenarios in force by name, each with its strength;
            - `twin`, object: a dict of the values that the event has without the scenario, in the columns
              that differ;
            - `late_probability`, float64: the exact probability of a yes given what is known at booking:
              `booked_columns` (other than the target, before `scale`) and the strength of the scenarios. No
              prediction from these columns can have a greater expected AUC. All else is summed out.

        Raises
        ------
        RequestError
            If the range, the seed, the scenario or the target is not allowed, or if the probability cannot be
            exact.
        """
        from logistream.model.mixture import mixture_of, strengths
        from logistream.model.sampling import require_range
        from logistream.model.scenario import read_scenarios
        from logistream.model.truth import truth

        require_range(start, stop)
        mixture = mixture_of(self, read_scenarios(scenario), seed)
        return truth(mixture, start, stop, strengths(mixture.scenarios, start, stop), target=target)

    def report(
        self,
        holdout: pd.DataFrame,
        train: pd.DataFrame | None = None,
        *,
        target: str | None = None,
        attack: bool = False,
        seed: int = 0,
        progress: bool = False,
    ) -> Report:
        """Measure how close synthetic rows are to real ones that were kept out of the fit.

        The parameters and errors are those of `logistream.evaluation.evaluate.report`.

        Returns
        -------
        Report
            Prints as a table; `figures` is a DataFrame.
        """
        from logistream.evaluation.evaluate import report

        return report(self, holdout, train=train, target=target, attack=attack, seed=seed, progress=progress)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(c.name)}</td><td>{c.kind}</td><td>{escape(c.unit)}</td>"
            f"<td style='text-align: left'>{escape(c.meaning)}</td></tr>"
            for c in self.schema
        )
        return (
            f"<details><summary><b>{escape(self.name or 'Model')}</b>: {len(self.schema)} columns learned "
            f"from {self.rows:,} rows</summary><table><thead><tr><th>column</th><th>kind</th><th>unit</th>"
            f"<th style='text-align: left'>meaning</th></tr></thead><tbody>{rows}</tbody></table></details>"
        )

    @property
    def booked_columns(self) -> list[str]:
        """The columns that are known when an order is booked: those from which lateness may be predicted.

        The delivery date is not one of them. In a live stream it gives the label away: less `event_time` it
        is the real shipping days, and an order is late if these are more than the days promised. Of a table
        that is not one of DataCo orders, all columns.

        Examples
        --------
        >>> model = load_model()
        >>> rows = model.sample(100)[[*model.booked_columns, "Late_delivery_risk"]]
        >>> "shipping date (DateOrders)" in rows
        False
        """
        return booked_columns(self.schema)

    def describe(self) -> Description:
        """Return the structure that was found: words when printed, with a picture in a notebook.

        Returns
        -------
        Description
            `str` gives the words; `.svg` the picture; `.findings` the same for a program.
        """
        from logistream.model.description import Description

        return Description(self)


def load_model(path: str | os.PathLike[str] | None = None) -> Model:
    """Read a model file; runs no code from it.

    Parameters
    ----------
    path : path or None
        A file that `Model.save` wrote; None for the shipped model of DataCo orders.

    Raises
    ------
    ModelError
        If the file is missing, damaged, inconsistent, of another program or of another version.
    """
    model = Model.read(path)
    try:
        check(model)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RequestError) as exc:
        raise damaged("the shipped model" if path is None else path, exc) from exc
    return model


def _whole(n: object) -> int:
    """Return a number of rows; refuse what is none."""
    if isinstance(n, bool) or not isinstance(n, Integral) or not 0 <= int(n) <= 2**53:
        raise RequestError(f"the number of rows must be a whole number of at least 0, not {n!r}")
    return int(n)
