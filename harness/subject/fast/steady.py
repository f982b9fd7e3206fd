"""What rounds alike in all passes, so that a loss depends on nothing but its pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

FEWEST = 128
"""Products of fewer rows are added up in another order, on an H200 too."""
ROWS = (
    *(FEWEST, 136, 160, 200, 256, 300, 384, 500, 640, 777, 1000),
    *(1500, 2032, 2600, 5003, 9000, 16_384),
)
"""Of how many rows products are held against those of `MOST`."""
MOST = 32_768
MOST_RESULTS = 2**28
"""How many numbers a product may have that is tried: 1 GiB of a head's logits."""

Product = Callable[["Tensor"], "Tensor"]


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


def rows_alike(products: Iterable[tuple[Product, Tensor]]) -> bool:
    """Say whether a row of what products give is the same beside any others.

    Each takes states [rows, d] and comes with its weight [d', d]. Libraries choose a
    kernel by the number of rows; those for bfloat16 on an H200 add in one order. That
    is tried for one product of each kind and shape with the numbers of rows in `ROWS`
    and one above: a sample, which takes some milliseconds each. Where memory does not
    suffice to try, the answer is no.
    """
    kinds = {(type(one), weight.shape): (one, weight) for one, weight in products}
    return all(_alike(one, weight) for one, weight in kinds.values())


def _alike(product: Product, weight: Tensor) -> bool:
    results, width = weight.shape
    drawn = torch.Generator(weight.device).manual_seed(0)
    rows = min(MOST, MOST_RESULTS // results)
    try:
        states = torch.randn(
            rows, width, generator=drawn, device=weight.device, dtype=weight.dtype
        )
        with torch.inference_mode():
            most = product(states)
            few = (rows for rows in ROWS if rows < len(states))
            return all(torch.equal(product(states[:rows]), most[:rows]) for rows in few)
    except torch.OutOfMemoryError:
        return False
