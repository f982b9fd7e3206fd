"""Questions to a subject alone, on a few of its test examples.

Are losses the same in a batch and alone, are gradients finite and not zero, are they
the slope of the loss, and do they predict the effect of a whole flip? Each answer holds
a value for every example (`measured["values"]`), at its clean prompt or at the one that
an attack returned: so that arms can be compared. The status is of this subject alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.data import Example
from harness.records import (
    Diagnostic,
    SampleRow,
    bootstrap_mean,
    bootstrap_ratio,
)
from harness.running.diagnostics.probes import Probe, flipped, probe
from harness.search import Flip
from harness.subject import MARGIN_NATS, Subject
from harness.suite import EXAMINED

Floats = NDArray[np.float64]
At = Literal["clean", "attacked"]
"""Which prompt of an example is asked about."""

BATCH_TOLERANCE_NATS = {"float32": MARGIN_NATS, "bfloat16": 0.05}
"""How far a loss in a batch may be from that of its pair alone in float32: because of
the batch and, in bfloat16, of the precision. It does not shrink with the number of
tokens as `rounding_margin` does: what all losses of an example have in common does not
average out."""
REPEAT_TOLERANCE_NATS = 1e-6
"""How far the same pass, made twice, may differ."""
ALONE = 1
"""Flips of an example that are scored again, alone, besides its own prompt."""
ZERO_FRACTION = 1e-3
"""Of the first-order gains, how many may be exactly zero."""
TRUTH_TOLERANCE = 0.05
"""How far a gradient may be from the slope it stands for, relative."""
DIRECTIONS = 2
"""Drawn flips of an example along which slopes are taken, besides the top flips."""
STEP = 1 / 32
"""How far along E_b - E_a the central difference reaches, to either side."""
ROUNDING_NATS = 1e-6
"""Of a float32 loss: with it, a slope is known to ROUNDING_NATS / STEP."""
LEAST_SLOPE_NATS = ROUNDING_NATS / STEP / TRUTH_TOLERANCE
"""Errors are relative to no less than this: rounding alone is then no error."""


def examine(subject: Subject, examples: Sequence[Example]) -> list[Diagnostic]:
    """Answer all questions to a subject at the clean prompts of the first examples."""
    return _answers(subject, examples[:EXAMINED], "clean")


def examine_attacked(
    subject: Subject, examples: Sequence[Example], rows: Sequence[SampleRow]
) -> list[Diagnostic]:
    """Answer them at the prompts that an attack returned for the first examples.

    Examples for which it returned none are left out; without any, nothing is answered.
    """
    found = {row.example_id: row.adversarial_prompt_ids for row in rows}
    attacked = [
        replace(example, prompt_ids=np.array(found[example.id]))
        for example in examples[:EXAMINED]
        if found.get(example.id) is not None
    ]
    return _answers(subject, attacked, "attacked") if attacked else []


def _answers(subject: Subject, examples: Sequence[Example], at: At) -> list[Diagnostic]:
    probes = probe(subject, examples)
    return [
        determinism(subject, probes, at),
        gradient_health(probes, at),
        gradient_truth(subject, probes, at),
        first_order_fidelity(probes, at),
    ]


def determinism(subject: Subject, probes: Sequence[Probe], at: At) -> Diagnostic:
    """Compare losses found in batches with those of each pair alone, made twice.

    The value of an example is the largest difference of any two, in nats/token.
    """
    prompts, references, batched = [], [], []
    for each in probes:
        chosen = each.scored[:ALONE]
        prompts += [
            each.example.prompt_ids,
            *(flipped(each.example, x) for x in chosen),
        ]
        references += [each.example.reference_ids] * (1 + len(chosen))
        batched += [each.clean_loss, *each.losses[: len(chosen)]]
    alone, again = (subject.exact_losses(prompts, references) for _ in range(2))
    tolerance = BATCH_TOLERANCE_NATS[subject.dtype]
    batches, repeats = np.abs(np.array(batched) - alone), np.abs(alone - again)
    apart, repeated = _finite(batches.max()), _finite(repeats.max())
    ends = np.cumsum([1 + len(each.scored[:ALONE]) for each in probes])[:-1]
    known: dict[str, Any] = {
        "id": "determinism",
        "n": len(prompts),
        "threshold": tolerance,
        "unit": "nats/token",
        "measured": {
            "values": _values(
                probes,
                at,
                [x.max() for x in np.split(np.maximum(batches, repeats), ends)],
            ),
            "repeats_apart": repeated,
            "repeats_tolerance": REPEAT_TOLERANCE_NATS,
            "batch_size": subject.batch_size,
        },
    }
    if apart is None or repeated is None:
        reason = "losses are not finite"
        return Diagnostic(status="fail", value=None, reason=reason, **known)
    if repeated > REPEAT_TOLERANCE_NATS:
        reason = f"the same pass, made twice, differs by {repeated:.3g} nats/token"
        return Diagnostic(status="fail", value=apart, reason=reason, **known)
    if apart > tolerance:
        reason = f"losses in a batch and alone are up to {apart:.3g} nats/token apart"
        return Diagnostic(status="fail", value=apart, reason=reason, **known)
    return Diagnostic(status="pass", value=apart, **known)


def gradient_health(probes: Sequence[Probe], at: At) -> Diagnostic:
    """Count the first-order gains of drawn flips that are zero, NaN or infinite."""
    broken = sum(int((~np.isfinite(each.gains)).sum()) for each in probes)
    shares = [_unusable(each) for each in probes]
    count = sum(len(each.gains) for each in probes)
    share = float(np.average(shares, weights=[len(each.gains) for each in probes]))
    reason = None
    if broken:
        reason = f"{broken} of {count} first-order gains are NaN or infinite"
    elif share > ZERO_FRACTION:
        reason = f"{share:.3%} of the first-order gains are exactly zero"
    return Diagnostic(
        id="gradient_health",
        status="fail" if reason else "pass",
        value=share,
        n=count,
        threshold=ZERO_FRACTION,
        unit="fraction of gains",
        reason=reason,
        measured={
            "values": _values(probes, at, shares),
            "not_finite": broken,
        },
    )


def gradient_truth(subject: Subject, probes: Sequence[Probe], at: At) -> Diagnostic:
    """Hold autograd's slopes along E_b - E_a against central differences.

    The error is ||difference - autograd|| / ||difference||, over drawn flips and those
    of highest gain alike. Differences are extrapolated from two steps (Richardson),
    from float32 passes with shifted embeddings.
    """
    errors, scales, floors, count = [], [], [], 0
    for each in probes:
        flips = [*each.flips[:DIRECTIONS], *each.top]
        slopes = _slopes(subject, each.example, flips)
        gains = np.r_[each.gains[:DIRECTIONS], each.top_gains]
        with np.errstate(invalid="ignore", over="ignore"):
            errors.append(float(np.square(slopes - gains).sum()))
        scales.append(float(np.square(slopes).sum()))
        floors.append(len(flips) * LEAST_SLOPE_NATS**2)
        count += len(flips)
    values = np.sqrt(np.array(errors) / np.maximum(scales, floors))
    measured: dict[str, Any] = {
        "values": _values(probes, at, list(values)),
        "step": STEP,
    }
    known: dict[str, Any] = {
        "id": "gradient_truth",
        "n": count,
        "threshold": TRUTH_TOLERANCE,
        "unit": "relative error",
        "measured": measured,
    }
    if not np.isfinite([*errors, *scales]).all():
        reason = "slopes or gradients are not finite"
        return Diagnostic(status="fail", value=None, reason=reason, **known)
    measured["slope"] = slope = float(np.sqrt(sum(scales) / count))
    if min(scales) == 0 or slope < LEAST_SLOPE_NATS:
        reason = f"slopes of {slope:.2g} nats are too small for float32 to tell"
        return Diagnostic(status="not_applicable", value=None, reason=reason, **known)
    found = bootstrap_ratio(errors, scales, np.sqrt, unit="relative error")
    assert found.value is not None
    fires = found.value > TRUTH_TOLERANCE
    return Diagnostic(
        status="fail" if fires else "pass",
        value=found.value,
        interval=found.interval,
        reason=f"gradients are {found.value:.1%} off the slope" if fires else None,
        **known,
    )


def first_order_fidelity(probes: Sequence[Probe], at: At) -> Diagnostic:
    """Rank drawn flips by first-order gain and by true loss: Spearman.

    The value is the mean over examples. An arm's is judged beside that of the arm it is
    compared with, on the same flips.
    """
    found = [spearman(x.gains[: len(x.losses)], x.losses) for x in probes]
    mean = bootstrap_mean([x or 0.0 for x in found], unit="Spearman", over="examples")
    return Diagnostic(
        id="first_order_fidelity",
        status="pass",
        value=mean.value,
        interval=mean.interval,
        n=sum(len(each.losses) for each in probes),
        unit="Spearman",
        reason="judged beside the arm that it is compared with",
        measured={
            "values": _values(probes, at, found),
            "mean_dL": float(
                np.mean([np.mean(x.losses - x.clean_loss) for x in probes])
            ),
        },
    )


# --- slopes -------------------------------------------------------------------------


def _slopes(subject: Subject, example: Example, flips: Sequence[Flip]) -> Floats:
    """Return dL/dt at t = 0 of E_a + t (E_b - E_a), for each flip: [len(flips)]."""
    import torch

    prompt, embedding = example.prompt_ids, subject.embedding
    shape = len(flips), len(prompt), embedding.shape[1]
    shifts = torch.zeros(shape, device=embedding.device)
    for shift, (position, token) in zip(shifts, flips, strict=True):
        shift[position] = embedding[token] - embedding[int(prompt[position])]
    steps = (STEP, -STEP, STEP / 2, -STEP / 2)
    shifted = torch.cat([step * shifts for step in steps])
    losses = subject.shifted_losses(prompt, example.reference_ids, shifted)
    far_up, far_down, up, down = np.split(losses, 4)
    near, far = (up - down) / STEP, (far_up - far_down) / (2 * STEP)
    slopes: Floats = (4 * near - far) / 3
    return slopes


# --- numbers ------------------------------------------------------------------------


def _values(
    probes: Sequence[Probe], at: At, values: Sequence[float | None]
) -> list[dict[str, Any]]:
    """Return the value of each example as records hold it."""
    return [
        {
            "example": each.example.id,
            "document": each.example.unit,
            "at": at,
            "value": _finite(value),
        }
        for each, value in zip(probes, values, strict=True)
    ]


def _unusable(each: Probe) -> float:
    return float(((each.gains == 0) | ~np.isfinite(each.gains)).mean())


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def spearman(gains: Floats, losses: Floats) -> float | None:
    """Rank-correlate; 0 where either is constant: it says nothing; None for NaN.

    As `scipy.stats.spearmanr` does, which alone takes a second to import.
    """
    if not np.isfinite([*gains, *losses]).all():
        return None
    if len(gains) < 2 or np.ptp(gains) == 0 or np.ptp(losses) == 0:
        return 0.0
    ranks = np.column_stack([_ranks(gains), _ranks(losses)])
    return float(np.asarray(np.corrcoef(ranks, rowvar=False))[1, 0])


def _ranks(values: Floats) -> Floats:
    """Return the rank of each value, counted from 1; equal ones have their mean."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (counts.cumsum() - (counts - 1) / 2)[which]
    return ranks
