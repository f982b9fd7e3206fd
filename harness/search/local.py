"""Flips without gradients: what was tried says what to try next.

Much of a flip's effect is the sum of an effect of its position and one of its token. So
every pass says something of both: positions that raised the loss are drawn more often,
and tokens that worked at one position are tried at the most promising ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from harness.search.flips import Flip, State, draw_flips

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.base import Ids
    from harness.search.flips import Pool
    from harness.subject import Search

EVEN_SHARE = 0.2
"""How often a source or a position is drawn evenly, whatever it paid."""
SHARPNESS = 2.0
"""How much likelier a position becomes by a standard deviation of effects, in nats."""
GOOD_TOKENS = 16
"""How many tokens are tried elsewhere because they paid somewhere."""
PRIOR_TRIES = 1.0
"""How many tries without effect each position and token is taken to have had."""
LEAST_GAIN = 1e-4
"""In nats/token: less is rounding."""
FIRST_GAIN = 0.01
"""In nats/token: what each source is taken to have gained by a first flip."""
TRIES = 20
"""How often flips of a round are drawn until enough are new and permitted."""

Bigrams = Mapping[int, Sequence[int]]
"""The tokens that follow a token in some texts, as often as they do."""


@dataclass
class Effects:
    """What flips of one prompt did, and what others may do by that."""

    flips: list[Flip] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)

    def add(self, flip: Flip, gain: float) -> None:
        """Learn what a flip did to the loss, in nats/token."""
        self.flips.append(flip)
        self.gains.append(gain)

    def fit(
        self, n: int, rounds: int = 6
    ) -> tuple[NDArray[np.float64], dict[int, float]]:
        """Return the effect [n] of each position and that of each token tried.

        They are fitted in turn, and are drawn to zero where there were few tries.
        """
        positions, tokens = np.array(self.flips, dtype=np.int64).reshape(-1, 2).T
        gains = np.array(self.gains) - (np.mean(self.gains) if self.gains else 0.0)
        known, which = np.unique(tokens, return_inverse=True)
        tries = PRIOR_TRIES + np.bincount(positions, minlength=n)
        token_tries = PRIOR_TRIES + np.bincount(which, minlength=len(known))
        of_token = np.zeros(len(known))
        for _ in range(rounds):
            left = gains - of_token[which]
            of_position = np.bincount(positions, left, minlength=n) / tries
            left = gains - of_position[positions]
            of_token = np.bincount(which, left, minlength=len(known)) / token_tries
        return of_position, dict(zip(known.tolist(), of_token.tolist(), strict=True))


@dataclass
class Learner:
    """Verifies flips in rounds, and draws those of a round by what came before."""

    bigrams: Bigrams
    rng: np.random.Generator
    counts: Iterator[int]
    """How many flips to verify at each step."""
    round_size: int
    """How many of them are verified together."""
    _effects: Effects = field(default_factory=Effects)
    _tried: dict[Flip, float] = field(default_factory=dict)
    """What each flip did when it was last tried."""
    _paid: dict[str, list[float]] = field(default_factory=dict)
    """For each source, the sum of its gains and the number of its flips."""

    def __call__(self, pool: Pool) -> Search[None]:
        """Verify the flips of a step."""
        left = next(self.counts)
        while left > 0:
            drawn = self._draw(pool, min(left, self.round_size))
            if not drawn:
                return
            known = len(pool.flips)
            yield from pool.verify(drawn)
            new = slice(known, None)
            for flip, loss in zip(pool.flips[new], pool.losses[new], strict=True):
                self._learn(flip, drawn[flip], float(loss) - pool.state.loss)
            left -= len(drawn)

    def _learn(self, flip: Flip, source: str, gain: float) -> None:
        self._effects.add(flip, gain)
        self._tried[flip] = gain
        total = self._paid.setdefault(source, [0.0, 0.0])
        total[0] += max(gain, 0.0)
        total[1] += 1

    def _draw(self, pool: Pool, count: int) -> dict[Flip, str]:
        """Draw permitted flips that the pool lacks; return where each is from."""
        state, known = pool.state, set(pool.flips)
        sources = self._sources(state)
        names = list(sources)
        chances = self._chances(names)
        found: dict[Flip, str] = {}
        for _ in range(TRIES):
            wanted = count - len(found)
            picked = self.rng.choice(len(names), wanted, p=chances)
            drawn: dict[Flip, str] = {}
            for number in picked:
                flip = next(sources[names[number]], None)
                if flip is not None and flip not in known and flip not in found:
                    drawn[flip] = names[number]
            permitted = set(state.permitted(drawn))
            found |= {flip: name for flip, name in drawn.items() if flip in permitted}
            if len(found) == count:
                break
        return found

    def _chances(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return how likely each source is: by what its flips gained on average."""
        totals = np.array([self._paid.get(name, (0.0, 0.0)) for name in names])
        paid = (totals[:, 0] + FIRST_GAIN) / (totals[:, 1] + 1)
        chances: NDArray[np.float64] = (1 - EVEN_SHARE) * paid / paid.sum()
        return chances + EVEN_SHARE / len(names)

    def _sources(self, state: State) -> dict[str, Iterator[Flip]]:
        """Return the flips that each source offers, those to be tried first first."""
        of_position, of_token = self._effects.fit(len(state.free))
        weights = _weights(state, of_position)
        return {
            "uniform": self._uniform(state, weights),
            "bigram": self._bigram(state, weights),
            "predicted": self._predicted(state, of_position, of_token),
            "remembered": self._remembered(state),
        }

    def _uniform(self, state: State, weights: NDArray[np.float64]) -> Iterator[Flip]:
        allowed = state.policy.subject.vocabulary.allowed
        free = map(int, np.flatnonzero(state.free))
        lists = {i: state.policy.writable(i, allowed) for i in free}
        while True:
            drawn = draw_flips(state, lists, self.rng, self.round_size, weights)
            yield from drawn
            if not drawn:
                return

    def _bigram(self, state: State, weights: NDArray[np.float64]) -> Iterator[Flip]:
        follow: dict[int, list[int]] = {}
        for i in np.flatnonzero(state.free[1:]) + 1:
            tokens = self.bigrams.get(int(state.prompt_ids[i - 1]), ())
            others = [one for one in tokens if one != state.prompt_ids[i]]
            if others:
                follow[int(i)] = others
        positions = list(follow)
        chances = weights[positions]
        while positions:
            drawn = self.rng.choice(len(positions), p=chances / chances.sum())
            position = positions[drawn]
            tokens = follow[position]
            yield Flip(position, tokens[self.rng.integers(len(tokens))])

    def _predicted(
        self,
        state: State,
        of_position: NDArray[np.float64],
        of_token: Mapping[int, float],
    ) -> Iterator[Flip]:
        """Yield flips that were not tried yet, by the sum of both effects."""
        good = sorted(of_token, key=lambda token: (-of_token[token], token))
        flips = [
            Flip(int(i), token)
            for i in np.flatnonzero(state.free)
            for token in good[:GOOD_TOKENS]
            if token != state.prompt_ids[i]
        ]
        promise = {f: of_position[f.position] + of_token[f.token] for f in flips}
        new = [flip for flip in flips if flip not in self._tried]
        return iter(sorted(new, key=lambda flip: (-promise[flip], flip)))

    def _remembered(self, state: State) -> Iterator[Flip]:
        """Yield flips that raised the loss before, best first."""
        paid = [
            (-gain, flip)
            for flip, gain in self._tried.items()
            if gain > LEAST_GAIN and state.free[flip.position]
        ]
        return (flip for _, flip in sorted(paid))


def _weights(state: State, effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how likely each position [n] is drawn: by its effect, in part evenly."""
    free = state.free.astype(np.float64)
    spread = effects.std() or 1.0
    weights = free * np.exp(SHARPNESS * (effects - effects[state.free].max()) / spread)
    even = free / free.sum()
    mixed: NDArray[np.float64] = (
        1 - EVEN_SHARE
    ) * weights / weights.sum() + EVEN_SHARE * even
    return mixed


def bigrams_of(texts: Iterable[Iterable[int]], allowed: Ids) -> Bigrams:
    """Return which allowed tokens follow each token in some texts."""
    writable, found = set(allowed.tolist()), dict[int, list[int]]()
    for text in texts:
        for before, after in pairwise(map(int, text)):
            if after in writable:
                found.setdefault(before, []).append(after)
    return found
