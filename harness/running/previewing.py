"""Which units of a plan would run, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base import RecordError
from harness.records import read_record
from harness.running.folder import RunFolder
from harness.suite import Plan, Unit, UnitKind

_WORDS = {
    "complete": "complete",
    "failed": "failed before",
    "missing": "new",
    "invalid": "invalid record",
}
_BLOCKED = "blocked"
STATES = (*_WORDS.values(), _BLOCKED)
"""What a unit can be; `blocked` where a model or a corpus is not on this machine."""
_SHOWN_CHANGES = 3


@dataclass(frozen=True)
class UnitPreview:
    """One variant or cell, and what a run would do about it."""

    kind: UnitKind
    id: str
    state: str
    """One of `STATES`."""
    reason: str
    """Details, as a sentence; may be empty."""

    @property
    def runs(self) -> bool:
        """Whether a run would do it."""
        return self.state not in ("complete", _BLOCKED)


def preview(plan: Plan, folder: RunFolder) -> list[UnitPreview]:
    """Compare a plan with the records on disk, variants first.

    Ids of a plan that is not resolved lack the hash, which is not known yet.
    """
    units = plan.units
    if not plan.experiment.resolved:
        return [UnitPreview(x.kind, _stem(x.id), _BLOCKED, "") for x in units]
    known = _Records(folder)
    return [_preview(unit, folder, known) for unit in units]


def summary(units: list[UnitPreview]) -> str:
    """Count the units: how many would run, and why."""
    kinds = Counter(unit.kind for unit in units)
    states = Counter(unit.state for unit in units)
    counts = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    many = ", ".join(
        f"{kinds[kind]} {kind}{'' if kinds[kind] == 1 else 's'}"
        for kind in ("variant", "cell")
    )
    return f"{many}: {counts}"


def _stem(unit_id: str) -> str:
    return unit_id.rpartition("-")[0]


def _preview(unit: Unit, folder: RunFolder, known: _Records) -> UnitPreview:
    found = folder.state(unit.kind, unit.id)
    reason = found.reason
    if found.status == "missing":
        reason = _since(unit, known) or ""
    return UnitPreview(unit.kind, unit.id, _WORDS[found.status], reason)


class _Records:
    """The records of a folder by their labels; folders are listed once."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._paths: dict[UnitKind, dict[str, list[Path]]] = {}

    def alike(self, unit: Unit) -> list[Path]:
        """Return the records of units with the labels of a unit."""
        if unit.kind not in self._paths:
            paths = self._paths[unit.kind] = {}
            for path in self._folder.records(unit.kind):
                paths.setdefault(_stem(path.parent.name), []).append(path)
        return self._paths[unit.kind].get(_stem(unit.id), [])


def _since(unit: Unit, known: _Records) -> str | None:
    """Say what changed since the last record of a unit with these labels."""
    for path in sorted(known.alike(unit), key=_modified, reverse=True):
        try:
            record = read_record(path)
        except RecordError:
            continue
        return f"{_sentence(record.identity, unit.identity)} since {record.id}"
    return None


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _sentence(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    changes = list(identity_changes(then, now))
    more = len(changes) - _SHOWN_CHANGES
    ending = f" and {more} more" if more > 0 else ""
    return f"changed {', '.join(changes[:_SHOWN_CHANGES])}{ending}"


def identity_changes(then: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield what differs between two identities, as ``options.flips (5 -> 3)``."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in (*then, *(key for key in now if key not in then)):
            where = f"{path}.{key}" if path else key
            yield from identity_changes(then.get(key), now.get(key), where)
    elif then != now:
        yield f"{path} ({_short(then)} -> {_short(now)})"


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
