"""Results of attacks: the rows behind a cell, and the estimates made from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic

from harness.base.errors import RecordError
from harness.base.strict import Strict
from harness.records import Estimate, parse_json, readable_errors
from harness.statistics import bootstrap_mean, paired_difference, wilson
from harness.suite import ROUGE_DROP


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


class SampleRow(Strict):
    """One line of a cell's ``samples.jsonl``: what an attack did to one example."""

    model_config = pydantic.ConfigDict(
        json_schema_extra={
            "if": {"properties": {"status": {"const": "error"}}},
            "then": {
                "properties": {
                    "delta_loss": {"const": 0},
                    "error": {"type": "string"},
                },
                "required": ["error"],
            },
            "else": {
                "properties": {
                    "adversarial_prompt_ids": {"type": "array"},
                    "clean_loss": {"type": "number"},
                    "adversarial_loss": {"type": "number"},
                    "text_reachable": {"type": "boolean"},
                }
            },
        },
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

    @pydantic.model_validator(mode="after")
    def _only_errors_lack_numbers(self) -> SampleRow:
        needed = ("adversarial_prompt_ids", "clean_loss", "adversarial_loss")
        lacking = [x for x in (*needed, "text_reachable") if getattr(self, x) is None]
        if self.status != "error" and lacking:
            raise ValueError(f"{lacking[0]} is null though the status is no error")
        if self.status == "error" and (self.error is None or self.delta_loss):
            raise ValueError("an error needs its sentence and a delta_loss of 0")
        return self


def summarise_attack(
    rows: Sequence[SampleRow], threshold: float, rouge_drop: float = ROUGE_DROP
) -> dict[str, Estimate]:
    """Compute a cell's estimates from its rows, and from nothing else.

    Every example is in the denominator: an error counts as no success and dL 0.
    Losses and dL are in nats/token; success means exp(dL) > 1 + `threshold`. Where
    rows say whether answers were right, or hold summaries, so do the estimates; a
    summary is spoilt where ROUGE-L falls by more than the share `rouge_drop`.
    """
    documents = [row.document_id for row in rows]
    known = [row for row in rows if row.clean_loss is not None]
    known_documents = [row.document_id for row in known]
    clean = [row.clean_loss or 0.0 for row in known]
    after = [(row.clean_loss or 0.0) + row.delta_loss for row in known]
    success = successes(rows, threshold)
    reachable = [row.text_reachable is True for row in rows]
    both = [hit and seen for hit, seen in zip(success, reachable, strict=True)]
    return {
        "delta_loss": bootstrap_mean(
            [row.delta_loss for row in rows], documents, unit="nats/token"
        ),
        "delta_loss_median": _median(rows),
        "clean_loss": bootstrap_mean(clean, known_documents, unit="nats/token"),
        "adversarial_loss": bootstrap_mean(after, known_documents, unit="nats/token"),
        "success": wilson(sum(success), len(rows)),
        "text_success": wilson(sum(both), len(rows)),
        "reachable": wilson(sum(reachable), len(rows)),
        "errors": _count(rows),
        "threshold": Estimate(
            value=threshold,
            n=len(rows),
            unit="relative rise of perplexity",
            method="stated by the suite",
        ),
        **_answers(rows),
        **_summaries(rows, rouge_drop),
    }


def successes(rows: Sequence[SampleRow], threshold: float) -> list[bool]:
    """Say of each row whether dL > ln(1 + `threshold`)."""
    return [exceeds(row.delta_loss, threshold) for row in rows]


def exceeds(delta_loss: float, threshold: float) -> bool:
    """Say whether a dL is a success: dL > ln(1 + `threshold`)."""
    return delta_loss > math.log1p(threshold)


def lost_answers(rows: Sequence[SampleRow]) -> list[bool]:
    """Say of each row whether its answer was right, and is wrong after the attack."""
    return [
        row.answer_correct_clean is True and row.answer_correct_adversarial is False
        for row in rows
    ]


def spoilt_summaries(rows: Sequence[SampleRow], drop: float) -> list[bool]:
    """Say of each row whether the attack took more than that share of its ROUGE-L."""
    return [
        (row.rouge_adversarial or 0.0) < (1 - drop) * (row.rouge_clean or 0.0)
        for row in rows
    ]


def _answers(rows: Sequence[SampleRow]) -> dict[str, Estimate]:
    if all(row.answer_correct_clean is None for row in rows):
        return {}
    n = len(rows)
    return {
        "answer_lost": wilson(sum(lost_answers(rows)), n),
        "clean_accuracy": wilson(sum(x.answer_correct_clean is True for x in rows), n),
        "attacked_accuracy": wilson(
            sum(x.answer_correct_adversarial is True for x in rows), n
        ),
    }


def _summaries(rows: Sequence[SampleRow], drop: float) -> dict[str, Estimate]:
    if all(row.rouge_clean is None for row in rows):
        return {}
    documents = [row.document_id for row in rows]
    clean = [row.rouge_clean or 0.0 for row in rows]
    after = [row.rouge_adversarial or 0.0 for row in rows]
    unit = "ROUGE-L F1"
    return {
        "rouge_clean": bootstrap_mean(clean, documents, unit=unit),
        "rouge_adversarial": bootstrap_mean(after, documents, unit=unit),
        "rouge_drop": paired_difference(clean, after, documents, unit=unit),
        "rouge_drop_success": wilson(sum(spoilt_summaries(rows, drop)), len(rows)),
        "rouge_threshold": Estimate(
            value=drop,
            n=len(rows),
            unit="relative fall of ROUGE-L",
            method="stated by the suite",
        ),
    }


def read_samples(path: Path) -> list[SampleRow]:
    """Read a cell's rows; the first fault raises RecordError with file and line."""
    rows = []
    for number, row, faults in parse_samples(path):
        if row is None:
            raise RecordError(f"{path}:{number}: {'; '.join(faults)}")
        rows.append(row)
    return rows


def parse_samples(path: Path) -> Iterator[tuple[int, SampleRow | None, list[str]]]:
    """Yield line number, row, and what is wrong with it (then the row is None)."""
    for number, line in enumerate(_lines(path), 1):
        try:
            row = SampleRow.model_validate(parse_json(line), strict=True)
        except pydantic.ValidationError as error:
            yield number, None, readable_errors(error)
        except ValueError as error:
            yield number, None, [str(error)]
        else:
            yield number, row, []


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from error


def _median(rows: Sequence[SampleRow]) -> Estimate:
    from statistics import median

    return Estimate(
        value=median(row.delta_loss for row in rows) if rows else None,
        n=len(rows),
        unit="nats/token",
        method="median",
        reason="descriptive: no interval" if rows else "no values",
    )


def _count(rows: Sequence[SampleRow]) -> Estimate:
    return Estimate(
        value=sum(row.status == "error" for row in rows),
        n=len(rows),
        unit="examples",
        method="count of examples whose attack failed",
    )
