"""What a run found, arm by arm: complete records and their rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.api import Attack, Budget, Term
from harness.base import RecordError
from harness.records import (
    AttackRef,
    ClaimsChange,
    Record,
    RecoverySummary,
    SampleRow,
    claims_changes,
    parse_json,
    read_samples,
)
from harness.running import Survey
from harness.verdicts.pairing import (
    Attacked,
    Pairing,
    pair,
    same_examples,
    worst_rows,
)

BASELINE = "baseline"
"""The arm that every suite has."""


@dataclass(frozen=True)
class AttackedCell(Attacked):
    """A complete cell."""

    record: Record

    def flops_per_example(self, *, spent: bool = False) -> float:
        """Return the FLOPs of the attack's passes on an example, nothing reused.

        Those that led to the rows; or all that were `spent`, with the work that an
        interruption threw away. Of several searches of a universal attack, one's.
        """
        ledger = self.record.ledger
        cost = (ledger.spent if spent else ledger.kept)["attack"]
        searches = 1 + max((len(row.replicates) for row in self.rows), default=0)
        return cost.compared_flops / max(1, len(self.rows)) / searches


@dataclass(frozen=True, eq=False)
class Sums:
    """Numerators and denominators of an estimate, unit by unit."""

    units: tuple[str, ...]
    """Sorted."""
    numerators: NDArray[np.float64]
    denominators: NDArray[np.float64]

    @classmethod
    def of(cls, by_unit: Mapping[str, Sequence[float]]) -> Sums:
        """Return the sums of each unit in the order of their names."""
        units = tuple(sorted(by_unit))
        above, below = np.array([by_unit[unit] for unit in units], np.float64).T
        return cls(units, above, below)


class Results:
    """What a run found: complete units, and why the others are not there."""

    def __init__(self, survey: Survey, threshold: float) -> None:
        self.survey = survey
        self.experiment = survey.plan.experiment
        self.suite = self.experiment.suite
        self.threshold = threshold
        self._cells: dict[str, AttackedCell] = {}
        self._terms: dict[str, Mapping[tuple[str, str], Sums]] = {}

    @cached_property
    def arms(self) -> list[Arm]:
        """All models and arms in the suite's order, baseline first, derived last."""
        sections = self.suite.arms
        labels = sorted(
            sections, key=lambda x: (sections[x].derive_from is not None, x != BASELINE)
        )
        return [
            Arm(self, model, label) for model in self.suite.models for label in labels
        ]

    @cached_property
    def treatments(self) -> list[Arm]:
        """The models and arms that are compared: those made from no other arm."""
        return [arm for arm in self.arms if arm.source is None]

    def arm(self, model: str, label: str) -> Arm:
        """Return an arm of a model, by their labels."""
        (found,) = [x for x in self.arms if (x.model, x.label) == (model, label)]
        return found

    @cached_property
    def attacks(self) -> list[str]:
        """The attacks that results are about: no controls, none of a special role."""
        return self.suite.main_attacks

    @cached_property
    def controls(self) -> list[tuple[str, str]]:
        """Pairs of an attack and a control that got its budget."""
        entries = self.suite.attacks.items()
        return [(section.match, label) for label, section in entries if section.match]

    def attack(self, label: str) -> AttackRef | Attack[Any]:
        """Return what records say of an attack; its plugin where there is no record."""
        return self._attacks.get(label) or self.experiment.attacks[label]

    def share(self, attack: str) -> float:
        """Return which multiple of its stated budget an attack was given."""
        known = self._attacks.get(attack)
        return 1.0 if known is None else known.share

    @cached_property
    def records(self) -> list[Record]:
        """All complete records, variants first."""
        return [x for records in self.complete.values() for x in records.values()]

    @cached_property
    def _attacks(self) -> dict[str, AttackRef]:
        return {x.attack.label: x.attack for x in self.records if x.attack}

    @cached_property
    def complete(self) -> Mapping[tuple[str, str, str | None], dict[int, Record]]:
        """Complete records by model, arm and attack (None: variants), then by seed."""
        found: dict[tuple[str, str, str | None], dict[int, Record]] = defaultdict(dict)
        for unit in self.survey.units:
            if unit.state.status == "complete":
                assert unit.state.record is not None  # that is what it means
                found[unit.model, unit.arm, unit.attack][unit.seed] = unit.state.record
        return found

    @cached_property
    def claims_changes(self) -> Mapping[str, ClaimsChange]:
        """Which groups of claims were changed after results were there, and how."""
        stated = [record.claims for record in self.records]
        return claims_changes(self.suite.stated_claims(), stated)

    def terms(self, record: Record) -> Mapping[tuple[str, str], Sums]:
        """Return what the rows of a variant add up to, by metric and estimate."""
        if record.id not in self._terms:
            self._terms[record.id] = dict(self._summed(record))
        return self._terms[record.id]

    def _summed(self, record: Record) -> Iterator[tuple[tuple[str, str], Sums]]:
        found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(dict)
        path = self.survey.folder.samples_path(record)
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    for key, term in self._terms_of(line):
                        sums = found[key].setdefault(str(term.unit), [0.0, 0.0])
                        sums[0] += term.numerator
                        sums[1] += term.denominator
                except Exception as error:  # whatever a plugin makes of a bad row
                    message = f"{path}:{number}: is no row of a metric: {error!r}"
                    raise RecordError(message) from error
        for key, by_unit in found.items():
            yield key, Sums.of(by_unit)

    def _terms_of(self, line: bytes) -> Iterator[tuple[tuple[str, str], Term]]:
        row = parse_json(line.decode())
        label = row.pop("metric")
        metric = self.experiment.metrics.get(label)
        for name, term in (metric.terms(row) if metric else {}).items():
            yield (label, name), term

    def cell(self, record: Record) -> AttackedCell:
        """Return a complete cell with its rows, which are read once.

        They are kept without what is only shown: see `_SHOWN`.
        """
        if record.id not in self._cells:
            rows = [*map(_bare, self.samples(record))]
            self._cells[record.id] = AttackedCell(rows, record)
        return self._cells[record.id]

    def samples(self, record: Record) -> list[SampleRow]:
        """Read all that the rows of a complete cell say."""
        return read_samples(self.survey.folder.samples_path(record))


