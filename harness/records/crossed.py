"""The mean of a table of training seeds by documents: bounds, p-values and power.

Two-way random effects without replication: d[s, i] = mean + seed s + document i +
residual. One statistic gives every bound and every p, so that the two never disagree.
From three seeds on it speaks of the treatment; with fewer of these very weights.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Number = TypeVar("Number", bound=ArrayLike)

TREATMENT_SEEDS = 3
"""How many training seeds speak of a treatment, and not of these weights alone."""
RESAMPLES = 9999
_SEED = 20240607
_BISECTIONS = 48
_ROUNDING = 1e-12
_SMALLEST = 1e-300
_SLACK = 1e-6
_GRID = 128


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Bound a proportion of k in n by the exact interval of Clopper and Pearson 1934.

    `level` is that of both sides together: a one-sided bound at 95 % is a side of the
    interval at 90 %. Without a trial the interval is (0, 1).
    """
    quantile, beyond = scipy.special.betaincinv, (1 - level) / 2
    low = quantile(k, n - k + 1, beyond) if k > 0 else 0.0
    high = quantile(k + 1, n - k, 1 - beyond) if k < n else 1.0
    return float(low), float(high)


@dataclass(frozen=True)
class Crossed(Generic[Number]):
    """What a table [seeds, documents] says of its mean.

    Every number is a float for one table (`of`), and an array of a number a table for
    many of the same shape (`batch`). `level` is always that of one side: 0.99 is a
    bound that the mean is beyond in 1 % of tables.

    Tables that say little never say much: without a table, or with one document, bounds
    are infinite and p is 1. A table of equal values has its mean for bounds, and p is
    0 or 1: it shows no spread to judge by.
    """

    mean: Number
    ms_seed: Number
    """Mean square between seeds; 0 with a single seed, as are residuals."""
    ms_document: Number
    ms_residual: Number
    variance: Number
    """Of the mean; with fewer than three seeds, of the mean on these very weights."""
    skew: Number
    """Hall's g: the third moment of the documents' means over n^2 v^1.5."""
    documents: Floats
    """The documents' means over seeds, [..., n]."""
    S: int
    """How many training seeds."""

    @property
    def n(self) -> int:
        """How many documents."""
        return int(self.documents.shape[-1])

    @staticmethod
    def of(table: ArrayLike) -> Crossed[float]:
        """Summarise one table, [seeds, documents]; every value must be finite."""
        table = np.asarray(table, dtype=np.float64)
        if table.ndim != 2:
            raise ValueError("needs a table of seeds by documents")
        return _summarised(table)

    @staticmethod
    def batch(tables: ArrayLike) -> Crossed[Floats]:
        """Summarise tables of one shape, [..., seeds, documents], to arrays [...]."""
        tables = np.asarray(tables, dtype=np.float64)
        if tables.ndim < 3:
            raise ValueError("needs tables of seeds by documents")
        return _summarised(tables)

    def lower(self, level: float) -> Number:
        """Return what the mean is above, with confidence `level`."""
        return self._bound(level, sign=1)

    def upper(self, level: float) -> Number:
        """Return what the mean is below, with confidence `level`."""
        return self._bound(level, sign=-1)

    def interval(self, level: float = 0.95) -> tuple[Number, Number]:
        """Return the two-sided interval: both bounds at half of what `level` leaves."""
        one_sided = (1 + level) / 2
        return self.lower(one_sided), self.upper(one_sided)

    def p_above(self, mu: float = 0.0) -> Number:
        """Return the p-value that the mean is above `mu`: `lower(1 - p)` meets it."""
        return self._p(mu, sign=1)

    def p_below(self, mu: float = 0.0) -> Number:
        """Return the p-value that the mean is below `mu`: `upper(1 - p)` meets it."""
        return self._p(mu, sign=-1)

    def shows_above(self, p: float, mu: float = 0.0) -> NDArray[np.bool_]:
        """Say whether `p_above(mu)` is at most `p`, which costs less than that p."""
        return self._shows(p, mu, sign=1)

    def shows_below(self, p: float, mu: float = 0.0) -> NDArray[np.bool_]:
        """Say whether `p_below(mu)` is at most `p`, which costs less than that p."""
        return self._shows(p, mu, sign=-1)

    @property
    def components(self) -> tuple[Number, Number, Number]:
        """Variances of seeds, documents and residuals, by moments, 0 at least."""
        residual = np.asarray(self.ms_residual)
        of_seeds = np.maximum(self.ms_seed - residual, 0) / self.n
        of_documents = np.maximum(self.ms_document - residual, 0) / self.S
        return self._given(of_seeds), self._given(of_documents), self.ms_residual

    def detectable(
        self,
        level: float,
        power: float = 0.8,
        seeds: int | None = None,
        documents: int | None = None,
    ) -> Number:
        """Return the smallest true difference that a design finds with that power.

        The design has this table's seeds and documents where none are given, and its
        components; found means that `lower(level)` is above 0. Exact for normal
        effects without the correction for skew. NaN where components are unknown:
        those of seeds from a single one, all from a single document.
        """
        design = Design(seeds or self.S, documents or self.n)
        known = self.n > 1 and (self.S > 1 or design.seeds < TREATMENT_SEEDS)
        found = [
            design.detectable(each, level, power) if known else np.nan
            for each in zip(*map(np.ravel, self.components), strict=True)
        ]
        return self._given(np.reshape(found, np.shape(self.mean)))

    def _given(self, value: Floats) -> Number:
        """Return a float for one table, an array for many."""
        return cast("Number", value if np.ndim(self.mean) else float(value))

    def _bound(self, level: float, sign: int) -> Number:
        mean = np.asarray(self.mean)
        if self.n < 2:
            return self._given(np.full(mean.shape, -sign * np.inf))
        if self.S < TREATMENT_SEEDS:
            u = sign * _studentized_quantile(sign * self.documents, level)
        else:
            u = self._unskewed(sign * self._critical(1 - level))
        u = np.where(self._constant, 0.0, u)
        return self._given(mean - u * np.sqrt(self.variance))

    def _p(self, mu: float, sign: int) -> Number:
        if self.n < 2:
            return self._given(np.ones(np.shape(self.mean)))
        off = sign * (np.asarray(self.mean) - mu)
        if self.S < TREATMENT_SEEDS:
            p = _studentized_p(sign * self.documents, self._over_spread(off))
        else:
            p = self._tail(self._transformed(off, sign))
        return self._given(np.where(self._constant, ~self._surely(off), p))

    def _shows(self, p: float, mu: float, sign: int) -> NDArray[np.bool_]:
        if self.n < 2 or self.S < TREATMENT_SEEDS:
            return np.asarray(self._p(mu, sign)) <= p
        off = sign * (np.asarray(self.mean) - mu)
        shown = self._transformed(off, sign) >= self._critical(p)
        return np.where(self._constant, self._surely(off), shown)

    def _transformed(self, off: Floats, sign: int) -> Floats:
        """Return what is compared with `_critical`, of a mean that is `off` above."""
        return sign * self._skewed(sign * self._over_spread(off))

    def _surely(self, off: Floats) -> NDArray[np.bool_]:
        """Say whether the mean of a constant table is above: by more than rounding."""
        return np.asarray(off > _ROUNDING * np.abs(self.mean))

    @functools.cached_property
    def _constant(self) -> NDArray[np.bool_]:
        """Whether the values of a table differ by no more than rounding."""
        return np.sqrt(self.variance) <= _ROUNDING * np.abs(self.mean)

    def _over_spread(self, off: Floats) -> Floats:
        return np.asarray(off / np.where(self._constant, 1.0, np.sqrt(self.variance)))

    def _skewed(self, u: Floats) -> Floats:
        """Transform a studentized mean to near symmetry (Hall 1992); monotone."""
        g = np.asarray(self.skew)
        return u + g * u**2 / 3 + g**2 * u**3 / 27 + g / 6

    def _unskewed(self, t: Floats) -> Floats:
        """Invert `_skewed`: ((1 + g u / 3)^3 - 1) / g + g / 6 = t."""
        g = np.asarray(self.skew)
        rest = t - g / 6
        root = np.cbrt(1 + g * rest)
        return np.asarray(3 * rest / (root**2 + root + 1))

    def _critical(self, p: float) -> Floats:
        """Return q, which the transformed mean exceeds in a share p of tables."""
        return _critical(p, self._weight_of_seeds, self.S, self.n)

    @functools.cached_property
    def _weight_of_seeds(self) -> Floats:
        """What share of the variance is the seeds'."""
        total = np.asarray(self.ms_seed) + np.asarray(self.ms_document)
        return np.asarray(self.ms_seed / np.where(total > 0, total, 1.0))

    def _tail(self, t: Floats) -> Floats:
        """Invert `_critical` between the p of the two t-tests that it lies between."""
        from scipy.optimize import elementwise

        size, weight = np.broadcast_arrays(np.abs(t), self._weight_of_seeds)
        apart = [scipy.special.stdtr(df, -size) for df in (self.S - 1, self.n - 1)]
        low, high = np.log(np.maximum(np.sort(apart, axis=0), _SMALLEST))

        def beyond(log_p: Floats, size: Floats, weight: Floats) -> Floats:
            return _critical(np.exp(log_p), weight, self.S, self.n) - size

        found = elementwise.find_root(
            beyond, (low - _SLACK, high + _SLACK), args=(size, weight)
        )
        return np.asarray(np.where(t > 0, np.exp(found.x), 1 - np.exp(found.x)))


