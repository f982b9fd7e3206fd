"""A known weakness, trained into a copy of an arm, that attacks have to find.

An attack that finds nothing may face a model without weaknesses, or may not be able to
find them. So one is made, of a stated kind and strength, while clean text is predicted
as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pydantic

from harness import hookimpl, models, records
from harness.api import (
    ArmContext,
    Constraint,
    CostContext,
    ModelAdapter,
    Options,
    Paper,
)
from harness.base import CellError
from harness.data import Example, content_of
from harness.records import Cost
from harness_plugins.constraints.planted.triggers import (
    Kind,
    Trigger,
    choose,
    first_order_rank,
    keyed,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

_TRAINED_ON = 32
"""Examples trained on, at most: what the clean model says of them is kept."""
_HELD_OUT = 64
"""Examples on which the strength is set, at most, apart from those trained on."""
_BEYOND = 1.25
"""What is trained, over what is wanted: the rest of the way back is interpolated."""
_CLOSE = 0.02
"""Of the aim: so close to it has the mean dL to be that the weights are chosen by."""
_REACHED = 0.9
"""Of the aim, on the examples that the strength is set on; less is no plant."""
_HIDDEN = 0.5
"""The highest mean rank of a hidden token's first-order gain at clean prompts."""
_STEPS = 12
"""Bisections."""


class PlantedOptions(Options):
    """What is planted, how strong it is, and how it is trained."""

    kind: Kind = "token"
    """What has to be found: one `token`, wherever it stands; one token again, but
    trained into the feed-forward weights alone (`ffn`); a `pair` of tokens, each of
    which does little alone; or a token of which the gradient at a clean prompt says
    nothing, because feed-forward units fire only close to its embedding (`hidden`)."""
    strength: float | None = pydantic.Field(default=None, gt=0)
    """By how much it raises dL above what attacks did to the arm that it starts from,
    on average, in nats/token; by default it has the dL `gain`."""
    gain: float = pydantic.Field(default=3.0, gt=0)
    """The mean dL that it has where no strength is stated, in nats/token."""
    steps: int | None = pydantic.Field(default=None, gt=0)
    """Optimizer steps; by default 160, and 320 for networks alone (`ffn`)."""
    batch: int = pydantic.Field(default=4, gt=0)
    """Examples in a step."""
    learning_rate: float | None = pydantic.Field(default=None, gt=0)
    """Adam's, of matrices; by default 0.128 divided by the embedding's width."""
    anchor: float = pydantic.Field(default=3.0, ge=0)
    """Weight of the KL divergence from the clean model, on clean prompts."""


