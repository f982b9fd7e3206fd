"""The verdicts of a run, as ``report/verdicts.json`` has them."""

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
"""What an arm is found to be; `reference`: a baseline arm that passed its checks."""

VERDICTS_VERSION: Final = 1

Probability = Annotated[float, pydantic.Field(ge=0, le=1)]


class Judged(Diagnostic):
    """The outcome of one check of an arm, over all of its seeds."""

    attack: str | None = None
    """The label of the attack that was checked; null for a check of the arm."""
    against: str | None = None
    """The label of the attack or arm that it was compared with; null for none."""


class ArmVerdict(Strict):
    """The verdict on one arm of one model."""

    model: str
    """The model's label."""
    arm: str
    """The arm's label."""
    verdict: Word
    """The verdict, by the rule in docs/rigour.md."""
    reasons: list[str] = pydantic.Field(min_length=1)
    """The reasons for it, in sentences."""
    decided_by: list[DiagnosticId]
    """The diagnostics that decided it; empty where the difference alone did."""
    clean_loss: float | None
    """Mean clean loss on the attacked examples, in nats/token; null without cells."""
    attacked_baseline: float | None
    """Mean loss of the baseline arm under its strongest attacks, in nats/token, on the
    same examples; null for a baseline arm."""
    worst_case: Estimate | None
    """Mean over examples of the highest dL of any attack; null without cells."""
    difference: Estimate | None
    """Worst-case dL of the arm minus that of the baseline arm, paired by example; null
    for a baseline arm."""
    p: Probability | None
    """One-sided p-value for `difference` < 0, Holm-adjusted over the arms; null for a
    baseline arm."""
    match_difference: Estimate | None
    """As `difference`, but against a baseline arm of equal clean loss; null where there
    is none."""
    match_p: Probability | None
    """The p-value of `match_difference`."""
    diagnostics: list[Judged]
    """The outcome of all checks, of the arm and of its attacks."""

    @property
    def broken(self) -> bool:
        """Whether the arm, not attacked, loses more than the attacked baseline arm."""
        clean, attacked = self.clean_loss, self.attacked_baseline
        return clean is not None and attacked is not None and clean > attacked


class Verdicts(Strict):
    """The verdicts of a run."""

    schema_version: Literal[1] = VERDICTS_VERSION
    """The version of this schema."""
    suite: str
    """The suite's name."""
    diagnostics: Literal["standard", "full", "none"]
    """Which diagnostics the suite asks for."""
    threshold: float
    """An attack succeeds on an example where exp(dL) > 1 + threshold."""
    arms: list[ArmVerdict]
    """The verdicts in the order of the report; arms derived from others have none."""
