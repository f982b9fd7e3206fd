"""All estimates of all metrics, an arm a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from harness.records import Estimate
from harness.report.content import (
    Cell,
    Column,
    Kind,
    Label,
    Missing,
    Table,
    filled,
    from_comparison,
    from_estimate,
    from_seeds,
    of_planned,
)
from harness.report.tables.rows import names_of
from harness.verdicts import Arm, Results, of_metric

KINDS: dict[str, Kind] = {
    "perplexity": "perplexity",
    "nats/token": "nats",
    "fraction": "fraction",
}
"""How numbers of a unit are shown; others as plain numbers."""
Name = tuple[str, str]
"""A metric's label and the name of one of its estimates."""


def metrics_tables(results: Results) -> list[Table]:
    """Return a table for each model."""
    return [_table(results, model) for model in results.suite.models]


def _table(results: Results, model: str) -> Table:
    arms = [arm for arm in results.treatments if arm.model == model]
    columns: list[Column[Name]] = [
        Column("metric", _named),
        *(Column(x.label, partial(_cell, x), names=names_of(x)) for x in arms),
    ]
    return filled(
        f"metrics.{model}",
        f"Metrics of {model}",
        columns,
        dict.fromkeys(name for arm in arms for name in _names(arm)),
        summary=(
            "Mean and sample standard deviation over seeds."
            if len(results.suite.seeds) > 1
            else "Means, with 95 % intervals over documents or task examples."
        ),
        caption=(
            "± is the sample standard deviation (ddof 1) over seeds."
            if len(results.suite.seeds) > 1
            else "[a, b] is the 95 % interval over documents or task examples."
        ),
    )


def gaps_tables(results: Results) -> Iterator[Table]:
    """Yield a table for each model with an arm that is held against another."""
    for model in results.suite.models:
        arms = [
            arm
            for arm in results.treatments
            if arm.model == model and results.suite.reference_of(arm.label) is not None
        ]
        if arms:
            yield _gaps(results, model, arms)


def _gaps(results: Results, model: str, arms: Sequence[Arm]) -> Table:
    columns: list[Column[Name]] = [
        Column("metric", _named),
        *(
            Column(
                x.label,
                partial(_gap, x, results.arm(model, _reference(x))),
                names=(*names_of(x), ("against", _reference(x))),
            )
            for x in arms
        ),
    ]
    against = ", ".join(f"{x.label} against {_reference(x)}" for x in arms)
    return filled(
        f"gaps.{model}",
        f"Metrics of {model} against reference arms",
        columns,
        dict.fromkeys(name for arm in arms for name in _names(arm)),
        summary=f"Differences, with 95 % intervals: {against}.",
        caption=(
            f"Arm minus its reference arm, in the metric's own unit: {against}. [a, b] "
            "is the 95 % interval: paired over documents or task examples, where the "
            "metric's rows allow it, and from three training seeds on over seeds."
        ),
    )


def _reference(arm: Arm) -> str:
    return str(arm.results.suite.reference_of(arm.label))


def _gap(arm: Arm, reference: Arm, name: Name) -> Cell:
    if not arm.variants or not reference.variants:
        return Missing((reference if arm.variants else arm).absence())
    found = of_metric(arm, reference, name)
    records = [x.results.get(name[0], {}).get(name[1]) for x in arm.variants.values()]
    kinds = [KINDS.get(x.unit, "number") for x in records if x is not None]
    return from_comparison(found, kinds[0] if kinds else "number")


def _named(name: Name) -> Label:
    metric, estimate = name
    return Label(
        f"{metric}.{estimate}", names=(("metric", metric), ("estimate", estimate))
    )


def _names(arm: Arm) -> list[Name]:
    records = arm.variants.values()
    return [(m, e) for r in records for m, found in r.results.items() for e in found]


def _cell(arm: Arm, name: Name) -> Cell:
    metric, estimate = name
    records = arm.variants.values()
    found = [record.results.get(metric, {}).get(estimate) for record in records]
    known = [one for one in found if one is not None]
    if not known:
        return Missing(arm.absence())
    if len(arm.results.suite.seeds) == 1:
        return from_estimate(known[0], _kind(known[0]))
    values = [one.value for one in known if one.value is not None]
    if not values:
        return Missing(known[0].reason or "null")
    return of_planned(from_seeds(values, _kind(known[0])), arm.seeds)


def _kind(estimate: Estimate) -> Kind:
    return KINDS.get(estimate.unit, "number")
