"""Results of attacks: the rows behind a cell, and the estimates made from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic

from harness.base import RecordError, Strict
from harness.records.strict_json import parse_json, readable_errors


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


ROUGE_DROP = 0.10
"""The relative fall of ROUGE-L from which a summary counts as spoilt, by default."""
