"""How small a planted weakness is still found: the detection limit of attacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from harness.records import clopper_pearson
from harness.verdicts.findings import Arm, Plant, PlantKind
from harness.verdicts.levels import FOUND_LEVEL, FOUND_ON, FOUND_SHARE

DECIDING: tuple[PlantKind, ...] = ("token", "ffn")
"""The kinds that the limit of the rule is taken over; the others are shown."""


@dataclass(frozen=True)
class Detection:
    """On how many units one planted weakness is, and was found."""

    kind: PlantKind
    strength: float
    attack: str | None
    """None for the union of all attacks."""
    found: int
    """Units that it was found on, of those that have it."""
    present: int
    """Units that have it."""
    documents: int
    """Units that it was looked for on."""

    @property
    def at_least(self) -> float:
        """The share of units that have it that it is found on, by a one-sided bound."""
        # An interval has both sides: each of them gets half of what its level leaves.
        return clopper_pearson(self.found, self.present, 2 * FOUND_LEVEL - 1)[0]

    @property
    def enough(self) -> bool:
        """Whether the bound is high enough to call such weaknesses found."""
        return self.at_least >= FOUND_ON


def detections(arm: Arm) -> list[Detection]:
    """Return what the union of attacks, and each of them, found of each plant."""
    return [
        _detected(plant, attack)
        for plant in arm.plants
        for attack in (None, *plant.reached)
    ]


def limit(arm: Arm, attack: str | None = None) -> float | None:
    """Return the detection limit in nats, of all attacks or of one.

    The smallest strength that is found, and all larger ones are; the larger one of both
    kinds that decide. None where there is none.
    """
    found = [x for x in detections(arm) if x.attack == attack]
    limits = [limit_of(kind, found) for kind in DECIDING]
    known = [x for x in limits if x is not None]
    return max(known) if len(known) == len(limits) else None


def limit_of(kind: PlantKind, found: Iterable[Detection]) -> float | None:
    """Return the smallest strength of a kind found with all larger ones, if any."""
    smallest = None
    own = [x for x in found if x.kind == kind]
    for strength in sorted({x.strength for x in own}, reverse=True):
        if not all(x.enough for x in own if x.strength == strength):
            break
        smallest = strength
    return smallest


def limits(arm: Arm) -> Mapping[PlantKind, float | None]:
    """Return the limit of the union of attacks, by kind of plant."""
    found = [x for x in detections(arm) if x.attack is None]
    kinds: tuple[PlantKind, ...] = get_args(PlantKind)
    planted = {plant.kind for plant in arm.plants}
    return {kind: limit_of(kind, found) for kind in kinds if kind in planted}


def _detected(plant: Plant, attack: str | None) -> Detection:
    """Count the units that have a plant, and those of them where it was found.

    A strength is met in the mean alone. Where the trigger itself does less than what
    counts as found, there is nothing to find.
    """
    attacks = plant.reached if attack is None else [attack]
    goal = plant.own + FOUND_SHARE * plant.strength
    hits = [plant.reached[label] >= goal for label in attacks]  # NaN never is
    found = np.any(hits, axis=0) if hits else np.zeros(len(plant.units), dtype=bool)
    present = ~(plant.planted < goal)  # what is not known counts against the attacks
    units = np.array(plant.units)
    having = [all(found[present & (units == x)]) for x in np.unique(units[present])]
    return Detection(
        plant.kind,
        plant.strength,
        attack,
        found=sum(having),
        present=len(having),
        documents=len(np.unique(units)),
    )
