"""Replay: final ids from disk, scored by plain transformers in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base import RecordError, hold, write_json
from harness.records import Record, parse_json
from harness.running.diagnostics import plain_replay
from harness.running.folder import RunFolder
from harness.suite import Plan

FILE = "replay.json"
"""In the run folder: what each cell's replay found, under the hash of its samples."""
ROWS = 4
"""Of a cell, spread evenly over its examples; each is scored clean and attacked, at
every checkpoint that it has. So a cell costs at most five passes for each of them."""
TOLERANCE_NATS = 1e-3
"""How far a replayed loss may be from the recorded one, in nats/token."""


@dataclass(frozen=True)
class Replay:
    """What a fresh process made of a complete cell's rows."""

    cell: str
    """The cell's id."""
    largest: float | None = None
    """The largest distance from a recorded loss, in nats/token."""
    fault: str | None = None
    """Why nothing can be said of the rows as they are: a sentence."""
    passes: int = 0
    """How many prompts were scored."""
    plain: bool = True
    """Whether plain transformers knows all of the subject."""


class PlainProcess:
    """A fresh process that scores rows with plain transformers.

    It can begin long before there are rows: what it imports takes seconds, and a run
    has other things to do meanwhile. At the end of the block it is there no more.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        """Start the process, unless it was."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(plain_replay.__file__))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def answers(self, jobs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return what it finds, by cell; it ends with that."""
        self.begin()
        assert self._process is not None
        out, said = self._process.communicate(json.dumps(jobs))
        if self._process.returncode:
            error = {"error": f"the process failed: {said.strip()[-300:]}"}
            return {cell["id"]: error for job in jobs for cell in job["cells"]}
        found: dict[str, dict[str, Any]] = json.loads(out.splitlines()[-1])
        return found

    def __enter__(self) -> PlainProcess:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def replay_run(
    plan: Plan, folder: RunFolder, device: str, process: PlainProcess
) -> None:
    """Replay all complete cells that have not been replayed as they are.

    Where several processes end a run, one does it and the others wait.
    """
    with hold(folder.root / ".claims" / FILE, "the replay of the run"):
        _replay(plan, folder, device, process)


def replays(folder: RunFolder, records: Iterable[Record]) -> list[Replay]:
    """Say of complete cells what their replay found.

    What is missing, was of other samples, or could not be compared has a `fault`.
    Raises RecordError where the file cannot be read.
    """
    known = read(folder)
    return [_found(record, known.get(record.id)) for record in records]


def _found(record: Record, known: dict[str, Any] | None) -> Replay:
    assert record.samples is not None  # it is complete
    if known is None:
        return Replay(record.id, fault="it was not replayed")
    fault = known.get("error")
    if fault is None and known.get("samples_sha256") != record.samples.sha256:
        fault = "its samples are others than those that were replayed"
    elif fault is None and known.get("largest") is None:
        fault = "it has no row to replay"
    return Replay(
        record.id,
        largest=None if fault else known["largest"],
        fault=fault,
        passes=known.get("passes", 0),
        plain=known.get("plain", True),
    )


def _replay(plan: Plan, folder: RunFolder, device: str, process: PlainProcess) -> None:
    known = read(folder)
    jobs: dict[str, dict[str, Any]] = {}
    for cell in plan.cells:
        record = folder.record("cell", cell.id)
        if record is None or record.samples is None:
            continue
        if known.get(cell.id, {}).get("samples_sha256") == record.samples.sha256:
            continue
        model = folder.unit_dir("variant", cell.variant.id) / "model"
        samples = folder.samples_path(record)
        job = jobs.setdefault(
            str(model), {"model": str(model), "device": device, "cells": []}
        )
        job["cells"].append({"id": cell.id, "samples": str(samples), "rows": ROWS})
    if jobs:
        known |= process.answers(list(jobs.values()))
    write_json(folder.root / FILE, known)


def read(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """Return what was replayed, by cell; nothing where the file is not there."""
    path = folder.root / FILE
    if not path.is_file():
        return {}
    try:
        found: dict[str, dict[str, Any]] = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict) or not all(map(_is_sound, found.values())):
        raise RecordError(f"{path} does not say what the replay of each cell found")
    return found


_TYPES = {"largest": float | int | None, "passes": int, "plain": bool}


def _is_sound(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(found[key], kind) for key, kind in _TYPES.items() if key in found
    )
