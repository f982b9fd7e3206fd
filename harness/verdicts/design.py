"""What a design can see: the smallest difference, and what would decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from harness.records import TREATMENT_SEEDS, Crossed, Needed
from harness.verdicts.claims import of_run
from harness.verdicts.contrast import Contrast
from harness.verdicts.findings import Floats
from harness.verdicts.levels import DIRECTION, EQUIVALENCE, POWER, UNITS

SEEDS = (4, 5, 6, 8, 10, 15, 20)
"""Training seeds that are thought of, besides the fewest that would do."""
TIMES = (1, 2, 4, 8, 16)
"""Multiples of the documents there are that are thought of."""


def detectable(contrast: Contrast, contrasts: int) -> float | None:
    """Return the smallest true difference in nats that is found with enough power.

    At the level that is left to each of so many contrasts by Holm's first step.
    """
    found = of_run(contrast.shown.detectable(1 - DIRECTION / contrasts, POWER))
    return found if math.isfinite(found) else None


def needed(contrast: Contrast, contrasts: int) -> Needed | None:
    """Return the cheapest design that would decide, if the difference is as found.

    By showing it, where it is beyond the margin; else by showing that it is within.
    None where no design that is thought of would.
    """
    off, margin = abs(of_run(contrast.shown.mean)), margin_nats(contrast)
    level, goal = 1 - EQUIVALENCE, margin - off
    if off >= margin:
        level, goal = 1 - DIRECTION / contrasts, off
    return cheapest(contrast.shown, goal, level)


def cheapest(
    found: Crossed[Floats] | Crossed[float],
    goal: float,
    level: float,
    seeds: Sequence[int] | None = None,
) -> Needed | None:
    """Return the cheapest design that finds a true difference of `goal` at a level.

    With the components of a table; with any number of seeds that is thought of, or with
    one of `seeds`. None where no design that is thought of does.
    """
    fewest = max(found.S, TREATMENT_SEEDS)
    own = seeds or [fewest, *(x for x in SEEDS if x > fewest)]
    documents = [max(UNITS, times * found.n) for times in TIMES]
    for design in sorted(product(own, documents), key=math.prod):
        seen = np.ravel(found.detectable(level, POWER, *design))[0]
        if seen <= goal:  # NaN, where it is not known, is not
            return Needed(seeds=design[0], documents=design[1])
    return None


def margin_nats(contrast: Contrast) -> float:
    """Return the margin in nats/token, of the reference arm's mean dL if relative."""
    share, nats = contrast.losses.findings.margin.parts
    return share * of_run(contrast.worst_case(contrast.reference).mean) + nats
