"""What attacks did to the examples, and comparisons of it example by example."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from harness.records import TREATMENT_SEEDS, Crossed, Estimate, SampleRow

Floats = NDArray[np.float64]


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
    seeds: list[int]

    @cached_property
    def tables(self) -> tuple[Floats, Floats]:
        """The dL of each side [seeds, units], in nats/token.

        Examples that ended in an error under any seed, on either side, are left out.
        """
        sides = ([row.delta_loss for row in side] for side in (self.first, self.second))
        first, second = _tables(self.first, self.seeds, *sides)
        return first, second

    def difference(self) -> Estimate:
        """Return the mean difference of dL, first minus second, in nats/token."""
        return crossed_mean(self._apart)

    def p_above(self) -> float:
        """Return the one-sided p of the claim that the first side's dL is higher."""
        return Crossed.of(self._apart).p_above()

    def mean_deltas(self) -> tuple[float, float]:
        """Return the mean dL of each side, in nats/token."""
        first, second = self.tables
        return float(first.mean()), float(second.mean())

    @property
    def _apart(self) -> Floats:
        return self.tables[0] - self.tables[1]


def pair(first: CellsBySeed, second: CellsBySeed) -> Pairing | None:
    """Pair the rows under the seeds that both sides have; None if nothing pairs.

    Also None where a side has examples that the other lacks, since the two means would
    be about different examples, and where every pair has an error in it.
    """
    pairing = Pairing([], [], [])
    seeds = [seed for seed in first if seed in second]
    if not same_examples([cells[seed] for seed in seeds for cells in (first, second)]):
        return None
    for seed in seeds:
        others = {row.example_id: row for row in second[seed].rows}
        for row in first[seed].rows:
            pairing.first.append(row)
            pairing.second.append(others[row.example_id])
            pairing.seeds.append(seed)
    return pairing if pairing.tables[0].size else None


def mean_over(
    cells: CellsBySeed,
    value: Callable[[SampleRow], float | None] = attrgetter("delta_loss"),
) -> Estimate | None:
    """Estimate the mean over documents and seeds of dL or another value of rows.

    In nats/token. Examples without the value under a seed, as those that ended in an
    error, are left out. None where there are no cells, or where they are about
    different examples.
    """
    if not cells or not same_examples(cells.values()):
        return None
    rows = [row for cell in cells.values() for row in cell.rows]
    seeds = [seed for seed, cell in cells.items() for _ in cell.rows]
    (table,) = _tables(rows, seeds, [value(row) for row in rows])
    return crossed_mean(table)


def _tables(
    rows: Sequence[SampleRow],
    seeds: Sequence[int],
    *values: Sequence[float | None],
) -> Iterator[Floats]:
    """Yield of each of several values of rows a table, averaged as by `by_unit`.

    Examples that lack any of them under any seed are left out.
    """
    each = zip(rows, *values, strict=True)
    lacking = {row.example_id for row, *own in each if None in own}
    known = [i for i, row in enumerate(rows) if row.example_id not in lacking]
    units = [rows[i].unit for i in known]
    for own in values:
        yield by_unit([own[i] for i in known], units, [seeds[i] for i in known])


def by_unit(
    values: Sequence[float | None], units: Sequence[Hashable], seeds: Sequence[Hashable]
) -> Floats:
    """Average values over the examples of a unit: [seeds, units].

    Units that are not there under every seed are left out.
    """
    rows, columns = _numbered(seeds), _numbered(units)
    at = [rows[seed] for seed in seeds], [columns[unit] for unit in units]
    sums, counts = np.zeros((2, len(rows), len(columns)))
    np.add.at(sums, at, np.asarray(values, dtype=np.float64))
    np.add.at(counts, at, 1.0)
    whole = (counts > 0).all(axis=0)
    return np.asarray(sums[:, whole] / counts[:, whole])


def _numbered(labels: Sequence[Hashable]) -> dict[Hashable, int]:
    """Number labels in order of appearance."""
    return {label: number for number, label in enumerate(dict.fromkeys(labels))}


def crossed_mean(table: Floats, unit: str = "nats/token") -> Estimate:
    """Estimate the mean of a table [seeds, units] as verdicts do."""
    seeds, n = table.shape
    of_treatment = seeds >= TREATMENT_SEEDS
    effects = "two-way random effects" if of_treatment else "studentized bootstrap"
    over = "documents and seeds" if of_treatment else "documents"
    method = f"mean; {effects} over {over}"
    if not table.size:
        return Estimate(value=None, n=0, unit=unit, method=method, reason="no values")
    found = Crossed.of(table)
    low, high = found.interval()
    interval = (low, high) if math.isfinite(low) else None  # else it has no bounds
    return Estimate(
        value=found.mean,
        n=n,
        unit=unit,
        method=method,
        interval=interval,
        reason=None if interval else "no interval from one document",
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


def same_examples(cells: Iterable[Attacked]) -> bool:
    """Say whether all cells are about the same examples."""
    return len({frozenset(row.example_id for row in cell.rows) for cell in cells}) <= 1
