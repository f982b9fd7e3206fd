"""Non-negative feed-forward weights by clamping after each optimizer step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness import hookimpl
from harness.api import Anatomy, Constraint, ModelAdapter, Paper, Projection
from harness.models import Start, StartOptions, install_start, select

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MARK = "clamped_by_projection"


class ProjectionOptions(StartOptions):
    """Which matrices are non-negative, and where they begin."""

    start: Start = "abs"
    """The weights at the beginning, as of ``softplus``."""


class ProjectedWeights(Constraint[ProjectionOptions]):
    """Clamps feed-forward weights at zero after each step: the cheap baseline."""

    name = "projection"
    papers = (
        Paper(
            "Chorowski and Zurada 2015",
            "Learning Understandable Neural Networks With Nonnegative Weight "
            "Constraints",
            "https://doi.org/10.1109/TNNLS.2014.2310059",
        ),
    )
    example = {"start": "abs"}
    Options = ProjectionOptions

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        start = self.options.start
        for projection in install_start(adapter, model, self.options, start, seed):
            # A mark on the module itself survives copies of the model.
            setattr(projection.module, _MARK, True)

    def promised(self, anatomy: Anatomy) -> list[Projection]:
        return select(anatomy, self.options)

    def after_step(self, model: PreTrainedModel) -> None:
        import torch

        with torch.no_grad():
            for module in model.modules():
                if getattr(module, _MARK, False):
                    module.weight.clamp_(min=0)


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the constraint."""
    return [ProjectedWeights]
