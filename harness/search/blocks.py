"""The loop that attacks on a block of tokens share: any of them may change, any time.

A step verifies candidates that differ from an iterate in one token and moves to the
best of them; the best iterate of all is what comes out [Zou et al. 2023]. What is tried
is all that differs between an attack and its random control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import Adversarial, BlockBudget
from harness.base import CellError
from harness.search.flips import Flip, State, eligible, ranks
from harness.search.policy import FlipPolicy
from harness.search.scheduler import Losses, Search, Spent, Top

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.base import Ids
    from harness.data import Example
    from harness.subject import Subject


PROBES = 1 / 16
"""Which share of the candidates both models score, where there is a draft model."""
KEPT_AT_MOST = 1 / 8
"""Which share of the candidates is verified on the draft's word, if it says nothing."""
ROUNDS = 8
"""How often candidates are drawn until enough of them are permitted."""


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
        layout: BlockBudget,
        rng: np.random.Generator,
    ) -> Block:
        """Put a block into an example's prompt, or let the prompt be the block.

        Rules that compare a prompt with the clean one say nothing of tokens that are
        put before or after it.
        """
        rules = subject.vocabulary.rules
        if layout.reachable_only:
            rules = replace(rules, reachable_only=True)
        if layout.positions != "prompt":
            example = _with_block(
                subject, example, layout, rng, reachable=rules.reachable_only
            )
            rules = replace(
                rules, keep_stop_words=False, min_cosine=None, max_changed=None
            )
        target, reference = layout.target, example.reference_ids
        if target is not None:
            reference = _encoded(subject, target)
        policy = FlipPolicy.of(subject, example, rules)
        if layout.flips is not None:
            most = min(policy.most_changed, layout.flips)
            policy = replace(policy, most_changed=most)
        return cls(example.prompt_ids, reference, policy, lowest=target is not None)

    def state(self, prompt: Ids, loss: float) -> State:
        """Return an iterate."""
        return State(prompt, loss, self.policy.movable_after(prompt), self.policy)


Propose = Callable[[State, int], "Search[list[Flip]]"]
"""Draw flips of a state, so many of them; called again if too few are permitted."""


@dataclass
class BlockSearch:
    """Changes a token of a block at each step, so that the loss rises or falls."""

    subject: Subject
    block: Block
    layout: BlockBudget
    propose: Propose
    counts: Iterable[int]
    """How many candidates to verify at each step."""
    rng: np.random.Generator
    draft: Subject | None = None
    """Says by its own losses which candidates are worth a pass."""
    spent: Spent = field(default_factory=Spent)

    def run(self, example_id: str) -> Search[Adversarial]:
        """Return the best iterate, and a step of the trace for each iterate.

        A step says from which other it starts (``from``, 0 for the start), what was
        written where, the loss then, and the best loss until then; with a target,
        ``target_loss`` and ``best_target_loss``.
        """
        start = self.block.prompt_ids
        (loss,) = yield from self.spent.count(_losses(self.block, [start]))
        iterates = [self.block.state(start, float(loss))]
        trace: list[Mapping[str, Any]] = []
        pool = [0]
        for count in self.counts:
            base = pool[0]
            step = self.spent.count(self._step(iterates[base], count))
            flip, state, verified = yield from step
            if flip is None:
                continue
            iterates.append(state)
            trace.append(self._note(iterates, base, flip, verified))
            pool = yield from self._go_on_from(iterates, pool)
        (best,) = yield from self._best(iterates, range(len(iterates)), 1)
        return Adversarial(example_id, iterates[best].prompt_ids, trace)

    def _step(self, state: State, count: int) -> Search[tuple[Flip | None, State, int]]:
        """Return the best flip of those tried, what it leads to, and how many were."""
        flips = yield from self._candidates(state, count)
        if not flips:
            return None, state, 0
        prompts = [state.after(flip) for flip in flips]
        tried, losses = yield from self._scored(prompts)
        if not tried:
            return None, state, 0
        best: list[int] = yield Top(
            [prompts[i] for i in tried],
            self.block.reference_ids,
            losses,
            1,
            lowest=self.block.lowest,
        )
        chosen = tried[best[0]]
        after = self.block.state(prompts[chosen], float(losses[best[0]]))
        return flips[chosen], after, len(tried)

    def _candidates(self, state: State, count: int) -> Search[list[Flip]]:
        """Return permitted flips, by (position, token)."""
        known: set[Flip] = set()
        kept: list[Flip] = []
        for _ in range(ROUNDS):
            drawn = yield from self.propose(state, count)
            new = [flip for flip in drawn if flip not in known]
            known.update(new)
            kept += state.permitted(new)
            if len(kept) >= count or not new or not state.policy.rules.limit_flips:
                break
        return sorted(kept[:count])

    def _scored(
        self, prompts: Sequence[Ids]
    ) -> Search[tuple[list[int], NDArray[np.float64]]]:
        """Return which prompts were verified, and their losses."""
        only = self.block.policy.rules.reachable_only
        by = self.draft if len(prompts) >= 1 / PROBES else None
        losses = yield from _losses(self.block, prompts, by, reachable_only=only)
        kept = eligible(losses, only)
        if by is None:
            return kept, losses[kept]
        tried, losses = yield from self._probed(
            [prompts[i] for i in kept], losses[kept]
        )
        return [kept[i] for i in tried], losses

    def _probed(
        self, prompts: Sequence[Ids], drafted: NDArray[np.float64]
    ) -> Search[tuple[list[int], NDArray[np.float64]]]:
        """Verify what the draft model finds best, the fewer the more it is right."""
        count = min(len(prompts), max(2, round(PROBES * len(prompts))))
        if count < 2:
            losses = yield from _losses(self.block, prompts)
            return list(range(len(prompts))), losses
        probes = self.rng.choice(len(prompts), count, replace=False).tolist()
        probed = yield from _losses(self.block, [prompts[i] for i in probes])
        share = (1 - agreement(probed, drafted[probes])) * KEPT_AT_MOST
        kept: list[int] = yield Top(
            prompts,
            self.block.reference_ids,
            drafted,
            max(1, int(share * len(prompts))),
            lowest=self.block.lowest,
            by=self.draft,
        )
        rest = sorted(set(kept).difference(probes))
        more = yield from _losses(self.block, [prompts[i] for i in rest])
        tried, losses = [*probes, *rest], np.concatenate([probed, more])
        order = np.argsort(tried)  # so that ties go by position and token
        return [tried[i] for i in order], losses[order]

    def _go_on_from(
        self, iterates: Sequence[State], pool: Sequence[int]
    ) -> Search[list[int]]:
        """Return which iterates stay in the buffer, best first; the last without one.

        The current iterate is not kept for its own sake [Zou et al. 2023].
        """
        last = len(iterates) - 1
        if not self.layout.buffer_size:
            return [last]
        pool = yield from self._best(iterates, [*pool, last], self.layout.buffer_size)
        return list(pool)

    def _best(
        self, iterates: Sequence[State], which: Iterable[int], k: int
    ) -> Search[list[int]]:
        """Return the best iterates, a prompt that came up twice once."""
        distinct: dict[bytes, int] = {}
        for i in which:
            distinct.setdefault(iterates[i].prompt_ids.tobytes(), i)
        indices = list(distinct.values())
        best: list[int] = yield Top(
            [iterates[i].prompt_ids for i in indices],
            self.block.reference_ids,
            np.array([iterates[i].loss for i in indices]),
            k,
            lowest=self.block.lowest,
        )
        return [indices[i] for i in best]

    def _note(
        self, iterates: Sequence[State], base: int, flip: Flip, verified: int
    ) -> dict[str, Any]:
        best = min if self.block.lowest else max
        kind = "target_loss" if self.block.lowest else "loss"
        drafts = {"draft_passes": self.spent.draft_passes} if self.draft else {}
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
            **drafts,
        }


