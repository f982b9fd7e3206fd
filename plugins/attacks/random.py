"""Random search: the control that an attack has to beat at equal cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import hookimpl
from harness.api import (
    Adversarial,
    Attack,
    AttackContext,
    BlockBudget,
    Budget,
    Options,
    TriggerBudget,
)
from harness.base import Positive
from harness.data import Example, ExampleSets

if TYPE_CHECKING:
    import numpy as np

    from harness.base import Ids
    from harness.search import Batch, Flip, Pool, Search, State, Trigger
    from harness.subject import Subject


class RandomOptions(Options):
    """Options of random search; as a control, it spends the matched budget instead."""

    flips: Positive = 5
    """How many positions may change, distinct ones."""
    candidates: Positive = 64
    """Flips that are verified by a forward pass for each flip made."""


class Random(Attack[RandomOptions]):
    """Verifies uniform draws of (position, token) and keeps the best.

    As the control of another attack it accepts flips by the same rule, and spends on
    forward passes alone what that attack spends in FLOPs. If what it controls is a
    universal trigger, the tokens tried at each place of the trigger are uniform draws;
    if it is a block of tokens, so are the changes that are tried of it.
    """

    name = "random"
    Options = RandomOptions
    controls = ()
    shows = "search"

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        budget = context.budget or self.budget(len(examples.test))
        if budget.trigger is not None:
            yield from _write_trigger(
                subject, examples, context, budget, budget.trigger
            )
        elif budget.block is not None:
            yield from _write_block(subject, examples, context, budget, budget.block)
        else:
            yield from self._flip_tokens(subject, examples, context, budget)

    def budget(self, examples: int) -> Budget:
        """Return the cost of an example, near ties that are scored again left out."""
        options = self.options
        forward = 1 + options.flips * options.candidates
        return Budget(forward=forward, backward=0, flips=options.flips)

    def unfit(self, matched: Attack[Any] | None) -> str | None:
        """Say why it cannot accompany an attack."""
        if matched is None or matched.needs_peers:
            return None
        budget = matched.budget(1)
        if not budget.forward and not budget.backward:
            return f"{matched.name} spends nothing that could be matched"
        return None

    def _flip_tokens(
        self,
        subject: Subject,
        examples: ExampleSets,
        context: AttackContext,
        budget: Budget,
    ) -> Iterator[Adversarial]:
        from harness.search import flip_search, lockstep, passes, shares

        flips = budget.flips or self.options.flips

        def search(example: Example) -> Search[Adversarial]:
            clean = 1
            drawn = max(0, int(passes(subject, budget, example)) - clean)
            draw = _Draw(context.rng(example.id), iter(shares(drawn, flips)))
            return flip_search(subject, example, draw, flips=flips)

        return lockstep(subject, map(search, examples.test))


def _write_trigger(
    subject: Subject,
    examples: ExampleSets,
    context: AttackContext,
    budget: Budget,
    trigger: TriggerBudget,
) -> Iterator[Adversarial]:
    from harness.search import TriggerSearch, passes, with_trigger

    search = examples.search[: trigger.search_prompts]
    validation = examples.validation[: trigger.validation_prompts]
    whole = budget.examples * passes(subject, budget, examples.test[0])
    found = TriggerSearch(
        subject,
        search,
        validation,
        _Tokens(_tokens_at_a_place(whole, trigger)),
        tokens=trigger.tokens,
        starts=trigger.starts,
        sweeps=trigger.sweeps,
        batch_prompts=trigger.search_prompts,
    ).run(context.rng)
    for example in examples.test:
        prompt = with_trigger(example, found.trigger)
        yield Adversarial(example.id, prompt, found.trace)


def _write_block(
    subject: Subject,
    examples: ExampleSets,
    context: AttackContext,
    budget: Budget,
    layout: BlockBudget,
) -> Iterator[Adversarial]:
    from harness.models import draft_of
    from harness.search import (
        Block,
        BlockSearch,
        MultiSearch,
        lockstep,
        look_nowhere,
        passes,
        shares,
    )

    draft = draft_of(subject, layout.draft) if layout.draft is not None else None

    def search(example: Example) -> Search[Adversarial]:
        rng = context.rng(example.id)
        start = 1
        affordable = int(passes(subject, budget, example, draft))
        counts = shares(affordable - start, layout.steps)
        block = Block.of(subject, example, layout, rng)
        allowed = subject.vocabulary.allowed
        if layout.many_at_once:
            look = look_nowhere(block, allowed)
            whole = layout.positions == "prompt"
            counts = shares(affordable - start - whole, layout.steps)
            many = MultiSearch(block, look, counts, rng, allowed, draw_start=whole)
            return many.run(example.id)
        draw = _DrawFromAll(allowed, rng)
        return BlockSearch(subject, block, layout, draw, counts, rng).run(example.id)

    return lockstep(subject, map(search, examples.test))


def _tokens_at_a_place(passes: float, trigger: TriggerBudget) -> int:
    """Return how many tokens to try where the whole search may cost so many passes."""
    in_sweep = passes / (trigger.starts * trigger.sweeps) - trigger.validation_prompts
    start = 1
    triggers = in_sweep / trigger.search_prompts - start
    return max(1, round(triggers / trigger.tokens))


@dataclass(frozen=True)
class _Draw:
    """Verifies uniform flips, so many at each step."""

    rng: np.random.Generator
    counts: Iterator[int]

    def __call__(self, pool: Pool) -> Search[None]:
        from harness.search import draw_flips

        allowed = pool.subject.vocabulary.allowed
        yield from pool.verify(
            draw_flips(pool.state, allowed, self.rng, next(self.counts))
        )


@dataclass(frozen=True)
class _DrawFromAll:
    """Proposes uniform flips of a block."""

    allowed: Ids
    rng: np.random.Generator

    def __call__(self, state: State, count: int) -> Search[list[Flip]]:
        import numpy as np

        from harness.search import draw_from_lists

        lists = {}
        for i in map(int, np.flatnonzero(state.free)):
            writable = state.policy.writable(i, self.allowed)
            lists[i] = writable[writable != state.prompt_ids[i]]
        return draw_from_lists(lists, self.rng, count)
        yield  # a search that asks for nothing


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


@hookimpl
def register_attacks() -> list[type[Random]]:
    """Offer the attack."""
    return [Random]
