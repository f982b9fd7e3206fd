"""One variant, from its checkpoint to what is measured on the frozen subject.

Top to bottom: load, constrain, certify, recover, freeze, certify what was frozen; then
metrics and diagnostics.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.api import Constraint, MetricContext, ModelAdapter, Visit
from harness.base import fixed_random_state, write_atomic, write_json
from harness.data import Corpora, Document
from harness.models import (
    Disturbance,
    Recovered,
    RecoverySection,
    certify,
    frozen_meanwhile,
    load_frozen,
    plain_state,
    recover,
    spent_training,
)
from harness.records import (
    Certificate,
    Certificates,
    Cost,
    Derivation,
    Diagnostic,
    Ledger,
    RecoverySummary,
)
from harness.running.arm_context import arm_context
from harness.running.context import RunContext
from harness.running.diagnostics.subject import examine
from harness.running.folder import MADE, TRAINING, Made, frozen_of, write_samples
from harness.running.journal import Journal, spent_so_far, together
from harness.running.workbench import Work
from harness.subject import Subject
from harness.suite import Experiment, Suite, VariantPlan

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

CERTIFICATE_DOCUMENTS = 8
CERTIFICATE_TOKENS = 128


def run_variant(work: Work[VariantPlan]) -> None:
    """Make the frozen subject of a variant, unless the store has it, and measure it."""
    run, plan, outcome = work.run, work.plan, work.outcome
    making = _Making(run, plan)
    try:
        folder = making.folder()
    except (Exception, SystemExit):
        outcome.ledger = _spent_making(run, plan)
        raise
    made = Made.model_validate_json((folder / MADE).read_text())
    outcome.certificate, outcome.recovery = made.certificate, made.recovery
    outcome.derivation, outcome.parameters = made.derivation, made.parameters
    outcome.ledger, outcome.frozen = made.ledger, frozen_of(folder)
    _link(folder, run.folder.unit_dir(plan.kind, plan.id))

    subject = work.bench.subject(plan, work.journal, making.subject)
    rows = _measure(work, subject)
    outcome.diagnostics = _diagnose(work, subject)
    outcome.samples = write_samples(work.lease.folder, rows)
    outcome.batch_size = subject.batch_size
    outcome.settings = {**subject.settings, "metric_products": subject.metric_products}


def load_subject(run: RunContext, plan: VariantPlan) -> Subject:
    """Load the frozen subject of a variant, made first if the store lacks it."""
    return _Making(run, plan).subject()


def promising(experiment: Experiment, arm: str) -> Constraint[Any]:
    """Return the constraint to hold a model against: a plant keeps its source's."""
    source, own = experiment.suite.arms[arm].derive_from, experiment.arms[arm]
    return own if own.role != "plant" or source is None else experiment.arms[source]


# --- making a subject ---------------------------------------------------------------


_JOURNAL = "journal.jsonl"


def _spent_making(run: RunContext, plan: VariantPlan) -> Ledger:
    """Return what was spent on a subject that is not made yet."""
    work = run.store.work("subjects", plan.subject_key)
    trained = _training(Cost(), spent_training(work))
    return together(spent_so_far(work / _JOURNAL, plan.subject_key), trained)


def _training(kept: Cost, spent: Cost) -> Ledger:
    """Return the ledger of a training; of none, an empty one."""
    if spent == Cost():
        return Ledger()
    return Ledger(kept={"train": kept}, spent={"train": spent})


