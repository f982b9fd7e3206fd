import os
import signal

import pytest

from harness.base import Stopped
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


def test_a_second_signal_stops_at_once_though_deferred():
    done = []

    def work():
        send()
        done.append("first")
        send()
        done.append("second")

    with stop_on_signals() as stop, pytest.raises(Stopped), stop.deferred():
        work()
    assert done == ["first"]


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with stop_on_signals():
        assert [signal.getsignal(number) for number in STOP_SIGNALS] != before
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
