"""Stop on a signal: at once, or where that is dearer, at the next safe point.

A process that is not at work on a plan has nothing to lose: it ends where it is. While
units run, a signal is an exception instead, which passes through all that is under way.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from harness.base.errors import Stopped

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What clusters send before they take a machine back."""

INTERRUPTED = 130
"""The exit code after Ctrl-C."""
INTERRUPTED_LINE = "interrupted; the same command goes on from here"
SAME_SIGNAL_SECONDS = 1.0
"""A signal that comes again so soon is the first one, which came by two ways: a cluster
sends it to all processes of a job, and some of them pass it on."""


class StopSignals:
    """Turns stop signals into `Stopped`, raised wherever the main thread is.

    Files are written atomically and finished examples are flushed, so that costs little
    except in training, which defers the signal to save a checkpoint first.
    """

    def __init__(self) -> None:
        self.interrupted = False
        """Whether Ctrl-C was pressed; anybody can raise a KeyboardInterrupt."""
        self._deferring = False
        self._received: str | None = None
        self._received_at = 0.0

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal; a second one stops at once, deferred or not."""
        name, now = signal.Signals(number).name, time.monotonic()
        if name == self._received and now - self._received_at < SAME_SIGNAL_SECONDS:
            return
        again = self._received is not None
        self._received, self._received_at = name, now
        if again or not self._deferring:
            self._stop()

    def check(self) -> None:
        """Stop if a signal asked for it and something caught what it raised."""
        if self.interrupted:
            raise KeyboardInterrupt
        if self._received is not None:
            self._stop()

    def interrupt(self, number: int, frame: FrameType | None = None) -> None:
        """Handle Ctrl-C as Python does, and note it."""
        self.interrupted = True
        signal.default_int_handler(number, frame)

    @contextmanager
    def deferred(self) -> Iterator[Callable[[], bool]]:
        """Put a stop off to the end of the block, which asks whether one is due.

        Before it asks first, it has nothing to lose yet, and is stopped at once.
        """
        try:
            yield self._deferred_is_due
        except Stopped:
            if self._received is None:
                raise
        finally:
            self._deferring = False
        if self._received is not None:
            self._stop()

    def _deferred_is_due(self) -> bool:
        self._deferring = True
        return self._received is not None

    def _stop(self) -> None:
        raise Stopped(_stopped_by(str(self._received)))


@contextmanager
def stop_on_signals() -> Iterator[StopSignals]:
    """Listen for stop signals for the time of the block."""
    stop = StopSignals()
    before = {number: signal.signal(number, stop.receive) for number in STOP_SIGNALS}
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop.interrupt)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a signal end the process at once, with one line and its exit code.

    Modules are imported here, plans made and reports written. All files are written
    atomically; and an exception in the middle of an import may be swallowed, or come
    out as another one. When the block has ended, its exit code stands; one that was
    stopped ends at once then, and waits for no thread.
    """
    _listen(_end)
    try:
        yield
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
        _listen(lambda number, frame: os._exit(code))
        if code in (INTERRUPTED, Stopped.exit_code):
            # Or torch would first compile all the kernels that it has begun with. What
            # outlives a process, as semaphores do, goes with what holds it.
            gc.collect()
            leave(code)
        raise


def _listen(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in (*STOP_SIGNALS, signal.SIGINT):
        # A shell has what it starts in the background ignore Ctrl-C.
        if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    interrupted = number == signal.SIGINT
    said = INTERRUPTED_LINE if interrupted else _stopped_by(signal.Signals(number).name)
    leave(INTERRUPTED if interrupted else Stopped.exit_code, f"{said}\n")


def leave(code: int, said: str = "") -> NoReturn:
    """End the process here, once all that it printed is out; wait for no thread.

    `said` goes to its standard error, last.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it may be what was interrupted
            stream.flush()
    with contextlib.suppress(OSError):  # nobody hears it
        os.write(2, said.encode())
    os._exit(code)


def _stopped_by(name: str) -> str:
    return f"stopped by {name}; run the same command again to go on"
