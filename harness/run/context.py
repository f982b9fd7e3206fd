"""What running a plan needs, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.base import Progress, StopSignals, Store
from harness.data import Corpora
from harness.run.folder import RunFolder
from harness.suite import Experiment, Plan, Suite

if TYPE_CHECKING:
    from harness.data import ExampleSets
    from harness.subject import Subject


@dataclass(frozen=True)
class RunContext:
    """A plan, where its results go, and who is told."""

    plan: Plan
    folder: RunFolder
    store: Store
    corpora: Corpora
    device: str
    stop: StopSignals
    suite_sha256: str
    say: Callable[[str], None] = lambda line: None
    """Tell the user one line."""
    _examples: dict[str, ExampleSets] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def experiment(self) -> Experiment:
        """The resolved suite with its plugins."""
        return self.plan.experiment

    @property
    def suite(self) -> Suite:
        """The resolved suite."""
        return self.experiment.suite

    @property
    def hook(self) -> Any:
        """The lifecycle hooks."""
        return self.experiment.registry.hook

    def examples(self, model: str, subject: Subject) -> ExampleSets:
        """Return the suite's examples in the tokens of a model, which `subject` is of.

        They are cut once in a run: all variants of a model share its tokenizer.
        """
        from harness.data import build_examples

        section = self.suite.examples
        assert section is not None  # a suite with attacks has examples
        if model not in self._examples:
            network, tokenizer = subject.huggingface()
            self._examples[model] = build_examples(
                section,
                self.corpora,
                tokenizer,
                self.suite.limit,
                encoder_decoder=bool(network.config.is_encoder_decoder),
            )
        return self._examples[model]

    def progress(self, label: str, unit: str) -> Progress:
        """Return a display for one long piece of work."""
        return Progress(label, unit)
