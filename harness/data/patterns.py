"""The files that a path of a suite names: by their name, or by a pattern."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from harness.base import UsageError

MOST_ENTRIES = 20_000
"""How many names a pattern may be compared with: a suite that somebody else wrote must
not send its reader through the whole disk."""


def matching(pattern: str) -> list[str]:
    """Return what a path names: itself where it exists, or else what its glob matches.

    In the order of names. As in a shell, ``*`` matches no name that begins with a dot,
    and ends at a folder. Raises UsageError where too much would have to be looked at.
    """
    if os.path.exists(pattern):  # noqa: PTH110 - of any name, with glob's characters too
        return [pattern]
    found, left = [""], MOST_ENTRIES
    for part in Path(pattern).parts:
        if not glob.has_magic(part):
            found = [_below(folder, part) for folder in found]
            continue
        matched, hidden = [], part.startswith(".")
        for folder, name in _entries(found):
            left -= 1
            if left < 0:
                raise UsageError(
                    f"{pattern} leads through more than {MOST_ENTRIES:,} files and "
                    "folders: name fewer"
                )
            if name.startswith(".") == hidden and fnmatch.fnmatchcase(name, part):
                matched.append(_below(folder, name))
        found = matched
    return sorted(filter(os.path.lexists, found))


def _below(folder: str, name: str) -> str:
    return os.path.join(folder, name)  # noqa: PTH118 - there may be thousands


def _entries(folders: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the names in folders, each with its folder."""
    for folder in folders:
        with suppress(OSError), os.scandir(folder or ".") as entries:
            yield from ((folder, entry.name) for entry in entries)
