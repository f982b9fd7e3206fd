"""How far rounding moves a loss, and how to choose among losses in spite of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.subject.scheduler import Ask, Pair, Request, Search

Losses = NDArray[np.float64]

MARGIN_NATS = 3e-4
"""How far two float32 passes of the same input may differ by the batch that they are
in, with room to spare: 1.1e-4 were seen, with the large weights of a gauge."""
OF_A_TOKEN_NATS = {"bfloat16": 0.045}
"""The same in lower precisions, for the loss of one token: it falls with the root of
how many are averaged.

On an H200, at the shape of Pythia-1.4B, briefly trained, two ways of forming passes
differed by at most 0.013 in 512 losses, in this unit, and by 0.004 in the standard
deviation. A trained model of 14 M parameters, with sharper attention: 0.11 and 0.02."""
STEADY_NATS = {"bfloat16": 0.02}
"""That where a loss depends on nothing but its pair, so that no pass can swap any two:
what is left is that float32 decides among those that bfloat16 hardly tells apart.

Attacks on the model of 14 M parameters raised the loss as much as with 0.045, and as
with none, within the intervals of 128 examples."""


def rounding_margin(precision: str, tokens: int, *, steady: bool = False) -> float:
    """Return how far two losses over so many tokens may differ by rounding, in nats.

    `steady` says that a loss depends on nothing but its pair: see `Network.steady`.
    """
    of_a_token = (STEADY_NATS if steady else OF_A_TOKEN_NATS).get(precision, 0.0)
    return max(MARGIN_NATS, of_a_token / math.sqrt(tokens))


def choice(
    pairs: Sequence[Pair],
    losses: Losses,
    k: int,
    margin: Callable[[int], float],
    *,
    lowest: bool = False,
) -> Search[list[int]]:
    """Find the indices of the `k` highest (or `lowest`) losses, best first.

    Each loss is the mean over as many of the `pairs` as every other, which follow one
    another; `margin` says how near means over so many tokens may be for rounding to
    swap them. Where two candidates are that close among those within it of the k-th
    best, these are scored again. Equal losses go to the lower index; what is not finite
    comes last.
    """
    each = len(pairs) // max(1, len(losses))
    if each * len(losses) != len(pairs):
        raise ValueError(f"{len(losses)} losses are not of {len(pairs)} pairs")
    sign = -1 if lowest else 1
    indices, values = np.arange(len(losses)), _finite(sign * losses)
    tokens = each * min((len(reference) for _, reference in pairs), default=0)
    near = margin(max(1, tokens))
    keep = values >= _floor(values, k) - near
    indices, values = indices[keep], values[keep]
    if not _distinct(values, near):
        own = (indices[:, None] * each + np.arange(each)).flat
        decided = yield Request(Ask.DECIDING_LOSSES, [pairs[i] for i in own])
        values = _finite(sign * decided.reshape(-1, each).mean(axis=1))
    return [int(i) for i in indices[np.lexsort((indices, -values))][:k]]


def _finite(losses: Losses) -> Losses:
    """Replace what is not finite by the lowest number."""
    return np.where(np.isfinite(losses), losses, np.finfo(np.float64).min)


def _floor(values: Losses, k: int) -> float:
    """Return the k-th highest value, or the lowest where there are fewer."""
    return float(np.sort(values)[-k:][0]) if len(values) else 0.0


def _distinct(values: Losses, margin: float) -> bool:
    """Say whether no two values are within the margin of each other."""
    return bool(np.all(np.diff(np.sort(values)) > margin))
