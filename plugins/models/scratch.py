"""The embedded model: a small GPT-NeoX, trained here on text that ships with Python.

It needs no download, so that the whole harness can be tried in minutes; it is far too
small for any claim about language models. Width, depth and rates are those that reach
the lowest held-out loss in about a minute on two cores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from harness import data, hookimpl, models
from harness.api import Anatomy, ModelAdapter, ModelShape, Options
from harness.base import Positive, Progress, Store, content_hash, fixed_random_state
from harness.data import Corpora, CorpusSection
from harness.models import GPT_NEOX, find_anatomy, shape_of, swap_activation
from harness.records import Cost

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_RECIPE = 1
_CORPUS = "python-topics"
_END = "<|endoftext|>"
_WARMUP = 0.05
_BETAS = (0.9, 0.99)
_CHECKPOINT_STEPS = 250
_CHARACTERS_PER_TOKEN = 3.1
"""Of this text in a vocabulary of 2,000 tokens."""


class ScratchOptions(Options):
    """Size and training of the embedded model."""

    vocabulary: int = pydantic.Field(default=2000, ge=257)
    """Tokens of the byte-level BPE, which is trained on the same text."""
    width: Positive = 128
    """Width of the residual stream; feed-forward networks are four times as wide."""
    layers: Positive = 3
    """Transformer layers."""
    heads: Positive = 4
    """Attention heads; they divide the width."""
    context: Positive = 128
    """Tokens in a block, and the number of positions that the model has."""
    steps: Positive = 800
    """Optimizer steps."""
    batch: Positive = 8
    """Blocks in a step."""
    learning_rate: float = pydantic.Field(default=4e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = pydantic.Field(default=2.0, ge=0)
    """AdamW's decoupled decay, on matrices; high because there is little text."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Seed of the initial weights and of where blocks are cut from the text."""
    slice: str = pydantic.Field(default=":70%", pattern=r"^(\d+%?)?:(\d+%?)?$")
    """Documents of the corpus ``python-topics`` to train on; test on others."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which attacks search; what they find is always scored in float32."""

    @pydantic.model_validator(mode="after")
    def _heads_divide_the_width(self) -> ScratchOptions:
        if self.width % (2 * self.heads):
            raise ValueError("width must be a multiple of twice the heads")
        return self


class Scratch(ModelAdapter[ScratchOptions]):
    """Trains a small GPT-NeoX on Python's own help texts, once, and keeps it."""

    name = "scratch"
    Options = ScratchOptions

    def missing(self) -> list[str]:
        return []

    def fingerprint(self, store_root: Path) -> str:
        # Of the recipe: the weights need not exist yet when a suite is resolved.
        return f"recipe:{self._key(Store(store_root))}"

    def load(self, store_root: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        store = Store(store_root)
        key = self._key(store)
        folder = store.folder("scratch", key, lambda new: self._build(store, key, new))
        return models.load_model(folder), models.load_tokenizer(folder)

    def shape(self) -> ModelShape | None:
        options = self.options
        config = {
            "model_type": GPT_NEOX.model_type,
            "hidden_size": options.width,
            "intermediate_size": 4 * options.width,
            "num_hidden_layers": options.layers,
            "vocab_size": options.vocabulary,
            "max_position_embeddings": options.context,
        }
        shape = shape_of(config)
        return shape and replace(shape, characters_per_token=_CHARACTERS_PER_TOKEN)

    def preparation(self, store_root: Path) -> Cost:
        store, shape = Store(store_root), self.shape()
        if shape is None or store.has("scratch", self._key(store)):
            return Cost()
        blocks = self.options.steps * self.options.batch
        return shape.training(blocks, 1, self.options.context)

    def anatomy(self, model: PreTrainedModel) -> Anatomy:
        return find_anatomy(model, GPT_NEOX)

    def set_activation(self, model: PreTrainedModel, name: str) -> None:
        swap_activation(model, GPT_NEOX, name)

    def _key(self, store: Store) -> str:
        options = self.options.model_dump(exclude={"dtype"})
        text = self._corpora(store).identity(_CORPUS)
        return content_hash({"recipe": _RECIPE, "options": options, "text": text})

    def _corpora(self, store: Store) -> Corpora:
        section = CorpusSection(builtin=_CORPUS, slice=self.options.slice)
        return Corpora({_CORPUS: section}, store)

    def _build(self, store: Store, key: str, folder: Path) -> None:
        texts = [d.text for d in self._corpora(store).all_documents(_CORPUS)]
        tokenizer = train_tokenizer(texts, self.options)
        model = initial_model(tokenizer, self.options)
        work = store.work("scratch", key)
        train_model(model, data.joined_ids(texts, tokenizer), self.options, work)
        models.freeze(model, tokenizer, folder)
        store.discard_work("scratch", key)


def train_tokenizer(
    texts: list[str], options: ScratchOptions
) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE, with one special token for the end of a text."""
    import tokenizers
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=options.vocabulary,
        special_tokens=[_END],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_END,
        eos_token=_END,
        unk_token=_END,
        clean_up_tokenization_spaces=False,
        model_max_length=options.context,
    )


def initial_model(
    tokenizer: PreTrainedTokenizerBase, options: ScratchOptions
) -> PreTrainedModel:
    """Return the untrained model; global random generators are left as they were."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.width,
        max_position_embeddings=options.context,
        rotary_pct=0.5,
        initializer_range=0.04,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with fixed_random_state(options.seed):
        return GPTNeoXForCausalLM(config)


def train_model(
    model: PreTrainedModel, ids: NDArray[np.int32], options: ScratchOptions, work: Path
) -> None:
    """Train a model in place on blocks cut from `ids` at random places."""
    import numpy as np

    plan = models.TrainingPlan(
        steps=options.steps,
        blocks_per_step=options.batch,
        micro_batch=options.batch,
        warmup_steps=round(_WARMUP * options.steps),
        checkpoint_every=_CHECKPOINT_STEPS,
        seed=options.seed,
    )
    places = len(ids) - options.context + 1
    starts = np.random.default_rng(options.seed).integers(
        places, size=plan.total_blocks
    )
    with Progress("training the embedded model", "blocks") as progress:
        models.train(
            model,
            Crops(ids, starts, options.context),
            parameter_groups(model, options),
            plan,
            work=work,
            device="cpu",
            hooks=models.TrainingHooks(report=progress.update),
        )


@dataclass(frozen=True)
class Crops:
    """Blocks of `context` ids that begin at `starts`: no two epochs are the same."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    context: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        start = self.starts[index]
        return self.ids[start : start + self.context]


def parameter_groups(
    model: PreTrainedModel, options: ScratchOptions
) -> list[dict[str, Any]]:
    """Return AdamW's groups: decay on matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    shared = {"lr": options.learning_rate, "betas": _BETAS}
    return [
        {"params": matrices, "weight_decay": options.weight_decay, **shared},
        {"params": vectors, "weight_decay": 0.0, **shared},
    ]


@hookimpl
def register_models() -> list[type[ModelAdapter[Any]]]:
    """Offer the adapter."""
    return [Scratch]
