"""The store: finished work under content addresses, written atomically.

A folder of the store is either whole or not there. It is built beside its place under
a lock, flushed to disk and renamed, so that a crash at any moment leaves at worst a
temporary folder, which the next builder of the same key removes. Locks are advisory
(`flock`): file systems without them do not protect two machines from building the
same thing twice, but the rename still leaves one whole folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]{0,199}")
_CHUNK = 1 << 20
_PATIENCE_S = 2.0
_RACY_NS = 2_000_000_000


class Store:
    """Content-addressed folders, ``root/kind/key``, each built once."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()

    def find(self, kind: str, key: str) -> Path | None:
        """Return the finished folder, or None where there is none."""
        path = self._place(kind, key)
        return path if path.is_dir() else None

    def folder(self, kind: str, key: str, build: Callable[[Path], None]) -> Path:
        """Return the finished folder, calling `build` on an empty one if need be.

        Of several processes that ask for the same key, one builds and the others
        wait. What `build` raises passes through, and nothing is left behind.
        """
        place = self._place(kind, key)
        if place.is_dir():
            return place
        with self.lock(kind, key):
            if not place.is_dir():
                self._build(place, build)
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
    def lock(self, kind: str, key: str) -> Iterator[None]:
        """Hold the lock of a key; say so if another process holds it for long."""
        path = self.root / ".locks" / kind / self._place(kind, key).name
        with _locked(path, f"{kind} {key}"):
            yield

    def _place(self, kind: str, key: str) -> Path:
        for name in (kind, key):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name for a folder of the store")
        return self.root / kind / key

    def _work(self, kind: str, key: str) -> Path:
        return self.root / ".work" / self._place(kind, key).relative_to(self.root)

    def _build(self, place: Path, build: Callable[[Path], None]) -> None:
        temporary = self.root / ".building" / place.parent.name / place.name
        # Whatever lies here is of a builder that died: we hold its lock.
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            build(temporary)
            _flush_tree(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary.rename(place)
            _flush_folder(place.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file so that readers see the old contents or the new, never a part.

    The new contents are on disk before the name changes hands. Two writers of the
    same file do not mix; the later one wins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = data.encode() if isinstance(data, str) else data
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)


def write_json(path: Path, obj: Any) -> None:
    """Write an object as JSON, atomically; NaN and infinities raise ValueError."""
    text = json.dumps(obj, allow_nan=False, indent=1)
    write_atomic(path, text + "\n")


@contextlib.contextmanager
def flushed_meanwhile(folder: Path) -> Iterator[None]:
    """Bring the files of a folder to disk while the block runs, and wait for them.

    The store does so with what it builds; that is quick where it is done already.
    """
    with ThreadPoolExecutor(1) as aside:
        flushing = aside.submit(_flush_tree, folder)
        yield
        flushing.result()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


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
    with _locked(cache.parent / f".{cache.name}.lock", str(cache)):
        write_json(cache, {**_read_cache(cache), **fresh})


def _read_cache(cache: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=_PATIENCE_S)
    except filelock.Timeout:
        logger.warning("waiting for another process that is busy with %s", what)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _flush_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for name in files:
            _flush(Path(parent, name))
        _flush_folder(Path(parent))


def _flush(file: Path) -> None:
    if file.is_symlink():
        return
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    # Some network file systems refuse to flush a folder; the rename is still atomic.
    with contextlib.suppress(OSError):
        _flush(folder)