@dataclass
class _Making:
    """The way of one subject from a checkpoint to a frozen folder."""

    run: RunContext
    plan: VariantPlan
    _frozen: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
    """What was read from the folder when it was made, until a subject is made of it."""

    def folder(self) -> Path:
        """Return the store's folder of the frozen subject, made if it is not there."""
        store, key = self.run.store, self.plan.subject_key
        folder = store.folder("subjects", key, self.into)
        store.discard_work("subjects", key)  # not needed any more
        return folder

    def subject(self) -> Subject:
        """Return the frozen subject, read again unless it was made just now."""
        run, plan = self.run, self.plan
        model, tokenizer = self._frozen or load_frozen(self.folder() / "model")
        self._frozen = None
        return Subject(
            model,
            tokenizer,
            device=run.device,
            dtype=run.experiment.models[plan.model].dtype,
            batch_size=run.suite.batch_size,
            rules=run.suite.tokens,
        )

    def into(self, folder: Path) -> None:
        """Make the subject: its model, how it was trained, what is known of it."""
        self._say_if_again()
        work = self.run.store.work("subjects", self.plan.subject_key)
        journal = Journal(work / _JOURNAL, self.plan.subject_key, self.run.device)
        stage = journal.stage
        with fixed_random_state(self.plan.seed), ExitStack() as to_disk:
            with stage("load", "load"):
                model, tokenizer = self._load()
                inputs = certificate_inputs(self.run.suite, self.run.corpora, tokenizer)
            with stage("constrain", "train"):
                derivation = self._constrain(model, tokenizer, journal)
            with stage("certify the constrained model", "certify"):
                before = self._certify(model, inputs)
            with stage("recover", None):  # training keeps its own accounts
                recovered = self._recover(model, tokenizer, folder / TRAINING)
            with stage("freeze", "freeze"):
                self._frozen = to_disk.enter_context(
                    frozen_meanwhile(model, tokenizer, folder / "model")
                )
            frozen, after = self._frozen[0], before
            if recovered.summary.status == "trained":
                with stage("certify the frozen model", "certify"):
                    after = self._certify(frozen, inputs)
        made = Made(
            certificate=Certificates(before=before, after=after),
            recovery=recovered.summary,
            derivation=derivation,
            parameters=sum(p.numel() for p in frozen.parameters()),
            ledger=together(
                journal.ledger(), _training(recovered.kept, recovered.spent)
            ),
        )
        write_json(folder / MADE, made.model_dump(mode="json"))

    def _say_if_again(self) -> None:
        """Tell the user where a subject is made that was there when it was measured."""
        record = self.run.folder.state(self.plan.kind, self.plan.id).valid
        if record is not None and not record.error:
            self.run.say(
                f"  the subject of {self.plan.id} is not in the store as it was: "
                "it is made again, training included"
            )

    def _load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load what the arm begins with: the model, or another arm's subject.

        A start is made of the model on the run's device, which is where it is trained.
        """
        source = self.run.suite.arms[self.plan.arm].derive_from
        if source is None:
            model, tokenizer = self._adapter.load(self.run.store.root)
            return model.to(torch.device(self.run.device)), tokenizer
        model, tokenizer = load_frozen(self._source(source))
        model.requires_grad_(True)
        return model, tokenizer

    def _constrain(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        journal: Journal,
    ) -> Derivation | None:
        run, plan = self.run, self.plan
        section = run.suite.arms[plan.arm]
        with run.progress(f"{plan.id}: {self._constraint.name}", "steps") as progress:
            context = replace(
                arm_context(run, plan, model, tokenizer),
                matched=self._loader(section.match_loss_of),
                planted=self._loader(section.weaker_than),
                retrained=self._retrained(journal),
                report=progress.update,
            )
            return self._constraint.install(self._adapter, model, context)

    def _retrained(self, journal: Journal) -> Callable[[Visit], None] | None:
        """Return what trains the arm that this one starts from again, if it needs it.

        Always from the first step: a checkpoint would hide those before it.
        """
        run, arm = self.run, self.run.suite.arms[self.plan.arm].derive_from
        section = run.suite.recovery
        if not self._constraint.retraces or section is None or arm is None:
            return None
        if not run.suite.trains(arm):
            return None
        # In this process, where its weights can be looked at on the way.
        here = {"devices": 1, "sharding": "none"}
        section = section.model_copy(
            update={"checkpoint_every": None, "validation": None, **here}
        )
        source = _Making(run, next(x for x in self.plan.sources if x.arm == arm))

        def retrain(visit: Visit) -> None:
            model, tokenizer = source._load()
            source._constrain(model, tokenizer, journal)
            recovered = source._train(
                model,
                tokenizer,
                section,
                work=run.store.work("subjects", self.plan.subject_key) / "again",
                report=lambda done, of: visit(done, of, lambda: plain_state(model)),
            )
            # The stage that this is a part of notes its time.
            cost = recovered.kept.model_copy(update={"seconds": 0.0})
            journal.note({"train": cost})

        return retrain

    def _loader(self, arm: str | None) -> Callable[[], PreTrainedModel] | None:
        """Return what loads the frozen model of an arm among the sources, if any."""
        if arm is None:
            return None
        folder = self._source(arm)
        return lambda: load_frozen(folder)[0]

    def _certify(
        self, model: PreTrainedModel, inputs: list[NDArray[np.int64]]
    ) -> Certificate:
        model.to(torch.device(self.run.device))
        return certify(self._adapter, model, self._promising, inputs)

    def _recover(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        log_file: Path,
    ) -> Recovered:
        run, plan = self.run, self.plan
        section = run.suite.recovery
        if section is None or not run.suite.trains(plan.arm):
            none = RecoverySummary(status="none", steps=0, tokens=0)
            return Recovered(none, kept=Cost(), spent=Cost())
        log = TrainingLog(run, plan)
        with (
            run.progress(f"{plan.id}: recovery", "tokens") as progress,
            run.stop.deferred() as should_stop,
        ):
            recovered = self._train(
                model,
                tokenizer,
                section,
                work=run.store.work("subjects", plan.subject_key),
                log=log,
                report=progress.update,
                should_stop=should_stop,
            )
        shutil.copyfile(log.path, log_file)
        return recovered

    def _train(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        section: RecoverySection,
        **how: Any,
    ) -> Recovered:
        run, plan = self.run, self.plan
        return recover(
            model,
            self._adapter,
            self._constraint,
            section,
            tokenizer=tokenizer,
            tokenizer_key=run.suite.models[plan.model].fingerprint or plan.model,
            corpora=run.corpora,
            store=run.store,
            seed=plan.seed,
            device=run.device,
            replica=run.suite.arms[plan.arm].replicate is not None,
            disturbance=self._disturbance,
            **how,
        )

    @property
    def _disturbance(self) -> Disturbance | None:
        how = self.run.suite.arms[self.plan.arm].disturbs
        if how is None:
            return None
        return Disturbance(
            corrupt=how.corrupt or 0.0,
            attack=self.run.experiment.adversaries.get(self.plan.arm),
            share=how.adversarial.share if how.adversarial else 0.0,
            rules=self.run.suite.tokens,
            batch_size=self.run.suite.batch_size,
        )

    @property
    def _adapter(self) -> ModelAdapter[Any]:
        return self.run.experiment.models[self.plan.model]

    @property
    def _constraint(self) -> Constraint[Any]:
        return self.run.experiment.arms[self.plan.arm]

    @property
    def _promising(self) -> Constraint[Any]:
        return promising(self.run.experiment, self.plan.arm)

    def _source(self, arm: str) -> Path:
        """Return the folder of the frozen model of an arm among the sources."""
        plan = next(source for source in self.plan.sources if source.arm == arm)
        return _Making(self.run, plan).folder() / "model"


class TrainingLog:
    """Writes ``training.jsonl`` line by line, and tells the plugins."""

    def __init__(self, run: RunContext, plan: VariantPlan) -> None:
        self._run, self._plan = run, plan
        self.path = run.folder.unit_dir(plan.kind, plan.id) / TRAINING
        self.path.unlink(missing_ok=True)

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Append one line; after a restart, all come again from the first."""
        with self.path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        values = {k: float(v) for k, v in line.items() if isinstance(v, int | float)}
        self._run.hook.step_logged(
            variant_id=self._plan.id, step=int(line["step"]), values=values
        )


