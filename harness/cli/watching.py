"""How far a run is while others work on it: counts, failures first, what is at work."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import click

from harness.base import HarnessError, utc_now
from harness.cli.printing import answer, say
from harness.cluster import QueuedJob, queued_jobs, was_submitted
from harness.running import Survey, SurveyedUnit

EVERY_S = 30.0
"""Between two looks: Slurm's controller has others to serve, too."""


def jobs_of(found: Survey) -> dict[str, QueuedJob] | None:
    """Return the cluster's jobs that are at units which are not complete, by unit.

    None, and a sentence on standard error, where the cluster does not answer.
    """
    try:
        queued = queued_jobs(found.folder)
    except HarnessError as error:
        say(f"what is in the queue is unknown: {error}")
        return None
    jobs = {unit: job for job in queued for unit in job.units}
    done = {unit.id for unit in found.units if unit.state.status == "complete"}
    return {unit: job for unit, job in jobs.items() if unit not in done}


def state_of(unit: SurveyedUnit, job: QueuedJob | None) -> str:
    """Say in a word or two what is with a unit: a job that is at it comes first."""
    if job is None or unit.state.status == "complete":
        first_line = unit.state.reason.partition("\n")[0]
        return f"{unit.state.status}: {first_line}" if first_line else unit.state.status
    why = f", {job.reason}" if job.state == "PENDING" else ""
    return f"{_word(job)} (job {job.id}{why})"


def watch(look: Callable[[], tuple[Survey, str]]) -> int:
    """Print the state of a run every 30 seconds until nothing works on it any more.

    `look` returns a survey, and how long the rest takes. Returns the exit code: 0 where
    all is complete.
    """
    while True:
        found, left = look()
        jobs = jobs_of(found)
        if sys.stdout.isatty():
            click.clear()
        answer("\n".join(_lines(found, jobs or {}, left)))
        if jobs is not None and _is_over(found, jobs):
            return int(found.counts["complete"] < len(found.units))
        time.sleep(EVERY_S)


def _is_over(found: Survey, jobs: Mapping[str, QueuedJob]) -> bool:
    """Say whether all units ended, or none of a run on a cluster is in the queue."""
    open_ = [unit for unit in found.units if unit.state.status == "missing"]
    return not jobs and (not open_ or was_submitted(found.folder))


def _lines(found: Survey, jobs: Mapping[str, QueuedJob], left: str) -> Iterator[str]:
    words = Counter(
        _word(jobs[unit.id]) if unit.id in jobs else unit.state.status
        for unit in found.units
    )
    counts = ", ".join(f"{count} {word}" for word, count in sorted(words.items()))
    yield f"{utc_now()} {found.folder.root}: {counts}{left}"
    for unit in found.units:
        if unit.state.status in ("failed", "invalid"):
            yield f"  {unit.id}: {state_of(unit, jobs.get(unit.id))}"
    for unit in found.units:
        if unit.id in jobs and _word(jobs[unit.id]) != "queued":
            yield f"  {unit.id}: {state_of(unit, jobs[unit.id])}"
    waits = Counter(job.reason for job in jobs.values() if _word(job) == "queued")
    for reason, count in waits.most_common():
        yield f"  {count} queued: {reason}"


def _word(job: QueuedJob) -> str:
    return "queued" if job.state == "PENDING" else job.state.lower()
