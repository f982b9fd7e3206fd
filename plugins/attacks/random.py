"""Random search: the control that an attack has to beat at equal cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import pydantic

from harness import hookimpl
from harness.interfaces import (
    Adversarial,
    Attack,
    AttackContext,
    Budget,
    Example,
    ExampleSets,
    Options,
)

if TYPE_CHECKING:
    import numpy as np

    from harness.search import Pool
    from harness.subject import Subject
    from harness.triggers import Batch, Trigger

Positive = Annotated[int, pydantic.Field(gt=0)]


class RandomOptions(Options):
    """Options of random search; as a control, it spends the matched budget instead."""

    flips: Positive = 5
    """How many positions may change, distinct ones."""
    candidates: Positive = 64
    """Flips that are verified by a forward pass for each flip made."""
    restarts: Positive = 4
    """Triggers: random ones to start from, at least."""
    sweeps: Positive = 8
    """Triggers: sweeps over the trigger from one start, at most."""
    search_prompts: Positive = 32
    """Triggers: how many of the search examples are used, at most."""
    validation_prompts: Positive = 32
    """Triggers: how many of the validation examples are used, at most."""


class Random(Attack[RandomOptions]):
    """Verifies uniform draws of (position, token) and keeps the best.

    As the control of another attack it accepts flips by the same rule, and spends on
    forward passes alone what that attack spends in FLOPs. If what it controls is a
    universal trigger, the tokens tried at each place of the trigger are uniform draws.
    """

    name = "random"
    Options = RandomOptions

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        budget = context.budget or self.budget(len(examples.test))
        if budget.trigger_tokens is None:
            results = self._flip_tokens(subject, examples, context, budget)
        else:
            results = self._write_trigger(
                subject, examples, context, budget, budget.trigger_tokens
            )
        for done, result in enumerate(results, 1):
            yield result
            context.report(done, len(examples.test))

    def budget(self, examples: int) -> Budget:
        """Return the cost of an example, near ties that are scored again left out."""
        options = self.options
        forward = 1 + options.flips * options.candidates
        return Budget(forward=forward, backward=0, flips=options.flips)

    def _flip_tokens(
        self,
        subject: Subject,
        examples: ExampleSets,
        context: AttackContext,
        budget: Budget,
    ) -> Iterator[Adversarial]:
        from harness.search import flip_search

        flips = budget.flips or self.options.flips
        for example in examples.test:
            clean = 1
            drawn = int(_passes(subject, budget, example)) - clean
            draw = _Draw(context.rng(example.id), iter(_shares(drawn, flips)))
            yield flip_search(subject, example, draw, flips=flips)

    def _write_trigger(
        self,
        subject: Subject,
        examples: ExampleSets,
        context: AttackContext,
        budget: Budget,
        tokens: int,
    ) -> Iterator[Adversarial]:
        from harness.triggers import TriggerSearch, with_trigger

        options = self.options
        search = examples.search[: options.search_prompts]
        validation = examples.validation[: options.validation_prompts]
        passes = budget.examples * _passes(subject, budget, examples.test[0])
        in_sweep = passes / (options.restarts * options.sweeps) - len(validation)
        start = 1
        triggers = in_sweep / max(1, len(search)) - start
        found = TriggerSearch(
            subject,
            search,
            validation,
            _Tokens(max(1, round(triggers / tokens))),
            tokens=tokens,
            starts=options.restarts,
            sweeps=options.sweeps,
            batch_prompts=options.search_prompts,
        ).run(context.rng)
        for example in examples.test:
            prompt = with_trigger(example, found.trigger)
            yield Adversarial(example.id, prompt, found.trace)


@dataclass(frozen=True)
class _Draw:
    """Verifies uniform flips, so many at each step."""

    rng: np.random.Generator
    counts: Iterator[int]

    def __call__(self, pool: Pool) -> None:
        from harness.search import draw_flips

        allowed = pool.subject.vocabulary.allowed
        pool.verify(draw_flips(pool.state, allowed, self.rng, next(self.counts)))


@dataclass(frozen=True)
class _Tokens:
    """Proposes uniform tokens for a place of a trigger."""

    count: int

    def __call__(
        self, batch: Batch, trigger: Trigger, place: int, rng: np.random.Generator
    ) -> list[int]:
        allowed = batch.subject.vocabulary.allowed
        others = allowed[allowed != trigger[place]]
        drawn = rng.choice(others, min(self.count, len(others)), replace=False)
        return [int(token) for token in drawn]


def _passes(subject: Subject, budget: Budget, example: Example) -> float:
    """Return how many forward passes cost as many FLOPs as a budget."""
    scored = len(example.reference_ids)
    n_tokens = len(example.prompt_ids) + (budget.trigger_tokens or 0) + scored - 1
    forward, backward = subject.pass_flops(n_tokens, scored)
    return budget.forward + budget.backward * backward / forward


def _shares(total: int, parts: int) -> list[int]:
    """Split a number into so many that differ by 1 at most."""
    ends = [total * i // parts for i in range(parts + 1)]
    return [after - before for before, after in pairwise(ends)]


@hookimpl
def register_attacks() -> list[type[Random]]:
    """Offer the attack."""
    return [Random]
