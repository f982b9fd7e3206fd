"""Suite files: read, checked and built into an `Experiment`; resolved; written."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pydantic
from ruamel.yaml import YAML

from harness.api import (
    Attack,
    Constraint,
    Metric,
    ModelAdapter,
    Plugin,
    Registry,
    load_registry,
)
from harness.base import Problem, SuiteError
from harness.suite.additions import add_derived_arms, expand
from harness.suite.checks import check, placement_problems
from harness.suite.layers import profile_names, read_layers
from harness.suite.model import Suite
from harness.suite.plugin_options import PLUGIN_SECTIONS, Plugins, absolute, settle
from harness.suite.resources import _used_corpora
from harness.suite.yaml import Node

_NOT_DUMPED = {"extends", "profiles"}


@dataclass(frozen=True)
class Experiment:
    """A valid suite, and its plugins built with their options."""

    suite: Suite
    base: Path
    """The folder of the suite file."""
    source: Path
    """The suite file."""
    profile: str | None
    """The profile that was chosen."""
    registry: Registry
    models: dict[str, ModelAdapter[Any]]
    arms: dict[str, Constraint[Any]]
    metrics: dict[str, Metric[Any]]
    attacks: dict[str, Attack[Any]]
    tree: Node = field(repr=False, compare=False)
    """Where every value of the suite was stated, for later messages."""

    @property
    def resolved(self) -> bool:
        """Whether every fingerprint is known that ids depend on."""
        models = [model.fingerprint for model in self.suite.models.values()]
        texts = [self.suite.corpora[label].fingerprint for label in self.used_corpora]
        return None not in (*models, *texts)

    @property
    def plugins(self) -> dict[str, Mapping[str, Plugin[Any]]]:
        """The plugins by section and label."""
        return {section: getattr(self, section) for section in PLUGIN_SECTIONS}

    @property
    def used_corpora(self) -> list[str]:
        """The corpora that something reads, in the suite's order."""
        used = set(_used_corpora(self))
        return [label for label in self.suite.corpora if label in used]


def load_experiment(
    path: Path,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    limit: int | None = None,
    plugins: Sequence[Path] = (),
    device: str | None = None,
    batch_size: int | None = None,
) -> Experiment:
    """Read a suite file; `overrides` are texts such as ``recovery.tokens=3e6``.

    What comes later wins: what the file extends, the file, the profile, the overrides,
    the other arguments.

    Raises SuiteError with all that is wrong, UsageError if there is no such file and
    PluginError if plugins cannot be told apart.
    """
    flags = {
        "seeds": None if seeds is None else list(seeds),
        "limit": limit,
        "plugins": [os.fspath(Path(p).absolute()) for p in plugins] or None,
        "device": device,
        "batch_size": batch_size,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    problems: list[Problem] = []
    tree = read_layers(
        path, problems, profile=profile, overrides=overrides, flags=given
    )
    tree = _absolute_plugins(tree, problems)
    registry = load_registry(_plugin_paths(tree))
    tree = settle(tree, registry)
    suite, built, faults = check(tree, registry)
    if suite is None or problems or faults:
        raise SuiteError([*problems, *faults])
    suite, built = _expanded(suite, built, registry, tree)
    return Experiment(
        suite, path.parent, path, profile, registry, **cast(Any, built), tree=tree
    )


def validate_suite(path: Path, *, plugins: Sequence[Path] = ()) -> list[Problem]:
    """Return all that is wrong with a suite file, with each of its profiles too."""
    found: list[Problem] = []
    for profile in (None, *profile_names(path)):
        known = {(problem.file, problem.line, problem.path) for problem in found}
        try:
            load_experiment(path, profile=profile, plugins=plugins)
        except SuiteError as error:
            found += [
                p for p in error.problems if (p.file, p.line, p.path) not in known
            ]
    return SuiteError(found).problems


def dump_suite(suite: Suite) -> str:
    """Return a suite as YAML: a file that can be run by itself."""
    stream = io.StringIO()
    yaml = YAML(pure=True)
    yaml.default_flow_style = False
    yaml.width = 88
    yaml.dump(_plain(suite), stream)
    return stream.getvalue()


# --- reading ------------------------------------------------------------------------


def _absolute_plugins(tree: Node, problems: list[Problem]) -> Node:
    """Make plugin paths absolute; say which of them lead nowhere."""
    stated = tree.child("plugins")
    if stated is None or not isinstance(stated.value, list):
        return tree
    paths = absolute(stated, hub=False)
    for node in paths.value:
        if isinstance(node.value, str) and not Path(node.value).exists():
            message = f"no such file or folder: {node.value}"
            problems.append(node.place.problem("plugins", message))
    return Node({**tree.value, "plugins": paths}, tree.place)


def _plugin_paths(tree: Node) -> list[Path]:
    stated = tree.child("plugins")
    items = stated.value if stated and isinstance(stated.value, list) else []
    paths = [Path(item.value) for item in items if isinstance(item.value, str)]
    return [path for path in paths if path.exists()]


def _expanded(
    suite: Suite, built: Plugins, registry: Registry, tree: Node
) -> tuple[Suite, Plugins]:
    """Add what a suite need not state; SuiteError where something is in the way."""
    attacks = cast("dict[str, Attack[Any]]", built["attacks"])
    suite, attacks, faults = expand(suite, attacks, registry)
    if faults:
        raise SuiteError(
            tree.find(("attacks", fault.label))[0].place.problem(
                f"attacks.{fault.label}", fault.message
            )
            for fault in faults
        )
    problems = list(placement_problems(suite, attacks, tree))
    if problems:
        raise SuiteError(problems)
    constraints = cast("dict[str, Constraint[Any]]", built["arms"])
    suite, arms = add_derived_arms(suite, constraints, attacks, registry)
    return suite, {**built, "attacks": dict(attacks), "arms": dict(arms)}


# --- writing ------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Return JSON values; null and empty ones only where the user stated an option."""
    if isinstance(value, pydantic.BaseModel):
        stated = {name: getattr(value, name) for name in type(value).model_fields}
        kept = {
            name: _plain(part)
            for name, part in stated.items()
            if part not in (None, {}, ()) and name not in _NOT_DUMPED
        }
        return kept | dict(value.__pydantic_extra__ or {})
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value
