"""The exceptions, and the exit codes they stand for.

A `HarnessError` is a matter for the user: the command line prints its sentence without
a traceback. Anything else that escapes is a bug of ours and exits with 3.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from harness.base.problems import Problem


class HarnessError(Exception):
    """Something that the user can mend."""

    exit_code = 1


class UsageError(HarnessError):
    """A wrong command line, or a resource that it names and that is not there."""

    exit_code = 2


class NothingMatched(HarnessError):
    """The selection left nothing to do."""

    exit_code = 4


class Stopped(BaseException):
    """A signal asked us to stop; the same command goes on from here.

    No `Exception`, as KeyboardInterrupt is none: no library must swallow it.
    """

    exit_code = 75


class LeaseLost(BaseException):
    """Another process has taken over what this one held: it was suspended for long.

    What it was at is the other's now. No `Exception`, as `Stopped` is none.
    """

    def __init__(self, place: Path) -> None:
        super().__init__(f"another process took {place.name} over")
        self.place = place


class PluginError(UsageError):
    """A plugin that cannot be used: which one, which hook, what is wrong."""


class MissingResource(UsageError):
    """A model, a corpus or a task that is not on this machine, and how to get it."""


class RecordError(HarnessError):
    """A record that does not say what records must say."""


class CellError(HarnessError):
    """One variant or cell that cannot be finished; the rest of the suite goes on."""


class DiskError(HarnessError):
    """A disk that is full or broken: nothing can go on, and no unit is to blame."""


class TrainingDiverged(CellError):
    """Recovery met NaN or ran away: at which step, and the last good checkpoint."""


class SuiteError(UsageError):
    """All that is wrong with a suite at once: by file and line, each thing once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(dict.fromkeys(problems), key=_file_and_line)
        lines = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"... and {len(self.problems) - _SHOWN:,} more")
        super().__init__("\n".join(lines))


def _file_and_line(problem: Problem) -> tuple[str, int]:
    return problem.file, problem.line or 0


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is unknown, name the nearest match and list what is known."""
    names = sorted(known)
    near = nearest(name, names)
    hint = f"; did you mean {near!r}?" if near else ""
    listed = ", ".join(map(shortened, names[:_LISTED])) or "none"
    more = f", and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"unknown {kind} {shortened(name)!r}{hint} (known: {listed}{more})"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like `name`; None where none is like it.

    Names that are longer than any that somebody types are not compared, and of many
    only the first: it is a hint, and has to be quick.
    """
    if len(name) > _LONGEST:
        return None
    names = [x for x in islice(known, _COMPARED) if len(x) <= _LONGEST]
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


def near_path(path: Path) -> str:
    """Return the end of a sentence on a path that leads nowhere: the nearest that does.

    Of the first part of the path that is not there, in the folder that is; empty where
    nothing there is called like it.
    """
    try:
        missing = next(x for x in (path, *path.parents) if x.parent.is_dir())
        names = sorted(other.name for other in missing.parent.iterdir())
    except (OSError, ValueError, StopIteration):  # what no file can be called
        return ""
    near = nearest(missing.name, names)
    return f"; did you mean {missing.parent / near}?" if near else ""


def shortened(text: str) -> str:
    """Return a name as far as a message can hold it."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


_SHOWN = 50
_LISTED = 60
_COMPARED = 300
_LONGEST = 200
