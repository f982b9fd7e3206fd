"""The run folder: where the records of a suite lie, and which of them count as done."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.base import (
    RecordError,
    Strict,
    UsageError,
    content_hash,
    sha256_file,
    sha256_once,
    write_atomic,
)
from harness.records import (
    Certificates,
    Derivation,
    Frozen,
    Ledger,
    Record,
    RecoverySummary,
    Samples,
    parse_record,
    read_record,
)
from harness.suite import UnitKind

Status = Literal["complete", "failed", "missing", "invalid"]
MADE = "made.json"
"""Beside the model of a frozen subject: how it was made."""
TRAINING = "training.jsonl"
"""In the folders of a variant and its subject: the course of recovery training."""
_TEXT_PARTS = ("text_config", "decoder", "generator", "text_encoder")
"""Where a nested configuration of transformers describes what reads and writes text."""
_CHUNK = 1 << 20
_LONGEST = 1 << 26
"""Of a line of samples, in bytes."""
_KINDS = {
    stat.S_IFLNK: "a link, and no file of its own",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
}


class Made(Strict):
    """How a subject was made: the file ``made.json`` in its folder."""

    certificate: Certificates
    recovery: RecoverySummary
    derivation: Derivation | None = None
    parameters: int
    ledger: Ledger = Ledger()
    """What making it cost; empty where it was made before that was noted."""


@dataclass(frozen=True)
class UnitState:
    """What the run folder says of one variant or cell."""

    status: Status
    reason: str = ""
    """Why it is not complete: a sentence."""
    record: Record | None = None

    @property
    def valid(self) -> Record | None:
        """The record where it counts, be it of a failure."""
        return None if self.status == "invalid" else self.record


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, and the state of its units."""

    root: Path

    @property
    def suite_file(self) -> Path:
        """The resolved suite, itself runnable."""
        return self.root / "suite.resolved.yaml"

    @property
    def suites_dir(self) -> Path:
        """Every resolved suite that was run here, each named by its SHA-256."""
        return self.root / "suites"

    @property
    def report_dir(self) -> Path:
        """Where reports are written."""
        return self.root / "report"

    def keep_suite(self, text: str) -> str:
        """Write down the resolved suite that is about to run; return its SHA-256.

        Earlier ones stay, since records that were made under them do.
        """
        digest = hashlib.sha256(text.encode()).hexdigest()
        write_atomic(self.suites_dir / f"{digest}.yaml", text)
        write_atomic(self.suite_file, text)
        return digest

    def unit_dir(self, kind: UnitKind, unit_id: str) -> Path:
        """The folder of one variant or cell."""
        return self.root / f"{kind}s" / unit_id

    def record_path(self, kind: UnitKind, unit_id: str) -> Path:
        """The record of one variant or cell."""
        return self.unit_dir(kind, unit_id) / "record.json"

    def samples_path(self, record: Record) -> Path:
        """The file of samples of a complete unit, by its record."""
        assert record.samples is not None  # it is complete
        return self.unit_dir(record.kind, record.id) / record.samples.path

    def check(self) -> None:
        """Raise UsageError where this is the folder of no run: it has no suite."""
        if not self.suite_file.is_file():
            raise UsageError(
                f"{self.root} is no run folder: it has no {self.suite_file.name}"
            )

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
    """Say what is wrong with the samples file of a record; None if nothing is.

    Nothing but a regular file in the record's folder is opened: neither what a link
    leads to, nor a device or a pipe, which have no end.
    """
    path = record_path.parent / samples.path
    fault = irregular(path)
    if fault is not None:
        return fault
    read = ReadOnce(path)
    for _ in read.chunks():
        pass
    return read.fault(samples)


def irregular(path: Path) -> str | None:
    """Say why a file of samples must not be opened; None if it is a regular one."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    if stat.S_ISREG(mode):
        return None
    return f"{path.name} is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}"


class ReadOnce:
    """A file of samples, hashed and its lines counted while it is read."""

    def __init__(self, path: Path) -> None:
        self._path, self._digest, self._ends = path, hashlib.sha256(), 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the file in pieces of a size of their own."""
        with self._path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield self._seen(chunk)

    def lines(self) -> Iterator[bytes]:
        """Yield the file line by line; one that is longer than any row, in pieces."""
        with self._path.open("rb") as file:
            while line := file.readline(_LONGEST):
                yield self._seen(line)

    def _seen(self, part: bytes) -> bytes:
        self._digest.update(part)
        self._ends += part.count(b"\n")
        return part

    def fault(self, samples: Samples) -> str | None:
        """Say in what a file that was read to its end differs from its record."""
        name = self._path.name
        if self._digest.hexdigest() != samples.sha256:
            return f"{name} differs from its hash in the record"
        if self._ends != samples.rows:
            return f"{name} has {self._ends} lines, the record says {samples.rows}"
        return None


def frozen_of(made: Path) -> Frozen:
    """Hash the files of a frozen subject in the store.

    `made` is its folder, with ``model`` and ``made.json``.
    """
    return Frozen(model=model_sha256(made / "model"), made=made_sha256(made / MADE))


def made_sha256(file: Path) -> str:
    """Return the hash of ``made.json`` that `Frozen` describes."""
    said = json.loads(file.read_text(encoding="utf-8"))
    return content_hash({key: x for key, x in said.items() if key != "ledger"})


def model_sha256(model: Path) -> str:
    """Return the hash of a model's folder that `Frozen` describes."""
    files = sorted(x for x in model.rglob("*") if x.is_file())
    lines = (f"{sha256_once(x)}  {x.relative_to(model).as_posix()}\n" for x in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def vocabulary_of(model: Path) -> int | None:
    """Return how many tokens a model knows, of its text part, by its configuration.

    None where its folder has none, or one that does not say so.
    """
    path = model / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        parts = (config, *(config.get(name) or {} for name in _TEXT_PARTS))
        sizes = (part["vocab_size"] for part in parts if part.get("vocab_size"))
        return next(map(int, sizes), None)
    except (OSError, ValueError, AttributeError, TypeError):
        return None
