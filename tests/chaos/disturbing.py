"""Runs a suite in a child that a signal hits at a given moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink"}
"""What Python tells of before it changes a folder."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Moment:
    """When a child is hit: so long after its nth change of files."""

    change: int
    later_s: float = 0.0


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    """Its exit code; of one that was killed, the negative signal."""
    said: str
    """What it wrote to stderr."""
    changes: int
    """How many changes of files it began; 0 of one that did not end by itself."""


def run(
    arguments: list[str], place: Path, number: int = 0, moment: Moment | None = None
) -> Ended:
    """Run ``harness`` in a fork of this process, which has imported all of it.

    `moment` says when signal `number` hits it; `place` is where changes count.
    """
    beside = place.with_name(f"{place.name}.beside")  # where there is always room
    beside.mkdir(exist_ok=True)
    said, counted = beside / "said.txt", beside / "changes.txt"
    counted.unlink(missing_ok=True)

    def child() -> int:
        _print_to(said)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _turn_clocks_back()
        count = _count_changes(place, number, moment)
        code = _exit_code(arguments)
        sys.stdout.flush()
        counted.write_text(str(count()))
        return code

    status = in_a_fork(child)
    changes = int(counted.read_text()) if counted.exists() else 0
    return Ended(status, said.read_text(), changes)


def in_a_fork(work: Callable[[], int]) -> int:
    """Do something in a fork of this process; return its exit code.

    What torch does here, forks cannot do any more: so nothing is done here.
    """
    child = os.fork()
    if child == 0:
        code = 3
        try:
            code = work()
        except BaseException:  # noqa: BLE001 - it is printed
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _print_to(file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _turn_clocks_back() -> None:
    """Let time run backwards from here on, ten times as fast."""
    from harness.base import provenance

    began, now = time.monotonic(), time.time()

    def backwards() -> float:
        return now - 10 * (time.monotonic() - began)

    class Backwards(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.fromtimestamp(backwards(), tz)

    provenance.datetime = Backwards  # type: ignore[misc]
    time.time, time.time_ns = backwards, lambda: int(1e9 * backwards())


def _exit_code(arguments: list[str]) -> int:
    from harness.base.signals import ended_by_signals
    from harness.cli import main

    try:
        with ended_by_signals():
            main(arguments)
    except SystemExit as left:
        return int(left.code or 0)
    raise AssertionError("the program ends with an exit code")


def _count_changes(
    place: Path, number: int, moment: Moment | None
) -> Callable[[], int]:
    """Count changes from now on, and send the signal when it is time."""
    seen, within = [0], str(place)

    def hear(event: str, told: tuple[Any, ...]) -> None:
        if event not in CHANGES or not str(told[0]).startswith(within):
            return
        if event == "open" and not told[2] & _WRITING:
            return
        seen[0] += 1
        if moment is not None and seen[0] == moment.change:
            _hit(number, moment.later_s)

    sys.addaudithook(hear)
    return lambda: seen[0]


def _hit(number: int, later_s: float) -> None:
    def wait() -> None:
        time.sleep(later_s)
        os.kill(os.getpid(), number)

    if later_s:
        threading.Thread(target=wait, daemon=True).start()
    else:
        os.kill(os.getpid(), number)
