"""What training seeds differ by: each contrast under each seed alone."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from harness.records import across_seeds, spread_interval
from harness.report.content import (
    Cell,
    Column,
    Missing,
    Number,
    Table,
    filled,
    from_comparison,
)
from harness.report.tables.rows import against_column, arm_column, attack_column
from harness.verdicts import Arm, Comparison, Findings, Losses, Results, of_attack


class _Row(NamedTuple):
    arm: Arm
    reference: Arm
    attack: str
    by_seed: dict[int, Comparison | str]


def spread_table(results: Results, findings: Findings) -> Table:
    """Return a row for each arm that is held against another, and attack."""
    losses, suite = Losses(findings), results.suite
    rows = [
        _Row(arm, other, attack, _by_seed(losses, arm, other, attack))
        for arm in results.treatments
        if (reference := suite.reference_of(arm.label)) is not None
        for other in [results.arm(arm.model, reference)]
        for attack in results.attacks
        if attack in arm.planned and attack in other.planned
    ]
    columns: list[Column[_Row]] = [
        arm_column(results, lambda row: row.arm),
        against_column(lambda row: row.reference.label),
        attack_column(lambda row: row.attack),
        Column("sd over seeds", _spread, "dL difference"),
        *(Column(f"seed {x}", partial(_cell, x), "dL difference") for x in suite.seeds),
    ]
    return filled(
        "seeds",
        "Differences seed by seed",
        columns,
        rows,
        summary=(
            "The difference of dL under each training seed, in nats/token, and its "
            "standard deviation over seeds, with 95 % intervals."
        ),
        caption=(
            "dL of the arm minus that of its reference arm, nats/token, under each "
            "seed alone: [a, b] is its 95 % interval over documents, on these weights. "
            "sd over seeds: the sample standard deviation (ddof 1) of these "
            "differences, with its 95 % interval by chi-square, for normal differences."
        ),
        keys=3,
    )


def _by_seed(
    losses: Losses, arm: Arm, other: Arm, attack: str
) -> dict[int, Comparison | str]:
    seeds = arm.results.suite.seeds_of(arm.label)
    return {seed: of_attack(losses, arm, other, attack, among=[seed]) for seed in seeds}


def _cell(seed: int, row: _Row) -> Cell:
    return from_comparison(row.by_seed.get(seed, "not planned"), "nats")


def _spread(row: _Row) -> Cell:
    known = [x.value for x in row.by_seed.values() if not isinstance(x, str)]
    spread = across_seeds(known)
    if spread.std is None:
        return Missing("fewer than two seeds")
    return Number(spread.std, "nats", interval=spread_interval(known))
