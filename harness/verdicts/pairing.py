"""Compare two sets of cells example by example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.records import (
    Estimate,
    SampleRow,
    bootstrap_mean,
    mcnemar,
    paired_difference,
    successes,
)
from harness.verdicts.results import Attacked, Results, Subjects

CellsBySeed = Mapping[int, Attacked]


@dataclass(frozen=True)
class Pairing:
    """The rows of two sets of cells, example by example and seed by seed."""

    first: list[SampleRow]
    second: list[SampleRow]
    documents: list[str]
    seeds: list[int]

    def difference(self) -> Estimate:
        """Return the mean difference of dL, first minus second, in nats/token."""
        return paired_difference(
            [row.delta_loss for row in self.first],
            [row.delta_loss for row in self.second],
            self.documents,
            self.seeds,
            unit="nats/token",
        )

    def mean_deltas(self) -> tuple[float, float]:
        """Return the mean dL of each side, in nats/token."""
        first, second = self.first, self.second
        return fmean(x.delta_loss for x in first), fmean(x.delta_loss for x in second)

    def success_p_value(self, threshold: float) -> float:
        """Return McNemar's p-value for success, the largest over the seeds.

        Examples are the same under every seed, so seeds are tested one by one; that
        the difference is there under all of them is as sure as under the worst.
        """
        first = successes(self.first, threshold)
        second = successes(self.second, threshold)
        outcomes = list(zip(self.seeds, first, second, strict=True))
        p_values = []
        for seed in dict.fromkeys(self.seeds):
            pairs = [(a, b) for s, a, b in outcomes if s == seed]
            p_values.append(mcnemar([a for a, _ in pairs], [b for _, b in pairs]))
        return max(p_values)


def pair(first: CellsBySeed, second: CellsBySeed) -> Pairing | None:
    """Pair the rows under the seeds that both sides have; None if nothing pairs.

    Also None where a side has examples that the other has not: what it would compare
    is not the same thing.
    """
    pairing = Pairing([], [], [], [])
    seeds = [seed for seed in first if seed in second]
    if not _same_examples([cells[seed] for seed in seeds for cells in (first, second)]):
        return None
    for seed in seeds:
        others = {row.example_id: row for row in second[seed].rows}
        for row in first[seed].rows:
            pairing.first.append(row)
            pairing.second.append(others[row.example_id])
            pairing.documents.append(row.document_id)
            pairing.seeds.append(seed)
    return pairing if pairing.first else None


def why_unpaired(results: Results, sides: Mapping[str, tuple[Subjects, str]]) -> str:
    """Say why two sides, by name, cannot be paired: a side is subjects and attack."""
    for name, (subjects, attack) in sides.items():
        if not results.cells(subjects, attack):
            return f"{name} {results.absence(subjects, attack)}"
    first, second = (results.cells(*side) for side in sides.values())
    return "examples differ" if first.keys() & second.keys() else "no seed in common"


def pooled_delta(cells: CellsBySeed) -> Estimate | None:
    """Estimate the mean dL over all seeds, resampling documents and seeds.

    None where there are no cells, or where they are about different examples.
    """
    if not cells or not _same_examples(list(cells.values())):
        return None
    rows = [(seed, row) for seed, cell in cells.items() for row in cell.rows]
    return bootstrap_mean(
        [row.delta_loss for _, row in rows],
        [row.document_id for _, row in rows],
        [seed for seed, _ in rows],
        unit="nats/token",
    )


def _same_examples(cells: Sequence[Attacked]) -> bool:
    return len({frozenset(row.example_id for row in cell.rows) for cell in cells}) <= 1
