"""What a plugin implements: a model adapter, a constraint, a metric or an attack.

Every plugin is a class with a `name`, an `Options` model and a docstring whose first
line says what it does. It is built as ``PluginClass(options)`` and holds no state that
a run could leave behind. Heavy libraries are imported inside the methods that use
them, so that listing plugins stays fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    cast,
)

from harness.base.strict import Strict
from harness.data.document import Document, Example, ExampleSets

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.base.arrays import Ids
    from harness.records.estimate import Estimate
    from harness.records.record import Derivation
    from harness.records.samples import SampleRow
    from harness.subject.subject import Subject


CORPUS = "corpus-name"
CorpusName = Annotated[str, CORPUS]
"""The type of an option that names a corpus of the suite; suites are checked for it."""

ATTACK = "attack-label"
AttackLabel = Annotated[str, ATTACK]
"""The type of an option that names another attack of the suite, by its label."""

LOCAL_PATH = "local-path"
LocalPath = Annotated[str, LOCAL_PATH]
"""The type of an option that is a local path or, where none is there, a hub id."""


class Options(Strict):
    """The options of a plugin: unknown keys are errors, docstrings are descriptions."""


OptionsT = TypeVar("OptionsT", bound=Options)


class Plugin(ABC, Generic[OptionsT]):
    """What all kinds of plugin share."""

    name: ClassVar[str]
    """What suites call it."""
    Options: ClassVar[type[Options]] = Options
    """Its options, with types, defaults and meaning."""

    def __init__(self, options: OptionsT | None = None) -> None:
        self.options: OptionsT = options or self.Options()  # type: ignore[assignment]


# --- models -------------------------------------------------------------------------


@dataclass(frozen=True)
class Projection:
    """One weight matrix of a feed-forward network."""

    name: str
    """The module's qualified name, as ``gpt_neox.layers.0.mlp.dense_h_to_4h``."""
    module: torch.nn.Module
    layer: int
    role: str
    """``in``, ``gate`` or ``out``."""
    transposed: bool = False
    """True where the weight is stored [in, out], as GPT-2's Conv1D does."""

    @property
    def weight(self) -> torch.Tensor:
        """The effective weight [out, in], whatever parametrization computes it."""
        weight = cast("torch.Tensor", self.module.weight)
        return weight.T if self.transposed else weight


@dataclass(frozen=True)
class FFN:
    """One feed-forward network: ``F(z) = W2 s(W1 z + b1) + b2``, or a gated one."""

    layer: int
    inputs: tuple[Projection, ...]
    """The in-projection; for a gated network the gate and then the in-projection."""
    output: Projection
    activation: Callable[[torch.Tensor], torch.Tensor]
    norm: torch.nn.Module | None
    """The normalisation whose output is `z`, if it feeds this network alone."""
    gauge_free: bool
    """True where `norm` is a LayerNorm, and every reader of the residual stream
    subtracts the mean, so that the gauge of constraints (rows of W1, columns of W2)
    leaves the model's function unchanged."""

    @property
    def gated(self) -> bool:
        """True where the activation multiplies a second projection."""
        return len(self.inputs) > 1

    @property
    def projections(self) -> tuple[Projection, ...]:
        """All matrices, inputs first."""
        return (*self.inputs, self.output)

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Compute F on hidden vectors [..., d_model], dropout left out."""
        hidden = self.activation(self.inputs[0].module(z))
        if self.gated:
            hidden = hidden * self.inputs[1].module(z)
        result: torch.Tensor = self.output.module(hidden)
        return result


@dataclass(frozen=True)
class Anatomy:
    """A model and where its parts are."""

    model: PreTrainedModel
    ffns: tuple[FFN, ...]
    activation_name: str
    """The name of the activation in the model's configuration, as ``gelu``."""


