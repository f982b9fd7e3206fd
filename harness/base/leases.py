"""Leases: one process at a time holds a name, on any file system, however it ends.

A name is a folder, and its one entry is the folder of the process that holds it::

    NAME/OWNER.N/beat.OWNER

Names change hands by `rename` alone, which a file system does for one of those who try:
to take a free name, a process renames a folder that holds its own to NAME, which fails
where NAME has an entry; to take over, it renames the dead owner's folder to its own,
which fails once that has another name. No lock of the file system is used, for there
are shared ones without, and no clock of another machine.

A thread changes the file `beat` every few seconds. An owner is taken for dead where it
ran on this very machine and its process is gone, or where those who watch it saw no
change of its folder for `LEASE_S` by their own clock. One that was merely suspended
finds its folder gone when it wakes: `Lease.put` then raises `LeaseLost` and leaves the
file as it is, for what it renames lay in that folder.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.base.errors import LeaseLost

logger = logging.getLogger(__name__)

LEASE_S = float(os.environ.get("HARNESS_LEASE_S", "60"))
"""How long an owner is waited for that shows no sign of life."""
RUN = "HARNESS_RUN"
"""Names the environment variable by which a process and those that it starts know each
other: one word."""
_BEATS = 12
"""Signs of life in that time."""
_PATIENCE_S = 2.0
"""After so long, a process that waits says for what."""
_ABANDONED_S = 86_400.0
"""No living owner shows no sign for so long, whatever clocks say."""
_LONGEST_WAIT_S = 1.0
"""Between two looks at a name that another process holds."""


@dataclass(frozen=True)
class Seen:
    """What others see of the owner of a name."""

    holder: str
    """The name of its folder, which changes when it confirms that it is its own."""
    beat: str = ""
    machine: str = ""
    pid: int = 0
    born: str = ""
    run: str = ""
    """What `RUN` says in its environment."""
    host: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "a process"


@dataclass(eq=False)
class Lease:
    """A name that this process holds, until `release`."""

    place: Path
    """The folder that is the name."""
    owner: str = field(default_factory=lambda: secrets.token_hex(8))
    after: Seen | None = None
    """Of whom it was taken over; None where nobody held it."""
    _count: int = 0

    @property
    def folder(self) -> Path:
        """A folder of the owner's own: what lies there goes with the lease."""
        return self.place / f"{self.owner}.{self._count}"

    @property
    def beat(self) -> Path:
        """The file that shows that the owner lives, and that the folder is its own.

        One that lost the name may have made a folder of the old name again.
        """
        return _beat(self.folder)

    def confirm(self) -> None:
        """Make sure that this process still holds the name; raise LeaseLost if not.

        Renaming its folder asks the server of a shared file system, where a look could
        be answered by what this machine remembers.
        """
        before = self.folder
        self._count += 1
        if not (_renamed(before, self.folder) and self.held()):
            raise LeaseLost(self.place)

    def held(self) -> bool:
        """Say whether it is held as far as this machine knows: a quick look."""
        return self.beat.exists()

    def check(self) -> None:
        """Raise LeaseLost if another process is known to have it."""
        if not self.held():
            raise LeaseLost(self.place)

    def put(self, name: str, place: Path) -> None:
        """Move what was made in the own folder to its place, if it is still held."""
        self.confirm()
        try:
            (self.folder / name).replace(place)
        except FileNotFoundError:
            self.check()
            raise

    def release(self) -> None:
        """Give the name back; nothing happens where it was lost."""
        _heart.forget(self)
        _discard(self.folder, self.owner)


def take(place: Path) -> Lease | None:
    """Take a name if it is free or its owner dead; None where another process has it.

    A name whose owner may be dead is given up only after several calls, `LEASE_S` apart
    or more: each is a look at its signs of life.
    """
    holder = _holder(place)
    lease = Lease(place) if holder is None else _inherited(place, holder)
    if lease is None or (holder is None and not _created(lease)):
        return None
    _heart.keep(lease)
    return lease


@contextlib.contextmanager
def hold(place: Path, what: str) -> Iterator[Lease]:
    """Wait for a name and hold it; say so if that takes long: `what` says for what."""
    began, wait, told = time.monotonic(), 0.005, False
    while (lease := take(place)) is None:
        if not told and time.monotonic() - began > _PATIENCE_S:
            logger.warning("waiting for another process that is busy with %s", what)
            told = True
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_S)
    try:
        yield lease
    finally:
        lease.release()


def sweep(folder: Path) -> None:
    """Remove what processes that ended have left in a folder of names.

    Those of this machine that are gone, and others of which nothing was seen for a day.
    Who takes such a name afterwards is not told whose it was.
    """
    for name in _inside(folder):
        for own in _inside(name):
            if _tells_of_nobody(own):  # the name was about to be removed
                shutil.rmtree(name, ignore_errors=True)
            elif any(map(_tells_of_nobody, _inside(own))):
                _discard(own, secrets.token_hex(8))


# --- how a name changes hands -------------------------------------------------------


