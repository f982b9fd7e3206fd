"""What is judged of a run, in the form that ``report/verdicts.json`` has."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import pydantic

from harness.base import Strict
from harness.records.estimate import Estimate
from harness.records.record import Diagnostic, DiagnosticId

Word = Literal[
    "reference",
    "robust",
    "no effect",
    "gradient-masked",
    "attack invalid",
    "inconclusive",
]
"""What an arm is called; `reference` is a baseline arm with nothing against it."""

VERDICTS_VERSION: Final = 1


class Judged(Diagnostic):
    """The answer to a question about an arm, over all of its seeds."""

    attack: str | None = None
    """The attack that it is about, by its label; null where it is about the arm."""
    against: str | None = None
    """The attack or arm that it was compared with, by its label."""


class ArmVerdict(Strict):
    """What is to be thought of one arm of one model."""

    model: str
    """The model's label."""
    arm: str
    """The arm's label."""
    verdict: Word
    """By the rule in docs/rigour.md."""
    reasons: list[str] = pydantic.Field(min_length=1)
    """Why, in sentences."""
    decided_by: list[DiagnosticId]
    """The diagnostics that decided; empty where the difference alone did."""
    clean_loss: float | None
    """Mean clean loss on the attacked examples, in nats/token; null without cells."""
    attacked_baseline: float | None
    """Mean loss of the baseline arm under its strongest attacks, in nats/token, on the
    same examples; null for a baseline arm."""
    worst_case: Estimate | None
    """Mean dL of the strongest attack on each example; null without cells."""
    difference: Estimate | None
    """Of worst-case dL, arm minus baseline, paired; null for a baseline arm."""
    p: Annotated[float, pydantic.Field(ge=0, le=1)] | None
    """That the difference is not below 0: one-sided, Holm over the arms."""
    match_difference: Estimate | None
    """The same against a baseline of equal clean loss; null where there is none."""
    match_p: Annotated[float, pydantic.Field(ge=0, le=1)] | None
    """Of that difference."""
    diagnostics: list[Judged]
    """All answers, of the arm and of its attacks."""

    @property
    def broken(self) -> bool:
        """Whether the arm, let alone, is worse than the baseline arm under attack."""
        clean, attacked = self.clean_loss, self.attacked_baseline
        return clean is not None and attacked is not None and clean > attacked


class Verdicts(Strict):
    """The verdicts of a run."""

    schema_version: Literal[1] = VERDICTS_VERSION
    """The version of this schema."""
    suite: str
    """The suite's name."""
    diagnostics: Literal["standard", "full", "none"]
    """What the suite asks for."""
    threshold: float
    """Success is exp(dL) > 1 + threshold."""
    arms: list[ArmVerdict]
    """In the order of the report, those derived from other arms left out."""
