"""Whether the samples of a record are whole, and give the results it states."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.api import Metric
from harness.base import Problem, RecordError
from harness.records import (
    ROUGE_DROP,
    Diagnostic,
    Estimate,
    Record,
    Replicate,
    SampleRow,
    parse_json,
    parse_samples,
    rouge,
    summarise_attack,
)
from harness.running.answers import chosen
from harness.running.diagnostics.rows import OF_SUBJECTS, examine_rows
from harness.running.folder import ReadOnce, irregular, samples_fault

Metrics = Mapping[str, Metric[Any]]
"""Metrics by the labels that results are stored under."""
_Stated = Estimate | Diagnostic

LOSS_TOLERANCE = 1e-9
"""Of dL against its two losses, in nats/token: all three are stored in full."""
VALUE_TOLERANCE = 1e-9
"""Relative, of a recomputed value."""
INTERVAL_TOLERANCE = 1e-6
"""Relative, of a recomputed bound."""


def check_samples(
    path: Path, record: Record, metrics: Metrics
) -> tuple[list[SampleRow], str | None, list[Problem]]:
    """Check the samples of the record at `path`, and recompute its results.

    Returns the rows of a cell, none where one of them is no row; in what the file is
    not what the record says; and the problems. Those of the record itself name no file
    yet. The file is read once.
    """
    if record.samples is None:
        return [], None, []
    file = path.parent / record.samples.path
    fault = irregular(file)
    if fault is not None:
        return [], fault, [Problem("", ("samples",), fault)]
    read = ReadOnce(file)
    rows: list[SampleRow] = []
    try:
        if record.kind == "cell":
            rows, problems = _check_cell(record, file, read.lines())
        else:
            problems = _check_variant(record, file, read.lines(), metrics)
        fault = read.fault(record.samples)
    except (RecordError, UnicodeDecodeError) as error:
        message = str(error).removeprefix(f"{file}: ")
        problems = [Problem(str(file), (), message)]
        fault = samples_fault(path, record.samples)
    if fault is not None:
        problems = [Problem("", ("samples",), fault), *problems]
    return rows, fault, problems


# --- cells --------------------------------------------------------------------------


def _check_cell(
    record: Record, file: Path, lines: Iterable[bytes]
) -> tuple[list[SampleRow], list[Problem]]:
    rows: list[SampleRow] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for line, (row, unreadable) in enumerate(parse_samples(file, lines), 1):
        problems += unreadable
        if row is not None:
            complaints = _row_complaints(row, seen)
            problems += [Problem(str(file), (), text, line) for text in complaints]
            seen.add(row.example_id)
            rows.append(row)
    share = record.attack.share if record.attack else 1.0
    problems += [Problem(str(file), (), text) for text in _uneven(rows, share)]
    if problems:
        return [], problems
    return rows, [
        *_count_problems(record, len(rows)),
        *_cell_problems(record, rows),
    ]


def _row_complaints(row: SampleRow, seen: set[str]) -> Iterator[str]:
    if row.example_id in seen:
        yield f"the example {row.example_id!r} stands in an earlier line"
    if not row.reference_ids:
        yield "reference_ids is empty: nothing is scored"
    if row.clean_loss is None or row.adversarial_loss is None:
        return
    yield from _loss_complaints(row, row.clean_loss)
    yield from _checkpoint_complaints(row)
    yield from _answer_complaints(row)
    yield from _rouge_complaints(row)
    same = row.adversarial_prompt_ids == row.clean_prompt_ids
    if same != (row.status == "unchanged"):
        yield f"the status is {row.status}, but the ids {'agree' if same else 'differ'}"


def _loss_complaints(row: SampleRow, clean: float) -> Iterator[str]:
    """Hold every dL against its two losses, and losses against those of tokens."""
    stated: list[tuple[str, SampleRow | Replicate]] = [
        ("", row),
        *((f"checkpoints.{i}: ", one) for i, one in enumerate(row.checkpoints)),
        *((f"replicates.{i}: ", one) for i, one in enumerate(row.replicates)),
    ]
    for where, one in stated:
        difference = (one.adversarial_loss or 0.0) - clean
        if abs((one.delta_loss or 0.0) - difference) > LOSS_TOLERANCE:
            differ = f"but the losses differ by {difference}"
            yield f"{where}delta_loss is {one.delta_loss}, {differ}"
    for when in ("clean", "adversarial"):
        loss, tokens = (getattr(row, f"{when}_{x}") for x in ("loss", "token_losses"))
        if tokens is None:
            continue
        if len(tokens) != len(row.reference_ids):
            yield f"{when}_token_losses are not as many as the reference's tokens"
        elif abs(math.fsum(tokens) / len(tokens) - loss) > LOSS_TOLERANCE:
            yield f"{when}_loss is {loss}, but its tokens' losses give another"


def _checkpoint_complaints(row: SampleRow) -> Iterator[str]:
    """Hold the checkpoints against each other and the row that they belong to."""
    shares = [*(one.share for one in row.checkpoints), row.share]
    if any(after <= before for before, after in pairwise(shares)):
        yield f"the shares of checkpoints and row do not ascend: {shares}"
    known = {
        tuple(row.clean_prompt_ids): row.clean_loss,
        tuple(row.adversarial_prompt_ids or ()): row.adversarial_loss,
    }
    others: list[Replicate] = [*row.checkpoints, *row.replicates]
    for i, one in enumerate(others):
        loss = known.setdefault(tuple(one.adversarial_prompt_ids), one.adversarial_loss)
        if loss != one.adversarial_loss:
            yield f"prompt {i} of checkpoints and replicates has another loss elsewhere"


def _uneven(rows: Sequence[SampleRow], share: float) -> Iterator[str]:
    """Say where rows lack what all of a cell have: budget, checkpoints, replicates."""
    sound = [row for row in rows if row.status != "error"]
    others = {row.share for row in sound} - {share}
    if others:
        yield f"rows had {others} times the stated budget, and the attack had {share}"
    shares = {(row.share, *(one.share for one in row.checkpoints)) for row in sound}
    if len(shares) > 1:
        yield "rows differ in the shares of the budget that they have prompts of"
    counts = {len(row.replicates) for row in sound}
    if len(counts) > 1:
        yield f"rows differ in their number of replicates: {sorted(counts)}"


def _answer_complaints(row: SampleRow) -> Iterator[str]:
    """Choose the answers again, from what each choice scored."""
    if row.choices is None:
        return
    for when in ("clean", "adversarial"):
        scores = [getattr(choice, f"{when}_score") for choice in row.choices]
        right = chosen(scores) == row.gold
        if getattr(row, f"answer_correct_{when}") != right:
            yield f"answer_correct_{when} is not what the scores of the choices say"


def _rouge_complaints(row: SampleRow) -> Iterator[str]:
    """Compare the summaries with the reference text again."""
    if row.reference_text is None:
        return
    for when in ("clean", "adversarial"):
        stated = getattr(row, f"rouge_{when}")
        found = rouge(row.reference_text, getattr(row, f"{when}_summary") or "")
        if not _close(stated, found["rougeL"], VALUE_TOLERANCE):
            yield f"rouge_{when} is {stated}, but its summary gives {found['rougeL']}"


def _count_problems(record: Record, rows: int) -> Iterator[Problem]:
    """Compare the rows with the examples that the suite asks for: errors count too."""
    assert record.attack is not None
    test = record.attack.examples.get("test")
    count = test.get("count") if isinstance(test, dict) else None
    if isinstance(count, int):
        expected = min(count, record.suite.limit or count)
        if rows != expected:
            message = f"{rows} examples, but the suite asks for {expected}"
            yield Problem("", ("samples", "rows"), message)


def _cell_problems(record: Record, rows: Sequence[SampleRow]) -> Iterator[Problem]:
    threshold = record.results.get("attack", {}).get("threshold")
    if threshold is None or threshold.value is None:
        yield Problem(
            "", ("results",), "the success threshold (attack.threshold) is missing"
        )
        return
    found = record.results["attack"]
    stated = found.get("rouge_threshold", threshold).value
    expected = summarise_attack(rows, threshold.value, stated or ROUGE_DROP)
    yield from _differences(("results", "attack"), found, expected)
    if record.diagnostics:  # a suite may ask for none
        again = examine_rows(rows)
        answers = [x for x in record.diagnostics if x.id not in OF_SUBJECTS]
        yield from _differences(
            ("diagnostics",), {x.id: x for x in answers}, {x.id: x for x in again}
        )
    for label in record.results.keys() - {"attack"}:
        yield Problem("", ("results", label), "a cell has results of its attack alone")


# --- variants -----------------------------------------------------------------------


def _check_variant(
    record: Record, file: Path, lines: Iterable[bytes], metrics: Metrics
) -> list[Problem]:
    rows: dict[str, list[dict[str, Any]]] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        text = line.decode()
        try:
            row = parse_json(text)
            if not (isinstance(row, dict) and isinstance(row.get("metric"), str)):
                raise ValueError("it names no `metric`")
            rows.setdefault(row.pop("metric"), []).append(row)
        except ValueError as error:
            message = f"is no row of a metric: {error}"
            problems.append(Problem(str(file), (), message, number))
    return problems or list(_variant_problems(record, rows, metrics))


def _variant_problems(
    record: Record, rows: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Metrics
) -> Iterator[Problem]:
    for label in sorted(rows.keys() - record.results.keys()):
        yield Problem(
            "", ("results",), f"there are samples of {label!r}, but no results"
        )
    for label, found in record.results.items():
        if label not in metrics:
            continue
        try:
            expected = metrics[label].summarise(rows.get(label, []))
        except Exception as error:  # noqa: BLE001 - whatever a plugin makes of bad rows
            message = f"cannot be computed from the samples: {error!r}"
            yield Problem("", ("results", label), message)
            continue
        yield from _differences(("results", label), found, expected)


# --- comparison ---------------------------------------------------------------------


def _differences(
    path: tuple[str, ...], found: Mapping[str, _Stated], expected: Mapping[str, _Stated]
) -> Iterator[Problem]:
    """Compare what a record states below a path with what the samples give."""
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            yield Problem("", path, f"{name} is missing")
        elif name not in expected:
            yield Problem("", (*path, name), "cannot be computed from the samples")
        elif not _agree(found[name], expected[name]):
            message = f"{_shown(found[name])}, but the samples give "
            yield Problem("", (*path, name), message + _shown(expected[name]))


def _agree(first: _Stated, second: _Stated) -> bool:
    return (
        _status(first) == _status(second)
        and first.n == second.n
        and _close(first.value, second.value, VALUE_TOLERANCE)
        and all(
            _close(one, other, INTERVAL_TOLERANCE)
            for one, other in zip(_bounds(first), _bounds(second), strict=True)
        )
    )


def _status(stated: _Stated) -> str:
    return f"{stated.status}, " if isinstance(stated, Diagnostic) else ""


def _bounds(stated: _Stated) -> tuple[float | None, float | None]:
    return stated.interval or (None, None)


def _close(first: float | None, second: float | None, tolerance: float) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=tolerance, abs_tol=1e-12)


def _shown(stated: _Stated) -> str:
    interval = f" {list(stated.interval)}" if stated.interval else ""
    return f"{_status(stated)}{stated.value}{interval} (n={stated.n})"
