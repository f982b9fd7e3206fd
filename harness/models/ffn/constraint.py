"""Constraints that train V instead of weights W = f(V), at rates that fit V."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import pydantic

from harness import models
from harness.api import Constraint
from harness.models.ffn.starts import StartOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ParametrizedOptions(StartOptions):
    """Which matrices are parametrized, and how fast V learns."""

    lr_multiplier: float = pydantic.Field(default=1.0, gt=0)
    """Factor on the learning rate of V, which is the suite's over the mean of W."""


ParametrizedOptionsT = TypeVar("ParametrizedOptionsT", bound=ParametrizedOptions)


class ParametrizedConstraint(Constraint[ParametrizedOptionsT]):
    """Gives each V that `parametrize` installed an optimizer group of its own."""

    trained_copies = 1.0

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        groups = super().parameter_groups(model, learning_rate, weight_decay)
        rate = learning_rate * self.options.lr_multiplier
        return models.scaled_groups(groups, model, rate)
