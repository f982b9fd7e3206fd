"""What the questions to a subject alone rest on: gradients, and flips with their dL.

The flips are drawn by the example's content alone, so that every arm is asked about the
same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.base import Ids
from harness.data import Example
from harness.search import Flip
from harness.subject import Subject

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

RANDOM_FLIPS = 128
"""Flips of an example whose position and token are drawn uniformly."""
ROUNDS = 20
"""How often as many are drawn, at most, to have as many different ones."""
TOP_FLIPS = 64
"""Flips of an example with the highest first-order gains."""


@dataclass(frozen=True)
class Probe:
    """One example: the gradient at its prompt, and what single flips do to it."""

    example: Example
    gradient: Tensor
    """dL/d(embedding output) [n, d] at the clean prompt, float32, on the device."""
    clean_loss: float
    """Nats/token, in the precision of the search, in a batch."""
    flips: list[Flip]
    """Uniform draws first, then those of highest gain."""
    drawn: int
    """How many of them are uniform draws."""
    gains: Floats
    """Their first-order gains, in nats/token."""
    losses: Floats
    """Their true losses, in nats/token: in the precision of the search, in batches."""

    def prompt(self, index: int) -> Ids:
        """Return the prompt [n] after one of the flips."""
        return flipped(self.example, self.flips[index])


def probe(subject: Subject, examples: Sequence[Example]) -> list[Probe]:
    """Take the gradient of each example and score its flips, all in one batch."""
    gradients = subject.gradients(
        [example.prompt_ids for example in examples],
        [example.reference_ids for example in examples],
    )
    tables = [
        _gains(subject, example, gradient)
        for example, gradient in zip(examples, gradients, strict=True)
    ]
    drawn = [_drawn(subject, example) for example in examples]
    top = [_top(table) for table in tables]
    chosen = [[*some, *best] for some, best in zip(drawn, top, strict=True)]
    losses = _losses(subject, examples, chosen)
    return [
        Probe(
            example=example,
            gradient=gradient,
            clean_loss=float(found[0]),
            flips=flips,
            drawn=len(some),
            gains=np.array([float(table[flip]) for flip in flips]),
            losses=found[1:],
        )
        for example, gradient, table, some, flips, found in zip(
            examples, gradients, tables, drawn, chosen, losses, strict=True
        )
    ]


def stream(example: Example, purpose: str) -> np.random.Generator:
    """Return random numbers that depend on the example's content and the purpose."""
    digest = hashlib.sha256(f"diagnostics\x1f{purpose}\x1f".encode())
    for ids in (example.prompt_ids, example.reference_ids):
        digest.update(np.asarray(ids, dtype="<i8").tobytes())
    return np.random.default_rng(int.from_bytes(digest.digest()[:16], "big"))


def _drawn(subject: Subject, example: Example) -> list[Flip]:
    """Draw distinct flips to allowed tokens; fewer where there are not so many."""
    rng, prompt = stream(example, "flips"), example.prompt_ids
    positions, allowed = np.flatnonzero(example.free), subject.vocabulary.allowed
    drawn: dict[Flip, None] = {}
    for _ in range(ROUNDS):
        places = rng.choice(positions, RANDOM_FLIPS)
        for place, token in zip(places, rng.choice(allowed, RANDOM_FLIPS), strict=True):
            if token != prompt[place]:
                drawn[Flip(int(place), int(token))] = None
        if len(drawn) >= RANDOM_FLIPS:
            break
    return list(drawn)[:RANDOM_FLIPS]


def _gains(subject: Subject, example: Example, gradient: Tensor) -> Tensor:
    """Return the gain [n, V] of each flip, on the CPU; -inf where none may be."""
    gains = subject.gains(example.prompt_ids, gradient).cpu()
    gains[~example.free] = -np.inf
    return gains.nan_to_num(nan=0.0, posinf=0.0, neginf=-np.inf)


def _top(gains: Tensor) -> list[Flip]:
    count = min(TOP_FLIPS, int(gains.isfinite().sum()))
    indices = gains.flatten().topk(count).indices.tolist()
    return [Flip(*divmod(index, gains.shape[1])) for index in indices]


def _losses(
    subject: Subject, examples: Sequence[Example], chosen: Sequence[Sequence[Flip]]
) -> list[Floats]:
    """Score each example's clean prompt and then its flips."""
    prompts, references = [], []
    for example, flips in zip(examples, chosen, strict=True):
        prompts += [example.prompt_ids, *(flipped(example, flip) for flip in flips)]
        references += [example.reference_ids] * (1 + len(flips))
    losses = subject.losses(prompts, references)
    ends = np.cumsum([1 + len(flips) for flips in chosen])[:-1]
    return np.split(losses, ends)


def flipped(example: Example, flip: Flip) -> Ids:
    """Return the prompt [n] of an example with one flip made."""
    prompt: Ids = np.array(example.prompt_ids)
    prompt[flip.position] = flip.token
    return prompt
