"""Analytic floating-point operations of a transformer's passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PassFlops:
    """The cost of one sequence through a decoder-only model with frozen weights.

    A multiplication by an [in, out] matrix costs 2 * in * out for each token.
    Attention costs 4 * width * n^2 for each layer (scores and weighted sum; the causal
    half is not discounted). Norms, activations and the like are left out. Backward,
    each matrix costs one multiplication more, since only activations get a gradient,
    and both products of attention cost two.
    """

    linear: float
    """For one token, by all matrices but the head."""
    attention: float
    """For one pair of positions, by all layers."""
    head: float
    """For one scored position."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> PassFlops:
        """Read the sizes off a model; the weights themselves are not needed."""
        config = model.config
        heads = config.num_attention_heads
        width = heads * (getattr(config, "head_dim", None) or _head_dim(config, heads))
        head = cast("torch.nn.Linear", model.get_output_embeddings())
        return cls(
            linear=2.0 * sum(_matrix_sizes(model.base_model)),
            attention=4.0 * config.num_hidden_layers * width,
            head=2.0 * head.weight.numel(),
        )

    def __call__(self, n_tokens: int, scored: int) -> tuple[float, float]:
        """Return the FLOPs of a forward and of a backward pass to the embedding."""
        matrices = n_tokens * self.linear + scored * self.head
        attention = n_tokens**2 * self.attention
        return matrices + attention, matrices + 2 * attention


def _matrix_sizes(model: torch.nn.Module) -> list[int]:
    from transformers.pytorch_utils import Conv1D

    linear = (torch.nn.Linear, Conv1D)
    return [m.weight.numel() for m in model.modules() if isinstance(m, linear)]


def _head_dim(config: Any, heads: int) -> int:
    return int(config.hidden_size) // heads
