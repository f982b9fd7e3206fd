"""What running a plan needs, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.base import Progress, StopSignals, Store
from harness.data import Corpora
from harness.running.folder import RunFolder
from harness.suite import Experiment, Plan, Suite


@dataclass(frozen=True)
class RunContext:
    """A plan, where its results go, and where progress is printed."""

    plan: Plan
    folder: RunFolder
    store: Store
    corpora: Corpora
    device: str
    stop: StopSignals
    suite_sha256: str
    say: Callable[[str], None] = lambda line: None
    """Tell the user one line."""

    @property
    def experiment(self) -> Experiment:
        """The resolved suite with its plugins."""
        return self.plan.experiment

    @property
    def suite(self) -> Suite:
        """The resolved suite."""
        return self.experiment.suite

    @property
    def hook(self) -> Any:
        """The lifecycle hooks."""
        return self.experiment.registry.hook

    def progress(self, label: str, unit: str) -> Progress:
        """Return a display for one long piece of work."""
        return Progress(label, unit)
