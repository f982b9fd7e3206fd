"""Records: what happened to a variant or a cell, as JSON with a published schema.

The published schema is generated from the models below, their docstrings included (a
test compares the two). Numbers are finite or null, and a null estimate says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

import pydantic

from harness.base import Strict
from harness.records.claims import StatedClaim
from harness.records.estimate import Amount, Count, Estimate, Sha256
from harness.records.margin import Margin
from harness.records.rules import GIVEN, Ruled, When

SCHEMA_VERSION: Final = 1


class SuiteRef(Strict):
    """The suite that the record belongs to."""

    name: str
    """The suite's name."""
    sha256: Sha256
    """SHA-256 of the resolved suite."""
    profile: str | None = None
    """The suite's profile that was run; null for none."""
    limit: int | None = None
    """How many examples were used at most; a run with a limit is a trial run."""


class ModelRef(Strict):
    """The model, before any treatment."""

    label: str
    """Its name in the suite."""
    adapter: str
    """The model plugin."""
    options: dict[str, Any]
    """All options of the plugin, defaults included."""
    given: list[str] = []
    """The options that the suite sets; the others have their defaults."""
    fingerprint: str
    """Identifies the weights: a hash of the files, or a revision on the hub."""
    parameters: int | None = None
    """Number of parameters, embeddings included; null where it was not loaded."""


class ArmRef(Strict):
    """The arm: how the model was treated."""

    label: str
    """Its name in the suite."""
    constraint: str
    """The constraint plugin."""
    role: str | None = None
    """What full diagnostics use the constraint for, as the plugin declares: ``match``
    (brings the clean loss to that of another arm) or ``plant`` (trains in a weakness
    that attacks have to find); or ``replica``, for one that is another arm trained
    once more; null for a treatment."""
    options: dict[str, Any]
    """All options of the plugin, defaults included."""
    given: list[str] = []
    """The options that the suite sets; the others have their defaults."""
    recovery: dict[str, Any] | None
    """The settings of recovery training; null where the arm gets none."""
    against: str | None = None
    """Its reference arm, which verdicts hold it against; null for the baseline and for
    arms that are derived from another."""
    replicate: str | None = None
    """Of a replica: the arm that it is, trained on the same tokens in another order."""
    derive_from: str | None = None
    """The arm whose frozen subject it starts from; null for the model as loaded."""
    match_loss_of: str | None = None
    """The arm whose clean loss it was trained or perturbed to have; null for none."""
    weaker_than: str | None = None
    """The arm whose planted weakness it has in a weaker form; null for none."""


class TokensRef(Strict):
    """The tokens that an attack may write."""

    rules: dict[str, Any] = {}
    """The suite's token rules, where they differ from the defaults, and
    ``reachable_only``: whether prompts are texts."""
    allowed: int | None = None
    """How many tokens of the vocabulary are allowed; null if the attack never began."""
    sha256: Sha256 | None = None
    """SHA-256 of their ids, written in decimal and joined by commas."""


class AttackRef(Strict):
    """The attack, and the examples that it was run on."""

    label: str
    """Its name in the suite."""
    attack: str
    """The attack plugin."""
    options: dict[str, Any]
    """All options of the plugin, defaults included."""
    given: list[str] = []
    """The options that the suite sets; the others have their defaults."""
    match: str | None = None
    """Of a control: the label of the attack whose budget it gets; null for others."""
    role: str | None = None
    """What it is beside an attack: ``unbounded`` (every token may change) or
    ``token-level`` (over all token sequences, in place of texts); null for an attack in
    its own right."""
    share: float = pydantic.Field(default=1.0, gt=0)
    """Which multiple of the budget that the options state it was given; of a control,
    its attack's."""
    shows: str | None = None
    """What its results are evidence of besides its own strength, as the plugin says: of
    a control ``search``, ``gradient`` or ``text``, of a replay ``transferability`` or
    ``worst``; null for nothing."""
    replays: bool = False
    """Whether it runs no search, but scores the prompts that other cells found."""
    examples: dict[str, Any]
    """Where the examples come from, and how they were cut."""
    tokens: TokensRef = TokensRef()
    """The tokens that it may write."""


class Cost(Strict):
    """The compute of one phase."""

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
        return Cost.sum((self, other))

    @classmethod
    def sum(cls, costs: Iterable[Cost]) -> Cost:
        """Add up any number of costs, in their order; see `__add__`."""
        total: dict[str, Any] = {}
        for cost in costs:
            for name, own in vars(cost).items():
                if own is None:
                    continue
                known = total.get(name, 0)
                larger = name == "peak_memory_bytes"
                total[name] = max(known, own) if larger else known + own
        return cls(**total)


