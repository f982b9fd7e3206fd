"""Whether the rows of a cell are such as its attack can return: ids, flips, traces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import ne
from pathlib import Path
from typing import Any

from harness.api import Attack, Budget
from harness.base import Problem
from harness.records import Record, SampleRow
from harness.running.folder import RunFolder, vocabulary_of
from harness.subject import MARGIN_NATS
from harness.suite import CellPlan, Experiment, Plan, Unloaded

TRACE_TOLERANCE_NATS = {"float32": MARGIN_NATS, "bfloat16": 0.2}
"""How far the loss that a search noted may be from that of the same prompt alone in
float32: by the batch that it was in and, in bfloat16, by the precision."""
Prompt = tuple[int, ...]
Writes = list[tuple[int, int]]


class Limits:
    """Holds rows against the vocabulary, and against what the suite lets an attack do.

    Without a `plan`, or for a cell that is not part of it, the attack is not known:
    then ids alone are looked at.
    """

    def __init__(self, folder: RunFolder, plan: Plan | None) -> None:
        self._vocabulary = lru_cache(vocabulary_of)
        self._folder, self._plan = folder, plan
        self._cells = {cell.id: cell for cell in plan.cells} if plan else {}

    def compare(
        self, file: Path, record: Record, rows: Sequence[SampleRow]
    ) -> Iterator[Problem]:
        """Yield the first row of a cell that cannot be, and how many there are."""
        model = self._folder.unit_dir("variant", record.variant) / "model"
        size = self._vocabulary(model)
        cell, bounds = self._cells.get(record.id), None
        if self._plan is not None and cell is not None:
            bounds = _Bounds.of(self._plan.experiment, cell, len(rows))
        triggers: set[Prompt] = set()
        found: list[tuple[int, str]] = []
        for line, row in enumerate(rows, 1):
            message = next(_beyond(row, size), None)
            if message is None and bounds is not None:
                message = next(bounds.complaints(row, triggers), None)
            if message is not None:
                found.append((line, message))
        if found:
            line, message = found[0]
            more = f" (and {len(found) - 1} more rows)" if len(found) > 1 else ""
            yield Problem(str(file), (), f"{message}{more}", line)


def _beyond(row: SampleRow, size: int | None) -> Iterator[str]:
    """Find ids that are no token's: below zero or, where it is known, beyond `size`."""
    for name, ids in _ids(row):
        if not ids or (min(ids) >= 0 and (size is None or max(ids) < size)):
            continue
        token = next(x for x in ids if x < 0 or (size is not None and x >= size))
        known = "" if size is None else f": the model has {size:,} tokens"
        yield f"{name} has the id {token}{known}"


def _ids(row: SampleRow) -> Iterator[tuple[str, Sequence[int]]]:
    yield "clean_prompt_ids", row.clean_prompt_ids
    yield "reference_ids", row.reference_ids
    for prompt in _prompts(row):
        yield "adversarial_prompt_ids", prompt
    for choice in row.choices or ():
        yield "choices", [*choice.tail_ids, *choice.answer_ids]


def _prompts(row: SampleRow) -> Iterator[list[int]]:
    """Yield what the attack returned, and would have with less or in other searches."""
    if row.adversarial_prompt_ids is not None:
        yield row.adversarial_prompt_ids
    for one in (*row.checkpoints, *row.replicates):
        yield one.adversarial_prompt_ids


