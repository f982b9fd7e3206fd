"""What a planned suite will be able to find, foreseen from a pilot's variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from harness.base import UsageError
from harness.records import TREATMENT_SEEDS, Crossed, Design
from harness.verdicts.case import Cases
from harness.verdicts.claims import of_run
from harness.verdicts.contrast import Contrast
from harness.verdicts.findings import Findings, Floats
from harness.verdicts.levels import DIRECTION, POWER

SEEDS = (3, 5, 8)
"""Numbers of training seeds that are foreseen, besides the planned one."""
TIMES = (1, 2, 4)
"""Multiples of the planned documents that are foreseen."""
UNLUCKY = 0.1
"""How likely a pilot's seeds are to vary by so little, if seeds vary as assumed at
worst."""

Components = tuple[float, float, float]


@dataclass(frozen=True)
class Planned:
    """A contrast that a suite will make."""

    model: str
    arm: str
    reference: str
    seeds: int
    examples: int


@dataclass(frozen=True)
class Found:
    """The smallest true difference that a design finds, in nats/token."""

    seeds: int
    documents: int
    difference: float | None
    """None where the pilot cannot tell: it has one seed."""
    at_worst: float | None
    """The same if seeds vary by as much as the pilot still allows."""


@dataclass(frozen=True)
class Foreseen:
    """What designs find of one planned contrast."""

    planned: Planned
    pilot: str
    """The pilot's contrast that components are taken from: the same where it has it,
    else the one that varies most."""
    pilot_seeds: int
    pilot_documents: int
    seed_sd: float | None
    """Standard deviations in nats/token; None with a single seed."""
    document_sd: float
    residual_sd: float
    reference_delta: float
    """Mean dL of the reference arm in the pilot, to see differences beside."""
    found: list[Found]


def foresee(pilot: Findings, planned: Sequence[Planned]) -> list[Foreseen]:
    """Foresee the smallest differences that the planned contrasts find.

    At the level that Holm's first step leaves to each of them, and the power of
    verdicts. UsageError where the pilot has no contrast with two documents.
    """
    contrasts = [x.contrast for x in Cases(pilot).judged if x.contrast is not None]
    known = [contrast for contrast in contrasts if contrast.shown.n > 1]
    if not known:
        raise UsageError(
            "the pilot has no contrast to read a variance from: no attack is complete "
            "on an arm and its reference arm, over two documents or more"
        )
    level = 1 - DIRECTION / max(1, len(planned))
    return [_foreseen(contrast, known, level) for contrast in planned]


def _foreseen(planned: Planned, known: Sequence[Contrast], level: float) -> Foreseen:
    contrast = _nearest(planned, known)
    shown = contrast.shown
    seeds, documents, residual = _components(shown)
    units = contrast.losses.units(contrast.arm)
    per_example = len(set(units)) / len(units)
    designs = [
        Design(own, max(2, round(times * per_example * planned.examples)))
        for own in sorted({planned.seeds, *SEEDS})
        for times in TIMES
    ]
    return Foreseen(
        planned=planned,
        pilot=f"{contrast.arm.label} - {contrast.reference.label}",
        pilot_seeds=contrast.seeds,
        pilot_documents=shown.n,
        seed_sd=None if contrast.seeds < 2 else math.sqrt(seeds),
        document_sd=math.sqrt(documents),
        residual_sd=math.sqrt(residual),
        reference_delta=of_run(contrast.worst_case(contrast.reference).mean),
        found=[_found(design, shown, level) for design in designs],
    )


def _nearest(planned: Planned, known: Sequence[Contrast]) -> Contrast:
    """Return the same contrast, of the same model if there is; else the most varied."""

    def nearness(contrast: Contrast) -> tuple[bool, bool, float]:
        labels = contrast.arm.label, contrast.reference.label
        same = labels == (planned.arm, planned.reference)
        model = contrast.arm.model == planned.model
        return same, model, of_run(np.asarray(contrast.shown.variance))

    return max(known, key=nearness)


def _found(design: Design, shown: Crossed[Floats], level: float) -> Found:
    components = _components(shown)
    if shown.S < 2 and design.seeds >= TREATMENT_SEEDS:
        return Found(design.seeds, design.documents, None, None)
    worst = (_most_of_seeds(shown), *components[1:])
    return Found(
        design.seeds,
        design.documents,
        design.detectable(components, level, POWER),
        design.detectable(worst, level, POWER),
    )


def _components(shown: Crossed[Floats]) -> Components:
    seeds, documents, residual = map(of_run, shown.components)
    return seeds, documents, residual


def _most_of_seeds(shown: Crossed[Floats]) -> float:
    """Return the upper bound of the variance of seeds, of its mean square's chi^2."""
    if shown.S < 2:
        return 0.0
    share = float(scipy.special.chdtri(shown.S - 1, 1 - UNLUCKY)) / (shown.S - 1)
    square = of_run(shown.ms_seed) / share - of_run(shown.ms_residual)
    return max(square, 0.0) / shown.n
