"""The verdict of each arm, from records alone."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from harness.records import ArmVerdict, Estimate, Verdicts, holm, paired_p
from harness.verdicts.pairing import Pairing, mean_clean_loss
from harness.verdicts.questions.all import ask
from harness.verdicts.questions.equal_loss import match_of
from harness.verdicts.results import Arm, Results
from harness.verdicts.rule import Case, answers_to, decide


def judge(results: Results) -> Verdicts:
    """Return the verdict of every arm that is compared."""
    arms = results.treatments
    answers = {arm: ask(arm) for arm in arms}
    # The baseline arm is compared with nothing: those pairs would count for Holm.
    treated = [arm for arm in arms if not arm.is_baseline]
    against = {arm: arm.against(arm.baseline) for arm in treated}
    matched = {arm: _against_match(arm) for arm in treated}
    p_values, match_p_values = _adjusted(against), _adjusted(matched)
    cases = [
        Case(
            arm=arm,
            own=answers[arm],
            base=answers[arm.baseline],
            difference=_difference(against.get(arm)),
            p=p_values.get(arm),
            match_difference=_difference(matched.get(arm)),
            match_p=match_p_values.get(arm),
            clean_loss=_clean_loss(arm),
            attacked_baseline=_attacked_loss(against.get(arm)),
        )
        for arm in arms
    ]
    return Verdicts(
        suite=results.suite.name,
        diagnostics=results.suite.diagnostics,
        threshold=results.threshold,
        arms=[_verdict(case) for case in cases],
    )


def _verdict(case: Case) -> ArmVerdict:
    decision = decide(case)
    arm = case.arm
    [shown] = answers_to(case.own, "worst_case")
    estimate = Estimate(
        value=shown.value,
        n=shown.n,
        unit="nats/token",
        method="mean over examples of the highest dL",
        interval=shown.interval,
        reason=shown.reason,
    )
    return ArmVerdict(
        model=arm.model,
        arm=arm.label,
        verdict=decision.word,
        reasons=decision.reasons,
        decided_by=list(decision.decided_by),
        clean_loss=case.clean_loss,
        attacked_baseline=case.attacked_baseline,
        worst_case=estimate if shown.value is not None else None,
        difference=case.difference,
        p=case.p,
        match_difference=case.match_difference,
        match_p=case.match_p,
        diagnostics=case.own,
    )


def _clean_loss(arm: Arm) -> float | None:
    worst = arm.worst(arm.united)
    return mean_clean_loss(row for cell in worst.values() for row in cell.rows)


def _attacked_loss(pairing: Pairing | None) -> float | None:
    """Return the mean loss under attack of the second side."""
    rows = pairing.second if pairing is not None else []
    known = [x.adversarial_loss for x in rows if x.adversarial_loss is not None]
    return fmean(known) if known else None


def _against_match(arm: Arm) -> Pairing | None:
    match = match_of(arm)
    return None if isinstance(match, str) else arm.against(match)


def _difference(pairing: Pairing | None) -> Estimate | None:
    return pairing.difference() if pairing is not None else None


def _adjusted(pairings: Mapping[Arm, Pairing | None]) -> dict[Arm, float]:
    """Return Holm-adjusted one-sided p-values of the arms that could be paired."""
    raw = {arm: _p_lower(found) for arm, found in pairings.items() if found}
    return dict(zip(raw, holm([*raw.values()]), strict=True))


def _p_lower(pairing: Pairing) -> float:
    differences = [b - a for a, b in zip(*pairing.deltas, strict=True)]
    return paired_p(differences, pairing.known_documents)
