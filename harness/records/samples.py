"""Samples of a cell: one row for each example, as a line of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic

from harness.base import Problem, RecordError, Strict
from harness.records.rules import GIVEN, Ruled, When
from harness.records.strict_json import are_plain, parse_line, unreadable


class ChoiceRow(Strict):
    """One of the answers of a multiple-choice task."""

    tail_ids: list[int]
    """Token ids that end the prompt for this answer, in place of those of the right
    answer."""
    answer_ids: list[int]
    """Token ids of the answer."""
    characters: int = pydantic.Field(gt=0)
    """Length of the answer's text in characters."""
    clean_score: float | None
    """Log-likelihood after the clean prompt, in nats/character; null if not finite."""
    adversarial_score: float | None
    """Log-likelihood after the adversarial prompt, in nats/character; null if not
    finite."""


class Replicate(Strict):
    """What another search of a universal attack found, under the same seed."""

    adversarial_prompt_ids: list[int]
    """Token ids of the prompt after that search, with any trigger."""
    adversarial_loss: float
    """Loss of the reference after it, in nats/token, from a fresh float32 pass."""
    delta_loss: float
    """dL: `adversarial_loss` - the row's `clean_loss`, in nats/token."""


class Checkpoint(Replicate):
    """What an attack would have returned had it been stopped earlier."""

    share: float = pydantic.Field(gt=0)
    """Which multiple of the attack's stated budget was spent by then."""


class SampleRow(Ruled):
    """One line of a cell's ``samples.jsonl``: what an attack did to one example."""

    rules = (
        When("status", "error", error=GIVEN, delta_loss=None),
        When(
            "status",
            "attacked",
            "unchanged",
            adversarial_prompt_ids=GIVEN,
            clean_loss=GIVEN,
            adversarial_loss=GIVEN,
            delta_loss=GIVEN,
            text_reachable=GIVEN,
        ),
    )

    example_id: str
    """Identifies the example: corpus and document."""
    document_id: str
    """Identifies the document; confidence intervals resample whole documents."""
    cluster: str | None = None
    """What the document has in common with others, as its author, where the corpus
    states it: confidence intervals then resample whole clusters."""
    status: Literal["attacked", "unchanged", "error"]
    """`unchanged` if the attack returned the clean prompt; `error` if it returned no
    valid prompt: it counts as no success, and has no dL: an error harms nobody, and
    shows no harmlessness."""
    clean_prompt_ids: list[int]
    """Token ids of the prompt before the attack."""
    adversarial_prompt_ids: list[int] | None
    """Token ids of the prompt after the attack, with any trigger; null for an error."""
    reference_ids: list[int]
    """Token ids whose loss is measured; no attack may change them."""
    clean_loss: float | None
    """Loss of the reference after the clean prompt, in nats/token, from a fresh float32
    forward pass; null only for an error."""
    adversarial_loss: float | None
    """Loss of the reference after the adversarial prompt, in nats/token, from a fresh
    float32 forward pass; null only for an error."""
    delta_loss: float | None
    """dL: `adversarial_loss` - `clean_loss`, in nats/token; null only for an error."""
    text_reachable: bool | None
    """Whether decoding and encoding the adversarial prompt gives the same token ids."""
    adversarial_text: str | None
    """The adversarial prompt, decoded."""
    trace: list[dict[str, Any]]
    """The steps of the attack: ``step``, ``position``, ``token``, ``loss`` and more."""
    share: float = pydantic.Field(default=1.0, gt=0)
    """Which multiple of the attack's stated budget led to the adversarial prompt."""
    checkpoints: list[Checkpoint] = []
    """What it would have returned with less of it, the least first."""
    replicates: list[Replicate] = []
    """What further searches of a universal attack found, under the same seed."""
    clean_text: str | None = None
    """The prompt before the attack, decoded."""
    clean_token_losses: list[float] | None = None
    """Loss of each reference token after the clean prompt, in nats, whose mean is
    `clean_loss`."""
    adversarial_token_losses: list[float] | None = None
    """Loss of each reference token after the adversarial prompt, in nats, whose mean is
    `adversarial_loss`."""
    error: str | None = None
    """Why there is no adversarial prompt; null unless the status is ``error``."""
    answer_correct_clean: bool | None = None
    """Whether the answer after the clean prompt is right; null if the task asks for no
    answer."""
    answer_correct_adversarial: bool | None = None
    """Whether the answer after the adversarial prompt is right; for an error, after the
    clean prompt."""
    choices: list[ChoiceRow] | None = None
    """The answers to choose from; null if the task is not multiple choice."""
    gold: int | None = None
    """Index of the right answer in `choices`; its tokens are the reference."""
    reference_text: str | None = None
    """The summary that the subject's are compared with; null if none are written."""
    clean_summary: str | None = None
    """What the subject writes after the clean prompt."""
    adversarial_summary: str | None = None
    """What the subject writes after the adversarial prompt; for an error, after the
    clean prompt."""
    rouge_clean: float | None = None
    """ROUGE-L F1 of `clean_summary` against `reference_text`, from 0 to 1."""
    rouge_adversarial: float | None = None
    """ROUGE-L F1 of `adversarial_summary` against `reference_text`, from 0 to 1."""

    @property
    def unit(self) -> str:
        """What statistics take as one: the cluster, or else the document."""
        return self.document_id if self.cluster is None else self.cluster


def read_samples(path: Path) -> list[SampleRow]:
    """Read a cell's rows; the first problem raises RecordError with file and line."""
    rows = []
    for row, problems in parse_samples(path, _lines(path)):
        if row is None:
            raise RecordError("; ".join(map(str, problems)))
        rows.append(row)
    return rows


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, which is opened with the first."""
    with path.open("rb") as file:
        yield from file


def parse_samples(
    path: Path, lines: Iterable[bytes]
) -> Iterator[tuple[SampleRow | None, list[Problem]]]:
    """Yield the row of each line of a file, or None and what is wrong with the line.

    Raises RecordError where the file cannot be read.
    """
    try:
        for number, line in enumerate(lines, 1):
            yield parse_line(SampleRow, line, path, number, _keys)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(str(unreadable(path, error))) from error


def _keys(row: SampleRow) -> int | None:
    """Return how many keys the JSON of a row has; None if values must be looked at."""
    parts = [row, *row.checkpoints, *row.replicates, *(row.choices or ())]
    ids = [*row.clean_prompt_ids, *row.reference_ids, row.gold or 0]
    for part in parts:
        if isinstance(part, ChoiceRow):
            ids += [*part.tail_ids, *part.answer_ids, part.characters]
        else:
            ids += part.adversarial_prompt_ids or ()
    if not are_plain((min(ids), max(ids))):
        return None
    if not all(are_plain(step.values()) for step in row.trace):
        return None
    return sum(len(x.model_fields_set) for x in parts) + sum(map(len, row.trace))


ROUGE_DROP = 0.10
"""By how much of itself ROUGE-L must fall for a summary to count as spoilt."""
