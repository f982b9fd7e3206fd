"""Say how far long work is: a bar on a terminal, else a plain line every 30 seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from harness.base.spelling import spell_rate, spell_seconds

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress as Bar

INTERVAL_S = 30.0


class Progress:
    """Shows one piece of work while the block runs; `update` is its callback.

    Nothing is written for work that ends within the interval, unless on a terminal,
    where the bar goes away at the end.
    """

    def __init__(
        self,
        label: str,
        unit: str,
        stream: TextIO | None = None,
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._unit = unit
        self._stream = stream or sys.stderr
        self._interval_s = interval_s
        self._clock = clock
        self._bar: Bar | None = None
        self._first: tuple[float, int] | None = None
        self._printed = clock()

    def __enter__(self) -> Progress:
        if shows_bars(self._stream, os.environ):
            self._bar = _make_bar(self._stream, self._unit)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, done: int, total: int) -> None:
        """Tell that `done` of `total` units are done, those of earlier tries too."""
        now = self._clock()
        self._first = self._first or (now, done)
        if self._bar is not None:
            self._update_bar(self._bar, done, total)
        elif now - self._printed >= self._interval_s:
            self._printed = now
            print(self._line(done, total, now), file=self._stream, flush=True)

    def _update_bar(self, bar: Bar, done: int, total: int) -> None:
        if not bar.tasks:
            # rich takes the rate from what is done after the start.
            bar.add_task(self._label, total=total, completed=done)
        bar.update(bar.tasks[0].id, completed=done, total=total)

    def _line(self, done: int, total: int, now: float) -> str:
        share = f" ({done / total:.0%})" if total else ""
        line = f"{self._label}: {done:,}/{total:,} {self._unit}{share}"
        assert self._first is not None  # set by the first update
        since, done_then = self._first
        if done > done_then and now > since:
            rate = (done - done_then) / (now - since)
            left = spell_seconds((total - done) / rate)
            line += f", {spell_rate(rate, self._unit)}, {left} left"
        return line


def shows_bars(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether a stream is a terminal on which lines can be redrawn."""
    dumb = environment.get("TERM") == "dumb"
    return stream.isatty() and not dumb and not environment.get("CI")


def _make_bar(stream: TextIO, unit: str) -> Any:
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    class Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> str:
            return spell_rate(task.speed, unit) if task.speed else ""

    def whole() -> Column:  # so that the bar gives way where there is little room
        return Column(no_wrap=True)

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(table_column=whole()),
        Rate(table_column=whole()),
        progress.TimeRemainingColumn(table_column=whole()),
        console=Console(file=stream),
        transient=True,
    )