Phase = Literal["load", "train", "certify", "freeze", "metrics", "attack", "rescore"]
"""What compute is spent on; `Ledger` says what belongs to each."""

BUDGET_TOLERANCE = 0.10
"""How far, relative to the attack's FLOPs, those of a control may be from them."""


class Ledger(Strict):
    """The compute of a unit, phase by phase; phases that did not take place are absent.

    Of a variant: ``load`` the model, ``train`` (installing the constraint included),
    ``certify``, ``freeze``, and ``metrics`` (diagnostics included). Of a cell: ``load``
    the subject, unless the process had it already, ``attack``, the search for prompts,
    ``rescore``, measuring them from scratch in float32, and ``metrics``, examining the
    subject at them.
    """

    kept: dict[Phase, Cost] = {}
    """What the results in this record cost. Attack budgets are compared by it."""
    spent: dict[Phase, Cost] = {}
    """What was spent in all, work lost to interruptions included."""


class CertificateCheck(Strict):
    """One check of a certificate."""

    name: str
    """The property that was checked, as ``weights_non_negative``."""
    status: Literal["pass", "fail", "not_promised", "not_applicable"]
    """`fail` only where the arm promises the property and does not have it."""
    measured: dict[str, Any]
    """The numbers behind the status."""


class Certificate(Strict):
    """What was proved of a model's feed-forward networks, and what was not."""

    status: Literal["pass", "fail", "nothing_promised"]
    """`fail` if a check failed, or if a matrix that had to be examined was not."""
    weights_non_negative: bool
    """True if every matrix that the arm promises was examined and has no entry < 0."""
    ffn_monotone: bool
    """True if both projections are >= 0 and the activation is non-decreasing."""
    reason: str | None = None
    """Why the networks are not proved monotone; null where they are."""
    activation: str
    """The name of the activation function."""
    end_to_end: Literal["none"] = "none"
    """No guarantee holds for the whole model: it has residuals, norms and attention."""
    examined: Count
    """How many matrices were examined."""
    expected: Count
    """How many matrices had to be examined."""
    checks: list[CertificateCheck]
    """The checks, one by one."""


class Certificates(Strict):
    """The certificate before and after recovery."""

    before: Certificate
    """Of the constrained model, before the first training step."""
    after: Certificate
    """Of the frozen subject."""


class RecoverySummary(Strict):
    """What recovery training did."""

    status: Literal["trained", "none"]
    """`none` where the arm gets no recovery."""
    steps: int
    """Optimizer steps."""
    tokens: int
    """Training tokens."""
    data_sha256: str | None = None
    """SHA-256 of the token ids in training order: equal for arms with equal budgets."""
    blocks_sha256: str | None = None
    """SHA-256 of the sorted hashes of the blocks: equal for a replica, too, which has
    the tokens of the arm that it is once more in another order."""
    loss_before: Estimate | None = None
    """Held-out loss of the constrained model, before the first step."""
    loss_after: Estimate | None = None
    """Held-out loss of the frozen subject."""
    restarts: int = 0
    """How often training was resumed from a checkpoint."""


class Derivation(Ruled):
    """How a subject made from another one turned out."""

    rules = (When("achieved", False, reason=GIVEN),)

    achieved: bool
    """Whether the aim was reached, as a clean loss equal to that of another arm."""
    reason: str | None = None
    """Why the aim was not reached."""
    results: dict[str, Estimate]
    """The numbers it was judged by, as the clean losses of both arms."""
    measured: dict[str, Any] = {}
    """Further numbers about how it was made, as the scale of the noise."""


