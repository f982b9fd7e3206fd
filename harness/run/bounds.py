"""What an attack may take of the process that it runs in: time and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.base import (
    CellError,
    TimeUp,
    addressed_bytes,
    memory_limit,
    spell_seconds,
    time_limit,
)
from harness.suite import GIB


@dataclass
class Bounds:
    """The bounds of one attempt at a cell, which begins when this is made."""

    attack: str
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
        """Let the attack's code run in the block, within its bounds.

        Raises CellError, with the traceback of where it was, when it leaves them.
        """
        left = None if self._until is None else self._until - time.monotonic()
        try:
            with time_limit(left), memory_limit(self._most):
                yield
        except TimeUp as error:
            assert self.seconds is not None
            said = f"took longer than its timeout of {spell_seconds(self.seconds)}"
            raise self._stopped(said, error) from None
        except MemoryError as error:
            said = "needs more memory than there is"
            if self._most is not None:
                said = f"needs more memory than its memory_gib of {self.memory_gib:g}"
            raise self._stopped(said, error) from error

    def _stopped(self, said: str, error: BaseException) -> BaseException:
        self.cut_off = True
        return CellError(f"{self.attack} {said}").with_traceback(error.__traceback__)
