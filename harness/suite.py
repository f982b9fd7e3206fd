"""Suites: the models below define the format of the file that a user writes.

Keys of `models`, `arms`, `metrics` and `attacks` are labels that the user chooses; each
entry names a plugin (a metric or an attack by default the one called like its label)
and holds that plugin's options beside the few reserved keys. The plugin's own `Options`
validate those. `harness.suite_file` reads suites, `harness.plan` expands them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from harness.base.strict import Positive, Strict
from harness.records.samples import ROUGE_DROP

LABEL = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
SLICE = r"^(\d+%?)?:(\d+%?)?$"
SPLIT = r"^[A-Za-z0-9_.-]+$"
DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"
FINGERPRINT = r"^(sha256:[0-9a-f]{64}|hub:.+@.+)$"

Label = Annotated[str, pydantic.Field(pattern=LABEL)]
Fingerprint = Annotated[str, pydantic.Field(pattern=FINGERPRINT)]


class _PluginSection(Strict):
    """A section that also holds the options of the plugin it names."""

    model_config = pydantic.ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The plugin's options as the suite states them."""
        return dict(self.__pydantic_extra__ or {})


class ModelSection(_PluginSection):
    """A model: its adapter and the adapter's options."""

    adapter: str
    """The model plugin that loads it."""
    fingerprint: str | None = None
    """If set, the weights must have this fingerprint; resolved suites set it."""


class RecoverySection(Strict):
    """Recovery training: the same tokens in the same order for every arm."""

    corpus: str
    """The corpus to train on."""
    validation: str | None = None
    """The held-out corpus of the evaluations while training; none without it."""
    tokens: Positive
    """Training tokens; rounded up to whole optimizer steps."""
    context: Positive = 512
    """Tokens in a packed block; of pairs, for encoder-decoder models, how many a prompt
    and a reference may have each."""
    batch_tokens: Positive = 16384
    """Tokens in an optimizer step; the rest is gradient accumulation."""
    micro_batch: Positive = 8
    """Blocks in one forward pass."""
    learning_rate: Annotated[float, pydantic.Field(gt=0)] = 1e-4
    """Peak learning rate; of V, it is scaled by the constraint."""
    warmup_fraction: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.05
    """Fraction of the steps with rising learning rate; then cosine to zero."""
    weight_decay: Annotated[float, pydantic.Field(ge=0)] = 0.01
    """AdamW's decoupled decay, on matrices only."""
    max_grad_norm: Annotated[float, pydantic.Field(gt=0)] = 1.0
    """Gradient clipping."""
    precision: Literal["float32", "bf16"] = "float32"
    """`bf16`: autocast of the matrix products; weights stay float32."""
    evaluate_every: Positive = 100
    """Optimizer steps between evaluations, the first before step 1."""
    evaluation_tokens: Positive = 32768
    """Held-out tokens in an evaluation."""
    checkpoint_every: Positive = 500
    """Optimizer steps between checkpoints."""


class ArmSection(_PluginSection):
    """A named treatment: a constraint with its options, and its recovery."""

    constraint: str = "none"
    """The constraint plugin."""
    recovery: bool | None = None
    """Whether this arm gets the suite's recovery training; by default, where it is not
    derived from another arm."""
    derive_from: Label | None = None
    """The arm whose frozen subject it starts from, of the same model and seed; by
    default it starts from the model as loaded."""
    match_loss_of: Label | None = None
    """The arm whose clean loss it is brought to, by the constraint `noise`."""
    attacks: tuple[Label, ...] | None = None
    """The attacks that it gets, by their labels; by default all."""

    @property
    def recovers(self) -> bool:
        """Whether this arm gets the suite's recovery training."""
        return self.derive_from is None if self.recovery is None else self.recovery

    @property
    def sources(self) -> tuple[str, ...]:
        """The arms that it is made from, each once."""
        stated = (self.derive_from, self.match_loss_of)
        return tuple(dict.fromkeys(arm for arm in stated if arm is not None))


_PAIR_FIELDS = ("prompt", "reference", "prefix", "choices", "gold")


class CorpusSection(Strict):
    """A source of documents; exactly one of `path`, `dataset` and `builtin`."""

    path: str | None = None
    """A local file (or glob): jsonl, jsonl.zst, parquet, csv or text, by its ending;
    relative to the suite."""
    dataset: str | None = None
    """A dataset id of the Hugging Face hub."""
    builtin: str | None = None
    """A text that comes with Python: ``python-topics``."""
    revision: str | None = None
    """The dataset's revision (branch, tag or commit)."""
    files: str | None = None
    """Files of the dataset (glob), where it has no split of that name."""
    split: Annotated[str, pydantic.Field(pattern=SPLIT)] = "train"
    """The dataset's split."""
    text: str = "text"
    """The field that holds the text, where there is no `prompt`."""
    prompt: str | None = None
    """For pairs and tasks: the field that holds the prompt. A list holds one for each
    choice."""
    reference: str | None = None
    """The field that holds what should follow the prompt; beside `choices` without
    `gold`, the right answer to their wrong ones."""
    prefix: str | None = None
    """Text that is put before every prompt, as ``"summarize: "``."""
    choices: str | None = None
    """For multiple choice: the field that holds the answers."""
    gold: str | None = None
    """The field that holds the number of the right answer, from 0."""
    separator: str = r"\n\s*\n"
    """For text files: the regular expression between two documents."""
    slice: Annotated[str, pydantic.Field(pattern=SLICE)] = ":"
    """Which documents, as in Python, in numbers or percent: ``:80%``, ``100:200``."""
    fingerprint: Fingerprint | None = None
    """If set, the contents must have this fingerprint; resolved suites set it."""

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> CorpusSection:
        if sum(x is not None for x in (self.path, self.dataset, self.builtin)) != 1:
            raise ValueError("needs exactly one of path, dataset and builtin")
        return self

    @pydantic.model_validator(mode="after")
    def _whole_pairs(self) -> CorpusSection:
        stated = {name for name in _PAIR_FIELDS if getattr(self, name) is not None}
        if not stated:
            return self
        if self.builtin is not None:
            raise ValueError(f"a builtin text has no {min(stated)}")
        if self.prompt is None:
            raise ValueError(f"{min(stated)} needs `prompt` beside it")
        if not stated & {"reference", "choices"}:
            raise ValueError("prompt needs `reference` or `choices` beside it")
        if self.choices is not None and (self.gold is None) == (self.reference is None):
            raise ValueError(
                "choices need either `gold`, which of them is right, or `reference`, "
                "the right answer to wrong ones"
            )
        return self

    @property
    def definition(self) -> dict[str, Any]:
        """What defines the documents, as JSON values, wherever they are kept."""
        keys = {"fingerprint", "text", "separator", "slice"}
        if self.dataset is not None:
            keys |= {"split", "files"}
        pairs = {name for name in _PAIR_FIELDS if getattr(self, name) is not None}
        return self.model_dump(mode="json", include=keys | pairs)