@dataclass(frozen=True)
class _Bounds:
    """What an attack may do in a cell."""

    attack: Attack[Any]
    """Of a control, the attack that it accompanies."""
    budget: Budget
    control: bool
    tolerance: float
    """Of the losses that the trace has, in nats/token."""

    @classmethod
    def of(cls, experiment: Experiment, cell: CellPlan, rows: int) -> _Bounds | None:
        """Return the bounds of a cell with so many rows; None of an unknown attack."""
        placed = experiment.placed(cell.attack, cell.scene)
        attack = placed.matched or placed.attack
        if isinstance(attack, Unloaded):
            return None
        dtype = experiment.models[cell.variant.model].dtype
        return cls(
            attack,
            attack.budget(rows),
            control=placed.matched is not None,
            tolerance=TRACE_TOLERANCE_NATS.get(
                dtype, max(TRACE_TOLERANCE_NATS.values())
            ),
        )

    def complaints(self, row: SampleRow, triggers: set[Prompt]) -> Iterator[str]:
        """Say what the attack cannot have made of an example.

        `triggers` are those of the cell's rows before it; its own comes in.
        """
        clean = row.clean_prompt_ids
        for prompt in _prompts(row):
            yield from self._changes(clean, prompt)
        if row.adversarial_prompt_ids is None:
            return
        if self.attack.universal:
            yield from self._trigger(row, row.adversarial_prompt_ids, triggers)
        elif len(row.adversarial_prompt_ids) == len(clean):
            yield from self._steps(row, row.adversarial_prompt_ids)
        yield from self._replayed(row)

    def _changes(self, clean: Sequence[int], prompt: Sequence[int]) -> Iterator[str]:
        most, before = self.budget.flips, self.budget.prepended
        if len(clean) == len(prompt):
            changed = sum(map(ne, clean, prompt))
            if most is not None and changed > most:
                yield f"{changed} tokens differ, and the attack may change {most}"
        elif before and not self.control and not _inserted(clean, prompt, before):
            yield f"the prompt is not the clean one with {before} tokens before it"

    def _trigger(
        self, row: SampleRow, prompt: Sequence[int], triggers: set[Prompt]
    ) -> Iterator[str]:
        """Hold the trigger of a universal attack against other rows and the trace."""
        size = self.budget.prepended
        at = _inserted(row.clean_prompt_ids, prompt, size) if size else []
        if not at:
            return
        # With equal tokens at its borders, a trigger can stand at several places.
        found = {tuple(prompt[i : i + size]) for i in at}
        if triggers and triggers.isdisjoint(found):
            yield "its trigger is another than that of the rows before"
        triggers.intersection_update(found) if triggers else triggers.update(found)
        written = dict(pair for step in row.trace for pair in _writes(step))
        if written and not any(_has(trigger, written) for trigger in found):
            yield "the tokens that its trace wrote last are not those of its trigger"

    def _steps(self, row: SampleRow, prompt: Sequence[int]) -> Iterator[str]:
        """Follow the trace from the clean prompt to the adversarial one."""
        steps = [(step, pairs) for step in row.trace if (pairs := _writes(step))]
        if not steps:
            return
        reached = _reached(row.clean_prompt_ids, steps)
        if reached is None:
            yield "its trace names a position that the prompt does not have"
            return
        branches = any("from" in step for step, _ in steps)
        ends = reached if branches else reached[-1:]
        if prompt not in ends:
            yield "its trace does not lead to the adversarial prompt"
            return
        last = len(reached) - 1 - reached[::-1].index(prompt)
        if last:
            yield from self._noted(row, [steps[last - 1][0].get("loss")])

    def _replayed(self, row: SampleRow) -> Iterator[str]:
        """Hold the losses of the sources of a replay against the worst of them."""
        losses = [step.get("loss") for step in row.trace if "source" in step]
        numbers = [x for x in losses if isinstance(x, float)]
        yield from self._noted(row, [max(numbers)] if numbers else [])

    def _noted(self, row: SampleRow, losses: Sequence[Any]) -> Iterator[str]:
        for loss in losses:
            if not isinstance(loss, float) or row.adversarial_loss is None:
                continue
            if abs(loss - row.adversarial_loss) > self.tolerance:
                stated = f"adversarial_loss is {row.adversarial_loss}"
                yield f"{stated}, but its trace ends at {loss}"


# --- traces -------------------------------------------------------------------------


def followed(
    clean: Sequence[int], steps: Sequence[Mapping[str, Any]]
) -> list[list[int]] | None:
    """Return the clean prompt, and the prompt after each step of a trace.

    A step goes on ``from`` an earlier one (0 is the clean prompt), or else from the
    last. None where a step cannot be made.
    """
    return _reached(clean, [(step, _writes(step)) for step in steps])


def _reached(
    clean: Sequence[int], steps: Sequence[tuple[Mapping[str, Any], Writes]]
) -> list[list[int]] | None:
    reached = [list(clean)]
    for step, writes in steps:
        start = step.get("from", len(reached) - 1)
        if not isinstance(start, int) or not 0 <= start < len(reached):
            return None
        ids = list(reached[start])
        for position, token in writes:
            if not 0 <= position < len(ids):
                return None
            ids[position] = token
        reached.append(ids)
    return reached


def _writes(step: Mapping[str, Any]) -> Writes:
    """Return the positions and tokens that a step names, one or several."""
    positions = step["positions"] if "positions" in step else [step.get("position")]
    tokens = step["tokens"] if "tokens" in step else [step.get("token")]
    if not isinstance(positions, list) or not isinstance(tokens, list):
        return []
    return [
        (position, token)
        for position, token in zip(positions, tokens, strict=False)
        if isinstance(position, int) and isinstance(token, int)
    ]


def _inserted(clean: Sequence[int], prompt: Sequence[int], count: int) -> list[int]:
    """Return where `count` tokens stand in a prompt that is else the clean one."""
    if len(prompt) != len(clean) + count:
        return []
    return [
        i
        for i in range(len(clean) + 1)
        if prompt[:i] == clean[:i] and prompt[i + count :] == clean[i:]
    ]


def _has(trigger: Prompt, written: Mapping[int, int]) -> bool:
    return all(
        0 <= i < len(trigger) and trigger[i] == token for i, token in written.items()
    )
