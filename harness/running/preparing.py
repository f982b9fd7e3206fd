"""What every run begins with: its plan, its folder and the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.base import Store, default_store_root
from harness.running.folder import RunFolder
from harness.suite import Experiment, Plan, make_plan, resolve


def prepare(
    experiment: Experiment,
    run_dir: Path,
    only: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Plan, RunFolder, Store]:
    """Find models and corpora on this machine, and plan the run in a folder.

    `only` selects cells by model, arm, seed and attack, as `make_plan` takes it.

    Raises HarnessError with all that is not on this machine.
    """
    folder = RunFolder(run_dir)
    store = Store(default_store_root(folder.root))
    return make_plan(resolve(experiment, store.root), only), folder, store
