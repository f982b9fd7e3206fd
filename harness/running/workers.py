"""Workers: processes that run the units of a frozen run side by side.

Each is `harness run` on all units of the run; leases see to it that each unit is run by
one of them. This process starts them, deals out devices, prints what they say, passes
signals on, and replaces those that die.
"""

from __future__ import annotations

import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from harness.base import HarnessError, Stopped, Store, available_cores
from harness.base.leases import RUN
from harness.records import Cost
from harness.running.frozen import Frozen
from harness.suite import VariantPlan, choose_device

CORES_OF_ONE = 4
"""Of a CPU, for each worker, where their number is not stated."""
FALSE_STARTS = 3
"""So often a worker that dies before its first unit is replaced."""
_STARTED = re.compile(r"\[\d+/\d+\] (\S+)")
_ENDED = re.compile(r"\d+ of \d+ complete")
_GOES_ON_ALONE = (0, 1, 2, 3)
"""Exit codes of a worker that had its say; with others it was stopped, or died."""

Environment = Mapping[str, str]


def run_side_by_side(
    frozen: Frozen,
    environments: Sequence[Environment],
    *,
    fail_fast: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Run the units of a frozen run in a worker for each environment, to their end.

    A signal is passed on, and comes out of this as `Stopped` or KeyboardInterrupt once
    all workers have ended; a second one kills them. Raises HarnessError after the first
    failure with `fail_fast`.
    """
    team = _Team(frozen, fail_fast, say)
    try:
        for environment in environments:
            team.start(environment)
        team.attend()
    except BaseException as interruption:
        stopped_by = signal.SIGTERM
        if isinstance(interruption, KeyboardInterrupt):
            stopped_by = signal.SIGINT
        team.stop(stopped_by)
        raise


def make_models(
    frozen: Frozen, store: Store, say: Callable[[str], None] = lambda line: None
) -> None:
    """Make the models that units need and that are made here, with all cores.

    Workers would wait for the one of them that does, on its share of the cores. What
    fails here fails again where a unit needs it, and is recorded there.
    """
    needed = {
        unit.model
        for unit in frozen.units
        if isinstance(unit, VariantPlan) and not store.has("subjects", unit.subject_key)
    }
    for label in sorted(needed):
        adapter = frozen.plan.experiment.models[label]
        if adapter.preparation(store.root) == Cost():
            continue
        try:
            adapter.load(store.root)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises
            say(f"{label}: {error}")


def environments(count: int | None, device: str, each: int) -> list[dict[str, str]]:
    """Return what each worker finds in its environment: its devices and its threads.

    GPUs are dealt out, `each` of them to a worker; what a suite names by its number, as
    ``cuda:1``, all of them share. Without a `count`, there is a worker for each share
    of the GPUs, or for every four cores.
    """
    cores, found = available_cores(), choose_device(device)
    shares = _shares(each) if found == "cuda" else []
    count = count or len(shares) or (max(1, cores // CORES_OF_ONE), 1)[found != "cpu"]
    threads = {"OMP_NUM_THREADS": str(max(1, cores // count))}
    threads = {**threads, **{x: os.environ[x] for x in threads if x in os.environ}}
    dealt = [{"CUDA_VISIBLE_DEVICES": share} for share in shares] or [{}]
    return [{**threads, **dealt[i % len(dealt)]} for i in range(count)]


def _shares(each: int) -> list[str]:
    """Split the GPUs that are visible into shares of some."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = (
        visible.split(",") if visible else map(str, range(torch.cuda.device_count()))
    )
    names = [*names]
    starts = range(0, max(len(names) - each, 0) + 1, each)
    return [",".join(names[start : start + each]) for start in starts]


class _Worker:
    """One process, and the unit that it is at."""

    def __init__(self, number: int, environment: Environment) -> None:
        self.name, self.environment = f"worker {number}", environment
        self.unit: str | None = None
        """The unit that it began last."""
        self.process: subprocess.Popen[str]

    def start(self, command: Sequence[str], run: str) -> None:
        self.unit = None
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, RUN: run, **self.environment},
            start_new_session=True,  # Ctrl-C reaches it through this process, once
        )
        threading.Thread(target=_clear, args=(self.process,), daemon=True).start()

    def kill(self) -> None:
        """End it and all that it started."""
        _kill_group(self.process.pid)
        self.process.wait()


def _clear(process: subprocess.Popen[str]) -> None:
    """Wait for a worker's end, and end what it leaves.

    A compiler that it started, say, would hold open what is read here to the end.
    """
    process.wait()
    _kill_group(process.pid)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


class _Team:
    """The workers of a run, and what they say."""

    def __init__(
        self, frozen: Frozen, fail_fast: bool, say: Callable[[str], None]
    ) -> None:
        self._command = [sys.executable, "-m", "harness", "run", str(frozen.suite)]
        self._command += ["--units", "all", *["--fail-fast"] * fail_fast]
        self._total, self._fail_fast, self._say = len(frozen.units), fail_fast, say
        self._run = os.environ.get(RUN) or secrets.token_hex(8)
        self._workers: list[_Worker] = []
        self._began: dict[str, int] = {}
        self._false_starts = 0
        self._heard: queue.SimpleQueue[tuple[_Worker, str | None]]
        self._heard = queue.SimpleQueue()

    def start(self, environment: Environment) -> None:
        """Start a worker."""
        self._begin(_Worker(len(self._workers) + 1, environment))

    def attend(self) -> None:
        """Print what workers say and replace those that die, until all are done."""
        while self._workers:
            worker, line = self._heard.get()
            if line is None:
                self._workers.remove(worker)
                self._ended(worker, worker.process.wait())
            else:
                self._print(worker, line.rstrip())

    def stop(self, number: signal.Signals) -> None:
        """Pass a signal on and wait for the workers; kill them if another one comes."""
        for worker in self._workers:
            worker.process.send_signal(number)
        try:
            while self._workers:
                worker, line = self._heard.get()
                if line is None:
                    self._workers.remove(worker)
                    worker.process.wait()
        except BaseException:
            for worker in self._workers:
                worker.kill()
            raise

    def _begin(self, worker: _Worker) -> None:
        worker.start(self._command, self._run)
        self._workers.append(worker)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with worker.process.stdout as said:
            for line in said:
                self._heard.put((worker, line))
        self._heard.put((worker, None))

    def _print(self, worker: _Worker, line: str) -> None:
        started = _STARTED.fullmatch(line)
        if started:
            worker.unit = started[1]
            number = self._began.setdefault(worker.unit, len(self._began) + 1)
            self._say(f"[{number}/{self._total}] {worker.unit}")
        elif line.strip() and not _ENDED.match(line):
            name = worker.unit or worker.name
            said = line.strip()
            self._say(said if said.startswith(name) else f"{name}: {said}")

    def _ended(self, worker: _Worker, code: int) -> None:
        """Go on without a worker, with another one, or not at all."""
        if code == Stopped.exit_code:
            raise Stopped(f"{worker.name} was stopped; run the same command again")
        if code == 130:
            raise KeyboardInterrupt
        if code == 1 and self._fail_fast:
            raise HarnessError("a unit failed, and --fail-fast is set")
        if code in _GOES_ON_ALONE:
            return
        self._false_starts += worker.unit is None
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._say(f"{worker.unit or worker.name}: its process died ({how})")
        if self._false_starts <= FALSE_STARTS:
            self._begin(worker)
