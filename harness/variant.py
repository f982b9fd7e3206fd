"""One variant: load, constrain, certify, recover, certify, freeze; then measure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.certificate import certify
from harness.freeze import freeze, load_frozen
from harness.interfaces import Constraint, Document, MetricContext, ModelAdapter
from harness.isolation import fixed_random_state
from harness.plan import VariantPlan
from harness.records import Certificates, Estimate, RecoverySummary
from harness.recovery import recover
from harness.run_context import RunContext
from harness.store import write_json
from harness.subject import Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

TRAINING = "training.jsonl"
CERTIFICATE_DOCUMENTS = 8
CERTIFICATE_TOKENS = 128


def subject_folder(run: RunContext, plan: VariantPlan) -> Path:
    """Return the store's folder of the frozen subject, made if it is not there."""

    def make(folder: Path) -> None:
        with fixed_random_state(plan.seed):
            _make(run, plan, folder)

    return run.store.folder("subjects", plan.subject_key, make)


def load_subject(run: RunContext, plan: VariantPlan) -> Subject:
    """Load the frozen subject of a variant that has been made."""
    model, tokenizer = load_frozen(subject_folder(run, plan) / "model")
    return Subject(
        model,
        tokenizer,
        device=run.device,
        dtype=run.experiment.models[plan.model].dtype,
        batch_size=run.suite.batch_size,
    )


def read_making(folder: Path) -> tuple[Certificates, RecoverySummary, int]:
    """Return what is known of how a subject was made, and its parameter count."""
    made = json.loads((folder / "made.json").read_text())
    return (
        Certificates.model_validate(made["certificate"]),
        RecoverySummary.model_validate(made["recovery"]),
        int(made["parameters"]),
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


def _make(run: RunContext, plan: VariantPlan, folder: Path) -> None:
    adapter = run.experiment.models[plan.model]
    constraint = run.experiment.arms[plan.arm]
    model, tokenizer = adapter.load(run.store.root)
    inputs = certificate_inputs(run, tokenizer)
    constraint.apply(adapter, model, plan.seed)
    before = certify(adapter, model.to(run.device), constraint, inputs)
    log = TrainingLog(run, plan, run.folder.unit_dir("variant", plan.id) / TRAINING)
    summary = _recover(run, plan, adapter, constraint, model, tokenizer, log)
    if log.path.exists():
        shutil.copyfile(log.path, folder / TRAINING)
    freeze(model, tokenizer, folder / "model")
    frozen, _ = load_frozen(folder / "model")
    after = certify(adapter, frozen.to(run.device), constraint, inputs)
    made = {
        "certificate": Certificates(before=before, after=after).model_dump(mode="json"),
        "recovery": summary.model_dump(mode="json"),
        "parameters": sum(p.numel() for p in frozen.parameters()),
    }
    write_json(folder / "made.json", made)
    run.store.discard_work("subjects", plan.subject_key)


def _recover(
    run: RunContext,
    plan: VariantPlan,
    adapter: ModelAdapter[Any],
    constraint: Constraint[Any],
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    log: TrainingLog,
) -> RecoverySummary:
    section = run.suite.recovery
    if section is None or not run.suite.arms[plan.arm].recovery:
        return RecoverySummary(status="none", steps=0, tokens=0)
    work = run.store.work("subjects", plan.subject_key)
    with (
        run.progress(f"{plan.id}: recovery", "tokens") as progress,
        run.stop.deferred() as should_stop,
    ):
        return recover(
            model,
            adapter,
            constraint,
            section,
            tokenizer=tokenizer,
            tokenizer_key=run.suite.models[plan.model].fingerprint or plan.model,
            corpora=run.corpora,
            store=run.store,
            seed=plan.seed,
            work=work,
            device=run.device,
            log=log,
            report=progress.update,
            should_stop=should_stop,
        )


class TrainingLog:
    """Writes ``training.jsonl`` line by line, and tells the plugins."""

    def __init__(self, run: RunContext, plan: VariantPlan, path: Path) -> None:
        self._run, self._plan, self.path = run, plan, path
        path.unlink(missing_ok=True)

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