class ExampleSet(Strict):
    """Where one set of examples comes from."""

    corpus: str
    """The corpus whose documents give the examples, one from each."""
    count: Positive
    """How many."""


class ExamplesSection(Strict):
    """The examples that all attacks of the suite share."""

    test: ExampleSet
    """What is attacked and reported."""
    search: ExampleSet | None = None
    """What universal attacks search on."""
    validation: ExampleSet | None = None
    """What universal attacks choose among their restarts on."""
    prompt_tokens: Positive = 64
    """Length of a prompt; of pairs and answers, the greatest length."""
    reference_tokens: Positive = 64
    """Length of the reference that follows it; of pairs and answers, the greatest."""
    objective: Literal["loss", "answer"] = "loss"
    """`answer`: the reference is an answer (of a task, or a text's last word), and an
    attack succeeds where the answer was right and is lost."""
    rouge_tokens: Positive | None = None
    """If set, what the subject writes after each prompt, in so many tokens at most, is
    compared with the pair's reference by ROUGE-L, before the attack and after it."""

    @property
    def beyond_loss(self) -> dict[str, Any]:
        """What is asked of examples besides a loss, as JSON values; {} by default."""
        answers = {"objective": self.objective} if self.objective != "loss" else {}
        if self.rouge_tokens is None:
            return dict(answers)
        return {**answers, "rouge_tokens": self.rouge_tokens}


class MetricSection(_PluginSection):
    """A metric and its options."""

    metric: str | None = None
    """The metric plugin; by default the one called like this entry."""


class AttackSection(_PluginSection):
    """An attack and its options."""

    attack: str | None = None
    """The attack plugin; by default the one called like this entry."""
    match: str | None = None
    """For a control: the label of the attack whose budget it gets."""
    controls: Literal["auto", "none"] | tuple[str, ...] | None = None
    """The controls that it gets: `none`, attack plugins by name, or `auto`, those that
    the attack asks for. By default, what the suite's `controls` says."""
    role: Literal["unbounded", "longer"] | None = None
    """For a cell of the full diagnostics: the attack without a limit on positions, or
    with twice the steps and restarts."""

    @pydantic.field_validator("controls")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return "none" if value == () else value


class TokensSection(Strict):
    """Which tokens attacks may write, and over which, besides what none ever may.

    Attacks and their controls keep to the same rules. Special tokens, ids that are no
    token, and parts of a character are never written.
    """

    ascii_only: bool = False
    """Write no token whose text has other characters."""
    words_only: bool = False
    """Write only tokens that are a space and letters."""
    no_stop_words: bool = False
    """Write no English stop word."""
    keep_stop_words: bool = False
    """Replace no token that is a part of a stop word of the clean prompt."""
    min_cosine: Annotated[float, pydantic.Field(ge=-1, le=1)] | None = None
    """The least cosine between the embeddings of a clean token and what replaces it."""
    max_changed: Annotated[float, pydantic.Field(gt=0, le=1)] | None = None
    """The largest share of a prompt's tokens that flips may change."""
    reachable_only: bool = False
    """Make no flip after which the prompt, decoded and encoded, would be another."""


class SuccessSection(Strict):
    """When an attack counts as a success."""

    threshold: Annotated[float, pydantic.Field(gt=0)] = 0.15
    """Relative rise of the reference's perplexity: exp(dL) > 1 + threshold."""
    rouge_drop: Annotated[float, pydantic.Field(gt=0, lt=1)] = ROUGE_DROP
    """Relative fall of ROUGE-L, where `examples.rouge_tokens` is set."""


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
    """The treatments, by label; `baseline` must be one."""
    seeds: tuple[Annotated[int, pydantic.Field(ge=0)], ...] = pydantic.Field(
        min_length=1
    )
    """Of recovery order, random starts and attacks."""
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
    tokens: TokensSection = TokensSection()
    """Which tokens attacks may write, and over which."""
    success: SuccessSection = SuccessSection()
    """When an attack counts as a success."""
    diagnostics: Literal["standard", "full", "none"] = "standard"
    """What is asked of the results before they are believed; `full` also runs the
    attacks and arms that some of the questions need."""
    batch_size: Positive = 64
    """Sequences in one forward pass; changes no result."""
    device: Annotated[str, pydantic.Field(pattern=DEVICE)] = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    limit: Positive | None = None
    """First so many examples and documents only: not for real numbers."""
    profiles: dict[Label, dict[str, Any]] = {}
    """Named partial suites, merged over this one by ``--profile``."""
