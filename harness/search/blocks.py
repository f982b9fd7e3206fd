"""Search over a block of tokens, any of which may change at any step.

A step verifies candidates that differ from an iterate in one token and moves to the
best of them; the best iterate of all is what comes out [Zou et al. 2023].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import Adversarial
from harness.base import CellError
from harness.search.course import Course
from harness.search.flips import Flip, State, draw_flips, eligible
from harness.search.guide import Guide
from harness.search.policy import FlipPolicy
from harness.search.spent import Spent
from harness.subject import Ask, Request, Search

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.api import AttackContext
    from harness.base import Ids
    from harness.data import Example
    from harness.search.options import BlockOptions
    from harness.subject import Subject


DRAWS = 8
"""How often the first tokens of a block are drawn, at most, until a text gives them."""


@dataclass(frozen=True)
class Block:
    """A prompt with a block of tokens in it, and what it is scored on."""

    prompt_ids: Ids
    reference_ids: Ids
    policy: FlipPolicy
    """Which positions belong to the block, and the rules about what is written."""
    lowest: bool = False
    """Whether the loss is to fall: the reference is a target."""

    @classmethod
    def of(
        cls,
        subject: Subject,
        example: Example,
        options: BlockOptions,
        rng: np.random.Generator,
    ) -> Block:
        """Put a block into an example's prompt, or let the prompt be the block.

        Rules that compare a prompt with the clean one say nothing of tokens that are
        put before or after it.
        """
        rules = subject.vocabulary.rules
        if options.positions != "prompt":
            reachable = rules.reachable_only
            example = _with_block(subject, example, options, rng, reachable=reachable)
            no_limits = {"keep_stop_words": False, "min_cosine": None}
            rules = rules.model_copy(update={**no_limits, "max_changed": None})
        target, reference = options.target, example.reference_ids
        if target is not None:
            reference = _encoded(subject, target)
        policy = FlipPolicy.of(subject, example, rules, options.flips)
        return cls(example.prompt_ids, reference, policy, lowest=target is not None)

    def state(self, prompt: Ids, loss: float) -> State:
        """Return an iterate."""
        return State(prompt, loss, self.policy.movable_after(prompt), self.policy)

    def guide(self, context: AttackContext) -> Guide:
        """Return what says which changes of the block to try."""
        subject = self.policy.subject
        return Guide(subject, self.reference_ids, context, lowest=self.lowest)

    def losses(
        self, prompts: Sequence[Ids], *, verified: bool = True
    ) -> Search[NDArray[np.float64]]:
        """Return the losses of prompts; NaN where a text has to give one and cannot.

        Those that are not `verified` are scored as they are.
        """
        only = verified and self.policy.rules.reachable_only
        ask = Ask.REACHABLE_LOSSES if only else Ask.LOSSES
        losses: NDArray[np.float64]
        losses = yield Request(ask, [(one, self.reference_ids) for one in prompts])
        return losses

    def top(
        self, prompts: Sequence[Ids], losses: NDArray[np.float64], k: int
    ) -> Search[list[int]]:
        """Return the indices of the `k` best prompts, best first."""
        subject, lowest = self.policy.subject, self.lowest
        return subject.choice(prompts, self.reference_ids, losses, k, lowest=lowest)


@dataclass
class BlockSearch:
    """Changes a token of a block at each step, so that the loss rises or falls."""

    block: Block
    guide: Guide
    top_k: int
    """How many tokens each position draws from."""
    counts: Iterable[int]
    """How many candidates to verify at each step."""
    rng: np.random.Generator
    buffer_size: int = 0
    """How many of the best iterates are kept to go on from; 0 goes on from the last."""
    checkpoints: Sequence[float] = ()
    """The shares of the steps at which to keep the best iterate."""
    spent: Spent = field(default_factory=Spent)

    def run(self, example_id: str) -> Search[Adversarial]:
        """Return the best iterate, and a step of the trace for each iterate.

        A step says from which other it starts (``from``, 0 for the start), what was
        written where, the loss then, and the best loss until then; with a target,
        ``target_loss`` and ``best_target_loss``.
        """
        start = self.block.prompt_ids
        first = self.block.losses([start], verified=False)
        (loss,) = yield from self.spent.count(first)
        iterates = [self.block.state(start, float(loss))]
        trace: list[Mapping[str, Any]] = []
        pool, counts = [0], list(self.counts)
        course: Course[int] = Course(self.checkpoints, len(counts))
        course.note(0, len(iterates))
        for made, count in enumerate(counts, 1):
            base = pool[0]
            step = self.spent.count(self._step(iterates[base], count))
            flip, state, verified = yield from step
            if flip is None:
                continue
            iterates.append(state)
            trace.append(self._note(iterates, base, flip, verified))
            pool = yield from self._go_on_from(iterates, pool)
            course.note(made, len(iterates))
        held = {}
        for share, seen in course.held.items():
            held[share] = yield from self._returned(iterates[:seen])
        best = yield from self._returned(iterates)
        return Adversarial(example_id, best, trace, held)

    def _step(self, state: State, count: int) -> Search[tuple[Flip | None, State, int]]:
        """Return the best flip of those tried, what it leads to, and how many were."""
        look = yield from self.guide.look(state.prompt_ids, state.policy)
        free = np.flatnonzero(state.free)
        lists = yield from look.lists(free, self.top_k)
        flips = sorted(draw_flips(state, lists, self.rng, count + look.spared))
        prompts = [state.after(flip) for flip in flips]
        losses = yield from self.block.losses(prompts)
        tried = eligible(losses, self.block.policy.rules.reachable_only)
        if not tried:
            return None, state, 0
        losses = losses[tried]
        (best,) = yield from self.block.top([prompts[i] for i in tried], losses, 1)
        chosen = tried[best]
        after = self.block.state(prompts[chosen], float(losses[best]))
        return flips[chosen], after, len(tried)

    def _go_on_from(
        self, iterates: Sequence[State], pool: Sequence[int]
    ) -> Search[list[int]]:
        """Return which iterates stay in the buffer, best first; the last without one.

        The current iterate is not kept for its own sake [Zou et al. 2023].
        """
        last = len(iterates) - 1
        if not self.buffer_size:
            return [last]
        pool = yield from self._best(iterates, [*pool, last], self.buffer_size)
        return list(pool)

    def _returned(self, iterates: Sequence[State]) -> Search[Ids]:
        (best,) = yield from self._best(iterates, range(len(iterates)), 1)
        return iterates[best].prompt_ids

    def _best(
        self, iterates: Sequence[State], which: Iterable[int], k: int
    ) -> Search[list[int]]:
        """Return the best iterates, a prompt that came up twice once."""
        distinct: dict[bytes, int] = {}
        for i in which:
            distinct.setdefault(iterates[i].prompt_ids.tobytes(), i)
        indices = list(distinct.values())
        prompts = [iterates[i].prompt_ids for i in indices]
        losses = np.array([iterates[i].loss for i in indices])
        best = yield from self.block.top(prompts, losses, k)
        return [indices[i] for i in best]

    def _note(
        self, iterates: Sequence[State], base: int, flip: Flip, verified: int
    ) -> dict[str, Any]:
        best = min if self.block.lowest else max
        kind = "target_loss" if self.block.lowest else "loss"
        return {
            "step": len(iterates) - 1,
            "from": base,
            "position": flip.position,
            "token": flip.token,
            kind: iterates[-1].loss,
            f"best_{kind}": best(state.loss for state in iterates),
            "verified": verified,
            "passes": self.spent.passes,
            "gradients": self.spent.gradients,
        }


def _with_block(
    subject: Subject,
    example: Example,
    options: BlockOptions,
    rng: np.random.Generator,
    *,
    reachable: bool,
) -> Example:
    """Put a prefix or suffix to a prompt, drawn if the options have no text for it.

    If the prompt is to be `reachable`, words are drawn, several times if need be.
    """
    if options.start is not None:
        tokens = np.resize(_encoded(subject, options.start), options.tokens)
        return _inserted(example, options.positions == "prefix", tokens)
    allowed = subject.vocabulary.allowed
    if reachable:
        allowed = subject.vocabulary.words(allowed)
    for _ in range(DRAWS if reachable else 1):
        tokens = rng.choice(allowed, options.tokens)
        found = _inserted(example, options.positions == "prefix", tokens)
        if reachable and subject.reachable([found.prompt_ids])[0]:
            break
    return found


def _inserted(example: Example, first: bool, tokens: Ids) -> Example:
    """Put tokens before or after a prompt; they alone are free in what is returned."""
    prompt = np.asarray(example.prompt_ids)
    before, after = example.protected, example.protected_end
    if first:
        after = len(prompt) - before
    else:
        before = len(prompt) - after
    return replace(
        example,
        prompt_ids=np.insert(prompt, before, tokens),
        protected=before,
        protected_end=after,
    )


def _encoded(subject: Subject, text: str) -> Ids:
    ids = subject.encode(text)
    if not len(ids):
        raise CellError(f"the text {text!r} has no tokens")
    return ids
