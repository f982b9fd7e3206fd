"""An arm as the questions see it: its attacks, their cells, and what they find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.suite import scene_of
from harness.verdicts.pairing import Pairing, pair, why_unpaired
from harness.verdicts.results import Attacked, AttackedCell, Results, Subjects

if TYPE_CHECKING:
    from harness.records import Record


@dataclass(frozen=True)
class Arm:
    """One model under one arm, and what a run found about it."""

    results: Results
    subjects: Subjects

    @cached_property
    def baseline(self) -> Arm:
        """The baseline arm of the same model."""
        return Arm(self.results, self.subjects.baseline)

    @property
    def is_baseline(self) -> bool:
        """Whether this is the baseline arm."""
        return self.subjects == self.subjects.baseline

    @property
    def variants(self) -> dict[int, Record]:
        """The records of its complete variants, by seed."""
        return self.results.variants(self.subjects)

    def cells(self, attack: str) -> dict[int, AttackedCell]:
        """Return the complete cells of an attack, by seed."""
        return self.results.cells(self.subjects, attack)

    def absence(self, attack: str | None = None) -> str:
        """Say why there is nothing of an attack, or of the arm itself."""
        return self.results.absence(self.subjects, attack)

    # --- attacks --------------------------------------------------------------------

    @cached_property
    def planned(self) -> list[str]:
        """All attacks and controls that it gets, by their labels."""
        labels = self.results.suite.attacks
        return [x for x in labels if self.results.planned(self.subjects, x)]

    @cached_property
    def attacks(self) -> list[str]:
        """The attacks that search and are no control, by their labels."""
        return [label for label in self.planned if self._searches(label)]

    @cached_property
    def united(self) -> list[str]:
        """All attacks and controls that are complete, special roles left out."""
        sections = self.results.suite.attacks
        return [x for x in self.planned if sections[x].role is None and self.cells(x)]

    def controls(self, attack: str) -> list[str]:
        """Return the labels of the controls of an attack that this arm gets."""
        sections = self.results.suite.attacks
        return [label for label in self.planned if sections[label].match == attack]

    def uses_gradients(self, attack: str) -> bool:
        """Say whether an attack makes backward passes."""
        return bool(self._plugin(attack).budget(1).backward > 0)

    def _searches(self, label: str) -> bool:
        section, attack = self.results.suite.attacks[label], self._plugin(label)
        if section.match is not None or section.role is not None or attack.replays:
            return False
        budget = attack.budget(1)
        return bool(budget.forward or budget.backward)

    def _plugin(self, label: str) -> Any:
        experiment = self.results.survey.plan.experiment
        scene = scene_of(experiment.suite, experiment.attacks, self.subjects.arm)
        return experiment.attacks[label].placed(scene)

    # --- pairs of cells -------------------------------------------------------------

    def worst(self, attacks: Sequence[str]) -> dict[int, Attacked]:
        """Return, by seed, the row of highest dL of each example over some cells."""
        return self.results.worst(self.subjects, attacks)

    def pairing(self, first: str, second: str) -> Pairing | str:
        """Pair two attacks on this arm, or say why that cannot be done."""
        sides = {x: (self.subjects, x) for x in (first, second)}
        found = pair(self.cells(first), self.cells(second))
        return found or why_unpaired(self.results, sides)

    def against(self, other: Arm) -> Pairing | None:
        """Pair the worst case with that of another arm, over what both have."""
        labels = [label for label in self.united if label in other.united]
        return pair(self.worst(labels), other.worst(labels)) if labels else None
