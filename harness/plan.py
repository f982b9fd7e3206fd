"""Plans: the variants and cells of an experiment, and what identifies each.

An id is made of the labels and a short hash of the unit's identity: all that can
change its results, and nothing else. Labels, the device and the batch size are not in
it, nor is the threshold, because success is derived from the recorded losses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.diagnostics import EXAMINED
from harness.errors import NothingMatched, UsageError, unknown_name
from harness.interfaces import CORPUS, LOCAL_PATH, Attack, Plugin
from harness.records import SCHEMA_VERSION
from harness.store import content_hash
from harness.suite import ExampleSet, Suite
from harness.suite_file import Experiment
from harness.suites.plugin_options import marked

__all__ = ["CellPlan", "Plan", "VariantPlan", "content_hash", "make_plan"]

Identity = dict[str, Any]
"""JSON values."""
_SELECTABLE = ("model", "arm", "seed", "attack")
_MEASURED = ("metrics", "diagnostics")
"""What is asked of a variant, and changes nothing for its cells."""


@dataclass(frozen=True)
class VariantPlan:
    """One trained subject: model, arm and seed."""

    id: str
    model: str
    arm: str
    seed: int
    identity: Identity = field(repr=False)
    """What its hash is computed from."""
    subject_key: str = field(repr=False)
    """Identifies the frozen weights: the identity without what is measured on them."""


@dataclass(frozen=True)
class CellPlan:
    """One attack on one variant."""

    id: str
    variant: VariantPlan
    attack: str
    identity: Identity = field(repr=False)
    """What its hash is computed from."""


@dataclass(frozen=True)
class Plan:
    """What a suite has to run, in the suite's order."""

    experiment: Experiment
    variants: tuple[VariantPlan, ...]
    cells: tuple[CellPlan, ...]


def make_plan(
    experiment: Experiment, only: Mapping[str, Sequence[str]] | None = None
) -> Plan:
    """Expand a resolved experiment; `only` selects by model, arm, seed and attack.

    Raises UsageError on an unknown value and NothingMatched if nothing is left.
    """
    suite = experiment.suite
    chosen = _chosen(suite, only or {})
    variants = tuple(
        _variant(experiment, model, arm, int(seed))
        for model in chosen["model"]
        for arm in chosen["arm"]
        for seed in chosen["seed"]
    )
    cells = tuple(
        _cell(experiment, variant, attack)
        for variant in variants
        for attack in chosen["attack"]
    )
    if not variants:
        raise NothingMatched("the selection leaves nothing of the suite")
    return Plan(experiment, variants, cells)


def _chosen(suite: Suite, only: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    known = {
        "model": list(suite.models),
        "arm": list(suite.arms),
        "seed": [str(seed) for seed in suite.seeds],
        "attack": list(suite.attacks),
    }
    for key, values in only.items():
        if key not in known:
            raise UsageError(f"--only: {unknown_name('key', key, known)}")
        for value in values:
            if value not in known[key]:
                raise UsageError(f"--only: {unknown_name(key, value, known[key])}")
    return {
        key: [value for value in values if key not in only or value in only[key]]
        for key, values in known.items()
    }


# --- identities ---------------------------------------------------------------------


def _variant(experiment: Experiment, model: str, arm: str, seed: int) -> VariantPlan:
    weights = _subject_identity(experiment, model, arm, seed)
    metrics = {
        label: {"metric": metric.name, "options": _options(experiment, metric)}
        for label, metric in experiment.metrics.items()
    }
    identity = {
        **weights,
        "limit": experiment.suite.limit,
        "metrics": metrics,
        "diagnostics": _diagnostics(experiment.suite),
    }
    unit_id = _unit_id(f"{model}.{arm}.s{seed}", identity)
    return VariantPlan(unit_id, model, arm, seed, identity, content_hash(weights))


def _diagnostics(suite: Suite) -> Identity | None:
    """Describe what is asked of a subject alone: the same, standard or full."""
    examples = _examples(suite, searches=False)
    if suite.diagnostics == "none" or examples is None:
        return None
    count = min(examples["test"]["count"], EXAMINED)
    return {"examples": {**examples, "test": {**examples["test"], "count": count}}}


def _subject_identity(
    experiment: Experiment, model: str, arm: str, seed: int
) -> Identity:
    adapter, constraint = experiment.models[model], experiment.arms[arm]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {
            "adapter": adapter.name,
            # The fingerprint says what the path leads to.
            "options": _options(experiment, adapter, without=LOCAL_PATH),
            "fingerprint": experiment.suite.models[model].fingerprint,
        },
        "arm": {
            "constraint": constraint.name,
            "options": _options(experiment, constraint),
        },
        "recovery": _recovery(experiment.suite, arm),
        "seed": seed,
    }


