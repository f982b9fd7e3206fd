"""Suite files: read, checked and built into an `Experiment`; written."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pydantic
from ruamel.yaml import YAML

from harness.api import load_registry
from harness.base import Problem, SuiteError, default_store_root
from harness.suite.additions import expand
from harness.suite.checks import check, check_placement
from harness.suite.experiment import Experiment
from harness.suite.fitting import lost_paths, misfits
from harness.suite.layers import profile_names, read_layers
from harness.suite.model import Suite
from harness.suite.plugin_options import build_adversaries, make_absolute
from harness.suite.resources import missing_device
from harness.suite.unloaded import ReadersRegistry, split, unjudged
from harness.suite.yaml import Layer

MOST_PROFILES = 50
"""Each is a suite to check."""
_NOT_DUMPED = {"extends", "profiles", "cluster"}
"""What is merged already, and what changes nothing of any record."""


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
    trust: bool = True,
) -> Experiment:
    """Read a suite file; `overrides` are texts such as ``recovery.tokens=3e6``.

    What comes later wins: what the file extends, the file, the profile, the overrides,
    the other arguments. Without `trust`, no code is run that the file names: of its
    plugins only those are loaded that are also among the argument `plugins`, and the
    experiment's `warnings` say which were not, and what was not judged without them.

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
    layer = read_layers(path, profile=profile, overrides=overrides, flags=given)
    loaded, named = _plugin_paths(layer), []
    if not trust:
        loaded, named = split(loaded, plugins)
    registry = load_registry(loaded)
    if named:
        registry = ReadersRegistry(registry)
    suite, built = check(layer, registry)
    adversaries = build_adversaries(layer, registry)
    if isinstance(registry, ReadersRegistry):
        layer.warn(("plugins",), unjudged(named, registry))
    _refuse(layer)
    assert suite is not None  # else there were problems
    experiment = Experiment(
        suite,
        path,
        profile,
        registry,
        **cast(Any, built),
        adversaries=adversaries,
        layer=layer,
    )
    experiment = expand(experiment)
    _refuse(layer)
    check_placement(experiment)
    _refuse(layer)
    return experiment


def validate_suite(
    path: Path, *, plugins: Sequence[Path] = (), trust: bool = True
) -> list[Problem]:
    """Return all that is wrong with a suite file, with each of its profiles too.

    Arguments are as of `load_experiment`, whose warnings are among what is returned.
    """
    found: list[Problem] = []
    try:
        names = profile_names(path)
    except SuiteError as error:
        return error.problems
    if len(names) > MOST_PROFILES:
        message = f"{len(names)} profiles, and at most {MOST_PROFILES} are checked"
        return [Problem(str(path), ("profiles",), message, exit_code=2)]
    for profile in (None, *names):
        known = {(problem.file, problem.line, problem.path) for problem in found}
        try:
            read = load_experiment(path, profile=profile, plugins=plugins, trust=trust)
            problems = [*read.warnings, *_unmet(read, trust)]
        except SuiteError as error:
            problems = error.problems
        found += [x for x in problems if (x.file, x.line, x.path) not in known]
    return SuiteError(found).problems


def _unmet(experiment: Experiment, trust: bool) -> list[Problem]:
    """Return what a suite cannot have; as a warning, what only is not here."""
    store_root = default_store_root(experiment.run_dir)
    found = misfits(experiment, store_root, trust=trust)
    here = [replace(x, severity="warning") for x in missing_device(experiment)]
    return [*found, *lost_paths(experiment), *here]


def dump_suite(suite: Suite) -> str:
    """Return a suite as YAML: a file that can be run by itself."""
    return _as_yaml(_plain(suite))


def freeze_suite(experiment: Experiment) -> str:
    """Return what the user stated of a resolved experiment, as YAML in one file.

    With the profile that was chosen, the same records come of it as of the suite that
    it was, whatever becomes of that and of the texts and models that it names.
    """
    stated = copy.deepcopy(experiment.layer.value)
    for key in _NOT_DUMPED:
        stated.pop(key, None)
    if experiment.profile is not None:
        stated["profiles"] = {experiment.profile: {}}
    for section in ("models", "corpora"):
        for label, entry in getattr(experiment.suite, section).items():
            if entry.fingerprint is not None:
                stated[section][label]["fingerprint"] = entry.fingerprint
    return _as_yaml(stated)


def _as_yaml(value: Any) -> str:
    stream = io.StringIO()
    yaml = YAML(pure=True)
    yaml.default_flow_style = False
    yaml.width = 88
    yaml.dump(value, stream)
    return stream.getvalue()


def _plugin_paths(layer: Layer) -> list[Path]:
    """Make plugin paths absolute, and complain of those that lead nowhere."""
    stated = layer.get("plugins")
    paths = []
    for index, text in enumerate(stated if isinstance(stated, list) else []):
        keys = ("plugins", index)
        make_absolute(layer, keys, hub=False)
        path = layer.get(*keys)
        if isinstance(text, str) and os.path.exists(path):  # noqa: PTH110 - of any name
            paths.append(Path(path))
        elif isinstance(text, str):
            layer.complain(keys, f"no such file or folder: {path}")
    return paths


def _refuse(layer: Layer) -> None:
    if any(problem.severity == "error" for problem in layer.problems):
        raise SuiteError(layer.problems)


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
