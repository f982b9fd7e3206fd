"""A fixture that writes whole run folders: real plans and records, drawn losses."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base import write_json
from harness.base.signals import StopSignals
from harness.base.store import Store
from harness.data.corpora import Corpora
from harness.data.document import Example
from harness.records.files import write_record
from harness.records.record import (
    Certificate,
    CertificateCheck,
    Certificates,
    Cost,
    Diagnostic,
    ErrorInfo,
    Ledger,
    Phase,
    Record,
    RecoverySummary,
)
from harness.records.samples import Checkpoint, SampleRow
from harness.records.statistics import bootstrap_mean
from harness.records.summary import summarise_attack
from harness.running.assembly import Outcome, assemble
from harness.running.context import RunContext
from harness.running.diagnostics.rows import examine_rows
from harness.running.folder import RunFolder, write_samples
from harness.running.scored import failed_row, scored_row
from harness.suite import CellPlan, VariantPlan, dump_suite, load_experiment, make_plan

ABSENT = object()
SUITE = """
name: rehearsal
seeds: {seeds}
models:
  Pythia_1.4B:
    adapter: pythia
    path: EleutherAI/pythia-1.4b
    fingerprint: sha256:{zeros}
{models}
arms:
  baseline: {{}}
  monotone: {{constraint: softplus}}
{arms}
corpora:
  train: {{builtin: python-topics, slice: ":70%", fingerprint: sha256:{zeros}}}
  spare: {{builtin: python-topics, slice: "70%:80%", fingerprint: sha256:{zeros}}}
  test: {{builtin: python-topics, slice: "80%:", fingerprint: sha256:{zeros}}}
recovery: {{corpus: train, validation: spare, tokens: 1e6}}
metrics:
  perplexity: {{corpus: test}}
examples:
  test: {{corpus: test, count: 40}}
attacks:
  hotflip: {{}}
  random: {{match: hotflip}}
{attacks}
controls: none
{more}
"""
DETERMINISTIC = Diagnostic(
    id="determinism", status="pass", value=1e-6, n=32, unit="nats/token"
)


def deltas(*means: float) -> dict[tuple[str, str], float]:
    """Return dL by arm and attack: of the baseline's two cells, then of the other's."""
    cells = itertools.product(("baseline", "monotone"), ("hotflip", "random"))
    return dict(zip(cells, means, strict=True))


@dataclass
class Story:
    """What the records of a run folder are to say."""

    seeds: list[int] = field(default_factory=lambda: [1, 2])
    models: str = ""
    """Further models, as lines of the suite."""
    arms: str = ""
    """Further arms, a line each."""
    attacks: str = ""
    """Further attacks, a line each."""
    more: str = ""
    """Further lines of the suite."""
    clean_loss: dict[str, float] = field(
        default_factory=lambda: {"baseline": 2.4, "monotone": 2.5}
    )
    delta_loss: dict[tuple[str, str], float] = field(
        default_factory=lambda: deltas(0.60, 0.40, 0.45, 0.30)
    )
    """Mean dL, by arm and attack."""
    errors: int = 0
    """How many examples of every cell end in an error."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Training tokens, where an arm gets others."""
    documents: int = 12
    """How many documents perplexity is measured on."""
    control_flops: float = 1.0
    """What the control spends, relative to the attack."""
    failed: tuple[str, ...] = ()
    """Parts of the ids of units that fail."""
    absent: tuple[str, ...] = ()
    """Parts of the ids of units without a record."""
    full: bool = False
    """Whether cells have all that those of a run have: rows of 4 kB with traces,
    checkpoints and losses of tokens, and what is asked of them."""


