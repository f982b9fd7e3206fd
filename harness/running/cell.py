"""One cell: attack a frozen subject, then score what came out from scratch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.api import AttackContext, CellKey, Scene, stated_budget
from harness.base import content_hash, fixed_random_state
from harness.data import ExampleSets
from harness.records import SampleRow, read_samples, summarise_attack
from harness.running.bounds import Bounds
from harness.running.diagnostics.cells import examine_cell
from harness.running.folder import write_samples
from harness.running.returned import Returned
from harness.running.scored import Rescorer
from harness.running.workbench import Work
from harness.subject import Meter, Subject, reference_key
from harness.suite import CellPlan, Placed, VariantPlan

logger = logging.getLogger(__name__)

_END: Any = object()
"""What stands for the end of an attack's results."""


def run_cell(
    work: Work[CellPlan],
    samples: Mapping[CellKey, Path],
    load: Callable[[VariantPlan], Subject],
) -> None:
    """Attack every test example that no earlier attempt has finished; sum it all up.

    `samples` are the files of the cells that it reads; `load` loads others' subjects.
    """
    run, plan, outcome = work.run, work.plan, work.outcome
    subject = work.bench.subject(plan.variant, work.journal)
    examples = work.bench.examples(plan.variant, subject)
    most = run.suite.examples_of(plan.variant.arm, plan.attack)
    examples = replace(examples, test=examples.test[:most])
    rules = run.experiment.rules_of(plan.attack)
    if rules != subject.vocabulary.rules:
        subject = subject.with_rules(rules)
    outcome.parameters, outcome.allowed = subject.n_parameters, _allowed(subject)

    peers = CellPeers(plan, subject, samples, load)
    with (
        work.bench.lent(plan.variant, named(work), undo=work.journal.void),
        fixed_random_state(plan.variant.seed),
    ):
        rows = _rows(work, subject, examples, peers)

    success = run.suite.success
    found = summarise_attack(rows, success.threshold, success.rouge_drop)
    outcome.results = {"attack": found}
    outcome.diagnostics = examine_cell(work, subject, examples.test, rows)
    outcome.samples = write_samples(
        work.lease.folder, (row.model_dump(mode="json") for row in rows)
    )
    outcome.batch_size, outcome.settings = subject.batch_size, subject.settings


def named(work: Work[CellPlan]) -> str:
    """Return what sentences call the attack that is at work."""
    return f"the attack {work.run.experiment.attacks[work.plan.attack].name!r}"


def _allowed(subject: Subject) -> dict[str, Any]:
    vocabulary = subject.vocabulary
    return {"allowed": len(vocabulary.allowed), "sha256": vocabulary.sha256}


def _rows(
    work: Work[CellPlan], subject: Subject, examples: ExampleSets, peers: CellPeers
) -> list[SampleRow]:
    """Return a row for each test example, in their order."""
    section = work.run.suite.examples
    rescorer = Rescorer(subject, section.rouge_tokens if section else None)
    done = work.journal.rows
    if done:
        logger.info("%d examples were finished before", len(done))
    left = [example for example in examples.test if example.id not in done]
    if left:
        _attack(work, rescorer, replace(examples, test=left), peers)
    for example in examples.test:
        if example.id not in done:
            reason = "the attack returned nothing for this example"
            with subject.metered() as meter:
                row = rescorer.failed(example, reason)
            work.journal.note({"rescore": meter.cost()}, row)
    return [done[example.id] for example in examples.test]


def _attack(
    work: Work[CellPlan], rescorer: Rescorer, examples: ExampleSets, peers: CellPeers
) -> None:
    """Attack examples; score and note each result as it comes."""
    run, plan, journal = work.run, work.plan, work.journal
    placed = run.experiment.placed(plan.attack, plan.scene)
    total = len(journal.rows) + len(examples.test)
    context = AttackContext(
        seed_key=content_hash(plan.identity),
        budget=stated_budget(placed.matched, total) if placed.matched else None,
        matched=placed.matched,
        peers=peers,
        checkpoints=placed.checkpoints,
    )
    returned = Returned(
        named(work),
        {example.id: example for example in examples.test},
        rows=rescorer.subject.vocabulary.rows,
        positions=rescorer.subject.max_positions,
        prepended=_prepended(placed, total),
        shares=context.checkpoints,
    )
    own_flops: dict[bytes, float] = {}
    search = partial(placed.attack.run, rescorer.subject, examples, context)
    limits = run.suite.bounds_of(plan.attack)
    with (
        run.progress(plan.id, "examples") as progress,
        work.bounded(named(work), *limits) as bounds,
    ):
        results = returned.results(search)
        for one, spent in _metered(work, rescorer.subject, results, bounds):
            found = returned.checked(one)
            example = returned.examples[found.example_id]
            for key, flops in spent.by_reference.items():
                own_flops[key] = own_flops.get(key, 0.0) + flops
            with rescorer.subject.metered() as scoring:
                row = rescorer.scored(example, found, placed.share)
            journal.note(
                {"attack": spent.cost(), "rescore": scoring.cost()},
                row,
                own_flops.pop(reference_key(example.reference_ids), 0.0),
            )
            outcome = row.error or f"{row.status}, dL {row.delta_loss:.4g} nats/token"
            done = len(journal.rows)
            logger.info("%d/%d %s: %s", done, total, row.example_id, outcome)
            progress.update(len(journal.rows), total)


def _prepended(placed: Placed, examples: int) -> int | None:
    """Return how many tokens an attack may put before a prompt; None for any."""
    if placed.attack.replays:
        return None
    return stated_budget(placed.matched or placed.attack, examples).prepended


def _metered(
    work: Work[CellPlan], subject: Subject, results: Iterator[Any], bounds: Bounds
) -> Iterator[tuple[Any, Meter]]:
    """Yield each result with what was spent on it, our own scoring left out.

    What is spent after the last one, or until something ends the attack, is noted.
    """
    while True:
        found = _END
        with subject.metered() as meter:
            try:
                with bounds.kept():
                    found = next(results, _END)
            finally:
                if found is _END:
                    work.journal.note({"attack": meter.cost()})
        if found is _END:
            return
        yield found, meter


class CellPeers:
    """The `Peers` of one cell.

    Subjects are loaded when they are asked for and live as long as this object.
    """

    def __init__(
        self,
        plan: CellPlan,
        subject: Subject,
        samples: Mapping[CellKey, Path],
        load: Callable[[VariantPlan], Subject],
    ) -> None:
        """Take what the cell may use: its own subject, others' rows, others' subjects.

        `samples` are the files of the cells that it reads, all complete.
        """
        self._plan, self._samples = plan, samples
        self._subjects = {plan.variant.arm: subject}
        self._own, self._load = subject, load

    @property
    def scene(self) -> Scene:
        """Where the cell stands."""
        return self._plan.scene

    @property
    def arms(self) -> Sequence[str]:
        """All arms of the suite."""
        return self._plan.scene.arms

    def subject(self, arm: str) -> Subject:
        """Return the subject of an arm, with the cell's seed; its passes count here."""
        if arm not in self._subjects:
            peer = self._load(self._plan.borrows[arm])
            self._subjects[arm] = peer.metered_by(self._own)
        return self._subjects[arm]

    def rows(self, arm: str, attack: str, seed: int) -> Sequence[SampleRow]:
        """Return the rows of a cell, in the order of the examples."""
        return read_samples(self._samples[CellKey(arm, attack, seed)])
