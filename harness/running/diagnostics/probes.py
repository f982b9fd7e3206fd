"""What the questions to a subject alone rest on: gradients, and flips with their dL.

The flips are drawn by the example's content alone, so that every arm is asked about the
same ones. All of it is in first-order gains, (E_b - E_a) g: they stay as they are where
embeddings are rescaled and gradients with them.
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

DRAWN_FLIPS = 128
"""Flips of an example whose position and token are drawn uniformly."""
ROUNDS = 20
"""How often as many are drawn, at most, to have as many different ones."""
SCORED_FLIPS = 16
"""Of the drawn flips, how many cost a pass: their true losses are taken."""
TOP_FLIPS = 2
"""Flips of an example with the highest first-order gains."""


@dataclass(frozen=True)
class Probe:
    """One example: first-order gains at its prompt, and what single flips do to it."""

    example: Example
    clean_loss: float
    """Nats/token, in the precision of the search, in a batch."""
    flips: list[Flip]
    """Uniform draws."""
    gains: Floats
    """Their first-order gains, in nats/token; NaN and infinities as they are."""
    losses: Floats
    """The true losses of the first of them, in nats/token: in the precision of the
    search, in batches."""
    top: list[Flip]
    """The flips of highest gain; fewer where gains are not finite."""
    top_gains: Floats

    @property
    def scored(self) -> list[Flip]:
        """The flips whose losses are known."""
        return self.flips[: len(self.losses)]


def probe(subject: Subject, examples: Sequence[Example]) -> list[Probe]:
    """Take the gradient of each example and score its flips, all in one batch."""
    gradients = subject.gradients(
        [example.prompt_ids for example in examples],
        [example.reference_ids for example in examples],
    )
    allowed = subject.vocabulary.allowed
    drawn = [drawn_flips(allowed, example) for example in examples]
    losses = _losses(subject, examples, drawn)
    found = []
    for example, gradient, flips, scored in zip(
        examples, gradients, drawn, losses, strict=True
    ):
        table = _gains(subject, example, gradient)
        top = _top(table)
        found.append(
            Probe(
                example=example,
                clean_loss=float(scored[0]),
                flips=flips,
                gains=_at(table, flips),
                losses=scored[1:],
                top=top,
                top_gains=_at(table, top),
            )
        )
    return found


def stream(example: Example, purpose: str) -> np.random.Generator:
    """Return random numbers that depend on the example's content and the purpose."""
    digest = hashlib.sha256(f"diagnostics\x1f{purpose}\x1f".encode())
    for ids in (example.prompt_ids, example.reference_ids):
        digest.update(np.asarray(ids, dtype="<i8").tobytes())
    return np.random.default_rng(int.from_bytes(digest.digest()[:16], "big"))


def flipped(example: Example, flip: Flip) -> Ids:
    """Return the prompt [n] of an example with one flip made."""
    prompt: Ids = np.array(example.prompt_ids)
    prompt[flip.position] = flip.token
    return prompt


def drawn_flips(allowed: Ids, example: Example) -> list[Flip]:
    """Draw distinct flips to allowed tokens; fewer where there are not so many."""
    rng, prompt = stream(example, "flips"), example.prompt_ids
    positions = np.flatnonzero(example.free)
    drawn: dict[Flip, None] = {}
    for _ in range(ROUNDS):
        places = rng.choice(positions, DRAWN_FLIPS)
        for place, token in zip(places, rng.choice(allowed, DRAWN_FLIPS), strict=True):
            if token != prompt[place]:
                drawn[Flip(int(place), int(token))] = None
        if len(drawn) >= DRAWN_FLIPS:
            break
    return list(drawn)[:DRAWN_FLIPS]


def _gains(subject: Subject, example: Example, gradient: Tensor) -> Tensor:
    """Return the gain [n, V] of each flip, on the CPU; -inf where none may be."""
    gains = subject.gains(example.prompt_ids, gradient).cpu()
    gains[~example.free] = -np.inf
    return gains


def _at(gains: Tensor, flips: Sequence[Flip]) -> Floats:
    return np.array([float(gains[flip]) for flip in flips])


def _top(gains: Tensor) -> list[Flip]:
    known = gains.nan_to_num(nan=-np.inf, posinf=-np.inf, neginf=-np.inf)
    count = min(TOP_FLIPS, int(known.isfinite().sum()))
    indices = known.flatten().topk(count).indices.tolist()
    return [Flip(*divmod(index, gains.shape[1])) for index in indices]


def _losses(
    subject: Subject, examples: Sequence[Example], drawn: Sequence[Sequence[Flip]]
) -> list[Floats]:
    """Score each example's own prompt and then the first of its flips."""
    prompts, references, ends = [], [], []
    for example, flips in zip(examples, drawn, strict=True):
        scored = [flipped(example, flip) for flip in flips[:SCORED_FLIPS]]
        prompts += [example.prompt_ids, *scored]
        references += [example.reference_ids] * (1 + len(scored))
        ends.append(len(prompts))
    return np.split(subject.losses(prompts, references), ends[:-1])
