"""Change many tokens at once; how many adapts to what pays.

A step verifies candidates that differ from the current prompt in several positions, and
moves to the best of them if it is better. While large changes pay they grow, and where
none does they shrink, down to a single token. No prompt is verified twice, and no
gradient is taken twice at the same prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import Adversarial
from harness.search.blocks import Block
from harness.search.course import Course
from harness.search.guide import Guide
from harness.search.spent import Spent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.base import Ids
    from harness.subject import Search

FIRST_SHARE = 1 / 4
"""Which share of the block's tokens a candidate changes at first, in the middle."""
FACTOR = 1.5
"""What the number of changes is multiplied with after a success, else divided by."""
OCTAVES = 1.0
"""How far candidates of a step go up and down from that number, in powers of two."""
STAY = 1 / 2
"""How often a candidate rewrites only what differs from the clean prompt already,
where no more may."""
FIRST_CANDIDATES = (2, 2, 4, 4)
"""How many candidates the first steps verify, at most: early on, looking where the
gradient points now says more than another candidate does."""
SHARPNESS = 1.5
"""To which power of its gradient's norm a position is drawn where only some may change:
the fewer they are, the more depends on which. Where all may, to the first."""
DRAWS = 6
"""How often candidates are drawn, at most, until enough are new and permitted."""


def candidate_counts(most: int, steps: int) -> list[int]:
    """Return how many candidates each of some steps verifies."""
    first = [min(most, count) for count in FIRST_CANDIDATES[:steps]]
    return first + [most] * (steps - len(first))


