"""What two arms differ by in a run: by a metric, by an attack's dL, by its success."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

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
    return _reduction(read) if threshold is not None else _difference(read)


def of_metric(
    arm: Arm,
    other: Arm,
    name: tuple[str, str],
    *,
    relative: bool = False,
    among: Sequence[int] | None = None,
) -> Comparison | str:
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
    if isinstance(found, str) or not isinstance(found, Difference | OverSeeds):
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


def _sides(read: Reading) -> tuple[list[Floats], tuple[float, float], float]:
    """Return tables by unit, the means without errors, and the share of errors."""
    arm_most, other_most, arm_least, other_least = read.rows
    erred = [arm_most != arm_least, other_most != other_least]
    known = ~(erred[0] | erred[1]).any(axis=0)
    units = [unit for unit, keep in zip(read.units, known, strict=True) if keep]
    means = [
        float(averaged(x[:, known], units).mean()) if units else math.nan
        for x in (arm_most, other_most)
    ]
    tables = [averaged(x, read.units) for x in read.rows]
    return tables, (means[0], means[1]), max(float(x.mean()) for x in erred)


def _difference(read: Reading) -> Difference | str:
    (arm_most, other_most, arm_least, other_least), sides, errors = _sides(read)
    if math.isnan(sides[0]):
        return "every pair has an error"
    return Difference(
        value=sides[0] - sides[1],
        sides=sides,
        seeds=read.seeds,
        most=arm_most - other_least,
        least=arm_least - other_most,
        errors=errors,
    )


def _reduction(read: Reading) -> Reduction | str:
    (arm_most, other_most, arm_least, other_least), sides, errors = _sides(read)
    if math.isnan(sides[0]):
        return "every pair has an error"
    if sides[1] == 0:
        return "the attack never succeeds on the other arm: there is nothing to reduce"
    return Reduction(
        value=1 - sides[0] / sides[1],
        sides=sides,
        seeds=read.seeds,
        arm_most=arm_most,
        arm_least=arm_least,
        other_most=other_most,
        other_least=other_least,
        errors=errors,
    )


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
    sums = [tuple(results.terms(x).get(name) for x in pair) for pair in records]
    flat = [x for pair in sums for x in pair if x is not None]
    if len(flat) < 2 * len(records) or any(x.units != flat[0].units for x in flat):
        return None
    exponential = estimates[0][0].unit == _EXPONENTIAL
    known = [_value(x, exponential) for x in flat]
    stated = [x.value or 0.0 for pair in estimates for x in pair]
    if not np.allclose(known, stated, rtol=_SAME, atol=_SAME):
        return None
    rows = [_rows(x, exponential=exponential, relative=relative) for x in flat]
    table = np.array(rows[::2]) - np.array(rows[1::2])
    value = float(table.mean())
    if all(map(_counts, flat)):
        table = np.hstack([table, _one_each(estimates, relative)])
    units = table.shape[-1]
    if len(table) < TREATMENT_SEEDS and units > _GROUPS:
        table = _grouped(table)
    return Difference(
        value=grown(value) if relative else value,
        sides=(float(np.mean(stated[::2])), float(np.mean(stated[1::2]))),
        seeds=len(records),
        most=table,
        least=table,
        relative=relative,
        grouped=units,
        effective=min(map(_effective, flat)),
        over="rows",
    )


def _grouped(table: Floats) -> Floats:
    """Sum neighbouring units up to groups of the same mean over all.

    A bootstrap of ten thousand task examples would hold 10^8 numbers.
    """
    units = table.shape[-1]
    parts = np.array_split(np.arange(units), _GROUPS)
    sums = [table[:, part].sum(axis=-1) for part in parts]
    return np.asarray(np.stack(sums, axis=-1) * _GROUPS / units)


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


def _one_each(estimates: Estimates, relative: bool) -> Floats:
    """Return two units more [seeds, 2]: one counted on either arm alone.

    Arms that agree on all units do not prove that they always would: see `Reduction`.
    """
    scale = 1.0
    if relative:
        scale = float(np.mean([x.value or 0.0 for pair in estimates for x in pair]))
    return np.broadcast_to([1 / scale, -1 / scale], (len(estimates), 2))


def _by_seed(estimates: Estimates, relative: bool) -> OverSeeds:
    """Pair values seed by seed."""
    values = np.array([[x.value or 0.0 for x in pair] for pair in estimates])
    scaled = np.log(values) if relative else values
    apart = scaled[:, 0] - scaled[:, 1]
    mean = float(apart.mean())
    return OverSeeds(
        value=grown(mean) if relative else mean,
        sides=(float(values[:, 0].mean()), float(values[:, 1].mean())),
        differences=apart,
        error=_error(estimates, relative),
        relative=relative,
        effective=_resting_on(estimates),
    )


def _resting_on(estimates: Estimates) -> float:
    """Return the fewest units of any estimate; a single one is no sample."""
    known = [x.n for pair in estimates for x in pair if x.n > 1]
    return min(known, default=math.inf)


def _error(estimates: Estimates, relative: bool) -> float | None:
    """Return the standard error of a difference, from the intervals of both sides."""
    squares = []
    for pair in estimates:
        for x in pair:
            if x.interval is None or x.value is None:
                return None
            own = (x.interval[1] - x.interval[0]) / 2 / _HALF_WIDTH
            squares.append((own / x.value if relative else own) ** 2)
    return math.sqrt(sum(squares) / len(estimates))
