"""Questions to a cell, from its rows alone: whether more steps do more harm."""

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
EVERY_STEP = 8
"""Up to so many steps, each is a budget; beyond it, budgets double."""


def examine_rows(rows: Sequence[SampleRow]) -> list[Diagnostic]:
    """Answer all questions to a cell."""
    return [iterative_beats_one_step(rows), budget_curve(rows)]


def iterative_beats_one_step(rows: Sequence[SampleRow]) -> Diagnostic:
    """Compare dL at the end with dL after the attack's first step, in pairs."""
    known: dict[str, Any] = {"id": "iterative_beats_one_step", "unit": "nats/token"}
    usable, absence = _traced(rows)
    if absence:
        return _not_applicable(absence, **known)
    steps = _length(usable)
    if steps < 2:
        return _not_applicable("the attack makes a single step", **known)
    gains = [(row.delta_loss or 0.0) - _after(row, 1) for row in usable]
    found = bootstrap_mean(gains, _documents(usable), unit="nats/token")
    assert found.value is not None
    status, reason = "pass", None
    if found.value <= 0:
        status, reason = "fail", f"{steps} steps do no more harm than one"
    elif found.interval is None or found.interval[0] <= 0:
        status, reason = "warn", "the interval of the gain over one step includes 0"
    return Diagnostic.model_validate(
        {
            **known,
            "status": status,
            "value": found.value,
            "interval": found.interval,
            "n": len(usable),
            "threshold": 0.0,
            "reason": reason,
            "measured": {"steps": steps},
        }
    )


def budget_curve(rows: Sequence[SampleRow]) -> Diagnostic:
    """Look for a budget of steps at which the loss is lower than at a smaller one.

    The losses are those of the trace. The value is the lowest mean difference between
    a budget and the one before it; it fires if a difference is significantly negative
    (paired t-tests over documents, one-sided, Holm over the budgets).
    """
    known: dict[str, Any] = {"id": "budget_curve", "unit": "nats/token"}
    usable, absence = _traced(rows)
    if absence:
        return _not_applicable(absence, **known)
    budgets = _budgets(_length(usable))
    if len(budgets) < 2:
        return _not_applicable("there is a single budget", **known)
    curve = np.array([[_after(row, k) for k in budgets] for row in usable])
    changes = np.diff(curve, axis=1)
    documents = _documents(usable)
    p_values = [paired_p(-change, documents) for change in changes.T]
    adjusted = min(holm(p_values))
    lowest = int(changes.mean(axis=0).argmin())
    found = bootstrap_mean(changes[:, lowest], documents, unit="nats/token")
    fires = adjusted < LEVEL
    worse = f"{budgets[lowest + 1]} steps do less harm than {budgets[lowest]}"
    return Diagnostic(
        status="fail" if fires else "pass",
        value=found.value,
        interval=found.interval,
        n=len(usable),
        threshold=0.0,
        reason=f"{worse} (p {adjusted:.2g})" if fires else None,
        measured={
            "budgets": budgets,
            "mean_dL": [float(x) for x in curve.mean(axis=0)],
            "p": adjusted,
        },
        **known,
    )


def _traced(rows: Sequence[SampleRow]) -> tuple[list[SampleRow], str]:
    """Return the rows with a dL, or why their traces cannot be used."""
    usable = [row for row in rows if row.delta_loss is not None]
    if not usable:
        return [], "every example ended in an error"
    traces = [row.trace for row in usable]
    if not any(traces):
        return [], "the attack left no trace of its steps"
    if not all(_is_step(step) for trace in traces for step in trace):
        return [], "its trace is no sequence of steps with losses"
    if len(traces) > 1 and all(trace == traces[0] for trace in traces):
        return [], "one trace for all examples: it is of the search examples"
    return usable, ""


def _is_step(step: dict[str, Any]) -> bool:
    number, loss = step.get("step"), step.get("loss")
    return isinstance(number, int) and isinstance(loss, int | float)


def _length(rows: Sequence[SampleRow]) -> int:
    return max(int(step["step"]) for row in rows for step in row.trace)


def _budgets(steps: int) -> list[int]:
    if steps <= EVERY_STEP:
        return list(range(1, steps + 1))
    doubled = [1]
    while 2 * doubled[-1] < steps:
        doubled.append(2 * doubled[-1])
    return [*doubled, steps]


def _after(row: SampleRow, budget: int) -> float:
    """Return dL after so many steps, as the trace says, in nats/token."""
    made = [step["loss"] for step in row.trace if step["step"] <= budget]
    clean = row.clean_loss or 0.0
    return float(made[-1]) - clean if made else 0.0


def _documents(rows: Sequence[SampleRow]) -> list[str]:
    return [row.unit for row in rows]


def _not_applicable(reason: str, **known: Any) -> Diagnostic:
    return Diagnostic(status="not_applicable", value=None, n=0, reason=reason, **known)