def _created(lease: Lease) -> bool:
    """Take a free name; False where another process was quicker."""
    lease.place.parent.mkdir(parents=True, exist_ok=True)
    new = lease.place.with_name(f".{lease.owner}.new")
    own = new / lease.folder.name
    own.mkdir(parents=True)
    try:
        _write_beat(own)
        new.rename(lease.place)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        # A server's answer can get lost: the second time that it is asked, the folder
        # is not there any more.
        if error.errno != errno.ENOENT or not lease.folder.exists():
            raise
    return True


def _inherited(place: Path, holder: str) -> Lease | None:
    """Take a name over if its owner is dead and nobody else was quicker."""
    seen = _seen(_beat(place / holder), holder)
    if not _is_dead(place, seen):
        return None
    lease = Lease(place, after=seen)
    if not _renamed(place / holder, lease.folder):
        return None
    _watched.pop(place, None)
    for left in lease.folder.iterdir():
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
    _write_beat(lease.folder)
    return lease


def _renamed(source: Path, target: Path) -> bool:
    """Rename a folder to a name that nobody else can think of; False if it is gone."""
    try:
        source.rename(target)
    except FileNotFoundError:
        return target.exists()  # as above: it may have been us
    return True


def _discard(own: Path, token: str) -> None:
    """Remove the folder of an owner, and the name if nobody else has it yet."""
    gone = own.parent.with_name(f".{token}.gone")
    if _renamed(own, gone):
        with contextlib.suppress(OSError):
            own.parent.rmdir()
        shutil.rmtree(gone, ignore_errors=True)


def _holder(place: Path) -> str | None:
    """Return the name of the owner's folder, if there is one."""
    folders = _inside(place)
    shown = (path for path in folders if _beat(path).exists())
    return next((path.name for path in (*shown, *folders)), None)


def _inside(folder: Path) -> list[Path]:
    """Return what a folder holds: nothing once another process has removed it."""
    try:
        return [*folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


# --- who is alive -------------------------------------------------------------------


_watched: dict[Path, tuple[Seen, float]] = {}
"""What was last seen of names that others hold, and since when."""


def _is_dead(place: Path, seen: Seen) -> bool:
    if seen.machine == _machine() and _birth(seen.pid) != seen.born:
        return True
    before, since = _watched.get(place, (None, 0.0))
    if before != seen:
        _watched[place] = seen, time.monotonic()
        return False
    return time.monotonic() - since >= LEASE_S


def _tells_of_nobody(path: Path) -> bool:
    return path.name.startswith("beat.") and _is_abandoned(path)


def _is_abandoned(beat: Path) -> bool:
    seen = _seen(beat, "")
    if seen.machine == _machine():
        return _birth(seen.pid) != seen.born
    try:
        return time.time() - beat.stat().st_mtime > _ABANDONED_S
    except FileNotFoundError:  # somebody was quicker
        return False


def _seen(beat_file: Path, holder: str) -> Seen:
    try:
        text = beat_file.read_text()
        beat, machine, pid, born, run, host = text.split(maxsplit=5)
        return Seen(holder, beat, machine, int(pid), born, run, host.strip())
    except (OSError, ValueError):  # it is about to write it, or never was
        return Seen(holder)


def _beat(folder: Path) -> Path:
    return folder / f"beat.{folder.name.partition('.')[0]}"


def _write_beat(folder: Path) -> None:
    pid, run = os.getpid(), os.environ.get(RUN) or "-"
    facts = (_machine(), str(pid), _birth(pid) or "unknown", run, platform.node())
    _beat(folder).write_text(f"{0:020} {' '.join(facts)}\n")


def _machine() -> str:
    """Identify what numbers its processes by itself: a start of a kernel, a container.

    A word of its own where that is unknown, so that no two are taken for the same.
    """
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{start}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"unknown-{secrets.token_hex(8)}"


def _birth(pid: int) -> str | None:
    """Return when a process of this machine began, in ticks; None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *facts = text.rpartition(")")[2].split()
    return None if state in "ZX" else facts[18]


class _Heart:
    """The thread that shows that this process lives, while it holds anything."""

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._count = 0

    def keep(self, lease: Lease) -> None:
        with self._lock:
            self._leases.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, daemon=True)
                self._thread.start()

    def forget(self, lease: Lease) -> None:
        with self._lock:
            self._leases.discard(lease)

    def _beat(self) -> None:
        while True:
            time.sleep(LEASE_S / _BEATS)
            with self._lock:
                if not self._leases:
                    self._thread = None
                    return
                leases = [*self._leases]
            self._count += 1
            for lease in leases:
                self._show(lease)

    def _show(self, lease: Lease) -> None:
        # Lost, or renamed at this moment: the name is a sign of life as well.
        with contextlib.suppress(OSError):
            descriptor = os.open(lease.beat, os.O_WRONLY)
            try:
                os.pwrite(descriptor, f"{self._count:020}".encode(), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


_heart = _Heart()


def _begin_anew() -> None:
    """Leave to the parent what it holds: a forked process beats for itself alone."""
    global _heart
    _heart = _Heart()


os.register_at_fork(after_in_child=_begin_anew)
