"""HotFlip: token flips proposed by gradients, verified by forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import pydantic

from harness import hookimpl
from harness.api import Adversarial, Attack, AttackContext, Budget, Options
from harness.base import Positive
from harness.data import Example, ExampleSets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.base import Ids
    from harness.search import Flip, Pool, Search, State
    from harness.subject import Subject

DRAWN_SHARE = 1 / 3
"""How much of the candidates is drawn where they are refined; the rest refines them."""
UNIFORM_SHARE = 0.1
"""How often a position is drawn uniformly, whatever its gradient says."""


class HotFlipOptions(Options):
    """Options of HotFlip."""

    flips: Positive = 5
    """How many positions may change, distinct ones."""
    candidates: Positive = 64
    """Flips of one prompt that are verified by a forward pass for each flip made."""
    beam_width: Positive = 1
    """Prompts kept after each flip; 1 is greedy."""
    candidates_from: Literal["refined", "gradient"] = "refined"
    """`gradient` is the textbook: the flips of highest first-order gain. `refined`
    draws a third of the candidates, positions in proportion to the squared gradient,
    and then follows the gradient at the best flip so far to better tokens."""
    refinements: Annotated[int, pydantic.Field(ge=0)] = 4
    """Gradients taken at flips, for each flip made; only where `refined`."""
    restarts: Positive = 1
    """Tries from the clean prompt, each with draws of its own; the best is kept."""
    stop_on_success: Annotated[float, pydantic.Field(gt=0)] | None = None
    """If set, stop once exp(dL) > 1 + this; by default all flips are made."""

    @pydantic.model_validator(mode="after")
    def _restarts_draw(self) -> HotFlipOptions:
        if self.restarts > 1 and self.candidates_from == "gradient":
            raise ValueError(
                "restarts would all be the same, as `gradient` draws nothing"
            )
        return self


class HotFlip(Attack[HotFlipOptions]):
    """Flips the tokens that raise the loss most, one position after another.

    The first-order gain of writing b over a at position i is ``(E_b - E_a)^T g_i``
    [Ebrahimi et al. 2018]. Taken at the clean token it says little of so long a step,
    so candidates are `refined` by default: of the verified flips, the best is where
    the gradient is taken next, and the tokens of highest gain for the squared distance
    from it are verified at its position. Each flip is followed up once at most.
    """

    name = "hotflip"
    Options = HotFlipOptions
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
        expansions = 1 + (options.flips - 1) * options.beam_width
        expansions *= options.restarts
        gradients = expansions * (1 + self._refinements)
        return Budget(
            forward=1 + expansions * options.candidates + gradients,
            backward=gradients,
            flips=options.flips,
        )

    def unbounded(self, prompt_tokens: int) -> HotFlipOptions | None:
        return self.options.model_copy(update={"flips": prompt_tokens})

    def longer(self) -> HotFlipOptions | None:
        if self.options.candidates_from == "gradient":
            return None
        return self.options.model_copy(update={"restarts": 2 * self.options.restarts})

    def _attack(
        self, subject: Subject, example: Example, rng: np.random.Generator
    ) -> Search[Adversarial]:
        from harness.search import flip_search

        return flip_search(
            subject,
            example,
            _Explorer(self.options, self._refinements, rng),
            flips=self.options.flips,
            beam_width=self.options.beam_width,
            restarts=self.options.restarts,
            stop_on_success=self.options.stop_on_success,
        )

    @property
    def _refinements(self) -> int:
        """How many gradients at flips are taken: each has a candidate at least."""
        if self.options.candidates_from == "gradient":
            return 0
        return min(self.options.refinements, self.options.candidates - 1)


@dataclass(frozen=True)
class _Explorer:
    """Verifies candidates for the next flip of a prompt."""

    options: HotFlipOptions
    refinements: int
    rng: np.random.Generator

    def __call__(self, pool: Pool) -> Search[None]:
        gradient = yield from self._gradient(pool, pool.state.prompt_ids)
        if self.options.candidates_from == "gradient":
            yield from pool.verify(_top_flips(pool, gradient, self.options.candidates))
        else:
            yield from self._draw_and_refine(pool, gradient)
        pool.gains = _gains(pool, gradient)

    def _draw_and_refine(self, pool: Pool, gradient: Tensor) -> Search[None]:
        drawn, *refined = _shares(self.options.candidates, self.refinements)
        yield from pool.verify(self._drawn(pool, gradient, drawn))
        followed: set[Flip] = set()
        for count in refined:
            flip = yield from pool.best(passed_over=followed)
            if flip is not None:
                followed.add(flip)
                better = yield from self._refined(pool, flip, count)
                yield from pool.verify(better)

    def _drawn(self, pool: Pool, gradient: Tensor, count: int) -> list[Flip]:
        """Draw positions by squared gradient norm, tokens uniformly."""
        from harness.search import draw_flips

        weights = _position_weights(gradient, pool.state)
        allowed = pool.subject.vocabulary.allowed
        return draw_flips(pool.state, allowed, self.rng, count, weights)

    def _refined(self, pool: Pool, flip: Flip, count: int) -> Search[list[Flip]]:
        """Return better tokens for a flip's position, by the gradient at the flip."""
        import torch

        from harness.search import Flip, gains_for_distance

        gradient = yield from self._gradient(pool, pool.state.after(flip))
        own = gradient[flip.position]
        gains = gains_for_distance(pool.subject, flip.token, own)
        verified = [f.token for f in pool.flips if f.position == flip.position]
        gains[[*verified, pool.state.prompt_ids[flip.position]]] = -torch.inf
        pool.state.policy.forbid(gains[None], [flip.position])
        return pool.state.best_permitted(
            gains, lambda token: Flip(flip.position, token), count
        )

    def _gradient(self, pool: Pool, prompt: Ids) -> Search[Tensor]:
        from harness.search import Gradients

        gradient: Tensor
        (gradient,) = yield Gradients([prompt], pool.reference_ids)
        return gradient


