"""The loop that attacks on single tokens share: what they try is all that differs.

An attack explores a prompt by verifying flips in a `Pool`; `flip_search` decides which
of them are kept. So an attack and its random control have the same rule of acceptance,
the same ties and the same trace. Both are generators, which `lockstep` runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from harness.api import Adversarial
from harness.search.policy import FlipPolicy
from harness.search.scheduler import Losses, Search, Spent, Top

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.base import Ids
    from harness.data import Example
    from harness.subject import Subject

TINY = 1e-6
"""Squared distances below this share of the largest squared norm are taken for it:
equal rows of an embedding, up to rounding."""
LOOKED_AT = 4
"""How many times as many flips are looked at where only few may be permitted."""
DRAWS = 20
"""How many times as many flips are drawn, at most, for the same reason."""


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
        (loss,) = yield Losses([prompt], example.reference_ids)
        policy = FlipPolicy.of(subject, example)
        return cls(prompt, float(loss), policy.movable, policy)

    def possible_flips(self, allowed: Ids) -> list[Flip]:
        """Return every flip of a free position to another allowed token."""
        return [
            Flip(int(i), int(token))
            for i in np.flatnonzero(self.free)
            for token in allowed
            if token != self.prompt_ids[i]
        ]

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

    def best_permitted(
        self, scores: Tensor, flip_of: Callable[[int], Flip], count: int
    ) -> list[Flip]:
        """Return the permitted flips of highest score, those at -inf left out.

        `flip_of` turns an index of `scores` [k] into its flip. Rules that only a whole
        prompt can break are looked at for `LOOKED_AT` times as many.
        """
        strict = self.policy.rules.reachable_only
        looked = min(count * (LOOKED_AT if strict else 1), len(scores))
        values, indices = scores.topk(looked)
        flips = [flip_of(int(i)) for i in indices[values > -torch.inf]]
        return self.permitted(flips)[:count]


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
        """Compute the true losses of flips, but of those known or not permitted.

        Those that turn out to be unreachable are left out.
        """
        new = self.state.permitted(sorted(set(flips).difference(self.flips)))
        if not new:
            return
        prompts = [self.state.after(flip) for flip in new]
        only = self.state.policy.rules.reachable_only
        losses = yield Losses(prompts, self.reference_ids, reachable_only=only)
        kept = eligible(losses, only)
        self.flips += [new[i] for i in kept]
        self.prompts += [prompts[i] for i in kept]
        self.losses = np.concatenate([self.losses, losses[kept]])

    def best(self, passed_over: Collection[Flip] = ()) -> Search[Flip | None]:
        """Return the flip of highest loss, some passed over; None if none is left."""
        left = [i for i, flip in enumerate(self.flips) if flip not in passed_over]
        if not left:
            return None
        left.sort(key=self.flips.__getitem__)  # ties break on (position, token)
        prompts = [self.prompts[i] for i in left]
        best: list[int] = yield Top(prompts, self.reference_ids, self.losses[left], 1)
        return self.flips[left[best[0]]]

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
    restarts: int = 1,
    stop_on_success: float | None = None,
) -> Search[Adversarial]:
    """Flip up to `flips` distinct positions, a step each, so that the loss rises.

    Each step explores every state of the beam and keeps the best `beam_width` among
    what was found and the states themselves: with a width of 1, a flip is accepted if
    it improves. The best of `restarts` tries is returned, each from the clean prompt.
    With `stop_on_success`, stop once exp(dL) > 1 + that. The steps of the trace say how
    many passes and gradients were spent until their flip was chosen, tries before their
    own included.
    """
    spent = Spent()
    clean = yield from spent.count(State.clean(subject, example))
    found: list[State] = []
    for _ in range(restarts):
        beam, succeeded = [clean], False
        for _ in range(flips):
            beam = yield from _step(subject, example, explore, beam, beam_width, spent)
            succeeded = stop_on_success is not None and _succeeded(
                subject, example, beam[0], stop_on_success
            )
            if succeeded:
                break
        found.append(beam[0])
        if succeeded:
            break
    if len(found) > 1:
        found = yield from _best_states(example, _distinct(found), 1)
    return Adversarial(example.id, found[0].prompt_ids, found[0].trace)


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
    return (yield from _best_states(example, _distinct(reached), width))


def draw_flips(
    state: State,
    allowed: Ids,
    rng: np.random.Generator,
    count: int,
    weights: NDArray[np.float64] | None = None,
) -> list[Flip]:
    """Draw `count` distinct flips, each other token equally likely.

    Positions are equally likely too, or by `weights` [n], which are positive where the
    state is free and zero elsewhere. Where there are no more than `count` flips, all
    of them are returned. Under rules about flips, only permitted ones are drawn.
    """
    if state.policy.rules.limit_flips:
        return _draw_permitted(state, allowed, rng, count, weights)
    possible = int(state.free.sum()) * len(allowed)
    if possible <= count:
        return state.possible_flips(allowed)
    chances = state.free / state.free.sum() if weights is None else weights
    drawn: dict[Flip, None] = {}
    while len(drawn) < min(count, possible - int(state.free.sum())):
        positions = rng.choice(len(chances), count, p=chances)
        for position, token in zip(positions, rng.choice(allowed, count), strict=True):
            if token != state.prompt_ids[position]:
                drawn[Flip(int(position), int(token))] = None
    return list(drawn)[:count]


def _draw_permitted(
    state: State,
    allowed: Ids,
    rng: np.random.Generator,
    count: int,
    weights: NDArray[np.float64] | None,
) -> list[Flip]:
    """Draw as `draw_flips` does, each permitted token of a position equally likely.

    Fewer come back where so few are permitted that `DRAWS` times as many draws do not
    find them.
    """
    choices = {
        int(i): _without(state.policy.writable(int(i), allowed), state.prompt_ids[i])
        for i in np.flatnonzero(state.free)
    }
    chances = np.zeros(len(state.free))
    for position, tokens in choices.items():
        chances[position] = bool(len(tokens))
    chances *= 1.0 if weights is None else weights
    possible = sum(len(tokens) for tokens in choices.values())
    if possible <= count or not chances.sum():
        every = (Flip(i, int(t)) for i, tokens in choices.items() for t in tokens)
        return state.permitted(every)
    chances /= chances.sum()
    seen: set[Flip] = set()
    found: list[Flip] = []
    for _ in range(DRAWS):
        positions = rng.choice(len(chances), count, p=chances).tolist()
        drawn = [Flip(i, int(rng.choice(choices[i]))) for i in positions]
        new = [flip for flip in dict.fromkeys(drawn) if flip not in seen]
        seen.update(new)
        found += state.permitted(new)
        if len(found) >= count or len(seen) >= possible:
            break
    return found[:count]


def _without(tokens: Ids, token: int) -> Ids:
    others: Ids = tokens[tokens != token]
    return others


def gains_for_distance(subject: Subject, token: int, gradient: Tensor) -> Tensor:
    """Return the `scaled_gains` [V] at one token, for the gradient [d] there."""
    return scaled_gains(subject, np.array([token]), gradient[None])[0]


def scaled_gains(subject: Subject, tokens: Ids, gradient: Tensor) -> Tensor:
    """Return the first-order gain [n, V] of each token for its squared distance.

    `gradient` [n, d] is that at the embeddings of `tokens` [n]. A gain is first-order:
    the farther a token is, the less it says. Dividing by the squared distance prefers
    what is near enough; it is -inf where `Subject.gains` is.
    """
    rows = subject.embedding
    index = torch.as_tensor(tokens, device=rows.device)
    squares = subject.squared_norms
    distances = squares + squares[index][:, None] - 2 * rows[index] @ rows.T
    return subject.gains(tokens, gradient) / distances.clamp(min=TINY * squares.max())


def eligible(losses: NDArray[np.float64], reachable_only: bool) -> list[int]:
    """Return the indices of what may be chosen: NaN says that a prompt may not."""
    found = np.isfinite(losses) if reachable_only else np.ones(len(losses), np.bool_)
    return [int(i) for i in np.flatnonzero(found)]


def ranks(values: NDArray[np.float64]) -> list[int]:
    """Return the rank of each value, 1 for the highest; ties share the best rank."""
    ascending = np.sort(values)
    above = len(values) - np.searchsorted(ascending, values, side="right")
    return [int(rank) + 1 for rank in above]


def _best_states(
    example: Example, states: Sequence[State], width: int
) -> Search[list[State]]:
    prompts = [state.prompt_ids for state in states]
    losses = np.array([state.loss for state in states])
    kept: list[int] = yield Top(prompts, example.reference_ids, losses, width)
    return [states[i] for i in kept]


def _distinct(states: Iterable[State]) -> list[State]:
    """Keep the first of states with equal prompts: two orders of the same flips."""
    by_prompt: dict[bytes, State] = {}
    for state in states:
        by_prompt.setdefault(state.prompt_ids.tobytes(), state)
    return list(by_prompt.values())


def _succeeded(
    subject: Subject, example: Example, state: State, threshold: float
) -> bool:
    clean, attacked = subject.exact_losses(
        [example.prompt_ids, state.prompt_ids], example.reference_ids
    )
    return bool(attacked - clean > np.log1p(threshold))
