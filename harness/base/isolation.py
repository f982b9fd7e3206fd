"""Keep what a library does to the whole process inside a block.

Evaluation libraries reseed the global random generators, log, draw progress bars and
call the hub. Blocks of this module undo or prevent that, and bound the time and memory
that code of others takes.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, TextIO

_NOISY = ("lm_eval", "datasets", "evaluate", "huggingface_hub", "fsspec")


class TimeUp(BaseException):
    """The time of a block is over. No `Exception`: no library must swallow it."""


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `TimeUp` in the block, wherever it is, when its time is over.

    And again every second until the block is left. A call into C that does not return
    is not interrupted, and nothing is raised in another thread than the main one.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    over = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not over:
            raise TimeUp

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 1.0)
        try:
            yield
        finally:
            over = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def memory_limit(most: int | None) -> Iterator[None]:
    """Let the process address at most so many bytes in the block.

    What asks for more gets a MemoryError, or whatever a library makes of that.
    """
    if most is None:
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    stated = [x for x in (most, before, hard) if x != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(stated), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


def addressed_bytes() -> int | None:
    """Return how many bytes this process addresses; None where the system hides it."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[0]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGESIZE")


@contextlib.contextmanager
def fixed_random_state(seed: int) -> Iterator[None]:
    """Seed Python, numpy and torch inside the block, and restore them after it.

    So the block neither depends on what was drawn before nor shows in what is drawn
    after.
    """
    import torch
    from numpy import random as numpy_random

    python, cpu = random.getstate(), torch.get_rng_state()
    numpy = numpy_random.get_state()  # noqa: NPY002 (it is what others draw from)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        random.seed(seed)
        numpy_random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        yield
    finally:
        random.setstate(python)
        numpy_random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextlib.contextmanager
def stdout_apart() -> Iterator[TextIO]:
    """Yield standard output, and let nothing else reach it: the rest goes to stderr.

    What Python code prints in the block, and what is written to descriptor 1.
    """
    stream = sys.stdout
    with contextlib.ExitStack() as stack:
        if _is_descriptor_1(stream):
            stream = stack.enter_context(_moved(stream))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield stream


def _is_descriptor_1(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 1
    except (OSError, ValueError):  # a stream in memory, as in tests
        return False


@contextlib.contextmanager
def _moved(stream: TextIO) -> Iterator[TextIO]:
    """Yield a stream to where descriptor 1 leads, which leads to stderr meanwhile."""
    stream.flush()
    with os.fdopen(os.dup(1), "w", encoding=stream.encoding) as moved:
        os.dup2(2, 1)
        try:
            yield moved
        finally:
            os.dup2(moved.fileno(), 1)


@contextlib.contextmanager
def silenced(package: str) -> Iterator[None]:
    """Silence a package that is imported already: logs, warnings, tqdm's bars.

    Errors are still logged. Our own progress display is not touched.
    """
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith(f"{package}.") and "tqdm" in vars(module)
    ]
    with contextlib.ExitStack() as stack:
        for name in _NOISY:
            stack.enter_context(_logging_errors_only(name))
        for module in modules:
            stack.enter_context(_without_bars(module))
        stack.enter_context(_without_dataset_bars())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep `datasets` and the hub's client from calling out; caches still serve.

    What is not in a cache then fails at once instead of after retries.
    """
    import datasets.config
    import huggingface_hub.constants

    with (
        replaced(huggingface_hub.constants, "HF_HUB_OFFLINE", True),
        replaced(datasets.config, "HF_HUB_OFFLINE", True),
        _fresh_sessions(),
    ):
        yield


@contextlib.contextmanager
def replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    """Let an attribute have another value for a while."""
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


@contextlib.contextmanager
def _fresh_sessions() -> Iterator[None]:
    """Drop connections: the hub's client looks at the offline mode as it makes them."""
    from huggingface_hub import utils

    # One name before its version 1, one after.
    names = ("reset_sessions", "close_session")
    drop = next(getattr(utils, name) for name in names if hasattr(utils, name))
    drop()
    try:
        yield
    finally:
        drop()


@contextlib.contextmanager
def _logging_errors_only(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _without_bars(module: ModuleType) -> Iterator[None]:
    bars = vars(module)["tqdm"]
    if isinstance(bars, ModuleType):
        with _without_bars(bars):
            yield
        return

    @functools.wraps(bars)
    def disabled(*args: Any, **options: Any) -> Any:
        return bars(*args, **{**options, "disable": True})

    with replaced(module, "tqdm", disabled):
        yield


@contextlib.contextmanager
def _without_dataset_bars() -> Iterator[None]:
    import datasets

    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
