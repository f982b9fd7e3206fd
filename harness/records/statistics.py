"""Intervals and tests by scipy, in the form that a record has them.

Resampling is seeded, so that a record's numbers can be computed again from its rows.
Holm's adjustment is ours, as scipy has none. So are the few lines of Wilson's interval
and of Student's test, of which `scipy.special` has the functions: to import
`scipy.stats` takes longer than most commands that need them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

from harness.records.estimate import Estimate

Floats = NDArray[np.float64]
Interval = tuple[float, float]
Transform = Callable[[Floats], Floats]

LEVEL = 0.95
RESAMPLES = 2000
_SEED = 20240607
_GATHERED_AT_ONCE = 1_000_000


@lru_cache(maxsize=4096)
def wilson(successes: int, n: int) -> Estimate:
    """Estimate a fraction with its Wilson score interval.

    Source: Wilson 1927, without continuity correction.
    """
    method = "fraction; Wilson interval"
    if n == 0:
        return Estimate(
            value=None, n=0, unit="fraction", method=method, reason="nothing to count"
        )
    share, z = successes / n, float(scipy.special.ndtri(0.5 + 0.5 * LEVEL))
    scale = 2 * (n + z**2)
    center = (2 * n * share + z**2) / scale
    half = z / scale * math.sqrt(4 * n * share * (1 - share) + z**2)
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == n else center + half
    return Estimate(
        value=share,
        n=n,
        unit="fraction",
        method=method,
        interval=(low, high),
        level=LEVEL,
    )


def bootstrap_mean(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    unit: str,
    over: str = "documents",
) -> Estimate:
    """Estimate a mean, resampling whole clusters (by default each value is one)."""
    values = np.asarray(values, dtype=np.float64)
    rows = _positions(clusters, len(values))
    sums, counts = (
        np.bincount(rows, weights).astype(np.float64) for weights in (values, None)
    )
    return _bootstrap(sums, counts, None, "mean", len(values), unit, over)


def bootstrap_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    transform: Transform | None = None,
    *,
    unit: str,
    over: str = "documents",
) -> Estimate:
    """Estimate a ratio of sums, resampling its units.

    A unit has one numerator and one denominator, as nats and tokens of a document.
    `transform` maps an array of ratios elementwise, as `np.exp` maps nats/token to a
    perplexity. What leaves the range of floats is null, with the reason.
    """
    numerators = np.asarray(numerators, dtype=np.float64)
    denominators = np.asarray(denominators, dtype=np.float64)
    if numerators.shape != denominators.shape or numerators.ndim != 1:
        raise ValueError("needs as many denominators as numerators")
    if np.any(denominators <= 0):
        raise ValueError("every denominator must be positive")
    return _bootstrap(
        numerators,
        denominators,
        transform,
        "ratio of sums",
        len(numerators),
        unit,
        over,
    )


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    unit: str,
) -> Estimate:
    """Estimate the mean of `first` - `second`, measured on the same examples."""
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, np.float64)
    estimate = bootstrap_mean(difference, clusters, unit=unit)
    return estimate.model_copy(update={"method": f"paired {estimate.method}"})


def paired_p(differences: ArrayLike, clusters: Sequence[Hashable]) -> float:
    """Return the one-sided p-value that a mean of paired differences is above 0.

    Student's t-test over the clusters' means; 1 where they are all equal and not
    above 0, or where there is a single cluster.
    """
    values = np.asarray(differences, dtype=np.float64)
    rows = _positions(clusters, len(values))
    means = np.bincount(rows, values) / np.bincount(rows)
    n = len(means)
    if n < 2:
        return 1.0
    mean = means.mean()
    if np.ptp(means) == 0:
        return 0.0 if mean > 0 else 1.0
    variance = np.mean((means - mean) ** 2) * (n / (n - 1))
    return float(scipy.special.stdtr(n - 1, -mean / np.sqrt(variance / n)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, keeping the order given.

    Source: Holm 1979, step-down; controls the family-wise error.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    stepped = np.maximum.accumulate(np.asarray(p_values)[order] * factors)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


@dataclass(frozen=True)
class Spread:
    """Mean and spread of a number over seeds; not an interval within a run."""

    mean: float | None
    """None where there is no value."""
    std: float | None
    """Sample standard deviation (ddof 1); None, not 0, for a single value."""
    n: int
    """How many seeds."""


def across_seeds(values: Sequence[float]) -> Spread:
    """Return mean and sample standard deviation (ddof 1) over seeds."""
    n = len(values)
    mean = float(np.mean(values)) if n else None
    std = float(np.std(values, ddof=1)) if n > 1 else None
    return Spread(mean, std, n)


def spread_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Bound the standard deviation of normal values by chi^2; needs two of them."""
    squares = float(np.var(values, ddof=1)) * (len(values) - 1)
    tails = ((1 + level) / 2, (1 - level) / 2)
    low, high = (squares / scipy.special.chdtri(len(values) - 1, 1 - x) for x in tails)
    return float(np.sqrt(low)), float(np.sqrt(high))