def certificate_inputs(
    suite: Suite, corpora: Corpora, tokenizer: PreTrainedTokenizerBase
) -> list[NDArray[np.int64]]:
    """Return token ids of real text [<= 128] for the checks that need inputs."""
    documents = islice(_certificate_documents(suite, corpora), CERTIFICATE_DOCUMENTS)
    encoded = [
        tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
        for document in documents
    ]
    return [np.array(ids[:CERTIFICATE_TOKENS]) for ids in encoded if ids]


def _certificate_documents(suite: Suite, corpora: Corpora) -> Iterator[Document]:
    if suite.examples is not None:
        yield from corpora.all_documents(suite.examples.test.corpus)
    for name in sorted(suite.corpora):
        yield from corpora.all_documents(name)


def _link(made: Path, folder: Path) -> None:
    """Link the frozen subject from the store, and copy its training log beside it."""
    beside = folder / ".model.new"
    beside.unlink(missing_ok=True)
    beside.symlink_to(os.path.relpath(made / "model", folder.resolve()))
    beside.replace(folder / "model")
    if (made / TRAINING).exists():
        write_atomic(folder / TRAINING, (made / TRAINING).read_bytes())


# --- measuring it -------------------------------------------------------------------


def _measure(work: Work[VariantPlan], subject: Subject) -> list[dict[str, Any]]:
    """Run every metric and fill in its estimates; return the rows of all."""
    run, plan = work.run, work.plan
    rows: list[dict[str, Any]] = []
    for label in plan.identity["metrics"]:
        metric, section = run.experiment.metrics[label], run.suite.metrics[label]
        name = f"the metric {metric.name!r}"
        with (
            work.journal.stage(f"metric {label}", "metrics", subject),
            work.bench.lent(plan, name),
            subject.faster_products(),
            work.bounded(name, section.timeout_s, section.memory_gib) as bounds,
            run.progress(f"{plan.id}: {label}", "units") as progress,
        ):
            context = MetricContext(
                documents=run.corpora.documents,
                limit=run.suite.limit,
                report=progress.update,
            )
            with bounds.kept():
                with fixed_random_state(plan.seed):
                    own = [dict(row) for row in metric.measure(subject, context)]
                work.outcome.results[label] = metric.summarise(own)
        rows += [{"metric": label, **row} for row in own]
    return rows


def _diagnose(work: Work[VariantPlan], subject: Subject) -> list[Diagnostic]:
    """Ask of the subject alone whether results on it can be trusted."""
    if work.plan.identity["diagnostics"] is None:
        return []
    examples = work.bench.examples(work.plan, subject)
    with work.journal.stage("diagnostics", "metrics", subject):
        return examine(subject, examples.test)
