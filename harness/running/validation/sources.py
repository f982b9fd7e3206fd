"""Whether what a cell replays was found by the cells that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.base import Problem
from harness.records import Record, SampleRow
from harness.suite import Plan


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
        self._found: dict[str, dict[str, set[tuple[int, ...]]]] = {}
        self._replays: list[tuple[Path, str, list[list[int] | None], list[str]]] = []

    def note(
        self, file: Path, record: Record, rows: Sequence[SampleRow]
    ) -> Sequence[Problem]:
        """Take in the rows of a cell, which may be read or read others."""
        if record.id in self._wanted:
            self._found[record.id] = {
                row.example_id: {
                    tuple(ids)
                    for ids in (row.adversarial_prompt_ids, row.clean_prompt_ids)
                    if ids is not None
                }
                for row in rows
            }
        if record.id in self._read:
            prompts = [row.adversarial_prompt_ids for row in rows]
            examples = [row.example_id for row in rows]
            self._replays.append((file, record.id, prompts, examples))
        return ()

    def problems(self) -> Iterator[Problem]:
        """Yield the first prompt of each replay that none of its sources found."""
        for file, cell, prompts, examples in self._replays:
            sources = [self._found.get(x) for x in self._read[cell]]
            if None in sources:
                continue  # one of them is missing, which is said elsewhere
            for line, (ids, example) in enumerate(
                zip(prompts, examples, strict=True), 1
            ):
                known = [x.get(example, set()) for x in sources if x]
                if ids is not None and not any(tuple(ids) in one for one in known):
                    message = "no cell that it replays found this prompt"
                    yield Problem(str(file), (), message, line)
                    break
