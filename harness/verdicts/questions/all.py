"""Questions across records: an arm against the baseline, an attack against controls.

All answers come from records and rows. Where something that a question needs is not
there, the answer is `not_applicable` with the reason; it never passes silently.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from harness.records import DiagnosticId, Judged, successes
from harness.run import TOLERANCE_NATS, read
from harness.verdicts.pairing import pooled_delta
from harness.verdicts.questions import attacks, seeds
from harness.verdicts.questions.answers import FULL, absent, answer
from harness.verdicts.questions.equal_loss import equal_clean_loss
from harness.verdicts.questions.planted import planted_weakness
from harness.verdicts.questions.transfers import transfer
from harness.verdicts.results import Arm


def ask(arm: Arm) -> list[Judged]:
    """Return the answers to all questions, in the order of docs/rigour.md."""
    answers = [
        *seeds.of_subjects(arm),
        *(found for attack in arm.attacks for found in _of_attack(arm, attack)),
        *transfer(arm),
        planted_weakness(arm),
        equal_clean_loss(arm),
        _worst_case(arm),
        _replay(arm),
        _completeness(arm),
    ]
    order = get_args(DiagnosticId)
    return sorted(answers, key=lambda found: order.index(found.id))


def _of_attack(arm: Arm, attack: str) -> list[Judged]:
    return [
        *attacks.against_controls(arm, attack),
        *seeds.of_rows(arm, attack),
        attacks.unbounded(arm, attack),
        attacks.convergence(arm, attack),
    ]


def _worst_case(arm: Arm) -> Judged:
    cells = arm.worst(arm.united)
    found = pooled_delta(cells)
    if found is None:
        return absent("worst_case", "no attack is complete")
    rows = [row for cell in cells.values() for row in cell.rows]
    hits = successes(rows, arm.results.threshold)
    return answer(
        "worst_case",
        found,
        threshold=None,
        measured={"success": float(np.mean(hits)), "attacks": arm.united},
    )


def _replay(arm: Arm) -> Judged:
    """Hold what a fresh process scored against the arm's records."""
    known = read(arm.results.survey.folder)
    found = {
        cell.record.id: known[cell.record.id]
        for label in arm.planned
        for cell in arm.cells(label).values()
        if cell.record.samples is not None
        and known.get(cell.record.id, {}).get("samples_sha256")
        == cell.record.samples.sha256
    }
    if not found:
        return absent("replay", f"nothing was replayed: {FULL}")
    broken = [f"{cell}: {x['error']}" for cell, x in found.items() if "error" in x]
    apart = [x["largest"] for x in found.values() if x.get("largest") is not None]
    largest = max(apart, default=None)
    reason = None
    if broken:
        reason = broken[0]
    elif largest is None:
        reason = "there was no row to replay"
    elif largest > TOLERANCE_NATS:
        reason = f"a replayed loss is {largest:.3g} nats/token off the record"
    return Judged(
        id="replay",
        status="fail" if reason else "pass",
        value=largest,
        n=sum(x.get("passes", 0) for x in found.values()),
        threshold=TOLERANCE_NATS,
        unit="nats/token",
        reason=reason,
        measured={
            "cells": len(found),
            "plain": all(x.get("plain", False) for x in found.values()),
        },
    )


def _completeness(arm: Arm) -> Judged:
    """Count what is missing of the arm, the baseline, and what is derived of either."""
    derived = [
        label
        for label, section in arm.results.suite.arms.items()
        if section.derive_from is not None
        and arm.label in (section.derive_from, section.match_loss_of)
    ]
    arms = {arm.label, arm.baseline.label, *derived}
    units = [
        unit
        for unit in arm.results.survey.units
        if unit.model == arm.model and unit.arm in arms
    ]
    holes = [unit for unit in units if unit.state.status != "complete"]
    named = ", ".join(f"{unit.id} ({unit.state.status})" for unit in holes[:3])
    more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
    return Judged(
        id="completeness",
        status="fail" if holes else "pass",
        value=float(len(holes)),
        n=len(units),
        threshold=0.0,
        unit="missing units",
        reason=f"not complete: {named}{more}" if holes else None,
    )
