"""What two arms differ by in a run: by a metric, by an attack's dL, by its success."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harness.records import TREATMENT_SEEDS, Estimate, Record
from harness.verdicts.compared import (
    LARGEST_LOGARITHM,
    Comparison,
    Difference,
    EverySeed,
    Floats,
    OverSeeds,
    Reduction,
    grown,
)
from harness.verdicts.losses import Losses, Part, Reading, averaged
from harness.verdicts.results import Arm, Results, Sums

_EXPONENTIAL = "perplexity"
"""The unit of estimates that are exp of a ratio of sums."""
_SAME = 1e-6
"""How near sums of rows have to come to a recorded estimate, relative."""
_LEAST = 1e-12
"""Of a ratio of sums, what is at least left without one of its units."""
_GROUPS = 500
"""How many groups units are put into where few seeds leave a bootstrap over them."""
_HALF_WIDTH = 1.959964
"""Standard errors from the middle of a 95 % interval to its end."""
_UNKNOWN = (math.nan, math.nan)


def of_attack(
    losses: Losses,
    arm: Arm,
    other: Arm,
    attack: str,
    *,
    threshold: float | None = None,
    among: Sequence[int] | None = None,
) -> Comparison | str:
    """Compare what an attack did to two arms, or say why that cannot be done.

    The difference of dL; with a threshold, by how much of itself success is reduced.
    `among` limits it to some of the seeds.
    """
    known = {(x.model, x.label): x for x in losses.findings.arms}
    sides = [known.get((x.model, x.label)) for x in (arm, other)]
    if None in sides:
        return "a copy with a planted weakness is no arm to compare"
    parts = [
        Part(side, attack, full=full, threshold=threshold)
        for full in (True, False)
        for side in sides
        if side is not None
    ]
    read = losses.read(*parts, among=among)
    if isinstance(read, str):
        return read
    means = _means_without_errors(read)
    if means is None:
        return "every pair has an error"
    compare = _reduction if threshold is not None else _difference
    return compare(read, means)


def of_metric(
    arm: Arm,
    other: Arm,
    name: tuple[str, str],
    *,
    relative: bool = False,
    among: Sequence[int] | None = None,
) -> Difference | OverSeeds | str:
    """Compare an estimate of a metric, of two arms, or say why that cannot be done.

    `name` is the metric's label and the estimate's name. Rows are paired where the
    metric says what they add to it, and both arms have the same ones; else values are
    paired by seed.
    """
    seeds = [x for x in arm.variants if x in other.variants]
    seeds = [x for x in seeds if among is None or x in among]
    if not seeds:
        return "no seed in common"
    records = [(arm.variants[seed], other.variants[seed]) for seed in seeds]
    found = [tuple(_estimate(x, name) for x in pair) for pair in records]
    pairs = [(a, b) for a, b in found if a is not None and b is not None]
    if len(pairs) < len(found):
        return _no_number(name, [x for pair in records for x in pair])
    for estimate in (x for pair in pairs for x in pair):
        if estimate.value is None:
            return estimate.reason or "it is null"
        if relative and estimate.value <= 0:
            return "a number that is not above 0 has no relative change"
    return _paired(arm.results, records, pairs, name, relative) or _by_seed(
        pairs, relative
    )


def perplexity_change(arm: Arm, other: Arm, metric: str, loss: str) -> Comparison | str:
    """Compare perplexities by the loss that is their logarithm: the relative change."""
    found = of_metric(arm, other, (metric, loss))
    if isinstance(found, str):
        return found
    return replace(found, relative=True, value=grown(found.value))


def under_each(
    seeds: Sequence[int],
    compare: Callable[[Sequence[int]], Comparison | str],
    worst: Callable[[Sequence[float]], int],
) -> EverySeed | str:
    """Compare under each seed alone; `worst` says which of the numbers is shown."""
    found = []
    for seed in seeds:
        one = compare([seed])
        if isinstance(one, str):
            return one
        found.append(one)
    if not found:
        return "no seed in common"
    return EverySeed(found, worst([x.value for x in found]))


# --- attacks ------------------------------------------------------------------------


def _means_without_errors(read: Reading) -> tuple[float, float] | None:
    """Return the means of both arms over what failed on neither, under any seed."""
    arm_most, other_most, _, _ = read.rows
    failed = np.asarray(np.any(_failed(read), axis=(0, 1)))
    units = [unit for unit, bad in zip(read.units, failed, strict=True) if not bad]
    if not units:
        return None
    own, base = (
        float(averaged(x[:, ~failed], units).mean()) for x in (arm_most, other_most)
    )
    return own, base


def _failed(read: Reading) -> list[NDArray[np.bool_]]:
    """Say of each arm's rows which are errors: where it matters how they count."""
    arm_most, other_most, arm_least, other_least = read.rows
    return [arm_most != arm_least, other_most != other_least]


