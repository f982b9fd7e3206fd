"""One variant: load, constrain, certify, recover, certify, freeze; then measure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.api import MetricContext
from harness.base import fixed_random_state, write_json
from harness.data import Document
from harness.models import certify, freeze, load_frozen, recover
from harness.records import (
    Certificate,
    Certificates,
    Derivation,
    Estimate,
    RecoverySummary,
)
from harness.run.arm_context import arm_context
from harness.run.context import RunContext
from harness.subject import Subject, TokenRules
from harness.suite import VariantPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TRAINING = "training.jsonl"
CERTIFICATE_DOCUMENTS = 8
CERTIFICATE_TOKENS = 128


def subject_folder(run: RunContext, plan: VariantPlan) -> Path:
    """Return the store's folder of the frozen subject, made if it is not there."""
    folder = run.store.folder("subjects", plan.subject_key, _Making(run, plan).into)
    run.store.discard_work("subjects", plan.subject_key)  # not needed any more
    return folder


def load_subject(run: RunContext, plan: VariantPlan) -> Subject:
    """Load the frozen subject of a variant that has been made."""
    model, tokenizer = load_frozen(subject_folder(run, plan) / "model")
    return Subject(
        model,
        tokenizer,
        device=run.device,
        dtype=run.experiment.models[plan.model].dtype,
        batch_size=run.suite.batch_size,
        rules=TokenRules(**run.suite.tokens.model_dump()),
    )


@dataclass(frozen=True)
class Making:
    """What is known of how a subject was made."""

    certificate: Certificates
    recovery: RecoverySummary
    derivation: Derivation | None
    parameters: int


def read_making(folder: Path) -> Making:
    """Return what the folder of a subject says of how it was made."""
    made = json.loads((folder / "made.json").read_text())
    derivation = made.get("derivation")
    return Making(
        certificate=Certificates.model_validate(made["certificate"]),
        recovery=RecoverySummary.model_validate(made["recovery"]),
        derivation=derivation and Derivation.model_validate(derivation),
        parameters=int(made["parameters"]),
    )


def measure(
    run: RunContext, plan: VariantPlan, subject: Subject
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Estimate]]]:
    """Run every metric; return the rows of all, and the estimates by metric label."""
    rows: list[dict[str, Any]] = []
    results: dict[str, dict[str, Estimate]] = {}
    for label, metric in run.experiment.metrics.items():
        with run.progress(f"{plan.id}: {label}", "units") as progress:
            context = MetricContext(
                documents=run.corpora.documents,
                limit=run.suite.limit,
                report=progress.update,
            )
            with fixed_random_state(plan.seed):
                own = [dict(row) for row in metric.measure(subject, context)]
        results[label] = metric.summarise(own)
        rows += [{"metric": label, **row} for row in own]
    return rows, results


class _Making:
    """The way of one subject from a checkpoint to a frozen folder."""

    def __init__(self, run: RunContext, plan: VariantPlan) -> None:
        self._run, self._plan = run, plan
        self._adapter = run.experiment.models[plan.model]
        self._constraint = run.experiment.arms[plan.arm]

    def into(self, folder: Path) -> None:
        """Make the subject: its model, how it was trained, what is known of it."""
        with fixed_random_state(self._plan.seed):
            model, tokenizer = self._start()
            inputs = certificate_inputs(self._run, tokenizer)
            derivation = self._install(model, tokenizer)
            before = self._certify(model, inputs)
            summary = self._recover(model, tokenizer, folder / TRAINING)
            freeze(model, tokenizer, folder / "model")
            frozen, _ = load_frozen(folder / "model")
            after = self._certify(frozen, inputs)
        both = Certificates(before=before, after=after)
        made = {
            "certificate": both.model_dump(mode="json"),
            "recovery": summary.model_dump(mode="json"),
            "derivation": derivation and derivation.model_dump(mode="json"),
            "parameters": sum(p.numel() for p in frozen.parameters()),
        }
        write_json(folder / "made.json", made)

    def _start(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load what the arm begins with: the model, or another arm's subject."""
        source = self._run.suite.arms[self._plan.arm].derive_from
        if source is None:
            return self._adapter.load(self._run.store.root)
        model, tokenizer = load_frozen(self._frozen(source))
        model.requires_grad_(True)
        return model, tokenizer

    def _install(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> Derivation | None:
        run, plan = self._run, self._plan
        match = run.suite.arms[plan.arm].match_loss_of
        matched = None
        if match is not None:
            folder = self._frozen(match)
            matched = lambda: load_frozen(folder)[0]  # noqa: E731
        with run.progress(f"{plan.id}: {self._constraint.name}", "steps") as progress:
            context = arm_context(
                run,
                plan.seed,
                tokenizer,
                bool(model.config.is_encoder_decoder),
                model.get_input_embeddings().weight.shape[0],
                matched,
                progress.update,
            )
            return self._constraint.install(self._adapter, model, context)

    def _frozen(self, arm: str) -> Path:
        """Return the folder of the frozen model of an arm among the sources."""
        plan = next(source for source in self._plan.sources if source.arm == arm)
        return subject_folder(self._run, plan) / "model"

    def _certify(
        self, model: PreTrainedModel, inputs: list[NDArray[np.int64]]
    ) -> Certificate:
        model.to(torch.device(self._run.device))
        return certify(self._adapter, model, self._constraint, inputs)

    def _recover(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        log_file: Path,
    ) -> RecoverySummary:
        run, plan = self._run, self._plan
        section = run.suite.recovery
        if section is None or not run.suite.arms[plan.arm].recovers:
            return RecoverySummary(status="none", steps=0, tokens=0)
        log = TrainingLog(run, plan)
        with (
            run.progress(f"{plan.id}: recovery", "tokens") as progress,
            run.stop.deferred() as should_stop,
        ):
            recovered = recover(
                model,
                self._adapter,
                self._constraint,
                section,
                tokenizer=tokenizer,
                tokenizer_key=run.suite.models[plan.model].fingerprint or plan.model,
                corpora=run.corpora,
                store=run.store,
                seed=plan.seed,
                work=run.store.work("subjects", plan.subject_key),
                device=run.device,
                log=log,
                report=progress.update,
                should_stop=should_stop,
            )
        shutil.copyfile(log.path, log_file)
        return recovered.summary


class TrainingLog:
    """Writes ``training.jsonl`` line by line, and tells the plugins."""

    def __init__(self, run: RunContext, plan: VariantPlan) -> None:
        self._run, self._plan = run, plan
        self.path = run.folder.unit_dir("variant", plan.id) / TRAINING
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
    run: RunContext, tokenizer: PreTrainedTokenizerBase
) -> list[NDArray[np.int64]]:
    """Return token ids of real text [<= 128] for the checks that need inputs."""
    import numpy as np

    documents = islice(_certificate_documents(run), CERTIFICATE_DOCUMENTS)
    texts = [document.text for document in documents]
    encoded = [
        tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for text in texts
    ]
    return [np.array(ids[:CERTIFICATE_TOKENS]) for ids in encoded if ids]


def _certificate_documents(run: RunContext) -> Iterator[Document]:
    if run.suite.examples is not None:
        yield from run.corpora.all_documents(run.suite.examples.test.corpus)
    for name in sorted(run.suite.corpora):
        yield from run.corpora.all_documents(name)
