"""What a run folder holds, compared with the plan of its own resolved suite."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.api import Registry
from harness.base import code_state, library_versions
from harness.records import PluginRef, Provenance
from harness.running.folder import RunFolder, Status, UnitState
from harness.suite import Plan, Unit, UnitKind, load_experiment, make_plan

STATES: tuple[Status, ...] = ("complete", "failed", "missing", "invalid")
"""What a unit can be, as `UnitState.status` says."""
KINDS: tuple[UnitKind, ...] = ("variant", "cell")
StateOf = Callable[[UnitKind, str], UnitState]
"""Says of a unit, by kind and id, what the folder holds of it."""
MANY = 0.01
"""The share of a cell's examples without a result that a run warns of."""
_NAMED = 4


@dataclass(frozen=True)
class SurveyedUnit:
    """A planned variant or cell, and the state of its record."""

    kind: UnitKind
    id: str
    model: str
    arm: str
    seed: int
    attack: str | None
    """The attack's label; None for a variant."""
    state: UnitState


@dataclass(frozen=True)
class Survey:
    """A run folder, its plan, and the state of every unit of the plan."""

    folder: RunFolder
    plan: Plan
    units: tuple[SurveyedUnit, ...]
    """In the order of the plan, variants first."""

    @property
    def counts(self) -> dict[str, int]:
        """Return how many units are complete, failed, missing and invalid."""
        found = Counter(unit.state.status for unit in self.units)
        return {state: found[state] for state in STATES}

    @cached_property
    def strays(self) -> list[Path]:
        """The folders of units that are not, or no longer, part of the plan."""
        planned = {self.folder.unit_dir(unit.kind, unit.id) for unit in self.units}
        found = [path.parent for kind in KINDS for path in self.folder.records(kind)]
        return [path for path in found if path not in planned]


def survey(root: Path, plugins: Sequence[Path] = (), *, trust: bool = False) -> Survey:
    """Read the state of a run; UsageError where `root` is no run folder.

    Without `trust`, no code is run that the folder names; see `load_experiment`. Units
    whose ids depend on plugins that are not loaded are then found by their labels.
    """
    folder = RunFolder(root)
    folder.check()
    plan = make_plan(load_experiment(folder.suite_file, plugins=plugins, trust=trust))
    return surveyed(folder, plan, folder.state)


def surveyed(folder: RunFolder, plan: Plan, state: StateOf) -> Survey:
    """Return what a run folder holds, compared with its plan; `state` is of a unit."""
    by_label = _ByLabel(folder) if plan.experiment.unjudged else None
    units = []
    for unit in plan.units:
        unit_id = (by_label.id_of(unit) if by_label else None) or unit.id
        units.append(
            SurveyedUnit(
                kind=unit.kind,
                id=unit_id,
                model=unit.variant.model,
                arm=unit.variant.arm,
                seed=unit.variant.seed,
                attack=unit.attack,
                state=state(unit.kind, unit_id),
            )
        )
    return Survey(folder, plan, tuple(units))


def error_warning(found: Survey) -> str | None:
    """Say in which cells over 1 % of the examples have no result; None if in none.

    An example has none where the attack, or scoring what it made, ended in an error.
    """
    lost: dict[str, tuple[int, int]] = {}
    for unit in found.units:
        record = unit.state.valid
        errors = record.results.get("attack", {}).get("errors") if record else None
        if errors is not None and errors.value and errors.value > MANY * errors.n:
            lost[unit.id] = int(errors.value), errors.n
    if not lost:
        return None
    worst = sorted(lost, key=lambda x: lost[x][0] / lost[x][1], reverse=True)
    named = [f"{lost[x][0]} of {lost[x][1]} in {x}" for x in worst[:_NAMED]]
    more = f", and in {len(lost) - _NAMED} more cells" if len(lost) > _NAMED else ""
    where = found.folder.unit_dir("cell", worst[0])
    return (
        f"WARNING: over 1 % of examples ended in an error: {', '.join(named)}{more}; "
        f"`error` in {where / 'samples.jsonl'} says why"
    )


def changes(provenance: Provenance, registry: Registry) -> list[str]:
    """Say which plugins, and whether the code, differ from what made a record."""
    plugins = (_plugin_change(plugin, registry) for plugin in provenance.plugins)
    return [change for change in (*plugins, _code_change(provenance)) if change]


class _ByLabel:
    """The units of a folder, found by their labels where their ids are not known."""

    def __init__(self, folder: RunFolder) -> None:
        self._ids: defaultdict[tuple[UnitKind, str], list[str]] = defaultdict(list)
        for kind in KINDS:
            for path in folder.records(kind):
                name = path.parent.name
                self._ids[kind, name.rpartition("-")[0]].append(name)

    def id_of(self, unit: Unit) -> str | None:
        """Return the id of the one unit with the labels of a planned one."""
        found = self._ids[unit.kind, unit.id.rpartition("-")[0]]
        return found[0] if len(found) == 1 else None


def _plugin_change(used: PluginRef, registry: Registry) -> str:
    name = f"{used.kind} {used.name}"
    now = next((p for p in registry.all(used.kind) if p.name == used.name), None)
    if now is None:
        return f"{name} is not installed"
    if now.version != used.version:
        return f"{name}: version {used.version} then, {now.version} now"
    return f"{name}: its source changed" if now.sha256 != used.sha256 else ""


def _code_change(then: Provenance) -> str:
    commit, dirty = code_state()
    if then.commit and commit and then.commit != commit:
        return f"code: commit {then.commit[:8]} then, {commit[:8]} now"
    if then.commit and commit and (then.dirty or dirty):
        return "code: uncommitted changes then or now"
    before, now = then.versions.get("harness"), library_versions().get("harness")
    return f"code: version {before} then, {now} now" if before != now else ""
