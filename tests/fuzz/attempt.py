"""One input given to the command line, in this process, and what is wrong with that.

What may be wrong: a traceback or exit code 3, more than 5 seconds, a write outside of
the given folder, code that the input names where it is only read, text that a reader
does not see. An audit hook of Python's stops a write before it happens.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.cli import main
from tests.fuzz.inputs import Input

LIMIT_S = 5.0
"""Of the process's own time: other processes on the machine do not count."""
WAITING_S = 60.0
"""Of time on the clock: for what waits for something that never comes."""
_CODES = {0, 1, 2, 4}
_WRITES = {
    "os.mkdir": [0],
    "os.rename": [0, 1],
    "os.remove": [0],
    "os.rmdir": [0],
    "os.link": [1],
    "os.symlink": [1],
    "os.truncate": [0],
    "os.chmod": [0],
    "shutil.rmtree": [0],
}
"""Events of Python's audit hooks that change files, and which arguments name them."""


class Hang(BaseException):
    """It took longer than it may."""


class Outside(BaseException):
    """It was about to write outside of its folder, or to run code of it."""


class Guard:
    """Watches what Python does in files; there can be one in a process."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.realpath(folder)
        self._on = self._trusting = False
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def watching(self, *, trusting: bool = False) -> Iterator[None]:
        """Watch a block; `trusting` code of the folder's, or not."""
        self._on, self._trusting = True, trusting
        # Folders of the system for what is thrown away are in the folder meanwhile.
        before, tempfile.tempdir = tempfile.tempdir, self._folder
        try:
            yield
        finally:
            tempfile.tempdir = before
            self._on = False

    def _hook(self, event: str, args: Any) -> None:
        if not self._on:
            return
        if event == "open" and isinstance(args[0], str | bytes):
            mode, flags = args[1] or "", args[2] or 0
            if set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR):
                self._check(event, args[0])
        elif event in _WRITES:
            for index in _WRITES[event]:
                self._check(event, args[index])
        elif event == "exec":
            file = getattr(args[0], "co_filename", "")
            if file.startswith(self._folder) and not self._trusting:
                raise Outside(f"runs {file}")

    def _check(self, event: str, path: Any) -> None:
        if isinstance(path, int) or os.fsdecode(path) == os.devnull:
            return
        if not self._is_inside(path):
            raise Outside(f"{event} {os.fsdecode(path)!r}")

    def _is_inside(self, path: Any) -> bool:
        try:
            whole = os.path.realpath(os.fsdecode(path))
        except ValueError:
            return False
        return (whole + os.sep).startswith(self._folder + os.sep)


def attempt(given: Input, guard: Guard) -> tuple[str | None, str]:
    """Run one input; return what is wrong, or None, and what was printed."""
    before = {path: path.read_bytes() for path in given.changed if path.exists()}
    for path, data in given.changed.items():
        path.write_bytes(data)
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            _limits(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            guard.watching(trusting=given.args[:1] == ["plan"]),
        ):
            code = _code(given.args)
    except Hang:
        return f"HANG in {' '.join(given.args)[:60]}", err.getvalue()
    except Outside as error:
        return f"OUTSIDE: {error}", err.getvalue()
    except BaseException as error:  # noqa: BLE001 - it is what is looked for
        return f"ESCAPED: {type(error).__name__}: {error}", err.getvalue()
    finally:
        for path in given.changed:
            path.unlink()
        for path, data in before.items():
            path.write_bytes(data)
    return _fault(code, out.getvalue(), err.getvalue()), err.getvalue()


def _code(args: list[str]) -> int:
    try:
        main(args)
    except SystemExit as left:
        return int(left.code or 0)


def _fault(code: int, out: str, err: str) -> str | None:
    if code not in _CODES or "Traceback" in err:
        lines = [x for x in err.splitlines() if x.strip()]
        places = [x.strip() for x in lines if "harness/" in x and "line " in x]
        return f"EXIT {code}: {' '.join(lines[-2:-1])[:150]} at {places[-1:]}"
    hidden = {
        x for x in {*out, *err} - {"\n", "\t"} if unicodedata.category(x)[0] == "C"
    }
    if hidden:
        return f"HIDDEN text: {sorted(map(ord, hidden))}"
    return None if code == 0 or err.strip() or out.strip() else "SILENT"


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    timers = {signal.ITIMER_PROF: LIMIT_S, signal.ITIMER_REAL: WAITING_S}
    before = {x: signal.signal(x, stop) for x in (signal.SIGPROF, signal.SIGALRM)}
    for timer, seconds in timers.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
