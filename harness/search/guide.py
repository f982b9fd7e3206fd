"""Which changes of a prompt to try: what its gradient says or, in a control, any."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.search.flips import Flip, Pool, State, draw_flips
from harness.subject import Ask, Place, Request, Search, Slopes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.api import AttackContext
    from harness.base import Ids
    from harness.search.policy import FlipPolicy
    from harness.subject import Subject

UNIFORM_SHARE = 0.1
"""How often a position is drawn uniformly, whatever its gradient says."""
LOOKED_AT = 4
"""How many times as many flips are looked at where only few may be permitted."""


class Spared:
    """The passes that a gradient would have cost, to be spent on candidates instead."""

    def __init__(self, context: AttackContext) -> None:
        self._gradients, self._owed = context.gradients, 0.0

    def instead(
        self, subject: Subject, prompt_tokens: int, reference: Ids, passes: int = 1
    ) -> int:
        """Return so many candidates, each of so many forward passes.

        Fractions are carried to the next time.
        """
        forward, backward = subject.pass_flops(prompt_tokens, len(reference))
        self._owed += self._gradients * (1 + backward / forward)
        whole = int(self._owed / passes)
        self._owed -= whole * passes
        return whole


@dataclass(frozen=True)
class Look:
    """What is known of the changes of one prompt before any of them is tried."""

    subject: Subject
    policy: FlipPolicy
    prompt_ids: Ids
    gradient: Tensor | None
    """Where the loss rises (or, of a target, falls) [n, d]; None says nothing."""
    spared: int = 0
    """Passes that no gradient was taken for: so many more candidates are verified."""
    _lists: dict[int, Ids] = field(default_factory=dict)

    def chances(self, sharpness: float = 1.0) -> Search[NDArray[np.float64]]:
        """Find out how likely each position [n] is drawn: by a power of its norm.

        Blindly they are all equally likely, and to a small part always.
        """
        free, norms = self.policy.movable, (yield from self._measured())
        uniform: NDArray[np.float64] = free / max(1, free.sum())
        weights = norms**sharpness
        if not weights.any():
            return uniform
        mixed: NDArray[np.float64]
        mixed = (1 - UNIFORM_SHARE) * weights / weights.sum() + UNIFORM_SHARE * uniform
        return mixed

    def _measured(self) -> Search[NDArray[np.float64]]:
        """Find the gradient's norm at each position [n], zero where none may change.

        One everywhere that may change where the gradient says nothing.
        """
        free = self.policy.movable
        if self.gradient is not None:
            [norms] = yield Request(Ask.NORMS, [self.gradient])
            found: NDArray[np.float64] = np.nan_to_num(norms, posinf=0) * free
            if found.any():
                return found
        return free.astype(np.float64)

    def lists(
        self, positions: Iterable[int], top_k: int, *, scaled: bool = False
    ) -> Search[dict[int, Ids]]:
        """Find the tokens that each position draws from.

        The `top_k` of highest first-order gain, `scaled` or not (the same in all calls
        for one prompt); all that may be written where there is no gradient.
        """
        wanted = [int(i) for i in positions]
        new = [i for i in wanted if i not in self._lists]
        if self.gradient is None:
            self._lists.update(self._writable(new))
        elif new:
            near = self.policy.near
            places = [
                Place(
                    int(self.prompt_ids[i]),
                    self.gradient[i],
                    top_k,
                    scaled,
                    None if near is None else near[i],
                )
                for i in new
            ]
            found = yield Request(Ask.TOKENS, places)
            self._lists.update(zip(new, found, strict=True))
        return {i: self._lists[i] for i in wanted}

    def flips(
        self,
        state: State,
        count: int,
        rng: np.random.Generator,
        known: Collection[Flip] = (),
    ) -> Search[dict[Flip, float]]:
        """Find the permitted flips of highest first-order gain, or uniform draws.

        Each comes with its gain, NaN where there is no gradient. Those of highest gain
        leave out what is `known`. Rules that only a whole prompt can break are looked
        at for `LOOKED_AT` times as many.
        """
        free = np.flatnonzero(state.free)
        if self.gradient is None:
            drawn = draw_flips(state, self._writable(free.tolist()), rng, count)
            return dict.fromkeys(drawn, float("nan"))
        looked = count * (LOOKED_AT if self.policy.rules.reachable_only else 1)
        most, near = looked + len(known), self.policy.near
        slopes = Slopes(self.prompt_ids[free], free, self.gradient, most, near)
        [ranked] = yield Request(Ask.FLIPS, [slopes])
        best = zip(*(part.tolist() for part in ranked), strict=True)
        gains = {Flip(position, token): gain for position, token, gain in best}
        new = [flip for flip in gains if flip not in known]
        return {flip: gains[flip] for flip in state.permitted(new[:looked])[:count]}

    def _writable(self, positions: Iterable[int]) -> dict[int, Ids]:
        allowed = self.subject.vocabulary.allowed
        return {i: self.policy.writable(i, allowed) for i in positions}


class Guide:
    """Looks where changes of a prompt pay: by a gradient, or blindly in a control.

    A blind guide takes no gradient, and no guide takes a second one at the prompt that
    it looked at last. What it would have cost is spent on candidates instead, so that
    an attack and its control cost the same: who searches by a guide has a fair control.
    """

    def __init__(
        self,
        subject: Subject,
        reference_ids: Ids,
        context: AttackContext,
        *,
        lowest: bool = False,
    ) -> None:
        """Take the `reference_ids` whose loss is to rise or, if `lowest`, to fall."""
        self._subject, self._reference_ids = subject, reference_ids
        self._blind, self._lowest = context.blind is not None, lowest
        self._spared = Spared(context)
        self._last: Look | None = None

    def look(self, prompt: Ids, policy: FlipPolicy) -> Search[Look]:
        """Find out which changes of a prompt to try."""
        if self._last is None or self._last.prompt_ids is not prompt:
            gradient = None
            if not self._blind:
                pair = prompt, self._reference_ids
                (gradient,) = yield Request(Ask.GRADIENTS, [pair])
                if self._lowest:
                    with self._subject.aside():
                        gradient = -gradient
            self._last = Look(self._subject, policy, prompt, gradient)
            if not self._blind:
                return self._last
        spared = self._spared.instead(self._subject, len(prompt), self._reference_ids)
        return replace(self._last, spared=spared)


@dataclass
class Explorer:
    """Verifies the flips of a state that a guide finds most promising."""

    guide: Guide
    counts: Iterator[int]
    """How many to verify at each state."""
    rng: np.random.Generator
    _known: dict[bytes, set[Flip]] = field(default_factory=dict)
    """What was verified at a prompt; those next in the gradient's order come then."""

    def __call__(self, pool: Pool) -> Search[None]:
        """Verify flips in the pool of a state."""
        look = yield from self.guide.look(pool.state.prompt_ids, pool.state.policy)
        count = next(self.counts) + look.spared
        known = self._known.setdefault(pool.state.prompt_ids.tobytes(), set())
        gains = yield from look.flips(pool.state, count, self.rng, known)
        known.update(gains)
        yield from pool.verify(gains)
        if look.gradient is not None:
            pool.gains = np.array([gains[flip] for flip in pool.flips])
