"""Columns for what is asked besides the loss: answers, and summaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.records import (
    SampleRow,
    bootstrap_mean,
    lost_answers,
    spoilt_summaries,
    wilson,
)
from harness.report.content import Cell, Column, Missing, from_estimate, from_seeds
from harness.suite import Suite
from harness.verdicts import CellsBySeed, Results, Subjects


@dataclass(frozen=True)
class Share:
    """A column: of all examples, the share of which something is so, or a mean."""

    title: str
    values: Callable[[Sequence[SampleRow]], Sequence[float]]
    counted: bool = True
    """Whether the values are 0 and 1, so that Wilson's interval is theirs."""

    def cell(self, cells: CellsBySeed, planned: int) -> Cell:
        """Return the spread over seeds; of a single seed, the interval within it."""
        found = [self.values(cell.rows) for cell in cells.values()]
        if planned > 1:
            return from_seeds([fmean(x) for x in found], "fraction", planned)
        if self.counted:
            estimate = wilson(int(sum(found[0])), len(found[0]))
        else:
            (only,) = cells.values()
            documents = [row.document_id for row in only.rows]
            estimate = bootstrap_mean(found[0], documents, unit="fraction")
        return from_estimate(estimate, "fraction")


def clean_columns(suite: Suite) -> list[Share]:
    """Return what is measured on clean prompts, once for all attacks."""
    columns = []
    if _asks_answers(suite):
        columns.append(Share("clean accuracy", _right_before))
    if _asks_summaries(suite):
        columns.append(Share("clean ROUGE-L", _rouge_before, counted=False))
    return columns


def attack_columns(suite: Suite) -> list[Share]:
    """Return what is measured after each attack."""
    columns = []
    if _asks_answers(suite):
        columns += [Share("accuracy", _right_after), Share("lost", lost_answers)]
    if _asks_summaries(suite):
        drop = suite.success.rouge_drop
        columns += [
            Share("ROUGE-L", _rouge_after, counted=False),
            Share("spoilt", lambda rows: spoilt_summaries(rows, drop)),
        ]
    return columns


def clean_cells(results: Results, subjects: Subjects) -> list[Cell]:
    """Return the cells of `clean_columns`, from the first attack that has rows."""
    planned = len(results.suite.seeds)
    for attack in results.suite.attacks:
        cells = results.cells(subjects, attack)
        if cells:
            return [c.cell(cells, planned) for c in clean_columns(results.suite)]
    absence = Missing(results.absence(subjects))
    return [absence for _ in clean_columns(results.suite)]


def attack_cells(results: Results, cells: CellsBySeed) -> list[Cell]:
    """Return the cells of `attack_columns` for an attack that has rows."""
    planned = len(results.suite.seeds)
    return [column.cell(cells, planned) for column in attack_columns(results.suite)]


def headings(columns: Sequence[Share], group: str = "") -> list[Column]:
    """Return the table's columns."""
    return [Column(column.title, group) for column in columns]


def caption(suite: Suite) -> str:
    """Say what the columns are, in sentences after those of the table."""
    parts = ""
    if _asks_answers(suite):
        parts += (
            " accuracy: right answers, of all examples. lost: right before the attack "
            "and wrong after it."
        )
    if _asks_summaries(suite):
        parts += (
            " ROUGE-L: F1 of what is written, against the reference. spoilt: ROUGE-L "
            f"falls by more than {suite.success.rouge_drop:.0%}."
        )
    return parts


def _asks_answers(suite: Suite) -> bool:
    return suite.examples is not None and suite.examples.objective == "answer"


def _asks_summaries(suite: Suite) -> bool:
    return suite.examples is not None and suite.examples.rouge_tokens is not None


def _right_before(rows: Sequence[SampleRow]) -> list[bool]:
    return [row.answer_correct_clean is True for row in rows]


def _right_after(rows: Sequence[SampleRow]) -> list[bool]:
    return [row.answer_correct_adversarial is True for row in rows]


def _rouge_before(rows: Sequence[SampleRow]) -> list[float]:
    return [row.rouge_clean or 0.0 for row in rows]


def _rouge_after(rows: Sequence[SampleRow]) -> list[float]:
    return [row.rouge_adversarial or 0.0 for row in rows]
