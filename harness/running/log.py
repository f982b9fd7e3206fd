"""The log of a unit: what happened, when, and what libraries had to say about it."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

from harness.base import visible

_OURS = logging.getLogger("harness")
_WARNED = logging.getLogger("py.warnings")
_PRINTED = logging.getLogger("harness.printed")
_PRINTED.propagate = False  # or a handler that prints would print what it prints
_LIBRARIES = ("accelerate", "datasets", "huggingface_hub", "torch", "transformers")
"""Loggers that keep their messages from the root's handlers once they are imported."""
_FOR_TOOLS = "torch.__trace"
"""A logger of empty messages; what is attached to them is made once anybody listens:
all that a compiler does, printed."""


@contextmanager
def unit_log(path: Path) -> Iterator[None]:
    """Append to a file what the block logs, warns of and prints, with the time.

    Messages of libraries are included from WARNING on, our own from INFO on. A warning
    is written once for each place and unit. Printed text and our own warnings go on to
    where they went.
    """
    handler = _OnceHandler(path, encoding="utf-8")
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    level, shown = _OURS.level, _OURS.getEffectiveLevel()

    def as_before(record: logging.LogRecord) -> bool:
        """Keep from others' handlers what they got nothing of outside of units."""
        return not _is_ours(record) or record.levelno >= shown

    with ExitStack() as stack:
        for other in logging.root.handlers:
            other.addFilter(as_before)
            stack.callback(other.removeFilter, as_before)
        stack.callback(handler.close)
        for logger in _loggers():
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)
        _OURS.setLevel(logging.INFO)
        stack.callback(_OURS.setLevel, level)
        stack.enter_context(warnings.catch_warnings())  # those seen before count anew
        warnings.showwarning = _logging_too(warnings.showwarning)
        printed = cast("TextIO", _Printed(sys.stdout))
        stack.enter_context(redirect_stdout(printed))
        yield


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == _OURS.name


def _logging_too(show: Callable[..., None]) -> Callable[..., None]:
    """Log warnings; our own are shown as well, since they are for the user."""

    def log(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        text = warnings.formatwarning(message, category, *place[:2])
        _WARNED.warning("%s", text.rstrip())
        if category.__module__.startswith("harness."):
            show(message, category, *place, **more)

    return log


def _loggers() -> list[logging.Logger]:
    """Return the root, and the loggers that do not hand their messages on to it."""
    known = logging.root.manager.loggerDict.items()
    apart = {
        name for name, x in known if isinstance(x, logging.Logger) and not x.propagate
    }
    names = sorted(apart.union(_LIBRARIES) - {_FOR_TOOLS})
    return [logging.root, *map(logging.getLogger, names)]


class _OnceHandler(logging.FileHandler):
    """Writes a message once, though it comes by its own logger and by the root.

    A log is read in a terminal: nothing in it is hidden.
    """

    _last: logging.LogRecord | None = None

    def emit(self, record: logging.LogRecord) -> None:
        least = logging.INFO if _is_ours(record) else logging.WARNING
        if record.levelno >= least and record is not self._last:
            self._last = record
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Lose a message where the disk is full: the unit itself will say so."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class _Printed:
    """Logs what is printed, line by line, and prints it: all else is the stream's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._line = stream, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if line.strip():
                _PRINTED.info("%s", line.rpartition("\r")[2])
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
