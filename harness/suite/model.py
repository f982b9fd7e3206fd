"""Suites: the models below define the format of the file that a user writes.

Keys of `models`, `arms`, `metrics` and `attacks` are labels that the user chooses; each
entry names a plugin (a metric or an attack by default the one called like its label)
and holds that plugin's options beside the few reserved keys. The plugin's own `Options`
validate those.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import pydantic

from harness import data
from harness.api import AttackLabel
from harness.base import Positive, Strict
from harness.data import CorpusSection, ExamplesSection
from harness.models import ArmRecovery, RecoverySection
from harness.records import ROUGE_DROP, StatedClaim
from harness.subject import TokenRules
from harness.suite import claims, cluster
from harness.suite.claims import ClaimSection
from harness.suite.cluster import ClusterSection
from harness.suite.names import BASELINE, LABEL, ArmLabel, Label

DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"
DURATION = r"^\d+(\.\d+)? ?(s|min|h|d)$"
PERCENT = r"^([1-9]\d?(\.\d+)?|0\.\d*[1-9]\d*) ?%$"
MEANINGS: dict[str, str] = (
    data.MEANINGS
    | cluster.MEANINGS
    | claims.MEANINGS
    | {
        LABEL: "a name of letters, digits, '.', '_' and '-'",
        DEVICE: "auto, cpu, cuda or cuda:N",
        DURATION: "a time such as '90 s', '10 min', '2 h' or '1 d'",
        PERCENT: "a percentage between 0 and 100, such as '10 %'",
    }
)
"""What text that matches is, as a message says it."""

Seed = Annotated[int, pydantic.Field(ge=0)]

ASKED_EXAMPLES = 32
"""How many of the test examples a question is asked on, at most, that takes attacks of
its own: with every token free, and on planted weaknesses."""


class PluginSection(Strict):
    """An entry that names a plugin and holds its options beside a few reserved keys."""

    model_config = pydantic.ConfigDict(extra="allow")
    kind: ClassVar[str]
    """The kind of plugin."""
    key: ClassVar[str]
    """The key that names it."""

    @property
    def options(self) -> dict[str, Any]:
        """The plugin's options as the suite states them."""
        return dict(self.__pydantic_extra__ or {})

    @classmethod
    def default(cls, label: str) -> str | None:
        """Return the plugin of an entry that names none."""
        return label


class ModelSection(PluginSection):
    """A model: its adapter and the adapter's options."""

    kind, key = "model", "adapter"
    adapter: str
    """The model plugin that loads it."""
    fingerprint: str | None = None
    """If set, the weights must have this fingerprint; resolved suites set it."""

    @classmethod
    def default(cls, label: str) -> None:
        """Return None: every model names its adapter."""


class ArmSection(PluginSection):
    """A named treatment: a constraint with its options, and its recovery."""

    kind, key = "constraint", "constraint"
    SOURCES: ClassVar = ("derive_from", "match_loss_of", "weaker_than")
    """The keys that name arms which it is made from."""
    constraint: str = "none"
    """The constraint plugin."""
    recovery: bool | ArmRecovery | None = None
    """Whether this arm gets the suite's recovery training; by default, where it is not
    derived from another arm. A mapping says how it reads the tokens: with others among
    them (`corrupt`), or after an attack (`adversarial`)."""
    derive_from: ArmLabel | None = None
    """The arm whose frozen subject it starts from, of the same model and seed; by
    default it starts from the model as loaded."""
    match_loss_of: ArmLabel | None = None
    """The arm whose clean loss it is to have; of constraints that match losses only."""
    replicate: ArmLabel | None = None
    """The arm that it is once more, trained on the same tokens in another order: it has
    that arm's constraint, options and recovery."""
    against: ArmLabel | None = None
    """The reference arm, which verdicts hold it against; by default the baseline, and
    of a replica the arm that it is once more."""
    weaker_than: ArmLabel | None = None
    """The arm with the planted weakness that it gets in a weaker form; of constraints
    that plant one only. By default it is trained."""
    attacks: tuple[AttackLabel, ...] | None = None
    """The attacks that it gets, by their labels; by default all."""
    examples: Positive | None = None
    """How many of the test examples, the first ones, it is attacked on; by default
    all."""
    seeds: tuple[Seed, ...] | None = pydantic.Field(default=None, min_length=1)
    """The seeds that it gets, some of the suite's; by default all that the arms have
    which it is made from."""

    @classmethod
    def default(cls, label: str) -> str:
        """Return the constraint that changes nothing."""
        return "none"

    @property
    def recovers(self) -> bool:
        """Whether this arm gets the suite's recovery training."""
        if self.recovery is None:
            return self.derive_from is None
        return self.recovery is not False

    @property
    def disturbs(self) -> ArmRecovery | None:
        """What its recovery reads in place of the right tokens, if anything."""
        return self.recovery if isinstance(self.recovery, ArmRecovery) else None

    @property
    def sources(self) -> dict[str, str]:
        """The arms that it is made from, by the keys that name them."""
        return self.model_dump(include=set(self.SOURCES), exclude_none=True)

    @property
    def is_treatment(self) -> bool:
        """Whether it is neither derived from another arm nor another arm once more."""
        return self.derive_from is None and self.replicate is None