_SHOWN = dict.fromkeys(
    (
        "adversarial_text",
        "clean_text",
        "clean_token_losses",
        "adversarial_token_losses",
        "reference_text",
        "clean_summary",
        "adversarial_summary",
    )
)
"""What no result is computed from: half of what a row takes, with the steps."""


def _bare(row: SampleRow) -> SampleRow:
    """Return a row without what is only shown; of its steps, those of replays stay."""
    steps = [step for step in row.trace if "source" in step]
    return row.model_copy(update={**_SHOWN, "trace": steps})


@dataclass(frozen=True, eq=False)
class Arm:
    """One model under one arm: as many variants as there are seeds, and their cells."""

    results: Results = field(repr=False)
    model: str
    label: str

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.model} ({self.label})"

    @cached_property
    def baseline(self) -> Arm:
        """The baseline arm of the same model."""
        return self.results.arm(self.model, BASELINE)

    @property
    def is_baseline(self) -> bool:
        """Whether this is the baseline arm."""
        return self.label == BASELINE

    @property
    def source(self) -> str | None:
        """The arm that it is derived from, if it is."""
        return self.results.suite.arms[self.label].derive_from

    @property
    def role(self) -> str | None:
        """What full diagnostics use it for, by its records or else its plugin."""
        recorded = [record.arm.role for record in self.variants.values()]
        return (
            recorded[0] if recorded else self.results.experiment.arms[self.label].role
        )

    @property
    def seeds(self) -> int:
        """How many seeds it was to get."""
        return len(self.results.suite.seeds_of(self.label))

    @property
    def variants(self) -> dict[int, Record]:
        """The records of its complete variants, by seed."""
        return self.results.complete.get((self.model, self.label, None), {})

    def cells(self, attack: str) -> dict[int, AttackedCell]:
        """Return the complete cells of an attack, by seed."""
        found = self.results.complete.get((self.model, self.label, attack), {})
        return {seed: self.results.cell(record) for seed, record in found.items()}

    def absence(self, attack: str | None = None) -> str:
        """Say why there is nothing of an attack, or of the arm itself, under any seed.

        As ``failed``, ``missing`` or ``not planned``.
        """
        if attack is not None and attack not in self.planned:
            return "not planned"
        states = {
            unit.state.status
            for unit in self.results.survey.units
            if (unit.model, unit.arm, unit.attack) == (self.model, self.label, attack)
        }
        return ", ".join(sorted(states - {"complete"})) or "missing"

    # --- training -------------------------------------------------------------------

    @property
    def trainings(self) -> dict[int, RecoverySummary]:
        """What recovery training did, by seed, where there was any to do."""
        return {seed: x.recovery for seed, x in self.variants.items() if x.recovery}

    def same_training(self, other: Arm) -> bool | None:
        """Compare tokens and order with another arm's; None without a seed in common.

        Of a replica, the order is another one.
        """
        own, base = self.trainings, other.trainings
        shared = [seed for seed in own if seed in base]
        if not shared:
            return None
        reordered = "replica" in (self.role, other.role)
        hashes = "blocks_sha256" if reordered else "data_sha256"
        return all(_budget(own[x], hashes) == _budget(base[x], hashes) for x in shared)

    # --- attacks --------------------------------------------------------------------

    @cached_property
    def planned(self) -> list[str]:
        """All attacks and controls that it gets, by their labels."""
        return self.results.suite.attacks_of(self.label)

    @cached_property
    def attacks(self) -> list[str]:
        """The attacks that search and are no control, by their labels."""
        return [label for label in self.planned if self._searches(label)]

    def _searches(self, label: str) -> bool:
        section = self.results.suite.attacks[label]
        if section.match is not None or section.role is not None:
            return False
        budget = self._budget(label)
        spends = budget.forward > 0 or budget.backward > 0
        return spends and not self.results.attack(label).replays

    def _budget(self, label: str) -> Budget:
        """Return what the attack costs on an example, as it acts on this arm."""
        experiment = self.results.experiment
        scene = experiment.scene(self.label)
        return experiment.attacks[label].placed(scene).budget(1)

    # --- several cells --------------------------------------------------------------

    def worst(self, attacks: Sequence[str]) -> dict[int, Attacked]:
        """Return, by seed, each example's row of highest dL among some attacks.

        Only seeds under which all of these attacks are complete count.
        """
        cells = [self.cells(attack) for attack in attacks]
        return {
            seed: Attacked(worst_rows([one[seed].rows for one in cells]))
            for seed in self.results.suite.seeds
            if cells and all(seed in one for one in cells)
        }

    def pairing(self, first: str, second: str) -> Pairing | str:
        """Pair two attacks on this arm, or say why that cannot be done."""
        return paired({first: (self, first), second: (self, second)})


def paired(sides: Mapping[str, tuple[Arm, str]]) -> Pairing | str:
    """Pair two sides, by name, each an attack on an arm; or say why it cannot be."""
    for name, (arm, attack) in sides.items():
        if not arm.cells(attack):
            return f"{name} {arm.absence(attack)}"
    first, second = (arm.cells(attack) for arm, attack in sides.values())
    why = "no seed in common"
    if first.keys() & second.keys():
        same = same_examples([*first.values(), *second.values()])
        why = "every pair has an error" if same else "examples differ"
    return pair(first, second) or why


def _budget(summary: RecoverySummary, hashes: str) -> tuple[object, ...]:
    """Return what equal training has in common."""
    stated = summary.status, summary.steps, summary.tokens
    return *stated, getattr(summary, hashes)


def mean_flops(cells: Mapping[int, AttackedCell], *, spent: bool = False) -> float:
    """Return `flops_per_example`, on average over an attack's cells."""
    return fmean(cell.flops_per_example(spent=spent) for cell in cells.values())
