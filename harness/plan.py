"""Plans: the variants and cells of an experiment, and what identifies each.

An id is made of the labels and a short hash of the unit's identity: all that can
change its results, and nothing else. Labels, the device and the batch size are not in
it, nor is the threshold, because success is derived from the recorded losses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.api.attacks import Attack, CellKey, Scene
from harness.api.plugin import ATTACK, CORPUS, LOCAL_PATH, Plugin
from harness.base.errors import NothingMatched, UsageError, unknown_name
from harness.base.store import content_hash
from harness.data.sections import ExampleSet
from harness.diagnostics import EXAMINED
from harness.records.record import SCHEMA_VERSION
from harness.suite import Suite
from harness.suite_file import Experiment
from harness.suites.plugin_options import marked
from harness.suites.scenes import attacks_of, scene_of

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
    sources: tuple[VariantPlan, ...] = ()
    """The variants that it is made from: those of the arms that its arm names."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids of the units that come before it."""
        return tuple(source.id for source in self.sources)


@dataclass(frozen=True)
class CellPlan:
    """One attack on one variant."""

    id: str
    variant: VariantPlan
    attack: str
    identity: Identity = field(repr=False)
    """What its hash is computed from."""
    scene: Scene = field(repr=False)
    """What stands around it in the suite, whatever was selected of it."""
    reads: Mapping[CellKey, str] = field(default_factory=dict, repr=False)
    """The ids of the cells whose rows it uses."""
    borrows: Mapping[str, VariantPlan] = field(default_factory=dict, repr=False)
    """The variants whose subjects it uses besides its own, by arm."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids of the units that come before it."""
        others = (variant.id for variant in self.borrows.values())
        return (self.variant.id, *others, *self.reads.values())


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

    Each variant comes after those that it is made from, which are added where the
    selection lacks them, without their cells.

    Raises UsageError on an unknown value and NothingMatched if nothing is left.
    """
    suite = experiment.suite
    chosen = _chosen(suite, only or {})
    arms = _with_sources(suite, chosen["arm"])
    planner = _Planner(experiment)
    variants = tuple(
        planner.variant(model, arm, int(seed))
        for model in chosen["model"]
        for arm in arms
        for seed in chosen["seed"]
    )
    cells = tuple(
        planner.cell(variant, attack)
        for variant in variants
        if variant.arm in chosen["arm"]
        for attack in chosen["attack"]
        if attack in attacks_of(suite, variant.arm)
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


def _with_sources(suite: Suite, arms: Sequence[str]) -> list[str]:
    """Put before each arm those that it is made from; a valid suite has no cycles."""
    found: dict[str, None] = {}

    def add(arm: str) -> None:
        for source in suite.arms[arm].sources:
            add(source)
        found[arm] = None

    for arm in arms:
        add(arm)
    return list(found)


class _Planner:
    """Makes the units of an experiment, each once: cells may read each other."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._variants: dict[tuple[str, str, int], VariantPlan] = {}
        self._cells: dict[tuple[str, str], CellPlan] = {}

    def variant(self, model: str, arm: str, seed: int) -> VariantPlan:
        key = model, arm, seed
        if key not in self._variants:
            self._variants[key] = _variant(self._experiment, model, arm, seed)
        return self._variants[key]

    def cell(self, variant: VariantPlan, label: str) -> CellPlan:
        key = variant.id, label
        if key not in self._cells:
            self._cells[key] = self._cell(variant, label)
        return self._cells[key]

    def _cell(self, variant: VariantPlan, label: str) -> CellPlan:
        experiment, suite = self._experiment, self._experiment.suite
        scene = scene_of(suite, experiment.attacks, variant.arm, variant.seed)
        attack, match = experiment.attacks[label], suite.attacks[label].match
        matched = experiment.attacks[match] if match is not None else None
        reads = {key: self._read(variant, key) for key in attack.reads(scene)}
        borrows = {
            arm: self.variant(variant.model, arm, variant.seed)
            for arm in attack.borrows(scene)
        }
        identity = {
            **{k: v for k, v in variant.identity.items() if k not in _MEASURED},
            **_attack(experiment, attack),
            "match": None if matched is None else _matched(experiment, matched, scene),
            "examples": _examples(suite, _searches(experiment, (attack, matched))),
            **_tokens(suite),
            **_neighbours(reads, borrows),
        }
        stem = f"{variant.model}.{variant.arm}.s{variant.seed}.{label}"
        unit_id = _unit_id(stem, identity)
        ids = {key: cell.id for key, cell in reads.items()}
        return CellPlan(unit_id, variant, label, identity, scene, ids, borrows)

    def _read(self, variant: VariantPlan, key: CellKey) -> CellPlan:
        return self.cell(self.variant(variant.model, key.arm, key.seed), key.attack)


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
    key = content_hash(weights)
    sources = tuple(
        _variant(experiment, model, source, seed)
        for source in experiment.suite.arms[arm].sources
    )
    return VariantPlan(unit_id, model, arm, seed, identity, key, sources)