@dataclass(frozen=True)
class Design:
    """How many seeds and documents a contrast has."""

    seeds: int
    documents: int

    def detectable(
        self, components: tuple[float, float, float], level: float, power: float
    ) -> float:
        """Return the smallest true difference found with `power`, for normal effects.

        `components` are the variances of seeds, documents and residuals. The mean is
        independent of both mean squares, and these are multiples of chi^2: power is
        averaged over a grid of their quantiles.
        """
        if not any(components):
            return 0.0
        of_seeds, of_documents, residual = components
        if self.seeds < TREATMENT_SEEDS:  # these weights: their effects are constants
            of_seeds = 0.0
        ms_seed = residual + self.documents * of_seeds
        ms_document = residual + self.seeds * of_documents
        cells = self.seeds * self.documents
        error = np.sqrt((ms_seed + ms_document - residual) / cells)
        half = _chi_square_quantiles(self.documents - 1) * ms_document
        t = _student(self.documents - 1, 1 - level)
        if self.seeds >= TREATMENT_SEEDS:
            by_seeds = _chi_square_quantiles(self.seeds - 1)[:, None] * ms_seed
            weight = by_seeds / (by_seeds + half)
            t = _critical(1 - level, weight, self.seeds, self.documents)
            half = _variance(by_seeds, half, np.asarray(residual))
        return _found_with(t * np.sqrt(half / cells), float(error), power)


