"""Non-decreasing hulls of GELU: constant left of its minimum.

GELU falls to -0.16997 at x = -0.75179 before it rises, so a network built on it is not
monotone whatever its weights are. Its hull, ``gelu(max(x, minimum))``, is the
non-decreasing function closest to it. The two forms that models use, erf and tanh,
have a hull each. Plain transformers does not know their names: there, a model with a
hull fails to load instead of running with another function.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import gelu

from harness.base import CellError

# Where the derivative is zero (-0.751791524693564..., -0.752461422071016...), rounded
# towards zero: on the right of it the computed derivative is positive despite rounding.
GELU_MINIMUM = -0.751791524693
GELU_TANH_MINIMUM = -0.752461422071

HULLS = {
    "gelu": "gelu_hull",
    "gelu_python": "gelu_hull",
    "gelu_new": "gelu_new_hull",
    "gelu_fast": "gelu_new_hull",
    "gelu_pytorch_tanh": "gelu_new_hull",
}
"""The hull of each activation that has one."""

NON_DECREASING = frozenset({"relu", *HULLS.values()})
"""The activations that are known never to fall; certificates verify it."""


class GeluHull(nn.Module):
    """GELU (erf form) right of its minimum, the minimum's value left of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it elementwise."""
        return gelu(x.clamp(min=GELU_MINIMUM))


class GeluNewHull(nn.Module):
    """GELU (tanh form) right of its minimum, the minimum's value left of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it elementwise."""
        return gelu(x.clamp(min=GELU_TANH_MINIMUM), approximate="tanh")


def register_activations() -> None:
    """Register the hulls with transformers, for configurations that name them."""
    from transformers.activations import ACT2FN

    ACT2FN["gelu_hull"] = GeluHull
    ACT2FN["gelu_new_hull"] = GeluNewHull


def make_activation(name: str) -> nn.Module:
    """Build the activation that a configuration calls `name`."""
    from transformers.activations import ACT2FN

    register_activations()
    if name not in ACT2FN:
        raise CellError(f"transformers has no activation {name!r}")
    activation: nn.Module = ACT2FN[name]
    return activation


def hull_of(name: str) -> str:
    """Return the name of the hull of an activation; of a non-decreasing one, itself."""
    if name in NON_DECREASING:
        return name
    if name not in HULLS:
        known = ", ".join(sorted(HULLS))
        raise CellError(
            f"gelu_hull holds GELU flat ({known}); this model uses {name!r}"
        )
    return HULLS[name]
