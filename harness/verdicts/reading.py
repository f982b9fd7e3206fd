"""From a run folder to findings: what each record and row means to the rule.

What an older record does not hold is missing, and then a question has no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np

from harness.api import Attack as Plugin
from harness.data import content_key
from harness.records import DiagnosticId, Margin, Record, SampleRow, margin_change
from harness.running import replays, vocabulary_of
from harness.suite import ASKED_EXAMPLES
from harness.verdicts.findings import (
    SHARES,
    Arm,
    ArmRole,
    Attack,
    Cell,
    Certificate,
    Examined,
    Findings,
    Floats,
    Matched,
    Model,
    Plant,
    PlantKind,
    Replayed,
    Role,
)
from harness.verdicts.results import Arm as Section, AttackedCell, Results

EXAMINED: tuple[DiagnosticId, ...] = (
    "determinism",
    "gradient_health",
    "gradient_truth",
    "first_order_fidelity",
)


def findings_of(results: Results) -> Findings:
    """Return what the rule has to know of a run."""
    suite = results.suite
    attacks = {label: _attack(results, label) for label in suite.attacks}
    reader = _Reader(results, attacks)
    margin = Margin.of(suite.verdicts.margin)
    return Findings(
        suite=suite.name,
        diagnostics=suite.diagnostics,
        margin=margin,
        margin_change=margin_change(margin, [x.margin for x in results.records]),
        models={label: reader.model(label) for label in suite.models},
        attacks=attacks,
        arms=[reader.arm(arm) for arm in results.arms if arm.role != "plant"],
        threshold=suite.success.threshold,
    )


# --- attacks ------------------------------------------------------------------------


def _attack(results: Results, label: str) -> Attack:
    section = results.suite.attacks[label]
    of = section.match
    if section.role is not None:
        suffix = "tokens" if section.role == "token-level" else section.role
        of = label.removesuffix(f"-{suffix}")
    return Attack(
        label=label,
        role=_role(results, label),
        gradients=_budget(results, label).backward > 0,
        limited=_limited(results, label),
        universal=_universal(results, section.match or label),
        of=of,
        shows=results.attack(label).shows,
    )


def _limited(results: Results, label: str) -> bool:
    examples = results.suite.examples
    return (
        examples is not None
        and _plugin(results, label).unbounded(examples.prompt_tokens) is not None
    )


def _universal(results: Results, label: str) -> bool:
    """Say whether one search serves all examples: its own, or one that it replays."""
    scene = results.experiment.scene()
    attack = _plugin(results, label).placed(scene)
    read = (_universal(results, key.attack) for key in attack.reads(scene))
    return attack.universal or any(read)


def _role(results: Results, label: str) -> Role:
    section, attack = results.suite.attacks[label], results.attack(label)
    if section.match is not None:
        return "control"
    if section.role is not None:
        return section.role
    if attack.shows == "transferability":
        return "transfer"
    budget = _budget(results, label)
    searches = budget.forward > 0 or budget.backward > 0
    return "main" if searches and not attack.replays else "idle"


def _budget(results: Results, label: str) -> Any:
    return _plugin(results, label).placed(results.experiment.scene()).budget(1)


def _plugin(results: Results, label: str) -> Plugin[Any]:
    return results.experiment.attacks[label]


# --- models and arms ----------------------------------------------------------------


class _Reader:
    """Reads the arms of a run, each against the examples of its model."""

    def __init__(self, results: Results, attacks: Mapping[str, Attack]) -> None:
        self.results, self.attacks = results, attacks
        self._examples: dict[str, dict[str, SampleRow]] = {}

    def model(self, label: str) -> Model:
        rows = self._rows(label).values()
        return Model(label, self._vocabulary(label, rows), [row.unit for row in rows])

    def arm(self, section: Section) -> Arm:
        variants, role = section.variants, _arm_role(section)
        cells = {x: y for x in section.planned if (y := self._complete(section, x))}
        seeds = tuple(
            sorted({*variants, *(s for found in cells.values() for s in found)})
        )
        reference = self.results.suite.reference_of(section.label)
        return Arm(
            model=section.model,
            label=section.label,
            reference=reference,
            seeds=seeds,
            clean=self._clean(section.model, seeds, cells),
            cells={x: self._cell(section.model, x, seeds, y) for x, y in cells.items()},
            role=role,
            certificates=list(_certificates(variants.values())),
            examined=self._examined(seeds, variants, cells),
            plants=[*self._plants(section)],
            matches=[*_matches(section, reference)],
            unmatched=_unmatched(section, reference),
            replayed=self._replayed(section, reference),
            holes=self._holes(section, reference),
        )

    def _rows(self, model: str) -> Mapping[str, SampleRow]:
        """Return a row for each test example of a model, by its id."""
        if model not in self._examples:
            arms = [x for x in self.results.arms if x.model == model]
            suite = self.results.suite
            cells = (
                cell
                for arm in arms
                for attack in arm.planned
                if not suite.is_free(attack)  # it has some of them
                for cell in arm.cells(attack).values()
            )
            rows = next((cell.rows for cell in cells), [])
            self._examples[model] = {row.example_id: row for row in rows}
        return self._examples[model]

    def _vocabulary(self, label: str, rows: Iterable[SampleRow]) -> int:
        """Return how many tokens a model knows; the least that rows show without it."""
        survey = self.results.survey
        for unit in survey.units:
            if unit.kind == "variant" and unit.model == label:
                folder = survey.folder.unit_dir("variant", unit.id)
                known = vocabulary_of(folder / "model")
                if known is not None:
                    return known
        ids = (max([*row.clean_prompt_ids, *row.reference_ids]) for row in rows)
        return 1 + max(ids, default=1)

    def _complete(self, section: Section, attack: str) -> dict[int, AttackedCell]:
        """Return the complete cells of an attack that have the model's examples.

        With every token free, the first of them.
        """
        most = ASKED_EXAMPLES if self.results.suite.is_free(attack) else None
        wanted = {*islice(self._rows(section.model), most)}
        return {
            seed: cell
            for seed, cell in section.cells(attack).items()
            if {row.example_id for row in cell.rows} == wanted
        }

    # --- rows -----------------------------------------------------------------------

    def _cell(
        self,
        model: str,
        label: str,
        seeds: Sequence[int],
        cells: Mapping[int, AttackedCell],
    ) -> Cell:
        by_seed = {x: self._sorted(model, cell) for x, cell in cells.items()}
        n = len(next(iter(by_seed.values())))  # all have the same examples
        rows = [row for found in by_seed.values() for row in found]
        measured = [_measured(row) for row in rows if row.delta_loss is not None]
        delta = np.full((len(seeds), n, len(SHARES)), np.nan)
        for seed, found in by_seed.items():
            delta[seeds.index(seed)] = [_deltas(row) for row in found]
        kept = bool(measured) and all(measured)
        return Cell(
            delta,
            there=np.array([seed in cells for seed in seeds]),
            checkpoints=kept,
            replicates=_replicates(seeds, by_seed, n),
            flops=_flops(cells.values(), kept=kept),
            sources=_sources(seeds, by_seed, n),
        )

    def _clean(
        self,
        model: str,
        seeds: Sequence[int],
        cells: Mapping[str, Mapping[int, AttackedCell]],
    ) -> Floats:
        clean = np.full((len(seeds), len(self._rows(model))), np.nan)
        for found in cells.values():
            for seed, cell in found.items():
                own = [row.clean_loss for row in self._sorted(model, cell)]
                known = np.array(own, dtype=np.float64)  # None becomes NaN
                at = clean[seeds.index(seed), : len(known)]
                at[np.isnan(at)] = known[np.isnan(at)]
        return clean

    def _sorted(self, model: str, cell: AttackedCell) -> list[SampleRow]:
        """Return a cell's rows in the order of the model's examples."""
        found = {row.example_id: row for row in cell.rows}
        return [found[example] for example in self._rows(model) if example in found]

    # --- what subjects were asked ---------------------------------------------------

    def _examined(
        self,
        seeds: Sequence[int],
        variants: Mapping[int, Record],
        cells: Mapping[str, Mapping[int, AttackedCell]],
    ) -> dict[DiagnosticId, Examined]:
        """Gather answers at clean prompts, and at those that gradients led to."""
        sources: list[tuple[str, Mapping[int, Record]]] = [("", variants)]
        for label, found in cells.items():
            if self.attacks[label].role == "main" and self.attacks[label].gradients:
                sources.append((label, {s: cell.record for s, cell in found.items()}))
        gathered = ((name, _gathered(name, seeds, sources)) for name in EXAMINED)
        return {name: found for name, found in gathered if found is not None}

    # --- plants ---------------------------------------------------------------------

    def _plants(self, section: Section) -> Iterator[Plant]:
        for copy in self.results.arms:
            made = (copy.model, copy.source) == (section.model, section.label)
            if made and copy.role == "plant":
                for seed, record in copy.variants.items():
                    found = _plant(copy, seed, record)
                    if found is not None:
                        yield found

    # --- completeness and replay ----------------------------------------------------

    def _beside(self, section: Section, reference: str | None) -> set[str]:
        """Return the arms that a verdict on an arm rests on, by their labels.

        The two that are compared, and what was made from either: from the reference
        arm, all but what was made for other arms.
        """
        both = {section.label, *filter(None, [reference])}
        sources = {
            label: set(own.sources.values())
            for label, own in self.results.suite.arms.items()
        }
        made = {
            label
            for label, own in sources.items()
            if section.label in own or (own and own <= both)
        }
        return both | made

    def _holes(self, section: Section, reference: str | None) -> list[str]:
        beside = self._beside(section, reference)
        return [
            f"{unit.id} ({unit.state.status})"
            for unit in self.results.survey.units
            if unit.model == section.model
            and unit.arm in beside
            and unit.state.status != "complete"
        ]

    def _replayed(self, section: Section, reference: str | None) -> list[Replayed]:
        if self.results.suite.diagnostics == "none":
            return []  # no one asked for it
        beside = self._beside(section, reference)
        records = [
            record
            for (model, arm, attack), found in self.results.complete.items()
            if attack is not None and model == section.model and arm in beside
            for record in found.values()
        ]
        found = replays(self.results.survey.folder, records)
        return [Replayed(x.cell, x.largest, x.fault) for x in found]


def _arm_role(section: Section) -> ArmRole:
    if section.source is not None:
        return "derived"
    replica = section.results.suite.arms[section.label].replicate
    return "replica" if replica else "treatment"


def _certificates(variants: Iterable[Record]) -> Iterator[Certificate]:
    for record in variants:
        if record.certificate is not None:
            before, after = record.certificate.before, record.certificate.after
            yield Certificate(
                failed="fail" in (before.status, after.status),
                examined=after.examined,
                expected=after.expected,
            )


# --- rows ---------------------------------------------------------------------------


def _measured(row: SampleRow) -> bool:
    """Say whether a row has its prompt of the whole budget, and those of all shares."""
    kept = {x.share for x in row.checkpoints} | {row.share}
    return set(SHARES) <= kept


def _deltas(row: SampleRow) -> list[float]:
    """Return dL at each share; that of the row's own prompt where none was kept."""
    own = np.nan if row.delta_loss is None else row.delta_loss
    kept = {x.share: x.delta_loss for x in row.checkpoints}
    return [kept.get(share, own) for share in SHARES[:-1]] + [own]


