"""Plugins that only have options, to read suites with."""

import hashlib
from pathlib import Path
from typing import Literal

import pydantic

from harness import hookimpl
from harness.api import (
    Attack,
    Budget,
    Constraint,
    CorpusName,
    LocalPath,
    Metric,
    ModelAdapter,
    Options,
)


class ToyModel(ModelAdapter):
    """Reads a folder."""

    name = "toy"

    class Options(Options):
        path: LocalPath
        """The folder with the weights."""
        revision: str | None = None
        """A branch."""
        dtype: Literal["float32", "bfloat16"] = "float32"
        """A precision."""

    def missing(self):
        there = (Path(self.options.path) / "weights.txt").is_file()
        return [] if there else [f"no weights in {self.options.path}"]

    def fingerprint(self, store_root):
        data = (Path(self.options.path) / "weights.txt").read_bytes()
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def load(self, store_root):
        raise NotImplementedError

    def anatomy(self, model):
        raise NotImplementedError

    def set_activation(self, model, name):
        raise NotImplementedError


class ToyConstraint(Constraint):
    """Has a start."""

    name = "toy_softplus"

    class Options(Options):
        start: Literal["abs", "gauge"] = "abs"
        """The weights at the beginning."""
        layers: list[int] | Literal["all"] = "all"
        """Which layers."""

    def apply(self, adapter, model, seed):
        raise NotImplementedError


class ToyMetric(Metric):
    """Reads a corpus, and task files."""

    name = "toy_metric"

    class Options(Options):
        corpus: CorpusName | None = None
        """The corpus."""
        others: list[CorpusName] = []
        """More corpora."""
        tasks: LocalPath | None = None
        """A folder of task files."""

    def measure(self, subject, context):
        raise NotImplementedError

    def summarise(self, rows):
        raise NotImplementedError


class ToyFlip(Attack):
    """Flips."""

    name = "toy_flip"
    controls = ()

    class Options(Options):
        flips: int = pydantic.Field(default=4, gt=0)
        """How many."""
        stop: float | None = None
        """When to stop."""
        words: str | None = None
        """A file with words."""

    def missing(self):
        words = self.options.words
        return [] if words is None or Path(words).is_file() else [f"no file {words}"]

    def run(self, subject, examples, context):
        raise NotImplementedError

    def budget(self, examples):
        return Budget(forward=1, backward=1)


class ToyTrigger(ToyFlip):
    """Searches."""

    name = "toy_trigger"
    uses_search_examples = True


@hookimpl
def register_models():
    return [ToyModel]


@hookimpl
def register_constraints():
    return [ToyConstraint]


@hookimpl
def register_metrics():
    return [ToyMetric]


@hookimpl
def register_attacks():
    return [ToyFlip, ToyTrigger]
