"""Columns for what is asked besides the loss: answers, and summaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from harness.records import (
    SampleRow,
    bootstrap_mean,
    lost_answers,
    spoilt_summaries,
    wilson,
)
from harness.report.content import Cell, Column, from_estimate, from_seeds
from harness.report.tables.success import proportion
from harness.suite import Suite
from harness.verdicts import CellsBySeed, Results

Values = Callable[[Sequence[SampleRow]], Sequence[float]]
"""Returns a number for each row."""


def clean_columns(suite: Suite) -> list[Column[CellsBySeed]]:
    """Return the columns of what is measured on clean prompts, for any attack."""
    columns = []
    if _asks_answers(suite):
        columns.append(_answers(suite, "clean accuracy", "answer_correct_clean"))
    if _asks_summaries(suite):
        columns.append(_rouge(suite, "clean ROUGE-L", "rouge_clean"))
    return columns


def attack_columns(results: Results, attack: str) -> list[Column[CellsBySeed]]:
    """Return the columns of what is measured after an attack."""
    columns: list[Column[CellsBySeed]] = []
    suite = results.suite
    if _asks_answers(suite):
        columns += [
            _answers(suite, "accuracy", "answer_correct_adversarial", attack),
            Column("lost", lambda cells: proportion(cells, lost_answers), attack),
        ]
    if _asks_summaries(suite):

        def spoilt(rows: Sequence[SampleRow]) -> list[bool]:
            return spoilt_summaries(rows, suite.success.rouge_drop)

        columns += [
            _rouge(suite, "ROUGE-L", "rouge_adversarial", attack),
            Column("spoilt", lambda cells: proportion(cells, spoilt), attack),
        ]
    return columns


def caption(suite: Suite) -> str:
    """Say what the columns are, in sentences after those of the table."""
    parts = ""
    if _asks_answers(suite):
        parts += (
            " accuracy: right answers, of all examples. lost: right before the attack "
            "and wrong after it, as documents like success."
        )
    if _asks_summaries(suite):
        parts += (
            " ROUGE-L: F1 of the generated summary, against the reference. spoilt: "
            f"ROUGE-L falls by more than {suite.success.rouge_drop:.0%}, likewise."
        )
    return parts


def mean(
    suite: Suite, cells: CellsBySeed, values: Values, *, counted: bool = True
) -> Cell:
    """Show the mean of a value over the examples, with its spread over seeds.

    Where the suite has one seed, with an interval within it: Wilson's if the value is
    `counted` (0 or 1 for each example), else by bootstrap over documents.
    """
    found = [values(cell.rows) for cell in cells.values()]
    if len(suite.seeds) > 1:
        return from_seeds([fmean(x) for x in found], "fraction")
    ((only,), (cell,)) = found, cells.values()
    if counted:
        return from_estimate(wilson(int(sum(only)), len(only)), "fraction")
    documents = [row.document_id for row in cell.rows]
    return from_estimate(bootstrap_mean(only, documents, unit="fraction"), "fraction")


def _answers(
    suite: Suite, title: str, field: str, attack: str = ""
) -> Column[CellsBySeed]:
    def right(rows: Sequence[SampleRow]) -> list[bool]:
        return [getattr(row, field) is True for row in rows]

    return Column(title, lambda cells: mean(suite, cells, right), attack)


def _rouge(
    suite: Suite, title: str, field: str, attack: str = ""
) -> Column[CellsBySeed]:
    def rouge(rows: Sequence[SampleRow]) -> list[float]:
        return [getattr(row, field) or 0.0 for row in rows]

    return Column(title, lambda cells: mean(suite, cells, rouge, counted=False), attack)


def _asks_answers(suite: Suite) -> bool:
    return suite.examples is not None and suite.examples.objective == "answer"


def _asks_summaries(suite: Suite) -> bool:
    return suite.examples is not None and suite.examples.rouge_tokens is not None
