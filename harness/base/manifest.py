"""What a finished folder holds: sizes and hashes, so that damage does not go unnoticed.

A disk flips bits, a copy breaks off, somebody tidies up: what is read then is not what
was written, and nothing else would say so. The file ``manifest.json`` at the top of a
folder names all its files::

    {"files": {"model/config.json": {"bytes": 612, "sha256": "9f86..."}}}

It is no protection from those who write it anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

from harness.base.writing import flush_file, flush_folder, write_json

MANIFEST = "manifest.json"
_CHUNK = 1 << 20
_THREADS = 4
"""They wait for the disk by turns, and hashing lets others run."""


class FileState(TypedDict):
    """What a manifest says of a file."""

    bytes: int
    sha256: str


def seal(folder: Path) -> None:
    """Bring a folder to disk, and write its manifest as the last of its files."""
    files = _settle(folder)
    write_json(folder / MANIFEST, {"files": files})


@contextlib.contextmanager
def flushed_meanwhile(folder: Path) -> Iterator[None]:
    """Bring the files of a folder to disk while the block runs, and wait for them.

    The store does so with what it builds, and hashes it; that is then quick.
    """
    with ThreadPoolExecutor(1) as aside:
        flushing = aside.submit(_settle, folder)
        yield
        flushing.result()


def read_manifest(folder: Path) -> dict[str, FileState]:
    """Return what the manifest of a folder says, by file; raises ValueError."""
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    files: dict[str, FileState] = content["files"]
    for state in files.values():
        if not (isinstance(state["bytes"], int) and isinstance(state["sha256"], str)):
            raise ValueError("it is not as manifests are")
    return files


def fault_of(folder: Path) -> str | None:
    """Say how a folder differs from its manifest; None if it does not.

    Its names and sizes are compared always, hashes once in the life of a process unless
    a file was changed since.
    """
    try:
        files = read_manifest(folder)
    except FileNotFoundError:
        return "it has no manifest: an older version made it, or a copy of it broke off"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return _fault_of_names(folder, files) or _fault_of_contents(folder, files)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _settle(folder: Path) -> dict[str, FileState]:
    names = sorted(_names(folder))
    with ThreadPoolExecutor(_THREADS) as pool:
        flushed = [pool.submit(flush_file, folder / name) for name in names]
        hashes = [*pool.map(lambda name: sha256_once(folder / name), names)]
        for each in flushed:
            each.result()
    for parent, _, _ in os.walk(folder):
        flush_folder(Path(parent))
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256}
        for name, sha256 in zip(names, hashes, strict=True)
    }


def _names(folder: Path) -> Iterator[str]:
    """Yield the files of a folder, but not hidden ones: desktops leave such."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name).relative_to(folder).as_posix()
            if not name.startswith(".") and path != MANIFEST:
                yield path


def _fault_of_names(folder: Path, files: dict[str, FileState]) -> str | None:
    there = set(_names(folder))
    for name in sorted(there.symmetric_difference(files)):
        return f"{name} is missing" if name in files else f"{name} is not a part of it"
    for name, state in files.items():
        size = (folder / name).stat().st_size
        if size != state["bytes"]:
            return f"{name} has {size:,} bytes instead of {state['bytes']:,}"
    return None


def _fault_of_contents(folder: Path, files: dict[str, FileState]) -> str | None:
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: sha256_once(folder / name), files)
        for (name, state), sha256 in zip(files.items(), found, strict=True):
            if sha256 != state["sha256"]:
                return f"the contents of {name} are not what was written"
    return None


_known: dict[tuple[int, int, int, int], str] = {}
"""The hashes of the files that this process has read, by what a change would change."""
_RACY_NS = 2_000_000_000
"""A file changed twice within the clock's grain would look unchanged."""


def sha256_once(path: Path) -> str:
    """Return what `sha256_file` does, without reading what this process read before.

    A file whose change could not be told is read again.
    """
    stat = path.stat()
    state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_ctime_ns)
    if state in _known:
        return _known[state]
    found = sha256_file(path)
    if time.time_ns() - stat.st_ctime_ns > _RACY_NS:
        _known[state] = found
    return found
