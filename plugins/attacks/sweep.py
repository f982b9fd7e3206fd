"""Sweep: flips to the tokens that do most harm of all, found by trying every one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from harness import hookimpl, search
from harness.api import Adversarial, Attack, AttackContext, Budget, Options, Paper
from harness.base import CellError, Ids, Positive
from harness.data import Example, ExampleSets
from harness.subject import MARGIN_NATS, Search, Subject, lockstep

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNBOUNDED = 4
"""How many times its stated flips it verifies, at most, where all tokens may change."""


class SweepOptions(Options):
    """Options of the sweep."""

    flips: Positive = 5
    """How many positions may change, distinct ones."""
    search_examples: Positive = 8
    """In how many search examples a search scores every token that may be written, at
    one drawn position of each. It costs as many passes for each token, which all
    examples that are attacked share. Where there are fewer, they serve again, at other
    positions."""
    tokens: Positive = 32
    """How many tokens are tried: those that raise the mean loss there most."""
    candidates: Positive = 128
    """Flips to these tokens that are verified for each flip that may be made: each
    token at one drawn position, then each at another, until there are so many."""
    searches: Positive = 1
    """Searches from the clean prompt, one after another. Each goes on with further
    search examples and positions; the best prompt is returned."""


class Sweep(Attack[SweepOptions]):
    """Ranks all tokens by what they do to search examples, and flips to the best.

    Single tokens that harm most prompts are known to exist, and are found by scoring
    every one of them [Wallace et al. 2019, universal triggers]; so are weaknesses that
    no gradient shows, because the model reacts to a token itself and to nothing near
    it. At each step the flip of highest true loss is made if it improves, as greedy
    flips are [Ebrahimi et al. 2018]. Before each, the ranking takes in further search
    examples, so that all steps cost about the same. It takes losses alone. Its random
    control draws tokens uniformly, and verifies as many more flips as the ranking cost.
    """

    name = "sweep"
    papers = (
        Paper(
            "Wallace et al. 2019",
            "Universal Adversarial Triggers for Attacking and Analyzing NLP",
            "https://arxiv.org/abs/1908.07125",
        ),
        Paper(
            "Ebrahimi et al. 2018",
            "HotFlip: White-Box Adversarial Examples for Text Classification",
            "https://arxiv.org/abs/1712.06751",
        ),
    )
    example = {"flips": 5}
    Options = SweepOptions
    uses_search_examples = True
    blinds = ("uniform",)

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        options, blind = self.options, context.blind is not None
        ranks = [] if blind else self._ranks(subject, examples.search, context)
        counts = self._blind_counts(subject, examples, context)
        no_gradients = replace(context, gradients=0)

        def search_for(example: Example) -> Search[Adversarial]:
            rng = context.rng(example.id)
            guide = search.Guide(subject, example.reference_ids, no_gradients)
            explore = (
                search.Explorer(guide, iter(counts), rng)
                if blind
                else _Tokens(iter(ranks), options.candidates, rng)
            )
            return search.flip_search(
                subject,
                example,
                explore,
                flips=options.flips,
                searches=options.searches,
                checkpoints=context.checkpoints,
            )

        yield from lockstep(subject, map(search_for, examples.test))

    def budget(self, examples: int) -> Budget:
        """Return the cost of an example, near ties that are scored again left out."""
        clean, options = 1, self.options
        return Budget(
            forward=clean + options.searches * options.flips * options.candidates,
            backward=0,
            flips=options.flips,
            sweeps=options.searches * options.search_examples / examples,
        )

    def unbounded(self, prompt_tokens: int) -> SweepOptions | None:
        """Return options with which every token of such a prompt may change.

        They verify up to four times the flips that are stated: with more tokens than
        that, fewer for each.
        """
        options = self.options
        most = UNBOUNDED * options.flips * options.candidates // prompt_tokens
        candidates = max(1, min(options.candidates, most))
        changes = {"flips": prompt_tokens, "candidates": candidates}
        return options.model_copy(update=changes)

    def doubled(self) -> SweepOptions | None:
        return self.options.model_copy(update={"searches": 2 * self.options.searches})

    def _ranks(
        self, subject: Subject, examples: Sequence[Example], context: AttackContext
    ) -> list[Ids]:
        """Return the tokens to try at each step of an example's search."""
        if not examples:
            raise CellError("a sweep over all tokens needs search examples")
        options = self.options
        seen, flips = options.search_examples, options.flips
        scored, ranks = _Scored(subject, examples, context), list[Ids]()
        for step in range(1, options.searches * flips + 1):
            taken = -(-step * seen // flips)
            if taken > len(scored.losses) or not ranks:
                scored.take(taken)
                ranks.append(scored.best(options.tokens))
            else:
                ranks.append(ranks[-1])
        return ranks

    def _blind_counts(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> list[int]:
        """Return how many flips each step verifies where no ranking guides it."""
        options = self.options
        budget = context.budget or self.budget(len(examples.test))
        ranking = budget.sweeps * len(subject.vocabulary.allowed) / options.searches
        each = options.flips * options.candidates + int(ranking)
        return search.shares(each, options.flips) * options.searches


@dataclass
class _Scored:
    """What each token does to search examples, at one position of each."""

    subject: Subject
    examples: Sequence[Example]
    context: AttackContext
    prompts: list[Ids] = field(default_factory=list)
    """For each example taken, a prompt [V, n] with each token written."""
    references: list[Ids] = field(default_factory=list)
    losses: list[NDArray[np.float64]] = field(default_factory=list)
    """The loss [V] after each of these, in nats/token."""

    def take(self, count: int) -> None:
        """Score every token in further examples, until so many are taken."""
        for number in range(len(self.losses), count):
            example = self.examples[number % len(self.examples)]
            self._score(example, self.context.rng("sweep", number))

    def _score(self, example: Example, rng: np.random.Generator) -> None:
        """Score every token at a position; where it may not stand, it does nothing."""
        policy = search.FlipPolicy.of(self.subject, example)
        movable = policy.movable if policy.movable.any() else example.free
        tokens, clean = self.subject.vocabulary.allowed, policy.clean_ids
        written: Ids = np.tile(clean, (len(tokens), 1))
        written[:, rng.choice(np.flatnonzero(movable))] = tokens
        written[np.logical_not(policy.permits([*written]))] = clean
        distinct, which = np.unique(written, axis=0, return_inverse=True)
        losses = self.subject.losses(distinct, example.reference_ids)
        self.prompts.append(written)
        self.references.append(example.reference_ids)
        self.losses.append(losses[which.reshape(-1)])

    def best(self, count: int) -> Ids:
        """Return the tokens of highest mean loss over the examples taken, by id.

        Where rounding could decide which are the last of them, those are scored again.
        """
        means = np.nan_to_num(np.mean(self.losses, axis=0), nan=-np.inf)
        least = np.sort(means)[-count:][0]
        sure = np.flatnonzero(means > least + MARGIN_NATS)
        last = np.flatnonzero(np.abs(means - least) <= MARGIN_NATS)
        if len(sure) + len(last) > count:
            prompts = [rows[i] for i in last for rows in self.prompts]
            references = self.references * len(last)
            left = count - len(sure)
            last = last[self.subject.top(prompts, references, means[last], left)]
        found: Ids = self.subject.vocabulary.allowed[np.sort(np.r_[sure, last])]
        return found


@dataclass
class _Tokens:
    """Verifies flips to the tokens of a ranking, at drawn positions."""

    ranks: Iterator[Ids]
    """The tokens of each step."""
    count: int
    """How many flips to verify at each step."""
    rng: np.random.Generator
    _known: dict[bytes, set[search.Flip]] = field(default_factory=dict)
    """What was verified at a prompt: a further search goes on from there."""

    def __call__(self, pool: search.Pool) -> Search[None]:
        """Verify the flips of a step."""
        state = pool.state
        known = self._known.setdefault(state.prompt_ids.tobytes(), set())
        flips = self._in_turn(next(self.ranks), np.flatnonzero(state.free))
        left = [x for x in flips if x not in known and not state.has(x)]
        found: list[search.Flip] = []
        while left and len(found) < self.count:
            found += state.permitted(left[: self.count])
            left = left[self.count :]
        known.update(found[: self.count])
        yield from pool.verify(found[: self.count])

    def _in_turn(
        self, tokens: Ids, positions: NDArray[np.int64]
    ) -> Iterator[search.Flip]:
        """Yield each token at a drawn position of its own, then each at another."""
        tokens = self.rng.permutation(tokens)
        own = self.rng.permuted(np.tile(positions, (len(tokens), 1)), axis=1)
        for turn in own.T:
            for position, token in zip(turn, tokens, strict=True):
                yield search.Flip(int(position), int(token))


@hookimpl
def register_attacks() -> list[type[Sweep]]:
    """Offer the attack."""
    return [Sweep]
