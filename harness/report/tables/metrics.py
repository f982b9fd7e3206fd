"""All estimates of all metrics, an arm a column."""

from __future__ import annotations

from harness.records import Estimate
from harness.report.content import (
    Cell,
    Column,
    Kind,
    Label,
    Missing,
    Table,
    from_estimate,
    from_seeds,
)
from harness.verdicts import Results, Subjects

KINDS: dict[str, Kind] = {
    "perplexity": "perplexity",
    "nats/token": "nats",
    "fraction": "fraction",
}
"""How numbers of a unit are shown; others as plain numbers."""


def metrics_tables(results: Results) -> list[Table]:
    """Return a table for each model."""
    return [_table(results, model) for model in results.suite.models]


def _table(results: Results, model: str) -> Table:
    columns = [s for s in results.treatments if s.model == model]
    names = [name for s in columns for name in _names(results, s)]
    rows = [
        [Label(".".join(name)), *[_cell(results, s, *name) for s in columns]]
        for name in dict.fromkeys(names)
    ]
    spread = (
        "± is the sample standard deviation (ddof 1) over seeds."
        if len(results.suite.seeds) > 1
        else "[a, b] is the record's 95 % interval, within the run."
    )
    return Table(
        key=f"metrics.{model}",
        title=f"Metrics of {model}",
        columns=[Column("metric"), *[Column(s.arm) for s in columns]],
        rows=rows,
        caption=spread,
    )


def _names(results: Results, subjects: Subjects) -> list[tuple[str, str]]:
    records = results.variants(subjects).values()
    return [(m, e) for r in records for m, found in r.results.items() for e in found]


def _cell(results: Results, subjects: Subjects, metric: str, estimate: str) -> Cell:
    records = results.variants(subjects).values()
    found = [record.results.get(metric, {}).get(estimate) for record in records]
    known = [one for one in found if one is not None]
    if not known:
        return Missing(results.absence(subjects))
    planned = len(results.suite.seeds)
    if planned == 1:
        return from_estimate(known[0], _kind(known[0]))
    values = [one.value for one in known if one.value is not None]
    if not values:
        return Missing(known[0].reason or "null")
    return from_seeds(values, _kind(known[0]), planned)


def _kind(estimate: Estimate) -> Kind:
    return KINDS.get(estimate.unit, "number")
