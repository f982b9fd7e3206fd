"""Multi-coordinate ascent: many tokens change at once, as long as that pays."""

from __future__ import annotations

from harness import hookimpl, search
from harness.api import Adversarial, AttackContext, Budget, Paper
from harness.base import Positive
from harness.data import Example
from harness.subject import Search, Subject


class MultiFlipOptions(search.BlockOptions):
    """Options of multi-coordinate ascent."""

    steps: Positive = 64
    """How often a gradient is taken and candidates are verified."""
    candidates: Positive = 4
    """Prompts that are verified for each gradient, which costs as much as two of them;
    the first two steps take two."""
    top_k: Positive = 8
    """Tokens that each position draws from: those of highest first-order gain for
    their squared distance in the embedding."""


class MultiFlip(search.BlockAttack[MultiFlipOptions]):
    """Rewrites many tokens of the prompt at once, fewer once that stops paying off.

    The first candidate is a prompt of drawn tokens. Then each step takes the gradient
    and verifies a few candidates, each with several positions rewritten: positions are
    drawn in proportion to their gradient's norm, tokens among those of highest gain
    for their squared distance, because a first-order gain says less the farther a
    token is. The best is kept if it is better; else the gradient is not taken again,
    and more candidates are drawn by it. The number of positions grows by half
    after a success and shrinks else, as the step size of an evolution strategy does
    [Rechenberg 1973]; many coordinates a step are also found to pay by Jia et al. 2024.
    """

    name = "multiflip"
    papers = (
        Paper(
            "Rechenberg 1973",
            "Evolutionsstrategie: Optimierung technischer Systeme nach Prinzipien "
            "der biologischen Evolution",
        ),
        Paper(
            "Jia et al. 2024",
            "Improved Techniques for Optimization-Based Jailbreaking on Large "
            "Language Models",
            "https://arxiv.org/abs/2405.21018",
        ),
    )
    Options = MultiFlipOptions
    controls = ("random", "permuted")

    def budget(self, examples: int) -> Budget:
        """Return the cost of an example, near ties that are scored again left out."""
        clean, drawn = 1, int(self.options.positions == "prompt")
        steps, counts = self.options.steps, self._counts
        forward = clean + drawn + steps + sum(counts)
        return Budget(forward, backward=steps, flips=self.options.flips)

    def search_for(
        self, subject: Subject, example: Example, context: AttackContext
    ) -> Search[Adversarial]:
        """Return the search for one example."""
        options, rng = self.options, context.rng(example.id)
        block = search.Block.of(subject, example, options, rng)
        return search.MultiSearch(
            block,
            block.guide(context),
            options.top_k,
            self._counts,
            rng,
            draw_start=options.positions == "prompt",
            checkpoints=context.checkpoints,
        ).run(example.id)

    @property
    def _counts(self) -> list[int]:
        return search.candidate_counts(self.options.candidates, self.options.steps)


@hookimpl
def register_attacks() -> list[type[MultiFlip]]:
    """Offer the attack."""
    return [MultiFlip]
