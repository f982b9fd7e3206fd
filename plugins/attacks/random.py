"""Random search: the control that an attack has to beat at equal cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from harness import hookimpl, search
from harness.api import Adversarial, Attack, AttackContext, Budget, Options, Paper
from harness.base import Positive
from harness.data import Example, ExampleSets
from harness.subject import Search, Subject, lockstep


class RandomOptions(Options):
    """Options of random search; as a control, it spends the matched budget instead."""

    flips: Positive = 5
    """How many positions may change, distinct ones."""
    candidates: Positive = 64
    """Flips that are verified by a forward pass for each flip made."""
    searches: Positive = 1
    """Searches from the clean prompt, one after another; the best is returned."""


class Random(Attack[RandomOptions]):
    """Verifies uniform draws of (position, token) and keeps the best.

    As a control it is a blind run of the attack that it accompanies: the same search,
    with uniform draws where the attack follows its gradient, and as many more of them
    as the gradients would have cost. An attack that cannot run blind, since nothing
    guides it or by itself, is accompanied by flips of as many positions instead, at as
    many FLOPs as its budget: so many searches that the first is over at the last of the
    attack's checkpoints.
    """

    name = "random"
    papers = (
        Paper(
            "Carlini et al. 2019",
            "On Evaluating Adversarial Robustness",
            "https://arxiv.org/abs/1902.06705",
        ),
    )
    example = {"match": "hotflip"}
    Options = RandomOptions
    controls = ()
    shows = "search"

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        matched = context.matched
        if matched is not None and "uniform" in matched.blinds:
            blind = replace(context, matched=None, blind="uniform")
            yield from matched.run(subject, examples, blind)
            return
        budget = context.budget or self.budget(len(examples.test))
        own = replace(context, blind="uniform", gradients=0)
        yield from lockstep(
            subject, (self._search(subject, x, own, budget) for x in examples.test)
        )

    def budget(self, examples: int) -> Budget:
        """Return the cost of an example, near ties that are scored again left out."""
        options = self.options
        forward = 1 + options.searches * options.flips * options.candidates
        return Budget(forward=forward, backward=0, flips=options.flips)

    def doubled(self) -> RandomOptions | None:
        return self.options.model_copy(update={"searches": 2 * self.options.searches})

    def unfit(self, matched: Attack[Any] | None) -> str | None:
        """Say why it cannot accompany an attack."""
        if matched is None or matched.needs_peers:
            return None
        budget = matched.budget(1)
        if not budget.forward and not budget.backward:
            return f"{matched.name} spends nothing that could be matched"
        return None

    def _search(
        self, subject: Subject, example: Example, context: AttackContext, budget: Budget
    ) -> Search[Adversarial]:
        clean, flips = 1, budget.flips or self.options.flips
        prompt, reference = example.prompt_ids, example.reference_ids
        forward, backward = subject.pass_flops(len(prompt), len(reference))
        passes = int(budget.forward + budget.backward * backward / forward)
        searches = self._searches(context)
        counts = search.shares(max(0, passes - clean), searches * flips)
        guide = search.Guide(subject, reference, context)
        explore = search.Explorer(guide, iter(counts), context.rng(example.id))
        return search.flip_search(
            subject,
            example,
            explore,
            flips=flips,
            searches=searches,
            checkpoints=context.checkpoints,
        )

    def _searches(self, context: AttackContext) -> int:
        if context.matched is None or not context.checkpoints:
            return self.options.searches
        return max(1, int(1 / max(context.checkpoints)))


@hookimpl
def register_attacks() -> list[type[Random]]:
    """Offer the attack."""
    return [Random]
