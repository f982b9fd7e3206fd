"""Non-negative feed-forward weights by a parametrization, W = softplus(V)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from harness import hookimpl, models
from harness.api import Anatomy, Constraint, ModelAdapter, Paper, Projection
from harness.models import ParametrizedConstraint, ParametrizedOptions, Start

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SoftplusOptions(ParametrizedOptions):
    """Which matrices are non-negative, where they begin, and how fast they learn."""

    start: Start = "abs"
    """The weights at the beginning: ``abs`` (the absolute values, the published
    recipe), ``clip`` (max(W, eps)), ``clip_rescaled`` (and the norm kept),
    ``shift_clip`` (moved up by two standard deviations, then clipped), ``gauge``
    (the same function with positive weights: the null arm) or ``small_random``."""
    parametrization: Literal["softplus", "exp", "square"] = "softplus"
    """What makes V a non-negative weight."""


class Softplus(ParametrizedConstraint[SoftplusOptions]):
    """Keeps feed-forward weights positive by training V, where W = softplus(V)."""

    name = "softplus"
    papers = (
        Paper(
            "Runje and Shankaranarayana 2023",
            "Constrained Monotonic Neural Networks",
            "https://arxiv.org/abs/2205.11775",
        ),
    )
    example = {"start": "gauge"}
    Options = SoftplusOptions

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        start = self.options.start
        function = models.PARAMETRIZATIONS[self.options.parametrization]
        matrices = models.install_start(adapter, model, self.options, start, seed)
        for projection in matrices:
            models.parametrize(projection, function())

    def promised(self, anatomy: Anatomy) -> list[Projection]:
        return models.select(anatomy, self.options)


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the constraint."""
    return [Softplus]
