"""Run units of a finished run once more, and hold what comes out against it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import running, suite as suites
from harness.base import NothingMatched, Store, default_store_root, stop_on_signals
from harness.results.finding import find_cells
from harness.results.loaded import Run

TOLERANCE_NATS = 1e-3
"""By how much the same prompt's loss may differ on another machine, in nats/token."""


@dataclass(frozen=True)
class Replayed:
    """A cell that was run again."""

    cell: str
    examples: int
    same: int
    """Examples whose adversarial prompts have the same token ids."""
    apart: float
    """The largest difference of dL among those, in nats/token."""
    fault: str = ""
    """Why it could not be run again."""

    @property
    def reproduced(self) -> bool:
        """Whether all prompts, and their losses within rounding, are the same."""
        equal = self.same == self.examples and self.apart <= TOLERANCE_NATS
        return equal and not self.fault


def replay(
    path: Path,
    cell: str | None = None,
    *,
    plugins: Sequence[Path] = (),
    fresh: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Replayed]:
    """Run cells of a run folder again, elsewhere, and compare what they find.

    `cell` is a cell's id or a part of it; None means all. Subjects are taken from the
    store, or trained again where they are to be `fresh`. The suite's plugins are
    loaded: the folder is trusted. Raises UsageError where no complete cell is meant.
    """
    before = Run(path, plugins, trust=True)
    meant = find_cells(before, cell)
    if not meant:
        raise NothingMatched(f"{path} has no complete cell to run again")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".replay-") as place:
        folder = running.RunFolder(Path(place) / "run")
        root = Path(place) / "store" if fresh else default_store_root(path)
        experiment = suites.load_experiment(
            before.survey.folder.suite_file, plugins=plugins
        )
        plan = suites.make_plan(suites.resolve(experiment, root), _labels(meant))
        with stop_on_signals() as stop:
            running.run_plan(plan, folder, Store(root), stop, say=say)
        after = Run(folder.root, plugins, trust=True)
        again = {unit.id: unit for unit in after.survey.units}
        found = [_held(before, after, unit, again.get(unit.id)) for unit in meant]
        shutil.rmtree(folder.root)
    return found


def _labels(units: Sequence[running.SurveyedUnit]) -> dict[str, list[str]]:
    chosen: dict[str, dict[str, None]] = {}
    for unit in units:
        named = {"model": unit.model, "arm": unit.arm, "seed": str(unit.seed)}
        for key, value in {**named, "attack": unit.attack or ""}.items():
            chosen.setdefault(key, {})[value] = None
    return {key: [*values] for key, values in chosen.items()}


def _held(
    before: Run,
    after: Run,
    unit: running.SurveyedUnit,
    again: running.SurveyedUnit | None,
) -> Replayed:
    then = before.rows(unit)
    if again is None or again.state.status != "complete":
        fault = "it is another unit now" if again is None else again.state.reason
        return Replayed(unit.id, len(then), 0, 0.0, fault)
    now = {row.example_id: row for row in after.rows(again)}
    pairs = [(row, now.get(row.example_id)) for row in then]
    same = [
        (one, other)
        for one, other in pairs
        if other and one.adversarial_prompt_ids == other.adversarial_prompt_ids
    ]
    apart = [abs((x.delta_loss or 0.0) - (y.delta_loss or 0.0)) for x, y in same]
    return Replayed(unit.id, len(then), len(same), max(apart, default=0.0))
