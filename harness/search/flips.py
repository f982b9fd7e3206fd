"""Flip single tokens, a position at most once each.

An attack explores a prompt by verifying flips in a `Pool`; `flip_search` decides which
of them are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.api import Adversarial
from harness.search.course import Course
from harness.search.policy import FlipPolicy
from harness.search.spent import Spent
from harness.subject import Ask, Request, Search

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.base import Ids
    from harness.data import Example
    from harness.subject import Subject

DRAWS = 20
"""How often flips are drawn, at most, until enough are distinct and permitted."""


class Flip(NamedTuple):
    """One token written over another."""

    position: int
    token: int


@dataclass(frozen=True)
class State:
    """A prompt on its way."""

    prompt_ids: Ids
    loss: float
    """In nats/token, in the precision of the search."""
    free: NDArray[np.bool_]
    """Which positions [n] may still change: neither protected nor flipped before."""
    policy: FlipPolicy
    """The suite's rules about flips, applied to the clean prompt."""
    trace: tuple[Mapping[str, Any], ...] = ()
    """The flips that led here."""

    @classmethod
    def clean(cls, subject: Subject, example: Example) -> Search[State]:
        """Start from the prompt as it is; costs one forward pass."""
        prompt = np.asarray(example.prompt_ids)
        (loss,) = yield Request(Ask.LOSSES, [(prompt, example.reference_ids)])
        policy = FlipPolicy.of(subject, example)
        return cls(prompt, float(loss), policy.movable, policy)

    def has(self, flip: Flip) -> bool:
        """Return whether the token of a flip stands there already."""
        return bool(self.prompt_ids[flip.position] == flip.token)

    def after(self, flip: Flip) -> Ids:
        """Return the prompt with one flip made."""
        prompt: Ids = self.prompt_ids.copy()
        prompt[flip.position] = flip.token
        return prompt

    def permitted(self, flips: Iterable[Flip]) -> list[Flip]:
        """Leave out the flips after which the prompt would break the suite's rules."""
        flips = list(flips)
        if not self.policy.rules.limit_flips:
            return flips
        prompts = [self.after(flip) for flip in flips]
        kept = self.policy.permits(prompts, since=self.prompt_ids)
        return [flip for flip, allowed in zip(flips, kept, strict=True) if allowed]


@dataclass
class Pool:
    """The flips of one state that were verified by a forward pass, and their losses."""

    subject: Subject
    state: State
    reference_ids: Ids
    flips: list[Flip] = field(default_factory=list)
    prompts: list[Ids] = field(default_factory=list)
    losses: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """True losses, in nats/token, in the order of `flips`."""
    gains: NDArray[np.float64] | None = None
    """First-order gains in the order of `flips`, where the attack has any."""

    def verify(self, flips: Iterable[Flip]) -> Search[None]:
        """Compute the true losses of flips, except those verified or not permitted.

        Those that turn out to be unreachable are left out.
        """
        new = self.state.permitted(sorted(set(flips).difference(self.flips)))
        if not new:
            return
        prompts = [self.state.after(flip) for flip in new]
        only = self.state.policy.rules.reachable_only
        ask = Ask.REACHABLE_LOSSES if only else Ask.LOSSES
        losses = yield Request(ask, [(one, self.reference_ids) for one in prompts])
        kept = eligible(losses, only)
        self.flips += [new[i] for i in kept]
        self.prompts += [prompts[i] for i in kept]
        self.losses = np.concatenate([self.losses, losses[kept]])

    def states(self, spent: Spent) -> list[State]:
        """Return what each verified flip leads to, by (position, token)."""
        notes = self._notes()
        order = sorted(range(len(self.flips)), key=self.flips.__getitem__)
        return [self._state(i, notes[i], spent) for i in order]

    def _state(self, i: int, notes: Mapping[str, Any], spent: Spent) -> State:
        flip, state = self.flips[i], self.state
        free = state.free & state.policy.movable_after(self.prompts[i])
        free[flip.position] = False
        step = {
            "step": len(state.trace) + 1,
            "position": flip.position,
            "token": flip.token,
            "loss": float(self.losses[i]),
            "verified": len(self.flips),
            "passes": spent.passes,
            "gradients": spent.gradients,
            **notes,
        }
        trace = (*state.trace, step)
        loss = float(self.losses[i])
        return State(self.prompts[i], loss, free, state.policy, trace)

    def _notes(self) -> list[dict[str, Any]]:
        """Rank the flips by true loss and, where known, by first-order gain."""
        notes: list[dict[str, Any]] = [{"loss_rank": r} for r in ranks(self.losses)]
        if self.gains is not None:
            for note, gain, rank in zip(
                notes, self.gains, ranks(self.gains), strict=True
            ):
                note["gain"] = float(gain) if np.isfinite(gain) else None
                note["gain_rank"] = rank
        return notes


Explore = Callable[[Pool], Search[None]]
"""Verifies flips of the pool's state, in the pool."""


