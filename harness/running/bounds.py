"""What a plugin may take of the process that it runs in: time and memory."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.base import (
    GIB,
    SLATE,
    CellError,
    TimeUp,
    addressed_bytes,
    memory_limit,
    spell_seconds,
    time_limit,
)

GRACE_SECONDS = 30.0
"""How much longer than its timeout a plugin may take, at most, before its process is
ended: by then, an exception should have ended the plugin alone."""
LEAST_GRACE_SECONDS = 5.0


@dataclass
class Bounds:
    """The bounds of one attempt of a plugin, which begins when this is made."""

    plugin: str
    """What sentences call it, as "the attack 'hotflip'"."""
    seconds: float | None = None
    """How long it may take; None for as long as it likes."""
    memory_gib: float | None = None
    """How much more memory it may address than there is at the beginning."""
    cut_off: bool = False
    """Whether it was stopped: what it was at work on may be half done."""

    def __post_init__(self) -> None:
        """Begin to count."""
        self._until = None if self.seconds is None else time.monotonic() + self.seconds
        self._most, now = None, addressed_bytes()
        if self.memory_gib is not None and now is not None:
            self._most = now + int(self.memory_gib * GIB)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Let the plugin's code run in the block, within its bounds.

        Raises CellError, with the traceback of where it was, when it leaves them.
        """
        left = None if self._until is None else self._until - time.monotonic()
        try:
            with time_limit(left), memory_limit(self._most):
                yield
        except TimeUp as error:
            raise self._stopped(self._too_long, error) from None
        except MemoryError as error:
            said = "needs more memory than there is"
            if self._most is not None:
                said = f"needs more memory than its memory_gib of {self.memory_gib:g}"
            raise self._stopped(said, error) from error

    @contextmanager
    def watched(self, log: Path) -> Iterator[None]:
        """End the process where the plugin hangs and no exception reaches it.

        The log then says where that was; another process goes on after it.
        """
        if self.seconds is None:
            yield
            return
        grace = min(GRACE_SECONDS, max(LEAST_GRACE_SECONDS, self.seconds))
        until = self.seconds + (grace if SLATE.kept else GRACE_SECONDS)
        with log.open("a") as file, SLATE.limited(until, self._too_long):
            # The keeper ends the process, and without one, this does.
            last = until - LEAST_GRACE_SECONDS / 2 if SLATE.kept else until
            faulthandler.dump_traceback_later(last, exit=not SLATE.kept, file=file)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()

    @property
    def _too_long(self) -> str:
        return f"took longer than its timeout of {spell_seconds(self.seconds or 0)}"

    def _stopped(self, said: str, error: BaseException) -> BaseException:
        self.cut_off = True
        return CellError(f"{self.plugin} {said}").with_traceback(error.__traceback__)
