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
from harness.suite import Suite
from harness.verdicts import CellsBySeed

Values = Callable[[Sequence[SampleRow]], Sequence[float]]
"""Returns a number for each row."""


def clean_columns(suite: Suite) -> list[Column[CellsBySeed]]:
    """Return the columns of what is measured on clean prompts, for any attack."""
    columns = []
    if _asks_answers(suite):
        columns.append(_share(suite, "clean accuracy", _right_before))
    if _asks_summaries(suite):
        columns.append(_mean(suite, "clean ROUGE-L", _rouge_before))
    return columns


def attack_columns(suite: Suite, attack: str) -> list[Column[CellsBySeed]]:
    """Return the columns of what is measured after an attack."""
    columns = []
    if _asks_answers(suite):
        columns += [
            _share(suite, "accuracy", _right_after, attack),
            _share(suite, "lost", lost_answers, attack),
        ]
    if _asks_summaries(suite):
        drop = suite.success.rouge_drop
        columns += [
            _mean(suite, "ROUGE-L", _rouge_after, attack),
            _share(suite, "spoilt", lambda rows: spoilt_summaries(rows, drop), attack),
        ]
    return columns


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
            " ROUGE-L: F1 of the generated summary, against the reference. spoilt: "
            f"ROUGE-L falls by more than {suite.success.rouge_drop:.0%}."
        )
    return parts


def share(suite: Suite, cells: CellsBySeed, hits: Values) -> Cell:
    """Show of how many examples something is so.

    It is the spread over seeds or, where the suite has one seed, Wilson's interval.
    """
    found = [hits(cell.rows) for cell in cells.values()]
    if len(suite.seeds) == 1:
        return from_estimate(wilson(int(sum(found[0])), len(found[0])), "fraction")
    return from_seeds([fmean(x) for x in found], "fraction", len(suite.seeds))


def _share(
    suite: Suite, title: str, hits: Values, attack: str = ""
) -> Column[CellsBySeed]:
    return Column(title, lambda cells: share(suite, cells, hits), attack)


def _mean(
    suite: Suite, title: str, values: Values, attack: str = ""
) -> Column[CellsBySeed]:
    """Show a mean over examples; for one seed, with a bootstrap over documents."""

    def fill(cells: CellsBySeed) -> Cell:
        if len(suite.seeds) > 1:
            means = [fmean(values(cell.rows)) for cell in cells.values()]
            return from_seeds(means, "fraction", len(suite.seeds))
        (only,) = cells.values()
        documents = [row.document_id for row in only.rows]
        estimate = bootstrap_mean(values(only.rows), documents, unit="fraction")
        return from_estimate(estimate, "fraction")

    return Column(title, fill, attack)


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
