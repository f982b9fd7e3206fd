"""Each arm against the baseline arm, in absolute nats on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from harness.records import SampleRow
from harness.report.content import (
    Cell,
    Column,
    Label,
    Missing,
    Number,
    Table,
    about,
    filled,
    from_estimate,
)
from harness.report.tables.rows import BOOTSTRAP, arm_column
from harness.verdicts import Arm, Pairing, Results, mean_clean_loss, paired


class _Row(NamedTuple):
    arm: Arm
    attack: str
    pairing: Pairing | str
    """The arm first; or why it cannot be paired with the baseline arm."""


def arms_table(results: Results) -> Table:
    """Return a row for each model, arm other than the baseline, and attack."""
    rows = [
        _Row(arm, x, paired({"arm": (arm, x), "baseline": (arm.baseline, x)}))
        for arm in results.treatments
        if not arm.is_baseline
        for x in results.attacks
        if x in arm.planned
    ]
    columns: list[Column[_Row]] = [
        arm_column(results, lambda row: row.arm),
        Column("attack", lambda row: Label(row.attack)),
        *about(lambda row: row.pairing, _PAIRED),
    ]
    return filled(
        "arms",
        "Arms against the baseline arm",
        columns,
        rows,
        caption=(
            "Nats/token on the attacked examples. A difference below 0: the arm is "
            "harder to attack than the baseline. Differences are paired by example; "
            f"{BOOTSTRAP}. Success at a relative threshold falls when the clean loss "
            "rises, without any gain in robustness: compare the clean losses first."
        ),
        keys=2,
    )


def _clean(rows: Sequence[SampleRow]) -> Cell:
    loss = mean_clean_loss(rows)
    return Missing("errors only") if loss is None else Number(loss, "nats")


_PAIRED: list[Column[Pairing]] = [
    Column("baseline", lambda x: _clean(x.second), "clean loss"),
    Column("arm", lambda x: _clean(x.first), "clean loss"),
    Column("baseline", lambda x: Number(x.mean_deltas()[1], "nats"), "dL"),
    Column("arm", lambda x: Number(x.mean_deltas()[0], "nats"), "dL"),
    Column(
        "difference", lambda x: from_estimate(x.difference(), "nats", signed=True), "dL"
    ),
    Column("pairs", lambda x: Number(len(x.first), "count")),
]
