"""Whether gradients are there, are the slope, and predict what flips do.

All measures are unchanged where embeddings are rescaled. They are held against those of
another arm, on the same examples at the same prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.records import DiagnosticId
from harness.verdicts.claims import Claim, above, below
from harness.verdicts.findings import Arm, Examined, Floats
from harness.verdicts.levels import FIDELITY_SHARE, SLOPE, WHOLLY_OFF, ZEROS
from harness.verdicts.losses import averaged
from harness.verdicts.questions.question import Question

OF_GRADIENTS: tuple[DiagnosticId, ...] = (
    "gradient_health",
    "gradient_truth",
    "first_order_fidelity",
)
_UNITS = {
    "gradient_health": "share of gains",
    "gradient_truth": "relative error",
    "first_order_fidelity": "Spearman",
}
_TELLS_NOTHING = {
    "gradient_health": 1.0,
    "gradient_truth": WHOLLY_OFF,
    "first_order_fidelity": 0.0,
}


def of_gradients(arm: Arm, other: Arm) -> Iterator[Question]:
    """Ask what would speak of a hidden gradient of `arm`, and is not so of `other`."""
    for name in OF_GRADIENTS:
        sides = _sides(arm, other, name)
        if isinstance(sides, str):
            yield Question(name, against=other.label, absence=sides)
        else:
            yield Question(
                name,
                against=other.label,
                claim=_worse(name, sides),
                against_it=True,
                otherwise=_otherwise(name, other.label),
                unit=_UNITS[name],
            )


def untrue_slopes(arm: Arm) -> Question:
    """Ask whether an arm's gradients, by themselves, are off the slope of its loss."""
    sides = _sides(arm, arm, "gradient_truth")
    if isinstance(sides, str):
        return Question("gradient_truth", absence=sides)
    return Question(
        "gradient_truth",
        claim=above(averaged(sides.own, sides.units), SLOPE),
        against_it=True,
        otherwise="its gradients are not the slope of its loss",
        unit=_UNITS["gradient_truth"],
    )


@dataclass(frozen=True, eq=False)
class _Sides:
    """What was measured on both arms: [S, k] each."""

    own: Floats
    others: Floats
    units: list[str]


def _worse(name: DiagnosticId, sides: _Sides) -> Claim:
    own, others = (averaged(x, sides.units) for x in (sides.own, sides.others))
    if name == "gradient_health":
        return above(own - others, ZEROS)
    if name == "gradient_truth":
        return above(own - others, SLOPE)
    return below(own - FIDELITY_SHARE * others)


def _otherwise(name: DiagnosticId, other: str) -> str:
    return {
        "gradient_health": "more of its first-order gains are zero or not finite than "
        f"of those of {other}",
        "gradient_truth": "its gradients are further off the slope of the loss than "
        f"those of {other}",
        "first_order_fidelity": "its gradients rank flips less than half as well as "
        f"those of {other}",
    }[name]


def _sides(arm: Arm, other: Arm, name: DiagnosticId) -> _Sides | str:
    """Return what was measured on both arms, or why nothing was.

    What is not finite tells nothing: it counts as the worst that there is.
    """
    own, others = arm.examined.get(name), other.examined.get(name)
    if own is None or others is None:
        return f"{(arm if own is None else other).label} was not examined"
    seeds = [seed for seed in arm.seeds if seed in other.seeds]
    keys = [key for key in own.keys if key in set(others.keys)]
    if not seeds or not keys:
        return "nothing was examined on both arms"
    own_values, others_values = (
        _chosen(found, [each.seeds.index(seed) for seed in seeds], keys, name)
        for each, found in ((arm, own), (other, others))
    )
    place = dict(zip(own.keys, own.units, strict=True))
    return _Sides(own_values, others_values, [place[key] for key in keys])


def _chosen(
    found: Examined, seeds: list[int], keys: list[str], name: DiagnosticId
) -> Floats:
    at = {key: index for index, key in enumerate(found.keys)}
    values = found.values[np.ix_(seeds, [at[key] for key in keys])]
    values = np.where(np.isfinite(values), values, _TELLS_NOTHING[name])
    return np.minimum(values, WHOLLY_OFF) if name == "gradient_truth" else values
