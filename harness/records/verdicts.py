"""The verdicts of a run, as ``report/verdicts.json`` has them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import pydantic

from harness.base import Strict
from harness.records.claims import StatedClaim
from harness.records.estimate import Amount, Count, Estimate
from harness.records.record import Diagnostic, DiagnosticId

Word = Literal[
    "reference",
    "attack invalid",
    "not applied",
    "broken",
    "gradient-masked",
    "equivalent",
    "easier to attack",
    "harder to attack",
    "undecided",
    "within the margin on these weights",
    "higher on these weights",
    "lower on these weights",
]
"""What an arm is found to be, held against its reference arm. The last three are said
instead of three others where there are too few training seeds to speak of a treatment:
another run of the same training may turn them round."""

VERDICTS_VERSION: Final = 2

Probability = Annotated[float, pydantic.Field(ge=0, le=1)]


class Components(Strict):
    """What a number varies by: standard deviations, in its own unit."""

    seeds: Amount | None
    """Between training seeds; null where a single one was trained."""
    documents: Amount
    """Between documents; with a single seed, what remains as well."""
    residual: Amount | None
    """What remains; null where a single seed was trained."""


class Tested(Strict):
    """A mean over training seeds and documents, and what was claimed of it."""

    value: float
    """The mean."""
    interval: tuple[float, float] | None
    """The interval of the mean; null where there is a single document."""
    interval_level: float = 0.95
    """The confidence level of the interval."""
    p: Probability
    """The p of the claim, corrected where claims are, and of nothing else."""
    level: Probability
    """The claim is shown where p is no larger."""
    shown: bool
    """Whether the claim is shown."""
    documents: Count
    """How many documents, or clusters of them."""
    seeds: Count
    """How many training seeds."""
    searches: Count
    """Searches of a universal attack within a seed; 1 for others."""
    components: Components
    """What the mean varies by."""


class Judged(Diagnostic):
    """The answer to one question about an arm, or about an attack on it."""

    attack: str | None = None
    """The label of the attack that was asked about; null for a question to the arm."""
    against: str | None = None
    """The label of the attack or arm that it is compared with; null for none."""
    tested: Tested | None = None
    """The claim that answers it; null where a fact does, or nothing."""


class AtShare(Strict):
    """The difference with a multiple of the attacks' stated budget."""

    share: float
    """The multiple."""
    value: float
    """Arm minus reference arm, in nats/token."""
    interval: tuple[float, float] | None
    """Its interval at 95 %."""


class Said(Strict):
    """A claim about the difference, with the one p that it has."""

    claim: Literal["harder to attack", "easier to attack", "equivalent"]
    """What is claimed. The first two of every budget and every match alike, corrected
    for the contrasts of the suite by Holm; the third of both ends of the margin."""
    p: Probability
    """The largest p of all that the claim needs, corrected."""
    level: Probability
    """The claim is shown where p is no larger."""
    shown: bool
    """Whether it is."""


class Needed(Strict):
    """A design that would decide with the difference that was found."""

    seeds: Count
    """Training seeds."""
    documents: Count
    """Documents."""


class Difference(Strict):
    """dL of the worst attack, arm minus reference arm, at the whole budget."""

    value: float
    """The mean over seeds and documents, in nats/token."""
    interval: tuple[float, float] | None
    """Its interval; null where there is a single document."""
    interval_level: float = 0.95
    """The confidence level of the interval."""
    sides: tuple[float, float]
    """dL of the arm and of the reference arm, in nats/token, errors left out."""
    documents: Count
    """How many documents, or clusters of them."""
    seeds: Count
    """How many training seeds."""
    searches: Count
    """Searches within a seed: universal attacks enter with their first."""
    attacks: list[str]
    """The attacks, controls and replays that the worst is taken over, on both arms."""
    components: Components
    """What it varies by."""
    margin_nats: float
    """The margin, in nats/token."""
    by_share: list[AtShare]
    """The difference at each multiple of the stated budget."""
    claims: list[Said]
    """What was claimed of it."""
    detectable: Amount | None
    """The smallest true difference that this design finds in 80 % of cases; null where
    the components are not known."""
    needed: Needed | None
    """What would decide an undecided arm in 80 % of cases; null for others, and where
    nothing within reach would."""
    error_share: tuple[float, float]
    """The share of rows in error, of the arm and of the reference arm."""


class Detected(Strict):
    """On how many documents a planted weakness is, and was found."""

    kind: str
    """What was planted: ``token``, ``ffn``, ``pair`` or ``hidden``."""
    strength: Amount
    """By how much it raises dL above the arm's own under attack, in nats/token."""
    attack: str | None
    """The attack; null for the union of all."""
    found: Count
    """Documents that have it on which attacks reach at least half of it."""
    present: Count
    """Documents that have it: its trigger itself reaches at least half of it there."""
    documents: Count
    """Documents on which it was looked for."""
    at_least: Probability
    """The share of the documents that have it that it is found on, one-sided at
    95 %."""


