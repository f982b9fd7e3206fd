"""Whether records say what the suite says that they were made under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.base import HarnessError, Problem
from harness.records import Claims, Margin, Record
from harness.running.assembly import arm_ref, attack_ref, model_ref, plugins_used
from harness.running.folder import RunFolder
from harness.running.surveying import Survey
from harness.suite import (
    Layer,
    Place,
    Plan,
    Suite,
    load_experiment,
    make_plan,
    parse,
    with_fingerprints,
)

FILLED = {
    "model": ("given", "parameters"),
    "arm": ("given",),
    "attack": ("given", "tokens"),
}
"""The parts of a record that its suite gives, and what in them a resolved suite does
not know: which options the user stated, and what came of loading the model."""


class Suites:
    """The resolved suites of a run folder, and what they give to its records."""

    def __init__(self, folder: RunFolder, plan: Plan | None) -> None:
        self._folder, self._plan = folder, plan
        self._current = _sha256(folder.suite_file)
        self._kept = {path.stem: path for path in folder.suites_dir.glob("*.yaml")}
        self._units = {unit.id: unit for unit in plan.units} if plan else {}
        self._labels = {
            (x.variant.model, x.variant.arm, x.variant.seed, x.attack)
            for x in self._units.values()
        }
        self._stated = lru_cache(_stated)

    def problems(self) -> Iterator[Problem]:
        """Yield the suites whose names are not their hashes."""
        for name, path in self._kept.items():
            if _sha256(path) != name:
                yield Problem(
                    str(path), (), "its name is not the hash of what it holds"
                )

    def compare(self, path: Path, record: Record) -> Iterator[Problem]:
        """Yield what a record says otherwise than its suite."""
        digest = record.suite.sha256
        if digest != self._current and digest not in self._kept:
            message = "the folder has no suite with this hash"
            known = self._kept or record.frozen is not None  # else it is of old
            severity: Any = "error" if known else "warning"
            where = ("suite", "sha256")
            yield Problem(str(path), where, message, severity=severity)
            return
        if record.status == "complete":
            suite = self._folder.suite_file
            yield from self._values(
                path, record, suite if digest == self._current else self._kept[digest]
            )
        if self._plan is None:
            return
        if digest == self._current and record.id in self._units:
            yield from self._references(path, record)
        elif record.id not in self._units:
            yield from self._stray(path, record)

    def _values(self, path: Path, record: Record, suite: Path) -> Iterator[Problem]:
        """Compare what no id depends on: threshold, margin and claims."""
        threshold, margin, claims = self._stated(suite)
        found = record.results.get("attack", {}).get("threshold")
        if found is not None and threshold not in (None, found.value):
            message = f"{found.value}, but its suite says {threshold}"
            where = ("results", "attack", "threshold")
            yield Problem(str(path), where, message)
        if margin is not None and record.margin not in (None, margin):
            message = f"{record.margin}, but its suite says {margin}"
            yield Problem(str(path), ("margin",), message)
        if claims is not None and record.claims != claims:
            message = f"{_listed(record.claims)}, but its suite says {_listed(claims)}"
            yield Problem(str(path), ("claims",), message)

    def _references(self, path: Path, record: Record) -> Iterator[Problem]:
        """Compare what a record says of model, arm, attack and plugins."""
        assert self._plan is not None
        experiment, unit = self._plan.experiment, self._units[record.id]
        if experiment.warnings:
            return  # some plugins are not loaded, and do not say what they are
        expected = {
            "model": model_ref(experiment, unit.variant),
            "arm": arm_ref(experiment, unit.variant),
            "attack": attack_ref(experiment, unit),
        }
        for part, whole in expected.items():
            found = getattr(record, part)
            if whole is None or found is None:
                continue
            for name, value in whole:
                shown = getattr(found, name)
                if name not in FILLED[part] and shown != value:
                    message = f"{shown!r}, but its suite says {value!r}"
                    yield Problem(str(path), (part, name), message)
        used = [(x.kind, x.name) for x in plugins_used(experiment, unit)]
        shown = [(x.kind, x.name) for x in record.provenance.plugins]
        if shown != used:
            message = f"{_names(shown)}, but its suite takes {_names(used)}"
            yield Problem(str(path), ("provenance", "plugins"), message)
        dtype = experiment.models[unit.variant.model].dtype
        if record.provenance.dtype != dtype:
            message = f"{record.provenance.dtype}, but its suite says {dtype}"
            yield Problem(str(path), ("provenance", "dtype"), message)

    def _stray(self, path: Path, record: Record) -> Iterator[Problem]:
        """Find a unit that the suite no longer has, under whatever identity."""
        attack = record.attack.label if record.attack else None
        labels = (record.model.label, record.arm.label, record.seed, attack)
        if labels in self._labels:
            return  # it is planned with other options or data by now
        where = ("suite", "sha256")
        if record.suite.sha256 == self._current:
            yield Problem(str(path), where, "this suite does not plan it")
        else:
            message = "it was taken out of the suite after it had run"
            yield Problem(str(path), where, message, severity="warning")


def against(
    published: Path, found: Survey, plugins: Sequence[Path], trust: bool
) -> Iterator[Problem]:
    """Yield what a run's suite has otherwise than the one that was published for it.

    Fingerprints that the published one does not state are taken from the run: whether
    they are those of the files is another question. Raises SuiteError for a suite that
    is not valid.
    """
    experiment = load_experiment(published, plugins=plugins, trust=trust)
    run = found.plan.experiment.suite
    stated = [
        {
            label: section.fingerprint
            for label, section in own.items()
            if section.fingerprint is not None and label in theirs
        }
        for own, theirs in (
            (run.models, experiment.suite.models),
            (run.corpora, experiment.suite.corpora),
        )
    ]
    experiment = with_fingerprints(experiment, *stated)
    here = {unit.id for unit in found.plan.units}
    file = str(found.folder.suite_file)
    for unit in make_plan(experiment).units:
        if unit.id not in here:
            message = f"the {unit.kind} {unit.id} is planned by {published}, not here"
            yield Problem(file, (), message)
    for section in ("success", "verdicts", "claims", "diagnostics"):
        own, other = getattr(run, section), getattr(experiment.suite, section)
        if own != other:
            yield Problem(file, (section,), f"{own}, but {published} says {other}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _stated(suite: Path) -> tuple[Any, Margin | None, Claims | None]:
    """Return threshold, margin and claims of a resolved suite, where it has them."""
    try:
        text = suite.read_text(encoding="utf-8")
        layer: Layer = parse(text, Place(str(suite), 1, suite.parent))
        threshold = layer.get("success", "threshold")
        margin = Margin.of(layer.get("verdicts", "margin"))
    except (HarnessError, ValueError, TypeError, AttributeError):
        return None, None, None
    try:
        known = Suite.model_validate_json(json.dumps(layer.value)).stated_claims()
    except ValueError:
        return threshold, margin, None
    return threshold, margin, known


def _listed(claims: Claims) -> str:
    """Name claims in one line."""
    found = [
        f"{group}.{label} ({claim})"
        for group, claims_ in claims.items()
        for label, claim in claims_.items()
    ]
    return "; ".join(found) or "no claims"


def _names(plugins: list[tuple[str, str]]) -> str:
    return ", ".join(f"{kind} {name}" for kind, name in plugins) or "none"
