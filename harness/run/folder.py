"""The run folder: where the records of a suite lie, and which of them count as done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.base import RecordError, sha256_file, write_atomic
from harness.records import Record, Samples, parse_record, read_record
from harness.suite import UnitKind

Status = Literal["complete", "failed", "missing", "invalid"]


@dataclass(frozen=True)
class UnitState:
    """What the run folder says of one variant or cell."""

    status: Status
    reason: str = ""
    """Why it is not complete: a sentence."""
    record: Record | None = None


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, and the state of its units."""

    root: Path

    @property
    def suite_file(self) -> Path:
        """The resolved suite, itself runnable."""
        return self.root / "suite.resolved.yaml"

    @property
    def report_dir(self) -> Path:
        """Where reports are written."""
        return self.root / "report"

    def unit_dir(self, kind: UnitKind, unit_id: str) -> Path:
        """The folder of one variant or cell."""
        return self.root / f"{kind}s" / unit_id

    def record_path(self, kind: UnitKind, unit_id: str) -> Path:
        """The record of one variant or cell."""
        return self.unit_dir(kind, unit_id) / "record.json"

    def records(self, kind: UnitKind) -> list[Path]:
        """All records of a kind that lie in the folder, by name."""
        return sorted((self.root / f"{kind}s").glob("*/record.json"))

    def record(self, kind: UnitKind, unit_id: str) -> Record | None:
        """Return the record of a unit, if it can be read; its samples are not."""
        path = self.record_path(kind, unit_id)
        return parse_record(path)[0] if path.exists() else None

    def state(self, kind: UnitKind, unit_id: str) -> UnitState:
        """Say whether a unit is done: a valid record whose samples hash matches."""
        path = self.record_path(kind, unit_id)
        if not path.exists():
            return UnitState("missing", "no record")
        try:
            record = read_record(path)
        except RecordError as error:
            return UnitState("invalid", str(error))
        fault = record.samples and samples_fault(path, record.samples)
        if fault and record.status == "complete":
            return UnitState("invalid", fault, record)
        return state_of(record)


def state_of(record: Record) -> UnitState:
    """Say whether a unit is done by what its valid record says."""
    if record.status == "failed":
        message = record.error.message if record.error else "no error given"
        return UnitState("failed", message, record)
    return UnitState("complete", "", record)


def write_samples(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Samples:
    """Write the rows as JSON lines, atomically; return what the record says of them."""
    lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows]
    path = folder / "samples.jsonl"
    write_atomic(path, "".join(lines))
    return Samples(path=path.name, rows=len(lines), sha256=sha256_file(path))


def samples_fault(record_path: Path, samples: Samples) -> str | None:
    """Say what is wrong with the samples file of a record; None if nothing is."""
    path = record_path.parent / samples.path
    if not path.exists():
        return f"{samples.path} is missing"
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != samples.sha256:
        return f"{samples.path} differs from its hash in the record"
    lines = data.count(b"\n")
    if lines != samples.rows:
        return f"{samples.path} has {lines} lines, the record says {samples.rows}"
    return None
