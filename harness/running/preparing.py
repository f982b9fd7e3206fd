"""What every run begins with: its plan, its folder and the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.base import Store, default_store_root
from harness.running.folder import RunFolder
from harness.suite import Experiment, Plan, make_plan, refuse_misfits, resolve


def prepare(
    experiment: Experiment,
    run_dir: Path,
    only: Mapping[str, Sequence[str]] | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Plan, RunFolder, Store]:
    """Find models and corpora on this machine, and plan the run in a folder.

    `only` selects cells by model, arm, seed and attack, as `make_plan` takes it.
    `say` gets what will be otherwise than the suite reads, as tokens rounded up.

    Raises HarnessError with all that is not on this machine, and with all that the
    suite asks for and cannot have.
    """
    folder = RunFolder(run_dir)
    store = Store(default_store_root(folder.root))
    experiment = resolve(experiment, store.root)
    for problem in refuse_misfits(experiment, store.root):
        say(f"note: {problem}")
    return make_plan(experiment, only), folder, store
