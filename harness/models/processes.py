"""Run a training in several processes, and hear what the first of them says.

The processes get the model in a file, and give it back as a checkpoint: what trains it
is the same code as in one process.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from accelerate.utils import PrepareForLaunch, patch_environment
from torch import distributed, multiprocessing
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from harness.base import STOP_SIGNALS, CellError, HarnessError, Stopped, leave

Say = Callable[[str, Any], None]
"""Gets what kind of thing is said, and the thing."""
Run = Callable[[Any, Say, Callable[[], bool]], Any]
"""Does a job: gets it, what hears it, and what says whether to stop."""

_PATIENCE_S = 0.05
_GRACE_S = 1.0
"""For the others, once one died: on GPUs they would wait for it, deaf to signals."""
_ENDING_S = 10.0
_HERE = "127.0.0.1"


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
    They end with this process, too, however it ends.
    """
    context = multiprocessing.get_context("spawn")
    said, stop = context.SimpleQueue(), context.Event()
    arguments = (run, str(file), said, stop, _own_files())
    try:
        torch.save(job, file)
        with _started(count, device, arguments) as processes:
            while True:
                ended = _ended(processes)
                # Even then: what one says explains why another died.
                while not said.empty():
                    about, thing = said.get()
                    if about == "returned":
                        return thing
                    if about == "raised":
                        raise thing
                    hear(about, thing)
                if ended is not None:
                    raise ended
                if should_stop():
                    stop.set()
    finally:
        file.unlink(missing_ok=True)


@contextmanager
def _started(count: int, device: str, arguments: tuple[Any, ...]) -> Iterator[Any]:
    """Have so many processes; none of them is left after the block.

    Those of a block that ended well get some time to end by themselves.
    """
    # Asked by all of them for as long as they run; the system gives it a free port.
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        _HERE, 0, is_master=True, wait_for_workers=False
    )
    kind = "MULTI_CPU" if device == "cpu" else "MULTI_GPU"
    with _meeting_place(store.port, count, device):
        processes = start_processes(  # type: ignore[no-untyped-call]
            PrepareForLaunch(_process, kind),
            args=arguments,
            nprocs=count,
            join=False,
            daemon=True,
            start_method="spawn",
        )
    patience_s = 0.0
    try:
        yield processes
        patience_s = _ENDING_S
    finally:
        for process in processes.processes:
            process.join(timeout=patience_s)
            process.kill()
        for process in processes.processes:  # a device's memory is free after that
            process.join(timeout=_ENDING_S)


def _ended(processes: Any) -> Exception | None:
    """Wait a moment; say what to raise if a process died, or all of them ended."""
    try:
        over = processes.join(timeout=_PATIENCE_S, grace_period=_GRACE_S)
    except ProcessExitedException as error:
        count = len(processes.processes)
        return CellError(f"training on {count} devices: {error}")
    except ProcessRaisedException as error:
        return error
    none_said = "all processes ended, and none said what came out"
    return RuntimeError(none_said) if over else None


def _process(
    run: Run, file: str, said: Any, stop: Any, sources: dict[str, str]
) -> None:
    """Do a job as one of several processes."""
    Thread(target=_end_with_parent, daemon=True).start()
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
    except HarnessError as error:  # perhaps by this one alone: the others may wait
        said.put(("raised", error))
        leave(0)
    if distributed.is_initialized():
        distributed.destroy_process_group()
    leave(0)  # all is said, and a compiler's threads may be long


def _end_with_parent() -> None:
    """Die when the process does that started this one, and that none else would end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _meeting_place(port: int, count: int, device: str) -> Iterator[None]:
    """Tell processes that are started inside where to find each other.

    What the environment says of other processes, as a cluster's does, is not of these.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    each = {
        name: os.environ.get(name, threads)
        for name in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
    }
    with patch_environment(
        world_size=count,
        nproc=count,
        node_rank=0,
        master_addr=_HERE,
        master_port=port,
        torchelastic_use_agent_store=True,  # all of them are clients of the store
        torchelastic_restart_count=0,
        accelerate_use_cpu="yes" if device == "cpu" else "no",
        **each,
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
