"""Stop on a signal: at once, or where that is dearer, at the next safe point."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from harness.base.errors import Stopped

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What clusters send before they take a machine back."""


class StopSignals:
    """Turns stop signals into `Stopped`, raised wherever the main thread is.

    Files are written atomically and finished examples are flushed, so that costs little
    except in training, which defers the signal to save a checkpoint first.
    """

    def __init__(self) -> None:
        self._deferring = False
        self._received: str | None = None

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal; a second one stops at once, deferred or not."""
        again = self._received is not None
        self._received = signal.Signals(number).name
        if again or not self._deferring:
            self._stop()

    @contextmanager
    def deferred(self) -> Iterator[Callable[[], bool]]:
        """Put a stop off to the end of the block, which asks whether one is due."""
        self._deferring = True
        try:
            yield lambda: self._received is not None
        finally:
            self._deferring = False
        if self._received is not None:
            self._stop()

    def _stop(self) -> None:
        raise Stopped(
            f"stopped by {self._received}; run the same command again to go on"
        )


@contextmanager
def stop_on_signals() -> Iterator[StopSignals]:
    """Listen for stop signals for the time of the block."""
    stop = StopSignals()
    before = {number: signal.signal(number, stop.receive) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
