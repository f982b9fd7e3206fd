"""Results of attacks: the rows behind a cell, and the estimates made from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic

from harness.base import Problem, RecordError, Strict
from harness.records.rules import GIVEN, Ruled, When
from harness.records.strict_json import parse_model, unreadable


class ChoiceRow(Strict):
    """One of the answers that a multiple-choice task offers."""

    tail_ids: list[int]
    """Token ids at the prompt's end, in the place of those of the right answer."""
    answer_ids: list[int]
    """Token ids of the answer."""
    characters: int = pydantic.Field(gt=0)
    """Characters of the answer's text."""
    clean_score: float | None
    """Log-likelihood in nats/character after the clean prompt; null if not finite."""
    adversarial_score: float | None
    """The same after the attacked prompt."""


class SampleRow(Ruled):
    """One line of a cell's ``samples.jsonl``: what an attack did to one example."""

    rules = (
        When("status", "error", error=GIVEN, delta_loss=0),
        When(
            "status",
            "attacked",
            "unchanged",
            adversarial_prompt_ids=GIVEN,
            clean_loss=GIVEN,
            adversarial_loss=GIVEN,
            text_reachable=GIVEN,
        ),
    )

    example_id: str
    """The example: its corpus and its document's id."""
    document_id: str
    """What intervals are clustered by."""
    status: Literal["attacked", "unchanged", "error"]
    """`unchanged` where the attack returned the clean prompt; an error stays in
    every denominator, with a dL of 0."""
    clean_prompt_ids: list[int]
    """Token ids before the attack."""
    adversarial_prompt_ids: list[int] | None
    """Token ids after it, a trigger included; null for an error."""
    reference_ids: list[int]
    """Token ids that are scored, and that no attack changes."""
    clean_loss: float | None
    """Nats/token of the reference after the clean prompt; null only for an error."""
    adversarial_loss: float | None
    """The same after the attacked prompt, from a fresh float32 forward pass."""
    delta_loss: float
    """`adversarial_loss` - `clean_loss`, in nats/token."""
    text_reachable: bool | None
    """Whether the attacked prompt, decoded and encoded again, is itself."""
    adversarial_text: str | None
    """The attacked prompt, decoded."""
    trace: list[dict[str, Any]]
    """The attack's steps: ``step``, ``position``, ``token``, ``loss`` and more."""
    error: str | None = None
    """Why there is no attacked prompt; null unless the status is ``error``."""
    answer_correct_clean: bool | None = None
    """Whether the answer was right after the clean prompt; null where none is asked."""
    answer_correct_adversarial: bool | None = None
    """The same after the attacked prompt; of an error, the clean one."""
    choices: list[ChoiceRow] | None = None
    """The answers to choose from; null where the answer is a last word, or none is."""
    gold: int | None = None
    """Which of the choices is right, and is the reference."""
    reference_text: str | None = None
    """The text that summaries are compared with; null where none are written."""
    clean_summary: str | None = None
    """What the subject writes after the clean prompt."""
    adversarial_summary: str | None = None
    """What it writes after the attacked prompt; of an error, the clean one."""
    rouge_clean: float | None = None
    """ROUGE-L F1 of the clean summary, 0 to 1."""
    rouge_adversarial: float | None = None
    """ROUGE-L F1 of the summary after the attack."""


def read_samples(path: Path) -> list[SampleRow]:
    """Read a cell's rows; the first problem raises RecordError with file and line."""
    rows = []
    for row, problems in parse_samples(path):
        if row is None:
            raise RecordError("; ".join(map(str, problems)))
        rows.append(row)
    return rows


def parse_samples(path: Path) -> Iterator[tuple[SampleRow | None, list[Problem]]]:
    """Yield the row of each line, or None and what is wrong with the line.

    Raises RecordError where the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                yield parse_model(SampleRow, line, path, number)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(str(unreadable(path, error))) from error


ROUGE_DROP = 0.10
"""The relative fall of ROUGE-L from which a summary counts as spoilt, by default."""
