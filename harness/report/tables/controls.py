"""Does an attack beat its control? Without that, its numbers mean nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.records import BUDGET_TOLERANCE, DiagnosticStatus, Estimate, Verdicts, holm
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
from harness.report.tables.rows import INTERVAL, arm_column, conditions
from harness.verdicts import Arm, Pairing, Results, mean_flops

LEDGER_MARK = "‡"
LEVEL = 0.01
"""Of the claim that an attack does more harm than a control, one-sided."""
NOTED_EXCESS = 1.01
"""What was spent in all, relative to what the rows cost, beyond which it is told."""


@dataclass(frozen=True)
class Comparison:
    """An attack and its control on the same examples."""

    pairing: Pairing
    difference: Estimate
    """Of dL, attack minus control."""
    p: float
    """One-sided, that the attack's dL is higher, Holm over all comparisons."""
    flops: tuple[float, float]
    """Per example: attack, control."""

    @property
    def better(self) -> bool | None:
        """Whether the attack is shown to do more; None where there is no interval."""
        return None if self.difference.interval is None else self.p <= LEVEL

    @property
    def equal_ledgers(self) -> bool:
        """True where both spent about the same."""
        attack, control = self.flops
        return abs(control - attack) <= BUDGET_TOLERANCE * attack


class Opponents(NamedTuple):
    """An attack and its control on an arm."""

    arm: Arm
    attack: str
    control: str
    found: Comparison | str
    """How they compare, or why they cannot be paired."""
    judged: DiagnosticStatus | None
    """Whether the rule of verdicts finds that the attack beats random search, at any
    budget; None of other controls, and where it was not asked."""

    @property
    def invalid(self) -> bool:
        """Whether the attack is invalid: on a baseline arm, random search is as good.

        What an attack shows against permuted gradients or benign text says where its
        strength comes from, not that it has none.
        """
        return self.judged == "fail" and self.arm.is_baseline


def _opponents(row: Opponents) -> Label:
    names = ("attack", row.attack), ("control", row.control)
    return Label(f"{row.attack} : {row.control}", names=names)


def compare_controls(results: Results, verdicts: Verdicts) -> list[Opponents]:
    """Compare every attack with its controls, under every model and arm."""
    judged = {
        (found.model, found.arm, answer.attack, answer.against): answer.status
        for found in verdicts.arms
        for answer in found.diagnostics
        if answer.id == "beats_random"
    }
    sides = [
        (arm, attack, control, arm.pairing(attack, control))
        for attack, control in results.controls
        for arm in results.arms
        if attack in arm.planned and control in arm.planned
    ]
    pairings = [pairing for *_, pairing in sides if isinstance(pairing, Pairing)]
    p_values = iter(holm([x.p_above() for x in pairings]))
    return [
        Opponents(
            arm,
            attack,
            control,
            pairing
            if isinstance(pairing, str)
            else Comparison(
                pairing,
                pairing.difference(),
                next(p_values),
                (mean_flops(arm.cells(attack)), mean_flops(arm.cells(control))),
            ),
            judged.get((arm.model, arm.label, attack, control)),
        )
        for arm, attack, control, pairing in sides
    ]


def controls_table(results: Results, opponents: Sequence[Opponents]) -> Table:
    """Return a row for each attack, control, model and arm."""
    losers = {(x.arm.model, x.attack, x.control) for x in opponents if x.invalid}

    def verdict(row: Opponents) -> Cell:
        loses = (row.arm.model, row.attack, row.control) in losers
        return _verdict(row, invalid=loses)

    columns: list[Column[Opponents]] = [
        arm_column(results, lambda row: row.arm),
        Column("attack : control", _opponents),
        Column("verdict", verdict),
        *about(lambda row: row.found, _COMPARED),
    ]
    return filled(
        "controls",
        "Attacks against their controls",
        columns,
        opponents,
        summary=(
            "Each attack and a control with its budget on the same examples: dL in "
            "nats/token, the paired difference with its 95 % interval, and one-sided p "
            "after Holm."
        ),
        caption=(
            "A control gets the attack's budget on the same examples. The difference "
            f"is paired by example and seed; {INTERVAL}. p: of the claim that the "
            "attack's dL is higher, one-sided, Holm over the table; it is shown at 1 "
            "%. An attack that on the baseline arm is not shown to beat random search "
            "at any budget is invalid, whatever it shows elsewhere. A control with "
            "permuted gradients shows what the gradient contributes, one with benign "
            f"text what any text in front of the prompt does. {conditions(results)}"
        ),
        notes=[*_ledger_notes(opponents), *_interruptions(opponents)],
        keys=2,
    )


def _verdict(row: Opponents, *, invalid: bool) -> Cell:
    if isinstance(row.found, str):
        return Missing(row.found)
    if invalid:
        return Label("ATTACK INVALID", alarm=True)
    if row.found.better is None:
        return Label("undecided: no interval", alarm=True, short="no interval")
    if row.found.better:
        return Label(f"beats {row.control}", short="beats it")
    if row.judged == "pass":
        smaller = f"beats {row.control} at a smaller budget"
        return Label(smaller, short="at a smaller budget")
    return Label(f"not shown to beat {row.control}", alarm=True, short="not shown")


def _ledger_notes(opponents: Sequence[Opponents]) -> list[str]:
    compared = [x.found for x in opponents if not isinstance(x.found, str)]
    if all(found.equal_ledgers for found in compared):
        return []
    percent = f"{BUDGET_TOLERANCE:.0%}".replace("%", " %")
    return [f"{LEDGER_MARK} unequal ledgers: their FLOPs differ by over {percent}"]


def _interruptions(opponents: Sequence[Opponents]) -> Iterator[str]:
    """Say what attacks spent in all where that is more than what the table compares."""
    pairs = [(x.arm, attack) for x in opponents for attack in (x.attack, x.control)]
    for arm, attack in dict.fromkeys(pairs):
        cells = arm.cells(attack)
        spent = mean_flops(cells, spent=True) if cells else 0.0
        if cells and spent > NOTED_EXCESS * mean_flops(cells):
            all_of_it = f"{spent:.3g} FLOPs/example in all"
            yield f"{attack} on {arm.name} was interrupted and spent {all_of_it}"


def _control_flops(found: Comparison) -> Cell:
    mark = "" if found.equal_ledgers else LEDGER_MARK
    return Number(found.flops[1], "flops", mark=mark)


_COMPARED: list[Column[Comparison]] = [
    Column("attack", lambda x: Number(x.pairing.mean_deltas()[0], "nats"), "dL"),
    Column("control", lambda x: Number(x.pairing.mean_deltas()[1], "nats"), "dL"),
    Column(
        "difference", lambda x: from_estimate(x.difference, "nats", signed=True), "dL"
    ),
    Column("attack", lambda x: Number(x.flops[0], "flops"), "FLOPs/example"),
    Column("control", _control_flops, "FLOPs/example"),
    Column("p", lambda x: Number(x.p, "p")),
    Column("pairs", lambda x: Number(len(x.pairing.first), "count")),
]
