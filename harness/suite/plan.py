"""Plans: the variants and cells of an experiment, each with its id.

An id is made of the labels and a short hash of the unit's identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from harness.api import CellKey, Scene
from harness.base import NothingMatched, UsageError, content_hash, unknown_name
from harness.suite.experiment import Experiment
from harness.suite.identity import (
    Identity,
    cell_identity,
    subject_identity,
    variant_identity,
)
from harness.suite.model import Suite

UnitKind = Literal["variant", "cell"]


class Unit(Protocol):
    """What a plan is made of: a variant or a cell, each with a record of its own."""

    @property
    def kind(self) -> UnitKind:
        """Which of the two it is."""

    @property
    def id(self) -> str:
        """Readable labels, and a hash of its identity."""

    @property
    def identity(self) -> Identity:
        """What its hash is computed from."""

    @property
    def variant(self) -> VariantPlan:
        """The variant: that of a cell, or itself."""

    @property
    def attack(self) -> str | None:
        """The label of a cell's attack; None for a variant."""

    @property
    def needs(self) -> tuple[Unit, ...]:
        """The units that come before it."""


@dataclass(frozen=True)
class VariantPlan:
    """One trained subject: model, arm and seed."""

    kind: ClassVar[UnitKind] = "variant"
    attack: ClassVar[None] = None
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
    reads: tuple[CellPlan, ...] = field(default=(), repr=False)
    """The cells of the arm that it starts from, whose rows it uses."""

    @property
    def variant(self) -> VariantPlan:
        """Itself, as a unit."""
        return self

    @property
    def needs(self) -> tuple[Unit, ...]:
        """The units that come before it."""
        return (*self.sources, *self.reads)


@dataclass(frozen=True)
class CellPlan:
    """One attack on one variant."""

    kind: ClassVar[UnitKind] = "cell"
    id: str
    variant: VariantPlan
    attack: str
    identity: Identity = field(repr=False)
    """What its hash is computed from."""
    scene: Scene = field(repr=False)
    """What stands around it in the suite, whatever was selected of it."""
    reads: Mapping[CellKey, CellPlan] = field(default_factory=dict, repr=False)
    """The cells whose rows it uses."""
    borrows: Mapping[str, VariantPlan] = field(default_factory=dict, repr=False)
    """The variants whose subjects it uses besides its own, by arm."""

    @property
    def needs(self) -> tuple[Unit, ...]:
        """The units that come before it."""
        return (self.variant, *self.borrows.values(), *self.reads.values())


@dataclass(frozen=True)
class Plan:
    """What a suite has to run, in the suite's order."""

    experiment: Experiment
    variants: tuple[VariantPlan, ...]
    cells: tuple[CellPlan, ...]

    @property
    def units(self) -> tuple[Unit, ...]:
        """All of it, variants first."""
        return (*self.variants, *self.cells)


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
    planner = _Planner(experiment)
    variants = tuple(
        planner.variant(model, arm, seed)
        for model in chosen["model"]
        for arm in _with_sources(suite, chosen["arm"])
        for seed in map(int, chosen["seed"])
        if seed in experiment.seeds_of(arm)
    )
    cells = tuple(
        planner.cell(variant, attack)
        for variant in variants
        if variant.arm in chosen["arm"]
        for attack in chosen["attack"]
        if attack in experiment.attacks_of(variant.arm)
        and planner.has_input(variant, attack)
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


def _with_sources(suite: Suite, arms: Iterable[str]) -> list[str]:
    """Put before each arm those that it is made from; a valid suite has no circles."""
    found: dict[str, None] = {}
    for arm in arms:
        sources = suite.arms[arm].sources.values()
        found |= dict.fromkeys([*_with_sources(suite, sources), arm])
    return list(found)


class _Planner:
    """Makes the units of an experiment, each once."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._variants: dict[tuple[str, str, int], VariantPlan] = {}
        self._cells: dict[tuple[str, str], CellPlan] = {}

    def variant(self, model: str, arm: str, seed: int) -> VariantPlan:
        key = model, arm, seed
        if key not in self._variants:
            self._variants[key] = self._variant(model, arm, seed)
        return self._variants[key]

    def cell(self, variant: VariantPlan, label: str) -> CellPlan:
        key = variant.id, label
        if key not in self._cells:
            self._cells[key] = self._cell(variant, label)
        return self._cells[key]

    def has_input(self, variant: VariantPlan, label: str) -> bool:
        """Say whether there is a cell to replay, under this seed, if that is all."""
        scene = self._experiment.scene(variant.arm, variant.seed)
        attack = self._experiment.attacks[label]
        return not attack.replays or bool(attack.reads(scene))

    def _variant(self, model: str, arm: str, seed: int) -> VariantPlan:
        experiment = self._experiment
        subject = subject_identity(experiment, model, arm, seed)
        identity = variant_identity(experiment, subject, arm)
        sources = dict.fromkeys(experiment.suite.arms[arm].sources.values())
        reads = self._attacked(model, arm, seed) if "attacked" in subject["arm"] else ()
        return VariantPlan(
            id=_unit_id(f"{model}.{arm}.s{seed}", identity),
            model=model,
            arm=arm,
            seed=seed,
            identity=identity,
            subject_key=content_hash(subject),
            sources=tuple(self.variant(model, source, seed) for source in sources),
            reads=tuple(reads),
        )

    def _attacked(self, model: str, arm: str, seed: int) -> Iterator[CellPlan]:
        """Yield the cells of the arm that an arm starts from, of what both get."""
        source = str(self._experiment.suite.arms[arm].derive_from)
        for label in self._experiment.searches(arm, source):
            yield self.cell(self.variant(model, source, seed), label)

    def _cell(self, variant: VariantPlan, label: str) -> CellPlan:
        model, seed = variant.model, variant.seed
        scene = self._experiment.scene(variant.arm, seed)
        attack = self._experiment.attacks[label]
        reads = {
            key: self.cell(self.variant(model, key.arm, key.seed), key.attack)
            for key in attack.reads(scene)
        }
        borrows = {arm: self.variant(model, arm, seed) for arm in attack.borrows(scene)}
        identity = cell_identity(
            self._experiment,
            variant.identity,
            label,
            scene,
            {key: cell.identity for key, cell in reads.items()},
            {arm: borrowed.subject_key for arm, borrowed in borrows.items()},
        )
        return CellPlan(
            id=_unit_id(f"{model}.{variant.arm}.s{seed}.{label}", identity),
            variant=variant,
            attack=label,
            identity=identity,
            scene=scene,
            reads=reads,
            borrows=borrows,
        )


def _unit_id(stem: str, identity: Identity) -> str:
    return f"{stem}-{content_hash(identity)[:8]}"
