"""What pairs share: which prompt they start like, and up to where.

Pairs with equal references and prompts of equal length are taken for candidates of one
prompt, their *base*: the token that most of them have at each position. A candidate
needs to be read from the first token on that differs from the base; what is before is
read once for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.base import Ids
from harness.subject.scheduler import Pair

WORTH_A_BASE = 2.0
"""Reuse must save so many times the tokens that reading the base costs."""


SAMPLE = 64
"""Of how many prompts the base is found."""


class Item(NamedTuple):
    """A pair and where its pass may start."""

    pair: int
    """Its index."""
    start: int = 0
    """How many tokens of its base need not be read again."""
    base: int = -1
    """The index of the base; -1 where there is none."""


@dataclass(frozen=True)
class Shape:
    """Pairs of equal shape, by ascending start, and what they start like."""

    items: list[Item]
    bases: list[Ids]
    """Only so far as anybody shares them; shorter ones are followed by padding."""

    @property
    def saved(self) -> int:
        """How many tokens need not be read, less those of the bases, padded."""
        bases = sum(map(len, self.bases))
        return sum(item.start for item in self.items) - bases


def shapes_of(
    pairs: Sequence[Pair],
    *,
    sharing: bool = True,
    least: int | None = None,
    most_bases: int = 64,
) -> list[Shape]:
    """Group pairs whose prompts and references are equally long.

    Those of a shape share nothing where that would not save `least` tokens, those of
    the bases counted. No shape has more than `most_bases` bases: their key/values are
    held in memory together.
    """
    equal: dict[tuple[int, int], dict[bytes, list[int]]] = {}
    keys: dict[int, bytes] = {}
    for i, (prompt, reference) in enumerate(pairs):
        by_reference = equal.setdefault((len(prompt), len(reference)), {})
        # Candidates mostly come with one array for all of them.
        if sharing and id(reference) not in keys:
            keys[id(reference)] = np.asarray(reference, dtype=np.int64).tobytes()
        by_reference.setdefault(keys.get(id(reference), b""), []).append(i)
    shapes = []
    for by_reference in equal.values():
        groups = list(by_reference.values())
        for first in range(0, len(groups), most_bases):
            chunk = groups[first : first + most_bases]
            shape = _shape(pairs, chunk, sharing=sharing)
            if least is not None and shape.saved < least:
                shape = _shape(pairs, chunk, sharing=False)
            shapes.append(shape)
    return shapes


def _shape(
    pairs: Sequence[Pair], groups: Sequence[list[int]], *, sharing: bool
) -> Shape:
    items: list[Item] = []
    bases: list[Ids] = []
    for group in groups:
        base, starts = None, np.zeros(len(group), dtype=np.int64)
        if sharing and len(group) > WORTH_A_BASE:
            base, starts = common(np.array([pairs[i][0] for i in group]))
        saved = starts.sum()
        if base is None or not saved or saved < WORTH_A_BASE * starts.max():
            items += [Item(i) for i in group]
            continue
        items += [
            Item(i, int(start), len(bases) if start else -1)
            for i, start in zip(group, starts, strict=True)
        ]
        bases.append(base[: starts.max()])
    longest = max(map(len, bases), default=0)
    padded = [np.pad(base, (0, longest - len(base))) for base in bases]
    return Shape(sorted(items, key=lambda item: item.start), padded)


def common(prompts: Ids) -> tuple[Ids, NDArray[np.int64]]:
    """Return what prompts [C, n] start like [n], and where each of them departs [C].

    The base is the median of each position's ids in a sample: the token that most
    prompts have there, if there is one. A start is at most n - 1, as the last token
    must be read to predict the reference.
    """
    sample = prompts[:: -(-len(prompts) // SAMPLE)]
    middle = len(sample) // 2
    base = np.partition(sample, middle, axis=0)[middle]
    differs = prompts != base
    differs[:, -1] = True
    return base, differs.argmax(axis=1)
