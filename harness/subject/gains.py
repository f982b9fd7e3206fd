"""What a gradient says of writing other tokens: the gain of each, to first order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.base import Ids
from harness.subject.scheduler import Place, Ranked, Slopes
from harness.subject.transfer import fetched, filled, sent

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

TINY = 1e-6
"""Squared distances below this share of the largest squared norm are taken for it:
equal rows of an embedding, up to rounding."""
PLACES = {"cpu": 8, "cuda": 64}
"""How many places are looked at together, whoever asks: so what is said of one depends
on nothing but itself."""
SLOPES = {"cuda": 1024}
"""Of how many tokens slopes are measured together; on a CPU each is measured alone."""


class Gains:
    """The gains of tokens, by the output of the embedding module for each of them."""

    def __init__(self, embedding: Tensor, forbidden: Tensor) -> None:
        """Take the output [V, d], and a mask [V] of the ids that are not allowed."""
        self._embedding, self._forbidden = embedding, forbidden

    def of(self, current: Tensor, slopes: Tensor, *, scaled: bool = False) -> Tensor:
        """Return the gain [n, V] of writing each token over a current one [n].

        `slopes` [n, d] are the gradient there; see `Subject.gains`.
        """
        rows, index = self._embedding, current[:, None]
        # In one product: a CPU reads the rows for longer than it multiplies them.
        read = torch.cat([slopes, rows[current]]) if scaled else slopes
        gains, *products = torch.split(read @ rows.T, len(slopes))
        gains -= gains.gather(1, index)
        if scaled:
            squares = self._squares
            distances = squares + squares[index] - 2 * products[0]
            # Not by `clamp`, which would wait for the bound.
            gains /= torch.maximum(distances, TINY * squares.max())
        gains.masked_fill_(self._forbidden, -torch.inf)
        return gains.scatter_(1, index, -torch.inf)

    def best(self, places: Sequence[Place]) -> Callable[[], list[Ids]]:
        """Look for the ids of highest gain at each place, best first.

        Returns what waits for them.
        """
        kinds: dict[tuple[int, bool], list[int]] = {}
        for i, place in enumerate(places):
            kinds.setdefault((place.k, place.scaled), []).append(i)
        asked = [
            (own, fetched(self._best([places[i] for i in own], *kind)))
            for kind, own in kinds.items()
        ]

        def fetch() -> list[Ids]:
            found = {
                i: row[row >= 0]
                for own, ids in asked
                for i, row in zip(own, ids(), strict=True)
            }
            return [found[i] for i in range(len(places))]

        return fetch

    def flips(self, prompts: Sequence[Slopes]) -> Callable[[], list[Ranked]]:
        """Look for the flips of highest gain of each prompt, best first.

        Returns what waits for them. Each prompt is looked at by itself.
        """
        device = self._embedding.device
        tokens, positions = sent(
            device,
            np.concatenate([prompt.tokens for prompt in prompts]),
            np.concatenate([prompt.positions for prompt in prompts]),
        )
        ends = np.cumsum([0, *(len(prompt.positions) for prompt in prompts)])
        found = [
            self._flips(prompt, tokens[first:last], positions[first:last])
            for prompt, first, last in zip(prompts, ends[:-1], ends[1:], strict=True)
        ]
        parts = np.cumsum([len(gains) for gains, _ in found])[:-1]
        gains, flips = (fetched(torch.cat(one)) for one in zip(*found, strict=True))

        def fetch() -> list[Ranked]:
            both = zip(np.split(gains(), parts), np.split(flips(), parts), strict=True)
            return [
                self._ranked(prompt, *one)
                for prompt, one in zip(prompts, both, strict=True)
            ]

        return fetch

    def _flips(
        self, prompt: Slopes, tokens: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the highest gains [k] of a prompt, and of which flips [k] they are.

        A flip is a number: the place [n] times the vocabulary, plus the id.
        """
        gains = self.of(tokens, prompt.gradient[positions])
        if prompt.near is not None:
            gains.masked_fill_(~prompt.near[positions], -torch.inf)
        # Those of each place first: a CPU copies what it looks through.
        some, ids = gains.topk(min(prompt.k, gains.shape[1]), dim=1)
        highest, best = some.flatten().topk(min(prompt.k, some.numel()))
        places = best // ids.shape[1]
        return highest, places * gains.shape[1] + ids.flatten()[best]

    def _ranked(self, prompt: Slopes, gains: NDArray[np.float32], flips: Ids) -> Ranked:
        """Spell flips that are numbers, without those that must not be made."""
        own = gains != -np.inf
        places, ids = np.divmod(flips[own], len(self._embedding))
        return Ranked(prompt.positions[places], ids, gains[own].astype(np.float64))

    def _best(self, places: Sequence[Place], k: int, scaled: bool) -> Tensor:
        """Return the `k` ids of highest gain at each place [P, k]; -1 is none."""
        device = self._embedding.device
        [current] = sent(device, np.array([place.token for place in places]))
        slopes = torch.stack([place.slope for place in places])
        rows, found = PLACES.get(device.type, 64), []
        for first in range(0, len(places), rows):
            own = slice(first, first + rows)
            given = filled(current[own], rows), filled(slopes[own], rows)
            gains = self.of(*given, scaled=scaled)[: len(places[own])]
            for row, place in enumerate(places[own]):
                if place.near is not None:
                    gains[row].masked_fill_(~place.near, -torch.inf)
            values, ids = gains.topk(min(k, gains.shape[1]))
            found.append(ids.masked_fill_(values == -torch.inf, -1))
        return torch.cat(found)

    @cached_property
    def _squares(self) -> Tensor:
        """The squared length [V] of each row."""
        return self._embedding.square().sum(dim=1)


def norms(gradients: Sequence[Tensor]) -> Callable[[], list[NDArray[np.float64]]]:
    """Begin to measure gradients [n, d]; return what waits for the norms [n] of each.

    Those of a gradient are the same beside any others.
    """
    slopes = torch.cat(list(gradients))
    rows = SLOPES.get(slopes.device.type, len(slopes))
    parts = [
        filled(part, rows).double().norm(dim=1) for part in torch.split(slopes, rows)
    ]
    measured = fetched(torch.cat(parts))
    ends = np.cumsum([len(gradient) for gradient in gradients])

    def fetch() -> list[NDArray[np.float64]]:
        return np.split(measured()[: ends[-1]], ends[:-1])

    return fetch
