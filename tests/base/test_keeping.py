"""A command goes on after its process has died, and ends as the last one did."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from harness.base.keeping import GIVEN_UP
from harness.base.leases import _birth

START = """
import os, signal, sys, time
from pathlib import Path
from harness.base.keeping import SLATE, keep

keep()
unit = Path("cells/a")
unit.mkdir(parents=True, exist_ok=True)
times = Path("times")
lives = len(times.read_text()) if times.exists() else 0
times.write_text("x" * (lives + 1))
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a program which is kept."""

    def start(body: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", START + body],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Tests in the background of a shell ignore Ctrl-C, and so would these.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return start


def ended(process):
    """Return the exit code of a process and what it said."""
    out, said = process.communicate(timeout=60)
    return process.returncode, out, said


@pytest.mark.parametrize("code", [0, 1, 75])
def test_it_ends_as_its_process_does(start, code):
    body = f"print('done'); SLATE.leave({code}); sys.exit({code})"
    assert ended(start(body)) == (code, "done\n", "")


DEATHS = {
    "os._exit(0)": "the process ended without a word (exit code 0)",
    "os.kill(os.getpid(), signal.SIGSEGV)": "the process died (SIGSEGV)",
    "os.abort()": "the process died (SIGABRT)",
    "os.kill(os.getpid(), signal.SIGKILL)": "the process died (SIGKILL)",
}


@pytest.mark.parametrize("death", DEATHS)
def test_another_process_goes_on_where_one_died_in_a_unit(start, death):
    body = f"""
with SLATE.unit(unit):
    if lives < 2:
        {death}
print("done", lives)
SLATE.leave(0)
"""
    line = f"{DEATHS[death]} during a; another goes on after it\n"
    assert ended(start(body)) == (0, "done 2\n", 2 * line)


def test_a_command_that_was_suspended_goes_on(start, tmp_path):
    process = start(
        """
print("ready", flush=True)
while not Path("go").exists():
    time.sleep(0.01)
print("done")
SLATE.leave(0)
"""
    )
    assert process.stdout.readline() == "ready\n"
    for _ in range(3):
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)  # longer than it waits before it looks again
        process.send_signal(signal.SIGCONT)
    (tmp_path / "go").touch()
    assert ended(process) == (0, "done\n", "")


def test_what_the_first_process_found_is_known_to_those_after_it(start):
    body = """
found = SLATE.once(lambda: {"lives": lives, "much": "x" * 10**6})
if not lives:
    with SLATE.unit(unit):
        os.abort()
print(found["lives"], len(found["much"]))
SLATE.leave(0)
"""
    code, out, _ = ended(start(body))
    assert (code, out) == (0, "0 1000000\n")


@pytest.mark.parametrize(
    ("death", "code"), [("os._exit(0)", 1), ("os._exit(7)", 7), ("os.abort()", 134)]
)
def test_a_death_outside_of_units_is_no_success(start, death, code):
    found, out, said = ended(start(f"with SLATE.unit(unit): pass\n{death}"))
    assert (found, out) == (code, "")
    assert (said == "") == (code == 7)  # it ended as it wanted to


def test_a_unit_that_always_dies_is_given_up(start, tmp_path):
    code, _, said = ended(start("with SLATE.unit(unit): os.abort()"))
    assert code == 134
    assert said.count("another goes on") == GIVEN_UP - 1
    assert (tmp_path / "times").read_text() == "x" * GIVEN_UP


def test_a_process_that_hangs_is_ended_and_its_unit_told(start, tmp_path):
    """Where no exception reaches it, as in a call into C."""
    body = """
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
if not lives:
    with SLATE.unit(unit), SLATE.limited(0.1, "took too long"):
        time.sleep(60)
print("done")
SLATE.leave(0)
"""
    code, out, said = ended(start(body))
    assert (code, out) == (0, "done\n")
    assert said.startswith("the process died (SIGKILL) during a")
    (death,) = (tmp_path / "cells" / "a" / "deaths.jsonl").read_text().splitlines()
    found = json.loads(death)
    assert (found["reason"], found["final"]) == ("took too long", True)
    assert found["run"]


WAITS = """
def stop(number, frame):
    print(signal.Signals(number).name)
    SLATE.leave(75)
    sys.exit(75)

with SLATE.unit(unit):
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, stop)
    Path("pid").write_text(str(os.getpid()))
    time.sleep(60)
"""


def wait_for(path):
    """Wait for a file with something in it, and return that."""
    for _ in range(3000):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.01)
    raise AssertionError(path)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
@pytest.mark.parametrize("deaths", [0, 1])
def test_signals_are_passed_on(start, tmp_path, name, deaths):
    died = f"if lives < {deaths}:\n    with SLATE.unit(unit): os.abort()\n"
    process = start(died + WAITS)
    child = int(wait_for(tmp_path / "pid"))
    assert child != process.pid
    process.send_signal(signal.Signals[name])
    code, out, said = ended(process)
    assert (code, out) == (75, f"{name}\n")
    assert said.count("another goes on") == deaths


def test_a_process_that_a_signal_ends_is_not_started_again(start, tmp_path):
    process = start(WAITS.replace("signal.signal(number, stop)", "pass"))
    wait_for(tmp_path / "pid")
    process.terminate()
    code, _, said = ended(process)
    assert (code, said) == (128 + signal.SIGTERM, "the process died (SIGTERM)\n")
    assert (tmp_path / "times").read_text() == "x"


def test_a_process_ends_with_its_keeper(start, tmp_path):
    process = start(WAITS)
    child = int(wait_for(tmp_path / "pid"))
    process.kill()
    process.communicate(timeout=30)  # its pipes close when the child has ended, too
    for _ in range(3000):  # which is before it is gone
        if _birth(child) is None:
            return
        time.sleep(0.01)
    raise AssertionError(child)