class ModelAdapter(Plugin[OptionsT]):
    """Loads one family of models and knows its feed-forward networks."""

    @abstractmethod
    def missing(self) -> list[str]:
        """Say what `load` would not find on this machine, a sentence for each."""

    @abstractmethod
    def fingerprint(self, store_root: Path) -> str:
        """Identify the weights: ``sha256:...`` of files, or ``hub:ID@REVISION``."""

    @abstractmethod
    def load(self, store_root: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return the model (float32, CPU, evaluation mode) and its fast tokenizer."""

    @abstractmethod
    def anatomy(self, model: PreTrainedModel) -> Anatomy:
        """Find the feed-forward networks of a model of this family."""

    @abstractmethod
    def set_activation(self, model: PreTrainedModel, name: str) -> None:
        """Swap the activation of every feed-forward network, config included."""

    def fetch(self) -> None:
        """Download what `load` needs, on a machine with a network."""

    @property
    def dtype(self) -> str:
        """The precision that attacks search in: ``float32`` or ``bfloat16``."""
        return str(getattr(self.options, "dtype", "float32"))


# --- constraints --------------------------------------------------------------------


@dataclass(frozen=True)
class ArmContext:
    """What a constraint may use besides the model that it changes."""

    seed: int
    """The variant's."""
    tokenizer: PreTrainedTokenizerBase
    examples: Callable[[], ExampleSets]
    """The suite's examples, whatever ``--limit`` says; `validation` is never empty."""
    losses: Callable[[PreTrainedModel, Sequence[Example]], NDArray[np.float64]]
    """The loss [n] of each example on a model, in nats/token, in float32."""
    allowed: Callable[[], Ids]
    """The ids [k], ascending, that attacks of this suite may write."""
    matched: Callable[[], PreTrainedModel] | None = None
    """Loads the frozen subject of the arm that `match_loss_of` names, if one is."""
    report: Callable[[int, int], None] = lambda done, total: None
    """Tell the progress display how many of how many steps are done."""


class Constraint(Plugin[OptionsT]):
    """Changes a model's weights, and keeps them inside a set while it trains."""

    @property
    def uses_examples(self) -> bool:
        """True where `install` reads the suite's examples."""
        return False

    @property
    def matches_loss(self) -> bool:
        """True where the arm must say whose clean loss it is to have."""
        return False

    def install(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, context: ArmContext
    ) -> Derivation | None:
        """Do what `apply` does, where more than the model is needed for it.

        Returns what came of it, for the record, if there is anything to say.
        """
        self.apply(adapter, model, context.seed)
        return None

    @abstractmethod
    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        """Install the start and the constraint, in place (float32)."""

    def promised(self, anatomy: Anatomy) -> list[Projection]:
        """Return the matrices whose effective weight is promised to be >= 0.

        Override it only to promise something: certificates fail where an override
        returns no matrix.
        """
        return []

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Return the optimizer's groups; every parameter in exactly one of them.

        Biases, norms and embeddings' gains get no weight decay, as is usual.
        """
        decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
        others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
        return [
            {"params": decayed, "lr": learning_rate, "weight_decay": weight_decay},
            {"params": others, "lr": learning_rate, "weight_decay": 0.0},
        ]

    def after_step(self, model: PreTrainedModel) -> None:
        """Called after each optimizer step: where a projection clamps."""


# --- metrics ------------------------------------------------------------------------


@dataclass(frozen=True)
class MetricContext:
    """What a metric may use besides the subject."""

    documents: Callable[[str], Iterator[Document]]
    """The documents of a corpus of the suite, by its name; cut by ``--limit``."""
    limit: int | None
    """First so many examples of a task only; marked in every record."""
    report: Callable[[int, int], None] = lambda done, total: None
    """Tell the progress display how many of how many units are done."""


class Metric(Plugin[OptionsT]):
    """Measures a frozen subject: rows first, estimates from the rows alone."""

    @abstractmethod
    def measure(
        self, subject: Subject, context: MetricContext
    ) -> Iterable[Mapping[str, Any]]:
        """Yield a row for each document or task example; JSON values, all finite."""

    @abstractmethod
    def summarise(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """Compute the estimates from the rows, and from nothing else."""

    def missing(self) -> list[str]:
        """Say what `measure` would not find on this machine, a sentence for each."""
        return []

    def fetch(self) -> None:
        """Download what `measure` needs, on a machine with a network."""


# --- attacks ------------------------------------------------------------------------


@dataclass(frozen=True)
class TriggerBudget:
    """How the search for a universal trigger is laid out."""

    tokens: int
    """Length of the trigger."""
    starts: int
    """Triggers to start from, at least."""
    sweeps: int
    """Sweeps over the trigger from one start, at most."""
    search_prompts: int
    """How many of the search examples are used, at most."""
    validation_prompts: int
    """How many of the validation examples are used, at most."""


@dataclass(frozen=True)
class BlockBudget:
    """How the search over a block of tokens, all of which may change, is laid out."""

    positions: Literal["prompt", "prefix", "suffix"]
    """Whether the prompt itself is the block, or tokens put before or after it."""
    tokens: int
    """How many tokens are put there; of no meaning for the prompt itself."""
    steps: int
    """How often a token is changed."""
    buffer_size: int = 0
    """How many of the best iterates are kept to go on from; 0 goes on from the last."""
    start: str | None = None
    """The text that fills a prefix or suffix at first, repeated; None draws tokens."""
    target: str | None = None
    """The text that is made likely; None makes the example's reference unlikely."""
    many_at_once: bool = False
    """Whether a step rewrites several tokens, and moves only where that is better."""
    flips: int | None = None
    """How many of the block's tokens may differ from the first ones; None: all."""
    reachable_only: bool = False
    """Whether a prompt has to be what some text encodes to."""
    draft: str | None = None
    """The folder or hub id of a model that says which candidates are worth a pass."""
    draft_forward: int = 0
    """Forward passes of that model, which stand beside those of the budget."""


@dataclass(frozen=True)
class Budget:
    """What an attack may spend on one example, in passes over the whole input.

    `forward` counts forward passes of one sequence (prompt and reference), `backward`
    counts backward passes to the embedding output with frozen weights.
    """

    forward: int
    backward: int
    flips: int | None = None
    """How many positions may differ at the end; None where that is not the limit."""
    trigger: TriggerBudget | None = None
    """The search for a universal trigger that is prepended; None where none is."""
    block: BlockBudget | None = None
    """The search over a block of tokens; None where none is."""
    examples: int = 1
    """How many examples share the work: all of it costs so many times the above."""


@dataclass(frozen=True)
class Adversarial:
    """What an attack made of one example."""

    example_id: str
    prompt_ids: Ids
    """The whole attacked prompt, a trigger included."""
    trace: Sequence[Mapping[str, Any]] = ()
    """Steps: ``step``, ``position``, ``token``, ``loss`` (nats/token) and more."""


class CellKey(NamedTuple):
    """A cell of the suite, for the same model: the labels and the seed."""

    arm: str
    attack: str
    seed: int


@dataclass(frozen=True)
class Scene:
    """Where a cell stands in its suite: what there is besides it, for its model."""

    arm: str
    seed: int
    arms: tuple[str, ...]
    """Its own arm and all others that are not derived from one, sorted."""
    gets: Mapping[str, Sequence[str]]
    """The labels of the attacks that each of the arms gets."""
    seeds: tuple[int, ...]
    """All seeds of the suite, sorted."""
    attacks: Mapping[str, Attack[Any]]
    """All attacks of the suite by label, sorted."""
    main: tuple[str, ...]
    """The labels of the attacks that are no control and of no special role."""


class Peers(Protocol):
    """What a cell may use of the other cells and arms, for the same model."""

    @property
    def scene(self) -> Scene:
        """Where the cell stands in its suite."""

    @property
    def arms(self) -> Sequence[str]:
        """The arms of the scene."""

    def subject(self, arm: str) -> Subject:
        """Return the subject of an arm that `Attack.borrows`, with the cell's seed.

        It is loaded when it is first asked for, and freed when the cell ends. What it
        spends is in the cell's ledger.
        """

    def rows(self, arm: str, attack: str, seed: int) -> Sequence[SampleRow]:
        """Return the rows of a complete cell that `Attack.reads`."""


@dataclass(frozen=True)
class AttackContext:
    """What an attack may use besides the subject and the examples."""

    seed_key: str
    """Identifies the cell; randomness is keyed by it and the example's id."""
    budget: Budget | None = None
    """For a control: the budget of the attack it accompanies."""
    matched: Attack[Any] | None = None
    """For a control: the attack it accompanies."""
    peers: Peers | None = None
    """Other arms and cells, where the attack `replays` or `needs_peers`."""

    def rng(self, *key: str | int) -> np.random.Generator:
        """Return the random stream of this cell for `key`, whoever asks first."""
        import hashlib

        import numpy as np

        text = "\x1f".join([self.seed_key, *map(str, key)])
        digest = hashlib.sha256(text.encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


class Attack(Plugin[OptionsT]):
    """Looks for prompts on which the subject loses more on the same references."""

    uses_search_examples: ClassVar[bool] = False
    """True where `ExampleSets.search` and `.validation` must be given."""
    controls: ClassVar[tuple[str, ...]] = ("random",)
    """The attacks that accompany it as controls, at its budget, unless a suite says
    otherwise; none where it is a control itself, or only replays."""
    replays: ClassVar[bool] = False
    """True where it runs no search but scores what other cells found: it `reads`."""
    needs_peers: ClassVar[bool] = False
    """True where it uses the subjects of other arms, those it `borrows`."""

    @abstractmethod
    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        """Yield one result for each of `examples.test`, in any order."""

    @abstractmethod
    def budget(self, examples: int) -> Budget:
        """Return what one example costs at most when `examples` share the work."""

    def missing(self) -> list[str]:
        """Say what `run` would not find on this machine, a sentence for each."""
        return []

    def unbounded(self, prompt_tokens: int) -> OptionsT | None:
        """Return options with which every token of such a prompt may change.

        They serve to find out whether the attack works at all: without a limit it has
        to succeed. None where the attack has no such limit.
        """
        return None

    def longer(self) -> OptionsT | None:
        """Return options with twice the steps and restarts; None where it has neither.

        They serve to find out whether the attack had converged.
        """
        return None

    def unfit(self, matched: Attack[Any] | None) -> str | None:
        """Say why it cannot be the control of `matched` (or, of None, no control)."""
        if matched is not None and (self.replays or self.needs_peers):
            return f"{self.name} is made of other attacks, and takes no budget"
        return None

    def placed(self, scene: Scene) -> Attack[OptionsT]:
        """Return the attack as it acts in a cell of a suite: with what it takes there.

        Only an attack that is made of others needs this; by default it is itself.
        """
        return self

    def faults(self, scene: Scene) -> Iterable[tuple[str, str]]:
        """Yield options that name something the suite lacks: option, sentence.

        The arm and seed of `scene` stand for all.
        """
        return ()

    def reads(self, scene: Scene) -> Sequence[CellKey]:
        """Return the cells whose rows it uses; they are complete when it runs."""
        return ()

    def borrows(self, scene: Scene) -> Sequence[str]:
        """Return the arms whose subjects it uses besides its own."""
        return ()


# --- results of loading -------------------------------------------------------------


@dataclass(frozen=True)
class PluginInfo:
    """Where a plugin comes from."""

    kind: str
    name: str
    plugin: type[Plugin[Any]]
    source: str
    """The file, or ``module:class``, that defines it."""
    version: str
    sha256: str = field(default="", compare=False)
    """Of its source, all files of a package; stands in records beside the version."""
