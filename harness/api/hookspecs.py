"""What a plugin can offer to the harness, and when it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from harness.api.attacks import Attack
from harness.api.constraints import Constraint
from harness.api.metrics import Metric
from harness.api.models import ModelAdapter

hookspec = pluggy.HookspecMarker("harness")


@hookspec
def register_models() -> Iterable[type[ModelAdapter[Any]]]:  # type: ignore[empty-body]
    """Return the model adapters that this plugin offers."""


@hookspec
def register_constraints() -> Iterable[type[Constraint[Any]]]:  # type: ignore[empty-body]
    """Return the constraints that this plugin offers."""


@hookspec
def register_attacks() -> Iterable[type[Attack[Any]]]:  # type: ignore[empty-body]
    """Return the attacks that this plugin offers."""


@hookspec
def register_metrics() -> Iterable[type[Metric[Any]]]:  # type: ignore[empty-body]
    """Return the metrics that this plugin offers."""


@hookspec
def suite_started(suite: Mapping[str, Any], run_dir: str) -> None:
    """Called once before the first variant, with the resolved suite."""


@hookspec
def variant_started(variant_id: str, model: str, arm: str, seed: int) -> None:
    """Called before a variant is loaded or trained."""


@hookspec
def step_logged(variant_id: str, step: int, values: Mapping[str, float]) -> None:
    """Called for each line of ``training.jsonl`` while a variant trains."""


@hookspec
def variant_finished(variant_id: str, record: Mapping[str, Any]) -> None:
    """Called when the record of a variant is on disk, complete or failed."""


@hookspec
def cell_started(cell_id: str, variant_id: str, attack: str) -> None:
    """Called before an attack starts on a variant."""


@hookspec
def cell_finished(cell_id: str, record: Mapping[str, Any]) -> None:
    """Called when the record of a cell is on disk, complete or failed."""


@hookspec
def suite_finished(run_dir: str, complete: int, failed: int) -> None:
    """Called once after the last cell, with the numbers of records written."""
