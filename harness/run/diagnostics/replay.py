"""Replay: final ids from disk, scored by plain transformers in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.base import write_json
from harness.run.diagnostics import plain_replay
from harness.run.folder import RunFolder
from harness.suite import Plan

FILE = "replay.json"
"""In the run folder: what each cell's replay found, under the hash of its samples."""
ROWS = 4
"""Of a cell, spread evenly over its examples; each is scored clean and attacked."""
TOLERANCE_NATS = 1e-3
"""How far a replayed loss may be from the recorded one, in nats/token."""


def replay_run(plan: Plan, folder: RunFolder) -> None:
    """Replay all complete cells that have not been replayed as they are."""
    known = read(folder)
    jobs: dict[str, dict[str, Any]] = {}
    hashes: dict[str, str] = {}
    for cell in plan.cells:
        state = folder.state("cell", cell.id)
        if state.status != "complete" or state.record is None:
            continue
        assert state.record.samples is not None  # it is complete
        hashes[cell.id] = state.record.samples.sha256
        if known.get(cell.id, {}).get("samples_sha256") == hashes[cell.id]:
            continue
        model = folder.unit_dir("variant", cell.variant.id) / "model"
        samples = folder.unit_dir("cell", cell.id) / state.record.samples.path
        job = jobs.setdefault(str(model), {"model": str(model), "cells": []})
        job["cells"].append({"id": cell.id, "samples": str(samples), "rows": ROWS})
    if jobs:
        for cell_id, answer in _replayed(list(jobs.values())).items():
            known[cell_id] = {**answer, "samples_sha256": hashes[cell_id]}
    write_json(folder.root / FILE, known)


def read(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """Return what was replayed, by cell; nothing where the file is not there."""
    path = folder.root / FILE
    if not path.is_file():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _replayed(jobs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    script = Path(plain_replay.__file__)
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        error = {"error": f"the process failed: {done.stderr.strip()[-300:]}"}
        return {cell["id"]: error for job in jobs for cell in job["cells"]}
    answers: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers
