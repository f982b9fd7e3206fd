"""Questions to a subject alone, on a few of its test examples.

Are losses the same in a batch and alone, are gradients finite and not zero, are they
the slope of the loss, and do they predict the effect of a whole flip? What can only be
judged beside another arm is judged in `harness.verdicts.questions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data import Example
from harness.records import Diagnostic, bootstrap_mean, bootstrap_ratio
from harness.run.diagnostics.probes import Probe, probe
from harness.subject import MARGIN_NATS, Subject

Floats = NDArray[np.float64]

BATCH_TOLERANCE_NATS = {"float32": MARGIN_NATS, "bfloat16": 0.05}
"""How far a loss in a batch may be from that of its pair alone in float32: because of
the batch and, in bfloat16, of the precision. It does not shrink with the number of
tokens as `rounding_margin` does: what all losses of an example have in common does not
average out."""
REPEAT_TOLERANCE_NATS = 1e-6
"""How far the same pass, made twice, may differ."""
ALONE = 6
"""Flips of an example that are scored again, each alone, besides the clean prompt."""
ZERO_FRACTION = 1e-3
"""Of the gradient's entries, how many may be exactly zero."""
TRUTH_TOLERANCE = 0.05
"""How far a gradient may be from the slope it stands for, relative."""
DIRECTIONS = 8
"""Drawn flips, and as many top flips, of an example along which slopes are taken."""
STEP = 1 / 32
"""How far along E_b - E_a the central difference reaches, to either side."""
ROUNDING_NATS = 1e-6
"""Of a float32 loss: with it, a slope is known to ROUNDING_NATS / STEP."""


def examine(subject: Subject, examples: Sequence[Example]) -> list[Diagnostic]:
    """Answer all questions to a subject, from fresh passes over the examples."""
    probes = probe(subject, examples)
    return [
        determinism(subject, probes),
        gradient_health(probes),
        gradient_truth(subject, probes),
        first_order_fidelity(probes),
    ]


def determinism(subject: Subject, probes: Sequence[Probe]) -> Diagnostic:
    """Compare losses found in batches with those of each pair alone, made twice."""
    prompts, references, batched = [], [], []
    for each in probes:
        chosen = range(min(ALONE, len(each.flips)))
        prompts += [np.asarray(each.example.prompt_ids), *map(each.prompt, chosen)]
        references += [each.example.reference_ids] * (1 + len(chosen))
        batched += [each.clean_loss, *each.losses[: len(chosen)]]
    alone, again = (subject.exact_losses(prompts, references) for _ in range(2))
    tolerance = BATCH_TOLERANCE_NATS[subject.dtype]
    apart = _largest(np.array(batched) - alone)
    repeated = _largest(alone - again)
    measured = {
        "repeats_apart": repeated,
        "repeats_tolerance": REPEAT_TOLERANCE_NATS,
        "batch_size": subject.batch_size,
    }
    known: dict[str, Any] = {
        "id": "determinism",
        "n": len(prompts),
        "threshold": tolerance,
        "unit": "nats/token",
        "measured": measured,
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


def gradient_health(probes: Sequence[Probe]) -> Diagnostic:
    """Count the gradient's entries that are zero, NaN or infinite; note its norms.

    The norm's ratio to the baseline arm is formed where both are known.
    """
    gradients = [
        each.gradient.double().cpu().numpy()[each.example.free] for each in probes
    ]
    entries = np.concatenate([gradient.ravel() for gradient in gradients])
    zero = float((entries == 0).mean())
    broken = int((~np.isfinite(entries)).sum())
    norms = [float(np.linalg.norm(g)) for g in gradients if np.isfinite(g).all()]
    reason = None
    if broken:
        reason = f"{broken} entries are NaN or infinite"
    elif zero > ZERO_FRACTION:
        reason = f"{zero:.3%} of the entries are exactly zero"
    return Diagnostic(
        id="gradient_health",
        status="fail" if reason else "pass",
        value=zero,
        n=entries.size,
        threshold=ZERO_FRACTION,
        unit="fraction of zeros",
        reason=reason,
        measured={"not_finite": broken, "norms": norms},
    )


def gradient_truth(subject: Subject, probes: Sequence[Probe]) -> Diagnostic:
    """Hold autograd's slopes along E_b - E_a against central differences.

    The error is ||difference - autograd|| / ||difference||, over drawn flips and those
    of highest gain alike. Differences are extrapolated from two steps (Richardson),
    from float32 passes with shifted embeddings.
    """
    errors, scales, count = [], [], 0
    for each in probes:
        chosen = _directions(each)
        slopes = _slopes(subject, each, chosen)
        errors.append(float(np.square(slopes - each.gains[chosen]).sum()))
        scales.append(float(np.square(slopes).sum()))
        count += len(chosen)
    known: dict[str, Any] = {
        "id": "gradient_truth",
        "n": count,
        "threshold": TRUTH_TOLERANCE,
        "unit": "relative error",
    }
    if not np.isfinite([*errors, *scales]).all():
        reason = "slopes or gradients are not finite"
        return Diagnostic(status="fail", value=None, reason=reason, **known)
    slope = float(np.sqrt(sum(scales) / count))
    if min(scales) == 0 or TRUTH_TOLERANCE * slope < ROUNDING_NATS / STEP:
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
        measured={"step": STEP, "slope": slope},
        **known,
    )


def first_order_fidelity(probes: Sequence[Probe]) -> Diagnostic:
    """Rank flips by first-order gain and by true dL: Spearman, mean over examples.

    The value is that of uniformly drawn flips. An arm's is judged by the baseline
    arm's, on the same flips.
    """
    drawn = [_spearman(p.gains[: p.drawn], p.losses[: p.drawn]) for p in probes]
    top = [_spearman(p.gains[p.drawn :], p.losses[p.drawn :]) for p in probes]
    found = bootstrap_mean(drawn, unit="Spearman", over="examples")
    best = bootstrap_mean(top, unit="Spearman", over="examples")
    return Diagnostic(
        id="first_order_fidelity",
        status="pass",
        value=found.value,
        interval=found.interval,
        n=sum(each.drawn for each in probes),
        unit="Spearman",
        reason="judged by the baseline arm's",
        measured={
            "examples": {
                each.example.id: value
                for each, value in zip(probes, drawn, strict=True)
            },
            "top_flips": best.value,
            "top_flips_interval": best.interval,
            "mean_dL_drawn": float(np.mean([_deltas(p)[: p.drawn] for p in probes])),
            "mean_dL_top": float(np.mean([_deltas(p)[p.drawn :] for p in probes])),
        },
    )


# --- slopes -------------------------------------------------------------------------


def _directions(each: Probe) -> list[int]:
    """Return the indices of the first drawn flips, and of the first top flips."""
    drawn = range(min(DIRECTIONS, each.drawn))
    top = range(each.drawn, min(each.drawn + DIRECTIONS, len(each.flips)))
    return [*drawn, *top]


def _slopes(subject: Subject, each: Probe, chosen: Sequence[int]) -> Floats:
    """Return dL/dt at t = 0 of E_a + t (E_b - E_a), for each flip: [len(chosen)]."""
    import torch

    prompt = each.example.prompt_ids
    embedding = subject.embedding
    shifts = torch.zeros(len(chosen), *each.gradient.shape, device=embedding.device)
    for shift, index in zip(shifts, chosen, strict=True):
        position, token = each.flips[index]
        shift[position] = embedding[token] - embedding[int(prompt[position])]
    steps = (STEP, -STEP, STEP / 2, -STEP / 2)
    shifted = torch.cat([step * shifts for step in steps])
    losses = subject.shifted_losses(prompt, each.example.reference_ids, shifted)
    far_up, far_down, up, down = np.split(losses, 4)
    near, far = (up - down) / STEP, (far_up - far_down) / (2 * STEP)
    slopes: Floats = (4 * near - far) / 3
    return slopes


# --- numbers ------------------------------------------------------------------------


def _deltas(each: Probe) -> Floats:
    return each.losses - each.clean_loss


def _largest(values: Floats) -> float | None:
    """Return the largest magnitude; None where one is not finite."""
    largest = float(np.abs(values).max())
    return largest if np.isfinite(largest) else None


def _spearman(gains: Floats, losses: Floats) -> float:
    """Rank-correlate; 0 where either is constant or not finite: it says nothing."""
    from scipy.stats import spearmanr

    if len(gains) < 2 or not np.isfinite([*gains, *losses]).all():
        return 0.0
    if np.ptp(gains) == 0 or np.ptp(losses) == 0:
        return 0.0
    return float(spearmanr(gains, losses).statistic)
