"""The samples that the page's viewer shows: those that attacks harmed most."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from harness.base import visible
from harness.records import Record, SampleRow
from harness.verdicts import Results

MOST = 5000
"""How many samples are embedded."""
MOST_NUMBERS = 8_000_000
"""How many token ids and losses they have at most: a browser has to hold them."""
MOST_STEPS = 64
"""Of a search's course, how many points are embedded."""
FURTHER = {
    "Summary to compare with": "reference_text",
    "Summary after the clean prompt": "clean_summary",
    "Summary after the attacked prompt": "adversarial_summary",
}
"""Texts that some tasks add."""


@dataclass(frozen=True)
class Worst:
    """The samples of highest dL, and how many there are in all."""

    rows: Sequence[tuple[Record, SampleRow]]
    """The worst first; those that ended in an error last."""
    total: int


def worst(results: Results, most: int = MOST) -> Worst:
    """Return the samples of highest dL over all complete cells."""
    cells = [record for record in results.records if record.kind == "cell"]
    rows = [(record, row) for record in cells for row in results.cell(record).rows]
    found = heapq.nlargest(most, rows, key=lambda x: _rise(x[1]))
    sizes = accumulate(_numbers(row) for _, row in found)
    fitting = found[: sum(size <= MOST_NUMBERS for size in sizes)]
    full = {
        (record.id, row.example_id): row
        for record in {record.id: record for record, _ in fitting}.values()
        for row in results.samples(record)
    }
    chosen = [(record, full[record.id, row.example_id]) for record, row in fitting]
    return Worst(chosen, len(rows))


def embedded(results: Results, found: Worst) -> dict[str, Any]:
    """Return what the viewer needs: cells, rows, and the text of each token id.

    Losses are in thousandths of a nat.
    """
    records = list(dict.fromkeys(record.id for record, _ in found.rows))
    by_id = {record.id: record for record, _ in found.rows}
    numbers = {name: number for number, name in enumerate(records)}
    return {
        "cells": [_cell(by_id[name]) for name in records],
        "pieces": dict(_pieces(results, found)),
        "rows": [_row(numbers[record.id], row) for record, row in found.rows],
    }


def _numbers(row: SampleRow) -> int:
    prompts = len(row.clean_prompt_ids) + len(row.adversarial_prompt_ids or ())
    return prompts + 3 * len(row.reference_ids) + 2 * min(MOST_STEPS, len(row.trace))


def _rise(row: SampleRow) -> float:
    return -math.inf if row.delta_loss is None else row.delta_loss


def _cell(record: Record) -> dict[str, Any]:
    assert record.attack is not None  # it is a cell
    return {
        "model": record.model.label,
        "arm": record.arm.label,
        "attack": record.attack.label,
        "seed": record.seed,
    }


def _row(cell: int, row: SampleRow) -> dict[str, Any]:
    told: dict[str, Any] = {
        "cell": cell,
        "example": visible(row.example_id, line=True),
        "clean": row.clean_prompt_ids,
        "after": row.adversarial_prompt_ids,
        "reference": row.reference_ids,
        "loss": _milli(row.clean_loss),
        "rise": _milli(row.delta_loss),
        "textual": row.text_reachable,
        "first": _millis(row.clean_token_losses),
        "then": _millis(row.adversarial_token_losses),
        "texts": [visible(x) for x in (row.clean_text, row.adversarial_text) if x],
        "error": row.error and visible(row.error),
        "course": _course(row),
        "further": {
            name: visible(text)
            for name, field in FURTHER.items()
            if (text := getattr(row, field)) is not None
        },
    }
    return {name: value for name, value in told.items() if value not in ([], {})}


def _course(row: SampleRow) -> dict[str, Any]:
    """Return the loss at each step of the search, by what had been spent until then.

    That is in forward passes where all steps say so, and else in steps. Nothing where
    fewer than two steps have a loss.
    """
    by = "passes" if all(_is_number(x.get("passes")) for x in row.trace) else "step"
    points = [
        [step[by], _milli(step["loss"])]
        for step in row.trace
        if _is_number(step.get("loss")) and _is_number(step.get(by))
    ]
    if len(points) < 2:
        return {}
    every = -(-len(points) // MOST_STEPS)
    kept = [*points[:-1:every], points[-1]]
    return {"by": by, "points": kept}


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value)


def _milli(nats: float | None) -> int | None:
    return None if nats is None or not math.isfinite(nats) else round(1000 * nats)


def _millis(nats: Sequence[float] | None) -> list[int | None] | None:
    return None if nats is None else [_milli(x) for x in nats]


# --- the text of tokens -------------------------------------------------------------


def _pieces(results: Results, found: Worst) -> Iterator[tuple[str, dict[int, str]]]:
    """Yield the text of the token ids of each model, where its tokenizer is at hand."""
    used: dict[str, set[int]] = defaultdict(set)
    variants: dict[str, str] = {}
    for record, row in found.rows:
        used[record.model.label].update(
            row.clean_prompt_ids, row.adversarial_prompt_ids or (), row.reference_ids
        )
        variants.setdefault(record.model.label, record.variant)
    for model, ids in used.items():
        folder = results.survey.folder.unit_dir("variant", variants[model])
        file = folder / "model" / "tokenizer.json"
        if file.is_file():
            yield model, pieces(file, ids)


def pieces(tokenizer: Path, ids: Iterable[int]) -> dict[int, str]:
    """Return the text that each token stands for, with the space before it.

    A token that is no text by itself, as a part of a character, has its name. Ids that
    the tokenizer does not have are left out; all are where it cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        known = Tokenizer.from_file(str(tokenizer))
    except Exception:  # noqa: BLE001 - it raises nothing narrower
        return {}
    wanted = sorted(x for x in ids if 0 <= x < known.get_vocab_size())
    alone = known.decode_batch([[x] for x in wanted], skip_special_tokens=False)
    twice = known.decode_batch([[x, x] for x in wanted], skip_special_tokens=False)
    found = {}
    for token, one, two in zip(wanted, alone, twice, strict=True):
        # Some decoders drop the space at the beginning of a text.
        piece = two[len(one) :] if two.startswith(one) else one
        if not piece or "\ufffd" in piece:
            piece = known.id_to_token(token) or ""
        found[token] = visible(piece, line=True)
    return found
