"""What a unit has finished and spent so far, on disk: an interruption costs little.

A journal is a file of lines, each flushed as it comes: that an attempt began, what a
stage cost, an example that is finished. It lies where the unit's record goes, until
that is complete. A crash costs what is under way and nothing else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydantic
import torch

from harness.base import Strict, write_atomic
from harness.records import Cost, Ledger, Phase, SampleRow
from harness.subject import Meters, Subject

logger = logging.getLogger(__name__)

Costs = Mapping[Phase, Cost]


class Line(Strict):
    """One line of a journal."""

    attempt: int
    """Which attempt at the unit it is of, counted from 1."""
    spent: dict[Phase, Cost] = {}
    """What was spent since the line before it."""
    row: SampleRow | None = None
    """The example that was finished."""
    own_flops: float = 0.0
    """What this attempt spent on that example and no other."""


class Journal:
    """The attempts at one unit: finished examples, and what was spent when."""

    def __init__(self, path: Path, device: str) -> None:
        """Begin an attempt; what earlier ones left in the file is read.

        A torn last line is dropped, and so is a file that another version wrote.
        """
        self._path, self._device = path, device
        self._lines, sound = _read(path)
        if not sound:
            write_atomic(path, "".join(map(_text, self._lines)))
        self.rows = {line.row.example_id: line.row for line in self._lines if line.row}
        self.restarts = max((line.attempt for line in self._lines), default=0)
        self.note({})

    def note(
        self, spent: Costs, row: SampleRow | None = None, own_flops: float = 0.0
    ) -> None:
        """Add a line, on disk first."""
        line = Line(
            attempt=self.restarts + 1, spent=dict(spent), row=row, own_flops=own_flops
        )
        with self._path.open("a") as file:
            file.write(_text(line))
        self._lines.append(line)
        if row is not None:
            self.rows[row.example_id] = row

    @contextmanager
    def stage(
        self, name: str, phase: Phase | None, subject: Subject | None = None
    ) -> Iterator[None]:
        """Log a stage of the unit, and note what it spent, also where it fails.

        Without a subject, that is time and memory; without a phase, nothing is noted.
        """
        logger.info("%s ...", name)
        metered = (
            subject.metered if subject else Meters(torch.device(self._device)).span
        )
        with metered() as meter:
            try:
                yield
            finally:
                meter.stop()
                self.note({phase: meter.cost()} if phase else {})
                logger.info("%s took %.1f s", name, meter.seconds)

    def void(self) -> None:
        """Forget all rows, but not what they cost.

        Those of earlier attempts too: one that was killed could not be looked after.
        """
        void = {"row": None, "own_flops": 0.0}
        self._lines = [line.model_copy(update=void) for line in self._lines]
        self.rows = {}
        write_atomic(self._path, "".join(map(_text, self._lines)))

    def close(self) -> None:
        """Remove the file: the unit is complete."""
        self._path.unlink(missing_ok=True)

    def ledger(self) -> Ledger:
        """Return what the results cost, and what all attempts spent.

        The results cost the last attempt that finished anything, and what earlier ones
        spent on the examples that they finished: work that all examples share was done
        again, and so was that on examples under way.
        """
        last = max((x.attempt for x in self._lines if x.row), default=self.restarts + 1)
        kept: Costs = {}
        for attempt in range(1, self.restarts + 2):
            lines = [line for line in self._lines if line.attempt == attempt]
            costs = total(line.spent for line in lines)
            own = sum(line.own_flops for line in lines)
            kept = total([kept, costs if attempt == last else _finished(costs, own)])
        return Ledger(kept=dict(kept), spent=total(line.spent for line in self._lines))


def spent_so_far(path: Path) -> Ledger:
    """Return what the attempts in a journal spent, which came to nothing.

    The file stays as it is: another process may be writing to it.
    """
    return Ledger(spent=total(line.spent for line in _read(path)[0]))


def together(*ledgers: Ledger) -> Ledger:
    """Add up ledgers."""
    return Ledger(
        kept=total(ledger.kept for ledger in ledgers),
        spent=total(ledger.spent for ledger in ledgers),
    )


def total(parts: Iterable[Costs]) -> dict[Phase, Cost]:
    """Add up costs, phase by phase."""
    found: dict[Phase, Cost] = {}
    for part in parts:
        for phase, cost in part.items():
            found[phase] = found.get(phase, Cost()) + cost
    return found


def _finished(costs: Costs, own_flops: float) -> Costs:
    """Return what an attempt that was cut short spent on what it finished."""
    attack, rescore = costs.get("attack", Cost()), costs.get("rescore")
    found: dict[Phase, Cost] = {} if rescore is None else {"rescore": rescore}
    if own_flops and attack.compared_flops:
        share = min(1.0, own_flops / attack.compared_flops)
        found["attack"] = _part(attack, share)
    return found


def _part(cost: Cost, share: float) -> Cost:
    """Return a share of a cost; of peak memory, all of it."""
    parts: dict[str, Any] = {
        name: int(share * value) if isinstance(value, int) else share * value
        for name, value in cost
        if value is not None
    }
    return Cost(**{**parts, "peak_memory_bytes": cost.peak_memory_bytes})


def _text(line: Line) -> str:
    return json.dumps(line.model_dump(mode="json"), allow_nan=False) + "\n"


def _read(path: Path) -> tuple[list[Line], bool]:
    """Return the lines that can be read, and whether those are all of the file."""
    if not path.exists():
        return [], True
    whole, _, torn = path.read_text().rpartition("\n")
    try:
        lines = [Line.model_validate_json(line) for line in whole.splitlines()]
    except pydantic.ValidationError:
        return [], False
    return lines, not torn
