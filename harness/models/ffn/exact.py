"""A feed-forward network in float64: values, Jacobians and interval bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.api import FFN, Projection

_GRID = 10_001


@dataclass(frozen=True)
class Affine:
    """``x -> W x + b`` on row vectors."""

    weight: Tensor
    """[out, in]"""
    bias: Tensor
    """[out]"""

    @classmethod
    def of(cls, projection: Projection) -> Affine:
        """Copy a projection's effective weight and its bias."""
        weight = projection.weight.detach().double()
        bias = getattr(projection.module, "bias", None)
        zero = weight.new_zeros(len(weight))
        return cls(weight, zero if bias is None else bias.detach().double())

    def __call__(self, x: Tensor) -> Tensor:
        """Map vectors [n, in] to [n, out]."""
        return x @ self.weight.T + self.bias

    def bounds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Bound the image of boxes [low, high], each [n, in]; the bounds are met."""
        positive, negative = self.weight.clamp(min=0).T, self.weight.clamp(max=0).T
        return (
            low @ positive + high @ negative + self.bias,
            high @ positive + low @ negative + self.bias,
        )


@dataclass(frozen=True)
class ExactFFN:
    """``F(z) = W2 s(W1 z + b1) + b2``; gated: ``W2 (s(Wg z) * (W1 z))``."""

    inputs: tuple[Affine, ...]
    """The in-projection; for a gated network the gate and then the in-projection."""
    output: Affine
    activation: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, ffn: FFN) -> ExactFFN:
        """Copy a network into float64, on the device where it is."""
        inputs = tuple(Affine.of(projection) for projection in ffn.inputs)
        return cls(inputs, Affine.of(ffn.output), ffn.activation)

    def __call__(self, z: Tensor) -> Tensor:
        """Compute F on vectors [n, d]."""
        return self.output(self._hidden([affine(z) for affine in self.inputs]))

    def before_activation(self, z: Tensor) -> Tensor:
        """Return what the activation sees, [n, d_ffn]."""
        return self.inputs[0](z)

    def jacobian(self, z: Tensor, rows: Tensor) -> Tensor:
        """Return rows [n, r] of dF/dz at vectors z [n, d]: [n, r, d].

        At each vector it is ``W2 diag(s'(h)) W1``. The derivative of the hidden units
        is taken by automatic differentiation, so it is that of the activation that
        runs, not of its formula.
        """
        with torch.enable_grad():
            before = [affine(z).requires_grad_() for affine in self.inputs]
            slopes = torch.autograd.grad(self._hidden(before).sum(), before)
        chosen = self.output.weight[rows]
        terms = [
            (chosen * slope[:, None]) @ affine.weight
            for slope, affine in zip(slopes, self.inputs, strict=True)
        ]
        return torch.stack(terms).sum(dim=0)

    def bounds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Bound F on the boxes [low, high], each [n, d], by interval arithmetic.

        Holds for activations that fall at most once before they rise, as GELU does;
        not for gated networks.
        """
        below, above = self.inputs[0].bounds(low, high)
        lowest = lowest_point(self.activation, below.min(), above.max())
        ends = self.activation(below), self.activation(above)
        dip = self.activation(lowest.clamp(below, above))
        least = torch.minimum(torch.minimum(*ends), dip)
        return self.output.bounds(least, torch.maximum(*ends))

    def _hidden(self, before: list[Tensor]) -> Tensor:
        hidden = self.activation(before[0])
        return hidden * before[1] if len(before) > 1 else hidden


def lowest_point(
    activation: Callable[[Tensor], Tensor], low: Tensor, high: Tensor
) -> Tensor:
    """Return where the activation is least on a grid over [low, high]."""
    grid = even_grid(low, high)
    return grid[activation(grid).argmin()]


def largest_fall(
    activation: Callable[[Tensor], Tensor], low: Tensor, high: Tensor
) -> Tensor:
    """Return the largest ``s(x) - s(y)`` over x <= y on a grid over [low, high]."""
    values = activation(even_grid(low, high))
    return (values.cummax(dim=0).values - values).max()


def even_grid(low: Tensor, high: Tensor) -> Tensor:
    """Return 10,001 points from low to high, both included."""
    steps = torch.linspace(0, 1, _GRID, dtype=low.dtype, device=low.device)
    return low + (high - low) * steps
