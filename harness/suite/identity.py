"""What identifies a unit: all that can change its results, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.api import ATTACK, CORPUS, LOCAL_PATH, Attack, Plugin, Scene
from harness.base import content_hash
from harness.data import ExampleSet
from harness.records import SCHEMA_VERSION
from harness.suite.experiment import Experiment
from harness.suite.model import Suite
from harness.suite.plugin_options import marked

Identity = dict[str, Any]
"""JSON values."""


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


EXAMINED = 8
"""How many test examples, the first ones, a subject alone is examined on."""
