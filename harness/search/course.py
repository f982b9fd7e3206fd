"""What a search would have returned, had it been stopped earlier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

ROUNDING = 1e-9
"""Of steps: so little below a whole number is that number."""


@dataclass
class Course(Generic[T]):
    """What a search holds as it goes on, kept for some shares of its steps.

    A step is the unit that a search is cut off by: what it costs is equal for all, but
    for the first few. A share of all steps is rounded down, so that what is kept cost
    no more than that share.
    """

    shares: Sequence[float]
    """The shares of its steps at which to keep what it holds, from 0 to 1."""
    steps: int
    """How many steps it makes at most."""
    held: dict[float, T] = field(default_factory=dict)
    """What it held at each of the shares."""

    def note(self, steps: int, holds: T) -> None:
        """Say what the search holds after so many steps; they never fall."""
        for share in self.shares:
            if steps <= self.within(share):
                self.held[share] = holds

    def within(self, share: float) -> int:
        """Return how many whole steps a share of all of them is."""
        return int(share * self.steps + ROUNDING)
