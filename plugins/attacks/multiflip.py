"""Multi-coordinate ascent: many tokens change at once, as long as that pays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import hookimpl
from harness.api import Adversarial, Attack, AttackContext, BlockBudget, Budget
from harness.base import Positive
from harness.data import Example, ExampleSets
from harness.search import BlockOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.base import Ids
    from harness.search import Block, Search, Source
    from harness.subject import Subject

FIRST_CANDIDATES = (2, 2, 4, 4)
"""How many candidates the first steps verify, at most: early on, looking where the
gradient points now says more than another candidate does."""
UNIFORM_SHARE = 0.1
"""How often a position is drawn uniformly, whatever its gradient says."""


class MultiFlipOptions(BlockOptions):
    """Options of multi-coordinate ascent."""

    flips: Positive | None = None
    """How many tokens may differ from the first ones; by default, all of the block."""
    steps: Positive = 40
    """How often a gradient is taken and candidates are verified."""
    candidates: Positive = 8
    """Prompts that are verified for each gradient; the first steps take fewer."""
    top_k: Positive = 8
    """Tokens that each position draws from: those of highest first-order gain for
    their squared distance in the embedding."""


class MultiFlip(Attack[MultiFlipOptions]):
    """Rewrites many tokens of the prompt at once, fewer as that stops to pay.

    The first candidate is a prompt of drawn tokens. Then each step takes the gradient
    and verifies a few candidates, each with several positions rewritten: positions are
    drawn in proportion to their gradient's norm, tokens among those of highest gain
    for their squared distance, because a first-order gain says less the farther a
    token is. The best is kept if it is better. The number of positions grows by half
    after a success and shrinks else, as the step size of an evolution strategy does
    [Rechenberg 1973]; many coordinates a step are also found to pay by Jia et al. 2024.
    """

    name = "multiflip"
    Options = MultiFlipOptions
    controls = ("random", "permuted")

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        from harness.search import lockstep

        def search(example: Example) -> Search[Adversarial]:
            return self._attack(subject, example, context.rng(example.id))

        yield from lockstep(subject, map(search, examples.test))

    def budget(self, examples: int) -> Budget:
        """Return the cost of an example, near ties that are scored again left out."""
        options = self.options
        clean, drawn = 1, int(options.positions == "prompt")
        return Budget(
            forward=clean + drawn + options.steps + sum(self._counts),
            backward=options.steps,
            block=self._layout,
        )

    def unbounded(self, prompt_tokens: int) -> MultiFlipOptions | None:
        without = self.options.model_copy(update={"positions": "prompt", "flips": None})
        return None if without == self.options else without

    def longer(self) -> MultiFlipOptions | None:
        return self.options.model_copy(update={"steps": 2 * self.options.steps})

    @property
    def _counts(self) -> list[int]:
        """How many candidates each step verifies."""
        most, steps = self.options.candidates, self.options.steps
        first = [min(most, count) for count in FIRST_CANDIDATES[:steps]]
        return first + [most] * (steps - len(first))

    @property
    def _layout(self) -> BlockBudget:
        return self.options.layout(many_at_once=True, flips=self.options.flips)

    def _attack(
        self, subject: Subject, example: Example, rng: np.random.Generator
    ) -> Search[Adversarial]:
        from harness.search import Block, MultiSearch

        options = self.options
        block = Block.of(subject, example, self._layout, rng)
        return MultiSearch(
            block,
            _ByGradient(subject, block, options.top_k),
            self._counts,
            rng,
            subject.vocabulary.allowed,
            draw_start=options.positions == "prompt",
        ).run(example.id)


@dataclass(frozen=True)
class _ByGradient:
    """Looks where the gradient points."""

    subject: Subject
    block: Block
    top_k: int

    def __call__(self, prompt: Ids) -> Search[Source]:
        from harness.search import Gradients

        (gradient,) = yield Gradients([prompt], self.block.reference_ids)
        free = self.block.policy.movable
        return _Guided(self, prompt, gradient, _chances(gradient, free))


@dataclass(frozen=True)
class _Guided:
    """Changes that a gradient guides."""

    by: _ByGradient
    prompt: Ids
    gradient: Tensor
    chances: NDArray[np.float64]

    def tokens(self, positions: Sequence[int]) -> Mapping[int, Ids]:
        """Return the tokens of highest gain for their squared distance."""
        import numpy as np

        from harness.search import scaled_gains

        own = self.gradient[list(positions)] * (-1 if self.by.block.lowest else 1)
        gains = scaled_gains(self.by.subject, self.prompt[list(positions)], own)
        self.by.block.policy.forbid(gains, positions)
        values, tokens = gains.topk(min(self.by.top_k, gains.shape[1]))
        possible = (values > -np.inf).cpu().numpy()
        rows = zip(positions, tokens.cpu().numpy(), possible, strict=True)
        return {i: row[kept] for i, row, kept in rows}


def _chances(gradient: Tensor, free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the chance [n] of each position: by gradient norm, in part uniform."""
    import numpy as np

    uniform = free / max(1, free.sum())
    norms = gradient.double().norm(dim=1).cpu().numpy()
    norms = np.nan_to_num(norms, posinf=0) * free
    if not norms.sum():
        return uniform
    return (1 - UNIFORM_SHARE) * norms / norms.sum() + UNIFORM_SHARE * uniform


@hookimpl
def register_attacks() -> list[type[MultiFlip]]:
    """Offer the attack."""
    return [MultiFlip]
