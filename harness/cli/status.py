"""The state of a run, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from harness.base import UsageError, spell_seconds
from harness.cli import options
from harness.cli.printing import answer, warn_of
from harness.cli.watching import jobs_of, state_of, watch
from harness.running import (
    Remaining,
    Survey,
    SurveyedUnit,
    changes,
    remaining,
    survey,
)


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.json_output
@options.plugins
@options.trust
@click.option(
    "--watch", "watched", is_flag=True, help="Say it every 30 s until nothing runs."
)
def command(
    run: Path, as_json: bool, plugins: tuple[Path, ...], trust: bool, watched: bool
) -> int | None:
    """Say what is done in a run folder, and what changed since.

    What changed is the version or source of a plugin, or the harness's code, between
    the making of a record and now. No code is run that the folder names, but for
    plugins with --trust.
    """
    if watched and as_json:
        raise UsageError("--watch prints text alone: leave --json out, or ask again")
    found = survey(run, plugins, trust=trust)
    warn_of(found.plan.experiment)
    if watched:
        return watch(lambda: _seen(survey(run, plugins, trust=trust)))
    left = remaining(found)
    if as_json:
        time = None if left is None else asdict(left)
        answer(json.dumps({**_document(found), "time": time}, indent=1))
    else:
        answer(_text(found, left))
    return None


def _seen(found: Survey) -> tuple[Survey, str]:
    left = remaining(found)
    return found, f"; {_left(left)}" if left and left.units else ""


def _text(found: Survey, left: Remaining | None) -> str:
    """Return counts, a table of the units, and what changed since they were made."""
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items())
    if left is not None and left.units:
        counts += f"; {_left(left)}"
    jobs = jobs_of(found) or {}
    rows = [[x.kind, x.id, state_of(x, jobs.get(x.id))] for x in found.units]
    table = tabulate(rows, headers=["kind", "unit", "state"], disable_numparse=True)
    return "\n".join([f"{found.folder.root}: {counts}", "", table, *_notes(found)])


def _left(left: Remaining) -> str:
    """Say how long the rest takes, and by what that is known."""
    basis = "as planned, for nothing is complete yet"
    if left.scale is not None:
        basis = f"{spell_seconds(left.spent_s)} spent"
    return f"about {spell_seconds(left.left_s)} left ({basis})"


def _document(found: Survey) -> dict[str, Any]:
    """Return the same as JSON values."""
    jobs = jobs_of(found) or {}
    return {
        "run": str(found.folder.root),
        "counts": found.counts,
        "units": [
            {
                "kind": unit.kind,
                "id": unit.id,
                "model": unit.model,
                "arm": unit.arm,
                "seed": unit.seed,
                "attack": unit.attack,
                "status": unit.state.status,
                "reason": unit.state.reason or None,
                "job": asdict(jobs[unit.id]) if unit.id in jobs else None,
                "changed_since": _changes(found, unit),
            }
            for unit in found.units
        ],
        "strays": [str(path) for path in found.strays],
    }


def _notes(found: Survey) -> Iterator[str]:
    """Say each change once, with the number of records that it concerns."""
    concerned: dict[str, int] = {}
    for unit in found.units:
        for change in _changes(found, unit):
            concerned[change] = concerned.get(change, 0) + 1
    if concerned:
        yield "\nchanged since the records were made:"
    for change, count in concerned.items():
        yield f"  {change} ({count} record{'s' if count > 1 else ''})"
    if found.strays:
        yield "\nnot part of the suite as it is now:"
    for path in found.strays:
        yield f"  {path}"


def _changes(found: Survey, unit: SurveyedUnit) -> list[str]:
    if unit.state.record is None:
        return []
    registry = found.plan.experiment.registry
    return changes(unit.state.record.provenance, registry)
