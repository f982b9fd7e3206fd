"""What stands around a cell: the arms, seeds and attacks of its suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.api import Attack, Scene
from harness.suite.model import Suite


def scene_of(
    suite: Suite,
    attacks: Mapping[str, Attack[Any]],
    arm: str | None = None,
    seed: int | None = None,
) -> Scene:
    """Return the scene of the cells of an arm and a seed, by default of the first.

    Names are sorted, so that nothing depends on the order of the suite.
    """
    seeds = sorted(suite.seeds)
    arms = [x for x in sorted(suite.arms) if not suite.arms[x].derive_from or x == arm]
    return Scene(
        arm=arms[0] if arm is None else arm,
        seed=seeds[0] if seed is None else seed,
        arms=tuple(arms),
        gets={x: tuple(attacks_of(suite, x)) for x in arms},
        seeds=tuple(seeds),
        attacks=dict(sorted(attacks.items())),
        main=main_attacks(suite),
    )


def attacks_of(suite: Suite, arm: str) -> list[str]:
    """Return the attacks that an arm gets, in the suite's order."""
    stated = suite.arms[arm].attacks
    return [label for label in suite.attacks if stated is None or label in stated]


def main_attacks(suite: Suite) -> tuple[str, ...]:
    """Return the labels of the attacks that are no control and of no special role."""
    return tuple(
        label
        for label, section in sorted(suite.attacks.items())
        if section.match is None and section.role is None
    )
