"""Answers in the records of single variants and cells, over the seeds of an arm.

What is known of a subject alone is held against the baseline arm's here, where that is
what judges it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from harness.records import (
    Diagnostic,
    DiagnosticId,
    DiagnosticStatus,
    Estimate,
    Judged,
    bootstrap_mean,
    paired_difference,
)
from harness.run import examine_rows
from harness.verdicts.questions.answers import absent
from harness.verdicts.results import Arm

BySeed = Mapping[int, Diagnostic]

OF_SUBJECTS: tuple[DiagnosticId, ...] = (
    "determinism",
    "gradient_health",
    "gradient_truth",
    "first_order_fidelity",
)
OF_CELLS: tuple[DiagnosticId, ...] = ("iterative_beats_one_step", "budget_curve")
NORM_RATIO = (1e-2, 1e2)
"""The gradient's norm against that of the baseline arm."""
FIDELITY_SHARE = 0.5
"""Of the baseline arm's first-order fidelity."""
_SEVERITY: tuple[DiagnosticStatus, ...] = ("not_applicable", "pass", "warn", "fail")


def of_subjects(arm: Arm) -> Iterator[Judged]:
    """Answer what the passes of each variant answered."""
    for name in OF_SUBJECTS:
        found = _examined(arm, name)
        if not arm.variants:
            yield absent(name, f"the variant is {arm.absence()}")
        elif len(found) < len(arm.variants):
            yield absent(name, "its variants were not examined")
        elif name == "gradient_health":
            yield _health(arm, found)
        elif name == "first_order_fidelity":
            yield _fidelity(arm, found)
        else:
            yield _worst_of(found.values())


def of_rows(arm: Arm, attack: str) -> Iterator[Judged]:
    """Answer what the rows of each of an attack's cells answer."""
    cells = arm.cells(attack)
    if not cells:
        absence = f"its cell is {arm.absence(attack)}"
        yield from (absent(name, absence, attack=attack) for name in OF_CELLS)
    by_seed = [examine_rows(cell.rows) for cell in cells.values()]
    for answers in zip(*by_seed, strict=True):
        yield _worst_of(answers).model_copy(update={"attack": attack})


def _examined(arm: Arm, name: DiagnosticId) -> BySeed:
    return {
        seed: answer
        for seed, record in arm.variants.items()
        for answer in record.diagnostics
        if answer.id == name
    }


def _worst_of(answers: Iterable[Diagnostic]) -> Judged:
    """Return the answer of the seed that is worst; of equals, the highest value."""

    def badness(answer: Diagnostic) -> tuple[int, float]:
        return _SEVERITY.index(answer.status), abs(answer.value or 0.0)

    return Judged(**max(answers, key=badness).model_dump())


# --- the gradient's norm ------------------------------------------------------------


def _health(arm: Arm, found: BySeed) -> Judged:
    """Add the ratio of the gradient's norm to that of the baseline arm."""
    answer = _worst_of(found.values())
    ratio = _norm_ratio(found, _examined(arm.baseline, "gradient_health"))
    if arm.is_baseline or ratio is None:
        return answer
    low, high = NORM_RATIO
    changes: dict[str, Any] = {"measured": {**answer.measured, "norm_ratio": ratio}}
    if not low <= ratio <= high and answer.status != "fail":
        changes["status"] = "fail"
        changes["reason"] = f"norms are {ratio:.2g} times the baseline arm's"
    return answer.model_copy(update=changes)


def _norm_ratio(found: BySeed, base: BySeed) -> float | None:
    logs = []
    for seed in found.keys() & base.keys():
        own, other = (x[seed].measured["norms"] for x in (found, base))
        if own and other and min(own) > 0 and min(other) > 0:
            logs.append(np.log(own).mean() - np.log(other).mean())
    return float(np.exp(np.mean(logs))) if logs else None


# --- what the gradient says of flips ------------------------------------------------


def _fidelity(arm: Arm, found: BySeed) -> Judged:
    """Hold the arm's rank correlation against the baseline arm's, in pairs."""
    answer = _merged(found)
    if arm.is_baseline:
        return answer.model_copy(update={"status": "pass", "reason": None})
    base = _examined(arm.baseline, "first_order_fidelity")
    pairs = [
        (value, base[seed].measured["examples"].get(example), example, seed)
        for seed in sorted(found.keys() & base.keys())
        for example, value in found[seed].measured["examples"].items()
    ]
    if not pairs or any(other is None for _, other, *_ in pairs):
        return absent("first_order_fidelity", "the baseline arm was not examined so")
    own, other, examples, seeds = (list(x) for x in zip(*pairs, strict=True))
    usual = bootstrap_mean(other, examples, seeds, unit="Spearman")
    excess = paired_difference(
        own, FIDELITY_SHARE * np.array(other), examples, seeds, unit="Spearman"
    )
    measured = {
        "baseline": usual.value,
        "baseline_interval": usual.interval,
        "excess_over_threshold": excess.value,
        "excess_interval": excess.interval,
    }
    status, reason = _fidelity_status(usual, excess)
    return answer.model_copy(
        update={
            "status": status,
            "reason": reason,
            "threshold": FIDELITY_SHARE * (usual.value or 0.0),
            "measured": {**answer.measured, **measured},
        }
    )


def _merged(found: BySeed) -> Judged:
    """Average the answers of several seeds, documents and seeds resampled."""
    pairs = [
        (value, example, seed)
        for seed, answer in found.items()
        for example, value in answer.measured["examples"].items()
    ]
    values, examples, seeds = (list(x) for x in zip(*pairs, strict=True))
    mean = bootstrap_mean(values, examples, seeds, unit="Spearman", over="examples")
    first, *_ = found.values()
    changes = {
        "value": mean.value,
        "interval": mean.interval,
        "n": sum(answer.n for answer in found.values()),
    }
    return Judged(**{**first.model_dump(), **changes})


def _fidelity_status(
    usual: Estimate, excess: Estimate
) -> tuple[DiagnosticStatus, str | None]:
    if usual.interval is None or excess.interval is None or excess.value is None:
        return "warn", "there is no interval"
    if usual.interval[0] <= 0:
        return "warn", "the baseline arm's gradient ranks flips no better than chance"
    if excess.interval[1] < 0:
        return "fail", "gradients rank flips less than half as well as the baseline's"
    if excess.value < 0:
        return "warn", "below half of the baseline's, but the interval includes half"
    return "pass", None
