"""What a suite says of recovery training."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from harness.base import Positive, Strict
from harness.data import CorpusName


class RecoverySection(Strict):
    """Recovery training: the same tokens in the same order for every arm."""

    corpus: CorpusName
    """The corpus to train on."""
    validation: CorpusName | None = None
    """Held-out corpus that the loss is evaluated on during training; optional."""
    tokens: Positive
    """Training tokens; rounded up to whole optimizer steps."""
    context: Positive = 512
    """Tokens in a packed block. Encoder-decoder models train on pairs: for them, the
    most tokens that a prompt, and that a reference, may have."""
    batch_tokens: Positive = 16384
    """Tokens in an optimizer step, reached by accumulating gradients."""
    micro_batch: Positive | None = None
    """Blocks in one forward pass, halved where memory runs out; by default 8 on a CPU,
    and on a GPU as many as fit, up to 32,768 tokens. It changes results by rounding
    alone."""
    checkpointing: bool = False
    """Of each layer, keep only what it reads for the gradient, and run it again then: a
    third more work, in much less memory. It changes no result."""
    optimizer_state: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16`` keeps AdamW's moments in half the memory, rounded at random so that
    their mean is right. It changes results."""
    devices: Positive = 1
    """Devices that one variant is trained on, each with its share of every step. It
    changes results by rounding alone."""
    sharding: Literal["none", "full"] = "none"
    """``none`` keeps a whole model on each device; ``full`` spreads weights, gradients
    and the optimizer's state over them, for models too large for one."""
    learning_rate: Annotated[float, pydantic.Field(gt=0)] = 1e-4
    """Peak learning rate; constraints that train V in place of W scale it for V."""
    warmup_fraction: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.05
    """Fraction of the steps in which the learning rate rises; then cosine to zero."""
    weight_decay: Annotated[float, pydantic.Field(ge=0)] = 0.01
    """AdamW's decoupled decay, on matrices only."""
    max_grad_norm: Annotated[float, pydantic.Field(gt=0)] = 1.0
    """The norm that gradients are clipped to."""
    precision: Literal["float32", "bf16"] = "float32"
    """``bf16`` autocasts matrix products to bfloat16; weights stay float32."""
    evaluate_every: Positive = 100
    """Optimizer steps between evaluations; the first is before any step."""
    evaluation_tokens: Positive = 32768
    """Held-out tokens in an evaluation."""
    checkpoint_every: Positive = 500
    """Optimizer steps between checkpoints."""

    changes_nothing: ClassVar[set[str]] = {
        "micro_batch",
        "checkpointing",
        "checkpoint_every",
        "devices",
        "sharding",
    }
    """What may be stated otherwise for the same results, but for rounding."""

    def blocks_per_step(self, block_tokens: float | None = None) -> int:
        """Return the blocks in an optimizer step.

        A block has `context` tokens, or `block_tokens` on average.
        """
        return max(1, int(self.batch_tokens / (block_tokens or self.context)))

    def steps(self, block_tokens: float | None = None) -> int:
        """Return the optimizer steps that give `tokens`, rounded up."""
        block_tokens = block_tokens or self.context
        return math.ceil(
            self.tokens / (self.blocks_per_step(block_tokens) * block_tokens)
        )


def divisor(blocks: int, at_most: int) -> int:
    """Return the largest divisor of `blocks` that is not above a number.

    So many blocks of a step a pass has, where it may have `at_most`.
    """
    return max(n for n in range(1, min(at_most, blocks) + 1) if blocks % n == 0)


Share = Annotated[float, pydantic.Field(gt=0, le=1)]


class AdversarialSection(Strict):
    """Recovery against an attack: its name, a share, and its options beside them."""

    model_config = pydantic.ConfigDict(extra="allow")
    attack: str
    """The attack plugin. Its options are by default those that it states for training,
    which are cheaper than those of an evaluation."""
    share: Share = 0.2
    """The share of the blocks of each step that are attacked, on the model as it is
    then; what follows the attacked part stays what is to be predicted."""

    @property
    def options(self) -> dict[str, Any]:
        """The attack's options as the suite states them."""
        return dict(self.__pydantic_extra__ or {})


class ArmRecovery(Strict):
    """How an arm reads the tokens of recovery: some of them are others."""

    corrupt: Share | None = None
    """The share of the tokens that are read in training that are others, drawn from the
    vocabulary, each equally likely; what is to be predicted stays."""
    adversarial: AdversarialSection | None = None
    """The attack that a share of the blocks is read after."""