def _difference(read: Reading, sides: tuple[float, float]) -> Difference:
    arm_most, other_most, arm_least, other_least = _by_unit(read)
    own, base = sides
    return Difference(
        value=own - base,
        sides=sides,
        seeds=read.seeds,
        most=arm_most - other_least,
        least=arm_least - other_most,
        errors=_errors(read),
    )


def _reduction(read: Reading, sides: tuple[float, float]) -> Reduction | str:
    arm_most, other_most, arm_least, other_least = _by_unit(read)
    own, base = sides
    if base == 0:
        return "the attack never succeeds on the other arm: there is nothing to reduce"
    return Reduction(
        value=1 - own / base,
        sides=sides,
        seeds=read.seeds,
        arm_most=arm_most,
        arm_least=arm_least,
        other_most=other_most,
        other_least=other_least,
        errors=_errors(read),
    )


def _by_unit(read: Reading) -> list[Floats]:
    return [averaged(x, read.units) for x in read.rows]


def _errors(read: Reading) -> float:
    """Return the larger share of rows in error, of both arms."""
    return max(float(x.mean()) for x in _failed(read))


# --- metrics ------------------------------------------------------------------------

Records = Sequence[tuple[Record, Record]]
"""Of the arm and of the other one, seed by seed."""
Estimates = Sequence[tuple[Estimate, Estimate]]


def _estimate(record: Record, name: tuple[str, str]) -> Estimate | None:
    return record.results.get(name[0], {}).get(name[1])


def _no_number(name: tuple[str, str], records: Sequence[Record]) -> str:
    label, estimate = name
    known = dict.fromkeys(x for r in records for x in r.results.get(label, {}))
    listed = ", ".join(known) or "none"
    return f"a record has no number {estimate!r} of {label} (there are: {listed})"


def _paired(
    results: Results,
    records: Records,
    estimates: Estimates,
    name: tuple[str, str],
    relative: bool,
) -> Difference | None:
    """Pair rows; None where they do not say what the estimates are made of."""
    found = [results.terms(x).get(name) for pair in records for x in pair]
    sums = [x for x in found if x is not None]
    if len(sums) < len(found) or len({x.units for x in sums}) > 1:
        return None
    exponential = {x.unit for pair in estimates for x in pair} == {_EXPONENTIAL}
    known = [_value(x, exponential) for x in sums]
    stated = _values(estimates)
    if not np.allclose(known, stated.ravel(), rtol=_SAME, atol=_SAME):
        return None
    rows = [_rows(x, exponential=exponential, relative=relative) for x in sums]
    table = np.array(rows[::2]) - np.array(rows[1::2])
    value = float(table.mean())
    if all(map(_counts, sums)):
        table = np.hstack([table, _one_each(stated, relative)])
    units = table.shape[1]
    if len(table) < TREATMENT_SEEDS and units > _GROUPS:
        table = _grouped(table)
    return Difference(
        value=grown(value) if relative else value,
        sides=_means(stated),
        seeds=len(records),
        most=table,
        least=table,
        relative=relative,
        grouped=units,
        effective=min(map(_effective, sums)),
        over="rows",
    )