def _positions(labels: Sequence[Hashable] | None, n: int) -> NDArray[np.intp]:
    """Number the labels in order of appearance; without labels, each its own."""
    if labels is None:
        return np.arange(n)
    if len(labels) != n:
        raise ValueError("needs as many labels as values")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(x, len(numbers)) for x in labels], np.intp)


def _bootstrap(
    sums: Floats,
    counts: Floats,
    transform: Transform | None,
    what: str,
    n: int,
    unit: str,
    over: str,
) -> Estimate:
    """Estimate transform(total of sums / total of counts), each of [clusters]."""
    method = f"{what}; percentile bootstrap over {over} ({RESAMPLES} resamples)"
    known: dict[str, Any] = {"n": n, "unit": unit, "method": method}
    if n == 0:
        return Estimate(value=None, reason="no values", **known)
    value = float(_ratio(sums.sum(), counts.sum(), transform))
    if not np.isfinite(value):
        return Estimate(value=None, reason="beyond the range of floats", **known)
    if len(sums) < 2:
        return Estimate(value=value, reason="no interval from one unit", **known)
    low, high = _percentiles(sums, counts, transform)
    if not np.isfinite([low, high]).all():
        reason = "the interval is beyond the range of floats"
        return Estimate(value=value, reason=reason, **known)
    return Estimate(value=value, interval=(low, high), level=LEVEL, **known)


def _ratio(sums: Any, counts: Any, transform: Transform | None) -> Any:
    ratio = np.asarray(sums / counts, dtype=np.float64)
    if transform is None:
        return ratio
    with np.errstate(over="ignore"):
        return transform(ratio)


def _percentiles(
    sums: Floats, counts: Floats, transform: Transform | None
) -> tuple[float, float]:
    """Bound the ratio, resampling clusters."""
    above, below = (_totals(values.tobytes()) for values in (sums, counts))
    found = np.sort(_ratio(above, below, transform))
    tail = (1 - LEVEL) / 2
    return _quantile(found, tail), _quantile(found, 1 - tail)


def _quantile(ascending: Floats, share: float) -> float:
    """Interpolate between order statistics, as scipy does (Hyndman & Fan 1996, 7)."""
    place = share * len(ascending) + (1 - share) - 1
    below, part = int(place // 1), place % 1
    above = min(below + 1, len(ascending) - 1)
    with np.errstate(invalid="ignore"):  # some may leave the range of floats
        return float((1 - part) * ascending[below] + part * ascending[above])


@lru_cache(maxsize=32)
def _totals(values: bytes) -> Floats:
    """Return the total of float64 values in each resample, for others to read only.

    Cells and metrics share what they divide by, and cells of a subject clean losses.
    """
    each = np.frombuffer(values)
    totals = [each.take(chosen).sum(-1) for chosen in _draws(len(each))]
    return np.concatenate(totals)


def _draws(clusters: int) -> Iterable[NDArray[np.intp]]:
    """Yield resamples of clusters by their numbers, in batches: [resamples, clusters].

    They are those of `scipy.stats.bootstrap`, which would draw the same ones again for
    each estimate of as many clusters.
    """
    if clusters * RESAMPLES <= _GATHERED_AT_ONCE:
        return _kept_draws(clusters)
    return _new_draws(clusters)


@lru_cache(maxsize=8)
def _kept_draws(clusters: int) -> tuple[NDArray[np.intp], ...]:
    return tuple(_new_draws(clusters))


def _new_draws(clusters: int) -> Iterator[NDArray[np.intp]]:
    rng, batch = np.random.default_rng(_SEED), max(1, _GATHERED_AT_ONCE // clusters)
    for start in range(0, RESAMPLES, batch):
        count = min(batch, RESAMPLES - start)
        yield rng.integers(0, clusters, (count, clusters))
