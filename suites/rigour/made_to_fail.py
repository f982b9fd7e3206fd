"""Arms and attacks made to fail: each of a kind that has been taken for a result.

They show that the rule of verdicts finds what it is there to find; see docs/rigour.md.
What an arm must be called stands in the suite beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pydantic

from harness import hookimpl
from harness.api import (
    Adversarial,
    Anatomy,
    Attack,
    AttackContext,
    Constraint,
    ModelAdapter,
    Options,
    Projection,
)
from harness.data import ExampleSets
from harness_plugins.attacks.hotflip import HotFlip, HotFlipOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.subject import Subject


# --- arms that are no treatment -----------------------------------------------------


class Claimed(Constraint[Options]):
    """Promises non-negative feed-forward weights, and does nothing for it."""

    name = "claimed"

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        pass

    def promised(self, anatomy: Anatomy) -> list[Projection]:
        return [matrix for ffn in anatomy.ffns for matrix in ffn.projections]


class RecklessOptions(Options):
    """How reckless."""

    times: float = pydantic.Field(default=100.0, gt=0)
    """The factor on the learning rate."""


class Reckless(Constraint[RecklessOptions]):
    """Trains at a learning rate that breaks the model."""

    name = "reckless"
    Options = RecklessOptions

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        pass

    def parameter_groups(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        rate = self.options.times * learning_rate
        return super().parameter_groups(model, rate, weight_decay)


class DeafOptions(Options):
    """How little it hears."""

    share: float = pydantic.Field(default=0.02, ge=0, le=1)
    """What is left of all that attention writes."""


class Deaf(Constraint[DeafOptions]):
    """Hardly reads its prompt: attention adds next to nothing to the last token.

    It is trained so, and predicts as well as one can from a token alone. No prompt
    moves it much, and that is no robustness.
    """

    name = "deaf"
    Options = DeafOptions

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        self._norms = [float(w.norm()) for w in _written(model)]
        self.after_step(model)

    def after_step(self, model: PreTrainedModel) -> None:
        import torch

        with torch.no_grad():
            for weight, norm in zip(_written(model), self._norms, strict=True):
                weight *= min(1.0, self.options.share * norm / float(weight.norm()))


def _written(model: Any) -> list[Any]:
    return [layer.attention.dense.weight for layer in model.gpt_neox.layers]


# --- attacks ------------------------------------------------------------------------


class Inverted(HotFlip):
    """HotFlip down its gradient."""

    name = "inverted"

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        def invert(prompts: Any, references: Any, gradients: list[Any]) -> list[Any]:
            return [-gradient for gradient in gradients]

        return super().run(subject.with_gradients(invert), examples, context)


class Hasty(HotFlip):
    """HotFlip that returns what it has after one flip, and states its whole budget."""

    name = "hasty"
    controls = ("random",)
    blinds = ()  # its control does not stop with it

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        little = HotFlipOptions(flips=1, candidates=1, candidates_from="gradient")
        return HotFlip(little).run(subject, examples, context)


class Choosy(HotFlip):
    """HotFlip that returns nothing for a fifth of the examples, but on the baseline."""

    name = "choosy"

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        assert context.peers is not None
        if context.peers.scene.arm != "baseline":
            kept = [x for k, x in enumerate(examples.test) if k % 5]
            examples = replace(examples, test=kept)
        return super().run(subject, examples, context)


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the arms made to fail."""
    return [Claimed, Reckless, Deaf]


@hookimpl
def register_attacks() -> list[type[Attack[Any]]]:
    """Offer the attacks made to fail."""
    return [Inverted, Hasty, Choosy]
