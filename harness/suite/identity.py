"""What identifies a unit: all that can change its results, and nothing else.

Labels, the device and the batch size are not in it, nor is the threshold, because
success is derived from the recorded losses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from harness.api import ATTACK, CORPUS, LOCAL_PATH, Attack, CellKey, Plugin, Scene
from harness.base import UsageError, content_hash
from harness.records import SCHEMA_VERSION
from harness.subject import TokenRules
from harness.suite.experiment import Experiment
from harness.suite.marks import marked, named_by
from harness.suite.model import Suite
from harness.suite.yaml import put

Identity = dict[str, Any]
"""JSON values."""
EXAMINED = 16
"""How many test examples, the first ones, a subject is examined on: at their clean
prompts, and at those that an attack returned."""
MOST_FILES = 10_000
"""In a folder that an option names: its contents are hashed."""
_MEASURED = ("metrics", "diagnostics")
"""What is asked of a variant, and changes nothing for its cells."""


def subject_identity(
    experiment: Experiment, model: str, arm: str, seed: int
) -> Identity:
    """Describe how a subject is made: what its frozen weights depend on."""
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
            **_sources(experiment, model, arm, seed),
        },
        "recovery": _recovery(experiment, arm),
        "seed": seed,
    }


def variant_identity(experiment: Experiment, subject: Identity, arm: str) -> Identity:
    """Describe a variant: its subject, and what is measured on it.

    On a planted weakness, nothing is: it is there to be attacked.
    """
    planted = experiment.arms[arm].role == "plant"

    def metrics() -> Identity:
        return {
            label: {"metric": metric.name, "options": _options(experiment, metric)}
            for label, metric in experiment.metrics.items()
        }

    def diagnostics() -> Identity | None:
        return _diagnostics(experiment.suite)

    return {
        **subject,
        "limit": experiment.suite.limit,
        "metrics": {} if planted else experiment.once("metrics", metrics),
        "diagnostics": None if planted else experiment.once("diagnostics", diagnostics),
    }


def cell_identity(
    experiment: Experiment,
    variant: Identity,
    label: str,
    scene: Scene,
    reads: Mapping[CellKey, Identity],
    borrows: Mapping[str, str],
) -> Identity:
    """Describe a cell: its variant's subject, the attack, and what it uses of others.

    `reads` are the identities of the cells whose rows it uses; `borrows` the keys of
    the subjects that it uses besides its own, by arm.
    """
    share = experiment.placed(label, scene).share
    most = experiment.suite.examples_of(scene.arm, label)
    match = experiment.suite.attacks[label].match
    borrowed = 0 if match is None else len(experiment.attacks[match].borrows(scene))
    identity = {
        **{key: value for key, value in variant.items() if key not in _MEASURED},
        **experiment.once(
            ("done", label, share, most, borrowed),
            lambda: _done(experiment, label, share, most, borrowed),
        ),
    }
    # Labels too, because its rows hold them.
    if reads:
        identity["reads"] = [
            {**key._asdict(), "cell": content_hash(cell)} for key, cell in reads.items()
        ]
    if borrows:
        identity["borrows"] = dict(borrows)
    return identity


def _done(
    experiment: Experiment, label: str, share: float, most: int | None, borrowed: int
) -> Identity:
    """Describe what a cell does with its subject, and on what.

    It gets `share` times the stated budget and at most so many examples; what sets the
    budget of a control borrows so many subjects.
    """
    suite, attack = experiment.suite, experiment.attacks[label]
    match = suite.attacks[label].match
    matched = None if match is None else experiment.attacks[match]
    return {
        **_attack(experiment, attack),
        **({} if share == 1 else {"share": share}),
        "match": None if matched is None else _matched(experiment, matched, borrowed),
        "examples": _examples(suite, _searches(experiment, attack, matched), most),
        **_tokens(experiment.rules_of(label)),
        **_examined(suite, label, attack),
    }


# --- what a subject is made of ------------------------------------------------------


def _sources(experiment: Experiment, model: str, arm: str, seed: int) -> Identity:
    """Describe what else an arm is made from; nothing for most."""
    suite = experiment.suite
    identity: Identity = {
        key: subject_identity(experiment, model, source, seed)
        for key, source in suite.arms[arm].sources.items()
    }
    if experiment.arms[arm].uses_examples:
        identity["examples"] = _examples(suite, searches=True)
        if suite.recovery is not None and suite.recovery.validation is not None:
            identity["held_out"] = suite.corpora[suite.recovery.validation].definition
        unseen = [suite.corpora[label].definition for label in suite.unseen_corpora()]
        identity["unseen"] = unseen
    if experiment.arms[arm].reads_attacks:
        identity["attacked"] = _attacked(experiment, model, arm, seed)
    return identity


def _attacked(
    experiment: Experiment, model: str, arm: str, seed: int
) -> dict[str, str]:
    """Identify the cells of the arm that an arm starts from, by attack."""
    source = str(experiment.suite.arms[arm].derive_from)
    subject = subject_identity(experiment, model, source, seed)
    variant = variant_identity(experiment, subject, source)
    scene = experiment.scene(source, seed)
    return {
        label: content_hash(cell_identity(experiment, variant, label, scene, {}, {}))
        for label in experiment.searches(arm, source)
    }


def _recovery(experiment: Experiment, arm: str) -> Identity | None:
    suite, section = experiment.suite, experiment.suite.recovery
    if section is None or not suite.trains(arm):
        return None
    identity = section.model_dump(mode="json", exclude=section.changes_nothing)
    if suite.arms[arm].replicate is not None:
        identity["order"] = "replica"
    identity |= _reading(experiment, arm)
    identity["corpus"] = suite.corpora[section.corpus].definition
    if section.validation is not None:
        identity["validation"] = suite.corpora[section.validation].definition
    return identity


def _reading(experiment: Experiment, arm: str) -> Identity:
    """Describe what is read in recovery in place of the right tokens, if anything is.

    There, no rule asks whether a text encodes to a prompt.
    """
    suite = experiment.suite
    how, attack = suite.arms[arm].disturbs, experiment.adversaries.get(arm)
    identity: Identity = {}
    if how is not None and how.corrupt is not None:
        identity["corrupt"] = how.corrupt
    if how is not None and how.adversarial is not None and attack is not None:
        share = {"share": how.adversarial.share}
        identity["adversarial"] = {**_attack(experiment, attack), **share}
        rules = suite.tokens.model_dump(mode="json", exclude_defaults=True)
        rules.pop("reachable_only", None)
        identity |= {"tokens_written": rules} if rules else {}
    return identity


# --- what is done with it -----------------------------------------------------------


def _diagnostics(suite: Suite) -> Identity | None:
    """Describe what is asked of a subject alone: the same, standard or full."""
    examples = _examples(suite, searches=False)
    if suite.diagnostics == "none" or examples is None:
        return None
    count = min(examples["test"]["count"], EXAMINED)
    examples = {**examples, "test": {**examples["test"], "count": count}}
    return {"examples": examples, **_tokens(suite.tokens)}


def _examined(suite: Suite, label: str, attack: Attack[Any]) -> Identity:
    """Say on how many prompts that an attack returned the subject is examined."""
    asked = suite.diagnostics != "none" and suite.attacks[label].is_main
    return {"examined": EXAMINED} if asked and not attack.replays else {}


def _attack(experiment: Experiment, attack: Attack[Any]) -> Identity:
    return {"attack": attack.name, "options": _options(experiment, attack)}


def _matched(experiment: Experiment, attack: Attack[Any], borrowed: int) -> Identity:
    """Describe what sets the budget of a control.

    Each subject that it borrows costs a pass for every gradient.
    """
    extra = {"borrows": borrowed} if borrowed else {}
    return {**_attack(experiment, attack), **extra}


def _searches(experiment: Experiment, *attacks: Attack[Any] | None) -> bool:
    """Say whether attacks, or others that they name, see the examples to search on."""
    stated = [attack for attack in attacks if attack is not None]
    named = [experiment.attacks[x] for one in stated for x in named_by(one, ATTACK)]
    return any(attack.uses_search_examples for attack in (*stated, *named))


def _examples(suite: Suite, searches: bool, most: int | None = None) -> Identity | None:
    """Describe the examples: those to search on only for attacks that see them.

    There are at most so many test examples where `most` says so.
    """
    section = suite.examples
    if section is None:
        return None
    count = min(section.test.count, most or section.test.count)
    sets = {"test": section.test.model_copy(update={"count": count})}
    if searches and section.search and section.validation:
        sets |= {"search": section.search, "validation": section.validation}
    return {
        "prompt_tokens": section.prompt_tokens,
        "reference_tokens": section.reference_tokens,
        **section.beyond_loss,
        **{
            name: {"corpus": suite.corpora[part.corpus].definition, "count": part.count}
            for name, part in sets.items()
        },
    }


def _tokens(rules: TokenRules) -> Identity:
    """Describe whether prompts are texts, and the rules that are not the default."""
    stated = rules.model_dump(mode="json", exclude_defaults=True)
    return {"tokens": stated | {"reachable_only": rules.reachable_only}}


# --- options ------------------------------------------------------------------------


def _options(
    experiment: Experiment, plugin: Plugin[Any], without: str | None = None
) -> Identity:
    """Describe options, defaults filled in: corpora, attacks and files by contents.

    Null options are left out, so that a plugin can gain one without new ids.
    """
    describe: dict[str, Callable[[str], Any]] = {
        LOCAL_PATH: _contents,
        ATTACK: lambda label: _attack(experiment, experiment.attacks[label]),
        CORPUS: lambda label: experiment.suite.corpora[label].definition,
    }
    options = plugin.options.model_dump(mode="json")
    for mark, text, keys in list(marked(type(plugin.options), options)):
        if mark == without:
            options.pop(str(keys[0]), None)
        elif mark in describe:
            put(options, keys, describe[mark](text))
    return {name: value for name, value in options.items() if value is not None}


def _contents(text: str) -> str:
    """Identify a file or folder by what is in it, anything else by its name."""
    path = Path(text)
    if not path.exists():
        return text
    files = [path] if path.is_file() else sorted(islice(path.rglob("*"), MOST_FILES))
    if len(files) == MOST_FILES:
        raise UsageError(f"{path} holds {MOST_FILES:,} files or more: too many to hash")
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            name = file.relative_to(path).as_posix()
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{name}\0{content}\n".encode())
    return f"sha256:{digest.hexdigest()}"
