"""What attacks did to the examples, and comparisons of it example by example."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from harness.records import (
    Estimate,
    SampleRow,
    bootstrap_mean,
    mcnemar,
    paired_difference,
    successes,
)


@dataclass(frozen=True)
class Attacked:
    """What became of the examples under an attack, or under several."""

    rows: Sequence[SampleRow]
    """In the order of the examples."""

    @property
    def errors(self) -> int:
        """How many examples the attack failed on."""
        return sum(row.status == "error" for row in self.rows)


CellsBySeed = Mapping[int, Attacked]


@dataclass(frozen=True)
class Pairing:
    """The rows of two sets of cells, example by example and seed by seed."""

    first: list[SampleRow]
    second: list[SampleRow]
    documents: list[str]
    seeds: list[int]

    @cached_property
    def deltas(self) -> tuple[list[float], list[float]]:
        """The dL of each side where neither ended in an error; see `_known`."""
        first, second = (
            [side[i].delta_loss or 0.0 for i in self._known]
            for side in (self.first, self.second)
        )
        return first, second

    @property
    def known_documents(self) -> list[str]:
        """The documents of `deltas`."""
        return [self.documents[i] for i in self._known]

    def difference(self) -> Estimate:
        """Return the mean difference of dL, first minus second, in nats/token."""
        seeds = [self.seeds[i] for i in self._known]
        return paired_difference(
            *self.deltas, self.known_documents, seeds, unit="nats/token"
        )

    def mean_deltas(self) -> tuple[float, float]:
        """Return the mean dL of each side, in nats/token."""
        first, second = self.deltas
        return fmean(first), fmean(second)

    @cached_property
    def _known(self) -> list[int]:
        """The pairs of examples that ended in an error under no seed."""
        return known_everywhere(
            [row.example_id for row in self.first],
            *([row.delta_loss for row in side] for side in (self.first, self.second)),
        )

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

    Also None where a side has examples that the other lacks, since the two means would
    be about different examples, and where every pair has an error in it.
    """
    pairing = Pairing([], [], [], [])
    seeds = [seed for seed in first if seed in second]
    if not same_examples([cells[seed] for seed in seeds for cells in (first, second)]):
        return None
    for seed in seeds:
        others = {row.example_id: row for row in second[seed].rows}
        for row in first[seed].rows:
            pairing.first.append(row)
            pairing.second.append(others[row.example_id])
            pairing.documents.append(row.document_id)
            pairing.seeds.append(seed)
    return pairing if pairing.deltas[0] else None


def known_everywhere(
    examples: Sequence[str], *values: Sequence[float | None]
) -> list[int]:
    """Return where the examples stand that lack none of the values, wherever they do.

    `examples` and each of `values` have the same order; an example stands there once
    for each seed.
    """
    each = zip(examples, *values, strict=True)
    lacking = {example for example, *own in each if None in own}
    return [i for i, example in enumerate(examples) if example not in lacking]


def pooled_delta(cells: CellsBySeed) -> Estimate | None:
    """Estimate the mean dL over all seeds, resampling documents and seeds.

    Examples that ended in an error under a seed are left out. None where there are no
    cells, or where they are about different examples.
    """
    if not cells or not same_examples(cells.values()):
        return None
    every = [(seed, row) for seed, cell in cells.items() for row in cell.rows]
    known = known_everywhere(
        [row.example_id for _, row in every], [row.delta_loss for _, row in every]
    )
    rows = [every[i] for i in known]
    return bootstrap_mean(
        [row.delta_loss or 0.0 for _, row in rows],
        [row.document_id for _, row in rows],
        [seed for seed, _ in rows],
        unit="nats/token",
    )


def worst_rows(attacks: Sequence[Sequence[SampleRow]]) -> list[SampleRow]:
    """Return the row of highest dL of each example; of equal ones, the first attack's.

    An error is below every dL. Examples are those of the first attack, in its order.
    """
    by_example: dict[str, list[SampleRow]] = {}
    for rows in attacks:
        for row in rows:
            by_example.setdefault(row.example_id, []).append(row)
    firsts = [row.example_id for row in attacks[0]]
    return [max(by_example[x], key=_harm) for x in firsts]


def _harm(row: SampleRow) -> float:
    return -math.inf if row.delta_loss is None else row.delta_loss


def mean_clean_loss(rows: Iterable[SampleRow]) -> float | None:
    """Return the mean clean loss, in nats/token; None where no row has one."""
    known = [row.clean_loss for row in rows if row.clean_loss is not None]
    return fmean(known) if known else None


def same_examples(cells: Iterable[Attacked]) -> bool:
    """Say whether all cells are about the same examples."""
    return len({frozenset(row.example_id for row in cell.rows) for cell in cells}) <= 1
