"""Query search: flips without gradients, that learns from its passes where to look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import pydantic

from harness import hookimpl, search
from harness.api import Adversarial, Attack, AttackContext, Budget, Options
from harness.base import Positive
from harness.data import Example, ExampleSets
from harness.subject import Search, Subject, lockstep


class QueryOptions(Options):
    """Options of query search."""

    flips: Positive = 5
    """How many positions may change, distinct ones."""
    queries: Annotated[int, pydantic.Field(gt=1)] = 321
    """Forward passes of a search, that of the clean prompt included."""
    searches: Positive = 1
    """Searches from the clean prompt, one after another. Each learns from those before
    it; the best prompt is returned."""
    round_size: Positive = 16
    """Flips that are verified together, before what they did steers the next ones."""


class Query(Attack[QueryOptions]):
    """Flips tokens by trial, and learns where and what to try; uses no gradient.

    Flips are drawn from four sources: any token, a token that follows its neighbour
    somewhere in the search examples, the position and token that promise most by what
    was seen, and flips that paid before. Sources and positions that pay are drawn more
    often. At each step, the best flip is made if it improves. It needs losses alone, as
    one has them of a model behind an interface. Its random control draws all flips
    uniformly.
    """

    name = "query"
    example = {"flips": 5}
    Options = QueryOptions
    uses_search_examples = True
    blinds = ("uniform",)

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        allowed = subject.vocabulary.allowed
        texts = [[*x.prompt_ids, *x.reference_ids] for x in examples.search]
        bigrams = search.bigrams_of(texts, allowed)
        clean, flips, searches = 1, self.options.flips, self.options.searches
        counts = search.shares(self.options.queries - clean, flips) * searches
        no_gradients = replace(context, gradients=0)

        def search_for(example: Example) -> Search[Adversarial]:
            rng, left = context.rng(example.id), iter(counts)
            explore: search.Learner | search.Explorer
            if context.blind:
                guide = search.Guide(subject, example.reference_ids, no_gradients)
                explore = search.Explorer(guide, left, rng)
            else:
                size = self.options.round_size
                explore = search.Learner(bigrams, rng, left, size)
            return search.flip_search(
                subject,
                example,
                explore,
                flips=flips,
                searches=searches,
                checkpoints=context.checkpoints,
            )

        yield from lockstep(subject, map(search_for, examples.test))

    def budget(self, examples: int) -> Budget:
        """Return the cost of an example, near ties that are scored again left out."""
        clean, options = 1, self.options
        forward = clean + options.searches * (options.queries - clean)
        return Budget(forward, 0, flips=options.flips)

    def unbounded(self, prompt_tokens: int) -> QueryOptions | None:
        return self.options.model_copy(update={"flips": prompt_tokens})

    def doubled(self) -> QueryOptions | None:
        return self.options.model_copy(update={"searches": 2 * self.options.searches})


@hookimpl
def register_attacks() -> list[type[Query]]:
    """Offer the attack."""
    return [Query]