def _diagnostics(suite: Suite) -> Identity | None:
    """Describe what is asked of a subject alone: the same, standard or full."""
    examples = _examples(suite, searches=False)
    if suite.diagnostics == "none" or examples is None:
        return None
    count = min(examples["test"]["count"], EXAMINED)
    examples = {**examples, "test": {**examples["test"], "count": count}}
    return {"examples": examples, **_tokens(suite)}


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
            **_derivation(experiment, model, arm, seed),
        },
        "recovery": _recovery(experiment.suite, arm),
        "seed": seed,
    }


def _derivation(experiment: Experiment, model: str, arm: str, seed: int) -> Identity:
    """Describe what else an arm is made from; nothing for most."""
    suite, section = experiment.suite, experiment.suite.arms[arm]
    sources = {
        "derive_from": section.derive_from,
        "match_loss_of": section.match_loss_of,
    }
    identity: Identity = {
        key: _subject_identity(experiment, model, source, seed)
        for key, source in sources.items()
        if source is not None
    }
    if experiment.arms[arm].uses_examples:
        identity["examples"] = _examples(suite, searches=True)
        if suite.recovery is not None and suite.recovery.validation is not None:
            corpus = suite.recovery.validation
            identity["held_out"] = corpus_identity(suite, corpus)
    return identity


def _recovery(suite: Suite, arm: str) -> Identity | None:
    section = suite.recovery
    if section is None or not suite.arms[arm].recovers:
        return None
    # How often it is saved changes nothing about what is trained.
    identity = section.model_dump(mode="json", exclude={"checkpoint_every"})
    identity["corpus"] = corpus_identity(suite, section.corpus)
    if section.validation is not None:
        identity["validation"] = corpus_identity(suite, section.validation)
    return identity


def _searches(experiment: Experiment, attacks: Iterable[Attack[Any] | None]) -> bool:
    """Say whether attacks, or others that they name, see the examples to search on."""
    for attack in attacks:
        if attack is not None:
            named = [experiment.attacks[label] for label in named_attacks(attack)]
            if any(one.uses_search_examples for one in (attack, *named)):
                return True
    return False


def named_attacks(attack: Attack[Any]) -> list[str]:
    """Return the labels of the attacks that the options of one name."""
    found: list[str] = []
    for name in marked(type(attack.options), ATTACK):
        value = getattr(attack.options, name)
        if value is not None:
            found += [value] if isinstance(value, str) else value
    return found


def _matched(experiment: Experiment, attack: Attack[Any], scene: Scene) -> Identity:
    """Describe what sets the budget of a control."""
    borrowed = len(attack.borrows(scene))  # each costs a pass for every gradient
    extra = {"borrows": borrowed} if borrowed else {}
    return {**_attack(experiment, attack), **extra}


def _neighbours(
    reads: Mapping[CellKey, CellPlan], borrows: Mapping[str, VariantPlan]
) -> Identity:
    """Describe what a cell uses of others; labels too, because its rows hold them."""
    found: Identity = {}
    if reads:
        found["reads"] = [
            {**key._asdict(), "cell": content_hash(cell.identity)}
            for key, cell in reads.items()
        ]
    if borrows:
        found["borrows"] = {arm: v.subject_key for arm, v in borrows.items()}
    return found


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


def _tokens(suite: Suite) -> Identity:
    """Describe the token rules that are not the default, if there are any."""
    stated = suite.tokens.model_dump(mode="json", exclude_defaults=True)
    return {"tokens": stated} if stated else {}


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
    for name in marked(type(options), ATTACK):
        if name in described:
            described[name] = _map(
                described[name], lambda a: _attack(experiment, experiment.attacks[a])
            )
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
