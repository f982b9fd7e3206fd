"""What rounds alike in all passes, so that a loss depends on nothing but its pair."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from torch import Tensor

FEWEST = 128
"""Products of fewer rows are added up in another order, on an H200 too."""
ROWS = (FEWEST, 500, 1000, 2032, 5003, 9000, 16_384)
"""Of how many rows products are held against those of `MOST`."""
MOST = 32_768
MOST_RESULTS = 2**28
"""How many numbers a product may have that is tried: 512 MiB of bfloat16."""


@torch.library.custom_op(
    "harness::normalized",
    mutates_args=(),
    schema="(Tensor states, Tensor weight, Tensor bias, float eps) -> Tensor",
)
def normalized(states: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return layer_norm(states) * weight + bias for states [..., d].

    By PyTorch's own kernel, whose every row comes out the same beside any others.
    Compilers sum a row in an order that depends on what else they compile with it.
    """
    return torch.nn.functional.layer_norm(states, weight.shape, weight, bias, eps)


@normalized.register_fake
def _(states: Tensor, *others: Tensor | float) -> Tensor:
    return torch.empty_like(states)


class SteadyNorm(torch.nn.Module):
    """A layer norm that rounds alike in all passes, whatever is compiled for them."""

    def __init__(self, norm: torch.nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, states: Tensor) -> Tensor:
        """Return what the norm does that this one stands for."""
        if torch.is_grad_enabled():
            found: Tensor = self.norm(states)
            return found
        steady: Tensor = normalized(
            states, self.norm.weight, self.norm.bias, self.norm.eps
        )
        return steady


def rows_alike(layers: Iterable[torch.nn.Module]) -> bool:
    """Say whether a row of what layers give is the same beside any others.

    Layers have a weight [d', d], and take states [rows, d]. Libraries choose a kernel
    by the number of rows; those for bfloat16 on an H200 add in one order. That is tried
    for one layer of each kind and shape, called as it is, with the numbers of rows in
    `ROWS` and one above: a sample, which takes some milliseconds each. Where memory
    does not suffice to try, the answer is no.
    """
    kinds = {(type(layer), layer.weight.shape): layer for layer in layers}
    return all(map(_alike, kinds.values()))


def _alike(layer: torch.nn.Module) -> bool:
    weight = cast("Tensor", layer.weight)
    results, width = weight.shape
    drawn = torch.Generator(weight.device).manual_seed(0)
    rows = min(MOST, MOST_RESULTS // results)
    try:
        states = torch.randn(
            rows, width, generator=drawn, device=weight.device, dtype=weight.dtype
        )
        with torch.inference_mode():
            most = layer(states)
            few = (rows for rows in ROWS if rows < len(states))
            return all(torch.equal(layer(states[:rows]), most[:rows]) for rows in few)
    except torch.OutOfMemoryError:
        return False
