"""Submit what of a plan is neither complete nor in the queue."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.base import HarnessError, Store, UsageError, hold
from harness.cluster import batch
from harness.cluster.jobs import Job, jobs_for
from harness.cluster.queue import PLACE, QueuedJob, comment, has_slurm, queued_jobs
from harness.running import RunFolder, freeze, units_of
from harness.suite import (
    ClusterSection,
    Device,
    Plan,
    PricedPlan,
    Unit,
    find_device,
    own_cluster,
    plan_costs,
)

LOG = "slurm.log"
"""In the folder of a unit: what its jobs printed, and Slurm about them."""
_SPARE_MIN = 10
"""What a job gets besides its planned time."""
_REPORT = "report"
_UNFIT = "%'\"\\\n"
"""What Slurm takes for something else in the name of a log."""


@dataclass(frozen=True)
class Submitted:
    """A job that was submitted."""

    id: str
    name: str
    units: int
    """How many units it does; 0 for the job that ends the run."""
    tasks: int
    after: tuple[str, ...]
    """The ids of the jobs that it waits for."""
    limit: str | int
    """Its time limit: minutes, or as Slurm writes it."""


@dataclass(frozen=True)
class Submission:
    """What was submitted of a run, and what was not, and why."""

    place: Path | None
    """The folder of its batch scripts; None where there was nothing to submit."""
    jobs: list[Submitted]
    complete: int
    """Units that are complete."""
    queued: int
    """Units that jobs in the queue do already."""


def submit_run(
    plan: Plan,
    folder: RunFolder,
    store: Store,
    say: Callable[[str], None],
    *,
    rerun: bool = False,
) -> Submission:
    """Submit jobs for the units of a resolved plan; a job that reports comes last.

    What is complete, or done by a job in the queue, is left out, so that the same
    command again submits what is missing and nothing twice; of two at the same time,
    one waits for the other. With `rerun`, what is complete is done once more.

    Raises UsageError where there is no Slurm, or a time limit is not known, and
    HarnessError where Slurm refuses a job.
    """
    if not has_slurm():
        raise UsageError(
            "--executor slurm needs sbatch and squeue, which are not on this machine: "
            "run it where jobs are submitted"
        )
    root = folder.root.resolve()
    unfit = sorted(set(str(root)) & set(_UNFIT))
    if unfit:
        raise UsageError(f"{root}: Slurm cannot write logs below a name with {unfit}")
    section = plan.experiment.suite.cluster.over(own_cluster())
    submitter = _Submitter(plan, RunFolder(root), store, section, rerun)
    with hold(root / ".claims" / "submission", f"submitting {root}"):
        return submitter.submit(say)


@dataclass(frozen=True)
class _Submitter:
    plan: Plan
    folder: RunFolder
    store: Store
    section: ClusterSection
    rerun: bool

    def submit(self, say: Callable[[str], None]) -> Submission:
        jobs = queued_jobs(self.folder)
        active = {unit for job in jobs if not job.is_ending for unit in job.units}
        units = [unit for unit in units_of(self.plan) if unit.id not in active]
        missing = [unit for unit in units if self.rerun or not self._complete(unit)]
        counts = {"complete": len(units) - len(missing), "queued": len(active)}
        if not missing and active:
            return Submission(None, [], **counts)
        to_do = jobs_for(missing, _arrays(jobs), self.section.cells_per_job)
        for job in to_do:
            self._minutes(job)  # or a sentence, before anything is submitted
        place = self._new_place()
        frozen = freeze(self.plan, self.folder, place, rerun=self.rerun, say=say)
        done = self._submit_all(to_do, jobs, frozen.suite)
        return Submission(place, done, **counts)

    def _complete(self, unit: Unit) -> bool:
        return self.folder.state(unit.kind, unit.id).status == "complete"

    def _new_place(self) -> Path:
        """Make the next of the numbered folders."""
        cluster = self.folder.root / PLACE
        cluster.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.name) for path in cluster.iterdir() if path.name.isdigit()]
        place = cluster / f"{max(numbers, default=0) + 1:04}"
        place.mkdir()
        return place

    def _submit_all(
        self, jobs: Sequence[Job], queued: Sequence[QueuedJob], suite: Path
    ) -> list[Submitted]:
        done: dict[int, Submitted] = {}
        for job in jobs:
            after = [done[id(x)].id for x in job.after]
            try:
                done[id(job)] = self._submit(job, [*after, *job.queued], suite)
            except HarnessError as error:
                rest = f"{len(done)} jobs before it are in the queue; the same command"
                raise HarnessError(f"{error}\n{rest} submits the others") from error
        awaited = {id(x) for job in jobs for x in job.after}
        last = [own.id for key, own in done.items() if key not in awaited]
        before = {job.id.partition("_")[0] for job in queued}
        report = self._submit_report([*last, *sorted(before, key=int)], suite)
        return [*done.values(), report]

    def _submit(self, job: Job, after: Sequence[str], suite: Path) -> Submitted:
        place = suite.parent
        units = place / f"{job.name}.units"
        lines = [",".join(unit.id for unit in task) + "\n" for task in job.tasks]
        units.write_text("".join(lines))
        for number, task in enumerate(job.tasks):
            self._link_log(task[0], place / f"{job.name}.{number}.log")
        return self._sent(
            batch.Batch(
                name=f"{self.plan.experiment.suite.name}:{job.name}",
                comment=comment(self.folder.root, place.name, job.name),
                run=comment(self.folder.root, place.name, ""),
                command=["run", str(suite)],
                units=units,
                log=place / f"{job.name}.{'0' if job.trains else '%a'}.log",
                tasks=0 if job.trains else len(job.tasks),
                minutes=self._minutes(job),
                gpus=self._gpus(job),
                after=after,
            ),
            sum(map(len, job.tasks)),
            place,
        )

    def _submit_report(self, after: Sequence[str], suite: Path) -> Submitted:
        place = suite.parent
        return self._sent(
            batch.Batch(
                name=f"{self.plan.experiment.suite.name}:{_REPORT}",
                comment=comment(self.folder.root, place.name, _REPORT),
                run=comment(self.folder.root, place.name, ""),
                command=["run", str(suite), "--finish"],
                units=None,
                log=place / f"{_REPORT}.log",
                tasks=0,
                minutes=self._minutes(None),
                gpus=self._cell_gpus,
                after=after,
            ),
            0,
            place,
        )

    def _sent(self, one: batch.Batch, units: int, place: Path) -> Submitted:
        own = batch.submit(one, self.section, place)
        short = one.name.partition(":")[2]
        tasks, after = max(1, one.tasks), tuple(one.after)
        return Submitted(own, short, units, tasks, after, one.minutes)

    def _link_log(self, unit: Unit, link: Path) -> None:
        """Let a job print into the folder of its first unit, whatever its number is."""
        folder = self.folder.unit_dir(unit.kind, unit.id)
        folder.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(folder / LOG, link.parent))

    # --- what jobs ask for ----------------------------------------------------------

    @property
    def _cell_gpus(self) -> int:
        if self.section.gpus is not None:
            return self.section.gpus
        return 0 if self.plan.experiment.suite.device == "cpu" else 1

    def _gpus(self, job: Job) -> int:
        suite = self.plan.experiment.suite
        arm = job.tasks[0][0].variant.arm
        if job.trains and self._cell_gpus and suite.trains(arm):
            assert suite.recovery is not None  # the arm trains
            return suite.recovery.devices
        return self._cell_gpus

    def _minutes(self, job: Job | None) -> str | int:
        """Return a job's time limit: the stated one, or the planned one with a reserve.

        All jobs of an array have that of the longest.
        """
        if self.section.time is not None:
            return self.section.time
        priced = self._priced
        if job is None:
            ids = [unit.id for unit in self.plan.units]
            planned = priced.run_seconds(ids) - sum(map(priced.unit_seconds, ids))
        else:
            tasks = ([unit.id for unit in task] for task in job.tasks)
            planned = max(sum(map(priced.unit_seconds, task)) for task in tasks)
            planned += priced.device.per_run_s
        return math.ceil(planned * self.section.reserve / 60) + _SPARE_MIN

    @cached_property
    def _priced(self) -> PricedPlan:
        costs = plan_costs(self.plan, self.store.root)
        priced = PricedPlan(self.plan, costs, self._device())
        unknown = [x for x, shape in costs.shapes.items() if shape is None]
        if unknown:
            raise UsageError(
                f"nothing is known of the size of {', '.join(unknown)}, so that jobs "
                "cannot be planned: state `cluster.time`"
            )
        return priced

    def _device(self) -> Device:
        if not self._cell_gpus:
            return find_device("cpu")
        found = find_device(self.section.device or "auto")
        if found.is_cpu:
            raise UsageError(
                "there is no GPU here to plan times for: state `cluster.device`, such "
                "as A100-40GB or H100, or `cluster.time`"
            )
        return found


def _arrays(jobs: Sequence[QueuedJob]) -> dict[str, list[str]]:
    """Return the ids of the jobs and arrays that do units, by unit."""
    found: dict[str, list[str]] = {}
    for job in jobs:
        for unit in job.units:
            found.setdefault(unit, []).append(job.id.partition("_")[0])
    return found
