"""No constraint: the untouched baseline, or a start alone as a control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from harness import hookimpl
from harness.api import Constraint, ModelAdapter
from harness.models import Start, StartOptions, install_start

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NoneOptions(StartOptions):
    """What the model begins with; nothing holds it there."""

    start: Literal["keep"] | Start = "keep"
    """The weights at the beginning; ``keep`` leaves them as they are."""


class Unconstrained(Constraint[NoneOptions]):
    """Leaves training free: the baseline, or the control of a start's own damage."""

    name = "none"
    example = {"start": "abs"}
    Options = NoneOptions

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        install_start(adapter, model, self.options, self.options.start, seed)


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the constraint."""
    return [Unconstrained]
