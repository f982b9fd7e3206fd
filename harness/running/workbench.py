"""What plugins work on in turn, and whether they leave it as it was."""

from __future__ import annotations

import hashlib
import logging
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from harness.base import CellError, Lease
from harness.data import ExampleSets, build_examples
from harness.running.assembly import Outcome
from harness.running.bounds import Bounds
from harness.running.context import RunContext
from harness.running.journal import Journal
from harness.subject import Subject
from harness.suite import Suite, Unit, VariantPlan

logger = logging.getLogger(__name__)

UnitT = TypeVar("UnitT", bound=Unit)


class Workbench:
    """Keeps the subject that was loaded last, and the examples of each model.

    They are lent to one plugin after another. One that wrote into them would falsify
    all results after its own: so arrays are read-only, weights and the suite are
    compared, and what was written into is dropped and made again for the next plugin.
    """

    def __init__(
        self, run: RunContext, load: Callable[[RunContext, VariantPlan], Subject]
    ) -> None:
        """Take over a run; `load` loads the frozen subject of a variant."""
        self._run, self._load = run, load
        self._loaded: tuple[str, Subject, str] | None = None
        self._examples: dict[str, tuple[ExampleSets, str]] = {}

    def subject(
        self,
        plan: VariantPlan,
        journal: Journal,
        load: Callable[[], Subject] | None = None,
    ) -> Subject:
        """Return the frozen subject of a variant, loaded unless it is at hand.

        `load` does so in place of what the workbench was given.
        """
        if self._loaded is None or self._loaded[0] != plan.subject_key:
            self._loaded = None  # free the last one first
            with journal.stage("load the frozen subject", "load"):
                subject = load() if load else self._load(self._run, plan)
                self._loaded = plan.subject_key, subject, subject.fingerprint()
        return self._loaded[1]

    def drop(self) -> None:
        """Forget the subject: something was stopped in the middle of working on it."""
        self._loaded = None

    def examples(self, plan: VariantPlan, subject: Subject) -> ExampleSets:
        """Return the suite's examples in the tokens of the variant's model.

        They are cut once: all variants of a model share its tokenizer.
        """
        if plan.model not in self._examples:
            section = self._run.suite.examples
            assert section is not None  # a suite with attacks has examples
            network, tokenizer = subject.huggingface()
            cut = build_examples(
                section,
                self._run.corpora,
                tokenizer,
                self._run.suite.limit,
                encoder_decoder=bool(network.config.is_encoder_decoder),
            )
            sets = lock(cut)
            self._examples[plan.model] = sets, _hash(sets)
        return self._examples[plan.model][0]

    @contextmanager
    def lent(
        self, plan: VariantPlan, to: str, undo: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Let a plugin work on the subject and the examples of a variant.

        Raises CellError, after `undo`, where it wrote into them; `to` names it.
        """
        suite = pickle.dumps(self._run.suite)
        try:
            yield
        finally:
            fault = self._fault(plan, pickle.loads(suite))  # noqa: S301 - our bytes
            if fault:
                undo()
                message = (
                    f"{to} changed {fault}, which other attacks and metrics use after "
                    "it: its results are void, and what it changed is loaded again"
                )
                logger.error("%s", message)
                ended = sys.exc_info()[0]
                if ended is None or issubclass(ended, (Exception, SystemExit)):
                    raise CellError(message)

    def _fault(self, plan: VariantPlan, suite: Suite) -> str:
        """Say what is no longer as it was, and drop it or put it back."""
        found = []
        if self._loaded and self._loaded[1].fingerprint() != self._loaded[2]:
            self._loaded = None
            found.append("the weights of the subject")
        sets, before = self._examples.get(plan.model, (None, ""))
        if sets is not None and _hash(sets) != before:
            del self._examples[plan.model]
            found.append("the examples")
        if self._run.suite != suite:
            vars(self._run.suite).update(vars(suite))
            found.append("the suite")
        return " and ".join(found)


@dataclass
class Work(Generic[UnitT]):
    """One unit at work: with what, and what has come of it so far."""

    run: RunContext
    bench: Workbench
    plan: UnitT
    journal: Journal
    outcome: Outcome
    lease: Lease
    """Its folder is where files lie until the unit is finished."""

    @contextmanager
    def bounded(
        self, plugin: str, seconds: float | None, memory_gib: float | None
    ) -> Iterator[Bounds]:
        """Give a plugin bounds; drop the subject where it was stopped at work on it."""
        bounds = Bounds(plugin, seconds, memory_gib)
        folder = self.run.folder.unit_dir(self.plan.kind, self.plan.id)
        try:
            with bounds.watched(folder / "log.txt"):
                yield bounds
        finally:
            if bounds.cut_off:
                self.bench.drop()


def lock(sets: ExampleSets) -> ExampleSets:
    """Make writing into examples an error, and return them as tuples."""
    parts = tuple(sets.test), tuple(sets.search), tuple(sets.validation)
    for example in (each for part in parts for each in part):
        arrays = [example.prompt_ids, example.reference_ids]
        for choice in example.choices:
            arrays += [choice.tail_ids, choice.answer_ids]
        for ids in arrays:
            ids.flags.writeable = False
    return ExampleSets(*parts)


def _hash(sets: ExampleSets) -> str:
    return hashlib.sha256(pickle.dumps(sets)).hexdigest()
