"""Files that are written whole or not at all, whatever ends their writer.

A file is written beside its place, brought to disk and renamed. What a writer that died
left beside it is removed by the next one that writes into the folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
import socket
import time
from pathlib import Path
from typing import Any

_ABANDONED_S = 3600.0
"""Nobody takes so long to write a file: said of writers on machines that are not this
one, where no one can ask whether they live."""


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file so that readers see the old contents or the new, never a part.

    The new contents are on disk before the name changes hands. Two writers of the
    same file do not mix; the later one wins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    content = data.encode() if isinstance(data, str) else data
    own = f".{_machine()}-{os.getpid()}-{secrets.token_hex(8)}.tmp"
    temporary = path.parent / own
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def write_json(path: Path, obj: Any) -> None:
    """Write an object as JSON, atomically; NaN and infinities raise ValueError."""
    text = json.dumps(obj, allow_nan=False, indent=1)
    write_atomic(path, text + "\n")


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that died in a folder left, and no file of a living one."""
    for path in folder.glob(".*.tmp"):
        if _is_abandoned(path):
            path.unlink(missing_ok=True)


def flush_file(file: Path) -> None:
    """Bring a file to disk."""
    if file.is_symlink():
        return
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to disk, where the file system can."""
    # Some network file systems refuse to; a rename is atomic all the same.
    with contextlib.suppress(OSError):
        flush_file(folder)


_LEFT = re.compile(r"\.(?P<machine>[0-9a-f]{12})-(?P<pid>\d{1,10})-[0-9a-f]{16}\.tmp")


def _is_abandoned(path: Path) -> bool:
    named = _LEFT.fullmatch(path.name)
    if named and named["machine"] == _machine():
        return not _lives(int(named["pid"]))
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_S
    except FileNotFoundError:  # its writer was quicker
        return False


@functools.cache
def _machine() -> str:
    """Return what this machine's processes have in common, since it was started."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