@dataclass
class MultiSearch:
    """Changes several tokens of a block at each step, so that the loss rises."""

    block: Block
    guide: Guide
    top_k: int
    """How many tokens each position draws from."""
    counts: Iterable[int]
    """How many candidates to verify at each step."""
    rng: np.random.Generator
    draw_start: bool = True
    """Whether the first candidate is a block of drawn tokens."""
    enough: Callable[[Ids], bool] = lambda prompt: False
    """Whether a prompt that was moved to ends the search."""
    checkpoints: Sequence[float] = ()
    """The shares of the steps at which to keep the prompt."""
    spent: Spent = field(default_factory=Spent)
    _seen: set[bytes] = field(default_factory=set)

    def run(self, example_id: str) -> Search[Adversarial]:
        """Return the last prompt, and a step of the trace for each change kept.

        A step says which ``positions`` got which ``tokens``, and the loss then; with a
        target, ``target_loss``.
        """
        prompt = self.block.prompt_ids
        first = self.block.losses([prompt], verified=False)
        (loss,) = yield from self.spent.count(first)
        self._seen.add(prompt.tobytes())
        trace: list[Mapping[str, Any]] = []
        if self.draw_start:
            drawn = yield from self._permitted([self._start(prompt)], prompt)
            moved = yield from self.spent.count(self._move(prompt, loss, drawn))
            prompt, loss = self._kept(trace, prompt, loss, moved, len(drawn))
        size = min(FIRST_SHARE * self.block.policy.movable.sum(), self._most)
        better = prompt is not self.block.prompt_ids
        counts = list(self.counts)
        course: Course[Ids] = Course(self.checkpoints, len(counts))
        course.note(0, prompt)
        for step, count in enumerate(counts, 1):
            if better and self.enough(prompt):
                break
            tried = self.spent.count(self._candidates(prompt, size, count))
            prompts = yield from tried
            moved = yield from self.spent.count(self._move(prompt, loss, prompts))
            better = moved[0] is not prompt
            size *= FACTOR if better else 1 / FACTOR
            size = float(np.clip(size, 1, self._most))
            prompt, loss = self._kept(trace, prompt, loss, moved, len(prompts))
            course.note(step, prompt)
        return Adversarial(example_id, prompt, trace, course.held)

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
            writable = policy.writable(int(i), policy.subject.vocabulary.allowed)
            if len(writable):
                start[i] = self.rng.choice(writable)
        return start

    def _candidates(self, prompt: Ids, size: float, count: int) -> Search[list[Ids]]:
        """Draw permitted prompts that were not verified before."""
        look = yield from self.guide.look(prompt, self.block.policy)
        count += look.spared
        found: list[Ids] = []
        policy = self.block.policy
        limited = policy.most_changed < policy.movable.sum()
        chances = yield from look.chances(SHARPNESS if limited else 1.0)
        for _ in range(DRAWS if chances.any() else 0):
            wanted = count - len(found)
            places = [self._places(prompt, chances, size) for _ in range(wanted)]
            changed = sorted({i for drawn in places for i in drawn})
            tokens = yield from look.lists(changed, self.top_k, scaled=True)
            drawn = [self._written(prompt, place, tokens) for place in places]
            found += yield from self._permitted(drawn, prompt)
            if len(found) >= count:
                break
        return found

    def _places(
        self, prompt: Ids, chances: NDArray[np.float64], size: float
    ) -> list[int]:
        """Draw the positions that a candidate changes: about `size` of them.

        Where no more tokens may differ, in part of those that do already.
        """
        changes = max(1, round(size * 2 ** self.rng.uniform(-OCTAVES, OCTAVES)))
        policy = self.block.policy
        changed = prompt != policy.clean_ids
        full = policy.most_changed <= changed.sum() < policy.movable.sum()
        if full and self.rng.random() < STAY and chances[changed].any():
            chances = np.where(changed, chances, 0.0)
            chances = chances / chances.sum()
        most = min(changes, self._most, int(np.count_nonzero(chances)))
        return draw_distinct(self.rng, chances, most)

    def _written(
        self, prompt: Ids, places: Sequence[int], tokens: Mapping[int, Ids]
    ) -> Ids:
        """Write drawn tokens; where as many differ as may, give back others."""
        written: Ids = prompt.copy()
        policy = self.block.policy
        known = [i for i in places if len(tokens[i])]
        ranks = self.rng.integers([len(tokens[i]) for i in known])
        written[known] = [tokens[i][r] for i, r in zip(known, ranks, strict=True)]
        changed = np.flatnonzero(written != policy.clean_ids)
        over = len(changed) - policy.most_changed
        if over > 0:
            others = np.setdiff1d(changed, places[: policy.most_changed])
            given_back = self.rng.permutation(others)[:over]
            written[given_back] = policy.clean_ids[given_back]
        return written

    def _permitted(self, prompts: list[Ids], before: Ids) -> Search[list[Ids]]:
        """Leave out what the suite's rules forbid, and what came before."""
        policy = self.block.policy
        new = []
        for prompt in (yield from policy.mended(prompts, since=before)):
            if prompt.tobytes() not in self._seen:
                self._seen.add(prompt.tobytes())
                new.append(prompt)
        if not policy.rules.limit_flips:
            return new
        kept = policy.permits(new, since=before, mended=True)
        return [p for p, allowed in zip(new, kept, strict=True) if allowed]

    def _move(
        self, prompt: Ids, loss: float, prompts: list[Ids]
    ) -> Search[tuple[Ids, float]]:
        """Return the best of a prompt and others, the prompt itself in a tie."""
        if not prompts:
            return prompt, loss
        losses = yield from self.block.losses(prompts)
        all_prompts, all_losses = [prompt, *prompts], np.array([loss, *losses])
        (best,) = yield from self.block.top(all_prompts, all_losses, 1)
        return all_prompts[best], float(all_losses[best])

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


def draw_distinct(
    rng: np.random.Generator, chances: NDArray[np.float64], count: int
) -> list[int]:
    """Draw so many different indices of some chances, of which as many are above zero.

    Those that ``rng.choice`` draws without replacement, in a third of its time: it goes
    over its arguments at each call.
    """
    found: list[int] = []
    chances = chances.copy()
    while len(found) < count:
        drawn = rng.random(count - len(found))
        chances[found] = 0.0
        reached = chances.cumsum()
        reached /= reached[-1]
        found += dict.fromkeys(reached.searchsorted(drawn, side="right").tolist())
    return found
