"""Work is spread over processes, and comes back whole and in order."""

import os
import signal
import sys

import pytest

from harness.base import RecordError, spread, spreading

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
ITEMS = range(40)


def test_results_come_in_order_from_other_processes():
    known = {n: n * n for n in ITEMS}
    found = [*spread(lambda n: (known[n], os.getpid()), ITEMS, 3)]
    assert [square for square, _ in found] == [*known.values()]
    processes = {process for _, process in found}
    assert os.getpid() not in processes
    assert len(processes) <= 3


@pytest.mark.parametrize(("cores", "items"), [(1, 40), (8, 40)])
def test_few_items_or_one_core_are_no_work_for_others(monkeypatch, cores, items):
    monkeypatch.setattr(spreading, "available_cores", lambda: cores)
    assert {*spread(lambda _: os.getpid(), range(items))} == {os.getpid()}


def test_many_items_are_spread_over_the_cores(monkeypatch):
    monkeypatch.setattr(spreading, "available_cores", lambda: 2)
    items = range(2 * spreading.WORTH_A_PROCESS)
    assert os.getpid() not in {*spread(lambda _: os.getpid(), items)}


def test_what_a_killed_process_leaves_is_done_here():
    parent = os.getpid()

    def fragile(n):
        if n == 17 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    assert [*spread(fragile, ITEMS, 2)] == [*ITEMS]


def test_an_error_is_that_of_its_item():
    def refuse(n):
        if n == 5:
            raise RecordError("five")
        return n

    with pytest.raises(RecordError, match="five"):
        list(spread(refuse, ITEMS, 2))