def _found_with(half_widths: Floats, error: float, power: float) -> float:
    """Solve mean P(difference + error Z > half width) = power for the difference."""
    low, high = 0.0, float(np.max(half_widths)) + 10 * error
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        mean = np.mean(scipy.special.ndtr((middle - half_widths) / error))
        low, high = (low, middle) if mean >= power else (middle, high)
    return high


@functools.lru_cache
def _chi_square_quantiles(df: int) -> Floats:
    """Return chi^2 / df at the middles of equal shares of probability."""
    shares = (np.arange(_GRID) + 0.5) / _GRID
    return np.asarray(2 * scipy.special.gammaincinv(df / 2, shares) / df)


def _variance(ms_seed: Floats, ms_document: Floats, ms_residual: Floats) -> Floats:
    """Return the variance of the mean times the number of cells.

    Both mean squares hold the residual once, so their sum counts it twice. Less one
    of it is unbiased, and says "lower" falsely too often where documents are few and
    skewed; the whole sum covers 99.7 % in place of 95 % where there is nothing but
    residual. So it is taken off in so far as it is all there is.
    """
    largest = np.maximum(ms_seed, ms_document)
    share = ms_residual / np.where(largest > 0, largest, 1.0)
    total = ms_seed + ms_document
    return np.asarray(np.maximum(total - share**3 * ms_residual, total / 2))


