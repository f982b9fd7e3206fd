"""Fuzz the command line: ``python -m tests.fuzz --inputs 20000 --seed 11 --jobs 2``.

The same seed gives the same inputs, whatever the number of processes. ``--only NUMBER``
runs one input alone and shows what it was.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import harness.suite.loading as loading
from tests.fuzz.attempt import Guard, attempt
from tests.fuzz.inputs import furnish, make

PATIENCE_S = 600
"""How long to wait for an input: a busy machine may not get to it for minutes."""
Found = tuple[int, str, list[str], float]
"""An input's number, what is wrong with it, its arguments, and the seconds."""


def faults(seed: int, numbers: range, folder: Path) -> Iterator[Found | None]:
    """Yield for each input what is wrong with it, or None."""
    warnings.simplefilter("ignore")
    sys.dont_write_bytecode = True
    place, guard = furnish(folder), Guard(folder)
    loading.load_registry = _once(loading.load_registry)
    os.environ["HARNESS_STORE"] = str(folder / "store")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.chdir(folder)
    for number in numbers:
        given = make(place, seed, number)
        start = time.process_time()
        fault, _ = attempt(given, guard)
        seconds = time.process_time() - start
        yield (number, fault, given.args, seconds) if fault else None


def _once(load: Callable[..., Any]) -> Callable[..., Any]:
    """Load the plugins of the same paths once: it takes longer than most inputs."""
    known = functools.cache(load)
    return lambda paths: known(tuple(paths))


def _work(
    seed: int, numbers: range, queue: multiprocessing.Queue[Found | None]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for found in faults(seed, numbers, Path(folder)):
            queue.put(found)
        os.chdir("/")


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int)
    told = parser.parse_args()
    if told.only is not None:
        return _one(told.seed, told.only)
    queue: multiprocessing.Queue[Found | None] = multiprocessing.Queue()
    workers = [
        multiprocessing.Process(
            target=_work, args=(told.seed, range(job, told.inputs, told.jobs), queue)
        )
        for job in range(told.jobs)
    ]
    start = time.monotonic()
    for worker in workers:
        worker.start()
    found = list(_collected(workers, queue, told.inputs))
    seconds = time.monotonic() - start
    kinds = Counter(fault.split()[0].rstrip(":") for _, fault, _, _ in found)
    print(f"{told.inputs} inputs of seed {told.seed} in {seconds:.0f} s:", end=" ")
    print(", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "nothing wrong")
    return 1 if found else 0


def _collected(
    workers: list[multiprocessing.Process],
    queue: multiprocessing.Queue[Found | None],
    count: int,
) -> Iterator[Found]:
    """Yield the faults as they come, and print each; end with the last input."""
    done = 0
    while done < count:
        try:
            found = queue.get(timeout=PATIENCE_S)
        except Exception:  # noqa: BLE001 - queue.Empty of the queue's own module
            yield (
                done,
                "STUCK: nothing came for minutes, or a process died",
                [],
                120,
            )
            break
        done += 1
        if done % 1000 == 0:
            print(f"{done} inputs", file=sys.stderr, flush=True)
        if found is not None:
            args = " ".join(x[:60] for x in found[2])
            print(f"{found[0]} {found[1]!r}: {args!r} ({found[3]:.1f} s)", flush=True)
            yield found
    for worker in workers:
        worker.terminate()


def _one(seed: int, number: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    place, guard = furnish(folder), Guard(folder)
    os.chdir(folder)
    given = make(place, seed, number)
    print(given.args)
    for path, data in given.changed.items():
        copy = folder / f"input-{path.name}"
        copy.write_bytes(data)
        print(f"{path}: see {copy}")
    fault, said = attempt(given, guard)
    print(said[-3000:])
    print(fault or "nothing wrong")
    return 1 if fault else 0


if __name__ == "__main__":
    raise SystemExit(_main())
