"""Weight noise: a model made worse by a stated amount, and in no particular way.

An arm that lost clean performance may be harder to harm for that alone: a loss that is
high already rises less. Its match has the same clean loss without the treatment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from harness import hookimpl, models, records
from harness.api import ArmContext, Constraint, ModelAdapter, Options
from harness.base import CellError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_FIRST_SCALE = 0.05
_DOUBLINGS = 10
_HALVINGS = 30
_CLOSE = 0.1
"""Of the tolerance: bisection goes on until the losses are so close."""


class NoiseOptions(Options):
    """How much noise, and where."""

    scale: float | None = pydantic.Field(default=None, ge=0)
    """Standard deviation of the noise over that of the matrix it is added to; by
    default whatever gives the clean loss of the arm that `match_loss_of` names."""
    matrices: Literal["ffn", "all"] = "ffn"
    """Which matrices get noise: those of the feed-forward networks, which treatments
    change, or all, embeddings included."""
    tolerance: float = pydantic.Field(default=0.02, gt=0)
    """Clean losses that differ by no more than this count as equal, in nats/token."""


class Noise(Constraint[NoiseOptions]):
    """Adds Gaussian noise to matrices until the clean loss is that of another arm.

    The noise of a matrix is drawn once, keyed by the seed and the matrix's name. It is
    scaled by the matrix's standard deviation and by one factor for all matrices, found
    by bisection on the mean clean loss of the test examples: those are attacked, so on
    those the losses must agree. No result of an attack is used. Noise only raises the
    loss: where the other arm's is lower, the record says that there is no match.
    """

    name = "noise"
    role = "match"
    Options = NoiseOptions

    @property
    def uses_examples(self) -> bool:
        return self.options.scale is None

    @property
    def matches_loss(self) -> bool:
        return self.options.scale is None

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        if self.options.scale is None:
            raise CellError("noise without a scale needs an arm to match")
        self._noise(adapter, model, seed)(self.options.scale)

    def install(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, context: ArmContext
    ) -> records.Derivation | None:
        if context.matched is None:
            return super().install(adapter, model, context)
        sets = context.examples()
        parts = {"test": sets.test, "validation": sets.validation}
        other = context.matched()
        wanted = {name: context.losses(other, part) for name, part in parts.items()}
        del other  # two models at once are enough
        target, tolerance = float(wanted["test"].mean()), self.options.tolerance
        set_noise = self._noise(adapter, model, context.seed)
        tried: dict[float, float] = {}

        def loss_at(scale: float) -> float:
            set_noise(scale)
            tried[scale] = float(context.losses(model, sets.test).mean())
            context.report(len(tried), 1 + _DOUBLINGS + _HALVINGS)
            return tried[scale]

        scale = find_scale(loss_at, target, _CLOSE * tolerance)
        set_noise(scale)
        achieved = abs(tried[scale] - target) <= tolerance
        results = {}
        for name, part in parts.items():
            found = context.losses(model, part)
            results |= models.compare_losses(name, part, found, wanted[name])
        return records.Derivation(
            achieved=achieved,
            reason=None if achieved else _why(tried[0.0], target),
            results=results,
            measured={
                "method": "weight noise" if scale else "as it is",
                "scale": scale,
                "matrices": self.options.matrices,
                "tolerance": tolerance,
                "loss_without_noise": tried[0.0],
                "evaluations": len(tried),
            },
        )

    def _noise(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> Callable[[float], None]:
        """Return a function that sets the scale of the noise in every matrix."""
        now = self._matrices(adapter, model)
        clean = {name: matrix.detach().cpu().clone() for name, matrix in now}

        def set_noise(scale: float) -> None:
            # Looked up anew: the model may have moved to another device.
            for name, matrix in self._matrices(adapter, model):
                size = scale * float(clean[name].double().std())
                noise = models.keyed_normal(f"{seed}/noise/{name}", matrix.shape)
                matrix.data.copy_(clean[name].add(noise, alpha=size))

        return set_noise

    def _matrices(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel
    ) -> list[tuple[str, torch.Tensor]]:
        if self.options.matrices == "all":
            return [(n, p) for n, p in model.named_parameters() if p.ndim >= 2]
        ffns = adapter.anatomy(model).ffns
        return [(p.name, p.weight) for ffn in ffns for p in ffn.projections]


def find_scale(loss_at: Callable[[float], float], target: float, close: float) -> float:
    """Return a scale with a loss within `close` of the target, by bisection.

    Where there is none, the best that was tried. `loss_at` is continuous, and called
    with 0 first.
    """
    tried: dict[float, float] = {}

    def loss(scale: float) -> float:
        tried[scale] = loss_at(scale)
        return tried[scale]

    low, high = 0.0, _FIRST_SCALE
    if loss(0.0) < target - close:
        for _ in range(_DOUBLINGS):
            if loss(high) >= target:
                break
            low, high = high, 2 * high
        for _ in range(_HALVINGS if tried.get(high, -math.inf) >= target else 0):
            middle = (low + high) / 2
            found = loss(middle)
            if abs(found - target) <= close:
                break
            low, high = (middle, high) if found < target else (low, middle)
    return min(tried, key=lambda scale: (abs(tried[scale] - target), scale))


def _why(before: float, target: float) -> str:
    if target < before:
        return (
            f"the arm's clean loss is {target:.3f} nats/token, below the {before:.3f} "
            "of the model without noise, and noise only raises it"
        )
    return f"no noise that was tried gives a clean loss of {target:.3f} nats/token"


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the constraint."""
    return [Noise]
