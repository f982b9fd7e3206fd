"""The rule of verdicts: docs/rigour.md has it as a table, and `decide` is that table.

The first line that applies decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.records import DiagnosticId, Estimate, Judged, Word
from harness.verdicts.questions.seeds import OF_CELLS, OF_SUBJECTS
from harness.verdicts.results import Arm

EQUIVALENCE_NATS = 0.02
"""An effect whose whole interval is as small as this is called none."""
LEVEL = 0.025
"""Of the one-sided tests that an arm is more robust, after Holm."""

MASKING: tuple[DiagnosticId, ...] = (
    "gradient_health",
    "gradient_truth",
    "first_order_fidelity",
    "transfer",
)
"""What speaks of a hidden gradient where it fires on the arm and not on the baseline;
so does `gradient_ablation` against an attack that needs no gradient."""
PER_ATTACK: tuple[DiagnosticId, ...] = (
    "beats_random",
    "gradient_ablation",
    *OF_CELLS,
    "unbounded_sanity",
    "convergence",
)
"""What one valid attack has to pass, all of it, for an arm to be called robust."""
PER_ARM: tuple[DiagnosticId, ...] = (
    *OF_SUBJECTS,
    "transfer",
    "planted_weakness",
    "equal_clean_loss",
    "worst_case",
    "replay",
    "completeness",
)
"""What the arm itself has to pass."""


@dataclass(frozen=True)
class Case:
    """What a verdict rests on."""

    arm: Arm
    own: list[Judged]
    """The answers about the arm."""
    base: list[Judged]
    """Those about the baseline arm."""
    difference: Estimate | None
    """Of worst-case dL from the baseline arm; None where nothing can be paired."""
    p: float | None
    """That it is not below 0: one-sided, Holm over the arms."""
    match_difference: Estimate | None
    """The same against a baseline of equal clean loss."""
    match_p: float | None
    clean_loss: float | None
    attacked_baseline: float | None
    """Mean loss of the baseline arm under its strongest attacks, as `clean_loss` in
    nats/token; None of the baseline arm itself."""


@dataclass(frozen=True)
class Decision:
    """What an arm is called, and why."""

    word: Word
    reasons: list[str]
    decided_by: tuple[DiagnosticId, ...] = ()


def decide(case: Case) -> Decision:
    """Return what the first line that applies says."""
    steps = (
        _nothing_asked,
        _attack_invalid,
        _reference,
        _broken,
        _gradient_masked,
        _holes,
        _no_effect,
        _robust,
    )
    for step in steps:
        decision = step(case)
        if decision is not None:
            return decision
    return _inconclusive(case)


def _nothing_asked(case: Case) -> Decision | None:
    if case.arm.results.suite.diagnostics == "none":
        return Decision("inconclusive", ["the suite asks for no diagnostics"])
    if not case.arm.baseline.attacks:
        return Decision("inconclusive", ["no attack searches"])
    return None


def _attack_invalid(case: Case) -> Decision | None:
    """Say so where no attack is shown to work on the baseline arm."""
    # Each of these makes every number of the baseline arm worthless.
    unsound = _fired(case.base, ["determinism", "gradient_health", "gradient_truth"])
    if unsound:
        reasons = [f"on the baseline arm: {answer.reason}" for answer in unsound]
        return Decision("attack invalid", reasons, _ids(unsound))
    verdicts = {x: _validity(case, x) for x in case.arm.baseline.attacks}
    if any(word == "valid" for word in verdicts.values()):
        return None
    losers = [
        answer
        for attack in verdicts
        for answer in answers_to(case.base, "beats_random", attack)
        if answer.status == "fail"
    ]
    if all(word == "invalid" for word in verdicts.values()):
        reasons = [f"{x.attack} on the baseline arm: {x.reason}" for x in losers]
        return Decision("attack invalid", reasons, ("beats_random",))
    unproven = [x for x, word in verdicts.items() if word == "unproven"]
    reason = f"nothing shows that {', '.join(unproven)} works on the baseline arm"
    lacking = [
        answer.reason or ""
        for attack in unproven
        for answer in answers_to(case.base, "beats_random", attack)
    ]
    return Decision(
        "inconclusive", [f"{reason}: {'; '.join(lacking)}"], ("beats_random",)
    )


def _reference(case: Case) -> Decision | None:
    if not case.arm.is_baseline:
        return None
    invalid = [x for x in case.arm.attacks if _validity(case, x) == "invalid"]
    reasons = ["the baseline arm, which others are compared with"]
    reasons += [f"{x} is invalid: its numbers alone are no evidence" for x in invalid]
    return Decision("reference", reasons)


def _broken(case: Case) -> Decision | None:
    """Say so where the arm without an attack is worse than the attacked baseline."""
    own, attacked = case.clean_loss, case.attacked_baseline
    if own is None or attacked is None or own <= attacked:
        return None
    reason = (
        f"broken: its loss without an attack, {own:.3f}, is above the {attacked:.3f} "
        "of the baseline arm under attack, so a small further rise is no evidence"
    )
    return Decision("inconclusive", [reason])


def _gradient_masked(case: Case) -> Decision | None:
    """Say so where the arm's gradient fails, and the baseline arm's does not."""
    signs = [
        answer
        for name in MASKING
        for answer in _fired(case.own, [name])
        if not _fired(case.base, [name])
    ]
    signs += [
        answer
        for answer in _fired(case.own, ["gradient_ablation"])
        if answer.against in case.arm.attacks  # not a control
        and not _fired_alike(case.base, answer)
        and _validity(case, answer.attack) == "valid"
    ]
    return _because("gradient-masked", signs) if signs else None


def _holes(case: Case) -> Decision | None:
    fatal = _fired(case.own, ["completeness", "determinism"])
    return _because("inconclusive", fatal) if fatal else None


def _no_effect(case: Case) -> Decision | None:
    found = case.difference
    if found is None or found.interval is None or found.value is None:
        return None
    low, high = found.interval
    shown = f"{found.value:+.3f} [{low:+.3f}, {high:+.3f}] nats/token"
    if low > 0:
        reason = f"it is easier to attack than the baseline: {shown}"
        return Decision("no effect", [reason])
    if high >= 0:
        reason = f"the difference from the baseline includes 0: {shown}"
        return Decision("no effect", [reason])
    if low > -EQUIVALENCE_NATS:
        reason = f"the difference is within {EQUIVALENCE_NATS} nats of 0: {shown}"
        return Decision("no effect", [reason])
    unequal = _fired(case.own, ["equal_clean_loss"])
    return _because("no effect", unequal) if unequal else None


def _robust(case: Case) -> Decision | None:
    if case.difference is None or _obstacles(case):
        return None
    found, best = case.difference, _proven(case)
    interval = found.interval or (0.0, 0.0)
    shown = f"{found.value:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"
    reason = f"it is harder to attack: {shown} nats/token (Holm p {case.p:.2g}"
    return Decision(
        "robust",
        [f"{reason}; against its match {case.match_p:.2g}); {best} passed all"],
        (*PER_ATTACK, *PER_ARM),
    )


def _inconclusive(case: Case) -> Decision:
    if case.difference is None:
        return Decision(
            "inconclusive", ["its worst case cannot be paired with the baseline's"]
        )
    answers = _obstacles(case)
    answered = [x for x in answers if x.status != "not_applicable"]
    reasons = list(dict.fromkeys(map(_spelt, answered)))
    lacking = _ids(x for x in answers if x.status == "not_applicable")
    if lacking:
        full = case.arm.results.suite.diagnostics == "full"
        remedy = "" if full else "; diagnostics: full asks all"
        reasons.append(f"without an answer: {', '.join(lacking)}{remedy}")
    return Decision("inconclusive", reasons, _ids(answers))


# --- parts of the rule --------------------------------------------------------------


def _because(word: Word, answers: Sequence[Judged]) -> Decision:
    """Return the decision that some answers make, each of them a reason."""
    return Decision(word, [_spelt(answer) for answer in answers], _ids(answers))


def _validity(case: Case, attack: str | None) -> str:
    """Say whether an attack beats its random controls on the baseline arm."""
    found = [x for x in answers_to(case.base, "beats_random", attack) if x.against]
    if any(answer.status == "fail" for answer in found):
        return "invalid"
    shown = [answer for answer in found if answer.status in ("pass", "warn")]
    return "valid" if shown else "unproven"


def _obstacles(case: Case) -> list[Judged]:
    """Return the answers that keep an arm from being called robust."""
    found = [
        x for name in PER_ARM for x in answers_to(case.own, name) if x.status != "pass"
    ]
    if not _proven(case):
        for attack in case.arm.attacks:
            if _validity(case, attack) == "valid":
                found += _not_passed(case, attack)
    if case.p is None or case.p >= LEVEL:
        found += [x for x in answers_to(case.own, "worst_case") if x not in found]
    if case.match_p is None or case.match_p >= LEVEL:
        found += [x for x in answers_to(case.own, "equal_clean_loss") if x not in found]
    return found


def _proven(case: Case) -> str | None:
    """Return a valid attack that passed all questions, on arm and baseline alike."""
    for attack in case.arm.attacks:
        if _validity(case, attack) == "valid" and not _not_passed(case, attack):
            return attack
    return None


def _not_passed(case: Case, attack: str) -> list[Judged]:
    return [
        answer
        for answers in (case.own, case.base)
        for name in PER_ATTACK
        for answer in answers_to(answers, name, attack)
        if answer.status != "pass"
    ]


def _fired_alike(answers: Iterable[Judged], like: Judged) -> bool:
    return any(
        (x.id, x.attack, x.against) == (like.id, like.attack, like.against)
        and x.status == "fail"
        for x in answers
    )


def _fired(answers: Iterable[Judged], names: Sequence[DiagnosticId]) -> list[Judged]:
    return [x for x in answers if x.id in names and x.status == "fail"]


def answers_to(
    answers: Iterable[Judged], name: DiagnosticId, attack: str | None = None
) -> list[Judged]:
    """Return the answers to a question, of one attack where one is named."""
    return [x for x in answers if x.id == name and attack in (None, x.attack)]


def _ids(answers: Iterable[Judged]) -> tuple[DiagnosticId, ...]:
    return tuple(dict.fromkeys(answer.id for answer in answers))


def _spelt(answer: Judged) -> str:
    about = f" ({answer.attack})" if answer.attack else ""
    reason = answer.reason or "not significant over all arms"
    return f"{answer.id}{about}: {reason}"
