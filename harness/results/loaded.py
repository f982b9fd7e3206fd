"""A run folder as tables: variants, cells, samples, verdicts and contrasts."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import report
from harness.records import (
    ArmVerdict,
    ClaimAnswer,
    Cost,
    Estimate,
    Record,
    read_samples,
)
from harness.report import Report
from harness.running import Survey, SurveyedUnit, survey

if TYPE_CHECKING:
    from pandas import DataFrame

Row = dict[str, Any]


class Run:
    """A run folder; `harness.load_run` returns it.

    Tables are pandas DataFrames. Model, arm, seed and attack are columns of their own,
    an interval is two columns (``..._low``, ``..._high``), and what is not there is
    missing, never zero. Losses are in nats/token.
    """

    def __init__(
        self, path: Path, plugins: Sequence[Path] = (), *, trust: bool = False
    ) -> None:
        self.path = Path(path)
        """The run folder."""
        self.survey: Survey = survey(self.path, plugins, trust=trust)
        """The plan, and the state of each of its units."""

    @cached_property
    def report(self) -> Report:
        """The report of the run, verdicts and tables, as `harness report` makes it."""
        return report.build(self.survey)

    @cached_property
    def variants(self) -> DataFrame:
        """A row for each model, arm and seed: its state, metrics, training and cost.

        A metric's columns are called like ``perplexity.loss``.
        """
        units = [unit for unit in self.survey.units if unit.kind == "variant"]
        return _frame(
            [{**_unit(unit), **_of_record(unit, _variant)} for unit in units],
            ["model", "arm", "seed", "id", "status", "reason"],
        )

    @cached_property
    def cells(self) -> DataFrame:
        """A row for each model, arm, seed and attack: its state, results and cost."""
        units = [unit for unit in self.survey.units if unit.kind == "cell"]
        return _frame(
            [{**_unit(unit), **_of_record(unit, _cell)} for unit in units],
            ["model", "arm", "seed", "attack", "id", "status", "reason"],
        )

    @cached_property
    def samples(self) -> DataFrame:
        """A row for each example of each complete cell, with the fields of its row."""
        rows = [
            {"model": unit.model, "arm": unit.arm, "seed": unit.seed}
            | {"attack": unit.attack, "cell": unit.id}
            | row.model_dump()
            for unit in self.survey.units
            for row in self.rows(unit)
        ]
        return _frame(rows, ["model", "arm", "seed", "attack", "cell", "example_id"])

    @cached_property
    def verdicts(self) -> DataFrame:
        """A row for each arm that is judged: the verdict, and what it is about."""
        found = self.report.verdicts
        arms = found.arms if found else []
        return _frame([_verdict(arm) for arm in arms], ["model", "arm", "verdict"])

    @cached_property
    def contrasts(self) -> DataFrame:
        """A row for each arm that is held against another: difference, p and design."""
        found = self.report.verdicts
        arms = found.arms if found else []
        rows = [row for arm in arms for row in _contrast(arm)]
        return _frame(rows, ["model", "arm", "reference", "difference"])

    @cached_property
    def claims(self) -> DataFrame:
        """A row for each of the suite's claims and each model: the answer, and why."""
        found = self.report.verdicts
        rows = [_claim(claim) for claim in (found.claims if found else [])]
        return _frame(rows, ["group", "claim", "model", "answer"])

    def is_main(self, cell: SurveyedUnit) -> bool:
        """Say whether a cell is of an attack that results are about, of no control."""
        return cell.attack in self.survey.plan.experiment.suite.main_attacks

    def rows(self, unit: SurveyedUnit) -> list[Any]:
        """Return the sample rows of a complete cell; none of anything else."""
        record = unit.state.record
        if unit.kind != "cell" or unit.state.status != "complete" or record is None:
            return []
        return read_samples(self.survey.folder.samples_path(record))

    def metric_rows(self, unit: SurveyedUnit) -> list[Row]:
        """Return the rows of a variant's metrics, as they stand in its samples."""
        record = unit.state.record
        if record is None or record.samples is None:
            return []
        path = self.survey.folder.samples_path(record)
        with path.open(encoding="utf-8") as file:
            return [*map(json.loads, file)]

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{n} {state}" for state, n in self.survey.counts.items() if n
        )
        return f"<Run {self.path}: {counts}>"

    def _repr_html_(self) -> str:
        found = self.report.verdicts
        said = report.lines(found) if found else ()
        lines = "<br>".join(html.escape(line) for line in said)
        shown = self.verdicts.drop(columns="reasons", errors="ignore")
        return f"<p>{html.escape(repr(self))}</p><p>{lines}</p>{shown.to_html()}"