def _replicates(
    seeds: Sequence[int], by_seed: Mapping[int, Sequence[SampleRow]], n: int
) -> Floats | None:
    """Return dL [S, R, n] of as many further searches as every row has."""
    known = [
        len(x.replicates) for rows in by_seed.values() for x in rows if not x.error
    ]
    count = min(known, default=0)
    if not count:
        return None
    found = np.full((len(seeds), count, n), np.nan)
    for seed, rows in by_seed.items():
        for i, row in enumerate(rows):
            own = [x.delta_loss for x in row.replicates[:count]]
            found[seeds.index(seed), : len(own), i] = own
    return found


def _flops(cells: Iterable[AttackedCell], *, kept: bool) -> Floats | None:
    """Return FLOPs on an example at each share, which they are proportional to."""
    known = [x.flops_per_example() for x in cells if "attack" in x.record.ledger.kept]
    if not known:
        return None
    shares = np.array(SHARES) / SHARES[-1] if kept else np.ones(len(SHARES))
    return np.asarray(np.mean(known) * shares)


def _sources(
    seeds: Sequence[int], by_seed: Mapping[int, Sequence[SampleRow]], n: int
) -> dict[str, Floats]:
    """Return dL [S, n] of the worst prompt that each other arm gave to a replay."""
    found: dict[str, Floats] = {}
    for seed, rows in by_seed.items():
        for i, row in enumerate(rows):
            for step in row.trace:
                source, delta = step.get("source"), step.get("delta_loss")
                if isinstance(source, str) and isinstance(delta, float | int):
                    table = found.setdefault(source, np.full((len(seeds), n), np.nan))
                    at = seeds.index(seed), i
                    table[at] = np.fmax(table[at], delta)
    return found


