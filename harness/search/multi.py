"""The loop that attacks on many tokens at once share: how many adapts to what pays.

A step verifies candidates that differ from the current prompt in several positions,
and moves to the best of them if it is better. While large changes pay they grow, and
where none does they shrink, down to a single token. What is tried is all that differs
between an attack and its random control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.api import Adversarial
from harness.search.blocks import Block
from harness.search.scheduler import Losses, Search, Spent, Top

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.base import Ids

FIRST_SHARE = 1 / 4
"""Which share of the block's tokens a candidate changes at first, in the middle."""
FACTOR = 1.5
"""What the number of changes is multiplied with after a success, else divided by."""
OCTAVES = 1.0
"""How far candidates of a step go up and down from that number, in powers of two."""
STAY = 1 / 2
"""How often a candidate rewrites only what differs from the clean prompt already,
where no more may."""


class Source(Protocol):
    """Where the changes of one prompt come from."""

    @property
    def chances(self) -> NDArray[np.float64]:
        """How likely each position [n] is to be changed, zero where it may not be."""

    def tokens(self, positions: Sequence[int]) -> Mapping[int, Ids]:
        """Return what each of some positions is written with: any of these ids."""


Look = Callable[["Ids"], "Search[Source]"]
"""Find out where the changes of a prompt may come from."""


