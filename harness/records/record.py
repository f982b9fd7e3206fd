"""Records: what happened to a variant or a cell, as JSON with a published schema.

The models below are the one source: the published schema is generated from them (a
test compares the two), and what is written is validated against that file, as what is
read is. Numbers are finite or null, and a null estimate says why.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import pydantic

from harness.base import Strict
from harness.records.estimate import Amount, Count, Estimate, Sha256
from harness.records.rules import GIVEN, Ruled, When

SCHEMA_VERSION: Final = 1


class SuiteRef(Strict):
    """Which suite this record belongs to."""

    name: str
    """The suite's name."""
    sha256: Sha256
    """Of the resolved suite."""
    profile: str | None = None
    """The profile that was chosen."""
    limit: int | None = None
    """Set where only the first examples were used: not for real numbers."""


class ModelRef(Strict):
    """Which model."""

    label: str
    """What the suite calls it."""
    adapter: str
    """The model plugin."""
    options: dict[str, Any]
    """The adapter's options, defaults filled in."""
    given: list[str] = []
    """The options that the suite states; the others are defaults."""
    fingerprint: str
    """What identifies the weights."""
    parameters: int | None = None
    """Number of parameters of the loaded model, embeddings included."""


class ArmRef(Strict):
    """Which treatment."""

    label: str
    """What the suite calls it."""
    constraint: str
    """The constraint plugin."""
    options: dict[str, Any]
    """The constraint's options, defaults filled in."""
    given: list[str] = []
    """The options that the suite states; the others are defaults."""
    recovery: dict[str, Any] | None
    """The recovery training that this arm gets, resolved; null for none."""
    derive_from: str | None = None
    """The arm whose frozen subject it starts from; null for the model as loaded."""
    match_loss_of: str | None = None
    """The arm whose clean loss it is brought to."""


class TokensRef(Strict):
    """Which tokens an attack may write."""

    rules: dict[str, Any] = {}
    """The suite's token rules that are not the default."""
    allowed: int | None = None
    """How many tokens may be written; null where the attack did not begin."""
    sha256: Sha256 | None = None
    """Of their ids, as decimal numbers joined by commas."""


class AttackRef(Strict):
    """Which attack, on which examples."""

    label: str
    """What the suite calls it."""
    attack: str
    """The attack plugin."""
    options: dict[str, Any]
    """The attack's options, defaults filled in."""
    given: list[str] = []
    """The options that the suite states; the others are defaults."""
    match: str | None = None
    """For a control: the label of the attack whose budget it gets."""
    examples: dict[str, Any]
    """Where the examples come from, resolved."""
    tokens: TokensRef = TokensRef()
    """Which tokens it may write."""


class Cost(Strict):
    """The compute of one phase; costs add up."""

    sequences_forward: Count = 0
    """Sequences that went through a forward pass."""
    sequences_backward: Count = 0
    """Sequences that went through a backward pass."""
    tokens_forward: Count = 0
    """Tokens (prompt and reference) that went through a forward pass."""
    tokens_backward: Count = 0
    """Tokens that went through a backward pass."""
    flops: Amount = 0.0
    """FLOPs executed, computed analytically, attention and LM head included. Padding
    rows count; tokens served from a cache count once."""
    flops_whole: Amount | None = None
    """FLOPs of the same passes without caches and without padding. Attack budgets are
    compared by it: it depends on what an attack tries, not on how it is batched."""
    seconds: Amount = 0.0
    """Wall-clock time."""
    peak_memory_bytes: Count | None = None
    """Peak device memory, or the peak resident set of the process on a CPU."""

    @property
    def compared_flops(self) -> float:
        """What budgets are compared by: `flops_whole`, or else `flops`."""
        return self.flops if self.flops_whole is None else self.flops_whole

    def __add__(self, other: Cost) -> Cost:
        """Add up, but for peak memory, which is the larger; null adds nothing."""
        total: dict[str, Any] = {}
        for name, own in self:
            known = [x for x in (own, getattr(other, name)) if x is not None]
            if known:
                total[name] = max(known) if name == "peak_memory_bytes" else sum(known)
        return Cost(**total)


