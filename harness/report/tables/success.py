"""How often attacks succeed, at any threshold: documents counted, never rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from harness.records import SampleRow, clopper_pearson, successes
from harness.report.content import (
    Column,
    Number,
    Point,
    Table,
    about,
    filled,
)
from harness.report.tables.rows import (
    arm_column,
    attack_column,
    cells_of,
    conditions,
    shown_attacks,
    with_seeds,
)
from harness.verdicts import Arm, CellsBySeed, Results

THRESHOLDS = (0.05, 0.15, 0.5, 1.0)
"""By how much the reference's perplexity has to rise; beside the suite's threshold."""
CURVE = tuple(float(x) for x in np.geomspace(0.01, 100, 81))
"""Those of the file of points, to plot."""
PROPORTION = (
    "the share of documents on which the attack succeeds under every seed, [a, b] its "
    "95 % interval of Clopper and Pearson"
)
Holds = Callable[[Sequence[SampleRow]], Sequence[bool]]
"""Says of each row whether something holds of it."""


class _Row(NamedTuple):
    arm: Arm
    attack: str
    cells: CellsBySeed | str
    """By seed; or why there are none."""


def success_table(results: Results) -> Table:
    """Return a row for each model, arm and attack: success at several thresholds."""
    thresholds = sorted({*THRESHOLDS, results.threshold})
    at: list[Column[CellsBySeed]] = [
        Column(f"at {100 * x:.4g}%", partial(_success, x), "success")
        for x in thresholds
    ]
    columns: list[Column[_Row]] = [
        arm_column(results, lambda row: row.arm),
        attack_column(lambda row: row.attack),
        *with_seeds(about(lambda row: row.cells, at), lambda row: row.arm),
    ]
    return filled(
        "success",
        "Success over thresholds",
        columns,
        _rows(results),
        summary=(
            "The share of documents on which the attack raises the perplexity of the "
            "reference by more than x % under every seed, with 95 % intervals."
        ),
        caption=(
            "success at x %: the attack raises the perplexity of the reference by more "
            f"than x %; {PROPORTION}. A relative threshold says nothing of how much is "
            "lost: see dL. success.csv, beside the report, has the whole curves. "
            f"{conditions(results)}"
        ),
        keys=2,
    )


def curves(results: Results) -> Iterator[Point]:
    """Yield the points of the curves of success, for each model, arm and attack."""
    for row in _rows(results):
        if isinstance(row.cells, str):
            continue
        bounds = cache(clopper_pearson)
        for threshold in CURVE:
            hits, n = held(row.cells, partial(successes, threshold=threshold))
            low, high = bounds(hits, n)
            yield Point(
                row.arm.model, row.arm.label, row.attack, threshold, hits, n, low, high
            )


def proportion(cells: CellsBySeed, holds: Holds) -> Number:
    """Show the share of documents on which something holds under every seed."""
    hits, n = held(cells, holds)
    return Number(
        hits / n,
        "share",
        interval=clopper_pearson(hits, n),
        n=len(cells),
    )


def held(cells: CellsBySeed, holds: Holds) -> tuple[int, int]:
    """Count the documents on all of whose rows, under every seed, something holds."""
    found: dict[str, bool] = {}
    for cell in cells.values():
        for row, hit in zip(cell.rows, holds(cell.rows), strict=True):
            found[row.unit] = found.get(row.unit, True) and hit
    return sum(found.values()), len(found)


def _rows(results: Results) -> Iterator[_Row]:
    for arm in results.treatments:
        for attack in shown_attacks(results):
            yield _Row(arm, attack, cells_of(arm, attack))


def _success(threshold: float, cells: CellsBySeed) -> Number:
    return proportion(cells, partial(successes, threshold=threshold))
