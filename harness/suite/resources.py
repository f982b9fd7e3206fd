"""What a suite names on disk and hub: missing, identified, fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pydantic

from harness import data
from harness.api import Plugin
from harness.base import (
    HarnessError,
    MissingResource,
    Problem,
    Store,
    SuiteError,
    UsageError,
    near_path,
)
from harness.suite.devices import choose_device
from harness.suite.experiment import Experiment
from harness.suite.yaml import Keys


def resolve(experiment: Experiment, store_root: Path) -> Experiment:
    """Make sure that all is there, and `identify` it.

    Raises MissingResource with all that is not on this machine, and SuiteError as
    `identify` does.
    """
    absent = missing(experiment, store_root)
    if absent:
        raise MissingResource(
            "not on this machine:\n"
            + "\n".join(f"  {problem}" for problem in absent)
            + f"\n`harness prefetch {experiment.source}` downloads what can be"
        )
    return identify(experiment, store_root)


def identify(experiment: Experiment, store_root: Path) -> Experiment:
    """Fill in the plugins' defaults, and fingerprints of models and used corpora.

    Raises SuiteError if a fingerprint is not the one that the suite states, and
    MissingResource if `missing_sources` are.
    """
    corpora = _corpora(experiment, store_root)
    models = {k: m.fingerprint(store_root) for k, m in experiment.models.items()}
    texts = {label: corpora.fingerprint(label) for label in experiment.used_corpora}
    return with_fingerprints(with_defaults(experiment), models, texts)


def missing(experiment: Experiment, store_root: Path) -> list[Problem]:
    """Return what the suite needs and this machine lacks, where the suite names it."""
    return [*missing_sources(experiment, store_root), *missing_parts(experiment)]


def missing_parts(experiment: Experiment) -> list[Problem]:
    """Return what metrics and attacks need besides, and is missing."""
    return [
        _problem(experiment, (section, label), sentence)
        for section, plugins in (
            ("metrics", experiment.metrics),
            ("attacks", experiment.attacks),
        )
        for label, plugin in plugins.items()
        for sentence in plugin.missing()
    ]


def missing_sources(experiment: Experiment, store_root: Path) -> list[Problem]:
    """Return the models and texts that are missing: what ids depend on; it is quick."""
    corpora = _corpora(experiment, store_root)
    models = [
        _problem(experiment, ("models", label, "path"), sentence)
        for label, adapter in experiment.models.items()
        for sentence in adapter.missing()
    ]
    texts = [
        _problem(experiment, ("corpora", label, _source(experiment, label)), sentence)
        for label in experiment.used_corpora
        for sentence in corpora.missing(label)
    ]
    return [*models, *texts]


def missing_device(experiment: Experiment) -> list[Problem]:
    """Return that the device of the suite is not here; nothing where it is."""
    if experiment.suite.device == "auto":  # there is one, and torch is slow to import
        return []
    try:
        choose_device(experiment.suite.device)
    except UsageError as error:
        return [_problem(experiment, ("device",), str(error))]
    return []


def _problem(experiment: Experiment, keys: Keys, sentence: str) -> Problem:
    """Say what is missing where it is named; of a path, what is called like it."""
    place, text = experiment.layer.place(keys), experiment.layer.get(*keys)
    if keys[-1] == "path" and isinstance(text, str):
        path = place.base / Path(text).expanduser()
        if not path.exists():
            sentence += near_path(path)
    return place.problem(experiment.layer.follow(keys), sentence)


def _source(experiment: Experiment, corpus: str) -> str:
    """Return the key of a corpus that says where it comes from."""
    section = experiment.suite.corpora[corpus]
    stated = ("path", "dataset", "builtin")
    return next(key for key in stated if getattr(section, key) is not None)


def prefetch(
    experiment: Experiment, store_root: Path, say: Callable[[str], None]
) -> None:
    """Fetch models, corpora and tasks; one that fails does not stop the others.

    Raises MissingResource with all that is not there in the end.
    """
    failures = []
    for name, fetch in _fetches(experiment, store_root):
        say(f"fetching {name}")
        try:
            fetch()
        except HarnessError as error:
            failures.append(f"{name}: {error}")
    lacking = failures or [*map(str, missing(experiment, store_root))]
    if lacking:
        raise MissingResource("still not on this machine:\n  " + "\n  ".join(lacking))


def with_fingerprints(
    experiment: Experiment, models: Mapping[str, str], corpora: Mapping[str, str]
) -> Experiment:
    """Return the experiment with these fingerprints in its suite.

    Raises SuiteError if the suite states others.
    """
    found = {"models": models, "corpora": corpora}
    changes: dict[str, dict[str, dict[str, Any]]] = {section: {} for section in found}
    problems = []
    for section, fingerprints in found.items():
        for label, value in fingerprints.items():
            changes[section][label] = {"fingerprint": value}
            stated = getattr(experiment.suite, section)[label].fingerprint
            if stated not in (None, value):
                keys = (section, label, "fingerprint")
                message = f"expected {stated}, found {value}"
                problems.append(experiment.layer.place(keys).problem(keys, message))
    if problems:
        raise SuiteError(problems)
    return _changed(experiment, changes)


def with_defaults(experiment: Experiment) -> Experiment:
    """State every option, so that the suite outlives a change of a default."""
    changes = {
        section: {label: _all_options(plugin) for label, plugin in plugins.items()}
        for section, plugins in experiment.plugins.items()
    }
    for label, attack in experiment.adversaries.items():
        how = experiment.suite.arms[label].disturbs
        assert how is not None
        assert how.adversarial is not None  # or it would have no adversary
        stated = how.adversarial.model_copy(update=_all_options(attack))
        recovery = how.model_copy(update={"adversarial": stated})
        changes["arms"][label] = {**changes["arms"][label], "recovery": recovery}
    return _changed(experiment, changes)


def _all_options(plugin: Plugin[Any]) -> dict[str, Any]:
    values = plugin.options.model_dump(mode="json")
    fields = type(plugin.options).model_fields
    # A null that is the default anyway would only be noise in the file.
    unset = {k for k, v in values.items() if v is None and fields[k].default is None}
    return {key: value for key, value in values.items() if key not in unset}


def _changed(
    experiment: Experiment, changes: Mapping[str, Mapping[str, dict[str, Any]]]
) -> Experiment:
    """Change entries of the suite: by section and label, the keys that are new."""
    update = {}
    for section, by_label in changes.items():
        entries: Mapping[str, pydantic.BaseModel] = getattr(experiment.suite, section)
        update[section] = {
            label: entry.model_copy(update=by_label.get(label, {}))
            for label, entry in entries.items()
        }
    return replace(experiment, suite=experiment.suite.model_copy(update=update))


# --- models and texts ---------------------------------------------------------------


def _corpora(experiment: Experiment, store_root: Path) -> data.Corpora:
    return data.Corpora(experiment.suite.corpora, Store(store_root))


def _fetches(
    experiment: Experiment, store_root: Path
) -> Iterator[tuple[str, Callable[[], object]]]:
    for label, adapter in experiment.models.items():
        yield f"models.{label}", adapter.fetch
    corpora = _corpora(experiment, store_root)
    for name in experiment.used_corpora:
        yield f"corpora.{name}", partial(corpora.fetch, name)
    for label, metric in experiment.metrics.items():
        yield f"metrics.{label}", metric.fetch