def flip_search(
    subject: Subject,
    example: Example,
    explore: Explore,
    *,
    flips: int,
    beam_width: int = 1,
    stop_on_success: float | None = None,
    searches: int = 1,
    checkpoints: Sequence[float] = (),
) -> Search[Adversarial]:
    """Flip up to `flips` distinct positions, a step each, so that the loss rises.

    Each step explores every state of the beam and keeps the best `beam_width` among
    what was found and the states themselves: with a width of 1, a flip is accepted if
    it improves. With `stop_on_success`, stop once exp(dL) > 1 + that. So many
    `searches` begin at the clean prompt, one after another; the best prompt is
    returned, and at each of the `checkpoints`, shares of all steps, the best until
    then is kept. The steps of the trace say how many passes and gradients were spent
    until their flip was chosen.
    """
    spent, enough = Spent(), Success(subject, example, stop_on_success)
    clean = yield from spent.count(State.clean(subject, example))
    course: Course[Ids] = Course(checkpoints, searches * flips)
    course.note(0, clean.prompt_ids)
    best, rivals = clean, list[State]()
    for step in range(searches * flips):
        if step % flips == 0:
            rivals, beam = [best] if step else [], [clean]
        beam = yield from _step(subject, example, explore, beam, beam_width, spent)
        best = beam[0]
        if rivals:
            [best] = yield from _best_states(subject, example, [*rivals, best], 1)
        course.note(step + 1, best.prompt_ids)
        if enough(best.prompt_ids):
            break
    return Adversarial(example.id, best.prompt_ids, best.trace, course.held)


def _step(
    subject: Subject,
    example: Example,
    explore: Explore,
    beam: Sequence[State],
    width: int,
    spent: Spent,
) -> Search[list[State]]:
    """Explore every state of a beam; return the best of what was found."""
    free = [state for state in beam if state.free.any()]
    pools = [Pool(subject, state, example.reference_ids) for state in free]
    for pool in pools:
        yield from spent.count(explore(pool))
    # The beam comes first, so that a tie changes nothing.
    reached = [*beam, *(state for pool in pools for state in pool.states(spent))]
    return (yield from _best_states(subject, example, reached, width))


def _best_states(
    subject: Subject, example: Example, states: Iterable[State], width: int
) -> Search[list[State]]:
    """Return the best of some states, best first, a prompt that came up twice once."""
    distinct = _distinct(states)
    prompts = [state.prompt_ids for state in distinct]
    losses = np.array([state.loss for state in distinct])
    kept = subject.choice(prompts, example.reference_ids, losses, width)
    return [distinct[i] for i in (yield from kept)]


def shares(total: int, parts: int) -> list[int]:
    """Split a number into so many that differ by 1 at most."""
    ends = [total * i // parts for i in range(parts + 1)]
    return [after - before for before, after in pairwise(ends)]


def draw_flips(
    state: State,
    lists: Mapping[int, Ids],
    rng: np.random.Generator,
    count: int,
    weights: NDArray[np.float64] | None = None,
) -> list[Flip]:
    """Draw `count` distinct permitted flips to tokens that do not stand there yet.

    A position of `lists`, each equally likely or by `weights` [n], and then a token of
    its list, each equally likely. Where there are no more than `count` flips, all come
    back; fewer, where `DRAWS` times as many draws do not find enough.
    """
    lists = {i: tokens for i, tokens in lists.items() if len(tokens)}
    if sum(map(len, lists.values())) <= count + len(lists):
        every = [Flip(i, int(t)) for i, tokens in lists.items() for t in tokens]
        every = [flip for flip in every if not state.has(flip)]
        if len(every) <= count:
            return state.permitted(every)
    positions = np.array(list(lists))
    chances = np.ones(len(positions)) if weights is None else weights[positions]
    chances = chances / chances.sum()
    seen: set[Flip] = set()
    found: list[Flip] = []
    for _ in range(DRAWS):
        rows = rng.choice(positions, count, p=chances).tolist()
        places = rng.random(count).tolist()
        drawn = (
            Flip(i, int(lists[i][int(place * len(lists[i]))]))
            for i, place in zip(rows, places, strict=True)
        )
        new = [f for f in dict.fromkeys(drawn) if f not in seen and not state.has(f)]
        seen.update(new)
        found += state.permitted(new)
        if len(found) >= count:
            break
    return found[:count]


def eligible(losses: NDArray[np.float64], reachable_only: bool) -> list[int]:
    """Return the indices of what may be chosen: NaN says that a prompt may not."""
    found = np.isfinite(losses) if reachable_only else np.ones(len(losses), np.bool_)
    return [int(i) for i in np.flatnonzero(found)]


def ranks(values: NDArray[np.float64]) -> list[int]:
    """Return the rank of each value, 1 for the highest; ties share the best rank."""
    ascending = np.sort(values)
    above = len(values) - np.searchsorted(ascending, values, side="right")
    return [int(rank) + 1 for rank in above]


def _distinct(states: Iterable[State]) -> list[State]:
    """Keep the first of states with equal prompts: two orders of the same flips."""
    by_prompt: dict[bytes, State] = {}
    for state in states:
        by_prompt.setdefault(state.prompt_ids.tobytes(), state)
    return list(by_prompt.values())


@dataclass
class Success:
    """Says of prompts whether they suffice; each costs a pass, and the clean one once.

    These passes are in the ledger, but not among those that a search has `Spent`.
    """

    subject: Subject
    example: Example
    threshold: float | None
    """The perplexity has to rise by more than this share; None is never reached."""

    def __call__(self, prompt: Ids) -> bool:
        """Return whether exp(dL) of a prompt is above 1 + `threshold`."""
        if self.threshold is None:
            return False
        return bool(self._exact(prompt) - self._clean > np.log1p(self.threshold))

    @cached_property
    def _clean(self) -> float:
        return self._exact(self.example.prompt_ids)

    def _exact(self, prompt: Ids) -> float:
        losses = self.subject.exact_losses([prompt], self.example.reference_ids)
        return float(losses[0])
