"""Bars on terminals, plain lines elsewhere."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from harness.base.progress import Progress, shows_bars


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_short_work_writes_nothing_to_a_file():
    stream = io.StringIO()
    with Progress("cell", "examples", stream) as progress:
        progress.update(1, 2)
        progress.update(2, 2)
    assert stream.getvalue() == ""


def test_a_line_every_30_seconds_says_done_total_rate_and_time_left():
    stream, clock = io.StringIO(), Clock()
    with Progress("a.b.s1", "tokens", stream, clock=clock) as progress:
        for done in range(0, 8000, 100):
            progress.update(done, 10_000)
            clock.now += 1
    lines = stream.getvalue().splitlines()
    assert lines == [
        "a.b.s1: 3,000/10,000 tokens (30%), 100 tokens/s, 70 s left",
        "a.b.s1: 6,000/10,000 tokens (60%), 100 tokens/s, 40 s left",
    ]


def test_what_earlier_tries_have_done_is_not_counted_as_speed():
    stream, clock = io.StringIO(), Clock()
    with Progress("x", "tokens", stream, clock=clock) as progress:
        progress.update(5000, 8000)
        clock.now += 100
        progress.update(6000, 8000)
    assert "10 tokens/s, 3 min left" in stream.getvalue()


def test_a_line_before_any_speed_is_known_gives_none():
    stream, clock = io.StringIO(), Clock()
    with Progress("x", "units", stream, clock=clock) as progress:
        clock.now += 31
        progress.update(0, 4)
    assert stream.getvalue() == "x: 0/4 units (0%)\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "bars"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "CI": "true"}, False),
    ],
)
def test_bars_need_a_terminal_that_can_redraw(environment, bars):
    assert shows_bars(Terminal(), environment) is bars
    assert not shows_bars(io.StringIO(), environment)


PROGRAM = """
import os, time
from harness.base import Progress
with Progress(os.environ.get("LABEL", "label of it"), "tokens") as progress:
    for done in range(0, 101, 20):
        progress.update(done, 100)
        time.sleep(0.15)  # longer than a bar takes to be drawn again
print("end")
"""


def on_a_terminal(**changes: str) -> str:
    """Run `PROGRAM` on a pseudo-terminal; return what it wrote there."""
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **changes}
    for name in {"CI", "NO_COLOR", "FORCE_COLOR"} - set(changes):
        environment.pop(name, None)
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        stderr=theirs,
        stdout=subprocess.DEVNULL,
        env=environment,
        check=True,
    )
    os.close(theirs)
    written = b""
    while chunk := _read(ours):
        written += chunk
    os.close(ours)
    return written.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when nobody holds the other end
        return b""


COLOR = re.compile(r"\x1b\[[0-9;]*3[0-9;]*m")


def test_a_terminal_gets_a_bar():
    written = on_a_terminal()
    assert "label of it" in written
    assert "100/100" in written
    assert COLOR.search(written)


def test_a_bar_stays_on_its_line_and_gives_way_to_numbers():
    written = on_a_terminal(COLUMNS="70", LABEL="the.label.of.a.variant.s42-0123abcd")
    before = written[: written.rindex("100/100")]
    assert " 80/100" in before
    assert " tokens/s" in before
    assert "\x1b[1A" not in before  # nothing goes up a line to draw over it


def test_no_color_is_honoured():
    written = on_a_terminal(NO_COLOR="1")
    assert "100/100" in written
    assert not COLOR.search(written)


def test_a_dumb_terminal_gets_no_bar():
    assert on_a_terminal(TERM="dumb") == ""