def _critical(p: float | Floats, weight: Floats, seeds: int, n: int) -> Floats:
    """Weigh the squares of Student's t for seeds and for documents.

    `weight` is the seeds' share of the variance. Satterthwaite's degrees of freedom in
    place of the two t's fail in the far tail.
    """
    by_seeds, by_documents = _student(seeds - 1, p), _student(n - 1, p)
    square = weight * by_seeds**2 + (1 - weight) * by_documents**2
    return np.asarray(np.sign(by_documents) * np.sqrt(square))


def _student(df: int, p: Any) -> Any:
    """Return what Student's t exceeds with probability p."""
    return -scipy.special.stdtrit(df, p)


def _summarised(tables: Floats) -> Crossed[Any]:
    """Reduce [..., seeds, documents] to what every bound and p is made of."""
    seeds, n = tables.shape[-2:]
    if tables.size == 0:
        nothing = np.full(tables.shape[:-2], np.nan)
        return _crossed([nothing[()]] * 6, np.zeros((*nothing.shape, 0)), seeds)
    documents, by_seed = tables.mean(-2), tables.mean(-1)
    mean = documents.mean(-1)
    if not np.isfinite(mean).all():
        raise ValueError("every value of a table must be finite")
    off, off_by_seed = documents - mean[..., None], by_seed - mean[..., None]
    rest = tables - documents[..., None, :]
    rest -= off_by_seed[..., None]  # in place: such tables may be large
    ms_seed = n * np.square(off_by_seed).sum(-1) / max(seeds - 1, 1)
    ms_document = seeds * np.square(off).sum(-1) / max(n - 1, 1)
    squares = np.einsum("...si,...si->...", rest, rest)
    ms_residual = squares / max((seeds - 1) * (n - 1), 1)
    variance = (
        _variance(ms_seed, ms_document, ms_residual)
        if seeds >= TREATMENT_SEEDS
        else ms_document
    ) / (n * seeds)
    cubed = n**2 * np.power(variance, 1.5)
    third = (np.square(off) * off).mean(-1)
    skew = np.divide(third, cubed, out=np.zeros_like(mean), where=cubed > 0)
    numbers = (mean, ms_seed, ms_document, ms_residual, variance, skew)
    return _crossed([number[()] for number in numbers], documents, seeds)


def _crossed(numbers: Sequence[Any], documents: Floats, seeds: int) -> Crossed[Any]:
    mean, ms_seed, ms_document, ms_residual, variance, skew = numbers
    return Crossed(
        mean, ms_seed, ms_document, ms_residual, variance, skew, documents, seeds
    )


@functools.lru_cache(2)
def _draws(n: int) -> Floats:
    """Return how often each of n documents is in each resample: [resamples, n]."""
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


def _studentized(documents: Floats) -> Floats:
    """Return (resampled mean - mean) / its standard error: [n] to [resamples].

    A resample without spread counts as beyond everything: it is infinite.
    """
    n = len(documents)
    centred = documents - documents.mean()
    mean, square = (power @ _draws(n).T / n for power in (centred, centred**2))
    variance = square - mean**2
    spread = variance > _ROUNDING * square
    error = np.sqrt(np.where(spread, variance, 1.0) / (n - 1))
    return np.where(spread, mean / error, np.inf)


def _studentized_quantile(documents: Floats, level: float) -> Floats:
    """Return the smallest studentized mean whose p is at most 1 - `level`."""
    beyond = math.floor((1 - level) * (RESAMPLES + 1) + _ROUNDING)
    if beyond < 1:
        return np.asarray(np.inf)
    k = RESAMPLES - beyond
    rows = [np.partition(_studentized(row), k)[k] for row in _rows(documents)]
    return np.reshape(rows, documents.shape[:-1])


def _studentized_p(documents: Floats, u: Floats) -> Floats:
    """Return the share of resamples at or above the observed u, itself included."""
    pairs = zip(_rows(documents), np.ravel(u), strict=True)
    counts = [np.count_nonzero(_studentized(row) >= each) for row, each in pairs]
    return np.reshape((1 + np.asarray(counts)) / (RESAMPLES + 1), np.shape(u))


def _rows(documents: Floats) -> Floats:
    return documents.reshape(-1, documents.shape[-1])