# --- records ------------------------------------------------------------------------


def _gathered(
    name: DiagnosticId,
    seeds: Sequence[int],
    sources: Iterable[tuple[str, Mapping[int, Record]]],
) -> Examined | None:
    """Lay the values of examples side by side that were asked under every seed."""
    values: dict[str, dict[int, float]] = {}
    units: dict[str, str] = {}
    faults, answered = [], False
    for label, records in sources:
        for seed, record in records.items():
            for answer in (x for x in record.diagnostics if x.id == name):
                answered = True
                if answer.status == "fail":
                    faults.append(answer.reason or "it failed")
                for each in answer.measured.get("values", ()):
                    key = f"{each['example']} {each['at']} {label}"
                    value = np.nan if each["value"] is None else each["value"]
                    values.setdefault(key, {})[seed] = value
                    units[key] = each["document"]
    if not answered:
        return None
    keys = [key for key, found in values.items() if len(found) == len(seeds)]
    table = [[values[key][seed] for key in keys] for seed in seeds]
    return Examined(
        keys=keys,
        units=[units[key] for key in keys],
        values=np.array(table, dtype=np.float64).reshape(len(seeds), len(keys)),
        fault=faults[0] if faults else None,
    )


def _plant(copy: Section, seed: int, record: Record) -> Plant | None:
    """Return what attacks reached on a copy; None where nothing was planted."""
    made = record.derivation
    if made is None or not made.achieved or "examples" not in made.measured:
        return None
    reached = {
        label: {_content(row): row.delta_loss for row in copy.cells(label)[seed].rows}
        for label in copy.attacks
        if seed in copy.cells(label)
    }
    attacked = {example for rows in reached.values() for example in rows}
    examples = [x for x in made.measured["examples"] if x["example"] in attacked]
    kind: PlantKind = made.measured["kind"]
    return Plant(
        kind=kind,
        strength=float(made.measured["strength"]),
        units=[x["document"] for x in examples],
        own=_floats(x["own"] for x in examples),
        planted=_floats(x["planted"] for x in examples),
        reached={
            label: _floats(rows.get(x["example"]) for x in examples)
            for label, rows in reached.items()
        },
    )


