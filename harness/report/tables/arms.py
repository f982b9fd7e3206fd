"""Each arm against its reference arm, in absolute nats on the same examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from statistics import fmean
from typing import NamedTuple

from harness.records import SampleRow
from harness.report.content import (
    Cell,
    Column,
    Missing,
    Number,
    Table,
    about,
    filled,
    from_comparison,
    from_estimate,
)
from harness.report.tables.rows import (
    INTERVAL,
    against_column,
    arm_column,
    attack_column,
    conditions,
)
from harness.verdicts import (
    Arm,
    Findings,
    Losses,
    Pairing,
    Results,
    of_attack,
    paired,
)


class _Row(NamedTuple):
    arm: Arm
    attack: str
    pairing: Pairing | str
    """The arm first; or why it cannot be paired with its reference arm."""


def arms_table(results: Results, findings: Findings) -> Table:
    """Return a row for each model, arm that is held against another, and attack."""
    sides = [
        (arm, results.arm(arm.model, reference))
        for arm in results.treatments
        if (reference := results.suite.reference_of(arm.label)) is not None
    ]
    rows = [
        _Row(arm, x, paired({"arm": (arm, x), "reference": (reference, x)}))
        for arm, reference in sides
        for x in results.attacks
        if x in arm.planned
    ]
    columns: list[Column[_Row]] = [
        arm_column(results, lambda row: row.arm),
        against_column(lambda row: results.suite.reference_of(row.arm.label)),
        attack_column(lambda row: row.attack),
        *about(lambda row: row.pairing, _PAIRED),
        Column("reduced by", partial(_reduction, Losses(findings)), "success"),
    ]
    return filled(
        "arms",
        "Arms against their reference arms",
        columns,
        rows,
        summary=(
            "Each arm beside its reference arm: mean losses before and under attack in "
            "nats/token, and the paired difference of dL with its 95 % interval."
        ),
        caption=(
            "Nats/token on the attacked examples, mean losses before and under attack. "
            "A difference below 0: this attack does less to the arm than to its "
            "reference arm; verdicts are about the worst of all attacks. Differences "
            f"are paired by example; {INTERVAL}. Success is reduced by 1 - rate on the "
            "arm / rate on the reference arm, over seeds and documents. Success at a "
            "relative threshold falls when the clean loss rises, without any gain in "
            f"robustness: compare the losses first. {conditions(results)}"
        ),
        keys=3,
    )


def _reduction(losses: Losses, row: _Row) -> Cell:
    if isinstance(row.pairing, str):
        return Missing(row.pairing)
    results = row.arm.results
    other = results.arm(row.arm.model, str(results.suite.reference_of(row.arm.label)))
    found = of_attack(losses, row.arm, other, row.attack, threshold=results.threshold)
    if not isinstance(found, str) and found.interval() is None:
        return Missing("no bounded interval")
    return from_comparison(found, "fraction")


def _mean(losses: Iterable[float | None]) -> Cell:
    known = [loss for loss in losses if loss is not None]
    return Number(fmean(known), "nats") if known else Missing("errors only")


def _clean(rows: Sequence[SampleRow]) -> Cell:
    return _mean(row.clean_loss for row in rows)


def _attacked(rows: Sequence[SampleRow]) -> Cell:
    return _mean(row.adversarial_loss for row in rows)


_PAIRED: list[Column[Pairing]] = [
    Column("reference", lambda x: _clean(x.second), "clean loss"),
    Column("arm", lambda x: _clean(x.first), "clean loss"),
    Column("reference", lambda x: _attacked(x.second), "attacked loss"),
    Column("arm", lambda x: _attacked(x.first), "attacked loss"),
    Column("reference", lambda x: Number(x.mean_deltas()[1], "nats"), "dL"),
    Column("arm", lambda x: Number(x.mean_deltas()[0], "nats"), "dL"),
    Column(
        "difference", lambda x: from_estimate(x.difference(), "nats", signed=True), "dL"
    ),
    Column("pairs", lambda x: Number(len(x.first), "count")),
]
