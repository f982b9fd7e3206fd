"""Whether two run folders say the same, all but times and what was lost on the way."""

from __future__ import annotations

import hashlib
import json
import re
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
SHARED = {
    *("flops", "tokens_forward", "tokens_backward"),
    *("sequences_forward", "sequences_backward"),
}
"""Of what the results cost, what an attempt that was cut short knows of all its
examples together: what the finished ones have of it follows from their share of
`flops_whole`, by which budgets are compared, and which has to be the same."""
OF_A_SHARE = 0.05
RELATIVE = 1e-9
"""What an attempt spent on the examples that it finished is summed up in another
order."""
SEARCHED = re.compile(r"\[\d+\]\.trace\[\d+\]\.loss")
"""The losses that a search went by, in samples: products of few rows can be added up in
another order, and which searches share a pass an interruption decides."""
OF_A_LOSS = 1e-6
"""A few of float32's last bits."""


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
        record = json.loads(path.read_text())
        if samples := record.get("samples"):  # they are compared themselves
            hashed = _sha256(path.parent / samples["path"])
            samples["sha256"] = samples["sha256"] == hashed
        return record
    if path.name == "samples.jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.name == "training.jsonl":
        lines = map(json.loads, path.read_text().splitlines())
        return [line for line in lines if line["kind"] != "resumed"]
    if path.name in ("suite.resolved.yaml", "success.csv"):
        return path.read_text()
    return None


def _apart(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """Say where two JSON values differ."""
    if _is_nothing(ours) and _is_nothing(theirs):
        return
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
    elif not equal(ours, theirs, place):
        yield f"{place}: {ours!r}, {theirs!r} here"


def equal(ours: Any, theirs: Any, place: str) -> bool:
    """Compare, but for rounding, and what of a killed attempt's cost is a share."""
    if not isinstance(ours, float | int) or not isinstance(theirs, float | int):
        return bool(ours == theirs)
    *_, phase, name = ("", "", *place.split("."))
    shared = phase in ("attack", "rescore") and name in SHARED
    least = OF_A_LOSS if SEARCHED.fullmatch(place) else RELATIVE
    return abs(ours - theirs) <= (OF_A_SHARE if shared else least) * abs(ours)


def _is_nothing(value: Any) -> bool:
    """Say whether it is null, or a cost of time and memory alone.

    Whether a cell loads its subject, or finds it loaded, an interruption decides.
    """
    if isinstance(value, dict) and "tokens_forward" in value:
        return not any(x for key, x in value.items() if key not in VOLATILE)
    return value is None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
