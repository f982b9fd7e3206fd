import contextlib
import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from harness.base import INTERRUPTED, Stopped
from harness.base.signals import STOP_SIGNALS, stop_on_signals


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_stops_at_once_and_is_named(number):
    with stop_on_signals(), pytest.raises(Stopped, match=signal.Signals(number).name):
        send(number)


def test_no_library_that_catches_exceptions_swallows_a_stop():
    def library():
        try:
            send()
        except Exception:  # noqa: BLE001
            pytest.fail("swallowed")

    with stop_on_signals(), pytest.raises(Stopped):
        library()


def test_a_deferred_signal_stops_at_the_end_of_the_block():
    done = []

    def work(stop):
        with stop.deferred() as should_stop:
            assert not should_stop()
            send()
            assert should_stop()
            done.append("saved")
        done.append("never")

    with stop_on_signals() as stop, pytest.raises(Stopped):
        work(stop)
    assert done == ["saved"]


def test_a_stop_is_deferred_only_once_there_is_something_to_lose():
    with stop_on_signals() as stop, pytest.raises(Stopped), stop.deferred():
        send()
        pytest.fail("not asked, and yet deferred")


@pytest.mark.parametrize(("number", "later"), [(15, 2.0), (signal.SIGUSR1, 0.0)])
def test_a_second_signal_stops_at_once_though_deferred(monkeypatch, number, later):
    done, now = [], [100.0]
    monkeypatch.setattr("harness.base.signals.time.monotonic", lambda: now[0])

    def work(stop):
        with stop.deferred() as should_stop:
            assert not should_stop()
            send_twice()

    def send_twice():
        send()
        done.append("first")
        send()  # the same again, by another way
        now[0] += later
        send(number)
        done.append("second")

    with stop_on_signals() as stop, pytest.raises(Stopped):
        work(stop)
    assert done == ["first"]


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)],
)
def test_a_stop_that_something_swallowed_is_not_forgotten(number, raised):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with stop_on_signals() as stop:
        stop.check()
        with contextlib.suppress(Stopped, KeyboardInterrupt):
            send(number)
        with pytest.raises(raised):
            stop.check()


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with stop_on_signals():
        assert [signal.getsignal(number) for number in STOP_SIGNALS] != before
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


SIGNALLED = """
import os, signal, sys

number, event, name, *arguments = sys.argv[1:]

def hear(what, told):
    if what == event and told and name in str(told[0]):
        os.kill(os.getpid(), int(number))

sys.addaudithook(hear)
sys.argv = ["harness", *arguments]
from harness.__main__ import program
program()
"""
IMPORTS = ("import", "click", "list")
COMMAND = ("open", "plan.", "plan", "base.yaml")
SUITE = ("open", "base.yaml", "plan", "base.yaml")
TORCH = ("import", "torch", "run", "base.yaml")


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGTERM, IMPORTS),
        (signal.SIGINT, IMPORTS),
        (signal.SIGUSR1, COMMAND),
        (signal.SIGTERM, SUITE),
        (signal.SIGINT, SUITE),
        (signal.SIGTERM, TORCH),
        (signal.SIGINT, TORCH),
    ],
)
@pytest.mark.usefixtures("toy_suite")
def test_a_signal_outside_of_units_ends_with_one_line(number, moment):
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(int(number)), *moment],
        capture_output=True,
        text=True,
        check=False,
        # Tests in the background of a shell ignore Ctrl-C, and so would their children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    if number == signal.SIGINT:
        code, said = 130, "interrupted; the same command goes on from here"
    else:
        name = signal.Signals(number).name
        code, said = 75, f"stopped by {name}; run the same command again to go on"
    assert (ended.stderr, ended.returncode) == (f"{said}\n", code)


LATE = """
import atexit, os, sys
from harness.base.signals import ended_by_signals

atexit.register(lambda: os.kill(os.getpid(), int(sys.argv[1])))
with ended_by_signals():
    sys.exit(4)
"""


BUSY = """
import multiprocessing, sys, time
from concurrent.futures import ThreadPoolExecutor
from harness.base.signals import ended_by_signals

ThreadPoolExecutor(1).submit(time.sleep, 60)
held = [multiprocessing.get_context("spawn").Lock()]
held.append(held)
del held
with ended_by_signals():
    print("said")
    sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [Stopped.exit_code, INTERRUPTED])
def test_what_was_stopped_waits_for_no_thread_and_leaves_nothing(code):
    ended = subprocess.run(
        [sys.executable, "-c", BUSY, str(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "said\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_after_the_end_changes_nothing_of_it(number):
    ended = subprocess.run(
        [sys.executable, "-c", LATE, str(int(number))],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert (ended.stderr, ended.returncode) == ("", 4)


def test_ctrl_c_is_told_from_a_keyboard_interrupt_that_somebody_raised():
    with stop_on_signals() as stop:
        with pytest.raises(KeyboardInterrupt):
            raise KeyboardInterrupt
        assert not stop.interrupted
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert stop.interrupted
