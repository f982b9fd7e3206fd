"""The verdict of each arm, from findings alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

from harness.records import (
    ArmVerdict,
    AtShare,
    Calibration,
    Components,
    Crossed,
    Detected,
    DiagnosticId,
    Difference,
    Estimate,
    Judged,
    Said,
    Tested,
    Verdicts,
)
from harness.verdicts.case import Case, Cases
from harness.verdicts.claims import Claim, of_run
from harness.verdicts.contrast import Contrast
from harness.verdicts.design import detectable, margin_nats, needed
from harness.verdicts.findings import SHARES, Findings, Floats
from harness.verdicts.levels import DIRECTION, EQUIVALENCE
from harness.verdicts.questions.arms import (
    completeness,
    determinism,
    equal_clean_loss,
    replay,
)
from harness.verdicts.questions.gradients import untrue_slopes
from harness.verdicts.questions.planted import detections, limit
from harness.verdicts.questions.question import Question
from harness.verdicts.rule import Decision, decide

Calibrated = Mapping[tuple[str, str], Calibration]
"""Calibrations by model and arm."""


def judge(findings: Findings, calibrated: Calibrated | None = None) -> Verdicts:
    """Return the verdict of every arm that is judged: treatments and replicas."""
    cases = Cases(findings)
    return Verdicts(
        suite=findings.suite,
        diagnostics=findings.diagnostics,
        margin=str(findings.margin),
        margin_change=findings.margin_change,
        threshold=findings.threshold,
        arms=[_verdict(case, calibrated or {}) for case in cases.judged],
    )


def _verdict(case: Case, calibrated: Calibrated) -> ArmVerdict:
    arm, contrast, decision = case.arm, case.contrast, decide(case)
    changed = case.findings.margin_change
    reasons = list(decision.reasons)
    if changed:
        reasons.append(f"exploratory: {changed}")
    return ArmVerdict(
        model=arm.model,
        arm=arm.label,
        reference=arm.reference,
        verdict=decision.word,
        scope=_scope(contrast) if contrast else None,
        exploratory=changed is not None,
        reasons=reasons,
        decided_by=list(decision.decided_by),
        clean_loss=_clean_loss(case),
        attacked_reference=of_run(contrast.attacked_reference) if contrast else None,
        worst_case=_worst_case(case),
        difference=_difference(case, contrast, decision) if contrast else None,
        detection=[
            Detected.model_validate(x, from_attributes=True) for x in detections(arm)
        ],
        detection_limit=limit(arm),
        calibration=calibrated.get((arm.model, arm.label)),
        diagnostics=answers(case),
    )


# --- the difference -----------------------------------------------------------------


def _scope(contrast: Contrast) -> Literal["treatment", "weights"]:
    return "treatment" if contrast.of_treatment else "weights"


def _difference(case: Case, contrast: Contrast, decision: Decision) -> Difference:
    contrasts = max(1, len(case.cases.family))
    shown = contrast.shown
    return Difference(
        value=of_run(shown.mean),
        interval=_interval(shown),
        sides=(
            of_run(contrast.worst_case(contrast.arm).mean),
            of_run(contrast.worst_case(contrast.reference).mean),
        ),
        documents=shown.n,
        seeds=contrast.seeds,
        searches=1,
        attacks=list(contrast.shared.labels),
        components=_components(shown),
        margin_nats=margin_nats(contrast),
        by_share=[
            AtShare(
                share=share,
                value=of_run(claim.about.mean),
                interval=_interval(claim.about),
            )
            for share, claim in zip(SHARES, contrast.at_shares, strict=True)
        ],
        claims=list(_said(case, contrast)),
        detectable=detectable(contrast, contrasts),
        needed=needed(contrast, contrasts) if decision.word == "undecided" else None,
        error_share=contrast.errors,
    )


def _said(case: Case, contrast: Contrast) -> Iterator[Said]:
    for word, claim, level in (
        ("harder to attack", case.harder, DIRECTION),
        ("easier to attack", case.easier, DIRECTION),
        ("equivalent", contrast.equivalent, EQUIVALENCE),
    ):
        assert claim is not None  # there is a contrast
        yield Said.model_validate(
            {
                "claim": word,
                "p": of_run(claim.p),
                "level": level,
                "shown": claim.shown(level),
            }
        )


def _worst_case(case: Case) -> Estimate | None:
    contrast = case.contrast or _own(case)
    if not contrast.seeds:
        return None
    found = contrast.worst_case(case.arm)
    interval = _interval(found)
    return Estimate(
        value=of_run(found.mean),
        n=found.n,
        unit="nats/token",
        method="mean over seeds and documents of dL under the worst attack",
        interval=interval,
        reason=None if interval else "no interval from one document",
    )


def _clean_loss(case: Case) -> float | None:
    """Return the mean clean loss of an arm; None without a cell that has one."""
    found = of_run((case.contrast or _own(case)).clean)
    return found if math.isfinite(found) else None


def _own(case: Case) -> Contrast:
    """Return the arm beside itself: what it has alone."""
    return Contrast(case.losses, case.arm, case.arm)


# --- the answers --------------------------------------------------------------------


def answers(case: Case) -> list[Judged]:
    """Return the answers to all questions to an arm, in the order of their ids."""
    order = get_args(DiagnosticId)
    asked = sorted(_asked(case), key=lambda question: order.index(question.id))
    return [_judged(question) for question in asked]


def _asked(case: Case) -> Iterator[Question]:
    yield determinism(case.arm)
    yield completeness(case.arm)
    yield replay(case.arm)
    if case.contrast is None:
        yield untrue_slopes(case.arm)
        for proofs in case.proofs.values():
            yield from proofs
        return
    yield from case.masking
    yield from equal_clean_loss(case.arm)
    yield case.for_harder.planted_weakness()
    for questions in case.for_harder.of_attacks.values():
        yield from questions


def _judged(question: Question) -> Judged:
    status, claim = question.status(), question.claim
    reason = question.absence or (question.otherwise if status == "fail" else None)
    return Judged(
        id=question.id,
        attack=question.attack,
        against=question.against,
        status=status,
        value=of_run(claim.about.mean) if claim else None,
        interval=_interval(claim.about) if claim else None,
        n=claim.about.n if claim else 0,
        threshold=claim.mu if claim else None,
        unit=question.unit,
        reason=reason or (None if claim else "nothing speaks against it"),
        tested=_tested(claim, question.level) if claim else None,
    )


def _tested(claim: Claim, level: float) -> Tested:
    return Tested(
        value=of_run(claim.about.mean),
        interval=_interval(claim.about),
        p=of_run(claim.p),
        level=level,
        shown=claim.shown(level),
        documents=claim.about.n,
        seeds=claim.seeds,
        searches=claim.searches,
        components=_components(claim.about),
    )


# --- numbers ------------------------------------------------------------------------


def _interval(found: Crossed[Floats]) -> tuple[float, float] | None:
    low, high = map(of_run, found.interval())
    return (low, high) if math.isfinite(low) else None  # else it has no bounds at all


def _components(found: Crossed[Floats]) -> Components:
    seeds, documents, residual = map(of_run, found.components)
    single = found.S < 2
    return Components(
        seeds=None if single else math.sqrt(seeds),
        documents=math.sqrt(documents),
        residual=None if single else math.sqrt(residual),
    )
