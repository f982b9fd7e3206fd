"""Questions to a cell, from its rows alone: whether a larger budget does more harm.

They are about the prompts that the attack returns, or would have returned with less of
its budget, each scored from scratch; never about the prompts that it tries on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records import (
    Diagnostic,
    DiagnosticId,
    SampleRow,
    bootstrap_mean,
    holm,
    paired_p,
)

Floats = NDArray[np.float64]

OF_SUBJECTS: tuple[DiagnosticId, ...] = (
    "determinism",
    "gradient_health",
    "gradient_truth",
    "first_order_fidelity",
)
"""Answers in the records of cells that take passes: no matter of rows."""

LEVEL = 0.05
"""The family-wise error of all comparisons of a curve."""


def examine_rows(rows: Sequence[SampleRow]) -> list[Diagnostic]:
    """Answer all questions to a cell."""
    return [iterative_beats_one_step(rows), budget_curve(rows)]


def iterative_beats_one_step(rows: Sequence[SampleRow]) -> Diagnostic:
    """Compare dL with all of the budget and with the least of it, in pairs."""
    known: dict[str, Any] = {"id": "iterative_beats_one_step", "unit": "nats/token"}
    usable, absence = _measured(rows)
    if absence:
        return _not_applicable(absence, **known)
    shares, curve = _curve(usable)
    gains = curve[:, -1] - curve[:, 0]
    found = bootstrap_mean(gains, _units(usable), unit="nats/token")
    assert found.value is not None
    status, reason = "pass", None
    if found.value <= 0:
        status = "fail"
        reason = f"{shares[-1]:g} times the budget does no more harm than {shares[0]:g}"
    elif found.interval is None or found.interval[0] <= 0:
        status, reason = "warn", "the interval of what more budget gains includes 0"
    return Diagnostic.model_validate(
        {
            **known,
            "status": status,
            "value": found.value,
            "interval": found.interval,
            "n": len(usable),
            "threshold": 0.0,
            "reason": reason,
            "measured": {"shares": [shares[0], shares[-1]]},
        }
    )


def budget_curve(rows: Sequence[SampleRow]) -> Diagnostic:
    """Look for a budget at which the loss is lower than at a smaller one.

    The value is the lowest mean difference between a budget and the one before it; it
    fires if a difference is significantly negative (paired t-tests over documents,
    one-sided, Holm over the budgets).
    """
    known: dict[str, Any] = {"id": "budget_curve", "unit": "nats/token"}
    usable, absence = _measured(rows)
    if absence:
        return _not_applicable(absence, **known)
    shares, curve = _curve(usable)
    changes, units = np.diff(curve, axis=1), _units(usable)
    adjusted = min(holm([paired_p(-change, units) for change in changes.T]))
    lowest = int(changes.mean(axis=0).argmin())
    found = bootstrap_mean(changes[:, lowest], units, unit="nats/token")
    fires = adjusted < LEVEL
    less, more = shares[lowest], shares[lowest + 1]
    worse = f"{more:g} times the budget does less harm than {less:g}"
    return Diagnostic(
        status="fail" if fires else "pass",
        value=found.value,
        interval=found.interval,
        n=len(usable),
        threshold=0.0,
        reason=f"{worse} (p {adjusted:.2g})" if fires else None,
        measured={
            "shares": shares,
            "mean_dL": [float(x) for x in curve.mean(axis=0)],
            "p": adjusted,
        },
        **known,
    )


def _measured(rows: Sequence[SampleRow]) -> tuple[list[SampleRow], str]:
    """Return the rows that are no error, or why they are no curve."""
    usable = [row for row in rows if row.status != "error"]
    if not usable:
        return [], "every example ended in an error"
    if len({tuple(_shares(row)) for row in usable}) > 1:
        return [], "its examples were given different budgets"
    if not usable[0].checkpoints:
        return [], "the attack keeps no prompts of smaller budgets"
    return usable, ""


def _shares(row: SampleRow) -> list[float]:
    return [*(kept.share for kept in row.checkpoints), row.share]


def _curve(rows: Sequence[SampleRow]) -> tuple[list[float], Floats]:
    """Return the multiples of the stated budget [k], and dL [n, k] at each."""
    deltas = [
        [*(x.delta_loss for x in row.checkpoints), row.delta_loss] for row in rows
    ]
    return _shares(rows[0]), np.array(deltas, dtype=np.float64)


def _units(rows: Sequence[SampleRow]) -> list[str]:
    return [row.unit for row in rows]


def _not_applicable(reason: str, **known: Any) -> Diagnostic:
    return Diagnostic(status="not_applicable", value=None, n=0, reason=reason, **known)
