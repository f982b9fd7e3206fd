"""Claims: what a mean over seeds and units must show, and with what p it does.

Claims are made of many simulated runs at once: every number is an array [B], of length
one for a real run. Whether a p is small enough costs much less than the p itself, which
is a root: it is sought only where it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.records import Crossed, holm
from harness.verdicts.findings import Floats

Scalar = TypeVar("Scalar", bound=np.generic)
Answers = NDArray[np.bool_]
"""Yes or no, for each run [B]."""

_SMALLEST = 1e-15
"""Where tan still tells p from 0."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim about a mean, its one p, and the table behind it."""

    find_p: Callable[[], Floats]
    """Find p [B]."""
    holds: Callable[[float], Answers]
    """Say of each run whether p is at most a level."""
    about: Crossed[Floats]
    """What is shown: of several tables, the last one."""
    mu: float
    """What the mean is said to be above or below."""
    seeds: int
    """How many training seeds the table is of."""
    searches: int = 1
    """How many searches of a universal attack each seed has."""

    @cached_property
    def p(self) -> Floats:
        """The p of each run [B]."""
        return np.asarray(self.find_p())

    def shown(self, level: float, run: int = 0) -> bool:
        """Say of one run whether p is at most `level`."""
        if level not in self._held:
            self._held[level] = self.holds(level)
        return bool(of_run(self._held[level], run))

    @cached_property
    def _held(self) -> dict[float, Answers]:
        return {}


def above(table: Floats, mu: float = 0.0) -> Claim:
    """Claim that the mean of a table [..., S, units] is above `mu`."""
    found = summarised(table)
    return Claim(
        lambda: found.p_above(mu),
        lambda level: found.shows_above(level, mu),
        found,
        mu,
        found.S,
    )


def below(table: Floats, mu: float = 0.0) -> Claim:
    """Claim that the mean of a table [..., S, units] is below `mu`."""
    found = summarised(table)
    return Claim(
        lambda: found.p_below(mu),
        lambda level: found.shows_below(level, mu),
        found,
        mu,
        found.S,
    )


def every(claims: Sequence[Claim]) -> Claim:
    """Claim all of them: as sure as the least sure one, without correction."""
    return replace(
        claims[-1],
        find_p=lambda: _stacked([x.p for x in claims]).max(axis=0),
        holds=lambda level: _all_hold(claims, level),
    )


def some(claims: Sequence[Claim]) -> Claim:
    """Claim any of several claims about the same rows.

    By the mean of tan(pi (1/2 - p)), which has Cauchy's tail however the claims depend
    on each other: where they all say the same, their number costs nothing. What is no
    likelier than not counts as even. Source: Liu and Xie 2020.
    """

    def find_p() -> Floats:
        p = _stacked([x.p for x in claims])
        score = np.tan(np.pi * (0.5 - np.clip(p, _SMALLEST, 0.5))).mean(axis=0)
        return np.asarray(np.arctan2(1.0, score) / np.pi)

    def holds(level: float) -> Answers:
        sure = _all_hold(claims, level)
        return sure if sure.all() else np.asarray(joined.p <= level)

    joined = replace(claims[-1], find_p=find_p, holds=holds)
    return joined


def corrected(claims: Sequence[Claim], beside: int = 0) -> list[Claim]:
    """Correct claims for their number, by Holm; `beside` more of them have a p of 1."""
    family = _Family(claims, beside)
    return [family.member(place) for place in range(len(claims))]


class _Family:
    """Claims that are corrected for their number together."""

    def __init__(self, claims: Sequence[Claim], beside: int) -> None:
        self.claims, self.beside = claims, beside

    def member(self, place: int) -> Claim:
        """Return one of the claims, corrected."""
        return replace(
            self.claims[place],
            find_p=lambda: self.p[place],
            holds=lambda level: self.holds(level)[place],
        )

    @cached_property
    def p(self) -> Floats:
        """Adjusted [claims, B]."""
        alone = _stacked([claim.p for claim in self.claims])
        every = [[*own, *[1.0] * self.beside] for own in alone.T.tolist()]
        return np.transpose([holm(own) for own in every])

    def holds(self, level: float) -> Answers:
        """Step down: what is left of the level is shared by claims not yet shown."""
        number = len(self.claims) + self.beside
        shown = np.zeros((len(self.claims), 1), dtype=bool)
        for before in range(len(self.claims)):
            each = level / (number - before)
            more = _stacked([claim.holds(each) for claim in self.claims])
            shown = shown | (more & (shown.sum(axis=0) >= before))
        return shown


def _all_hold(claims: Sequence[Claim], level: float) -> Answers:
    return np.asarray(_stacked([x.holds(level) for x in claims]).all(axis=0))


def _stacked(runs: Sequence[NDArray[Scalar]]) -> NDArray[Scalar]:
    """Lay numbers [B] of several claims side by side, [claims, B]."""
    return np.stack(np.broadcast_arrays(*runs))


def summarised(table: Floats) -> Crossed[Floats]:
    """Summarise tables [..., S, units], one for each run."""
    return Crossed.batch(table.reshape(-1, *table.shape[-2:]))


def mean_of_known(rows: Floats) -> Floats:
    """Return the mean of what is finite of rows [..., S, n]: [B]; NaN if nothing is."""
    known = np.isfinite(rows)
    total = np.where(known, rows, 0.0).sum(axis=(-2, -1))
    with np.errstate(invalid="ignore"):
        return np.atleast_1d(total / known.sum(axis=(-2, -1)))


def of_run(values: NDArray[Scalar], run: int = 0) -> float:
    """Return the number of one run, of [B]; what all have in common is there once."""
    return float(values[run if len(values) > 1 else 0])