def _shares(candidates: int, refinements: int) -> list[int]:
    """Split the candidates: how many are drawn, and how many each refinement adds."""
    if not refinements:
        return [candidates]
    each = max(1, int((1 - DRAWN_SHARE) * candidates) // refinements)
    return [candidates - refinements * each, *[each] * refinements]


def _position_weights(gradient: Tensor, state: State) -> NDArray[np.float64]:
    """Return the chance [n] of each position: by squared gradient, in part uniform."""
    import numpy as np

    squares = gradient.double().square().sum(dim=1).cpu().numpy()
    squares = np.nan_to_num(squares, posinf=0) * state.free
    uniform = state.free / state.free.sum()
    if not squares.sum():
        return uniform
    return (1 - UNIFORM_SHARE) * squares / squares.sum() + UNIFORM_SHARE * uniform


def _top_flips(pool: Pool, gradient: Tensor, count: int) -> list[Flip]:
    """Return the flips of free positions of highest first-order gain."""
    import torch

    from harness.search import Flip

    gains = pool.subject.gains(pool.state.prompt_ids, gradient)
    gains[torch.from_numpy(~pool.state.free).to(gains.device)] = -torch.inf
    pool.state.policy.forbid(gains)
    return pool.state.best_permitted(
        gains.flatten(), lambda i: Flip(*divmod(i, gains.shape[1])), count
    )


def _gains(pool: Pool, gradient: Tensor) -> NDArray[np.float64]:
    """Return the first-order gain of every verified flip, from the state's gradient."""
    import numpy as np
    import torch

    positions, tokens = np.array(pool.flips, dtype=np.int64).reshape(-1, 2).T
    written = torch.from_numpy(np.stack([tokens, pool.state.prompt_ids[positions]]))
    new, old = pool.subject.embedding[written.to(gradient.device)]
    gains = ((new - old) * gradient[positions]).sum(dim=1)
    return gains.double().cpu().numpy()


@hookimpl
def register_attacks() -> list[type[HotFlip]]:
    """Offer the attack."""
    return [HotFlip]
