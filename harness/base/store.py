"""The store: finished work under content addresses, written atomically.

A folder of the store is either whole or not there. It is built in the folder of a
`Lease`, flushed to disk and renamed, so that a crash at any moment leaves at worst a
temporary folder, which the next builder of the same key removes. A builder that was
suspended for so long that another took its place cannot put its folder there any more.

A folder that is no longer what was built is moved to ``.damaged``, and built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import LeaseLost
from harness.base.leases import Lease, hold, sweep
from harness.base.manifest import fault_of, seal, sha256_file
from harness.base.writing import flush_folder, write_json

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]{0,199}")
_RACY_NS = 2_000_000_000


class DamagedEntry(UserWarning):
    """A folder of the store is not what was built; it was moved aside."""


class Store:
    """Content-addressed folders, ``root/kind/key``, each built once."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()

    def has(self, kind: str, key: str) -> bool:
        """Say whether there is a finished folder; its contents are not looked at."""
        return self._place(kind, key).is_dir()

    def find(self, kind: str, key: str) -> Path | None:
        """Return the finished folder, or None where there is none.

        One that differs from its manifest is moved aside, with a warning.
        """
        place = self._place(kind, key)
        if place.is_dir() and fault_of(place):
            with self.lock(kind, key):
                self._set_aside(place)
        return place if place.is_dir() else None

    def folder(self, kind: str, key: str, build: Callable[[Path], None]) -> Path:
        """Return the finished folder, calling `build` on an empty one if need be.

        Of several processes that ask for the same key, one builds and the others
        wait. What `build` raises passes through, and nothing is left behind. One that
        differs from its manifest is moved aside, with a warning, and built again.
        """
        place = self.find(kind, key)
        if place is not None:
            return place
        place = self._place(kind, key)
        sweep(self.root / ".claims" / kind)
        while not place.is_dir():
            with self.lock(kind, key) as lease:
                self._build(lease, place, build)
        return place

    def work(self, kind: str, key: str) -> Path:
        """Return a scratch folder that outlives crashes, as for checkpoints."""
        path = self._work(kind, key)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def discard_work(self, kind: str, key: str) -> None:
        """Remove the scratch folder, if there is one."""
        shutil.rmtree(self._work(kind, key), ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, kind: str, key: str) -> Iterator[Lease]:
        """Hold the lock of a key; say so if another process holds it for long."""
        path = self.root / ".claims" / kind / self._place(kind, key).name
        with hold(path, f"{kind} {key}") as lease:
            yield lease

    def _place(self, kind: str, key: str) -> Path:
        for name in (kind, key):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name for a folder of the store")
        return self.root / kind / key

    def _work(self, kind: str, key: str) -> Path:
        return self.root / ".work" / self._place(kind, key).relative_to(self.root)

    def _set_aside(self, place: Path) -> None:
        """Move a damaged folder to where its last damaged one was, if any."""
        fault = fault_of(place) if place.is_dir() else None
        if fault is None:  # another process was quicker
            return
        aside = self.root / ".damaged" / place.parent.name / place.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(parents=True, exist_ok=True)
        place.rename(aside)
        message = f"{place} is damaged: {fault}; it was moved to {aside}"
        after = "and is made again where it is needed"
        warnings.warn(DamagedEntry(f"{message}, {after}"), stacklevel=4)

    def _build(self, lease: Lease, place: Path, build: Callable[[Path], None]) -> None:
        if place.is_dir():
            return
        temporary = lease.folder / "built"
        temporary.mkdir()
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            build(temporary)
            seal(temporary)
            lease.put(temporary.name, place)
        except LeaseLost as lost:  # its new owner builds it
            if lost.place != lease.place:
                raise
        except Exception:
            if lease.held():
                raise
        flush_folder(place.parent)


def default_store_root(run_dir: Path) -> Path:
    """Return ``$HARNESS_STORE``, or ``.store`` beside the run folder."""
    stated = os.environ.get("HARNESS_STORE")
    if stated:
        return Path(stated).expanduser().absolute()
    return Path(run_dir).absolute().parent / ".store"


def content_hash(obj: Any) -> str:
    """Return the SHA-256 of JSON values, in hexadecimal, whatever the order of keys."""
    text = json.dumps(obj, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_files(paths: Sequence[Path], cache: Path) -> str:
    """Return ``sha256:<hex>`` that identifies the contents of files.

    Of one file it is the plain hash of its bytes; of several, the hash of what
    ``sha256sum`` prints for them in their common folder, so that moving the folder
    changes nothing. Files are hashed again only when size or time of change differ
    from what the file `cache` remembers.
    """
    files = sorted(Path(path).absolute() for path in paths)
    if not files:
        raise ValueError("no files to identify")
    hashes = _cached_hashes(files, Path(cache))
    if len(files) == 1:
        return f"sha256:{hashes[files[0]]}"
    common = os.path.commonpath([file.parent for file in files])
    lines = (f"{hashes[f]}  {f.relative_to(common).as_posix()}\n" for f in files)
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _cached_hashes(files: Sequence[Path], cache: Path) -> dict[Path, str]:
    remembered = _read_cache(cache)
    hashes: dict[Path, str] = {}
    fresh: dict[str, list[Any]] = {}
    for file in files:
        stat = file.stat()
        state = [stat.st_size, stat.st_mtime_ns]
        known = remembered.get(str(file))
        if known is not None and known[:2] == state:
            hashes[file] = known[2]
            continue
        hashes[file] = sha256_file(file)
        # A file changed twice within the clock's grain would look unchanged.
        if time.time_ns() - stat.st_mtime_ns > _RACY_NS:
            fresh[str(file)] = [*state, hashes[file]]
    if fresh:
        _remember(cache, fresh)
    return hashes


def _remember(cache: Path, fresh: dict[str, list[Any]]) -> None:
    with hold(cache.parent / f".{cache.name}.lease", str(cache)):
        write_json(cache, {**_read_cache(cache), **fresh})


def _read_cache(cache: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
