"""Greedy coordinate gradient: any token of a block may change, at every step."""

from __future__ import annotations

from itertools import repeat
from typing import Annotated

import pydantic

from harness import hookimpl, search
from harness.api import Adversarial, AttackContext, Budget, Paper
from harness.base import Positive
from harness.data import Example
from harness.subject import Search, Subject


class GCGOptions(search.BlockOptions):
    """Options of GCG."""

    steps: Positive = 100
    """How often a token is changed."""
    candidates: Positive = 512
    """Changes of one token that are verified at each step, distinct ones."""
    top_k: Positive = 256
    """Tokens of highest first-order gain that each position draws from."""
    buffer_size: Annotated[int, pydantic.Field(ge=0)] = 0
    """How many of the best iterates are kept to go on from; 0 goes on from the last,
    better or not."""


class GCG(search.BlockAttack[GCGOptions]):
    """Changes any token of the prompt, a prefix or a suffix, one at each step.

    For each position the `top_k` tokens by first-order gain; `candidates` changes, a
    uniform position and a uniform token of its list; the best of them by true loss is
    the next iterate, better than the last or not, and the best iterate is returned
    [Zou et al. 2023]. It raises the loss of the reference, unless a `target` is set.
    """

    name = "gcg"
    papers = (
        Paper(
            "Zou et al. 2023",
            "Universal and Transferable Adversarial Attacks on Aligned Language Models",
            "https://arxiv.org/abs/2307.15043",
        ),
    )
    example = {"positions": "suffix", "tokens": 20}
    Options = GCGOptions
    controls = ("random", "permuted")

    def budget(self, examples: int) -> Budget:
        """Return the cost of an example, near ties that are scored again left out."""
        steps = self.options.steps
        forward = 1 + steps * (1 + self.options.candidates)
        return Budget(forward, backward=steps, flips=self.options.flips)

    def search_for(
        self, subject: Subject, example: Example, context: AttackContext
    ) -> Search[Adversarial]:
        """Return the search for one example."""
        options, rng = self.options, context.rng(example.id)
        block = search.Block.of(subject, example, options, rng)
        return search.BlockSearch(
            block,
            block.guide(context),
            options.top_k,
            repeat(options.candidates, options.steps),
            rng,
            options.buffer_size,
            context.checkpoints,
        ).run(example.id)


@hookimpl
def register_attacks() -> list[type[GCG]]:
    """Offer the attack."""
    return [GCG]