class Calibration(Strict):
    """What the rule says of arms like this one that do not differ from their reference.

    Components are drawn from their sampling distributions, residuals from the run;
    every question is taken for passed, so that chance alone is left.
    """

    runs: Count
    """How many runs were simulated."""
    words: dict[Word, Probability]
    """How often each word came out."""
    harder_from: Amount | None
    """The true difference from which on "harder to attack" comes out in 80 % of runs,
    in nats/token; null where none that was tried suffices."""


class ArmVerdict(Strict):
    """The verdict on one arm of one model."""

    model: str
    """The model's label."""
    arm: str
    """The arm's label."""
    reference: str | None
    """The label of the arm that it is held against; null for the baseline arm."""
    verdict: Word
    """The verdict, by the rule in docs/rigour.md."""
    scope: Literal["treatment", "weights"] | None
    """What a difference is about: from three training seeds on the treatment, else
    these weights; null without a contrast."""
    exploratory: bool
    """Whether the margin was changed after records were made."""
    reasons: list[str] = pydantic.Field(min_length=1)
    """The reasons for it, in sentences."""
    decided_by: list[DiagnosticId]
    """The questions that decided it, or are open; empty where the difference alone
    did."""
    clean_loss: float | None
    """Mean clean loss on the attacked examples, in nats/token; null without cells."""
    attacked_reference: float | None
    """Mean loss of the reference arm under its worst attacks, in nats/token, on the
    same examples; null for the baseline arm."""
    worst_case: Estimate | None
    """dL of the arm under the worst of all attacks; null without cells."""
    difference: Difference | None
    """The contrast; null for the baseline arm, and where nothing can be compared."""
    detection: list[Detected]
    """What was found of the weaknesses planted into copies of the arm."""
    detection_limit: Amount | None
    """The strength in nats from which on weaknesses like those planted are reliably
    found; null where none is."""
    calibration: Calibration | None
    """How far chance alone goes with such a design; null where it was not asked."""
    diagnostics: list[Judged]
    """The answers to all questions, to the arm and to its attacks."""

    @property
    def broken(self) -> bool:
        """Whether the arm, not attacked, loses more than the attacked reference arm."""
        clean, attacked = self.clean_loss, self.attacked_reference
        return clean is not None and attacked is not None and clean > attacked


Answer = Literal["supported", "refuted", "undecided", "refused"]
"""What became of a claim. ``refused``: nothing in the run could answer it."""


class ClaimAnswer(Strict):
    """The answer to a claim of the suite, about one of its models."""

    group: str
    """The group of claims, which is corrected for its number together."""
    label: str
    """The claim's label in the group."""
    model: str
    """The model's label."""
    claim: StatedClaim
    """The claim, as every record states it."""
    words: str
    """The claim in words, its bound included."""
    answer: Answer
    """The answer, by docs/rigour.md."""
    scope: Literal["treatment", "weights"] | None
    """What it is about: from three training seeds on the treatment, else, and under
    every seed alone, these weights; null where nothing was compared."""
    exploratory: bool
    """Whether claims of the group were changed after records were made."""
    reasons: list[str]
    """Why, in sentences; empty where interval and bound say all."""
    estimate: Estimate | None
    """The number that has the bound, with its interval at 95 %, which is not corrected;
    null where nothing was compared, and where the claim is refused."""
    sides: tuple[float, float] | None
    """The number of the arm, and that of the other one; null where the estimate is."""
    seeds: Count
    """How many training seeds."""
    p_supported: Probability | None
    """One-sided p of the claim, by Holm over its group; null where none may decide."""
    p_refuted: Probability | None
    """The same of its opposite."""
    level: Probability
    """Either is shown where its p is no larger."""
    needed: Needed | None
    """What would decide an undecided claim in 80 % of cases if the number is as found;
    null for others, and where nothing within reach would."""


class Verdicts(Strict):
    """The verdicts of a run."""

    schema_version: Literal[2] = VERDICTS_VERSION
    """The version of this schema."""
    suite: str
    """The suite's name."""
    diagnostics: Literal["standard", "full", "none"]
    """Which diagnostics the suite asks for."""
    margin: str
    """How small a difference counts as none, as the suite states it."""
    margin_change: str | None
    """That records state another margin, in a sentence; null where none does."""
    threshold: float
    """An attack succeeds on an example where exp(dL) > 1 + threshold; no verdict
    depends on it."""
    claims: list[ClaimAnswer] = []
    """The answers to the suite's claims, group by group."""
    arms: list[ArmVerdict]
    """The verdicts in the order of the report; arms derived from others have none."""
