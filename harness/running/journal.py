"""What a unit has finished and spent so far, on disk: an interruption costs little.

A journal is a file of lines, each written as it comes: that an attempt began, what a
stage cost, an example that is finished. It lies where the unit's record goes, until
that is complete. A process that is killed loses what is under way and nothing else; a
machine that goes down, what it had not brought to disk: `SYNC_SECONDS` at most, where
examples follow each other.

Each line begins with a check, the hash of the line and of the check before it; the
first continues the hash of the unit's id. So a line that was damaged, moved, or that is
another unit's is noticed: it and all behind it are left out. That is no protection from
somebody who makes up a whole file.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import torch

from harness.base import Strict, write_atomic
from harness.records import Cost, Ledger, Phase, SampleRow
from harness.subject import Meters, Subject

logger = logging.getLogger(__name__)

Costs = Mapping[Phase, Cost]

SYNC_SECONDS = 0.25
"""Lines that follow each other sooner are brought to disk together: it takes some
milliseconds, as long as a small model takes for an example."""


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

    def __init__(
        self,
        path: Path,
        unit_id: str,
        device: str,
        allowed: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin an attempt; what earlier ones left in the file is read.

        What another version wrote is dropped like what is damaged. Before each line
        `allowed` is called, which raises where the unit is another process's by now.
        """
        self._allowed = allowed
        self._path, self._unit, self._device = path, unit_id, device
        self._synced = -SYNC_SECONDS
        found = _read(path, unit_id)
        self._lines, self._check = found.lines, found.check
        if not found.whole:
            self._rewrite()
        self.rows = {line.row.example_id: line.row for line in self._lines if line.row}
        self.restarts = max((line.attempt for line in self._lines), default=0)
        self.note({})

    def note(
        self, spent: Costs, row: SampleRow | None = None, own_flops: float = 0.0
    ) -> None:
        """Add a line to the file; it is there when this returns."""
        self._allowed()
        line = Line(
            attempt=self.restarts + 1, spent=dict(spent), row=row, own_flops=own_flops
        )
        text, check = _checked(line, self._check)
        with open(self._path, "ab", buffering=0, opener=_no_link) as file:
            _append(file, text)
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                os.fsync(file.fileno())
                self._synced = time.monotonic()
        self._check = check
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
        self._rewrite()

    def close(self) -> None:
        """Remove the file: the unit is complete."""
        self._path.unlink(missing_ok=True)

    def _rewrite(self) -> None:
        self._check, texts = _first_check(self._unit), []
        for line in self._lines:
            text, self._check = _checked(line, self._check)
            texts.append(text)
        write_atomic(self._path, b"".join(texts))

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


def spent_so_far(path: Path, unit_id: str) -> Ledger:
    """Return what the attempts in a unit's journal spent, which came to nothing.

    The file stays as it is: another process may be writing to it.
    """
    return Ledger(spent=total(line.spent for line in _read(path, unit_id).lines))


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


# --- the file -----------------------------------------------------------------------


_HEAD = '{{"check": "{}", '
_HEAD_LENGTH = len(_HEAD.format(64 * "0"))


@dataclass(frozen=True)
class _Found:
    """What a journal has, down to its first bad line."""

    lines: list[Line]
    check: str
    """The check of the last line."""
    whole: bool = True
    """Whether these lines are all of the file."""


def _read(path: Path, unit_id: str) -> _Found:
    lines: list[Line] = []
    check = _first_check(unit_id)
    if path.is_symlink():
        return _Found(lines, check, whole=False)
    if not path.exists():
        return _Found(lines, check)
    *texts, torn = path.read_bytes().split(b"\n")
    for number, text in enumerate(texts, 1):
        line, check_of_it = _sound(text, check)
        if line is None:
            what = "is damaged, or not this unit's"
            logger.warning("%s: line %d %s; it ends there", path.name, number, what)
            return _Found(lines, check, whole=False)
        lines.append(line)
        check = check_of_it
    return _Found(lines, check, whole=not torn)


def _checked(line: Line, check: str) -> tuple[bytes, str]:
    """Return a line as it is written behind the one with `check`, and its own check."""
    body = json.dumps(line.model_dump(mode="json"), allow_nan=False).encode()
    own = _next_check(check, body)
    return _HEAD.format(own).encode() + body[1:] + b"\n", own


def _sound(text: bytes, check: str) -> tuple[Line | None, str]:
    """Return the line behind the one with `check`, if it is sound, and its check."""
    body = b"{" + text[_HEAD_LENGTH:]
    own = _next_check(check, body)
    if not text.startswith(_HEAD.format(own).encode()):
        return None, own
    try:
        return Line.model_validate_json(body), own
    except pydantic.ValidationError:
        return None, own


def _first_check(unit_id: str) -> str:
    return hashlib.sha256(unit_id.encode()).hexdigest()


def _next_check(check: str, body: bytes) -> str:
    return hashlib.sha256(check.encode() + body).hexdigest()


def _append(file: io.FileIO, text: bytes) -> None:
    """Write a line, or nothing of it: on a full disk others may follow."""
    size = os.fstat(file.fileno()).st_size
    try:
        while text:
            text = text[file.write(text) :]
    except BaseException:
        file.truncate(size)
        raise


def _no_link(path: str, flags: int) -> int:
    """Open a file, but not what a link in its place leads to."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