Phase = Literal["load", "train", "certify", "freeze", "metrics", "attack", "rescore"]
"""What compute is spent on. Of a variant: loading the model, training (installing the
constraint included), certifying, freezing, and measuring (diagnostics included). Of a
cell: the attack's search, and scoring its results from scratch."""

BUDGET_TOLERANCE = 0.10
"""How far, relative to the attack's FLOPs, those of a control may be from them."""


class Ledger(Strict):
    """The compute of a unit, phase by phase; a phase that did not happen is absent."""

    kept: dict[Phase, Cost] = {}
    """What the results in this record cost. Attack budgets are compared by it."""
    spent: dict[Phase, Cost] = {}
    """What was spent in all: with the work that was lost to interruptions."""


class CertificateCheck(Strict):
    """One check of a certificate."""

    name: str
    """As ``weights_non_negative``."""
    status: Literal["pass", "fail", "not_promised", "not_applicable"]
    """`fail` only where the arm promises what was not found."""
    measured: dict[str, Any]
    """The numbers behind the status."""


class Certificate(Strict):
    """What is known of a model's feed-forward networks, and what is not."""

    status: Literal["pass", "fail", "nothing_promised"]
    """`fail` if any check failed, or if some matrix was to be examined and was not."""
    weights_non_negative: bool
    """True where every promised matrix was examined and has no negative entry."""
    ffn_monotone: bool
    """True where both projections are >= 0 and the activation is non-decreasing."""
    reason: str | None = None
    """Why the networks are not known to be monotone; null where they are."""
    activation: str
    """The activation's name."""
    end_to_end: Literal["none"] = "none"
    """Nothing follows for the whole model: residuals, norms, attention."""
    examined: Count
    """How many matrices were examined."""
    expected: Count
    """How many had to be."""
    checks: list[CertificateCheck]
    """The checks, one by one."""


class Certificates(Strict):
    """The certificate before and after recovery."""

    before: Certificate
    """As constrained, untrained."""
    after: Certificate
    """Of the frozen subject."""


class RecoverySummary(Strict):
    """What recovery training did."""

    status: Literal["trained", "none"]
    """`none` where the arm gets no recovery."""
    steps: int
    """Optimizer steps."""
    tokens: int
    """Training tokens seen."""
    data_sha256: str | None = None
    """Of the token ids in training order: equal for arms with equal budgets."""
    loss_before: Estimate | None = None
    """Held-out loss as constrained, before the first step."""
    loss_after: Estimate | None = None
    """Held-out loss of the frozen subject."""
    restarts: int = 0
    """How often training went on from a checkpoint."""


class Derivation(Ruled):
    """What came of making a subject from another one."""

    rules = (When("achieved", False, reason=GIVEN),)

    achieved: bool
    """Whether the subject is what its arm was to make of it."""
    reason: str | None = None
    """Why it is not."""
    results: dict[str, Estimate]
    """What was found, as the clean losses of both arms."""
    measured: dict[str, Any] = {}
    """How it was made, as the scale of the noise."""


class Samples(Strict):
    """The file with the rows behind the results."""

    path: str
    """Relative to the record."""
    rows: Count
    """How many lines it has."""
    sha256: Sha256
    """Of its bytes."""


class PluginRef(Strict):
    """A plugin that took part."""

    kind: str
    """model, constraint, metric or attack."""
    name: str
    """Its name."""
    version: str
    """Of the distribution that ships it."""
    sha256: str
    """Of its source file."""


class Provenance(Strict):
    """With what, where and when."""

    versions: dict[str, str]
    """Of Python, the harness and the libraries."""
    plugins: list[PluginRef]
    """The plugins that took part."""
    commit: str | None
    """The code's git commit."""
    dirty: bool | None
    """True where the work tree differed from it."""
    hardware: dict[str, Any]
    """Host, device, cores, memory."""
    dtype: str
    """What attacks searched in; results are always scored in float32."""
    batch_size: int
    """Sequences in one forward pass, as really used."""
    settings: dict[str, Any] = {}
    """What else changes the last bits of a search's losses."""
    started: str
    """UTC, ISO 8601."""
    finished: str
    """UTC, ISO 8601."""
    seconds: dict[str, float]
    """Wall-clock time by stage."""
    restarts: int = 0
    """How often this unit was begun before."""


