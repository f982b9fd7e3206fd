"""Say what differs between two run folders of one suite, timings and provenance aside.

    python benchmarks/compare_runs.py RUN OTHER [--tolerance 0]

Units are compared by id: results, certificates, diagnostics, every attacked prompt and
loss, the numbers of the report. Prints a line for each difference, and how many there
are; exits with 1 if there are any. What only one of the two records is named once, by
its path in the record.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

LEFT_OUT = {"provenance", "seconds", "peak_memory_bytes", "suite", "sha256"}
"""Keys whose values are timings, say where a run was made, or follow from the rest."""
FILES = ("record.json", "samples.jsonl", "training.jsonl")
REPORTS = ("report/verdicts.json", "report/report.json")


@click.command(help=__doc__)
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.argument("other", type=click.Path(exists=True, path_type=Path))
@click.option("--tolerance", default=0.0, help="Relative difference that is none.")
def main(run: Path, other: Path, tolerance: float) -> None:
    """Print the differences."""
    found = list(differences(run, other, tolerance))
    only_in_one = Counter(text for text, counted in found if counted)
    for text, count in only_in_one.items():
        click.echo(f"{text} ({count} times)")
    for text, counted in found:
        if not counted:
            click.echo(text)
    click.echo(f"{len(found)} differences")
    sys.exit(bool(found))


def differences(run: Path, other: Path, tolerance: float) -> Iterator[tuple[str, bool]]:
    """Yield what differs, and whether it is a key that only one of the two has."""
    for kind in ("variants", "cells"):
        mine, theirs = (
            {folder.name for folder in (root / kind).iterdir()} for root in (run, other)
        )
        for name in sorted(mine ^ theirs):
            yield f"{kind}/{name} is only in {run if name in mine else other}", False
        for name in sorted(mine & theirs):
            for file in FILES:
                pair = (run / kind / name / file, other / kind / name / file)
                yield from of_files(*pair, f"{kind}/{name}/{file}", tolerance)
    for file in REPORTS:
        yield from of_files(run / file, other / file, file, tolerance)


def of_files(
    mine: Path, theirs: Path, where: str, tolerance: float
) -> Iterator[tuple[str, bool]]:
    """Compare two files of JSON, or of a JSON value a line."""
    if mine.exists() != theirs.exists():
        yield f"{where} is only in one of the runs", False
    elif mine.exists():
        values = [
            [json.loads(line) for line in path.read_text().splitlines()]
            if path.suffix == ".jsonl"
            else json.loads(path.read_text())
            for path in (mine, theirs)
        ]
        yield from of_values(*values, (where,), tolerance)


def of_values(
    mine: Any, theirs: Any, path: tuple[str, ...], tolerance: float
) -> Iterator[tuple[str, bool]]:
    """Compare two JSON values; `path` is the file and the keys that lead to them."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in sorted({*mine, *theirs} - LEFT_OUT):
            if key in mine and key in theirs:
                yield from of_values(mine[key], theirs[key], (*path, key), tolerance)
            else:
                kind, *_, file = path[0].split("/")
                keys = ".".join(k for k in path[1:] if not k.isdigit())
                yield f"{kind}/*/{file}: {keys}.{key} is only in one of the runs", True
    elif isinstance(mine, list) and isinstance(theirs, list):
        if len(mine) != len(theirs):
            yield f"{': '.join(path)}: {len(mine)} and {len(theirs)} entries", False
        for index, pair in enumerate(zip(mine, theirs, strict=False)):
            yield from of_values(*pair, (*path, str(index)), tolerance)
    elif mine != theirs and not _close(mine, theirs, tolerance):
        yield f"{': '.join(path)}: {mine!r} and {theirs!r}", False


def _close(mine: Any, theirs: Any, tolerance: float) -> bool:
    numbers = all(type(value) in (int, float) for value in (mine, theirs))
    return numbers and abs(mine - theirs) <= tolerance * max(abs(mine), abs(theirs))


if __name__ == "__main__":
    main()
