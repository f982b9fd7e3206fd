"""Run a training in several processes, and hear what the first of them says.

The processes get the model in a file, and give it back as a checkpoint: what trains it
is the same code as in one process.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import PrepareForLaunch, patch_environment
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from harness.base import STOP_SIGNALS, CellError, HarnessError, Stopped

Say = Callable[[str, Any], None]
"""Gets what kind of thing is said, and the thing."""
Run = Callable[[Any, Say, Callable[[], bool]], Any]
"""Does a job: gets it, what hears it, and what says whether to stop."""

_PATIENCE_S = 0.05


def in_processes(
    run: Run,
    job: Any,
    count: int,
    *,
    device: str,
    file: Path,
    hear: Say,
    should_stop: Callable[[], bool],
) -> Any:
    """Call `run` in so many processes; return what it returns in the first.

    The job is written to a file, which is deleted in the end. A HarnessError of any of
    the processes is raised here; where one dies, so do the others, with a CellError.
    """
    torch.save(job, file)
    context = multiprocessing.get_context("spawn")
    said, stop = context.SimpleQueue(), context.Event()
    kind = "MULTI_CPU" if device == "cpu" else "MULTI_GPU"
    with _meeting_place(count, device):
        processes = start_processes(  # type: ignore[no-untyped-call]
            PrepareForLaunch(_process, kind),
            args=(run, str(file), said, stop, _own_files()),
            nprocs=count,
            join=False,
            daemon=True,
            start_method="spawn",
        )
    try:
        while True:
            over = processes.join(timeout=_PATIENCE_S)
            while not said.empty():
                about, thing = said.get()
                if about == "returned":
                    return thing
                if about == "raised":
                    raise thing
                hear(about, thing)
            if over:
                raise RuntimeError("all processes ended, and none said what came out")
            if should_stop():
                stop.set()
    except ProcessExitedException as error:
        raise CellError(f"training on {count} devices: {error}") from error
    finally:
        for process in processes.processes:
            process.join(timeout=10 if sys.exc_info()[0] is None else 0)
            process.kill()
        file.unlink()


def _process(
    run: Run, file: str, said: Any, stop: Any, sources: dict[str, str]
) -> None:
    """Do a job as one of several processes."""
    # What is sent to all of a group is the first process's to act on: it asks to stop.
    for number in (*STOP_SIGNALS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    for name, source in sources.items():
        _import(name, source)
    job = torch.load(file, map_location="cpu", mmap=True, weights_only=False)
    first = os.environ["RANK"] == "0"

    def say(about: str, thing: Any) -> None:
        if first:
            said.put((about, thing))

    try:
        say("returned", run(job, say, stop.is_set))
    except Stopped as stopped:  # by all of them, and the first has written a checkpoint
        say("raised", stopped)
    except HarnessError as error:  # perhaps by this one alone
        said.put(("raised", error))


@contextmanager
def _meeting_place(count: int, device: str) -> Iterator[None]:
    """Tell processes that are started inside where to find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    with patch_environment(
        world_size=count,
        master_addr="127.0.0.1",
        master_port=port,
        accelerate_use_cpu="yes" if device == "cpu" else "no",
        omp_num_threads=os.environ.get("OMP_NUM_THREADS", threads),
    ):
        yield


def _own_files() -> dict[str, str]:
    """Return the modules that were imported from a path, which others cannot find."""
    return {
        name: str(module.__file__)
        for name, module in sys.modules.items()
        if name.startswith("harness_plugin_")
    }


def _import(name: str, source: str) -> None:
    spec = importlib.util.spec_from_file_location(name, source)
    if spec is None or spec.loader is None:
        raise ImportError(f"{source} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
