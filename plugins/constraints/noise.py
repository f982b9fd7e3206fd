"""Weight noise: a model made worse by a stated amount, and in no particular way.

An arm that lost clean performance may be harder to harm for that alone: a loss that is
high already rises less. Its match has the same clean loss without the treatment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from harness import hookimpl, models, records
from harness.api import ArmContext, Constraint, CostContext, ModelAdapter, Options
from harness.base import CellError
from harness.records import Cost

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_FIRST_SCALE = 0.05
_DOUBLINGS = 10
_HALVINGS = 30
_EXPECTED_STEPS = 12
"""Of bisection, for what it is expected to cost."""
_CLOSE = 0.1
"""Of the tolerance: bisection goes on until the losses are so close."""
_NO_FUNCTION = ("_name_or_path", "dtype", "torch_dtype", "transformers_version")
"""What a configuration says besides what the model computes."""


class NoiseOptions(Options):
    """How much noise, and where."""

    scale: float | None = pydantic.Field(default=None, ge=0)
    """Standard deviation of the noise over that of the matrix it is added to; by
    default whatever gives the clean loss of the arm that `match_loss_of` names."""
    matrices: Literal["ffn", "all"] = "ffn"
    """Which matrices get noise: those of the feed-forward networks, which treatments
    change, or all, embeddings included."""
    tolerance: float = pydantic.Field(default=0.02, gt=0)
    """How far from equal the mean clean losses may be where they are matched, in
    nats/token."""


class Noise(Constraint[NoiseOptions]):
    """Adds Gaussian noise to matrices until the clean loss is that of another arm.

    The noise of a matrix is drawn once for each seed, keyed by the seed and the
    matrix's name. It is scaled by the matrix's standard deviation and by one factor for
    all matrices, found by bisection on the mean clean loss of documents that are
    neither test examples nor among those that the match is judged by. No result of an
    attack is used. Noise only raises a loss: where the other arm's is the lower one, it
    is that arm's weights that get noise, up to the loss of the arm that this one starts
    from; the record says so (`noise_on`).
    """

    name = "noise"
    example = {"match_loss_of": "monotone", "derive_from": "baseline"}
    role = "match"
    Options = NoiseOptions

    @property
    def uses_examples(self) -> bool:
        return self.options.scale is None

    def expected_cost(self, context: CostContext) -> Cost:
        """Return the cost of a match after some ten steps of bisection."""
        if self.options.scale is not None:
            return Cost()
        return models.matching_cost(context, _EXPECTED_STEPS)

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
        parts = models.parts_to_match(context)
        own = {name: context.losses(model, part) for name, part in parts.items()}
        other = context.matched()
        wanted = {name: context.losses(other, part) for name, part in parts.items()}
        lower = own[models.FITTED].mean() - wanted[models.FITTED].mean()
        swapped = lower > self.options.tolerance
        reason = None
        if swapped and not _alike(model, other):
            reason = _why_not(own[models.FITTED].mean(), wanted[models.FITTED].mean())
            swapped = False
        elif swapped:
            model.load_state_dict(other.state_dict())
            wanted = own
        del other  # two models at once are enough
        target, tolerance = float(wanted[models.FITTED].mean()), self.options.tolerance
        set_noise = self._noise(adapter, model, context.seed)
        tried: dict[float, float] = {}

        def loss_at(scale: float) -> float:
            set_noise(scale)
            tried[scale] = float(context.losses(model, parts[models.FITTED]).mean())
            context.report(len(tried), 1 + _DOUBLINGS + _HALVINGS)
            return tried[scale]

        scale = find_scale(loss_at, target, _CLOSE * tolerance)
        set_noise(scale)
        found = {name: context.losses(model, part) for name, part in parts.items()}
        achieved = abs(tried[scale] - target) <= tolerance
        if not achieved and reason is None:
            reason = f"no noise that was tried gives a clean loss of {target:.3f}"
        treated, other_side = (found, wanted) if swapped else (wanted, found)
        return records.Derivation(
            achieved=achieved,
            reason=None if achieved else reason,
            results=models.compare_all(parts, found, wanted),
            measured={
                "method": "weight noise" if scale else "as it is",
                "noise_on": "arm" if swapped else "source",
                "scale": scale,
                "matrices": self.options.matrices,
                "tolerance": tolerance,
                "loss_without_noise": tried[0.0],
                "evaluations": len(tried),
                "documents": models.judged_losses(parts, treated, other_side),
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
    before = loss_at(0.0)
    if before >= target - close:
        return 0.0
    low, high = 0.0, _FIRST_SCALE
    for _ in range(_DOUBLINGS):
        if loss_at(high) >= target:
            break
        low, high = high, 2 * high
    return models.bisect(loss_at, target, close, low=low, high=high, steps=_HALVINGS)


def _alike(model: PreTrainedModel, other: PreTrainedModel) -> bool:
    """Say whether a model can take over the weights of another, and is that one then.

    Where the configuration differs, as after a swapped activation, it is not.
    """
    first, second = (
        {k: v for k, v in m.config.to_dict().items() if k not in _NO_FUNCTION}
        for m in (model, other)
    )
    return type(model) is type(other) and first == second


def _why_not(before: float, target: float) -> str:
    return (
        f"the arm's clean loss is {target:.3f} nats/token, below the {before:.3f} of "
        "the model without noise; noise only raises it, and the arm's weights do not "
        "fit into the model"
    )


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the constraint."""
    return [Noise]
