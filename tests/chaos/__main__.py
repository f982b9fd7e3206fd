"""Kill a run at many moments, let it go on, and compare what it wrote.

``python -m tests.chaos --kills 50`` runs a small suite undisturbed, then again and
again with a kill -9 at moments that the seed decides: at one of its changes of files,
or some milliseconds later. After up to five of them it runs to its end, and its folder
must be that of the undisturbed run. ``--stops`` does so with SIGTERM, SIGINT and
SIGUSR1 in turn, which must also end with their exit code and one line; ``--full-disks``
with a disk that is full too early, is read-only once and then grows, where this process
may mount one. In all of them the clock runs backwards.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.comparing import differences
from tests.chaos.disturbing import Ended, Moment, in_a_fork, run
from tests.chaos.small_disk import remount, small_disk
from tests.chaos.suite import write_suite

AT_MOST = 5
"""So many hits before a run may go on to its end."""
LATER_S = 0.05
CODES = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGUSR1: 75}
LINES = {
    signal.SIGTERM: "stopped by SIGTERM; run the same command again to go on",
    signal.SIGUSR1: "stopped by SIGUSR1; run the same command again to go on",
    signal.SIGINT: "interrupted; the same command goes on from here",
}


def main() -> int:
    """Do as the command line says; return 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=0)
    parser.add_argument("--full-disks", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    began = time.monotonic()
    stops = itertools.islice(itertools.cycle(LINES), told.stops)
    numbers = [*[signal.SIGKILL] * told.kills, *stops]
    with tempfile.TemporaryDirectory() as place:
        chaos = Chaos(Path(place), random.Random(told.seed))
        faults = [*chaos.faults(numbers)]
        for _ in range(told.full_disks):
            faults += chaos.faults_on_a_small_disk()
    for fault in faults:
        print(fault)
    print(
        f"{told.kills} kills, {told.stops} stops and {chaos.full} full disks in "
        f"{chaos.runs} runs, seed {told.seed}: {len(faults)} differences "
        f"({time.monotonic() - began:.0f} s)"
    )
    return 1 if faults else 0


class Chaos:
    """Runs of one suite, each compared with the undisturbed one."""

    def __init__(self, place: Path, rng: random.Random) -> None:
        """Run the suite undisturbed, in a folder of its own."""
        _import_all()
        self._place, self._rng = place, rng
        self._suite = place / "chaos.yaml"
        assert in_a_fork(lambda: write_suite(self._suite)) == 0
        self.runs = self.full = 0
        whole = self._go_on(place / "whole")
        assert whole.code == 0, whole.said
        self._changes = whole.changes
        # Twice, since blocks of a disk are larger than most files.
        files = (path for path in (place / "whole").rglob("*") if path.is_file())
        self._bytes = 2 * sum(path.stat().st_size for path in files)
        valid = run(["validate", str(place / "whole" / "run")], place / "whole")
        assert valid.code == 0, valid.said

    def faults(self, numbers: list[int]) -> Iterator[str]:
        """Hit runs with signals, in this order; yield what is wrong afterwards."""
        left = [*numbers]
        while left:
            self.runs += 1
            place = self._place / f"cut{self.runs}"
            yield from (f"run {self.runs}: {each}" for each in self._run(place, left))
            shutil.rmtree(place)

    def faults_on_a_small_disk(self) -> Iterator[str]:
        """Run where there is too little room, then read-only, then with room."""
        self.runs += 1
        place, size = self._place / "small", self._rng.randint(8192, self._bytes)
        with small_disk(place, size) as mounted:
            if mounted:
                yield from self._run_on(place, f"a disk of {size} bytes")
        place.rmdir()

    def _run_on(self, place: Path, disk: str) -> Iterator[str]:
        ended = self._go_on(place)
        self.full += ended.code == 1
        yield from _faults_of_disk(ended, disk, {0, 1})
        remount(place, "ro")
        if ended.code:
            yield from _faults_of_disk(self._go_on(place), "a read-only disk", {1})
        remount(place, "rw,size=100m")
        ended = self._go_on(place)
        if ended.code:
            yield f"it ends with {ended.code} after {disk}: {ended.said}"
        for each in differences(self._place / "whole" / "run", place / "run"):
            yield f"{each} (after {disk})"

    def _run(self, place: Path, left: list[int]) -> Iterator[str]:
        """Run to the end with some hits, which are taken from those that are left."""
        hits: list[Moment] = []
        while left and len(hits) < AT_MOST:
            moment = self._moment()
            ended = self._go_on(place, left[0], moment)
            if ended.code == 0 and ended.changes:  # it came to its end before that
                break
            hits.append(moment)
            yield from _faults_of(ended, left.pop(0))
        ended = self._go_on(place)
        if ended.code:
            yield f"it ends with {ended.code} after {hits}: {ended.said}"
        for each in differences(self._place / "whole" / "run", place / "run"):
            yield f"{each} (after {hits})"

    def _moment(self) -> Moment:
        later = self._rng.choice([0.0, self._rng.uniform(0, LATER_S)])
        return Moment(self._rng.randint(1, self._changes), later)

    def _go_on(
        self, place: Path, number: int = 0, moment: Moment | None = None
    ) -> Ended:
        place.mkdir(exist_ok=True)
        arguments = ["run", str(self._suite), "--out", str(place / "run")]
        return run(arguments, place, number, moment)


def _faults_of(ended: Ended, number: int) -> Iterator[str]:
    """Say how a process did not end as it should after a signal."""
    if ended.code != CODES[number]:
        yield f"signal {number}: it ends with {ended.code}: {ended.said}"
    elif number in LINES:
        *before, last = ended.said.splitlines()
        if last != LINES[number] or any("Traceback" in line for line in before):
            yield f"signal {number}: it says {ended.said}"


def _faults_of_disk(ended: Ended, disk: str, codes: set[int]) -> Iterator[str]:
    """Say how a process did not end as it should on a disk."""
    lines = ended.said.splitlines()
    said = [line for line in lines if line.startswith("error: ")]
    if ended.code not in codes or "Traceback" in ended.said:
        yield f"on {disk} it ends with {ended.code}: {ended.said}"
    elif ended.code and (len(said) != 1 or lines[-1] != said[0]):
        yield f"on {disk} it says {ended.said}"


def _import_all() -> None:
    """Import what runs need once, before any thread is there: children are forks."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from transformers.models.gpt_neox import modeling_gpt_neox  # noqa: F401

    import harness.cli.run  # noqa: F401
    from harness import report, running

    _ = (
        report.build,
        report.render,
        report.write_reports,
        running.run_plan,
        running.survey,
    )


if __name__ == "__main__":
    sys.exit(main())
