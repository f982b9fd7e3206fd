"""Plans: the variants and cells of an experiment, and what identifies each.

An id is made of the labels and a short hash of the unit's identity: all that can
change its results, and nothing else. Labels, the device and the batch size are not in
it, nor is the threshold, because success is derived from the recorded losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.api import CellKey, Scene
from harness.base import NothingMatched, UsageError, content_hash, unknown_name
from harness.suite.experiment import Experiment
from harness.suite.identity import (
    Identity,
    _attack,
    _diagnostics,
    _examples,
    _matched,
    _options,
    _searches,
    _subject_identity,
    _tokens,
    _unit_id,
)
from harness.suite.model import Suite
from harness.suite.scenes import attacks_of, scene_of

__all__ = ["CellPlan", "Plan", "VariantPlan", "content_hash", "make_plan"]
_SELECTABLE = ("model", "arm", "seed", "attack")
_MEASURED = ("metrics", "diagnostics")
"""What is asked of a variant, and changes nothing for its cells."""


@dataclass(frozen=True)
class VariantPlan:
    """One trained subject: model, arm and seed."""

    id: str
    model: str
    arm: str
    seed: int
    identity: Identity = field(repr=False)
    """What its hash is computed from."""
    subject_key: str = field(repr=False)
    """Identifies the frozen weights: the identity without what is measured on them."""
    sources: tuple[VariantPlan, ...] = ()
    """The variants that it is made from: those of the arms that its arm names."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids of the units that come before it."""
        return tuple(source.id for source in self.sources)


@dataclass(frozen=True)
class CellPlan:
    """One attack on one variant."""

    id: str
    variant: VariantPlan
    attack: str
    identity: Identity = field(repr=False)
    """What its hash is computed from."""
    scene: Scene = field(repr=False)
    """What stands around it in the suite, whatever was selected of it."""
    reads: Mapping[CellKey, str] = field(default_factory=dict, repr=False)
    """The ids of the cells whose rows it uses."""
    borrows: Mapping[str, VariantPlan] = field(default_factory=dict, repr=False)
    """The variants whose subjects it uses besides its own, by arm."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids of the units that come before it."""
        others = (variant.id for variant in self.borrows.values())
        return (self.variant.id, *others, *self.reads.values())


@dataclass(frozen=True)
class Plan:
    """What a suite has to run, in the suite's order."""

    experiment: Experiment
    variants: tuple[VariantPlan, ...]
    cells: tuple[CellPlan, ...]


def make_plan(
    experiment: Experiment, only: Mapping[str, Sequence[str]] | None = None
) -> Plan:
    """Expand a resolved experiment; `only` selects by model, arm, seed and attack.

    Each variant comes after those that it is made from, which are added where the
    selection lacks them, without their cells.

    Raises UsageError on an unknown value and NothingMatched if nothing is left.
    """
    suite = experiment.suite
    chosen = _chosen(suite, only or {})
    arms = _with_sources(suite, chosen["arm"])
    planner = _Planner(experiment)
    variants = tuple(
        planner.variant(model, arm, int(seed))
        for model in chosen["model"]
        for arm in arms
        for seed in chosen["seed"]
    )
    cells = tuple(
        planner.cell(variant, attack)
        for variant in variants
        if variant.arm in chosen["arm"]
        for attack in chosen["attack"]
        if attack in attacks_of(suite, variant.arm)
    )
    if not variants:
        raise NothingMatched("the selection leaves nothing of the suite")
    return Plan(experiment, variants, cells)


def _chosen(suite: Suite, only: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    known = {
        "model": list(suite.models),
        "arm": list(suite.arms),
        "seed": [str(seed) for seed in suite.seeds],
        "attack": list(suite.attacks),
    }
    for key, values in only.items():
        if key not in known:
            raise UsageError(f"--only: {unknown_name('key', key, known)}")
        for value in values:
            if value not in known[key]:
                raise UsageError(f"--only: {unknown_name(key, value, known[key])}")
    return {
        key: [value for value in values if key not in only or value in only[key]]
        for key, values in known.items()
    }


def _with_sources(suite: Suite, arms: Sequence[str]) -> list[str]:
    """Put before each arm those that it is made from; a valid suite has no cycles."""
    found: dict[str, None] = {}

    def add(arm: str) -> None:
        for source in suite.arms[arm].sources:
            add(source)
        found[arm] = None

    for arm in arms:
        add(arm)
    return list(found)


class _Planner:
    """Makes the units of an experiment, each once: cells may read each other."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._variants: dict[tuple[str, str, int], VariantPlan] = {}
        self._cells: dict[tuple[str, str], CellPlan] = {}

    def variant(self, model: str, arm: str, seed: int) -> VariantPlan:
        key = model, arm, seed
        if key not in self._variants:
            self._variants[key] = _variant(self._experiment, model, arm, seed)
        return self._variants[key]

    def cell(self, variant: VariantPlan, label: str) -> CellPlan:
        key = variant.id, label
        if key not in self._cells:
            self._cells[key] = self._cell(variant, label)
        return self._cells[key]

    def _cell(self, variant: VariantPlan, label: str) -> CellPlan:
        experiment, suite = self._experiment, self._experiment.suite
        scene = scene_of(suite, experiment.attacks, variant.arm, variant.seed)
        attack, match = experiment.attacks[label], suite.attacks[label].match
        matched = experiment.attacks[match] if match is not None else None
        reads = {key: self._read(variant, key) for key in attack.reads(scene)}
        borrows = {
            arm: self.variant(variant.model, arm, variant.seed)
            for arm in attack.borrows(scene)
        }
        identity = {
            **{k: v for k, v in variant.identity.items() if k not in _MEASURED},
            **_attack(experiment, attack),
            "match": None if matched is None else _matched(experiment, matched, scene),
            "examples": _examples(suite, _searches(experiment, (attack, matched))),
            **_tokens(suite),
            **_neighbours(reads, borrows),
        }
        stem = f"{variant.model}.{variant.arm}.s{variant.seed}.{label}"
        unit_id = _unit_id(stem, identity)
        ids = {key: cell.id for key, cell in reads.items()}
        return CellPlan(unit_id, variant, label, identity, scene, ids, borrows)

    def _read(self, variant: VariantPlan, key: CellKey) -> CellPlan:
        return self.cell(self.variant(variant.model, key.arm, key.seed), key.attack)


# --- identities ---------------------------------------------------------------------


def _variant(experiment: Experiment, model: str, arm: str, seed: int) -> VariantPlan:
    weights = _subject_identity(experiment, model, arm, seed)
    metrics = {
        label: {"metric": metric.name, "options": _options(experiment, metric)}
        for label, metric in experiment.metrics.items()
    }
    identity = {
        **weights,
        "limit": experiment.suite.limit,
        "metrics": metrics,
        "diagnostics": _diagnostics(experiment.suite),
    }
    unit_id = _unit_id(f"{model}.{arm}.s{seed}", identity)
    key = content_hash(weights)
    sources = tuple(
        _variant(experiment, model, source, seed)
        for source in experiment.suite.arms[arm].sources
    )
    return VariantPlan(unit_id, model, arm, seed, identity, key, sources)


def _neighbours(
    reads: Mapping[CellKey, CellPlan], borrows: Mapping[str, VariantPlan]
) -> Identity:
    """Describe what a cell uses of others; labels too, because its rows hold them."""
    found: Identity = {}
    if reads:
        found["reads"] = [
            {**key._asdict(), "cell": content_hash(cell.identity)}
            for key, cell in reads.items()
        ]
    if borrows:
        found["borrows"] = {arm: v.subject_key for arm, v in borrows.items()}
    return found