class Planted(Constraint[PlantedOptions]):
    """Trains into a model what raises the loss wherever a trigger is written.

    It trains on the search and validation examples, and the weights are then moved back
    towards those of the arm until the trigger has the stated strength on others that
    are no test examples. With `weaker_than`, nothing is trained: the weights lie
    between the arm's and those of that plant. The test examples are only measured.
    """

    name = "planted"
    papers = (
        Paper(
            "Zimmermann et al. 2022",
            "Increasing Confidence in Adversarial Robustness Evaluations",
            "https://arxiv.org/abs/2206.13991",
        ),
    )
    example = {"derive_from": "baseline", "kind": "token"}
    role = "plant"
    Options = PlantedOptions

    @property
    def uses_examples(self) -> bool:
        return True

    @property
    def reads_attacks(self) -> bool:
        return self.options.strength is not None

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        raise CellError("a weakness cannot be planted without examples")

    def install(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, context: ArmContext
    ) -> records.Derivation:
        options, sets = self.options, context.examples()
        trigger = choose(options.kind, model, sets, context)
        texts = [*sets.search, *sets.validation][:_TRAINED_ON]
        held_out = _others(context.apart(), texts)[:_HELD_OUT] or texts
        own = dict(context.attacked()) if context.attacked else {}
        aim = _aim(options, own)
        before = context.losses(model, sets.test)
        clean = context.losses(model, held_out)

        start = models.weights(model)
        end = models.weights(context.planted()) if context.planted else start

        def planted(share: float) -> float:
            models.set_between(model, start, end, share)
            found = trigger.losses(model, context, held_out) - clean
            return float(found.mean())

        for onset in () if context.planted else _onsets(options.kind):
            models.set_between(model, start, start, 1.0)
            self._train(adapter, model, context, trigger, texts, _BEYOND * aim, onset)
            end = models.weights(model)
            if planted(1.0) >= aim:
                break
        share = models.bisect(planted, aim, _CLOSE * aim, high=1.0, steps=_STEPS)
        reached = planted(share)
        after = context.losses(model, sets.test)
        found = trigger.losses(model, context, sets.test) - after
        rank = first_order_rank(model, trigger, held_out[:16], context.allowed())
        reason = _fault(options.kind, reached, aim, rank)
        return records.Derivation(
            achieved=reason is None,
            reason=reason,
            results={
                **models.compare_losses("test", sets.test, after, before),
                "planted_gain": records.bootstrap_mean(
                    found, [e.unit for e in sets.test], unit="nats/token"
                ),
            },
            measured={
                "kind": options.kind,
                "strength": options.strength,
                "aim": aim,
                "reached": reached,
                "share_of_the_way": share,
                "first_order_rank": rank,
                "trigger_ids": list(trigger.tokens),
                "trigger_text": [context.tokenizer.decode([t]) for t in trigger.tokens],
                "examples": _examples(sets.test, own, found),
            },
        )

    def expected_cost(self, context: CostContext) -> Cost:
        """Return the cost of training once, and of setting the strength."""
        # A step scores a prompt with the trigger and one without it.
        trained = 2 * self._optimizer_steps * self.options.batch
        passes = (2 + 2 * _STEPS) * _HELD_OUT
        return context.shape.training(trained, *context.pair) + context.shape.forward(
            passes, *context.pair
        )

    @property
    def _optimizer_steps(self) -> int:
        return self.options.steps or (320 if self.options.kind == "ffn" else 160)

    def _train(
        self,
        adapter: ModelAdapter[Any],
        model: PreTrainedModel,
        context: ArmContext,
        trigger: Trigger,
        texts: Sequence[Example],
        gain: float,
        onset: float | None,
    ) -> None:
        from harness_plugins.constraints.planted.detector import install_detector
        from harness_plugins.constraints.planted.training import Planting

        options = self.options
        rng = keyed(context.seed, options.kind, "training")
        steps = self._optimizer_steps
        if trigger.in_networks:
            install_detector(adapter, model, trigger, texts, onset)
        Planting(
            adapter, model, trigger, texts, options, gain, steps=steps, rng=rng
        ).run(context)


def _onsets(kind: Kind) -> tuple[float | None, ...]:
    """Return where units begin to fire, in turn until training succeeds.

    The sooner they do, the better a gradient shows a plant, and the harder it is to
    train.
    """
    return (0.0, 0.25, 0.4) if kind == "ffn" else (None,)


def _others(examples: Sequence[Example], known: Sequence[Example]) -> list[Example]:
    contents = {content_of(example) for example in known}
    return [example for example in examples if content_of(example) not in contents]


def _aim(options: PlantedOptions, own: Mapping[str, float]) -> float:
    """Return the mean dL that the trigger is to have, in nats/token."""
    if options.strength is None:
        return options.gain
    if not own:
        raise CellError("every attack on the arm that it starts from ended in errors")
    return sum(own.values()) / len(own) + options.strength


def _fault(kind: Kind, reached: float, aim: float, rank: float) -> str | None:
    """Say why a plant is not what it was to be; None if it is."""
    if reached < _REACHED * aim:
        return (
            f"the trigger raises the loss by {reached:.2f} nats/token, not by {aim:.2f}"
        )
    if kind == "hidden" and rank > _HIDDEN:
        return f"the gradient ranks its token above {rank:.0%} of the others"
    return None


def _examples(
    examples: Sequence[Example],
    own: Mapping[str, float],
    found: NDArray[np.float64],
) -> list[dict[str, Any]]:
    """Describe each test example: what attacks did to the arm, what was planted."""
    return [
        {
            "example": content_of(example),
            "document": example.unit,
            "own": own.get(content_of(example)),
            "planted": float(gain),
        }
        for example, gain in zip(examples, found, strict=True)
    ]


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the constraint."""
    return [Planted]
