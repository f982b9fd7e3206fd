"""Does an attack beat its control? Without that, its numbers mean nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.api import Shows
from harness.records import Estimate, holm
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
from harness.verdicts import (
    Pairing,
    Results,
    Subjects,
    mean_flops,
    pair,
    why_unpaired,
)

LEDGER_MARK = "‡"
LEDGER_TOLERANCE = 0.1
"""Relative difference of FLOPs beyond which two ledgers are not called equal."""


@dataclass(frozen=True)
class Comparison:
    """An attack and its control on the same subjects."""

    subjects: Subjects
    attack: str
    control: str
    shows: Shows | None
    """What the control is evidence of."""
    pairing: Pairing | None
    difference: Estimate | None
    """Of dL, attack minus control; None where nothing could be paired."""
    flops: tuple[float, float] | None
    """Per example: attack, control."""
    absence: str
    """Why nothing could be paired."""

    @property
    def better(self) -> bool | None:
        """True where the interval lies above 0; None where there is none."""
        if self.difference is None or self.difference.interval is None:
            return None
        return self.difference.interval[0] > 0

    @property
    def equal_ledgers(self) -> bool:
        """True where both spent about the same."""
        if self.flops is None:
            return True
        attack, control = self.flops
        return abs(control - attack) <= LEDGER_TOLERANCE * attack


def compare_controls(results: Results) -> list[Comparison]:
    """Compare every attack with its controls, under every model and arm."""
    return [
        _compare(results, subjects, attack, control)
        for attack, control in results.controls
        for subjects in results.subjects
        if results.planned(subjects, attack) and results.planned(subjects, control)
    ]


def invalid(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons on the baseline arm that make an attack invalid.

    Those are the ones against random search. What an attack shows against permuted
    gradients or benign text says where its strength comes from, not that it has none.
    """
    return [
        comparison
        for comparison in comparisons
        if comparison.better is False
        and comparison.shows == "search"
        and comparison.subjects == comparison.subjects.baseline
    ]


def controls_table(results: Results, comparisons: Sequence[Comparison]) -> Table:
    """Return a row for each attack, control, model and arm."""
    paired = [c for c in comparisons if c.pairing is not None]
    p_values = holm(
        [c.pairing.success_p_value(results.threshold) for c in paired if c.pairing]
    )
    adjusted = {id(c): p for c, p in zip(paired, p_values, strict=True)}
    losers = {(c.subjects.model, c.attack, c.control) for c in invalid(comparisons)}
    return subjects_table(
        results,
        [
            Column("attack : control"),
            Column("attack", "dL"),
            Column("control", "dL"),
            Column("difference", "dL"),
            Column("verdict"),
            Column("attack", "FLOPs/example"),
            Column("control", "FLOPs/example"),
            Column("p"),
            Column("pairs"),
        ],
        [
            (
                c.subjects,
                _cells(
                    c,
                    adjusted.get(id(c)),
                    (c.subjects.model, c.attack, c.control) in losers,
                ),
            )
            for c in comparisons
        ],
        key="controls",
        title="Attacks against their controls",
        caption=(
            "A control gets the attack's budget on the same examples. The difference "
            f"is paired by example and seed; {BOOTSTRAP}. p: McNemar's exact test of "
            "success, the largest over seeds, Holm over the table. An attack whose "
            "interval against random search does not lie above 0 on the baseline arm "
            "is invalid, whatever it shows elsewhere. A permuted control says what the "
            "gradient buys, a benign one what any text in front of the prompt does."
        ),
        notes=_ledger_notes(comparisons),
        keys=2,
    )


def _compare(
    results: Results, subjects: Subjects, attack: str, control: str
) -> Comparison:
    first, second = results.cells(subjects, attack), results.cells(subjects, control)
    pairing = pair(first, second)
    return Comparison(
        subjects=subjects,
        attack=attack,
        control=control,
        shows=results.shows(control),
        pairing=pairing,
        difference=pairing.difference() if pairing else None,
        flops=(mean_flops(first), mean_flops(second)) if pairing else None,
        absence=why_unpaired(
            results, {attack: (subjects, attack), control: (subjects, control)}
        ),
    )


def _cells(comparison: Comparison, p_value: float | None, loser: bool) -> list[Cell]:
    name = Label(f"{comparison.attack} : {comparison.control}")
    pairing, difference = comparison.pairing, comparison.difference
    if pairing is None or difference is None or comparison.flops is None:
        gap = Missing(comparison.absence, brief=True)
        verdict = Label(f"none: {comparison.absence}", alarm=True)
        return [name, gap, gap, gap, verdict, gap, gap, gap, gap]
    mark = "" if comparison.equal_ledgers else LEDGER_MARK
    deltas, flops = pairing.mean_deltas(), comparison.flops
    return [
        name,
        Number(deltas[0], "nats"),
        Number(deltas[1], "nats"),
        from_estimate(difference, "nats", signed=True),
        _verdict(comparison, loser),
        Number(flops[0], "flops"),
        Number(flops[1], "flops", mark=mark),
        Missing("untested") if p_value is None else Number(p_value, "p"),
        Number(len(pairing.first), "count"),
    ]


def _verdict(comparison: Comparison, loser: bool) -> Label:
    if loser:
        return Label("ATTACK INVALID", alarm=True)
    if comparison.better is None:
        return Label("undecided: no interval", alarm=True)
    if comparison.better:
        return Label(f"beats {comparison.control}")
    return Label(f"no better than {comparison.control}", alarm=True)


def _ledger_notes(comparisons: Sequence[Comparison]) -> list[str]:
    unequal = [c for c in comparisons if not c.equal_ledgers]
    if not unequal:
        return []
    percent = f"{LEDGER_TOLERANCE:.0%}".replace("%", " %")
    return [f"{LEDGER_MARK} the ledgers are not equal: they differ by over {percent}"]
