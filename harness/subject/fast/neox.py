"""Parts of GPT-NeoX's layers that take fewer kernels; the model is changed for good.

They compute what the parts they stand for compute, and round otherwise. Where a
gradient is wanted, those parts themselves are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from harness.subject.fast.prefixes import ATTENTION, attend
from harness.subject.fast.steady import SteadyNorm

if TYPE_CHECKING:
    from torch import Tensor

GELUS = frozenset({"GELU", "GELUActivation", "GELUTanh", "NewGELUActivation"})
"""The classes of activations that are GELU, exact or not."""


class LinearGelu(torch.nn.Module):
    """A linear layer whose product leaves the kernel with GELU applied.

    It is GELU's tanh form, which differs from the exact one by 5e-4 at most: less than
    what bfloat16 rounds away where that happens.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    @property
    def weight(self) -> Tensor:
        """The layer's W [d', d]."""
        return self.linear.weight

    def forward(self, states: Tensor) -> Tensor:
        """Return gelu(states @ W^T + b) for states [..., d]."""
        if torch.is_grad_enabled():
            return torch.nn.functional.gelu(self.linear(states), approximate="tanh")
        weight, bias = self.linear.weight, self.linear.bias
        flat = torch._addmm_activation(
            bias, states.flatten(0, -2), weight.T, use_gelu=True
        )
        return flat.view(*states.shape[:-1], -1)


class TurningAttention(torch.nn.Module):
    """Attention that turns queries and keys where the projection wrote them.

    Plain transformers copies them whole, of which only a part is turned.
    """

    def __init__(self, attention: torch.nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *args: Any,
        position_embeddings: tuple[Tensor, Tensor],
        **given: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as the module does that this one stands for, prefix and all."""
        own: Any = self.attention
        ours = own.config._attn_implementation == ATTENTION
        if torch.is_grad_enabled() or not ours:
            found: tuple[Tensor, Tensor | None] = own(
                hidden_states,
                attention_mask,
                *args,
                position_embeddings=position_embeddings,
                **given,
            )
            return found
        from harness.subject.fast.flash import turn

        split = (*hidden_states.shape[:-1], -1, 3 * own.head_size)
        states = own.query_key_value(hidden_states).view(split)
        turn(states, *(angle[0] for angle in position_embeddings))
        query, key, value = states.transpose(1, 2).chunk(3, dim=-1)
        attended, _ = attend(own, query, key, value, None, own.scaling, **given)
        return own.dense(attended.flatten(2)), None


def fuse_layers(model: torch.nn.Module) -> int:
    """Replace what can be replaced in a GPT-NeoX model; return how many parts were.

    The model must be a copy that nobody else has.
    """
    fused = 0
    for module in list(model.modules()):
        kind = type(module).__name__
        if kind == "GPTNeoXMLP":
            fused += _fuse_gelu(module)
        elif kind == "GPTNeoXLayer":
            fused += _fuse_attention(module)
            _steady_norms(module)
    return fused


def _fuse_gelu(module: Any) -> bool:
    linear = module.dense_h_to_4h
    known = type(module.act).__name__ in GELUS
    if not known or type(linear) is not torch.nn.Linear or linear.bias is None:
        return False
    module.dense_h_to_4h = LinearGelu(linear)
    module.act = torch.nn.Identity()
    return True


def _steady_norms(layer: Any) -> None:
    for name in ("input_layernorm", "post_attention_layernorm"):
        setattr(layer, name, SteadyNorm(getattr(layer, name)))


def _fuse_attention(layer: Any) -> bool:
    weight: Tensor = layer.attention.query_key_value.weight
    if weight.is_cuda:
        layer.attention = TurningAttention(layer.attention)
    return weight.is_cuda
