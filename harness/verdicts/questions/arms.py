"""Questions to an arm as a whole: from its records, its replay and its match."""

from __future__ import annotations

from collections.abc import Iterator

from harness.running import TOLERANCE_NATS
from harness.verdicts.claims import above, below, every
from harness.verdicts.findings import Arm, Matched
from harness.verdicts.levels import EQUIVALENCE, MATCH_NATS
from harness.verdicts.losses import averaged
from harness.verdicts.questions.question import FULL_ADDS, Question

NAMED_AT_MOST = 3
"""Holes that are named one by one."""


def determinism(arm: Arm) -> Question:
    """Ask whether the same pass gives the same loss, alone and in a batch."""
    examined = arm.examined.get("determinism")
    if examined is None:
        return Question("determinism", absence=f"{arm.label} was not examined")
    return Question("determinism", otherwise=examined.fault)


def completeness(arm: Arm) -> Question:
    """Ask whether any planned unit is missing that the verdict rests on."""
    if not arm.holes:
        return Question("completeness", unit="missing units")
    more = len(arm.holes) - NAMED_AT_MOST
    named = ", ".join(arm.holes[:NAMED_AT_MOST]) + (
        f" and {more} more" if more > 0 else ""
    )
    return Question("completeness", otherwise=f"not complete: {named}")


def replay(arm: Arm) -> Question:
    """Ask whether a fresh process finds in every cell the losses of the records."""
    if not arm.replayed:
        return Question("replay", absence=f"no cell of {arm.label} was replayed")
    for found in arm.replayed:
        if found.fault is not None:
            return Question("replay", otherwise=f"{found.cell}: {found.fault}")
        if found.largest is None or not found.largest <= TOLERANCE_NATS:  # NaN is not
            off = "no number" if found.largest is None else f"{found.largest:.3g}"
            otherwise = f"{found.cell}: replayed losses are {off} nats/token off"
            return Question("replay", otherwise=otherwise)
    return Question("replay")


def equal_clean_loss(arm: Arm) -> Iterator[Question]:
    """Ask of each match whether its clean loss is equal, which has to be shown."""
    if not arm.matches:
        absence = (
            arm.unmatched or f"no arm was made to match its clean loss: {FULL_ADDS}"
        )
        yield Question("equal_clean_loss", absence=absence)
    for match in arm.matches:
        apart = averaged(match.arm_loss - match.match_loss, match.units)
        yield Question(
            "equal_clean_loss",
            against=match.arm,
            claim=every([above(apart, -MATCH_NATS), below(apart, MATCH_NATS)]),
            level=EQUIVALENCE,
            otherwise=f"the clean losses are not shown to be within {MATCH_NATS} "
            "nats/token of each other",
        )


def equal(arm: Arm) -> list[Matched]:
    """Return the matches whose clean loss is shown to be equal."""
    asked = zip(arm.matches, equal_clean_loss(arm), strict=False)
    return [match for match, question in asked if question.status() == "pass"]
