"""What a run cost: time, operations and memory, by arm and phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

from harness.base import GIB
from harness.records import Cost, Phase, Record
from harness.report.content import Cell, Column, Missing, Number, Table, about, filled
from harness.report.tables.rows import arm_column
from harness.verdicts import Arm, Results

Found = dict[Phase, Cost]


def costs_table(results: Results) -> Table:
    """Return a row for each model and arm: what its units spent, all seeds together."""
    by_phase: list[Column[Found]] = [
        *(Column(phase, _seconds(phase), "seconds") for phase in get_args(Phase)),
        Column("in all", lambda x: Number(sum(_all_seconds(x)), "seconds"), "seconds"),
        Column("FLOP", lambda x: Number(sum(c.flops for c in x.values()), "flops")),
        Column("peak GiB", _peak),
    ]
    columns: list[Column[Arm]] = [
        arm_column(results, lambda arm: arm),
        *about(lambda arm: spent(results, arm) or arm.absence(), by_phase),
    ]
    return filled(
        "costs",
        "Costs",
        columns,
        results.arms,
        summary=(
            "Wall-clock time by phase, operations and peak memory of all variants and "
            "cells of an arm, over seeds."
        ),
        caption=(
            "Of all variants and cells of an arm, over seeds. Failed ones count, as do "
            "work that interruptions lost and the making of a subject that another "
            "run left in the store. Peak memory is that of the device, or of the "
            "process on a CPU."
        ),
    )


def spent(results: Results, arm: Arm) -> Found:
    """Return what all units of an arm spent, by phase."""
    found: Found = {}
    for record in _records(results, arm):
        for phase, cost in record.ledger.spent.items():
            found[phase] = found.get(phase, Cost()) + cost
    return found


def _records(results: Results, arm: Arm) -> Iterator[Record]:
    for unit in results.survey.units:
        record = unit.state.record
        if record and (unit.model, unit.arm) == (arm.model, arm.label):
            yield record


def _seconds(phase: Phase) -> Callable[[Found], Cell]:
    def fill(found: Found) -> Cell:
        if phase not in found:
            return Missing("none", brief=True)
        return Number(found[phase].seconds, "seconds")

    return fill


def _all_seconds(found: Found) -> Iterator[float]:
    return (cost.seconds for cost in found.values())


def _peak(found: Found) -> Cell:
    peaks = [cost.peak_memory_bytes for cost in found.values()]
    known = [peak for peak in peaks if peak is not None]
    return Number(max(known) / GIB, "size") if known else Missing("not noted")
