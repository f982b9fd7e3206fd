"""Non-negative feed-forward weights by a parametrization, W = softplus(V)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pydantic

from harness import hookimpl
from harness.api import Anatomy, Constraint, ModelAdapter, Projection
from harness.models import Start, StartOptions, install_start, select

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SoftplusOptions(StartOptions):
    """Which matrices are non-negative, where they begin, and how fast they learn."""

    start: Start = "abs"
    """The weights at the beginning: ``abs`` (the absolute values, the published
    recipe), ``clip`` (max(W, eps)), ``clip_rescaled`` (and the norm kept),
    ``shift_clip`` (moved up by two standard deviations, then clipped), ``gauge``
    (the same function with positive weights: the null arm) or ``small_random``."""
    parametrization: Literal["softplus", "exp", "square"] = "softplus"
    """What makes V a non-negative weight."""
    lr_multiplier: float = pydantic.Field(default=1.0, gt=0)
    """On the learning rate of V, which is the suite's divided by the mean of W."""


class Softplus(Constraint[SoftplusOptions]):
    """Keeps feed-forward weights positive by training V, where W = softplus(V)."""

    name = "softplus"
    Options = SoftplusOptions

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        from harness.models import constrain

        start = self.options.start
        for projection in install_start(adapter, model, self.options, start, seed):
            constrain(projection, self.options.parametrization)

    def promised(self, anatomy: Anatomy) -> list[Projection]:
        return select(anatomy, self.options)

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Give each V a group of its own."""
        from harness.models import scaled_groups

        rate = learning_rate * self.options.lr_multiplier
        groups = super().parameter_groups(model, learning_rate, weight_decay)
        return scaled_groups(groups, model, rate)


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the constraint."""
    return [Softplus]
