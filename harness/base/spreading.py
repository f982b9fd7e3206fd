"""Spread work over the cores of this machine, in processes that are forked."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from harness.base.provenance import available_cores

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
WORTH_A_PROCESS = 50
"""How many items a process must have to do, unless it is said how many there are."""
_AT_ONCE = 8


def spread(
    function: Callable[[ItemT], ResultT],
    items: Sequence[ItemT],
    processes: int | None = None,
) -> Iterator[ResultT]:
    """Yield what a function returns for each item, in order.

    By default there are as many `processes` as cores, and fewer for few items; with
    one, or where the system does not fork well, all is done in this process. Items and
    results must be such as can be pickled, the function need not. What a process that
    was killed has left is done here.
    """
    count = processes or min(available_cores(), len(items) // WORTH_A_PROCESS)
    if count < 2 or sys.platform != "linux":
        yield from map(function, items)
        return
    done = 0
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(count, forked, _begin, (function,)) as pool:
        with warnings.catch_warnings():
            # Python warns of threads, as those of BLAS, which know what a fork is.
            warnings.simplefilter("ignore", DeprecationWarning)
            results = pool.map(_apply, items, chunksize=_AT_ONCE)
        try:
            for result in results:
                yield result
                done += 1
        except BrokenProcessPool:
            yield from map(function, items[done:])


_function: Callable[[Any], Any]


def _begin(function: Callable[[Any], Any]) -> None:
    """Prepare a process that was forked for the function."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops, and then this
    gc.freeze()  # what was there before the fork is no garbage


def _apply(item: Any) -> Any:
    return _function(item)
