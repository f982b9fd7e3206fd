"""A contrast: an arm held against its reference arm, under the worst of all attacks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from harness.records import TREATMENT_SEEDS, Crossed
from harness.verdicts.claims import (
    Claim,
    above,
    below,
    every,
    mean_of_known,
    summarised,
)
from harness.verdicts.findings import SHARES, Arm, Floats
from harness.verdicts.losses import FULL, Losses, common, error_share, places, worst
from harness.verdicts.questions.arms import equal

Pair = tuple[Arm, Arm]
"""An arm and its reference arm, or what stands for either of them."""


class Contrast:
    """An arm and its reference arm, and what is claimed of them, before Holm."""

    def __init__(self, losses: Losses, arm: Arm, reference: Arm) -> None:
        self.losses, self.arm, self.reference = losses, arm, reference
        self.shared = common(losses.findings, arm, reference)

    @property
    def seeds(self) -> int:
        """How many training seeds both have."""
        return len(self.shared.seeds)

    @property
    def of_treatment(self) -> bool:
        """Whether it can speak of the treatment, and not of these weights alone."""
        return self.seeds >= TREATMENT_SEEDS

    # --- claims ---------------------------------------------------------------------

    @cached_property
    def harder(self) -> Claim:
        """That the arm is harder to attack, at every share and beside every match."""
        return every([self._lower(arm, other) for arm, other in self._pairs])

    @cached_property
    def easier(self) -> Claim:
        """That the arm is easier to attack: the same, the two exchanged."""
        return every([self._lower(other, arm) for arm, other in self._pairs])

    @cached_property
    def equivalent(self) -> Claim:
        """That the difference is within the margin, to either side."""
        share, nats = self.losses.findings.margin.parts
        least, most = (
            self._sides(self.arm, self.reference, arm_full=full)
            for full in (False, True)
        )
        no_less = least[0] - (1 - share) * least[1]
        no_more = most[0] - (1 + share) * most[1]
        return every(
            [above(no_less[..., FULL], -nats), below(no_more[..., FULL], nats)]
        )

    @cached_property
    def at_shares(self) -> list[Claim]:
        """That the arm is harder to attack than its reference arm, share by share."""
        return [below(self.tables[..., k]) for k in range(len(SHARES))]

    @cached_property
    def shown(self) -> Crossed[Floats]:
        """The difference, arm minus reference arm, at the full budget."""
        return self.at_shares[FULL].about

    @cached_property
    def reference_harm(self) -> Floats:
        """DL [S, units, 4] of the reference arm under the worst of its attacks."""
        return self._sides(self.arm, self.reference, arm_full=True)[1]

    @cached_property
    def tables(self) -> Floats:
        """The difference [..., S, units, 4], errors counted against "harder"."""
        ours, theirs = self._sides(self.arm, self.reference, arm_full=True)
        return ours - theirs

    def _lower(self, arm: Arm, other: Arm) -> Claim:
        if (arm, other) == (self.arm, self.reference):
            return every(self.at_shares)
        return every(self._lower_at(arm, other))

    def _lower_at(self, arm: Arm, other: Arm) -> list[Claim]:
        ours, theirs = self._sides(arm, other, arm_full=True)
        return [below(ours[..., k] - theirs[..., k]) for k in range(len(SHARES))]

    def _sides(self, arm: Arm, other: Arm, *, arm_full: bool) -> tuple[Floats, Floats]:
        """Return dL [..., S, units, 4] of both, errors as full harm on one of them."""
        shared = common(self.losses.findings, arm, other)
        rows = (
            worst(self.losses, arm, shared, full=arm_full),
            worst(self.losses, other, shared, full=not arm_full),
        )
        ours, theirs = (
            np.moveaxis(self.losses.by_unit(arm, np.moveaxis(x, -1, 0)), 0, -1)
            for x in rows
        )
        return ours, theirs

    # --- matches --------------------------------------------------------------------

    @cached_property
    def _pairs(self) -> Sequence[Pair]:
        """The two arms, and both again with each match in place of one."""
        return list(dict.fromkeys([(self.arm, self.reference), *self.stand_ins]))

    @cached_property
    def stand_ins(self) -> list[Pair]:
        """The pairs with a match of equal clean loss that has been attacked alike.

        Under every seed: fewer of them would say less than the contrast itself.
        """
        pairs = [self._with(match.arm, match.stands_for) for match in equal(self.arm)]
        seeds = set(self.shared.seeds)
        findings = self.losses.findings
        return [x for x in pairs if seeds <= set(common(findings, *x).seeds)]

    def _with(self, label: str, stands_for: str) -> Pair:
        match = self.losses.findings.arm(self.arm.model, label)
        return (match, self.reference) if stands_for == "arm" else (self.arm, match)

    # --- what else is known of both -------------------------------------------------

    @cached_property
    def errors(self) -> tuple[float, float]:
        """The share of rows in error, of the arm and of its reference arm."""
        ours = error_share(self.arm, self.shared)
        return ours, error_share(self.reference, self.shared)

    @cached_property
    def clean(self) -> Floats:
        """Mean clean loss of the arm [B], in nats/token."""
        return mean_of_known(self._clean(self.arm))

    @cached_property
    def attacked_reference(self) -> Floats:
        """Mean loss of the reference arm under the worst of its attacks [B]."""
        harm = worst(self.losses, self.reference, self.shared, full=False)[..., FULL]
        return mean_of_known(self._clean(self.reference) + harm)

    def worst_case(self, arm: Arm) -> Crossed[Floats]:
        """Return dL of one of both arms under the worst of its attacks."""
        rows = worst(self.losses, arm, self.shared, full=False)[..., FULL]
        return summarised(self.losses.by_unit(arm, rows))

    def _clean(self, arm: Arm) -> Floats:
        return arm.clean[..., places(arm, self.shared.seeds), :]
