"""A question of the rule, and how it was answered."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.records import DiagnosticId, DiagnosticStatus
from harness.verdicts.claims import Claim
from harness.verdicts.levels import QUESTION

FULL_ADDS = "diagnostics: full adds it"
"""Said of what only full diagnostics add to a suite."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of an arm or an attack: by a claim, or by a fact."""

    id: DiagnosticId
    attack: str | None = None
    against: str | None = None
    """The attack or arm that it is compared with."""
    claim: Claim | None = None
    level: float = QUESTION
    """At which the claim is shown."""
    against_it: bool = False
    """Whether the claim, once shown, speaks against the arm or attack; else it has to
    be shown."""
    otherwise: str | None = None
    """What it means not to pass; of a question without a claim, that it fails."""
    absence: str | None = None
    """Why there is no answer."""
    unit: str = "nats/token"

    def shown(self, run: int) -> bool:
        """Say whether the claim is shown in a run."""
        return self.claim is not None and self.claim.shown(self.level, run)

    def status(self, run: int = 0) -> DiagnosticStatus:
        """Return how it was answered in a run."""
        if self.absence is not None:
            return "not_applicable"
        if self.claim is None:
            return "pass" if self.otherwise is None else "fail"
        return "fail" if self.shown(run) is self.against_it else "pass"

    def corrected(self, claim: Claim) -> Question:
        """Return it with a claim that was corrected for the number of claims."""
        return replace(self, claim=claim)
