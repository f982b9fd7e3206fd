import os
import signal

import pytest

from harness.errors import Stopped
from harness.signals import STOP_SIGNALS, stop_on_signals


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_remembered_until_the_next_safe_point(number):
    with stop_on_signals() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        with pytest.raises(Stopped, match=signal.Signals(number).name):
            stop.check()


def test_a_guarded_report_still_reports_before_it_stops():
    seen = []
    with stop_on_signals() as stop:
        report = stop.guard(lambda done, total: seen.append((done, total)))
        report(1, 3)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            report(2, 3)
    assert seen == [(1, 3), (2, 3)]


def test_a_second_signal_stops_at_once():
    with stop_on_signals(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 1)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with stop_on_signals():
        assert [signal.getsignal(number) for number in STOP_SIGNALS] != before
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
