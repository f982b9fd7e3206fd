"""Claims: what a mean over seeds and units must show, and with what p it does.

Claims are made of many simulated runs at once: every number is an array [B], of length
one for a real run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.records import Crossed, holm
from harness.verdicts.findings import Floats

_SMALLEST = 1e-15
"""Where tan still tells p from 0."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim about a mean, its one p, and the table behind it."""

    p: Floats
    """[B]"""
    about: Crossed[Floats]
    """What is shown: of several tables, the last one."""
    mu: float = 0.0
    """What the mean is said to be above or below."""
    seeds: int = 0
    """How many training seeds the table is of."""
    searches: int = 1
    """How many searches of a universal attack each seed has."""

    def at(self, run: int) -> float:
        """Return the p of one run."""
        return of_run(self.p, run)


def above(table: Floats, mu: float = 0.0) -> Claim:
    """Claim that the mean of a table [..., S, units] is above `mu`."""
    found = summarised(table)
    return Claim(np.asarray(found.p_above(mu)), found, mu, found.S)


def below(table: Floats, mu: float = 0.0) -> Claim:
    """Claim that the mean of a table [..., S, units] is below `mu`."""
    found = summarised(table)
    return Claim(np.asarray(found.p_below(mu)), found, mu, found.S)


def every(claims: Sequence[Claim]) -> Claim:
    """Claim all of them: as sure as the least sure one, without correction."""
    p = np.max(np.broadcast_arrays(*(claim.p for claim in claims)), axis=0)
    return replace(claims[-1], p=p)


def some(claims: Sequence[Claim]) -> Claim:
    """Claim any of several claims about the same rows.

    By the mean of tan(pi (1/2 - p)), which has Cauchy's tail however the claims depend
    on each other: where they all say the same, their number costs nothing. What is no
    likelier than not counts as even. Source: Liu and Xie 2020.
    """
    p = np.stack(np.broadcast_arrays(*(claim.p for claim in claims)))
    score = np.tan(np.pi * (0.5 - np.clip(p, _SMALLEST, 0.5))).mean(axis=0)
    return replace(claims[-1], p=np.arctan2(1.0, score) / np.pi)


def corrected(claims: Sequence[Claim], beside: int = 0) -> list[Claim]:
    """Correct claims for their number, by Holm; `beside` more of them have a p of 1."""
    if not claims:
        return []
    p = np.stack(np.broadcast_arrays(*(claim.p for claim in claims)))
    every = [[*own, *[1.0] * beside] for own in p.T.tolist()]
    adjusted = np.transpose([holm(own) for own in every])
    return [replace(x, p=own) for x, own in zip(claims, adjusted, strict=False)]


def summarised(table: Floats) -> Crossed[Floats]:
    """Summarise tables [..., S, units], one for each run."""
    return Crossed.batch(table.reshape(-1, *table.shape[-2:]))


def of_run(values: Floats, run: int) -> float:
    """Return the number of one run, of [B]; what all have in common is there once."""
    return float(values[run if len(values) > 1 else 0])
