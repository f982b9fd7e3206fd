"""Keep a command going whose process dies: a small parent starts it again.

A plugin can end the process that runs it: by ``os._exit``, a segmentation fault, memory
without end, a call into C that never comes back. Nothing in the process itself can
prevent that. So the process that the user started becomes a keeper, before anything
heavy is imported, and its child does the work. Where the child dies within a unit, the
keeper says so and starts another, which finds what is finished. The child ends with its
keeper. Signals that the keeper gets are passed on.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from harness.base.deaths import note_death
from harness.base.leases import RUN
from harness.base.signals import STOP_SIGNALS

T = TypeVar("T")

GIVEN_UP = 10
"""How often a unit may end its process before the keeper gives up. The run itself fails
such a unit earlier."""

_PASSED_ON = {*STOP_SIGNALS, signal.SIGINT, signal.SIGHUP}
_HEARD = _PASSED_ON | {signal.SIGCHLD, signal.SIGALRM}
_LOOK_S = 1.0
"""How often to look whether a process has not hung."""
_SIZE = 16 * 1024
_PR_SET_PDEATHSIG = 1


class Slate:
    """What a process says of itself, where its keeper reads it after its death."""

    def __init__(self) -> None:
        self.kept = False
        """Whether there is a keeper that reads it."""
        self._memory = mmap.mmap(-1, _SIZE)
        self._first: int | None = None

    def begin(self) -> None:
        """Begin to be shared by a keeper and its children."""
        self._first = os.memfd_create("harness")

    def once(self, compute: Callable[[], T]) -> T:
        """Return a JSON value as the first of a keeper's children computed it."""
        if self._first is None:
            return compute()
        with os.fdopen(os.dup(self._first), "r+b") as file:
            file.seek(0)
            known = file.read()
            if not known:
                known = json.dumps(compute()).encode()
                file.write(known)
        found: T = json.loads(known)
        return found

    @contextmanager
    def unit(self, folder: Path) -> Iterator[None]:
        """Say for the time of the block in which folder a unit is under way."""
        self._write(unit=str(folder.absolute()))
        try:
            yield
        finally:
            self._write()

    @contextmanager
    def limited(self, seconds: float, reason: str) -> Iterator[None]:
        """Have the process ended after `seconds`, unless the block ends before.

        `reason` says why, in words that follow "its process".
        """
        before = self.read()
        self._write(**before, until=time.monotonic() + seconds, reason=reason)
        try:
            yield
        finally:
            self._write(**before)

    def leave(self, code: int) -> None:
        """Say that the process ends as it should, with this exit code."""
        self._write(code=code)

    def read(self) -> dict[str, Any]:
        """Return what was said last."""
        text = self._memory[:].rstrip(b"\0")
        try:
            found: dict[str, Any] = json.loads(text or b"{}")
        except ValueError:  # it died as it wrote
            found = {}
        return found

    def _write(self, **said: Any) -> None:
        self._memory[:] = json.dumps(said).encode()[:_SIZE].ljust(_SIZE, b"\0")


SLATE = Slate()
"""That of this process."""


def keep() -> None:
    """Return in a child of this process, which waits for it and ends as it did.

    Called before anything is imported that starts threads. Where a system has no way to
    do that, it returns in this process.
    """
    if not hasattr(signal, "sigwaitinfo"):  # not on Linux
        return
    os.environ.setdefault(RUN, secrets.token_hex(8))
    SLATE.begin()
    keeper, deaths = os.getpid(), dict[str, int]()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    while True:
        child = os.fork()
        if not child:
            _die_with(keeper)
            SLATE.kept = True
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return
        status, asked = _wait(child)
        said, code = SLATE.read(), os.waitstatus_to_exitcode(status)
        unit = said.get("unit")
        if "code" in said or asked or unit is None:
            _end(said.get("code", code))
        deaths[unit] = deaths.get(unit, 0) + 1
        if deaths[unit] == GIVEN_UP:
            _end(code)
        _say(f"{_death(code)} during {Path(unit).name}; another goes on after it")
        SLATE._write()


def _wait(child: int) -> tuple[int, bool]:
    """Look after a process; return how it ended, and whether it was asked to."""
    asked = False
    # Not by `sigtimedwait`, which after a suspension returns signals that nobody sent.
    signal.setitimer(signal.ITIMER_REAL, _LOOK_S, _LOOK_S)
    while True:
        heard = signal.sigwaitinfo(_HEARD)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status, asked
        if heard.si_signo in _PASSED_ON:
            asked = asked or signal.getsignal(heard.si_signo) != signal.SIG_IGN
            if heard.si_code <= 0:  # else a terminal sent it, to the child as well
                os.kill(child, heard.si_signo)
        said = SLATE.read()
        if "until" in said and time.monotonic() > said["until"]:
            note_death(Path(said["unit"]), said["reason"], final=True)
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1], asked


def _die_with(keeper: int) -> None:
    """End this process when its keeper ends, even if that is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:  # it ended before it could be told of
        os._exit(1)


def _death(code: int) -> str:
    if code < 0:
        return f"the process died ({signal.Signals(-code).name})"
    return f"the process ended without a word (exit code {code})"


def _end(code: int) -> NoReturn:
    """End as the child did; one that ended too early never passes for success."""
    if code < 0:
        _say(_death(code))
        code = 128 - code
    if not code and "code" not in SLATE.read():
        _say(_death(code))
        code = 1
    os._exit(code)


def _say(line: str) -> None:
    os.write(2, f"{line}\n".encode())
