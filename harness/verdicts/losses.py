"""Losses of two arms side by side, each error counted against what is claimed.

An error is neither harm nor harmlessness. Where a claim would gain from little harm, it
stands for full harm, and where it would gain from much, for none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray

from harness.records import TREATMENT_SEEDS
from harness.verdicts.claims import Claim, above, below
from harness.verdicts.findings import SHARES, Arm, Attack, Findings, Floats

FULL = len(SHARES) - 1
"""The column of the whole budget."""
STATED = SHARES.index(1.0)
"""The column of the budget that the suite states."""


@dataclass(frozen=True)
class Part:
    """What one attack did to one arm, as a claim about it reads it."""

    arm: Arm
    attack: str
    full: bool
    """Whether errors stand for full harm; else for none."""
    share: int = FULL
    """A column of `SHARES`."""
    threshold: float | None = None
    """Read, in place of dL, 1 for a success at this threshold and 0 for none."""
    source: str | None = None
    """Of a transfer: the arm that the prompts were found on."""


@dataclass(frozen=True, eq=False)
class Reading:
    """Rows of several parts side by side: what a claim is made of."""

    rows: Sequence[Floats]
    """dL [..., S, n] of each part; or [..., S searches, n], as `Losses.read` says."""
    units: Sequence[str]
    seeds: int
    searches: int
    """Of a universal attack, within a seed."""

    def above(self, rows: Floats, mu: float = 0.0) -> Claim:
        """Claim that the mean over seeds and units is above `mu`."""
        return self._of(above(averaged(rows, self.units), mu))

    def below(self, rows: Floats, mu: float = 0.0) -> Claim:
        """Claim that the mean over seeds and units is below `mu`."""
        return self._of(below(averaged(rows, self.units), mu))

    def _of(self, claim: Claim) -> Claim:
        return replace(claim, seeds=self.seeds, searches=self.searches)


class Losses:
    """The rows of a run, as tables of seeds by examples."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings

    def by_unit(self, arm: Arm, rows: Floats) -> Floats:
        """Average the examples of each unit: [..., S, n] to [..., S, units]."""
        return averaged(rows, self.units(arm))

    def units(self, arm: Arm) -> Sequence[str]:
        """Return the unit of each example of an arm's model."""
        return self.findings.models[arm.model].units

    def full_harm(self, arm: Arm) -> Floats:
        """Return dL [..., S, n] of an example whose loss cannot be told.

        As high as that of a uniform guess, and no lower than any that was measured.
        """
        uniform = np.log(self.findings.models[arm.model].vocabulary)
        return np.asarray(np.maximum(uniform - np.nan_to_num(arm.clean), self._largest))

    @cached_property
    def _largest(self) -> float:
        cells = [cell for arm in self.findings.arms for cell in arm.cells.values()]
        known = [x.delta for x in cells if not np.isnan(x.delta).all()]
        return max((float(np.nanmax(x)) for x in known), default=0.0)

    # --- some attacks ---------------------------------------------------------------

    def read(self, *parts: Part, among: Sequence[int] | None = None) -> Reading | str:
        """Return the parts over the seeds that all of them have, or say why not.

        `among` limits them to some of the seeds.

        Where a part has the first examples alone, so have all. A universal attack's
        searches are averaged within a seed; where fewer seeds than speak of a treatment
        leave the search as the unit, each is a row instead.
        """
        for part in parts:
            if part.attack not in part.arm.cells:
                return f"{part.attack} is not complete on {part.arm.label}"
        seeds = [x for x in parts[0].arm.seeds if all(_has(part, x) for part in parts)]
        seeds = [x for x in seeds if among is None or x in among]
        if not seeds:
            return "no seed has all that is compared"
        searches, apart = self._searches(parts), len(seeds) < TREATMENT_SEEDS
        if any(x.share != FULL for x in parts):
            searches = 1
        few = len(seeds) * searches < TREATMENT_SEEDS
        if few and self._any_universal(parts):
            return "one search for all examples at one seed has no interval"
        n = min(x.arm.cells[x.attack].delta.shape[-2] for x in parts)
        each = (self._rows(part, seeds, searches if apart else 1) for part in parts)
        units = self.units(parts[0].arm)[:n]
        return Reading([x[..., :n] for x in each], units, len(seeds), searches)

    def _searches(self, parts: Sequence[Part]) -> int:
        """Count the searches within a seed that all universal attacks have."""
        counts = [
            1 if cell.replicates is None else 1 + cell.replicates.shape[-2]
            for cell in (x.arm.cells[x.attack] for x in parts if self._universal(x))
        ]
        return min(counts, default=1)

    def _any_universal(self, parts: Sequence[Part]) -> bool:
        return any(map(self._universal, parts))

    def _universal(self, part: Part) -> bool:
        return self.findings.attacks[part.attack].universal

    def _rows(self, part: Part, seeds: Sequence[int], apart: int) -> Floats:
        """Return [..., S, n], the searches averaged, or so many of them apart."""
        at = places(part.arm, seeds)
        cell = part.arm.cells[part.attack]
        own = cell.delta[..., part.share]
        if part.source is not None:
            own = cell.sources[part.source]
        found = own[..., at, None, :]
        if cell.replicates is not None and part.share == FULL:
            others = cell.replicates[..., at, :, :]
            found = np.concatenate([found, others], axis=-2)
        failed = np.isnan(found)
        if part.threshold is not None:
            found = np.where(failed, np.nan, found > np.log1p(part.threshold))
        if failed.any():
            harm: Floats | float = 0.0 if part.threshold is None else float(part.full)
            if part.full and part.threshold is None:
                harm = self.full_harm(part.arm)[..., at, None, : found.shape[-1]]
            found = np.where(failed, harm, found)
        if apart == 1:
            return np.asarray(found.mean(axis=-2))
        # An attack on each example alone has one search, which stands beside each.
        shape = (*found.shape[:-2], apart, found.shape[-1])
        wide = np.broadcast_to(found[..., :apart, :], shape)
        return wide.reshape(*shape[:-3], -1, shape[-1])


