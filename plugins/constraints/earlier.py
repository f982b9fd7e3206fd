"""An earlier step of training: the same model, when it was no better than another arm.

Noise makes a model worse in a way that no training does. The reference arm itself had
the other arm's clean loss at some step of its training, unless that arm is the better
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pydantic

from harness import hookimpl, models, records
from harness.api import ArmContext, Constraint, CostContext, ModelAdapter, Options
from harness.base import CellError
from harness.records import Cost

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Weights = Mapping[str, "torch.Tensor"]


class EarlierOptions(Options):
    """How closely it is looked."""

    points: int = pydantic.Field(default=64, gt=0)
    """How many steps are looked at, evenly apart; all where there are fewer."""
    tolerance: float = pydantic.Field(default=0.02, gt=0)
    """How far from equal the mean clean losses may be, in nats/token."""


class Earlier(Constraint[EarlierOptions]):
    """Takes the step of its source's training whose clean loss is that of another arm.

    The arm that it starts from is trained once more, on the same tokens in the same
    order at the same rates. Of the steps that are looked at, the weights are kept whose
    mean clean loss comes nearest to that of the arm `match_loss_of`, the last of equal
    ones; on documents that are neither test examples nor among those that the match is
    judged by. No result of an attack is used. Training that does not end at the loss of
    the arm that it repeats is none of its steps, and gives no match.
    """

    name = "earlier"
    example = {"match_loss_of": "monotone", "derive_from": "baseline"}
    role = "match"
    retraces: ClassVar[bool] = True
    matches_loss = True
    uses_examples = True
    Options = EarlierOptions

    def expected_cost(self, context: CostContext) -> Cost:
        """Return the cost of looking at steps; training again is counted besides."""
        return models.matching_cost(context, self.options.points)

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        raise CellError("an earlier step of training needs an arm to match")

    def install(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, context: ArmContext
    ) -> records.Derivation | None:
        if context.matched is None:
            return super().install(adapter, model, context)
        if context.retrained is None:
            raise CellError("the arm that it starts from got no training to repeat")
        parts, tolerance = models.parts_to_match(context), self.options.tolerance
        other = context.matched()
        wanted = {name: context.losses(other, part) for name, part in parts.items()}
        del other  # two models at once are enough
        target = float(wanted[models.FITTED].mean())

        def loss_of(weights: Weights) -> float:
            model.load_state_dict(weights)
            return float(context.losses(model, parts[models.FITTED]).mean())

        end = float(context.losses(model, parts[models.FITTED]).mean())
        course = _Course(loss_of, target, self.options.points, context.report)
        context.retrained(course)
        model.load_state_dict(course.weights)
        found = {name: context.losses(model, part) for name, part in parts.items()}
        nearest = course.losses[course.kept]
        reason = None
        if abs(course.last - end) > tolerance:
            reason = (
                f"training again ended at a clean loss of {course.last:.3f}, and not "
                f"at {end:.3f}: it did not repeat itself"
            )
        elif abs(nearest - target) > tolerance:
            reason = (
                f"no step that was looked at has a clean loss of {target:.3f}; the "
                f"nearest is {nearest:.3f}, after {course.kept} tokens"
            )
        return records.Derivation(
            achieved=reason is None,
            reason=reason,
            results=models.compare_all(parts, found, wanted),
            measured={
                "method": "earlier step",
                "noise_on": "source",
                "tokens": course.kept,
                "tokens_of_all": course.total,
                "tolerance": tolerance,
                "evaluations": len(course.losses),
                "documents": models.judged_losses(parts, wanted, found),
            },
        )


@dataclass
class _Course:
    """A training looked at step by step: the weights that come nearest to a loss."""

    loss_of: Callable[[Weights], float]
    target: float
    points: int
    report: Callable[[int, int], None]

    def __post_init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.kept, self.total = 0, 0
        self.weights: Weights = {}
        self._due = 0

    @property
    def last(self) -> float:
        """The loss at the end."""
        return self.losses[self.total]

    def __call__(self, done: int, total: int, weights: Callable[[], Weights]) -> None:
        """Look at the model after so many tokens, if that is due."""
        self.total = total
        self.report(done, total)
        if done * self.points < self._due * total and done != total:
            return
        self._due = done * self.points // total + 1
        now = weights()
        self.losses[done] = self.loss_of(now)
        if self._away(done) <= self._away(self.kept):
            self.kept = done
            self.weights = {x: y.detach().cpu().clone() for x, y in now.items()}

    def _away(self, done: int) -> float:
        return abs(self.losses[done] - self.target)


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the constraint."""
    return [Earlier]
