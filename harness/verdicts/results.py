"""The records and rows of a run, by model, arm, seed and attack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from harness.api import Shows
from harness.records import Record, SampleRow, read_samples
from harness.run import Survey
from harness.suite import attacks_of, main_attacks

BASELINE = "baseline"
"""The arm that every suite has."""


@dataclass(frozen=True)
class Subjects:
    """A model under one arm: as many variants as there are seeds."""

    model: str
    arm: str

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.model} ({self.arm})"

    @property
    def baseline(self) -> Subjects:
        """The same model under the baseline arm."""
        return Subjects(self.model, BASELINE)


@dataclass(frozen=True)
class Attacked:
    """What became of the examples under an attack, or under several."""

    rows: Sequence[SampleRow]
    """In the order of the examples."""

    @property
    def errors(self) -> int:
        """How many examples the attack failed on."""
        return sum(row.status == "error" for row in self.rows)


@dataclass(frozen=True)
class AttackedCell(Attacked):
    """A complete cell."""

    record: Record

    @property
    def flops_per_example(self) -> float:
        """What the attack's passes cost on an example, on average, nothing reused."""
        cost = self.record.ledger.kept["attack"]
        return cost.compared_flops / max(1, len(self.rows))


class Results:
    """What a run found: complete units, and why the others are not there."""

    def __init__(self, survey: Survey, threshold: float) -> None:
        self.survey = survey
        self.suite = survey.plan.experiment.suite
        self.threshold = threshold
        self._units = {(u.model, u.arm, u.seed, u.attack): u for u in survey.units}
        self._cells: dict[str, AttackedCell] = {}

    @cached_property
    def subjects(self) -> list[Subjects]:
        """All models and arms in the suite's order, baseline first, derived last."""
        arms = sorted(self.suite.arms, key=self._place)
        return [Subjects(model, arm) for model in self.suite.models for arm in arms]

    @cached_property
    def treatments(self) -> list[Subjects]:
        """The models and arms that are compared: those made from no other arm."""
        return [s for s in self.subjects if self.source(s) is None]

    def source(self, subjects: Subjects) -> str | None:
        """Return the arm that an arm is derived from, if it is."""
        return self.suite.arms[subjects.arm].derive_from

    def planned(self, subjects: Subjects, attack: str) -> bool:
        """Say whether an arm gets an attack at all."""
        return attack in attacks_of(self.suite, subjects.arm)

    @cached_property
    def attacks(self) -> list[str]:
        """The attacks that results are about: no controls, none of a special role."""
        main = main_attacks(self.suite)
        return [label for label in self.suite.attacks if label in main]

    def shows(self, attack: str) -> Shows | None:
        """Say what the results of an entry of the suite's attacks are evidence of."""
        return self.survey.plan.experiment.attacks[attack].shows

    def worst_case(self, subjects: Subjects) -> dict[int, Attacked]:
        """Return `worst` of all attacks that the subjects get."""
        planned = [x for x in self.attacks if self.planned(subjects, x)]
        return self.worst(subjects, planned)

    def worst(self, subjects: Subjects, attacks: Sequence[str]) -> dict[int, Attacked]:
        """Return, by seed, each example's row of highest dL among some attacks.

        Only seeds under which all of these attacks are complete count.
        """
        found = {}
        cells = [self.cells(subjects, attack) for attack in attacks]
        for seed in self.suite.seeds:
            if cells and all(seed in one for one in cells):
                rows = [one[seed].rows for one in cells]
                found[seed] = Attacked(worst_rows(rows))
        return found

    @cached_property
    def controls(self) -> list[tuple[str, str]]:
        """Pairs of an attack and a control that got its budget."""
        entries = self.suite.attacks.items()
        return [(section.match, label) for label, section in entries if section.match]

    def variants(self, subjects: Subjects) -> dict[int, Record]:
        """Return the records of the complete variants, by seed."""
        found = {}
        for seed in self.suite.seeds:
            record = self._complete(subjects, seed, None)
            if record is not None:
                found[seed] = record
        return found

    def cells(self, subjects: Subjects, attack: str) -> dict[int, AttackedCell]:
        """Return the complete cells, by seed."""
        found = {}
        for seed in self.suite.seeds:
            record = self._complete(subjects, seed, attack)
            if record is not None:
                found[seed] = self._cell(record)
        return found

    def absence(self, subjects: Subjects, attack: str | None = None) -> str:
        """Say why there is nothing under any seed, as ``failed`` or ``missing``."""
        if attack is not None and not self.planned(subjects, attack):
            return "not planned"
        units = [
            self._units[subjects.model, subjects.arm, seed, attack]
            for seed in self.suite.seeds
        ]
        states = {unit.state.status for unit in units} - {"complete"}
        return ", ".join(sorted(states)) or "missing"

    @cached_property
    def records(self) -> list[Record]:
        """All complete records, in the order of the plan."""
        units = self.survey.units
        complete = [unit.state for unit in units if unit.state.status == "complete"]
        return [state.record for state in complete if state.record is not None]

    def _complete(
        self, subjects: Subjects, seed: int, attack: str | None
    ) -> Record | None:
        unit = self._units.get((subjects.model, subjects.arm, seed, attack))
        complete = unit is not None and unit.state.status == "complete"
        return unit.state.record if unit is not None and complete else None

    def _place(self, arm: str) -> tuple[bool, bool]:
        return self.suite.arms[arm].derive_from is not None, arm != BASELINE

    def _cell(self, record: Record) -> AttackedCell:
        if record.id not in self._cells:
            folder = self.survey.folder.unit_dir("cell", record.id)
            assert record.samples is not None  # it is complete
            rows = read_samples(folder / record.samples.path)
            self._cells[record.id] = AttackedCell(rows, record)
        return self._cells[record.id]


def worst_rows(attacks: Sequence[Sequence[SampleRow]]) -> list[SampleRow]:
    """Return the row of highest dL of each example; of equal ones, the first attack's.

    Examples are those of the first attack, in its order.
    """
    by_example: dict[str, list[SampleRow]] = {}
    for rows in attacks:
        for row in rows:
            by_example.setdefault(row.example_id, []).append(row)
    firsts = [row.example_id for row in attacks[0]]
    return [max(by_example[x], key=lambda row: row.delta_loss) for x in firsts]


def mean_clean_loss(rows: Iterable[SampleRow]) -> float | None:
    """Return the mean clean loss, in nats/token; None where no row has one."""
    known = [row.clean_loss for row in rows if row.clean_loss is not None]
    return fmean(known) if known else None


def mean_flops(cells: Mapping[int, AttackedCell]) -> float:
    """Return what an attack cost on an example, on average over its cells."""
    return fmean(cell.flops_per_example for cell in cells.values())
