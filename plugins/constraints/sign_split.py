"""Weights as differences of positive ones: the null arm where there is no gauge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic

from harness import hookimpl
from harness.api import Constraint, ModelAdapter
from harness.base import CellError
from harness.models import StartOptions, install_start

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SignSplitOptions(StartOptions):
    """Which matrices are split, and how fast their parts learn."""

    lr_multiplier: float = pydantic.Field(default=1.0, gt=0)
    """On the learning rate of V, which is the suite's divided by the parts' mean."""


class SignSplit(Constraint[SignSplitOptions]):
    """Trains feed-forward weights as softplus(V+) - softplus(V-): the same function.

    A network W2 s(W1 z + b1) becomes a core with non-negative weights, twice as wide,
    between the fixed maps [z; -z] and [I, -I]. It can compute whatever the network
    could, and begins as it: any effect that this arm shows is an error of ours. The
    frozen subject holds the differences, whose entries have both signs, so no sign of
    theirs is promised.
    """

    name = "sign_split"
    Options = SignSplitOptions

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        from harness.models import SignSplit, parametrize

        if any(ffn.gated for ffn in adapter.anatomy(model).ffns):
            raise CellError(
                "sign_split needs feed-forward networks without a gate: a gated one "
                "has no monotone core"
            )
        for projection in install_start(adapter, model, self.options, "keep", seed):
            parametrize(projection, SignSplit(self.options.eps))

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
    return [SignSplit]
