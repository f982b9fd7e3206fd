"""Deaths: processes that ended without a word, by the unit that they were at."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.base.leases import RUN

DEATHS = "deaths.jsonl"
"""In the folder of a unit that is under way."""
MOST_DEATHS = 3
"""So many in a row, without anything finished in between, and the unit is given up."""


@dataclass(frozen=True)
class Death:
    """One process that died at a unit."""

    reason: str
    """How, in words that follow "its process"."""
    final: bool = False
    """Whether another attempt would end in the same way."""
    rows: int = 0
    """How many examples were finished."""
    run: str = ""
    """What `RUN` said in the environment: the run that it was of."""


def note_death(
    folder: Path, reason: str, *, final: bool = False, rows: int = 0
) -> None:
    """Write down that a process died at the unit of a folder."""
    death = Death(reason, final, rows, os.environ.get(RUN, ""))
    with (folder / DEATHS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(death)) + "\n")


def fatal(folder: Path) -> str | None:
    """Say why a unit is not tried again in this run; None where it is."""
    known = _read(folder / DEATHS)
    if not known:
        return None
    last = known[-1]
    for death in known:
        if death.final and death.run == last.run:
            return f"its process {death.reason}"
    alike = [x for x in known if (x.run, x.rows) == (last.run, last.rows)]
    if last.run and len(alike) >= MOST_DEATHS:
        before = len(alike) - 1
        return f"its process {last.reason}, and so did the {before} before it"
    return None


def forget_deaths(folder: Path) -> None:
    """Remove what was written down: there is a record."""
    (folder / DEATHS).unlink(missing_ok=True)


def _read(path: Path) -> list[Death]:
    """Return what was written down, but for torn lines and those of other versions."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            found.append(Death(**json.loads(line)))
        except (TypeError, ValueError):
            continue
    return found
