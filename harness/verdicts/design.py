"""What a design can see: the smallest difference, and what would decide."""

from __future__ import annotations

import math
from itertools import product

from harness.records import TREATMENT_SEEDS, Needed
from harness.verdicts.claims import of_run
from harness.verdicts.contrast import Contrast
from harness.verdicts.levels import DIRECTION, EQUIVALENCE, POWER, UNITS

SEEDS = (4, 5, 6, 8, 10, 15, 20)
"""Training seeds that are thought of, besides the fewest that would do."""
TIMES = (1, 2, 4, 8, 16)
"""Multiples of the documents there are that are thought of."""


def detectable(contrast: Contrast, contrasts: int) -> float | None:
    """Return the smallest true difference in nats that is found with enough power.

    At the level that is left to each of so many contrasts by Holm's first step.
    """
    return _known(contrast, 1 - DIRECTION / contrasts)


def needed(contrast: Contrast, contrasts: int) -> Needed | None:
    """Return the cheapest design that would decide, if the difference is as found.

    By showing it, where it is beyond the margin; else by showing that it is within.
    None where no design that is thought of would.
    """
    off, margin = abs(of_run(contrast.shown.mean)), margin_nats(contrast)
    level, goal = 1 - EQUIVALENCE, margin - off
    if off >= margin:
        level, goal = 1 - DIRECTION / contrasts, off
    fewest = max(contrast.seeds, TREATMENT_SEEDS)
    seeds = [fewest, *(x for x in SEEDS if x > fewest)]
    documents_at_least = (max(UNITS, times * contrast.shown.n) for times in TIMES)
    designs = product(seeds, documents_at_least)
    for own, documents in sorted(designs, key=math.prod):
        found = _known(contrast, level, own, documents)
        if found is not None and found <= goal:
            return Needed(seeds=own, documents=documents)
    return None


def margin_nats(contrast: Contrast) -> float:
    """Return the margin in nats/token, of the reference arm's mean dL if relative."""
    share, nats = contrast.losses.findings.margin.parts
    return share * of_run(contrast.worst_case(contrast.reference).mean) + nats


def _known(
    contrast: Contrast,
    level: float,
    seeds: int | None = None,
    documents: int | None = None,
) -> float | None:
    found = of_run(contrast.shown.detectable(level, POWER, seeds, documents))
    return found if math.isfinite(found) else None
