"""Replay: what a run recorded, computed again by other means.

Losses, texts and gradients come from a fresh process with plain transformers; examples
are cut again from their corpora; certificates are made again of the frozen weights.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from harness.api import Metric
from harness.base import (
    HarnessError,
    Problem,
    RecordError,
    Store,
)
from harness.data import Corpora, Document, Example, build_examples, token_blocks
from harness.models import certify, load_frozen, load_tokenizer
from harness.records import Certificate, Record, SampleRow, parse_json, read_samples
from harness.running.diagnostics import plain_replay
from harness.running.diagnostics.rows import OF_SUBJECTS
from harness.running.folder import RunFolder, vocabulary_of
from harness.running.surveying import Survey
from harness.running.validation.questions import (
    Question,
    examples_differ,
    of_diagnostics,
    of_document,
    of_held_out,
    of_row,
)
from harness.running.variant import certificate_inputs, promising
from harness.subject import Vocabulary
from harness.suite import CellPlan, VariantPlan

Told = Callable[[int, int], None]
"""Gets how many questions are answered, and how many there are."""


def replay(
    survey: Survey, rows: int | None, seed: int, device: str, told: Told
) -> Iterator[Problem]:
    """Yield what of a run's complete units cannot be computed again.

    Of each cell and metric all rows are replayed, or so many that are drawn by `seed`.
    """
    jobs: list[tuple[Path, list[int], list[Question]]] = []
    # What the run's store remembers of texts could be a forgery too.
    with tempfile.TemporaryDirectory() as place:
        asked = _Run(survey, rows, random.Random(seed), Store(Path(place)))
        for variant in survey.plan.variants:
            with _said(asked, variant):
                model = asked.model(variant)
                if model is not None:
                    questions = [*asked.about(variant)]
                    jobs.append((model, asked.allowed(variant), questions))
    yield from asked.problems
    yield from _answered(jobs, device, told)


class _said:  # noqa: N801 - a context, as those of contextlib
    """Turn what goes wrong while questions are made into problems of the variant."""

    def __init__(self, run: _Run, variant: VariantPlan) -> None:
        self._run, self._variant = run, variant

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        """Note an error of ours or of a file."""
        if isinstance(error, HarnessError | OSError | ValueError | KeyError):
            path = self._run.folder.record_path("variant", self._variant.id)
            message = f"cannot be replayed: {error}"
            self._run.problems.append(Problem(str(path), (), message))
            return True
        return False


@dataclass
class _Run:
    """A run, and what can be asked about it."""

    survey: Survey
    rows: int | None
    drawn: random.Random
    store: Store
    problems: list[Problem] = field(default_factory=list)
    _examples: dict[str, dict[str, Example]] = field(default_factory=dict)
    _faults: dict[str, str | None] = field(default_factory=dict)
    _tokenizers: dict[Path, Any] = field(default_factory=dict)

    @property
    def folder(self) -> RunFolder:
        return self.survey.folder

    @cached_property
    def states(self) -> dict[str, Record]:
        """The complete records, by id."""
        return {
            unit.id: unit.state.record
            for unit in self.survey.units
            if unit.state.record is not None and unit.state.status == "complete"
        }

    @cached_property
    def corpora(self) -> Corpora:
        suite = self.survey.plan.experiment.suite
        return Corpora(suite.corpora, self.store, suite.limit)

    def model(self, variant: VariantPlan) -> Path | None:
        """Return the folder of a frozen model; a problem where it is not there."""
        cells = [x.id for x in self.survey.plan.cells if x.variant.id == variant.id]
        if self.states.keys().isdisjoint([variant.id, *cells]):
            return None
        model = self.folder.unit_dir("variant", variant.id) / "model"
        if not (model / "config.json").is_file():
            message = "there is no model: nothing can be scored again on this subject"
            self.problems.append(Problem(str(model), (), message))
            return None
        return model

    def tokenizer(self, model: Path) -> Any:
        place = model.resolve()
        if place not in self._tokenizers:
            self._tokenizers[place] = load_tokenizer(model)
        return self._tokenizers[place]

    def allowed(self, variant: VariantPlan, attack: str | None = None) -> list[int]:
        """Return the ids that may be written: by diagnostics, or by an attack."""
        experiment = self.survey.plan.experiment
        model = self.folder.unit_dir("variant", variant.id) / "model"
        rules = experiment.rules_of(attack) if attack else experiment.suite.tokens
        size = vocabulary_of(model) or len(self.tokenizer(model))
        found = Vocabulary(self.tokenizer(model), size, rules).allowed
        return [int(x) for x in found]

    # --- questions --------------------------------------------------------------------

    def about(self, variant: VariantPlan) -> Iterator[Question]:
        """Yield all questions about a subject: its own, and those of its cells."""
        if variant.id in self.states:
            yield from self._of_variant(variant, self.states[variant.id])
        for cell in self.survey.plan.cells:
            if cell.variant.id == variant.id and cell.id in self.states:
                yield from self._of_cell(cell, self.states[cell.id])

    def _of_variant(self, plan: VariantPlan, record: Record) -> Iterator[Question]:
        path = self.folder.record_path("variant", plan.id)
        model = path.parent / "model"
        for label, metric in self.survey.plan.experiment.metrics.items():
            if label in record.results:
                yield from self._of_metric(plan, path, record, label, metric)
        yield from self._held_out(plan, path, record, model)
        examples = self.examples(plan.model, model)
        self._asked_for(path, record, plan.identity["diagnostics"] is not None)
        if record.diagnostics and examples:
            yield from of_diagnostics(path, record, examples, {}, self.allowed(plan))
        self.problems += self._certificate(plan, path, record, model)

    def _of_metric(
        self,
        plan: VariantPlan,
        path: Path,
        record: Record,
        label: str,
        metric: Metric[Any],
    ) -> Iterator[Question]:
        if not metric.rolling:
            message = f"the rows of {label} are of a metric that no replay knows"
            where = ("results", label)
            self.problems.append(Problem(str(path), where, message, severity="warning"))
            return
        options, corpus = metric.options, metric.options.corpus
        if self._corpus_fault(corpus):
            return
        dtype = self.survey.plan.experiment.models[plan.model].dtype
        assert record.samples is not None
        file = path.parent / record.samples.path
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [(i, parse_json(text)) for i, text in enumerate(lines, 1)]
        rows = self._chosen([x for x in rows if x[1]["metric"] == label])
        wanted = {row["document_id"] for _, row in rows}
        known: dict[str, Document] = {
            document.id: document
            for document in self.corpora.documents(corpus)
            if document.id in wanted
        }
        for line, row in rows:
            document = known.get(row["document_id"])
            if document is None:
                message = f"{label}: the corpus {corpus} has no such document"
                self.problems.append(Problem(str(file), (), message, line))
            elif document.reference is None:
                yield of_document(file, line, row, document, options, dtype)

    def _held_out(
        self, plan: VariantPlan, path: Path, record: Record, model: Path
    ) -> Iterator[Question]:
        """Ask for the held-out loss after training, of packed text."""
        section = self.survey.plan.experiment.suite.recovery
        found = record.recovery
        if section is None or found is None or found.loss_after is None:
            return
        corpus = section.validation
        if corpus is None or self._corpus_fault(corpus):
            return
        if any(x.reference for x in islice(self.corpora.all_documents(corpus), 1)):
            return
        blocks = token_blocks(
            self.corpora,
            corpus,
            self.tokenizer(model),
            self.survey.plan.experiment.suite.models[plan.model].fingerprint or "",
            section.context,
            section.evaluation_tokens,
            self.store,
        )
        dtype = section.precision
        yield from of_held_out(path, found.loss_after, blocks, dtype)

    def _of_cell(self, plan: CellPlan, record: Record) -> Iterator[Question]:
        path = self.folder.record_path("cell", plan.id)
        model = self.folder.unit_dir("variant", plan.variant.id) / "model"
        assert record.samples is not None
        file = path.parent / record.samples.path
        rows = read_samples(file)
        experiment = self.survey.plan.experiment
        dtype = experiment.models[plan.variant.model].dtype
        placed = experiment.placed(plan.attack, plan.scene)
        universal = (placed.matched or placed.attack).universal
        examples = self.examples(plan.variant.model, model)
        for line, row in self._chosen([*enumerate(rows, 1)]):
            if examples:
                fault = examples_differ(row, examples)
                if fault:
                    self.problems.append(Problem(str(file), (), fault, line))
            yield from of_row(file, line, row, dtype, universal=universal)
        own = placed.attack.budget(len(rows)).backward
        self._asked_for(path, record, "examined" in plan.identity and own > 0)
        if examples and any(x.id == "gradient_health" for x in record.diagnostics):
            yield from self._attacked(plan, path, record, rows, examples)

    def _attacked(
        self,
        plan: CellPlan,
        path: Path,
        record: Record,
        rows: Sequence[SampleRow],
        examples: Mapping[str, Example],
    ) -> Iterator[Question]:
        prompts = {row.example_id: row.adversarial_prompt_ids for row in rows}
        allowed = self.allowed(plan.variant, plan.attack)
        # A trigger moves the protected tokens; such prompts are left out.
        known = {
            name: example
            for name, example in examples.items()
            if len(prompts.get(name) or ()) == len(example.prompt_ids)
        }
        yield from of_diagnostics(path, record, known, prompts, allowed)

    def _asked_for(self, path: Path, record: Record, asked: bool) -> None:
        """Find diagnostics that the suite asks for and the record lacks."""
        missing = set(OF_SUBJECTS) - {x.id for x in record.diagnostics}
        rows = record.samples.rows if record.samples else 0
        errors = record.results.get("attack", {}).get("errors")
        attacked = errors is None or (errors.value or 0) * rows < rows
        if asked and missing and attacked:
            message = f"the suite asks for {', '.join(sorted(missing))}, too"
            self.problems.append(Problem(str(path), ("diagnostics",), message))

    def _chosen(self, rows: list[Any]) -> list[Any]:
        if self.rows is None or self.rows >= len(rows):
            return rows
        return sorted(self.drawn.sample(rows, self.rows), key=lambda x: x[0])

    # --- what is made again -----------------------------------------------------------

    def examples(self, label: str, model: Path) -> dict[str, Example]:
        """Return the test examples of a model, cut again; none without their corpus."""
        if label not in self._examples:
            self._examples[label] = self._cut(model)
        return self._examples[label]

    def _cut(self, model: Path) -> dict[str, Example]:
        suite = self.survey.plan.experiment.suite
        section = suite.examples
        if section is None or any(
            self._corpus_fault(part.corpus)
            for part in (section.test, section.search, section.validation)
            if part is not None
        ):
            return {}
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        cut = build_examples(
            section,
            self.corpora,
            self.tokenizer(model),
            suite.limit,
            encoder_decoder=bool(config.get("is_encoder_decoder")),
        )
        return {example.id: example for example in cut.test}

    def _corpus_fault(self, name: str) -> str | None:
        """Say, once, that a corpus is not here, or is another than it was."""
        if name not in self._faults:
            section = self.survey.plan.experiment.suite.corpora[name]
            missing = self.corpora.missing(name)
            fault, severity = missing[0] if missing else None, "warning"
            if fault is None and section.fingerprint is not None:
                found = self.corpora.fingerprint(name)
                if found != section.fingerprint:
                    fault = f"corpus {name}: {section.fingerprint}, but its texts give"
                    fault, severity = f"{fault} {found}", "error"
            if fault is not None:
                message = f"what rests on it is not replayed: {fault}"
                file = str(self.folder.suite_file)
                where = ("corpora", name)
                known: Any = {"severity": severity}
                self.problems.append(Problem(file, where, message, **known))
            self._faults[name] = fault
        return self._faults[name]

    def _certificate(
        self, plan: VariantPlan, path: Path, record: Record, model: Path
    ) -> Iterator[Problem]:
        """Certify the frozen model again, where the texts for it are here."""
        experiment = self.survey.plan.experiment
        suite = experiment.suite
        wanted = [suite.examples.test.corpus] if suite.examples else []
        wanted += sorted(suite.corpora)[:1] if not wanted else []
        if record.certificate is None or any(map(self._corpus_fault, wanted)):
            return
        network, tokenizer = load_frozen(model)
        found = certify(
            experiment.models[plan.model],
            network,
            promising(experiment, plan.arm),
            certificate_inputs(suite, self.corpora, tokenizer),
        )
        yield from _certificates_differ(path, record.certificate.after, found)


def _certificates_differ(
    path: Path, stated: Certificate, found: Certificate
) -> Iterator[Problem]:
    names = ("status", "weights_non_negative", "ffn_monotone", "reason", "activation")
    for name in (*names, "examined", "expected"):
        own, other = getattr(stated, name), getattr(found, name)
        if own != other:
            where = ("certificate", "after", name)
            yield Problem(str(path), where, f"{own!r}, and certified again {other!r}")
    for check, again in zip(stated.checks, found.checks, strict=False):
        if (check.name, check.status) != (again.name, again.status):
            where = ("certificate", "after", "checks")
            message = f"{check.name} is {check.status}, and certified again "
            yield Problem(str(path), where, message + again.status)


# --- the process --------------------------------------------------------------------


def _answered(
    jobs: Sequence[tuple[Path, list[int], list[Question]]], device: str, told: Told
) -> Iterator[Problem]:
    """Ask all questions of a fresh process; yield what the answers show."""
    questions = [each for _, _, own in jobs for each in own]
    numbers = iter(range(len(questions)))
    asked = [
        {
            "model": str(model),
            "device": device,
            "allowed": allowed,
            "questions": [
                {"id": next(numbers), "ask": x.ask, "about": x.about} for x in own
            ],
        }
        for model, allowed, own in jobs
    ]
    answered = 0
    for answer in _lines(asked):
        answered += 1
        told(answered, len(questions))
        yield from questions[answer["id"]].problems(answer)
    if answered < len(questions):
        raise RecordError(
            f"the replay ended early, at {answered} of {len(questions)} questions"
        )


def _lines(jobs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    command = [sys.executable, str(Path(plain_replay.__file__)), "questions"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):
                json.dump(jobs, process.stdin)
                process.stdin.close()
            for line in process.stdout:
                yield json.loads(line)
        finally:
            process.kill()