@dataclass
class _Writer:
    story: Story
    run: RunContext
    replayed: dict[str, Any] = field(default_factory=dict)
    """What ``replay.json`` says."""

    def write_all(self) -> None:
        for variant in self.run.plan.variants:
            self._write(variant, self._variant_outcome)
        for cell in self.run.plan.cells:
            self._write(cell, self._cell_outcome)
        write_json(self.run.folder.root / "replay.json", self.replayed)

    def _write(self, unit: Any, make: Callable[[Any, Path], Outcome]) -> None:
        if any(part in unit.id for part in self.story.absent):
            return
        kind = "cell" if isinstance(unit, CellPlan) else "variant"
        folder = self.run.folder.unit_dir(kind, unit.id)
        folder.mkdir(parents=True)
        if any(part in unit.id for part in self.story.failed):
            error = ErrorInfo(type="CellError", message="out of paper")
            outcome = Outcome(error=error)
        else:
            outcome = make(unit, folder)
            if kind == "cell":
                assert outcome.samples is not None
                self.replayed[unit.id] = {
                    "samples_sha256": outcome.samples.sha256,
                    "rows": 4,
                    "passes": 8,
                    "largest": 1e-6,
                    "plain": True,
                }
        times = "2026-01-02T03:04:05+00:00", "2026-01-02T03:05:05+00:00"
        write_record(folder / "record.json", assemble(self.run, unit, outcome, *times))

    def _variant_outcome(self, plan: VariantPlan, folder: Path) -> Outcome:
        rng = _rng(plan.model, plan.arm, plan.seed)
        loss = self.story.clean_loss[plan.arm] + 0.02 * rng.standard_normal()
        count = self.story.documents
        rows = [_document(index, loss, rng) for index in range(count)]
        metric = self.run.experiment.metrics["perplexity"]
        return Outcome(
            results={"perplexity": metric.summarise(rows)},
            ledger=_ledger("metrics", tokens_forward=1000, flops=1e9),
            samples=write_samples(
                folder, [{"metric": "perplexity", **row} for row in rows]
            ),
            parameters=1_414_647_808,
            recovery=self._recovery(plan, loss),
            certificate=_certificates(plan.arm),
            diagnostics=[DETERMINISTIC],
        )

    def _recovery(self, plan: VariantPlan, loss: float) -> RecoverySummary:
        tokens = self.story.tokens.get(plan.arm, 1_000_000)
        trained = plan.identity["recovery"]
        reordered = trained is not None and "order" in trained
        at_once = loss + (0.0 if plan.arm == "baseline" else 1.5)
        return RecoverySummary(
            status="trained",
            steps=tokens // 16384,
            tokens=tokens,
            data_sha256=_sha256(f"{plan.seed} {tokens} {reordered}"),
            blocks_sha256=_sha256(f"{plan.seed} {tokens}"),
            loss_before=bootstrap_mean([at_once] * 3, unit="nats/token"),
            loss_after=bootstrap_mean([loss] * 3, unit="nats/token"),
        )

    def _cell_outcome(self, plan: CellPlan, folder: Path) -> Outcome:
        arm, story = plan.variant.arm, self.story
        documents = _rng("difficulty", plan.variant.seed).standard_normal(40)
        rng = _rng(plan.id)
        mean = story.delta_loss[arm, plan.attack]
        deltas = np.maximum(0.0, mean + 0.3 * documents + 0.1 * rng.standard_normal(40))
        clean = story.clean_loss[arm] + 0.3 * documents
        make = full_row if story.full else sample_row
        rows = [
            make(index, clean[index], deltas[index], error=index < story.errors)
            for index in range(
                min(
                    plan.identity["examples"]["test"]["count"],
                    self.run.suite.limit or 40,
                )
            )
        ]
        share = {"share": plan.identity.get("share", 1.0)}
        rows = [row.model_copy(update=share) for row in rows]
        factor = story.control_flops if plan.attack == "random" else 1.0
        return Outcome(
            results={"attack": summarise_attack(rows, 0.15)},
            ledger=_ledger("attack", sequences_forward=12800, flops=4.1e13 * factor),
            samples=write_samples(
                folder, [row.model_dump(mode="json") for row in rows]
            ),
            parameters=1_414_647_808,
            diagnostics=examine_rows(rows) if story.full else [],
        )


def sample_row(
    index: int, clean_loss: float, delta_loss: float, *, error: bool = False
) -> SampleRow:
    """Return a row whose numbers are as given."""
    example = Example(
        id=f"test/{index}",
        document_id=str(index),
        prompt_ids=np.arange(index, index + 8),
        reference_ids=np.arange(4),
    )
    if error:
        return failed_row(example, clean_loss=float(clean_loss), error="no luck")
    flipped = [*range(index, index + 7), 999 if delta_loss else index + 7]
    after = float(clean_loss + delta_loss)
    step = {"step": 1, "position": 7, "token": 999, "loss": after}
    return scored_row(
        example,
        status="attacked" if delta_loss else "unchanged",
        adversarial_prompt_ids=flipped,
        clean_loss=float(clean_loss),
        adversarial_loss=after,
        text_reachable=index % 4 > 0,
        adversarial_text="some text",
        trace=[step] if delta_loss else [],
    )


def full_row(
    index: int, clean_loss: float, delta_loss: float, *, error: bool = False
) -> SampleRow:
    """Return a row with all that a search leaves behind, as long as in real runs.

    Twelve steps change the last five of 24 tokens, again and again; checkpoints have
    the prompts after three, six and nine.
    """
    row = sample_row(index, clean_loss, delta_loss, error=error)
    clean = [*range(index, index + 24)]
    known = {
        "clean_prompt_ids": clean,
        "reference_ids": [*range(24)],
        "clean_text": "some words " * 5,
        "clean_token_losses": _around(clean_loss),
    }
    if row.status != "attacked":
        prompt = None if error else clean
        losses = None if error else _around(clean_loss)
        return row.model_copy(
            update={
                **known,
                "adversarial_prompt_ids": prompt,
                "adversarial_token_losses": losses,
                "checkpoints": [] if error else _kept([clean] * 3, clean_loss, [0] * 3),
            }
        )
    prompts = [clean]
    for n in range(1, 13):
        at = 19 + n % 5
        prompts.append([*prompts[-1][:at], 900 + n, *prompts[-1][at + 1 :]])
    gains = [delta_loss * n / 12 for n in range(13)]
    trace = [
        {
            "step": n,
            "positions": [19 + n % 5],
            "tokens": [900 + n],
            "loss": clean_loss + gains[n],
            "verified": 6,
            "passes": 20 * n,
            "gradients": n,
        }
        for n in range(1, 13)
    ]
    thirds = slice(3, 12, 3)
    return row.model_copy(
        update={
            **known,
            "adversarial_prompt_ids": prompts[-1],
            "adversarial_text": "other words " * 5,
            "adversarial_token_losses": _around(clean_loss + delta_loss),
            "trace": trace,
            "checkpoints": _kept(prompts[thirds], clean_loss, gains[thirds]),
        }
    )


