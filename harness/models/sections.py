"""What a suite says of recovery training."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from harness.base import Positive, Strict
from harness.data import CorpusName


class RecoverySection(Strict):
    """Recovery training: the same tokens in the same order for every arm."""

    corpus: CorpusName
    """The corpus to train on."""
    validation: CorpusName | None = None
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