def _recovery(suite: Suite, arm: str) -> Identity | None:
    section = suite.recovery
    if section is None or not suite.arms[arm].recovery:
        return None
    # How often it is saved changes nothing about what is trained.
    identity = section.model_dump(mode="json", exclude={"checkpoint_every"})
    identity["corpus"] = corpus_identity(suite, section.corpus)
    if section.validation is not None:
        identity["validation"] = corpus_identity(suite, section.validation)
    return identity


def _cell(experiment: Experiment, variant: VariantPlan, label: str) -> CellPlan:
    suite, attack = experiment.suite, experiment.attacks[label]
    match = suite.attacks[label].match
    matched = experiment.attacks[match] if match is not None else None
    searches = any(a is not None and a.uses_search_examples for a in (attack, matched))
    identity = {
        **{k: v for k, v in variant.identity.items() if k not in _MEASURED},
        **_attack(experiment, attack),
        "match": _attack(experiment, matched) if matched is not None else None,
        "examples": _examples(suite, searches),
    }
    stem = f"{variant.model}.{variant.arm}.s{variant.seed}.{label}"
    return CellPlan(_unit_id(stem, identity), variant, label, identity)


def _attack(experiment: Experiment, attack: Attack[Any]) -> Identity:
    return {"attack": attack.name, "options": _options(experiment, attack)}


def _examples(suite: Suite, searches: bool) -> Identity | None:
    """Describe the examples: those to search on only for attacks that see them."""
    section = suite.examples
    if section is None:
        return None
    sets = {"test": section.test}
    if searches and section.search and section.validation:
        sets |= {"search": section.search, "validation": section.validation}
    return {
        "prompt_tokens": section.prompt_tokens,
        "reference_tokens": section.reference_tokens,
        **section.beyond_loss,
        **{name: _example_set(suite, part) for name, part in sets.items()},
    }


def _example_set(suite: Suite, part: ExampleSet) -> Identity:
    return {"corpus": corpus_identity(suite, part.corpus), "count": part.count}


def corpus_identity(suite: Suite, name: str) -> Identity:
    """Return what defines the documents of a corpus of a resolved suite."""
    return suite.corpora[name].definition


def _options(
    experiment: Experiment, plugin: Plugin[Any], without: str | None = None
) -> Identity:
    """Describe options, defaults filled in: corpora and files by their contents.

    Null options are left out, so that a plugin can gain one without new ids.
    """
    options = plugin.options
    described = {
        name: value
        for name, value in options.model_dump(mode="json").items()
        if value is not None
    }
    for name in marked(type(options), LOCAL_PATH):
        if without == LOCAL_PATH:
            described.pop(name, None)
        elif name in described:
            described[name] = _map(described[name], _contents)
    for name in marked(type(options), CORPUS):
        if name in described:
            described[name] = _map(
                described[name], lambda c: corpus_identity(experiment.suite, c)
            )
    return described


def _map(value: Any, describe: Any) -> Any:
    if isinstance(value, list):
        return [describe(item) for item in value]
    return describe(value)


def _contents(text: str) -> str:
    """Identify a file or folder by what is in it, anything else by its name."""
    path = Path(text)
    if not path.exists():
        return text
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            name = file.relative_to(path).as_posix()
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{name}\0{content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _unit_id(stem: str, identity: Identity) -> str:
    return f"{stem}-{content_hash(identity)[:8]}"
