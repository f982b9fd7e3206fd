"""Query search: flips without gradients, that learns from its passes where to look."""

from __future__ import annotations

from collections.abc import Iterator
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
    """Forward passes, that of the clean prompt included."""
    round_size: Positive = 16
    """Flips that are verified together, before what they did steers the next ones."""


class Query(Attack[QueryOptions]):
    """Flips tokens by trial, and learns where and what to try; uses no gradient.

    Flips are drawn from four sources: any token, a token that follows its neighbour
    somewhere in the search examples, the position and token that promise most by what
    was seen, and flips that paid before. Sources and positions that pay are drawn more
    often. At each step, the best flip is made if it improves. It needs losses alone, as
    one has them of a model behind an interface.
    """

    name = "query"
    Options = QueryOptions
    uses_search_examples = True

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        allowed = subject.vocabulary.allowed
        texts = [[*x.prompt_ids, *x.reference_ids] for x in examples.search]
        bigrams = search.bigrams_of(texts, allowed)
        clean, flips = 1, self.options.flips
        counts = search.shares(self.options.queries - clean, flips)

        def search_for(example: Example) -> Search[Adversarial]:
            rng = context.rng(example.id)
            learner = search.Learner(
                bigrams, rng, iter(counts), self.options.round_size
            )
            return search.flip_search(subject, example, learner, flips=flips)

        yield from lockstep(subject, map(search_for, examples.test))

    def budget(self, examples: int) -> Budget:
        """Return the cost of an example, near ties that are scored again left out."""
        return Budget(self.options.queries, 0, flips=self.options.flips)

    def unbounded(self, prompt_tokens: int) -> QueryOptions | None:
        return self.options.model_copy(update={"flips": prompt_tokens})

    def longer(self) -> QueryOptions | None:
        return self.options.model_copy(update={"queries": 2 * self.options.queries})


@hookimpl
def register_attacks() -> list[type[Query]]:
    """Offer the attack."""
    return [Query]
