"""A number that compares two arms: its interval, and the p that it is beyond a bound.

A comparison is a table of seeds by units whose mean is 0 where the number is just at a
bound: one statistic gives interval, p and power, and no estimate stands in a bound.
Errors count against whatever is claimed: one table is for "below", another for "above".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.records import TREATMENT_SEEDS, Crossed

Floats = NDArray[np.float64]
Side = Literal["below", "above"]
Interval = tuple[float, float]

_LARGEST_RATIO = 64.0
"""Up to which a ratio of success is bounded."""
_PRECISION = 1e-6
_FAR = 1e6
"""What stands for a bound that is infinite."""
LARGEST_LOGARITHM = 700.0
"""Of what a float holds the exponential of."""
_ROUNDING = 1e-12
_NOTHING = -1e3
"""The logarithm of next to nothing."""


class Comparison(Protocol):
    """One number about two arms."""

    @property
    def value(self) -> float:
        """The number."""

    @property
    def sides(self) -> tuple[float, float]:
        """What it compares: the number of the arm, and that of the other one."""

    @property
    def seeds(self) -> int:
        """How many training seeds."""

    @property
    def units(self) -> int:
        """Documents, clusters or task examples; 0 where rows were not paired."""

    @property
    def effective(self) -> float:
        """As many units of equal weight as tell as much; infinite if all have it."""

    @property
    def over(self) -> str:
        """What units are called."""

    @property
    def method(self) -> str:
        """How interval and p come about."""

    @property
    def errors(self) -> float:
        """The larger share of rows in error, of both arms."""

    def interval(self, level: float = ...) -> Interval | None:
        """Return the two-sided interval; None where there is none."""

    def p(self, side: Side, bound: float) -> float:
        """Return the one-sided p of the claim that the number is beyond a bound."""

    def table(self, side: Side, bound: float) -> Crossed[float] | None:
        """Return the table that such a claim rests on, for what would decide it."""


def grown(logarithm: float) -> float:
    """Return the relative change of a difference of logarithms, within finite range."""
    return math.expm1(min(logarithm, LARGEST_LOGARITHM))


def _statistic(rows: Floats, seeds: int, over: str) -> str:
    if len(rows) < TREATMENT_SEEDS:
        return f"studentized bootstrap over {over}"
    return f"two-way random effects over {over} and {_replicates(rows, seeds)}"


def _replicates(rows: Floats, seeds: int) -> str:
    return "seeds" if len(rows) == seeds else "searches"


def _scaled(bound: float, relative: bool) -> float:
    """Return a bound on the scale of the tables; nothing changes by -100 %."""
    if not relative:
        return bound
    return math.log1p(bound) if bound > -1 else _NOTHING


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference of means, or a relative change as a difference of logarithms."""

    value: float
    sides: tuple[float, float]
    seeds: int
    most: Floats
    """Arm minus other arm [seeds, units], or [searches, units] of few seeds: errors as
    harm of the arm alone."""
    least: Floats
    """The same, errors as harm of the other arm alone."""
    errors: float = 0.0
    """The larger share of rows in error, of both arms."""
    relative: bool = False
    """Whether tables hold logarithms, and the number is exp(mean) - 1."""
    grouped: int = 0
    """How many units there are, where columns are groups of them."""
    effective: float = math.inf
    """See `Comparison.effective`."""
    over: str = "documents"

    @property
    def method(self) -> str:
        """See `Comparison.method`."""
        what = "paired log ratio" if self.relative else "paired difference"
        return f"{what}; {_statistic(self.most, self.seeds, self.over)}"

    @property
    def units(self) -> int:
        """See `Comparison.units`."""
        return self.grouped or int(self.most.shape[1])

    def interval(self, level: float = 0.95) -> Interval | None:
        """See `Comparison.interval`."""
        one_sided = (1 + level) / 2
        low = Crossed.of(self.least).lower(one_sided)
        high = Crossed.of(self.most).upper(one_sided)
        if not (math.isfinite(low) and math.isfinite(high)):
            return None
        return (grown(low), grown(high)) if self.relative else (low, high)

    def table(self, side: Side, bound: float) -> Crossed[float]:
        """See `Comparison.table`."""
        rows = self.most if side == "below" else self.least
        return Crossed.of(rows - _scaled(bound, self.relative))

    def p(self, side: Side, bound: float) -> float:
        """See `Comparison.p`."""
        found = self.table(side, bound)
        return found.p_below() if side == "below" else found.p_above()


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """By how much of itself a share of units is reduced: 1 - arm / other arm.

    It is above r where arm - (1 - r) other is below 0 (Fieller 1954), of tables of the
    shares themselves [seeds, units]. Where all units agree, such a table has no spread,
    which is no certainty: so two units more are counted, one that succeeds on either
    arm alone, as Agresti and Min 2005 add pairs of each kind.
    """

    value: float
    sides: tuple[float, float]
    seeds: int
    arm_most: Floats
    arm_least: Floats
    other_most: Floats
    other_least: Floats
    errors: float
    over: str = "documents"
    effective: float = math.inf
    """See `Comparison.effective`."""

    @property
    def method(self) -> str:
        """See `Comparison.method`."""
        how = _statistic(self.arm_most, self.seeds, self.over)
        return f"1 - paired ratio (Fieller, two units added); {how}"

    @property
    def units(self) -> int:
        """See `Comparison.units`."""
        return int(self.arm_most.shape[1])

    def interval(self, level: float = 0.95) -> Interval | None:
        """See `Comparison.interval`."""
        one_sided = (1 + level) / 2
        most = self._root(lambda ratio: self._at("above", ratio).upper(one_sided))
        least = self._root(lambda ratio: self._at("below", ratio).lower(one_sided))
        if most is None:
            return None
        low, high = 1 - most, 1 - (least or 0.0)
        return min(low, self.value), max(high, self.value)

    def p(self, side: Side, bound: float) -> float:
        """See `Comparison.p`: the reduction is above where the ratio is below."""
        found = self.table(side, bound)
        return found.p_below() if side == "above" else found.p_above()

    def table(self, side: Side, bound: float) -> Crossed[float]:
        """See `Comparison.table`."""
        return self._at(side, 1 - bound)

    def _at(self, side: Side, ratio: float) -> Crossed[float]:
        arm, other = self.arm_least, self.other_most
        if side == "above":
            arm, other = self.arm_most, self.other_least
        added = np.broadcast_to([1.0, -ratio], (len(arm), 2))
        return Crossed.of(np.hstack([arm - ratio * other, added]))

    @staticmethod
    def _root(bound: Callable[[float], float]) -> float | None:
        """Return the ratio at which a bound crosses 0: None where it does not."""

        def finite(ratio: float) -> float:
            return max(-_FAR, min(_FAR, bound(ratio)))

        if not finite(0.0) > 0 > finite(_LARGEST_RATIO):
            return None
        return float(scipy.optimize.brentq(finite, 0, _LARGEST_RATIO, xtol=_PRECISION))


@dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """Differences seed by seed, where no rows can be paired.

    Their own errors, as metrics state them, are of the same documents under every seed:
    so they are added once, and not averaged away.
    """

    value: float
    sides: tuple[float, float]
    differences: Floats
    """[seeds], of logarithms where `relative`."""
    error: float | None
    """The standard error of one of them that its metric states; None where none is."""
    relative: bool = False
    units: int = 0
    effective: float = math.inf
    """How many units the metric says that it rests on."""
    over: str = "seeds"
    errors: float = 0.0

    @property
    def seeds(self) -> int:
        """See `Comparison.seeds`."""
        return len(self.differences)

    @property
    def method(self) -> str:
        """See `Comparison.method`."""
        what = "log ratio" if self.relative else "difference"
        over = "Student's t over seeds" if self._many else ""
        own = "the metric's own error" if self.error is not None else ""
        return f"{what}; {' and '.join(filter(None, [over, own])) or 'no interval'}"

    def interval(self, level: float = 0.95) -> Interval | None:
        """See `Comparison.interval`."""
        if self._spread is None:
            return None
        off = self._spread * self._quantile((1 + level) / 2)
        low, high = self._mean - off, self._mean + off
        return (grown(low), grown(high)) if self.relative else (low, high)

    def p(self, side: Side, bound: float) -> float:
        """See `Comparison.p`."""
        if self._spread is None:
            return 1.0
        at = _scaled(bound, self.relative)
        off = at - self._mean if side == "below" else self._mean - at
        t = off / self._spread
        if self._many:
            return float(scipy.special.stdtr(self.seeds - 1, -t))
        return float(scipy.special.ndtr(-t))

    def table(self, side: Side, bound: float) -> None:
        """Return None: what more documents bring is not known without rows."""

    @property
    def _many(self) -> bool:
        return self.seeds >= TREATMENT_SEEDS

    @property
    def _mean(self) -> float:
        return float(self.differences.mean())

    @property
    def _spread(self) -> float | None:
        """The standard error; None where nothing tells it."""
        own = (self.error or 0.0) ** 2
        if self._many:
            own += self.differences.var(ddof=1) / self.seeds
        spread = math.sqrt(own)
        size = 1.0 if self.relative else max(map(abs, self.sides))
        # Without any spread but that of rounding, there is none to judge by.
        return spread if spread > _ROUNDING * size else None

    def _quantile(self, level: float) -> float:
        if self._many:
            return float(scipy.special.stdtrit(self.seeds - 1, level))
        return float(scipy.special.ndtri(level))


@dataclass(frozen=True)
class EverySeed:
    """A number under each seed alone: a claim about it has to hold under all."""

    each: Sequence[Comparison]
    """One for each seed."""
    worst: int
    """The seed that is shown: the one that is furthest from the bound, or beyond it."""

    @property
    def _shown(self) -> Comparison:
        return self.each[self.worst]

    @property
    def value(self) -> float:
        """The number under the seed that is shown."""
        return self._shown.value

    @property
    def sides(self) -> tuple[float, float]:
        """See `Comparison.sides`: under the seed that is shown."""
        return self._shown.sides

    @property
    def seeds(self) -> int:
        """See `Comparison.seeds`."""
        return len(self.each)

    @property
    def units(self) -> int:
        """See `Comparison.units`: the fewest under any seed."""
        return min(x.units for x in self.each)

    @property
    def effective(self) -> float:
        """See `Comparison.effective`: the fewest under any seed."""
        return min(x.effective for x in self.each)

    @property
    def over(self) -> str:
        """See `Comparison.over`."""
        return self._shown.over

    @property
    def method(self) -> str:
        """See `Comparison.method`."""
        return f"the worst under a seed alone; {self._shown.method}"

    @property
    def errors(self) -> float:
        """See `Comparison.errors`."""
        return max(x.errors for x in self.each)

    def interval(self, level: float = 0.95) -> Interval | None:
        """Return the interval of the seed that is shown."""
        return self._shown.interval(level)

    def p(self, side: Side, bound: float) -> float:
        """Return the p that it is so under all seeds: the largest of theirs."""
        return max(x.p(side, bound) for x in self.each)

    def p_of_any(self, side: Side, bound: float) -> float:
        """Return the p that it is so under some seed, corrected for their number."""
        return min(1.0, self.seeds * min(x.p(side, bound) for x in self.each))

    def table(self, side: Side, bound: float) -> Crossed[float] | None:
        """Return the table of the seed that is shown."""
        return self._shown.table(side, bound)
