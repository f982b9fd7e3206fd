"""The rule of verdicts: docs/rigour.md has it as a table, and `LINES` is that table.

The first line that applies decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.records import TREATMENT_SEEDS, DiagnosticId, Word
from harness.verdicts.case import Case
from harness.verdicts.claims import Claim, of_run
from harness.verdicts.findings import Arm
from harness.verdicts.levels import DIRECTION, EQUIVALENCE, UNITS
from harness.verdicts.questions.arms import completeness, determinism, replay
from harness.verdicts.questions.question import Question
from harness.verdicts.vetoes import Veto, Vetoes, veto

ON_THESE_WEIGHTS: Final[dict[Word, Word]] = {
    "equivalent": "within the margin on these weights",
    "easier to attack": "higher on these weights",
    "harder to attack": "lower on these weights",
}
"""What is said instead with too few training seeds to speak of a treatment."""
UNREMARKABLE: Final[tuple[Word, ...]] = (
    "equivalent",
    "undecided",
    *ON_THESE_WEIGHTS.values(),
)
"""What a replica may be found to be: other weights do differ."""


@dataclass(frozen=True)
class Decision:
    """What an arm is called, and why."""

    word: Word
    reasons: Sequence[str]
    decided_by: Sequence[DiagnosticId] = ()


def decide(case: Case, run: int = 0) -> Decision:
    """Return what the first line that applies says of an arm, in one of the runs."""
    for line in LINES:
        decision = line(case, run)
        if decision is not None:
            return decision
    return _undecided(case, run)


# --- the lines ----------------------------------------------------------------------


def _nothing_asked(case: Case, _: int) -> Decision | None:
    if case.findings.diagnostics == "none":
        return Decision("undecided", ["the suite asks for no diagnostics"])
    if not case.findings.of("main"):
        return Decision("undecided", ["no attack searches"])
    return None


def _attack_invalid(case: Case, run: int) -> Decision | None:
    where = f"on {case.reference.label}: "
    faults = [x for x in case.unsound if x.status(run) == "fail"]
    if faults:
        return _because("attack invalid", faults, where)
    deterministic = determinism(case.reference)
    if deterministic.absence is not None:
        return _because("undecided", [deterministic], where)
    if any(_works(asked, run) for asked in case.proofs.values()):
        return None
    proofs = [x for asked in case.proofs.values() for x in asked]
    losers = [x for x in proofs if x.status(run) == "fail"]
    unasked = [label for label, asked in case.proofs.items() if not _answered(asked)]
    if not unasked:
        return _because("attack invalid", losers, where)
    why = [f"{x.attack}: {x.absence}" for x in proofs if x.absence is not None]
    reason = f"nothing shows that {', '.join(unasked)} works on {case.reference.label}"
    return Decision(
        "undecided",
        [": ".join([reason, *["; ".join(why)] * bool(why)])],
        ["beats_random"],
    )


def _not_applied(case: Case, _: int) -> Decision | None:
    fault = _promise_broken(case.arm)
    return Decision("not applied", [fault]) if fault else None


def _reference(case: Case, run: int) -> Decision | None:
    if case.arm.reference is not None:
        return None
    invalid = [x for x, asked in case.proofs.items() if not _works(asked, run)]
    reasons = ["the arm that others are held against"]
    reasons += [
        f"{x} is not shown to work: its numbers alone are no evidence" for x in invalid
    ]
    return Decision("reference", reasons)


def _broken(case: Case, run: int) -> Decision | None:
    if case.contrast is None:
        return None
    own, attacked = (
        of_run(case.contrast.clean, run),
        of_run(case.contrast.attacked_reference, run),
    )
    if own <= attacked:
        return None
    reason = (
        f"its loss without an attack, {own:.3f}, is above the {attacked:.3f} of "
        f"{case.reference.label} under attack, so a small further rise is no evidence"
    )
    return Decision("broken", [reason])


def _gradient_masked(case: Case, run: int) -> Decision | None:
    signs = [x for x in case.masking if x.status(run) == "fail"]
    return _because("gradient-masked", signs) if signs else None


def _not_trusted(case: Case, run: int) -> Decision | None:
    asked = [completeness(case.arm), determinism(case.arm), replay(case.arm)]
    faults = [x for x in asked if x.status(run) != "pass"]
    if faults:
        return _because("undecided", faults)
    fault = _promise_broken(case.reference)
    if fault:
        return Decision("undecided", [f"on {case.reference.label}: {fault}"])
    if case.contrast is not None and case.units < UNITS:
        return Decision("undecided", [f"{case.units} documents are fewer than {UNITS}"])
    for replica in case.replicas:
        reason = _told_apart(case, replica, run)
        if reason:
            return Decision("undecided", [reason])
    return None


def _equivalent(case: Case, run: int) -> Decision | None:
    if case.contrast is None or not _shown(case.contrast.equivalent, run, EQUIVALENCE):
        return None
    margin = case.findings.margin
    reason = f"the difference is shown to be within the margin of {margin}"
    return Decision(_scoped(case, "equivalent"), [reason])


def _easier(case: Case, run: int) -> Decision | None:
    if not _shown(case.easier, run, DIRECTION):
        return None
    return _directed(case, run, "easier to attack", case.for_easier)


def _harder(case: Case, run: int) -> Decision | None:
    if not _shown(case.harder, run, DIRECTION):
        return None
    return _directed(case, run, "harder to attack", case.for_harder)


LINES: Final[tuple[Callable[[Case, int], Decision | None], ...]] = (
    _nothing_asked,
    _attack_invalid,
    _not_applied,
    _reference,
    _broken,
    _gradient_masked,
    _not_trusted,
    _equivalent,
    _easier,
    _harder,
)


def _undecided(case: Case, run: int) -> Decision:
    if case.contrast is None:
        reason = f"no attack is complete on both it and {case.reference.label}"
        return Decision("undecided", [reason])
    for claim, vetoes, word in (
        (case.easier, case.for_easier, "easier"),
        (case.harder, case.for_harder, "harder"),
    ):
        if _shown(claim, run, DIRECTION):
            return _open(
                vetoes.of(run), f"it would be {word} to attack, but for this: "
            )
    reason = "its difference is neither shown to be one nor to be within the margin"
    return Decision("undecided", [reason])


# --- parts of lines -----------------------------------------------------------------


def _directed(case: Case, run: int, word: Word, vetoes: Vetoes) -> Decision | None:
    """Say a directional word where nothing stands in its way.

    Of these weights it is said all the same, with what stands in its way; but never
    where errors do.
    """
    assert case.contrast is not None
    against = vetoes.of(run)
    blocked = vetoes.errors if not case.contrast.of_treatment else against
    if blocked:
        return None
    reasons = ["the difference is shown at every budget"]
    reasons += [f"open: {each.sentence}" for each in against]
    return Decision(_scoped(case, word), reasons, _ids(against))


def _promise_broken(arm: Arm) -> str | None:
    """Say in what an arm is not what it promises; None where it is."""
    for found in arm.certificates:
        if found.failed:
            return "its certificate failed"
        if found.examined < found.expected:
            few = f"{found.examined} of {found.expected} matrices"
            return f"what it promises covers {few} that its scope names"
    return None


def _told_apart(case: Case, replica: Case, run: int) -> str | None:
    """Say why a replica takes the word away from an arm; None where it does not."""
    label = replica.arm.label
    if remarkable(replica, run):
        return (
            f"{label} differs from {replica.reference.label} in nothing, "
            "and is told apart from it: so might any arm be"
        )
    unknown = _unseen(case, replica, run)
    return f"whether {label} is told apart is not known: {unknown}" if unknown else None


def _unseen(case: Case, replica: Case, run: int) -> str | None:
    """Say what a replica lacks to be seen as well as an arm; None if nothing."""
    ours, own = case.contrast, replica.contrast
    if own is None:
        return "none of its cells is complete"
    if ours is None:
        return None
    if ours.of_treatment and not own.of_treatment:
        return f"it has fewer seeds than {TREATMENT_SEEDS}"
    main = (attack.label for attack in case.findings.of("main"))
    both = set(ours.shared.labels) - set(own.shared.labels)
    lacking = [label for label in main if label in both]
    if lacking:
        return f"it lacks {', '.join(lacking)}"
    doubt = _not_trusted(replica, run)
    return doubt.reasons[0] if doubt else None


def remarkable(case: Case, run: int = 0) -> bool:
    """Say whether a replica is told apart from the arm that it repeats."""
    if decide(case, run).word not in UNREMARKABLE:
        return True
    if case.contrast is None or not case.contrast.of_treatment:
        return False
    shown = [case.contrast.harder, case.contrast.easier]
    return any(_shown(claim, run, DIRECTION) for claim in shown)


def _scoped(case: Case, word: Word) -> Word:
    assert case.contrast is not None
    return word if case.contrast.of_treatment else ON_THESE_WEIGHTS[word]


def _works(asked: Sequence[Question], run: int) -> bool:
    """Say whether an attack is shown to beat each of its random controls."""
    return bool(asked) and all(x.status(run) == "pass" for x in asked)


def _answered(asked: Sequence[Question]) -> bool:
    return bool(asked) and all(x.absence is None for x in asked)


def _shown(claim: Claim | None, run: int, level: float) -> bool:
    return claim is not None and claim.shown(level, run)


def _because(word: Word, faults: Sequence[Question], where: str = "") -> Decision:
    found = [veto(question) for question in faults]
    return Decision(word, [where + each.sentence for each in found], _ids(found))


def _open(against: Sequence[Veto], lead: str) -> Decision:
    unanswered = [x for x in against if x.absent]
    answered = [x.sentence for x in against if not x.absent]
    if unanswered:
        answered.append(
            f"without an answer: {'; '.join(x.sentence for x in unanswered)}"
        )
    return Decision("undecided", [lead + answered[0], *answered[1:]], _ids(against))


def _ids(found: Iterable[Veto]) -> list[DiagnosticId]:
    return list(dict.fromkeys(x.id for x in found if x.id is not None))