def _floats(values: Iterable[float | None]) -> Floats:
    """Return numbers [k], NaN for None."""
    return np.array([*values], dtype=np.float64)


def _content(row: SampleRow) -> str:
    return content_key(row.clean_prompt_ids, row.reference_ids)


def _matching(section: Section, reference: str | None) -> list[Section]:
    """Return the arms made from the reference to have the arm's clean loss."""
    sections = section.results.suite.arms
    return [
        arm
        for arm in section.results.arms
        if arm.model == section.model
        and sections[arm.label].match_loss_of == section.label
        and arm.source == reference
    ]


def _matches(section: Section, reference: str | None) -> Iterator[Matched]:
    for match in _matching(section, reference):
        made = {
            s: x.derivation.measured for s, x in match.variants.items() if x.derivation
        }
        known = [x.get("documents", ()) for x in made.values()]
        by_document = [{x["document"]: x for x in rows} for rows in known]
        common = [
            x for x in (by_document or [{}])[0] if all(x in d for d in by_document)
        ]
        sides = {x.get("noise_on", "source") for x in made.values()}
        if common and len(sides) == 1:
            arm, own = (
                np.array([[rows[x][key] for x in common] for rows in by_document])
                for key in ("arm_loss", "match_loss")
            )
            stands_for: Literal["arm", "reference"]
            stands_for = "arm" if sides == {"arm"} else "reference"
            units = [by_document[0][x].get("unit", x) for x in common]
            yield Matched(match.label, stands_for, units, arm, own)


def _unmatched(section: Section, reference: str | None) -> str | None:
    """Say why a match that was tried is none."""
    for match in _matching(section, reference):
        if not match.variants:
            return f"{match.label} is {match.absence()}"
        for record in match.variants.values():
            if record.derivation is not None and not record.derivation.achieved:
                return f"{match.label}: {record.derivation.reason}"
        return f"{match.label} has no clean losses of the same side under every seed"
    return None
