"""Greedy coordinate gradient: any token of a block may change, at every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Annotated

import pydantic

from harness import hookimpl
from harness.api import (
    Adversarial,
    Attack,
    AttackContext,
    BlockBudget,
    Budget,
    LocalPath,
)
from harness.base import Positive
from harness.data import Example, ExampleSets
from harness.search import BlockOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.search import Block, Flip, Search, State
    from harness.subject import Subject


class GCGOptions(BlockOptions):
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
    draft: LocalPath | None = None
    """A smaller model of the same tokenizer, a folder or hub id, for probe sampling: a
    sixteenth of the candidates is scored by both models, and the better they agree, the
    fewer of the others are verified, those that the draft finds best."""


class GCG(Attack[GCGOptions]):
    """Changes any token of the prompt, a prefix or a suffix, one at each step.

    For each position the `top_k` tokens by first-order gain; `candidates` changes, a
    uniform position and a uniform token of its list; the best of them by true loss is
    the next iterate, better than the last or not, and the best iterate is returned
    [Zou et al. 2023]. It raises the loss of the reference, unless a `target` is set.
    """

    name = "gcg"
    Options = GCGOptions
    controls = ("random", "permuted")

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        from harness.models import draft_of
        from harness.search import lockstep

        path = self.options.draft
        draft = draft_of(subject, path) if path is not None else None

        def search(example: Example) -> Search[Adversarial]:
            return self._attack(subject, example, context.rng(example.id), draft)

        yield from lockstep(subject, map(search, examples.test))

    def budget(self, examples: int) -> Budget:
        """Return the cost of an example, near ties that are scored again left out.

        With a draft model, the cost where it says nothing; the better it is, the fewer
        of these passes are made.
        """
        from harness.search import KEPT_AT_MOST, PROBES

        options = self.options
        verified = options.candidates
        if options.draft is not None:
            verified = round((PROBES + KEPT_AT_MOST) * options.candidates)
        return Budget(
            forward=1 + options.steps * (1 + verified),
            backward=options.steps,
            block=self._layout,
        )

    def unbounded(self, prompt_tokens: int) -> GCGOptions | None:
        if self.options.positions == "prompt":
            return None
        return self.options.model_copy(update={"positions": "prompt"})

    def longer(self) -> GCGOptions | None:
        return self.options.model_copy(update={"steps": 2 * self.options.steps})

    def missing(self) -> list[str]:
        from harness.models import DraftModel

        path = self.options.draft
        if path is None:
            return []
        return DraftModel(DraftModel.Options(path=path)).missing()

    @property
    def _layout(self) -> BlockBudget:
        options = self.options
        return options.layout(
            buffer_size=options.buffer_size,
            draft=options.draft,
            draft_forward=options.steps * options.candidates if options.draft else 0,
        )

    def _attack(
        self,
        subject: Subject,
        example: Example,
        rng: np.random.Generator,
        draft: Subject | None,
    ) -> Search[Adversarial]:
        from harness.search import Block, BlockSearch

        block = Block.of(subject, example, self._layout, rng)
        return BlockSearch(
            subject,
            block,
            self._layout,
            _ByGradient(subject, block, self.options.top_k, rng),
            repeat(self.options.candidates, self.options.steps),
            rng,
            draft,
        ).run(example.id)


@dataclass
class _ByGradient:
    """Draws from the tokens of highest first-order gain of each position."""

    subject: Subject
    block: Block
    top_k: int
    rng: np.random.Generator
    _lists: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    _state: State | None = None
    """Whose lists these are: a state that is gone on from again costs no gradient."""

    def __call__(self, state: State, count: int) -> Search[list[Flip]]:
        from harness.search import draw_from_lists

        if self._state is not state:
            yield from self._look(state)
        return draw_from_lists(self._lists, self.rng, count)

    def _look(self, state: State) -> Search[None]:
        import numpy as np

        from harness.search import Gradients

        (gradient,) = yield Gradients([state.prompt_ids], self.block.reference_ids)
        positions = np.flatnonzero(state.free)
        own = gradient[positions] * (-1 if self.block.lowest else 1)
        gains = self.subject.gains(state.prompt_ids[positions], own)
        state.policy.forbid(gains, positions.tolist())
        values, tokens = gains.topk(min(self.top_k, gains.shape[1]))
        possible = (values > -np.inf).cpu().numpy()
        rows = zip(positions, tokens.cpu().numpy(), possible, strict=True)
        self._lists = {int(i): row[kept] for i, row, kept in rows}
        self._state = state


@hookimpl
def register_attacks() -> list[type[GCG]]:
    """Offer the attack."""
    return [GCG]
