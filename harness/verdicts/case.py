"""The case of one arm: everything that the rule asks of it, each asked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from harness.verdicts.claims import Claim, corrected, some
from harness.verdicts.contrast import Contrast
from harness.verdicts.findings import Arm, ArmRole, Findings
from harness.verdicts.losses import Losses
from harness.verdicts.questions.arms import determinism
from harness.verdicts.questions.attacks import beats, controls
from harness.verdicts.questions.gradients import untrue_slopes
from harness.verdicts.questions.masking import masking
from harness.verdicts.questions.question import Question
from harness.verdicts.vetoes import Vetoes


class Case:
    """One arm of one model, and the reference arm that it is held against."""

    def __init__(self, cases: Cases, arm: Arm) -> None:
        self.cases, self.arm = cases, arm
        self.findings, self.losses = cases.findings, cases.losses

    @cached_property
    def reference(self) -> Arm:
        """The arm that it is held against; of the baseline arm, itself."""
        if self.arm.reference is None:
            return self.arm
        return self.findings.arm(self.arm.model, self.arm.reference)

    @cached_property
    def contrast(self) -> Contrast | None:
        """The contrast of both; None where there is nothing to compare."""
        if self.arm.reference is None:
            return None
        found = Contrast(self.losses, self.arm, self.reference)
        return found if found.seeds else None

    @property
    def harder(self) -> Claim | None:
        """That the arm is harder to attack, corrected for the suite's contrasts."""
        return self.cases.harder.get(self.arm)

    @property
    def easier(self) -> Claim | None:
        """That the arm is easier to attack, likewise."""
        return self.cases.easier.get(self.arm)

    @cached_property
    def for_harder(self) -> Vetoes:
        """What stands in the way of saying that the arm is harder to attack."""
        assert self.contrast is not None
        return Vetoes(self.contrast, exchanged=False)

    @cached_property
    def for_easier(self) -> Vetoes:
        """What stands in the way of saying that the arm is easier to attack."""
        assert self.contrast is not None
        return Vetoes(self.contrast, exchanged=True)

    @property
    def masking(self) -> list[Question]:
        """The signs that the arm's gradient is hidden, and its reference arm's not."""
        if self.contrast is None:
            return masking(self.losses, self.arm, self.reference)
        return self.for_harder.masking

    @property
    def replicas(self) -> list[Case]:
        """The cases of the same model's replicas; none for one of them."""
        if self.arm.role == "replica":
            return []
        return [x for x in self.cases.of("replica") if x.arm.model == self.arm.model]

    @cached_property
    def units(self) -> int:
        """How many documents, or clusters of them, are attacked."""
        return len(set(self.losses.units(self.arm)))

    @cached_property
    def unsound(self) -> list[Question]:
        """What would make every number of the reference arm worthless."""
        return [determinism(self.reference), untrue_slopes(self.reference)]

    @cached_property
    def proofs(self) -> dict[str, list[Question]]:
        """For each attack that searches, whether it beats its random controls.

        On the reference arm, at any budget, Holm over all attacks.
        """
        main = [attack.label for attack in self.findings.of("main")]
        pairs = [(x, y) for x in main for y in controls(self.losses, x, "search")]
        found = [beats(self.losses, self.reference, *pair) for pair in pairs]
        known = [some(claims) for claims in found if not isinstance(claims, str)]
        fair = iter(corrected(known))
        asked = [
            Question("beats_random", attack, control, absence=claims)
            if isinstance(claims, str)
            else Question(
                "beats_random",
                attack,
                control,
                claim=next(fair),
                otherwise=f"it is not shown to do more harm than {control}",
            )
            for (attack, control), claims in zip(pairs, found, strict=True)
        ]
        return {label: [x for x in asked if x.attack == label] for label in main}


class Cases:
    """All arms that are judged, and Holm over their contrasts.

    A replica is no treatment: it is there to take words away. Its contrast is not of
    the family, and is not corrected. `beside` counts contrasts of the family that show
    nothing, and are not there.
    """

    def __init__(self, findings: Findings, beside: int = 0) -> None:
        self.findings, self.losses = findings, Losses(findings)
        self.beside = beside
        judged = [x for x in findings.arms if x.role in ("treatment", "replica")]
        self.judged: Sequence[Case] = [Case(self, arm) for arm in judged]

    @cached_property
    def harder(self) -> dict[Arm, Claim]:
        """For each contrast, that the arm is harder to attack."""
        return self._corrected(lambda contrast: contrast.harder)

    @cached_property
    def easier(self) -> dict[Arm, Claim]:
        """For each contrast, that the arm is easier to attack."""
        return self._corrected(lambda contrast: contrast.easier)

    @property
    def family(self) -> list[Contrast]:
        """The contrasts that a suite makes claims about."""
        return [x.contrast for x in self.of("treatment") if x.contrast is not None]

    def _corrected(self, claim: Callable[[Contrast], Claim]) -> dict[Arm, Claim]:
        family = self.family
        fair = corrected([claim(contrast) for contrast in family], self.beside)
        alone = [x.contrast for x in self.of("replica") if x.contrast is not None]
        found = {x.arm: own for x, own in zip(family, fair, strict=True)}
        return found | {contrast.arm: claim(contrast) for contrast in alone}

    def of(self, role: ArmRole) -> list[Case]:
        """Return the cases of the arms of a role."""
        return [case for case in self.judged if case.arm.role == role]
