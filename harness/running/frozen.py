"""Frozen runs: a plan as it is now, written down for other processes to work on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base import (
    Strict,
    UsageError,
    default_store_root,
    unknown_name,
    write_atomic,
    write_json,
)
from harness.running.folder import RunFolder
from harness.running.suite_run import to_replace, units_of, write_plan
from harness.suite import (
    Plan,
    Unit,
    freeze_suite,
    load_experiment,
    make_plan,
    resolve,
)

SUITE = "frozen.yaml"
"""What the user stated, whatever becomes of the suite file."""
FILE = "frozen.json"
"""What is to run of it, and where. Both lie in a folder below the run's."""


class _Written(Strict):
    """What the file says."""

    run: str
    """The run folder, seen from here."""
    profile: str | None
    units: tuple[str, ...]
    """What is to run, each unit after those that it needs."""
    replaced: dict[str, str] = {}
    """The SHA-256 of records that are to be made again, by unit."""


@dataclass(frozen=True)
class Frozen:
    """A run as it was frozen."""

    suite: Path
    """The file that `thaw` reads it from."""
    plan: Plan
    folder: RunFolder
    units: tuple[Unit, ...]
    """What is to run, each unit after those that it needs."""
    replaced: dict[str, str]
    """The SHA-256 of records that are to be made again, by unit."""

    def chosen(self, ids: Sequence[str]) -> list[Unit]:
        """Return some of its units in their order; UsageError where one is unknown."""
        known = {unit.id for unit in self.units}
        for unknown in sorted(set(ids) - known):
            raise UsageError(f"--units: {unknown_name('unit', unknown, known)}")
        return [unit for unit in self.units if unit.id in set(ids)]


def freeze(
    plan: Plan,
    folder: RunFolder,
    place: Path,
    *,
    rerun: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Frozen:
    """Write a resolved plan into `place`, so that other processes run just its units.

    What failed is tried again, and what is complete with `rerun`, each once. The run
    folder gets the resolved suite, as when the plan is run here.
    """
    write_plan(plan, folder, say)
    units = units_of(plan)
    replaced = to_replace(units, folder, rerun)
    written = _Written(
        run=os.path.relpath(folder.root, place),
        profile=plan.experiment.profile,
        units=tuple(unit.id for unit in units),
        replaced=replaced,
    )
    suite = place.absolute() / SUITE
    write_atomic(suite, freeze_suite(plan.experiment))
    write_json(place / FILE, written.model_dump(mode="json"))
    return Frozen(suite, plan, folder, tuple(units), replaced)


def thaw(suite: Path) -> Frozen:
    """Read what `freeze` wrote; `suite` is the path that it returned.

    Raises UsageError where that is no such file, or not the run that was frozen.
    """
    path = suite.parent / FILE
    if suite.name != SUITE or not path.is_file():
        raise UsageError(f"{suite} is no frozen run: it has no {FILE} beside it")
    written = _Written.model_validate_json(path.read_text(encoding="utf-8"))
    folder = RunFolder(Path(os.path.normpath(path.absolute().parent / written.run)))
    experiment = load_experiment(suite, profile=written.profile)
    plan = make_plan(resolve(experiment, default_store_root(folder.root)))
    known = {unit.id: unit for unit in units_of(plan)}
    lost = [x for x in written.units if x not in known]
    if lost:
        raise UsageError(
            f"{path} names units that {suite.name} beside it does not have, as "
            f"{lost[0]}: what plugins or models they use changed since"
        )
    units = tuple(known[x] for x in written.units)
    return Frozen(suite.absolute(), plan, folder, units, written.replaced)
