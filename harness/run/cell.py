"""One cell: attack a frozen subject, then score what came out from scratch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.api import Adversarial, Attack, AttackContext, CellKey, Peers, Scene
from harness.base import CellError, content_hash
from harness.data import ExampleSets
from harness.records import Cost, SampleRow, read_samples
from harness.run.context import RunContext
from harness.run.scored import Rescorer
from harness.subject import Subject
from harness.suite import CellPlan, VariantPlan

PARTIAL = "samples.partial.jsonl"


@dataclass(frozen=True)
class CellResult:
    """The rows of a cell, one for each test example, and what the attack spent."""

    rows: list[SampleRow]
    cost: Cost
    restarts: int


def attack_cell(
    run: RunContext,
    plan: CellPlan,
    subject: Subject,
    examples: ExampleSets,
    peers: Peers | None = None,
) -> CellResult:
    """Attack every test example that no earlier try of this cell has finished."""
    folder = run.folder.unit_dir("cell", plan.id)
    folder.mkdir(parents=True, exist_ok=True)
    partial = PartialRows(folder / PARTIAL)
    left = [x for x in examples.test if x.id not in partial.rows]
    rescorer = Rescorer(subject, _rouge_tokens(run))
    if left:
        _attack(run, plan, rescorer, replace(examples, test=left), partial, peers)
    for example in examples.test:
        if example.id not in partial.rows:
            reason = "the attack returned nothing for this example"
            partial.add(rescorer.failed(example, reason), Cost())
    rows = [partial.rows[example.id] for example in examples.test]
    return CellResult(rows, partial.cost, partial.restarts)


def matched_attack(run: RunContext, plan: CellPlan) -> Attack[Any] | None:
    """Return the attack that this cell is a control of, if it is one."""
    match = run.suite.attacks[plan.attack].match
    return run.experiment.attacks[match].placed(plan.scene) if match else None


def _rouge_tokens(run: RunContext) -> int | None:
    section = run.suite.examples
    return None if section is None else section.rouge_tokens


def _attack(
    run: RunContext,
    plan: CellPlan,
    rescorer: Rescorer,
    examples: ExampleSets,
    partial: PartialRows,
    peers: Peers | None,
) -> None:
    subject = rescorer.subject
    attack = run.experiment.attacks[plan.attack].placed(plan.scene)
    matched = matched_attack(run, plan)
    total = len(partial.rows) + len(examples.test)
    with run.progress(plan.id, "examples") as progress:
        context = AttackContext(
            seed_key=content_hash(plan.identity),
            budget=matched.budget(total) if matched else None,
            matched=matched,
            peers=peers,
        )
        by_id = {example.id: example for example in examples.test}
        results = attack.run(subject, examples, context)
        for found, spent in _metered(subject, results):
            if found.example_id not in by_id:
                raise CellError(f"the attack returned {found.example_id!r} unasked")
            partial.add(rescorer.scored(by_id[found.example_id], found), spent)
            progress.update(len(partial.rows), total)


def _metered(
    subject: Subject, results: Iterator[Adversarial]
) -> Iterator[tuple[Adversarial, Cost]]:
    """Yield each result with what was spent on it, our own scoring left out."""
    while True:
        with subject.metered() as meter:
            found = next(results, None)
        if found is None:
            return
        yield found, meter.cost()


class PartialRows:
    """The finished examples of a cell in progress: one flushed line for each.

    A crash costs the examples under way and no other. A torn last line is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, SampleRow] = {}
        self.cost = Cost()
        self.restarts = int(path.exists())
        for line in self._lines():
            self._take(line)

    def add(self, row: SampleRow, spent: Cost) -> None:
        """Remember one row, on disk first."""
        line = {"row": row.model_dump(mode="json"), "cost": spent.model_dump()}
        with self.path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        row = SampleRow.model_validate(line["row"])
        self.rows[row.example_id] = row
        self.cost += Cost.model_validate(line["cost"])

    def _lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        whole, _, torn = self.path.read_text().rpartition("\n")
        if torn:
            self.path.write_text(whole + "\n" if whole else "")
        return [json.loads(line) for line in whole.splitlines()]


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