@dataclass
class MultiSearch:
    """Changes several tokens of a block at each step, so that the loss rises."""

    block: Block
    look: Look
    counts: Iterable[int]
    """How many candidates to verify at each step."""
    rng: np.random.Generator
    allowed: Ids
    """What a start is drawn from."""
    draw_start: bool = True
    """Whether the first candidate is a block of drawn tokens."""
    spent: Spent = field(default_factory=Spent)

    def run(self, example_id: str) -> Search[Adversarial]:
        """Return the last prompt, and a step of the trace for each change kept.

        A step says which ``positions`` got which ``tokens``, and the loss then; with a
        target, ``target_loss``.
        """
        prompt = self.block.prompt_ids
        (loss,) = yield from self.spent.count(self._losses([prompt]))
        trace: list[Mapping[str, Any]] = []
        if self.draw_start:
            drawn = self._permitted([self._start(prompt)], prompt)
            moved = yield from self.spent.count(self._move(prompt, loss, drawn))
            prompt, loss = self._kept(trace, prompt, loss, moved, len(drawn))
        size = min(FIRST_SHARE * self.block.policy.movable.sum(), self._most)
        for count in self.counts:
            tried = self.spent.count(self._candidates(prompt, size, count))
            prompts = yield from tried
            moved = yield from self.spent.count(self._move(prompt, loss, prompts))
            size *= FACTOR if moved[0] is not prompt else 1 / FACTOR
            size = float(np.clip(size, 1, self._most))
            prompt, loss = self._kept(trace, prompt, loss, moved, len(prompts))
        return Adversarial(example_id, prompt, trace)

    @property
    def _most(self) -> int:
        """How many tokens of a prompt a candidate may change."""
        policy = self.block.policy
        return max(1, min(int(policy.movable.sum()), policy.most_changed))

    def _start(self, prompt: Ids) -> Ids:
        policy = self.block.policy
        positions = np.flatnonzero(policy.movable)
        positions = self.rng.permutation(positions)[: policy.most_changed]
        start: Ids = prompt.copy()
        for i in positions:
            writable = policy.writable(int(i), self.allowed)
            if len(writable):
                start[i] = self.rng.choice(writable)
        return start

    def _candidates(self, prompt: Ids, size: float, count: int) -> Search[list[Ids]]:
        source = yield from self.look(prompt)
        if not source.chances.any():
            return []
        places = [self._places(prompt, source, size) for _ in range(count)]
        tokens = source.tokens(sorted({i for drawn in places for i in drawn}))
        drawn = [self._written(prompt, place, tokens) for place in places]
        return self._permitted(drawn, prompt)

    def _places(self, prompt: Ids, source: Source, size: float) -> list[int]:
        """Draw the positions that a candidate changes: about `size` of them."""
        changes = max(1, round(size * 2 ** self.rng.uniform(-OCTAVES, OCTAVES)))
        chances = self._chances(prompt, source)
        most = min(changes, self._most, int(np.count_nonzero(chances)))
        drawn = self.rng.choice(len(prompt), most, replace=False, p=chances)
        return [int(i) for i in drawn]

    def _chances(self, prompt: Ids, source: Source) -> NDArray[np.float64]:
        """Return those of a source or, where no more may differ, of what does."""
        policy = self.block.policy
        changed = prompt != policy.clean_ids
        full = policy.most_changed <= changed.sum() < policy.movable.sum()
        if full and self.rng.random() < STAY:
            own: NDArray[np.float64] = np.where(changed, source.chances, 0.0)
            if own.any():
                own /= own.sum()
                return own
        return source.chances

    def _written(
        self, prompt: Ids, places: Sequence[int], tokens: Mapping[int, Ids]
    ) -> Ids:
        """Write drawn tokens; where as many differ as may, give back others."""
        written: Ids = prompt.copy()
        policy = self.block.policy
        for i in places:
            if len(tokens[i]):
                written[i] = self.rng.choice(tokens[i])
        changed = np.flatnonzero(written != policy.clean_ids)
        over = len(changed) - policy.most_changed
        if over > 0:
            others = np.setdiff1d(changed, places[: policy.most_changed])
            given_back = self.rng.permutation(others)[:over]
            written[given_back] = policy.clean_ids[given_back]
        return written

    def _permitted(self, prompts: list[Ids], before: Ids) -> list[Ids]:
        """Leave out what the suite's rules forbid, and what comes twice."""
        policy = self.block.policy
        prompts = policy.mended(prompts, since=before)
        distinct = list({prompt.tobytes(): prompt for prompt in prompts}.values())
        if not policy.rules.limit_flips:
            return distinct
        kept = policy.permits(distinct, since=before)
        return [p for p, allowed in zip(distinct, kept, strict=True) if allowed]

    def _move(
        self, prompt: Ids, loss: float, prompts: list[Ids]
    ) -> Search[tuple[Ids, float]]:
        """Return the best of a prompt and others, the prompt itself in a tie."""
        if not prompts:
            return prompt, loss
        only = self.block.policy.rules.reachable_only
        losses = yield from self._losses(prompts, reachable_only=only)
        all_losses = np.array([loss, *losses])
        reference, lowest = self.block.reference_ids, self.block.lowest
        best: list[int] = yield Top(
            [prompt, *prompts], reference, all_losses, 1, lowest=lowest
        )
        return [prompt, *prompts][best[0]], float(all_losses[best[0]])

    def _losses(
        self, prompts: list[Ids], *, reachable_only: bool = False
    ) -> Search[NDArray[np.float64]]:
        losses: NDArray[np.float64] = yield Losses(
            prompts, self.block.reference_ids, reachable_only=reachable_only
        )
        return losses

    def _kept(
        self,
        trace: list[Mapping[str, Any]],
        before: Ids,
        loss: float,
        moved: tuple[Ids, float],
        verified: int,
    ) -> tuple[Ids, float]:
        """Note a move in the trace, where there was one; return where it led."""
        if moved[0] is before:
            return before, loss
        positions = np.flatnonzero(moved[0] != before)
        step = {
            "step": len(trace) + 1,
            "positions": positions.tolist(),
            "tokens": moved[0][positions].tolist(),
            "target_loss" if self.block.lowest else "loss": moved[1],
            "verified": verified,
            "passes": self.spent.passes,
            "gradients": self.spent.gradients,
        }
        trace.append(step)
        return moved


@dataclass(frozen=True)
class Uniform:
    """Changes that nothing guides: every free position, every allowed token."""

    block: Block
    allowed: Ids

    @property
    def chances(self) -> NDArray[np.float64]:
        """The same for every position that may be changed."""
        free = self.block.policy.movable.astype(np.float64)
        return np.divide(free, max(1.0, free.sum()))

    def tokens(self, positions: Sequence[int]) -> Mapping[int, Ids]:
        """Return all tokens that may be written."""
        policy = self.block.policy
        return {i: policy.writable(i, self.allowed) for i in positions}


def look_nowhere(block: Block, allowed: Ids) -> Look:
    """Return a `Look` that asks for nothing: for the random control."""

    def look(prompt: Ids) -> Search[Source]:
        return Uniform(block, allowed)
        yield  # a search that asks for nothing

    return look
