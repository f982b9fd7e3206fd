"""Stop on a signal at the next safe point, so that nothing finished is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from harness.errors import Stopped

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What clusters send before they take a machine back."""


class StopFlag:
    """Remembers that a stop was asked for; long work asks it between steps."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __bool__(self) -> bool:
        return self.signal_name is not None

    def check(self) -> None:
        """Raise `Stopped` if a stop was asked for."""
        if self.signal_name:
            raise Stopped(
                f"stopped by {self.signal_name}; run the same command again to go on"
            )

    def guard(self, report: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """Return `report`, which then also stops where a stop was asked for."""

        def guarded(done: int, total: int) -> None:
            report(done, total)
            self.check()

        return guarded


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Collect stop signals in a flag for the time of the block.

    A second signal stops at once: files are written atomically, so that is safe too.
    """
    flag = StopFlag()

    def remember(number: int, frame: FrameType | None) -> None:
        again = bool(flag)
        flag.signal_name = signal.Signals(number).name
        if again:
            flag.check()

    before = {number: signal.signal(number, remember) for number in STOP_SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
