"""Verdicts: what is to be thought of each arm, by a fixed rule, from records alone.

docs/rigour.md has the rule as a table; `_decide` is that table. The first line that
applies decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.diagnostics.judged import ArmVerdict, Judged, Verdicts, Word
from harness.diagnostics.questions import SUBJECT_IDS, Inquiry
from harness.evidence.pairing import Pairing
from harness.evidence.results import Results
from harness.records import DiagnosticId, Estimate
from harness.statistics import holm, paired_p

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
    "iterative_beats_one_step",
    "budget_curve",
    "unbounded_sanity",
    "convergence",
)
"""What one valid attack has to pass, all of it, for an arm to be called robust."""
PER_ARM: tuple[DiagnosticId, ...] = (
    *SUBJECT_IDS,
    "transfer",
    "planted_weakness",
    "equal_clean_loss",
    "worst_case",
    "replay",
    "completeness",
)
"""What the arm itself has to pass."""


@dataclass(frozen=True)
class _Case:
    """What a verdict rests on."""

    inquiry: Inquiry
    own: list[Judged]
    base: list[Judged]
    difference: Estimate | None
    p: float | None
    match_difference: Estimate | None
    match_p: float | None


@dataclass(frozen=True)
class _Decision:
    word: Word
    reasons: list[str]
    decided_by: tuple[DiagnosticId, ...] = ()


def judge(results: Results) -> Verdicts:
    """Return the verdict of every arm that is compared."""
    suite = results.suite
    inquiries = [Inquiry(results, subjects) for subjects in results.treatments]
    answers = {each.subjects: each.ask() for each in inquiries}
    treated = [each for each in inquiries if not each.is_baseline]
    against = {x.subjects: x.compared_with(x.subjects.baseline) for x in treated}
    matched = {x.subjects: _match_pairing(x) for x in treated}
    p_values = _adjusted([against[x.subjects] for x in treated])
    match_p = _adjusted([matched[x.subjects] for x in treated])
    cases = []
    for inquiry in inquiries:
        subjects = inquiry.subjects
        place = treated.index(inquiry) if inquiry in treated else None
        cases.append(
            _Case(
                inquiry=inquiry,
                own=answers[subjects],
                base=answers[subjects.baseline],
                difference=_difference(against.get(subjects)),
                p=None if place is None else p_values[place],
                match_difference=_difference(matched.get(subjects)),
                match_p=None if place is None else match_p[place],
            )
        )
    return Verdicts(
        suite=suite.name,
        diagnostics=suite.diagnostics,
        threshold=results.threshold,
        arms=[_verdict(case) for case in cases],
    )


def _verdict(case: _Case) -> ArmVerdict:
    decision = _decide(case)
    subjects, worst = case.inquiry.subjects, case.inquiry.worst(case.inquiry.united)
    rows = [row for cell in worst.values() for row in cell.rows]
    clean = [row.clean_loss for row in rows if row.clean_loss is not None]
    [shown] = _all(case.own, "worst_case")
    estimate = Estimate(
        value=shown.value,
        n=shown.n,
        unit="nats/token",
        method="mean over examples of the highest dL",
        interval=shown.interval,
        reason=shown.reason,
    )
    return ArmVerdict(
        model=subjects.model,
        arm=subjects.arm,
        verdict=decision.word,
        reasons=decision.reasons,
        decided_by=list(decision.decided_by),
        clean_loss=fmean(clean) if clean else None,
        worst_case=estimate if shown.value is not None else None,
        difference=case.difference,
        p=case.p,
        match_difference=case.match_difference,
        match_p=case.match_p,
        diagnostics=case.own,
    )


# --- the rule -----------------------------------------------------------------------


def _decide(case: _Case) -> _Decision:
    steps = (
        _nothing_asked,
        _attack_invalid,
        _reference,
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


def _nothing_asked(case: _Case) -> _Decision | None:
    if case.inquiry.results.suite.diagnostics == "none":
        return _Decision("inconclusive", ["the suite asks for no diagnostics"])
    if not case.inquiry.baseline.attacks:
        return _Decision("inconclusive", ["no attack searches"])
    return None


def _attack_invalid(case: _Case) -> _Decision | None:
    """Say so where no attack is shown to work on the baseline arm."""
    sound = _unsound(case.base)
    if sound:
        reasons = [f"on the baseline arm: {answer.reason}" for answer in sound]
        return _Decision("attack invalid", reasons, _ids(sound))
    verdicts = {x: _validity(case, x) for x in case.inquiry.baseline.attacks}
    if any(word == "valid" for word in verdicts.values()):
        return None
    losers = [
        answer
        for attack in verdicts
        for answer in _all(case.base, "beats_random", attack)
        if answer.status == "fail"
    ]
    if all(word == "invalid" for word in verdicts.values()):
        reasons = [f"{x.attack} on the baseline arm: {x.reason}" for x in losers]
        return _Decision("attack invalid", reasons, ("beats_random",))
    unproven = [x for x, word in verdicts.items() if word == "unproven"]
    reason = f"nothing shows that {', '.join(unproven)} works on the baseline arm"
    lacking = [
        answer.reason or ""
        for attack in unproven
        for answer in _all(case.base, "beats_random", attack)
    ]
    return _Decision(
        "inconclusive", [f"{reason}: {'; '.join(lacking)}"], ("beats_random",)
    )


def _reference(case: _Case) -> _Decision | None:
    if not case.inquiry.is_baseline:
        return None
    invalid = [x for x in case.inquiry.attacks if _validity(case, x) == "invalid"]
    reasons = ["the baseline arm, which others are compared with"]
    reasons += [f"{x} is invalid: its numbers alone show nothing" for x in invalid]
    return _Decision("reference", reasons)


def _gradient_masked(case: _Case) -> _Decision | None:
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
        if _is_gradient_free(case, answer)
        and not _fired_alike(case.base, answer)
        and _validity(case, answer.attack) == "valid"
    ]
    if not signs:
        return None
    return _Decision("gradient-masked", [_spelt(x) for x in signs], _ids(signs))


def _holes(case: _Case) -> _Decision | None:
    fatal = _fired(case.own, ["completeness", "determinism"])
    if not fatal:
        return None
    return _Decision("inconclusive", [_spelt(x) for x in fatal], _ids(fatal))


def _no_effect(case: _Case) -> _Decision | None:
    found = case.difference
    if found is None or found.interval is None or found.value is None:
        return None
    low, high = found.interval
    shown = f"{found.value:+.3f} [{low:+.3f}, {high:+.3f}] nats/token"
    if low > 0:
        reason = f"the worst attack does more harm than to the baseline: {shown}"
        return _Decision("no effect", [reason])
    if high >= 0:
        reason = f"the difference from the baseline includes 0: {shown}"
        return _Decision("no effect", [reason])
    if low > -EQUIVALENCE_NATS:
        reason = f"the difference is within {EQUIVALENCE_NATS} nats of 0: {shown}"
        return _Decision("no effect", [reason])
    unequal = _fired(case.own, ["equal_clean_loss"])
    if unequal:
        return _Decision("no effect", [_spelt(x) for x in unequal], _ids(unequal))
    return None


def _robust(case: _Case) -> _Decision | None:
    if case.difference is None or _obstacles(case):
        return None
    found, best = case.difference, _proven(case)
    interval = found.interval or (0.0, 0.0)
    shown = f"{found.value:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"
    reason = f"the worst attack does less harm: {shown} nats/token (Holm p {case.p:.2g}"
    return _Decision(
        "robust",
        [f"{reason}; against its match {case.match_p:.2g}); {best} passed all"],
        (*PER_ATTACK, *PER_ARM),
    )


def _inconclusive(case: _Case) -> _Decision:
    if case.difference is None:
        return _Decision(
            "inconclusive", ["worst cases cannot be paired with the baseline's"]
        )
    answers = _obstacles(case)
    answered = [x for x in answers if x.status != "not_applicable"]
    reasons = list(dict.fromkeys(map(_spelt, answered)))
    lacking = _ids(x for x in answers if x.status == "not_applicable")
    if lacking:
        full = case.inquiry.results.suite.diagnostics == "full"
        remedy = "" if full else "; diagnostics: full asks all"
        reasons.append(f"without an answer: {', '.join(lacking)}{remedy}")
    return _Decision("inconclusive", reasons, _ids(answers))


# --- parts of the rule --------------------------------------------------------------


def _unsound(base: Sequence[Judged]) -> list[Judged]:
    """Return what makes every number of the baseline arm worthless."""
    return _fired(base, ["determinism", "gradient_health", "gradient_truth"])


def _validity(case: _Case, attack: str | None) -> str:
    """Say whether an attack beats its random controls on the baseline arm."""
    found = [x for x in _all(case.base, "beats_random", attack) if x.against]
    if any(answer.status == "fail" for answer in found):
        return "invalid"
    shown = [answer for answer in found if answer.status in ("pass", "warn")]
    return "valid" if shown else "unproven"


def _obstacles(case: _Case) -> list[Judged]:
    """Return the answers that keep an arm from being called robust."""
    found = [x for name in PER_ARM for x in _all(case.own, name) if x.status != "pass"]
    if not _proven(case):
        for attack in case.inquiry.attacks:
            if _validity(case, attack) == "valid":
                found += _not_passed(case, attack)
    if case.p is None or case.p >= LEVEL:
        found += [x for x in _all(case.own, "worst_case") if x not in found]
    if case.match_p is None or case.match_p >= LEVEL:
        found += [x for x in _all(case.own, "equal_clean_loss") if x not in found]
    return found


def _proven(case: _Case) -> str | None:
    """Return a valid attack that passed all questions, on arm and baseline alike."""
    for attack in case.inquiry.attacks:
        if _validity(case, attack) == "valid" and not _not_passed(case, attack):
            return attack
    return None


def _not_passed(case: _Case, attack: str) -> list[Judged]:
    return [
        answer
        for answers in (case.own, case.base)
        for name in PER_ATTACK
        for answer in _all(answers, name, attack)
        if answer.status != "pass"
    ]


def _is_gradient_free(case: _Case, answer: Judged) -> bool:
    others = case.inquiry.attacks
    return answer.against in others


def _fired_alike(answers: Iterable[Judged], like: Judged) -> bool:
    return any(
        (x.id, x.attack, x.against) == (like.id, like.attack, like.against)
        and x.status == "fail"
        for x in answers
    )


def _fired(answers: Iterable[Judged], names: Sequence[DiagnosticId]) -> list[Judged]:
    return [x for x in answers if x.id in names and x.status == "fail"]


def _all(
    answers: Iterable[Judged], name: DiagnosticId, attack: str | None = None
) -> list[Judged]:
    return [x for x in answers if x.id == name and attack in (None, x.attack)]


def _ids(answers: Iterable[Judged]) -> tuple[DiagnosticId, ...]:
    return tuple(dict.fromkeys(answer.id for answer in answers))


def _spelt(answer: Judged) -> str:
    about = f" ({answer.attack})" if answer.attack else ""
    reason = answer.reason or "not significant over all arms"
    return f"{answer.id}{about}: {reason}"


# --- differences --------------------------------------------------------------------


def _match_pairing(inquiry: Inquiry) -> Pairing | None:
    match, _ = inquiry.match()
    return inquiry.compared_with(match) if match is not None else None


def _difference(pairing: Pairing | None) -> Estimate | None:
    return pairing.difference() if pairing is not None else None


def _adjusted(pairings: Sequence[Pairing | None]) -> list[float | None]:
    """Return one-sided p-values that dL is lower, Holm over those that there are."""
    raw = [_p_lower(pairing) for pairing in pairings if pairing is not None]
    left = iter(holm(raw))
    return [None if pairing is None else next(left) for pairing in pairings]


def _p_lower(pairing: Pairing) -> float:
    differences = [
        b.delta_loss - a.delta_loss
        for a, b in zip(pairing.first, pairing.second, strict=True)
    ]
    return paired_p(differences, pairing.documents)
