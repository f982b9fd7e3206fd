"""Is the arm's gradient hidden? Each sign has to be stronger than on the other arm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.records import DiagnosticId
from harness.verdicts.claims import corrected, every
from harness.verdicts.findings import SHARES, Arm, Cell
from harness.verdicts.levels import ERRORS
from harness.verdicts.losses import FULL, Losses, Part, common
from harness.verdicts.questions.attacks import controls
from harness.verdicts.questions.gradients import of_gradients
from harness.verdicts.questions.question import FULL_ADDS, Question


def masking(losses: Losses, arm: Arm, other: Arm) -> list[Question]:
    """Ask for all signs that the gradient of `arm` is hidden, where `other`'s is not.

    Those of attacks are corrected for their number; those of subjects are vetoes.
    """
    pairs = [*_pairs(losses, arm, other), *_transfers(losses, arm, other)]
    answered = [x for x in pairs if x.claim is not None]
    claims = corrected([x.claim for x in answered if x.claim is not None])
    found = [x.corrected(claim) for x, claim in zip(answered, claims, strict=True)]
    unanswered = [x for x in pairs if x.claim is None]
    return [*found, *unanswered, *of_gradients(arm, other)]


# --- other attacks do more ----------------------------------------------------------


def _pairs(losses: Losses, arm: Arm, other: Arm) -> Iterator[Question]:
    """Hold each attack that uses gradients against those that need none."""
    main = losses.findings.of("main")
    free = [x.label for x in main if not x.gradients]
    for attack in (x.label for x in main if x.gradients):
        for blind in [*controls(losses, attack, "search"), *free]:
            share = (
                FULL if blind not in free else _affordable(arm, other, attack, blind)
            )
            yield _pair(losses, arm, other, (attack, blind, share))


def _pair(
    losses: Losses, arm: Arm, other: Arm, compared: tuple[str, str, int | None]
) -> Question:
    attack, blind, share = compared
    name: DiagnosticId = "gradient_ablation"
    if share is None:
        absence = f"{blind} kept no prompt of as small a budget"
        return Question(name, attack, blind, absence=absence)
    read = losses.read(
        Part(arm, blind, full=False, share=share),
        Part(arm, attack, full=True),
        Part(other, blind, full=True, share=share),
        Part(other, attack, full=False),
    )
    if isinstance(read, str):
        return Question(name, attack, blind, absence=read)
    more, own, other_more, other_own = read.rows
    advantage, others = more - own, other_more - other_own
    return Question(
        name,
        attack,
        blind,
        every([read.above(advantage - others), read.above(advantage)]),
        against_it=True,
        otherwise=f"{blind}, which needs no gradient, does more harm than {attack}",
    )


def _affordable(arm: Arm, other: Arm, attack: str, blind: str) -> int | None:
    """Return the largest share at which `blind` costs no more than the attack."""
    cells = [(each.cells.get(attack), each.cells.get(blind)) for each in (arm, other)]
    for share in reversed(range(len(SHARES))):
        if share != FULL and not all(x and x.checkpoints for _, x in cells):
            continue
        if all(_costs_no_more(blind_cell, cell, share) for cell, blind_cell in cells):
            return share
    return None


def _costs_no_more(blind: Cell | None, cell: Cell | None, share: int) -> bool:
    if blind is None or cell is None or blind.flops is None or cell.flops is None:
        return False
    return bool(blind.flops[share] <= cell.flops[FULL])


def _transfers(losses: Losses, arm: Arm, other: Arm) -> Iterator[Question]:
    """Hold what was found on the other arm against what was found on this one."""
    name: DiagnosticId = "transfer"
    replays, searching = losses.findings.of("transfer"), losses.findings.of("main")
    applies = losses.findings.diagnostics != "full" or any(
        x.gradients for x in searching
    )
    if not replays and applies:
        yield Question(name, absence=f"nothing was carried between arms: {FULL_ADDS}")
    main = [x.label for x in searching]
    for replay in replays:
        yield _transfer(losses, arm, other, replay.label, main)


def _lost(arm: Arm, source: Arm, cell: Cell) -> bool:
    """Say whether too many rows have no loss of what was found on another arm.

    A row has that of other sources instead, so that it counts as no error there.
    """
    both = np.isin(arm.seeds, source.seeds) & cell.there
    lost = np.isnan(cell.sources[source.label][..., both, :])
    return bool(lost.sum() > ERRORS * lost.size)


def _transfer(
    losses: Losses, arm: Arm, other: Arm, label: str, main: list[str]
) -> Question:
    name: DiagnosticId = "transfer"
    for one, source in ((arm, other), (other, arm)):
        cell = one.cells.get(label)
        if cell is None or source.label not in cell.sources:
            absence = f"{label} has nothing of {source.label} on {one.label}"
            return Question(name, label, source.label, absence=absence)
        if _lost(one, source, cell):
            absence = f"more than {ERRORS:.0%} of its rows on {one.label} have no loss"
            return Question(name, label, source.label, absence=absence)
    shared = [x for x in main if x in common(losses.findings, arm, other).labels]
    read = losses.read(
        Part(arm, label, full=False, source=other.label),
        Part(other, label, full=True, source=arm.label),
        *(Part(arm, x, full=True) for x in shared),
        *(Part(other, x, full=False) for x in shared),
    )
    if isinstance(read, str) or not shared:
        absence = read if isinstance(read, str) else "nothing else attacks the arm"
        return Question(name, label, other.label, absence=absence)
    carried, other_carried, *rest = read.rows
    own = np.max(rest[: len(shared)], axis=0)
    other_own = np.max(rest[len(shared) :], axis=0)
    advantage, others = carried - own, other_carried - other_own
    return Question(
        name,
        label,
        other.label,
        every([read.above(advantage - others), read.above(advantage)]),
        against_it=True,
        otherwise=f"what was found on {other.label} does more harm than what was found "
        f"on {arm.label}",
    )