def _around(mean: float) -> list[float]:
    """Return the losses of 24 tokens."""
    return [mean + (i - 11.5) / 10 for i in range(24)]


def _kept(
    prompts: list[list[int]], clean: float, gains: Sequence[float]
) -> list[Checkpoint]:
    """Return checkpoints at shares of the budget that ascend to that of a row."""
    shares = (0.25, 0.5, 0.75)
    return [
        Checkpoint(
            share=share,
            adversarial_prompt_ids=prompt,
            adversarial_loss=clean + gain,
            delta_loss=clean + gain - clean,
        )
        for share, prompt, gain in zip(shares, prompts, gains, strict=True)
    ]


@pytest.fixture(scope="session")
def written_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Story], Path]:
    """Return a function that writes the run folder of a story, each story once.

    Workers that test side by side have them in common: nobody writes into them.
    """
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent

    def written(story: Story) -> Path:
        folder = place / f"story-{_sha256(repr(story))[:16]}"
        folder.mkdir(exist_ok=True)
        done = folder / "done"
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                write_run(story, folder)
                done.touch()
        return folder / "run"

    return written


@pytest.fixture
def make_run(
    tmp_path: Path, written_runs: Callable[[Story], Path]
) -> Callable[..., Path]:
    """Return a function that makes a run folder; arguments are those of `Story`."""

    def make(name: str = "run", **told: Any) -> Path:
        run = tmp_path / name
        shutil.copytree(written_runs(Story(**told)), run)
        return run

    return make


def write_run(story: Story, place: Path) -> Path:
    """Write the run folder of a story; return it."""
    source = place / "rehearsal.yaml"
    source.write_text(
        SUITE.format(
            seeds=story.seeds,
            models=story.models,
            arms=story.arms,
            attacks=story.attacks,
            more=story.more,
            zeros="0" * 64,
        )
    )
    folder = RunFolder(place / "run")
    folder.root.mkdir()
    text = dump_suite(load_experiment(source).suite)
    folder.suite_file.write_text(text)
    store = Store(place / ".store")
    run = RunContext(
        plan=make_plan(load_experiment(folder.suite_file)),
        folder=folder,
        store=store,
        corpora=Corpora({}, store),
        device="cpu",
        stop=StopSignals(),
        suite_sha256=_sha256(text),
    )
    _Writer(story, run).write_all()
    return folder.root


@contextlib.contextmanager
def editing(path: Path) -> Iterator[Any]:
    """Give the document of a JSON file, and write back what it is then."""
    document = json.loads(path.read_text())
    yield document
    path.write_text(json.dumps(document, indent=1) + "\n")


def edit(path: Path, *keys: str, value: Any) -> None:
    """Change or, with ABSENT, delete one value of a JSON file."""
    with editing(path) as node:
        for key in keys[:-1]:
            node = node[key]
        if value is ABSENT:
            del node[keys[-1]]
        else:
            node[keys[-1]] = value


def read_all(run: Path) -> list[Record]:
    """Return all records of a run folder, variants first."""
    folder = RunFolder(run)
    paths = [*folder.records("variant"), *folder.records("cell")]
    return [Record.model_validate_json(path.read_text()) for path in paths]


def _document(index: int, loss: float, rng: np.random.Generator) -> dict[str, Any]:
    tokens = int(rng.integers(100, 300))
    nats = tokens * (loss + 0.1 * rng.standard_normal())
    counts = {"tokens": tokens, "words": tokens // 2, "bytes": tokens * 4}
    return {"document_id": str(index), **counts, "nats": float(nats)}


def _ledger(phase: Phase, **spent: float) -> Ledger:
    cost = Cost(**spent)
    return Ledger(kept={phase: cost}, spent={phase: cost})


def _certificates(arm: str) -> Certificates:
    promised = arm != "baseline"

    def certificate(minimum: float) -> Certificate:
        check = CertificateCheck(
            name="weights_non_negative",
            status="pass" if promised else "not_promised",
            measured={"minimum": minimum},
        )
        return Certificate(
            status="pass" if promised else "nothing_promised",
            weights_non_negative=promised,
            ffn_monotone=False,
            activation="gelu",
            examined=48 if promised else 0,
            expected=48 if promised else 0,
            checks=[check],
        )

    low = 1e-6 if promised else -0.31
    return Certificates(before=certificate(low), after=certificate(low * 1.5))


def _rng(*key: object) -> np.random.Generator:
    return np.random.default_rng(int(_sha256(repr(key))[:12], 16))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
