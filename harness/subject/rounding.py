"""How far rounding moves a loss, and how to choose among losses in spite of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.base import Ids

T = TypeVar("T")
Losses = NDArray[np.float64]
Pair = tuple[Ids, Ids]
Score = Callable[[Sequence[Pair]], Losses]
Asking = Generator[tuple[Score, Sequence[Pair]], Losses, T]
"""Asks a scorer for the losses of pairs, and is sent them; returns what it found."""
Referee = tuple[float, Callable[[Sequence[int]], Asking[Losses]]]

MARGIN_NATS = 3e-4
"""How far two float32 passes of the same input may differ by the batch that they are
in, with room to spare: 1.1e-4 were seen, with the large weights of a gauge."""
OF_A_TOKEN_NATS = {"bfloat16": 0.045, "tensorfloat32": 0.003}
"""The same in lower precisions, for the loss of one token: it falls with the root of
how many are averaged.

On an H200, at the shape of Pythia-1.4B with 128 scored tokens, two batch layouts in
bfloat16 differed by at most 0.0032 nats in 512 losses, and by 0.001 in the standard
deviation, where the margin is 0.0040. TF32 differed from float32 by 1.3e-4 at most,
half of its margin."""


def rounding_margin(precision: str, tokens: int) -> float:
    """Return how far two losses over so many tokens may differ by rounding, in nats."""
    return max(MARGIN_NATS, OF_A_TOKEN_NATS.get(precision, 0.0) / math.sqrt(tokens))


def top(losses: Losses, k: int, referees: Iterable[Referee]) -> Asking[list[int]]:
    """Find the indices of the `k` highest losses, best first.

    A referee is a margin, within which the losses so far say nothing, and what asks
    for more exact losses of some (by their indices). Each referee rescores only the
    candidates within its margin of the k-th best, until no two are that close. Equal
    losses go to the lower index; what is not finite comes last.
    """
    indices, values = np.arange(len(losses)), _finite(losses)
    for margin, score in referees:
        keep = values >= _floor(values, k) - margin
        indices, values = indices[keep], values[keep]
        if _distinct(values, margin):
            break
        values = _finite((yield from score(indices.tolist())))
    return [int(i) for i in indices[np.lexsort((indices, -values))][:k]]


def together(many: Sequence[Asking[T]]) -> list[T]:
    """Run what asks for losses; those who ask the same scorer get them by one call."""
    results: dict[int, T] = {}
    answers: dict[int, Losses | None] = dict.fromkeys(range(len(many)))
    while answers:
        asked: dict[Score, list[tuple[int, Sequence[Pair]]]] = {}
        for i, answer in answers.items():
            try:
                score, pairs = many[i].send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                results[i] = end.value
            else:
                asked.setdefault(score, []).append((i, pairs))
        answers = {}
        for score, questions in asked.items():
            losses = score([pair for _, pairs in questions for pair in pairs])
            ends = np.cumsum([len(pairs) for _, pairs in questions])[:-1]
            for (i, _), own in zip(questions, np.split(losses, ends), strict=True):
                answers[i] = own
    return [results[i] for i in range(len(many))]


def _finite(losses: Losses) -> Losses:
    """Replace what is not finite by the lowest number."""
    return np.where(np.isfinite(losses), losses, np.finfo(np.float64).min)


def _floor(values: Losses, k: int) -> float:
    """Return the k-th highest value, or the lowest where there are fewer."""
    return float(np.sort(values)[-k:][0]) if len(values) else 0.0


def _distinct(values: Losses, margin: float) -> bool:
    """Say whether no two values are within the margin of each other."""
    return bool(np.all(np.diff(np.sort(values)) > margin))
