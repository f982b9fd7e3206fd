"""Whether what a cell replays was found by the cells that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.base import Problem
from harness.records import Record, SampleRow
from harness.running.validation.cells import ids_hash
from harness.suite import Plan

Prompts = list[tuple[str, bytes, bytes | None]]
"""Of each row: its example, and hashes of the prompt before and after the attack."""


class Sources:
    """Holds the prompts of replays against those of the cells that they read."""

    def __init__(self, plan: Plan | None) -> None:
        cells = plan.cells if plan else ()
        self._read = {
            cell.id: [source.id for source in cell.reads.values()]
            for cell in cells
            if plan and plan.experiment.attacks[cell.attack].replays
        }
        self._wanted = {source for ids in self._read.values() for source in ids}
        self._found: dict[str, Prompts] = {}
        self._replays: list[tuple[Path, str, Prompts]] = []

    def prompts(self, record: Record, rows: Sequence[SampleRow]) -> Prompts:
        """Return the prompts of a cell that is read by others, or reads them."""
        if record.id not in self._wanted and record.id not in self._read:
            return []
        return [_prompts(row) for row in rows]

    def note(self, file: Path, record: Record, prompts: Prompts) -> None:
        """Take in the prompts of a cell."""
        if record.id in self._wanted:
            self._found[record.id] = prompts
        if record.id in self._read:
            self._replays.append((file, record.id, prompts))

    def problems(self) -> Iterator[Problem]:
        """Yield the first prompt of each replay that none of its sources found."""
        for file, cell, prompts in self._replays:
            if not all(source in self._found for source in self._read[cell]):
                continue  # one of them is missing, which is said elsewhere
            known = {
                (example, ids)
                for source in self._read[cell]
                for example, *found in self._found[source]
                for ids in found
            }
            for line, (example, _, ids) in enumerate(prompts, 1):
                if ids is not None and (example, ids) not in known:
                    message = "no cell that it replays found this prompt"
                    yield Problem(str(file), (), message, line)
                    break


def _prompts(row: SampleRow) -> tuple[str, bytes, bytes | None]:
    after = row.adversarial_prompt_ids
    hashed = None if after is None else ids_hash(after)
    return row.example_id, ids_hash(row.clean_prompt_ids), hashed