def agreement(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return how far two rankings agree: 1 fully, 0 where they are opposite.

    It is ``(1 + rho) / 2`` for Spearman's rho, as in probe sampling [Zhao et al. 2024].
    """
    n = len(one)
    differences = np.subtract(ranks(one), ranks(other))
    return float(1 - 3 * np.square(differences).sum() / (n * (n**2 - 1)))


def draw_from_lists(
    lists: Mapping[int, Sequence[int]], rng: np.random.Generator, count: int
) -> list[Flip]:
    """Draw `count` distinct flips: a uniform position, a uniform token of its list.

    Where there are no more than `count`, all of them are returned.
    """
    lists = {position: tokens for position, tokens in lists.items() if len(tokens)}
    if sum(map(len, lists.values())) <= count:
        return [Flip(i, int(token)) for i, tokens in lists.items() for token in tokens]
    positions = list(lists)
    drawn: dict[Flip, None] = {}
    while len(drawn) < count:
        rows = rng.integers(len(positions), size=count)
        for row, place in zip(rows, rng.random(count), strict=True):
            position = positions[row]
            tokens = lists[position]
            drawn[Flip(position, int(tokens[int(place * len(tokens))]))] = None
    return list(drawn)[:count]


def _losses(
    block: Block,
    prompts: Sequence[Ids],
    by: Subject | None = None,
    *,
    reachable_only: bool = False,
) -> Search[NDArray[np.float64]]:
    losses: NDArray[np.float64] = yield Losses(
        prompts, block.reference_ids, by, reachable_only
    )
    return losses


def _with_block(
    subject: Subject,
    example: Example,
    layout: BlockBudget,
    rng: np.random.Generator,
    *,
    reachable: bool,
) -> Example:
    """Put a prefix or suffix to a prompt, drawn if the layout has no text for it.

    If the prompt is to be `reachable`, words are drawn, several times if need be.
    """
    if layout.start is not None:
        tokens = np.resize(_encoded(subject, layout.start), layout.tokens)
        return _inserted(example, layout.positions == "prefix", tokens)
    allowed = subject.vocabulary.allowed
    if reachable:
        allowed = subject.vocabulary.words(allowed)
    for _ in range(ROUNDS if reachable else 1):
        tokens = rng.choice(allowed, layout.tokens)
        found = _inserted(example, layout.positions == "prefix", tokens)
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