def _grouped(table: Floats) -> Floats:
    """Sum neighbouring units up to groups of the same mean over all.

    A bootstrap of ten thousand task examples would hold 10^8 numbers.
    """
    units = table.shape[1]
    parts = np.array_split(np.arange(units), _GROUPS)
    sums = [table[:, part].sum(axis=1) for part in parts]
    return np.asarray(np.stack(sums, axis=1) * _GROUPS / units)


def _value(sums: Sums, exponential: bool) -> float:
    ratio = float(sums.numerators.sum() / sums.denominators.sum())
    return math.exp(min(ratio, LARGEST_LOGARITHM)) if exponential else ratio


def _rows(sums: Sums, *, exponential: bool, relative: bool) -> Floats:
    """Spread an estimate, or its logarithm, over units: their mean is it exactly.

    Each is as far from it as leaving out the unit moves the ratio (the jackknife's
    pseudo-values), and exponential and logarithm of that to first order. Residuals
    alone would be smallest where a unit is all that the ratio is made of.
    """
    ratio = sums.numerators.sum() / sums.denominators.sum()
    off = (sums.numerators - ratio * sums.denominators) / sums.denominators.mean()
    kept = 1 - sums.denominators / sums.denominators.sum()
    off *= (1 - 1 / len(off)) / np.maximum(kept, _LEAST)
    off -= off.mean()
    if exponential:
        return np.asarray(ratio + off if relative else np.exp(ratio) * (1 + off))
    return np.asarray(np.log(ratio) + off / ratio if relative else ratio + off)


def _effective(sums: Sums) -> float:
    """Count the units of equal denominators that tell as much (Kish 1965)."""
    squares = np.square(sums.denominators / sums.denominators.max()).sum()
    return float((sums.denominators / sums.denominators.max()).sum() ** 2 / squares)


def _counts(sums: Sums) -> bool:
    """Say whether an estimate is a share of units, each counted or not."""
    return bool(
        np.isin(sums.numerators, (0, 1)).all() and (sums.denominators == 1).all()
    )


def _one_each(values: Floats, relative: bool) -> Floats:
    """Return two units more [seeds, 2]: one counted on either arm alone.

    Arms that agree on all units do not prove that they always would: see `Reduction`.
    """
    one = 1 / values.mean() if relative else 1.0
    return np.broadcast_to([one, -one], (len(values), 2))


def _by_seed(estimates: Estimates, relative: bool) -> OverSeeds:
    """Pair values seed by seed."""
    values = _values(estimates)
    own, base = (np.log(values) if relative else values).T
    mean = float((own - base).mean())
    return OverSeeds(
        value=grown(mean) if relative else mean,
        sides=_means(values),
        differences=own - base,
        error=_error(estimates, relative),
        relative=relative,
        effective=_resting_on(estimates),
    )


def _values(estimates: Estimates) -> Floats:
    """Return the values [seeds, 2]: of the arm, and of the other one."""
    return np.array([[x.value for x in pair] for pair in estimates], dtype=np.float64)


def _means(values: Floats) -> tuple[float, float]:
    own, base = values.mean(axis=0)
    return float(own), float(base)


def _resting_on(estimates: Estimates) -> float:
    """Return the fewest units of any estimate; a single one is no sample."""
    known = [x.n for pair in estimates for x in pair if x.n > 1]
    return min(known, default=math.inf)


def _error(estimates: Estimates, relative: bool) -> float | None:
    """Return the standard error of a difference, from the intervals of both sides."""
    known = [[x.interval or _UNKNOWN for x in pair] for pair in estimates]
    low, high = np.array(known).T
    scale = _values(estimates).T if relative else 1.0
    own = (high - low) / (2 * _HALF_WIDTH) / scale
    error = math.sqrt(np.square(own).sum() / len(estimates))
    return None if math.isnan(error) else error
