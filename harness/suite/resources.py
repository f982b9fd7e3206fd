"""What a suite names on disk and hub: missing, identified, fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import CORPUS, Attack, Metric, Plugin
from harness.base import HarnessError, MissingResource, SuiteError
from harness.data import CorpusSection
from harness.suite.model import ModelSection
from harness.suite.plugin_options import marked

if TYPE_CHECKING:
    from harness.data import Corpora
    from harness.suite.experiment import Experiment


def resolve(experiment: Experiment, store_root: Path) -> Experiment:
    """Make sure that all is there, and `identify` it.

    Raises MissingResource with all that is not on this machine, and SuiteError as
    `identify` does.
    """
    absent = missing(experiment, store_root)
    if absent:
        raise MissingResource(
            "not on this machine:\n"
            + "\n".join(f"  {sentence}" for sentence in absent)
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
    return with_fingerprints(_with_defaults(experiment), models, texts)


def missing(experiment: Experiment, store_root: Path) -> list[str]:
    """Say what the suite needs and this machine lacks, a sentence for each."""
    measured_and_attacked: dict[str, Mapping[str, Metric[Any] | Attack[Any]]] = {
        "metrics": experiment.metrics,
        "attacks": experiment.attacks,
    }
    absent = [
        f"{section}.{label}: {sentence}"
        for section, plugins in measured_and_attacked.items()
        for label, plugin in plugins.items()
        for sentence in plugin.missing()
    ]
    return [*missing_sources(experiment, store_root), *absent]


def missing_sources(experiment: Experiment, store_root: Path) -> list[str]:
    """Say which models and texts are missing: what ids depend on, quick to find out."""
    corpora = _corpora(experiment, store_root)
    models = [
        f"models.{label}: {sentence}"
        for label, adapter in experiment.models.items()
        for sentence in adapter.missing()
    ]
    texts = [s for label in experiment.used_corpora for s in corpora.missing(label)]
    return [*models, *texts]


def with_fingerprints(
    experiment: Experiment, models: Mapping[str, str], corpora: Mapping[str, str]
) -> Experiment:
    """Return the experiment with these fingerprints in its suite.

    Raises SuiteError if the suite states others.
    """
    suite, problems = experiment.suite, []
    found = {"models": models, "corpora": corpora}
    for section, fingerprints in found.items():
        for label, value in fingerprints.items():
            stated = getattr(suite, section)[label].fingerprint
            if stated not in (None, value):
                path = (section, label, "fingerprint")
                message = f"expected {stated}, found {value}"
                place = experiment.tree.find(path)[0].place
                problems.append(place.problem(".".join(path), message))
    if problems:
        raise SuiteError(problems)
    update = {
        section: _fingerprinted(getattr(suite, section), fingerprints)
        for section, fingerprints in found.items()
    }
    return replace(experiment, suite=suite.model_copy(update=update))


# --- resolving ----------------------------------------------------------------------


def _corpora(experiment: Experiment, store_root: Path) -> Corpora:
    from harness.base import Store
    from harness.data import Corpora

    return Corpora(experiment.suite.corpora, Store(store_root))


def _used_corpora(experiment: Experiment) -> Iterator[str]:
    suite = experiment.suite
    arms_read_examples = any(c.uses_examples for c in experiment.arms.values())
    trained = any(arm.recovers for arm in suite.arms.values())
    if suite.recovery and (trained or arms_read_examples):
        yield suite.recovery.corpus
        if suite.recovery.validation:
            yield suite.recovery.validation
    if suite.examples and (suite.attacks or arms_read_examples):
        sets = suite.examples.test, suite.examples.search, suite.examples.validation
        yield from (part.corpus for part in sets if part is not None)
    for plugins in experiment.plugins.values():
        for plugin in plugins.values():
            yield from _named_corpora(plugin)


def _named_corpora(plugin: Plugin[Any]) -> Iterator[str]:
    for name in marked(type(plugin.options), CORPUS):
        value = getattr(plugin.options, name)
        if value is not None:
            yield from [value] if isinstance(value, str) else value


def _with_defaults(experiment: Experiment) -> Experiment:
    """State every option, so that the suite outlives a change of a default."""
    update = {
        section: {
            label: entry.model_copy(update=_all_options(plugins[label]))
            for label, entry in getattr(experiment.suite, section).items()
        }
        for section, plugins in experiment.plugins.items()
    }
    return replace(experiment, suite=experiment.suite.model_copy(update=update))


def _all_options(plugin: Plugin[Any]) -> dict[str, Any]:
    options = plugin.options
    values = options.model_dump(mode="json")
    fields = type(options).model_fields
    # A null that is the default anyway would only be noise in the file.
    unset = {k for k, v in values.items() if v is None and fields[k].default is None}
    return {key: value for key, value in values.items() if key not in unset}


def _fingerprinted(
    sections: Mapping[str, ModelSection | CorpusSection], found: Mapping[str, str]
) -> dict[str, Any]:
    return {
        label: section.model_copy(update={"fingerprint": found[label]})
        if label in found
        else section
        for label, section in sections.items()
    }


def prefetch(
    experiment: Experiment, store_root: Path, say: Callable[[str], None]
) -> None:
    """Fetch models, corpora and tasks; one that fails does not stop the others.

    Raises MissingResource with all that is not there in the end.
    """
    pass

    failures = []
    for name, fetch in _fetches(experiment, store_root):
        say(f"fetching {name}")
        try:
            fetch()
        except HarnessError as error:
            failures.append(f"{name}: {error}")
    lacking = failures or missing(experiment, store_root)
    if lacking:
        raise MissingResource("still not on this machine:\n  " + "\n  ".join(lacking))


def _fetches(
    experiment: Experiment, store_root: Path
) -> Iterator[tuple[str, Callable[[], None]]]:
    from harness.base import Store
    from harness.data import Corpora

    for label, adapter in experiment.models.items():
        yield f"models.{label}", adapter.fetch
    corpora = Corpora(experiment.suite.corpora, Store(store_root))
    for name in experiment.used_corpora:
        yield f"corpora.{name}", lambda name=name: corpora.fetch(name)  # type: ignore[misc]
    for label, metric in experiment.metrics.items():
        yield f"metrics.{label}", metric.fetch
