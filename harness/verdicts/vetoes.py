"""What stands in the way of saying that an arm is harder to attack, or easier.

Little harm shows an arm to be hard to attack only where the attacks are shown to be
good enough to have found more. An arm is easier where all of that holds of its
reference arm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.records import DiagnosticId
from harness.verdicts.claims import mean_of_known, of_run
from harness.verdicts.contrast import Contrast
from harness.verdicts.findings import Attack, Cell, Floats
from harness.verdicts.levels import ERRORS
from harness.verdicts.losses import FULL, of_endpoint
from harness.verdicts.questions.arms import (
    completeness,
    determinism,
    equal_clean_loss,
    replay,
)
from harness.verdicts.questions.attacks import Sides, of_attack
from harness.verdicts.questions.gradients import OF_GRADIENTS
from harness.verdicts.questions.masking import masking
from harness.verdicts.questions.planted import limit
from harness.verdicts.questions.question import FULL_ADDS, Question


@dataclass(frozen=True)
class Veto:
    """One reason not to say it."""

    sentence: str
    id: DiagnosticId | None = None
    absent: bool = False
    """Whether it is for lack of an answer."""


class Vetoes:
    """What is asked before little harm on one arm counts as evidence."""

    def __init__(self, contrast: Contrast, *, exchanged: bool) -> None:
        arm, other = contrast.arm, contrast.reference
        self.contrast, self.losses = contrast, contrast.losses
        self.sides = Sides(other, arm, other) if exchanged else Sides(arm, other, other)

    # --- what is asked --------------------------------------------------------------

    @cached_property
    def attacks(self) -> list[Attack]:
        """The attacks that search on the arm, on the other arm as well or not.

        One that the other lacks is of no comparison, and yet shows what can be done to
        the arm: where it is the strongest, what is asked of both has no answer.
        """
        main = self.losses.findings.of("main")
        return [x for x in main if x.label in self.sides.arm.cells]

    @cached_property
    def of_attacks(self) -> dict[str, list[Question]]:
        """What is asked of each attack, by its label."""
        return {
            attack.label: list(of_attack(self.losses, self.sides, attack))
            for attack in self.attacks
        }

    @cached_property
    def masking(self) -> list[Question]:
        """The signs that the gradient is hidden."""
        return masking(self.losses, self.sides.arm, self.sides.other)

    @cached_property
    def errors(self) -> list[Veto]:
        """More errors on a side than any directional word can rest on."""
        sides = self.contrast.arm, self.contrast.reference
        return [
            Veto(f"attacks ended in an error on {share:.1%} of the rows of {arm.label}")
            for arm, share in zip(sides, self.contrast.errors, strict=True)
            if share > ERRORS
        ]

    def strongest(self, run: int) -> Attack | None:
        """Return the attack that does most harm to the arm; the first of equal ones."""
        if not self.attacks:
            return None
        harm = [of_run(self._harm[x.label], run) for x in self.attacks]
        return self.attacks[int(np.argmax(harm))]

    @cached_property
    def _harm(self) -> Mapping[str, Floats]:
        cells = self.sides.arm.cells
        return {label: _mean_harm(cell) for label, cell in cells.items()}

    @cached_property
    def limit(self) -> float | None:
        """The detection limit on the arm that is asked about."""
        return limit(self.sides.arm)

    # --- what was not passed --------------------------------------------------------

    def of(self, run: int) -> list[Veto]:
        """Return everything that stands in the way in a run."""
        return [
            *self.errors,
            *self._of_strongest(run),
            *self._of_arm(run),
            *self._of_match(run),
            *_not_passed([self.planted_weakness(run)], run),
        ]

    def _of_strongest(self, run: int) -> Iterator[Veto]:
        strongest = self.strongest(run)
        if strongest is None:
            yield Veto("no attack that searches is complete on both arms")
            return
        other = self.sides.other
        if all(x.gradients for x in self.attacks if x.label in other.cells):
            yield Veto("no attack that needs no gradient is among those run")
        yield from self._stronger(strongest, run)
        yield from _not_passed(self.of_attacks[strongest.label], run)
        if strongest.gradients:
            yield from _not_passed(self._unanswered(strongest), run)

    def _unanswered(self, attack: Attack) -> list[Question]:
        """Return the signs that an attack's gradient is hidden that have no answer.

        What the other arm lacks is of no comparison, and is not asked for.
        """
        found = [x for x in self.masking if x.absence is not None]
        own = [x for x in found if x.attack == attack.label]
        both = [x for x in own if x.against in self.sides.other.cells]
        return [*both, *(x for x in found if x.id in OF_GRADIENTS)]

    def _stronger(self, strongest: Attack, run: int) -> Iterator[Veto]:
        """Name controls of other attacks that do more harm than the strongest attack.

        Its own are asked about budget by budget, and may meet it at the largest.
        """
        for control in of_endpoint(self.losses.findings):
            others = control.role == "control" and control.of != strongest.label
            if others and self._more(control.label, strongest.label, run):
                name: DiagnosticId = "beats_random"
                said = f"{control.label}, a control of {control.of}, does more harm"
                yield Veto(f"{name} ({strongest.label}): {said}", name)

    def _more(self, label: str, than: str, run: int) -> bool:
        known = self._harm
        return label in known and of_run(known[label], run) > of_run(known[than], run)

    def _of_arm(self, run: int) -> Iterator[Veto]:
        arm = self.sides.arm
        signs = [x for x in self.masking if x.status(run) == "fail"]
        carried = [x for x in self.masking if x.id == "transfer"]
        known = [x for x in carried if x not in signs]
        own = [completeness(self.contrast.arm), replay(self.contrast.arm)]
        yield from _not_passed([*signs, *known, determinism(arm), *own], run)

    def _of_match(self, run: int) -> Iterator[Veto]:
        if not self.contrast.stand_ins:
            asked = list(equal_clean_loss(self.contrast.arm))
            yield from _not_passed(asked, run)
            for question in (x for x in asked if x.status(run) == "pass"):
                sentence = f"{question.against} has not been attacked alike"
                yield Veto(sentence, "equal_clean_loss", absent=True)

    def planted_weakness(self, run: int = 0) -> Question:
        """Ask whether weaknesses as small as the difference are reliably found."""
        name: DiagnosticId = "planted_weakness"
        arm = self.sides.arm
        if not arm.plants:
            absence = f"no weakness was planted into a copy of {arm.label}: {FULL_ADDS}"
            return Question(name, absence=absence)
        smallest, difference = self.limit, abs(of_run(self.contrast.shown.mean, run))
        otherwise = None
        if smallest is None:
            otherwise = f"no weakness planted into {arm.label} is reliably found"
        elif smallest > difference:
            otherwise = (
                f"weaknesses planted into {arm.label} are reliably found from "
                f"{smallest:g} nats/token on, which is more than the difference"
            )
        return Question(name, otherwise=otherwise)


def _not_passed(asked: list[Question], run: int) -> Iterator[Veto]:
    return (veto(question) for question in asked if question.status(run) != "pass")


def veto(question: Question) -> Veto:
    """Spell out what a question that was not passed says."""
    about = f" ({question.attack})" if question.attack else ""
    absent = question.absence is not None
    said = question.absence if absent else question.otherwise
    return Veto(f"{question.id}{about}: {said}", question.id, absent)


def _mean_harm(cell: Cell) -> Floats:
    """Return the mean dL of a cell at the full budget, over what is finite: [B]."""
    searches = cell.delta[..., None, :, FULL]
    if cell.replicates is not None:
        searches = np.concatenate([searches, cell.replicates], axis=-2)
    rows = searches[..., cell.there, :, :].mean(axis=-2)
    return np.nan_to_num(mean_of_known(rows))