class Samples(Strict):
    """The file of samples that the results were computed from."""

    path: str = pydantic.Field(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$")
    """Its name in the folder of the record: never a path that leads out of it."""
    rows: Count
    """How many lines it has."""
    sha256: Sha256
    """SHA-256 of the file."""


class Frozen(Strict):
    """The files of a frozen subject, as they were when its record was made."""

    model: Sha256
    """Of the folder ``model``: SHA-256 of the lines ``<SHA-256>  <name>`` of its files,
    sorted by name."""
    made: Sha256
    """Hash of what ``made.json`` says of how the subject was made, its ledger aside:
    made once more, it takes another time."""


class PluginRef(Strict):
    """A plugin that was used."""

    kind: str
    """``model``, ``constraint``, ``metric`` or ``attack``."""
    name: str
    """Its name."""
    version: str
    """The version of the package that it is part of."""
    sha256: str
    """SHA-256 of its source file."""


class Provenance(Strict):
    """With what code, on what machine and when the record was made."""

    versions: dict[str, str]
    """Versions of Python, the harness and the libraries."""
    plugins: list[PluginRef]
    """The plugins that were used."""
    commit: str | None
    """The git commit of the harness; null where it is not a git checkout."""
    dirty: bool | None
    """Whether the checkout had uncommitted changes."""
    hardware: dict[str, Any]
    """Host, device, cores, memory."""
    dtype: str
    """The number format of the search; what it finds is always scored in float32. On a
    GPU, metrics of a subject that searches below that have products in TF32."""
    batch_size: int | None
    """Sequences in one forward pass, at most; fewer after a lack of memory."""
    settings: dict[str, Any] = {}
    """Further settings of the passes that change losses within rounding."""
    started: str
    """When it was started: UTC, ISO 8601."""
    finished: str
    """When it was finished: UTC, ISO 8601."""
    seconds: dict[str, float]
    """Wall-clock time, by phase."""
    wall_seconds: Amount | None = None
    """Wall-clock time of the attempt that finished the unit, whatever it was spent on;
    null where that was not noted."""
    restarts: int = 0
    """How many earlier attempts at this unit were interrupted."""


class ErrorInfo(Strict):
    """Why a unit failed."""

    type: str
    """The class of the exception."""
    message: str
    """The message of the exception."""
    traceback: str | None = None
    """The traceback, unless the message says what the user has to change."""
    place: str | None = None
    """The last line of a plugin's code that the exception passed through, with its
    file; null where it passed through none, and in older records."""


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
"""The checks on whether results can be trusted; docs/rigour.md has one row each."""

DiagnosticStatus = Literal["pass", "warn", "fail", "not_applicable"]


class Diagnostic(Ruled):
    """The outcome of one check on whether results can be trusted."""

    rules = (
        When("value", None, reason=GIVEN),
        When("status", "not_applicable", reason=GIVEN),
    )

    id: DiagnosticId
    """Which check."""
    status: DiagnosticStatus
    """`fail` where results cannot be trusted; `warn` where that cannot be decided;
    `not_applicable`, with the reason, where something that it needs is missing."""
    value: float | None
    """The number that was compared with the threshold; null only with a reason."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval of `value`; null where there is none."""
    n: Count
    """How many measurements (passes, flips, examples, units) it rests on."""
    threshold: float | None = None
    """What `value` is compared with; null where that is in another record."""
    unit: str
    """The unit of value, interval and threshold."""
    reason: str | None = None
    """In a sentence, why the status is what it is; never null where `value` is."""
    measured: dict[str, Any] = {}
    """Further numbers that were measured."""


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
    """Labels and seed, and the first digits of the hash of `identity`."""
    variant: str
    """The id of the variant: of a cell, the one that was attacked."""
    status: Literal["complete", "failed"]
    """Whether there are results, or an error."""
    suite: SuiteRef
    """The suite that was run."""
    model: ModelRef
    """The model."""
    arm: ArmRef
    """The arm: how the model was treated."""
    margin: Margin | None = None
    """How small a difference between arms counts as none, as the suite stated it before
    the unit ran; no part of `id`."""
    claims: dict[str, dict[str, StatedClaim]] = {}
    """The suite's claims by group and label, as it stated them before the unit ran; no
    part of `id`."""
    seed: int
    """The seed of training order, random starts and the attack."""
    attack: AttackRef | None = None
    """The attack; null for a variant."""
    identity: dict[str, Any]
    """Everything that can change the results; `id` has its hash."""
    results: dict[str, dict[str, Estimate]]
    """Estimates by the label of the metric; those of a cell are under ``attack``."""
    ledger: Ledger
    """The compute, phase by phase."""
    recovery: RecoverySummary | None = None
    """What recovery training did; null for a cell."""
    certificate: Certificates | None = None
    """What was proved of the feed-forward networks; null for a cell."""
    derivation: Derivation | None = None
    """How the variant turned out, if it was made from that of another arm."""
    frozen: Frozen | None = None
    """Hashes of the frozen subject; null for a cell, and in records of old."""
    diagnostics: list[Diagnostic] = []
    """Checks on whether the results can be trusted."""
    samples: Samples | None
    """The samples that the results were computed from; null for a failed unit."""
    provenance: Provenance
    """With what code, on what machine and when the record was made."""
    error: ErrorInfo | None = None
    """Why the unit failed; null for a complete one."""

    @pydantic.field_validator("schema_version", mode="before")
    @classmethod
    def _is_known(cls, version: Any) -> Any:
        # A literal 1 alone would let 1.0 and true pass.
        if type(version) is not int or version != SCHEMA_VERSION:
            known = f"this harness reads version {SCHEMA_VERSION}"
            raise ValueError(f"schema version {version}; {known}")
        return version
