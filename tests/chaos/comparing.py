"""Whether two run folders say the same, all but times and what was lost on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VOLATILE = {
    *("seconds", "wall_seconds", "tokens_per_s", "peak_memory_bytes"),
    *("started", "finished", "restarts", "spent"),
    "made",  # the hash of a file with such keys
}
"""Keys of records and of training.jsonl that a clock, a memory or an interruption
decides. What the results cost, `kept`, is not among them."""
RELATIVE = 1e-9
"""What an attempt spent on the examples that it finished is summed up in another
order."""


def differences(expected: Path, found: Path) -> list[str]:
    """Say how a run folder and its store differ from those of an undisturbed run."""
    return [*_of_names(expected, found), *_of_contents(expected, found)]


def _of_names(expected: Path, found: Path) -> Iterator[str]:
    ours, theirs = ({*_names(run)} for run in (expected, found))
    yield from (f"{name} is missing" for name in sorted(ours - theirs))
    yield from (f"{name} is left behind" for name in sorted(theirs - ours))


def _names(run: Path) -> Iterator[str]:
    """Yield all names of a run folder, but those that claim units for a process."""
    for path in run.rglob("*"):
        name = path.relative_to(run)
        if name.parts[0] not in (".locks", ".claims"):
            yield name.as_posix()


def _of_contents(expected: Path, found: Path) -> Iterator[str]:
    for name in sorted({*_names(expected)} & {*_names(found)}):
        ours, theirs = (_content(run / name) for run in (expected, found))
        if isinstance(ours, dict | list):
            yield from (f"{name}: {said}" for said in _apart(ours, theirs))
        elif ours != theirs:
            yield f"{name} differs"
    for one in sorted(expected.glob("variants/*/model/*")):
        other = found / one.relative_to(expected)
        if not other.is_file() or _sha256(one) != _sha256(other):
            yield f"{one.relative_to(expected)} differs"


def _content(path: Path) -> Any:
    """Return what must be the same in a file, if anything."""
    if path.name == "record.json":
        return json.loads(path.read_text())
    if path.name == "training.jsonl":
        lines = map(json.loads, path.read_text().splitlines())
        return [line for line in lines if line["kind"] != "resumed"]
    if path.name in ("samples.jsonl", "suite.resolved.yaml", "success.csv"):
        return path.read_text()
    return None


def _apart(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """Say where two JSON values differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            if key not in VOLATILE:
                one, other = ours.get(key), theirs.get(key)
                yield from _apart(one, other, f"{place}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            yield f"{place}: {len(ours)} entries, {len(theirs)} here"
        for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            yield from _apart(one, other, f"{place}[{number}]")
    elif isinstance(ours, float) and isinstance(theirs, float):
        if abs(ours - theirs) > RELATIVE * abs(ours):
            yield f"{place}: {ours!r}, {theirs!r} here"
    elif ours != theirs:
        yield f"{place}: {ours!r}, {theirs!r} here"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