# --- the worst of all ---------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Common:
    """The cells of the endpoint that two arms both have, seed by seed."""

    seeds: tuple[int, ...]
    labels: tuple[str, ...]
    there: NDArray[np.bool_]
    """[labels, seeds]"""


def common(findings: Findings, first: Arm, second: Arm) -> Common:
    """Return what the worst case of both arms is taken over.

    With fewer seeds than speak of a treatment, attacks that search once for all
    examples are left out: their unit is the search, of which there are too few.
    """
    labels = [attack.label for attack in of_endpoint(findings)]
    found = _common(labels, first, second)
    if len(found.seeds) >= TREATMENT_SEEDS:
        return found
    labels = [label for label in labels if not findings.attacks[label].universal]
    return _common(labels, first, second)


def of_endpoint(findings: Findings) -> list[Attack]:
    """Return the attacks, controls and transfers that the worst case is taken over."""
    main = findings.of("main")
    names = {attack.label for attack in main}
    controls = [attack for attack in findings.of("control") if attack.of in names]
    return [*main, *controls, *findings.of("transfer")]


def _common(labels: Iterable[str], first: Arm, second: Arm) -> Common:
    both = [x for x in labels if x in first.cells and x in second.cells]
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    there = np.array(
        [
            [arm.cells[label].there[arm.seeds.index(s)] for s in seeds]
            for arm in (first, second)
            for label in both
        ],
        dtype=bool,
    ).reshape(2, len(both), len(seeds))
    shared = np.asarray(there.all(axis=0))
    kept = np.asarray(shared.any(axis=0))
    return Common(
        tuple(seed for seed, keep in zip(seeds, kept, strict=True) if keep),
        tuple(both),
        shared[:, kept],
    )


def worst(losses: Losses, arm: Arm, shared: Common, *, full: bool) -> Floats:
    """Return dL [..., S, n, 4] under the worst of the shared cells, seed by seed."""
    rows = _rows_of(arm, shared)
    found = reduce(np.maximum, rows)
    failed = np.isnan(found)
    if not failed.any():
        return found
    if full:
        harm = losses.full_harm(arm)[..., places(arm, shared.seeds), :, None]
        return np.where(failed, harm, found)
    known = reduce(np.fmax, rows)
    return np.where(np.isfinite(known), known, 0.0)


def error_share(arm: Arm, shared: Common) -> float:
    """Return the share of (seed, example) of an arm that a shared cell failed on."""
    failed = np.isnan(reduce(np.maximum, _rows_of(arm, shared)))
    return float(failed.any(axis=-1).mean())


def _rows_of(arm: Arm, shared: Common) -> list[Floats]:
    """Return dL [..., S, n, 4] of each cell; -inf under seeds that it is not there."""
    at = places(arm, shared.seeds)
    found = []
    for label, there in zip(shared.labels, shared.there, strict=True):
        rows = arm.cells[label].delta[..., at, :, :]
        kept = there[:, None, None]
        found.append(rows if kept.all() else np.where(kept, rows, -np.inf))
    return found


def places(arm: Arm, seeds: Sequence[int]) -> slice | list[int]:
    """Return where an arm has some of its seeds: all of them without a copy."""
    if arm.seeds == tuple(seeds):
        return slice(None)
    return [arm.seeds.index(seed) for seed in seeds]


def averaged(rows: Floats, units: Sequence[str]) -> Floats:
    """Average over the columns of each unit: [..., n] to [..., units]."""
    names, index = np.unique(np.asarray(units), return_inverse=True)
    if len(names) == len(index):
        return rows
    member = index[:, None] == np.arange(len(names))
    return np.asarray(rows @ (member / member.sum(axis=0)))


def _has(part: Part, seed: int) -> bool:
    """Say whether a part's cell is complete under a seed."""
    arm = part.arm
    return seed in arm.seeds and bool(
        arm.cells[part.attack].there[arm.seeds.index(seed)]
    )
