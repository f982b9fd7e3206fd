"""Fetch what a suite needs, on a machine with a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import HarnessError, MissingResource

if TYPE_CHECKING:
    from harness.suite_file import Experiment


def prefetch(
    experiment: Experiment, store_root: Path, say: Callable[[str], None]
) -> None:
    """Fetch models, corpora and tasks; one that fails does not stop the others.

    Raises MissingResource with all that is not there in the end.
    """
    from harness.suite_file import missing

    failures = []
    for name, fetch in _fetches(experiment, store_root):
        say(f"fetching {name}")
        try:
            fetch()
        except HarnessError as error:
            failures.append(f"{name}: {error}")
    lacking = failures or missing(experiment, store_root)
    if lacking:
        raise MissingResource("still not on this machine:\n  " + "\n  ".join(lacking))


def _fetches(
    experiment: Experiment, store_root: Path
) -> Iterator[tuple[str, Callable[[], None]]]:
    from harness.base.store import Store
    from harness.data.corpora import Corpora

    for label, adapter in experiment.models.items():
        yield f"models.{label}", adapter.fetch
    corpora = Corpora(experiment.suite.corpora, Store(store_root))
    for name in experiment.used_corpora:
        yield f"corpora.{name}", lambda name=name: corpora.fetch(name)  # type: ignore[misc]
    for label, metric in experiment.metrics.items():
        yield f"metrics.{label}", metric.fetch
