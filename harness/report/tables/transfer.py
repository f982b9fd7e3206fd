"""What was found on one arm, on the others: all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.records import Estimate, bootstrap_mean, exceeds
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
from harness.verdicts import Results, Subjects, pooled_delta


@dataclass(frozen=True)
class Carried:
    """The dL of one arm's adversarial prompts on another arm, in nats/token."""

    deltas: list[float]
    documents: list[str]
    seeds: list[int]

    def mean(self) -> Estimate:
        """Estimate the mean, resampling documents and seeds."""
        return bootstrap_mean(
            self.deltas, self.documents, self.seeds, unit="nats/token"
        )


def transfers(results: Results) -> list[str]:
    """Return the labels of the suite's transfer attacks."""
    return [x for x in results.attacks if results.shows(x) == "transferability"]


def transfer_table(results: Results) -> Table:
    """Return a row for each arm, arm that prompts come from, and attack."""
    return subjects_table(
        results,
        [
            Column("made on"),
            Column("attack"),
            Column("transferred", "dL"),
            Column("on the arm itself", "dL"),
            Column("where it was made", "dL"),
            Column("transferred", "success"),
            Column("on the arm itself", "success"),
            Column("examples"),
        ],
        [
            (subjects, cells)
            for transfer in transfers(results)
            for subjects in results.subjects
            for cells in _rows(results, subjects, transfer)
        ],
        key="transfer",
        title="Transfer between arms",
        caption=(
            f"Prompts that an attack found on one arm, scored on another; {BOOTSTRAP}. "
            "Where prompts from elsewhere do more harm than those that the attack "
            "finds on the arm itself, the arm hides from the attack and is not robust "
            "to it."
        ),
        keys=3,
    )


def carried(
    results: Results, subjects: Subjects, transfer: str
) -> dict[tuple[str, str], Carried]:
    """Return what became of prompts on an arm, by the arm and attack they come from."""
    found: dict[tuple[str, str], Carried] = {}
    for seed, cell in results.cells(subjects, transfer).items():
        for row in cell.rows:
            for step in row.trace:
                key = str(step["source"]), str(step["attack"])
                one = found.setdefault(key, Carried([], [], []))
                one.deltas.append(float(step["delta_loss"]))
                one.documents.append(row.document_id)
                one.seeds.append(seed)
    return found


def _rows(results: Results, subjects: Subjects, transfer: str) -> list[list[Cell]]:
    if not results.planned(subjects, transfer):
        return []
    found = carried(results, subjects, transfer)
    if not found:
        gap = Missing(results.absence(subjects, transfer))
        return [[Label("others"), Label(transfer), *[gap] * 6]]
    return [
        [
            Label(source),
            Label(attack),
            from_estimate(one.mean(), "nats"),
            _delta(results, subjects, attack),
            _delta(results, Subjects(subjects.model, source), attack),
            _share(results, one.deltas),
            _own_share(results, subjects, attack),
            Number(len(one.deltas), "count"),
        ]
        for (source, attack), one in found.items()
    ]


def _delta(results: Results, subjects: Subjects, attack: str) -> Cell:
    delta = pooled_delta(results.cells(subjects, attack))
    if delta is None:
        return Missing(results.absence(subjects, attack))
    return from_estimate(delta, "nats")


def _own_share(results: Results, subjects: Subjects, attack: str) -> Cell:
    cells = results.cells(subjects, attack).values()
    deltas = [row.delta_loss for cell in cells for row in cell.rows]
    if not deltas:
        return Missing(results.absence(subjects, attack))
    return _share(results, deltas)


def _share(results: Results, deltas: Sequence[float]) -> Cell:
    hits = [exceeds(delta, results.threshold) for delta in deltas]
    return Number(fmean(hits), "fraction")