def load_run(
    path: str | Path, *, plugins: Sequence[Path] = (), trust: bool = False
) -> Run:
    """Read a run folder; raises UsageError where `path` is none.

    No code is run that the folder names, unless it is to be trusted: `plugins` are
    files that are loaded, and `trust` loads those that its suite names.
    """
    return Run(Path(path), plugins, trust=trust)


def _frame(rows: list[Row], columns: list[str]) -> DataFrame:
    """Return a table with these columns first, also where it has no rows."""
    import pandas

    known = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    return pandas.DataFrame(rows, columns=list(known)).convert_dtypes()


def _unit(unit: SurveyedUnit) -> Row:
    named = {"model": unit.model, "arm": unit.arm, "seed": unit.seed}
    attack = {} if unit.attack is None else {"attack": unit.attack}
    state = {"status": unit.state.status, "reason": unit.state.reason}
    return {**named, **attack, "id": unit.id, **state}


def _of_record(unit: SurveyedUnit, read: Any) -> Row:
    record = unit.state.record
    return {} if record is None else {**read(record), **_costs(record)}


def _variant(record: Record) -> Row:
    row: Row = {"parameters": record.model.parameters}
    for label, found in record.results.items():
        row |= _estimates(found, f"{label}.")
    if record.recovery is not None:
        row |= {"recovery_tokens": record.recovery.tokens}
    if record.certificate is not None:
        row |= {"certificate": record.certificate.after.status}
    return row


def _cell(record: Record) -> Row:
    assert record.attack is not None  # it is a cell
    about = record.attack
    row: Row = {"plugin": about.attack, "match": about.match, "role": about.role}
    return row | {"share": about.share} | _estimates(record.results.get("attack", {}))


def _estimates(found: Mapping[str, Estimate], prefix: str = "") -> Row:
    row: Row = {}
    for name, estimate in found.items():
        row[f"{prefix}{name}"] = estimate.value
        row |= _interval(f"{prefix}{name}", estimate.interval)
    return row


def _interval(name: str, interval: tuple[float, float] | None) -> Row:
    low, high = (None, None) if interval is None else interval
    return {f"{name}_low": low, f"{name}_high": high}


def _costs(record: Record) -> Row:
    total = Cost()
    for cost in record.ledger.spent.values():
        total += cost
    spent = ("seconds", "flops", "peak_memory_bytes")
    return {name: getattr(total, name) for name in spent}


def _verdict(arm: ArmVerdict) -> Row:
    worst, known = arm.worst_case, arm.difference
    row: Row = {"model": arm.model, "arm": arm.arm, "reference": arm.reference}
    row |= {"verdict": arm.verdict, "scope": arm.scope}
    row |= {"exploratory": arm.exploratory, "clean_loss": arm.clean_loss}
    row |= {"delta_loss": worst.value if worst else None}
    row |= _interval("delta_loss", worst.interval if worst else None)
    row |= {"difference": known.value if known else None}
    row |= _interval("difference", known.interval if known else None)
    return row | {"detection_limit": arm.detection_limit, "reasons": arm.reasons}


def _claim(found: ClaimAnswer) -> Row:
    about, estimate = found.claim, found.estimate
    row: Row = {"group": found.group, "claim": found.label, "model": found.model}
    row |= {"answer": found.answer, "scope": found.scope}
    row |= {"exploratory": found.exploratory, "words": found.words}
    named = {"arm", "against", "metric", "attack", "measure", "bound", "every_seed"}
    row |= about.model_dump(include=named)
    row |= {"estimate": estimate.value if estimate else None}
    row |= _interval("estimate", estimate.interval if estimate else None)
    row |= {"n": estimate.n if estimate else None, "seeds": found.seeds}
    row |= found.model_dump(include={"p_supported", "p_refuted", "level"})
    needed = found.needed
    row |= {"needed_seeds": needed.seeds if needed else None}
    row |= {"needed_documents": needed.documents if needed else None}
    return row | {"reasons": found.reasons}


def _contrast(arm: ArmVerdict) -> Iterator[Row]:
    known = arm.difference
    if known is None:
        return
    row: Row = {"model": arm.model, "arm": arm.arm, "reference": arm.reference}
    row |= {"difference": known.value, **_interval("difference", known.interval)}
    row |= {"margin": known.margin_nats, "detectable": known.detectable}
    for said in known.claims:
        name = said.claim.replace(" ", "_")
        row |= {f"{name}_p": said.p, f"{name}_shown": said.shown}
    row |= known.model_dump(include={"documents", "seeds", "searches"})
    row |= {f"sd_{name}": value for name, value in known.components}
    needed = known.needed
    row |= {"needed_seeds": needed.seeds if needed else None}
    yield row | {"needed_documents": needed.documents if needed else None}