class BoundedSection(PluginSection):
    """A plugin that may be given bounds."""

    timeout: (
        Annotated[str, pydantic.Field(pattern=DURATION)]
        | Annotated[float, pydantic.Field(gt=0)]
        | None
    ) = None
    """How long one attempt may take before its cell or variant fails: seconds, or a
    text such as ``10 min``. By default there is no limit; a control has that of its
    attack."""
    memory_gib: Annotated[float, pydantic.Field(gt=0)] | None = None
    """How many GiB more it may address than the process does without it, on its machine
    and on a GPU. By default there is no limit; a control has that of its attack."""

    @property
    def timeout_s(self) -> float | None:
        """The timeout in seconds."""
        if not isinstance(self.timeout, str):
            return self.timeout
        unit = self.timeout.lstrip("0123456789. ")
        return float(self.timeout.removesuffix(unit)) * _SECONDS[unit]


class MetricSection(BoundedSection):
    """A metric and its options."""

    kind, key = "metric", "metric"
    metric: str | None = None
    """The metric plugin; by default the one called like this entry."""


class AttackSection(BoundedSection):
    """An attack and its options."""

    kind, key = "attack", "attack"
    attack: str | None = None
    """The attack plugin; by default the one called like this entry."""
    match: AttackLabel | None = None
    """For a control: the label of the attack whose budget it gets."""
    controls: Literal["auto", "none"] | tuple[str, ...] | None = None
    """The controls that it gets: `none`, attack plugins by name, or `auto`, those that
    the attack asks for. By default, what the suite's `controls` says."""
    role: Literal["unbounded", "token-level"] | None = None
    """For a cell that is shown beside the attack: without a limit on positions, or over
    all token sequences in place of texts."""

    @property
    def is_main(self) -> bool:
        """Whether it is no control, and of no special role."""
        return self.match is None and self.role is None

    @pydantic.field_validator("controls")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return "none" if value == () else value


_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class SuccessSection(Strict):
    """When an attack counts as a success."""

    threshold: Annotated[float, pydantic.Field(gt=0)] = 0.15
    """Relative rise of the reference's perplexity: exp(dL) > 1 + threshold."""
    rouge_drop: Annotated[float, pydantic.Field(gt=0, lt=1)] = ROUGE_DROP
    """Relative fall of ROUGE-L, where `examples.rouge_tokens` is set."""


class VerdictsSection(Strict):
    """What verdicts are about; stated before anything runs, and in every record."""

    margin: (
        Annotated[str, pydantic.Field(pattern=PERCENT)]
        | Annotated[float, pydantic.Field(gt=0)]
    ) = "10 %"
    """How small a difference from the reference arm's dL counts as none: a percentage
    of it, or a number of nats/token."""
    token_level: bool = False
    """Whether attacks are also run over all token sequences, beside those over texts;
    what they reach is shown and decides nothing."""
    earlier: bool = False
    """Whether full diagnostics also hold each arm against its reference arm at the
    earlier step of training at which that one's clean loss was as high. That takes one
    more training of the reference arm for each arm and seed."""


