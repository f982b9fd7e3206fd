"""Prompts that were found on one arm, scored on the others: all pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from harness.records import exceeds
from harness.report.content import (
    Cell,
    Column,
    Missing,
    Number,
    Table,
    about,
    filled,
    from_estimate,
)
from harness.report.tables.rows import (
    INTERVAL,
    arm_column,
    attack_column,
    conditions,
    named,
)
from harness.verdicts import Arm, Results, by_unit, crossed_mean, mean_over


@dataclass(frozen=True)
class Carried:
    """The dL of one arm's adversarial prompts on another arm, in nats/token."""

    arm: Arm
    """The other arm."""
    source: str
    """The arm on which an attack found the prompts."""
    attack: str
    deltas: list[float] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)


def transfers(results: Results) -> list[str]:
    """Return the labels of the attacks that replay prompts on other arms."""
    return [x for x in results.attacks if results.attack(x).shows == "transferability"]


def transfer_table(results: Results) -> Table:
    """Return a row for each arm, arm that prompts come from, and attack."""
    columns: list[Column[Carried]] = [
        arm_column(results, lambda row: row.arm),
        Column("made on", lambda row: named("made_on", row.source)),
        attack_column(lambda row: row.attack),
        *about(_scored, _SCORED),
    ]
    return filled(
        "transfer",
        "Transfer between arms",
        columns,
        [
            row
            for transfer in transfers(results)
            for arm in results.arms
            if transfer in arm.planned
            for row in carried(arm, transfer)
        ],
        summary=(
            "Prompts that an attack found on one arm, scored on another: dL in "
            "nats/token with 95 % intervals, and the share of examples that succeed."
        ),
        caption=(
            f"Prompts that an attack found on one arm, scored on another; {INTERVAL}. "
            "Where prompts from elsewhere raise the loss more than those that the "
            "attack finds on the arm itself, the arm hides its weakness from the "
            f"attack, and is not robust to it. {conditions(results)}"
        ),
        keys=3,
    )


def carried(arm: Arm, transfer: str) -> Iterator[Carried]:
    """Yield what became of prompts on an arm, by the arm and attack they come from.

    A single one without numbers where the transfer is not complete.
    """
    found: dict[tuple[str, str], Carried] = {}
    for seed, cell in arm.cells(transfer).items():
        for row in cell.rows:
            for step in row.trace:
                key = str(step["source"]), str(step["attack"])
                one = found.setdefault(key, Carried(arm, *key))
                if step["delta_loss"] is None:
                    continue
                one.deltas.append(float(step["delta_loss"]))
                one.units.append(row.unit)
                one.seeds.append(seed)
    yield from found.values() or [Carried(arm, "others", transfer)]


def _scored(row: Carried) -> Carried | str:
    return row if row.deltas else row.arm.absence(row.attack)


def _mean(row: Carried) -> Cell:
    table = by_unit(row.deltas, row.units, row.seeds)
    return from_estimate(crossed_mean(table), "nats")


def _delta(arm: Arm, attack: str) -> Cell:
    delta = mean_over(arm.cells(attack))
    if delta is None:
        return Missing(arm.absence(attack))
    return from_estimate(delta, "nats")


def _own_share(row: Carried) -> Cell:
    cells = row.arm.cells(row.attack).values()
    deltas = [sample.delta_loss for cell in cells for sample in cell.rows]
    if not deltas:
        return Missing(row.arm.absence(row.attack))
    return _share(row.arm.results, deltas)


def _share(results: Results, deltas: Sequence[float | None]) -> Cell:
    hits = [exceeds(delta, results.threshold) for delta in deltas]
    return Number(fmean(hits), "fraction")


_SCORED: list[Column[Carried]] = [
    Column("transferred", _mean, "dL"),
    Column("on the arm itself", lambda x: _delta(x.arm, x.attack), "dL"),
    Column(
        "where it was made",
        lambda x: _delta(x.arm.results.arm(x.arm.model, x.source), x.attack),
        "dL",
    ),
    Column("transferred", lambda x: _share(x.arm.results, x.deltas), "success"),
    Column("on the arm itself", _own_share, "success"),
    Column("examples", lambda x: Number(len(x.deltas), "count")),
]
