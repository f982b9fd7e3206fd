"""The jobs of a run that are in Slurm's queue, as `squeue` lists them.

There is no other record of them: a job names the run folder and the list of its units
in its comment, so that nothing can be forgotten between submitting and writing down.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness.base import HarnessError, content_hash
from harness.running import RunFolder

PLACE = "cluster"
"""The folder, in the run folder, of what was submitted."""
ENDING = ("COMPLETING", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "COMPLETED")
"""States in which a job does no more; if it goes back into the queue, that shows."""


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue, or one of an array."""

    id: str
    """As Slurm writes it: ``12``, or ``12_3`` for one of an array."""
    state: str
    """PENDING, RUNNING and so on."""
    reason: str
    """Why it is pending, in Slurm's words."""
    units: tuple[str, ...]
    """The ids of the units that it does; none for the job that ends a run."""

    @property
    def is_ending(self) -> bool:
        """Whether it does no more."""
        return self.state in ENDING


def has_slurm() -> bool:
    """Say whether Slurm's commands are on this machine."""
    return shutil.which("squeue") is not None and shutil.which("sbatch") is not None


def was_submitted(folder: RunFolder) -> bool:
    """Say whether jobs of a run were ever submitted."""
    return (folder.root / PLACE).is_dir()


def comment(root: Path, submission: str, job: str) -> str:
    """Return what a job says of itself: which run, and which list of units."""
    return f"{_run_name(root)}/{submission}/{job}"


def queued_jobs(folder: RunFolder) -> list[QueuedJob]:
    """Return the user's jobs that work on a run folder, by id.

    Nothing where this machine has no Slurm, or the run was never submitted. Raises
    HarnessError where Slurm does not answer: what is unknown is not taken for absent.
    """
    if not was_submitted(folder) or not has_slurm():
        return []
    lines = run_slurm(
        *("squeue", "--noheader", "--array", "--user", str(os.getuid())),
        *("--format", "%i|%T|%r|%k"),
    ).splitlines()
    found = (_read(folder, *line.strip().split("|", 3)) for line in lines)
    return sorted((job for job in found if job), key=lambda job: _number(job.id))


def cancel(folder: RunFolder) -> list[QueuedJob]:
    """Take a run's jobs out of the queue, those that wait before those that run.

    Returns them. What they finished stays, and what they were at is neither complete
    nor failed.
    """
    jobs = queued_jobs(folder)
    pending = [job.id for job in jobs if job.state == "PENDING"]
    others = [job.id for job in jobs if job.state != "PENDING"]
    for ids in (pending, others):
        if ids:  # an id that ended in the meantime is no error of scancel
            run_slurm("scancel", *_arrays(ids, jobs))
    return jobs


def run_slurm(*command: str) -> str:
    """Return what a command of Slurm prints; HarnessError where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(f"{command[0]} does not answer: {error}") from error
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise HarnessError(f"{command[0]} failed: {said}")
    return done.stdout


def _read(
    folder: RunFolder, own: str = "", state: str = "", reason: str = "", said: str = ""
) -> QueuedJob | None:
    """Read a line of squeue; None for a job of something else."""
    run, _, rest = said.partition("/")
    submission, _, job = rest.partition("/")
    if run != _run_name(folder.root):
        return None
    tasks = _tasks(folder.root / PLACE / submission / f"{job}.units")
    _, task = _number(own)
    return QueuedJob(own, state, reason, tasks[task] if task < len(tasks) else ())


@lru_cache
def _tasks(path: Path) -> list[tuple[str, ...]]:
    """Read the units of each task of a job from its list, which never changes."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [tuple(line.split(",")) for line in lines]


def _run_name(root: Path) -> str:
    return f"harness-{content_hash(str(root.resolve()))[:12]}"


def _number(job_id: str) -> tuple[int, int]:
    array, _, task = job_id.partition("_")
    return int(array), int(task or 0)


def _arrays(ids: Sequence[str], jobs: Iterable[QueuedJob]) -> list[str]:
    """Name arrays as a whole where all that is left of them is meant."""
    kept = {job.id.partition("_")[0] for job in jobs if job.id not in ids}
    short = (x if x.partition("_")[0] in kept else x.partition("_")[0] for x in ids)
    return list(dict.fromkeys(short))
