"""What attacks reach with less than their whole budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from harness.records import SampleRow, Verdicts
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
from harness.report.tables.rows import INTERVAL, arm_column, named
from harness.verdicts import SHARES, Arm, CellsBySeed, Results, mean_over

Curve = Mapping[float, Cell]
"""A cell for each of `SHARES`."""


class _Row(NamedTuple):
    arm: Arm
    what: Label
    curve: Curve | str
    """Or why there is none."""


def kept_checkpoints(results: Results) -> bool:
    """Say whether any attack was run to twice its budget, and kept what it held."""
    return any(
        results.share(attack) in SHARES and results.share(attack) > 1
        for attack in results.attacks
    )


def budgets_table(results: Results, verdicts: Verdicts) -> Table:
    """Return a row for each model, arm and attack: dL at the shares of its budget."""
    at: list[Column[Curve]] = [
        Column(str(Fraction(share)), itemgetter(share), "dL at") for share in SHARES
    ]
    columns: list[Column[_Row]] = [
        arm_column(results, lambda row: row.arm),
        Column("attack", lambda row: row.what),
        *about(lambda row: row.curve, at),
    ]
    return filled(
        "budgets",
        "Budget curve",
        columns,
        [*_of_attacks(results), *_of_contrasts(results, verdicts)],
        summary=(
            "dL in nats/token, with 95 % intervals, at multiples of the attacks' "
            "stated budget."
        ),
        caption=(
            "dL in nats/token of the prompt that an attack would have returned at a "
            f"multiple of its stated budget, each scored anew; {INTERVAL}. worst, "
            "minus an arm: the difference that verdicts are about."
        ),
        keys=2,
    )


def _of_attacks(results: Results) -> Iterator[_Row]:
    for arm in results.treatments:
        for attack in results.attacks:
            cells = arm.cells(attack)
            curve = {share: _at(cells, share) for share in SHARES}
            curve_or_not = curve if cells else arm.absence(attack)
            yield _Row(arm, named("attack", attack), curve_or_not)


def _of_contrasts(results: Results, verdicts: Verdicts) -> Iterator[_Row]:
    for found in verdicts.arms:
        if found.difference is not None:
            known = {x.share: x for x in found.difference.by_share}
            curve = {
                share: Number(
                    known[share].value,
                    "nats",
                    signed=True,
                    interval=known[share].interval,
                )
                for share in SHARES
            }
            arm = results.arm(found.model, found.arm)
            names = (("against", str(found.reference)),)
            what = Label(f"worst, minus {found.reference}", names=names)
            yield _Row(arm, what, curve)


def _at(cells: CellsBySeed, share: float) -> Cell:
    found = mean_over(cells, partial(delta_at, share=share))
    if found is None or found.value is None:
        return Missing("not kept", brief=True)
    return from_estimate(found, "nats")


def delta_at(row: SampleRow, share: float) -> float | None:
    """Return dL at a share of the stated budget; None where it was not kept."""
    kept = {x.share: x.delta_loss for x in row.checkpoints}
    return row.delta_loss if row.share == share else kept.get(share)
