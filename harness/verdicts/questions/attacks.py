"""Questions to an attack on an arm, from rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.records import DiagnosticId
from harness.verdicts.claims import Claim, every, some
from harness.verdicts.findings import SHARES, Arm, Attack, Floats
from harness.verdicts.levels import EQUIVALENCE
from harness.verdicts.losses import FULL, STATED, Losses, Part, Reading
from harness.verdicts.questions.question import FULL_ADDS, Question


def controls(losses: Losses, attack: str, shows: str) -> list[str]:
    """Return the controls of an attack that show something."""
    known = losses.findings.of("control")
    return [x.label for x in known if x.of == attack and x.shows == shows]


def beats(losses: Losses, arm: Arm, attack: str, control: str) -> list[Claim] | str:
    """Claim that an attack does more harm than its control, at each share measured."""
    cells = [arm.cells[x] for x in (attack, control) if x in arm.cells]
    measured = all(cell.checkpoints for cell in cells)
    found = []
    for share in range(len(SHARES)) if measured else [FULL]:
        read = losses.read(
            Part(arm, attack, full=False, share=share),
            Part(arm, control, full=True, share=share),
        )
        if isinstance(read, str):
            if share == FULL:
                return read
            continue
        own, other = read.rows
        found.append(read.above(own - other))
    return found


@dataclass(frozen=True, eq=False)
class Sides:
    """An arm that is asked about, and the one that it is held against."""

    arm: Arm
    other: Arm
    reference: Arm
    """The one of both that the other was made from: the margin is a share of its dL."""


def of_attack(losses: Losses, sides: Sides, attack: Attack) -> Iterator[Question]:
    """Ask what an attack has to pass on an arm, so that little harm is evidence.

    Of every kind: that it beats its random control, loses nothing by a larger budget
    and has converged. Of those with gradients: that it beats a control that shuffles
    them. Of those with a limit: that it beats random search where both are freed of it.
    """
    yield from _beats(losses, sides.arm, attack.label, "search")
    if attack.gradients:
        yield from _beats(losses, sides.arm, attack.label, "gradient")
    yield _budget_curve(losses, sides, attack.label)
    yield _convergence(losses, sides, attack.label)
    if attack.limited:
        yield from _unbounded(losses, sides.arm, attack.label)


def _beats(losses: Losses, arm: Arm, attack: str, shows: str) -> Iterator[Question]:
    name: DiagnosticId = "beats_random" if shows == "search" else "gradient_ablation"
    known = controls(losses, attack, shows)
    if not known:
        how = "by random search" if shows == "search" else "that shuffles its gradients"
        yield Question(name, attack, absence=f"it has no control {how}")
    for control in known:
        found = beats(losses, arm, attack, control)
        if isinstance(found, str):
            yield Question(name, attack, control, absence=found)
        else:
            otherwise = f"it is not shown to do more harm than {control} at any budget"
            yield Question(name, attack, control, some(found), otherwise=otherwise)


def _unbounded(losses: Losses, arm: Arm, attack: str) -> Iterator[Question]:
    """Hold the attack with every token free against random search that is as free."""
    name: DiagnosticId = "unbounded_sanity"
    forms = [x for x in losses.findings.of("unbounded") if x.of == attack]
    if not forms:
        absence = f"it was not run with every token free: {FULL_ADDS}"
        yield Question(name, attack, absence=absence)
    for form in forms:
        known = controls(losses, form.label, "search")
        if not known:
            absence = f"{form.label} has no control by random search"
            yield Question(name, attack, form.label, absence=absence)
        for control in known:
            found = beats(losses, arm, form.label, control)
            if isinstance(found, str):
                yield Question(name, attack, control, absence=found)
            else:
                more = "with every token free it is not shown to do more harm than"
                otherwise = f"{more} {control}"
                yield Question(name, attack, control, some(found), otherwise=otherwise)


# --- budgets ------------------------------------------------------------------------


def _budget_curve(losses: Losses, sides: Sides, attack: str) -> Question:
    """Claim that no larger budget does less harm, by half the margin or more."""
    name: DiagnosticId = "budget_curve"
    smaller = [Part(sides.arm, attack, full=True, share=x) for x in range(FULL)]
    larger = [Part(sides.arm, attack, full=False, share=x + 1) for x in range(FULL)]
    read = _unmeasured(attack, sides.arm) or losses.read(
        *smaller, *larger, Part(sides.reference, attack, full=False)
    )
    if isinstance(read, str):
        return Question(name, attack, absence=read)
    *rows, reference = read.rows
    steps = [
        _less_than_half_the_margin(losses, read, before - after, reference)
        for before, after in zip(rows[:FULL], rows[FULL:], strict=True)
    ]
    return Question(
        name,
        attack,
        claim=every(steps),
        level=EQUIVALENCE,
        otherwise="a larger budget is not shown to do as much harm as a smaller one",
    )


def _convergence(losses: Losses, sides: Sides, attack: str) -> Question:
    """Claim that twice the budget gains no more here than there, by half the margin."""
    name: DiagnosticId = "convergence"
    read = _unmeasured(attack, sides.arm, sides.other) or losses.read(
        Part(sides.arm, attack, full=True),
        Part(sides.arm, attack, full=False, share=STATED),
        Part(sides.other, attack, full=False),
        Part(sides.other, attack, full=True, share=STATED),
        Part(sides.reference, attack, full=False),
    )
    if isinstance(read, str):
        return Question(name, attack, absence=read)
    twice, once, other_twice, other_once, reference = read.rows
    gain = (twice - once) - (other_twice - other_once)
    return Question(
        name,
        attack,
        against=sides.other.label,
        claim=_less_than_half_the_margin(losses, read, gain, reference),
        level=EQUIVALENCE,
        otherwise="twice its budget is not shown to gain as little here as on "
        f"{sides.other.label}",
    )


def _less_than_half_the_margin(
    losses: Losses, read: Reading, rows: Floats, reference: Floats
) -> Claim:
    share, nats = losses.findings.margin.parts
    return read.below(rows - share / 2 * reference, nats / 2)


def _unmeasured(attack: str, *arms: Arm) -> str:
    for arm in arms:
        if attack in arm.cells and not arm.cells[attack].checkpoints:
            return f"{attack} keeps no prompts of smaller budgets"
    return ""
