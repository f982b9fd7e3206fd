"""What all answers across records have in common."""

from __future__ import annotations

from typing import Any

from harness.records import DiagnosticId, DiagnosticStatus, Estimate, Judged


def answer(
    name: DiagnosticId,
    found: Estimate,
    *,
    attack: str | None = None,
    against: str | None = None,
    status: DiagnosticStatus | None = None,
    reason: str | None = None,
    threshold: float | None = 0.0,
    measured: dict[str, Any] | None = None,
) -> Judged:
    """Answer by an estimate; without a status, it fails where there is a reason."""
    return Judged(
        id=name,
        attack=attack,
        against=against,
        status=status or ("fail" if reason else "pass"),
        value=found.value,
        interval=found.interval,
        n=found.n,
        threshold=threshold,
        unit=found.unit,
        reason=reason,
        measured=measured or {},
    )


def absent(
    name: DiagnosticId,
    reason: str,
    *,
    attack: str | None = None,
    against: str | None = None,
) -> Judged:
    """Say why a question cannot be answered: something that it needs is not there."""
    return Judged(
        id=name,
        attack=attack,
        against=against,
        status="not_applicable",
        value=None,
        n=0,
        unit="none",
        reason=reason,
    )


FULL = "diagnostics: full adds it"
"""Said of what only full diagnostics add to a suite."""
