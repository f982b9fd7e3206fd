"""The arms that full diagnostics add: matches in clean loss, and planted weaknesses.

They are ordinary entries of `arms` from then on, in the resolved suite, the plan and
the report, which keeps them apart from the treatments. They get the attacks that look
for something: no controls, no replays, no cells of other diagnostics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from harness.api.attacks import Attack
from harness.api.constraints import Constraint
from harness.api.registry import Registry
from harness.suite import ArmSection, Suite

Arms = dict[str, Constraint[Any]]
BASELINE = "baseline"
MATCHED = "matched"
PLANTED = "planted"


def add_derived_arms(
    suite: Suite,
    arms: Mapping[str, Constraint[Any]],
    attacks: Mapping[str, Attack[Any]],
    registry: Registry,
) -> tuple[Suite, Arms]:
    """Return a valid suite and its arms with those that full diagnostics need.

    ``<arm>-matched`` for each arm but the baseline, ``<arm>-planted`` for each; for
    none that is derived itself, and none where the suite has one of that name. Without
    attacks, or without texts to match losses on, nothing is added.
    """
    sections, built = dict(suite.arms), dict(arms)
    for label, section in _additions(suite, searching_attacks(suite, attacks)):
        if label not in sections:
            sections[label] = section
            built[label] = cast(
                "Constraint[Any]",
                registry.create("constraint", section.constraint, {}),
            )
    return suite.model_copy(update={"arms": sections}), built


def searching_attacks(
    suite: Suite, attacks: Mapping[str, Attack[Any]]
) -> tuple[str, ...]:
    """Return the entries that look for something by themselves."""
    return tuple(
        label
        for label, section in suite.attacks.items()
        if section.match is None
        and section.role is None
        and not (attacks[label].replays or attacks[label].needs_peers)
    )


def _additions(
    suite: Suite, attacks: tuple[str, ...]
) -> Iterator[tuple[str, ArmSection]]:
    if suite.diagnostics != "full" or not attacks or not _has_validation(suite):
        return
    treated = [arm for arm, section in suite.arms.items() if not section.derive_from]
    for arm in treated:
        if arm != BASELINE:
            match = ArmSection(
                constraint="noise",
                derive_from=BASELINE,
                match_loss_of=arm,
                attacks=attacks,
            )
            yield f"{arm}-{MATCHED}", match
    for arm in treated:
        planted = ArmSection(constraint="planted", derive_from=arm, attacks=attacks)
        yield f"{arm}-{PLANTED}", planted


def _has_validation(suite: Suite) -> bool:
    examples, recovery = suite.examples, suite.recovery
    if examples is None:
        return False
    held_out = recovery is not None and recovery.validation is not None
    return examples.validation is not None or held_out
