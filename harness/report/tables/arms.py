"""Each arm against the baseline arm, in absolute nats on the same examples."""

from __future__ import annotations

from harness.records import SampleRow
from harness.report.content import (
    Cell,
    Column,
    Label,
    Missing,
    Number,
    Table,
    from_estimate,
)
from harness.report.tables.rows import BOOTSTRAP, subjects_table
from harness.verdicts import Results, Subjects, mean_clean_loss, pair, why_unpaired


def arms_table(results: Results) -> Table:
    """Return a row for each model, arm other than the baseline, and attack."""
    treated = [s for s in results.treatments if s != s.baseline]
    return subjects_table(
        results,
        [
            Column("attack"),
            Column("baseline", "clean loss"),
            Column("arm", "clean loss"),
            Column("baseline", "dL"),
            Column("arm", "dL"),
            Column("difference", "dL"),
            Column("pairs"),
        ],
        [
            (s, _cells(results, s, attack))
            for s in treated
            for attack in results.attacks
            if results.planned(s, attack)
        ],
        key="arms",
        title="Arms against the baseline arm",
        caption=(
            "Nats/token on the attacked examples. Below 0, the attack does less harm "
            "to the arm than to the baseline. Differences are paired by example; "
            f"{BOOTSTRAP}. Success at a relative threshold falls when the clean loss "
            "rises, with no robustness gained: compare the clean losses first."
        ),
        keys=2,
    )


def _cells(results: Results, subjects: Subjects, attack: str) -> list[Cell]:
    own = results.cells(subjects, attack)
    base = results.cells(subjects.baseline, attack)
    pairing = pair(own, base)
    if pairing is None:
        sides = {"arm": (subjects, attack), "baseline": (subjects.baseline, attack)}
        absence = why_unpaired(results, sides)
        gap = Missing(absence, brief=True)
        return [Label(attack), gap, gap, gap, gap, Missing(absence), gap]
    delta_own, delta_base = pairing.mean_deltas()
    return [
        Label(attack),
        _clean(pairing.second),
        _clean(pairing.first),
        Number(delta_base, "nats"),
        Number(delta_own, "nats"),
        from_estimate(pairing.difference(), "nats", signed=True),
        Number(len(pairing.first), "count"),
    ]


def _clean(rows: list[SampleRow]) -> Cell:
    loss = mean_clean_loss(rows)
    return Missing("errors only") if loss is None else Number(loss, "nats")
