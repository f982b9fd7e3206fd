"""Weights as differences of positive ones: the null arm where there is no gauge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness import hookimpl, models
from harness.api import Constraint, ModelAdapter
from harness.base import CellError
from harness.models import ParametrizedConstraint, ParametrizedOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SignSplit(ParametrizedConstraint[ParametrizedOptions]):
    """Trains feed-forward weights as softplus(V+) - softplus(V-): the same function.

    A network W2 s(W1 z + b1) becomes a core with non-negative weights, twice as wide,
    between the fixed maps [z; -z] and [I, -I]. It can compute whatever the network
    could, and begins as it: any effect that this arm shows is an error of ours. The
    frozen subject holds the differences, whose entries have both signs, so no sign of
    theirs is promised.
    """

    name = "sign_split"
    Options = ParametrizedOptions

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        if any(ffn.gated for ffn in adapter.anatomy(model).ffns):
            raise CellError(
                "sign_split needs feed-forward networks without a gate: a gated one "
                "has no monotone core"
            )
        matrices = models.install_start(adapter, model, self.options, "keep", seed)
        for projection in matrices:
            models.parametrize(projection, models.SignSplit(self.options.eps))


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the constraint."""
    return [SignSplit]