class ErrorInfo(Strict):
    """Why a unit failed."""

    type: str
    """The exception's class."""
    message: str
    """Its sentence."""
    traceback: str | None = None
    """Only for what is not the user's matter."""


DiagnosticId = Literal[
    "determinism",
    "gradient_health",
    "gradient_truth",
    "first_order_fidelity",
    "beats_random",
    "gradient_ablation",
    "iterative_beats_one_step",
    "budget_curve",
    "unbounded_sanity",
    "convergence",
    "transfer",
    "planted_weakness",
    "equal_clean_loss",
    "worst_case",
    "replay",
    "completeness",
]
"""What is asked of a number before it is believed; docs/rigour.md has one row each."""

DiagnosticStatus = Literal["pass", "warn", "fail", "not_applicable"]


class Diagnostic(Ruled):
    """The answer to one question: does a result mean what it seems to mean."""

    rules = (
        When("value", None, reason=GIVEN),
        When("status", "not_applicable", reason=GIVEN),
    )

    id: DiagnosticId
    """Which question."""
    status: DiagnosticStatus
    """`fail` where it fires; `warn` where it cannot be decided or needs another record;
    `not_applicable`, with the reason, where something that it needs is not there."""
    value: float | None
    """The number that was compared; null only with a reason."""
    interval: tuple[float, float] | None = None
    """Its 95 % interval; null where there is none."""
    n: Count
    """How many measurements (passes, flips, examples, units) it rests on."""
    threshold: float | None = None
    """What `value` was held against; null where that stands in another record."""
    unit: str
    """Of value, interval and threshold."""
    reason: str | None = None
    """In a sentence, why the status is what it is; needed for a null value."""
    measured: dict[str, Any] = {}
    """Further numbers behind it."""


class Record(Ruled):
    """What happened to one variant or one cell."""

    rules = (
        When("status", "complete", samples=GIVEN),
        When("status", "failed", error=GIVEN),
        When("kind", "cell", attack=GIVEN),
    )

    schema_version: Literal[1] = SCHEMA_VERSION
    """The version of this schema."""
    kind: Literal["variant", "cell"]
    """A trained subject, or an attack on one."""
    id: str
    """Readable parts and a hash of `identity`."""
    variant: str
    """The id of the variant: a cell's, or its own."""
    status: Literal["complete", "failed"]
    """Whether the unit was finished."""
    suite: SuiteRef
    """Which suite."""
    model: ModelRef
    """Which model."""
    arm: ArmRef
    """Which treatment."""
    seed: int
    """Which seed."""
    attack: AttackRef | None = None
    """Which attack; null for a variant."""
    identity: dict[str, Any]
    """What the id's hash is computed from."""
    results: dict[str, dict[str, Estimate]]
    """Estimates by metric label; a cell's are under ``attack``."""
    ledger: Ledger
    """What it spent."""
    recovery: RecoverySummary | None = None
    """What training did; null for a cell."""
    certificate: Certificates | None = None
    """What is known of the feed-forward networks; null for a cell."""
    derivation: Derivation | None = None
    """What came of making a variant from another one; null where nothing is to say."""
    diagnostics: list[Diagnostic] = []
    """What says whether the results can be trusted."""
    samples: Samples | None
    """The rows behind the results; null for a failed unit."""
    provenance: Provenance
    """With what, where and when."""
    error: ErrorInfo | None = None
    """Why it failed; null where it is complete."""

    @pydantic.field_validator("schema_version", mode="before")
    @classmethod
    def _is_known(cls, version: Any) -> Any:
        # A literal 1 alone would let 1.0 and true pass.
        if type(version) is not int or version != SCHEMA_VERSION:
            known = f"this harness reads version {SCHEMA_VERSION}"
            raise ValueError(f"schema version {version}; {known}")
        return version