class Suite(Strict):
    """A whole experiment."""

    name: Label
    """Names the run folder; by default the file's name without its ending."""
    extends: str | None = None
    """Another suite file that this one is merged onto; relative to this one."""
    plugins: tuple[str, ...] = ()
    """Plugin files or folders, relative to the suite."""
    models: dict[Label, ModelSection] = pydantic.Field(min_length=1)
    """The models, by label."""
    arms: dict[Label, ArmSection] = pydantic.Field(min_length=1)
    """The treatments, by label; `baseline` must be among them."""
    seeds: tuple[Seed, ...] = pydantic.Field(min_length=1)
    """Seeds of recovery order, random starts and attacks: all is repeated for each."""
    corpora: dict[Label, CorpusSection] = {}
    """The texts, by label."""
    recovery: RecoverySection | None = None
    """Training after the constraint, equal for all arms."""
    metrics: dict[Label, MetricSection] = {}
    """What is measured on each frozen variant."""
    examples: ExamplesSection | None = None
    """What is attacked; needed if there are attacks."""
    attacks: dict[Label, AttackSection] = {}
    """What each frozen variant is attacked with."""
    controls: Literal["auto", "none"] = "auto"
    """Whether attacks get the controls that they ask for, as entries of `attacks`."""
    tokens: TokenRules = TokenRules()
    """Which tokens attacks may write, and over which."""
    success: SuccessSection = SuccessSection()
    """When an attack counts as a success."""
    verdicts: VerdictsSection = VerdictsSection()
    """What verdicts are about."""
    claims: dict[Label, dict[Label, ClaimSection]] = {}
    """What the results are said to show, before they are there: groups of claims, each
    with a label; reports answer each of them."""
    diagnostics: Literal["standard", "full", "none"] = "standard"
    """Which checks the results have to pass before they are believed; `full` also runs
    the attacks and arms that some of the checks need."""
    batch_size: Positive | None = None
    """Sequences in one forward pass, at most; by default as many as keep the device
    busy. Changes no result."""
    device: Annotated[str, pydantic.Field(pattern=DEVICE)] = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    limit: Positive | None = None
    """Use the first so many examples and documents only: to try a suite out, not for
    results."""
    cluster: ClusterSection = ClusterSection()
    """What jobs ask a cluster for; changes no result."""
    profiles: dict[Label, dict[str, Any]] = {}
    """Named partial suites, merged over this one by ``--profile``."""

    @property
    def main_attacks(self) -> list[str]:
        """The attacks that results are about: no controls, none of a special role."""
        return [label for label, section in self.attacks.items() if section.is_main]

    def attacks_of(self, arm: str) -> list[str]:
        """Return the attacks that an arm gets, in the suite's order."""
        stated = self.arms[arm].attacks
        return [label for label in self.attacks if stated is None or label in stated]

    def is_free(self, attack: str) -> bool:
        """Say whether an attack may change every token, or accompanies one that may."""
        match = self.attacks[attack].match
        return self.attacks[match or attack].role == "unbounded"

    def bounds_of(self, attack: str) -> tuple[float | None, float | None]:
        """Return the seconds and GiB that an attack may take of its process.

        A control has those of its attack where it states none.
        """
        own = self.attacks[attack]
        other = self.attacks[own.match or attack]
        return (
            other.timeout_s if own.timeout is None else own.timeout_s,
            other.memory_gib if own.memory_gib is None else own.memory_gib,
        )

    def examples_of(self, arm: str, attack: str) -> int | None:
        """Return how many of the test examples a cell has, at most; None for all."""
        most = [
            self.arms[arm].examples,
            ASKED_EXAMPLES if self.is_free(attack) else None,
        ]
        return min(filter(None, most), default=None)

    def unseen_corpora(self) -> list[str]:
        """Return the corpora of texts that no training sees, the test texts' first.

        Those that the suite names for examples and for validation; none that shares
        documents with what recovery trains on.
        """
        sets, recovery = self.examples, self.recovery
        parts = [sets.test, sets.validation, sets.search] if sets else []
        named = [part.corpus for part in parts if part is not None]
        if recovery is None:
            return list(dict.fromkeys(named))
        trained = self.corpora[recovery.corpus]
        named += [recovery.validation] if recovery.validation is not None else []
        return [
            label
            for label in dict.fromkeys(named)
            if not data.shared_documents(self.corpora[label], trained)
        ]

    def seeds_of(self, arm: str) -> list[int]:
        """Return the seeds that an arm gets, in the suite's order."""
        section = self.arms[arm]
        found = [x for x in self.seeds if section.seeds is None or x in section.seeds]
        for source in filter(None, (*section.sources.values(), section.replicate)):
            found = [seed for seed in found if seed in self.seeds_of(source)]
        return found

    def trains(self, arm: str) -> bool:
        """Say whether an arm gets recovery training."""
        return self.recovery is not None and self.arms[arm].recovers

    def reference_of(self, arm: str) -> str | None:
        """Return the arm that an arm is held against, if it is held against any."""
        section = self.arms[arm]
        if arm == BASELINE or section.derive_from is not None:
            return None
        return section.against or section.replicate or BASELINE

    def stated_claims(self) -> dict[str, dict[str, StatedClaim]]:
        """Return the claims by group and label, what they leave out filled in."""
        return {
            group: {label: self._stated(section) for label, section in sections.items()}
            for group, sections in self.claims.items()
        }

    def _stated(self, section: ClaimSection) -> StatedClaim:
        ((measure, bound),) = section.bounds.items()
        return StatedClaim(
            arm=section.arm,
            against=section.against or self.reference_of(section.arm) or BASELINE,
            metric=section.metric,
            attack=section.attack,
            measure=measure,
            bound=bound,
            every_seed=section.seeds == "every",
            threshold=self.success.threshold if measure == "success" else None,
        )


PLUGIN_SECTIONS: dict[str, type[PluginSection]] = {
    "models": ModelSection,
    "arms": ArmSection,
    "metrics": MetricSection,
    "attacks": AttackSection,
}
"""The sections of a suite whose entries name plugins."""
